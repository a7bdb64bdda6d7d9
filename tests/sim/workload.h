/* SPDX-License-Identifier: MIT */
/*
 * A run: a world drawn from its seed, and a list of steps. Each step has a separate seed, so that a
 * run with steps left out stays much the same; the shrinker relies on this.
 */
#ifndef SIM_WORKLOAD_H
#define SIM_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct workload {
    uint64_t seed;
    uint32_t step_count;
    uint32_t cut_permille;
    bool *skip; /* per step; NULL: none */
};

void workload_run(const struct workload *workload);

#endif
