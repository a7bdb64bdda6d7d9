/* SPDX-License-Identifier: MIT */
/*
 * Waits for one page to be durable as it is now, and for a SYNC.
 *
 *     begun --the page is dirty, or under WRITEBACK--> on bat->durable_waits --its generation is
 *       \                                              written--> waiting for a SYNC --> done
 *        \____________the page is written___________________________/
 *
 *  1. What is waited for is the generation that the page has when the wait begins: changes after
 *     that moment are not.
 *  2. A wait is on one list: durable_waits, or the SYNC's.
 */
#include "bat/inside.h"

#include <assert.h>

void durable_init(struct bat *bat)
{
    list_init(&bat->durable_waits);
}

static void durable_sync_done(struct sync_wait *sync, int result)
{
    struct durable_wait *wait = container_of(sync, struct durable_wait, sync);
    assert(result || sync_is_done(&wait->bat->syncer, wait->number));
    wait->then(wait, result);
}

int bat_wait_durable(struct bat *bat, uint32_t index, struct sync_number number,
                     struct durable_wait *wait, durable_fn *then)
{
    struct bat_page *page = &bat->pages[index];
    assert(index < bat->page_count && number.n <= sync_next(&bat->syncer).n);
    wait->bat = bat;
    wait->page = index;
    wait->number = number;
    wait->then = then;
    if (bat_latch(bat)) {
        return bat_latch(bat);
    }
    if (page_is(page, PLOOP_BAT_PAGE_DIRTY) || page_is(page, PLOOP_BAT_PAGE_WRITEBACK)) {
        wait->gen = page_is(page, PLOOP_BAT_PAGE_DIRTY) ? page->gen : page->gen - 1;
        list_append(&bat->durable_waits, &wait->link);
        bat_page_hurry(bat, index);
        return 1;
    }
    if (page_is(page, PLOOP_BAT_PAGE_UNSYNCED)) {
        wait->number = sync_later(page->synced_number, number);
    }
    return sync_wait_for(&bat->syncer, &wait->sync, wait->number, durable_sync_done);
}

/* Generation `gen` of a page was written, or failed: the waits for that one or an earlier one. */
void durable_page_done(struct bat *bat, uint32_t index, uint64_t gen, int result)
{
    struct list done;
    list_init(&done);
    for (struct list *link = bat->durable_waits.next, *next; link != &bat->durable_waits;
         link = next) {
        next = link->next;
        struct durable_wait *wait = container_of(link, struct durable_wait, link);
        if (wait->page == index && wait->gen <= gen) {
            list_remove(link);
            list_append(&done, link);
        }
    }
    struct list *link;
    while ((link = list_take_first(&done)) != NULL) {
        struct durable_wait *wait = container_of(link, struct durable_wait, link);
        int sync = result;
        if (!sync) {
            wait->number = sync_next(&bat->syncer);
            sync = sync_wait_for(&bat->syncer, &wait->sync, wait->number, durable_sync_done);
        }
        if (sync <= 0) {
            wait->then(wait, sync);
        }
    }
}

void durable_fail(struct bat *bat, int error)
{
    assert(error);
    struct list *link;
    while ((link = list_take_first(&bat->durable_waits)) != NULL) {
        struct durable_wait *wait = container_of(link, struct durable_wait, link);
        wait->then(wait, error);
    }
}
