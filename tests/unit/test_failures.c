/* SPDX-License-Identifier: MIT */
/* A backend that fails metadata requests: page writes (R5) and SYNCs (R6). */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <string.h>

#include "image_fixture.h"

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void open_again_with_recover(struct rig *rig)
{
    script_reopen(&rig->script, 0);
    ck_assert_int_eq(rig_try_open(rig), -EUCLEAN);
    rig->config.flags |= PLOOP_DEV_RECOVER;
    rig_open(rig);
}

/* ---- page writes ---- */

START_TEST(a_flush_fails_once_and_the_next_tries_again)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    struct ploop_bat_page_info page = rig_page(&rig, 0);
    ck_assert_uint_eq(page.state, PLOOP_BAT_PAGE_DIRTY | PLOOP_BAT_PAGE_FAILED);
    ck_assert_int_eq(page.error, -EIO);
    ck_assert_uint_eq(rig_info(&rig).pages_failed, 1);
    ck_assert_uint_eq(rig_info(&rig).page_write_failures, 1);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_FAILED], 1);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_FAILED], EIO);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    page = rig_page(&rig, 0);
    ck_assert_uint_eq(page.state, 0);
    ck_assert_int_eq(page.error, 0);
    ck_assert_uint_eq(rig_info(&rig).pages_failed, 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    rig_end(&rig);
}
END_TEST

START_TEST(everyone_who_depends_on_a_page_fails_once)
{
    struct rig rig;
    struct req flush[3], fua, bat_write;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    for (int i = 0; i < 2; i++) {
        req_flush(&flush[i], &rig);
    }
    req_write(&fua, &rig, at(1), 512, 1, PLOOP_PIO_FUA);
    req_bat_write(&bat_write, &rig, 0, 1);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&flush[0]), -EIO);
    ck_assert_int_eq(req_end(&fua), -EIO);
    ck_assert_int_eq(req_end(&bat_write), -EIO);
    /* The second flush began a new round behind the first, and that round tried again. */
    ck_assert_int_eq(req_end(&flush[1]), 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, PLOOP_PIO_FUA), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(preflush_fails_and_its_data_is_not_written)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_PREFLUSH), -EIO);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    rig_expect(&rig, at(0), 512, 0xA0);
    rig_end(&rig);
}
END_TEST

/*
 * If an image older than the flush fails, the flush does not, because the page was changed since
 * and is written once more.
 */
START_TEST(an_older_image_that_fails_is_tried_once_more)
{
    struct rig rig;
    struct req flush;
    rig_with_a_dirty_page(&rig);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 0xA2, 0), 0);
    req_flush(&flush, &rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&flush), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 2), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_failed_page_is_tried_again_at_growing_distances)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EIO);
    rig_advance(&rig, 10 * SECOND);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    uint64_t distance = 0;
    for (uint64_t tries = 2; tries < 6; tries++) {
        uint64_t next = ploop_dev_next_deadline(rig.dev);
        ck_assert_uint_eq(next, rig_page(&rig, 0).deadline_ns);
        ck_assert_uint_gt(next - rig.clock.now_ns, distance);
        ck_assert_uint_lt(next - rig.clock.now_ns, 60 * SECOND);
        ck_assert_uint_le(rig.clock.wake_at_ns, next);
        distance = next - rig.clock.now_ns;
        /* A change does not make it earlier. */
        ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, 0), 0);
        rig_advance(&rig, distance - 1);
        ck_assert_uint_eq(rig_page_writes(&rig), tries - 1);
        rig_advance(&rig, 1);
        ck_assert_uint_eq(rig_page_writes(&rig), tries);
    }
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    script_fail(&rig.script, SCRIPT_META, 0, 0, 0);
    rig_advance(&rig, 60 * SECOND);
    ck_assert_uint_eq(rig_info(&rig).pages_failed, 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(the_embedder_may_ask_for_a_try_at_once)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 2);
    ck_assert_uint_eq(rig_page(&rig, 0).state, PLOOP_BAT_PAGE_UNSYNCED);
    ck_assert_int_eq(rig_page(&rig, 0).error, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(after_the_limit_allocations_are_refused)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.page_failure_limit = 2;
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 0xA0, 0), 0);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 0xA1, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).state, 0);
    ck_assert_int_eq(rig_flush(&rig), -EIO);

    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_ALLOCATION_REFUSED);
    ck_assert_int_eq(rig_info(&rig).error, -EIO);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 0xA2, 0), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(5000), CLUSTER, 0xA2, 0), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 0xB0, 0), 0);
    rig_expect(&rig, at(0), CLUSTER, 0xB0);
    rig_expect(&rig, at(1), CLUSTER, 0xA1);
    rig_expect(&rig, at(2), CLUSTER, 0);

    /*
     * The write is not enough: the page must be synced, and the device does that without being
     * asked.
     */
    script_fail(&rig.script, SCRIPT_META, 0, 0, 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 0xA2, 0), -EIO);
    script_release_all(&rig.script);
    ck_assert_uint_eq(rig_info(&rig).state, 0);
    ck_assert_int_eq(rig_info(&rig).error, 0);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 0xA2, 0), 0);
    rig_expect(&rig, at(2), CLUSTER, 0xA2);
    rig_end(&rig);
}
END_TEST

START_TEST(a_close_that_cannot_write_leaves_the_mark)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EIO);
    rig.log_lines = 0;
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    ck_assert_uint_eq(rig.log_lines, 1);
    ck_assert_uint_eq(rig.log_level, PLOOP_LOG_ERROR);
    ck_assert(rig_file_marked(&rig));
    script_fail(&rig.script, SCRIPT_META, 0, 0, 0);
    open_again_with_recover(&rig);
    rig_expect(&rig, at(0), CLUSTER, 0xA0);
    rig_close_dev(&rig);
    ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
    rig_free(&rig);
}
END_TEST

/* The close's flush fails. Even if the next write would succeed, the mark must not be cleared. */
START_TEST(a_close_whose_flush_failed_leaves_the_mark)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    ck_assert(rig_file_marked(&rig));
    open_again_with_recover(&rig);
    rig_expect(&rig, at(0), CLUSTER, 0xA0);
    rig_free(&rig);
}
END_TEST

/* Everything was written before, but the mark's own write fails. */
START_TEST(a_close_that_cannot_clear_the_mark_says_so)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    ck_assert_int_eq(rig_flush(&rig), 0);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EROFS);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EROFS);
    rig.dev = NULL;
    ck_assert(rig_file_marked(&rig));
    script_fail(&rig.script, SCRIPT_META, 0, 0, 0);
    open_again_with_recover(&rig);
    rig_expect(&rig, at(1), CLUSTER, 0xA1);
    rig_end(&rig);
}
END_TEST

START_TEST(a_close_tries_a_failed_page_once_more)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    rig_end(&rig);
}
END_TEST

START_TEST(what_a_failed_page_removed_is_quarantined)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_int_eq(rig_discard(&rig, at(0), 2 * CLUSTER), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 0);
    rig_end(&rig);
}
END_TEST

/* ---- SYNCs ---- */

/*
 * The policy that allows no write after a failed SYNC: on the fast path, in the engine, and for
 * parked requests.
 */
START_TEST(changes_are_refused_after_a_failed_sync)
{
    struct rig rig;
    struct req parked;
    rig_small(&rig, PLOOP_ENOSPC_PARK);
    rig.config.sync_failed_policy = PLOOP_SYNC_FAILED_REFUSE_CHANGES;
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), RIG_ROOM * CLUSTER, 0xA0, 0), 0);
    req_write(&parked, &rig, at(RIG_ROOM), 512, 1, 0);
    ck_assert(!req_done(&parked));
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, 0), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(1), 2 * CLUSTER, 1, 0), -EIO);
    ck_assert_int_eq(rig_zeroes(&rig, at(1), 512, 0), -EIO);
    ck_assert_int_eq(rig_discard(&rig, at(1), CLUSTER), -EIO);
    /* Also where nothing is mapped, and where zeros are there already. */
    ck_assert_int_eq(rig_zeroes(&rig, at(100), 3 * CLUSTER, 0), -EIO);
    ck_assert_int_eq(rig_zeroes(&rig, at(100), 3 * CLUSTER, PLOOP_PIO_FUA), -EIO);
    ck_assert_int_eq(rig_discard(&rig, at(100), 3 * CLUSTER), -EIO);
    rig_expect(&rig, at(0), RIG_ROOM * CLUSTER, 0xA0);
    ploop_dev_retry_parked(rig.dev);
    ck_assert_int_eq(req_wait(&parked), -EIO);
    /* A resume does not open the gate again. */
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EIO);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, 0), -EIO);
    rig_expect(&rig, at(1), CLUSTER, 0xA0);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    rig_free(&rig);
}
END_TEST

START_TEST(a_failed_sync_latches)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    uint32_t lines = rig.log_lines;
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -ENOSPC);
    ck_assert_int_eq(rig_flush(&rig), -EIO); /* never -ENOSPC: more space would not help */
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SYNC_FAILED);
    ck_assert_int_eq(rig_info(&rig).error, -ENOSPC);
    ck_assert_uint_eq(rig_info(&rig).sync_failures, 1);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_FAILED], 0);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_SYNC_FAILED], 1);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_SYNC_FAILED], ENOSPC);
    ck_assert_uint_eq(rig.log_lines, lines + 1);
    ck_assert_ptr_nonnull(strstr(rig.log_text, "No space left"));
    ck_assert_ptr_nonnull(strstr(rig.log_text, "recovery"));
    script_forget(&rig.script);

    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_FUA), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(3), 512, 1, PLOOP_PIO_FUA), -EIO);
    ck_assert_int_eq(rig_zeroes(&rig, at(4), 512, PLOOP_PIO_FUA), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_PREFLUSH), -EIO);
    struct req bat_write;
    req_bat_write(&bat_write, &rig, 0, 1);
    ck_assert_int_eq(req_wait(&bat_write), -EIO);
    ck_assert_int_eq(ploop_dev_flush(rig.dev), -EIO);

    /* Reads and plain writes continue, to new clusters too. */
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 0xB0, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(7), CLUSTER, 0xB7, 0), 0);
    rig_expect(&rig, at(0), CLUSTER, 0xB0);
    rig_expect(&rig, at(1), CLUSTER, 0xA1);
    rig_expect(&rig, at(7), CLUSTER, 0xB7);
    ck_assert_int_eq(rig_zeroes(&rig, at(7), CLUSTER, 0), 0);
    rig_expect(&rig, at(7), CLUSTER, 0);
    ck_assert_int_eq(rig_discard(&rig, at(0), CLUSTER), 0);
    rig_expect(&rig, at(0), CLUSTER, 0);

    /* Nothing is published or freed, however much time passes. */
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    for (int i = 0; i < 10; i++) {
        rig_advance(&rig, 10 * SECOND);
    }
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EIO);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert(rig_file_marked(&rig));
    open_again_with_recover(&rig);
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig_close_dev(&rig);
    ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
    rig_free(&rig);
}
END_TEST

START_TEST(a_barrier_that_fails_keeps_its_page_from_the_disk)
{
    struct rig rig;
    struct req flush, other, fua;
    rig_usual(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_flush(&flush, &rig);
    req_flush(&other, &rig);
    req_write(&fua, &rig, at(1), 512, 1, PLOOP_PIO_FUA);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&flush), -EIO);
    ck_assert_int_eq(req_end(&other), -EIO);
    ck_assert_int_eq(req_end(&fua), -EIO);
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    rig_expect(&rig, at(1), CLUSTER, 1);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    ck_assert_uint_eq(rig_page_writes(&rig), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(removals_pending_at_a_failed_sync_stay)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_int_eq(rig_discard(&rig, at(0), 2 * CLUSTER), 0);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    rig_advance(&rig, 10 * SECOND);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_flush_fails_once_and_the_next_tries_again,
                                  everyone_who_depends_on_a_page_fails_once,
                                  preflush_fails_and_its_data_is_not_written,
                                  an_older_image_that_fails_is_tried_once_more,
                                  a_failed_page_is_tried_again_at_growing_distances,
                                  the_embedder_may_ask_for_a_try_at_once,
                                  after_the_limit_allocations_are_refused,
                                  a_close_that_cannot_write_leaves_the_mark,
                                  a_close_whose_flush_failed_leaves_the_mark,
                                  a_close_that_cannot_clear_the_mark_says_so,
                                  a_close_tries_a_failed_page_once_more,
                                  what_a_failed_page_removed_is_quarantined,
                                  a_failed_sync_latches,
                                  changes_are_refused_after_a_failed_sync,
                                  a_barrier_that_fails_keeps_its_page_from_the_disk,
                                  removals_pending_at_a_failed_sync_stay};
    return RUN_TESTS("failures", tests);
}
