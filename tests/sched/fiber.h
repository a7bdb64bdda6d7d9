/* SPDX-License-Identifier: MIT */
/*
 * Fibers: the threads of a scenario, in one thread of the system, so that a schedule is what the
 * explorer chose and replays exactly.
 *
 *     spawned -> ready <-> runs -> ended
 *                  ^        |
 *                  +-- waits: until its condition holds, or its time has come
 *
 *  1. One fiber runs at a time, until it waits, ends, or another is chosen at one of its scheduling
 *     points.
 *  2. The clock stands still while any fiber can run. When none can, it moves to the first time
 *     that a fiber waits for: an expiry. A scenario that forbids expiries finds lost wake-ups that
 *     a nap would hide. If the explorer chooses so, a wait ends early; that is no expiry.
 *  3. A schedule is over when no fiber can run and all but the daemons have ended. A fiber that
 *     waits for ever is a failure: deadlock.
 *  4. Outside a schedule, in a scenario's set-up and its last checks, nothing is chosen: each call
 *     runs to its end.
 */
#ifndef SCHED_FIBER_H
#define SCHED_FIBER_H

#include <stdbool.h>
#include <stdint.h>

enum { FIBERS_MAX = 12 };

typedef void fiber_fn(void *argument);
typedef bool ready_fn(void *argument);

/* Returns its number, from 0 in the order of spawning. A daemon need not end. */
unsigned sched_spawn(const char *name, fiber_fn *fn, void *argument, bool daemon);
void sched_rename(unsigned fiber, const char *name);
bool sched_has_ended(unsigned fiber);

/* The running fiber; 0 outside a schedule as well. */
unsigned sched_self(void);
bool sched_is_running(void);

/*
 * Wait for a condition that other fibers make true, or for a time; 0: no time. False: the time came
 * first. `object`: the object that the condition is about.
 */
bool sched_wait(const char *file, int line, const char *what, ready_fn *ready, void *argument,
                uint64_t until_ns);

/* A number of [0, count), by the explorer's choice; 0 outside a schedule. */
unsigned sched_choose(unsigned count);

uint64_t sched_now(void);
/* The number of times the clock had to move because no fiber could run. */
uint64_t sched_expiries(void);

/* The schedule has a failure: print it and how to replay it, and exit. */
void sched_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* For the explorer: forget all fibers; run a schedule from the state as it is. */
void fibers_start(void);
void fibers_run(void);

#endif
