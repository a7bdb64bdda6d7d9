/* SPDX-License-Identifier: MIT */
/* All scenarios; a new one gets a name here and in scenarios.c. */
#ifndef SCHED_SCENARIOS_H
#define SCHED_SCENARIOS_H

#include "scenario.h"

/* scenario_turn.c */
extern const struct scenario turn_posts, turn_hand_over, lock_mixed, lock_queued, lock_changed,
    two_submitters, device_hand_over;
/* scenario_fast.c */
extern const struct scenario fast_discard, read_discard, fast_copy;
/* scenario_life.c */
extern const struct scenario fast_suspend, adopt_suspend, resume_suspend, close_completion,
    abort_completion, runner_close;
/* scenario_queue.c */
extern const struct scenario pool_room, pool_stack, delivery, callback_chain, event_descriptor,
    event_full_ring, same_queue, same_queue_inline, owner_sleeps, owner_sleeps_discard, engine_ring,
    queue_wait;
/* scenario_backend.c */
extern const struct scenario full_ring, flush_completion, blocking_device, blocking_reap,
    blocking_help, execute_device, execute_reap, execute_help, execute_callback;
/* scenario_runner.c */
extern const struct scenario runner_device, runner_reap, runner_copy, runner_execute, runner_chain;
/* scenario_stack.c */
extern const struct scenario look_below, look_refused, stack_suspend, stack_full;
/* scenario_partial.c */
extern const struct scenario partial_read, partial_flush, partial_discard, partial_suspend;
/* scenario_snapshot.c */
extern const struct scenario snapshot_write, snapshot_read, merge_write, merge_read;
/* scenario_grow.c */
extern const struct scenario grow_write, grow_read, grow_discard, grow_suspend, grow_close;
/* scenario_replace.c */
extern const struct scenario replace_read, replace_write;
/* scenario_suspend.c */
extern const struct scenario start_suspend, start_resumed;
/* scenario_reap.c */
extern const struct scenario reap_descriptor, reap_notify;
/* scenario_pool.c */
extern const struct scenario io_threads, io_threads_cancel;

#endif
