/* SPDX-License-Identifier: MIT */
/*
 * Runs of entries: neighbours in the BAT that name neighbours in the file, or that name nothing.
 * Maps that were written in order consist of long ones, and a run is judged by its ends.
 */
#ifndef IMAGE_BAT_RUN_H
#define IMAGE_BAT_RUN_H

#include "format/geometry.h"

enum { BAT_RUN_BLOCK = 32 };

/* A constant number of entries, without a branch, so that the compiler makes vectors of it. */
static inline bool bat_run_goes_on(const uint32_t *entries, uint32_t step)
{
    uint32_t differences = 0;
    for (int i = 0; i < BAT_RUN_BLOCK; i++) {
        differences |= (entries[i] - entries[i - 1]) ^ step;
    }
    return differences == 0;
}

/*
 * How many of the entries, at least one of `count`, are a run: all 0, or each `step` higher than
 * the one before it. Sums wrap around, which bat_run_is_good() sees.
 */
static inline uint32_t bat_run_length(const uint32_t *entries, uint32_t count, uint32_t step)
{
    uint32_t length = 1;
    step = entries[0] ? step : 0;
    if (count == 1 || entries[1] - entries[0] != step) {
        return 1;
    }
    while (count - length >= BAT_RUN_BLOCK && bat_run_goes_on(entries + length, step)) {
        length += BAT_RUN_BLOCK;
    }
    if (count - length < BAT_RUN_BLOCK && count > BAT_RUN_BLOCK &&
        bat_run_goes_on(entries + count - BAT_RUN_BLOCK, step)) {
        return count; /* the last block overlaps the one before it */
    }
    while (length < count && entries[length] - entries[length - 1] == step) {
        length++;
    }
    return length;
}

/* For a run that is shorter than 2^32 / step: a sum wrapped around at most once. */
static inline bool bat_run_is_good(const struct good_entries *good, const uint32_t *run,
                                   uint32_t length)
{
    uint32_t first = run[0], last = run[length - 1];
    return first <= last && good_entries_have(good, first) && good_entries_have(good, last);
}

#endif
