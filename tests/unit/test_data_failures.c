/* SPDX-License-Identifier: MIT */
/* A backend that fails data requests (F4), and transfers that are short or must be retried (F3). */
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

/* ---- data ---- */

START_TEST(a_failed_data_write_fails_its_request_only)
{
    struct rig rig;
    rig_with_a_dirty_page(&rig);
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
    /* The cluster that was taken for it is not lost: nothing leaks. */
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
    rig_with_a_dirty_page(&rig);
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

/*
 * Writes to one unmapped cluster share a host cluster, which is published when any of them has
 * succeeded.
 */
START_TEST(of_writes_that_share_a_new_cluster_one_success_maps_it)
{
    for (int fails = 0; fails < 4; fails++) {
        struct rig rig;
        struct req first, second;
        rig_with_a_dirty_page(&rig);
        uint64_t mapped = rig_info(&rig).clusters_mapped;
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
        req_write(&first, &rig, at(2), 512, 1, 0);
        req_write(&second, &rig, at(2) + 1024, 512, 2, 0);
        ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 2);
        ck_assert_uint_eq(rig.script.log[rig.script.log_count - 1].offset,
                          rig.script.log[rig.script.log_count - 2].offset + 1024);
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

/*
 * A failed write may have left its bytes in a cluster that other writes then enter in the map:
 * zeros that are written later must cover them.
 */
START_TEST(zeros_count_over_what_a_failed_write_left)
{
    static const uint32_t flags[] = {0, PLOOP_PIO_NO_UNMAP, PLOOP_PIO_FUA};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        struct rig rig;
        struct req failed, good, zeroes;
        rig_with_a_dirty_page(&rig);
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
        req_write(&failed, &rig, at(2), 512, 1, 0);
        req_write(&good, &rig, at(2) + 1024, 512, 2, 0);
        uint64_t place = rig.script.log[rig.script.log_count - 2].offset;
        script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -EIO);
        script_release(&rig.script, 0);
        memset(rig.script.bytes + place, 1, 512);
        /*
         * The write has not ended: it is not decided yet whether its bytes will be visible, and a
         * read finds the old content.
         */
        ck_assert(!req_done(&failed));
        rig_expect(&rig, at(2), 1024, 0);
        req_zeroes(&zeroes, &rig, at(2), 1024, flags[i]);
        script_release_all(&rig.script);
        ck_assert_int_eq(req_end(&failed), -EIO);
        ck_assert_int_eq(req_end(&good), 0);
        ck_assert_int_eq(req_wait(&zeroes), 0);
        rig_expect(&rig, at(2), 1024, 0);
        rig_expect(&rig, at(2) + 1024, 512, 2);
        rig_free(&rig);
    }
}
END_TEST

/* Writes that share a cluster end together if all have failed: none of their bytes is visible. */
START_TEST(writes_that_share_a_place_fail_together)
{
    struct rig rig;
    struct req failed[3];
    rig_with_a_dirty_page(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    for (uint64_t i = 0; i < 3; i++) {
        req_write(&failed[i], &rig, at(2) + i * 512, 512, 1, 0);
    }
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 3, -EIO);
    for (int i = 0; i < 3; i++) {
        ck_assert(!req_done(&failed[0]));
        script_release(&rig.script, 0);
    }
    rig.script.hold = 0;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(req_end(&failed[i]), -EIO);
    }
    rig_expect(&rig, at(2), CLUSTER, 0);
    ck_assert_int_eq(rig_write(&rig, at(2), 512, 2, 0), 0);
    rig_expect(&rig, at(2), 512, 2);
    rig_expect(&rig, at(2) + 512, CLUSTER - 512, 0);
    rig_free(&rig);
}
END_TEST

START_TEST(a_failed_read_fails)
{
    struct rig rig;
    struct req read;
    rig_with_a_dirty_page(&rig);
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
    rig_with_a_dirty_page(&rig);
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
    rig_with_a_dirty_page(&rig);
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, 0);
    req_read(&read, &rig, at(0), CLUSTER);
    ck_assert_int_eq(req_wait(&read), -EIO);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, 0);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), -EIO);
    script_fail(&rig.script, SCRIPT_META, 0, 1, 0);
    ck_assert_int_eq(rig_flush(&rig), -EIO);
    /* A result larger than the request is an error too. */
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, 2 * CLUSTER);
    req_read(&read, &rig, at(0), CLUSTER);
    ck_assert_int_eq(req_wait(&read), -EIO);
    rig_end(&rig);
}
END_TEST

START_TEST(interrupted_requests_are_tried_again)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, PLOOP_IO_SYNC, SCRIPT_META,
                                     PLOOP_IO_TRUNCATE};
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
    rig_with_a_dirty_page(&rig);
    /* With nothing in flight only a run can try again, so the clock is told. */
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

    /* With a request in flight its completion tries again. */
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

    /* The request gets any other error of submit. */
    rig_expect(&rig, at(3), CLUSTER, 3);
    rig_end(&rig);
}
END_TEST

/*
 * The fast path's requests are in flight too: while they are, a loop that runs whenever it is asked
 * to does not spin.
 */
START_TEST(no_run_is_asked_for_while_a_fast_request_is_in_flight)
{
    struct rig rig;
    struct req fast[2], refused[2];
    rig_with_a_dirty_page(&rig);
    for (uint64_t result = 0; result < 2; result++) {
        uint64_t wakes = rig.clock.wakes;
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
        req_read(&fast[0], &rig, at(0), 512);
        req_read(&fast[1], &rig, at(0), 1024);
        rig.script.refuse = 1;
        req_write(&refused[0], &rig, at(0) + 512, 512, 4, 0); /* refused on the fast path itself */
        req_write(&refused[1], &rig, at(3), CLUSTER, 3,
                  0); /* the engine does not ask the backend, which has no room */
        ck_assert_uint_eq(rig.script.refuse, 0);
        ck_assert(!req_done(&refused[0]) && !req_done(&refused[1]));
        ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), 0);
        ck_assert(rig.clock.wakes == wakes || rig.clock.wake_at_ns != 0);
        rig.script.refuse = 1;
        ploop_dev_run(rig.dev);
        ck_assert_uint_eq(rig.script.refuse,
                          1); /* two are too many: the engine does not ask while there are two */
        ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), 0);

        /*
         * Still no room when one of them is done, short or whole. When the other is done, no
         * completion is left that could bring room.
         */
        rig.script.short_bytes = result ? 512 : 0;
        rig.script.refuse = 2;
        rig.script.hold = 0;
        script_release(&rig.script, 1);
        rig.script.refuse = 2;
        script_release(&rig.script, 0);
        rig.script.short_bytes = 0;
        for (int runs = 0; runs < 10 && ploop_dev_next_deadline(rig.dev) == 0; runs++) {
            rig.script.refuse = 0;
            ploop_dev_run(rig.dev);
        }
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(req_end(&refused[i]), 0);
            ck_assert_int_eq(req_end(&fast[i]), 0);
        }
    }
    rig_end(&rig);
}
END_TEST

START_TEST(blocking_calls_get_on_without_room)
{
    struct rig rig;
    char buffer[512];
    rig_with_a_dirty_page(&rig);
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
    const TTest *const tests[] = {a_failed_data_write_fails_its_request_only,
                                  a_page_due_before_the_data_does_not_publish_it,
                                  of_writes_that_share_a_new_cluster_one_success_maps_it,
                                  zeros_count_over_what_a_failed_write_left,
                                  writes_that_share_a_place_fail_together,
                                  a_failed_read_fails,
                                  an_extension_that_fails_fails_the_write,
                                  a_discard_fails_nobody_when_punching_fails,
                                  short_transfers_are_continued,
                                  no_progress_is_an_error,
                                  interrupted_requests_are_tried_again,
                                  a_backend_without_room_is_asked_again,
                                  no_run_is_asked_for_while_a_fast_request_is_in_flight,
                                  blocking_calls_get_on_without_room};
    return RUN_TESTS("data failures", tests);
}
