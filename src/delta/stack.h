/* SPDX-License-Identifier: MIT */
/*
 * The deltas of a disk, and one map of all that lies below the top.
 *
 *  1. `words` has one 64-bit word for each guest cluster of the top: the number of the uppermost
 *     delta below the top that maps the cluster, and the entry there; 0 where none does. One atomic
 *     load reads both. They are filled before the device is open; after that only a change of the
 *     stack writes them.
 *  2. `top` and `disk` are atomic pointers to objects that do not change their place. What a disk
 *     is to a guest, its size and its clusters, is all that the submission of a request asks for.
 *  3. Whether a cluster has to be copied before it is changed is not in the map: a step decides it,
 *     under the cluster's lock, from the word and the top's entry.
 *  4. After a snapshot the old top is `second`: its own map, still in memory, is asked before the
 *     words. Its entries move into the words one by one, each first into the word and then out of
 *     that map. So a thread that finds no entry there finds the word.
 *  5. A word with the number 0 that is not 0 (STACK_HIDDEN) says that the top maps the cluster, and
 *     that a delta below may map it too: one that the words do not name, because another one hid it
 *     that is gone since. Nothing is read there, but the entry of the top must stay (R8).
 *  6. STACK_PARTIAL in a word says that the top has some of the cluster's sectors, in a place that
 *     its map does not name yet (pio/partial.h): nothing is read from the delta of the word without
 *     a look at them. It is set and cleared in the turn; set with the cluster's lock held alone.
 *     It is cleared after the top's entry is there, so who sees it cleared under the lock, and then
 *     no entry, may read the delta. While a stack changes no word has it.
 *  7. A slot holds a delta from when it joins to when it is let go; its level says where it is in
 *     the stack. A delta that joins is served (kicked, reaped, waited for) before it is the top.
 *     Deltas stay in memory until the device ends, whoever still looks at them.
 */
#ifndef DELTA_STACK_H
#define DELTA_STACK_H

#include <stdatomic.h>
#include <stddef.h>

#include "delta/delta.h"

enum {
    STACK_DELTAS_MAX = 255,
    STACK_SLOTS = STACK_DELTAS_MAX + 1, /* and one that joins */
    STACK_NUMBERS = 4096                /* deltas in the life of a device */
};

/* The words, and counters of 64 bits everywhere, must not hide a lock: the fast path takes none. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");

/* A disk as a guest sees it. */
struct guest_disk {
    uint64_t disk_size;         /* bytes */
    uint64_t cluster_size;      /* bytes */
    uint64_t inside_mask;       /* of cluster_size, if that is a power of two */
    uint64_t whole_clusters;    /* the last one may be a part */
    uint32_t cluster_shift;     /* of cluster_size; 0: it is no power of two */
    struct guest_disk *smaller; /* as it was before; stays while the device lives */
};

struct stack {
    _Atomic(struct delta *) slots[STACK_SLOTS]; /* in any order; NULL: empty */
    _Atomic uint32_t slots_used;                /* behind the last that ever held a delta */
    _Atomic uint32_t count;                     /* deltas in the stack, the top included */
    _Atomic(struct delta *) top;
    _Atomic(struct delta *) second;          /* see 4; NULL: none */
    _Atomic(const struct guest_disk *) disk; /* NULL until the top's header was read */
    struct guest_disk first_disk;
    struct guest_disk *grown_disk;         /* or NULL */
    struct delta *numbered[STACK_NUMBERS]; /* by number, those that were let go included */
    uint32_t number;                       /* the last one given */
    _Atomic(_Atomic uint64_t *) words;     /* NULL where there was only ever one delta */
    struct growing words_memory;
};

#define STACK_HIDDEN UINT64_C(1)
#define STACK_PARTIAL (UINT64_C(1) << 63)

/* Where a guest cluster lies below the top. */
struct place {
    struct delta *delta; /* NULL: no delta below the top maps it, or the top hides it: see 5 */
    uint32_t entry;      /* BAT_ENTRY_BAD: it cannot be read */
    bool is_partial;     /* the top has some of its sectors: see 6 */
};

/*
 * First the files are known: the base first, in slot and level 0. Once the top's header was read,
 * the disk is, and then the words can be made, all 0. Each 0 or -ENOMEM; stack_free() in any case.
 */
int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count);
void stack_set_disk(struct stack *stack, const struct geometry *geometry);
int stack_make_words(struct stack *stack);
void stack_free(struct stack *stack);

/* Words for so many guest clusters, where there are any. 0 or -ENOMEM. */
int stack_enlarge_words(struct stack *stack, uint32_t entries);

/* The disk is larger from now on; `disk` is the stack's, which frees it in the end. */
void stack_grow_disk(struct stack *stack, struct guest_disk *disk, uint64_t disk_size);

/*
 * This delta, below the top, maps the cluster, over those below it. In the turn, or while the
 * device is opened.
 */
void stack_set_place(struct stack *stack, struct guest_cluster guest, const struct delta *delta,
                     uint32_t entry);

/* In the turn: see 6. */
void stack_set_partial(struct stack *stack, struct guest_cluster guest, bool is_partial);

/* ---- changes, by one thread at a time ---- */

/*
 * A delta for this file, with a number; the stack frees it in the end. Until it is in the stack its
 * level is STACK_NO_LEVEL. NULL without memory or a number.
 */
#define STACK_NO_LEVEL UINT32_MAX
struct delta *stack_new_delta(struct stack *stack, ploop_file *file, uint32_t level);

/* It joins, complete, and is served; there must be a slot. It is not in the stack yet. */
void stack_join(struct stack *stack, struct delta *delta);

/* One that has joined and is not in the stack is served no more. */
void stack_leave(struct stack *stack, struct delta *delta);

/* One that has joined becomes the top, over the old one, which is `second` from now on. */
void stack_raise(struct stack *stack, struct delta *delta);

/* Of `second`: moves the entries of [*next, end) into the words, and *next forward. */
void stack_settle(struct stack *stack, uint32_t *next, uint32_t end);

/*
 * The delta right below the top goes, or has become the top, and the top maps all that it maps: the
 * words of [*next, end) name it no more.
 */
void stack_drop_words(struct stack *stack, const struct delta *delta, uint32_t *next, uint32_t end);

/*
 * Of two neighbours below the top `to` has all that `from` has, in its bat, or in its raw file: the
 * words of [*next, end) that name `from` name `to` from now on.
 */
void stack_turn_words(struct stack *stack, const struct delta *from, const struct delta *to,
                      uint32_t *next, uint32_t end);

/*
 * One that has joined takes the place of a delta below the top, which holds the same: it has its
 * level. The words of [*next, end) that name `from` name `to` from then on, at the same entries.
 * stack_leave() of the old one follows.
 */
void stack_replace(struct stack *stack, struct delta *from, struct delta *to);
void stack_rename_words(struct stack *stack, const struct delta *from, const struct delta *to,
                        uint32_t *next, uint32_t end);

/* After either: it is not in the stack any more. stack_leave() follows. */
void stack_drop(struct stack *stack, struct delta *delta);

/*
 * The delta right below the top has all that the top has, in its bat: it is the top from now on.
 * stack_leave() of the old one follows, and the words that name the new one are dropped:
 * stack_drop_words().
 */
void stack_lower(struct stack *stack, struct delta *delta);

/* Of a level of the stack. */
struct delta *stack_find(const struct stack *stack, uint32_t level);

/* All of its entries are in the words. */
void stack_end_second(struct stack *stack);

/* ---- looks, from any thread ---- */

/* The deltas that are served, one after another, from slot *slot = 0 on; NULL: no more. */
static inline struct delta *stack_each(const struct stack *stack, uint32_t *slot)
{
    uint32_t used = atomic_load_explicit(&stack->slots_used, memory_order_acquire);
    while (*slot < used) {
        struct delta *delta = atomic_load_explicit(&stack->slots[(*slot)++], memory_order_acquire);
        if (delta) {
            return delta;
        }
    }
    return NULL;
}

/* While the device is opened: the delta of a level. */
static inline struct delta *stack_at(const struct stack *stack, uint32_t level)
{
    return atomic_load_explicit(&stack->slots[level], memory_order_relaxed);
}

static inline uint32_t stack_count(const struct stack *stack)
{
    return atomic_load_explicit(&stack->count, memory_order_relaxed);
}

/* The cluster of an offset that may be outside of the disk, and how far inside of it that is. */
static inline uint64_t shifted_cluster_at(const struct guest_disk *disk, uint64_t offset,
                                          uint64_t *inside)
{
    assert(disk->cluster_shift);
    *inside = offset & disk->inside_mask;
    return offset >> disk->cluster_shift;
}

static inline uint64_t cluster_at(const struct guest_disk *disk, uint64_t offset, uint64_t *inside)
{
    if (disk->cluster_shift) {
        return shifted_cluster_at(disk, offset, inside);
    }
    *inside = offset % disk->cluster_size;
    return offset / disk->cluster_size;
}

static inline struct guest_cluster guest_cluster_at(const struct guest_disk *disk, uint64_t offset,
                                                    uint64_t *inside)
{
    return (struct guest_cluster){(uint32_t)cluster_at(disk, offset, inside)};
}

static inline struct delta *stack_top(const struct stack *stack)
{
    return atomic_load_explicit(&stack->top, memory_order_acquire);
}

/* What `second` says of the cluster: 0 where it has no entry, or there is none. */
static inline uint32_t stack_second_entry(const struct delta *second, struct guest_cluster guest)
{
    return second ? bat_entry(second->bat, guest) : 0;
}

/* Where a guest cluster lies below the top. */
static inline struct place stack_place(const struct stack *stack, struct guest_cluster guest)
{
    const _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_acquire);
    if (!words) {
        return (struct place){NULL, 0, false};
    }
    struct delta *second = atomic_load_explicit(&stack->second, memory_order_acquire);
    uint32_t entry = stack_second_entry(second, guest);
    if (entry) {
        return (struct place){second, entry, false};
    }
    uint64_t word = atomic_load_explicit(&words[guest.n], memory_order_acquire);
    uint32_t number = (uint32_t)((word & ~STACK_PARTIAL) >> 32);
    return (struct place){stack->numbered[number], (uint32_t)word, word & STACK_PARTIAL};
}

/* Whether a delta below the top maps the cluster, or may. */
static inline bool stack_maps(const struct stack *stack, struct guest_cluster guest)
{
    const _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_acquire);
    if (!words) {
        return false;
    }
    const struct delta *second = atomic_load_explicit(&stack->second, memory_order_acquire);
    return stack_second_entry(second, guest) != 0 ||
           atomic_load_explicit(&words[guest.n], memory_order_acquire) != 0;
}

#endif
