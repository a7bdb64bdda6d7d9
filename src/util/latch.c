/* SPDX-License-Identifier: MIT */
/* What a latch does where it is not free: see the header. */
#include "util/latch.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Until it is this thread's. A wait that ends early, for whatever reason, looks again. */
void latch_wait(struct latch *latch)
{
    while (atomic_exchange_explicit(&latch->state, LATCH_WANTED, memory_order_acquire) !=
           LATCH_FREE) {
        (void)syscall(SYS_futex, &latch->state, FUTEX_WAIT_PRIVATE, LATCH_WANTED, NULL, NULL, 0);
    }
}

void latch_wake(struct latch *latch)
{
    (void)syscall(SYS_futex, &latch->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
