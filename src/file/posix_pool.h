/* SPDX-License-Identifier: MIT */
/*
 * I/O threads, and the pools that bring them work: a pool is one file's backend requests, in two
 * queues: writes that allocate blocks (PLOOP_IO_ALLOCATES), and all others. The threads carry the
 * requests out, one at a time each; of a queue the oldest first, of a pool's two queues one request
 * each in turn, and so of several pools: a file with much work holds up no other.
 *
 * A request's way: queued (submit) -> running (a thread took it) -> completed. cancel takes it from
 * the first straight to the last. A thread that waits for requests may take them too (help).
 *
 * An I/O thread's way: NONE -> RUNS (kick started it) -> ENDED (it was idle for IDLE_S seconds) ->
 * NONE (joined by whoever starts the next one, or frees the threads).
 *
 *  1. A request is on the queue, or with one thread, or completed; its link is backend_data[0]
 *     while it is queued.
 *  2. Submitting wakes no thread; kick wakes as many threads as there is work for, once for a whole
 *     batch. Threads look for work again before they sleep, so a busy pool needs no waking at all.
 *     A thread that helps instead of a kick takes one request, and wakes threads for the others.
 *  3. Threads are started when work waits and none is idle: files that are only used by calls that
 *     block have none. That a further one cannot be started stops nothing; where not even the first
 *     can be started, kick completes what waits with -EAGAIN, so that the library sends it again.
 *  4. Of one file's writes that allocate blocks at most POSIX_POOL_ALLOCATING are carried out at a
 *     time; the other threads do other requests. Those that wait for that need no waking: the
 *     thread that ends one of them looks for work again, and one that helps goes on helping, or
 *     kicks.
 *  5. A pool is on `ready` while it has requests that could begin. All fields belong to the
 *     threads' mutex.
 *  6. An ended thread is joined, never detached: the library's code may be unloaded afterwards.
 */
#ifndef FILE_POSIX_POOL_H
#define FILE_POSIX_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

struct ploop_io;
struct ploop_io_threads;

/*
 * Eight, if the caller does not say: enough to keep a solid-state disk busy with requests that
 * bypass the page cache; more gain little, because buffered writes of one file stand in line for
 * its inode in the kernel anyway, and each costs a stack.
 */
enum { POSIX_POOL_THREADS = 8, POSIX_POOL_THREADS_MAX = 64 };

/*
 * Writes that allocate blocks stand in line for the file's inode in the kernel, whichever thread
 * makes them. Measured on ext4 with two cores, past the page cache: one, two, four and eight
 * threads make 36, 35, 35 and 40 MiB/s of 32 random 4 KiB writes at once, and 770, 824, 829 and 752
 * of 16 sequential 64 KiB writes, medians of three runs in turn that scatter by a tenth. So more
 * gain nothing, and fewer would keep a file system waiting that does not make them stand in line.
 */
enum { POSIX_POOL_ALLOCATING = 4 };

typedef int64_t posix_execute_fn(void *context, const struct ploop_io *io);

struct posix_line {
    struct ploop_io *first;
    struct ploop_io *last; /* undefined while first is NULL */
    uint32_t queued;
    uint32_t running;
};

enum { LINE_ORDINARY, LINE_ALLOCATING, POSIX_LINES };

struct posix_pool {
    struct ploop_io_threads *threads;
    struct list link;     /* on ready */
    pthread_cond_t quiet; /* nothing is running any more */
    struct posix_line lines[POSIX_LINES];
    uint32_t last_line; /* that a request was taken from */
    uint32_t ready;     /* how many of the requests could begin, as the threads know */
    uint32_t queued;    /* in both lines */
    uint32_t running;
    posix_execute_fn *execute;
    void *context;
    /* Optional, set before the first request: takes it in place of ploop_io_complete(). */
    void (*ended)(void *context, struct ploop_io *io, int64_t result);
    void *ended_context;
};

/* `threads`: shared with other pools; NULL: of its own. 0 or -ENOMEM. */
int posix_pool_start(struct posix_pool *pool, struct ploop_io_threads *threads,
                     posix_execute_fn *execute, void *context);

void posix_pool_submit(struct posix_pool *pool, struct ploop_io *io);
void posix_pool_kick(struct posix_pool *pool);

/* Carry out one request that waits, in the calling thread. False: none waits. */
bool posix_pool_help(struct posix_pool *pool);

/*
 * Completes what is queued with -ECANCELED and waits until nothing is running. Not from a
 * completion.
 */
void posix_pool_cancel(struct posix_pool *pool);

/* The pool's end; that of its threads where they are its own. Nothing may be left to complete. */
void posix_pool_stop(struct posix_pool *pool);

/* How many threads run now. */
uint32_t posix_pool_thread_count(const struct posix_pool *pool);

#endif
