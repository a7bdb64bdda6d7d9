/* SPDX-License-Identifier: MIT */
/*
 * A ring: what sends requests to the kernel and hears of their end.
 *
 *     taken (ring_take_sqe) -> sent (ring_send) -> completed, and taken by a reap (ring_reap)
 *                           -> refused by ring_send: it ends with that error
 *     carried out by an I/O thread -> handed over (ring_hand_over) -> ended by a reap
 *
 *  1. `latch` guards the ring. The library has one thread at a time in it for one device; but
 *     devices, and queues that found no ring of their own, may share it, and a file's own calls and
 *     its reopen come from any thread. Requests end without it: they send further ones.
 *  2. in_flight counts what was taken and has not been reaped. It is at most `room`, so that the
 *     completion ring never overflows.
 *  3. What an I/O thread has carried out ends in a reap. So no I/O thread runs the library, and
 *     none sends: the kernel posts a completion through the thread that sent the request and waits
 *     until that thread can be interrupted, but an I/O thread may sleep in fdatasync or fallocate
 *     for long, and fallocate waits for direct writes.
 *  4. A hand-over makes the ring readable: the ring always reads wake_fd, which a hand-over writes.
 *     `is_armed`: that read is at the kernel or waits to be sent. One entry is kept for it. Where
 *     the kernel would not take it, who tried to send it ends what was handed over before, and who
 *     hands over after that sends it, from the I/O thread, as often as it takes: it ends at once.
 *  5. A ring is not bound to a thread. When the thread that sent a request ends, the kernel may
 *     cancel the request: then the library sends it again, and the ring reads wake_fd again.
 */
#ifndef FILE_URING_RING_H
#define FILE_URING_RING_H

#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "file/file.h"
#include "util/latch.h"

/* Of the files that a ring knows by number there are at most so many: uring_group.h. */
enum { RING_FILES_MAX = 512, RING_BUFFERS_MAX = 1024 };

struct ring {
    struct latch latch;
    uint32_t taken; /* entries that were not sent yet, at most */
    struct io_uring uring;
    uint32_t in_flight;
    uint32_t room;
    bool is_polled; /* a thread of the kernel's takes the requests: SQPOLL */
    bool is_armed;
    bool has_files;       /* it has the group's table of files */
    bool has_buffers;     /* it has a table of memory */
    bool has_memory;      /* and all of the group's memory is there */
    uint32_t last_piece;  /* of that memory, where the last request was: a guess */
    atomic_bool unsent;   /* requests were taken since the last send */
    _Atomic(void *) head; /* handed over, the latest first; linked by backend_data[0] */
    int wake_fd;
    uint64_t wake_count; /* read from it */
};

/* How rings are made. */
struct ring_options {
    bool polled; /* by SQPOLL; where that is refused the ring is an ordinary one */
    uint32_t idle_ms;
    const struct ring *same_poller; /* or NULL: its kernel thread serves this ring too */
};

/* NULL and *error = -errno. */
struct ring *ring_open(const struct ring_options *options, int *error);
/* Nothing is in flight. */
void ring_close(struct ring *ring);

/* An entry to fill, which counts as in flight; with the latch held. NULL: the ring is full. */
struct io_uring_sqe *ring_take_sqe(struct ring *ring);

/* Send what was taken. What the kernel refuses ends here. Not with the latch. */
void ring_send_taken(struct ring *ring);
static inline void ring_send(struct ring *ring)
{
    if (atomic_load_explicit(&ring->unsent, memory_order_relaxed)) {
        ring_send_taken(ring);
    }
}

/* An I/O thread has carried it out. */
void ring_hand_over(struct ring *ring, struct ploop_io *io, int64_t result);

/* Whether a reap would find something; without the latch and without a system call. */
bool ring_is_ready(struct ring *ring);
/* End what is over. How many requests that were. */
int ring_reap(struct ring *ring);

/* uring.c: a request is over, at that ring or by an I/O thread. Nothing of it is kept. */
void uring_ended(struct ring *ring, struct ploop_io *io, int result);
void uring_carried_out(struct ring *ring, struct ploop_io *io, int64_t result);

#endif
