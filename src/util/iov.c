/* SPDX-License-Identifier: MIT */
/* Walks over iovec arrays; segments of no bytes are stepped over everywhere. */
#include "util/iov.h"

#include "util/zeros.h"

#include <string.h>

uint64_t iov_length(const struct iovec *iov, uint32_t count)
{
    uint64_t length = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(length, iov[i].iov_len, &length)) {
            return UINT64_MAX;
        }
    }
    return length;
}

void iov_advance(struct iov_cursor *cursor, uint64_t bytes)
{
    cursor->skip += bytes;
    while (cursor->count > 0 && cursor->skip >= cursor->iov->iov_len) {
        cursor->skip -= cursor->iov->iov_len;
        cursor->iov++;
        cursor->count--;
    }
}

uint32_t iov_window(const struct iov_cursor *cursor, uint64_t length, struct iovec *window,
                    uint32_t max, uint64_t *bytes)
{
    uint64_t skip = cursor->skip;
    uint32_t used = 0;
    *bytes = 0;
    for (uint32_t i = 0; i < cursor->count && used < max && *bytes < length; i++) {
        uint64_t here = cursor->iov[i].iov_len - skip;
        if (here > length - *bytes) {
            here = length - *bytes;
        }
        if (here > 0) {
            window[used].iov_base = (char *)cursor->iov[i].iov_base + skip;
            window[used].iov_len = (size_t)here;
            used++;
            *bytes += here;
        }
        skip = 0;
    }
    return used;
}

enum direction { OUT, IN, ZERO };

static void walk(const struct iov_cursor *cursor, enum direction direction, uint8_t *buffer,
                 uint64_t length)
{
    uint64_t skip = cursor->skip;
    for (uint32_t i = 0; i < cursor->count && length > 0; i++) {
        uint64_t here = cursor->iov[i].iov_len - skip;
        if (here > length) {
            here = length;
        }
        uint8_t *memory = (uint8_t *)cursor->iov[i].iov_base + skip;
        if (here > 0 && direction == ZERO) {
            memset(memory, 0, (size_t)here);
        } else if (here > 0) {
            memcpy(direction == OUT ? buffer : memory, direction == OUT ? memory : buffer,
                   (size_t)here);
            buffer += here;
        }
        length -= here;
        skip = 0;
    }
}

void iov_copy_out(const struct iov_cursor *cursor, uint8_t *buffer, uint64_t length)
{
    walk(cursor, OUT, buffer, length);
}

void iov_copy_in(const struct iov_cursor *cursor, const uint8_t *buffer, uint64_t length)
{
    walk(cursor, IN, (uint8_t *)(uintptr_t)buffer, length);
}

void iov_zero(const struct iov_cursor *cursor, uint64_t length)
{
    walk(cursor, ZERO, NULL, length);
}

bool iov_is_zero(const struct iov_cursor *cursor, uint64_t length)
{
    uint64_t skip = cursor->skip;
    for (uint32_t i = 0; i < cursor->count && length > 0; i++) {
        uint64_t here = cursor->iov[i].iov_len - skip;
        here = here < length ? here : length;
        if (!zeros_only((const uint8_t *)cursor->iov[i].iov_base + skip, here)) {
            return false;
        }
        length -= here;
        skip = 0;
    }
    return true;
}
