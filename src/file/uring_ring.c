/* SPDX-License-Identifier: MIT */
/* A ring: see the header. */
#include "file/uring_ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { RING_ENTRIES = 128, BATCH = 64 };

/* backend_data of a request that was handed over. */
enum { HANDED_NEXT = 0, HANDED_RESULT = 1 };

/* What was taken from the completion ring. */
struct completion {
    struct ploop_io *io;
    int result;
};

/* ---- waking ---- */

/* With the latch held; the entry that ring_take_sqe() leaves. */
static void arm(struct ring *ring)
{
    struct io_uring_sqe *sqe = ring->is_armed ? NULL : io_uring_get_sqe(&ring->uring);
    if (sqe) {
        io_uring_prep_read(sqe, ring->wake_fd, &ring->wake_count, sizeof(ring->wake_count), 0);
        io_uring_sqe_set_data(sqe, NULL);
        ring->is_armed = true;
        atomic_store_explicit(&ring->unsent, true, memory_order_relaxed);
    }
}

/* By an I/O thread, after it has written to wake_fd. */
static void keep_armed(struct ring *ring)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    bool sends = false;
    latch_lock(&ring->latch);
    while (!ring->is_armed || (sends && io_uring_sq_ready(&ring->uring) > 0)) {
        sends = true;
        arm(ring);
        (void)io_uring_submit(&ring->uring);
        ring->taken = io_uring_sq_ready(&ring->uring);
        if (!ring->is_armed || ring->taken > 0) {
            latch_unlock(&ring->latch);
            (void)nanosleep(&nap, NULL);
            latch_lock(&ring->latch);
        }
    }
    latch_unlock(&ring->latch);
}

void ring_hand_over(struct ring *ring, struct ploop_io *io, int64_t result)
{
    uint64_t one = 1;
    void *head = atomic_load(&ring->head);
    io->backend_data[HANDED_RESULT] = (void *)(intptr_t)result;
    do {
        io->backend_data[HANDED_NEXT] = head;
    } while (!atomic_compare_exchange_weak(&ring->head, &head, io));
    /* Whoever found the list empty wakes for all that came before the next reap. */
    if (!head) {
        ssize_t written = write(ring->wake_fd, &one, sizeof(one));
        (void)written; /* a full counter is readable too */
        keep_armed(ring);
    }
}

static int end_handed_over(struct ring *ring)
{
    int count = 0;
    struct ploop_io *io = atomic_load(&ring->head) ? atomic_exchange(&ring->head, NULL) : NULL;
    for (; io; count++) {
        struct ploop_io *next = io->backend_data[HANDED_NEXT];
        uring_carried_out(ring, io, (intptr_t)io->backend_data[HANDED_RESULT]);
        io = next;
    }
    return count;
}

/* ---- sending ---- */

struct io_uring_sqe *ring_take_sqe(struct ring *ring)
{
    if (ring->in_flight >= ring->room) {
        return NULL;
    }
    if (ring->taken + 1 >= ring->uring.sq.ring_entries) {
        (void)io_uring_submit(&ring->uring); /* an error comes again where it is looked at */
        ring->taken = io_uring_sq_ready(&ring->uring);
        if (ring->taken + 1 >= ring->uring.sq.ring_entries) {
            return NULL;
        }
    }
    ring->in_flight++;
    ring->taken++;
    atomic_store_explicit(&ring->unsent, true, memory_order_relaxed);
    return io_uring_get_sqe(&ring->uring);
}

/*
 * Take back what the kernel has not taken, with the latch held. It looks at the ring only inside
 * of io_uring_submit(); a kernel thread that does so by itself has died where that fails.
 */
static uint32_t withdraw(struct ring *ring, struct completion *withdrawn, int error)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    uint32_t count = 0;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    for (unsigned at = head; at != sq->sqe_tail; at++) {
        struct ploop_io *io = (void *)(uintptr_t)sq->sqes[at & sq->ring_mask].user_data;
        if (io) {
            withdrawn[count++] = (struct completion){io, error};
            ring->in_flight--;
        } else {
            ring->is_armed = false;
        }
    }
    sq->sqe_head = sq->sqe_tail = head;
    __atomic_store_n(sq->ktail, head, __ATOMIC_RELEASE);
    return count;
}

/*
 * 0, or why the kernel takes no more. It may take a part of them: a request that cannot begin ends
 * the batch, and has completed.
 */
static int submit(struct ring *ring)
{
    int sent = io_uring_submit(&ring->uring);
    while (sent == -EINTR ||
           (sent > 0 && !ring->is_polled && io_uring_sq_ready(&ring->uring) > 0)) {
        sent = io_uring_submit(&ring->uring);
    }
    return sent > 0 || io_uring_sq_ready(&ring->uring) == 0 ? 0 : sent < 0 ? sent : -EAGAIN;
}

void ring_send_taken(struct ring *ring)
{
    struct completion withdrawn[RING_ENTRIES];
    /* Those that end may let others be taken. */
    while (atomic_load_explicit(&ring->unsent, memory_order_relaxed)) {
        latch_lock(&ring->latch);
        atomic_store_explicit(&ring->unsent, false, memory_order_relaxed);
        int error = submit(ring);
        uint32_t count = error ? withdraw(ring, withdrawn, error) : 0;
        ring->taken = io_uring_sq_ready(&ring->uring);
        bool is_armed = ring->is_armed;
        latch_unlock(&ring->latch);
        for (uint32_t i = 0; i < count; i++) {
            uring_ended(ring, withdrawn[i].io, withdrawn[i].result);
        }
        if (!is_armed) {
            (void)end_handed_over(ring);
        }
    }
}

/* ---- reaping ---- */

static uint32_t take_completions(struct ring *ring, struct completion *completions)
{
    struct io_uring_cqe *cqe;
    uint32_t count = 0;
    latch_lock(&ring->latch);
    while (count < BATCH && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        struct ploop_io *io = io_uring_cqe_get_data(cqe);
        if (io) {
            completions[count++] = (struct completion){io, cqe->res};
            assert(ring->in_flight > 0);
            ring->in_flight--;
        } else {
            ring->is_armed = false;
        }
        io_uring_cqe_seen(&ring->uring, cqe);
    }
    arm(ring);
    latch_unlock(&ring->latch);
    return count;
}

bool ring_is_ready(struct ring *ring)
{
    const struct io_uring_cq *cq = &ring->uring.cq;
    return __atomic_load_n(cq->khead, __ATOMIC_RELAXED) !=
               __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE) ||
           atomic_load_explicit(&ring->head, memory_order_relaxed) != NULL;
}

int ring_reap(struct ring *ring)
{
    struct completion completions[BATCH];
    uint32_t done = 0, count = BATCH;
    while (count == BATCH && done < ring->room) {
        count = take_completions(ring, completions);
        for (uint32_t i = 0; i < count; i++) {
            uring_ended(ring, completions[i].io, completions[i].result);
        }
        done += count;
    }
    int handed = end_handed_over(ring);
    ring_send(ring); /* the next read of wake_fd, FUA writes that go on: no kick follows for them */
    return (int)done + handed;
}

/* ---- open and close ---- */

static int init(struct ring *ring, const struct ring_options *options)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP};
    int error = -ENOTSUP;
    if (options->polled) {
        params.flags |= IORING_SETUP_SQPOLL;
        params.sq_thread_idle = options->idle_ms;
        if (options->same_poller) {
            params.flags |= IORING_SETUP_ATTACH_WQ;
            params.wq_fd = (uint32_t)options->same_poller->uring.ring_fd;
        }
        error = io_uring_queue_init_params(RING_ENTRIES, &ring->uring, &params);
        if (!error && !(params.features & IORING_FEAT_SQPOLL_NONFIXED)) {
            io_uring_queue_exit(&ring->uring);
            error = -ENOTSUP;
        }
        ring->is_polled = !error;
    }
    if (error) {
        params = (struct io_uring_params){.flags = IORING_SETUP_CLAMP};
        error = io_uring_queue_init_params(RING_ENTRIES, &ring->uring, &params);
    }
    ring->room = params.cq_entries - 1; /* and the read of wake_fd */
    return error;
}

struct ring *ring_open(const struct ring_options *options, int *error)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (!ring) {
        *error = -ENOMEM;
        return NULL;
    }
    /* It blocks: a request that reads it waits for the next hand-over. */
    ring->wake_fd = eventfd(0, EFD_CLOEXEC);
    *error = ring->wake_fd < 0 ? -errno : init(ring, options);
    if (*error) {
        if (ring->wake_fd >= 0) {
            close(ring->wake_fd);
        }
        free(ring);
        return NULL;
    }
    latch_lock(&ring->latch);
    arm(ring);
    latch_unlock(&ring->latch);
    ring_send(ring);
    return ring;
}

void ring_close(struct ring *ring)
{
    assert(ring->in_flight == 0 && !atomic_load(&ring->head));
    io_uring_queue_exit(&ring->uring);
    close(ring->wake_fd);
    free(ring);
}
