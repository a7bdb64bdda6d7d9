/* SPDX-License-Identifier: MIT */
/*
 * Entries that cannot stay as they are. First those that are only cleared: an entry past the end of
 * the file would come to name a cluster if the file grew. Then the copies, behind the end of the
 * file, or in one of fixed size behind all that is used, and when they are durable their entries:
 *
 *     entries cleared -> SYNC -> file extended (where it can be) -> clusters copied -> SYNC ->
 *     entries named -> SYNC
 */
#include "ops/repair.h"

#include <errno.h>

/* A duplicate that the guest can see; one beyond the disk's end is not worth a copy. */
static bool wants_copy(const struct repair *repair, uint32_t index)
{
    return bitmap_test(&repair->check->duplicates, index) &&
           index < geometry_guest_clusters(&repair->image->header.geometry);
}

static uint64_t count_copies(const struct repair *repair)
{
    uint64_t count = 0;

    for (uint32_t i = 0; repair->check->counts[PLOOP_CHECK_ENTRY_DUPLICATE] &&
                         i < repair->image->header.geometry.bat_entries;
         i++) {
        count += wants_copy(repair, i);
    }
    return count;
}

/* The place behind all that an entry or the extension names. */
static uint64_t end_of_used(const struct repair *repair)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    const struct extension *extension = &repair->check->extension;
    uint64_t end = geometry_host_first(geometry);

    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        uint32_t entry = repair->image->entries[i];
        if (entry) {
            uint64_t place = geometry_place_at(geometry, geometry_entry_offset(geometry, entry));
            end = place >= end ? place + 1 : end;
        }
    }
    for (uint64_t i = 0; i < extension->owned_count; i++) {
        uint64_t place = geometry_place_at(geometry, extension->owned[i]);
        end = place >= end ? place + 1 : end;
    }
    return end;
}

/* Where the copies are to begin: behind the file, or the part of a device that is used. */
static uint64_t place_for_copies(const struct repair *repair)
{
    return image_file_is_fixed(repair->image)
               ? end_of_used(repair)
               : geometry_host_end(&repair->image->header.geometry, repair->image->file_size);
}

/* Room for the copies, as whole clusters from `first` on. */
static int make_room(struct repair *repair, uint64_t first, uint64_t count)
{
    const struct geometry *geometry = &repair->image->header.geometry;

    if (first + count > geometry_host_limit(geometry)) {
        return -EFBIG;
    }
    if (image_file_is_fixed(repair->image)) {
        uint64_t end = geometry_host_end(geometry, repair->image->file_size);
        return first + count > end ? -ENOSPC : 0;
    }
    if (!(repair->image->capabilities & PLOOP_FILE_CAN_GROW)) {
        return -ENOSPC;
    }
    return repair_truncate(repair, geometry_place_offset(geometry, first + count));
}

/*
 * In memory each entry names its copy at once; its page stays dirty until that is durable.
 * Cancelled: room not used is given back.
 */
static int copy_duplicates(struct repair *repair, uint64_t count)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    uint64_t file_size = repair->image->file_size, first = place_for_copies(repair);
    struct host_cluster next = {(uint32_t)first};
    int error = make_room(repair, first, count);

    for (uint32_t i = 0; i < geometry->bat_entries && !error; i++) {
        if (wants_copy(repair, i) && repair_goes_on(repair, i)) {
            error = repair_copy_cluster(repair,
                                        geometry_entry_offset(geometry, repair->image->entries[i]),
                                        geometry_host_offset(geometry, next));
            repair_set_entry(repair, i, geometry_entry(geometry, next));
            next.n++;
        }
    }
    if (!error && repair->cancelled && !image_file_is_fixed(repair->image)) {
        error = repair_truncate(repair,
                                next.n > first ? geometry_host_offset(geometry, next) : file_size);
    }
    return error ? error : repair_sync(repair);
}

/* Whether the entry can be cleared: it is invalid, or lies beyond the disk's end. */
static bool wants_clearing(const struct repair *repair, uint32_t index)
{
    bool mend = repair_wants(repair, PLOOP_REPAIR_ENTRIES),
         cut = repair_wants(repair, PLOOP_REPAIR_LEAKS);

    uint32_t entry = repair->image->entries[index];

    if (!check_entry_is_good(repair->check, entry)) {
        return mend && entry != repair->check->good.cut;
    }
    if (bitmap_test(&repair->check->duplicates, index)) {
        return mend && !wants_copy(repair, index);
    }
    return cut && index >= geometry_guest_clusters(&repair->image->header.geometry);
}

int repair_entries(struct repair *repair)
{
    uint64_t copies = repair_wants(repair, PLOOP_REPAIR_ENTRIES) ? count_copies(repair) : 0;
    int error;

    for (uint32_t i = 0; i < repair->image->header.geometry.bat_entries; i++) {
        if (repair->image->entries[i] && wants_clearing(repair, i)) {
            repair_set_entry(repair, i, 0);
        }
    }
    error = repair_publish(repair);
    if (!error && copies) {
        error = copy_duplicates(repair, copies);
    }
    return error ? error : repair_publish(repair);
}
