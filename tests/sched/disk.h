/* SPDX-License-Identifier: MIT */
/*
 * The backend of the scenarios: bytes in memory, and four ways to complete a request.
 *
 *     inline   before submit returns; and always outside a schedule, whatever the disk is
 *     device   by a fiber of its own (disk_device()), at any later moment, in any order, once it
 *              was kicked
 *     reap     by the thread that calls reap for its queue, once it was kicked; the queue's
 *              descriptor is then readable
 *
 *     help     by the thread that submits it, where that may block; else by a thread that helps, or
 *              as `device`, once it was kicked
 *
 *  1. A request takes its effect on the bytes at the moment of its completion, in one step.
 *  2. The disk holds `room` requests; it refuses more with -EAGAIN, and first of all `refusals`.
 *  3. While the disk is `shut`, a request is a failure: the library promised to send none.
 *  4. Two threads inside submit, kick or reap for one queue at the same time are a failure, but
 *     where the contract allows it for the sake of `help`.
 */
#ifndef SCHED_DISK_H
#define SCHED_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/file.h>

enum { DISK_ROOM_MAX = 32, DISK_QUEUES_MAX = 4 };

enum disk_mode { DISK_INLINE, DISK_DEVICE, DISK_REAP, DISK_HELP };

struct disk {
    enum disk_mode mode;
    unsigned room; /* DISK_ROOM_MAX if 0 */
    bool no_growth;
    bool shut;
    uint8_t *bytes;
    uint64_t size, capacity;
    struct ploop_io *held[DISK_ROOM_MAX];
    unsigned held_count, kicked;
    unsigned refusals; /* so many requests are refused, whatever room there is */
    uint64_t refused;
    bool inside[DISK_QUEUES_MAX];   /* a thread is in the ring of that queue */
    int ready_fds[DISK_QUEUES_MAX]; /* reap: readable when there is a completion to reap */
    uint64_t edges;                 /* the number of times one became readable */
    /*
     * Completions of writes are numbered; those up to `durable` came before a SYNC was submitted
     * that has succeeded.
     */
    uint64_t written, durable;
};

/* In memory of the arena; zeros, `capacity` bytes at most. */
ploop_file *disk_open(struct disk *disk, uint64_t capacity);

/* A daemon's fiber_fn: completes the requests that the disk holds. Several may do so. */
void disk_device(void *context);

#endif
