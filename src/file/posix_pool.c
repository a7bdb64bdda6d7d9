/* SPDX-License-Identifier: MIT */
/* I/O threads: see the header for the way of a request and that of a thread. */
#include "file/posix_pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "file/file.h"
#include "util/thread.h"

/* How long a thread waits for work before it ends. */
enum { IDLE_S = 5 };

enum slot_state { SLOT_NONE, SLOT_RUNS, SLOT_ENDED };

struct slot {
    pthread_t thread;
    enum slot_state state;
    struct ploop_io_threads *threads;
};

struct ploop_io_threads {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* something was queued, or stop */
    struct list ready;   /* pools with requests that could begin */
    uint32_t queued;     /* those requests, in all of them */
    uint32_t idle;       /* threads asleep, or about to look for work */
    uint32_t running;    /* threads that have not ended */
    uint32_t users;      /* pools, and the caller's handle */
    uint32_t count_max;
    bool stop;
    struct slot slots[POSIX_POOL_THREADS_MAX];
};

static _Thread_local bool is_io_thread;

/* ---- requests ---- */

static struct ploop_io *next_of(const struct ploop_io *io)
{
    return io->backend_data[0];
}

static uint32_t line_of(const struct ploop_io *io)
{
    return io->op == PLOOP_IO_WRITE && io->flags & PLOOP_IO_ALLOCATES ? LINE_ALLOCATING
                                                                      : LINE_ORDINARY;
}

/* How many of its requests could begin. */
static uint32_t can_begin(const struct posix_pool *pool)
{
    const struct posix_line *line = &pool->lines[LINE_ALLOCATING];
    uint32_t room =
        line->running < POSIX_POOL_ALLOCATING ? POSIX_POOL_ALLOCATING - line->running : 0;
    return pool->lines[LINE_ORDINARY].queued + (line->queued < room ? line->queued : room);
}

static void assert_pool(const struct posix_pool *pool)
{
    for (uint32_t i = 0; i < POSIX_LINES; i++) {
        assert((pool->lines[i].first == NULL) == (pool->lines[i].queued == 0));
    }
    assert(pool->queued == pool->lines[0].queued + pool->lines[1].queued);
    assert(pool->running == pool->lines[0].running + pool->lines[1].running);
    assert(pool->ready == can_begin(pool) && pool->ready <= pool->threads->queued);
    assert(list_is_empty(&pool->link) == (pool->ready == 0));
    (void)pool;
}

/* A request came, was taken or has ended: the threads are told what could begin now. */
static void pool_changed(struct posix_pool *pool)
{
    uint32_t ready = can_begin(pool);
    pool->threads->queued = pool->threads->queued - pool->ready + ready;
    pool->ready = ready;
    if (ready == 0) {
        list_remove(&pool->link);
    } else if (list_is_empty(&pool->link)) {
        list_append(&pool->threads->ready, &pool->link);
    }
    assert_pool(pool);
}

/* The oldest request of a line is the caller's, who carries it out or ends it. */
static struct ploop_io *take_from(struct posix_pool *pool, uint32_t line)
{
    struct posix_line *from = &pool->lines[line];
    struct ploop_io *io = from->first;
    assert(from->queued > 0);
    from->first = next_of(io);
    from->queued--;
    pool->queued--;
    from->running++;
    pool->running++;
    pool->last_line = line;
    list_remove(&pool->link); /* other pools come first the next time */
    pool_changed(pool);
    return io;
}

/* One that could begin. */
static struct ploop_io *take(struct posix_pool *pool)
{
    const struct posix_line *line = &pool->lines[LINE_ALLOCATING];
    bool may_allocate = line->queued > 0 && line->running < POSIX_POOL_ALLOCATING;
    bool other_turn = pool->last_line == LINE_ALLOCATING && pool->lines[LINE_ORDINARY].queued > 0;
    assert(pool->ready > 0);
    return take_from(pool, may_allocate && !other_turn ? LINE_ALLOCATING : LINE_ORDINARY);
}

static void ran_one(struct posix_pool *pool, uint32_t line)
{
    assert(pool->running > 0 && pool->lines[line].running > 0);
    pool->lines[line].running--;
    if (--pool->running == 0) {
        pthread_cond_broadcast(&pool->quiet);
    }
    pool_changed(pool);
}

static void ended(struct posix_pool *pool, struct ploop_io *io, int64_t result)
{
    if (pool->ended) {
        pool->ended(pool->ended_context, io, result);
    } else {
        ploop_io_complete(io, result);
    }
}

static void wake_threads(struct ploop_io_threads *threads);

/*
 * A request of the pool, with the mutex, which is given back meanwhile. `wakes`: no kick has woken
 * threads for the others.
 */
static void run_one(struct posix_pool *pool, bool wakes)
{
    struct ploop_io_threads *threads = pool->threads;
    struct ploop_io *io = take(pool);
    uint32_t line = pool->last_line;
    if (wakes) {
        wake_threads(threads);
    }
    pthread_mutex_unlock(&threads->mutex);
    ended(pool, io, pool->execute(pool->context, io));
    pthread_mutex_lock(&threads->mutex);
    ran_one(pool, line);
}

static void wait_quiet(struct posix_pool *pool)
{
    while (pool->running > 0) {
        pthread_cond_wait(&pool->quiet, &pool->threads->mutex);
    }
}

static void end_queued(struct posix_pool *pool, int error)
{
    while (pool->queued > 0) {
        uint32_t line = pool->lines[LINE_ORDINARY].first ? LINE_ORDINARY : LINE_ALLOCATING;
        struct ploop_io *io = take_from(pool, line);
        pthread_mutex_unlock(&pool->threads->mutex);
        ended(pool, io, error);
        pthread_mutex_lock(&pool->threads->mutex);
        ran_one(pool, line);
    }
}

/* ---- threads ---- */

/* False: the time is over. */
static bool wait_for_work(struct ploop_io_threads *threads, const struct timespec *until)
{
    threads->idle++;
    int error = pthread_cond_timedwait(&threads->work, &threads->mutex, until);
    threads->idle--;
    return error != ETIMEDOUT;
}

static void *io_thread(void *argument)
{
    struct slot *slot = argument;
    struct ploop_io_threads *threads = slot->threads;
    struct timespec until = {.tv_sec = 0};
    is_io_thread = true;
    thread_name_self("ploop-io", (uint32_t)(slot - threads->slots));
    pthread_mutex_lock(&threads->mutex);
    threads->idle--;
    while (!threads->stop) {
        if (!list_is_empty(&threads->ready)) {
            run_one(container_of(threads->ready.next, struct posix_pool, link), false);
            until.tv_sec = 0;
            continue;
        }
        if (until.tv_sec == 0) {
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += IDLE_S;
        }
        if (!wait_for_work(threads, &until) && list_is_empty(&threads->ready)) {
            break;
        }
    }
    slot->state = SLOT_ENDED;
    threads->running--;
    pthread_mutex_unlock(&threads->mutex);
    return NULL;
}

/* One thread more, idle until it has looked round. */
static int start_thread(struct ploop_io_threads *threads)
{
    uint32_t index = 0;
    while (threads->slots[index].state == SLOT_RUNS) {
        index++;
    }
    assert(index < threads->count_max);
    struct slot *slot = &threads->slots[index];
    if (slot->state == SLOT_ENDED) {
        pthread_join(slot->thread, NULL); /* it has nothing more to do but to return */
        slot->state = SLOT_NONE;
    }
    slot->threads = threads;
    int error = thread_start(&slot->thread, io_thread, slot);
    if (error) {
        return error;
    }
    slot->state = SLOT_RUNS;
    threads->running++;
    threads->idle++;
    return 0;
}

/* With the mutex: as many threads awake as there is work for. */
static void wake_threads(struct ploop_io_threads *threads)
{
    int error = 0;
    while (!error && threads->queued > threads->idle && threads->running < threads->count_max) {
        error = start_thread(threads);
    }
    uint32_t wake = threads->queued < threads->idle ? threads->queued : threads->idle;
    while (wake-- > 0) {
        pthread_cond_signal(&threads->work);
    }
}

int ploop_io_threads_create(uint32_t count_max, ploop_io_threads **threads)
{
    if (!threads) {
        return -EINVAL;
    }
    *threads = NULL;
    if (count_max > POSIX_POOL_THREADS_MAX) {
        return -EINVAL;
    }
    struct ploop_io_threads *made = calloc(1, sizeof(*made));
    if (!made) {
        return -ENOMEM;
    }
    made->count_max = count_max ? count_max : POSIX_POOL_THREADS;
    made->users = 1;
    list_init(&made->ready);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *threads = made;
    return 0;
}

/* The last user ends the threads. */
static void release(struct ploop_io_threads *threads)
{
    pthread_mutex_lock(&threads->mutex);
    bool is_last = --threads->users == 0;
    threads->stop = is_last;
    pthread_cond_broadcast(&threads->work);
    pthread_mutex_unlock(&threads->mutex);
    if (!is_last) {
        return;
    }
    for (uint32_t i = 0; i < threads->count_max; i++) {
        pthread_mutex_lock(&threads->mutex);
        bool is_used = threads->slots[i].state != SLOT_NONE;
        pthread_mutex_unlock(&threads->mutex);
        if (is_used) {
            pthread_join(threads->slots[i].thread, NULL);
        }
    }
    assert(threads->queued == 0 && list_is_empty(&threads->ready));
    pthread_cond_destroy(&threads->work);
    pthread_mutex_destroy(&threads->mutex);
    free(threads);
}

void ploop_io_threads_free(ploop_io_threads *threads)
{
    if (threads) {
        release(threads);
    }
}

/* ---- the pool of a file ---- */

int posix_pool_start(struct posix_pool *pool, struct ploop_io_threads *threads,
                     posix_execute_fn *execute, void *context)
{
    *pool = (struct posix_pool){.threads = threads, .execute = execute, .context = context};
    if (!threads) {
        int error = ploop_io_threads_create(0, &pool->threads);
        if (error) {
            return error;
        }
    } else {
        pthread_mutex_lock(&threads->mutex);
        threads->users++;
        pthread_mutex_unlock(&threads->mutex);
    }
    list_init(&pool->link);
    pthread_cond_init(&pool->quiet, NULL);
    return 0;
}

void posix_pool_submit(struct posix_pool *pool, struct ploop_io *io)
{
    struct ploop_io_threads *threads = pool->threads;
    struct posix_line *line = &pool->lines[line_of(io)];
    io->backend_data[0] = NULL;
    pthread_mutex_lock(&threads->mutex);
    assert(!threads->stop);
    if (line->first) {
        line->last->backend_data[0] = io;
    } else {
        line->first = io;
    }
    line->last = io;
    line->queued++;
    pool->queued++;
    pool_changed(pool);
    pthread_mutex_unlock(&threads->mutex);
}

void posix_pool_kick(struct posix_pool *pool)
{
    struct ploop_io_threads *threads = pool->threads;
    pthread_mutex_lock(&threads->mutex);
    wake_threads(threads);
    while (threads->running == 0 && !list_is_empty(&threads->ready)) {
        end_queued(container_of(threads->ready.next, struct posix_pool, link), -EAGAIN);
    }
    pthread_mutex_unlock(&threads->mutex);
}

bool posix_pool_help(struct posix_pool *pool)
{
    struct ploop_io_threads *threads = pool->threads;
    pthread_mutex_lock(&threads->mutex);
    bool helps = pool->ready > 0;
    if (helps) {
        run_one(pool, true);
    }
    pthread_mutex_unlock(&threads->mutex);
    return helps;
}

void posix_pool_cancel(struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->threads->mutex);
    end_queued(pool, -ECANCELED);
    wait_quiet(pool);
    pthread_mutex_unlock(&pool->threads->mutex);
}

void posix_pool_stop(struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->threads->mutex);
    wait_quiet(pool); /* the thread that completed the last request may not be back yet */
    assert(pool->queued == 0);
    pthread_mutex_unlock(&pool->threads->mutex);
    pthread_cond_destroy(&pool->quiet);
    release(pool->threads);
}

uint32_t posix_pool_thread_count(const struct posix_pool *pool)
{
    pthread_mutex_lock(&pool->threads->mutex);
    uint32_t count = pool->threads->running;
    pthread_mutex_unlock(&pool->threads->mutex);
    return count;
}
