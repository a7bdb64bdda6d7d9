/* SPDX-License-Identifier: MIT */
/* Merges of any two neighbours of a live stack, up and down. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "merge_fixture.h"
#include "run_tests.h"

struct way {
    uint32_t level, direction;
};

static const struct way ways[] = {{0, UP}, {1, UP}, {2, UP}, {0, DOWN}, {1, DOWN}, {2, DOWN}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

/* A sample where it is slow: each way, at different steps. */
static uint32_t stride(void)
{
    return is_instrumented() ? 5 : 1;
}

/* ---- what it leaves ---- */

/* The stack reads the same, and so does each snapshot that is left: the stack without its top. */
START_TEST(any_two_neighbours_are_merged)
{
    for (uint32_t i = 0; i < 2 * WAYS; i++) {
        const struct way *way = &ways[i % WAYS];
        struct stacked stacked;
        uint8_t snapshot[MODEL_SECTORS], found[MODEL_SECTORS];
        stacked_open(&stacked, 1 + i / WAYS);
        stacked_read_files(&stacked, 3, snapshot);
        ck_assert_int_eq(stacked_merge(&stacked, way->level, way->direction), 0);
        ck_assert_uint_eq(stacked.commits, 1);
        stacked_expect(&stacked);
        if (way->level < 2) { /* the third was not the upper, or is it still */
            stacked_read_files(&stacked, 2, found);
            ck_assert_mem_eq(found, snapshot, sizeof(found));
        }
        stacked_write(&stacked, 3, 20, 0x77);
        stacked_end(&stacked);
    }
}
END_TEST

/* In every order, until one file is left. */
START_TEST(one_file_is_left_in_the_end)
{
    for (uint32_t order = 0; order < 6 * 8; order += stride()) {
        struct stacked stacked;
        uint32_t first = order % 3, second = order / 3 % 2, bits = order / 6;
        stacked_open(&stacked, 2);
        ck_assert_int_eq(stacked_merge(&stacked, first, bits & 1 ? UP : DOWN), 0);
        stacked_write(&stacked, 9, 5, 0x71);
        ck_assert_int_eq(stacked_merge(&stacked, second, bits & 2 ? UP : DOWN), 0);
        stacked_write(&stacked, 30, 3, 0x72);
        ck_assert_int_eq(stacked_merge(&stacked, 0, bits & 4 ? UP : DOWN), 0);
        stacked_write(&stacked, 35, 2, 0x73);
        ck_assert_uint_eq(stacked.count, 1);
        stacked_end(&stacked);
    }
}
END_TEST

/* A receiver below the top is clean when it is recorded; one that becomes the top has its mark. */
START_TEST(marks_at_the_commit)
{
    for (uint32_t i = 0; i < WAYS; i++) {
        struct stacked stacked;
        stacked_open(&stacked, 2);
        ck_assert_int_eq(stacked_merge(&stacked, ways[i].level, ways[i].direction), 0);
        bool lowers = ways[i].level == 2 && ways[i].direction == DOWN;
        const bool marks[] = {false, false, lowers, !lowers};
        ck_assert_mem_eq(stacked.marked_at_commit, marks, sizeof(marks));
        stacked_end(&stacked);
    }
}
END_TEST

/* ---- beside requests ---- */

enum { STEPS = 20, STRIDE = 2 };

struct beside {
    const struct way *way;
    struct stacked stacked;
    struct req writes[3];
};

/*
 * Begun, with some requests of the merge's completed; then the guest writes. Case `i` says which
 * way and how many: each way has every STRIDE-th number, from another one on than its neighbours.
 */
static void begin_beside(struct beside *beside, uint32_t i, int answer)
{
    const struct way *way = &ways[i % WAYS];
    uint32_t steps = i / WAYS * STRIDE + i % WAYS % STRIDE;
    struct stacked *stacked = &beside->stacked;
    struct rig *rig = &stacked->tower.rig;
    beside->way = way;
    stacked_open(stacked, 2);
    stacked->answer = answer;
    stacked_hold(stacked);
    ck_assert_int_eq(stacked_begin(stacked, way->level, way->direction), 0);
    for (uint32_t n = 0; n < steps; n++) {
        rig_advance(rig, 3 * MS);
        stacked_release_one(stacked);
    }
    req_write(&beside->writes[0], rig, 9 * 512, 512, 0x31, 0);
    req_write(&beside->writes[1], rig, 39 * 512, 3 * 512, 0x32, 0);
    req_write(&beside->writes[2], rig, 56 * 512, 8 * 512, 0x33, 0);
    stacked->model[9] = 0x31;
    memset(stacked->model + 39, 0x32, 3);
    memset(stacked->model + 56, 0x33, 8);
}

/* The merge ends; the writes are there. */
static int finish_beside(struct beside *beside)
{
    struct stacked *stacked = &beside->stacked;
    int result = stacked_finish(stacked, beside->way->level, beside->way->direction);
    for (uint32_t n = 0; n < 3; n++) {
        ck_assert_int_eq(req_wait(&beside->writes[n]), 0);
    }
    stacked_end(stacked);
    return result;
}

START_TEST(at_each_step_the_guest_writes)
{
    struct beside beside;
    for (uint32_t i = 0; i < WAYS * STEPS; i += stride()) {
        begin_beside(&beside, i, 0);
        stacked_go(&beside.stacked);
        ck_assert_int_eq(finish_beside(&beside), 0);
    }
}
END_TEST

START_TEST(at_each_step_it_is_cancelled)
{
    struct beside beside;
    uint32_t cancelled = 0, merged = 0;
    for (uint32_t i = 0; i < WAYS * STEPS; i += stride()) {
        begin_beside(&beside, i, 0);
        int error = ploop_job_cancel(beside.stacked.job);
        ck_assert(error == 0 || error == -EBUSY || error == -EALREADY);
        stacked_go(&beside.stacked);
        int result = finish_beside(&beside);
        ck_assert(result == 0 || result == -ECANCELED);
        cancelled += result != 0;
        merged += result == 0;
    }
    ck_assert_msg(cancelled > 40 / stride() && merged > 4 / stride(), "%u cancelled, %u merged",
                  cancelled, merged);
}
END_TEST

START_TEST(at_each_step_it_pauses)
{
    struct beside beside;
    for (uint32_t i = 0; i < WAYS * STEPS; i += stride()) {
        begin_beside(&beside, i, 0);
        stacked_go(&beside.stacked);
        ck_assert_int_eq(ploop_dev_suspend(beside.stacked.tower.rig.dev), 0);
        ck_assert_int_eq(ploop_dev_resume(beside.stacked.tower.rig.dev), 0);
        ck_assert_int_eq(finish_beside(&beside), 0);
    }
}
END_TEST

START_TEST(a_refusal_leaves_the_stack)
{
    struct beside beside;
    for (uint32_t i = 0; i < WAYS * STEPS; i += stride()) {
        begin_beside(&beside, i, -EPERM);
        stacked_go(&beside.stacked);
        ck_assert_int_eq(finish_beside(&beside), -EPERM);
    }
}
END_TEST

/* Closed in the middle: the stack that may be recorded reads as the guest has written it. */
START_TEST(at_each_step_it_is_closed)
{
    struct beside beside;
    uint8_t found[MODEL_SECTORS];
    for (uint32_t i = 0; i < WAYS * STEPS; i += stride()) {
        begin_beside(&beside, i, 0);
        struct stacked *stacked = &beside.stacked;
        stacked_go(stacked);
        rig_close_dev(&stacked->tower.rig);
        ck_assert_uint_eq(stacked->ends, 1);
        ck_assert(stacked->result == 0 || stacked->result == -ECANCELED);
        ck_assert_int_eq(ploop_job_free(stacked->job), 0);
        if (!stacked->result) {
            stacked_forget(stacked, beside.way->level, beside.way->direction);
        }
        stacked_read_files(stacked, stacked->count, found);
        ck_assert_mem_eq(found, stacked->model, sizeof(found));
        for (uint32_t n = 0; n < 3; n++) {
            ck_assert_uint_eq(beside.writes[n].calls, 1);
            ck_assert_int_eq(beside.writes[n].result, 0);
            free(beside.writes[n].iov.iov_base);
        }
        stacked_free(stacked);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        any_two_neighbours_are_merged, one_file_is_left_in_the_end,  marks_at_the_commit,
        at_each_step_the_guest_writes, at_each_step_it_is_cancelled, at_each_step_it_pauses,
        a_refusal_leaves_the_stack,    at_each_step_it_is_closed,
    };
    return RUN_TESTS("merge_ways", tests);
}
