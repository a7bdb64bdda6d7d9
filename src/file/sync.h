/* SPDX-License-Identifier: MIT */
/*
 * SYNCs, numbered: what "durable" means to the engine.
 *
 * SYNCs go out one at a time and are numbered from 1 in the order they are submitted. Whatever
 * completed while `submitted` was n is durable when SYNC n + 1 has succeeded; sync_next() gives
 * that number at the moment something completes, and from then on "is it durable?" is a comparison.
 * A caller that needs a number waits for it; callers that wait for the same number share one SYNC.
 *
 * The latch: a SYNC that fails may have lost anything that was not durable, and a later success
 * would not report it. So after the first failure no SYNC is sent any more, and every wait, present
 * or future, ends with -EIO, whatever the backend returned: -ENOSPC would promise that more space
 * could repair it.
 *
 *  1. succeeded <= submitted <= succeeded + 1, but for the latch.
 *  2. in_flight means SYNC number `submitted` is at the backend.
 *  3. A waiter's number is greater than `succeeded`.
 */
#ifndef FILE_SYNC_H
#define FILE_SYNC_H

#include "file/channel.h"

/* A SYNC, or where none is needed SYNC_NONE, which counts as done. */
struct sync_number {
    uint64_t n;
};

#define SYNC_NONE ((struct sync_number){0})

static inline struct sync_number sync_later(struct sync_number a, struct sync_number b)
{
    return a.n > b.n ? a : b;
}

struct syncer {
    struct channel_io io;
    uint64_t submitted, succeeded;
    uint64_t wanted;
    bool in_flight;
    int error;           /* the latch: -EIO, or at an abort -ECANCELED */
    int cause;           /* what the backend said */
    _Atomic int tripped; /* the same, from the moment the backend says it: nothing is sent that must
                            not be after it */
    struct list waiters;
    void (*done)(struct syncer *syncer); /* after each SYNC, before its waiters */
    _Atomic uint64_t count, failures;    /* for the statistics */
};

struct sync_wait;
typedef void sync_fn(struct sync_wait *wait, int result);

struct sync_wait {
    struct list link;
    struct sync_number number;
    sync_fn *then;
};

void sync_init(struct syncer *syncer, struct channel *channel);

/* The number of the SYNC that makes durable all that has completed until now. */
struct sync_number sync_next(const struct syncer *syncer);

bool sync_is_done(const struct syncer *syncer, struct sync_number number);

/* 0: done already; 1: `then` will run when it is; -errno: latched. */
int sync_wait_for(struct syncer *syncer, struct sync_wait *wait, struct sync_number number,
                  sync_fn *then);

/* Want a SYNC without waiting for it. */
void sync_want(struct syncer *syncer, struct sync_number number);

/* Send the next SYNC if one is wanted. */
void sync_pump(struct syncer *syncer);

/* At an abort: as if the latch had fallen. */
void sync_give_up(struct syncer *syncer, int error);

/* End all waits with an error. */
void sync_fail_waiters(struct syncer *syncer, int error);

#endif
