/* SPDX-License-Identifier: MIT */
/*
 * Reading the deltas below the top: each is judged alone, as the top is, then against the one above
 * it, and its map goes into the stack's, base first, so that upper ones cover lower ones.
 *
 * With RECOVER, a lower delta that was not closed cleanly, or is cut off (R19), is opened for
 * writing by itself and closed again: that does to it all that R11 asks for. It comes after
 * everything was judged and before the top is marked, and is done once: whatever fails later, the
 * delta is clean.
 */
#include "life/load.h"

#include "util/error_text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static bool is_raw(const struct load *load)
{
    assert(load->level < stack_count(&load->dev->stack) - 1); /* the top is never raw */
    return load->level == 0 && load->dev->config.flags & PLOOP_DEV_RAW_BASE;
}

/* What the delta above it has of the disk. */
static uint64_t end_above(const ploop_dev *dev, uint32_t level)
{
    return stack_at(&dev->stack, level + 1)->end;
}

/* 0; read-only also where it cannot be read: then its cluster is bad. */
static int load_tail(const struct load *load, uint64_t length)
{
    struct stack *stack = &load->dev->stack;
    struct delta *lower = stack_at(stack, load->level);
    int64_t got = ploop_file_pread(load->file, lower->tail, length, lower->tail_at);
    int error = got < 0 ? (int)got : (uint64_t)got < length ? -EIO : 0;
    if (error && load->dev->read_only) {
        load_log(load, PLOOP_LOG_WARNING, "the last %" PRIu64 " bytes cannot be read: %s", length,
                 ERROR_TEXT(error));
        uint64_t n = lower->tail_at / lower->geometry.cluster_size;
        stack_set_place(stack, (struct guest_cluster){(uint32_t)n}, lower, BAT_ENTRY_BAD);
        error = 0;
    }
    return error;
}

static int load_raw(const struct load *load)
{
    ploop_dev *dev = load->dev;
    struct delta *lower = stack_at(&dev->stack, load->level);
    uint64_t cluster = dev_disk(dev)->cluster_size, size = load->info.file_size,
             above = end_above(dev, load->level);
    uint64_t odd = size % SECTOR_SIZE;
    lower->geometry =
        (struct geometry){.cluster_size = cluster, .disk_size = size, .entry_unit = cluster};
    lower->is_raw = true;
    lower->tail_at = size - odd;
    lower->end = odd ? lower->tail_at + SECTOR_SIZE : size;
    if (lower->end > above) {
        lower->end = above;
    }
    for (uint64_t n = 0; n * cluster < lower->end; n++) {
        uint32_t entry = (uint32_t)n;
        stack_set_place(&dev->stack, (struct guest_cluster){entry}, lower, entry);
    }
    if (lower->tail_at >= lower->end) {
        lower->tail_at = lower->end;
        return 0;
    }
    return load_tail(load, odd);
}

static int reject(const struct load *load, const char *field, uint64_t value, const char *why,
                  uint64_t other)
{
    load_log(load, PLOOP_LOG_ERROR, "%s %" PRIu64 ": %s, %" PRIu64, field, value, why, other);
    return -EUCLEAN;
}

static int judge_in_stack(const struct load *load)
{
    const ploop_dev *dev = load->dev;
    const struct header *header = &load->header, *top = &dev_bat(dev)->header;
    const struct geometry *geometry = &header->geometry;
    if (header->version != top->version) {
        return reject(load, "version", header->version, "not the top delta's", top->version);
    }
    if (geometry->cluster_size != dev_disk(dev)->cluster_size) {
        return reject(load, "cluster size", geometry->cluster_size, "not the top delta's",
                      dev_disk(dev)->cluster_size);
    }
    uint64_t above = end_above(dev, load->level);
    if (geometry->disk_size > above) {
        return reject(load, "disk size", geometry->disk_size,
                      "larger than that of the delta above it", above);
    }
    return 0;
}

/* The header of an image and its place in the stack; of a raw file all there is to know. */
static int load_lower_header(struct load *load)
{
    ploop_dev *dev = load->dev;
    struct delta *lower = stack_at(&dev->stack, load->level);
    int error = load_info(load);
    if (!error) {
        channel_init(&lower->channel, lower->file, &dev->turn, &load->info, &dev->bounces,
                     dev->queue_count);
    }
    if (error || is_raw(load)) {
        return error ? error : load_raw(load);
    }
    error = load_header(load);
    error = error ? error : judge_in_stack(load);
    lower->geometry = load->header.geometry;
    lower->end = lower->tail_at = lower->geometry.disk_size;
    return error;
}

/* Its map, over those of the deltas below it. */
static int load_lower_bat(struct load *load)
{
    struct stack *stack = &load->dev->stack;
    const struct geometry *geometry = &load->header.geometry;
    struct space_map space;
    assert(!load->entries && !is_raw(load));
    load->entries = calloc((size_t)geometry->bat_entries + 1, sizeof(*load->entries));
    load->space = &space;
    int error = space_map_init(&space, geometry, load->info.file_size);
    error = error ? error : load->entries ? load_bat(load) : -ENOMEM;
    uint32_t clusters = geometry_guest_clusters(geometry);
    for (uint32_t n = 0; n < clusters && !error; n++) {
        if (load->entries[n]) {
            stack_set_place(stack, (struct guest_cluster){n}, stack_at(stack, load->level),
                            load->entries[n]);
        }
    }
    space_map_free(&space);
    free(load->entries);
    load->entries = NULL;
    load->space = NULL;
    return error;
}

/* It may have made the file longer, or cut it. */
static int look_again(const struct load *load)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    struct channel *channel = &stack_at(&load->dev->stack, load->level)->channel;
    int error = ploop_file_info(load->file, &info);
    if (!error) {
        channel->file_end = channel->file_size = info.file_size;
    }
    return error;
}

static int recover(const struct load *load)
{
    struct ploop_dev_config config = load->dev->config;
    ploop_dev *dev;
    /* The cache of the file was dropped by load_header(), so RECOVER_CACHED is not needed. */
    config.runner_count = 0;
    config.flags = PLOOP_DEV_RECOVER | (config.flags & PLOOP_DEV_HOST_SHOWS_STALE);
    int error = file_change_claim(load->file, FILE_ALONE);
    if (!error) {
        error = dev_open_inside(load->file, &config, &dev);
        error = error ? error : ploop_dev_close(dev);
        file_change_claim(load->file, FILE_SHARED);
    }
    error = error ? error : look_again(load);
    if (error) {
        load_log(load, PLOOP_LOG_ERROR, "not closed cleanly, and cannot be recovered: %s",
                 ERROR_TEXT(error));
    } else if (load->header.in_use == HEADER_IN_USE) {
        load_log(load, PLOOP_LOG_WARNING, "not closed cleanly: recovered");
    }
    return error;
}

int load_stack(ploop_dev *dev)
{
    uint32_t count = stack_count(&dev->stack) - 1; /* below the top */
    if (count == 0) {
        return 0;
    }
    struct load *loads = calloc(count, sizeof(*loads));
    int error = loads ? stack_make_words(&dev->stack) : -ENOMEM;
    for (uint32_t level = count; level-- > 0 && !error;) {
        loads[level] =
            (struct load){.dev = dev, .file = stack_at(&dev->stack, level)->file, .level = level};
        error = load_lower_header(&loads[level]);
    }
    for (uint32_t level = 0; level < count && !error; level++) {
        error = is_raw(&loads[level]) ? 0 : load_lower_bat(&loads[level]);
    }
    for (uint32_t level = 0; level < count && !error && !dev->read_only; level++) {
        bool is_unclean = loads[level].header.in_use == HEADER_IN_USE || loads[level].has_cut;
        error = is_unclean ? recover(&loads[level]) : 0;
    }
    free(loads);
    return error;
}
