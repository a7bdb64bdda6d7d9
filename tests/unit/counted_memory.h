/* SPDX-License-Identifier: MIT */
/*
 * Count allocations, and let them fail on purpose. For programs that tests/CMakeLists.txt links
 * with --wrap: every allocation of the program, the library's too, comes through here.
 */
#ifndef COUNTED_MEMORY_H
#define COUNTED_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct counted_memory {
    uint64_t bytes; /* requested in total, freed or not */
    uint64_t calls;
    uint64_t fail_at; /* the number of the counted call that fails, 1 the first; 0: none */
    bool fail_on;     /* and all calls after it */
    bool paused;      /* calls are neither counted nor fail */
    uint64_t failures;
};
extern struct counted_memory counted_memory;

/* Allocations that were not freed, whether they are counted or not: to be compared. */
extern _Atomic int64_t live_allocations;

#endif
