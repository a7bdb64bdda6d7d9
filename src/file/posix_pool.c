/* SPDX-License-Identifier: MIT */
/* I/O threads: see the header for the way of a request. */
#include "file/posix_pool.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "file/file.h"

static struct ploop_io *next_of(const struct ploop_io *io)
{
    return io->backend_data[0];
}

/* The oldest request is the caller's to run. */
static struct ploop_io *take(struct posix_pool *pool)
{
    struct ploop_io *io = pool->first;
    assert(pool->queued > 0);
    pool->first = next_of(io);
    pool->queued--;
    pool->running++;
    assert((pool->first == NULL) == (pool->queued == 0));
    return io;
}

static void ran_one(struct posix_pool *pool)
{
    assert(pool->running > 0);
    if (--pool->running == 0) {
        pthread_cond_broadcast(&pool->quiet);
    }
}

static void wait_quiet(struct posix_pool *pool)
{
    while (pool->running > 0) {
        pthread_cond_wait(&pool->quiet, &pool->mutex);
    }
}

static void ended(struct posix_pool *pool, struct ploop_io *io, int64_t result)
{
    if (pool->ended) {
        pool->ended(pool->ended_context, io, result);
    } else {
        ploop_io_complete(io, result);
    }
}

static void *io_thread(void *argument)
{
    struct posix_pool *pool = argument;
    pthread_mutex_lock(&pool->mutex);
    pool->idle--;
    while (!pool->stop) {
        if (!pool->first) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle--;
            continue;
        }
        struct ploop_io *io = take(pool);
        pthread_mutex_unlock(&pool->mutex);
        ended(pool, io, pool->execute(pool->context, io));
        pthread_mutex_lock(&pool->mutex);
        ran_one(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/*
 * One thread more, idle until it has looked round, and deaf to all signals: those are for the
 * embedder's threads.
 */
static int start_thread(struct posix_pool *pool)
{
    char name[16];
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&pool->threads[pool->started], NULL, io_thread, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) {
        return -error;
    }
    (void)snprintf(name, sizeof(name), "ploop-io/%u", pool->started);
    pthread_setname_np(pool->threads[pool->started], name);
    pool->started++;
    pool->idle++;
    return 0;
}

int posix_pool_start(struct posix_pool *pool,
                     int64_t (*execute)(void *context, const struct ploop_io *io), void *context)
{
    *pool = (struct posix_pool){.execute = execute, .context = context};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->quiet, NULL);
    pthread_mutex_lock(&pool->mutex);
    int error = start_thread(pool);
    pthread_mutex_unlock(&pool->mutex);
    if (error) {
        pthread_cond_destroy(&pool->quiet);
        pthread_cond_destroy(&pool->work);
        pthread_mutex_destroy(&pool->mutex);
    }
    return error ? -ENOMEM : 0; /* not pthread_create's EAGAIN, which would look like a lock */
}

void posix_pool_submit(struct posix_pool *pool, struct ploop_io *io)
{
    io->backend_data[0] = NULL;
    pthread_mutex_lock(&pool->mutex);
    assert(!pool->stop);
    if (pool->first) {
        pool->last->backend_data[0] = io;
    } else {
        pool->first = io;
    }
    pool->last = io;
    pool->queued++;
    pthread_mutex_unlock(&pool->mutex);
}

void posix_pool_kick(struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    int error = 0;
    while (!error && pool->queued > pool->idle && pool->started < POSIX_POOL_THREADS) {
        error = start_thread(pool);
    }
    uint32_t wake = pool->queued < pool->idle ? pool->queued : pool->idle;
    while (wake-- > 0) {
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->mutex);
}

void posix_pool_cancel(struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    while (pool->first) {
        struct ploop_io *io = take(pool);
        pthread_mutex_unlock(&pool->mutex);
        ended(pool, io, -ECANCELED);
        pthread_mutex_lock(&pool->mutex);
        ran_one(pool);
    }
    wait_quiet(pool);
    pthread_mutex_unlock(&pool->mutex);
}

void posix_pool_stop(struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    wait_quiet(pool); /* the thread that completed the last request may not be back yet */
    assert(pool->queued == 0);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (uint32_t i = 0; i < pool->started; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->quiet);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
}
