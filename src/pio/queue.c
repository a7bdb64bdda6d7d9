/* SPDX-License-Identifier: MIT */
/*
 * Queues: the pool of requests, the ring at the backend, and the delivery of completions.
 *
 * The pool is a stack of indices whose head carries a tag, so that taking and giving back need no
 * lock on any thread.
 *
 * A request of the fast path:
 *
 *     submitted -> at the backend -> done (its cluster's lock is given back, it is in flight no
 *     longer) -> called back, by a run
 *             without a callback: -> unreaped, by a run -> stored for the caller, by a reap
 *
 *  1. A user's queue carries at the backend what its fast path sends, and nothing else.
 *  2. `entered` is held around submit with kick, and around reap, of that queue: the backend sees
 *     one thread there at a time. It is tried and never waited for. A submit that finds it taken
 *     posts to the turn, which is as right and only slower. A reap that finds it taken is left out:
 *     what it would have found keeps the backend's descriptor readable, and calls that block look
 *     again within NAP_NS.
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
    queue->free_next = calloc(pio_count, sizeof(*queue->free_next));
    if (!queue->pios || !queue->free_next) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < pio_count; i++) {
        pio_init(&queue->pios[i], queue);
        queue->pios[i].index = i + 1;
        atomic_store(&queue->free_next[i], i + 1 < pio_count ? i + 2 : 0);
    }
    atomic_store(&queue->free_head, 1);
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
    free(queue->free_next);
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

/* ---- the pool ---- */

static inline __attribute__((always_inline)) ploop_pio *pool_pop(ploop_queue *queue)
{
    uint64_t head = atomic_load(&queue->free_head), next;
    do {
        if ((uint32_t)head == 0) {
            return NULL;
        }
        uint32_t below =
            atomic_load_explicit(&queue->free_next[(uint32_t)head - 1], memory_order_relaxed);
        next = ((head >> 32) + 1) << 32 | below;
    } while (!atomic_compare_exchange_weak(&queue->free_head, &head, next));
    return &queue->pios[(uint32_t)head - 1];
}

ploop_pio *ploop_pio_get(ploop_queue *queue)
{
    ploop_pio *pio = pool_pop(queue);
    if (!pio) {
        /*
         * One may have been put before `starved` was there to be seen. Then it stays set: it may be
         * another thread's by now.
         */
        atomic_store(&queue->starved, true);
        pio = pool_pop(queue);
    }
    if (pio) {
        pio->op = PIO_NONE;
        pio->callback = NULL;
        pio->user_data = NULL;
    }
    return pio;
}

void ploop_pio_put(ploop_pio *pio)
{
    if (!pio) {
        return;
    }
    ploop_queue *queue = pio->queue;
    assert(pio->index);
    uint32_t index = pio->index;
    uint64_t head = atomic_load(&queue->free_head), next;
    do {
        atomic_store_explicit(&queue->free_next[index - 1], (uint32_t)head, memory_order_relaxed);
        next = ((head >> 32) + 1) << 32 | index;
    } while (!atomic_compare_exchange_weak(&queue->free_head, &head, next));
    if (atomic_load(&queue->starved) && atomic_exchange(&queue->starved, false)) {
        dev_event(queue->dev, PLOOP_EVENT_POOL_HAS_ROOM, queue->index);
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
        if (pio->callback) {
            pio->callback(pio, pio->result, pio->user_data);
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

void queue_push(ploop_queue *queue, ploop_pio *pio)
{
    assert(!pio->blocking && queue->index < queue->dev->queue_count);
    atomic_fetch_add_explicit(&queue->waiting, 1, memory_order_relaxed);
    inbox_push(&queue->done, &pio->work);
}

/* ---- the ring ---- */

bool queue_enter(ploop_queue *queue)
{
    return !atomic_exchange_explicit(&queue->entered, true, memory_order_acquire);
}

void queue_leave(ploop_queue *queue)
{
    assert(atomic_load_explicit(&queue->entered, memory_order_relaxed));
    atomic_store_explicit(&queue->entered, false, memory_order_release);
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
