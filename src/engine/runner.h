/* SPDX-License-Identifier: MIT */
/* Runners: threads of the library that run a device's queues. See runner.c. */
#ifndef ENGINE_RUNNER_H
#define ENGINE_RUNNER_H

#include "dev/dev.h"

/* Once the device is open: 0, or -ENOMEM, after which none is there. */
int runners_start(ploop_dev *dev);

/* At the end of close and abort, when the device is at rest. */
void runners_stop(ploop_dev *dev);

/* Whether this thread is one. */
bool on_runner(void);

/* Any thread. Bulk work on memory is there: a runner does it. */
void runners_do_bulk(ploop_dev *dev);

#endif
