/* SPDX-License-Identifier: MIT */
/*
 * Zeros to write to files: one block for all devices, in memory that takes no physical page before
 * it is read. Nobody changes it: a backend may only read the memory of a WRITE.
 */
#ifndef PLOOP_UTIL_ZEROS_H
#define PLOOP_UTIL_ZEROS_H

#include <stdint.h>

enum { ZEROS_SIZE = 256 << 10 };

/* Aligned to 4096 bytes. */
uint8_t *zeros_block(void);

#endif
