/* SPDX-License-Identifier: MIT */
/* Bits by number, and the search for runs of them. The words are the owner's. */
#ifndef UTIL_BITMAP_H
#define UTIL_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

struct bitmap {
    uint64_t *words;
    uint64_t bits;
};

/* 0 or -ENOMEM; all bits clear. */
int bitmap_init(struct bitmap *bitmap, uint64_t bits);
void bitmap_free(struct bitmap *bitmap);

/* Set bits [from, end). */
void bitmap_set_range(struct bitmap *bitmap, uint64_t from, uint64_t end);

/* True where the bit was clear before. */
bool bitmap_set(struct bitmap *bitmap, uint64_t bit);
/* True where the bit was set before. */
bool bitmap_clear(struct bitmap *bitmap, uint64_t bit);
bool bitmap_test(const struct bitmap *bitmap, uint64_t bit);

/* The first set bit in [from, end), or end. */
uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from, uint64_t end);

/* How many bits from `from` on are set in a row, at most `limit`. */
uint64_t bitmap_run(const struct bitmap *bitmap, uint64_t from, uint64_t limit);

#endif
