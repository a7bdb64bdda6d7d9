/* SPDX-License-Identifier: MIT */
/*
 * What an error is called, for log lines. Any thread may ask: strerror() promises that in some C
 * libraries only.
 */
#ifndef UTIL_ERROR_TEXT_H
#define UTIL_ERROR_TEXT_H

enum { ERROR_TEXT_SIZE = 64 };

/* The text for -errno, in `space` or in memory that does not change. */
const char *error_text(int error, char space[ERROR_TEXT_SIZE]);

/* The text for -errno, until the end of the block. */
#define ERROR_TEXT(error) error_text(error, (char[ERROR_TEXT_SIZE]){0})

#endif
