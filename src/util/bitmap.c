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

void bitmap_free(struct bitmap *bitmap)
{
    growing_free(&bitmap->memory);
    bitmap->words = NULL;
    bitmap->bits = 0;
}

void bitmap_set_range(struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    assert(from <= end && end <= bitmap->bits);
    while (from < end && from % 64 != 0) {
        bitmap_set(bitmap, from++);
    }
    uint64_t words = (end - from) / 64;
    memset(bitmap->words + from / 64, 0xff, (size_t)(words * sizeof(uint64_t)));
    for (from += words * 64; from < end; from++) {
        bitmap_set(bitmap, from);
    }
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
    uint64_t count = 0;
    while (count < limit && from + count < bitmap->bits && bitmap_test(bitmap, from + count)) {
        count++;
    }
    return count;
}
