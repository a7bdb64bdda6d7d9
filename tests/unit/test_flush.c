/* SPDX-License-Identifier: MIT */
/* The promises of FLUSH, FUA and PREFLUSH, and their cost in backend requests. */
#include "device_fixture.h"
#include "run_tests.h"

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

/*
 * A device whose file is durably longer than the part in use: the ordinary state after some time.
 */
static void warm(struct rig *rig)
{
    rig_usual(rig);
    ck_assert_int_eq(rig_write(rig, at(0), CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

static void expect_counts(struct rig *rig, uint64_t syncs, uint64_t page_writes)
{
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_SYNC], syncs);
    ck_assert_uint_eq(rig->script.submitted[SCRIPT_META], page_writes);
}

START_TEST(the_common_flush_is_one_sync_and_the_changed_pages)
{
    struct rig rig;
    warm(&rig);
    struct ploop_dev_info before = rig_info(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(2), 512, 2, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(5000), CLUSTER, 3, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 4, 0), 0);
    expect_counts(&rig, 0, 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    expect_counts(&rig, 1, 2);
    ck_assert_uint_eq(rig.script.log[script_log_find(&rig.script, SCRIPT_META, 0)].offset, 0);
    ck_assert_uint_eq(rig.script.log[script_log_find(&rig.script, SCRIPT_META, 1)].offset,
                      4 * 4096);
    ck_assert_uint_gt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig.script, SCRIPT_META, 1));
    struct ploop_dev_info after = rig_info(&rig);
    ck_assert_uint_eq(after.page_writes - before.page_writes, 2);
    ck_assert_uint_eq(after.syncs - before.syncs, 1);
    ck_assert_uint_eq(after.barriers - before.barriers, 0);
    ck_assert_uint_eq(after.flushes - before.flushes, 1);
    ck_assert_uint_eq(after.pages_dirty, 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 5000), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_flush_of_nothing_is_one_sync)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_flush(&rig), 0);
    expect_counts(&rig, 1, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(an_extension_that_is_not_durable_is_a_barrier)
{
    struct rig rig;
    rig_usual(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    expect_counts(&rig, 2, 1);
    uint32_t page = script_log_find(&rig.script, SCRIPT_META, 0);
    ck_assert_uint_gt(page, script_log_find(&rig.script, PLOOP_IO_SYNC, 0));
    ck_assert_uint_lt(page, script_log_find(&rig.script, PLOOP_IO_SYNC, 1));
    ck_assert_uint_gt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig.script, PLOOP_IO_TRUNCATE, 0));
    ck_assert_uint_ge(rig_info(&rig).barriers, 1);
    rig_end(&rig);
}
END_TEST

/* The barrier's SYNC must succeed before the page is written. */
START_TEST(a_page_waits_for_its_barrier)
{
    struct rig rig;
    struct req flush;
    rig_usual(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    req_flush(&flush, &rig);
    expect_counts(&rig, 1, 0);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    expect_counts(&rig, 2, 1);
    ck_assert(!req_done(&flush));
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert(req_done(&flush));
    ck_assert_int_eq(req_end(&flush), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(thirty_two_flushes_at_once_share_two_syncs)
{
    struct rig rig;
    struct req flush[32];
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    for (int i = 0; i < 32; i++) {
        req_flush(&flush[i], &rig);
    }
    script_release_all(&rig.script);
    for (int i = 0; i < 32; i++) {
        ck_assert(req_done(&flush[i]));
        ck_assert_int_eq(req_end(&flush[i]), 0);
    }
    ck_assert_uint_le(rig.script.submitted[PLOOP_IO_SYNC], 2);
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 1);
    ck_assert_uint_ge(rig_info(&rig).flushes_coalesced, 30);
    rig_end(&rig);
}
END_TEST

/* A SYNC that was in flight when a write completed does not cover that write. */
START_TEST(a_later_flush_needs_a_later_sync)
{
    struct rig rig;
    struct req first, second;
    warm(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_flush(&first, &rig);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), 0);
    req_flush(&second, &rig);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert(req_done(&first));
    ck_assert(!req_done(&second));
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert(req_done(&second));
    expect_counts(&rig, 2, 0);
    ck_assert_int_eq(req_end(&first), 0);
    ck_assert_int_eq(req_end(&second), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(fua_over_a_clean_cluster_is_one_sync)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_FUA), 0);
    expect_counts(&rig, 1, 0);
    ck_assert_uint_gt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig.script, PLOOP_IO_WRITE, 0));
    rig_end(&rig);
}
END_TEST

START_TEST(native_fua_over_a_clean_cluster_needs_no_sync)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.script.capabilities |= PLOOP_FILE_CAN_FUA;
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    script_forget(&rig.script);
    ck_assert_int_eq(rig_write(&rig, at(0), 512, 1, PLOOP_PIO_FUA), 0);
    expect_counts(&rig, 0, 0);
    ck_assert_uint_eq(rig.script.log[script_log_find(&rig.script, PLOOP_IO_WRITE, 0)].flags,
                      PLOOP_IO_FUA);
    /* The entry of a new cluster must become durable too. */
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, PLOOP_PIO_FUA), 0);
    expect_counts(&rig, 1, 1);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(fua_completes_after_its_sync)
{
    struct rig rig;
    struct req write;
    warm(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_write(&write, &rig, at(3), 1024, 3, PLOOP_PIO_FUA);
    expect_counts(&rig, 1, 1);
    ck_assert(!req_done(&write));
    /* Its data is readable meanwhile. */
    rig_expect(&rig, at(3), 1024, 3);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert(req_done(&write));
    ck_assert_int_eq(req_end(&write), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 3), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(fua_over_a_dirty_entry_writes_its_page)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 1), 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 2, PLOOP_PIO_FUA), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    expect_counts(&rig, 1, 1);
    rig_end(&rig);
}
END_TEST

/*
 * An image of the page that was taken before is in flight. That image is enough, but FUA must wait
 * for it.
 */
START_TEST(fua_waits_for_a_page_under_writeback)
{
    struct rig rig;
    struct req write;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    req_write(&write, &rig, at(1), 512, 2, PLOOP_PIO_FUA);
    ck_assert(!req_done(&write));
    expect_counts(&rig, 0, 1);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert(req_done(&write));
    expect_counts(&rig, 1, 1);
    ck_assert_int_eq(req_end(&write), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

/* The page is written but not synced yet: a FUA write over it needs the SYNC and no page write. */
START_TEST(fua_over_an_unsynced_page_is_one_sync)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    expect_counts(&rig, 0, 1);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 2, PLOOP_PIO_FUA), 0);
    expect_counts(&rig, 1, 1);
    rig_end(&rig);
}
END_TEST

START_TEST(fua_zeros_wait_for_an_absence_to_be_durable)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_discard(&rig, at(0), CLUSTER), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 0), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(0), 512, PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 0), 0);
    expect_counts(&rig, 1, 1);
    /* And nothing more once it is durable. */
    ck_assert_int_eq(rig_zeroes(&rig, at(0), 512, PLOOP_PIO_FUA), 0);
    expect_counts(&rig, 1, 1);
    rig_end(&rig);
}
END_TEST

START_TEST(fua_zeros_that_unmap_are_durable)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_zeroes(&rig, at(0), CLUSTER, PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 0), 0);
    expect_counts(&rig, 1, 1);
    rig_expect(&rig, at(0), CLUSTER, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(fua_zeros_within_a_cluster_are_durable)
{
    struct rig rig;
    warm(&rig);
    for (uint32_t flags = 0; flags <= PLOOP_PIO_NO_UNMAP; flags += PLOOP_PIO_NO_UNMAP) {
        script_forget(&rig.script);
        ck_assert_int_eq(rig_zeroes(&rig, at(0) + 512 + flags * 512, 512, PLOOP_PIO_FUA | flags),
                         0);
        expect_counts(&rig, 1, 0);
        uint32_t kind = flags ? PLOOP_IO_WRITE : PLOOP_IO_PUNCH;
        ck_assert_uint_lt(script_log_find(&rig.script, kind, 0),
                          script_log_find(&rig.script, PLOOP_IO_SYNC, 0));
    }
    rig_expect(&rig, at(0), 512, 0xA0);
    rig_expect(&rig, at(0) + 512, 512, 0);
    rig_expect(&rig, at(0) + 512 * 5, 512, 0);
    rig_expect(&rig, at(0) + 512 * 6, 512, 0xA0);
    rig_end(&rig);
}
END_TEST

START_TEST(preflush_comes_before_the_data)
{
    struct rig rig;
    struct req write;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    script_forget(&rig.script);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_write(&write, &rig, at(2), CLUSTER, 2, PLOOP_PIO_PREFLUSH);
    expect_counts(&rig, 1, 1);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert(req_done(&write));
    ck_assert_int_eq(req_end(&write), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 1);
    /* PREFLUSH does not make the request's own data durable. */
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(preflush_with_fua_is_both)
{
    struct rig rig;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    script_forget(&rig.script);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 2, PLOOP_PIO_PREFLUSH | PLOOP_PIO_FUA), 0);
    uint32_t data = script_log_find(&rig.script, PLOOP_IO_WRITE, 0);
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0), data);
    ck_assert_uint_lt(data, script_log_find(&rig.script, SCRIPT_META, 1));
    ck_assert_uint_lt(script_log_find(&rig.script, SCRIPT_META, 1),
                      script_log_find(&rig.script, PLOOP_IO_SYNC, 1));
    expect_counts(&rig, 2, 2);
    rig_end(&rig);
}
END_TEST

/* R3: a change after a page's freeze belongs to the next generation. */
START_TEST(changes_after_the_freeze_are_not_waited_for)
{
    struct rig rig;
    struct req flush;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    req_flush(&flush, &rig);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 2, 0), 0);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert(req_done(&flush));
    ck_assert_int_eq(req_end(&flush), 0);
    expect_counts(&rig, 1, 1);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 1);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(a_flush_ends_under_steady_writing)
{
    struct rig rig;
    struct req flush;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META) | SCRIPT_BIT(PLOOP_IO_SYNC);
    req_flush(&flush, &rig);
    uint32_t steps = 0;
    for (uint64_t cluster = 2; !req_done(&flush); cluster++) {
        ck_assert_int_eq(rig_write(&rig, at(cluster), CLUSTER, 2, 0), 0);
        ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
        ck_assert_uint_eq(script_held_of(&rig.script, SCRIPT_META) <= 1, 1);
        script_release(&rig.script, 0);
        ck_assert_uint_lt(++steps, 8);
    }
    ck_assert_int_eq(req_end(&flush), 0);
    script_release_all(&rig.script);
    rig_end(&rig);
}
END_TEST

/* R16 */
START_TEST(a_page_has_one_writer_at_a_time)
{
    struct rig rig;
    struct req flush;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    expect_counts(&rig, 0, 1);
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 2, 0), 0);
    req_flush(&flush, &rig);
    expect_counts(&rig, 0, 1);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    expect_counts(&rig, 0, 2);
    ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert(req_done(&flush));
    ck_assert_int_eq(req_end(&flush), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 2), 0);
    expect_counts(&rig, 1, 2);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(a_flush_waits_for_an_image_taken_before_it)
{
    struct rig rig;
    struct req flush;
    warm(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    req_flush(&flush, &rig);
    expect_counts(&rig, 0, 1);
    ck_assert(!req_done(&flush));
    ck_assert(script_release_kind(&rig.script, SCRIPT_META));
    ck_assert(req_done(&flush));
    expect_counts(&rig, 1, 1);
    ck_assert_int_eq(req_end(&flush), 0);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

/* More runs of pages than there are images. */
START_TEST(a_flush_of_many_pages_takes_turns)
{
    enum { PAGES = 41 };
    struct rig rig;
    struct req flush;
    rig_create(&rig, 2, UINT64_C(41) * 1024 * CLUSTER, CLUSTER, 0);
    rig_open(&rig);
    for (uint64_t page = 0; page < PAGES; page += 2) {
        ck_assert_int_eq(rig_write(&rig, at(page * 1024 + 5), CLUSTER, (uint8_t)(page + 1), 0), 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    for (uint64_t page = 0; page < PAGES; page += 2) {
        ck_assert_int_eq(rig_write(&rig, at(page * 1024 + 7), CLUSTER, (uint8_t)(page + 1), 0), 0);
    }
    script_forget(&rig.script);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    req_flush(&flush, &rig);
    while (script_held_of(&rig.script, SCRIPT_META)) {
        ck_assert(!req_done(&flush));
        ck_assert_uint_le(rig.script.submitted[PLOOP_IO_SYNC], 0);
        script_release(&rig.script, script_held_of(&rig.script, SCRIPT_META) - 1);
    }
    ck_assert(req_done(&flush));
    ck_assert_int_eq(req_end(&flush), 0);
    expect_counts(&rig, 1, (PAGES + 1) / 2);
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

START_TEST(a_flush_covers_only_what_has_completed)
{
    struct rig rig;
    struct req write, flush;
    warm(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&write, &rig, at(1), CLUSTER, 1, 0);
    req_flush(&flush, &rig);
    ck_assert(req_done(&flush));
    ck_assert(!req_done(&write));
    expect_counts(&rig, 1, 0);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&flush), 0);
    ck_assert_int_eq(req_end(&write), 0);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {the_common_flush_is_one_sync_and_the_changed_pages,
                                  a_flush_of_nothing_is_one_sync,
                                  an_extension_that_is_not_durable_is_a_barrier,
                                  a_page_waits_for_its_barrier,
                                  thirty_two_flushes_at_once_share_two_syncs,
                                  a_later_flush_needs_a_later_sync,
                                  fua_over_a_clean_cluster_is_one_sync,
                                  native_fua_over_a_clean_cluster_needs_no_sync,
                                  fua_completes_after_its_sync,
                                  fua_over_a_dirty_entry_writes_its_page,
                                  fua_waits_for_a_page_under_writeback,
                                  fua_over_an_unsynced_page_is_one_sync,
                                  fua_zeros_wait_for_an_absence_to_be_durable,
                                  fua_zeros_that_unmap_are_durable,
                                  fua_zeros_within_a_cluster_are_durable,
                                  preflush_comes_before_the_data,
                                  preflush_with_fua_is_both,
                                  changes_after_the_freeze_are_not_waited_for,
                                  a_flush_ends_under_steady_writing,
                                  a_page_has_one_writer_at_a_time,
                                  a_flush_waits_for_an_image_taken_before_it,
                                  a_flush_of_many_pages_takes_turns,
                                  a_flush_covers_only_what_has_completed};
    return RUN_TESTS("flush", tests);
}
