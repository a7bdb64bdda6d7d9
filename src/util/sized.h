/* SPDX-License-Identifier: MIT */
/*
 * Public structures begin with their size, a uint64_t, as the caller was compiled. These take one
 * in and give one out, whichever of caller and library is the newer. Tables of functions, of
 * pointers alone, begin with a size_t: they are not for these.
 */
#ifndef UTIL_SIZED_H
#define UTIL_SIZED_H

#include <stddef.h>
#include <stdint.h>

enum { SIZED_MAX = 4096 };

/*
 * Copy a caller's structure into the library's, which has known_size bytes and is zeroed where the
 * caller's ends. The bytes from reserved_at on, and those past known_size, mean nothing yet: they
 * must be zero. 0; -EINVAL: NULL, or shorter than reserved_at; -E2BIG: something unknown is set, or
 * no structure is that long.
 */
int sized_in(void *known, size_t known_size, size_t reserved_at, const void *given);

/* Whether a caller's structure has room for the library's answer: 0 or -EINVAL. */
int sized_out_check(const void *given, size_t reserved_at);

/*
 * Copy an answer into a caller's structure: as much as that has, its size left alone, zeros past
 * what the library knows.
 */
void sized_out(void *given, const void *known, size_t known_size);

#endif
