/* SPDX-License-Identifier: MIT */
/* Levels of bitmaps: see the header. */
#include "util/numbers.h"

#include <assert.h>

static uint64_t words_of(uint64_t bits)
{
    return (bits + 63) / 64;
}

int numbers_init(struct numbers *numbers, uint64_t end, uint64_t limit)
{
    *numbers = (struct numbers){0};
    limit = limit > end ? limit : end;
    assert(limit <= UINT64_C(1) << 6 * NUMBERS_LEVELS_MAX);
    for (;;) {
        struct bitmap *level = &numbers->levels[numbers->level_count++];
        int error = bitmap_init_growing(level, end, limit);
        if (error || limit <= 64) {
            return error;
        }
        end = words_of(end);
        limit = words_of(limit);
    }
}

void numbers_free(struct numbers *numbers)
{
    for (uint32_t i = 0; i < numbers->level_count; i++) {
        bitmap_free(&numbers->levels[i]);
    }
}

int numbers_extend(struct numbers *numbers, uint64_t end)
{
    int error = 0;
    for (uint32_t i = 0; i < numbers->level_count && !error; i++, end = words_of(end)) {
        error = bitmap_extend(&numbers->levels[i], end);
    }
    return error; /* a level that has more bits than it needs does no harm */
}

/* What the words [from, end) of a level hold has changed: the bits for them above. */
static void tell_above(struct numbers *numbers, uint32_t level, uint64_t from, uint64_t end)
{
    while (level + 1 < numbers->level_count) {
        const uint64_t *words = numbers->levels[level].words;
        struct bitmap *above = &numbers->levels[level + 1];
        bool changed = false;
        for (uint64_t word = from; word < end; word++) {
            changed |= words[word] ? bitmap_set(above, word) : bitmap_clear(above, word);
        }
        if (!changed) {
            return;
        }
        from = from / 64;
        end = words_of(end);
        level++;
    }
}

bool numbers_put(struct numbers *numbers, uint64_t from, uint64_t end)
{
    if (!bitmap_set_range(&numbers->levels[0], from, end)) {
        return false;
    }
    numbers->count += end - from;
    tell_above(numbers, 0, from / 64, words_of(end));
    return true;
}

bool numbers_take(struct numbers *numbers, uint64_t from, uint64_t end)
{
    if (!bitmap_clear_range(&numbers->levels[0], from, end)) {
        return false;
    }
    assert(numbers->count >= end - from);
    numbers->count -= end - from;
    tell_above(numbers, 0, from / 64, words_of(end));
    return true;
}

/* The first bit of a level from `from` on within its own word; false: there is none. */
static bool next_in_word(const struct bitmap *level, uint64_t from, uint64_t *bit)
{
    uint64_t word = from < level->bits ? level->words[from / 64] >> from % 64 : 0;
    if (word) {
        *bit = from + (uint64_t)__builtin_ctzll(word);
    }
    return word != 0;
}

uint64_t numbers_next(const struct numbers *numbers, uint64_t from, uint64_t end)
{
    uint32_t level = 0;
    uint64_t bit = 0;
    if (from >= end) {
        return end;
    }
    while (!next_in_word(&numbers->levels[level], from, &bit)) {
        from = from / 64 + 1; /* the next word, a level up */
        if (++level == numbers->level_count) {
            return end;
        }
    }
    while (level > 0) {
        level--;
        bit = bit * 64 + (uint64_t)__builtin_ctzll(numbers->levels[level].words[bit]);
    }
    return bit < end ? bit : end;
}
