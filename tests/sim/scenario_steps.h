/* SPDX-License-Identifier: MIT */
/* What scenarios are made of, and those that have a file of their own. */
#ifndef SIM_SCENARIO_STEPS_H
#define SIM_SCENARIO_STEPS_H

#include "sim.h"

/*
 * Sectors by name: the first sector of the nth cluster of the nth run of hot clusters (run 0 in
 * page 0, run 2 over pages 1 and 2).
 */
static inline uint64_t at(const struct sim *sim, uint32_t run, uint32_t cluster)
{
    return (uint64_t)(sim->image.runs[run].first + cluster) * sim->image.cluster_sectors;
}

static inline uint64_t whole(const struct sim *sim)
{
    return sim->image.cluster_sectors;
}

/* Submit one request and wait for it; the model handles its success or failure. */
static inline void done(struct sim *sim, enum guest_kind kind, uint64_t first, uint64_t count,
                        uint32_t flags)
{
    guest_do(sim, kind, first, count, flags);
    session_drain(sim);
}

static inline void flush(struct sim *sim)
{
    done(sim, GUEST_FLUSH, 0, 0, 0);
}

/* ---- scenario_copies.c: over a delta ---- */
void copy_on_write(struct sim *sim);
void copies_at_once(struct sim *sim);
void partial_clusters(struct sim *sim);
void copy_put_off(struct sim *sim);

#endif
