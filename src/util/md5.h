/* SPDX-License-Identifier: MIT */
/*
 * The MD5 digest (RFC 1321), for the checksum of the format extension. Not for anything that must
 * resist an adversary.
 */
#ifndef UTIL_MD5_H
#define UTIL_MD5_H

#include <stddef.h>
#include <stdint.h>

enum { MD5_SIZE = 16 };

/* The digest of `size` bytes at once. */
void md5(const uint8_t *bytes, size_t size, uint8_t digest[MD5_SIZE]);

#endif
