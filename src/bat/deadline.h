/* SPDX-License-Identifier: MIT */
/*
 * Numbers in the order of their deadlines: a binary heap, so that finding what is due costs nothing
 * for what is not. Memory is taken once, for `capacity` numbers; a number is in it at most once.
 */
#ifndef BAT_DEADLINE_H
#define BAT_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

struct deadlines {
    uint32_t *heap; /* numbers, earliest first */
    uint32_t *at;   /* number -> place in heap, or UINT32_MAX */
    uint64_t *when; /* number -> deadline, ns */
    uint32_t count;
};

/* 0 or -ENOMEM. */
int deadlines_init(struct deadlines *deadlines, uint32_t capacity);
void deadlines_free(struct deadlines *deadlines);

/* Put a number in, or move it. */
void deadlines_set(struct deadlines *deadlines, uint32_t number, uint64_t when);
/* Harmless where it is not in. */
void deadlines_remove(struct deadlines *deadlines, uint32_t number);
bool deadlines_has(const struct deadlines *deadlines, uint32_t number);

/* The earliest; UINT64_MAX where there is none. */
uint64_t deadlines_next(const struct deadlines *deadlines);
/* Only while count > 0. */
uint32_t deadlines_first(const struct deadlines *deadlines);

#endif
