/* SPDX-License-Identifier: MIT */
/* Scenarios over a delta that is below: clusters are copied, at once or later. */
#include "scenario_steps.h"

void copy_on_write(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0) + 1, 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 0), whole(sim), 0);
    flush(sim);
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, PLOOP_PIO_FUA);
    done(sim, GUEST_WRITE, at(sim, 0, 1), 1, PLOOP_PIO_FUA);
    done(sim, GUEST_ZEROES, at(sim, 2, 1), 1, 0);
    done(sim, GUEST_ZEROES, at(sim, 3, 0), whole(sim), PLOOP_PIO_FUA);
    flush(sim);
    done(sim, GUEST_DISCARD, at(sim, 0, 0), 2 * whole(sim), 0);
    done(sim, GUEST_DISCARD, at(sim, 1, 0), whole(sim), 0);
    flush(sim);
    done(sim, GUEST_WRITE, at(sim, 1, 1), 1, 0);
    done(sim, GUEST_READ, at(sim, 1, 0), 2 * whole(sim), 0);
}

void copies_at_once(struct sim *sim)
{
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0) + 1, 1, PLOOP_PIO_FUA);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 1), whole(sim), 0);
    guest_do(sim, GUEST_READ, at(sim, 0, 0), 2 * whole(sim), 0);
    guest_do(sim, GUEST_DISCARD, at(sim, 0, 0), 2 * whole(sim), 0);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 2, 0), 2, 0);
    guest_do(sim, GUEST_ZEROES, at(sim, 2, 0) + 1, whole(sim), 0);
    session_drain(sim);
    flush(sim);
}

/* Of clusters that are copied later, if copies are put off. */
void partial_clusters(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0) + 1, 1, 0);
    done(sim, GUEST_READ, at(sim, 0, 0), whole(sim), 0);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 1), 1, 0);
    guest_do(sim, GUEST_READ, at(sim, 0, 0), 2 * whole(sim), 0);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    guest_do(sim, GUEST_DISCARD, at(sim, 0, 0), 2 * whole(sim), 0);
    session_drain(sim);
    done(sim, GUEST_WRITE, at(sim, 1, 0), 1, 0);
    done(sim, GUEST_ZEROES, at(sim, 1, 0) + 1, 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 0), 1, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 1, 0), 1, PLOOP_PIO_FUA);
    guest_do(sim, GUEST_WRITE, at(sim, 2, 0) + 1, whole(sim) - 1, 0);
    guest_do(sim, GUEST_ZEROES, at(sim, 2, 0), whole(sim), 0);
    session_drain(sim);
    done(sim, GUEST_WRITE, at(sim, 3, 0), 1, 0);
    sim_suspend(sim);
    sim_suspend(sim);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, 0);
    flush(sim);
}

/* The flush fails where the copy does. */
void copy_put_off(struct sim *sim)
{
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0) + 1, 1, 0);
    flush(sim);
}
