/* SPDX-License-Identifier: MIT */
/* The table that kind.h describes. It names the steps; the steps do not know it. */
#include "pio/kind.h"

#include "pio/steps.h"

#include <assert.h>
#include <stddef.h>

const struct kind kinds[] = {
    [PIO_NONE] = {.name = "none"},
    [PIO_READ] =
        {
            .name = "read",
            .range = RANGE_BYTES,
            .fast_op = PLOOP_IO_READ,
            .has_memory = true,
            .locked = read_locked,
        },
    [PIO_WRITE] =
        {
            .name = "write",
            .flags = PLOOP_PIO_FUA | PLOOP_PIO_PREFLUSH,
            .range = RANGE_BYTES,
            .fast_op = PLOOP_IO_WRITE,
            .has_memory = true,
            .is_change = true,
            .wants_alone = write_wants_alone,
            .locked = write_locked,
            .fill = write_fill,
        },
    [PIO_ZEROES] =
        {
            .name = "write zeroes",
            .flags = PLOOP_PIO_FUA | PLOOP_PIO_PREFLUSH | PLOOP_PIO_NO_UNMAP | PLOOP_PIO_FAST_ONLY,
            .range = RANGE_BYTES,
            .is_change = true,
            .skips_unmapped = true,
            .covers_below = true,
            .wants_alone = zeroes_wants_alone,
            .locked = zeroes_locked,
            .fill = zeroes_fill,
        },
    [PIO_DISCARD] =
        {
            .name = "discard",
            .range = RANGE_BYTES,
            .is_change = true,
            .whole_clusters = true,
            .skips_unmapped = true,
            .wants_alone = discard_wants_alone,
            .locked = discard_locked,
        },
    [PIO_FLUSH] = {.name = "flush", .start = flush_start},
    [PIO_BAT_WRITE] =
        {
            .name = "BAT write",
            .range = RANGE_PAGES,
            .is_change = true,
            .start = bat_write_start,
        },
    [PIO_COPY_UP] =
        {
            .name = "copy up",
            .range = RANGE_BYTES,
            .is_change = true,
            .never_parks = true,
            .wants_alone = copy_up_wants_alone,
            .locked = copy_up_locked,
        },
    [PIO_MERGE] =
        {
            .name = "merge",
            .range = RANGE_BYTES,
            .is_change = true,
            .never_parks = true,
            .wants_alone = merge_wants_alone,
            .locked = merge_locked,
        },
    [PIO_COMPLETE] =
        {
            .name = "complete",
            .range = RANGE_BYTES,
            .is_change = true,
            .never_parks = true,
            .wants_alone = complete_wants_alone,
            .locked = complete_locked,
        },
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == PIO_KINDS, "a kind of request has no row");

void kinds_assert(void)
{
    for (uint32_t op = 0; op < PIO_KINDS; op++) {
        const struct kind *kind = &kinds[op];
        (void)kind;
        assert(kind->name);
        if (op == PIO_NONE) {
            continue;
        }
        assert(!kind->start != !kind->locked);
        assert(!kind->locked || kind->range == RANGE_BYTES);
        assert(!kind->fast_op || (kind->has_memory && kind->locked));
        assert(!kind->covers_below || kind->skips_unmapped);
        assert(!kind->skips_unmapped || kind->is_change);
        assert(!kind->fill || kind->wants_alone);
        assert(!kind->whole_clusters || !kind->has_memory);
    }
}
