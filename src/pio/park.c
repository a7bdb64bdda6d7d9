/* SPDX-License-Identifier: MIT */
/*
 * Parts that wait for space.
 *
 *     space      for a host cluster. The allocator works for it until it has some, or none.
 *     record     for a removal's record: a reclaim is under way.
 *     reclaim    the backend said ENOSPC to a data write; before that is believed, pending clusters
 *                are made ripe and punched, and blocks ahead of need given back, once for each
 *                part. Where that was done after the part had begun, it is only tried again: the
 *                backend may have looked before.
 *     parked     there is no space for data, or for a page of the map (flush.c), and the policy is
 *                to wait for it. Tried again by the clock and by ploop_dev_retry_parked(), failed
 *                after park_timeout_ns and by a close. Not tried while the gate holds requests.
 *
 *  1. In the first three a part keeps its cluster's lock, and is on a list of the allocator's by
 *     part->space; at an abort these waits end with an error. Parked, it holds nothing.
 *  2. A part whose wait ends without an error is tried again from where it had its lock.
 */
#include "pio/merging.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>

#define PARK_RETRY_NS UINT64_C(100000000)

static void take_all(struct list *to, struct list *from)
{
    list_init(to);
    list_move_all(to, from);
}

static struct alloc *alloc_of(const struct part *part)
{
    return &dev_bat(part->dev)->alloc;
}

/* ---- a host cluster ---- */

static void space_done(struct alloc_wait *wait, int result)
{
    struct part *part = container_of(wait, struct part, space);
    assert(part->state == PART_FOR_SPACE);
    if (!result) {
        part->lock.locked(&part->lock);
        return;
    }
    part_set(part, PART_LOCKED);
    part->reclaimed = true; /* the allocator has done that */
    if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, SYNC_NONE);
    }
}

void part_wait_for_space(struct part *part)
{
    if (part->dev->state == DEV_ABORTING) {
        part_settle(part, -ECANCELED, SYNC_NONE); /* the allocator does no work any more */
    } else {
        part_set(part, PART_FOR_SPACE);
        alloc_wait(alloc_of(part), &part->space, space_done);
    }
}

/* ---- reclaim ---- */

static void reclaim_done(struct alloc_wait *wait, int result)
{
    struct part *part = container_of(wait, struct part, space);
    assert(part->reclaimed);
    assert(part->state == PART_FOR_SPACE || part->state == PART_FOR_RECORD);
    if (result) {
        part_set(part, PART_LOCKED);
        part_settle(part, result, SYNC_NONE);
    } else {
        part->lock.locked(&part->lock);
    }
}

void part_wait_for_record(struct part *part)
{
    assert(!part->reclaimed); /* once: then it goes on without a record */
    part_set(part, PART_FOR_RECORD);
    part->reclaimed = true;
    alloc_wait_for_record(alloc_of(part), &part->space, reclaim_done);
}

/* ---- parked ---- */

bool part_may_park(const struct part *part)
{
    const ploop_dev *dev = part->dev;
    uint64_t now = dev_now(dev); /* which may have gone back since */
    uint64_t age = part->parked_ns && now > part->parked_ns ? now - part->parked_ns : 0;
    bool late = dev->config.park_timeout_ns && age >= dev->config.park_timeout_ns;
    return dev->config.enospc_policy == PLOOP_ENOSPC_PARK && dev->state < DEV_CLOSING && !late &&
           !part->kind->never_parks;
}

void part_park(struct part *part, part_fn *again)
{
    ploop_dev *dev = part->dev;
    uint64_t now = dev_now(dev);
    assert(again && list_is_empty(&part->link) && dev->state < DEV_CLOSING);
    if (part->parked_ns == 0) {
        part->parked_ns = now ? now : 1;
    }
    part->again = again;
    part->reclaimed = false;
    part_wants_space(part, true);
    part_set(part, PART_PARKED);
    if (list_is_empty(&dev->parked)) {
        dev->park_retry_ns = now + PARK_RETRY_NS;
    }
    list_append(&dev->parked, &part->link);
    pio_note_parked(part->pio, true);
}

void part_no_space(struct part *part, int error)
{
    struct bat *bat = dev_bat(part->dev);
    assert(is_no_space(error) && part->state == PART_LOCKED && !part->reservation);
    bool can_reclaim = alloc_can_reclaim(&bat->alloc);
    bool returned = part->returns != alloc_returns(&bat->alloc);
    if (!part->reclaimed && (can_reclaim || returned) && !bat_latch(bat)) {
        part_set(part, PART_FOR_SPACE);
        part->reclaimed = true;
        if (can_reclaim) {
            alloc_wait_for_reclaim(&bat->alloc, &part->space, reclaim_done);
        } else {
            reclaim_done(&part->space, 0);
        }
    } else if (part_may_park(part)) {
        part_unlock(part);
        part_park(part, part_begin);
    } else {
        part_settle(part, error, SYNC_NONE);
    }
}

void space_forget_syncs(ploop_dev *dev)
{
    for (struct list *link = dev->parked.next; link != &dev->parked; link = link->next) {
        container_of(link, struct part, link)->durable.number = SYNC_NONE;
    }
}

static void unpark(struct part *part)
{
    assert(part->state == PART_PARKED && list_is_empty(&part->link));
    pio_note_parked(part->pio, false);
}

uint32_t space_retry_parked(ploop_dev *dev, bool all)
{
    if (list_is_empty(&dev->parked) || gate_has(dev, GATE_HOLDS) ||
        (!all && dev_now(dev) < dev->park_retry_ns)) {
        return 0;
    }
    struct list parts;
    take_all(&parts, &dev->parked);
    struct list *link;
    uint32_t tried = 0;
    while ((link = list_take_first(&parts)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        unpark(part);
        part->again(part);
        tried++;
    }
    return tried;
}

void space_refuse_parked(ploop_dev *dev)
{
    struct list parts, *link;
    assert(dev->in_commit && dev->all_durable);
    take_all(&parts, &dev->parked);
    while ((link = list_take_first(&parts)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        bool is_flush = !part->kind->is_change;
        if (!is_flush && (!part->pio->blocking || gate_has(dev, GATE_SUSPENDED))) {
            list_append(&dev->parked, link);
            continue;
        }
        unpark(part);
        part_end(part, is_flush ? bat_latch(dev_bat(dev)) : -EAGAIN);
    }
}

void space_fail_all(ploop_dev *dev, int error)
{
    struct list parts;
    struct list *link;
    assert(dev->state == DEV_CLOSING || dev->state == DEV_ABORTING);
    take_all(&parts, &dev->parked);
    while ((link = list_take_first(&parts)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        unpark(part);
        part_end(part, error);
    }
    if (dev->state == DEV_ABORTING) {
        alloc_fail_waits(&dev_bat(dev)->alloc, error);
        if (dev->merging && dev->merging->to->bat) {
            alloc_fail_waits(&dev->merging->to->bat->alloc, error);
        }
    }
}
