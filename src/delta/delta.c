/* SPDX-License-Identifier: MIT */
/* What delta.h says. */
#include "delta/delta.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { DELTA_ALIGNMENT = 64 };

struct delta *delta_new(ploop_file *file, uint32_t number, uint32_t level)
{
    assert(number > 0);
    void *memory = NULL;
    if (posix_memalign(&memory, DELTA_ALIGNMENT, sizeof(struct delta))) {
        return NULL;
    }
    struct delta *delta = memory;
    *delta = (struct delta){.number = number, .file = file};
    atomic_init(&delta->level, level);
    return delta;
}

void delta_free(struct delta *delta)
{
    if (!delta) {
        return;
    }
    for (struct bat *bat = delta->bat, *older; bat; bat = older) {
        older = bat->older;
        bat_free(bat);
        free(bat);
    }
    free(delta);
}

int delta_new_bat(struct delta *delta)
{
    struct bat *bat = calloc(1, sizeof(*bat));
    if (!bat) {
        return -ENOMEM;
    }
    bat->older = delta->bat;
    delta->bat = bat;
    return 0;
}

/* How much of [from, from + length) lies before `end`. */
static uint64_t before(uint64_t end, uint64_t from, uint64_t length)
{
    uint64_t room = end > from ? end - from : 0;
    return length < room ? length : room;
}

uint64_t delta_fill(const struct delta *delta, struct guest_cluster guest, uint32_t entry,
                    uint64_t inside, uint64_t length, const struct iov_cursor *cursor,
                    uint64_t *offset, uint64_t *filled)
{
    uint64_t tail_at = atomic_load_explicit(&delta->tail_at, memory_order_acquire);
    uint64_t end = atomic_load_explicit(&delta->end, memory_order_relaxed);
    assert(entry != BAT_ENTRY_BAD && tail_at <= end);
    uint64_t from = guest.n * delta->geometry.cluster_size + inside;
    uint64_t in_file = before(tail_at, from, length);
    *offset = geometry_entry_offset(&delta->geometry, entry) + inside;
    *filled = in_file;
    if (in_file < before(end, from, length)) {
        struct iov_cursor rest = *cursor;
        iov_advance(&rest, in_file);
        iov_copy_in(&rest, delta->tail, SECTOR_SIZE);
        *filled += SECTOR_SIZE;
    }
    assert(in_file <= *filled && *filled <= length);
    return in_file;
}
