/* SPDX-License-Identifier: MIT */
/*
 * PLOOP_DEV_HOST_SHOWS_STALE (R18): new clusters are written whole and durable before the map names
 * them, and no hole is made.
 */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An empty image of 64 MiB in clusters of 4 KiB, open with the flag. */
static void rig_stale(struct rig *rig)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
    rig_open(rig);
}

/* The first write to a cluster: zeros over all of it, the data, a SYNC, and only then the page. */
START_TEST(a_new_cluster_is_whole_and_durable_before_its_entry)
{
    struct rig rig;
    rig_stale(&rig);
    ck_assert_int_eq(rig_write(&rig, at(3) + 512, 512, 1, 0), 0);
    const struct script_entry *zeros =
        &rig.script.log[script_log_find(&rig.script, PLOOP_IO_WRITE, 0)];
    const struct script_entry *data =
        &rig.script.log[script_log_find(&rig.script, PLOOP_IO_WRITE, 1)];
    ck_assert_uint_eq(zeros->length, CLUSTER);
    ck_assert_uint_eq(data->offset, zeros->offset + 512);
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_WRITE, 1),
                      script_log_find(&rig.script, PLOOP_IO_SYNC, 0));
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig.script, SCRIPT_META, 0));
    ck_assert_uint_eq(rig_file_offset(&rig, 3), zeros->offset);
    rig_end(&rig);
}
END_TEST

START_TEST(nothing_is_punched)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
    rig.config.preallocate_bytes = 2 * CLUSTER;
    rig_limit_to(&rig, 2);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(3), 2 * CLUSTER, 1, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(rig_zeroes(&rig, at(3) + 512, 512, PLOOP_PIO_FAST_ONLY), -ENOTSUP);
    ck_assert_int_eq(rig_zeroes(&rig, at(3) + 512, 512, 0), 0);
    rig_expect(&rig, at(3) + 512, 512, 0);
    ck_assert_int_eq(rig_discard(&rig, at(3), CLUSTER), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ploop_dev_run(rig.dev);
    rig_expect(&rig, at(3), CLUSTER, 0);

    /* Freed space is used again, after zeros were written over it. */
    ck_assert_int_eq(rig_write(&rig, at(9) + 512, 512, 2, 0), 0);
    rig_expect(&rig, at(9), 512, 0);
    rig_expect(&rig, at(9) + 1024, CLUSTER - 1024, 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * Over a lower delta nothing is punched either: a discard does nothing, and write_zeroes writes
 * zeros.
 */
START_TEST(nothing_is_punched_over_a_lower_delta)
{
    struct tower tower;
    struct rig *rig = &tower.rig;
    tower_of_two(&tower, 2);
    rig->config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
    tower_open(&tower);
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    ck_assert_int_eq(rig_discard(rig, at(1), CLUSTER), 0);
    rig_expect(rig, at(1), 512, 1);
    ck_assert_int_eq(rig_zeroes(rig, at(1), CLUSTER, PLOOP_PIO_FAST_ONLY), -ENOTSUP);
    ck_assert_int_eq(rig_zeroes(rig, at(1), CLUSTER, 0), 0);
    rig_expect(rig, at(1), CLUSTER, 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_PUNCH], 0);
    tower_end(&tower);
}
END_TEST

/*
 * The BAT may have holes, so it is written as a whole. The free space at the file's end stays,
 * except in a recovery.
 */
START_TEST(an_open_writes_the_whole_bat)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    uint64_t size = rig.script.file_size + 10 * CLUSTER;
    ck_assert_int_eq(ploop_file_truncate(rig.script.file, size), 0);
    script_forget(&rig.script);
    rig.config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
    ck_assert_int_eq(rig_try_open(&rig), 0);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < rig.script.log_count; i++) {
        bytes += rig.script.log[i].kind == SCRIPT_META ? rig.script.log[i].length : 0;
    }
    ck_assert_uint_eq(bytes, 4096 + 66048); /* the mark, then all of it */
    rig_close_dev(&rig);
    ck_assert_uint_eq(rig.script.file_size, size);
    rig_free(&rig);
}
END_TEST

/*
 * While nothing can be zeroed a longer file does not help: the write fails, and the file does not
 * grow.
 */
START_TEST(zeros_that_fail_do_not_make_the_file_grow)
{
    static const int errors[] = {-EIO, -ENOSPC};
    for (uint32_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
        rig.config.preallocate_bytes = 2 * CLUSTER;
        rig_open(&rig);
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, UINT64_MAX, errors[i]);
        for (uint32_t n = 0; n < 3; n++) {
            ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, 0), errors[i]);
        }
        ck_assert_uint_eq(rig.script.file_size, rig.data_start + 2 * CLUSTER);
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, 0, 0);
        ck_assert_int_eq(rig_write(&rig, at(1), 512, 1, 0), 0);
        rig_end_with_leaks(&rig); /* each try took the next cluster */
    }
}
END_TEST

START_TEST(after_a_failed_sync_no_new_cluster_can_be_had)
{
    struct rig rig;
    rig_stale(&rig);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 1, 0), 0);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    uint64_t size = rig.script.file_size;
    ck_assert_int_eq(rig_write(&rig, at(2), CLUSTER, 2, 0), -EIO);
    ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, 2, 0), 0);
    ck_assert_uint_eq(rig.script.file_size, size);
    rig_free(&rig);
}
END_TEST

/*
 * R2: discarded space is freed before -ENOSPC is reported, even if zeroing a hole of the extension
 * has failed for lack of space.
 */
START_TEST(a_full_host_gets_back_what_was_discarded)
{
    struct rig rig;
    struct req req;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_HOST_SHOWS_STALE;
    rig.config.preallocate_bytes = 8 * CLUSTER;
    rig.config.writeback_delay_ns = rig.config.writeback_max_age_ns = 3600 * SECOND;
    rig_open(&rig);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(rig_write(&rig, at(i), CLUSTER, 1, 0), 0);
    }
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_int_eq(rig_discard(&rig, at(1), CLUSTER), 0);
    /* The holes of the extension get no blocks any more; clusters that were written have theirs. */
    uint64_t full_from = rig.data_start + 4 * CLUSTER;
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&req, &rig, at(9), CLUSTER, 3, 0);
    for (int i = 0; i < 10000 && !req_done(&req); i++) {
        if (rig.script.held_count == 0) {
            ploop_dev_run(rig.dev);
            continue;
        }
        if (rig.script.held[0].io->offset >= full_from) {
            script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -ENOSPC);
        }
        script_release(&rig.script, 0);
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, 0, 0);
    }
    ck_assert_int_eq(req_end(&req), 0);
    rig.script.hold = 0;
    rig_expect(&rig, at(9), CLUSTER, 3);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_new_cluster_is_whole_and_durable_before_its_entry,
                                  nothing_is_punched,
                                  nothing_is_punched_over_a_lower_delta,
                                  an_open_writes_the_whole_bat,
                                  zeros_that_fail_do_not_make_the_file_grow,
                                  after_a_failed_sync_no_new_cluster_can_be_had,
                                  a_full_host_gets_back_what_was_discarded};
    return RUN_TESTS("stale", tests);
}
