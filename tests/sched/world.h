/* SPDX-License-Identifier: MIT */
/*
 * A device over one or two disks, and requests to it, for the scenarios. All of it lies in the
 * arena.
 */
#ifndef SCHED_WORLD_H
#define SCHED_WORLD_H

#include <ploop/ploop.h>

#include "disk.h"
#include "fiber.h"
#include "threads.h"

#define HERE __FILE__, __LINE__

enum { CLUSTER = 4096, SECTOR = 512, DISK_CLUSTERS = 16, REQUESTS_MAX = 16 };

struct plan {
    enum disk_mode mode;
    unsigned room;        /* of the disk */
    uint32_t flags;       /* of the device */
    uint32_t pio_count;   /* 8 if 0 */
    uint32_t queue_count; /* 1 if 0 */
    uint32_t runner_count;
    uint32_t mapped;   /* clusters [0, mapped) hold 'm' */
    uint32_t lower;    /* not 0: clusters [0, lower) of a delta below hold 'l' */
    bool full;         /* the file cannot grow, and no cluster is free */
    unsigned devices;  /* fibers that complete; 1 if 0, with DISK_DEVICE */
    uint64_t delay_ns; /* of writeback; 0: an hour */
    uint64_t cow_delay_ns;
    uint64_t tick_ns; /* the time that passes each time the device reads the clock */
    bool no_wake_at;
};

struct request {
    ploop_pio *pio;
    struct iovec iov;
    unsigned calls;
    int result;
};

struct world {
    struct disk disk, below;
    ploop_file *deltas[2];
    uint32_t delta_count;
    ploop_dev *dev;
    ploop_queue *queue;
    struct ploop_clock clock;
    uint64_t wake_ns; /* the last time that wake_at was given */
    uint64_t tick_ns, ticks;
    uint64_t room_events;
    bool calling_back[4]; /* by queue */
    struct request requests[REQUESTS_MAX];
    unsigned request_count;
};

/* The world of the scenario that was set up last. */
extern struct world *world;

void world_open(const struct plan *plan);

/* A daemon that runs the device when wake_at asks for it. The clock does not move for it. */
void world_runner(void *unused);

/* Begin requests, on the world's first queue or a given one. Submit must accept them. */
struct request *begin_write(ploop_queue *queue, uint64_t offset, uint64_t length, char byte,
                            uint32_t flags);
struct request *begin_read(ploop_queue *queue, uint64_t offset, uint64_t length);
struct request *begin_discard(ploop_queue *queue, uint64_t offset, uint64_t length);
struct request *begin_flush(ploop_queue *queue);

/*
 * A queue's owner: it sleeps until its queue's descriptor is readable, runs the queue, and looks
 * again. Every call is enough for the queue: a lost event leaves a fiber that sleeps for ever.
 */
typedef bool world_fn(void *argument);
void run_until(ploop_queue *queue, world_fn *done, void *argument);

/* The same until the request is done. Returns its result. */
int end(struct request *request);

/* A result that is an error is a failure. */
void must_be(int result, int expected, const char *what);

/* Outside a schedule: read and compare. */
void expect(uint64_t offset, uint64_t length, char byte, const char *what);
/* Each sector holds only one of these bytes ('0' for zeros). */
void expect_one_of(uint64_t offset, uint64_t length, const char *bytes, const char *what);

/*
 * Nothing is left: every request was called back once, nothing is in flight, no lock is held, no
 * callback waits, the turn has no work.
 */
void world_is_quiet(void);

#endif
