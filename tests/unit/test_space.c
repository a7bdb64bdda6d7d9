/* SPDX-License-Identifier: MIT */
/*
 * No space for data (F7): removed clusters are freed first, then writes fail or are parked. For
 * pages: test_page_space.c.
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

static uint64_t parked(struct rig *rig)
{
    return rig_info(rig).requests_parked;
}

/* ---- no space ---- */

START_TEST(a_write_without_space_fails)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_write(&rig, at(100), CLUSTER, 1, 0), -ENOSPC);
    ck_assert_int_eq(rig_write(&rig, at(100), CLUSTER, 1, PLOOP_PIO_FUA), -ENOSPC);
    rig_expect(&rig, at(100), CLUSTER, 0);
    ck_assert_int_eq(rig_write(&rig, at(3), CLUSTER, 3, 0), 0);
    rig_expect(&rig, at(3), CLUSTER, 3);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_PARKED], 0);
    rig_limit_to(&rig, RIG_ROOM + 1);
    ck_assert_int_eq(rig_write(&rig, at(100), 2 * CLUSTER, 2, 0), -ENOSPC);
    rig_limit_to(&rig, 1000);
    ck_assert_int_eq(rig_write(&rig, at(100), 2 * CLUSTER, 2, 0), 0);
    rig_expect(&rig, at(100), 2 * CLUSTER, 2);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_file_that_cannot_grow_has_what_it_has)
{
    struct rig rig;
    uint64_t size;
    uint8_t *image = image_build(&(struct image_plan){0}, &size);
    rig_adopt(&rig, image, size, 0);
    free(image);
    rig.script.capabilities = PLOOP_FILE_CAN_PUNCH;
    rig_open(&rig);
    /* Host cluster 5 is full of 0xA5 and unowned: it is zeroed before it is handed out. */
    ck_assert_int_eq(rig_write(&rig, at(50) + 512, 512, 1, 0), 0);
    rig_expect(&rig, at(50), 512, 0);
    rig_expect(&rig, at(50) + 512, 512, 1);
    rig_expect(&rig, at(50) + 1024, CLUSTER - 1024, 0);
    ck_assert_int_eq(rig_write(&rig, at(51), CLUSTER, 1, 0), -ENOSPC);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_TRUNCATE], 0);
    ck_assert_uint_eq(rig.script.file_size, size);
    /* Its entry had to wait until the zeros were durable. */
    script_forget(&rig.script);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig.script, SCRIPT_META, 0));
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_parked_write_waits_for_space)
{
    struct rig rig;
    struct req first, second;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    req_write(&first, &rig, at(100), CLUSTER, 1, 0);
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_PARKED], 1);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_PARKED], 1);
    req_write(&second, &rig, at(101), CLUSTER, 2, PLOOP_PIO_FUA);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_PARKED], 2);
    ck_assert(!req_done(&first) && !req_done(&second));
    ck_assert_uint_eq(parked(&rig), 2);

    /* The rest of the disk still works, including the clusters themselves. */
    rig_expect(&rig, at(0), CLUSTER, 0xA0);
    rig_expect(&rig, at(100), CLUSTER, 0);
    ck_assert_int_eq(rig_write(&rig, at(1), 512, 3, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);

    /* No space yet: parked again. */
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 2);
    ck_assert_uint_eq(parked(&rig), 2);
    rig_limit_to(&rig, RIG_ROOM + 1);
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 2);
    ck_assert_uint_eq(req_done(&first) + req_done(&second), 1);
    ck_assert_uint_eq(parked(&rig), 1);
    rig_limit_to(&rig, 1000);
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 1);
    ck_assert_int_eq(req_end(&first), 0);
    ck_assert_int_eq(req_end(&second), 0);
    ck_assert_uint_ge(rig.events[PLOOP_EVENT_RESUMED], 1);
    ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_RESUMED], 0);
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 0);
    rig_expect(&rig, at(100), CLUSTER, 1);
    rig_expect(&rig, at(101), CLUSTER, 2);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(the_clock_tries_parked_writes_again)
{
    struct rig rig;
    struct req write;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    req_write(&write, &rig, at(100), CLUSTER, 1, 0);
    uint64_t next = ploop_dev_next_deadline(rig.dev);
    ck_assert_uint_gt(next, rig.clock.now_ns);
    ck_assert_uint_lt(next, rig.clock.now_ns + 10 * SECOND);
    ck_assert_uint_eq(rig.clock.wake_at_ns, next);
    rig_limit_to(&rig, 1000);
    rig.clock.now_ns = next - 1;
    ploop_dev_run(rig.dev);
    ck_assert(!req_done(&write));
    rig.clock.now_ns = next;
    ck_assert_int_gt(ploop_dev_run(rig.dev), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_parked_write_fails_in_time)
{
    struct rig rig;
    struct req write;
    rig_small(&rig, PLOOP_ENOSPC_PARK);
    rig.config.park_timeout_ns = 5 * SECOND;
    rig_limit_to(&rig, 0);
    rig_open(&rig);
    req_write(&write, &rig, at(100), CLUSTER, 1, 0);
    uint64_t begun = rig.clock.now_ns;
    while (!req_done(&write)) {
        uint64_t next = ploop_dev_next_deadline(rig.dev);
        ck_assert_uint_gt(next, rig.clock.now_ns);
        ck_assert_uint_lt(next, begun + 7 * SECOND);
        rig.clock.now_ns = next;
        ploop_dev_run(rig.dev);
    }
    ck_assert_uint_ge(rig.clock.now_ns, begun + 5 * SECOND);
    ck_assert_int_eq(req_end(&write), -ENOSPC);
    ck_assert_uint_eq(parked(&rig), 0);
    rig_end_with_leaks(&rig);
}
END_TEST

/* F10: the clock's jumps change latency only. */
START_TEST(a_parked_write_survives_a_clock_that_goes_back)
{
    struct rig rig;
    struct req write;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    ploop_dev_close(rig.dev);
    rig.config.park_timeout_ns = 5 * SECOND;
    rig_open(&rig);
    rig_limit_to(&rig, RIG_ROOM);
    req_write(&write, &rig, at(100), CLUSTER, 1, 0);
    rig.clock.now_ns -= 100 * SECOND;
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 1);
    ck_assert(!req_done(&write));
    rig_limit_to(&rig, 1000);
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 1);
    ck_assert_int_eq(req_wait(&write), 0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_close_ends_parked_writes)
{
    struct rig rig;
    struct req write, large;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    rig_limit_to(&rig, RIG_ROOM + 1);
    req_write(&large, &rig, at(100), 3 * CLUSTER, 1, 0);
    req_write(&write, &rig, at(110), CLUSTER, 1, PLOOP_PIO_FUA);
    ck_assert(!req_done(&large) && !req_done(&write));
    int error = ploop_dev_close(rig.dev);
    rig.dev = NULL;
    ck_assert_int_eq(error, 0);
    ck_assert_uint_eq(large.calls, 1);
    ck_assert_int_eq(large.result, -ENOSPC);
    ck_assert_uint_eq(write.calls, 1);
    ck_assert_int_eq(write.result, -ENOSPC);
    free(large.iov.iov_base);
    free(write.iov.iov_base);
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(an_abort_ends_parked_writes)
{
    struct rig rig;
    struct req write;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    req_write(&write, &rig, at(110), CLUSTER, 1, 0);
    script_forget(&rig.script);
    ploop_dev_abort(rig.dev);
    rig.dev = NULL;
    ck_assert_uint_eq(write.calls, 1);
    ck_assert_int_eq(write.result, -ECANCELED);
    ck_assert_uint_eq(rig.script.log_count, 0);
    free(write.iov.iov_base);
    rig_free(&rig);
}
END_TEST

START_TEST(a_suspend_does_not_wait_for_parked_writes)
{
    struct rig rig;
    struct req write, large;
    rig_full(&rig, PLOOP_ENOSPC_PARK);
    rig_limit_to(&rig, RIG_ROOM + 1);
    req_write(&large, &rig, at(100), 3 * CLUSTER, 1, 0);
    req_write(&write, &rig, at(110), CLUSTER, 1, 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    /* While the device is suspended none of this happens. */
    rig_limit_to(&rig, 1000);
    script_forget(&rig.script);
    rig_advance(&rig, 100 * SECOND);
    ploop_dev_retry_parked(rig.dev);
    ck_assert_uint_eq(rig.script.log_count, 0);
    ck_assert(!req_done(&large) && !req_done(&write));
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_advance(&rig, SECOND);
    ck_assert_int_eq(req_wait(&large), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    rig_expect(&rig, at(100), 3 * CLUSTER, 1);
    rig_end_with_leaks(&rig);
}
END_TEST

/* The file has its size, but its blocks are not allocated: a data write itself finds no space. */
static void data_finds_no_space(uint32_t policy, uint64_t cluster, uint32_t flags)
{
    struct rig rig;
    struct req write;
    rig_small(&rig, policy);
    rig.script.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_ALLOCATE; /* no blocks to give back */
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig_limit_to(&rig, 1000);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -ENOSPC);
    req_write(&write, &rig, at(cluster) + 512, 512, 1, flags);
    if (policy == PLOOP_ENOSPC_PARK) {
        ck_assert(!req_done(&write));
        ck_assert_uint_eq(parked(&rig), 1);
        ploop_dev_retry_parked(rig.dev);
    }
    ck_assert_int_eq(req_wait(&write), policy == PLOOP_ENOSPC_FAIL ? -ENOSPC : 0);
    rig_expect(&rig, at(cluster), 512, cluster ? 0 : 0xA0);
    rig_expect(&rig, at(cluster) + 512, 512, policy == PLOOP_ENOSPC_PARK ? 1 : cluster ? 0 : 0xA0);
    rig_end_with_leaks(&rig);
}

START_TEST(data_without_space_follows_the_policy)
{
    for (uint32_t policy = PLOOP_ENOSPC_FAIL; policy <= PLOOP_ENOSPC_PARK; policy++) {
        for (uint64_t cluster = 0; cluster < 200; cluster += 100) {
            data_finds_no_space(policy, cluster, 0);
            data_finds_no_space(policy, cluster, PLOOP_PIO_FUA);
        }
    }
}
END_TEST

START_TEST(data_without_space_has_pending_clusters_given_back_first)
{
    struct rig rig;
    rig_full(&rig, PLOOP_ENOSPC_FAIL);
    ck_assert_int_eq(rig_discard(&rig, at(6), 2 * CLUSTER), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 2);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -ENOSPC);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_quarantined, 0);
    ck_assert_uint_ge(rig.script.submitted[PLOOP_IO_PUNCH], 1);
    rig_expect(&rig, at(0), CLUSTER, 1);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * The file is extended ahead of need while clusters of the last extension are left: those are used,
 * in order, and none is wasted.
 */
START_TEST(extensions_ahead_of_need_waste_nothing)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.preallocate_bytes = 16 * CLUSTER;
    rig_open(&rig);
    for (uint32_t i = 0; i < 200; i++) {
        ck_assert_int_eq(rig_write(&rig, at(i), CLUSTER, 1, 0), 0);
    }
    ck_assert_uint_ge(rig_info(&rig).extensions, 8);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    for (uint32_t i = 0; i < 200; i++) {
        ck_assert_uint_eq(rig_file_offset(&rig, i), rig.data_start + at(i));
    }
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {extensions_ahead_of_need_waste_nothing,
                                  a_write_without_space_fails,
                                  a_file_that_cannot_grow_has_what_it_has,
                                  a_parked_write_waits_for_space,
                                  the_clock_tries_parked_writes_again,
                                  a_parked_write_fails_in_time,
                                  a_parked_write_survives_a_clock_that_goes_back,
                                  a_close_ends_parked_writes,
                                  an_abort_ends_parked_writes,
                                  a_suspend_does_not_wait_for_parked_writes,
                                  data_without_space_follows_the_policy,
                                  data_without_space_has_pending_clusters_given_back_first};
    return RUN_TESTS("space", tests);
}
