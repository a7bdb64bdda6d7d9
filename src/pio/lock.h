/* SPDX-License-Identifier: MIT */
/*
 * Cluster locks: who may touch a guest cluster's place now. Asynchronous: nobody is blocked,
 * waiters are queued.
 *
 * Guest clusters hash to a fixed number of locks; a request part holds one at a time. A lock's word
 * counts the shared holders; the EXCLUSIVE bit means somebody holds it alone or waits to, and turns
 * new shared ones away.
 *
 *     shared   lock_try_shared() and lock_release_shared() from any thread: one atomic operation
 *              each
 *     queued   lock_take() in the turn: at once, or later through the part's `locked` step, in
 *              order of arrival
 *
 *  1. EXCLUSIVE is set and cleared in the turn only, so that there the choice between waiting and
 *     going on is not a race.
 *  2. While EXCLUSIVE is set nobody gets in but by a grant. Whoever makes the count 0 posts the
 *     lock's work, and so does whoever gives up the lock's exclusive hold: exactly once before each
 *     grant.
 *  3. Waiters are granted in order; a run of shared ones together.
 */
#ifndef PIO_LOCK_H
#define PIO_LOCK_H

#include <stdalign.h>
#include <stdatomic.h>

#include "format/geometry.h"
#include "util/list.h"
#include "util/work.h"

enum { LOCK_COUNT = 1024 };
#define LOCK_EXCLUSIVE 0x80000000u

struct cluster_lock {
    alignas(64) _Atomic uint32_t word;
    bool held_exclusive; /* the turn's: EXCLUSIVE is held, not waited for */
    struct list waiters; /* lock_waiter.link */
    struct work drained;
};

struct lock_waiter;
typedef void lock_fn(struct lock_waiter *waiter);

struct lock_waiter {
    struct list link;
    struct cluster_lock *lock;
    lock_fn *locked;
    bool exclusive;
};

void lock_init(struct cluster_lock *lock);

static inline uint32_t lock_index(struct guest_cluster cluster)
{
    return (cluster.n * UINT32_C(2654435761)) >> 22;
}

bool lock_try_shared(struct cluster_lock *lock);

/* Posts to the turn where an exclusive waiter can go on. */
void lock_release_shared(struct cluster_lock *lock, struct turn *turn);

/* In the turn. True: it is held now; false: `locked` will be called. */
bool lock_take(struct cluster_lock *lock, struct lock_waiter *waiter, bool exclusive,
               lock_fn *locked);

/* In the turn. */
void lock_release(struct lock_waiter *waiter, struct turn *turn);

#endif
