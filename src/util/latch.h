/* SPDX-License-Identifier: MIT */
/*
 * A mutex for places that are entered with every request and nearly always found free: locking and
 * unlocking are one atomic instruction each, in place, a tenth of what the calls into libc cost.
 *
 *     FREE --lock--> HELD --unlock--> FREE
 *     HELD --another thread's lock--> WANTED --unlock--> FREE, and one of those that sleep is woken
 *
 * A thread that has slept takes it as WANTED, because others may sleep still. All zeros is FREE.
 */
#ifndef UTIL_LATCH_H
#define UTIL_LATCH_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

enum { LATCH_FREE = 0, LATCH_HELD = 1, LATCH_WANTED = 2 };

struct latch {
    _Atomic uint32_t state;
};

void latch_wait(struct latch *latch);
void latch_wake(struct latch *latch);

static inline void latch_lock(struct latch *latch)
{
    uint32_t state = LATCH_FREE;
    if (!atomic_compare_exchange_strong_explicit(&latch->state, &state, LATCH_HELD,
                                                 memory_order_acquire, memory_order_relaxed)) {
        latch_wait(latch);
    }
}

static inline void latch_unlock(struct latch *latch)
{
    uint32_t state = atomic_exchange_explicit(&latch->state, LATCH_FREE, memory_order_release);
    assert(state != LATCH_FREE);
    if (state == LATCH_WANTED) {
        latch_wake(latch);
    }
}

#endif
