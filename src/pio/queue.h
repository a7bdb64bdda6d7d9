/* SPDX-License-Identifier: MIT */
/* A user's queue: its pool of requests, its ring at the backend, its completions. See queue.c. */
#ifndef PIO_QUEUE_H
#define PIO_QUEUE_H

#include <assert.h>

#include "dev/dev.h"
#include "pio/pio.h"
#include "util/counter.h"

/*
 * What a queue was asked of a kind: ploop_dev_stats(). Any thread. Requests of the fast path are
 * here too where a thread waits for them; the others are in fast_requests and fast_bytes.
 */
struct kind_counts {
    _Atomic uint64_t requests; /* that went to the engine */
    _Atomic uint64_t calls_fast;
    _Atomic uint64_t bytes, errors;
};

enum { FAST_OPS = PLOOP_IO_WRITE + 1 }; /* a fast_op is the backend's READ or WRITE */

/*
 * in_flight counts the requests that the engine has: accepted and neither completed nor held; each
 * counts pio_weight(). Those of the fast path are counted in the channel's lanes. A request is
 * completed when it waits in `done` to be delivered; of the fast path, when the thread that
 * completed it has done with the queue. A device is freed when all of these counts and the turn's
 * visitors are 0 and nothing is left to deliver.
 */
struct ploop_queue {
    alignas(64) _Atomic uint64_t free_head; /* the pool: queue.c */
    _Atomic uint64_t in_flight;
    atomic_bool ring;                         /* a thread is in it (queue.c, 2) */
    _Atomic uint64_t fast_requests[FAST_OPS]; /* by who has entered the ring; by fast_op */
    _Atomic uint64_t fast_bytes[FAST_OPS];
    struct inbox done;
    atomic_bool delivering;
    _Atomic uint64_t waiting;   /* completions for a run to deliver */
    struct work *unreaped;      /* completions without a callback, in order; and where the next */
    struct work **unreaped_end; /* one goes: they belong to who delivers */
    _Atomic uint64_t unreaped_count;
    atomic_bool rung;           /* nobody needs to ring: queue_ring() */
    atomic_bool quiet;          /* notification is off: ploop_queue_set_notify() */
    atomic_bool written;        /* event_fd may be readable */
    _Atomic uint32_t idle_runs; /* in a row: run.c */
    /* Threads in ploop_pio_execute() that wait; one of them runs the queue: engine/call.c. */
    _Atomic uint32_t callers;
    pthread_mutex_t call_mutex;
    pthread_cond_t call_changed;
    bool has_leader;
    alignas(64) struct kind_counts counts[PIO_KINDS];
    alignas(64) ploop_dev *dev; /* from here on what every thread reads */
    uint32_t index;
    uint32_t pio_count;
    ploop_pio *pios;
    uint32_t lane_at; /* channel_lane_at() */
    int event_fd;     /* the engine's queue has none: -1 */
    int poll_fd;      /* readable when that is, or the backend has something to reap */
};

/* Without a pool and never delivered: blocking calls count their requests in it. */
static inline ploop_queue *dev_engine_queue(const ploop_dev *dev)
{
    return &dev->queues[dev->queue_count];
}

/* Where completions without a callback go. */
struct reaping {
    struct ploop_completion *list;
    uint32_t room, count;
};

int queue_init(ploop_queue *queue, ploop_dev *dev, uint32_t index, uint32_t pio_count);
void queue_free(ploop_queue *queue);
bool in_callback(void);

/* ---- its ring at the backend ---- */
/* By its descriptor. 0 or -errno. */
int queue_watch(const ploop_queue *queue, const struct ploop_file *file);
/* No more, but where a file that is served has the same descriptor. */
void queue_unwatch(const ploop_queue *queue, const struct ploop_file *file);
static inline bool queue_is_entered(const ploop_queue *queue)
{
    return atomic_load(&queue->ring);
}
bool queue_enter(ploop_queue *queue); /* try to enter it; true: queue_leave() follows */
static inline void queue_leave(ploop_queue *queue)
{
    assert(queue_is_entered(queue));
    atomic_store_explicit(&queue->ring, false, memory_order_release);
}
/* Of this kind, accepted: those of the fast path, and all. */
uint64_t queue_requests_fast(const ploop_queue *queue, uint32_t op);
uint64_t queue_requests(const ploop_queue *queue, uint32_t op);
int queue_reap(ploop_queue *queue); /* how many were completed */

/* ---- its completions ---- */
/*
 * It is done. True: no other was there, and queue_announce() has to follow; else it follows the
 * push of the first.
 */
bool queue_push(ploop_queue *queue, ploop_pio *pio);
void queue_ring(ploop_queue *queue); /* make its descriptor readable */
/* From inside of a delivery, which goes on: it is to be reaped. */
void queue_keep(ploop_queue *queue, struct notice *notice);
/* Tell its owner of what is done, unless one runs now. */
static inline void queue_announce(ploop_queue *queue)
{
    if (!atomic_load(&queue->rung) && !inbox_is_empty(&queue->done)) {
        queue_ring(queue);
    }
}
/* The same, whether it is notified or not: a thread sleeps on its descriptor. */
void queue_wake(ploop_queue *queue);
/*
 * Run the callbacks of what is done. What has none goes to `reaping`; where that is NULL or full it
 * is kept. How many were called or stored.
 */
int queue_deliver(ploop_queue *queue, struct reaping *reaping);

/* A run of this queue by this thread begins: the descriptor is not rung before it ends. */
uint64_t queue_run_begins(ploop_queue *queue);
/*
 * It ends; deadline_ns is what its beginning returned. Delivers; how many. A run that delivers
 * nothing may have been woken by the descriptor, and makes it unreadable: unless the caller looks
 * again, in another run, before it returns to its own caller.
 */
int queue_run_ends(ploop_queue *queue, uint64_t deadline_ns, bool looks_again,
                   struct reaping *reaping);

#endif
