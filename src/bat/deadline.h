/* SPDX-License-Identifier: MIT */
/*
 * Pages, by their index, in the order of their deadlines: a binary heap, so that finding what is
 * due costs nothing for what is not. A page is in it at most once. Memory is taken once, for
 * `capacity` pages, with address space for `limit` of them (growing.h).
 *
 *  1. If page n is in, the heap's place slots[n].at - 1 holds n.
 *  2. No page's deadline is earlier than that of its parent in the heap.
 */
#ifndef BAT_DEADLINE_H
#define BAT_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/growing.h"

/* Two arrays in one: `heap` is by the place in the heap, the others are by page. */
struct deadline_slot {
    uint64_t when; /* the page's deadline, ns */
    uint32_t at;   /* the page's place in the heap, plus one; 0: it is not in */
    uint32_t heap; /* the page at this place: the earliest is at 0 */
};

struct deadlines {
    struct deadline_slot *slots; /* in `memory` */
    uint32_t count, capacity;
    struct growing memory;
};

/* 0 or -ENOMEM. */
int deadlines_init(struct deadlines *deadlines, uint32_t capacity, uint32_t limit);
void deadlines_free(struct deadlines *deadlines);

/* For `capacity` pages from now on, within the limit. 0, or -ENOMEM: it is as it was. */
int deadlines_extend(struct deadlines *deadlines, uint32_t capacity);

/* Put a page in, or move it. */
void deadlines_set(struct deadlines *deadlines, uint32_t index, uint64_t when);
/* Harmless where it is not in. */
void deadlines_remove(struct deadlines *deadlines, uint32_t index);
bool deadlines_has(const struct deadlines *deadlines, uint32_t index);

/* The earliest; UINT64_MAX where there is none. */
uint64_t deadlines_next(const struct deadlines *deadlines);
/* Only while count > 0. */
uint32_t deadlines_first(const struct deadlines *deadlines);

#endif
