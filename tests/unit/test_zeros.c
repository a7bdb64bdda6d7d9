/* SPDX-License-Identifier: MIT */
/* Writes whose data is zeros, to clusters that no delta has: none is taken, nothing is written. */
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "run_tests.h"
#include "util/iov.h"
#include "util/zeros.h"

enum { CLUSTER = 4096 };

static void open_empty(struct rig *rig, uint32_t flags)
{
    rig_create(rig, 2, UINT64_C(4) << 20, CLUSTER, 0);
    rig->config.flags = flags;
    rig_open(rig);
}

START_TEST(one_byte_is_found_wherever_it_is)
{
    enum { LENGTH = 1100 };
    uint8_t *bytes = calloc(1, LENGTH);
    for (uint64_t from = 0; from < 40; from++) {
        for (uint64_t length = 0; length <= LENGTH - from; length += 1 + length / 9) {
            ck_assert(zeros_only(bytes + from, length));
            for (uint64_t at = 0; at < from + length + 1 && at < LENGTH; at += 1 + at / 17) {
                bytes[at] = 0x80;
                bool inside = at >= from && at < from + length;
                ck_assert(zeros_only(bytes + from, length) == !inside);
                bytes[at] = 0;
            }
        }
    }
    free(bytes);
}
END_TEST

START_TEST(pieces_are_looked_at_one_after_another)
{
    uint8_t bytes[600] = {0};
    const struct iovec iov[] = {{bytes, 100}, {NULL, 0}, {bytes + 100, 300}, {bytes + 400, 200}};
    struct iov_cursor cursor = {.iov = iov, .count = 4};
    iov_advance(&cursor, 50);
    bytes[49] = bytes[550] = 1;
    ck_assert(iov_is_zero(&cursor, 500));
    ck_assert(!iov_is_zero(&cursor, 501));
    bytes[399] = 1;
    ck_assert(iov_is_zero(&cursor, 349));
    ck_assert(!iov_is_zero(&cursor, 350));
}
END_TEST

START_TEST(zeros_take_no_cluster)
{
    struct rig rig;
    open_empty(&rig, 0);
    ck_assert_int_eq(rig_write(&rig, 512, 5 * CLUSTER, 0, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 20 * CLUSTER, CLUSTER, 0, PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    rig_expect(&rig, 0, 30 * CLUSTER, 0);
    /* Where there is a cluster they are data. */
    ck_assert_int_eq(rig_write(&rig, 512, 1024, 7, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 512, 512, 0, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 1);
    rig_expect(&rig, 512, 512, 0);
    rig_expect(&rig, 1024, 512, 7);
    rig_end(&rig);
}
END_TEST

START_TEST(zeros_take_a_cluster_where_that_is_asked_for)
{
    struct rig rig;
    open_empty(&rig, PLOOP_DEV_WRITE_ZEROS_AS_DATA);
    ck_assert_int_eq(rig_write(&rig, 512, 5 * CLUSTER, 0, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 6);
    rig_end(&rig);
}
END_TEST

/* A write that fails may leave its bytes in the cluster, and one that joins it decides. */
START_TEST(zeros_join_a_write_under_way)
{
    struct rig rig;
    struct req data, zeros;
    open_empty(&rig, 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&data, &rig, 0, 512, 7, 0);
    req_write(&zeros, &rig, 512, 512, 0, 0);
    ck_assert(!req_done(&data) && !req_done(&zeros));
    ck_assert_uint_eq(script_held_of(&rig.script, PLOOP_IO_WRITE), 2);
    rig.script.hold = 0;
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&data), 0);
    ck_assert_int_eq(req_wait(&zeros), 0);
    rig_expect(&rig, 0, 512, 7);
    rig_expect(&rig, 512, CLUSTER - 512, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(with_fua_they_wait_for_the_absence_to_be_durable)
{
    struct rig rig;
    open_empty(&rig, 0);
    ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 7, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(rig_discard(&rig, 0, CLUSTER), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 512, 0, 0), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 512, 0, PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 0), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {one_byte_is_found_wherever_it_is,
                            pieces_are_looked_at_one_after_another,
                            zeros_take_no_cluster,
                            zeros_take_a_cluster_where_that_is_asked_for,
                            zeros_join_a_write_under_way,
                            with_fua_they_wait_for_the_absence_to_be_durable};
    return RUN_TESTS("zeros", tests);
}
