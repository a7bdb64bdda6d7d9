/* SPDX-License-Identifier: MIT */
/*
 * A set of hashes of what was judged already. Two items with one hash count as the same; with 64
 * bits and millions of items that happens once in a million runs. A set that has grown to SEEN_MAX
 * is emptied, and repeated items are judged again.
 */
#ifndef SIM_SEEN_H
#define SIM_SEEN_H

#include <stdbool.h>
#include <stdint.h>

enum { SEEN_MAX = 1 << 24 };

struct seen {
    uint64_t *slots; /* 0: empty */
    uint64_t count, capacity;
};

void seen_free(struct seen *seen);

/* Whether it is new; adds it. */
bool seen_add(struct seen *seen, uint64_t hash);

static inline uint64_t hash_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    hash = (hash ^ hash >> 32) * 0xbf58476d1ce4e5b9;
    return hash ^ hash >> 29;
}

#endif
