/* SPDX-License-Identifier: MIT */
/*
 * The operator's window on the map and its pages. Looking reads atomics; what changes something is
 * posted to the turn, by work that is kept for it, so that it needs no memory and never waits.
 */
#include "life/life.h"
#include "util/sized.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

enum {
    PUBLIC_STATE = PLOOP_BAT_PAGE_DIRTY | PLOOP_BAT_PAGE_WRITEBACK | PLOOP_BAT_PAGE_HIGH_PRIORITY |
                   PLOOP_BAT_PAGE_FAILED | PLOOP_BAT_PAGE_UNSYNCED,
    NOT_CLEAN = PLOOP_BAT_PAGE_DIRTY | PLOOP_BAT_PAGE_WRITEBACK | PLOOP_BAT_PAGE_UNSYNCED
};

uint32_t ploop_bat_page_count(const ploop_dev *dev)
{
    return dev_bat(dev)->page_count;
}

int ploop_bat_page_info(ploop_dev *dev, uint32_t page, struct ploop_bat_page_info *info)
{
    int error = sized_out_check(info, offsetof(struct ploop_bat_page_info, reserved));
    if (error || page >= dev_bat(dev)->page_count) {
        return -EINVAL;
    }
    const struct bat_page *known = &dev_bat(dev)->pages[page];
    struct ploop_bat_page_info full = {
        .page = page,
        .state = atomic_load_explicit(&known->state, memory_order_relaxed) & PUBLIC_STATE,
        .mapped = atomic_load_explicit(&known->mapped, memory_order_relaxed),
        .changes = atomic_load_explicit(&known->changes, memory_order_relaxed),
        .dirtied_ns = atomic_load_explicit(&known->dirtied_ns, memory_order_relaxed),
        .deadline_ns = atomic_load_explicit(&known->deadline_ns, memory_order_relaxed),
        .writes = atomic_load_explicit(&known->writes, memory_order_relaxed),
        .error = atomic_load_explicit(&known->error, memory_order_relaxed),
    };
    sized_out(info, &full, sizeof(full));
    return 0;
}

int ploop_bat_page_next_dirty(ploop_dev *dev, uint32_t from, uint32_t *page)
{
    for (uint32_t number = from; number < dev_bat(dev)->page_count; number++) {
        if (atomic_load_explicit(&dev_bat(dev)->pages[number].state, memory_order_relaxed) &
            NOT_CLEAN) {
            *page = number;
            return 0;
        }
    }
    return -ENOENT;
}

int ploop_bat_page_read(ploop_dev *dev, uint32_t page, uint32_t *entries, uint32_t count)
{
    if (page >= dev_bat(dev)->page_count) {
        return -EINVAL;
    }
    uint32_t first = geometry_page_first(page), end = geometry_page_first(page + 1);
    uint32_t all = dev_bat(dev)->entry_count, there = (end < all ? end : all) - first;
    count = count < there ? count : there;
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = bat_entry(dev_bat(dev), (struct guest_cluster){first + i});
    }
    return (int)count;
}

static void page_requested(struct work *work)
{
    struct bat_page *page = container_of(work, struct bat_page, request);
    assert(page >= page->bat->pages && page < page->bat->pages + page->bat->page_count);
    atomic_store(&page->requested, false);
    bat_page_hurry(page->bat, (uint32_t)(page - page->bat->pages));
}

int ploop_bat_page_write(ploop_dev *dev, uint32_t page)
{
    if (page >= dev_bat(dev)->page_count) {
        return -EINVAL;
    }
    if (dev->read_only) {
        return -EROFS;
    }
    struct bat_page *wanted = &dev_bat(dev)->pages[page];
    if (!atomic_exchange(&wanted->requested, true)) {
        wanted->request.run = page_requested;
        turn_post(&dev->turn, &wanted->request);
    }
    return 0;
}

static void delay_changed(struct work *work)
{
    ploop_dev *dev = container_of(work, ploop_dev, delay_work);
    atomic_store(&dev->delay_posted, false);
    pthread_mutex_lock(&dev->wait_mutex);
    uint64_t delay = dev->wanted_delay_ns, max_age = dev->wanted_max_age_ns;
    pthread_mutex_unlock(&dev->wait_mutex);
    assert(delay <= max_age && !dev->read_only);
    bat_delay_changed(dev_bat(dev), delay, max_age);
}

int ploop_bat_set_delay(ploop_dev *dev, uint64_t delay_ns, uint64_t max_age_ns)
{
    if (max_age_ns < delay_ns) {
        return -EINVAL;
    }
    if (dev->read_only) {
        return -EROFS;
    }
    /* The two belong together. */
    pthread_mutex_lock(&dev->wait_mutex);
    dev->wanted_delay_ns = delay_ns;
    dev->wanted_max_age_ns = max_age_ns;
    pthread_mutex_unlock(&dev->wait_mutex);
    if (!atomic_exchange(&dev->delay_posted, true)) {
        dev->delay_work.run = delay_changed;
        turn_post(&dev->turn, &dev->delay_work);
    }
    return 0;
}

/* A guest cluster from `inside` to where something changes, at its end at the latest. 0 or -EIO. */
static int describe(const ploop_dev *dev, struct guest_cluster cluster, uint64_t inside,
                    struct ploop_extent *extent)
{
    uint64_t cluster_size = dev_disk(dev)->cluster_size, from = cluster.n * cluster_size + inside;
    const struct delta *delta = dev_top(dev);
    uint32_t entry = bat_entry(delta->bat, cluster);
    bool mapped = entry != 0;
    assert(inside < cluster_size && from < dev_disk(dev)->disk_size);
    *extent = (struct ploop_extent){
        .offset = from, .length = cluster_size - inside, .state = PLOOP_EXTENT_ZERO};
    struct place below = stack_place(&dev->stack, cluster);
    if (!mapped && below.delta) {
        delta = below.delta;
        entry = below.entry;
        mapped = from < delta->end;
        if (mapped && delta->end - from < extent->length) {
            extent->length = delta->end - from;
        }
    } else if (!mapped) { /* copied into the top since the first look, it is hidden below */
        delta = dev_top(dev);
        entry = bat_entry(delta->bat, cluster);
        mapped = entry != 0;
    }
    if (entry == BAT_ENTRY_BAD) {
        return -EIO;
    }
    if (mapped) {
        assert(extent->length > 0);
        extent->state = PLOOP_EXTENT_MAPPED;
        extent->level = delta->level;
        extent->host_offset = geometry_entry_offset(&delta->geometry, entry) + inside;
    }
    return 0;
}

static bool goes_on(const struct ploop_extent *extent, const struct ploop_extent *next)
{
    assert(next->offset == extent->offset + extent->length);
    return next->state == extent->state && next->level == extent->level &&
           (extent->state == PLOOP_EXTENT_ZERO ||
            next->host_offset == extent->host_offset + extent->length);
}

int ploop_bat_lookup(ploop_dev *dev, uint64_t offset, uint64_t length, struct ploop_extent *extent)
{
    int error = sized_out_check(extent, offsetof(struct ploop_extent, reserved));
    uint64_t size = dev_disk(dev)->disk_size, inside;
    if (error || offset >= size || length == 0) {
        return -EINVAL;
    }
    length = length < size - offset ? length : size - offset;
    struct guest_cluster cluster = cluster_of(dev, offset, &inside);
    struct ploop_extent found, next;
    error = describe(dev, cluster, inside, &found);
    if (error) {
        return error;
    }
    while (found.length < length) {
        cluster = cluster_of(dev, offset + found.length, &inside);
        if (describe(dev, cluster, inside, &next) || !goes_on(&found, &next)) {
            break;
        }
        found.length += next.length;
    }
    found.length = found.length < length ? found.length : length;
    assert(found.offset == offset && found.length > 0);
    sized_out(extent, &found, sizeof(found));
    return 0;
}
