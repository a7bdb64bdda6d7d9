/* SPDX-License-Identifier: MIT */
/*
 * The format extension of an image that is opened for writing.
 *
 * A feature that this library does not know is to be dropped, or (TRANSIT) to be kept as it is; a
 * dirty bitmap is dropped, because this library does not keep it current. What the header on the
 * disk says of it, as in_use and ext_off (C: closed by software that knows the extension, M: the
 * in-use mark, E: the extension that was found, N: a new one that holds only what is kept):
 *
 *     the extension holds             found     marked    open      changed, closed
 *     nothing, or is void             0|C|M,*   M,0       M,0       0,0
 *     only what is to be dropped      C,E       M,0       M,0       0,0
 *     only what is to be kept         C,E       M,E       M,E       C,E
 *     both                            C,E       M,0       M,N       C,N
 *
 * Where nothing changed until the close (R11), the first three go back to what was found. So what
 * is to be dropped, and a void extension that is whole, is gone with the first change only; until
 * then nothing in the file is handed out, punched or cut off.
 *
 * In the last case (which counts as a change), after M,0 is durable and before open returns:
 *
 *     a cluster taken -> N written there, whole -> SYNC -> page 0 says M,N -> SYNC -> E's clusters
 *     are free -> open any of it fails -> page 0 says M,0 again -> the steps of a close, the last
 *     of which says C,E -> open fails, nothing is lost
 *
 *  1. E is whole, its bitmaps too, for as long as page 0 on the disk leads to it or may yet be made
 *     to: its clusters are claimed when the image is read and given back when M,N is durable. E is
 *     never written to.
 *  2. N's bytes are durable before page 0 leads to N, and N's cluster is taken for as long as the
 *     device lives.
 *  3. No guest writes before M,N is durable, so that C,E says the truth where a failed open goes
 *     back to it.
 *
 * So a power cut shows E, or a mark. With the mark the extension is void for this library, whatever
 * ext_off says, and RECOVER drops it; for software that does not look at the mark (QEMU, reading)
 * ext_off leads nowhere, or to an extension that is whole and has no bitmap: a bitmap that is stale
 * is never seen.
 */
#include "life/life.h"
#include "life/mark.h"
#include "util/error_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- the plan ---- */

/* A host cluster past what an entry can name is never handed out, so it needs no claim. */
static void claim_clusters(ploop_dev *dev, const struct extension *extension,
                           struct extension_keep *keep)
{
    const struct geometry *geometry = &dev_top(dev)->geometry;
    for (uint64_t i = 0; i < extension->owned_count; i++) {
        uint64_t n = geometry_place_at(geometry, extension->owned[i]);
        struct host_cluster host = {(uint32_t)n};
        if (n < dev_bat(dev)->alloc.map.file_end && alloc_claim(&dev_bat(dev)->alloc, host) &&
            keep->old) {
            keep->old[keep->old_count++] = host;
        }
    }
}

/* ---- until the first change ---- */

static void look_for_change(struct dev_watch *watch)
{
    struct extension_keep *keep = container_of(watch, struct extension_keep, watch);
    ploop_dev *dev = keep->dev;
    if (!atomic_load(&dev->changed)) {
        return;
    }
    list_remove(&watch->link);
    dev_log(dev, PLOOP_LOG_WARNING, PLOOP_MESSAGE_EXTENSION,
            "format extension dropped, with %" PRIu32
            " dirty bitmaps: the image is changed, and this library does not keep them current",
            keep->bitmaps);
    if (keep->bitmaps) {
        dev_event(dev, PLOOP_EVENT_BITMAPS_DROPPED, keep->bitmaps);
    }
}

/* Nothing of it is handed out, punched or cut off before a change: it needs no claims. */
static void watch_for_change(ploop_dev *dev, const struct extension *extension)
{
    struct extension_keep *keep = dev->extension;
    keep->bitmaps = extension->bitmap_count;
    keep->dev = dev;
    keep->watch.look = look_for_change;
    list_append(&dev->watches, &keep->watch.link);
}

/* ---- what outlives the session ---- */

static bool has_bad_bitmap(const struct extension *extension)
{
    uint32_t i = 0;
    while (i < extension->bitmap_count && !extension->bitmaps[i].fault.what) {
        i++;
    }
    return i < extension->bitmap_count;
}

int extension_keep_plan(ploop_dev *dev, const struct extension *extension)
{
    struct extension_keep *keep = dev->extension;
    uint64_t size = dev_disk(dev)->cluster_size;
    bool is_void = extension->state == EXTENSION_VOID;
    keep->is_faulty = !is_void && has_bad_bitmap(extension);
    if (is_void ? !extension->whole || dev_bat(dev)->header.in_use == HEADER_IN_USE
                : extension->state != EXTENSION_VALID ||
                      (keep->is_faulty && !extension->unknown_transit)) {
        return 0;
    }
    if (is_void || !extension->unknown_transit) {
        watch_for_change(dev, extension);
        return 0;
    }
    assert(!keep->bytes && !keep->old && dev->state == DEV_OPENING);
    keep->found_sector = dev_bat(dev)->header.extension_sector;
    keep->in_place = extension->bitmap_count == 0 && !extension->unknown_plain;
    if (!keep->in_place) {
        keep->bytes = aligned_alloc(SECTOR_SIZE, size);
        keep->old = calloc(extension->owned_count, sizeof(*keep->old));
        if (!keep->bytes || !keep->old) {
            return -ENOMEM;
        }
        extension_kept(extension, false, keep->bytes, size);
    }
    claim_clusters(dev, extension, keep);
    assert(keep->old_count <= extension->owned_count);
    return 0;
}

void extension_keep_free(struct extension_keep *keep)
{
    if (!keep) {
        return;
    }
    free(keep->bytes);
    free(keep->old);
    *keep = (struct extension_keep){0};
}

/* ---- the new one ---- */

struct extension_write {
    ploop_dev *dev;
    struct channel_io io;
    struct iovec iov;
    struct host_cluster host;
    bool taken;
    struct alloc_wait space;
    struct round_wait round;
    atomic_bool done;
    int result;
};

static void write_done(struct extension_write *write, int result)
{
    ploop_dev *dev = write->dev;
    assert(result <= 0 && dev->extension->write == write);
    write->result = result;
    atomic_store(&write->done, true);
    dev_wake(dev);
}

/* The header leads to the new one, durably; or not. */
static void header_changed(struct round_wait *round, int result)
{
    struct extension_write *write = container_of(round, struct extension_write, round);
    struct extension_keep *keep = write->dev->extension;
    assert(write->taken && keep->bytes);
    for (uint64_t i = 0; i < keep->old_count && !result; i++) {
        alloc_give_back(&dev_bat(write->dev)->alloc, keep->old[i]);
    }
    write_done(write, result);
}

static void cluster_written(struct channel_io *io, int result)
{
    struct extension_write *write = container_of(io, struct extension_write, io);
    struct bat *bat = dev_bat(write->dev);
    assert(write->taken && bat->header.in_use == HEADER_IN_USE);
    if (result) {
        write_done(write, result);
        return;
    }
    bat->header.extension_sector = geometry_host_offset(&bat->geometry, write->host) / SECTOR_SIZE;
    bat_header_changed(bat, sync_next(&bat->syncer));
    bat_join_round(bat, &write->round, header_changed);
}

static void space_done(struct alloc_wait *wait, int result);

/* Its content is wholly overwritten, and the header's barrier is later than the cluster's own. */
static void take_cluster(struct extension_write *write)
{
    ploop_dev *dev = write->dev;
    uint64_t size = dev_disk(dev)->cluster_size;
    struct sync_number number;
    if (alloc_take(&dev_bat(dev)->alloc, &write->host, &number)) {
        alloc_wait(&dev_bat(dev)->alloc, &write->space, space_done);
        return;
    }
    write->taken = true;
    write->iov = (struct iovec){dev->extension->bytes, size};
    channel_io_init(&write->io, &dev_top(dev)->channel);
    channel_transfer(
        &write->io, PLOOP_IO_WRITE, 0, (struct iov_cursor){.iov = &write->iov, .count = 1},
        geometry_host_offset(&dev_top(dev)->geometry, write->host), size, cluster_written);
}

static void space_done(struct alloc_wait *wait, int result)
{
    struct extension_write *write = container_of(wait, struct extension_write, space);
    assert(!write->taken);
    if (result) {
        write_done(write, result);
    } else {
        take_cluster(write);
    }
}

static void begin(ploop_dev *dev)
{
    take_cluster(dev->extension->write);
}

static bool is_done(ploop_dev *dev, void *argument)
{
    (void)dev;
    struct extension_write *write = argument;
    return atomic_load(&write->done);
}

/* The new one is not to be: mark.c clears the mark and leads to the old one in one write. */
static void go_back(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    assert(dev->extension->bytes && dev->extension->write->result);
    if (dev->extension->write->taken) {
        alloc_give_back(&bat->alloc, dev->extension->write->host);
    }
    bat->header.extension_sector = 0;
    bat_header_changed(bat, sync_next(&bat->syncer));
}

int extension_keep_write(ploop_dev *dev)
{
    if (!dev->extension->bytes) {
        return 0;
    }
    assert(dev->state == DEV_OPENING && !dev->extension->in_place);
    struct extension_write write = {.dev = dev};
    dev->extension->write = &write;
    block_control(dev, begin);
    block_until(dev, is_done, &write);
    if (write.result) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_EXTENSION,
                "the format extension cannot be written anew: %s", ERROR_TEXT(write.result));
        block_control(dev, go_back);
        mark_clear(dev);
    }
    extension_keep_free(dev->extension);
    return write.result;
}
