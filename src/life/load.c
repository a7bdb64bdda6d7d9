/* SPDX-License-Identifier: MIT */
/*
 * What load.h says. Nothing is allocated by a count from the header before it was held against the
 * file and the limit.
 */
#include "life/load.h"

#include "image/bat_load.h"
#include "image/bat_run.h"
#include "image/extension_load.h"
#include "util/bytes.h"
#include "util/error_text.h"
#include "util/zeros.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void load_log(const struct load *load, uint32_t level, const char *format, ...)
{
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (stack_count(&load->dev->stack) > 1) {
        dev_log(load->dev, level, PLOOP_MESSAGE_IMAGE, "delta %" PRIu32 ": %s", load->level, text);
    } else {
        dev_log(load->dev, level, PLOOP_MESSAGE_IMAGE, "%s", text);
    }
}

int load_info(struct load *load)
{
    ploop_dev *dev = load->dev;
    struct ploop_file_info *info = &load->info;
    *info = (struct ploop_file_info){.size = sizeof(*info)};
    int error = ploop_file_info(load->file, info);
    if (error) {
        return error;
    }
    if (info->max_transfer && info->max_transfer < SECTOR_SIZE) {
        load_log(load, PLOOP_LOG_ERROR, "max_transfer %" PRIu64 ": less than a sector",
                 info->max_transfer);
        return -ENOTSUP;
    }
    uint32_t alignment = info->request_alignment;
    if (alignment > BOUNCE_SIZE) {
        load_log(load, PLOOP_LOG_ERROR,
                 "request_alignment %" PRIu32 ": this version takes up to %d", alignment,
                 BOUNCE_SIZE);
        return -ENOTSUP;
    }
    if (alignment <= SECTOR_SIZE && alignment > dev->memory_alignment) {
        dev->memory_alignment = alignment;
    }
    alignment = alignment < BOUNCE_MEMORY_ALIGN ? alignment : BOUNCE_MEMORY_ALIGN;
    if (alignment > dev->fast_alignment) {
        dev->fast_alignment = alignment;
    }
    return info->request_alignment > SECTOR_SIZE ? bounces_init(&dev->bounces) : 0;
}

static int read_header(struct load *load)
{
    ploop_dev *dev = load->dev;
    struct header *header = &load->header;
    uint8_t bytes[HEADER_SIZE];
    char message[HEADER_MESSAGE_SIZE];
    int64_t got = ploop_file_pread(load->file, bytes, sizeof(bytes), 0);
    if (got < 0) {
        return (int)got;
    }
    int error = header_decode(bytes, (size_t)got, load->info.file_size, header, message);
    if (error) {
        load_log(load, PLOOP_LOG_ERROR, "%s", message);
        return error;
    }
    uint64_t limit =
        dev->config.bat_limit_bytes ? dev->config.bat_limit_bytes : PLOOP_BAT_LIMIT_DEFAULT;
    if ((uint64_t)header->geometry.bat_entries * 4 > limit) {
        load_log(load, PLOOP_LOG_ERROR,
                 "bat_entries %" PRIu32 ": the BAT needs more memory than %" PRIu64 " bytes",
                 header->geometry.bat_entries, limit);
        return -EFBIG;
    }
    if (dev->read_only || header->in_use != HEADER_IN_USE) {
        return 0;
    }
    if (!(dev->config.flags & PLOOP_DEV_RECOVER)) {
        load_log(load, PLOOP_LOG_ERROR,
                 "in_use 0x%08" PRIx32 ": open elsewhere or not closed cleanly; needs recovery",
                 header->in_use);
        return -EUCLEAN;
    }
    return 0;
}

/* R11: the cache, the mark in it included, may show what the disk has lost, or never had. */
static int drop_cache(const struct load *load)
{
    int sync_error, error = file_drop_cache(load->file, &sync_error);
    if (sync_error) {
        load_log(load, PLOOP_LOG_WARNING, "recovery: SYNC reports lost writes: %s",
                 ERROR_TEXT(sync_error));
    }
    if (error == -ENOTSUP && !sync_error) {
        load_log(load, PLOOP_LOG_WARNING,
                 "recovery: the backend cannot drop its cache, which may show data that the disk "
                 "has lost");
        return 0;
    }
    if (!error) {
        return 0;
    }
    bool goes_on = load->dev->config.flags & PLOOP_DEV_RECOVER_CACHED;
    load_log(load, goes_on ? PLOOP_LOG_WARNING : PLOOP_LOG_ERROR,
             "recovery: the file's cache cannot be dropped: %s; it may show data that the disk has "
             "lost",
             ERROR_TEXT(error));
    return goes_on ? 0 : error == -ENOTSUP ? sync_error : error;
}

int load_header(struct load *load)
{
    int error = read_header(load);
    if (error || load->dev->read_only || load->dev->is_inside ||
        load->header.in_use != HEADER_IN_USE) {
        return error;
    }
    error = drop_cache(load);
    error = error ? error : load_info(load);
    return error ? error : read_header(load);
}

static const char *const VERDICTS[] = {
    [ENTRY_BEFORE_DATA] = "before the data area",
    [ENTRY_OFF_GRID] = "off the cluster grid",
    [ENTRY_PAST_END] = "past the end of the file",
};

/* For the top all that is known of its host clusters; for a lower delta who owns them. */
static struct space_map *space_of(const struct load *load)
{
    return load->entries ? load->space : &dev_bat(load->dev)->alloc.map;
}

static void set_page(const struct load *load, uint32_t page, const uint32_t *entries,
                     uint32_t mapped)
{
    const struct geometry *geometry = &load->header.geometry;
    if (load->entries) {
        memcpy(load->entries + geometry_page_first(page), entries,
               geometry_page_entries(geometry, page) * sizeof(*entries));
    } else {
        bat_set_loaded(dev_bat(load->dev), page, entries, mapped);
    }
}

static void set_bad(const struct load *load, struct guest_cluster guest)
{
    assert(guest.n < load->header.geometry.bat_entries && load->dev->read_only);
    if (load->entries) {
        load->entries[guest.n] = BAT_ENTRY_BAD;
    } else {
        bat_set_bad(dev_bat(load->dev), guest);
    }
}

static uint32_t get_entry(const struct load *load, struct guest_cluster guest)
{
    assert(guest.n < load->header.geometry.bat_entries);
    return load->entries ? load->entries[guest.n] : bat_entry(dev_bat(load->dev), guest);
}

/* Whether they are all good, and no other guest cluster's; then they are these guest clusters'. */
static bool take_run(const struct load *load, const uint32_t *run, uint32_t length)
{
    const struct good_entries *good = &load->good;
    return bat_run_is_good(good, run, length) &&
           space_map_claim(space_of(load),
                           (struct space_run){good_entries_host(good, run[0]), length});
}

/* How many bytes of the cut-off cluster the file has. */
static uint64_t cut_bytes(const struct load *load)
{
    const struct geometry *geometry = &load->header.geometry;
    return load->info.file_size - geometry_place_offset(geometry, load->good.cut_place);
}

/* R19: the first entry that names it owns it. 0, or -EUCLEAN where it cannot be made whole. */
static int take_cut(struct load *load, struct guest_cluster guest, uint32_t entry)
{
    bool recovers = load->dev->config.flags & PLOOP_DEV_RECOVER;
    bool grows = load->info.capabilities & PLOOP_FILE_CAN_GROW;
    load->has_cut = true;
    load->cut = guest;
    if (load->dev->read_only || (recovers && grows)) {
        return 0;
    }
    load_log(load, PLOOP_LOG_ERROR,
             "BAT[%" PRIu32 "]=%" PRIu32 ": cut off: %" PRIu64 " of %" PRIu64
             " bytes are in the file; %s",
             guest.n, entry, cut_bytes(load), load->header.geometry.cluster_size,
             recovers ? "and the file cannot grow" : "needs recovery");
    return -EUCLEAN;
}

/* What take_run() refused, and why. 0, or -EUCLEAN where the image cannot be written. */
static int mark_bad(const struct load *load, struct guest_cluster guest, uint32_t *entry)
{
    enum entry_verdict verdict =
        geometry_judge_entry(&load->header.geometry, load->info.file_size, *entry);
    const char *fault = verdict == ENTRY_GOOD || verdict == ENTRY_CUT ? "another guest cluster's"
                                                                      : VERDICTS[verdict];
    if (!load->dev->read_only) {
        load_log(load, PLOOP_LOG_ERROR, "BAT[%" PRIu32 "]=%" PRIu32 ": %s", guest.n, *entry, fault);
        return -EUCLEAN;
    }
    *entry = BAT_ENTRY_BAD;
    return 0;
}

/* A run that is not 0. All of it is taken at once or, where something is wrong, one by one. */
static int load_run(struct load *load, struct guest_cluster guest, uint32_t *run, uint32_t length,
                    uint32_t *mapped)
{
    if (take_run(load, run, length)) {
        *mapped += length;
        return 0;
    }
    int error = 0;
    for (uint32_t i = 0; i < length && !error; i++) {
        if (run[i] == 0) {
            continue; /* a sum wrapped around to it */
        }
        if (take_run(load, &run[i], 1)) {
            ++*mapped;
        } else if (run[i] == load->good.cut && !load->has_cut) {
            error = take_cut(load, (struct guest_cluster){guest.n + i}, run[i]);
            ++*mapped;
        } else {
            error = mark_bad(load, (struct guest_cluster){guest.n + i}, &run[i]);
        }
    }
    return error;
}

static int load_page(void *context, uint32_t page, uint8_t *bytes)
{
    struct load *load = context;
    uint32_t first = geometry_page_first(page), mapped = 0;
    uint32_t count = geometry_page_entries(&load->header.geometry, page);
    uint32_t *entries = (uint32_t *)(void *)(bytes + (page == 0 ? HEADER_SIZE : 0));
    bool is_empty = true;
    int error = 0;
    assert(first + count <= load->header.geometry.bat_entries);
    words_from_le32(entries, count);
    for (uint32_t i = 0, length; i < count && !error; i += length) {
        length = bat_run_length(entries + i, count - i, load->good.step);
        if (entries[i]) {
            is_empty = false;
            error = load_run(load, (struct guest_cluster){first + i}, entries + i, length, &mapped);
        }
    }
    if (!error && !is_empty) {
        set_page(load, page, entries, mapped);
    }
    return error;
}

/* Read-only every entry of the page is bad; for writing the image is refused. */
static int page_unreadable(void *context, uint32_t page, int error)
{
    const struct load *load = context;
    uint32_t first = geometry_page_first(page);
    uint32_t entries = geometry_page_entries(&load->header.geometry, page);
    bool read_only = load->dev->read_only;
    assert(error < 0 && first + entries <= load->header.geometry.bat_entries);
    load_log(load, read_only ? PLOOP_LOG_WARNING : PLOOP_LOG_ERROR,
             "BAT page %" PRIu32 " cannot be read: %s", page, ERROR_TEXT(error));
    for (uint32_t i = 0; i < entries && read_only; i++) {
        set_bad(load, (struct guest_cluster){first + i});
    }
    return read_only ? 0 : error;
}

static bool names_a_cluster(uint32_t entry)
{
    return entry != 0 && entry != BAT_ENTRY_BAD;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/*
 * Duplicates where not every host cluster has a bit, because the file is so large (space_map.h):
 * sort the entries, each with its guest cluster behind it, so that the first of equals is the
 * owner.
 */
static int sort_out_duplicates(const struct load *load)
{
    uint32_t entries = load->header.geometry.bat_entries;
    size_t count = 0;
    for (uint32_t n = 0; n < entries; n++) {
        count += names_a_cluster(get_entry(load, (struct guest_cluster){n}));
    }
    uint64_t *sorted = malloc((count + 1) * sizeof(*sorted));
    if (!sorted) {
        return -ENOMEM;
    }
    count = 0;
    for (uint32_t n = 0; n < entries; n++) {
        uint32_t entry = get_entry(load, (struct guest_cluster){n});
        if (names_a_cluster(entry)) {
            sorted[count++] = (uint64_t)entry << 32 | n;
        }
    }
    qsort(sorted, count, sizeof(*sorted), compare_numbers);
    int error = 0;
    for (size_t i = 1; i < count && !error; i++) {
        if (sorted[i] >> 32 != sorted[i - 1] >> 32) {
            continue;
        }
        uint32_t n = (uint32_t)sorted[i];
        if (load->dev->read_only) {
            set_bad(load, (struct guest_cluster){n});
        } else {
            load_log(load, PLOOP_LOG_ERROR, "BAT[%" PRIu32 "]=%" PRIu32 ": another guest cluster's",
                     n, (uint32_t)(sorted[i] >> 32));
            error = -EUCLEAN;
        }
    }
    free(sorted);
    return error;
}

/* Whoever looks at the log is to see that a session ended badly, and what that left. */
static void tell_recovery(const struct load *load)
{
    bool is_recovery = load->header.in_use == HEADER_IN_USE && !load->dev->read_only;
    if (is_recovery && !load->entries && !load->dev->is_inside) {
        load_log(load, PLOOP_LOG_WARNING,
                 "not closed cleanly: recovering; %" PRIu64
                 " clusters that nothing refers to are free again",
                 space_map_count(space_of(load), FREE_UNKNOWN));
    }
}

int load_bat(struct load *load)
{
    const struct bat_load read = {.file = load->file,
                                  .geometry = &load->header.geometry,
                                  .page = load_page,
                                  .unreadable = page_unreadable,
                                  .context = load};
    load->good = geometry_good_entries(&load->header.geometry, load->info.file_size);
    int error = bat_load(&read);
    space_map_end_claims(space_of(load));
    if (!error && !space_map_is_whole(space_of(load))) {
        error = sort_out_duplicates(load);
    }
    if (!error) {
        tell_recovery(load);
    }
    return error;
}

/* Under R18 a hole may come to show what its blocks held. */
static int write_zeros(const struct load *load, uint64_t from, uint64_t end)
{
    int64_t error = 0;
    for (uint64_t at = from; at < end && error >= 0;) {
        uint64_t length = end - at < ZEROS_SIZE ? end - at : ZEROS_SIZE;
        error = file_sync_io(load->file, PLOOP_IO_WRITE, zeros_block(), length, at);
        at += length;
    }
    return error < 0 ? (int)error : 0;
}

int load_make_whole(const struct load *load)
{
    ploop_dev *dev = load->dev;
    struct channel *channel = &dev_top(dev)->channel;
    const struct geometry *geometry = &load->header.geometry;
    uint64_t from = load->info.file_size, block = channel->block;
    if (!load->has_cut || dev->read_only) {
        return 0;
    }
    uint64_t end = geometry_place_offset(geometry, load->good.cut_place + 1);
    uint64_t size = (end + block - 1) / block * block;
    int error = (int)file_sync_io(load->file, PLOOP_IO_TRUNCATE, NULL, 0, size);
    if (!error && dev->config.flags & PLOOP_DEV_HOST_SHOWS_STALE) {
        error = write_zeros(load, from, end);
    }
    if (error) {
        load_log(load, PLOOP_LOG_ERROR,
                 "recovery: guest cluster %" PRIu32
                 " is cut off, and the file cannot be made longer: %s",
                 load->cut.n, ERROR_TEXT(error));
        return error;
    }
    load_log(load, PLOOP_LOG_WARNING,
             "recovery: guest cluster %" PRIu32 " was cut off: of its %" PRIu64 " bytes %" PRIu64
             " were missing, and are zeros now",
             load->cut.n, geometry->cluster_size, end - from);
    dev_note_change(dev);
    channel->file_end = channel->file_size = size;
    space_own_tail(&dev_bat(dev)->alloc.work, size);
    return 0;
}

static uint32_t entry_of(const void *context, uint32_t guest)
{
    return bat_entry(context, (struct guest_cluster){guest});
}

int load_extension(ploop_dev *dev, uint64_t file_size)
{
    char message[HEADER_MESSAGE_SIZE];
    struct extension extension;
    int error = extension_load(&extension, dev_top(dev)->file, &dev_bat(dev)->header, file_size,
                               (struct entry_source){entry_of, dev_bat(dev)});
    if (error) {
        return error;
    }
    error = extension_writable(&extension, message);
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_IMAGE, "%s", message);
    } else {
        error = extension_keep_plan(dev, &extension);
    }
    extension_free(&extension);
    return error;
}
