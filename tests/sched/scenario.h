/* SPDX-License-Identifier: MIT */
/*
 * A scenario: a world that is set up once, some fibers in it, and what must hold when all of them
 * have ended.
 */
#ifndef SCHED_SCENARIO_H
#define SCHED_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

struct scenario {
    const char *name;
    const char *about;
    void (*set_up)(void); /* spawns the fibers */
    void (*finish)(void); /* or NULL */
    unsigned bound;       /* of the quick tier's exhaustive exploration */
    uint64_t random;      /* and this many random schedules */
    bool may_expire;      /* a wait may have to be ended by the clock */
};

extern const struct scenario *const scenarios[]; /* NULL ends it */

/* The running scenario, for the line of a failure. */
extern const struct scenario *scenario_running;

#endif
