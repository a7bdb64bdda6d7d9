/* SPDX-License-Identifier: MIT */
#include "scenarios.h"

#include <stddef.h>

const struct scenario *const scenarios[] = {
    &turn_posts,       &turn_hand_over,    &lock_mixed,       &lock_queued,
    &lock_changed,     &two_submitters,    &device_hand_over, &fast_discard,
    &read_discard,     &fast_copy,         &fast_suspend,     &resume_suspend,
    &close_completion, &abort_completion,  &pool_room,        &pool_stack,
    &delivery,         &callback_chain,    &event_descriptor, &event_full_ring,
    &same_queue,       &same_queue_inline, &owner_sleeps,     &owner_sleeps_discard,
    &engine_ring,      &queue_wait,        &full_ring,        &flush_completion,
    &blocking_device,  &blocking_reap,     &io_threads,       &io_threads_cancel,
    &adopt_suspend,    &runner_device,     &runner_reap,      &runner_copy,
    &runner_close,     &blocking_help,     &execute_device,   &execute_reap,
    &execute_help,     &look_below,        &look_refused,     &stack_suspend,
    &stack_full,       &runner_execute,    &runner_chain,     &execute_callback,
    &snapshot_write,   &snapshot_read,     &merge_write,      &merge_read,
    &reap_descriptor,  &reap_notify,       &grow_write,       &grow_read,
    &grow_discard,     &grow_suspend,      &grow_close,       &replace_read,
    &replace_write,    &start_suspend,     &start_resumed,    &partial_read,
    &partial_flush,    &partial_discard,   &partial_suspend,  NULL,
};
