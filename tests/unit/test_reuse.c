/* SPDX-License-Identifier: MIT */
/*
 * Discards and writes of zeros: which clusters they free, and when those may be used again (R2,
 * R7).
 */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

/* ---- reuse ---- */

static void reuse(struct rig *rig)
{
    ck_assert_int_eq(rig_discard(rig, at(2), 2 * CLUSTER), 0);
    rig_expect(rig, at(2), 2 * CLUSTER, 0);
    ck_assert_uint_eq(rig_info(rig).clusters_quarantined, 2);
    ck_assert_int_eq(rig_write(rig, at(100) + 512, 512, 1, 0), 0);
    rig_expect(rig, at(100), 512, 0);
    rig_expect(rig, at(100) + 512, 512, 1);
    rig_expect(rig, at(100) + 1024, CLUSTER - 1024, 0);
    rig_expect(rig, at(2), 2 * CLUSTER, 0);
    ck_assert_int_eq(rig_write(rig, at(101), 512, 2, 0), 0);
    rig_expect(rig, at(101) + 512, CLUSTER - 512, 0);
    ck_assert_int_eq(rig_write(rig, at(102), 512, 2, 0), -ENOSPC);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_eq(rig_info(rig).clusters_mapped, RIG_ROOM);
    ck_assert_uint_eq(rig->script.file_size, rig->data_start + RIG_ROOM * CLUSTER);
    for (uint64_t i = 0; i < RIG_ROOM; i++) {
        rig_expect(rig, at(i), CLUSTER, i == 2 || i == 3 ? 0 : (uint8_t)(0xA0 + i));
    }
}

START_TEST(pending_clusters_are_reclaimed_before_there_is_no_space)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    reuse(&rig);
    /* The removal, its SYNC, the punch, the new data, in that order. */
    uint32_t removal = script_log_find(&rig.script, SCRIPT_META, 0),
             sync = script_log_find(&rig.script, PLOOP_IO_SYNC, 0);
    uint32_t punch = script_log_find(&rig.script, PLOOP_IO_PUNCH, 0),
             data = script_log_find(&rig.script, PLOOP_IO_WRITE, 0);
    ck_assert_uint_lt(removal, sync);
    ck_assert_uint_lt(sync, punch);
    ck_assert_uint_lt(punch, data);
    rig_end(&rig);
}
END_TEST

START_TEST(a_backend_that_cannot_punch_is_written_zeros)
{
    struct rig rig;
    rig_small(&rig, PLOOP_ENOSPC_FAIL);
    rig.script.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_PUNCH;
    rig_open(&rig);
    for (uint64_t i = 0; i < RIG_ROOM; i++) {
        ck_assert_int_eq(rig_write(&rig, at(i), CLUSTER, (uint8_t)(0xA0 + i), 0), 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    reuse(&rig);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_backend_that_refuses_to_punch_is_written_zeros)
{
    static const int refusals[] = {ENOTSUP, EINVAL, ENOSYS, EPERM, ENODEV};
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct rig rig;
        rig_full(&rig, PLOOP_ENOSPC_FAIL);
        script_fail(&rig.script, PLOOP_IO_PUNCH, 0, UINT64_MAX, -refusals[i]);
        reuse(&rig);
        ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 1);
        rig_end(&rig);
    }
}
END_TEST

/* R2, R7 */
START_TEST(nothing_is_reused_before_its_removal_is_durable)
{
    struct rig rig;
    struct req write;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    rig.script.hold = SCRIPT_ALL & ~SCRIPT_BIT(PLOOP_IO_TRUNCATE);
    req_write(&write, &rig, at(100), CLUSTER, 1, 0);
    static const uint32_t order[] = {SCRIPT_META, PLOOP_IO_SYNC, PLOOP_IO_PUNCH, PLOOP_IO_WRITE};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        ck_assert(!req_done(&write));
        ck_assert_uint_eq(rig.script.held_count, 1);
        ck_assert_uint_eq(rig.script.held[0].kind, order[i]);
        script_release(&rig.script, 0);
    }
    ck_assert(req_done(&write));
    ck_assert_int_eq(req_end(&write), 0);
    /* Its entry waits until the punch is durable. */
    struct req flush;
    req_flush(&flush, &rig);
    ck_assert_uint_eq(rig.script.held_count, 1);
    ck_assert_uint_eq(rig.script.held[0].kind, PLOOP_IO_SYNC);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&flush), 0);
    rig_expect(&rig, at(100), CLUSTER, 1);
    rig_end(&rig);
}
END_TEST

/* A reclaim that began before a write arrived does not cover what was removed since. */
START_TEST(each_lack_of_space_has_its_own_reclaim)
{
    struct rig rig;
    struct req fua, first, second;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_discard(&rig, at(0), CLUSTER), 0);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_write(&fua, &rig, at(7), 512, 7, PLOOP_PIO_FUA);
    /* Its reclaim begins, and needs the SYNC after the one in flight. */
    req_write(&first, &rig, at(100), CLUSTER, 1, 0);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_SYNC));
    ck_assert_int_eq(req_end(&fua), 0);
    ck_assert_int_eq(rig_discard(&rig, at(1), CLUSTER), 0);
    req_write(&second, &rig, at(101), CLUSTER, 2, 0);
    ck_assert(!req_done(&second));
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&first), 0);
    ck_assert_int_eq(req_wait(&second), 0);
    rig_expect(&rig, at(100), CLUSTER, 1);
    rig_expect(&rig, at(101), CLUSTER, 2);
    rig_end_with_leaks(&rig);
}
END_TEST

/* Clusters 2 and 3 in page 0, and one in page 5, whose FUA overwrite is a SYNC and nothing else. */
static void with_two_pages(struct rig *rig)
{
    rig_usual(rig);
    ck_assert_int_eq(rig_write(rig, at(2), 2 * CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_write(rig, at(5500), CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

static void expect_pending(struct rig *rig, uint64_t pending)
{
    ck_assert_uint_eq(rig_info(rig).clusters_quarantined, pending);
}

/* An image that was in flight when the entry was removed still has the entry. */
START_TEST(an_older_image_frees_nothing)
{
    struct rig rig;
    with_two_pages(&rig);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_int_eq(rig_discard(&rig, at(3), CLUSTER), 0);
    script_release_all(&rig.script);
    expect_pending(&rig, 2);
    ck_assert_int_eq(rig_write(&rig, at(5500), 512, 1, PLOOP_PIO_FUA), 0);
    expect_pending(&rig, 1);
    ck_assert_uint_ne(rig_file_entry(&rig, 3), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    expect_pending(&rig, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

/* A SYNC that was in flight when the page was written does not cover the page. */
START_TEST(an_older_sync_frees_nothing)
{
    struct rig rig;
    struct req fua;
    with_two_pages(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    req_write(&fua, &rig, at(5500), 512, 1, PLOOP_PIO_FUA);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_end(&fua), 0);
    expect_pending(&rig, 1);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    ck_assert_int_eq(rig_write(&rig, at(5500), 512, 1, PLOOP_PIO_FUA), 0);
    expect_pending(&rig, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_discarded_cluster_gets_a_new_place)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    rig_limit_to(&rig, 1000);
    uint64_t old = rig_file_offset(&rig, 2);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    ck_assert_int_eq(rig_write(&rig, at(2), 512, 1, 0), 0);
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, at(2), 512, &extent), 0);
    ck_assert_uint_ne(extent.host_offset, old);
    /* The disk has the old entry until the page is written. */
    ck_assert_uint_eq(rig_file_offset(&rig, 2), old);
    ck_assert_uint_eq(rig.script.bytes[old], 0xA2);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_file_offset(&rig, 2), extent.host_offset);
    rig_expect(&rig, at(2) + 512, CLUSTER - 512, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(what_is_free_is_punched_after_a_flush)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    uint64_t old = rig_file_offset(&rig, 2);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 1);
    ck_assert_uint_eq(rig.script.bytes[old], 0);
    struct ploop_dev_info info = rig_info(&rig);
    ck_assert_uint_eq(info.clusters_free, 1);
    ck_assert_uint_eq(info.clusters_quarantined, 0);
    ck_assert_uint_eq(info.punches, 1);
    ck_assert_uint_eq(info.clusters_mapped, RIG_ROOM - 1);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * One punch zeroes a run of clusters, at most 64 MiB: a write that comes meanwhile and needs them
 * must not wait for gigabytes.
 */
START_TEST(a_punch_of_free_clusters_is_limited_in_bytes)
{
    enum { LARGE = 4 << 20, RUN = 64 << 20, COUNT = 40 };
    struct rig rig;
    rig_create(&rig, 2, COUNT * LARGE, LARGE, 0);
    rig_open(&rig);
    for (uint64_t i = 0; i < COUNT; i++) {
        ck_assert_int_eq(rig_write(&rig, i * LARGE, 512, 1, 0), 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    script_forget(&rig.script);
    ck_assert_int_eq(rig_discard(&rig, 0, (uint64_t)COUNT * LARGE), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig_info(&rig).punches, COUNT);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 3);
    for (uint32_t nth = 0; nth < 3; nth++) {
        uint64_t length = rig.script.log[script_log_find(&rig.script, PLOOP_IO_PUNCH, nth)].length;
        ck_assert_uint_eq(length, nth < 2 ? RUN : (uint64_t)COUNT * LARGE - 2 * (uint64_t)RUN);
    }
    rig_end(&rig);
}
END_TEST

/* Nobody flushes: the clock has the removal written, and a second later what it needs synced. */
START_TEST(a_removal_ripens_by_the_clock)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_discard(&rig, at(2), CLUSTER), 0);
    uint64_t syncs = rig.script.submitted[PLOOP_IO_SYNC];
    rig_advance(&rig, UINT64_C(10) * 1000000000);
    ck_assert_uint_eq(rig_file_entry(&rig, 2), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], syncs);
    uint64_t next = ploop_dev_next_deadline(rig.dev);
    ck_assert_uint_le(next, rig.clock.now_ns + 1000000000);
    rig_advance(&rig, next - rig.clock.now_ns);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], syncs + 1);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 1);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    rig_end_with_leaks(&rig);
}
END_TEST

/* What is free is given back before the mark is cleared, what was found at the open too. */
START_TEST(a_close_gives_free_space_back)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    uint64_t old[4];
    for (uint64_t i = 0; i < 4; i++) {
        old[i] = rig_file_offset(&rig, (uint32_t)(2 * i));
    }
    for (uint64_t i = 0; i < 3; i++) {
        ck_assert_int_eq(rig_discard(&rig, at(2 * i), CLUSTER), 0);
    }
    script_fail(&rig.script, PLOOP_IO_PUNCH, 2, UINT64_MAX, -EIO);
    rig_close_dev(&rig); /* the third is not given back, which harms nobody */
    ck_assert_uint_eq(rig.script.bytes[old[0]] + rig.script.bytes[old[1]], 0);
    ck_assert_uint_ne(rig.script.bytes[old[2]], 0);
    script_fail(&rig.script, PLOOP_IO_PUNCH, 0, 0, 0);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(200), 512, 7, 0), 0);
    ck_assert_int_eq(rig_discard(&rig, at(6), CLUSTER), 0);
    rig_close_dev(&rig);
    for (uint64_t i = 0; i < 4; i++) {
        ck_assert(rig.script.bytes[old[i] + CLUSTER - 1] == 0);
    }
    rig_free(&rig);
}
END_TEST

/* A cluster that is longer than that is punched whole. */
START_TEST(a_large_cluster_is_punched_whole)
{
    enum { HUGE_CLUSTER = 32 << 20 };
    struct rig rig;
    rig_create(&rig, 2, 2 * HUGE_CLUSTER, HUGE_CLUSTER, 0);
    rig.config.preallocate_bytes = HUGE_CLUSTER;
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, 0, 512, 1, PLOOP_PIO_FUA), 0);
    script_forget(&rig.script);
    ck_assert_int_eq(rig_discard(&rig, 0, HUGE_CLUSTER), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig.script.log[script_log_find(&rig.script, PLOOP_IO_PUNCH, 0)].length,
                      HUGE_CLUSTER);
    rig_end(&rig);
}
END_TEST

/* ---- discard and zeros ---- */

START_TEST(a_discard_takes_whole_clusters_only)
{
    struct rig rig;
    rig_create(&rig, 2, 10 * CLUSTER + 1024, CLUSTER, 0);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, 0, 10 * CLUSTER + 1024, 1, 0), 0);
    ck_assert_int_eq(rig_discard(&rig, 512, 2 * CLUSTER), 0);
    rig_expect(&rig, 0, CLUSTER, 1);
    rig_expect(&rig, at(1), CLUSTER, 0);
    rig_expect(&rig, at(2), 8 * CLUSTER + 1024, 1);
    ck_assert_int_eq(rig_discard(&rig, at(3) + 512, 512), 0);
    ck_assert_int_eq(rig_discard(&rig, at(3) + 512, CLUSTER), 0);
    ck_assert_int_eq(rig_discard(&rig, at(3), 0), 0);
    rig_expect(&rig, at(3), CLUSTER, 1);
    /* The last one ends with the disk. */
    ck_assert_int_eq(rig_discard(&rig, at(9) + 512, CLUSTER + 512), 0);
    rig_expect(&rig, at(9), CLUSTER, 1);
    rig_expect(&rig, at(10), 1024, 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 9);
    ck_assert_int_eq(rig_discard(&rig, 0, 10 * CLUSTER + 1024), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(zeros_give_back_whole_clusters)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_zeroes(&rig, at(1) + 512, 3 * CLUSTER, 0), 0);
    rig_expect(&rig, at(1), 512, 0xA1);
    rig_expect(&rig, at(1) + 512, 3 * CLUSTER, 0);
    rig_expect(&rig, at(4) + 512, CLUSTER - 512, 0xA4);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, RIG_ROOM - 2);
    ck_assert_int_eq(rig_zeroes(&rig, at(5), 2 * CLUSTER, PLOOP_PIO_NO_UNMAP), 0);
    rig_expect(&rig, at(5), 2 * CLUSTER, 0);
    rig_expect(&rig, at(7), CLUSTER, 0xA7);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, RIG_ROOM - 2);
    /* Unmapped clusters stay so, and need no space. */
    ck_assert_int_eq(rig_zeroes(&rig, at(100), 3 * CLUSTER + 512, PLOOP_PIO_NO_UNMAP), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(110) + 512, 1024, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, RIG_ROOM - 2);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(fast_zeros_are_fast_or_refused)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_zeroes(&rig, at(1), CLUSTER, PLOOP_PIO_FAST_ONLY), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(2), 512, PLOOP_PIO_FAST_ONLY), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(100), 512, PLOOP_PIO_FAST_ONLY), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(3), CLUSTER, PLOOP_PIO_FAST_ONLY | PLOOP_PIO_NO_UNMAP),
                     -ENOTSUP);
    rig_expect(&rig, at(3), CLUSTER, 0xA3);
    script_fail(&rig.script, PLOOP_IO_PUNCH, 0, UINT64_MAX, -EINVAL);
    ck_assert_int_eq(rig_zeroes(&rig, at(4), 512, PLOOP_PIO_FAST_ONLY), -ENOTSUP);
    rig_expect(&rig, at(4), CLUSTER, 0xA4);
    ck_assert_int_eq(rig_zeroes(&rig, at(4), 512, 0), 0);
    rig_expect(&rig, at(4), 512, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(discards_of_one_cluster_in_one_batch)
{
    struct rig rig;
    struct req req[4];
    ploop_pio *pios[4];
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    for (int i = 0; i < 4; i++) {
        /* Requests that have ended, to be prepared and submitted again. */
        req_read(&req[i], &rig, at(200), 512);
        ck_assert(req_done(&req[i]));
        req[i].calls = 0;
        pios[i] = req[i].pio;
        ploop_pio_prep_discard(pios[i], at(2), CLUSTER);
    }
    ck_assert_int_eq(ploop_queue_submit(rig.queue, pios, 4), 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(req_wait(&req[i]), 0);
    }
    rig_expect(&rig, at(2), CLUSTER, 0);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * What is discarded side by side takes a record for each page of the map, so that very many
 * clusters need few SYNCs; what lies apart takes one for each cluster.
 */
START_TEST(neighbours_share_a_record)
{
    enum { MANY = 10000 };
    for (uint64_t apart = 1; apart <= 2; apart++) {
        struct rig rig;
        rig_usual(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, MANY * CLUSTER, 1, 0), 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        script_forget(&rig.script);
        if (apart == 1) {
            ck_assert_int_eq(rig_discard(&rig, 0, MANY * CLUSTER), 0);
            ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, MANY);
            ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
        }
        for (uint64_t i = 0; i < MANY && apart > 1; i += apart) {
            ck_assert_int_eq(rig_discard(&rig, at(i), CLUSTER), 0);
        }
        ck_assert(apart == 1 || rig.script.submitted[PLOOP_IO_SYNC] > 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ploop_dev_run(rig.dev);
        ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 0);
        ck_assert_uint_eq(rig_info(&rig).clusters_mapped, apart == 1 ? 0 : MANY / 2);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

/* More clusters than there are locks, and more removals than there are records. */
START_TEST(large_discards)
{
    enum { SECTOR = 512 };
    static const uint64_t counts[] = {1500, 9000};
    static const uint32_t unmapped[] = {0, 0};
    for (size_t i = 0; i < (is_instrumented() ? 1 : 2); i++) {
        struct rig rig;
        uint64_t count = counts[i], size;
        uint8_t *image = image_build(
            &(struct image_plan){
                .cluster_sectors = 1, .entries = 10000, .host_clusters = 1, .map = unmapped},
            &size);
        rig_adopt(&rig, image, size, 0);
        free(image);
        rig_open(&rig);
        ck_assert_int_eq(rig_write(&rig, 3 * SECTOR, count * SECTOR, 1, 0), 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ck_assert_uint_eq(rig_info(&rig).clusters_mapped, count);
        ck_assert_int_eq(rig_discard(&rig, 3 * SECTOR, count * SECTOR), 0);
        ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
        rig_expect(&rig, 3 * SECTOR, count * SECTOR, 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 0);
        ck_assert_int_eq(rig_write(&rig, 10 * SECTOR, 5 * SECTOR, 1, 0), 0);
        rig_expect(&rig, 10 * SECTOR, 5 * SECTOR, 1);
        rig_expect(&rig, 15 * SECTOR, 5 * SECTOR, 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

START_TEST(a_discard_waits_for_writes_in_flight)
{
    struct rig rig;
    struct req write, discard, read, after;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    rig_limit_to(&rig, 1000);
    for (uint64_t cluster = 2; cluster < 100; cluster += 90) {
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
        req_write(&write, &rig, at(cluster), CLUSTER, 1, 0);
        req_discard(&discard, &rig, at(cluster), CLUSTER);
        /* Behind the discard, in line. */
        req_read(&read, &rig, at(cluster), 512);
        ck_assert(!req_done(&write) && !req_done(&discard) && !req_done(&read));
        script_release_all(&rig.script);
        ck_assert(req_done(&write) && req_done(&discard) && req_done(&read));
        ck_assert_uint_eq(*(uint8_t *)read.iov.iov_base, 0);
        ck_assert_int_eq(req_end(&read), 0);
        ck_assert_int_eq(req_end(&write), 0);
        ck_assert_int_eq(req_end(&discard), 0);
        rig_expect(&rig, at(cluster), CLUSTER, 0);
        req_write(&after, &rig, at(cluster), 512, 2, 0);
        ck_assert_int_eq(req_wait(&after), 0);
        rig_expect(&rig, at(cluster), 512, 2);
        rig_expect(&rig, at(cluster) + 512, CLUSTER - 512, 0);
    }
    rig_end_with_leaks(&rig);
}
END_TEST

/* A file that ends inside a cluster: the bytes of that cluster do not count as zeros. */
START_TEST(a_partial_tail_is_not_taken_for_zeros)
{
    struct rig rig;
    uint64_t size;
    uint8_t *image = image_build(&(struct image_plan){0}, &size);
    rig_adopt(&rig, image, size - 1024, 0);
    free(image);
    rig_open(&rig);
    for (uint64_t i = 0; i < 50; i++) {
        ck_assert_int_eq(rig_write(&rig, at(100 + i), 512, 1, 0), 0);
        rig_expect(&rig, at(100 + i) + 512, CLUSTER - 512, 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    for (uint64_t i = 0; i < 50; i++) {
        rig_expect(&rig, at(100 + i) + 512, CLUSTER - 512, 0);
    }
    rig_end_with_leaks(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {pending_clusters_are_reclaimed_before_there_is_no_space,
                                  a_backend_that_cannot_punch_is_written_zeros,
                                  a_backend_that_refuses_to_punch_is_written_zeros,
                                  nothing_is_reused_before_its_removal_is_durable,
                                  each_lack_of_space_has_its_own_reclaim,
                                  an_older_image_frees_nothing,
                                  an_older_sync_frees_nothing,
                                  a_discarded_cluster_gets_a_new_place,
                                  what_is_free_is_punched_after_a_flush,
                                  a_punch_of_free_clusters_is_limited_in_bytes,
                                  neighbours_share_a_record,
                                  a_removal_ripens_by_the_clock,
                                  a_close_gives_free_space_back,
                                  a_large_cluster_is_punched_whole,
                                  a_discard_takes_whole_clusters_only,
                                  zeros_give_back_whole_clusters,
                                  fast_zeros_are_fast_or_refused,
                                  discards_of_one_cluster_in_one_batch,
                                  large_discards,
                                  a_discard_waits_for_writes_in_flight,
                                  a_partial_tail_is_not_taken_for_zeros};
    return RUN_TESTS("reuse", tests);
}
