/* SPDX-License-Identifier: MIT */
/*
 * A last cluster that the end of the file cuts off (R19): reading it, refusing to write it, and
 * making it whole, by RECOVER and by repairs, whatever fails or is lost on the way. Guest cluster 5
 * is the one; its host cluster holds 0xA5.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

enum {
    CLUSTER = 4096,
    GUEST = 5,
    HOST = 5,
    IN_USE = 0x746F6E59,
    MISSING = 1500, /* five sectors are there, and 36 bytes of another */
    THERE = CLUSTER - MISSING,
    WHOLE_SECTORS = 5 * 512
};

static const uint32_t map[] = {0, 1, 1, 2, GUEST, HOST + 1, 0, 0};
static struct fixture fixture, above;
static char log_text[512];
static uint8_t bytes[CLUSTER], zeros[CLUSTER], old[CLUSTER];

static void make(struct fixture *image, uint32_t version, uint32_t in_use, uint64_t missing)
{
    const struct image_plan plan = {.version = version, .in_use = in_use, .map = map};
    uint64_t size;
    uint8_t *whole = image_build(&plan, &size);

    memset(old, 0xA0 + HOST, sizeof(old));
    fixture_open(image, whole, size - missing);
    free(whole);
}

static void take_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)level;
    (void)message_id;
    strncat(log_text, text, sizeof(log_text) - strlen(log_text) - 2);
    strcat(log_text, "\n");
}

static int open_stack(struct fixture *base, struct fixture *top, uint32_t flags, ploop_dev **dev)
{
    ploop_file *deltas[] = {base ? base->file : top->file, top->file};
    struct ploop_dev_config config;

    log_text[0] = '\0';
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    config.log = take_log;
    return ploop_dev_open(deltas, base ? 2 : 1, &config, dev);
}

static void discard(ploop_dev *dev)
{
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));

    ploop_pio_prep_discard(pio, GUEST * CLUSTER, CLUSTER);
    ck_assert_int_eq(ploop_pio_execute(pio), 0);
    ploop_pio_put(pio);
}

/* What is there, and zeros for the rest. */
static void expect_whole(ploop_dev *dev, uint64_t missing)
{
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, GUEST * CLUSTER), CLUSTER);
    ck_assert_mem_eq(bytes, old, CLUSTER - missing);
    ck_assert_mem_eq(bytes + CLUSTER - missing, zeros, missing);
}

/* ---- reading ---- */

static void expect_part(ploop_dev *dev)
{
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, WHOLE_SECTORS, GUEST * CLUSTER), WHOLE_SECTORS);
    ck_assert_mem_eq(bytes, old, WHOLE_SECTORS);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, 512, GUEST * CLUSTER + WHOLE_SECTORS), -EIO);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, 512, GUEST * CLUSTER + CLUSTER - 512), -EIO);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, GUEST * CLUSTER), -EIO);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, CLUSTER), CLUSTER);
}

START_TEST(what_is_there_is_read)
{
    ploop_dev *dev;
    uint32_t flags = PLOOP_DEV_READ_ONLY | (_i / 2 ? PLOOP_DEV_NO_FAST_PATH : 0u);

    make(&fixture, (uint32_t)_i % 2 + 1, 0, MISSING);
    ck_assert_int_eq(open_stack(NULL, &fixture, flags, &dev), 0);
    expect_part(dev);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    fixture_open_image(&above,
                       &(struct image_plan){.version = (uint32_t)_i % 2 + 1, .map = MAP_NONE});
    ck_assert_int_eq(open_stack(&fixture, &above, flags, &dev), 0);
    expect_part(dev);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_uint_eq(fixture_changes(&fixture) + fixture_changes(&above), 0);
}
END_TEST

/* ---- refusing ---- */

static void expect_refused(struct fixture *base, struct fixture *top, uint32_t flags, int error,
                           const char *why)
{
    ploop_dev *dev;

    ck_assert_int_eq(open_stack(base, top, flags, &dev), error);
    ck_assert_msg(strstr(log_text, why) != NULL, "%s", log_text);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
}

START_TEST(without_recover_it_is_refused)
{
    make(&fixture, 2, 0, MISSING);
    expect_refused(NULL, &fixture, 0, -EUCLEAN,
                   "cut off: 2596 of 4096 bytes are in the file; needs recovery");
    fixture_open_image(&above, &(struct image_plan){.map = MAP_NONE});
    expect_refused(&fixture, &above, 0, -EUCLEAN, "delta 0: BAT[5]=");
}
END_TEST

START_TEST(where_the_file_cannot_grow_it_is_refused)
{
    make(&fixture, 2, 0, MISSING);
    fixture.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_GROW;
    expect_refused(NULL, &fixture, PLOOP_DEV_RECOVER, -EUCLEAN, "the file cannot grow");
    fixture_close(&fixture);
    make(&fixture, 2, 0, MISSING);
    fixture.fail_op = PLOOP_IO_TRUNCATE;
    fixture.fail_from = fixture.fail_count = 1;
    fixture.fail_error = ENOSPC;
    expect_refused(NULL, &fixture, PLOOP_DEV_RECOVER, -ENOSPC, "cannot be made longer");
}
END_TEST

START_TEST(two_owners_are_too_many)
{
    make(&fixture, 2, 0, MISSING);
    image_set_entry(fixture.bytes, 1000, image_entry_for(fixture.bytes, HOST));
    expect_refused(NULL, &fixture, PLOOP_DEV_RECOVER, -EUCLEAN, "BAT[1000]");

    struct check_outcome outcome;
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.result.recoverable, 0);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_DUPLICATE], 1);
    run_check(&fixture, PLOOP_REPAIR_ENTRIES | PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);

    ploop_dev *dev;
    ck_assert_int_eq(open_stack(NULL, &fixture, PLOOP_DEV_READ_ONLY, &dev), 0);
    expect_whole(dev, MISSING);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, UINT64_C(1000) * CLUSTER), CLUSTER);
    ck_assert_mem_eq(bytes, old, CLUSTER - MISSING);
    ck_assert_mem_eq(bytes + CLUSTER - MISSING, zeros, MISSING);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

/* ---- making it whole ---- */

static const uint64_t missing[] = {1, 511, 512, MISSING, CLUSTER - 1};
enum { WAYS = sizeof(missing) / sizeof(missing[0]) };

/* New clusters go behind it, none into it; it can be written, discarded and reused. */
START_TEST(recover_makes_it_whole)
{
    ploop_dev *dev;
    uint64_t lacks = missing[_i / 4];

    make(&fixture, (uint32_t)_i % 2 + 1, _i / 2 % 2 ? IN_USE : 0, lacks);
    ck_assert_int_eq(open_stack(NULL, &fixture, PLOOP_DEV_RECOVER, &dev), 0);
    ck_assert_msg(strstr(log_text, "was cut off") != NULL, "%s", log_text);
    for (uint32_t i = 0; i < fixture.log_size && fixture.log[i].op != PLOOP_IO_TRUNCATE; i++) {
        ck_assert_int_eq(fixture.log[i].op, PLOOP_IO_SYNC); /* it comes before the mark */
    }
    expect_whole(dev, lacks);
    memset(bytes, 0x77, sizeof(bytes));
    for (uint64_t guest = 10; guest < 20; guest++) {
        ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, guest * CLUSTER), 512);
    }
    expect_whole(dev, lacks);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, 15 * CLUSTER), CLUSTER);
    ck_assert_mem_eq(bytes + 512, zeros, CLUSTER - 512);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size) & ~3, 0); /* clean, or leaks */
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    ck_assert_int_eq(open_stack(NULL, &fixture, 0, &dev), 0);
    expect_whole(dev, lacks);
    discard(dev);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, GUEST * CLUSTER), CLUSTER);
    ck_assert_mem_eq(bytes, zeros, CLUSTER);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

/* In the session that recovers, too: the cluster is given back, zeroed and handed out again. */
START_TEST(it_is_reused_like_any_other)
{
    ploop_dev *dev;

    make(&fixture, 2, 0, MISSING);
    ck_assert_int_eq(open_stack(NULL, &fixture, PLOOP_DEV_RECOVER, &dev), 0);
    fixture.fail_op = PLOOP_IO_TRUNCATE; /* nothing but reuse can bring space */
    fixture.fail_from = 1;
    fixture.fail_count = UINT64_MAX;
    fixture.fail_error = ENOSPC;
    discard(dev);
    memset(bytes, 0x77, sizeof(bytes));
    uint64_t written = 0;
    while (ploop_dev_pwrite(dev, bytes, 512, (20 + written) * CLUSTER) == 512) {
        written++;
    }
    ck_assert_uint_eq(written, 4); /* three leaks, and this one */
    for (uint64_t i = 0; i < written; i++) {
        ck_assert_int_eq(ploop_dev_pread(dev, bytes, CLUSTER, (20 + i) * CLUSTER), CLUSTER);
        ck_assert_mem_eq(bytes + 512, zeros, CLUSTER - 512);
    }
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

START_TEST(a_lower_delta_is_made_whole)
{
    ploop_dev *dev;

    make(&fixture, 2, 0, MISSING);
    fixture_open_image(&above, &(struct image_plan){.map = MAP_NONE});
    ck_assert_int_eq(open_stack(&fixture, &above, PLOOP_DEV_RECOVER, &dev), 0);
    ck_assert_msg(strstr(log_text, "was cut off") != NULL, "%s", log_text);
    expect_whole(dev, MISSING);
    memset(bytes, 0x77, sizeof(bytes));
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, GUEST * CLUSTER), 512); /* copies it */
    memset(old, 0x77, 512);
    expect_whole(dev, MISSING);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_int_eq(oracle_status(above.bytes, above.size) & ~3, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
}
END_TEST

/* R18: the host could show what the blocks held before. */
START_TEST(where_holes_show_old_bytes_zeros_are_written)
{
    ploop_dev *dev;

    make(&fixture, 2, 0, MISSING);
    ck_assert_int_eq(
        open_stack(NULL, &fixture, PLOOP_DEV_RECOVER | PLOOP_DEV_HOST_SHOWS_STALE, &dev), 0);
    ck_assert_int_eq(fixture.log[0].op, PLOOP_IO_TRUNCATE);
    ck_assert_int_eq(fixture.log[1].op, PLOOP_IO_WRITE);
    ck_assert_uint_eq(fixture.log[1].length, MISSING);
    expect_whole(dev, MISSING);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

/* ---- power cuts ---- */

/* The file after the first operations of a log. */
static void replay(const struct fixture *run, uint32_t count, struct fixture *after)
{
    make(after, 2, 0, MISSING);
    for (uint32_t i = 0; i < count; i++) {
        const struct fixture_op *op = &run->log[i];
        if (op->op == PLOOP_IO_TRUNCATE) {
            ck_assert_int_eq(ploop_file_truncate(after->file, op->offset), 0);
        } else if (op->op == PLOOP_IO_WRITE) {
            ck_assert_int_eq(ploop_file_pwrite(after->file, op->data, op->length, op->offset),
                             (int64_t)op->length);
        }
    }
    fixture_reset(after);
}

/* Wherever it ends, RECOVER opens it, and the cluster has what it had. */
START_TEST(cut_anywhere_it_can_be_recovered)
{
    static struct fixture after;
    ploop_dev *dev;

    make(&fixture, 2, 0, MISSING);
    ck_assert_int_eq(open_stack(NULL, &fixture, PLOOP_DEV_RECOVER, &dev), 0);
    memset(bytes, 0x77, sizeof(bytes));
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, CLUSTER, 10 * CLUSTER), CLUSTER);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_uint_gt(fixture.log_size, 4);
    for (uint32_t count = 1; count <= fixture.log_size; count++) {
        replay(&fixture, count, &after);
        ck_assert_int_eq(open_stack(NULL, &after, PLOOP_DEV_RECOVER, &dev), 0);
        expect_whole(dev, MISSING);
        ck_assert_int_eq(ploop_dev_close(dev), 0);
        fixture_close(&after);
    }
}
END_TEST

/* ---- repairs ---- */

START_TEST(a_repair_makes_it_whole)
{
    static const uint32_t repairs[] = {PLOOP_REPAIR_CUT, PLOOP_REPAIR_ENTRIES,
                                       PLOOP_REPAIR_CUT | PLOOP_REPAIR_UNCLEAN};
    struct check_outcome outcome;
    ploop_dev *dev;
    uint32_t repair = repairs[_i / 2];

    make(&fixture, (uint32_t)_i % 2 + 1, repair & PLOOP_REPAIR_UNCLEAN ? IN_USE : 0, MISSING);
    run_check(&fixture, repair, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.repaired, repair & PLOOP_REPAIR_UNCLEAN ? 2 : 1);
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.result.errors, 0);
    ck_assert_int_eq(open_stack(NULL, &fixture, PLOOP_DEV_READ_ONLY, &dev), 0);
    expect_whole(dev, MISSING);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

/* One that was not asked for it leaves entry, bytes and the mark. */
START_TEST(another_repair_leaves_it)
{
    struct check_outcome outcome;
    uint64_t size;

    make(&fixture, 2, IN_USE, MISSING);
    size = fixture.size;
    run_check(&fixture, PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(fixture.size, size);
    ck_assert_mem_eq(fixture.bytes + size - THERE, old, THERE);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), IN_USE);
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_CUT], 1);
    fixture.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_GROW;
    run_check(&fixture, PLOOP_REPAIR_CUT, &outcome);
    ck_assert_int_eq(outcome.error, -ENOSPC);
    ck_assert_uint_eq(fixture.size, size);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("cut");

    tcase_add_loop_test(tests, what_is_there_is_read, 0, 4);
    tcase_add_test(tests, without_recover_it_is_refused);
    tcase_add_test(tests, where_the_file_cannot_grow_it_is_refused);
    tcase_add_test(tests, two_owners_are_too_many);
    tcase_add_loop_test(tests, recover_makes_it_whole, 0, 4 * WAYS);
    tcase_add_test(tests, it_is_reused_like_any_other);
    tcase_add_test(tests, a_lower_delta_is_made_whole);
    tcase_add_test(tests, where_holes_show_old_bytes_zeros_are_written);
    tcase_add_test(tests, cut_anywhere_it_can_be_recovered);
    tcase_add_loop_test(tests, a_repair_makes_it_whole, 0, 6);
    tcase_add_test(tests, another_repair_leaves_it);
    return run_case("cut", tests);
}
