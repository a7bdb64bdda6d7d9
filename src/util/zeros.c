/* SPDX-License-Identifier: MIT */
#include "util/zeros.h"

#include <stdalign.h>

/* Not const: constants take space in the library's file. */
static alignas(4096) uint8_t block[ZEROS_SIZE];

uint8_t *zeros_block(void)
{
    return block;
}
