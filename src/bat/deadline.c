/* SPDX-License-Identifier: MIT */
/* The invariants stand in deadline.h. */
#include "bat/deadline.h"

#include <assert.h>

int deadlines_init(struct deadlines *deadlines, uint32_t capacity, uint32_t limit)
{
    assert(capacity <= limit);
    *deadlines = (struct deadlines){.capacity = capacity};
    int error = growing_init(&deadlines->memory, capacity * sizeof(*deadlines->slots),
                             limit * sizeof(*deadlines->slots));
    deadlines->slots = deadlines->memory.memory;
    return error;
}

int deadlines_extend(struct deadlines *deadlines, uint32_t capacity)
{
    int error = growing_extend(&deadlines->memory, capacity * sizeof(*deadlines->slots));
    deadlines->capacity = error ? deadlines->capacity : capacity;
    return error;
}

void deadlines_free(struct deadlines *deadlines)
{
    growing_free(&deadlines->memory);
    *deadlines = (struct deadlines){0};
}

static void assert_place(const struct deadlines *deadlines, uint32_t place)
{
#ifndef NDEBUG
    const struct deadline_slot *slots = deadlines->slots;
    assert(place < deadlines->count && deadlines->count <= deadlines->capacity);
    assert(slots[slots[place].heap].at == place + 1);
    assert(place == 0 || slots[slots[(place - 1) / 2].heap].when <= slots[slots[place].heap].when);
#else
    (void)deadlines;
    (void)place;
#endif
}

static uint64_t when_at(const struct deadlines *deadlines, uint32_t place)
{
    return deadlines->slots[deadlines->slots[place].heap].when;
}

static void put(struct deadlines *deadlines, uint32_t place, uint32_t index)
{
    deadlines->slots[place].heap = index;
    deadlines->slots[index].at = place + 1;
}

/* Put a page, which is at `place` or is to come there, where its deadline belongs. */
static void sift(struct deadlines *deadlines, uint32_t place, uint32_t index)
{
    uint64_t when = deadlines->slots[index].when;
    while (place > 0 && when_at(deadlines, (place - 1) / 2) > when) {
        put(deadlines, place, deadlines->slots[(place - 1) / 2].heap);
        place = (place - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child + 1 < deadlines->count &&
            when_at(deadlines, child + 1) < when_at(deadlines, child)) {
            child++;
        }
        if (child >= deadlines->count || when_at(deadlines, child) >= when) {
            break;
        }
        put(deadlines, place, deadlines->slots[child].heap);
        place = child;
    }
    put(deadlines, place, index);
    assert_place(deadlines, place);
}

void deadlines_set(struct deadlines *deadlines, uint32_t index, uint64_t when)
{
    assert(index < deadlines->capacity);
    deadlines->slots[index].when = when;
    if (!deadlines_has(deadlines, index)) {
        put(deadlines, deadlines->count++, index);
    }
    sift(deadlines, deadlines->slots[index].at - 1, index);
}

void deadlines_remove(struct deadlines *deadlines, uint32_t index)
{
    if (!deadlines_has(deadlines, index)) {
        return;
    }
    uint32_t place = deadlines->slots[index].at - 1;
    assert_place(deadlines, place);
    uint32_t last = deadlines->slots[--deadlines->count].heap;
    deadlines->slots[index].at = 0;
    if (last != index) {
        put(deadlines, place, last);
        sift(deadlines, place, last);
    }
}

bool deadlines_has(const struct deadlines *deadlines, uint32_t index)
{
    assert(index < deadlines->capacity);
    return deadlines->slots[index].at != 0;
}

uint64_t deadlines_next(const struct deadlines *deadlines)
{
    return deadlines->count ? when_at(deadlines, 0) : UINT64_MAX;
}

uint32_t deadlines_first(const struct deadlines *deadlines)
{
    assert(deadlines->count > 0);
    assert_place(deadlines, 0);
    return deadlines->slots[0].heap;
}
