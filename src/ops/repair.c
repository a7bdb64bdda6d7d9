/* SPDX-License-Identifier: MIT */
/*
 * The course of a repair: see the header for its states. Here are its plan, its beginning, and its
 * end.
 */
#include "ops/repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool repair_wants(const struct repair *repair, uint32_t what)
{
    return repair->check->options.repair & what;
}

bool repair_goes_on(struct repair *repair, uint32_t entry)
{
    repair->cancelled = repair->cancelled || check_progress(repair->check, entry);
    return !repair->cancelled;
}

/*
 * With the mark set it is void, and its clusters may be any guest cluster's: no header may name it
 * as it was any more.
 */
void repair_give_up_extension(struct repair *repair)
{
    repair->irrevocable = repair->irrevocable || repair->check->extension.state == EXTENSION_VALID;
}

/* ENTRIES may put copies behind the cluster, and no entry is judged for what is cut off. */
static bool mends_cut(const struct repair *repair)
{
    return repair_wants(repair, PLOOP_REPAIR_CUT | PLOOP_REPAIR_ENTRIES) &&
           repair->check->counts[PLOOP_CHECK_ENTRY_CUT];
}

static uint64_t bad_entries(const struct check *check)
{
    return check->counts[PLOOP_CHECK_ENTRY_RANGE] + check->counts[PLOOP_CHECK_ENTRY_GRID] +
           check->counts[PLOOP_CHECK_ENTRY_DUPLICATE];
}

/*
 * Whether an error will be left when all that was asked for is done, the header's own fields
 * excepted.
 */
static bool leaves_errors(const struct repair *repair)
{
    return repair->unusable_extension ||
           (bad_entries(repair->check) && !repair_wants(repair, PLOOP_REPAIR_ENTRIES)) ||
           (repair->check->counts[PLOOP_CHECK_ENTRY_CUT] && !mends_cut(repair));
}

static bool maps_nothing(const struct image_file *image)
{
    uint32_t i = 0;

    while (i < image->header.geometry.bat_entries && !image->entries[i]) {
        i++;
    }
    return i == image->header.geometry.bat_entries;
}

/*
 * Whether the header is as a clean close leaves it. Where it is not, that need not be an error:
 * software that knows no extension takes HEADER_CLOSED_EXT for a mark, and follows an extension
 * that is void.
 */
static bool is_header_tidy(const struct repair *repair)
{
    const struct header *header = &repair->image->header;
    enum extension_state state = repair->check->extension.state;
    bool extended = state == EXTENSION_VALID || state == EXTENSION_UNUSABLE;
    bool empty = header->flags & HEADER_FLAG_EMPTY;

    return empty == maps_nothing(repair->image) &&
           (extended || repair->keeps_void ||
            (header->in_use == 0 && header->extension_sector == 0));
}

static bool has_work(const struct repair *repair)
{
    const uint64_t *counts = repair->check->counts;

    if (repair_wants(repair, PLOOP_REPAIR_ENTRIES) &&
        (bad_entries(repair->check) || counts[PLOOP_CHECK_EXTENSION] ||
         counts[PLOOP_CHECK_VOID_EXTENSION])) {
        return true;
    }
    if (mends_cut(repair)) {
        return true;
    }
    if (repair_wants(repair, PLOOP_REPAIR_LEAKS) &&
        (counts[PLOOP_CHECK_LEAK] || counts[PLOOP_CHECK_ENTRY_BEYOND])) {
        return true;
    }
    return repair_wants(repair, PLOOP_REPAIR_UNCLEAN) &&
           (counts[PLOOP_CHECK_EMPTY_FLAG] || (!is_header_tidy(repair) && !leaves_errors(repair)));
}

/*
 * What the extension will hold when the mark is cleared again. A bitmap does not tell of what a
 * repair does to a guest's clusters, so that none is kept where entries change.
 */
static int plan_extension(struct repair *repair)
{
    const struct extension *extension = &repair->check->extension;
    uint64_t size = repair->image->header.geometry.cluster_size;
    bool guest_sees = mends_cut(repair) ||
                      (repair_wants(repair, PLOOP_REPAIR_ENTRIES) && bad_entries(repair->check));

    if (extension->state != EXTENSION_VALID) {
        return 0;
    }
    repair->extension = aligned_alloc(SECTOR_SIZE, size);
    if (!repair->extension) {
        return -ENOMEM;
    }
    repair->extension_offset = repair->image->header.extension_sector * SECTOR_SIZE;
    if (extension_kept(extension, !guest_sees, repair->extension, size) == 0) {
        free(repair->extension);
        repair->extension = NULL;
    }
    return 0;
}

static int prepare(struct repair *repair)
{
    repair->buffer = aligned_alloc(BAT_PAGE_SIZE, REPAIR_BUFFER_SIZE);
    repair->found_page = aligned_alloc(BAT_PAGE_SIZE, BAT_PAGE_SIZE);
    if (!repair->buffer || !repair->found_page ||
        bitmap_init(&repair->dirty, geometry_page_count(&repair->image->header.geometry))) {
        return -ENOMEM;
    }
    return plan_extension(repair);
}

/*
 * The mark, durable, and with it everything that was found: what a dead process wrote may be in the
 * page cache only, and of pages that an earlier SYNC has failed on no other will say so.
 */
static int begin(struct repair *repair)
{
    struct header *header = &repair->image->header;
    uint64_t first_page = geometry_page_bytes(&header->geometry, 0);
    int error = image_file_read(repair->image, repair->found_page, first_page, 0);

    if (!error) {
        error = repair_sync(repair);
    }
    if (error) {
        return error;
    }
    header->in_use = HEADER_IN_USE;
    header->flags &= ~(uint32_t)HEADER_FLAG_EMPTY;
    if (repair->check->extension.state == EXTENSION_VOID && !repair->keeps_void) {
        header->extension_sector = 0;
    }
    for (uint64_t page = 0; page < (repair->was_clean ? 1 : repair->dirty.bits); page++) {
        bitmap_set(&repair->dirty, page);
    }
    repair->marked = true;
    error = repair_write_pages(repair);
    return error ? error : repair_sync(repair);
}

/* R19, before entries are judged again: from here on the cluster is like any other. */
static int make_whole(struct repair *repair)
{
    struct check *check = repair->check;
    const struct geometry *geometry = &repair->image->header.geometry;
    int error;

    if (!mends_cut(repair)) {
        return 0;
    }
    if (!(repair->image->capabilities & PLOOP_FILE_CAN_GROW)) {
        return -ENOSPC;
    }
    error = repair_truncate(repair, geometry_place_offset(geometry, check->good.cut_place + 1));
    if (error) {
        return error;
    }
    check->good = geometry_good_entries(geometry, repair->image->file_size);
    return repair_sync(repair);
}

/*
 * Nothing that counts was changed: the image can be as it was found. If that fails too, it is
 * marked, and whole.
 */
static void take_back(struct repair *repair)
{
    uint64_t first_page = geometry_page_bytes(&repair->image->header.geometry, 0);

    if (!repair->marked || repair->irrevocable || repair->sync_failed) {
        return;
    }
    if (repair->image->file_size != repair->found_size &&
        repair_truncate(repair, repair->found_size)) {
        return;
    }
    if (!repair_sync(repair) && !repair_write(repair, repair->found_page, first_page, 0)) {
        repair_sync(repair);
    }
}

static int write_extension(struct repair *repair)
{
    uint64_t size = repair->image->header.geometry.cluster_size;
    int error;

    repair_give_up_extension(repair);
    extension_seal(repair->extension, size);
    error = repair_write(repair, repair->extension, size, repair->extension_offset);
    return error ? error : repair_sync(repair);
}

/* The header as a clean close leaves it. */
static int finish(struct repair *repair)
{
    struct header *header = &repair->image->header;
    int error = repair->extension ? write_extension(repair) : 0;

    if (error) {
        return error;
    }
    if (!repair->was_clean && (!repair_wants(repair, PLOOP_REPAIR_UNCLEAN) ||
                               leaves_errors(repair) || repair->cancelled)) {
        return 0;
    }
    if (repair->extension) {
        header->extension_sector = repair->extension_offset / SECTOR_SIZE;
    } else if (!repair->unusable_extension && !repair->keeps_void) {
        header->extension_sector = 0;
    }
    header->in_use = repair->keeps_void         ? repair->found_in_use
                     : header->extension_sector ? HEADER_CLOSED_EXT
                                                : 0;
    header->flags |= maps_nothing(repair->image) ? HEADER_FLAG_EMPTY : 0u;
    bitmap_set(&repair->dirty, 0);
    return repair_publish(repair);
}

static void count_mended(struct repair *repair)
{
    struct check *check = repair->check;
    const uint64_t *counts = check->counts;
    bool entries = repair_wants(repair, PLOOP_REPAIR_ENTRIES);

    check->result.repaired = repair->leaks_mended + counts[PLOOP_CHECK_EMPTY_FLAG];
    check->result.repaired += entries ? bad_entries(check) : 0;
    check->result.repaired += mends_cut(repair) ? counts[PLOOP_CHECK_ENTRY_CUT] : 0;
    check->result.repaired += repair->unusable_extension ? 0 : counts[PLOOP_CHECK_EXTENSION];
    check->result.repaired +=
        repair_wants(repair, PLOOP_REPAIR_LEAKS) ? counts[PLOOP_CHECK_ENTRY_BEYOND] : 0;
    if (repair_wants(repair, PLOOP_REPAIR_UNCLEAN) && !leaves_errors(repair)) {
        check->result.repaired += counts[PLOOP_CHECK_UNCLEAN];
    }
}

static int carry_out(struct repair *repair)
{
    int error = begin(repair);

    if (!error) {
        error = make_whole(repair);
    }
    if (!error) {
        error = repair_entries(repair);
    }
    if (!error && !repair->cancelled && repair_wants(repair, PLOOP_REPAIR_LEAKS)) {
        error = repair_space(repair);
    }
    if (!error && repair->cancelled && !repair->irrevocable) {
        error = -ECANCELED;
    }
    if (!error) {
        error = finish(repair);
    }
    if (error) {
        take_back(repair);
        return error;
    }
    if (repair->cancelled) {
        return -ECANCELED;
    }
    count_mended(repair);
    return 0;
}

int repair_image(struct check *check)
{
    struct repair repair = {
        .check = check,
        .image = &check->image,
        .found_size = check->image.file_size,
        .found_in_use = check->image.header.in_use,
        .was_clean = check->image.header.in_use != HEADER_IN_USE,
        .unusable_extension = check->extension.state == EXTENSION_UNUSABLE &&
                              !(check->options.repair & PLOOP_REPAIR_ENTRIES),
    };
    int error;

    repair.keeps_void = check->extension.state == EXTENSION_VOID && check->extension.whole &&
                        repair.was_clean && !repair_wants(&repair, PLOOP_REPAIR_ENTRIES);
    if (check->read_error) {
        return check->read_error;
    }
    if (!has_work(&repair)) {
        return 0;
    }
    if (check->extension.unknown_necessary) {
        return -ENOTSUP;
    }
    error = prepare(&repair);
    if (!error) {
        error = carry_out(&repair);
    }
    free(repair.buffer);
    free(repair.found_page);
    free(repair.extension);
    bitmap_free(&repair.dirty);
    return error;
}
