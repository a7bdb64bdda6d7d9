/* SPDX-License-Identifier: MIT */
/*
 * Allocations that are counted, and fail on purpose. For programs that tests/CMakeLists.txt links
 * with --wrap: every allocation of theirs, the library's too, comes through here.
 */
#ifndef COUNTED_MEMORY_H
#define COUNTED_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct counted_memory {
    uint64_t bytes; /* asked for, in all, freed or not */
    uint64_t calls;
    uint64_t fail_at; /* this call of those counted fails, 1 the first; 0: none */
    bool fail_on;     /* and all after it */
    bool paused;      /* neither counted nor failing */
    uint64_t failures;
};
extern struct counted_memory counted_memory;

#endif
