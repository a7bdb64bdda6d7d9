/* SPDX-License-Identifier: MIT */
/*
 * The states of a BAT page.
 *
 *              change             freeze                 written            SYNC
 *     CLEAN -----------> DIRTY -----------------> WRITEBACK --------> UNSYNCED -----> CLEAN
 *                        ^   ^                     |     |               |
 *                        |   |    write failed     |     | change        | change
 *                        |   +---------------------+     v               v
 *                        |       DIRTY|FAILED      DIRTY|WRITEBACK    DIRTY|UNSYNCED ...
 *                        +-------------------------------+
 *                            written, or write failed
 *
 * UNSYNCED and FAILED are facts about the past and stand beside the rest; HIGH_PRIORITY and DUE say
 * how urgent a dirty page is. Each bit changes in one way:
 *
 *     DIRTY          set by page_change, cleared by page_frozen; set again by page_write_failed
 *     WRITEBACK      set by page_frozen, cleared by page_written and page_write_failed
 *     UNSYNCED       set by page_written, cleared by pages_synced
 *     FAILED         set by page_write_failed, cleared by page_written
 *     DUE            set by page_make_due, and by page_change where there is no delay; cleared by
 *                    page_frozen
 *     HIGH_PRIORITY  set by bat_page_hurry, cleared by page_frozen
 *
 * Invariants, which assert_page_state() executes:
 *
 *  1. A dirty page either has its deadline in bat->deadlines or is DUE; a page that is not dirty
 *     has neither.
 *  2. A page is on bat->due if and only if it is DUE and not under WRITEBACK: it has one writer at
 *     a time (R16).
 *  3. Changes belong to generation `gen`. While a page is under WRITEBACK its image is of
 *     generation gen - 1.
 *  4. FAILED goes with an error, and with the page being dirty or written again.
 *  5. A page is on bat->unsynced if and only if it is UNSYNCED; that list is in the order of the
 *     SYNCs it waits for.
 *  6. HIGH_PRIORITY goes with DUE.
 *  7. The deadline is never later than max_age after the first change, but for a page that failed:
 *     it has the time of its next try.
 */
#include "bat/inside.h"

#include "util/probe.h"

#include <assert.h>
#include <errno.h>

#define RETRY_FIRST_NS UINT64_C(10000000)
#define RIPEN_NS UINT64_C(1000000000)
enum { RETRY_DOUBLINGS_MAX = 10 };

static uint32_t load_state(const struct bat_page *page)
{
    return atomic_load_explicit(&page->state, memory_order_relaxed);
}

void assert_page_state(const struct bat *bat, uint32_t index)
{
#ifndef NDEBUG
    const struct bat_page *page = &bat->pages[index];
    uint32_t state = load_state(page);
    bool dirty = state & PLOOP_BAT_PAGE_DIRTY, due = state & PAGE_DUE,
         writeback = state & PLOOP_BAT_PAGE_WRITEBACK;
    bool timed = deadlines_has(&bat->deadlines, index);
    assert(dirty == (timed || due) && !(timed && due));
    assert(list_is_empty(&page->due) == !(due && !writeback));
    assert(!(state & PLOOP_BAT_PAGE_FAILED) || (page->error != 0 && (dirty || writeback)));
    assert(list_is_empty(&page->unsynced) == !(state & PLOOP_BAT_PAGE_UNSYNCED));
    assert(!(state & PLOOP_BAT_PAGE_HIGH_PRIORITY) || due);
    assert(dirty || page->changes == 0);
#else
    (void)bat;
    (void)index;
#endif
}

/* The one place where a page's state changes. */
static void set_state(struct bat *bat, uint32_t index, uint32_t clear, uint32_t set)
{
    struct bat_page *page = &bat->pages[index];
    uint32_t old = load_state(page), next = (old & ~clear) | set;
    assert((old & clear) == clear && !(old & ~clear & set));
    assert(!(set & PLOOP_BAT_PAGE_WRITEBACK) || (clear & PLOOP_BAT_PAGE_DIRTY));
    atomic_store_explicit(&page->state, next, memory_order_relaxed);
    if ((old ^ next) & PLOOP_BAT_PAGE_DIRTY) {
        count(&bat->stats.pages_dirty, next & PLOOP_BAT_PAGE_DIRTY ? 1 : UINT64_MAX);
    }
    if ((old ^ next) & PLOOP_BAT_PAGE_FAILED) {
        count(&bat->stats.pages_failed, next & PLOOP_BAT_PAGE_FAILED ? 1 : UINT64_MAX);
    }
}

/* The bits of `bits` that are set. */
static uint32_t state_of(const struct bat *bat, uint32_t index, uint32_t bits)
{
    return load_state(&bat->pages[index]) & bits;
}

void page_init(struct bat *bat, uint32_t index)
{
    struct bat_page *page = &bat->pages[index];
    page->bat = bat;
    page->gen = 1;
    page->pending = PENDING_NONE;
    atomic_store_explicit(&page->deadline_ns, UINT64_MAX, memory_order_relaxed);
    list_init(&page->due);
    list_init(&page->unsynced);
}

static void set_deadline(struct bat *bat, uint32_t index, uint64_t when)
{
    atomic_store_explicit(&bat->pages[index].deadline_ns, when, memory_order_relaxed);
    deadlines_set(&bat->deadlines, index, when);
}

static uint64_t add_time(uint64_t when, uint64_t more)
{
    return when > UINT64_MAX - more ? UINT64_MAX - 1 : when + more;
}

static uint64_t next_deadline(const struct bat *bat, const struct bat_page *page, uint64_t now)
{
    uint64_t rest = add_time(now, bat->delay_ns);
    uint64_t age =
        add_time(atomic_load_explicit(&page->dirtied_ns, memory_order_relaxed), bat->max_age_ns);
    return rest < age ? rest : age;
}

/* DIRTY is set already; it is on neither the deadlines nor the due list. */
static void enter_due(struct bat *bat, uint32_t index)
{
    struct bat_page *page = &bat->pages[index];
    atomic_store_explicit(&page->deadline_ns, 0, memory_order_relaxed);
    set_state(bat, index, 0, PAGE_DUE);
    if (!page_is(page, PLOOP_BAT_PAGE_WRITEBACK)) {
        list_append(&bat->due, &page->due);
    }
}

void page_make_due(struct bat *bat, uint32_t index)
{
    if (deadlines_has(&bat->deadlines, index)) {
        deadlines_remove(&bat->deadlines, index);
        enter_due(bat, index);
    }
    assert_page_state(bat, index);
}

void page_change(struct bat *bat, uint32_t index, struct sync_number barrier)
{
    struct bat_page *page = &bat->pages[index];
    atomic_fetch_add_explicit(&page->changes, 1, memory_order_relaxed);
    page->barrier = sync_later(page->barrier, barrier);
    uint64_t now = bat->now_ns(bat->owner);
    if (page_is(page, PLOOP_BAT_PAGE_DIRTY)) {
        count(&bat->stats.page_redirties, 1);
        if (deadlines_has(&bat->deadlines, index) && !page_is(page, PLOOP_BAT_PAGE_FAILED)) {
            set_deadline(bat, index, next_deadline(bat, page, now));
        }
    } else {
        count(&bat->stats.page_dirties, 1);
        PROBE2(page_dirty, bat, index);
        atomic_store_explicit(&page->dirtied_ns, now, memory_order_relaxed);
        set_state(bat, index, 0, PLOOP_BAT_PAGE_DIRTY);
        if (bat->delay_ns == 0) {
            enter_due(bat, index);
        } else {
            set_deadline(bat, index, next_deadline(bat, page, now));
        }
    }
    assert_page_state(bat, index);
}

void bat_page_hurry(struct bat *bat, uint32_t index)
{
    if (state_of(bat, index, PLOOP_BAT_PAGE_DIRTY)) {
        page_make_due(bat, index);
        set_state(bat, index, state_of(bat, index, PLOOP_BAT_PAGE_HIGH_PRIORITY),
                  PLOOP_BAT_PAGE_HIGH_PRIORITY);
    }
    assert_page_state(bat, index);
}

uint64_t bat_next_deadline(const struct bat *bat)
{
    uint64_t next = deadlines_next(&bat->deadlines);
    return bat->ripen_ns && bat->ripen_ns < next ? bat->ripen_ns : next;
}

void ripen_by_clock(struct bat *bat)
{
    bat->ripen_ns =
        pending_ripens(&bat->alloc.pending) ? add_time(bat->now_ns(bat->owner), RIPEN_NS) : 0;
}

uint32_t bat_run_deadlines(struct bat *bat, uint64_t now_ns)
{
    uint32_t due = 0;
    if (bat->ripen_ns && bat->ripen_ns <= now_ns) {
        bat->ripen_ns = 0;
        sync_want(&bat->syncer, sync_next(&bat->syncer));
        due++;
    }
    while (deadlines_next(&bat->deadlines) <= now_ns && bat->deadlines.count) {
        page_make_due(bat, deadlines_first(&bat->deadlines));
        due++;
    }
    return due;
}

void bat_delay_changed(struct bat *bat, uint64_t delay_ns, uint64_t max_age_ns)
{
    bat->delay_ns = delay_ns;
    bat->max_age_ns = max_age_ns;
    uint64_t now = bat->now_ns(bat->owner);
    for (uint32_t index = 0; index < bat->page_count && bat->deadlines.count; index++) {
        if (!deadlines_has(&bat->deadlines, index) ||
            page_is(&bat->pages[index], PLOOP_BAT_PAGE_FAILED)) {
            continue;
        }
        if (delay_ns == 0) {
            page_make_due(bat, index);
        } else {
            set_deadline(bat, index, next_deadline(bat, &bat->pages[index], now));
        }
    }
}

/* Its image is taken: what changes from now on is the next generation. */
void page_frozen(struct bat *bat, uint32_t index)
{
    struct bat_page *page = &bat->pages[index];
    assert(page_is(page, PLOOP_BAT_PAGE_DIRTY | PAGE_DUE) &&
           !page_is(page, PLOOP_BAT_PAGE_WRITEBACK));
    list_remove(&page->due);
    set_state(bat, index,
              PLOOP_BAT_PAGE_DIRTY | PAGE_DUE | state_of(bat, index, PLOOP_BAT_PAGE_HIGH_PRIORITY),
              PLOOP_BAT_PAGE_WRITEBACK);
    atomic_store_explicit(&page->changes, 0, memory_order_relaxed);
    atomic_store_explicit(&page->dirtied_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&page->deadline_ns, UINT64_MAX, memory_order_relaxed);
    page->barrier = SYNC_NONE;
    page->gen++;
    assert_page_state(bat, index);
}

/* WRITEBACK is done: a page that became due meanwhile can be frozen again. */
static void writeback_done(struct bat *bat, uint32_t index)
{
    set_state(bat, index, PLOOP_BAT_PAGE_WRITEBACK, 0);
    if (page_is(&bat->pages[index], PAGE_DUE)) {
        list_append(&bat->due, &bat->pages[index].due);
    }
}

void page_written(struct bat *bat, uint32_t index, uint64_t gen)
{
    struct bat_page *page = &bat->pages[index];
    assert(gen + 1 == page->gen);
    writeback_done(bat, index);
    set_state(bat, index, state_of(bat, index, PLOOP_BAT_PAGE_FAILED | PLOOP_BAT_PAGE_UNSYNCED),
              PLOOP_BAT_PAGE_UNSYNCED);
    page->no_space_ns = 0;
    atomic_store_explicit(&page->error, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&page->writes, 1, memory_order_relaxed);
    page->synced_number = sync_next(&bat->syncer);
    list_remove(&page->unsynced);
    list_append(&bat->unsynced, &page->unsynced);
    if (page_is(page, PAGE_OVER_LIMIT)) {
        sync_want(&bat->syncer,
                  page->synced_number); /* allocations wait for it, perhaps nothing else does */
    }
    alloc_page_written(&bat->alloc, gen, &page->pending);
    if (bat->ripen_ns == 0) {
        ripen_by_clock(bat);
    }
    assert_page_state(bat, index);
}

/*
 * Whether a failure counts against the limit. A lack of space does not while requests wait for
 * space, for as long as they do: they wait for this page too.
 */
static bool failure_counts(const struct bat *bat, struct bat_page *page, int error, uint64_t now)
{
    if (!is_no_space(error) || bat->patience_ns == 0) {
        return true;
    }
    if (page->no_space_ns == 0) {
        page->no_space_ns = now ? now : 1;
    }
    return now > page->no_space_ns && now - page->no_space_ns >= bat->patience_ns;
}

/*
 * The disk may hold this generation, any since the last durable one, or a mix: the page is written
 * again (R5).
 */
void page_write_failed(struct bat *bat, uint32_t index, int error)
{
    struct bat_page *page = &bat->pages[index];
    assert(page_is(page, PLOOP_BAT_PAGE_WRITEBACK) && error);
    uint64_t now = bat->now_ns(bat->owner);
    if (is_no_space(error)) {
        alloc_give_blocks_back(&bat->alloc);
    }
    writeback_done(bat, index);
    page->tries++;
    page->failures += failure_counts(bat, page, error, now);
    atomic_store_explicit(&page->error, error, memory_order_relaxed);
    set_state(bat, index, state_of(bat, index, PLOOP_BAT_PAGE_FAILED), PLOOP_BAT_PAGE_FAILED);
    if (page->failures >= bat->failure_limit && !page_is(page, PAGE_OVER_LIMIT) &&
        !bat_latch(bat)) {
        set_state(bat, index, 0, PAGE_OVER_LIMIT);
        bat->over_limit++;
        bat->allocation_error = error;
    }
    if (!page_is(page, PLOOP_BAT_PAGE_DIRTY)) {
        set_state(bat, index, 0, PLOOP_BAT_PAGE_DIRTY);
        atomic_store_explicit(&page->dirtied_ns, now, memory_order_relaxed);
    }
    if (!page_is(page, PAGE_DUE)) {
        uint32_t doublings = page->tries < RETRY_DOUBLINGS_MAX ? page->tries : RETRY_DOUBLINGS_MAX;
        set_deadline(bat, index, add_time(now, RETRY_FIRST_NS << doublings));
    }
    assert_page_state(bat, index);
}

/* A SYNC succeeded: every page it covers is durable as it was written. */
void pages_synced(struct bat *bat)
{
    while (!list_is_empty(&bat->unsynced)) {
        struct bat_page *page = container_of(bat->unsynced.next, struct bat_page, unsynced);
        if (!sync_is_done(&bat->syncer, page->synced_number)) {
            break;
        }
        uint32_t index = (uint32_t)(page - bat->pages);
        list_remove(&page->unsynced);
        set_state(bat, index, PLOOP_BAT_PAGE_UNSYNCED, 0);
        if (!page_is(page, PLOOP_BAT_PAGE_FAILED)) {
            page->tries = page->failures = 0;
            if (page_is(page, PAGE_OVER_LIMIT)) {
                set_state(bat, index, PAGE_OVER_LIMIT, 0);
                bat->over_limit--;
            }
        }
        assert_page_state(bat, index);
    }
}
