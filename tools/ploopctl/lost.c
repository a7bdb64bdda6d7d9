/* SPDX-License-Identifier: MIT */
/* See lost.h. */
#include "lost.h"

#include <errno.h>
#include <stdlib.h>

int lost_add(struct lost *lost, uint64_t offset, uint64_t length)
{
    if (lost->count == lost->room) {
        uint64_t room = lost->room ? 2 * lost->room : 64;
        struct lost_range *ranges = realloc(lost->ranges, room * sizeof(*ranges));
        if (!ranges) {
            return -ENOMEM;
        }
        lost->ranges = ranges;
        lost->room = room;
    }
    lost->ranges[lost->count++] = (struct lost_range){.offset = offset, .length = length};
    return 0;
}

static int by_offset(const void *left, const void *right)
{
    const struct lost_range *a = left, *b = right;

    return (a->offset > b->offset) - (a->offset < b->offset);
}

uint64_t lost_settle(struct lost *lost)
{
    uint64_t kept = 0, bytes = 0;

    if (lost->count) {
        qsort(lost->ranges, lost->count, sizeof(*lost->ranges), by_offset);
    }
    for (uint64_t i = 0; i < lost->count; i++) {
        struct lost_range *range = &lost->ranges[i];
        struct lost_range *last = kept ? &lost->ranges[kept - 1] : NULL;
        bytes += range->length;
        if (last && last->offset + last->length == range->offset) {
            last->length += range->length;
        } else {
            lost->ranges[kept++] = *range;
        }
    }
    lost->count = kept;
    return bytes;
}

void lost_free(struct lost *lost)
{
    free(lost->ranges);
    *lost = (struct lost){0};
}
