/* SPDX-License-Identifier: MIT */
/* How the copies from lower deltas are put off in a run: R9. */
#include "pio/partial.h"

#include "rng.h"
#include "sim.h"

/* Whether copies from lower deltas are put off, and how many, and for how long. */
void sim_choose_copies(struct sim *sim)
{
    static const uint64_t delays[] = {1000000, 50000000, UINT64_C(5000000000), UINT64_MAX};
    struct rng apart = {sim->rng.state ^ 0x636f70696573}; /* the other runs stay the same */
    partial_limits = (struct partial_limits){RUNS_MAX, PARTIAL_RECORDS, PARTIAL_BYTES_MAX};
    if (!rng_permille(&apart, 700))
        return;
    sim->config.cow_delay_ns = delays[rng_below(&apart, 4)];
    if (rng_permille(&apart, 300))
        partial_limits.runs = (uint32_t)rng_between(&apart, 1, 3);
    if (rng_permille(&apart, 300))
        partial_limits.records = (uint32_t)rng_between(&apart, 1, 3);
}
