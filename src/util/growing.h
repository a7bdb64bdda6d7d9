/* SPDX-License-Identifier: MIT */
/*
 * Memory that grows where it lies: for arrays that grow with a disk while other threads read them.
 *
 *     empty --growing_init--> usable [0, size), no access to [size, limit) --growing_free--> empty
 *                                |                         ^
 *                                +----- growing_extend ----+
 *
 *  1. The memory never moves between growing_init() and growing_free(). A reader needs no lock; it
 *     must only learn of the new size after growing_extend() has returned.
 *  2. What lies in [0, size) and was never written reads as zeros, and takes no physical memory.
 *  3. Address space up to `limit` is reserved without access to it, which takes no memory. Where
 *     that fails, only `size` bytes are taken, and each growing_extend() is -ENOMEM. A process
 * whose address space is limited (RLIMIT_AS) gets no reservation, because it may need that space
 * for something else.
 *  4. Memory that is filled from its beginning on takes huge pages where the system has them: each
 *     HUGE_PAGE bytes for which the ones before them were filled completely. So at most as much
 *     is taken in vain as is used.
 *  5. An access outside of [0, size) faults, or is reported by the address sanitizer.
 */
#ifndef UTIL_GROWING_H
#define UTIL_GROWING_H

#include <stddef.h>
#include <stdint.h>

enum { HUGE_PAGE = 2 << 20 };

struct growing {
    void *memory;    /* NULL: empty */
    size_t size;     /* usable bytes */
    size_t reserved; /* bytes of address space; 0: nothing is reserved, it cannot grow */
    size_t filled_from, filled_to; /* the last calls of growing_fill() filled this without a gap */
};

/*
 * Takes `size` bytes, which can become `limit` bytes later. 0 or -ENOMEM; empty in the second case.
 * Where limit <= size nothing is reserved: it never grows.
 */
int growing_init(struct growing *growing, uint64_t size, uint64_t limit);

/*
 * Makes `size` bytes usable, in place; less than there are is no change. 0, or -ENOMEM: it is as it
 * was.
 */
int growing_extend(struct growing *growing, uint64_t size);

/* Copies `length` bytes to offset `at`, all of them usable. See 4. */
void growing_fill(struct growing *growing, size_t at, const void *bytes, size_t length);

/* All of it holds zeros already: gives back the memory, where it can. Readers may look. */
void growing_empty(struct growing *growing);

/* Harmless for an empty one. */
void growing_free(struct growing *growing);

#endif
