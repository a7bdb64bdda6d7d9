/* SPDX-License-Identifier: MIT */
/*
 * The deltas of a disk, and one map of all that lies below the top.
 *
 *  1. `words` has one 64-bit word for each guest cluster of the top: the number of the uppermost
 *     delta below the top that maps the cluster, and the entry there; 0 where none does. One atomic
 *     load reads both. The words are filled before the device is open and do not change after that.
 *  2. `top` and `disk` are atomic pointers to objects that do not change their place. What a disk
 *     is to a guest, its size and its clusters, is all that the submission of a request asks for.
 *  3. Whether a cluster has to be copied before it is changed is not in the map: a step decides it,
 *     under the cluster's lock, from the word and the top's entry.
 */
#ifndef DELTA_STACK_H
#define DELTA_STACK_H

#include <stdatomic.h>
#include <stddef.h>

#include "delta/delta.h"

enum { STACK_DELTAS_MAX = 255 };

/* The words, and counters of 64 bits everywhere, must not hide a lock: the fast path takes none. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");

/* A disk as a guest sees it. */
struct guest_disk {
    uint64_t disk_size;     /* bytes */
    uint64_t cluster_size;  /* bytes */
    uint32_t cluster_shift; /* of cluster_size; 0: it is no power of two */
};

struct stack {
    struct delta **deltas; /* the base first, the top last */
    uint32_t count;
    _Atomic(struct delta *) top;
    _Atomic(const struct guest_disk *) disk; /* NULL until the top's header was read */
    struct guest_disk first_disk;
    struct delta *numbered[STACK_DELTAS_MAX + 1]; /* by number */
    _Atomic uint64_t *words;                      /* NULL where there is only one delta */
};

/* Where a guest cluster lies below the top. */
struct place {
    struct delta *delta; /* NULL: no delta below the top maps it */
    uint32_t entry;      /* BAT_ENTRY_BAD: it cannot be read */
};

/*
 * First the files are known. Once the top's header was read, the disk is, and then the words can be
 * made, all 0. Each 0 or -ENOMEM; stack_free() in any case.
 */
int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count);
void stack_set_disk(struct stack *stack, const struct geometry *geometry);
int stack_make_words(struct stack *stack);
void stack_free(struct stack *stack);

/* While the device is opened: this delta maps the cluster, over those below it. */
void stack_set_place(struct stack *stack, struct guest_cluster guest, const struct delta *delta,
                     uint32_t entry);

static inline struct guest_cluster guest_cluster_at(const struct guest_disk *disk, uint64_t offset,
                                                    uint64_t *inside)
{
    uint64_t size = disk->cluster_size;
    uint64_t cluster = disk->cluster_shift ? offset >> disk->cluster_shift : offset / size;
    *inside = offset - cluster * size;
    return (struct guest_cluster){(uint32_t)cluster};
}

static inline struct delta *stack_top(const struct stack *stack)
{
    return atomic_load_explicit(&stack->top, memory_order_acquire);
}

static inline bool stack_maps(const struct stack *stack, struct guest_cluster guest)
{
    return stack->words && atomic_load_explicit(&stack->words[guest.n], memory_order_acquire) != 0;
}

static inline struct place stack_place(const struct stack *stack, struct guest_cluster guest)
{
    if (!stack->words) {
        return (struct place){NULL, 0};
    }
    uint64_t word = atomic_load_explicit(&stack->words[guest.n], memory_order_acquire);
    return (struct place){stack->numbered[word >> 32], (uint32_t)word};
}

#endif
