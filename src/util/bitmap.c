/* SPDX-License-Identifier: MIT */
/* Plain words of 64 bits. */
#include "util/bitmap.h"

#include <assert.h>
#include <string.h>

static uint64_t bytes_for(uint64_t bits)
{
    return (bits / 64 + 1) * sizeof(uint64_t);
}

int bitmap_init_growing(struct bitmap *bitmap, uint64_t bits, uint64_t limit)
{
    int error = growing_init(&bitmap->memory, bytes_for(bits), bytes_for(limit));
    bitmap->words = bitmap->memory.memory;
    bitmap->bits = error ? 0 : bits;
    return error;
}

int bitmap_init(struct bitmap *bitmap, uint64_t bits)
{
    return bitmap_init_growing(bitmap, bits, bits);
}

int bitmap_extend(struct bitmap *bitmap, uint64_t bits)
{
    int error = growing_extend(&bitmap->memory, bytes_for(bits));
    if (!error && bits > bitmap->bits) {
        bitmap->bits = bits;
    }
    return error;
}

void bitmap_free(struct bitmap *bitmap)
{
    growing_free(&bitmap->memory);
    bitmap->words = NULL;
    bitmap->bits = 0;
}

/* The bits of word `word` that lie in [from, end), which has some of them. */
static uint64_t mask_of(uint64_t word, uint64_t from, uint64_t end)
{
    uint64_t low = word == from / 64 ? from % 64 : 0;
    uint64_t high = word == (end - 1) / 64 ? (end - 1) % 64 : 63;
    return UINT64_MAX << low & UINT64_MAX >> (63 - high);
}

/* Whether all bits of [from, end) are set, or all clear. */
static bool all_are(const struct bitmap *bitmap, uint64_t from, uint64_t end, bool set)
{
    uint64_t others = 0, flip = set ? UINT64_MAX : 0;
    for (uint64_t word = from / 64; word * 64 < end; word++) {
        others |= (bitmap->words[word] ^ flip) & mask_of(word, from, end);
    }
    return others == 0;
}

bool bitmap_set_range(struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    assert(from <= end && end <= bitmap->bits);
    if (!all_are(bitmap, from, end, false)) {
        return false;
    }
    for (uint64_t word = from / 64; word * 64 < end; word++) {
        bitmap->words[word] |= mask_of(word, from, end);
    }
    return true;
}

bool bitmap_clear_range(struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    assert(from <= end && end <= bitmap->bits);
    if (!all_are(bitmap, from, end, true)) {
        return false;
    }
    for (uint64_t word = from / 64; word * 64 < end; word++) {
        bitmap->words[word] &= ~mask_of(word, from, end);
    }
    return true;
}

bool bitmap_set(struct bitmap *bitmap, uint64_t bit)
{
    assert(bit < bitmap->bits);
    uint64_t mask = UINT64_C(1) << bit % 64;
    bool was_clear = !(bitmap->words[bit / 64] & mask);
    bitmap->words[bit / 64] |= mask;
    return was_clear;
}

bool bitmap_clear(struct bitmap *bitmap, uint64_t bit)
{
    assert(bit < bitmap->bits);
    uint64_t mask = UINT64_C(1) << bit % 64;
    bool was_set = (bitmap->words[bit / 64] & mask) != 0;
    bitmap->words[bit / 64] &= ~mask;
    return was_set;
}

bool bitmap_test(const struct bitmap *bitmap, uint64_t bit)
{
    assert(bit < bitmap->bits);
    return bitmap->words[bit / 64] >> bit % 64 & 1;
}

uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    assert(end <= bitmap->bits);
    while (from < end) {
        uint64_t word = bitmap->words[from / 64] >> from % 64;
        if (word) {
            from += (uint64_t)__builtin_ctzll(word);
            return from < end ? from : end;
        }
        from = (from / 64 + 1) * 64;
    }
    return end;
}

uint64_t bitmap_run(const struct bitmap *bitmap, uint64_t from, uint64_t limit)
{
    uint64_t left = from < bitmap->bits ? bitmap->bits - from : 0;
    uint64_t most = limit < left ? limit : left, count = 0;
    while (count < most) {
        uint64_t at = from + count;
        uint64_t clear = ~(bitmap->words[at / 64] >> at % 64);
        uint64_t here = clear ? (uint64_t)__builtin_ctzll(clear) : 64;
        count += here;
        if (at % 64 + here < 64) {
            break;
        }
    }
    return count < most ? count : most;
}
