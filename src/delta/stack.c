/* SPDX-License-Identifier: MIT */
/* What stack.h says. */
#include "delta/stack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct delta *stack_new_delta(struct stack *stack, ploop_file *file, uint32_t level)
{
    if (stack->number + 1 == STACK_NUMBERS) {
        return NULL;
    }
    struct delta *delta = delta_new(file, stack->number + 1, level);
    if (delta) {
        stack->numbered[++stack->number] = delta;
    }
    return delta;
}

void stack_join(struct stack *stack, struct delta *delta)
{
    uint32_t slot = 0;
    while (stack_at(stack, slot)) {
        slot++;
        assert(slot < STACK_SLOTS);
    }
    atomic_store_explicit(&stack->slots[slot], delta, memory_order_release);
    if (slot == atomic_load_explicit(&stack->slots_used, memory_order_relaxed)) {
        atomic_store_explicit(&stack->slots_used, slot + 1, memory_order_release);
    }
}

void stack_leave(struct stack *stack, struct delta *delta)
{
    assert(delta != stack_top(stack));
    atomic_store(&delta->left, true);
    for (uint32_t slot = 0; slot < STACK_SLOTS; slot++) {
        if (stack_at(stack, slot) == delta) {
            atomic_store(&stack->slots[slot], NULL);
        }
    }
}

int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count)
{
    assert(count > 0 && count <= STACK_DELTAS_MAX);
    struct delta *top = NULL;
    for (uint32_t level = 0; level < count; level++) {
        top = stack_new_delta(stack, files[level], level);
        if (!top) {
            return -ENOMEM;
        }
        stack_join(stack, top);
        assert(top == stack_at(stack, level));
    }
    atomic_store(&stack->count, count);
    atomic_store(&stack->top, top);
    return delta_new_bat(top);
}

void stack_set_disk(struct stack *stack, const struct geometry *geometry)
{
    uint64_t cluster = geometry->cluster_size;
    bool is_power = (cluster & (cluster - 1)) == 0;
    stack->first_disk = (struct guest_disk){
        .disk_size = geometry->disk_size,
        .cluster_size = cluster,
        .inside_mask = cluster - 1,
        .whole_clusters = geometry->disk_size / cluster,
        .cluster_shift = is_power ? (uint32_t)__builtin_ctzll(cluster) : 0,
    };
    atomic_store_explicit(&stack->disk, &stack->first_disk, memory_order_release);
}

int stack_make_words(struct stack *stack)
{
    const struct geometry *geometry = &stack_top(stack)->geometry;
    uint64_t entries = geometry->bat_entries, limit = geometry_entries_limit(geometry);
    assert(!atomic_load_explicit(&stack->words, memory_order_relaxed));
    int error = growing_init(&stack->words_memory, (entries + 1) * sizeof(uint64_t),
                             (limit + 1) * sizeof(uint64_t));
    atomic_store_explicit(&stack->words, stack->words_memory.memory, memory_order_release);
    return error;
}

int stack_enlarge_words(struct stack *stack, uint32_t entries)
{
    return atomic_load_explicit(&stack->words, memory_order_relaxed)
               ? growing_extend(&stack->words_memory, (entries + UINT64_C(1)) * sizeof(uint64_t))
               : 0;
}

void stack_grow_disk(struct stack *stack, struct guest_disk *disk, uint64_t disk_size)
{
    const struct guest_disk *now = atomic_load_explicit(&stack->disk, memory_order_relaxed);
    assert(disk_size >= now->disk_size);
    *disk = *now;
    disk->disk_size = disk_size;
    disk->whole_clusters = disk_size / disk->cluster_size;
    disk->smaller = stack->grown_disk;
    stack->grown_disk = disk;
    atomic_store_explicit(&stack->disk, disk, memory_order_release);
}

void stack_set_place(struct stack *stack, struct guest_cluster guest, const struct delta *delta,
                     uint32_t entry)
{
    _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_relaxed);
    assert(guest.n < stack_top(stack)->geometry.bat_entries);
    assert(stack->numbered[delta->number] == delta && delta != stack_top(stack));
    uint64_t word = (uint64_t)delta->number << 32 | entry;
    atomic_store_explicit(&words[guest.n], word, memory_order_release);
}

void stack_set_partial(struct stack *stack, struct guest_cluster guest, bool is_partial)
{
    _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_relaxed);
    uint64_t word = atomic_load_explicit(&words[guest.n], memory_order_relaxed);
    assert(!(word & STACK_PARTIAL) == is_partial && word > STACK_HIDDEN);
    assert(!atomic_load(&stack->second));
    atomic_store_explicit(&words[guest.n], word ^ STACK_PARTIAL, memory_order_release);
}

void stack_raise(struct stack *stack, struct delta *delta)
{
    struct delta *old = stack_top(stack);
    assert(delta != old && delta->bat && !atomic_load(&stack->second));
    assert(atomic_load(&stack->words));
    atomic_store(&stack->second, old);
    delta->level = old->level + 1;
    atomic_fetch_add(&stack->count, 1);
    atomic_store(&stack->top, delta);
}

void stack_settle(struct stack *stack, uint32_t *next, uint32_t end)
{
    struct delta *second = atomic_load_explicit(&stack->second, memory_order_relaxed);
    assert(second && end <= second->geometry.bat_entries);
    for (; *next < end; ++*next) {
        struct guest_cluster guest = {*next};
        uint32_t entry = bat_entry(second->bat, guest);
        if (entry) {
            stack_set_place(stack, guest, second, entry);
            bat_forget(second->bat, guest);
        }
    }
}

/* Of the base, all words that are left go with it: nothing is below any more. */
void stack_drop_words(struct stack *stack, const struct delta *delta, uint32_t *next, uint32_t end)
{
    _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_relaxed);
    uint64_t rest = delta->level == 0 ? 0 : STACK_HIDDEN;
    assert(delta == stack_top(stack) || delta->level + 1 == stack_top(stack)->level);
    assert(!atomic_load(&stack->second));
    for (; *next < end; ++*next) {
        uint64_t word = atomic_load_explicit(&words[*next], memory_order_relaxed);
        if (word >> 32 == delta->number || word == STACK_HIDDEN) {
            assert(bat_entry(stack_top(stack)->bat, (struct guest_cluster){*next}));
            atomic_store_explicit(&words[*next], rest, memory_order_release);
        }
    }
}

void stack_turn_words(struct stack *stack, const struct delta *from, const struct delta *to,
                      uint32_t *next, uint32_t end)
{
    const _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_relaxed);
    assert(!atomic_load(&stack->second));
    for (; *next < end; ++*next) {
        struct guest_cluster guest = {*next};
        if (atomic_load_explicit(&words[guest.n], memory_order_relaxed) >> 32 == from->number) {
            uint32_t entry = to->is_raw ? guest.n : bat_entry(to->bat, guest);
            assert(entry || to->is_raw);
            stack_set_place(stack, guest, to, entry);
        }
    }
}

void stack_replace(struct stack *stack, struct delta *from, struct delta *to)
{
    assert(from != stack_top(stack) && from->level != STACK_NO_LEVEL);
    assert(to->level == STACK_NO_LEVEL && !atomic_load(&stack->second));
    (void)stack;
    to->level = from->level;
    from->level = STACK_NO_LEVEL;
}

void stack_rename_words(struct stack *stack, const struct delta *from, const struct delta *to,
                        uint32_t *next, uint32_t end)
{
    const _Atomic uint64_t *words = atomic_load_explicit(&stack->words, memory_order_relaxed);
    for (; *next < end; ++*next) {
        uint64_t word = atomic_load_explicit(&words[*next], memory_order_relaxed);
        if (word >> 32 == from->number) {
            stack_set_place(stack, (struct guest_cluster){*next}, to, (uint32_t)word);
        }
    }
}

/* Those above it move down. */
static void leave_level(struct stack *stack, struct delta *delta)
{
    uint32_t level = delta->level, slot = 0;
    assert(level != STACK_NO_LEVEL && stack_count(stack) > 1);
    delta->level = STACK_NO_LEVEL;
    for (struct delta *other; (other = stack_each(stack, &slot)) != NULL;) {
        other->level -= other->level != STACK_NO_LEVEL && other->level > level;
    }
    atomic_fetch_sub(&stack->count, 1);
}

void stack_drop(struct stack *stack, struct delta *delta)
{
    assert(delta != stack_top(stack));
    leave_level(stack, delta);
}

void stack_lower(struct stack *stack, struct delta *delta)
{
    struct delta *old = stack_top(stack);
    assert(delta->level + 1 == old->level && delta->bat && !atomic_load(&stack->second));
    atomic_store(&stack->top, delta);
    leave_level(stack, old);
}

struct delta *stack_find(const struct stack *stack, uint32_t level)
{
    uint32_t slot = 0;
    struct delta *delta;
    while ((delta = stack_each(stack, &slot)) != NULL && delta->level != level) {
        continue;
    }
    return delta;
}

void stack_end_second(struct stack *stack)
{
    assert(atomic_load(&stack->second));
    atomic_store(&stack->second, NULL);
}

void stack_free(struct stack *stack)
{
    for (uint32_t number = 1; number <= stack->number; number++) {
        delta_free(stack->numbered[number]);
    }
    growing_free(&stack->words_memory);
    for (struct guest_disk *disk = stack->grown_disk, *smaller; disk; disk = smaller) {
        smaller = disk->smaller;
        free(disk);
    }
    memset(stack, 0, sizeof(*stack));
}
