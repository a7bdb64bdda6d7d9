/* SPDX-License-Identifier: MIT */
/* Structures that begin with their size: see the header. */
#include "util/sized.h"

#include <errno.h>
#include <string.h>

static uint64_t size_of(const void *given)
{
    uint64_t size;

    memcpy(&size, given, sizeof(size));
    return size;
}

int sized_in(void *known, size_t known_size, size_t reserved_at, const void *given)
{
    const unsigned char *bytes = given;

    if (!given || size_of(given) < reserved_at) {
        return -EINVAL;
    }
    if (size_of(given) > SIZED_MAX) {
        return -E2BIG;
    }
    for (size_t i = reserved_at; i < size_of(given); i++) {
        if (bytes[i]) {
            return -E2BIG;
        }
    }
    memset(known, 0, known_size);
    memcpy(known, given, size_of(given) < known_size ? (size_t)size_of(given) : known_size);
    return 0;
}

int sized_out_check(const void *given, size_t reserved_at)
{
    return given && size_of(given) >= reserved_at && size_of(given) <= SIZED_MAX ? 0 : -EINVAL;
}

void sized_out(void *given, const void *known, size_t known_size)
{
    uint64_t size = size_of(given);
    size_t common = size < known_size ? (size_t)size : known_size;

    memset(given, 0, (size_t)size);
    memcpy(given, known, common);
    memcpy(given, &size, sizeof(size));
}
