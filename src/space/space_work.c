/* SPDX-License-Identifier: MIT */
/* The states and invariants stand in space_work.h. */
#include "space/space_work.h"
#include "util/refusal.h"

#include "util/zeros.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ZERO_BYTES_MAX (UINT64_C(16) << 20)
#define ZERO_AHEAD_BYTES_MAX (UINT64_C(64) << 20)

enum { ZERO_CLUSTERS_MAX = 1024, ZERO_AHEAD_CLUSTERS_MAX = 16384 };

__attribute__((unused)) /* without assertions */
static bool
is_extending(const struct space_work *work)
{
    return work->state == SPACE_EXTENDING || work->state == SPACE_EXTENDING_LEAST;
}

static void assert_space(const struct space_work *work)
{
#ifndef NDEBUG
    const struct space_map *map = work->map;
    bool has_run = work->state == SPACE_ZEROING || work->state == SPACE_ZEROED;
    assert(has_run == (work->run.count > 0));
    assert(has_run || work->zeroing_at == 0);
    assert(is_extending(work) == (work->new_end > 0));
    assert(!is_extending(work) || (work->new_end > map->fresh_end && work->new_end <= map->limit));
    assert(work->state != SPACE_ZEROED || work->syncer->in_flight);
    assert(!work->host_shows_stale || !work->can_punch);
    assert(work->durable_end <= map->fresh_end);
    assert(work->blocks_begin <= work->blocks_end && work->blocks_end <= map->fresh_end);
    assert(!work->host_shows_stale || work->blocks_end == 0);
#else
    (void)work;
#endif
}

/* The one place where the state changes. */
static void set_space_state(struct space_work *work, enum space_state next)
{
    static const uint32_t legal[] = {
        [SPACE_IDLE] = 1u << SPACE_EXTENDING | 1u << SPACE_EXTENDING_LEAST |
                       1u << SPACE_ALLOCATING | 1u << SPACE_ZEROING | 1u << SPACE_TRIMMING |
                       1u << SPACE_ENDED,
        [SPACE_EXTENDING] = 1u << SPACE_IDLE,
        [SPACE_EXTENDING_LEAST] = 1u << SPACE_IDLE,
        [SPACE_ALLOCATING] = 1u << SPACE_IDLE,
        [SPACE_ZEROING] = 1u << SPACE_IDLE | 1u << SPACE_ZEROED,
        [SPACE_ZEROED] = 1u << SPACE_IDLE,
        [SPACE_TRIMMING] = 1u << SPACE_ENDED,
        [SPACE_ENDED] = 1u << SPACE_IDLE,
    };
    assert(legal[work->state] & 1u << next);
    (void)legal;
    work->state = next;
}

/* Back to IDLE: whatever only the piece of work that is done needed is reset. */
static void work_done(struct space_work *work, int result)
{
    enum space_state was = work->state;
    set_space_state(work, SPACE_IDLE);
    work->run = (struct space_run){{0}, 0};
    work->zeroing_at = work->new_end = 0;
    assert_space(work);
    work->done(work, was, result);
}

void space_work_init(struct space_work *work, struct channel *channel, uint64_t file_size)
{
    channel_io_init(&work->io, channel);
    work->file_size = file_size;
    work->durable_end = work->map->fresh_end;
    work->partial_tail = geometry_has_tail(work->geometry, file_size);
    assert_space(work);
}

/* ---- zeroing ---- */

static void zeroing_done(struct channel_io *io, int result);

static uint64_t run_bytes(const struct space_work *work)
{
    return work->run.count * work->geometry->cluster_size;
}

/*
 * The longest run that is zeroed before the first of its clusters is handed out. A backend may have
 * to write the zeros of a punch, so the bytes of a run are limited, but it has always one cluster.
 */
static uint64_t zero_run_max(const struct space_work *work, bool ahead)
{
    uint64_t bytes = ahead ? ZERO_AHEAD_BYTES_MAX : ZERO_BYTES_MAX;
    uint64_t most = ahead ? ZERO_AHEAD_CLUSTERS_MAX : ZERO_CLUSTERS_MAX;
    uint64_t clusters = work->can_punch ? bytes / work->geometry->cluster_size : 1;
    clusters = clusters < most ? clusters : most;
    return clusters ? clusters : 1;
}

static void zeroing_send(struct space_work *work)
{
    uint64_t offset = geometry_host_offset(work->geometry, work->run.first);
    work->io.stop = &work->syncer->tripped;
    if (work->can_punch) {
        work->zeroing_at = run_bytes(work);
        channel_order(&work->io, PLOOP_IO_PUNCH, offset, run_bytes(work), zeroing_done);
        return;
    }
    uint64_t left = run_bytes(work) - work->zeroing_at, length = 0;
    struct iov_cursor cursor = {.iov = work->zero_iov};
    while (cursor.count < CHANNEL_WINDOW && length < left) {
        uint64_t part = left - length < ZEROS_SIZE ? left - length : ZEROS_SIZE;
        work->zero_iov[cursor.count++] = (struct iovec){zeros_block(), (size_t)part};
        length += part;
    }
    assert(length > 0);
    offset += work->zeroing_at;
    work->zeroing_at += length;
    channel_transfer(&work->io, PLOOP_IO_WRITE, 0, cursor, offset, length, zeroing_done);
}

void space_zero(struct space_work *work, bool ahead)
{
    assert(!work->syncer->error);
    set_space_state(work, SPACE_ZEROING);
    work->run = space_map_take_unknown(work->map, zero_run_max(work, ahead));
    assert_space(work);
    zeroing_send(work);
}

static void zeroing_failed(struct space_work *work, int error)
{
    assert(error);
    space_map_add(work->map, FREE_UNKNOWN, work->run);
    if (is_refusal(error) && work->can_punch) {
        work->can_punch = false;
        error = -EAGAIN;
    }
    work_done(work, error);
}

static void zeroed(struct space_work *work)
{
    space_map_add(work->map, FREE_ZEROED, work->run);
    work->zeroed_number = sync_next(work->syncer);
    work_done(work, 0);
}

static void zeroing_done(struct channel_io *io, int result)
{
    struct space_work *work = container_of(io, struct space_work, io);
    assert(work->state == SPACE_ZEROING);
    assert_space(work);
    if (result || work->syncer->error) {
        zeroing_failed(work, result ? result : work->syncer->error);
    } else if (work->zeroing_at < run_bytes(work)) {
        zeroing_send(work);
    } else {
        atomic_fetch_add_explicit(&work->punches, work->run.count, memory_order_relaxed);
        if (work->syncer->in_flight) {
            set_space_state(work, SPACE_ZEROED);
            assert_space(work);
        } else {
            zeroed(work);
        }
    }
}

/* ---- extending ---- */

static void extension_done(struct channel_io *io, int result);

void space_extend(struct space_work *work, uint64_t clusters, bool least)
{
    const struct space_map *map = work->map;
    uint64_t room = map->limit - map->fresh_end;
    /* A file that ends inside a cluster gains that one only as `unknown`. */
    clusters += work->partial_tail;
    assert(clusters > 0 && room > work->partial_tail);
    set_space_state(work, least ? SPACE_EXTENDING_LEAST : SPACE_EXTENDING);
    work->io.stop = NULL;
    work->new_end = map->fresh_end + (clusters < room ? clusters : room);
    assert_space(work);
    /* To the end of a block: a write of a part of it meanwhile cannot make the file longer. */
    uint64_t end = geometry_place_offset(work->geometry, work->new_end);
    uint64_t block = work->io.channel->block;
    channel_order(&work->io, PLOOP_IO_TRUNCATE, (end + block - 1) / block * block, 0,
                  extension_done);
}

static void extended(struct space_work *work)
{
    struct space_map *map = work->map;
    uint64_t added = work->new_end - map->fresh_end, old_end = map->fresh_end;
    bool all_taken = space_map_fresh_count(map) == 0;
    space_map_extend(map, work->new_end);
    work->file_size = work->io.io.pub.offset;
    work->extension_number = sync_next(work->syncer);
    atomic_fetch_add_explicit(&work->extensions, 1, memory_order_relaxed);
    /*
     * The rest of a cluster that the file had a part of, and holes that may come to show what their
     * blocks held, are not zeros.
     */
    uint64_t unknown = work->host_shows_stale ? added : work->partial_tail;
    assert(unknown == 0 || all_taken);
    (void)all_taken;
    work->partial_tail = false;
    if (unknown > 0 && old_end + unknown > map->fresh_next) {
        space_map_forget_fresh(map, old_end + unknown - map->fresh_next);
    }
    work_done(work, 0);
}

static void extension_done(struct channel_io *io, int result)
{
    struct space_work *work = container_of(io, struct space_work, io);
    assert(is_extending(work));
    assert_space(work);
    if (result) {
        work->failed_clusters = work->new_end - work->map->fresh_end - work->partial_tail;
        work_done(work, result);
    } else {
        extended(work);
    }
}

void space_own_tail(struct space_work *work, uint64_t file_size)
{
    struct space_map *map = work->map;
    assert(work->state == SPACE_IDLE && work->partial_tail && map->fresh_next == map->fresh_end);
    space_map_extend(map, map->fresh_end + 1);
    (void)space_map_take_fresh(map);
    work->partial_tail = false;
    work->file_size = file_size;
    assert_space(work); /* durable_end moves with the next SYNC: it covers the extension */
}

bool space_extension_was_large(const struct space_work *work)
{
    return work->failed_clusters > 1;
}

/* ---- blocks ahead ---- */

static void allocated(struct channel_io *io, int result)
{
    struct space_work *work = container_of(io, struct space_work, io);
    assert(work->state == SPACE_ALLOCATING);
    assert_space(work);
    if (is_refusal(result)) {
        work->can_allocate = false;
        work->blocks_begin = work->blocks_end = 0;
    }
    work_done(work, result);
}

void space_allocate(struct space_work *work, uint64_t begin, uint64_t end)
{
    const struct geometry *geometry = work->geometry;
    uint64_t from = geometry_place_offset(geometry, begin);
    assert(begin >= work->map->fresh_next && begin >= work->blocks_end);
    assert(begin < end && end <= work->map->fresh_end && work->can_allocate && work->can_punch);
    set_space_state(work, SPACE_ALLOCATING);
    work->io.stop = NULL;
    if (begin != work->blocks_end) {
        work->blocks_begin = begin;
    }
    work->blocks_end = end; /* if it fails too: a part may have been allocated */
    assert_space(work);
    channel_order(&work->io, PLOOP_IO_ALLOCATE, from, geometry_place_offset(geometry, end) - from,
                  allocated);
}

void space_forget_blocks(struct space_work *work)
{
    space_map_forget_fresh(work->map, space_blocks_ahead(work));
    work->blocks_begin = work->blocks_end = 0;
    assert_space(work);
}

/* ---- what is durable ---- */

void space_synced(struct space_work *work)
{
    const struct syncer *syncer = work->syncer;
    if (syncer->error) {
        if (work->state == SPACE_ZEROED) {
            zeroing_failed(work, syncer->error);
        }
        return;
    }
    if (sync_is_done(syncer, work->extension_number)) {
        work->durable_end = work->map->fresh_end;
    }
    if (space_map_count(work->map, FREE_ZEROED) > 0 && sync_is_done(syncer, work->zeroed_number)) {
        space_map_zeroed_is_zero(work->map);
    }
    if (work->state == SPACE_ZEROED) {
        zeroed(work);
    }
}

/* ---- the end ---- */

static void cut(struct channel_io *io, int result)
{
    struct space_work *work = container_of(io, struct space_work, io);
    set_space_state(work, SPACE_ENDED);
    work->cut_result = result;
    if (!result) {
        work->file_size = work->io.io.pub.offset;
    }
}

/*
 * Behind the last cluster in use, and where a block of the file begins: a write of a part of a
 * block makes the file as long as that block.
 */
static uint64_t cut_place(const struct space_work *work)
{
    const struct space_map *map = work->map;
    uint64_t place = space_map_used_end(map);
    while (place < map->fresh_end &&
           geometry_place_offset(work->geometry, place) % work->io.channel->block) {
        place++;
    }
    return place;
}

void space_cut(struct space_work *work)
{
    struct space_map *map = work->map;
    work->old_end = map->fresh_end + work->partial_tail;
    work->blocks_begin = work->blocks_end = 0;
    work->durable_end = 0;
    space_map_cut_at(map, cut_place(work)); /* what becomes free below it meanwhile is left */
    uint64_t end = geometry_place_offset(work->geometry, map->fresh_end);
    set_space_state(work, SPACE_TRIMMING);
    work->io.stop = &work->syncer->tripped;
    work->cut_result = 0;
    if (end < work->io.channel->file_size && end % work->io.channel->block == 0) {
        channel_order(&work->io, PLOOP_IO_TRUNCATE, end, 0, cut);
    } else {
        work->old_end = map->fresh_end;
        set_space_state(work, SPACE_ENDED);
    }
}

int space_cut_durable(struct space_work *work, int result)
{
    struct space_map *map = work->map;
    assert(work->state == SPACE_ENDED && work->old_end > 0);
    result = work->cut_result ? work->cut_result : result;
    if (result) {
        space_map_uncut(map, work->old_end);
    } else {
        work->durable_end = map->fresh_end;
        work->partial_tail = false;
    }
    work->old_end = 0;
    set_space_state(work, SPACE_IDLE);
    assert_space(work);
    return work->cut_result;
}

static void trimmed(struct channel_io *io, int result)
{
    struct space_work *work = container_of(io, struct space_work, io);
    set_space_state(work, SPACE_ENDED);
    work->was_cut = !result;
    work->cut_failed = result != 0;
    if (!result) {
        work->file_size = work->io.io.pub.offset;
    }
    assert_space(work);
}

bool space_trim(struct space_work *work, bool may_cut)
{
    uint64_t end = geometry_place_offset(work->geometry, space_map_used_end(work->map));
    if (!may_cut || end >= work->io.channel->file_size) {
        set_space_state(work, SPACE_ENDED);
        return false;
    }
    set_space_state(work, SPACE_TRIMMING);
    work->io.stop = NULL;
    work->durable_end = 0;
    assert_space(work);
    channel_order(&work->io, PLOOP_IO_TRUNCATE, end, 0, trimmed);
    return true;
}

void space_resume(struct space_work *work)
{
    assert(!work->syncer->error && !work->syncer->in_flight);
    if (work->was_cut || work->cut_failed) {
        work->durable_end = work->blocks_begin = work->blocks_end = 0;
        work->was_cut ? space_map_cut(work->map) : space_map_abandon_end(work->map);
        work->durable_end = work->was_cut ? work->map->fresh_end : 0;
        work->partial_tail &= !work->was_cut;
    }
    work->was_cut = work->cut_failed = false;
    set_space_state(work, SPACE_IDLE);
    assert_space(work);
}
