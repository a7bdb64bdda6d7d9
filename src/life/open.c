/* SPDX-License-Identifier: MIT */
/*
 * Opening a device.
 *
 *     parameters judged -> memory taken -> top delta read and judged (load.c), then the others
 *     (load_stack.c) -> for writing: the in-use mark (mark.c), what is kept of the format extension
 *     (extension_keep.c) -> open
 *
 * A failure on the way leaves the file's content as it was, up to the mark.
 */
#include "engine/runner.h"
#include "life/load.h"
#include "life/mark.h"
#include "life/memory.h"
#include "life/top.h"
#include "util/sized.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_DEFAULT_NS UINT64_C(500000000)
#define MAX_AGE_DEFAULT_NS UINT64_C(5000000000)
enum { FAILURE_LIMIT_DEFAULT = 3 };

void ploop_dev_config_init(struct ploop_dev_config *config, size_t size)
{
    struct ploop_dev_config defaults = {
        .size = size,
        .queue_count = 1,
        .pio_count = PIO_COUNT_DEFAULT,
        .page_failure_limit = FAILURE_LIMIT_DEFAULT,
        .writeback_delay_ns = DELAY_DEFAULT_NS,
        .writeback_max_age_ns = MAX_AGE_DEFAULT_NS,
    };
    memset(config, 0, size);
    memcpy(config, &defaults, size < sizeof(defaults) ? size : sizeof(defaults));
}

/*
 * A table of pointers. One of 2.0 has as much as wake_at; what a newer one has that is not known
 * here must be NULL.
 */
static int take_clock(struct ploop_clock *clock, const struct ploop_clock *given)
{
    size_t oldest = offsetof(struct ploop_clock, wake_at) + sizeof(given->wake_at);
    if (given->size < oldest || !given->now_ns) {
        return -EINVAL;
    }
    if (given->size > SIZED_MAX) {
        return -E2BIG;
    }
    for (size_t i = sizeof(*clock); i < given->size; i++) {
        if (((const unsigned char *)given)[i]) {
            return -E2BIG;
        }
    }
    memset(clock, 0, sizeof(*clock));
    memcpy(clock, given, given->size < sizeof(*clock) ? given->size : sizeof(*clock));
    return 0;
}

static int take_config(ploop_dev *dev, const struct ploop_dev_config *given)
{
    struct ploop_dev_config *config = &dev->config;
    ploop_dev_config_init(config, sizeof(*config));
    if (given) {
        int error =
            sized_in(config, sizeof(*config), offsetof(struct ploop_dev_config, reserved), given);
        if (error) {
            return error;
        }
        config->size =
            sizeof(*config); /* of this copy, which load_stack.c opens lower deltas with */
    }
    const uint32_t known = PLOOP_DEV_READ_ONLY | PLOOP_DEV_RECOVER | PLOOP_DEV_NO_FAST_PATH |
                           PLOOP_DEV_RAW_BASE | PLOOP_DEV_INACTIVE | PLOOP_DEV_RECOVER_CACHED |
                           PLOOP_DEV_HOST_SHOWS_STALE | PLOOP_DEV_COMPLETE_IN_RUN |
                           PLOOP_DEV_WRITE_ZEROS_AS_DATA;
    config->queue_count = config->queue_count ? config->queue_count : 1;
    config->pio_count = config->pio_count ? config->pio_count : PIO_COUNT_DEFAULT;
    config->page_failure_limit =
        config->page_failure_limit ? config->page_failure_limit : FAILURE_LIMIT_DEFAULT;
    if (config->flags & ~known ||
        (config->flags & PLOOP_DEV_RECOVER_CACHED && !(config->flags & PLOOP_DEV_RECOVER)) ||
        config->queue_count > CHANNEL_QUEUES_MAX || config->pio_count > PIO_COUNT_MAX ||
        config->runner_count > config->queue_count || config->enospc_policy > PLOOP_ENOSPC_PARK ||
        config->writeback_max_age_ns < config->writeback_delay_ns) {
        return -EINVAL;
    }
    if (config->flags & PLOOP_DEV_INACTIVE) {
        return -ENOTSUP;
    }
    if (config->sync_failed_policy > PLOOP_SYNC_FAILED_REFUSE_CHANGES || config->reserved1) {
        return -EINVAL;
    }
    if (config->clock) {
        return take_clock(&dev->clock, config->clock);
    }
    return 0;
}

static void *take_aligned(size_t size)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, size)) {
        return NULL;
    }
    return memset(memory, 0, size);
}

static void init_lists(ploop_dev *dev)
{
    struct list *lists[] = {&dev->parts_free, &dev->part_waiters, &dev->parked,     &dev->held,
                            &dev->later,      &dev->cow_buffers,  &dev->cow_waiters};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        list_init(lists[i]);
    }
    list_init(&dev->watches);
    for (uint32_t i = 0; i < RESERVATION_HASH; i++) {
        list_init(&dev->reservation_hash[i]);
    }
}

/* All the memory requests will ever need. */
static int take_memory(ploop_dev *dev)
{
    uint32_t queues = dev->queue_count, pios = dev->config.pio_count;
    size_t parts = PARTS_MAX;
    assert(queues > 0 && pios > 0);
    dev->extension = calloc(1, sizeof(*dev->extension));
    dev->locks = take_aligned(LOCK_COUNT * sizeof(*dev->locks));
    dev->queues = take_aligned((queues + 1) * sizeof(*dev->queues)); /* and the engine's */
    dev->parts = calloc(parts, sizeof(*dev->parts));
    /* First of all: queue_free() must not take descriptor 0 for one of theirs. */
    for (uint32_t i = 0; dev->queues && i <= queues; i++) {
        dev->queues[i] = (ploop_queue){
            .dev = dev, .index = i, .lane_at = channel_lane_at(i), .event_fd = -1, .poll_fd = -1};
    }
    if (!dev->extension || !dev->locks || !dev->queues || !dev->parts) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < LOCK_COUNT; i++) {
        lock_init(&dev->locks[i]);
    }
    for (size_t i = 0; i < parts; i++) {
        part_init(&dev->parts[i], dev);
        list_append(&dev->parts_free, &dev->parts[i].link);
    }
    int error = stack_count(&dev->stack) > 1 ? cow_init(dev) : 0;
    for (uint32_t i = 0; i < queues && !error; i++) {
        error = queue_init(&dev->queues[i], dev, i, pios);
    }
    return error;
}

static enum file_use use_of(const ploop_dev *dev, const struct delta *delta)
{
    return delta == dev_top(dev) && !dev->read_only ? FILE_ALONE : FILE_SHARED;
}

/* Those that are served, up to a slot. */
static void give_back_files(const ploop_dev *dev, uint32_t end)
{
    uint32_t slot = 0;
    for (const struct delta *delta;
         (delta = stack_each(&dev->stack, &slot)) != NULL && slot <= end;) {
        file_give_back(delta->file, use_of(dev, delta));
    }
}

/* Against other devices of this process, and calls that would write or sync these files. */
static int claim_files(ploop_dev *dev)
{
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        int error = file_claim(delta->file, use_of(dev, delta));
        if (error) {
            give_back_files(dev, slot - 1);
            return error;
        }
    }
    dev->has_claims = true;
    return 0;
}

void dev_free(ploop_dev *dev)
{
    if (!dev) {
        return;
    }
    for (uint32_t i = 0; dev->queues && i < dev->queue_count; i++) {
        queue_free(&dev->queues[i]);
    }
    if (dev->has_claims) {
        give_back_files(dev, STACK_SLOTS);
    }
    memory_unregister_all(dev);
    extension_keep_free(dev->extension);
    free(dev->extension);
    cow_free(dev);
    bounces_free(&dev->bounces);
    stack_free(&dev->stack);
    free(dev->queues);
    free(dev->locks);
    free(dev->parts);
    pthread_cond_destroy(&dev->wait_cond);
    pthread_mutex_destroy(&dev->wait_mutex);
    pthread_mutex_destroy(&dev->clock_mutex);
    pthread_mutex_destroy(&dev->memory_mutex);
    free(dev);
}

static void set_geometry(ploop_dev *dev, const struct header *header)
{
    assert(dev->state == DEV_OPENING && !dev->queues);
    struct delta *top = dev_top(dev);
    top->geometry = header->geometry;
    top->end = top->tail_at = top->geometry.disk_size;
    stack_set_disk(&dev->stack, &top->geometry);
    if (dev->config.flags & PLOOP_DEV_NO_FAST_PATH) {
        gate_change(dev, 0, GATE_ENGINE_ONLY);
    }
}

static int read_image(ploop_dev *dev)
{
    struct load top = {
        .dev = dev, .file = dev_top(dev)->file, .level = stack_count(&dev->stack) - 1};
    const struct ploop_file_info *info = &top.info;
    int error = load_info(&top);
    error = error ? error : load_header(&top);
    if (error) {
        return error;
    }
    set_geometry(dev, &top.header);
    channel_init(&dev_top(dev)->channel, dev_top(dev)->file, &dev->turn, info, &dev->bounces,
                 dev->queue_count);
    error = take_memory(dev);
    if (error) {
        return error;
    }
    error = top_init_bat(dev, dev_top(dev), &top.header, info);
    if (error) {
        return error;
    }
    dev->native_zeroing = info->capabilities & PLOOP_FILE_CAN_PUNCH &&
                          !(dev->config.flags & PLOOP_DEV_HOST_SHOWS_STALE);
    engine_init(dev);
    error = load_bat(&top);
    if (!error && !dev->read_only) {
        error = load_extension(dev, info->file_size);
    }
    error = error ? error : load_stack(dev);
    return error ? error : load_make_whole(&top);
}

/* Each file once: a delta that is above or below itself would be written under our feet. */
static bool are_deltas(ploop_file *const *deltas, uint32_t count)
{
    if (!deltas || count == 0 || count > STACK_DELTAS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (deltas[j] == deltas[i]) {
                return false;
            }
        }
        if (!deltas[i]) {
            return false;
        }
    }
    return true;
}

static int attach(ploop_dev *dev)
{
    int error = 0;
    uint32_t slot = 0;
    for (const struct delta *delta; !error && (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        char name[32];
        snprintf(name, sizeof(name), "delta %" PRIu32, delta->level);
        error = top_attach(dev, delta->file, name);
    }
    return error;
}

/*
 * After a failed SYNC the next open, even of an image without the mark, must see what the disk has
 * (F15).
 */
static void abandon(ploop_dev *dev)
{
    ploop_file *file = dev_top(dev)->file;
    bool lost = bat_latch(dev_bat(dev)) != 0;
    int ignored;
    assert(dev->state == DEV_OPENING && !dev->read_only);
    ploop_dev_abort(dev);
    if (lost) {
        (void)file_drop_cache(file, &ignored);
    }
}

static void begin_running(ploop_dev *dev)
{
    assert(dev->read_only || dev_bat(dev)->header.in_use == HEADER_IN_USE);
    fast_look_at_top(dev, dev_top(dev));
    dev_set_state(dev, DEV_RUNNING);
}

static int open_device(ploop_file *const *deltas, uint32_t count,
                       const struct ploop_dev_config *config, bool is_inside, ploop_dev **out)
{
    ploop_dev *dev = take_aligned(sizeof(*dev));
    if (!dev) {
        return -ENOMEM;
    }
    kinds_assert();
    dev->is_inside = is_inside;
    dev->memory_alignment = 1;
    atomic_init(&dev->fast_alignment, 1);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&dev->wait_mutex, NULL);
    pthread_mutex_init(&dev->clock_mutex, NULL);
    pthread_mutex_init(&dev->memory_mutex, NULL);
    pthread_cond_init(&dev->wait_cond, &attributes);
    pthread_condattr_destroy(&attributes);
    init_lists(dev);

    int error = take_config(dev, config);
    if (!is_inside) {
        dev_text_begin(dev->config.error_text, dev->config.error_text_size);
    }
    if (!error && dev->config.flags & PLOOP_DEV_RAW_BASE && count == 1) {
        error = -EINVAL;
    }
    dev->queue_count = dev->config.queue_count;
    dev->read_only = dev->config.flags & PLOOP_DEV_READ_ONLY;
    error = error ? error : stack_init(&dev->stack, deltas, count);
    error = error || is_inside ? error : claim_files(dev);
    error = error ? error : attach(dev);
    if (!error) {
        error = read_image(dev);
    }
    error = error ? error : runners_start(dev); /* before the mark: a failure leaves no trace */
    if (error) {
        dev_free(dev);
        return error;
    }
    if (!dev->read_only) {
        error = mark_set(dev);
        error = error ? error : extension_keep_write(dev);
    }
    if (error) {
        abandon(dev);
        return error;
    }
    block_control(dev, begin_running); /* what info shows is there from the beginning */
    *out = dev;
    return 0;
}

int ploop_dev_open(ploop_file *const *deltas, uint32_t count, const struct ploop_dev_config *config,
                   ploop_dev **dev)
{
    if (!dev) {
        return -EINVAL;
    }
    *dev = NULL;
    if (!are_deltas(deltas, count)) {
        return -EINVAL;
    }
    if (in_callback()) {
        return -EDEADLK;
    }
    int error = open_device(deltas, count, config, false, dev);
    dev_text_end(error);
    return error;
}

int dev_open_inside(ploop_file *file, const struct ploop_dev_config *config, ploop_dev **out)
{
    return open_device(&file, 1, config, true, out);
}
