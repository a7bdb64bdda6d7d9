/* SPDX-License-Identifier: MIT */
/*
 * Parts that wait for space.
 *
 *     space_waiters    for a host cluster; they keep their cluster's lock. alloc.c works for them
 *                      until it has some, or none.
 *     record_waiters   for a removal's record; they keep the lock. A reclaim is under way.
 *     reclaim_waiters  the backend said ENOSPC to a data write; before that is believed, pending
 *                      clusters are made ripe and punched, once for each part. They keep the lock.
 *     parked           there is no space for data, or for a page of the map (flush.c), and the
 *                      policy is to wait for it; they hold nothing. Tried again by the clock and by
 *                      ploop_dev_retry_parked(), failed after park_timeout_ns and by a close.
 *
 * A reclaim is a round of our own: removals become durable, their clusters come back.
 */
#include "dev/dev.h"

#include <assert.h>
#include <errno.h>

#define PARK_RETRY_NS UINT64_C(100000000)

static void parts_again(ploop_dev *dev, struct list *parts)
{
    struct list *link;
    turn_again(&dev->turn);
    while ((link = list_take_first(parts)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        part->lock.locked(&part->lock);
    }
}

static void take_all(struct list *to, struct list *from)
{
    list_init(to);
    list_move_all(to, from);
}

/* ---- a host cluster ---- */

void part_wait_for_space(struct part *part)
{
    if (part->dev->aborting) {
        part_settle(part, -ECANCELED, 0); /* nobody works for space any more */
    } else {
        list_append(&part->dev->space_waiters, &part->link);
    }
}

void space_came(struct alloc *alloc, int result)
{
    ploop_dev *dev = container_of(alloc, struct bat, alloc)->owner;
    struct list waiters;
    take_all(&waiters, &dev->space_waiters);
    if (!result) {
        parts_again(dev, &waiters);
        return;
    }
    struct list *link;
    while ((link = list_take_first(&waiters)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        part->reclaimed = true; /* alloc.c has done that */
        if (is_no_space(result)) {
            part_no_space(part, result);
        } else {
            part_settle(part, result, 0);
        }
    }
}

/* ---- reclaim ---- */

static void reclaim_over(struct round_wait *wait, int result)
{
    ploop_dev *dev = container_of(wait, ploop_dev, reclaim_round);
    (void)result;
    dev->reclaiming = false;
    struct list waiters;
    take_all(&waiters, &dev->record_waiters);
    parts_again(dev, &waiters);
}

static void reclaim(ploop_dev *dev)
{
    if (!dev->reclaiming) {
        dev->reclaiming = true;
        bat_join_round(dev_bat(dev), &dev->reclaim_round, reclaim_over);
    }
}

void part_wait_for_record(struct part *part)
{
    part->reclaimed = true;
    list_append(&part->dev->record_waiters, &part->link);
    reclaim(part->dev);
}

/* ---- parked ---- */

bool part_park(struct part *part, part_fn *again)
{
    ploop_dev *dev = part->dev;
    uint64_t now = dev_now(dev); /* which may have gone back since */
    uint64_t age = part->parked_ns && now > part->parked_ns ? now - part->parked_ns : 0;
    bool late = dev->config.park_timeout_ns && age >= dev->config.park_timeout_ns;
    if (dev->config.enospc_policy != PLOOP_ENOSPC_PARK || dev->closing || late) {
        return false;
    }
    if (part->parked_ns == 0) {
        part->parked_ns = now ? now : 1;
    }
    part->again = again;
    part->parked = true;
    part_wants_space(part, true);
    part->reclaimed = false;
    if (list_is_empty(&dev->parked)) {
        dev->park_retry_ns = now + PARK_RETRY_NS;
    }
    list_append(&dev->parked, &part->link);
    pio_note_parked(part->pio, true);
    return true;
}

void part_no_space(struct part *part, int error)
{
    ploop_dev *dev = part->dev;
    struct bat *bat = dev_bat(dev);
    if (!part->reclaimed && bat->alloc.pending_count > 0 && !bat_latch(bat)) {
        part->reclaimed = true;
        list_append(&dev->reclaim_waiters, &part->link);
        reclaim(dev);
    } else if (part_park(part, part_begin)) {
        part_unlock(part);
    } else {
        part_settle(part, error, 0);
    }
}

static void unpark(struct part *part)
{
    part->parked = false;
    pio_note_parked(part->pio, false);
}

uint32_t space_retry_parked(ploop_dev *dev, bool all)
{
    if (list_is_empty(&dev->parked) || dev->suspended ||
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

void space_pump(ploop_dev *dev)
{
    struct alloc *alloc = &dev_bat(dev)->alloc;
    if (alloc->pending_count > PENDING_MAX / 2 && !bat_latch(dev_bat(dev)) &&
        dev_bat(dev)->stats.pages_failed == 0) {
        reclaim(dev);
    }
    if (!list_is_empty(&dev->reclaim_waiters) && !dev->reclaiming && alloc_is_settled(alloc)) {
        struct list waiters;
        take_all(&waiters, &dev->reclaim_waiters);
        parts_again(dev, &waiters);
    }
}

/* At close and abort: nobody waits for space any more. */
void space_fail_all(ploop_dev *dev, int error)
{
    struct list parts;
    struct list *link;
    take_all(&parts, &dev->parked);
    while ((link = list_take_first(&parts)) != NULL) {
        struct part *part = container_of(link, struct part, link);
        unpark(part);
        part_end(part, error);
    }
    if (!dev->aborting) {
        return;
    }
    space_came(&dev_bat(dev)->alloc, error);
    take_all(&parts, &dev->reclaim_waiters);
    list_move_all(&parts, &dev->record_waiters);
    while ((link = list_take_first(&parts)) != NULL) {
        part_settle(container_of(link, struct part, link), error, 0);
    }
}
