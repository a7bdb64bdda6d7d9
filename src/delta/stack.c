/* SPDX-License-Identifier: MIT */
/* What stack.h says. */
#include "delta/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int stack_init(struct stack *stack, ploop_file *const *files, uint32_t count)
{
    *stack = (struct stack){0};
    if (count == 0) {
        return 0;
    }
    stack->lowers = calloc(count, sizeof(*stack->lowers));
    if (!stack->lowers) {
        return -ENOMEM;
    }
    stack->count = count;
    for (uint32_t level = 0; level < count; level++) {
        stack->lowers[level].file = files[level];
    }
    return 0;
}

int stack_make_map(struct stack *stack, uint32_t guest_clusters)
{
    stack->entries = calloc((size_t)guest_clusters + 1, sizeof(*stack->entries));
    stack->levels = calloc((size_t)guest_clusters + 1, sizeof(*stack->levels));
    return stack->entries && stack->levels ? 0 : -ENOMEM;
}

void stack_free(struct stack *stack)
{
    free(stack->lowers);
    free(stack->entries);
    free(stack->levels);
    *stack = (struct stack){0};
}

/* How much of [from, from + length) lies before `end`. */
static uint64_t before(uint64_t end, uint64_t from, uint64_t length)
{
    uint64_t room = end > from ? end - from : 0;
    return length < room ? length : room;
}

uint64_t stack_fill(const struct stack *stack, struct guest_cluster guest, uint64_t inside,
                    uint64_t length, const struct iov_cursor *cursor, uint64_t *offset)
{
    const struct lower *lower = stack_lower(stack, guest);
    uint64_t from = guest.n * lower->geometry.cluster_size + inside;
    uint64_t filled = before(lower->tail_at, from, length), in_file = filled;
    struct iov_cursor rest = *cursor;
    *offset = geometry_entry_offset(&lower->geometry, stack_entry(stack, guest)) + inside;
    iov_advance(&rest, filled);
    if (filled < before(lower->end, from, length)) {
        iov_copy_in(&rest, lower->tail, SECTOR_SIZE);
        iov_advance(&rest, SECTOR_SIZE);
        filled += SECTOR_SIZE;
    }
    if (filled < length) {
        iov_zero(&rest, length - filled);
    }
    return in_file;
}
