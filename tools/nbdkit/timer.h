/* SPDX-License-Identifier: MIT */
/*
 * The thread that runs the device when its clock asks for it, because the library has no threads.
 */
#ifndef NBDKIT_PLOOP_TIMER_H
#define NBDKIT_PLOOP_TIMER_H

#include <ploop/dev.h>

/*
 * The clock for ploop_dev_config.clock. It stores deadlines from the moment the device is being
 * opened.
 */
extern const struct ploop_clock timer_clock;

/* Start the thread, for a device opened with the clock. Returns 0 or -errno. */
int timer_start(ploop_dev *device);

/* Stop the thread: before the device is closed. */
void timer_stop(void);

#endif
