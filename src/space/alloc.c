/* SPDX-License-Identifier: MIT */
/*
 * The allocator's decisions: what is handed out, and which space work comes next. The states and
 * invariants stand in alloc.h. alloc.c leads: it calls space_map.c, pending.c and space_work.c, and
 * only space_work.c calls back, when a piece of work is done.
 */
#include "space/alloc.h"

#include <assert.h>
#include <errno.h>

#define EXTEND_BYTES_MIN (UINT64_C(128) << 20)
#define EXTEND_BYTES_MAX (UINT64_C(1) << 30)

enum { EXTEND_CLUSTERS_MIN = 4 };

static void work_done(struct space_work *work, enum space_state was, int result);

static bool is_reclaiming(const struct alloc *alloc)
{
    return alloc->reclaims_begun != alloc->reclaims_done;
}

static void assert_alloc(const struct alloc *alloc)
{
#ifndef NDEBUG
    assert((alloc->shortage == NO_SHORTAGE) == list_is_empty(&alloc->waits));
    assert(alloc->shortage != SHORTAGE_RECLAIMING ||
           alloc->shortage_reclaim > alloc->reclaims_done);
    assert(alloc->reclaims_begun - alloc->reclaims_done <= 1);
    assert(alloc->reclaim_wanted <= alloc->reclaims_begun + 1);
    assert(alloc->reclaim_wanted <= alloc->reclaims_done || is_reclaiming(alloc));
    bool is_at_end = alloc->work.state == SPACE_TRIMMING || alloc->work.state == SPACE_ENDED;
    assert(!is_at_end || alloc->shortage == NO_SHORTAGE || alloc->work.old_end > 0);
#else
    (void)alloc;
#endif
}

int alloc_init(struct alloc *alloc, struct channel *channel, struct syncer *syncer,
               const struct geometry *geometry, const struct alloc_config *config)
{
    *alloc = (struct alloc){.channel = channel,
                            .syncer = syncer,
                            .geometry = geometry,
                            .extend_bytes_max = config->extend_bytes_max,
                            .can_grow = config->capabilities & PLOOP_FILE_CAN_GROW};
    alloc->work.can_punch =
        config->capabilities & PLOOP_FILE_CAN_PUNCH && !config->host_shows_stale;
    alloc->work.host_shows_stale = config->host_shows_stale;
    alloc->work.syncer = syncer;
    alloc->work.geometry = geometry;
    alloc->work.map = &alloc->map;
    alloc->work.done = work_done;
    list_init(&alloc->waits);
    list_init(&alloc->record_waits);
    list_init(&alloc->reclaim_waits);
    alloc->work.can_allocate =
        config->capabilities & PLOOP_FILE_CAN_ALLOCATE && alloc->work.can_punch;
    pending_init(&alloc->pending);
    int error = space_map_init(&alloc->map, geometry, config->file_size);
    if (!error) {
        space_work_init(&alloc->work, channel, config->file_size);
    }
    return error;
}

void alloc_free(struct alloc *alloc)
{
    space_map_free(&alloc->map);
}

/* ---- taking, and giving back ---- */

bool alloc_claim(struct alloc *alloc, struct host_cluster host)
{
    return space_map_claim(&alloc->map, (struct space_run){host, 1});
}

int alloc_take(struct alloc *alloc, struct host_cluster *host, struct sync_number *number)
{
    struct space_map *map = &alloc->map;
    const struct space_work *work = &alloc->work;
    bool latched = alloc->syncer->error != 0;
    if (work->old_end > 0) {
        return -EAGAIN; /* the file is being cut */
    }
    assert(work->state != SPACE_TRIMMING && work->state != SPACE_ENDED);
    alloc->eager |= !alloc->changed; /* what the file has in vain is needed, or given back */
    alloc->changed = true;
    if (!latched && space_map_count(map, FREE_ZERO) > 0) {
        *host = space_map_take(map, FREE_ZERO);
        *number = SYNC_NONE;
    } else if (!latched && alloc->prefers_holes && space_map_count(map, FREE_ZEROED) > 0) {
        *host = space_map_take(map, FREE_ZEROED);
        *number = work->zeroed_number;
    } else if (space_map_fresh_count(map) > 0) {
        *host = space_map_take_fresh(map);
        *number = host->n < work->durable_end ? SYNC_NONE : work->extension_number;
    } else if (!latched && space_map_count(map, FREE_ZEROED) > 0) {
        *host = space_map_take(map, FREE_ZEROED);
        *number = work->zeroed_number;
    } else {
        return -EAGAIN;
    }
    assert(number->n <= sync_next(alloc->syncer).n);
    return 0;
}

void alloc_entered(struct alloc *alloc, struct guest_cluster guest, struct host_cluster host)
{
    uint64_t clusters = ahead_enter(&alloc->ahead, guest, alloc->geometry->cluster_size);
    bool was_fresh = host.n + UINT64_C(1) == alloc->map.fresh_next;
    if (clusters > 0 && was_fresh) {
        alloc->ahead_clusters = clusters;
        alloc->ahead_end = alloc->map.fresh_next + clusters;
    }
}

void alloc_give_back(struct alloc *alloc, struct host_cluster host)
{
    space_map_give_back(&alloc->map, (struct space_run){host, 1});
}

void alloc_give_back_failed(struct alloc *alloc, struct host_cluster host)
{
    alloc_give_back(alloc, host);
    alloc->eager = true;
    turn_again(alloc->channel->turn);
}

int alloc_enlarge(struct alloc *alloc, uint64_t more)
{
    return space_map_enlarge(&alloc->map, more, geometry_host_limit(alloc->geometry));
}

void alloc_reserve(struct alloc *alloc, uint64_t end)
{
    struct space_work *work = &alloc->work;
    space_map_reserve(&alloc->map, end);
    if (work->blocks_begin < end) { /* those of reserved clusters stay */
        work->blocks_begin = work->blocks_begin < work->blocks_end && work->blocks_end > end
                                 ? end
                                 : work->blocks_end;
    }
    assert_alloc(alloc);
}

bool alloc_reserve_is_dry(const struct alloc *alloc)
{
    uint64_t end = alloc->map.reserved_end;
    bool is_zeroing = alloc->work.run.count > 0 && alloc->work.run.first.n < end;
    return !is_zeroing && !pending_below(&alloc->pending, end);
}

/* ---- removals ---- */

bool alloc_can_pend(const struct alloc *alloc)
{
    return pending_has_room(&alloc->pending);
}

void alloc_pend(struct alloc *alloc, struct host_cluster host, uint32_t page, uint64_t gen,
                int32_t *first)
{
    pending_add(&alloc->pending, host, page, gen, first);
}

void alloc_page_written(struct alloc *alloc, uint64_t gen, int32_t *first)
{
    pending_page_written(&alloc->pending, alloc->syncer, gen, first);
}

static void ripen(struct alloc *alloc)
{
    struct space_run run;
    while (pending_take_ripe(&alloc->pending, alloc->syncer, &run)) {
        space_map_give_back(&alloc->map, run);
        alloc->eager = true;
        alloc->zeroing_error = 0;
    }
}

void alloc_synced(struct alloc *alloc)
{
    space_synced(&alloc->work);
    if (!alloc->syncer->error) {
        ripen(alloc);
    }
    assert_alloc(alloc);
}

/* ---- waiting for space ---- */

static void end_waits(struct list *waits, int result)
{
    struct list ended;
    list_init(&ended);
    list_move_all(&ended, waits); /* the same waits may begin again inside */
    struct list *link;
    while ((link = list_take_first(&ended)) != NULL) {
        struct alloc_wait *wait = container_of(link, struct alloc_wait, link);
        wait->then(wait, result);
    }
}

void alloc_wait(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then)
{
    if (alloc->shortage == NO_SHORTAGE) {
        alloc->shortage = SHORTAGE;
        alloc->zeroing_error = 0;
    }
    wait->then = then;
    list_append(&alloc->waits, &wait->link);
    turn_again(alloc->channel->turn);
    assert_alloc(alloc);
}

/* Space has come, or there is none: the shortage is over. */
static void end_shortage(struct alloc *alloc, int result)
{
    turn_again(alloc->channel->turn);
    if (alloc->shortage != NO_SHORTAGE) {
        alloc->shortage = NO_SHORTAGE;
        alloc->zeroing_error = 0;
        end_waits(&alloc->waits, result);
    }
}

/* ---- reclaim ---- */

/* Blocks that could be given back. */
static bool has_blocks_ahead(const struct alloc *alloc)
{
    return alloc->work.can_punch && !alloc->syncer->error && space_blocks_ahead(&alloc->work) > 0;
}

void alloc_give_blocks_back(struct alloc *alloc)
{
    if (has_blocks_ahead(alloc)) {
        space_forget_blocks(&alloc->work);
        alloc->ahead_failed = true;
        alloc->returning = alloc->eager = true;
        alloc->zeroing_error = 0;
        turn_again(alloc->channel->turn);
    }
}

static void begin_reclaim(struct alloc *alloc)
{
    if (!is_reclaiming(alloc)) {
        alloc->reclaims_begun++;
        alloc->reclaim(alloc);
    }
}

static void want_reclaim(struct alloc *alloc, uint64_t number)
{
    assert(number > alloc->reclaims_done && number <= alloc->reclaims_begun + 1);
    if (number > alloc->reclaim_wanted) {
        alloc->reclaim_wanted = number;
    }
    begin_reclaim(alloc);
    assert_alloc(alloc);
}

bool alloc_can_reclaim(const struct alloc *alloc)
{
    return alloc->pending.count > 0 || has_blocks_ahead(alloc) || alloc->returning ||
           !list_is_empty(&alloc->reclaim_waits);
}

uint32_t alloc_returns(const struct alloc *alloc)
{
    return alloc->returns;
}

void alloc_wait_for_reclaim(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then)
{
    alloc_give_blocks_back(alloc);
    wait->then = then;
    wait->reclaim = alloc->reclaims_begun + 1;
    list_append(&alloc->reclaim_waits, &wait->link);
    want_reclaim(alloc, wait->reclaim);
}

void alloc_wait_for_record(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then)
{
    wait->then = then;
    wait->reclaim = alloc->reclaims_done + 1;
    list_append(&alloc->record_waits, &wait->link);
    want_reclaim(alloc, wait->reclaim);
}

void alloc_reclaim_early(struct alloc *alloc)
{
    if (alloc->pending.count > PENDING_MAX / 2 || alloc->pending.clusters > PENDING_CLUSTERS) {
        begin_reclaim(alloc);
    }
}

/* Ends those waits that needed no later reclaim. */
static void end_reclaim_waits(struct alloc *alloc, struct list *waits)
{
    struct list ended;
    list_init(&ended);
    for (struct list *link = waits->next, *next; link != waits; link = next) {
        next = link->next;
        if (container_of(link, struct alloc_wait, link)->reclaim <= alloc->reclaims_done) {
            list_remove(link);
            list_append(&ended, link);
        }
    }
    if (!list_is_empty(&ended)) {
        turn_again(alloc->channel->turn);
        end_waits(&ended, 0);
    }
}

void alloc_reclaimed(struct alloc *alloc)
{
    assert(is_reclaiming(alloc));
    alloc->reclaims_done++;
    turn_again(alloc->channel->turn);
    if (alloc->shortage == SHORTAGE_RECLAIMING && alloc->shortage_reclaim <= alloc->reclaims_done) {
        alloc->shortage = SHORTAGE_RECLAIMED;
    }
    if (alloc->reclaim_wanted > alloc->reclaims_done) {
        begin_reclaim(alloc);
    }
    end_reclaim_waits(alloc, &alloc->record_waits);
    assert_alloc(alloc);
}

/* What a reclaim has brought is zeroed, or cannot be now. */
static bool is_settled(const struct alloc *alloc)
{
    return alloc->work.state == SPACE_IDLE && !alloc->eager && !is_reclaiming(alloc);
}

void alloc_fail_waits(struct alloc *alloc, int error)
{
    assert(error);
    end_shortage(alloc, error);
    end_waits(&alloc->reclaim_waits, error);
    end_waits(&alloc->record_waits, error);
    assert_alloc(alloc);
}

/* ---- what to do next ---- */

static uint64_t extension_clusters(const struct alloc *alloc)
{
    uint64_t cluster = alloc->geometry->cluster_size;
    uint64_t bytes = alloc->work.file_size / 8;
    bytes = bytes < EXTEND_BYTES_MIN   ? EXTEND_BYTES_MIN
            : bytes > EXTEND_BYTES_MAX ? EXTEND_BYTES_MAX
                                       : bytes;
    uint64_t clusters =
        bytes / cluster < EXTEND_CLUSTERS_MIN ? EXTEND_CLUSTERS_MIN : bytes / cluster;
    if (alloc->extend_bytes_max && clusters > alloc->extend_bytes_max / cluster) {
        clusters = alloc->extend_bytes_max / cluster;
    }
    /* No further than a full disk needs. */
    const struct space_map *map = &alloc->map;
    uint64_t first = map->first > map->reserved_end ? map->first : map->reserved_end;
    uint64_t have = map->fresh_end > first ? map->fresh_end - first : 0;
    uint64_t missing =
        alloc->geometry->bat_entries > have ? alloc->geometry->bat_entries - have : 0;
    clusters = clusters < missing ? clusters : missing;
    return clusters ? clusters : 1;
}

/*
 * Why a longer file would not help, or 0. Where new clusters are zeroed too, it is of no use while
 * nothing can be zeroed.
 */
static int growth_error(const struct alloc *alloc)
{
    uint64_t room = alloc->map.limit - alloc->map.fresh_end;
    bool zeroing_fails = alloc->zeroing_error && space_map_count(&alloc->map, FREE_UNKNOWN) > 0;
    bool unfit = alloc->work.host_shows_stale && (zeroing_fails || alloc->syncer->error);
    if (alloc->can_grow && room > alloc->work.partial_tail && !unfit) {
        return 0;
    }
    /* After a failed SYNC nothing is reused: space that comes would not help. */
    return alloc->syncer->error ? alloc->syncer->error
           : zeroing_fails      ? alloc->zeroing_error
                                : -ENOSPC;
}

/* 0: it is under way; or why it cannot be tried. */
static int extend(struct alloc *alloc, uint64_t clusters, bool least)
{
    int error = growth_error(alloc);
    if (!error) {
        space_extend(&alloc->work, clusters, least);
    }
    return error;
}

static bool may_zero(const struct alloc *alloc)
{
    return space_map_count(&alloc->map, FREE_UNKNOWN) > 0 && !alloc->syncer->error &&
           !alloc->zeroing_error;
}

/*
 * The file cannot be extended. While that was tried in vain, clusters may have ripened: the next
 * pump zeroes them, or they are zeroed already.
 */
static void out_of_space(struct alloc *alloc, int error)
{
    const struct space_map *map = &alloc->map;
    alloc->extension_failed = true;
    if (alloc->shortage == NO_SHORTAGE) {
        return;
    }
    if (!alloc->syncer->error &&
        space_map_count(map, FREE_ZERO) + space_map_count(map, FREE_ZEROED) > 0) {
        end_shortage(alloc, 0);
    } else if (may_zero(alloc)) {
        turn_again(alloc->channel->turn);
    } else if (alloc->pending.count > 0 && alloc->shortage == SHORTAGE && !alloc->syncer->error) {
        alloc->shortage = SHORTAGE_RECLAIMING;
        alloc->shortage_reclaim = alloc->reclaims_begun + 1;
        want_reclaim(alloc, alloc->shortage_reclaim);
    } else {
        end_shortage(alloc, error);
    }
}

static void zeroing_done(struct alloc *alloc, int result)
{
    if (!result) {
        alloc->zeroing_error = 0;
        end_shortage(alloc, 0);
        return;
    }
    if (result != -EAGAIN) {
        alloc->zeroing_error = result;
        alloc->eager = false;
    }
    turn_again(alloc->channel->turn);
}

static void extension_done(struct alloc *alloc, enum space_state was, int result)
{
    if (!result) {
        alloc->extension_failed = was == SPACE_EXTENDING_LEAST;
        alloc->ahead_failed = false;
        alloc->changed = true;
        end_shortage(alloc, 0);
        return;
    }
    if (space_extension_was_large(&alloc->work) &&
        (result == -ENOSPC || result == -EFBIG || result == -EDQUOT)) {
        result = extend(alloc, 1, true);
        if (!result) {
            return;
        }
    }
    out_of_space(alloc, result == -EFBIG ? -ENOSPC : result);
}

/* What a failed ALLOCATE has allocated in part may be what others lack now. */
static void allocation_done(struct alloc *alloc, int result)
{
    turn_again(alloc->channel->turn);
    if (result) {
        alloc->ahead_failed = true;
        alloc_give_blocks_back(alloc);
    }
}

static void work_done(struct space_work *work, enum space_state was, int result)
{
    struct alloc *alloc = container_of(work, struct alloc, work);
    if (was == SPACE_ALLOCATING) {
        allocation_done(alloc, result);
    } else if (was == SPACE_ZEROING || was == SPACE_ZEROED) {
        zeroing_done(alloc, result);
    } else {
        assert(was == SPACE_EXTENDING || was == SPACE_EXTENDING_LEAST);
        extension_done(alloc, was, result);
    }
    assert_alloc(alloc);
}

/* Whether so little is left that the file is extended before space is asked for. */
static bool runs_short(const struct alloc *alloc)
{
    const struct space_map *map = &alloc->map;
    uint64_t left = space_map_fresh_count(map) + space_map_count(map, FREE_ZERO) +
                    space_map_count(map, FREE_ZEROED);
    return alloc->changed && !alloc->extension_failed && !may_zero(alloc) &&
           !alloc->prefers_holes && !alloc->work.host_shows_stale &&
           left < extension_clusters(alloc) / 2;
}

/*
 * Blocks for what sequential writes are going to take. It is worth while once half of what they
 * should have is used up.
 */
static void allocate_ahead(struct alloc *alloc)
{
    const struct space_map *map = &alloc->map;
    const struct space_work *work = &alloc->work;
    uint64_t have = space_blocks_ahead(work), begin = map->fresh_next + have;
    uint64_t end = alloc->ahead_end < map->fresh_end ? alloc->ahead_end : map->fresh_end;
    if (work->can_allocate && work->can_punch && !alloc->ahead_failed && !alloc->syncer->error &&
        have <= alloc->ahead_clusters / 2 && begin < end) {
        space_allocate(&alloc->work, begin, end);
    }
}

static bool zeroes_eagerly(const struct alloc *alloc)
{
    return alloc->eager && alloc->work.can_punch;
}

static void settled(struct alloc *alloc)
{
    alloc->returns += alloc->returning || !list_is_empty(&alloc->reclaim_waits);
    alloc->returning = false;
    end_reclaim_waits(alloc, &alloc->reclaim_waits);
}

void alloc_pump(struct alloc *alloc)
{
    assert_alloc(alloc);
    if (is_settled(alloc)) {
        settled(alloc);
    }
    bool wanted = alloc->shortage != NO_SHORTAGE;
    if (alloc->work.state != SPACE_IDLE || alloc->channel->cut) {
        return;
    }
    if (may_zero(alloc) && (wanted || zeroes_eagerly(alloc))) {
        space_zero(&alloc->work, !wanted);
        return;
    }
    if (alloc->eager) {
        alloc->eager = false;
        turn_again(alloc->channel->turn); /* it may be settled now */
    }
    if (alloc->closing && !wanted) {
        return;
    }
    if (wanted && alloc->shortage != SHORTAGE_RECLAIMING) {
        int error = extend(alloc, extension_clusters(alloc), false);
        if (error) {
            out_of_space(alloc, error);
        }
    } else if (!wanted && runs_short(alloc)) {
        alloc->extension_failed = extend(alloc, extension_clusters(alloc), false) != 0;
    } else if (!wanted) {
        allocate_ahead(alloc);
    }
    assert_alloc(alloc);
}

/* ---- the end ---- */

bool alloc_is_at_rest(const struct alloc *alloc)
{
    bool idle = alloc->work.state == SPACE_IDLE || alloc->work.state == SPACE_ZEROED;
    bool wants = may_zero(alloc) && zeroes_eagerly(alloc) && !alloc->channel->cut;
    return (idle && !wants) || alloc->work.state == SPACE_ENDED;
}

bool alloc_trim(struct alloc *alloc)
{
    assert(alloc->shortage == NO_SHORTAGE);
    if (alloc->work.state == SPACE_ENDED) {
        return false;
    }
    bool begun = space_trim(&alloc->work, alloc->changed || alloc->recovered);
    assert_alloc(alloc);
    return begun;
}

void alloc_stop(struct alloc *alloc)
{
    alloc->closing = true;
}

void alloc_go_on(struct alloc *alloc)
{
    if (alloc->work.state == SPACE_ENDED) {
        space_resume(&alloc->work);
    }
    alloc->closing = alloc->ahead_failed = alloc->extension_failed = false;
    alloc->ahead_clusters = alloc->ahead_end = 0;
    turn_again(alloc->channel->turn);
    assert_alloc(alloc);
}
