/* SPDX-License-Identifier: MIT */
/*
 * Cluster locks: which parts may touch a guest cluster's place now. Asynchronous: no thread is
 * blocked, waiters are queued.
 *
 * Guest clusters hash to a fixed number of locks; a request part holds one at a time. A lock's word
 * counts the shared holders. Its EXCLUSIVE bit means that a part holds the lock alone or waits for
 * that, and turns new shared ones away. DRAINING means that the lock's work is posted and will look
 * at the line.
 *
 *     shared   lock_try_shared() and lock_leave_shared() from any thread: one atomic operation each
 *     queued   lock_take() in the turn: at once, or later through the part's `locked` step, in
 *              order of arrival
 *
 *  1. EXCLUSIVE is set and cleared in the turn only, so there the choice between waiting and going
 *     on is not a race.
 *  2. While EXCLUSIVE is set a part gets in by a grant only. The work that grants is posted exactly
 *     once before each look at the line: by the thread that makes the count 0, unless DRAINING says
 *     that it is posted; by the part that gives up the exclusive hold; by a downgrade.
 *  3. Waiters are granted in order; a run of shared ones together.
 *  4. A holder never waits for more than it has: lock_take_alone() gives the shared hold up first.
 */
#ifndef PIO_LOCK_H
#define PIO_LOCK_H

#include <stdalign.h>
#include <stdatomic.h>

#include "format/geometry.h"
#include "util/list.h"
#include "util/work.h"

enum { LOCK_BITS = 10, LOCK_COUNT = 1 << LOCK_BITS };
#define LOCK_EXCLUSIVE 0x80000000u
#define LOCK_DRAINING 0x40000000u
#define LOCK_SHARED (LOCK_DRAINING - 1) /* the count */

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
    return (cluster.n * UINT32_C(2654435761)) >> (32 - LOCK_BITS);
}

bool lock_try_shared(struct cluster_lock *lock);

/* True: an exclusive waiter can go on, and lock_post_drained() has to follow. */
bool lock_leave_shared(struct cluster_lock *lock);
void lock_post_drained(struct cluster_lock *lock, struct turn *turn);

/* Both. */
void lock_release_shared(struct cluster_lock *lock, struct turn *turn);

/* In the turn. True: it is held now; false: `locked` will be called. */
bool lock_take(struct cluster_lock *lock, struct lock_waiter *waiter, bool exclusive,
               lock_fn *locked);

/*
 * In the turn, by a part that holds the lock alone: it holds it shared from now on, and the shared
 * ones that are first in the line get in.
 */
void lock_downgrade(struct lock_waiter *waiter, struct turn *turn);

/*
 * In the turn, by a part that holds the lock shared: gives it back, and goes to the head of the
 * line to have it alone. `locked` will be called.
 */
void lock_take_alone(struct lock_waiter *waiter, struct turn *turn);

/* In the turn. */
void lock_release(struct lock_waiter *waiter, struct turn *turn);

#endif
