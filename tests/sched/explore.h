/* SPDX-License-Identifier: MIT */
/*
 * What is chosen where. A schedule is a list of deviations from the default, by the step at which
 * they are made: by default a fiber goes on until it waits, then the next one in the order of
 * spawning that can; every other choice is its first option.
 *
 *     exhaustive  all schedules with deviations of a cost up to a bound: leaving a fiber that could
 *                 go on costs 1, so does ending a wait for time early or a weak compare-exchange
 *                 that fails; another than the next fiber where one waits or ends, and the
 *                 scenario's own choices, cost nothing, and are limited in number
 *     random      PCT: fibers have random priorities, the one with the highest runs, and at some
 *                 random steps it gets the lowest
 *     replay      one list
 */
#ifndef SCHED_EXPLORE_H
#define SCHED_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>

#include "scenario.h"

enum { OPTIONS_MAX = 32 };

/* Of a choice among fibers the value is the fiber's number. */
struct way {
    uint8_t value;
    uint8_t cost;
    bool early; /* ends a wait for time */
};

enum choice { CHOOSE_FIBER, CHOOSE_OTHER };

/* The first option is the default one. */
uint8_t explore_choose(enum choice choice, const struct way *options, unsigned count);

/* A step: every scheduling point is one, even if there is nothing to choose. Returns its number. */
uint32_t explore_step(void);

/*
 * Note which fiber touched an object. Returns whether more than one fiber does, and one changes it:
 * for other objects a switch makes no difference.
 */
bool explore_is_shared(const volatile void *object, unsigned fiber, bool writes);

/* The choices made so far, in the form that --replay takes. */
const char *explore_replay(void);

struct exploration {
    uint64_t schedules;
    uint64_t steps;   /* of the longest schedule */
    uint64_t choices; /* of fibers, in the schedule with the most choices */
    bool complete;    /* there is no further schedule within the bound */
};

/* Each returns if no failure was found. `limit`: the largest number of schedules; 0: none. */
void explore_set_up(const struct scenario *given); /* before any of them */
struct exploration explore_exhaustively(unsigned bound, uint64_t limit);
struct exploration explore_randomly(uint64_t seed, uint64_t schedules);
void explore_replayed(const char *deviations);

#endif
