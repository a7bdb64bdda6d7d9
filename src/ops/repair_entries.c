/* SPDX-License-Identifier: MIT */
/*
 * Entries that cannot stay as they are. First the copies, behind the end of the file; when they are durable, the entries:
 *
 *     file extended -> clusters copied -> SYNC -> entries changed -> SYNC
 */
#include "ops/repair.h"

#include <errno.h>

/* A duplicate that the guest can see; one beyond the disk's end is not worth a copy. */
static bool wants_copy(const struct repair *repair, uint32_t index)
{
    return bitmap_test(&repair->check->duplicates, index) && index < geometry_guest_clusters(&repair->image->header.geometry);
}

static uint64_t count_copies(const struct repair *repair)
{
    uint64_t count = 0;

    for (uint32_t i = 0; repair->check->counts[PLOOP_CHECK_ENTRY_DUPLICATE] && i < repair->image->header.geometry.bat_entries;
         i++) {
        count += wants_copy(repair, i);
    }
    return count;
}

/* Room for the copies, as whole clusters from `first` on. */
static int make_room(struct repair *repair, uint64_t first, uint64_t count)
{
    const struct geometry *geometry = &repair->image->header.geometry;

    if (first + count > geometry_host_limit(geometry)) {
        return -EFBIG;
    }
    if (!(repair->image->capabilities & PLOOP_FILE_CAN_GROW)) {
        return -ENOSPC;
    }
    return repair_truncate(repair, geometry->data_start + (first + count) * geometry->cluster_size);
}

static int copy_duplicates(struct repair *repair, uint64_t count)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    uint64_t first = geometry_host_clusters(geometry, repair->image->file_size);
    struct host_cluster next = {(uint32_t)first};
    int err = make_room(repair, first, count);

    for (uint32_t i = 0; i < geometry->bat_entries && !err; i++) {
        if (wants_copy(repair, i)) {
            err = repair_copy_cluster(repair, geometry_entry_offset(geometry, repair->image->entries[i]),
                                      geometry_host_offset(geometry, next));
            next.n++;
        }
    }
    return err ? err : repair_sync(repair);
}

/* Nothing here reads or writes the file: the copies made above are named, in the same order. */
static void change_entries(struct repair *repair, struct host_cluster next, uint64_t found_size)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    uint32_t guest_clusters = geometry_guest_clusters(geometry);
    bool mend = repair_wants(repair, PLOOP_REPAIR_ENTRIES), cut = repair_wants(repair, PLOOP_REPAIR_LEAKS);

    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        uint32_t entry = repair->image->entries[i];

        if (!entry) {
            continue;
        }
        if (geometry_judge_entry(geometry, found_size, entry) != ENTRY_GOOD) {
            if (mend) {
                repair_set_entry(repair, i, 0);
            }
        } else if (bitmap_test(&repair->check->duplicates, i)) {
            if (mend) {
                repair_set_entry(repair, i, wants_copy(repair, i) ? geometry_entry(geometry, next) : 0);
                next.n += wants_copy(repair, i);
            }
        } else if (cut && i >= guest_clusters) {
            repair_set_entry(repair, i, 0);
        }
    }
}

int repair_entries(struct repair *repair)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    bool mend = repair_wants(repair, PLOOP_REPAIR_ENTRIES);
    uint64_t found_size = repair->image->file_size;
    uint64_t copies = mend ? count_copies(repair) : 0;
    int err = copies ? copy_duplicates(repair, copies) : 0;

    if (err) {
        return err;
    }
    change_entries(repair, (struct host_cluster){(uint32_t)geometry_host_clusters(geometry, found_size)}, found_size);
    if (bitmap_next_set(&repair->dirty, 0, repair->dirty.bits) == repair->dirty.bits) {
        return 0;
    }
    repair->published = true;
    err = repair_write_pages(repair);
    return err ? err : repair_sync(repair);
}
