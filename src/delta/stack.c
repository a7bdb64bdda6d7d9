/* SPDX-License-Identifier: MIT */
/* What stack.h says. */
#include "delta/stack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count)
{
    assert(count > 0 && count <= STACK_DELTAS_MAX);
    *stack = (struct stack){.deltas = calloc(count, sizeof(struct delta *))};
    if (!stack->deltas) {
        return -ENOMEM;
    }
    stack->count = count;
    for (uint32_t level = 0; level < count; level++) {
        struct delta *delta = delta_new(files[level], level + 1, level);
        if (!delta) {
            return -ENOMEM;
        }
        stack->deltas[level] = stack->numbered[delta->number] = delta;
    }
    atomic_store(&stack->top, stack->deltas[count - 1]);
    return delta_make_top(stack->deltas[count - 1]);
}

void stack_set_disk(struct stack *stack, const struct geometry *geometry)
{
    uint64_t cluster = geometry->cluster_size;
    bool is_power = (cluster & (cluster - 1)) == 0;
    stack->first_disk = (struct guest_disk){
        .disk_size = geometry->disk_size,
        .cluster_size = cluster,
        .cluster_shift = is_power ? (uint32_t)__builtin_ctzll(cluster) : 0,
    };
    atomic_store_explicit(&stack->disk, &stack->first_disk, memory_order_release);
}

int stack_make_words(struct stack *stack)
{
    size_t entries = stack_top(stack)->geometry.bat_entries;
    assert(!stack->words);
    stack->words = calloc(entries + 1, sizeof(*stack->words));
    return stack->words ? 0 : -ENOMEM;
}

void stack_set_place(struct stack *stack, struct guest_cluster guest, const struct delta *delta,
                     uint32_t entry)
{
    assert(guest.n < stack_top(stack)->geometry.bat_entries);
    assert(stack->numbered[delta->number] == delta && delta != stack_top(stack));
    uint64_t word = (uint64_t)delta->number << 32 | entry;
    atomic_store_explicit(&stack->words[guest.n], word, memory_order_release);
}

void stack_free(struct stack *stack)
{
    for (uint32_t level = 0; level < stack->count; level++) {
        delta_free(stack->deltas[level]);
    }
    free(stack->deltas);
    free(stack->words);
    *stack = (struct stack){0};
}
