/* SPDX-License-Identifier: MIT */
/* What a queue was asked of each kind: ploop_dev_stats(). */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <string.h>

enum { CLUSTER = 4096, QUEUES = 2, KINDS = PLOOP_KIND_BAT_WRITE };

static void ready(struct rig *rig, uint32_t flags)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.flags = flags;
    rig->config.queue_count = QUEUES;
    rig_open(rig);
}

static struct ploop_stats stats_of(struct rig *rig, uint32_t queue, uint32_t kind)
{
    struct ploop_stats stats = {.size = sizeof(stats)};
    ck_assert_int_eq(ploop_dev_stats(rig->dev, queue, kind, &stats), 0);
    return stats;
}

static void must_be(struct rig *rig, uint32_t kind, uint64_t requests, uint64_t bytes,
                    uint64_t errors)
{
    struct ploop_stats stats = stats_of(rig, 0, kind);
    ck_assert_uint_eq(stats.requests, requests);
    ck_assert_uint_eq(stats.bytes, bytes);
    ck_assert_uint_eq(stats.errors, errors);
    ck_assert_uint_le(stats.requests_fast, requests);
}

/* All queues and kinds: what ploop_dev_info() counts, too. */
static void sum_is_the_devices(struct rig *rig)
{
    uint64_t requests = 0, fast = 0;
    for (uint32_t queue = 0; queue <= QUEUES; queue++) {
        for (uint32_t kind = 1; kind <= KINDS; kind++) {
            struct ploop_stats stats = stats_of(rig, queue, kind);
            requests += stats.requests;
            fast += stats.requests_fast;
        }
    }
    ck_assert_uint_eq(requests, rig_info(rig).requests);
    ck_assert_uint_eq(fast, rig_info(rig).requests_fast);
}

/* By the fast path and by the engine alone: _i is the device's flags. */
START_TEST(each_kind_is_counted_with_its_bytes)
{
    struct rig rig;
    ready(&rig, (uint32_t)_i);
    ck_assert_int_eq(rig_write(&rig, 0, 2 * CLUSTER, 1, 0), 0); /* new: by the engine */
    ck_assert_int_eq(rig_write(&rig, 512, 1024, 2, 0), 0);
    ck_assert_int_eq(rig_write(&rig, CLUSTER, 512, 2, PLOOP_PIO_FUA), 0);
    must_be(&rig, PLOOP_KIND_WRITE, 3, 2 * CLUSTER + 1024 + 512, 0);
    must_be(&rig, PLOOP_KIND_READ, 0, 0, 0);
    rig_expect(&rig, 512, 1024, 2);
    rig_expect(&rig, 8 * CLUSTER, 2048, 0); /* not mapped */
    rig_expect(&rig, 0, 512, 1);
    must_be(&rig, PLOOP_KIND_READ, 3, 1024 + 2048 + 512, 0);
    ck_assert_uint_eq(stats_of(&rig, 0, PLOOP_KIND_READ).requests_fast, _i ? 0 : 3);
    ck_assert_uint_eq(stats_of(&rig, 0, PLOOP_KIND_WRITE).requests_fast, _i ? 0 : 1);
    ck_assert_int_eq(rig_zeroes(&rig, 0, CLUSTER, 0), 0);
    ck_assert_int_eq(rig_discard(&rig, CLUSTER, 3 * CLUSTER), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    struct req req;
    req_bat_write(&req, &rig, 0, 3);
    ck_assert_int_eq(req_wait(&req), 0);
    must_be(&rig, PLOOP_KIND_WRITE_ZEROES, 1, CLUSTER, 0);
    must_be(&rig, PLOOP_KIND_DISCARD, 1, 3 * CLUSTER, 0);
    must_be(&rig, PLOOP_KIND_FLUSH, 1, 0, 0);
    must_be(&rig, PLOOP_KIND_BAT_WRITE, 1, UINT64_C(3) * 4096, 0);
    sum_is_the_devices(&rig);
    rig_end_with_leaks(&rig);
}
END_TEST

/* The other queue's, and the blocking functions'. */
START_TEST(each_queue_counts_its_own)
{
    struct rig rig;
    ready(&rig, (uint32_t)_i);
    static uint8_t bytes[CLUSTER];
    ck_assert_int_eq(ploop_dev_pwrite(rig.dev, bytes, CLUSTER, 0), CLUSTER);
    ck_assert_int_eq(ploop_dev_pread(rig.dev, bytes, 512, 0), 512);
    ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
    struct iovec iov = {bytes, 1024};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(rig.dev, 1));
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ck_assert_int_eq(ploop_pio_execute(pio), 0);
    ploop_pio_put(pio);
    for (uint32_t kind = 1; kind <= KINDS; kind++) {
        must_be(&rig, kind, 0, 0, 0);
        ck_assert_uint_eq(stats_of(&rig, 1, kind).requests, kind == PLOOP_KIND_READ);
    }
    ck_assert_uint_eq(stats_of(&rig, 1, PLOOP_KIND_READ).bytes, 1024);
    ck_assert_uint_eq(stats_of(&rig, QUEUES, PLOOP_KIND_READ).bytes, 512);
    ck_assert_uint_eq(stats_of(&rig, QUEUES, PLOOP_KIND_WRITE).bytes, CLUSTER);
    ck_assert_uint_eq(stats_of(&rig, QUEUES, PLOOP_KIND_FLUSH).requests, 1);
    sum_is_the_devices(&rig);
    rig_end(&rig);
}
END_TEST

/* An error is one of the request, however it comes; a retry that succeeds is none. */
START_TEST(an_error_is_counted_once)
{
    struct rig rig;
    ready(&rig, (uint32_t)_i);
    ck_assert_int_eq(rig_write(&rig, 0, 4 * CLUSTER, 1, 0), 0);
    struct req req;
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
    req_read(&req, &rig, 0, 512);
    ck_assert_int_eq(req_wait(&req), -EIO);
    must_be(&rig, PLOOP_KIND_READ, 1, 512, 1);
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
    req_read(&req, &rig, 0, 4 * CLUSTER); /* of several parts */
    ck_assert_int_eq(req_wait(&req), -EIO);
    must_be(&rig, PLOOP_KIND_READ, 2, 4 * CLUSTER + 512, 2);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -EIO);
    ck_assert_int_eq(rig_write(&rig, 0, 512, 1, 0), -EIO);
    must_be(&rig, PLOOP_KIND_WRITE, 2, 4 * CLUSTER + 512, 1);
    ck_assert_int_eq(rig_write(&rig, 0, 512, 1, 0), 0);
    must_be(&rig, PLOOP_KIND_WRITE, 3, 4 * CLUSTER + 1024, 1);
    sum_is_the_devices(&rig);
    rig_end(&rig);
}
END_TEST

START_TEST(what_is_refused_is_not_counted)
{
    struct rig rig;
    ready(&rig, 0);
    uint8_t bytes[512];
    struct iovec iov = {bytes, 512};
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_prep_readv(pio, 1, &iov, 1);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), -EINVAL);
    ploop_pio_put(pio);
    must_be(&rig, PLOOP_KIND_READ, 0, 0, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(what_does_not_exist_is_refused)
{
    struct rig rig;
    ready(&rig, 0);
    struct ploop_stats stats = {.size = sizeof(stats)};
    ck_assert_int_eq(ploop_dev_stats(rig.dev, QUEUES + 1, PLOOP_KIND_READ, &stats), -EINVAL);
    ck_assert_int_eq(ploop_dev_stats(rig.dev, 0, 0, &stats), -EINVAL);
    ck_assert_int_eq(ploop_dev_stats(rig.dev, 0, KINDS + 1, &stats), -EINVAL);
    ck_assert_int_eq(ploop_dev_stats(rig.dev, 0, PLOOP_KIND_READ, NULL), -EINVAL);
    stats.size = 8;
    ck_assert_int_eq(ploop_dev_stats(rig.dev, 0, PLOOP_KIND_READ, &stats), -EINVAL);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    static const uint32_t flags[] = {0, PLOOP_DEV_NO_FAST_PATH};
    TCase *tests = tcase_create("stats");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int flag = (int)flags[i];
        tcase_add_loop_test(tests, each_kind_is_counted_with_its_bytes, flag, flag + 1);
        tcase_add_loop_test(tests, each_queue_counts_its_own, flag, flag + 1);
        tcase_add_loop_test(tests, an_error_is_counted_once, flag, flag + 1);
    }
    tcase_add_test(tests, what_is_refused_is_not_counted);
    tcase_add_test(tests, what_does_not_exist_is_refused);
    return run_case("stats", tests);
}
