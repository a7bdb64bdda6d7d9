/* SPDX-License-Identifier: MIT */
/*
 * The gate has several reasons to be closed, each with an owner. A held request begins again only
 * when the last reason that holds it is gone, in whichever order they go.
 */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "engine/state.h"
#include "pio/queue.h"

enum { CLUSTER = 4096, MANY = 1000 };

static void job_begins(ploop_dev *dev)
{
    gate_change(dev, 0, GATE_JOB);
}

static void job_ends(ploop_dev *dev)
{
    gate_change(dev, GATE_JOB, 0);
}

static void ready(struct rig *rig)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, 0, 2 * CLUSTER, 0xA0, 0), 0);
}

/* One on the fast path and one through the engine. */
static void hold_two(struct rig *rig, struct req held[2])
{
    req_write(&held[0], rig, 0, CLUSTER, 1, 0);
    req_write(&held[1], rig, 5 * CLUSTER, CLUSTER, 2, 0);
    rig_advance(rig, SECOND);
    ck_assert(!req_done(&held[0]) && !req_done(&held[1]));
}

static void go_on(struct rig *rig, struct req held[2])
{
    ck_assert_int_eq(req_wait(&held[0]), 0);
    ck_assert_int_eq(req_wait(&held[1]), 0);
    rig_expect(rig, 0, CLUSTER, 1);
    rig_expect(rig, 5 * CLUSTER, CLUSTER, 2);
    rig_end(rig);
}

START_TEST(a_resume_leaves_a_gate_closed_that_a_job_has_closed)
{
    struct rig rig;
    struct req held[2];
    ready(&rig);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    block_control(rig.dev, job_begins);
    hold_two(&rig, held);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_advance(&rig, SECOND);
    ck_assert_uint_eq(rig_info(&rig).state, 0);
    ck_assert(!req_done(&held[0]) && !req_done(&held[1]));
    block_control(rig.dev, job_ends);
    go_on(&rig, held);
}
END_TEST

START_TEST(the_end_of_a_job_resumes_nothing)
{
    struct rig rig;
    struct req held[2];
    ready(&rig);
    block_control(rig.dev, job_begins);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    hold_two(&rig, held);
    block_control(rig.dev, job_ends);
    rig_advance(&rig, SECOND);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SUSPENDED);
    ck_assert(!req_done(&held[0]) && !req_done(&held[1]));
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    go_on(&rig, held);
}
END_TEST

/* A close ends the held requests, so that they do not write past the job. */
START_TEST(a_close_begins_nothing_that_a_job_holds)
{
    struct rig rig;
    struct req held[2];
    ready(&rig);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    block_control(rig.dev, job_begins);
    hold_two(&rig, held);
    ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
    rig.dev = NULL;
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(held[i].calls, 1);
        ck_assert_int_eq(held[i].result, -ECANCELED);
        free(held[i].iov.iov_base);
    }
    ck_assert_uint_eq(rig_file_entry(&rig, 5), 0);
    rig_free(&rig);
}
END_TEST

/*
 * A request of many parts that has begun stops between them, and continues or ends with the other
 * requests.
 */
START_TEST(a_request_that_stopped_half_way_goes_on_or_ends)
{
    for (int ends = 0; ends < 2; ends++) {
        struct rig rig;
        struct req discard;
        ready(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, MANY * CLUSTER, 0xA0, 0), 0);
        req_discard(&discard, &rig, 0, MANY * CLUSTER);
        block_control(rig.dev, job_begins);
        rig_advance(&rig, SECOND);
        ck_assert(!req_done(&discard));
        if (ends) {
            ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
            rig.dev = NULL;
            ck_assert_uint_eq(discard.calls, 1);
            ck_assert_int_eq(discard.result, -ECANCELED);
            rig_free(&rig);
        } else {
            block_control(rig.dev, job_ends);
            ck_assert_int_eq(req_wait(&discard), 0);
            rig_expect(&rig, 0, MANY * CLUSTER, 0);
            rig_close_dev(&rig);
            rig_free(&rig);
        }
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_resume_leaves_a_gate_closed_that_a_job_has_closed, the_end_of_a_job_resumes_nothing,
        a_close_begins_nothing_that_a_job_holds, a_request_that_stopped_half_way_goes_on_or_ends};
    return RUN_TESTS("gate", tests);
}
