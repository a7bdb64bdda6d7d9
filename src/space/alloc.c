/* SPDX-License-Identifier: MIT */
/*
 * The states and invariants stand in alloc.h. Here: which clusters have bits.
 *
 * A sparse file can have any size for nothing, so the bitmaps are sized by the entries there are
 * and not by the file: bits [0, window) are the first host clusters of the file as it was at open,
 * bits from `window` on are the clusters that this device adds behind file_end. What lies between
 * the two (usually nothing) is never reused. Bits below first_cluster (the header's and the BAT's
 * clusters) are never set.
 */
#include "space/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BIT_NONE UINT64_MAX
#define EXTEND_BYTES_MIN (UINT64_C(128) << 20)
#define EXTEND_BYTES_MAX (UINT64_C(1) << 30)
#define ZERO_BYTES_MAX (UINT64_C(16) << 20)

enum {
    EXTEND_CLUSTERS_MIN = 4,
    ZERO_CLUSTERS_MAX = 1024,
    WINDOW_PER_ENTRY = 16, /* bits for the file's own clusters, for each BAT entry */
    WINDOW_MIN = 1 << 20,
    TAKEN_SLACK = PENDING_MAX + 4096 /* clusters reserved or pending besides the mapped ones */
};

static void space_idle(struct alloc *alloc, int result);

static uint64_t bit_of(const struct alloc *alloc, struct host_cluster host)
{
    if (host.n < alloc->window) {
        return host.n;
    }
    return host.n < alloc->file_end ? BIT_NONE : host.n - alloc->file_end + alloc->window;
}

static struct host_cluster host_of(const struct alloc *alloc, uint64_t bit)
{
    return (struct host_cluster){
        (uint32_t)(bit < alloc->window ? bit : bit - alloc->window + alloc->file_end)};
}

static uint64_t bits_end(const struct alloc *alloc)
{
    return alloc->fresh_next - alloc->file_end + alloc->window;
}

int alloc_init(struct alloc *alloc, struct channel *channel, struct syncer *syncer,
               const struct geometry *geometry, const struct alloc_config *config)
{
    *alloc = (struct alloc){
        .channel = channel, .syncer = syncer, .geometry = geometry, .file_size = config->file_size};
    channel_io_init(&alloc->io, channel);
    alloc->can_grow = config->capabilities & PLOOP_FILE_CAN_GROW;
    alloc->can_punch = config->capabilities & PLOOP_FILE_CAN_PUNCH && !config->host_shows_stale;
    alloc->host_shows_stale = config->host_shows_stale;
    alloc->extend_bytes_max = config->extend_bytes_max;

    uint64_t first = geometry_host_first(geometry);
    uint64_t end = geometry_host_end(geometry, config->file_size);
    uint64_t host_limit = geometry_host_limit(geometry);
    if (end > host_limit) {
        end = host_limit;
    }
    uint64_t window = first + (uint64_t)geometry->bat_entries * WINDOW_PER_ENTRY + WINDOW_MIN;
    alloc->first_cluster = first;
    alloc->file_end = end;
    alloc->window = end < window ? end : window;
    alloc->fresh_next = alloc->fresh_end = alloc->durable_end = end;
    alloc->partial_tail = config->file_size > geometry->data_start &&
                          (config->file_size - geometry->data_start) % geometry->cluster_size != 0;
    alloc->limit = end + geometry->bat_entries + TAKEN_SLACK;
    if (alloc->limit > host_limit) {
        alloc->limit = host_limit;
    }

    uint64_t bits = alloc->window + (alloc->limit - end) + 1;
    uint64_t bits_limit = alloc->window + (host_limit - end) + 1;
    void *zeros = NULL;
    if (posix_memalign(&zeros, BAT_PAGE_SIZE, ZEROS_SIZE)) {
        return -ENOMEM;
    }
    alloc->zeros = memset(zeros, 0, ZEROS_SIZE);
    if (bitmap_init_growing(&alloc->zero, bits, bits_limit) ||
        bitmap_init_growing(&alloc->zeroed, bits, bits_limit) ||
        bitmap_init_growing(&alloc->unknown, bits, bits_limit)) {
        return -ENOMEM;
    }
    bitmap_set_range(&alloc->unknown, first, alloc->window);
    alloc->unknown_count = alloc->window - first;
    for (int32_t i = 0; i < PENDING_MAX; i++) {
        alloc->pending[i].next = i + 1 < PENDING_MAX ? i + 1 : PENDING_NONE;
    }
    alloc->ripening_first = alloc->ripening_last = PENDING_NONE;
    return 0;
}

void alloc_free(struct alloc *alloc)
{
    free(alloc->zeros);
    bitmap_free(&alloc->zero);
    bitmap_free(&alloc->zeroed);
    bitmap_free(&alloc->unknown);
}

bool alloc_claim(struct alloc *alloc, struct host_cluster host)
{
    uint64_t bit = bit_of(alloc, host);
    if (bit == BIT_NONE) {
        return true;
    }
    if (!bitmap_clear(&alloc->unknown, bit)) {
        return false;
    }
    alloc->unknown_count--;
    return true;
}

static struct host_cluster take_bit(struct alloc *alloc, struct bitmap *bitmap, uint64_t *count,
                                    uint64_t *cursor)
{
    uint64_t end = bits_end(alloc);
    uint64_t bit = bitmap_next_set(bitmap, *cursor, end);
    if (bit == end) {
        bit = bitmap_next_set(bitmap, alloc->first_cluster, end);
    }
    assert(bit < end);
    bitmap_clear(bitmap, bit);
    (*count)--;
    *cursor = bit;
    return host_of(alloc, bit);
}

int alloc_take(struct alloc *alloc, struct host_cluster *host, uint64_t *number)
{
    bool latched = alloc->syncer->error != 0;
    alloc->changed = true;
    if (!latched && alloc->zero_count > 0) {
        *host = take_bit(alloc, &alloc->zero, &alloc->zero_count, &alloc->zero_cursor);
        *number = 0;
    } else if (alloc->fresh_next < alloc->fresh_end) {
        *number = alloc->fresh_next < alloc->durable_end ? 0 : alloc->extension_number;
        *host = (struct host_cluster){(uint32_t)alloc->fresh_next++};
    } else if (!latched && alloc->zeroed_count > 0) {
        *host = take_bit(alloc, &alloc->zeroed, &alloc->zeroed_count, &alloc->zeroed_first);
        *number = alloc->zeroed_number;
    } else {
        if (!alloc->wanted) {
            alloc->zeroing_error = 0;
        }
        alloc->wanted = true;
        return -EAGAIN;
    }
    return 0;
}

static void make_unknown(struct alloc *alloc, uint64_t bit)
{
    if (bit != BIT_NONE) {
        bool was_clear = bitmap_set(&alloc->unknown, bit);
        assert(was_clear);
        (void)was_clear;
        alloc->unknown_count++;
        if (bit < alloc->unknown_cursor) {
            alloc->unknown_cursor = bit;
        }
    }
}

void alloc_give_back(struct alloc *alloc, struct host_cluster host)
{
    make_unknown(alloc, bit_of(alloc, host));
}

/* ---- removals: pending, ripening, unknown ---- */

bool alloc_can_pend(const struct alloc *alloc)
{
    return alloc->pending_free != PENDING_NONE;
}

void alloc_pend(struct alloc *alloc, struct host_cluster host, uint32_t page, uint64_t gen,
                int32_t *first)
{
    assert(alloc_can_pend(alloc));
    int32_t at = alloc->pending_free;
    struct pending *pending = &alloc->pending[at];
    alloc->pending_free = pending->next;
    alloc->pending_count++;
    *pending = (struct pending){.host = host, .page = page, .gen = gen, .next = *first};
    *first = at;
}

void alloc_page_written(struct alloc *alloc, uint64_t gen, int32_t *first)
{
    int32_t *link = first;
    while (*link != PENDING_NONE) {
        int32_t at = *link;
        struct pending *pending = &alloc->pending[at];
        if (pending->gen > gen) {
            link = &pending->next;
            continue;
        }
        *link = pending->next;
        pending->next = PENDING_NONE;
        pending->number = sync_next(alloc->syncer);
        if (alloc->ripening_last == PENDING_NONE) {
            alloc->ripening_first = at;
        } else {
            alloc->pending[alloc->ripening_last].next = at;
        }
        alloc->ripening_last = at;
    }
}

static void ripen(struct alloc *alloc)
{
    while (alloc->ripening_first != PENDING_NONE) {
        int32_t at = alloc->ripening_first;
        struct pending *pending = &alloc->pending[at];
        if (!sync_is_done(alloc->syncer, pending->number)) {
            break;
        }
        alloc->ripening_first = pending->next;
        if (alloc->ripening_first == PENDING_NONE) {
            alloc->ripening_last = PENDING_NONE;
        }
        make_unknown(alloc, bit_of(alloc, pending->host));
        alloc->eager = true;
        alloc->zeroing_error = 0;
        pending->next = alloc->pending_free;
        alloc->pending_free = at;
        alloc->pending_count--;
    }
}

/* ---- zeroing ---- */

static void zeroing_ended(struct channel_io *io, int result);

static void zeroed_add(struct alloc *alloc)
{
    for (uint64_t bit = alloc->work_first; bit < alloc->work_first + alloc->work_count; bit++) {
        bitmap_set(&alloc->zeroed, bit);
    }
    uint64_t end = alloc->work_first + alloc->work_count;
    if (alloc->zeroed_count == 0) {
        alloc->zeroed_first = alloc->work_first;
        alloc->zeroed_end = end;
    }
    alloc->zeroed_first =
        alloc->work_first < alloc->zeroed_first ? alloc->work_first : alloc->zeroed_first;
    alloc->zeroed_end = end > alloc->zeroed_end ? end : alloc->zeroed_end;
    alloc->zeroed_count += alloc->work_count;
    alloc->zeroed_number = sync_next(alloc->syncer);
    space_idle(alloc, 0);
}

static void zeroed_to_zero(struct alloc *alloc)
{
    uint64_t bit = alloc->zeroed_first;
    while ((bit = bitmap_next_set(&alloc->zeroed, bit, alloc->zeroed_end)) < alloc->zeroed_end) {
        bitmap_clear(&alloc->zeroed, bit);
        bitmap_set(&alloc->zero, bit);
        alloc->zero_count++;
        alloc->zeroed_count--;
    }
    assert(alloc->zeroed_count == 0);
}

static void zeroing_failed(struct alloc *alloc, int error)
{
    for (uint64_t bit = alloc->work_first; bit < alloc->work_first + alloc->work_count; bit++) {
        make_unknown(alloc, bit);
    }
    alloc->unknown_cursor = alloc->work_first + alloc->work_count; /* others first */
    if (error == -ENOTSUP && alloc->can_punch) {
        alloc->can_punch = false;
    } else {
        alloc->zeroing_error = error;
        alloc->eager = false;
    }
    alloc->work = SPACE_IDLE;
    turn_again(alloc->channel->turn);
}

static uint64_t work_bytes(const struct alloc *alloc)
{
    return alloc->work_count * alloc->geometry->cluster_size;
}

static void zeroing_send(struct alloc *alloc)
{
    uint64_t offset = geometry_host_offset(alloc->geometry, host_of(alloc, alloc->work_first));
    alloc->io.stop = &alloc->syncer->tripped;
    if (alloc->can_punch) {
        alloc->work_at = work_bytes(alloc);
        channel_order(&alloc->io, PLOOP_IO_PUNCH, offset, work_bytes(alloc), zeroing_ended);
        return;
    }
    uint64_t left = work_bytes(alloc) - alloc->work_at, length = 0;
    struct iov_cursor cursor = {.iov = alloc->zero_iov};
    while (cursor.count < CHANNEL_WINDOW && length < left) {
        uint64_t part = left - length < ZEROS_SIZE ? left - length : ZEROS_SIZE;
        alloc->zero_iov[cursor.count++] = (struct iovec){alloc->zeros, (size_t)part};
        length += part;
    }
    offset += alloc->work_at;
    alloc->work_at += length;
    channel_transfer(&alloc->io, PLOOP_IO_WRITE, 0, cursor, offset, length, zeroing_ended);
}

/*
 * The longest run that is zeroed before the first of its clusters is handed out. A backend may have
 * to write the zeros of a punch, so a run has at most ZERO_BYTES_MAX bytes, but always one cluster.
 */
static uint64_t zero_run_max(const struct alloc *alloc)
{
    uint64_t clusters = alloc->can_punch ? ZERO_BYTES_MAX / alloc->geometry->cluster_size : 1;
    clusters = clusters < ZERO_CLUSTERS_MAX ? clusters : ZERO_CLUSTERS_MAX;
    return clusters ? clusters : 1;
}

static void zeroing_begin(struct alloc *alloc)
{
    uint64_t end = bits_end(alloc);
    uint64_t bit = bitmap_next_set(&alloc->unknown, alloc->unknown_cursor, end);
    if (bit == end) {
        bit = bitmap_next_set(&alloc->unknown, alloc->first_cluster, end);
    }
    assert(bit < end);
    /* A run of bits is a run in the file, but for the step at the window's end. */
    uint64_t most = zero_run_max(alloc);
    if (bit < alloc->window && most > alloc->window - bit) {
        most = alloc->window - bit;
    }
    uint64_t run = bitmap_run(&alloc->unknown, bit, most);
    for (uint64_t i = 0; i < run; i++) {
        bitmap_clear(&alloc->unknown, bit + i);
    }
    alloc->unknown_count -= run;
    alloc->unknown_cursor = bit + run;
    alloc->work = SPACE_ZEROING;
    alloc->work_first = bit;
    alloc->work_count = run;
    alloc->work_at = 0;
    zeroing_send(alloc);
}

static void zeroing_ended(struct channel_io *io, int result)
{
    struct alloc *alloc = container_of(io, struct alloc, io);
    assert(alloc->work == SPACE_ZEROING);
    if (result || alloc->syncer->error) {
        zeroing_failed(alloc, result ? result : alloc->syncer->error);
    } else if (alloc->work_at < work_bytes(alloc)) {
        zeroing_send(alloc);
    } else {
        atomic_fetch_add_explicit(&alloc->punches, alloc->work_count, memory_order_relaxed);
        alloc->zeroing_error = 0;
        if (alloc->syncer->in_flight) {
            alloc->work = SPACE_ZEROED_WAITS;
        } else {
            zeroed_add(alloc);
        }
    }
}

/* ---- extending ---- */

static uint64_t extension_clusters(const struct alloc *alloc)
{
    uint64_t cluster = alloc->geometry->cluster_size;
    uint64_t bytes = alloc->file_size / 8;
    bytes = bytes < EXTEND_BYTES_MIN   ? EXTEND_BYTES_MIN
            : bytes > EXTEND_BYTES_MAX ? EXTEND_BYTES_MAX
                                       : bytes;
    uint64_t clusters =
        bytes / cluster < EXTEND_CLUSTERS_MIN ? EXTEND_CLUSTERS_MIN : bytes / cluster;
    if (alloc->extend_bytes_max && clusters > alloc->extend_bytes_max / cluster) {
        clusters = alloc->extend_bytes_max / cluster;
    }
    /* No further than a full disk needs. */
    uint64_t have = alloc->fresh_end - alloc->first_cluster;
    uint64_t missing =
        alloc->geometry->bat_entries > have ? alloc->geometry->bat_entries - have : 0;
    clusters = clusters < missing ? clusters : missing;
    return clusters ? clusters : 1;
}

static void extension_ended(struct channel_io *io, int result);

/*
 * Why a longer file would not help, or 0. Where new clusters are zeroed too, it is of no use while
 * nothing can be zeroed.
 */
static int growth_error(const struct alloc *alloc, uint64_t room)
{
    bool zeroing_fails = alloc->zeroing_error && alloc->unknown_count;
    bool unfit = alloc->host_shows_stale && (zeroing_fails || alloc->syncer->error);
    if (alloc->can_grow && room > alloc->partial_tail && !unfit) {
        return 0;
    }
    /* After a failed SYNC nothing is reused: space that comes would not help. */
    return alloc->syncer->error ? alloc->syncer->error
           : zeroing_fails      ? alloc->zeroing_error
                                : -ENOSPC;
}

/* False: it cannot be done, *error says why. */
static bool extension_begin(struct alloc *alloc, uint64_t clusters, int *error)
{
    uint64_t room = alloc->limit - alloc->fresh_end;
    /* A file that ends inside a cluster gains that one only as `unknown`. */
    clusters += alloc->partial_tail;
    if ((*error = growth_error(alloc, room)) != 0) {
        return false;
    }
    alloc->work = SPACE_EXTENDING;
    alloc->io.stop = NULL;
    alloc->least = false;
    alloc->work_first = alloc->fresh_end;
    alloc->work_count = alloc->fresh_end + (clusters < room ? clusters : room);
    uint64_t size = geometry_place_offset(alloc->geometry, alloc->work_count);
    channel_order(&alloc->io, PLOOP_IO_TRUNCATE, size, 0, extension_ended);
    return true;
}

static void extended(struct alloc *alloc)
{
    alloc->fresh_end = alloc->work_count;
    alloc->file_size = geometry_place_offset(alloc->geometry, alloc->fresh_end);
    alloc->extension_number = sync_next(alloc->syncer);
    alloc->extension_failed = alloc->least;
    alloc->changed = true;
    atomic_fetch_add_explicit(&alloc->extensions, 1, memory_order_relaxed);
    /*
     * The rest of a cluster that the file had a part of, and holes that may come to show what their
     * blocks held, are not zeros.
     */
    uint64_t unknown =
        alloc->host_shows_stale ? alloc->fresh_end - alloc->work_first : alloc->partial_tail;
    assert(unknown == 0 || alloc->fresh_next == alloc->work_first);
    alloc->partial_tail = false;
    while (unknown-- > 0) {
        make_unknown(alloc, bit_of(alloc, (struct host_cluster){(uint32_t)alloc->fresh_next++}));
    }
    space_idle(alloc, 0);
}

/*
 * While an extension was tried in vain, clusters may have ripened: the next pump zeroes them, or
 * they are zeroed already.
 */
static bool came_back(struct alloc *alloc)
{
    if (alloc->syncer->error) {
        return false;
    }
    if (alloc->zero_count + alloc->zeroed_count > 0) {
        space_idle(alloc, 0);
        return true;
    }
    return alloc->unknown_count > 0 && !alloc->zeroing_error;
}

static void out_of_space(struct alloc *alloc, int error)
{
    alloc->work = SPACE_IDLE;
    alloc->extension_failed = true;
    if (!alloc->wanted) {
        return;
    }
    if (came_back(alloc)) {
        turn_again(alloc->channel->turn);
        return;
    }
    if (alloc->pending_count > 0 && !alloc->reclaimed && !alloc->syncer->error) {
        alloc->reclaiming = true;
        alloc->reclaim_stale = false;
        alloc->reclaim(alloc);
        return;
    }
    space_idle(alloc, error);
}

static void extension_ended(struct channel_io *io, int result)
{
    struct alloc *alloc = container_of(io, struct alloc, io);
    assert(alloc->work == SPACE_EXTENDING);
    if (!result) {
        extended(alloc);
        return;
    }
    if (alloc->work_count - alloc->work_first > 1u + alloc->partial_tail &&
        (result == -ENOSPC || result == -EFBIG || result == -EDQUOT)) {
        if (extension_begin(alloc, 1, &result)) {
            alloc->least = true;
            return;
        }
    }
    out_of_space(alloc, result == -EFBIG ? -ENOSPC : result);
}

/* ---- what to do next ---- */

static void space_idle(struct alloc *alloc, int result)
{
    alloc->work = SPACE_IDLE;
    turn_again(alloc->channel->turn);
    if (alloc->wanted) {
        alloc->wanted = false;
        alloc->reclaimed = false;
        alloc->reclaim_stale = true;
        alloc->zeroing_error = 0;
        alloc->space(alloc, result);
    }
}

void alloc_reclaimed(struct alloc *alloc)
{
    alloc->reclaiming = false;
    alloc->reclaimed = alloc->wanted && !alloc->reclaim_stale; /* a later shortage begins anew */
    turn_again(alloc->channel->turn);
}

void alloc_synced(struct alloc *alloc)
{
    if (alloc->syncer->error) {
        if (alloc->work == SPACE_ZEROED_WAITS) {
            zeroing_failed(alloc, alloc->syncer->error);
        }
        return;
    }
    if (sync_is_done(alloc->syncer, alloc->extension_number)) {
        alloc->durable_end = alloc->fresh_end;
    }
    if (alloc->zeroed_count && sync_is_done(alloc->syncer, alloc->zeroed_number)) {
        zeroed_to_zero(alloc);
    }
    if (alloc->work == SPACE_ZEROED_WAITS) {
        zeroed_add(alloc);
    }
    ripen(alloc);
}

void alloc_pump(struct alloc *alloc)
{
    if (alloc->work != SPACE_IDLE || alloc->channel->cut || (alloc->closing && !alloc->wanted)) {
        return;
    }
    bool latched = alloc->syncer->error != 0;
    bool may_zero = alloc->unknown_count > 0 && !latched && !alloc->zeroing_error;
    int error = 0;
    if (may_zero && (alloc->wanted || (alloc->eager && alloc->can_punch))) {
        zeroing_begin(alloc);
        return;
    }
    if (alloc->eager) {
        alloc->eager = false;
        turn_again(alloc->channel->turn); /* who waits until all is settled */
    }
    if (alloc->wanted) {
        if (!alloc->reclaiming && !extension_begin(alloc, extension_clusters(alloc), &error)) {
            out_of_space(alloc, error);
        }
    } else if (alloc->changed && !alloc->extension_failed && !may_zero &&
               !alloc->host_shows_stale &&
               alloc->fresh_end - alloc->fresh_next + alloc->zero_count <
                   extension_clusters(alloc) / 2) {
        if (!extension_begin(alloc, extension_clusters(alloc), &error)) {
            alloc->extension_failed = true;
        }
    }
}

bool alloc_is_settled(const struct alloc *alloc)
{
    return alloc->work == SPACE_IDLE && !alloc->eager && !alloc->reclaiming;
}

uint64_t alloc_free_count(const struct alloc *alloc)
{
    return alloc->zero_count + alloc->zeroed_count + alloc->unknown_count +
           (alloc->fresh_end - alloc->fresh_next);
}

static bool is_free(const struct alloc *alloc, uint64_t bit)
{
    return bitmap_test(&alloc->zero, bit) || bitmap_test(&alloc->zeroed, bit) ||
           bitmap_test(&alloc->unknown, bit);
}

/* Where the last cluster in use ends, in bytes. */
static uint64_t used_end(const struct alloc *alloc)
{
    uint64_t bit = bits_end(alloc);
    uint64_t lowest = alloc->window < alloc->file_end ? alloc->window : alloc->first_cluster;
    while (bit > lowest && is_free(alloc, bit - 1)) {
        bit--;
    }
    uint64_t place = bit < alloc->window ? bit : bit - alloc->window + alloc->file_end;
    return geometry_place_offset(alloc->geometry, place);
}

static void trimmed(struct channel_io *io, int result)
{
    struct alloc *alloc = container_of(io, struct alloc, io);
    assert(alloc->work == SPACE_TRIMMING);
    alloc->work = SPACE_CLOSING;
    if (!result) {
        alloc->file_size = alloc->io.io.pub.offset;
    }
}

bool alloc_trim(struct alloc *alloc)
{
    assert(alloc->work == SPACE_IDLE && !alloc->wanted);
    alloc->work = SPACE_CLOSING;
    uint64_t end = used_end(alloc);
    if (!(alloc->changed || alloc->recovered) || end >= alloc->file_size) {
        return false;
    }
    alloc->work = SPACE_TRIMMING;
    alloc->io.stop = NULL;
    alloc->durable_end = 0;
    channel_order(&alloc->io, PLOOP_IO_TRUNCATE, end, 0, trimmed);
    return true;
}
