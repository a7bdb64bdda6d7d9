/* SPDX-License-Identifier: MIT */
/*
 * The map: its entries, and what its parts do together. bat.c leads; see inside.h for the others.
 * What the lower rooms call back comes in here: a SYNC is done, the allocator wants a reclaim.
 */
#include "bat/inside.h"
#include "util/zeros.h"

#include <assert.h>
#include <errno.h>

/* In the turn; what other threads may change meanwhile is not looked at. */
static void assert_bat(const struct bat *bat)
{
    (void)bat;
    assert(bat->entries == bat->entries_memory.memory && bat->pages == bat->pages_memory.memory);
    assert(bat->page_count == geometry_page_count(&bat->geometry));
    assert(bat->stats.mapped <= bat->geometry.bat_entries);
    assert(bat->over_limit <= bat->page_count && (!bat->over_limit || bat->allocation_error));
    assert(bat->deadlines.count <= bat->page_count);
    assert(bat->stats.pages_failed <= bat->stats.pages_dirty + bat->page_count);
}

static void sync_done(struct syncer *syncer)
{
    struct bat *bat = container_of(syncer, struct bat, syncer);
    assert_bat(bat);
    alloc_synced(&bat->alloc);
    if (bat_latch(bat)) {
        bat->latched(bat->owner, syncer->cause);
        bat_fail_waiters(bat, bat_latch(bat));
    } else {
        pages_synced(bat);
        ripen_by_clock(bat);
    }
}

static void reclaim_done(struct round_wait *wait, int result)
{
    struct bat *bat = container_of(wait, struct bat, reclaim_wait);
    (void)result; /* what has become ripe is seen, and if nothing has, space is refused */
    alloc_reclaimed(&bat->alloc);
}

static void reclaim(struct alloc *alloc)
{
    struct bat *bat = container_of(alloc, struct bat, alloc);
    bat_join_round(bat, &bat->reclaim_wait, reclaim_done);
}

/* What grows with the disk. */
static int take_arrays(struct bat *bat)
{
    const struct geometry *geometry = &bat->geometry;
    uint64_t entries_limit = geometry_entries_limit(geometry);
    uint32_t page_limit = geometry_page_limit(geometry);
    if (growing_init(&bat->entries_memory, geometry->bat_entries * sizeof(*bat->entries),
                     entries_limit * sizeof(*bat->entries)) ||
        growing_init(&bat->pages_memory, bat->page_count * sizeof(*bat->pages),
                     page_limit * sizeof(*bat->pages)) ||
        deadlines_init(&bat->deadlines, bat->page_count, page_limit)) {
        return -ENOMEM;
    }
    bat->entries = bat->entries_memory.memory;
    bat->pages = bat->pages_memory.memory;
    return 0;
}

int bat_init(struct bat *bat, const struct header *header, struct channel *channel,
             const struct alloc_config *space)
{
    bat->header = *header;
    bat->geometry = header->geometry;
    bat->channel = channel;
    sync_init(&bat->syncer, channel);
    bat->syncer.done = sync_done;
    durable_init(bat);
    round_init(bat);
    bat->page_count = geometry_page_count(&bat->geometry);
    bat->entry_count = bat->geometry.bat_entries;
    if (take_arrays(bat) || writeback_init(bat) ||
        alloc_init(&bat->alloc, channel, &bat->syncer, &bat->geometry, space)) {
        return -ENOMEM;
    }
    bat->alloc.reclaim = reclaim;
    for (uint32_t i = 0; i < CHANNEL_WINDOW; i++) {
        bat->zero_iov[i] = (struct iovec){zeros_block(), ZEROS_SIZE};
    }
    for (uint32_t page = 0; page < bat->page_count; page++) {
        page_init(bat, page);
    }
    assert_bat(bat);
    return 0;
}

void bat_free(struct bat *bat)
{
    writeback_free(bat);
    deadlines_free(&bat->deadlines);
    alloc_free(&bat->alloc);
    growing_free(&bat->pages_memory);
    growing_free(&bat->entries_memory);
    bat->pages = NULL;
    bat->entries = NULL;
}

/* No other thread looks yet, so the words need not be stored one by one. */
void bat_set_loaded(struct bat *bat, uint32_t page, const uint32_t *entries, uint32_t mapped)
{
    uint32_t first = geometry_page_first(page), n = geometry_page_entries(&bat->geometry, page);
    _Static_assert(sizeof(*bat->entries) == sizeof(*entries), "atomic words are plain ones");
    assert(mapped <= n && bat->pages[page].mapped == 0);
    growing_fill(&bat->entries_memory, first * sizeof(*entries), entries, n * sizeof(*entries));
    atomic_store_explicit(&bat->pages[page].mapped, mapped, memory_order_relaxed);
    count(&bat->stats.mapped, mapped);
}

void bat_set_bad(struct bat *bat, struct guest_cluster guest)
{
    assert(guest.n < bat->geometry.bat_entries);
    uint32_t old =
        atomic_exchange_explicit(&bat->entries[guest.n], BAT_ENTRY_BAD, memory_order_relaxed);
    if (old && old != BAT_ENTRY_BAD) {
        atomic_fetch_sub_explicit(&bat->pages[geometry_page_of(guest)].mapped, 1,
                                  memory_order_relaxed);
        count(&bat->stats.mapped, UINT64_MAX);
    }
}

void bat_map(struct bat *bat, struct guest_cluster guest, struct host_cluster host,
             struct sync_number number)
{
    uint32_t page = geometry_page_of(guest);
    assert(bat_entry(bat, guest) == 0 && guest.n < bat->geometry.bat_entries);
    assert(number.n <= sync_next(&bat->syncer).n);
    atomic_store_explicit(&bat->entries[guest.n], geometry_entry(&bat->geometry, host),
                          memory_order_release);
    atomic_fetch_add_explicit(&bat->pages[page].mapped, 1, memory_order_relaxed);
    count(&bat->stats.mapped, 1);
    page_change(bat, page, sync_is_done(&bat->syncer, number) ? SYNC_NONE : number);
}

bool bat_can_keep_track(const struct bat *bat)
{
    return alloc_can_pend(&bat->alloc) || bat_latch(bat);
}

void bat_unmap(struct bat *bat, struct guest_cluster guest)
{
    uint32_t page = geometry_page_of(guest);
    uint32_t entry = bat_entry(bat, guest);
    assert(entry && entry != BAT_ENTRY_BAD);
    assert(bat->pages[page].mapped > 0);
    atomic_store_explicit(&bat->entries[guest.n], 0, memory_order_release);
    atomic_fetch_sub_explicit(&bat->pages[page].mapped, 1, memory_order_relaxed);
    count(&bat->stats.mapped, UINT64_MAX);
    page_change(bat, page, SYNC_NONE);
    if (alloc_can_pend(&bat->alloc)) {
        alloc_pend(&bat->alloc, geometry_host(&bat->geometry, entry), page, bat->pages[page].gen,
                   &bat->pages[page].pending);
    }
}

void bat_move(struct bat *bat, struct guest_cluster guest, struct host_cluster host)
{
    uint32_t page = geometry_page_of(guest), entry = bat_entry(bat, guest);
    assert(entry && entry != BAT_ENTRY_BAD && bat_can_keep_track(bat));
    atomic_store_explicit(&bat->entries[guest.n], geometry_entry(&bat->geometry, host),
                          memory_order_release);
    page_change(bat, page, sync_next(&bat->syncer));
    if (alloc_can_pend(&bat->alloc)) {
        alloc_pend(&bat->alloc, geometry_host(&bat->geometry, entry), page, bat->pages[page].gen,
                   &bat->pages[page].pending);
    }
}

int bat_enlarge(struct bat *bat, const struct geometry *grown)
{
    uint32_t pages = geometry_page_count(grown);
    uint64_t more = grown->bat_entries - bat->geometry.bat_entries;
    int error =
        growing_extend(&bat->entries_memory, (uint64_t)grown->bat_entries * sizeof(*bat->entries));
    if (!error) {
        error = growing_extend(&bat->pages_memory, (uint64_t)pages * sizeof(*bat->pages));
    }
    if (!error) {
        error = deadlines_extend(&bat->deadlines, pages);
    }
    return error ? error
                 : alloc_enlarge(&bat->alloc, more + geometry_host_first(grown) -
                                                  geometry_host_first(&bat->geometry));
}

void bat_grow(struct bat *bat, const struct geometry *grown)
{
    uint32_t before = bat->page_count, after = geometry_page_count(grown);
    assert(grown->bat_entries >= bat->geometry.bat_entries);
    bat->geometry = *grown;
    for (uint32_t page = before; page < after; page++) {
        page_init(bat, page);
    }
    bat->entry_count = grown->bat_entries;
    bat->page_count = after; /* now that its pages are there */
    page_change(bat, before - 1, SYNC_NONE);
    assert_bat(bat);
}

void bat_header_changed(struct bat *bat, struct sync_number barrier)
{
    page_change(bat, 0, barrier);
}

void bat_rewrite_all(struct bat *bat)
{
    for (uint32_t page = 0; page < bat->page_count; page++) {
        page_change(bat, page, sync_next(&bat->syncer));
        page_make_due(bat, page);
    }
}

void bat_fail_waiters(struct bat *bat, int error)
{
    assert(error && bat_latch(bat));
    durable_fail(bat, error);
    round_fail(bat, error);
    sync_fail_waiters(&bat->syncer, error);
}

void bat_pump(struct bat *bat)
{
    if (!bat_latch(bat) && bat->stats.pages_failed == 0) {
        alloc_reclaim_early(&bat->alloc);
    }
    round_pump(bat);
    writeback_pump(bat);
    alloc_pump(&bat->alloc);
    sync_pump(&bat->syncer);
    assert_bat(bat);
}

bool bat_is_idle(const struct bat *bat)
{
    return list_is_empty(&bat->images_busy) && !bat->syncer.in_flight &&
           alloc_is_at_rest(&bat->alloc);
}

bool bat_is_quiet(const struct bat *bat)
{
    return bat_is_idle(bat) && !bat->round.running && list_is_empty(&bat->round.next) &&
           list_is_empty(&bat->durable_waits) && bat->stats.pages_dirty == 0 &&
           list_is_empty(&bat->unsynced);
}

/* ---- after the map was the top's ---- */

void bat_forget(struct bat *bat, struct guest_cluster guest)
{
    assert(guest.n < bat->geometry.bat_entries && bat_is_quiet(bat));
    atomic_store_explicit(&bat->entries[guest.n], 0, memory_order_release);
}

void bat_retire(struct bat *bat)
{
    assert(bat_is_quiet(bat));
    growing_empty(&bat->entries_memory);
    writeback_free(bat);
    alloc_free(&bat->alloc);
}

void bat_take_over_counts(struct bat *bat, const struct bat *old)
{
    struct bat_stats *to = &bat->stats;
    const struct bat_stats *from = &old->stats;
    count(&to->page_dirties, from->page_dirties);
    count(&to->page_redirties, from->page_redirties);
    count(&to->page_writes, from->page_writes);
    count(&to->page_write_calls, from->page_write_calls);
    count(&to->page_write_failures, from->page_write_failures);
    count(&to->barriers, from->barriers);
    count(&to->flushes_coalesced, from->flushes_coalesced);
    count(&bat->syncer.count, old->syncer.count);
    count(&bat->syncer.failures, old->syncer.failures);
    count(&bat->alloc.work.extensions, old->alloc.work.extensions);
    count(&bat->alloc.work.punches, old->alloc.work.punches);
}
