/* SPDX-License-Identifier: MIT */
/* The states stand in lock.h. */
#include "pio/lock.h"

#include <assert.h>

static void lock_drained(struct work *work);

void lock_init(struct cluster_lock *lock)
{
    list_init(&lock->waiters);
    lock->drained.run = lock_drained;
}

bool lock_try_shared(struct cluster_lock *lock)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    do {
        if (word & LOCK_EXCLUSIVE) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&lock->word, &word, word + 1,
                                                    memory_order_acquire, memory_order_relaxed));
    return true;
}

bool lock_leave_shared(struct cluster_lock *lock)
{
    uint32_t before = atomic_fetch_sub_explicit(&lock->word, 1, memory_order_acq_rel);
    assert(before & LOCK_SHARED);
    return before == (LOCK_EXCLUSIVE | 1);
}

void lock_post_drained(struct cluster_lock *lock, struct turn *turn)
{
    turn_post(turn, &lock->drained);
}

void lock_release_shared(struct cluster_lock *lock, struct turn *turn)
{
    if (lock_leave_shared(lock)) {
        lock_post_drained(lock, turn);
    }
}

/*
 * The first waiter wants it alone: close the door. True where no part is inside. The door may be
 * shut already, by an exclusive holder who has just left and whose `drained` is on its way: then
 * that will grant.
 */
static bool close_door(struct cluster_lock *lock)
{
    return atomic_fetch_or_explicit(&lock->word, LOCK_EXCLUSIVE, memory_order_acq_rel) == 0;
}

bool lock_take(struct cluster_lock *lock, struct lock_waiter *waiter, bool exclusive,
               lock_fn *locked)
{
    waiter->lock = lock;
    waiter->locked = locked;
    waiter->exclusive = exclusive;
    if (!exclusive && lock_try_shared(lock)) {
        return true;
    }
    if (exclusive && list_is_empty(&lock->waiters) && !lock->held_exclusive && close_door(lock)) {
        lock->held_exclusive = true;
        return true;
    }
    list_append(&lock->waiters, &waiter->link);
    return false;
}

/* The first waiter alone: no shared holder is left. */
static void grant_alone(struct cluster_lock *lock, struct lock_waiter *waiter)
{
    assert(waiter->exclusive && !(atomic_load(&lock->word) & LOCK_SHARED));
    list_remove(&waiter->link);
    lock->held_exclusive = true;
    waiter->locked(waiter);
}

/* The shared ones that are first in the line, together. */
static void grant_shared(struct cluster_lock *lock)
{
    struct list granted, *link;
    list_init(&granted);
    while (!list_is_empty(&lock->waiters)) {
        struct lock_waiter *waiter = container_of(lock->waiters.next, struct lock_waiter, link);
        if (waiter->exclusive) {
            break;
        }
        list_remove(&waiter->link);
        list_append(&granted, &waiter->link);
        atomic_fetch_add_explicit(&lock->word, 1, memory_order_acq_rel);
    }
    /* With an exclusive one behind them the door stays shut. */
    if (list_is_empty(&lock->waiters)) {
        atomic_fetch_and_explicit(&lock->word, ~LOCK_EXCLUSIVE, memory_order_acq_rel);
    }
    while ((link = list_take_first(&granted)) != NULL) {
        struct lock_waiter *waiter = container_of(link, struct lock_waiter, link);
        waiter->locked(waiter);
    }
}

static void lock_drained(struct work *work)
{
    struct cluster_lock *lock = container_of(work, struct cluster_lock, drained);
    assert(!lock->held_exclusive);
    uint32_t before = atomic_fetch_and_explicit(&lock->word, ~LOCK_DRAINING, memory_order_acq_rel);
    assert(before & LOCK_EXCLUSIVE);
    if (!list_is_empty(&lock->waiters)) {
        struct lock_waiter *first = container_of(lock->waiters.next, struct lock_waiter, link);
        if (first->exclusive) {
            if ((before & LOCK_SHARED) == 0) {
                grant_alone(lock, first);
            } /* else the last of the shared holders posts this work again */
            return;
        }
    }
    grant_shared(lock);
}

/* The lock's work is posted once, whatever the shared holders do until it runs. */
static void post_drained(struct cluster_lock *lock, struct turn *turn)
{
    uint32_t before = atomic_fetch_or_explicit(&lock->word, LOCK_DRAINING, memory_order_acq_rel);
    assert((before & (LOCK_EXCLUSIVE | LOCK_DRAINING)) == LOCK_EXCLUSIVE);
    (void)before;
    turn_enqueue(turn, &lock->drained);
}

void lock_downgrade(struct lock_waiter *waiter, struct turn *turn)
{
    struct cluster_lock *lock = waiter->lock;
    assert(waiter->exclusive && lock->held_exclusive);
    waiter->exclusive = false;
    lock->held_exclusive = false;
    /* The count and DRAINING in one step: a holder that leaves at once must not post the work too.
     */
    atomic_fetch_add_explicit(&lock->word, LOCK_DRAINING + 1, memory_order_acq_rel);
    turn_enqueue(turn, &lock->drained);
}

void lock_take_alone(struct lock_waiter *waiter, struct turn *turn)
{
    struct cluster_lock *lock = waiter->lock;
    assert(!waiter->exclusive && !lock->held_exclusive);
    waiter->exclusive = true;
    list_prepend(&lock->waiters, &waiter->link);
    atomic_fetch_or_explicit(&lock->word, LOCK_EXCLUSIVE, memory_order_acq_rel);
    lock_release_shared(lock, turn);
}

void lock_release(struct lock_waiter *waiter, struct turn *turn)
{
    struct cluster_lock *lock = waiter->lock;
    if (!waiter->exclusive) {
        lock_release_shared(lock, turn);
        return;
    }
    assert(lock->held_exclusive);
    lock->held_exclusive = false;
    /* Posted and not called: a row of waiters that end at once would recurse. */
    post_drained(lock, turn);
}
