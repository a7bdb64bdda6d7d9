/* SPDX-License-Identifier: MIT */
/* Copies from a lower delta that are put off (R9): what they cost, and what ends them. */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ops.h>

#include "pio/partial.h"

static const struct partial_limits usual = {RUNS_MAX, PARTIAL_RECORDS, PARTIAL_BYTES_MAX};

static void open_with_delay(struct tower *tower)
{
    tower->rig.config.cow_delay_ns = SECOND;
    tower_open(tower);
}

static void of_two(struct tower *tower)
{
    partial_limits = usual;
    tower_of_two(tower, 2);
    open_with_delay(tower);
}

/* Two images with one cluster of this size each, which the lower one has. */
static void of_large(struct tower *tower, uint32_t cluster)
{
    struct image_plan plan = {
        .cluster_sectors = cluster / 512, .entries = 4, .host_clusters = 1, .map = MAP_NONE};
    partial_limits = usual;
    tower_top(tower, &plan);
    plan.map = (const uint32_t[]){0, 1, 0, 0};
    tower_add(tower, &plan);
    open_with_delay(tower);
}

static uint64_t bytes_of(const struct script *script, uint32_t kind)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < script->log_count; i++) {
        sum += script->log[i].kind == kind ? script->log[i].length : 0;
    }
    return sum;
}

static uint64_t moved(const struct tower *tower)
{
    return bytes_of(&tower->rig.script, PLOOP_IO_WRITE) +
           bytes_of(&tower->rig.script, PLOOP_IO_READ) + bytes_of(&tower->lowers[0], PLOOP_IO_READ);
}

/* [from, end) is `byte`; it may be nothing. */
static void expect(struct rig *rig, uint64_t from, uint64_t end, uint8_t byte)
{
    if (from < end) {
        rig_expect(rig, from, end - from, byte);
    }
}

static uint64_t partial(struct rig *rig)
{
    return rig_info(rig).clusters_partial;
}

START_TEST(a_first_write_moves_its_own_bytes)
{
    for (uint64_t inside = 0; inside < CLUSTER; inside += 512) {
        struct tower tower;
        of_two(&tower);
        struct rig *rig = &tower.rig;
        tower_forget(&tower);
        ck_assert_int_eq(rig_write(rig, at(1) + inside, 512, 1, 0), 0);
        ck_assert_uint_eq(moved(&tower), 512);
        ck_assert_uint_eq(partial(rig), 1);
        ck_assert_uint_eq(rig_info(rig).clusters_copied, 0);
        expect(rig, at(1), at(1) + inside, 0xA1);
        expect(rig, at(1) + inside, at(1) + inside + 512, 1);
        expect(rig, at(1) + inside + 512, at(2), 0xA1);
        tower_forget(&tower);
        ck_assert_int_eq(rig_flush(rig), 0);
        /* One read below, of the top's own bytes where they lie in between, and one write. */
        bool between = inside > 0 && inside + 512 < CLUSTER;
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 1);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_READ], between ? 1 : 0);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 1);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_SYNC], 2);
        ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_WRITE, 0),
                          script_log_find(&rig->script, PLOOP_IO_SYNC, 0));
        ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0),
                          script_log_find(&rig->script, SCRIPT_META, 0));
        ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
        ck_assert_uint_eq(partial(rig), 0);
        ck_assert_uint_eq(rig_info(rig).clusters_copied, 1);
        expect(rig, at(1), at(1) + inside, 0xA1);
        expect(rig, at(1) + inside, at(1) + inside + 512, 1);
        expect(rig, at(1) + inside + 512, at(2), 0xA1);
        tower_end(&tower);
    }
}
END_TEST

/* P15. */
START_TEST(writes_that_cover_a_cluster_copy_nothing)
{
    enum { LARGE = 1 << 20, STEP = 4096 };
    struct tower tower;
    of_large(&tower, LARGE);
    struct rig *rig = &tower.rig;
    tower_forget(&tower);
    ck_assert_int_eq(rig_write(rig, LARGE / 2, STEP, 1, 0), 0);
    ck_assert_uint_le(moved(&tower), 8192);
    for (uint32_t i = 1; i < LARGE / STEP; i++) {
        ck_assert_int_eq(rig_write(rig, (LARGE / 2 + (uint64_t)i * STEP) % LARGE, STEP, 1, 0), 0);
    }
    ck_assert_uint_eq(moved(&tower), LARGE);
    ck_assert_uint_eq(partial(rig), 0);
    ck_assert_uint_eq(rig_info(rig).clusters_mapped, 1);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig->script, SCRIPT_META, 0));
    rig_expect(rig, 0, LARGE, 1);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
    tower_end(&tower);
}
END_TEST

/* Of each MiB one read of each delta at most, and one write; nothing of one that is there. */
START_TEST(a_large_cluster_is_completed_piece_by_piece)
{
    enum { MIB = 1 << 20, LARGE = 4 * MIB };
    struct tower tower;
    of_large(&tower, LARGE);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, MIB, MIB, 1, 0), 0);
    ck_assert_int_eq(rig_write(rig, 2 * MIB + 8192, 4096, 2, 0), 0);
    ck_assert_int_eq(rig_write(rig, 2 * MIB + 65536, 4096, 3, 0), 0);
    ck_assert_int_eq(rig_write(rig, LARGE - 4096, 4096, 4, 0), 0);
    for (uint32_t i = 0; i < 2; i++) {
        rig_expect(rig, 0, MIB, 0xA0);
        rig_expect(rig, MIB, MIB, 1);
        rig_expect(rig, 2 * MIB, 8192, 0xA0);
        rig_expect(rig, 2 * MIB + 8192, 4096, 2);
        rig_expect(rig, 2 * MIB + 12288, 65536 - 12288, 0xA0);
        rig_expect(rig, 2 * MIB + 65536, 4096, 3);
        rig_expect(rig, 2 * MIB + 69632, 2 * MIB - 69632 - 4096, 0xA0);
        rig_expect(rig, LARGE - 4096, 4096, 4);
        tower_forget(&tower);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], i ? 0 : 3);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_READ], i ? 0 : 1);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], i ? 0 : 3);
    }
    tower_end(&tower);
}
END_TEST

/* A read of a partial cluster: one of each delta. */
START_TEST(a_read_takes_what_each_delta_has)
{
    enum { LARGE = 1 << 20, HOLES = 16 };
    struct tower tower;
    of_large(&tower, LARGE);
    struct rig *rig = &tower.rig;
    for (uint32_t i = 0; i < HOLES; i++) {
        ck_assert_int_eq(rig_write(rig, 4096 + i * 8192, 4096, (uint8_t)(i + 1), 0), 0);
    }
    tower_forget(&tower);
    struct req read;
    req_read(&read, rig, 0, LARGE);
    ck_assert_int_eq(read.result, 0);
    const uint8_t *bytes = read.iov.iov_base;
    for (uint32_t i = 0; i < LARGE; i += 512) {
        bool own = i / 4096 % 2 && i < HOLES * 8192;
        ck_assert_uint_eq(bytes[i], own ? i / 8192 + 1 : 0xA0);
    }
    ck_assert_int_eq(req_wait(&read), 0);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 1);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_READ], 1);
    tower_forget(&tower);
    rig_expect(rig, 4096, 4096, 1);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
    tower_end(&tower);
}
END_TEST

START_TEST(a_read_ends_inside_what_the_top_has)
{
    struct tower tower;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    struct req read;
    ck_assert_int_eq(rig_write(rig, at(1) + 1024, 2048, 1, 0), 0);
    req_read(&read, rig, at(1) + 512, 1536);
    ck_assert(req_done(&read));
    ck_assert_uint_eq(((uint8_t *)read.iov.iov_base)[511], 0xA1);
    ck_assert_uint_eq(((uint8_t *)read.iov.iov_base)[512], 1);
    ck_assert_int_eq(req_end(&read), 0);
    tower_end(&tower);
}
END_TEST

START_TEST(the_clock_completes_what_is_left)
{
    struct tower tower;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    rig_advance(rig, SECOND / 2);
    ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 2, 0), 0); /* pushes it back */
    rig_advance(rig, SECOND - 1);
    ploop_dev_run(rig->dev);
    ck_assert_uint_eq(partial(rig), 1);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig->dev), rig->clock.now_ns + 1);
    rig_advance(rig, 2);
    ploop_dev_run(rig->dev);
    ck_assert_uint_eq(partial(rig), 0);
    ck_assert_uint_eq(rig_info(rig).clusters_copied, 1);
    /* Not for ever: writeback_max_age_ns is five seconds. */
    for (uint32_t i = 0; i < 9; i++) {
        ck_assert_int_eq(rig_write(rig, at(0), 512, 3, 0), 0);
        ck_assert_uint_eq(partial(rig), 1);
        rig_advance(rig, SECOND / 2 + 1);
        ploop_dev_run(rig->dev);
    }
    ck_assert_int_eq(rig_write(rig, at(0), 512, 3, 0), 0);
    rig_advance(rig, SECOND / 2);
    ploop_dev_run(rig->dev);
    ck_assert_uint_eq(partial(rig), 0);
    tower_end(&tower);
}
END_TEST

START_TEST(fua_needs_the_whole_cluster)
{
    struct tower tower;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(0), 512, 1, PLOOP_PIO_FUA), 0); /* a first one copies */
    ck_assert_uint_eq(partial(rig), 0);
    ck_assert_uint_ne(rig_file_entry(rig, 0), 0);
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    ck_assert_uint_eq(partial(rig), 1);
    ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 2, PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(partial(rig), 0);
    ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
    ck_assert_int_eq(rig_write(rig, at(0) + 512, 512, 3, 0), 0);
    rig_expect(rig, at(1), 512, 1);
    rig_expect(rig, at(1) + 512, 512, 2);
    rig_expect(rig, at(1) + 1024, CLUSTER - 1024, 0xA1);
    tower_end(&tower);
}
END_TEST

/* Zeros are the top's sectors like others; a discard does nothing. */
START_TEST(zeros_and_discards_of_a_partial_cluster)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct tower tower;
        bool whole = i & 1, keeps = i & 4;
        uint32_t flags = keeps ? PLOOP_PIO_NO_UNMAP : 0;
        partial_limits = usual;
        tower_of_two(&tower, 2);
        tower.rig.script.capabilities = PLOOP_FILE_CAN_GROW | (i & 2 ? PLOOP_FILE_CAN_PUNCH : 0);
        open_with_delay(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 1, 0), 0);
        tower_forget(&tower);
        ck_assert_int_eq(rig_discard(rig, at(1), CLUSTER), 0);
        rig_expect(rig, at(1), 512, 0xA1);
        rig_expect(rig, at(1) + 512, 512, 1);
        ck_assert_uint_eq(partial(rig), 1);
        bool fast = i & 2 && !keeps;
        ck_assert_int_eq(rig_zeroes(rig, at(1) + 2048, 512, flags | PLOOP_PIO_FAST_ONLY),
                         fast ? 0 : -ENOTSUP);
        ck_assert_int_eq(rig_zeroes(rig, at(1) + 1024, whole ? CLUSTER - 1024 : 512, flags), 0);
        ck_assert_uint_eq(partial(rig), 1);
        rig_expect(rig, at(1), 512, 0xA1);
        rig_expect(rig, at(1) + 512, 512, 1);
        rig_expect(rig, at(1) + 1024, 512, 0);
        if (whole) {
            ck_assert_int_eq(rig_zeroes(rig, at(1), CLUSTER, flags), 0);
            ck_assert_uint_eq(partial(rig), 0);
            rig_expect(rig, at(1), CLUSTER, 0);
        }
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_WRITE], 0);
        ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
        rig_expect(rig, at(1) + 1024, 512, 0);
        rig_expect(rig, at(1) + 3072, 1024, whole ? 0 : 0xA1);
        tower_end(&tower);
    }
}
END_TEST

/* ---- what is over a limit copies at once ---- */

START_TEST(limits_are_kept)
{
    for (uint32_t i = 0; i < 3; i++) {
        struct tower tower;
        tower_of_two(&tower, 2);
        partial_limits = usual;
        if (i == 0) {
            partial_limits.records = 1;
        } else if (i == 1) {
            partial_limits.bytes = 2 * CLUSTER - 512;
        } else {
            partial_limits.runs = 2;
        }
        open_with_delay(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        if (i < 2) { /* another record */
            ck_assert_int_eq(rig_write(rig, at(0), 512, 1, 0), 0);
            ck_assert_uint_eq(partial(rig), i == 0 ? 1 : 2);
            partial_limits = usual;
            ck_assert_uint_eq(rig_info(rig).clusters_copied, i == 0 ? 1 : 0);
            tower_end(&tower);
            continue;
        }
        ck_assert_int_eq(rig_write(rig, at(1) + 1024, 512, 2, 0), 0);
        ck_assert_uint_eq(partial(rig), 1);
        ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 3, 0), 0); /* joins the two */
        ck_assert_int_eq(rig_write(rig, at(1) + 2048, 512, 4, 0), 0);
        ck_assert_uint_eq(partial(rig), 1);
        ck_assert_int_eq(rig_write(rig, at(1) + 3072, 512, 5, 0), 0);
        ck_assert_uint_eq(partial(rig), 0);
        ck_assert_uint_eq(rig_info(rig).clusters_copied, 1);
        rig_expect(rig, at(1), 512, 1);
        rig_expect(rig, at(1) + 512, 512, 3);
        rig_expect(rig, at(1) + 1536, 512, 0xA1);
        rig_expect(rig, at(1) + 3072, 512, 5);
        partial_limits = usual;
        tower_end(&tower);
    }
}
END_TEST

/* ---- errors ---- */

START_TEST(a_write_that_fails_leaves_the_lower_content)
{
    for (uint32_t second = 0; second < 2; second++) {
        struct tower tower;
        of_two(&tower);
        struct rig *rig = &tower.rig;
        if (second) {
            ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        }
        script_fail(&rig->script, PLOOP_IO_WRITE, 0, 1, -EIO);
        ck_assert_int_eq(rig_write(rig, at(1) + 1024, 512, 2, 0), -EIO);
        ck_assert_uint_eq(partial(rig), second);
        rig_expect(rig, at(1) + 1024, 512, 0xA1);
        ck_assert_int_eq(rig_flush(rig), 0);
        rig_expect(rig, at(1) + 1024, 512, 0xA1);
        rig_expect(rig, at(1), 512, second ? 1 : 0xA1);
        tower_end(&tower);
    }
}
END_TEST

/* F16. */
START_TEST(an_unreadable_range_fails_the_flush_that_needs_it)
{
    struct tower tower;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(9), 512, 9, 0), 0);
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, UINT64_MAX, -EIO);
    ck_assert_int_eq(rig_flush(rig), -EIO);
    ck_assert_uint_ne(rig_file_entry(rig, 9), 0); /* all else is durable */
    ck_assert_uint_eq(rig_file_entry(rig, 1), 0);
    ck_assert_uint_eq(rig->events[PLOOP_EVENT_COPY_FAILED], 1);
    ck_assert_uint_eq(rig->event_value[PLOOP_EVENT_COPY_FAILED], 1);
    ck_assert_uint_eq(rig_info(rig).copies_failed, 1);
    ck_assert_int_eq(rig_flush(rig), -EIO);
    ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 2, PLOOP_PIO_FUA), -EIO);
    ck_assert_int_eq(rig_write(rig, at(9) + 512, 512, 2, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(ploop_dev_suspend(rig->dev), -EIO);
    ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
    rig_expect(rig, at(1), 512, 1);
    /* A first write copies at once now. */
    ck_assert_int_eq(rig_write(rig, at(0), 512, 3, 0), -EIO);
    ck_assert_uint_eq(partial(rig), 1);
    /* The clock tries it again, with growing delay. */
    uint64_t failed = rig_info(rig).copies_failed;
    for (uint32_t i = 0; i < 100; i++) {
        rig_advance(rig, SECOND);
        ploop_dev_run(rig->dev);
    }
    ck_assert_uint_gt(rig_info(rig).copies_failed, failed);
    ck_assert_uint_lt(rig_info(rig).copies_failed, failed + 8);
    /* The guest mends it. */
    ck_assert_int_eq(rig_write(rig, at(1) + 512, CLUSTER - 512, 4, 0), 0);
    ck_assert_uint_eq(partial(rig), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 0, 0);
    rig_expect(rig, at(1), 512, 1);
    rig_expect(rig, at(1) + 512, CLUSTER - 512, 4);
    ck_assert_int_eq(rig_write(rig, at(0), 512, 3, 0), 0);
    ck_assert_uint_eq(partial(rig), 1); /* one has succeeded */
    tower_end(&tower);
}
END_TEST

START_TEST(a_close_that_cannot_complete_leaves_the_mark)
{
    struct tower tower;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, UINT64_MAX, -EIO);
    ck_assert_int_eq(ploop_dev_close(rig->dev), -EIO);
    rig->dev = NULL;
    ck_assert(rig_file_marked(rig));
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 0, 0);
    rig->config.flags |= PLOOP_DEV_RECOVER;
    rig_open(rig);
    rig_expect(rig, at(1), CLUSTER, 0xA1);
    tower_end(&tower);
}
END_TEST

START_TEST(a_completion_that_cannot_write_takes_another_place)
{
    for (uint64_t failures = 1; failures < 3; failures++) {
        struct tower tower;
        of_two(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1) + 512, 512, 1, 0), 0);
        ck_assert_int_eq(rig_write(rig, at(1) + 1536, 512, 2, 0), 0);
        script_fail(&rig->script, PLOOP_IO_WRITE, 0, failures, -EIO);
        ck_assert_int_eq(rig_flush(rig), failures == 1 ? 0 : -EIO);
        ck_assert_uint_eq(partial(rig), failures == 1 ? 0 : 1);
        ck_assert_int_eq(rig_flush(rig), 0);
        rig_expect(rig, at(1), 512, 0xA1);
        rig_expect(rig, at(1) + 512, 512, 1);
        rig_expect(rig, at(1) + 1024, 512, 0xA1);
        rig_expect(rig, at(1) + 1536, 512, 2);
        rig_expect(rig, at(1) + 2048, CLUSTER - 2048, 0xA1);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_completion_without_space_follows_the_policy)
{
    for (uint32_t parks = 0; parks < 2; parks++) {
        struct tower tower;
        struct req flush;
        partial_limits = usual;
        tower_of_two(&tower, 2);
        tower.rig.config.enospc_policy = parks ? PLOOP_ENOSPC_PARK : PLOOP_ENOSPC_FAIL;
        open_with_delay(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        script_fail(&rig->script, PLOOP_IO_WRITE, 0, UINT64_MAX, -ENOSPC);
        req_flush(&flush, rig);
        for (uint32_t i = 0; i < 20; i++) {
            ploop_dev_run(rig->dev);
        }
        ck_assert(req_done(&flush) == !parks);
        ck_assert_int_eq(ploop_dev_suspend(rig->dev), -ENOSPC);
        ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        script_fail(&rig->script, PLOOP_IO_WRITE, 0, 0, 0);
        ploop_dev_retry_parked(rig->dev);
        ck_assert_int_eq(req_wait(&flush), parks ? 0 : -ENOSPC);
        ck_assert_uint_eq(partial(rig), parks ? 0 : 1);
        tower_end(&tower);
    }
}
END_TEST

/* ---- beside others ---- */

START_TEST(writes_go_on_beside_each_other)
{
    struct tower tower;
    struct req writes[4], read;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(1), 512, 9, 0), 0);
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    for (uint32_t i = 0; i < 4; i++) {
        req_write(&writes[i], rig, at(1) + 512 * (2 * i + 1), 512, (uint8_t)(i + 1), 0);
    }
    ck_assert_uint_eq(rig->script.held_count, 4);
    req_read(&read, rig, at(1), CLUSTER);
    ck_assert(req_done(&read));
    ck_assert_uint_eq(((uint8_t *)read.iov.iov_base)[0], 9);
    ck_assert_uint_eq(((uint8_t *)read.iov.iov_base)[512], 0xA1);
    ck_assert_int_eq(req_end(&read), 0);
    struct req flush;
    req_flush(&flush, rig); /* waits for those that hold the lock */
    ck_assert(!req_done(&flush));
    script_release_all(&rig->script);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(req_wait(&writes[i]), 0);
    }
    ck_assert_int_eq(req_wait(&flush), 0);
    ck_assert_uint_eq(partial(rig), 0);
    for (uint32_t i = 0; i < 4; i++) {
        rig_expect(rig, at(1) + 512 * (2 * i + 1), 512, (uint8_t)(i + 1));
    }
    tower_end(&tower);
}
END_TEST

static void release_held(struct script *script, void *argument)
{
    (void)script;
    script_release_all(argument);
}

START_TEST(an_abort_ends_completions)
{
    struct tower tower;
    struct req flush;
    of_two(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
    ck_assert_int_eq(rig_write(rig, at(0), 512, 1, 0), 0);
    tower.lowers[0].hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_flush(&flush, rig);
    ck_assert(!req_done(&flush));
    rig->script.idle = release_held;
    rig->script.idle_argument = &tower.lowers[0];
    ploop_dev_abort(rig->dev);
    rig->dev = NULL;
    ck_assert(req_done(&flush));
    ck_assert_int_ne(flush.result, 0);
    tower_free(&tower);
}
END_TEST

/* A job begins when none is left, and none begins meanwhile. */
START_TEST(a_job_completes_them_first)
{
    for (uint32_t failing = 0; failing < 2; failing++) {
        struct tower tower;
        ploop_job *job;
        of_two(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, failing ? UINT64_MAX : 0, -EIO);
        ck_assert_int_eq(ploop_dev_compact(rig->dev, NULL, NULL, &job), 0);
        ck_assert_int_eq(ploop_job_wait(job), failing ? -EIO : 0);
        ck_assert_int_eq(ploop_job_free(job), 0);
        ck_assert_uint_eq(partial(rig), failing);
        script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 0, 0);
        tower_end(&tower);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_first_write_moves_its_own_bytes,
        writes_that_cover_a_cluster_copy_nothing,
        a_large_cluster_is_completed_piece_by_piece,
        a_read_takes_what_each_delta_has,
        a_read_ends_inside_what_the_top_has,
        the_clock_completes_what_is_left,
        fua_needs_the_whole_cluster,
        zeros_and_discards_of_a_partial_cluster,
        limits_are_kept,
        a_write_that_fails_leaves_the_lower_content,
        an_unreadable_range_fails_the_flush_that_needs_it,
        a_close_that_cannot_complete_leaves_the_mark,
        a_completion_that_cannot_write_takes_another_place,
        a_completion_without_space_follows_the_policy,
        writes_go_on_beside_each_other,
        an_abort_ends_completions,
        a_job_completes_them_first,
    };
    return RUN_TESTS("partial", tests);
}
