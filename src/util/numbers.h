/* SPDX-License-Identifier: MIT */
/*
 * A set of numbers, whose next member is found in a few steps however sparse the set is.
 *
 * Level 0 has a bit for each number. Each level above has a bit for each word of 64 bits below it.
 *
 *  1. A bit above level 0 is set where, and only where, its word of the level below has a bit set.
 *  2. A part of the set that nothing was ever put in takes no memory, on any level.
 *  3. The levels are made for the number that the set may come to have.
 */
#ifndef UTIL_NUMBERS_H
#define UTIL_NUMBERS_H

#include "util/bitmap.h"

enum { NUMBERS_LEVELS_MAX = 6 }; /* for numbers below 2^36 */

struct numbers {
    struct bitmap levels[NUMBERS_LEVELS_MAX];
    uint32_t level_count;
    uint64_t count; /* members */
};

/*
 * An empty set of numbers below `end`, with address space for those below `limit`, at most 2^36:
 * see growing.h. 0 or -ENOMEM; numbers_free() in either case.
 */
int numbers_init(struct numbers *numbers, uint64_t end, uint64_t limit);
void numbers_free(struct numbers *numbers);

/* Numbers below `end` can be put in from now on. 0, or -ENOMEM: the set is as it was. */
int numbers_extend(struct numbers *numbers, uint64_t end);

static inline bool numbers_have(const struct numbers *numbers, uint64_t number)
{
    return bitmap_test(&numbers->levels[0], number);
}

/*
 * [from, end) is put in, or taken out. False: a part of it was in the set already, or was not, and
 * nothing is changed.
 */
bool numbers_put(struct numbers *numbers, uint64_t from, uint64_t end);
bool numbers_take(struct numbers *numbers, uint64_t from, uint64_t end);

/* The least member from `from` on that is less than `end`, or `end`. */
uint64_t numbers_next(const struct numbers *numbers, uint64_t from, uint64_t end);

/* How many members follow one another from `from` on, at most `limit`. */
static inline uint64_t numbers_run(const struct numbers *numbers, uint64_t from, uint64_t limit)
{
    return bitmap_run(&numbers->levels[0], from, limit);
}

#endif
