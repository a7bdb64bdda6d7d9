/* SPDX-License-Identifier: MIT */
#include "scenarios.h"

#include <stddef.h>

const struct scenario *const scenarios[] = {
    &fast_discard,     &two_submitters,   &fast_suspend, &resume_suspend, &close_completion,
    &abort_completion, &pool_room,        &pool_stack,   &delivery,       &event_descriptor,
    &full_ring,        &flush_completion, NULL,
};
