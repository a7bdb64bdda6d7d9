/* SPDX-License-Identifier: MIT */
/*
 * ploop_image_check(): the findings, in the order of the file: the header, the BAT, the extension,
 * the space.
 */
#include "ops/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "image/bat_run.h"
#include "ops/repair.h"
#include "util/error_text.h"
#include "util/sized.h"

/*
 * Over the BAT, as progress counts them: loaded, looked for duplicates, for leaks; repaired:
 * duplicates copied, clusters moved.
 */
enum { TEXT_SIZE = 256, PASSES = 3, REPAIR_PASSES = 2 };

enum {
    REPAIRS = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES | PLOOP_REPAIR_CUT
};

/* The repair that mends each kind; 0: none does. */
static const uint32_t repairs[CHECK_KINDS] = {
    [PLOOP_CHECK_UNCLEAN] = PLOOP_REPAIR_UNCLEAN,
    [PLOOP_CHECK_EMPTY_FLAG] = PLOOP_REPAIR_UNCLEAN,
    [PLOOP_CHECK_ENTRY_RANGE] = PLOOP_REPAIR_ENTRIES,
    [PLOOP_CHECK_ENTRY_GRID] = PLOOP_REPAIR_ENTRIES,
    [PLOOP_CHECK_ENTRY_DUPLICATE] = PLOOP_REPAIR_ENTRIES,
    [PLOOP_CHECK_ENTRY_BEYOND] = PLOOP_REPAIR_LEAKS,
    [PLOOP_CHECK_LEAK] = PLOOP_REPAIR_LEAKS,
    [PLOOP_CHECK_EXTENSION] = PLOOP_REPAIR_ENTRIES,
    [PLOOP_CHECK_ENTRY_CUT] = PLOOP_REPAIR_CUT,
    [PLOOP_CHECK_VOID_EXTENSION] = PLOOP_REPAIR_ENTRIES,
};

void check_report(struct check *check, uint32_t kind, uint64_t guest_cluster, uint64_t host_offset,
                  uint64_t count, const char *format, ...)
{
    const struct ploop_check_record record = {
        .size = sizeof(record),
        .kind = kind,
        .repair = repairs[kind],
        .guest_cluster = guest_cluster,
        .host_offset = host_offset,
        .count = count,
    };

    check->counts[kind]++;
    if (kind == PLOOP_CHECK_LEAK || kind == PLOOP_CHECK_ENTRY_BEYOND) {
        check->result.leaks += count;
    } else if (kind == PLOOP_CHECK_IN_USE_VALUE || kind == PLOOP_CHECK_VOID_EXTENSION) {
        check->result.notes++;
    } else {
        check->result.errors++;
    }
    if (check->options.record) {
        char text[TEXT_SIZE];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        check->options.record(check->options.user_data, &record, text);
    }
}

int check_progress(struct check *check, uint64_t entries_done)
{
    uint64_t passes = PASSES + (check->options.repair ? REPAIR_PASSES : 0);
    uint64_t total = passes * check->image.header.geometry.bat_entries;

    if (!check->options.progress) {
        return 0;
    }
    return check->options.progress(check->options.user_data, check->progress_base + entries_done,
                                   total);
}

enum { PROGRESS_PAGES = 256 };

static int loading(void *user_data, uint64_t entries_done)
{
    uint32_t page = geometry_page_of((struct guest_cluster){(uint32_t)entries_done});
    bool tells = page % PROGRESS_PAGES == 0;
    return tells && check_progress(user_data, entries_done) ? -ECANCELED : 0;
}

static void note_read_error(struct check *check, int error)
{
    check->read_error = check->read_error ? check->read_error : error;
}

static void unreadable(void *user_data, uint32_t first_entry, uint32_t count, int error)
{
    note_read_error(user_data, error);
    check_report(user_data, PLOOP_CHECK_READ, first_entry, UINT64_MAX, 1,
                 "BAT[%" PRIu32 "] to BAT[%" PRIu64 "] cannot be read: %s", first_entry,
                 (uint64_t)first_entry + count - 1, ERROR_TEXT(error));
}

static void check_header_fields(struct check *check)
{
    uint32_t in_use = check->image.header.in_use;

    if (in_use == HEADER_IN_USE) {
        check_report(check, PLOOP_CHECK_UNCLEAN, UINT64_MAX, UINT64_MAX, 1,
                     "in_use 0x%08" PRIx32 ": open for writing, or not closed cleanly", in_use);
    } else if (in_use != 0 && in_use != HEADER_CLOSED_EXT) {
        check_report(check, PLOOP_CHECK_IN_USE_VALUE, UINT64_MAX, UINT64_MAX, 1,
                     "in_use 0x%08" PRIx32 ": closed by other software", in_use);
    }
}

/* An entry that names a cluster, the first one to do so. */
static void check_owner(struct check *check, uint32_t index, uint32_t guest_clusters, bool is_cut)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint32_t entry = check->image.entries[index];
    uint64_t offset = geometry_entry_offset(geometry, entry);

    check->owners++;
    check->result.mapped += index < guest_clusters;
    if (is_cut) {
        check_report(check, PLOOP_CHECK_ENTRY_CUT, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": cut off: %" PRIu64 " of %" PRIu64
                     " bytes are in the file",
                     index, entry, check->image.file_size - offset, geometry->cluster_size);
    } else if (index >= guest_clusters) {
        check_report(check, PLOOP_CHECK_ENTRY_BEYOND, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": beyond the disk's end", index, entry);
    }
}

static void check_entry(struct check *check, uint32_t index, uint32_t guest_clusters)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint32_t entry = check->image.entries[index];
    uint64_t offset = geometry_entry_offset(geometry, entry);

    enum entry_verdict verdict = geometry_judge_entry(geometry, check->image.file_size, entry);

    switch (verdict) {
    case ENTRY_BEFORE_DATA:
        check_report(check, PLOOP_CHECK_ENTRY_RANGE, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": before the data area", index, entry);
        return;
    case ENTRY_PAST_END:
        check_report(check, PLOOP_CHECK_ENTRY_RANGE, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": past the end of the file", index, entry);
        return;
    case ENTRY_OFF_GRID:
        check_report(check, PLOOP_CHECK_ENTRY_GRID, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": off the cluster grid", index, entry);
        return;
    case ENTRY_GOOD:
    case ENTRY_CUT:
        break;
    }
    if (bitmap_test(&check->duplicates, index)) {
        check_report(check, PLOOP_CHECK_ENTRY_DUPLICATE, index, offset, 1,
                     "BAT[%" PRIu32 "] = %" PRIu32 ": another guest cluster's host cluster", index,
                     entry);
        return;
    }
    check_owner(check, index, guest_clusters, verdict == ENTRY_CUT);
}

uint32_t check_run(const struct check *check, uint32_t index)
{
    uint32_t left = check->image.header.geometry.bat_entries - index;
    uint32_t block = CHECK_BLOCK - index % CHECK_BLOCK;

    return bat_run_length(check->image.entries + index, left < block ? left : block,
                          check->good.step);
}

/* A run with nothing to report is counted at once. */
static bool count_run(struct check *check, uint32_t index, uint32_t length, uint32_t guest_clusters)
{
    uint32_t end = index + length;

    if (end > guest_clusters ||
        !bat_run_is_good(&check->good, check->image.entries + index, length) ||
        (check->duplicate_count && bitmap_next_set(&check->duplicates, index, end) < end)) {
        return false;
    }
    check->owners += length;
    check->result.mapped += length;
    return true;
}

static void check_entries(struct check *check)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint32_t guest_clusters = geometry_guest_clusters(geometry);
    const uint32_t *entries = check->image.entries;

    for (uint32_t i = 0, length; i < geometry->bat_entries; i += length) {
        length = check_run(check, i);
        if (!entries[i] || count_run(check, i, length, guest_clusters)) {
            continue;
        }
        for (uint32_t j = i; j < i + length; j++) {
            if (entries[j]) { /* of a run of entries past the highest number, the next one is 0 */
                check_entry(check, j, guest_clusters);
            }
        }
    }
    if (check->image.header.flags & HEADER_FLAG_EMPTY && check->owners) {
        check_report(check, PLOOP_CHECK_EMPTY_FLAG, UINT64_MAX, UINT64_MAX, 1,
                     "flags 0x%08" PRIx32 ": Empty is set, and %" PRIu64 " clusters are mapped",
                     check->image.header.flags, check->owners);
    }
}

static uint32_t entry_of_image(const void *context, uint32_t guest_cluster)
{
    const struct image_file *image = context;

    return image->entries[guest_cluster];
}

static void check_extension(struct check *check)
{
    const struct extension *extension = &check->extension;
    uint64_t sector = check->image.header.extension_sector;
    uint64_t offset = sector > UINT64_MAX / SECTOR_SIZE ? UINT64_MAX : sector * SECTOR_SIZE;

    if (extension->state == EXTENSION_VOID && extension->whole) {
        check_report(check, PLOOP_CHECK_VOID_EXTENSION, UINT64_MAX, offset, 1,
                     "ext_off %" PRIu64 ": void extension, %" PRIu32
                     " bitmaps, by software that does not mark it",
                     sector, extension->bitmap_count);
    }
    if (extension->state == EXTENSION_UNUSABLE) {
        uint32_t kind = extension->read_error ? PLOOP_CHECK_READ : PLOOP_CHECK_EXTENSION;
        note_read_error(check, extension->read_error);
        check_report(check, kind, UINT64_MAX, offset, 1,
                     "ext_off %" PRIu64 ": format extension: %s %" PRIu64, sector,
                     extension->fault.what, extension->fault.value);
    }
    for (uint32_t i = 0; i < extension->bitmap_count && extension->state == EXTENSION_VALID; i++) {
        const struct extension_fault *fault = &extension->bitmaps[i].fault;

        if (fault->what) {
            check_report(check, PLOOP_CHECK_EXTENSION, UINT64_MAX, offset, 1,
                         "ext_off %" PRIu64 ": dirty bitmap %" PRIu32
                         " of the format extension: %s %" PRIu64,
                         sector, i, fault->what, fault->value);
        }
    }
}

/* Errors that opening for writing, with RECOVER, puts right by itself: all others forbid it. */
static bool is_recoverable(const struct check *check)
{
    char message[HEADER_MESSAGE_SIZE];
    uint64_t harmless = check->counts[PLOOP_CHECK_UNCLEAN] + check->counts[PLOOP_CHECK_EMPTY_FLAG];

    if (!image_file_is_fixed(&check->image)) { /* read-only a file does not say that it grows */
        harmless += check->counts[PLOOP_CHECK_ENTRY_CUT];
    }
    if (extension_writable(&check->extension, message)) {
        return false;
    }
    return check->result.errors == harmless + check->counts[PLOOP_CHECK_EXTENSION];
}

/* All findings. */
static int find(struct check *check)
{
    const struct entry_source entries = {entry_of_image, &check->image};
    const struct image_file_load load = {check->options.bat_limit_bytes, loading, unreadable,
                                         check};
    uint32_t bat_entries = check->image.header.geometry.bat_entries;
    int error;

    check_header_fields(check);
    check->good = geometry_good_entries(&check->image.header.geometry, check->image.file_size);
    error = image_file_load_bat(&check->image, &load);
    if (!error) {
        error = bitmap_init(&check->duplicates, bat_entries);
    }
    if (!error) {
        check->progress_base = bat_entries;
        error = check_duplicates(check);
    }
    if (!error) {
        check_entries(check);
        error = extension_load(&check->extension, check->image.file, &check->image.header,
                               check->image.file_size, entries);
    }
    if (!error) {
        check_extension(check);
        check->progress_base = (uint64_t)2 * bat_entries;
    }
    bool is_known = !check->counts[PLOOP_CHECK_READ]; /* else everything unread looks like a leak */
    if (!error && is_known && !image_file_is_fixed(&check->image)) {
        error = check_leaks(check);
    }
    if (!error) {
        check->progress_base = (uint64_t)PASSES * bat_entries;
        error = check_progress(check, 0) ? -ECANCELED : 0;
    }
    check->result.recoverable = !error && is_recoverable(check);
    return error;
}

static int check_file(struct check *check, ploop_file *file)
{
    char message[HEADER_MESSAGE_SIZE];
    int error = image_file_open(&check->image, file, message);

    if (error == -EUCLEAN) {
        check_report(check, PLOOP_CHECK_HEADER, UINT64_MAX, UINT64_MAX, 1, "%s", message);
    }
    if (error) {
        return error;
    }
    error = find(check);
    if (!error && check->options.repair) {
        error = repair_image(check);
        check->progress_base =
            (uint64_t)(PASSES + REPAIR_PASSES) * check->image.header.geometry.bat_entries;
        error = error ? error : check_progress(check, 0) ? -ECANCELED : 0;
    }
    extension_free(&check->extension);
    bitmap_free(&check->duplicates);
    bitmap_free(&check->used.used);
    image_file_close(&check->image);
    return error;
}

/* R11: a repair trusts only what the storage has. */
static int drop_cache(const struct check *check, ploop_file *file)
{
    int sync_error, error = file_drop_cache(file, &sync_error);

    if (!error || check->options.repair & PLOOP_REPAIR_CACHED) {
        return 0;
    }
    return error == -ENOTSUP ? sync_error : error;
}

static int check_for_repair(struct check *check, ploop_file *file)
{
    int error = file_claim(file, FILE_ALONE);

    if (error) {
        return error;
    }
    error = drop_cache(check, file);
    if (!error) {
        error = check_file(check, file);
    }
    file_give_back(file, FILE_ALONE);
    return error;
}

int ploop_image_check(ploop_file *file, const struct ploop_check_options *options,
                      struct ploop_check_result *result)
{
    struct check check = {0};
    int error = options ? sized_in(&check.options, sizeof(check.options),
                                   offsetof(struct ploop_check_options, reserved2), options)
                        : 0;

    if (error) {
        return error;
    }
    if (!file || sized_out_check(result, offsetof(struct ploop_check_result, reserved)) ||
        check.options.reserved1 ||
        check.options.repair & ~(uint32_t)(REPAIRS | PLOOP_REPAIR_CACHED) ||
        check.options.repair == PLOOP_REPAIR_CACHED) {
        return -EINVAL;
    }
    if (!check.options.bat_limit_bytes) {
        check.options.bat_limit_bytes = PLOOP_BAT_LIMIT_DEFAULT;
    }
    error = check.options.repair ? check_for_repair(&check, file) : check_file(&check, file);
    sized_out(result, &check.result, sizeof(check.result));
    return error;
}
