/* SPDX-License-Identifier: MIT */
/*
 * The clock of the simulator: it stands still until told otherwise, and stores when the library
 * wants to be run.
 */
#ifndef SIM_CLOCK_H
#define SIM_CLOCK_H

#include <ploop/dev.h>

#include "rng.h"

struct sim_clock {
    uint64_t now_ns;
    uint64_t wake_ns; /* UINT64_MAX: not asked for */
    uint64_t wakes;
};

void clock_init(struct sim_clock *clock);
void clock_ops(struct sim_clock *clock, struct ploop_clock *ops);

/* A usual stretch of time passes. */
void clock_advance(struct sim_clock *clock, uint64_t ns);
/* It jumps hours ahead, or goes back. */
void clock_disturb(struct sim_clock *clock, struct rng *rng);

#endif
