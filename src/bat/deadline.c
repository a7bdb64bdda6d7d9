/* SPDX-License-Identifier: MIT */
/*
 * Invariant: heap[at[n]] == n for every n that is in, and no number's deadline is earlier than its
 * parent's.
 */
#include "bat/deadline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int deadlines_init(struct deadlines *deadlines, uint32_t capacity)
{
    size_t places = capacity ? capacity : 1;
    deadlines->heap = malloc(places * sizeof(*deadlines->heap));
    deadlines->at = malloc(places * sizeof(*deadlines->at));
    deadlines->when = malloc(places * sizeof(*deadlines->when));
    deadlines->count = 0;
    if (!deadlines->heap || !deadlines->at || !deadlines->when) {
        deadlines_free(deadlines);
        return -ENOMEM;
    }
    memset(deadlines->at, 0xff, places * sizeof(*deadlines->at));
    return 0;
}

void deadlines_free(struct deadlines *deadlines)
{
    free(deadlines->heap);
    free(deadlines->at);
    free(deadlines->when);
    *deadlines = (struct deadlines){0};
}

static void place(struct deadlines *deadlines, uint32_t at, uint32_t number)
{
    deadlines->heap[at] = number;
    deadlines->at[number] = at;
}

static void sift(struct deadlines *deadlines, uint32_t at, uint32_t number)
{
    uint64_t when = deadlines->when[number];
    while (at > 0 && deadlines->when[deadlines->heap[(at - 1) / 2]] > when) {
        place(deadlines, at, deadlines->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < deadlines->count &&
            deadlines->when[deadlines->heap[child + 1]] < deadlines->when[deadlines->heap[child]]) {
            child++;
        }
        if (child >= deadlines->count || deadlines->when[deadlines->heap[child]] >= when) {
            break;
        }
        place(deadlines, at, deadlines->heap[child]);
        at = child;
    }
    place(deadlines, at, number);
}

void deadlines_set(struct deadlines *deadlines, uint32_t number, uint64_t when)
{
    deadlines->when[number] = when;
    if (!deadlines_has(deadlines, number)) {
        place(deadlines, deadlines->count++, number);
    }
    sift(deadlines, deadlines->at[number], number);
}

void deadlines_remove(struct deadlines *deadlines, uint32_t number)
{
    if (!deadlines_has(deadlines, number)) {
        return;
    }
    uint32_t at = deadlines->at[number];
    uint32_t last = deadlines->heap[--deadlines->count];
    deadlines->at[number] = UINT32_MAX;
    if (last != number) {
        place(deadlines, at, last);
        sift(deadlines, at, last);
    }
}

bool deadlines_has(const struct deadlines *deadlines, uint32_t number)
{
    return deadlines->at[number] != UINT32_MAX;
}

uint64_t deadlines_next(const struct deadlines *deadlines)
{
    return deadlines->count ? deadlines->when[deadlines->heap[0]] : UINT64_MAX;
}

uint32_t deadlines_first(const struct deadlines *deadlines)
{
    assert(deadlines->count > 0);
    return deadlines->heap[0];
}
