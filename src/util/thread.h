/* SPDX-License-Identifier: MIT */
/* Threads of the library: named, and without signals, which are the embedder's. */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <pthread.h>

/* The name has at most 15 characters. 0, or -ENOMEM: not EAGAIN, which would look like a lock. */
int thread_start(pthread_t *thread, const char *name, void *(*function)(void *argument),
                 void *argument);

#endif
