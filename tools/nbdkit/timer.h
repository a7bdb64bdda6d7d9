/* SPDX-License-Identifier: MIT */
/*
 * The thread that runs a device when its clock asks for it, because the library has no threads.
 */
#ifndef NBDKIT_PLOOP_TIMER_H
#define NBDKIT_PLOOP_TIMER_H

#include <pthread.h>
#include <stdbool.h>

#include <ploop/dev.h>

struct timer {
    struct ploop_clock clock; /* for ploop_dev_config.clock; it stores deadlines from init on */
    ploop_dev *dev;
    pthread_t thread;
    pthread_mutex_t lock; /* protects the fields below */
    pthread_cond_t changed;
    uint64_t deadline_ns;
    bool stop;
};

/* Monotonic. */
uint64_t timer_now(void);

/* The timer stays where it is from here to destroy. */
void timer_init(struct timer *timer);
void timer_destroy(struct timer *timer);

/* Start the thread, for a device opened with the clock. Returns 0 or -errno. */
int timer_start(struct timer *timer, ploop_dev *dev);

/* Stop the thread: before the device is closed. */
void timer_stop(struct timer *timer);

#endif
