/* SPDX-License-Identifier: MIT */
/* Walks over iovec arrays; segments of no bytes are stepped over everywhere. */
#include "util/iov.h"

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

uint32_t iov_window(const struct iov_cursor *cursor, uint64_t length, struct iovec *window, uint32_t max, uint64_t *bytes)
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

void iov_zero(const struct iov_cursor *cursor, uint64_t length)
{
    uint64_t skip = cursor->skip;
    for (uint32_t i = 0; i < cursor->count && length > 0; i++) {
        uint64_t here = cursor->iov[i].iov_len - skip;
        if (here > length) {
            here = length;
        }
        if (here > 0) {
            memset((char *)cursor->iov[i].iov_base + skip, 0, (size_t)here);
        }
        length -= here;
        skip = 0;
    }
}
