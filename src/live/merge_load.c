/* SPDX-License-Identifier: MIT */
/*
 * The maps of two deltas below the top, read by a merge: first the source's, where it has one, into
 * an array, then the receiver's into its bat. A few pages at a time, in the turn.
 *
 * What was judged when the device was opened is judged again: image bytes are input. Nothing has
 * been changed yet.
 */
#include "engine/engine.h"
#include "live/merge.h"
#include "util/bytes.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const struct delta *loading(const struct merge *merge)
{
    return merge->reads_receiver ? merge->merging.to : merge->merging.from;
}

static int reject(const struct merge *merge, int error, const char *what)
{
    dev_log(merge->job.dev, PLOOP_LOG_ERROR, MERGE_MESSAGE_ID, "merge: delta %" PRIu32 ": %s",
            loading(merge)->level, what);
    return error;
}

static int take_header(struct merge *merge, const uint8_t *bytes)
{
    struct delta *to = merge->merging.to;
    const struct geometry *known = &to->geometry;
    char message[HEADER_MESSAGE_SIZE];
    struct header header;
    if (header_decode(bytes, HEADER_SIZE, to->channel.file_size, &header, message)) {
        return reject(merge, -EUCLEAN, message);
    }
    const struct geometry *now = &header.geometry;
    if (now->disk_size != known->disk_size || now->cluster_size != known->cluster_size ||
        now->bat_entries != known->bat_entries || now->data_start != known->data_start) {
        return reject(merge, -EUCLEAN, "its header has changed");
    }
    if (header.in_use == HEADER_IN_USE) {
        return reject(merge, -EUCLEAN, "not closed cleanly");
    }
    if (header.in_use == HEADER_CLOSED_EXT && header.extension_sector) {
        return reject(merge, -ENOTSUP, "a receiver must have no format extension");
    }
    header.extension_sector = 0; /* it counts for nothing */
    to->bat->header = header;
    return 0;
}

/* 0, or why the page cannot be trusted. */
static int take_page(struct merge *merge, uint32_t page, uint32_t *entries)
{
    const struct delta *delta = loading(merge);
    struct bat *bat = merge->merging.to->bat; /* NULL: the receiver is raw */
    uint32_t count = geometry_page_entries(&delta->geometry, page), mapped = 0;
    words_from_le32(entries, count);
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i] == 0) {
            continue;
        }
        mapped++;
        if (geometry_judge_entry(&delta->geometry, delta->channel.file_size, entries[i]) !=
                ENTRY_GOOD ||
            (merge->reads_receiver &&
             !alloc_claim(&bat->alloc, geometry_host(&bat->geometry, entries[i])))) {
            return reject(merge, -EUCLEAN, "an entry of its BAT has changed, and is no good");
        }
    }
    if (!merge->reads_receiver) {
        memcpy(merge->entries + geometry_page_first(page), entries, count * sizeof(*entries));
    } else if (mapped) {
        bat_set_loaded(bat, page, entries, mapped);
    }
    return 0;
}

/* All of them are there. */
static void end(struct merge *merge)
{
    if (merge->merging.to->is_raw) {
        merge_set_state(merge, MERGE_MARKING);
    } else if (!merge->reads_receiver) {
        merge->reads_receiver = true;
        merge->read = 0;
    } else {
        space_map_end_claims(&merge->merging.to->bat->alloc.map);
        merge_set_state(merge, MERGE_MARKING);
    }
}

static void was_read(struct channel_io *io, int result)
{
    struct merge *merge = container_of(io, struct merge, io);
    const struct geometry *geometry = &loading(merge)->geometry;
    uint32_t page = (uint32_t)(merge->read / BAT_PAGE_SIZE), pages = geometry_page_count(geometry);
    uint8_t *bytes = merge->iov.iov_base;
    merge->is_busy = false;
    if (!result && page == 0 && merge->reads_receiver) {
        result = take_header(merge, bytes);
    }
    for (uint32_t i = 0; i < IMAGE_PAGES && page + i < pages && !result; i++) {
        uint8_t *at = bytes + (size_t)i * BAT_PAGE_SIZE + (page + i == 0 ? HEADER_SIZE : 0);
        result = take_page(merge, page + i, (uint32_t *)(void *)at);
    }
    merge->read += merge->iov.iov_len;
    if (result) {
        merge_fail(merge, result);
    } else if (page + IMAGE_PAGES >= pages) {
        end(merge);
    }
    turn_again(&merge->job.dev->turn);
}

void merge_load(struct merge *merge)
{
    struct delta *to = merge->merging.to;
    const struct delta *delta = loading(merge);
    if (!merge->reads_receiver && !merge->entries) {
        merge->reads_receiver = true;
        delta = to;
    }
    if (merge->reads_receiver && merge->read == 0) {
        /* As the call that opened it for writing found it. */
        to->channel.file_size = to->channel.file_end = to->bat->alloc.work.file_size;
    }
    uint64_t left = geometry_bat_bytes(&delta->geometry) - merge->read;
    uint64_t most = (uint64_t)IMAGE_PAGES * BAT_PAGE_SIZE;
    left = (left + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    /* Nothing is written from the images before the mark is. */
    merge->iov = (struct iovec){merge->buffer ? merge->buffer : to->bat->images[0].bytes,
                                (size_t)(left < most ? left : most)};
    merge->is_busy = true;
    channel_io_init(&merge->io,
                    merge->reads_receiver ? &to->channel : &merge->merging.from->channel);
    channel_transfer(&merge->io, PLOOP_IO_READ, 0,
                     (struct iov_cursor){.iov = &merge->iov, .count = 1}, merge->read,
                     merge->iov.iov_len, was_read);
}
