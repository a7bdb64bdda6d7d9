/* SPDX-License-Identifier: MIT */
/*
 * A set of sectors, as a few runs in ascending order.
 *
 *  1. Between two runs there is at least one sector that is in neither.
 *  2. No run is empty, and there are RUNS_MAX at most: what would need more is refused.
 */
#ifndef UTIL_RUNS_H
#define UTIL_RUNS_H

#include <stdbool.h>
#include <stdint.h>

enum { RUNS_MAX = 32 };

struct run {
    uint32_t begin, end;
};

struct run_set {
    uint32_t count;
    struct run runs[RUNS_MAX];
};

/* How many runs there are once [begin, end) is added. */
uint32_t runs_count_with(const struct run_set *set, uint32_t begin, uint32_t end);

/* Adds [begin, end), which must fit. Returns how many sectors are new. */
uint32_t runs_add(struct run_set *set, uint32_t begin, uint32_t end);

/* Of [begin, end): from the first sector that is in the set to the last. False: none is. */
bool runs_span(const struct run_set *set, uint32_t begin, uint32_t end, struct run *span);

/* The same of those that are not in the set. */
bool runs_gap_span(const struct run_set *set, uint32_t begin, uint32_t end, struct run *span);

/* The first run that ends behind `from`, or NULL. */
const struct run *runs_from(const struct run_set *set, uint32_t from);

#endif
