/* SPDX-License-Identifier: MIT */
/*
 * A request is cut into parts of one cluster each, and ends with the last of them.
 *
 *     advancing: parts are begun as there are parts to have -> no part is live -> completed
 *
 * A pio that advances pauses (enum pio_pause) and goes on from where it stopped:
 *
 *     WAITS_FOR_PART   the device has no part left: it is on part_waiters, or its work is posted
 *     WAITS_FOR_TURN   it has had its share of this batch of work, and others come first. It is on
 *                      `later` until the next run
 *     HELD             the gate holds requests back and no part is live: it does not count as in
 *                      flight
 *
 *  1. A pio always has a part of its own, so it goes on when the device has none left. What it does
 *     as a whole (flush.c) that part does.
 *  2. After the first error no further part is begun; those that are live end by themselves.
 *  3. A pio that pauses is advanced by what its state names, and while it WAITS_FOR_TURN by the end
 *     of one of its parts, unless that part took a thread's time for bulk work (bulk.c): then the
 *     next run advances it, so that no thread is kept for all of a long request.
 *  4. A part that ends inside part_begin() does not recurse: `advancing` leaves the rest to the
 *     loop.
 *  5. While the gate holds requests back no part is begun, so a suspend waits for parts, never for
 *     whole requests.
 */
#include "pio/pio.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>

/*
 * Steps: a part begun takes STEPS_OF_PART, a page of the map stepped over takes 1. All requests
 * together may take STEPS_OF_BATCH in one batch of work, so that others never wait long for the
 * turn; each may take STEPS_OF_PIO in any case.
 */
enum {
    STEPS_OF_PART = 16,
    STEPS_OF_PIO = 32 * STEPS_OF_PART,
    STEPS_OF_BATCH = 128 * STEPS_OF_PART
};

static void pio_finish(ploop_pio *pio)
{
    assert(pio->live == 0 && pio->parked == 0 && pio->want_space == 0 && !pio->stuck);
    pio_complete(pio, pio->result);
}

/* ---- parts ---- */

static struct part *part_get(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    if (pio->part.state == PART_IDLE) {
        return pio_own_part(pio);
    }
    struct list *link = list_take_first(&dev->parts_free);
    if (!link) {
        return NULL;
    }
    struct part *part = container_of(link, struct part, link);
    assert(part->state == PART_IDLE && !part->pio);
    part->pooled = true;
    part_take(part, pio, pio_part_ended);
    pio->live++;
    return part;
}

static void part_free(struct part *part)
{
    ploop_dev *dev = part->dev;
    assert(part->state == PART_IDLE);
    if (!part->pooled) {
        return;
    }
    part->pio = NULL;
    list_append(&dev->parts_free, &part->link);
    struct list *link = list_take_first(&dev->part_waiters);
    if (link) {
        turn_enqueue(&dev->turn, &container_of(link, ploop_pio, link)->work);
    }
}

void pio_part_ended(struct part *part)
{
    ploop_pio *pio = part->pio;
    if (part->result && !pio->result) {
        pio->result = part->result;
    }
    assert(pio->live > 0 && part->state == PART_IDLE);
    pio->live--;
    part_free(part);
    pio_set_stuck(pio);
    bool in_line = !list_is_empty(&pio->link);
    if (pio->advancing) {
        return;
    }
    bool is_next = pio->pause == PIO_WAITS_FOR_TURN && in_line && !part->did_bulk;
    if (pio->pause == PIO_GOES_ON || is_next) {
        list_remove(&pio->link);
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
    } else if (pio->pause == PIO_WAITS_FOR_PART && in_line && !part->pooled) {
        list_remove(&pio->link); /* its own part is free again */
        turn_enqueue(&part->dev->turn, &pio->work);
    }
}

/* The next part's place. Returns its length. */
static uint64_t part_place(struct part *part, uint64_t next, uint64_t end)
{
    const ploop_dev *dev = part->dev;
    uint64_t cluster_size = dev_disk(dev)->cluster_size;
    part->cluster = cluster_of(dev, next, &part->inside);
    uint64_t room = cluster_size - part->inside;
    part->length = end - next < room ? end - next : room;
    assert(part->length > 0);
    return part->length;
}

void pio_enter(ploop_pio *pio)
{
    assert(pio->live == 0 && kinds[pio->op].fast_op);
    pio->end = pio->next = pio->offset + pio->length;
    struct part *part = pio_own_part(pio);
    part_place(part, pio->offset, pio->end);
    part->cursor = (struct iov_cursor){.iov = pio->iov, .count = pio->iov_count};
    part_adopt_lock(part);
}

/* ---- what needs no part ---- */

/*
 * Nothing to discard or to zero in this page of the map, for as long as a request of this moment
 * can tell.
 */
static bool page_is_empty(const ploop_dev *dev, struct guest_cluster cluster)
{
    const struct bat_page *page = &dev_bat(dev)->pages[geometry_page_of(cluster)];
    return atomic_load_explicit(&page->mapped, memory_order_relaxed) == 0 && page->reserved == 0;
}

/*
 * How many bytes from `next` on need no part: clusters that nothing maps and that no write has a
 * place for, what one that fails might leave there included. 0: a part is needed. FUA has to wait
 * for the entries that are absent.
 */
static uint64_t skip_length(const ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    const struct kind *kind = &kinds[pio->op];
    uint64_t inside, clusters = 0;
    if (!kind->skips_unmapped || pio->flags & PLOOP_PIO_FUA ||
        gate_has(dev, GATE_CHANGES_REFUSED)) {
        return 0;
    }
    struct guest_cluster cluster = cluster_of(dev, pio->next, &inside);
    if (page_is_empty(dev, cluster) && !(kind->covers_below && stack_count(&dev->stack) > 1)) {
        uint32_t page = geometry_page_of(cluster);
        clusters = geometry_page_first(page) +
                   geometry_page_entries(&dev_top(dev)->geometry, page) - cluster.n;
    } else if (bat_entry(dev_bat(dev), cluster) == 0 &&
               !(kind->covers_below && stack_maps(&dev->stack, cluster)) &&
               atomic_load(&lock_of(dev, cluster)->word) == 0) {
        clusters = 1;
    }
    uint64_t length = clusters * dev_disk(dev)->cluster_size, left = pio->end - pio->next;
    assert(left > 0 && inside < dev_disk(dev)->cluster_size);
    length -= clusters ? inside : 0;
    return length < left ? length : left;
}

/* Whether it may take more of this batch of work. */
static bool has_steps(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    if (pio->batch != dev->batch) {
        pio->batch = dev->batch;
        pio->steps = 0;
    }
    return pio->steps < STEPS_OF_PIO || dev->steps < STEPS_OF_BATCH;
}

static void take_steps(ploop_pio *pio, uint32_t steps)
{
    pio->steps += steps;
    pio->queue->dev->steps += steps;
}

/* ---- pauses ---- */

static void pio_wait_for_part(ploop_pio *pio)
{
    assert(list_is_empty(&pio->link) && pio->part.state != PART_IDLE);
    pio->pause = PIO_WAITS_FOR_PART;
    list_append(&pio->queue->dev->part_waiters, &pio->link);
}

static void pio_wait_for_turn(ploop_pio *pio)
{
    assert(list_is_empty(&pio->link));
    pio->pause = PIO_WAITS_FOR_TURN;
    list_append(&pio->queue->dev->later, &pio->link);
}

/*
 * While the embedder is asked to record a stack, a thread that waits for a change may be the one
 * that has to answer: it is not held.
 */
void pio_hold(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    assert(pio_is_held_back(pio, dev) && pio->live == 0);
    if (pio->blocking && dev->in_commit && !gate_has(dev, GATE_SUSPENDED)) {
        pio->pause = PIO_GOES_ON;
        pio_complete(pio, -EAGAIN);
        return;
    }
    list_append(&dev->held, &pio->link);
    atomic_fetch_sub(&pio->queue->in_flight, pio_weight(pio));
}

/* Begin the part at `next`. False: there is none to be had. */
static bool pio_begin_part(ploop_pio *pio)
{
    struct part *part = part_get(pio);
    if (!part) {
        return false;
    }
    uint64_t length = part_place(part, pio->next, pio->end);
    assert(length <= pio->end - pio->next);
    part->cursor = pio->cursor;
    pio->next += length;
    iov_advance(&pio->cursor, length);
    take_steps(pio, STEPS_OF_PART);
    part_begin(part);
    return true;
}

void pio_advance(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    assert(pio->pause == PIO_GOES_ON && list_is_empty(&pio->link));
    assert(!pio->advancing);
    if (gate_has(dev, GATE_ENDS) && pio->next < pio->end && !pio->result) {
        pio->result = -ECANCELED;
    }
    pio->advancing = true;
    while (pio->next < pio->end && !pio->result && !pio_is_held_back(pio, dev) &&
           pio->pause == PIO_GOES_ON) {
        uint64_t skip = skip_length(pio);
        if (!has_steps(pio)) {
            pio_wait_for_turn(pio);
        } else if (skip) {
            pio->next += skip;
            take_steps(pio, 1);
        } else if (!pio_begin_part(pio)) {
            pio_wait_for_part(pio);
        }
    }
    pio->advancing = false;
    pio_set_stuck(pio);
    if (pio->live > 0 || pio->pause != PIO_GOES_ON) {
        return;
    }
    if (pio->next < pio->end && !pio->result) {
        pio->pause = PIO_HELD;
        pio_hold(pio);
    } else {
        pio_finish(pio);
    }
}

uint32_t pio_go_on(ploop_dev *dev)
{
    struct list *link;
    uint32_t count = 0;
    /* One at least, which has its own share, whatever others have taken. */
    while ((count == 0 || dev->steps < STEPS_OF_BATCH) &&
           (link = list_take_first(&dev->later)) != NULL) {
        ploop_pio *pio = container_of(link, ploop_pio, link);
        assert(pio->pause == PIO_WAITS_FOR_TURN);
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
        count++;
    }
    return count;
}
