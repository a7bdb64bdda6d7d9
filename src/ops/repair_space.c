/* SPDX-License-Identifier: MIT */
/*
 * Leaks. The clusters in use are made the first ones of the data area: those at or past `end`,
 * which is where that many clusters end, move into the holes below it. There are as many of them as
 * holes.
 *
 *     clusters copied -> SYNC -> entries changed -> SYNC -> file cut -> SYNC
 *
 * No hole is ever named by an entry before its SYNC, and no cluster is cut off before the SYNC of
 * the entries that left it. The copies of all movers can be made before the first entry changes,
 * because holes and movers never are the same clusters.
 *
 * Where errors were left in the image, or a void extension is kept, nothing moves: only the tail is
 * cut, behind everything that any entry could mean. In a file of fixed size nothing is a leak, and
 * nothing is done.
 */
#include "ops/repair.h"

#include <assert.h>
#include <errno.h>

#include "format/extension.h"

struct holes {
    uint64_t first, end; /* places: where the data area begins, and is to end */
    struct bitmap taken; /* from `first` on: those that are used, or were given to a mover */
    uint64_t next;       /* a bit: all before it are taken */
};

/* Calls back for each cluster of the bitmaps of the extension to be. The callback may move it. */
typedef int place_fn(struct repair *repair, struct holes *holes, uint64_t *offset);

static int each_cluster_of(struct repair *repair, struct holes *holes,
                           const struct extension_bitmap *bitmap, place_fn *fn)
{
    int error = 0;

    for (uint32_t i = 0; i < bitmap->l1_size && !error; i++) {
        uint64_t sector = extension_l1_get(repair->extension, bitmap, i);
        uint64_t offset = sector * SECTOR_SIZE;

        if (sector != L1_ALL_ZEROS && sector != L1_ALL_ONES) {
            error = fn(repair, holes, &offset);
            extension_l1_set(repair->extension, bitmap, i, offset / SECTOR_SIZE);
        }
    }
    return error;
}

static int each_bitmap_cluster(struct repair *repair, struct holes *holes, place_fn *fn)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    struct extension_feature feature;
    struct extension_fault fault;
    struct extension_bitmap bitmap;
    size_t at = 0;
    int error = 0;

    if (!repair->extension) {
        return 0;
    }
    while (!error &&
           extension_next(repair->extension, geometry->cluster_size, &at, &feature, &fault)) {
        if (feature.magic == EXTENSION_BITMAP_MAGIC) {
            extension_bitmap_decode(repair->extension, &feature, geometry,
                                    &bitmap); /* good: only such bitmaps are kept */
            error = each_cluster_of(repair, holes, &bitmap, fn);
        }
    }
    return error;
}

static int count_one(struct repair *repair, struct holes *holes, uint64_t *offset)
{
    (void)repair;
    (void)offset;
    holes->end++;
    return 0;
}

static int take_one(struct repair *repair, struct holes *holes, uint64_t *offset)
{
    uint64_t place = geometry_place_at(&repair->image->header.geometry, *offset);

    if (place < holes->end) {
        bitmap_set(&holes->taken, place - holes->first);
    }
    return 0;
}

static uint64_t take_hole(struct holes *holes)
{
    while (!bitmap_set(&holes->taken, holes->next)) {
        holes->next++;
    }
    assert(holes->next < holes->end - holes->first);
    return holes->first + holes->next;
}

/*
 * The content only: the entry that names the cluster is changed later, when the copy is durable.
 * Cancelled, it stays where it is.
 */
static int copy_into_hole(struct repair *repair, struct holes *holes, uint32_t entry,
                          uint64_t offset, uint64_t *moved)
{
    const struct geometry *geometry = &repair->image->header.geometry;

    *moved = offset;
    if (geometry_place_at(geometry, offset) < holes->end || !repair_goes_on(repair, entry)) {
        return 0;
    }
    *moved = geometry_place_offset(geometry, take_hole(holes));
    return repair_copy_cluster(repair, offset, *moved);
}

/* The extension is void until the end, so what it names can change at once. */
static int move_one(struct repair *repair, struct holes *holes, uint64_t *offset)
{
    uint32_t entry = repair->image->header.geometry.bat_entries;
    int error = copy_into_hole(repair, holes, entry, *offset, offset);

    assert(*offset / SECTOR_SIZE != L1_ALL_ONES);
    return error;
}

/*
 * The extension gets the first hole, which can be where it was. The data area may begin at sector
 * L1_ALL_ONES, by which no table can name a bitmap's cluster: that place must not be left for one.
 * None is copied more for it: the extension's own cluster is written at the end, wherever it lies.
 */
static void place_extension(struct repair *repair, struct holes *holes)
{
    if (repair->extension) {
        repair->extension_offset =
            geometry_place_offset(&repair->image->header.geometry, take_hole(holes));
    }
}

static int find_holes(struct repair *repair, struct holes *holes)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    uint64_t first = geometry_host_first(geometry);
    int error;

    *holes = (struct holes){.first = first, .end = first};
    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        holes->end += repair->image->entries[i] != 0;
    }
    holes->end += repair->extension != NULL;
    each_bitmap_cluster(repair, holes, count_one);
    error = bitmap_init(&holes->taken, holes->end - first);
    if (error) {
        return error;
    }
    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        if (repair->image->entries[i]) {
            uint64_t offset = geometry_entry_offset(geometry, repair->image->entries[i]);

            take_one(repair, holes, &offset);
        }
    }
    each_bitmap_cluster(repair, holes, take_one);
    place_extension(repair, holes);
    return 0;
}

/* In memory the entries name the copies at once; their pages stay dirty until those are durable. */
static int move_guest_clusters(struct repair *repair, struct holes *holes)
{
    struct image_file *image = repair->image;
    const struct geometry *geometry = &image->header.geometry;
    int error = 0;

    for (uint32_t i = 0; i < geometry->bat_entries && !error; i++) {
        if (image->entries[i]) {
            uint64_t from = geometry_entry_offset(geometry, image->entries[i]), to;

            error = copy_into_hole(repair, holes, i, from, &to);
            if (to != from) {
                repair_set_entry(repair, i, (uint32_t)(to / geometry->entry_unit));
            }
        }
    }
    return error;
}

static int move_all(struct repair *repair, struct holes *holes)
{
    int error = move_guest_clusters(repair, holes);

    if (!error) {
        error = each_bitmap_cluster(repair, holes, move_one);
    }
    if (!error) {
        error = repair_sync(repair);
    }
    return error ? error : repair_publish(repair);
}

static int cut(struct repair *repair, uint64_t end)
{
    int error;

    repair_give_up_extension(repair);
    error = repair_truncate(repair, end);
    if (error == -ENOTSUP) {
        return 0; /* a block device: what is behind `end` is free */
    }
    return error ? error : repair_sync(repair);
}

static int compact(struct repair *repair)
{
    struct holes holes;
    uint64_t end;
    int error = find_holes(repair, &holes);

    if (error) {
        return error;
    }
    end = geometry_place_offset(&repair->image->header.geometry, holes.end);
    assert(end <= repair->image->file_size);
    repair->check->progress_base += repair->image->header.geometry.bat_entries;
    if (bitmap_run(&holes.taken, 0, holes.end - holes.first) < holes.end - holes.first) {
        repair_give_up_extension(repair);
        error = move_all(repair, &holes);
    }
    bitmap_free(&holes.taken);
    if (!error && !repair->cancelled && end != repair->image->file_size) {
        error = cut(repair, end);
    }
    repair->leaks_mended = repair->check->counts[PLOOP_CHECK_LEAK];
    return error;
}

/* Where the last byte ends that an entry, right or wrong, or the extension could mean. */
static uint64_t last_claimed_end(const struct repair *repair)
{
    const struct geometry *geometry = &repair->image->header.geometry;
    const struct extension *extension = &repair->check->extension;
    uint64_t file_size = repair->image->file_size, end = geometry->data_start;

    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        uint64_t offset = geometry_entry_offset(geometry, repair->image->entries[i]);
        uint64_t claimed = offset + geometry->cluster_size;

        if (offset && offset < file_size && claimed > end) {
            end = claimed < file_size ? claimed : file_size;
        }
    }
    if (extension->owned_count) {
        uint64_t claimed = extension->owned[extension->owned_count - 1] + geometry->cluster_size;

        end = claimed > end ? claimed : end;
    }
    return end;
}

static int cut_tail(struct repair *repair)
{
    uint64_t end = last_claimed_end(repair), leaks;
    uint64_t found = repair->check->counts[PLOOP_CHECK_LEAK];
    int error;

    if (end >= repair->image->file_size) {
        return 0;
    }
    error = check_count_leaks(repair->check, end, &leaks);
    if (error) {
        return error;
    }
    repair->leaks_mended = leaks < found ? leaks : found; /* the others were entries beyond */
    return cut(repair, end);
}

int repair_space(struct repair *repair)
{
    if (image_file_is_fixed(repair->image)) {
        return 0;
    }
    const uint64_t *counts = repair->check->counts;
    bool entries_bad = counts[PLOOP_CHECK_ENTRY_RANGE] || counts[PLOOP_CHECK_ENTRY_GRID] ||
                       counts[PLOOP_CHECK_ENTRY_DUPLICATE];
    bool is_cut = counts[PLOOP_CHECK_ENTRY_CUT] && repair->check->good.cut; /* it is still */

    if (repair->unusable_extension || repair->keeps_void || is_cut ||
        (entries_bad && !repair_wants(repair, PLOOP_REPAIR_ENTRIES))) {
        return cut_tail(repair);
    }
    return compact(repair);
}
