/* SPDX-License-Identifier: MIT */
#include "util/zeros.h"

#include <stdalign.h>

/* Not const: constants take space in the library's file. */
static alignas(4096) uint8_t block[ZEROS_SIZE];

uint8_t *zeros_block(void)
{
    return block;
}

/* The compiler has an instruction for one of these, or splits it up. */
typedef uint64_t lanes __attribute__((vector_size(16), may_alias, aligned(1)));

enum { STRIDE = 256, STRIDE_LANES = STRIDE / sizeof(lanes) };

static bool stride_is_zero(const uint8_t *bytes)
{
    const lanes *at = (const lanes *)(const void *)bytes;
    lanes any = at[0];
    for (unsigned i = 1; i < STRIDE_LANES; i++) {
        any |= at[i];
    }
    return (any[0] | any[1]) == 0;
}

bool zeros_only(const void *memory, uint64_t length)
{
    const uint8_t *bytes = memory;
    uint64_t at = 0;
    for (; length - at >= STRIDE; at += STRIDE) {
        if (!stride_is_zero(bytes + at)) {
            return false;
        }
    }
    uint8_t any = 0;
    for (; at < length; at++) {
        any |= bytes[at];
    }
    return any == 0;
}
