/* SPDX-License-Identifier: MIT */
/* All scenarios; a new one gets a line here and one in scenarios.c. */
#ifndef SCHED_SCENARIOS_H
#define SCHED_SCENARIOS_H

#include "scenario.h"

extern const struct scenario fast_discard;                                                     /* scenario_fast.c */
extern const struct scenario two_submitters;                                                   /* scenario_turn.c */
extern const struct scenario fast_suspend, resume_suspend, close_completion, abort_completion; /* scenario_life.c */
extern const struct scenario pool_room, pool_stack, delivery, event_descriptor;                /* scenario_queue.c */
extern const struct scenario full_ring, flush_completion;                                      /* scenario_backend.c */

#endif
