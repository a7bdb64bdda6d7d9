/* SPDX-License-Identifier: MIT */
/*
 * Bulk work on memory: zeros over what a read finds no bytes for, and the merge of a copy. It is
 * done outside the turn, or all other requests would wait for it.
 *
 *     LOCKED --part_do_bulk--> AT_MEMORY --bulk_run: fill--> posted to the turn --> LOCKED: then
 *
 *  1. The thread that gives the turn back does the bulk work that the turn has left; other threads
 *     may take the turn meanwhile. A thread takes the list before it fills, so each part is filled
 *     once.
 *  2. `fill` touches the part's memory, and what nothing changes while the part is AT_MEMORY.
 *  3. The list is no longer than the shares of a turn that its parts took: cut.c.
 *  4. Less than BULK_BYTES is filled in the turn: handing it on costs as much.
 */
#include "pio/part.h"

#include <assert.h>

#include "dev/dev.h"

#ifndef BULK_BYTES /* the explored schedules have small clusters: tests/CMakeLists.txt */
#define BULK_BYTES 32768
#endif

static void bulk_over(struct work *work)
{
    struct part *part = container_of(work, struct part, work);
    part_set(part, PART_LOCKED);
    part->bulk_then(part);
}

void part_do_bulk(struct part *part, uint64_t bytes, part_fill_fn *fill, part_fn *then)
{
    assert(part->state == PART_LOCKED);
    if (bytes < BULK_BYTES) {
        if (bytes > 0) {
            fill(part);
        }
        then(part);
        return;
    }
    part->did_bulk = true;
    part->bulk_fill = fill;
    part->bulk_then = then;
    part->work.run = bulk_over;
    part_set(part, PART_AT_MEMORY);
    inbox_push(&part->dev->bulk, &part->work);
}

void bulk_run(struct ploop_dev *dev)
{
    struct work *work = inbox_take(&dev->bulk);
    while (work) {
        struct work *next = work->next;
        struct part *part = container_of(work, struct part, work);
        assert(part->state == PART_AT_MEMORY && part->work.run == bulk_over);
        part->bulk_fill(part);
        turn_enqueue(&dev->turn, work);
        work = next;
    }
}
