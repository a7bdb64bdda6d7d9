/* SPDX-License-Identifier: MIT */
/* Bits by number, and the search for runs of them. */
#ifndef UTIL_BITMAP_H
#define UTIL_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "util/growing.h"

struct bitmap {
    uint64_t *words; /* in `memory` */
    uint64_t bits;
    struct growing memory;
};

/* All bits are clear, and what is never touched takes no memory. 0 or -ENOMEM. */
int bitmap_init(struct bitmap *bitmap, uint64_t bits);

/* As bitmap_init(), with address space for `limit` bits: see growing.h. */
int bitmap_init_growing(struct bitmap *bitmap, uint64_t bits, uint64_t limit);
void bitmap_free(struct bitmap *bitmap);

/* More bits, within the limit; the new ones are clear. 0, or -ENOMEM: it is as it was. */
int bitmap_extend(struct bitmap *bitmap, uint64_t bits);

/* Set or clear bits [from, end) if all of them have the other value. False: nothing was changed. */
bool bitmap_set_range(struct bitmap *bitmap, uint64_t from, uint64_t end);
bool bitmap_clear_range(struct bitmap *bitmap, uint64_t from, uint64_t end);

/* True where the bit was clear before. */
bool bitmap_set(struct bitmap *bitmap, uint64_t bit);
/* True where the bit was set before. */
bool bitmap_clear(struct bitmap *bitmap, uint64_t bit);
bool bitmap_test(const struct bitmap *bitmap, uint64_t bit);

/* The first set bit in [from, end), or end. */
uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from, uint64_t end);

/* How many bits from `from` on are set in a row, at most `limit`. */
uint64_t bitmap_run(const struct bitmap *bitmap, uint64_t from, uint64_t limit);

#endif
