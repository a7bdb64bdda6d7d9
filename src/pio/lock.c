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

void lock_release_shared(struct cluster_lock *lock, struct turn *turn)
{
    uint32_t before = atomic_fetch_sub_explicit(&lock->word, 1, memory_order_acq_rel);
    assert(before & ~LOCK_EXCLUSIVE);
    if (before == (LOCK_EXCLUSIVE | 1)) {
        turn_post(turn, &lock->drained);
    }
}

/*
 * The first waiter wants it alone: close the door. True where nobody is inside. The door may be
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

/*
 * The door is shut and nobody is inside: the first waiter's turn, and the shared ones' that follow
 * it.
 */
static void grant(struct cluster_lock *lock)
{
    struct list granted;
    list_init(&granted);
    while (!list_is_empty(&lock->waiters)) {
        struct lock_waiter *waiter = container_of(lock->waiters.next, struct lock_waiter, link);
        if (waiter->exclusive) {
            if (list_is_empty(&granted)) {
                list_remove(&waiter->link);
                lock->held_exclusive = true;
                waiter->locked(waiter);
                return;
            }
            break;
        }
        list_remove(&waiter->link);
        list_append(&granted, &waiter->link);
        atomic_fetch_add_explicit(&lock->word, 1, memory_order_acq_rel);
    }
    /* Only shared ones go in. With an exclusive one behind them the door stays shut. */
    if (list_is_empty(&lock->waiters)) {
        atomic_fetch_and_explicit(&lock->word, ~LOCK_EXCLUSIVE, memory_order_acq_rel);
    }
    struct list *link;
    while ((link = list_take_first(&granted)) != NULL) {
        struct lock_waiter *waiter = container_of(link, struct lock_waiter, link);
        waiter->locked(waiter);
    }
}

static void lock_drained(struct work *work)
{
    struct cluster_lock *lock = container_of(work, struct cluster_lock, drained);
    assert(!lock->held_exclusive);
    grant(lock);
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
    /* Not from here: a row of waiters that end at once would nest. */
    turn_enqueue(turn, &lock->drained);
}
