/* SPDX-License-Identifier: MIT */
/*
 * What a device says of itself: counters that the engine keeps as atomics, read without its turn.
 */
#include "life/life.h"
#include "util/sized.h"

#include <assert.h>
#include <stddef.h>

uint32_t ploop_version(void)
{
    return (uint32_t)PLOOP_VERSION_MAJOR << 16 | (uint32_t)PLOOP_VERSION_MINOR << 8 |
           PLOOP_VERSION_PATCH;
}

uint32_t ploop_has(uint32_t feature)
{
    switch (feature) {
    case PLOOP_FEATURE_URING:
#ifdef PLOOP_WITH_URING
        return 1;
#else
        return 0;
#endif
    case PLOOP_FEATURE_STACKS:
    case PLOOP_FEATURE_REPAIR:
    case PLOOP_FEATURE_REAP:
    case PLOOP_FEATURE_OPEN_FD:
    case PLOOP_FEATURE_REGISTERED_MEMORY:
        return 1;
    default:
        return 0;
    }
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint32_t ability(const ploop_dev *dev, bool is_native)
{
    if (dev->read_only) {
        return PLOOP_ABILITY_NONE;
    }
    return is_native ? PLOOP_ABILITY_NATIVE : PLOOP_ABILITY_EMULATED;
}

int ploop_dev_info(ploop_dev *dev, struct ploop_dev_info *info)
{
    int error = sized_out_check(info, offsetof(struct ploop_dev_info, reserved));
    if (error) {
        return error;
    }
    assert(stack_count(&dev->stack) > 0 && dev_disk(dev));
    const struct bat_stats *stats = &dev_bat(dev)->stats;
    struct ploop_dev_info full = {
        .disk_size = dev_disk(dev)->disk_size,
        .cluster_size = dev_disk(dev)->cluster_size,
        .request_alignment = SECTOR_SIZE,
        .discard_granularity = (uint32_t)dev_disk(dev)->cluster_size,
        .max_request_bytes = MAX_REQUEST_BYTES,
        .state = atomic_load_explicit(&dev->shown_state, memory_order_relaxed),
        .error = atomic_load_explicit(&dev->shown_error, memory_order_relaxed),
        .file_size = load(&dev->file_size),
        .clusters_mapped = load(&stats->mapped),
        .clusters_free = load(&dev->clusters_free),
        .clusters_quarantined = load(&dev->clusters_pending),
        .pages_dirty = load(&stats->pages_dirty),
        .pages_failed = load(&stats->pages_failed),
        .requests_parked = load(&dev->requests_parked),
        .page_dirties = load(&stats->page_dirties),
        .page_redirties = load(&stats->page_redirties),
        .page_writes = load(&stats->page_writes),
        .page_write_calls = load(&stats->page_write_calls),
        .page_write_failures = load(&stats->page_write_failures),
        .syncs = load(&dev_bat(dev)->syncer.count),
        .sync_failures = load(&dev_bat(dev)->syncer.failures),
        .barriers = load(&stats->barriers),
        .flushes = load(&dev->flushes),
        .flushes_coalesced = load(&stats->flushes_coalesced),
        .extensions = load(&dev_bat(dev)->alloc.work.extensions),
        .punches = load(&dev_bat(dev)->alloc.work.punches),
        .memory_alignment = dev->memory_alignment,
        .delta_count = stack_count(&dev->stack),
        .max_segments = PLOOP_IO_SEGMENTS_MAX,
        .clusters_copied = load(&dev->clusters_copied),
        .physical_block_bytes = dev_top(dev)->channel.block,
        .optimal_io_bytes = (uint32_t)dev_disk(dev)->cluster_size,
        .max_discard_bytes = dev_disk(dev)->disk_size,
        .fua = ability(dev, dev_bat(dev)->native_fua),
        .zeroing = ability(dev, dev->native_zeroing),
        .clusters_partial = load(&dev->clusters_partial),
        .copies_failed = load(&dev->copies_failed),
    };
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        if (delta_use(delta)) {
            full.double_completions += load(&delta->file->double_completions);
            delta_unuse(delta);
        }
    }
    for (uint32_t i = 0; i <= dev->queue_count; i++) {
        for (uint32_t op = 0; op < PIO_KINDS; op++) {
            full.requests += queue_requests(&dev->queues[i], op);
            full.requests_fast += queue_requests_fast(&dev->queues[i], op);
        }
        full.completions_waiting += (uint32_t)load(&dev->queues[i].waiting);
    }
    sized_out(info, &full, sizeof(full));
    return 0;
}

_Static_assert((int)PIO_READ == PLOOP_KIND_READ && (int)PIO_WRITE == PLOOP_KIND_WRITE &&
                   (int)PIO_ZEROES == PLOOP_KIND_WRITE_ZEROES &&
                   (int)PIO_DISCARD == PLOOP_KIND_DISCARD && (int)PIO_FLUSH == PLOOP_KIND_FLUSH &&
                   (int)PIO_BAT_WRITE == PLOOP_KIND_BAT_WRITE,
               "the public kinds are the library's");

int ploop_dev_stats(ploop_dev *dev, uint32_t queue, uint32_t kind, struct ploop_stats *stats)
{
    int error = sized_out_check(stats, offsetof(struct ploop_stats, reserved));
    if (error || queue > dev->queue_count || kind < PLOOP_KIND_READ ||
        kind > PLOOP_KIND_BAT_WRITE) {
        return -EINVAL;
    }
    const ploop_queue *asked = &dev->queues[queue];
    const struct kind_counts *counts = &asked->counts[kind];
    uint32_t fast_op = kinds[kind].fast_op;
    struct ploop_stats full = {
        .requests = queue_requests(asked, kind),
        .requests_fast = queue_requests_fast(asked, kind),
        .bytes = load(&counts->bytes) + (fast_op ? load(&asked->fast_bytes[fast_op]) : 0),
        .errors = load(&counts->errors),
    };
    sized_out(stats, &full, sizeof(full));
    return 0;
}
