/* SPDX-License-Identifier: MIT */
/*
 * The states of a device, and its gate.
 *
 *     OPENING ---> RUNNING <---> SUSPENDED
 *        |          |  |          |  |
 *        |          |  +--close---+--|--> CLOSING --quiet--> CLOSED
 *        +---abort--+----------------+--> ABORTING
 *
 *     OPENING    only the call that opens the device knows it
 *     RUNNING    requests are served
 *     SUSPENDED  requests are held, in order
 *     CLOSING    requests that come are served; none waits for space any more
 *     CLOSED     close has started writing; requests that come fail with -ECANCELED
 *     ABORTING   nothing reaches a backend any more; every request fails with -ECANCELED
 *
 * The gate is a set of reasons. The fast path is open when the set is empty; else every request
 * goes to the engine, which looks at the reasons:
 *
 *     GATE_HOLDS   a request that comes is held, and one that is under way stops between its parts
 *     GATE_ENDS    a request that comes ends with -ECANCELED, and so does what is held
 *     the others   the engine serves the request, or refuses it
 *
 *  1. dev_set_state() is the only function that changes the state, and gate_change() the only one
 *     that changes the gate. Both belong to the owner of the turn.
 *  2. A reason is added and removed by its owner only: dev_set_state() owns those that a state
 *     brings, the opening call GATE_ENGINE_ONLY, the latch GATE_CHANGES_REFUSED, a job GATE_JOB. So
 *     a resume cannot open a gate that a job has closed.
 *  3. Held requests begin again when no reason holds them any more, and only then; or they end.
 *  4. The gate is closed before the requests in flight are counted (submit.c, 1).
 */
#ifndef DEV_STATE_H
#define DEV_STATE_H

#include <stdint.h>

struct ploop_dev;

enum dev_state {
    DEV_OPENING,
    DEV_RUNNING,
    DEV_SUSPENDED,
    DEV_CLOSING,
    DEV_CLOSED,
    DEV_ABORTING,
    DEV_STATES
};

enum gate_reason {
    GATE_SUSPENDED = 1 << 0,
    GATE_JOB = 1 << 1, /* a change of the stack is being committed; no job exists yet */
    GATE_CLOSED = 1 << 2,
    GATE_ABORTING = 1 << 3,
    GATE_CHANGES_REFUSED = 1 << 4, /* a SYNC failed, and the policy is to write nothing then */
    GATE_ENGINE_ONLY = 1 << 5,     /* PLOOP_DEV_NO_FAST_PATH */
    GATE_HOLDS = GATE_SUSPENDED | GATE_JOB,
    GATE_ENDS = GATE_CLOSED | GATE_ABORTING
};

/* The transition must be one of those above. */
void dev_set_state(struct ploop_dev *dev, enum dev_state state);

/* Removes reasons that are there, and adds reasons that are not. */
void gate_change(struct ploop_dev *dev, uint32_t remove, uint32_t add);

void assert_dev(const struct ploop_dev *dev);

#endif
