/* SPDX-License-Identifier: MIT */
/*
 * A round is what flushes wait for (R3). One runs at a time; flushes that come while one runs share
 * the next.
 *
 *     idle --a flush joins--> writing: member pages are outstanding --none left--> syncing
 *      ^                                                                               |
 *      +-------------------------- all who waited are told ----------------------------+
 *
 *  1. The members are the pages that are dirty or under WRITEBACK when the round begins. Each is
 *     done when its generation of that moment has been written or failed; what changes later is not
 *     waited for, so a round ends under steady writing.
 *  2. Failed pages are members too and are tried at once; a member's failure is the round's (R5),
 *     and it leaves the round. A failure of an image older than the round, of a page that is dirty
 *     again, is not: the page is due and tried once more.
 *  3. The SYNC at the end was submitted after the last member's write had completed, and after the
 *     round began.
 *  4. A failed SYNC ends the round and every later one with its error.
 *  5. A page's round_id says whether it is a member, so that ending a round touches no page.
 */
#include "bat/inside.h"

#include <assert.h>

static void assert_round(const struct bat *bat)
{
#ifndef NDEBUG
    const struct round *round = &bat->round;
    assert(round->running || (round->outstanding == 0 && list_is_empty(&round->waiters)));
    assert(!round->running || (round->id > 0 && !list_is_empty(&round->waiters)));
    assert(round->outstanding <= bat->page_count);
    assert(!round->running || round->number.n <= sync_next(&bat->syncer).n);
    /* Members are outstanding, or the SYNC is waited for. */
    assert(!round->running || (round->outstanding > 0) == list_is_empty(&round->sync.link));
#else
    (void)bat;
#endif
}

void round_init(struct bat *bat)
{
    list_init(&bat->round.sync.link);
    list_init(&bat->round.waiters);
    list_init(&bat->round.next);
}

void bat_join_round(struct bat *bat, struct round_wait *wait, round_fn *then)
{
    wait->then = then;
    if (!list_is_empty(&bat->round.next)) {
        count(&bat->stats.flushes_coalesced, 1);
    }
    list_append(&bat->round.next, &wait->link);
    turn_again(bat->channel->turn);
}

static bool is_member(const struct bat *bat, const struct bat_page *page)
{
    return bat->round.running && page->round_id == bat->round.id;
}

static void add_member(struct bat *bat, uint32_t index)
{
    struct bat_page *page = &bat->pages[index];
    assert(bat->round.running && index < bat->page_count);
    if (!is_member(bat, page)) {
        assert(page_is(page, PLOOP_BAT_PAGE_DIRTY) || page_is(page, PLOOP_BAT_PAGE_WRITEBACK));
        page->round_id = bat->round.id;
        page->round_gen = page_is(page, PLOOP_BAT_PAGE_DIRTY) ? page->gen : page->gen - 1;
        bat->round.outstanding++;
    }
}

static void round_done(struct bat *bat, int result)
{
    assert(bat->round.outstanding == 0 || result);
    bat->round.running = false;
    bat->round.outstanding = 0;
    struct list told;
    list_init(&told);
    list_move_all(&told, &bat->round.waiters);
    struct list *link;
    while ((link = list_take_first(&told)) != NULL) {
        struct round_wait *wait = container_of(link, struct round_wait, link);
        wait->then(wait, result);
    }
}

static void round_sync_done(struct sync_wait *wait, int result)
{
    struct bat *bat = container_of(wait, struct bat, round.sync);
    round_done(bat, result);
}

static void round_pages_done(struct bat *bat)
{
    if (bat->round.error) {
        round_done(bat, bat->round.error);
        return;
    }
    int wait = sync_wait_for(&bat->syncer, &bat->round.sync, bat->round.number, round_sync_done);
    if (wait <= 0) {
        round_done(bat, wait);
    }
    assert_round(bat);
}

void round_page_done(struct bat *bat, uint32_t index, uint64_t gen, int error)
{
    struct bat_page *page = &bat->pages[index];
    if (!is_member(bat, page) || gen < page->round_gen) {
        return;
    }
    assert_round(bat);
    assert(gen == page->round_gen);
    page->round_id = 0;
    /*
     * A lack of space may be waited out (pio/flush.c): it must not hide another error, which no
     * request waits out.
     */
    if (error && (!bat->round.error || is_no_space(bat->round.error))) {
        bat->round.error = error;
    }
    bat->round.number = sync_next(&bat->syncer);
    assert(bat->round.outstanding > 0);
    if (--bat->round.outstanding == 0) {
        round_pages_done(bat);
    }
}

static void round_begin(struct bat *bat)
{
    struct round *round = &bat->round;
    assert(!round->running && list_is_empty(&round->waiters) && list_is_empty(&round->sync.link));
    assert_round(bat);
    round->running = true;
    round->id++;
    round->error = 0;
    round->outstanding = 0;
    round->number = sync_next(&bat->syncer);
    list_move_all(&round->waiters, &round->next);
    while (bat->deadlines.count) {
        page_make_due(bat, deadlines_first(&bat->deadlines));
    }
    for (struct list *link = bat->due.next; link != &bat->due; link = link->next) {
        add_member(bat, (uint32_t)(container_of(link, struct bat_page, due) - bat->pages));
    }
    for (struct list *link = bat->images_busy.next; link != &bat->images_busy; link = link->next) {
        const struct page_image *image = container_of(link, struct page_image, link);
        for (uint32_t i = 0; i < image->count; i++) {
            add_member(bat, image->first + i);
        }
    }
    if (round->outstanding == 0) {
        round_pages_done(bat);
    }
}

void round_pump(struct bat *bat)
{
    while (!bat->round.running && !list_is_empty(&bat->round.next)) {
        if (bat_latch(bat)) {
            list_move_all(&bat->round.waiters, &bat->round.next);
            round_done(bat, bat_latch(bat));
        } else {
            round_begin(bat);
        }
    }
    assert_round(bat);
}

void round_fail(struct bat *bat, int error)
{
    assert(error);
    list_remove(&bat->round.sync.link);
    list_move_all(&bat->round.waiters, &bat->round.next);
    round_done(bat, error);
}
