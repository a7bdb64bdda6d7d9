/* SPDX-License-Identifier: MIT */
/* What top.h says. */
#include "life/top.h"

#include "engine/engine.h"
#include "image/image_file.h"
#include "life/memory.h"
#include "pio/pio.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

int top_init_bat(ploop_dev *dev, struct delta *delta, const struct header *header,
                 const struct ploop_file_info *info)
{
    struct alloc_config space = {.file_size = info->file_size,
                                 .capabilities = info->capabilities,
                                 .extend_bytes_max = dev->config.preallocate_bytes,
                                 .host_shows_stale =
                                     dev->config.flags & PLOOP_DEV_HOST_SHOWS_STALE};
    struct bat *bat = delta->bat;
    int error = bat_init(bat, header, &delta->channel, &space);
    if (error) {
        return error;
    }
    delta->capabilities = info->capabilities;
    bat->native_fua = info->capabilities & PLOOP_FILE_CAN_FUA;
    bat->delay_ns = dev->config.writeback_delay_ns;
    bat->max_age_ns = dev->config.writeback_max_age_ns;
    bat->failure_limit = dev->config.page_failure_limit;
    if (dev->config.enospc_policy == PLOOP_ENOSPC_PARK) {
        bat->patience_ns = dev->config.park_timeout_ns ? dev->config.park_timeout_ns : UINT64_MAX;
    }
    return 0;
}

/*
 * Names a function that the backend has and the one it needs with it, which is missing. Without it
 * requests would hang.
 */
static const char *missing_function(const struct ploop_io_ops *ops)
{
    if (ops->reap && !ops->poll_fd) {
        return "reap and no poll_fd";
    }
    if (ops->register_memory && !ops->unregister_memory) {
        return "register_memory and no unregister_memory";
    }
    return ops->poll_fd && !ops->reap ? "poll_fd and no reap" : NULL;
}

int top_attach(ploop_dev *dev, const ploop_file *file, const char *name)
{
    const char *missing = missing_function(&file->ops);
    if (missing) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_BACKEND, "%s: the backend has %s", name,
                missing);
        return -EINVAL;
    }
    if (file->ops.reap) {
        atomic_store(&dev->reaps, true);
    }
    return file->ops.attach ? file->ops.attach(file->context, dev->queue_count + 1) : 0;
}

/* ---- what a new top must be like ---- */

static int reject(ploop_dev *dev, const char *field, uint64_t value, const char *why,
                  uint64_t other)
{
    dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP, "new top: %s %" PRIu64 ": %s, %" PRIu64,
            field, value, why, other);
    return -EINVAL;
}

static int judge_file(ploop_dev *dev, ploop_file *file, struct ploop_file_info *info)
{
    *info = (struct ploop_file_info){.size = sizeof(*info)};
    int error = ploop_file_info(file, info);
    if (error) {
        return error;
    }
    if (info->max_transfer && info->max_transfer < SECTOR_SIZE) {
        return reject(dev, "max_transfer", info->max_transfer, "less than a sector", SECTOR_SIZE);
    }
    if (info->request_alignment > BOUNCE_SIZE) {
        return reject(dev, "request_alignment", info->request_alignment, "this version takes up to",
                      BOUNCE_SIZE);
    }
    if (info->request_alignment <= SECTOR_SIZE && info->request_alignment > dev->memory_alignment) {
        return reject(dev, "request_alignment", info->request_alignment,
                      "more than the device's memory_alignment", dev->memory_alignment);
    }
    return 0;
}

static int judge_header(ploop_dev *dev, const struct header *header)
{
    const struct header *top = &dev_bat(dev)->header;
    const struct geometry *geometry = &header->geometry, *old = &top->geometry;
    if (header->version != top->version) {
        return reject(dev, "version", header->version, "not the top's", top->version);
    }
    if (geometry->cluster_size != old->cluster_size) {
        return reject(dev, "cluster size", geometry->cluster_size, "not the top's",
                      old->cluster_size);
    }
    if (geometry->disk_size != old->disk_size) {
        return reject(dev, "disk size", geometry->disk_size, "not the top's", old->disk_size);
    }
    if (geometry->bat_entries != old->bat_entries) {
        return reject(dev, "bat_entries", geometry->bat_entries, "not the top's", old->bat_entries);
    }
    if (header->in_use != 0) {
        return reject(dev, "in_use", header->in_use,
                      "open elsewhere, not closed cleanly, or with a format extension", 0);
    }
    return 0;
}

/* It is none of the stack's files. */
static int judge_other(ploop_dev *dev, const ploop_file *file)
{
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        if (delta->file == file) {
            return reject(dev, "the file", delta->level, "it is in the stack already, level",
                          delta->level);
        }
    }
    return 0;
}

/* The header is read here, and nothing but reads and looks is done. */
static int judge(ploop_dev *dev, ploop_file *file, struct ploop_file_info *info,
                 struct header *header)
{
    int error = judge_other(dev, file);
    if (error) {
        return error;
    }
    if (stack_count(&dev->stack) == STACK_DELTAS_MAX) {
        return reject(dev, "deltas", STACK_DELTAS_MAX, "there can be no more", STACK_DELTAS_MAX);
    }
    char message[HEADER_MESSAGE_SIZE];
    struct image_file image;
    error = judge_file(dev, file, info);
    if (error) {
        return error;
    }
    error = image_file_open(&image, file, message);
    if (error && message[0]) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP, "new top: %s", message);
        error = -EINVAL;
    }
    if (error) {
        return error;
    }
    *header = image.header;
    image_file_close(&image);
    return judge_header(dev, header);
}

/* ---- joining ---- */

/* What a single delta does without. */
static int take_memory(ploop_dev *dev, const struct ploop_file_info *info)
{
    int error = info->request_alignment > SECTOR_SIZE ? bounces_init(&dev->bounces) : 0;
    if (!error && !atomic_load(&dev->stack.words)) {
        error = stack_make_words(&dev->stack);
    }
    return error ? error : cow_init(dev);
}

static int watch_queues(ploop_dev *dev, const ploop_file *file)
{
    int error = 0;
    for (uint32_t i = 0; i < dev->queue_count && !error; i++) {
        error = queue_watch(&dev->queues[i], file);
    }
    return error;
}

static void unwatch_queues(ploop_dev *dev, const ploop_file *file)
{
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        queue_unwatch(&dev->queues[i], file);
    }
}

static int join(ploop_dev *dev, ploop_file *file, const struct ploop_file_info *info,
                struct header *header, struct delta **out)
{
    struct delta *delta = stack_new_delta(&dev->stack, file, STACK_NO_LEVEL);
    if (!delta) {
        return dev->stack.number + 1 == STACK_NUMBERS ? -ENOSPC : -ENOMEM;
    }
    header->extension_sector = 0; /* it counts for nothing where in_use is 0 */
    delta->geometry = header->geometry;
    delta->end = delta->tail_at = delta->geometry.disk_size;
    int error = take_memory(dev, info);
    if (!error) {
        channel_init(&delta->channel, file, &dev->turn, info, &dev->bounces, dev->queue_count);
        error = delta_new_bat(delta);
    }
    error = error ? error : top_init_bat(dev, delta, header, info);
    error = error ? error : top_attach(dev, file, "new top");
    bool is_attached = !error;
    error = error ? error : watch_queues(dev, file);
    if (!error) {
        space_map_end_claims(&delta->bat->alloc.map);
        engine_join_bat(dev, delta->bat);
        error = memory_join(dev, delta);
    }
    if (error) {
        if (is_attached) {
            unwatch_queues(dev, file);
        }
        return error;
    }
    *out = delta;
    return 0;
}

int top_join(ploop_dev *dev, ploop_file *file, struct delta **delta)
{
    struct ploop_file_info info;
    struct header header;
    int error = file_claim(file, FILE_ALONE);
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP, "new top: the file is in use");
        return error;
    }
    error = judge(dev, file, &info, &header);
    error = error ? error : join(dev, file, &info, &header, delta);
    if (error) {
        file_give_back(file, FILE_ALONE);
    }
    return error;
}

/* ---- in the place of a lower delta ---- */

static int misfit(ploop_dev *dev, int error, const char *field, uint64_t value, uint64_t other)
{
    dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_REPLACE,
            "replace: %s %" PRIu64 ": not that of the file it is to replace, %" PRIu64, field,
            value, other);
    return error;
}

static int judge_like(ploop_dev *dev, const struct header *header, const struct geometry *like)
{
    const struct geometry *geometry = &header->geometry;
    const struct {
        const char *name;
        uint64_t is, other;
    } fields[] = {
        {"version", header->version, dev_bat(dev)->header.version},
        {"cluster size", geometry->cluster_size, like->cluster_size},
        {"disk size", geometry->disk_size, like->disk_size},
        {"bat_entries", geometry->bat_entries, like->bat_entries},
        {"data area at", geometry->data_start, like->data_start},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        if (fields[i].is != fields[i].other) {
            return misfit(dev, -EINVAL, fields[i].name, fields[i].is, fields[i].other);
        }
    }
    if (header->in_use == HEADER_IN_USE) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_REPLACE,
                "replace: the file is in use elsewhere, or was not closed cleanly");
        return -EINVAL;
    }
    return 0;
}

/* What a raw file has behind its last whole sector is in memory: delta.h. */
static int judge_raw_like(ploop_dev *dev, ploop_file *file, const struct delta *like, uint64_t size)
{
    uint8_t tail[SECTOR_SIZE];
    uint64_t length = like->end > like->tail_at ? size - like->tail_at : 0;
    if (size != like->geometry.disk_size) {
        return misfit(dev, -EINVAL, "size", size, like->geometry.disk_size);
    }
    int64_t got = length ? ploop_file_pread(file, tail, length, like->tail_at) : 0;
    if (got < 0) {
        return (int)got;
    }
    return memcmp(tail, like->tail, (size_t)got) == 0
               ? 0
               : misfit(dev, -EINVAL, "the last bytes, from", like->tail_at, like->tail_at);
}

static int judge_lower(ploop_dev *dev, ploop_file *file, const struct delta *like,
                       struct ploop_file_info *info)
{
    char message[HEADER_MESSAGE_SIZE];
    struct image_file image;
    int synced, error = judge_other(dev, file);
    error = error ? error : judge_file(dev, file, info);
    if (error) {
        return error;
    }
    error = file_drop_cache(file, &synced);
    if (synced || (error && error != -ENOTSUP)) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_REPLACE,
                "replace: the file cannot be made durable and read anew: %s",
                ERROR_TEXT(synced ? synced : error));
        return synced ? synced : error;
    }
    if (like->is_raw) {
        return judge_raw_like(dev, file, like, info->file_size);
    }
    error = image_file_open(&image, file, message);
    if (error && message[0]) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_REPLACE, "replace: %s", message);
        error = -EINVAL;
    }
    if (!error) {
        error = judge_like(dev, &image.header, &like->geometry);
        image_file_close(&image);
    }
    return error;
}

static int join_lower(ploop_dev *dev, ploop_file *file, const struct ploop_file_info *info,
                      const struct delta *like, struct delta **out)
{
    struct delta *delta = stack_new_delta(&dev->stack, file, STACK_NO_LEVEL);
    if (!delta) {
        return dev->stack.number + 1 == STACK_NUMBERS ? -ENOSPC : -ENOMEM;
    }
    delta->geometry = like->geometry;
    delta->is_raw = like->is_raw;
    delta->end = like->end;
    delta->tail_at = like->tail_at;
    memcpy(delta->tail, like->tail, sizeof(delta->tail));
    delta->capabilities = info->capabilities;
    int error = take_memory(dev, info);
    if (!error) {
        channel_init(&delta->channel, file, &dev->turn, info, &dev->bounces, dev->queue_count);
        error = top_attach(dev, file, "replace");
    }
    bool is_attached = !error;
    error = error ? error : watch_queues(dev, file);
    error = error ? error : memory_join(dev, delta);
    if (error && is_attached) {
        unwatch_queues(dev, file);
    }
    *out = delta;
    return error;
}

int top_join_lower(ploop_dev *dev, ploop_file *file, const struct delta *like, struct delta **delta)
{
    struct ploop_file_info info;
    int error = file_claim(file, FILE_SHARED);
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_REPLACE, "replace: the file is in use");
        return error;
    }
    error = judge_lower(dev, file, like, &info);
    error = error ? error : join_lower(dev, file, &info, like, delta);
    if (error) {
        file_give_back(file, FILE_SHARED);
    }
    return error;
}

/* ---- leaving ---- */

/*
 * A thread that calls the file without `users` has entered a queue: after each queue was free once
 * none is left.
 */
static bool queues_are_free(ploop_dev *dev, struct delta *delta)
{
    while (delta->queues_seen < dev->queue_count && queue_enter(&dev->queues[delta->queues_seen])) {
        queue_leave(&dev->queues[delta->queues_seen]);
        delta->queues_seen++;
    }
    return delta->queues_seen == dev->queue_count;
}

bool top_leave(ploop_dev *dev, struct delta *delta)
{
    assert(delta != dev_top(dev) && channel_is_idle(&delta->channel));
    if (!atomic_load(&delta->left)) {
        memory_leave(dev, delta);
        unwatch_queues(dev, delta->file);
        delta->queues_seen = 0;
    }
    return queues_are_free(dev, delta) && atomic_load(&delta->users) == 0 &&
           channel_in_lanes(&delta->channel) == 0;
}

/* ---- raising ---- */

/* What was the old top's is this delta's from now on. */
static void take_over(ploop_dev *dev, struct delta *delta)
{
    struct delta *old = dev_top(dev);
    struct bat *bat = delta->bat;
    assert(gate_has(dev, GATE_JOB) && bat_is_quiet(old->bat));
    bat_take_over_counts(bat, old->bat);
    bat->delay_ns = old->bat->delay_ns;
    bat->max_age_ns = old->bat->max_age_ns;
    engine_adopt_bat(dev, bat);
    space_forget_syncs(dev);
    uint32_t alignment =
        delta->channel.block < BOUNCE_MEMORY_ALIGN ? delta->channel.block : BOUNCE_MEMORY_ALIGN;
    if (alignment > SECTOR_SIZE && alignment > dev->fast_alignment) {
        atomic_store(&dev->fast_alignment, alignment);
    }
    fast_look_at_top(dev, delta);
}

void top_raise(ploop_dev *dev, struct delta *delta)
{
    take_over(dev, delta);
    file_change_claim(dev_top(dev)->file, FILE_SHARED);
    stack_raise(&dev->stack, delta);
}

void top_lower(ploop_dev *dev, struct delta *delta)
{
    take_over(dev, delta);
    stack_lower(&dev->stack, delta);
}

void top_lower_file(ploop_dev *dev, const ploop_file *file)
{
    int error = file->ops.reopen ? file->ops.reopen(file->context, PLOOP_FILE_READ_ONLY) : 0;
    if (error) {
        dev_log(dev, PLOOP_LOG_WARNING, PLOOP_MESSAGE_NEW_TOP,
                "the file of a lower delta stays open for writing: %s", ERROR_TEXT(error));
    }
}

/* ---- a receiver ---- */

static int open_for_writing(ploop_dev *dev, const struct delta *delta)
{
    const ploop_file *file = delta->file;
    int error = file->ops.reopen ? file->ops.reopen(file->context, PLOOP_FILE_READ_WRITE) : 0;
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP,
                "merge: delta %" PRIu32 ": cannot be opened for writing: %s", delta->level,
                error == -EAGAIN ? "another process has it open" : ERROR_TEXT(error));
    }
    return error;
}

static int make_bat(ploop_dev *dev, struct delta *delta)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    /* Its header is read by the job. */
    struct header header = {.geometry = delta->geometry, .version = dev_bat(dev)->header.version};
    int error = ploop_file_info(delta->file, &info);
    error = error ? error : delta_new_bat(delta);
    error = error ? error : top_init_bat(dev, delta, &header, &info);
    if (!error) {
        engine_join_bat(dev, delta->bat);
    }
    return error;
}

/* Only now its backend says what it can. */
static int judge_raw(ploop_dev *dev, const struct delta *delta, uint64_t size)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    int error = ploop_file_info(delta->file, &info);
    if (!error && info.file_size < size && !(info.capabilities & PLOOP_FILE_CAN_GROW)) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP,
                "merge: delta %" PRIu32 ": the raw base has %" PRIu64 " bytes, needs %" PRIu64
                ", and cannot become larger",
                delta->level, info.file_size, size);
        error = -ENOSPC;
    }
    return error;
}

int top_make_receiver(ploop_dev *dev, struct delta *delta, uint64_t raw_size)
{
    int error = file_change_claim(delta->file, FILE_ALONE);
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_NEW_TOP,
                "merge: delta %" PRIu32 ": another device uses the file", delta->level);
        return error;
    }
    error = open_for_writing(dev, delta);
    if (!error) {
        error = delta->is_raw ? judge_raw(dev, delta, raw_size) : make_bat(dev, delta);
        if (error) {
            top_lower_file(dev, delta->file);
        }
    }
    if (error) {
        file_change_claim(delta->file, FILE_SHARED);
    }
    return error;
}
