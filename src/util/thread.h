/* SPDX-License-Identifier: MIT */
/*
 * Threads of the library: named, and without signals, which are the embedder's. A thread names
 * itself: to name another one takes a file of /proc, which there is not in a jail.
 */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <pthread.h>
#include <stdint.h>

/* 0, or -ENOMEM: not EAGAIN, which would look like a lock. */
int thread_start(pthread_t *thread, void *(*function)(void *argument), void *argument);

/* For the new thread: NAME/NUMBER, at most 15 characters in all. */
void thread_name_self(const char *name, uint32_t number);

#endif
