/* SPDX-License-Identifier: MIT */
/*
 * A thread that waits for SIGUSR1, and then has the log tell the state of the images that are open.
 */
#ifndef NBDKIT_PLOOP_STATUS_H
#define NBDKIT_PLOOP_STATUS_H

/*
 * After the fork, in the first thread: it and all threads that begin later leave the signal to this
 * one. 0 or -errno.
 */
int status_start(void);

/* Before the devices are closed; does nothing if there is no thread. */
void status_stop(void);

#endif
