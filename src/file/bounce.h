/* SPDX-License-Identifier: MIT */
/*
 * Buffers to bounce through, and the locks of the blocks of files (R17).
 *
 * A block is what a file's requests have to be multiples of. Who changes a part of one reads the
 * block, changes it in a buffer and writes it; who does that has the block's lock. The lock of a
 * block is the buffer that has its number: whoever needs the lock needs a buffer too, and gets both
 * at once or waits for them.
 *
 *     a wait      idle --bounce_take()--> has a buffer, and with it the block, if it wants one
 *                                     \-> waits for the block: some buffer has it     \
 *                                     \-> waits for a buffer: all are had, by others  / granted
 *                 has a buffer --bounce_give_back()--> idle
 *     a buffer    free --> had, with a block or without one --> had by the next for it | free
 *
 *  1. Who waits holds neither a buffer nor a block, and who has them waits for I/O only. So every
 *     wait ends, whatever else those who wait may hold. A wait has one block at a time: no order of
 *     blocks is needed.
 *  2. Two buffers never have the same block of the same file.
 *  3. While a wait stands in the line for a buffer, none is free.
 *  4. The memory is taken at open. An empty pool is back-pressure.
 *
 * All of it belongs to the owner of the turn.
 */
#ifndef FILE_BOUNCE_H
#define FILE_BOUNCE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

enum {
    BOUNCE_COUNT = 4,
    BOUNCE_SIZE = 65536,       /* the largest block; a whole one fits in any buffer */
    BOUNCE_MEMORY_ALIGN = 4096 /* no file wants more of its requests' memory */
};
#define BOUNCE_NO_BLOCK UINT64_MAX

struct bounce {
    struct list link;    /* on `free` */
    struct list waiters; /* for the block that it has */
    const void *file;    /* whose block it has; NULL: free */
    uint64_t block;      /* or BOUNCE_NO_BLOCK */
    uint8_t *bytes;      /* BOUNCE_SIZE of them */
};

struct bounce_wait;
typedef void bounce_fn(struct bounce_wait *wait);

struct bounce_wait {
    struct list link;
    const void *file;
    uint64_t block;
    struct bounce *had; /* NULL: none */
    bounce_fn *granted;
};

struct bounces {
    uint8_t *memory; /* NULL: no file of the device needs any of this */
    struct list free, waiters;
    struct bounce all[BOUNCE_COUNT];
};

/* Once, or again to no effect. 0 or -ENOMEM. */
int bounces_init(struct bounces *bounces);
void bounces_free(struct bounces *bounces);

/* Nobody has or waits for any of it. */
bool bounces_are_idle(const struct bounces *bounces);

/*
 * Take a buffer, and with it this block of that file unless it is BOUNCE_NO_BLOCK. True: wait->had
 * is it; false: `granted` will be called when it is, which sends and ends nothing at once.
 */
bool bounce_take(struct bounces *bounces, struct bounce_wait *wait, const void *file,
                 uint64_t block, bounce_fn *granted);
void bounce_give_back(struct bounces *bounces, struct bounce_wait *wait);

#endif
