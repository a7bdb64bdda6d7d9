/* SPDX-License-Identifier: MIT */
/* A position in a caller's iovec array, and the window on it that one backend request gets. */
#ifndef UTIL_IOV_H
#define UTIL_IOV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct iov_cursor {
    const struct iovec *iov;
    uint64_t skip; /* bytes of iov[0] already passed */
    uint32_t count;
};

/* What the array holds in all, UINT64_MAX where that overflows. */
uint64_t iov_length(const struct iovec *iov, uint32_t count);

void iov_advance(struct iov_cursor *cursor, uint64_t bytes);

/*
 * Fill window[0..max) with up to `length` bytes from the cursor on. Returns the segments used;
 * *bytes is what they hold.
 */
uint32_t iov_window(const struct iov_cursor *cursor, uint64_t length, struct iovec *window,
                    uint32_t max, uint64_t *bytes);

/* Bytes between the cursor's memory and a buffer; the cursor does not move. */
void iov_copy_out(const struct iov_cursor *cursor, uint8_t *buffer, uint64_t length);
void iov_copy_in(const struct iov_cursor *cursor, const uint8_t *buffer, uint64_t length);

/* Zeros over `length` bytes from the cursor on. */
void iov_zero(const struct iov_cursor *cursor, uint64_t length);

/* Whether `length` bytes from the cursor on are all zeros. */
bool iov_is_zero(const struct iov_cursor *cursor, uint64_t length);

#endif
