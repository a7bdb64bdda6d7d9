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
 *     GATE_HOLDS   a request that comes is held, and one that is under way stops between its parts:
 *                  GATE_SUSPENDED all requests, GATE_JOB those that change the disk
 *     GATE_ENDS    a request that comes ends with -ECANCELED, and so does what is held
 *     the others   the engine serves the request, or refuses it
 *
 *  1. dev_set_state() is the only function that changes the state, and gate_change() the only one
 *     that changes the gate. Both belong to the owner of the turn.
 *  2. A reason is added and removed by its owner only: dev_set_state() owns those that a state
 *     brings, the opening call GATE_ENGINE_ONLY, the latch or a job GATE_CHANGES_REFUSED, a job
 *     GATE_JOB. So a resume cannot open a gate that a job has closed.
 *  3. Held requests begin again when a reason that holds is gone; those that another one holds are
 *     held again, in their order; or they end.
 *  4. The gate is closed before the requests in flight are counted (submit.c, 1).
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "dev/dev.h"

/* The transition must be one of those above. */
void dev_set_state(ploop_dev *dev, enum dev_state state);

/* Removes reasons that are there, and adds reasons that are not. */
void gate_change(ploop_dev *dev, uint32_t remove, uint32_t add);

void assert_dev(const ploop_dev *dev);

#endif
