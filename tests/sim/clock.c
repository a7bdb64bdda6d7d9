/* SPDX-License-Identifier: MIT */
/* See clock.h. */
#include "clock.h"

#include <string.h>

void clock_init(struct sim_clock *clock)
{
    clock->now_ns = UINT64_C(3600) * 1000000000;
    clock->wake_ns = UINT64_MAX;
    clock->wakes = 0;
}

static uint64_t now_ns(void *context)
{
    return ((struct sim_clock *)context)->now_ns;
}

static void wake_at(void *context, uint64_t deadline_ns)
{
    struct sim_clock *clock = context;
    clock->wake_ns = deadline_ns;
    clock->wakes++;
}

void clock_ops(struct sim_clock *clock, struct ploop_clock *ops)
{
    memset(ops, 0, sizeof(*ops));
    ops->size = sizeof(*ops);
    ops->context = clock;
    ops->now_ns = now_ns;
    ops->wake_at = wake_at;
}

void clock_advance(struct sim_clock *clock, uint64_t ns)
{
    clock->now_ns += ns;
}

void clock_disturb(struct sim_clock *clock, struct rng *rng)
{
    if (rng_permille(rng, 500))
        clock->now_ns += rng_below(rng, UINT64_C(36000) * 1000000000);
    else
        clock->now_ns -= rng_below(rng, clock->now_ns / 2);
}
