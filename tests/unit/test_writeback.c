/* SPDX-License-Identifier: MIT */
/*
 * Delayed writeback of BAT pages: when a page is written, by a clock that the test sets, and the
 * operator's functions for it (bat.h).
 */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER = 4096, FIRST_ENTRIES = 1008, ENTRIES = 1024 };

static const uint64_t delay = 500 * MS, max_age = 2 * SECOND;

/* A guest cluster's offset, by page and index in the page. */
static uint64_t in_page(uint64_t page, uint64_t entry)
{
    return (page * ENTRIES - (page ? ENTRIES - FIRST_ENTRIES : 0) + entry) * CLUSTER;
}

static void touch(struct rig *rig, uint64_t page, uint64_t entry)
{
    ck_assert_int_eq(rig_write(rig, in_page(page, entry), CLUSTER, 1, 0), 0);
}

/* Durably extended, everything clean. */
static void ready_with(struct rig *rig, uint64_t delay_ns, uint64_t max_age_ns)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.writeback_delay_ns = delay_ns;
    rig->config.writeback_max_age_ns = max_age_ns;
    rig_open(rig);
    touch(rig, 0, 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
    /* The deadlines announced so far are past. */
    rig_advance(rig, SECOND);
    rig->clock.wakes = 0;
}

static void ready(struct rig *rig)
{
    ready_with(rig, delay, max_age);
}

/* ---- deadlines ---- */

START_TEST(a_page_is_written_at_its_deadline)
{
    struct rig rig;
    ready(&rig);
    uint64_t begun = rig.clock.now_ns;
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    touch(&rig, 2, 5);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), begun + delay);
    ck_assert_uint_ge(rig.clock.wakes, 1);
    ck_assert_uint_eq(rig.clock.wake_at_ns, begun + delay);
    rig.clock.now_ns = begun + delay - 1;
    ck_assert_int_eq(ploop_dev_run(rig.dev), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    rig.clock.now_ns = begun + delay;
    ck_assert_int_eq(ploop_dev_run(rig.dev), 1);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert_uint_eq(rig.script.log[script_log_find(&rig.script, SCRIPT_META, 0)].offset,
                      2 * 4096);
    /* An early write promises nothing, so it costs no SYNC. */
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert_int_eq(ploop_dev_run(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_change_pushes_the_deadline_back)
{
    struct rig rig;
    ready(&rig);
    uint64_t begun = rig.clock.now_ns;
    touch(&rig, 2, 5);
    rig_advance(&rig, 300 * MS);
    touch(&rig, 2, 6);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), begun + 300 * MS + delay);
    rig_advance(&rig, 300 * MS);
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    rig_advance(&rig, 200 * MS);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    struct ploop_dev_info info = rig_info(&rig);
    ck_assert_uint_ge(info.page_redirties, 1);
    rig_end(&rig);
}
END_TEST

/* A page that is always hot is written too. */
START_TEST(no_page_is_older_than_the_maximum_age)
{
    struct rig rig;
    ready(&rig);
    uint64_t begun = rig.clock.now_ns;
    for (uint64_t i = 0; rig_page_writes(&rig) == 0; i++) {
        touch(&rig, 3, i);
        ck_assert_uint_le(rig_page(&rig, 3).deadline_ns, begun + max_age);
        rig_advance(&rig, 100 * MS);
        ck_assert_uint_lt(i, 100);
    }
    ck_assert_uint_eq(rig.clock.now_ns, begun + max_age);
    rig_end(&rig);
}
END_TEST

START_TEST(without_delay_a_page_is_written_at_once)
{
    struct rig rig;
    ready_with(&rig, 0, 0);
    touch(&rig, 2, 5);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    /* And once more for the changes made while it was in flight. */
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    touch(&rig, 2, 6);
    touch(&rig, 2, 7);
    touch(&rig, 2, 8);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert_uint_eq(rig_page_writes(&rig), 3);
    script_release_all(&rig.script);
    ck_assert_uint_eq(rig_page_writes(&rig), 3);
    rig_end(&rig);
}
END_TEST

START_TEST(the_longest_delay_never_comes)
{
    struct rig rig;
    ready_with(&rig, UINT64_MAX, UINT64_MAX);
    touch(&rig, 2, 5);
    rig_advance(&rig, 1000000 * SECOND);
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    rig_end(&rig);
}
END_TEST

START_TEST(a_new_delay_holds_for_dirty_pages)
{
    struct rig rig;
    ready(&rig);
    uint64_t begun = rig.clock.now_ns;
    touch(&rig, 2, 5);
    touch(&rig, 5, 5);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 2, 1), -EINVAL);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), begun + delay);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 60 * SECOND, 100 * SECOND), 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), begun + 60 * SECOND);
    rig_advance(&rig, 10 * SECOND);
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, SECOND, SECOND), 0);
    /* Not later than the maximum age after the first change; that time is past. */
    ck_assert_uint_eq(rig_page(&rig, 2).deadline_ns, begun + SECOND);
    ck_assert_int_eq(ploop_dev_run(rig.dev), 2);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    touch(&rig, 2, 6);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 0, SECOND), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 3);
    rig_end(&rig);
}
END_TEST

START_TEST(the_clock_is_told_when_to_come)
{
    struct rig rig;
    ready(&rig);
    uint64_t begun = rig.clock.now_ns;
    touch(&rig, 2, 5);
    ck_assert_uint_eq(rig.clock.wake_at_ns, begun + delay);
    uint64_t wakes = rig.clock.wakes;
    /* A deadline that does not move forward is not announced. */
    rig.clock.now_ns += 100 * MS;
    touch(&rig, 3, 5);
    touch(&rig, 2, 6);
    ck_assert_uint_eq(rig.clock.wakes, wakes);
    /* A run that comes early announces nothing either: the timer is still set. */
    ploop_dev_run(rig.dev);
    rig.clock.now_ns = begun + delay - 2 * MS - 1;
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig.clock.wakes, wakes);
    /*
     * A timer that fires a little early is spent, and so is one whose deadline has moved back
     * since.
     */
    rig.clock.now_ns = begun + delay - 2 * MS;
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig.clock.wakes, wakes + 1);
    ck_assert_uint_eq(rig.clock.wake_at_ns, begun + 100 * MS + delay);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 10 * MS, SECOND), 0);
    ck_assert_uint_eq(rig.clock.wake_at_ns, rig.clock.now_ns + 10 * MS);
    rig_end(&rig);
}
END_TEST

/* ---- writes ---- */

START_TEST(neighbours_leave_as_one_write)
{
    struct rig rig;
    ready(&rig);
    struct ploop_dev_info before = rig_info(&rig);
    for (uint64_t page = 3; page <= 6; page++) {
        touch(&rig, page, 5);
    }
    touch(&rig, 9, 5);
    ck_assert_int_eq((int)rig_info(&rig).pages_dirty, 5);
    rig.clock.now_ns += delay;
    ck_assert_int_eq(ploop_dev_run(rig.dev), 5);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    struct script_entry first = rig.script.log[script_log_find(&rig.script, SCRIPT_META, 0)];
    ck_assert_uint_eq(first.offset, 3 * 4096);
    ck_assert_uint_eq(first.length, 4 * 4096);
    struct ploop_dev_info after = rig_info(&rig);
    ck_assert_uint_eq(after.page_writes - before.page_writes, 5);
    ck_assert_uint_eq(after.page_write_calls - before.page_write_calls, 2);
    ck_assert_uint_eq(after.page_dirties - before.page_dirties, 5);
    rig_end(&rig);
}
END_TEST

START_TEST(a_page_not_yet_due_is_not_written_with_its_neighbours)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 3, 5);
    rig_advance(&rig, 100 * MS);
    touch(&rig, 4, 5);
    rig_advance(&rig, 400 * MS);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert_uint_eq(rig_page(&rig, 4).state, PLOOP_BAT_PAGE_DIRTY);
    rig_end(&rig);
}
END_TEST

START_TEST(the_last_page_ends_with_the_bat)
{
    struct rig rig;
    rig_create(&rig, 2, 1100 * CLUSTER, CLUSTER, 0);
    rig_open(&rig);
    ck_assert_uint_eq(ploop_bat_page_count(rig.dev), 2);
    touch(&rig, 1, 91);
    ck_assert_int_eq(rig_flush(&rig), 0);
    struct script_entry entry = rig.script.log[script_log_find(&rig.script, SCRIPT_META, 0)];
    ck_assert_uint_eq(entry.offset, 4096);
    ck_assert_uint_eq(entry.length, 512); /* (1100 - 1008) * 4 bytes */
    rig_end(&rig);
}
END_TEST

START_TEST(a_page_changed_on_its_way_is_written_again)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 2, 5);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    rig_advance(&rig, delay);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_WRITEBACK);
    touch(&rig, 2, 6);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_WRITEBACK | PLOOP_BAT_PAGE_DIRTY);
    ck_assert_uint_eq(rig_page(&rig, 2).changes, 1);
    script_release_all(&rig.script);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_UNSYNCED | PLOOP_BAT_PAGE_DIRTY);
    ck_assert_uint_ne(rig_file_entry(&rig, 2 * ENTRIES - 16 + 5), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2 * ENTRIES - 16 + 6), 0);
    rig_advance(&rig, delay);
    ck_assert_uint_ne(rig_file_entry(&rig, 2 * ENTRIES - 16 + 6), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    rig_end(&rig);
}
END_TEST

/* The page is due twice while its first image is in flight: one writer, and no image is lost. */
START_TEST(a_page_due_on_its_way_waits_for_the_older_image)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 2, 5);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    rig_advance(&rig, delay);
    touch(&rig, 2, 6);
    rig_advance(&rig, delay);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    script_release_all(&rig.script);
    ck_assert_uint_ne(rig_file_entry(&rig, 2 * ENTRIES - 16 + 6), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(high_priority_is_now)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 2, 5);
    touch(&rig, 7, 5);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 2), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_WRITEBACK);
    touch(&rig, 2, 6);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 2), 0);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_WRITEBACK | PLOOP_BAT_PAGE_DIRTY |
                                                   PLOOP_BAT_PAGE_HIGH_PRIORITY);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    script_release_all(&rig.script);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_UNSYNCED);
    ck_assert_uint_eq(rig_page(&rig, 7).state, PLOOP_BAT_PAGE_DIRTY);
    /* For a clean page it requests nothing. */
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 2), 0);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 11), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, ploop_bat_page_count(rig.dev)), -EINVAL);
    rig_end(&rig);
}
END_TEST

/* A page that is due while every image of the pool is busy waits; all are written in the end. */
START_TEST(more_pages_than_images)
{
    struct rig rig;
    rig_create(&rig, 2, UINT64_C(60) * ENTRIES * CLUSTER, CLUSTER, 0);
    rig_open(&rig);
    touch(&rig, 0, 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    for (uint64_t page = 0; page < 60; page += 2) {
        touch(&rig, page, 3);
    }
    script_forget(&rig.script);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    rig_advance(&rig, 10 * SECOND);
    ck_assert_uint_lt(rig_page_writes(&rig), 30);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    while (script_release_kind(&rig.script, SCRIPT_META)) {
    }
    ck_assert_uint_eq(rig_page_writes(&rig), 30);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

/* ---- a write of BAT pages ---- */

START_TEST(bat_write_completes_when_durable)
{
    struct rig rig;
    struct req req;
    ready(&rig);
    touch(&rig, 2, 5);
    touch(&rig, 3, 5);
    touch(&rig, 7, 5);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META) | SCRIPT_BIT(PLOOP_IO_SYNC);
    req_bat_write(&req, &rig, 1, 4);
    ck_assert_uint_eq(rig_page_writes(&rig), 1); /* neighbours */
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert(!req_done(&req));
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    while (script_release_kind(&rig.script, PLOOP_IO_SYNC)) {
    }
    ck_assert(req_done(&req));
    ck_assert_int_eq(req_end(&req), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 2 * ENTRIES - 16 + 5), 0);
    ck_assert_uint_eq(rig_page(&rig, 2).state, 0);
    ck_assert_uint_eq(rig_page(&rig, 7).state, PLOOP_BAT_PAGE_DIRTY);
    rig.script.hold = 0;
    script_forget(&rig.script);
    req_bat_write(&req, &rig, 1, 4);
    ck_assert_int_eq(req_wait(&req), 0);
    ck_assert_uint_eq(rig.script.log_count, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(bat_write_of_an_unsynced_page_is_a_sync)
{
    struct rig rig;
    struct req req;
    ready(&rig);
    touch(&rig, 2, 5);
    rig_advance(&rig, delay);
    ck_assert_uint_eq(rig_page(&rig, 2).state, PLOOP_BAT_PAGE_UNSYNCED);
    req_bat_write(&req, &rig, 2, 1);
    ck_assert_int_eq(req_wait(&req), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 1);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    ck_assert_uint_eq(rig_page(&rig, 2).state, 0);
    rig_end(&rig);
}
END_TEST

/* ---- the operator's functions ---- */

START_TEST(page_info_tells_a_page)
{
    struct rig rig;
    ready(&rig);
    struct ploop_bat_page_info info = rig_page(&rig, 2);
    ck_assert_uint_eq(info.state, 0);
    ck_assert_uint_eq(info.mapped + info.changes, 0);
    ck_assert_uint_eq(info.deadline_ns, UINT64_MAX);
    ck_assert_uint_eq(info.dirtied_ns, 0);
    ck_assert_uint_eq(info.writes, 0);
    uint64_t begun = rig.clock.now_ns;
    touch(&rig, 2, 5);
    rig.clock.now_ns += 100 * MS;
    touch(&rig, 2, 6);
    touch(&rig, 2, 7);
    ck_assert_int_eq(rig_discard(&rig, in_page(2, 6), CLUSTER), 0);
    info = rig_page(&rig, 2);
    ck_assert_uint_eq(info.state, PLOOP_BAT_PAGE_DIRTY);
    ck_assert_uint_eq(info.mapped, 2);
    ck_assert_uint_eq(info.changes, 4);
    ck_assert_uint_eq(info.dirtied_ns, begun);
    ck_assert_uint_eq(info.deadline_ns, begun + 100 * MS + delay);
    ck_assert_int_eq(rig_flush(&rig), 0);
    info = rig_page(&rig, 2);
    ck_assert_uint_eq(info.state, 0);
    ck_assert_uint_eq(info.mapped, 2);
    ck_assert_uint_eq(info.changes, 0);
    ck_assert_uint_eq(info.writes, 1);
    ck_assert_uint_eq(info.deadline_ns, UINT64_MAX);
    ck_assert_int_eq(info.error, 0);

    ck_assert_int_eq(ploop_bat_page_info(rig.dev, ploop_bat_page_count(rig.dev), &info), -EINVAL);
    ck_assert_int_eq(ploop_bat_page_info(rig.dev, 0, NULL), -EINVAL);
    info.size = 8;
    ck_assert_int_eq(ploop_bat_page_info(rig.dev, 0, &info), -EINVAL);
    struct ploop_dev_info dev_info = {.size = 16};
    ck_assert_int_eq(ploop_dev_info(rig.dev, &dev_info), -EINVAL);
    ck_assert_int_eq(ploop_dev_info(rig.dev, NULL), -EINVAL);
    rig_close_dev(&rig);
    rig_free(&rig);
}
END_TEST

START_TEST(next_dirty_finds_what_is_not_durable)
{
    struct rig rig;
    uint32_t page = 99;
    ready(&rig);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 0, &page), -ENOENT);
    touch(&rig, 2, 5);
    rig_advance(&rig, delay);
    touch(&rig, 7, 5);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 0, &page), 0);
    ck_assert_uint_eq(page, 2);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 2, &page), 0);
    ck_assert_uint_eq(page, 2);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 3, &page), 0);
    ck_assert_uint_eq(page, 7);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 8, &page), -ENOENT);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, UINT32_MAX, &page), -ENOENT);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig.dev, 0, &page), -ENOENT);
    rig_end(&rig);
}
END_TEST

START_TEST(page_read_gives_the_entries_in_memory)
{
    struct rig rig;
    uint32_t entries[ENTRIES + 1];
    ready(&rig);
    touch(&rig, 2, 5);
    memset(entries, 0xEE, sizeof(entries));
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 2, entries, ENTRIES + 1), ENTRIES);
    ck_assert_uint_eq(entries[4], 0);
    ck_assert_uint_ne(entries[5], 0);
    ck_assert_uint_eq(entries[ENTRIES], 0xEEEEEEEEu);
    uint32_t in_memory = entries[5];
    ck_assert_uint_eq(rig_file_entry(&rig, 2 * ENTRIES - 16 + 5), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2 * ENTRIES - 16 + 5), in_memory);
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 0, entries, ENTRIES), FIRST_ENTRIES);
    ck_assert_uint_eq(entries[0], rig_file_entry(&rig, 0));
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 0, entries, 1), 1);
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 0, entries, 0), 0);
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 16, entries, ENTRIES),
                     16384 - FIRST_ENTRIES - 15 * ENTRIES);
    ck_assert_int_eq(ploop_bat_page_read(rig.dev, 17, entries, ENTRIES), -EINVAL);
    rig_end(&rig);
}
END_TEST

/* ---- a clock that cannot be trusted: F10 ---- */

START_TEST(a_clock_that_stands_still_only_delays)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 2, 5);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(ploop_dev_run(rig.dev), 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_int_eq(rig_write(&rig, in_page(4, 1), CLUSTER, 1, PLOOP_PIO_FUA), 0);
    touch(&rig, 2, 6);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    touch(&rig, 2, 7);
    rig_end(&rig);
}
END_TEST

START_TEST(a_clock_that_jumps_only_changes_latency)
{
    static const uint64_t times[] = {
        0, UINT64_MAX, 1, UINT64_MAX - 1, 500, RIG_START_SECONDS * SECOND};
    struct rig rig;
    ready(&rig);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        touch(&rig, 2, 2 * i);
        rig.clock.now_ns = times[i];
        touch(&rig, 2, 2 * i + 1);
        ploop_dev_run(rig.dev);
        ck_assert_uint_le(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
        ck_assert_int_eq(rig_write(&rig, in_page(4, i), CLUSTER, 1, PLOOP_PIO_FUA), 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
        touch(&rig, 5, i);
    }
    rig.clock.now_ns = 0;
    rig_end(&rig);
}
END_TEST

/*
 * A deadline from before the clock went back does not keep a page for ever: each change sets a new
 * one.
 */
START_TEST(a_change_after_the_clock_went_back_counts_from_then)
{
    struct rig rig;
    ready(&rig);
    touch(&rig, 2, 5);
    rig.clock.now_ns = SECOND;
    touch(&rig, 2, 6);
    ck_assert_uint_eq(rig_page(&rig, 2).deadline_ns, SECOND + delay);
    rig_advance(&rig, delay);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_page_is_written_at_its_deadline,
                                  a_change_pushes_the_deadline_back,
                                  no_page_is_older_than_the_maximum_age,
                                  without_delay_a_page_is_written_at_once,
                                  the_longest_delay_never_comes,
                                  a_new_delay_holds_for_dirty_pages,
                                  the_clock_is_told_when_to_come,
                                  neighbours_leave_as_one_write,
                                  a_page_not_yet_due_is_not_written_with_its_neighbours,
                                  the_last_page_ends_with_the_bat,
                                  a_page_changed_on_its_way_is_written_again,
                                  a_page_due_on_its_way_waits_for_the_older_image,
                                  high_priority_is_now,
                                  more_pages_than_images,
                                  bat_write_completes_when_durable,
                                  bat_write_of_an_unsynced_page_is_a_sync,
                                  page_info_tells_a_page,
                                  next_dirty_finds_what_is_not_durable,
                                  page_read_gives_the_entries_in_memory,
                                  a_clock_that_stands_still_only_delays,
                                  a_clock_that_jumps_only_changes_latency,
                                  a_change_after_the_clock_went_back_counts_from_then};
    return RUN_TESTS("writeback", tests);
}
