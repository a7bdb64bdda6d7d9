/* SPDX-License-Identifier: MIT */
/* A backend that fails: data writes (F4), page writes (R5), SYNCs (R6), and what comes short or has to be tried again (F3). */
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

/* Cluster 0 is mapped, page 0 is dirty. */
static void with_a_dirty_page(struct rig *rig)
{
    rig_usual(rig);
    ck_assert_int_eq(rig_write(rig, at(0), CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_int_eq(rig_write(rig, at(1), CLUSTER, 0xA1, 0), 0);
    script_forget(&rig->script);
}

static uint64_t page_writes(const struct rig *rig)
{
    return rig->script.submitted[SCRIPT_META];
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
    with_a_dirty_page(&rig);
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
    ck_assert_uint_eq(page_writes(&rig), 2);
    rig_end(&rig);
}
END_TEST

START_TEST(everyone_who_depends_on_a_page_fails_once)
{
    struct rig rig;
    struct req flush[3], fua, bat_write;
    with_a_dirty_page(&rig);
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
    /* The second flush began a round of its own, behind the first: that one tried again. */
    ck_assert_int_eq(req_end(&flush[1]), 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, PLOOP_PIO_FUA), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(preflush_fails_and_its_data_is_not_written)
{
    struct rig rig;
    with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_PREFLUSH), -EIO);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    rig_expect(&rig, at(0), 512, 0xA0);
    rig_end(&rig);
}
END_TEST

/* A failure of an image older than the flush is not the flush's, when the page was changed since and is written once more. */
START_TEST(an_older_image_that_fails_is_tried_once_more)
{
    struct rig rig;
    struct req flush;
    with_a_dirty_page(&rig);
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
    with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EIO);
    rig_advance(&rig, 10 * SECOND);
    ck_assert_uint_eq(page_writes(&rig), 1);
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
        ck_assert_uint_eq(page_writes(&rig), tries - 1);
        rig_advance(&rig, 1);
        ck_assert_uint_eq(page_writes(&rig), tries);
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
    with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_eq(page_writes(&rig), 2);
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

    /* Written is not enough: it has to be synced, and the device sees to that by itself. */
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
    with_a_dirty_page(&rig);
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

/* Everything was written before, and the mark's own write fails. */
START_TEST(a_close_that_cannot_clear_the_mark_says_so)
{
    struct rig rig;
    with_a_dirty_page(&rig);
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
    with_a_dirty_page(&rig);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    rig_end(&rig);
}
END_TEST

START_TEST(what_a_failed_page_removed_is_quarantined)
{
    struct rig rig;
    with_a_dirty_page(&rig);
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

START_TEST(a_failed_sync_latches)
{
    struct rig rig;
    with_a_dirty_page(&rig);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SYNC_FAILED);
    ck_assert_int_eq(rig_info(&rig).error, -EIO);
    ck_assert_uint_eq(rig_info(&rig).sync_failures, 1);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_FAILED], 1);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_FAILED], EIO);
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

    /* Reads and plain writes go on, to new clusters too. */
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 0xB0, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(7), CLUSTER, 0xB7, 0), 0);
    rig_expect(&rig, at(0), CLUSTER, 0xB0);
    rig_expect(&rig, at(1), CLUSTER, 0xA1);
    rig_expect(&rig, at(7), CLUSTER, 0xB7);
    ck_assert_int_eq(rig_zeroes(&rig, at(7), CLUSTER, 0), 0);
    rig_expect(&rig, at(7), CLUSTER, 0);
    ck_assert_int_eq(rig_discard(&rig, at(0), CLUSTER), 0);
    rig_expect(&rig, at(0), CLUSTER, 0);

    /* Nothing is published, nothing freed, whatever time it is. */
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
    ck_assert_uint_eq(page_writes(&rig), 0);
    rig_expect(&rig, at(1), CLUSTER, 1);
    ck_assert_int_eq(ploop_dev_close(rig.dev), -EIO);
    rig.dev = NULL;
    ck_assert_uint_eq(page_writes(&rig), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(removals_pending_at_a_failed_sync_stay)
{
    struct rig rig;
    with_a_dirty_page(&rig);
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

/* ---- data ---- */

START_TEST(a_failed_data_write_fails_its_request_only)
{
    struct rig rig;
    with_a_dirty_page(&rig);
    struct req bad, good;
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&bad, &rig, at(10), 3 * CLUSTER, 1, 0);
    req_write(&good, &rig, at(20), CLUSTER, 2, 0);
    script_fail(&rig.script, PLOOP_IO_WRITE, 1, 1, -EIO);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&bad), -EIO);
    ck_assert_int_eq(req_end(&good), 0);
    rig_expect(&rig, at(10), CLUSTER, 1);
    rig_expect(&rig, at(11), CLUSTER, 0);
    rig_expect(&rig, at(12), CLUSTER, 1);
    rig_expect(&rig, at(20), CLUSTER, 2);
    /* What was taken for it is not lost: nothing leaks. */
    ck_assert_int_eq(rig_write(&rig, at(11), 512, 3, 0), 0);
    rig_expect(&rig, at(11), 512, 3);
    rig_expect(&rig, at(11) + 512, CLUSTER - 512, 0);
    rig_close_dev(&rig);
    ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
    rig_free(&rig);
}
END_TEST

START_TEST(a_page_due_before_the_data_does_not_publish_it)
{
    struct rig rig;
    struct req write, flush;
    with_a_dirty_page(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&write, &rig, at(2), CLUSTER, 2, 0);
    req_flush(&flush, &rig);
    ck_assert_int_eq(req_wait(&flush), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -EIO);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&write), -EIO);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    rig_expect(&rig, at(2), CLUSTER, 0);
    rig_free(&rig);
}
END_TEST

/* Writes to one unmapped cluster share a host cluster; it is published when any of them has succeeded. */
START_TEST(of_writes_that_share_a_new_cluster_one_success_maps_it)
{
    for (int fails = 0; fails < 4; fails++) {
        struct rig rig;
        struct req first, second;
        with_a_dirty_page(&rig);
        uint64_t mapped = rig_info(&rig).clusters_mapped;
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
        req_write(&first, &rig, at(2), 512, 1, 0);
        req_write(&second, &rig, at(2) + 1024, 512, 2, 0);
        ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 2);
        ck_assert_uint_eq(rig.script.log[rig.script.log_count - 1].offset, rig.script.log[rig.script.log_count - 2].offset + 1024);
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, fails & 1, -EIO);
        script_release(&rig.script, 0);
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, (uint64_t)fails >> 1, -EIO);
        script_release(&rig.script, 0);
        rig.script.hold = 0;
        ck_assert_int_eq(req_end(&first), fails & 1 ? -EIO : 0);
        ck_assert_int_eq(req_end(&second), fails >> 1 ? -EIO : 0);
        ck_assert_uint_eq(rig_info(&rig).clusters_mapped, mapped + (fails != 3));
        rig_expect(&rig, at(2), 512, fails & 1 ? 0 : 1);
        rig_expect(&rig, at(2) + 512, 512, 0);
        rig_expect(&rig, at(2) + 1024, 512, fails >> 1 ? 0 : 2);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(a_failed_read_fails)
{
    struct rig rig;
    struct req read;
    with_a_dirty_page(&rig);
    for (uint64_t length = CLUSTER; length <= 2 * CLUSTER; length += CLUSTER) {
        script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
        req_read(&read, &rig, at(0), length);
        ck_assert_int_eq(req_wait(&read), -EIO);
    }
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
    char buffer[512];
    ck_assert_int_eq(ploop_dev_pread(rig.dev, buffer, sizeof(buffer), at(0)), -EIO);
    rig_expect(&rig, at(0), CLUSTER, 0xA0);
    rig_end(&rig);
}
END_TEST

START_TEST(an_extension_that_fails_fails_the_write)
{
    struct rig rig;
    rig_usual(&rig);
    script_fail(&rig.script, PLOOP_IO_TRUNCATE, 0, 1, -EIO);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), -EIO);
    rig_expect(&rig, at(1), CLUSTER, 0);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig_expect(&rig, at(1), CLUSTER, 1);
    rig_end(&rig);
}
END_TEST

START_TEST(a_discard_fails_nobody_when_punching_fails)
{
    struct rig rig;
    with_a_dirty_page(&rig);
    script_fail(&rig.script, PLOOP_IO_PUNCH, 0, UINT64_MAX, -EIO);
    ck_assert_int_eq(rig_discard(&rig, at(0), 2 * CLUSTER), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig_expect(&rig, at(0), 2 * CLUSTER, 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, 0), 0);
    rig_expect(&rig, at(1) + 512, CLUSTER - 512, 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(1), 512, 0), -EIO);
    script_fail(&rig.script, PLOOP_IO_PUNCH, 0, 0, 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(1), 512, 0), 0);
    rig_expect(&rig, at(1), 512, 0);
    rig_close_dev(&rig);
    ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
    rig_free(&rig);
}
END_TEST

/* ---- F3 ---- */

START_TEST(short_transfers_are_continued)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.script.short_bytes = 700;
    rig_open(&rig);
    for (int mapped = 0; mapped < 2; mapped++) {
        ck_assert_int_eq(rig_write(&rig, at(1) + 512, 3 * CLUSTER, (uint8_t)(5 + mapped), 0), 0);
        rig_expect(&rig, at(1) + 512, 3 * CLUSTER, (uint8_t)(5 + mapped));
        rig_expect(&rig, at(1), 512, 0);
        rig_expect(&rig, at(4) + 512, CLUSTER - 512, 0);
    }
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 9, 0), 0);
    rig_expect(&rig, at(1), CLUSTER, 9);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_gt(rig.script.submitted[SCRIPT_META], 4096 / 700);
    rig_end(&rig);
}
END_TEST

START_TEST(no_progress_is_an_error)
{
    struct rig rig;
    struct req read;
    with_a_dirty_page(&rig);
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, 0);
    req_read(&read, &rig, at(0), CLUSTER);
    ck_assert_int_eq(req_wait(&read), -EIO);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, 0);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), -EIO);
    script_fail(&rig.script, SCRIPT_META, 0, 1, 0);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    /* More than was asked for is no answer either. */
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, 2 * CLUSTER);
    req_read(&read, &rig, at(0), CLUSTER);
    ck_assert_int_eq(req_wait(&read), -EIO);
    rig_end(&rig);
}
END_TEST

START_TEST(interrupted_requests_are_tried_again)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, PLOOP_IO_SYNC, SCRIPT_META, PLOOP_IO_TRUNCATE};
    static const int errors[] = {-EINTR, -EAGAIN};
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        for (size_t error = 0; error < 2; error++) {
            struct rig rig;
            rig_usual(&rig);
            script_fail(&rig.script, kinds[kind], 0, 3, errors[error]);
            ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), 0);
            ck_assert_int_eq(rig_write(&rig, at(0), 512, 2, 0), 0);
            ck_assert_int_eq(rig_flush(&rig), 0);
            rig_expect(&rig, at(0), 512, 2);
            rig_expect(&rig, at(0) + 512, CLUSTER - 512, 1);
            ck_assert_uint_eq(rig.script.fail[kinds[kind]].times, 0);
            rig_end(&rig);
        }
    }
}
END_TEST

START_TEST(a_backend_without_room_is_asked_again)
{
    struct rig rig;
    struct req first, second;
    with_a_dirty_page(&rig);
    /* Nothing in flight: only a run can try again, and the clock is told so. */
    rig.clock.wake_at_ns = 7;
    rig.script.refuse = 1;
    req_write(&first, &rig, at(0), 512, 1, 0);
    ck_assert(!req_done(&first));
    ck_assert_uint_eq(rig.clock.wake_at_ns, 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), 0);
    rig.script.refuse = 1;
    ck_assert_int_eq(ploop_dev_run(rig.dev), 1);
    ck_assert(!req_done(&first));
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), 0);
    ploop_dev_run(rig.dev);
    ck_assert_int_eq(req_end(&first), 0);
    ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), 0);

    /* Something in flight: its completion tries again. */
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&first, &rig, at(0), 512, 2, 0);
    ck_assert_int_eq(ploop_dev_run(rig.dev), 0);
    rig.script.hold = 0;
    rig.script.refuse = 1;
    req_write(&second, &rig, at(3), CLUSTER, 3, 0);
    ck_assert(!req_done(&second));
    script_release_all(&rig.script);
    ploop_dev_run(rig.dev);
    ck_assert_int_eq(req_end(&first), 0);
    ck_assert_int_eq(req_end(&second), 0);

    /* Another error of submit is the request's. */
    rig_expect(&rig, at(3), CLUSTER, 3);
    rig_end(&rig);
}
END_TEST

START_TEST(blocking_calls_get_on_without_room)
{
    struct rig rig;
    char buffer[512];
    with_a_dirty_page(&rig);
    rig.script.refuse = 2;
    ck_assert_int_eq(ploop_dev_pread(rig.dev, buffer, sizeof(buffer), at(0)), 512);
    ck_assert_int_eq(buffer[0], (char)0xA0);
    rig.script.refuse = 2;
    memset(buffer, 7, sizeof(buffer));
    ck_assert_int_eq(ploop_dev_pwrite(rig.dev, buffer, sizeof(buffer), at(0)), 512);
    rig.script.refuse = 2;
    ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
    rig_expect(&rig, at(0), 512, 7);
    rig.script.refuse = 2;
    rig_end(&rig);
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
                                  a_close_that_cannot_clear_the_mark_says_so,
                                  a_close_tries_a_failed_page_once_more,
                                  what_a_failed_page_removed_is_quarantined,
                                  a_failed_sync_latches,
                                  a_barrier_that_fails_keeps_its_page_from_the_disk,
                                  removals_pending_at_a_failed_sync_stay,
                                  a_failed_data_write_fails_its_request_only,
                                  a_page_due_before_the_data_does_not_publish_it,
                                  of_writes_that_share_a_new_cluster_one_success_maps_it,
                                  a_failed_read_fails,
                                  an_extension_that_fails_fails_the_write,
                                  a_discard_fails_nobody_when_punching_fails,
                                  short_transfers_are_continued,
                                  no_progress_is_an_error,
                                  interrupted_requests_are_tried_again,
                                  a_backend_without_room_is_asked_again,
                                  blocking_calls_get_on_without_room};
    return RUN_TESTS("failures", tests);
}
