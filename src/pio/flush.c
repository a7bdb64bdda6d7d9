/* SPDX-License-Identifier: MIT */
/*
 * Parts that wait for the map to be durable: a flush, the PREFLUSH of a write, a write of BAT
 * pages, and the end of a FUA part (part.c).
 *
 *     waiting for partial clusters -> (a round) ...
 *     waiting for a round, or for a page --durable, or failed--> the part ends
 *             ^                  |
 *             |                  +--no space for a page, and the policy is to wait--> parked
 *             +------------------------------------retry--------------------------------+
 *
 *  1. A request that waits as a whole does so by its own part, which is live and holds no lock. So
 *     it is parked, counted as stuck and ended as every part is.
 *  2. A retry only waits again: the next round, or the page that is hurried, tries the failed pages
 *     once more. Data that was written is not written again.
 *  3. A failed SYNC is never waited out: space that comes back does not bring back what may be lost
 *     (R6). Its error is -EIO, whatever the backend said (sync.h), so it cannot be taken for a lack
 *     of space.
 *  4. The library's own rounds (suspend, close, open: block.c) are no parts: they fail, and never
 *     wait for space.
 *  5. A round comes after a pass over the partial clusters that there are (partial.h). Where one of
 *     them could not be completed the round goes on all the same, so that all else is durable, and
 *     the request fails after it.
 */
#include "pio/partial.h"
#include "pio/pio.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>

/* ---- a round: a flush, PREFLUSH ---- */

static part_fn begin_pass;

static void round_ended(struct round_wait *wait, int result)
{
    ploop_pio *pio = container_of(wait, ploop_pio, round);
    int copies = pio->copies_error;
    assert(pio->live == 1 && pio->part.state == PART_DURABLE);
    /* A lack of space may be waited out: it must not hide another error. */
    result = copies && (!result || is_no_space(result)) ? copies : result;
    part_durable(&pio->part, result, begin_pass);
}

static void copies_ended(struct partial_wait *wait, int result)
{
    ploop_pio *pio = container_of(wait, ploop_pio, copies);
    pio->copies_error = result;
    bat_join_round(dev_bat(pio->part.dev), &pio->round, round_ended);
}

static void begin_pass(struct part *part)
{
    ploop_pio *pio = part->pio;
    assert(!part->dev->read_only && part == &pio->part);
    part_set(part, PART_DURABLE);
    if (!partial_wait_for_all(part->dev, &pio->copies, copies_ended)) {
        copies_ended(&pio->copies, 0);
    }
}

void preflush_start(ploop_pio *pio)
{
    begin_pass(pio_own_part(pio));
}

void flush_start(ploop_pio *pio)
{
    struct part *part = pio_own_part(pio);
    count(&part->dev->flushes, 1);
    if (part->dev->read_only || part->dev->all_durable) {
        part_set(part, PART_DURABLE); /* nothing is left to be written */
        part_end(part, bat_latch(dev_bat(part->dev)));
    } else {
        begin_pass(part);
    }
}

/* ---- pages, one after another ---- */

static part_fn wait_for_pages;

static void page_ended(struct durable_wait *wait, int result)
{
    struct part *part = container_of(wait, struct part, durable);
    assert(part->pio->next < part->pio->end);
    if (result) {
        part_durable(part, result, wait_for_pages);
    } else {
        part->pio->next++;
        wait_for_pages(part);
    }
}

/* From `next` on. */
static void wait_for_pages(struct part *part)
{
    ploop_pio *pio = part->pio;
    int result = 0;
    part_set(part, PART_DURABLE);
    while (pio->next < pio->end) {
        result = bat_wait_durable(dev_bat(part->dev), (uint32_t)pio->next, SYNC_NONE,
                                  &part->durable, page_ended);
        if (result) {
            break;
        }
        pio->next++;
    }
    if (result <= 0) {
        part_end(part, result);
    }
}

void bat_write_start(ploop_pio *pio)
{
    struct part *part = pio_own_part(pio);
    assert(pio->next == pio->offset && pio->end <= dev_bat(part->dev)->page_count);
    for (uint64_t page = pio->next; page < pio->end; page++) {
        bat_page_hurry(dev_bat(part->dev), (uint32_t)page);
    }
    wait_for_pages(part);
}
