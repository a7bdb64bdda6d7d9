/* SPDX-License-Identifier: MIT */
/* Snapshots that do not come about: what they leave, and whom they must not keep waiting. */
#include <errno.h>
#include <string.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "snapshot_fixture.h"

enum { CLUSTER = SHOT_CLUSTER };

/* Begun, with a page of the map dirty that the first flush did not meet: it waits for its SYNC. */
static void begin_with_a_late_page(struct shot *shot)
{
    struct rig *rig = &shot->rig;
    ck_assert_int_eq(rig_flush(rig), 0);
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    shot->ends = 0;
    ck_assert_int_eq(shot_begin(shot), 0);
    ck_assert_uint_eq(script_held_of(&rig->script, PLOOP_IO_SYNC), 1);
    ck_assert_int_eq(rig_write(rig, 5000 * CLUSTER, CLUSTER, 0x50, 0), 0);
}

/* A page that cannot be written in the second flush: the mark was not touched, and all goes on. */
START_TEST(a_page_that_fails_under_the_gate_costs_the_snapshot_only)
{
    static const int errors[] = {-EIO, -ENOSPC};
    for (int i = 0; i < 2; i++) {
        struct shot shot;
        shot_open(&shot);
        struct rig *rig = &shot.rig;
        begin_with_a_late_page(&shot);
        script_fail(&rig->script, SCRIPT_META, 0, 4, errors[i]);
        script_release_all(&rig->script);
        ck_assert_int_eq(shot_wait(&shot), errors[i]);
        ck_assert_uint_eq(shot.commits, 0);
        ck_assert(script_marked(&rig->script) && !script_marked(shot.next));
        script_fail(&rig->script, SCRIPT_META, 0, 0, 0);
        ck_assert(script_marked(&rig->script) && !script_marked(shot.next));
        ck_assert_int_eq(rig_write(rig, 0, CLUSTER, 0x20, 0), 0);
        ck_assert_int_eq(rig_write(rig, 9 * CLUSTER, 512, 0x29, 0), 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_int_eq(shot_take(&shot), 0);
        rig_expect(rig, 0, CLUSTER, 0x20);
        rig_expect(rig, 5000 * CLUSTER, CLUSTER, 0x50);
        rig_close_dev(rig);
        rig_free(rig);
        script_close(shot.next);
    }
}
END_TEST

/* ---- close ---- */

/* Closes the device, and the files are clean. */
static void close_in_the_middle(struct shot *shot)
{
    struct rig *rig = &shot->rig;
    ck_assert_int_eq(ploop_dev_close(rig->dev), 0);
    rig->dev = NULL;
    ck_assert(!script_marked(&rig->script) && !script_marked(shot->next));
    rig_free(rig);
    script_close(shot->next);
}

/* Nobody is asked to record what has been undone. */
START_TEST(a_job_that_a_close_has_ended_asks_for_no_record)
{
    struct shot shot;
    shot_open(&shot);
    ck_assert_int_eq(shot_begin(&shot), 0);
    struct ploop_job_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
    ck_assert_uint_eq(info.state, PLOOP_JOB_COMMIT);
    ck_assert_uint_eq(shot.commits, 0);
    close_in_the_middle(&shot);
    ck_assert_uint_eq(shot.commits, 0);
    ck_assert_uint_eq(shot.ends, 1);
    ck_assert_int_eq(shot.result, -ECANCELED);
    ck_assert_int_eq(ploop_job_free(shot.job), 0);
}
END_TEST

static void begin_another(ploop_pio *pio, int result, void *user_data)
{
    struct shot *shot = user_data;
    ck_assert_int_eq(result, 0);
    ploop_pio_put(pio);
    shot->result =
        ploop_dev_snapshot(shot->rig.dev, shot->next->file, NULL, NULL, NULL, &shot->job);
}

/* A callback that a close delivers begins no job: nobody would end it. */
START_TEST(no_job_begins_once_a_close_has_begun)
{
    struct shot shot;
    shot_open(&shot);
    ploop_pio *pio = ploop_pio_get(shot.rig.queue);
    ploop_pio_prep_flush(pio);
    ploop_pio_set_callback(pio, begin_another, &shot);
    ck_assert_int_eq(ploop_queue_submit(shot.rig.queue, &pio, 1), 1);
    close_in_the_middle(&shot);
    ck_assert_int_eq(shot.result, -ECANCELED);
    ck_assert_ptr_null(shot.job);
}
END_TEST

/* ---- the answer ---- */

/* A refusal may have any error: the outcome is unknown only where that is said. */
START_TEST(no_error_of_a_refusal_means_unknown)
{
    struct shot shot;
    shot_open(&shot);
    shot.answer = -EINPROGRESS;
    ck_assert_int_eq(shot_take(&shot), -EINPROGRESS);
    shot.answer = 0;
    ck_assert_int_eq(shot_take(&shot), 0);
    shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
}
END_TEST

/* ---- who waits for space ---- */

static void let_sync(struct script *script, void *argument)
{
    (void)argument;
    script_release_all(script);
}

/*
 * The thread that is to answer may wait in a call for space, which is not tried again under the
 * gate. A snapshot is begun, the call parks, and the job comes to its commit.
 */
START_TEST(a_call_that_waits_for_space_does_not_keep_the_answer)
{
    static uint8_t bytes[CLUSTER] = {1};
    struct shot shot;
    struct req parked;
    memset(&shot, 0, sizeof(shot));
    struct rig *rig = &shot.rig;
    rig_full(rig, PLOOP_ENOSPC_PARK);
    shot.next = shot.tops;
    shot_new_top(shot.next, 1 << 20);
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    ck_assert_int_eq(shot_begin(&shot), 0);
    rig->script.idle = let_sync;
    req_write(&parked, rig, 21 * CLUSTER, CLUSTER, 0x21, 0);
    ck_assert_int_eq(ploop_dev_pwrite(rig->dev, bytes, CLUSTER, 20 * CLUSTER), -EAGAIN);
    ck_assert(!req_done(&parked));
    ck_assert_int_eq(shot_wait(&shot), 0);
    rig_advance(rig, SECOND);
    ck_assert_int_eq(req_wait(&parked), 0); /* the new file has space */
    rig_expect(rig, 21 * CLUSTER, CLUSTER, 0x21);
    rig_close_dev(rig);
    rig_free(rig);
    script_close(shot.next);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_page_that_fails_under_the_gate_costs_the_snapshot_only,
        a_job_that_a_close_has_ended_asks_for_no_record,
        no_job_begins_once_a_close_has_begun,
        no_error_of_a_refusal_means_unknown,
        a_call_that_waits_for_space_does_not_keep_the_answer,
    };
    return RUN_TESTS("snapshot_ends", tests);
}
