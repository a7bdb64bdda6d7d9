/* SPDX-License-Identifier: MIT */
/* When a device is quiet, and when it is at rest: rest.c. */
#ifndef LIFE_REST_H
#define LIFE_REST_H

#include <stdbool.h>

struct ploop_dev;

/* Any thread. No request is in flight but those that wait for space with all their parts. */
bool dev_is_quiet(struct ploop_dev *dev);

/*
 * Waits until the device is quiet and nothing is left to deliver. Delivers completions in the
 * calling thread.
 */
void dev_wait_until_quiet(struct ploop_dev *dev);

/* Of a device that is at rest and about to be freed: no request and no part is left anywhere. */
void assert_nothing_left(const struct ploop_dev *dev);

/* Waits until, besides, nothing is at a backend and no other thread is inside the turn. */
void dev_wait_for_rest(struct ploop_dev *dev);

#endif
