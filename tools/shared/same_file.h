/* SPDX-License-Identifier: MIT */
/* Whether the files of a stack are different ones, whatever names they were given by. */
#ifndef PLOOP_TOOLS_SAME_FILE_H
#define PLOOP_TOOLS_SAME_FILE_H

#include <stdbool.h>
#include <stdint.h>

enum { SAME_FILE_MAX = 255 };

/*
 * Find two of at most SAME_FILE_MAX names that are of one file or block device: links are followed.
 * A name that leads nowhere is left to the open. true: *first < *second are their numbers.
 */
bool find_same_file(const char *const *paths, uint32_t count, uint32_t *first, uint32_t *second);

#endif
