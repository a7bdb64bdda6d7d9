/* SPDX-License-Identifier: MIT */
/*
 * I/O threads: a queue of backend requests and the threads that carry them out, one at a time each,
 * oldest first.
 *
 * A request's way: queued (submit) -> running (a thread took it) -> completed. cancel takes it from
 * the first straight to the last.
 *
 *  1. A request is on the queue, or with one thread, or completed; its link is backend_data[0]
 *     while it is queued.
 *  2. Submitting wakes no thread; kick wakes as many threads as there is work for, once for a whole
 *     batch. Threads look for work again before they sleep, so a busy pool needs no waking at all.
 *  3. One thread is started with the pool, the others when work waits and no thread is idle: an
 *     image that is seldom read costs one sleeping thread, and that a further one cannot be started
 *     stops nothing.
 */
#ifndef FILE_POSIX_POOL_H
#define FILE_POSIX_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ploop_io;

/*
 * Eight: enough to keep a solid-state disk busy with requests that bypass the page cache; more gain
 * little, because buffered writes of one file stand in line for its inode in the kernel anyway, and
 * each costs a stack.
 */
enum { POSIX_POOL_THREADS = 8 };

struct posix_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;  /* something was queued, or stop */
    pthread_cond_t quiet; /* nothing is running any more */
    struct ploop_io *first;
    struct ploop_io *last; /* undefined while first is NULL */
    uint32_t queued;
    uint32_t idle; /* asleep, or about to look for work */
    uint32_t running;
    uint32_t started;
    bool stop;
    pthread_t threads[POSIX_POOL_THREADS];
    int64_t (*execute)(void *context, const struct ploop_io *io);
    void *context;
    /* Optional, set before the first request: takes it in place of ploop_io_complete(). */
    void (*ended)(void *context, struct ploop_io *io, int64_t result);
    void *ended_context;
};

/* 0, or -ENOMEM: not even one thread could be started. */
int posix_pool_start(struct posix_pool *pool,
                     int64_t (*execute)(void *context, const struct ploop_io *io), void *context);

void posix_pool_submit(struct posix_pool *pool, struct ploop_io *io);
void posix_pool_kick(struct posix_pool *pool);

/*
 * Completes what is queued with -ECANCELED and waits until nothing is running. Not from a
 * completion.
 */
void posix_pool_cancel(struct posix_pool *pool);

/* Ends the threads. Nothing may be left to complete. */
void posix_pool_stop(struct posix_pool *pool);

#endif
