/* SPDX-License-Identifier: MIT */
/*
 * The deltas below the top, and one map of them all. It does not change while the device is open,
 * so any thread may look.
 *
 *  1. Where no lower delta maps a guest cluster its level is 0; else one more than the level of the
 *     uppermost delta that does, and its entry is that delta's.
 *  2. From its `end` on a delta reads as zeros, whatever its file holds there.
 *  3. Nothing here writes: a lower delta is written by RECOVER only, before the device is open
 *     (load_stack.c).
 */
#ifndef DELTA_STACK_H
#define DELTA_STACK_H

#include <stddef.h>

#include "bat/bat.h"
#include "file/channel.h"
#include "format/geometry.h"
#include "util/iov.h"

enum { STACK_DELTAS_MAX = 255 };

struct lower {
    ploop_file *file;
    struct channel channel;
    struct geometry geometry; /* a raw file's cluster n is its entry n */
    uint64_t end;             /* bytes of the disk that it has */
    uint64_t tail_at; /* from there to `end` they are in `tail`: of a raw file that ends inside a
                         sector. Else `end` */
    uint8_t tail[SECTOR_SIZE];
};

struct stack {
    struct lower *lowers; /* the base first */
    uint32_t count;
    uint32_t *entries; /* by guest cluster of the top; NULL, as levels, where count is 0 */
    uint8_t *levels;
};

/*
 * Each 0 or -ENOMEM; stack_free() in any case. First the files are known, and once the top's size
 * is, the map is made, empty.
 */
int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count);
int stack_make_map(struct stack *stack, uint32_t guest_clusters);
void stack_free(struct stack *stack);

static inline bool stack_maps(const struct stack *stack, struct guest_cluster guest)
{
    return stack->levels && stack->levels[guest.n];
}

/* Where a guest cluster that stack_maps() lies. BAT_ENTRY_BAD: nobody knows. */
static inline struct lower *stack_lower(const struct stack *stack, struct guest_cluster guest)
{
    return &stack->lowers[stack->levels[guest.n] - 1];
}

static inline uint32_t stack_entry(const struct stack *stack, struct guest_cluster guest)
{
    return stack->entries[guest.n];
}

/*
 * The beginning of a read of [inside, inside + length) of a guest cluster that stack_maps() and
 * that is not bad: what is not in the delta's file is put into the memory at the cursor. Returns
 * how many bytes, from the beginning, are to be read from the file, at *offset.
 */
uint64_t stack_fill(const struct stack *stack, struct guest_cluster guest, uint64_t inside,
                    uint64_t length, const struct iov_cursor *cursor, uint64_t *offset);

#endif
