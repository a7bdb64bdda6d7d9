/* SPDX-License-Identifier: MIT */
/*
 * Queues: the pool of requests, the ring at the backend, and the delivery of completions.
 *
 * The pool is a stack of requests, in one word: the place of the first one that is free, 0 for
 * none; STARVED, which only an empty pool has: somebody went away without a request; and a tag, new
 * with each request that is given back. A request in the pool keeps in `pool_pop` what taking it
 * adds to the word: the way to the next one's place.
 *
 *     some are free -> empty, by the last get -> starved, by a get that finds none
 *     empty, starved -> some are free, by a put; of a starved one with an event
 *
 * No step needs a lock, on any thread. Who is late to take the first one finds another tag, also
 * where the same request is the first again with another one below it: for that it was given back.
 * Whether the pool is empty and its mark change in one step, so no put comes between the two.
 *
 * A request of the fast path:
 *
 *     submitted -> at the backend -> done (its cluster's lock is given back, it is in flight no
 *     longer) -> called back, by a run
 *             without a callback: -> unreaped, by a run -> stored for the caller, by a reap
 *
 *  1. A user's queue carries at the backend what its fast path sends, and nothing else.
 *  2. The ring is entered around submit with kick, and around reap, of that queue: the backend
 *     sees one thread there at a time. It is tried and never waited for. A submit that finds it
 *     taken posts to the turn, which is as right and only slower. A reap that finds it taken is
 *     left out: what it would have found keeps the backend's descriptor readable, and calls that
 *     block look again within NAP_NS.
 *  3. Reaping is not bound to a thread. Runs of the queue reap it, and so do ploop_dev_run(), every
 *     call that waits, for example close and suspend, and runs of other queues while a part waits
 *     for a cluster's lock or for room in a full backend: an owner that sleeps holds up no other
 *     thread. A reap ends requests and delivers none.
 *  4. Callbacks run in ploop_queue_run() and ploop_queue_wait(), and at the end in close and abort;
 *     nowhere else. The callbacks of a queue never run at the same time, and one that submits and
 *     completes again from inside does not nest.
 *  5. While `done` holds a request that no run is about to deliver, or one without a callback has
 *     not been reaped, the queue's descriptor is readable; but while notification is off.
 *  6. The engine's queue is entered by the owner of the turn only, and has no callbacks: engine.c.
 */
#include "pio/queue.h"

#include "util/probe.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static _Thread_local uint32_t callback_depth;

bool in_callback(void)
{
    return callback_depth > 0;
}

static int watch(int poll_fd, int fd, uint32_t exclusive)
{
    struct epoll_event event = {.events = EPOLLIN | exclusive};
    bool watched = epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ||
                   errno == EEXIST; /* deltas may share a descriptor */
    return watched ? 0 : -errno;
}

/*
 * The queue's own ring and the engine's, which all queues share: a completion there wakes one of
 * those that sleep (an epoll descriptor cannot be watched so, and wakes them all).
 */
int queue_watch(const ploop_queue *queue, const struct ploop_file *file)
{
    const uint32_t rings[] = {queue->index, queue->dev->queue_count};
    int error = 0;
    for (size_t i = 0; file->ops.poll_fd && i < 2 && !error; i++) {
        int fd = file->ops.poll_fd(file->context, rings[i]);
        error = fd < 0 ? fd : watch(queue->poll_fd, fd, i == 1 ? EPOLLEXCLUSIVE : 0);
        if (error == -EINVAL) {
            error = watch(queue->poll_fd, fd, 0);
        }
    }
    return error;
}

static bool is_shared(const ploop_queue *queue, uint32_t ring, int fd)
{
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&queue->dev->stack, &slot)) != NULL;) {
        const struct ploop_file *file = delta->file;
        if (file->ops.poll_fd && file->ops.poll_fd(file->context, ring) == fd) {
            return true;
        }
    }
    return false;
}

void queue_unwatch(const ploop_queue *queue, const struct ploop_file *file)
{
    const uint32_t rings[] = {queue->index, queue->dev->queue_count};
    for (size_t i = 0; file->ops.poll_fd && i < 2; i++) {
        int fd = file->ops.poll_fd(file->context, rings[i]);
        if (fd >= 0 && !is_shared(queue, rings[i], fd)) {
            epoll_ctl(queue->poll_fd, EPOLL_CTL_DEL, fd, NULL);
        }
    }
}

static uint32_t runner_count(const ploop_queue *queue)
{
    return queue->dev->config.runner_count;
}

/* The queues of a runner share one, that of the first. */
static bool owns_poll_fd(const ploop_queue *queue)
{
    return runner_count(queue) == 0 || queue->index < runner_count(queue);
}

/* One descriptor for two reasons to run: a completion to deliver, and something to reap. */
static int open_descriptors(ploop_queue *queue)
{
    queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->poll_fd = owns_poll_fd(queue)
                         ? epoll_create1(EPOLL_CLOEXEC)
                         : queue->dev->queues[queue->index % runner_count(queue)].poll_fd;
    if (queue->event_fd < 0 || queue->poll_fd < 0) {
        return -errno;
    }
    int error = watch(queue->poll_fd, queue->event_fd, 0);
    uint32_t slot = 0;
    for (const struct delta *delta;
         !error && (delta = stack_each(&queue->dev->stack, &slot)) != NULL;) {
        error = queue_watch(queue, delta->file);
    }
    return error;
}

/* ---- the pool ---- */

/* The word: a tag, and in the lower half STARVED and a place: how far behind `pios`, plus one. */
enum { POOL_FIRST = 1 };
#define POOL_STARVED (UINT32_C(1) << 31)
#define POOL_TAG (UINT64_C(1) << 32)
_Static_assert((uint64_t)PIO_COUNT_MAX * sizeof(ploop_pio) + POOL_FIRST < POOL_STARVED, "places");

static void pool_enter(ploop_queue *queue, uint32_t index)
{
    ploop_pio *pio = &queue->pios[index];
    pio_init(pio, queue);
    pio->pool_at = (uint64_t)index * sizeof(*pio) + POOL_FIRST;
    pio->pool_push = pio->pool_at + POOL_TAG;
    ploop_pio_put(pio);
}

int queue_init(ploop_queue *queue, ploop_dev *dev, uint32_t index, uint32_t pio_count)
{
    assert(queue->dev == dev && queue->index == index);
    (void)dev;
    (void)index;
    queue->pio_count = pio_count;
    queue->unreaped_end = &queue->unreaped;
    pthread_mutex_init(&queue->call_mutex, NULL);
    pthread_cond_init(&queue->call_changed, NULL);
    queue->pios = calloc(pio_count, sizeof(*queue->pios));
    if (!queue->pios) {
        return -ENOMEM;
    }
    for (uint32_t i = pio_count; i-- > 0;) {
        pool_enter(queue, i);
    }
    return open_descriptors(queue);
}

/* The caller's from here on, or the job's. */
static void take_completion(ploop_pio *pio, struct ploop_completion *completion)
{
    *completion = (struct ploop_completion){.pio = pio,
                                            .user_data = pio->user_data,
                                            .result = pio->result,
                                            .kind = PLOOP_COMPLETION_PIO};
    if (pio->op == PIO_NONE) {
        struct notice *notice = pio->user_data;
        *completion = notice->completion;
        notice->reaped(notice);
    }
}

/* Nothing delivers any more. */
static void drop_unreaped(ploop_queue *queue)
{
    while (queue->unreaped) {
        ploop_pio *pio = container_of(queue->unreaped, ploop_pio, work);
        struct ploop_completion dropped;
        queue->unreaped = pio->work.next;
        take_completion(pio, &dropped);
    }
}

void queue_free(ploop_queue *queue)
{
    drop_unreaped(queue);
    if (queue->pio_count) {
        pthread_cond_destroy(&queue->call_changed);
        pthread_mutex_destroy(&queue->call_mutex);
    }
    free(queue->pios);
    if (queue->event_fd >= 0) {
        close(queue->event_fd);
    }
    if (queue->poll_fd >= 0 && owns_poll_fd(queue)) {
        close(queue->poll_fd);
    }
}

ploop_queue *ploop_dev_queue(ploop_dev *dev, uint32_t index)
{
    return index < dev->queue_count ? &dev->queues[index] : NULL;
}

static __attribute__((noinline)) ploop_pio *get_from_empty(ploop_queue *queue)
{
    uint64_t head = atomic_load(&queue->free_head);
    while (!((uint32_t)head & ~POOL_STARVED)) {
        if (atomic_compare_exchange_weak(&queue->free_head, &head, head | POOL_STARVED)) {
            return NULL;
        }
    }
    return ploop_pio_get(queue);
}

ploop_pio *ploop_pio_get(ploop_queue *queue)
{
    uint64_t head = atomic_load(&queue->free_head), next;
    ploop_pio *pio;
    do {
        uint32_t place = (uint32_t)head;
        if ((int32_t)place <= 0) { /* STARVED is the sign */
            return get_from_empty(queue);
        }
        pio = (void *)((char *)queue->pios + place - POOL_FIRST);
        next = head + atomic_load_explicit(&pio->pool_pop, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(&queue->free_head, &head, next));
    pio->op = PIO_NONE;
    pio->fast_op = 0;
    pio->callback = NULL;
    pio->user_data = NULL;
    return pio;
}

/* Unless the pool is starved. */
static inline __attribute__((always_inline)) bool pool_push(ploop_queue *queue, ploop_pio *pio)
{
    uint64_t head = atomic_load(&queue->free_head), next;
    do {
        uint64_t below = (uint32_t)head;
        if (below & POOL_STARVED) {
            return false;
        }
        next = head - below + pio->pool_push;
        atomic_store_explicit(&pio->pool_pop, below - pio->pool_at, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(&queue->free_head, &head, next));
    return true;
}

static __attribute__((noinline)) void put_to_starved(ploop_queue *queue, ploop_pio *pio)
{
    uint64_t head = atomic_load(&queue->free_head);
    while (head & POOL_STARVED) {
        assert((uint32_t)head == POOL_STARVED);
        atomic_store_explicit(&pio->pool_pop, 0 - pio->pool_at, memory_order_relaxed);
        uint64_t next = head - POOL_STARVED + pio->pool_push;
        if (atomic_compare_exchange_weak(&queue->free_head, &head, next)) {
            dev_event(queue->dev, PLOOP_EVENT_POOL_HAS_ROOM, queue->index);
            return;
        }
    }
    ploop_pio_put(pio); /* another one ended it */
}

void ploop_pio_put(ploop_pio *pio)
{
    if (pio) {
        assert(pio->pool_at);
        if (!pool_push(pio->queue, pio)) {
            put_to_starved(pio->queue, pio);
        }
    }
}

/* ---- delivery ---- */

static __attribute__((noinline)) void keep_unreaped(ploop_queue *queue, ploop_pio *pio)
{
    pio->work.next = NULL;
    *queue->unreaped_end = &pio->work;
    queue->unreaped_end = &pio->work.next;
    atomic_fetch_add(&queue->unreaped_count, 1);
}

void queue_keep(ploop_queue *queue, struct notice *notice)
{
    assert(atomic_load(&queue->delivering));
    notice->pio.op = PIO_NONE;
    notice->pio.user_data = notice;
    atomic_fetch_add(&queue->waiting, 1);
    keep_unreaped(queue, &notice->pio);
}

/* The oldest first. How many were stored. */
static __attribute__((noinline)) uint32_t store_unreaped(ploop_queue *queue,
                                                         struct reaping *reaping)
{
    uint32_t stored = 0;
    while (reaping->count < reaping->room && queue->unreaped) {
        ploop_pio *pio = container_of(queue->unreaped, ploop_pio, work);
        queue->unreaped = pio->work.next;
        if (!queue->unreaped) {
            queue->unreaped_end = &queue->unreaped;
        }
        take_completion(pio, &reaping->list[reaping->count++]);
        stored++;
    }
    atomic_fetch_sub(&queue->unreaped_count, stored);
    return stored;
}

/* By who delivers: everything that is done. How many were called. */
static inline __attribute__((always_inline)) uint32_t call_back(ploop_queue *queue)
{
    uint32_t called = 0;
    /* To ask where this thread has it is a call in a shared library: once is enough. */
    uint32_t *depth = &callback_depth;
    __asm__("" : "+r"(depth));
    struct work *work = inbox_take(&queue->done);
    ++*depth;
    while (work) {
        ploop_pio *pio = container_of(work, ploop_pio, work);
        work = work->next;
        int result = pio->result;
        PROBE2(complete, pio, result);
        if (pio->callback) {
            pio->callback(pio, result, pio->user_data);
            called++;
        } else {
            keep_unreaped(queue, pio);
        }
    }
    --*depth;
    return called;
}

static bool has_unreaped(const ploop_queue *queue)
{
    return atomic_load(&queue->unreaped_count) > 0;
}

int queue_deliver(ploop_queue *queue, struct reaping *reaping)
{
    int delivered = 0;
    while (!inbox_is_empty(&queue->done) ||
           (reaping && reaping->count < reaping->room && has_unreaped(queue))) {
        if (atomic_exchange(&queue->delivering, true)) {
            break;
        }
        uint32_t batch = call_back(queue);
        if (reaping) {
            batch += store_unreaped(queue, reaping);
        }
        atomic_fetch_sub_explicit(&queue->waiting, batch, memory_order_relaxed);
        delivered += (int)batch;
        atomic_store(&queue->delivering, false);
    }
    return delivered;
}

/*
 * `rung` says that nobody needs to ring: the descriptor is readable or is going to be, or a run is
 * under way. A run sets it when it begins. When it ends it delivers, reads the descriptor if that
 * may be readable, clears `rung`, and then looks once more whether there is a completion or an
 * earlier deadline. So a thread that finds `rung` set has pushed its completion, or stored the
 * deadline, before that look, and one write covers all that comes before a run.
 *
 * A run saves the read where nobody has written, which it may learn too late: `written` is set
 * after the write. The descriptor then wakes a run for nothing, and a run that delivers nothing
 * reads in any case.
 *
 * While notification is off a ring sets `rung` only. Who switches it on clears that, and then looks
 * for what was done meanwhile.
 */
static void write_event(ploop_queue *queue)
{
    uint64_t one = 1;
    ssize_t written = write(queue->event_fd, &one, sizeof(one));
    (void)written; /* a full counter is readable too */
    atomic_store(&queue->written, true);
}

void queue_ring(ploop_queue *queue)
{
    if (!atomic_load(&queue->rung) && !atomic_exchange(&queue->rung, true) &&
        !atomic_load(&queue->quiet)) {
        write_event(queue);
    }
}

void queue_wake(ploop_queue *queue)
{
    if (atomic_load(&queue->quiet)) {
        write_event(queue);
    } else {
        queue_ring(queue);
    }
}

bool queue_push(ploop_queue *queue, ploop_pio *pio)
{
    assert(!pio->blocking && queue->index < queue->dev->queue_count);
    atomic_fetch_add_explicit(&queue->waiting, 1, memory_order_relaxed);
    return inbox_push(&queue->done, &pio->work);
}

/* ---- the ring ---- */

bool queue_enter(ploop_queue *queue)
{
    return !atomic_exchange_explicit(&queue->ring, true, memory_order_acquire);
}

int queue_reap(ploop_queue *queue)
{
    int done = 0;
    assert(queue->index < queue->dev->queue_count);
    if (queue->dev->reaps && queue_enter(queue)) {
        done = dev_reap(queue->dev, queue->index);
        queue_leave(queue);
    }
    return done;
}

/* ---- counts ---- */

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t queue_requests_fast(const ploop_queue *queue, uint32_t op)
{
    uint32_t fast_op = kinds[op].fast_op;
    return load(&queue->counts[op].calls_fast) +
           (fast_op ? load(&queue->fast_requests[fast_op]) : 0);
}

uint64_t queue_requests(const ploop_queue *queue, uint32_t op)
{
    return load(&queue->counts[op].requests) + queue_requests_fast(queue, op);
}

/* ---- a run ---- */

uint64_t queue_run_begins(ploop_queue *queue)
{
    uint64_t deadline_ns = atomic_load(&queue->dev->next_deadline_ns);
    atomic_store(&queue->rung, true);
    return deadline_ns;
}

static void silence(ploop_queue *queue)
{
    uint64_t count;
    atomic_store(&queue->written, false);
    ssize_t got = read(queue->event_fd, &count, sizeof(count));
    (void)got;
}

/* Whether something is to be delivered that no thread delivers. Another one looks again itself. */
static bool is_waiting(ploop_queue *queue)
{
    return (!inbox_is_empty(&queue->done) || has_unreaped(queue)) &&
           !atomic_load(&queue->delivering);
}

int queue_run_ends(ploop_queue *queue, uint64_t deadline_ns, bool looks_again,
                   struct reaping *reaping)
{
    int delivered = queue_deliver(queue, reaping);
    if (atomic_load(&queue->written) || (delivered == 0 && !looks_again)) {
        silence(queue);
    }
    atomic_store(&queue->rung, false);
    if (is_waiting(queue) || atomic_load(&queue->dev->next_deadline_ns) < deadline_ns) {
        queue_ring(queue);
    }
    return delivered;
}

int ploop_queue_set_notify(ploop_queue *queue, uint32_t enabled)
{
    if (runner_count(queue)) {
        return -EBUSY;
    }
    if (enabled > 1) {
        return -EINVAL;
    }
    atomic_store(&queue->quiet, !enabled);
    if (enabled) {
        atomic_store(&queue->rung, false);
        if (is_waiting(queue)) {
            queue_ring(queue);
        }
    }
    return 0;
}

int ploop_queue_poll_fd(ploop_queue *queue)
{
    return runner_count(queue) ? -EBUSY : queue->poll_fd;
}
