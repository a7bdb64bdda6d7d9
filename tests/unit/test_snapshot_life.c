/* SPDX-License-Identifier: MIT */
/* A snapshot at whose every step something else happens, and requests that meet it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "snapshot_fixture.h"

enum { CLUSTER = SHOT_CLUSTER, STEPS_MAX = 60 };

/* Completes the oldest request that is held. False: there is none. */
static bool release_one(struct shot *shot)
{
    struct script *scripts[] = {shot->next, &shot->rig.script};
    for (uint32_t i = 0; i < 2; i++) {
        if (scripts[i]->held_count) {
            script_release(scripts[i], 0);
            return true;
        }
    }
    return false;
}

/* Begun, with `steps` requests of its completed, and the clock moved on. */
static void shot_at(struct shot *shot, uint32_t steps)
{
    shot_open(shot);
    shot->rig.script.hold = SCRIPT_ALL;
    shot->next->hold = SCRIPT_ALL & ~SCRIPT_BIT(PLOOP_IO_READ); /* the call waits for one */
    ck_assert_int_eq(shot_begin(shot), 0);
    while (steps-- > 0) {
        rig_advance(&shot->rig, 3 * MS);
        release_one(shot);
    }
}

static void let_go(struct shot *shot)
{
    script_release_all(&shot->rig.script);
    script_release_all(shot->next);
}

START_TEST(a_job_may_be_cancelled_until_the_commit)
{
    uint32_t cancelled = 0;
    for (uint32_t steps = 0; steps < STEPS_MAX; steps++) {
        struct shot shot;
        shot_at(&shot, steps);
        struct ploop_job_info info = {.size = sizeof(info)};
        ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
        int error = ploop_job_cancel(shot.job);
        ck_assert(error == 0 || error == -EBUSY ||
                  (error == -EALREADY && info.state == PLOOP_JOB_ENDED));
        let_go(&shot);
        int result = shot_wait(&shot);
        ck_assert(result == 0 || (result == -ECANCELED && error == 0));
        cancelled += result != 0;
        if (result) {
            ck_assert_uint_eq(shot.commits, 0);
            ck_assert(script_marked(&shot.rig.script) && !script_marked(shot.next));
            ck_assert_int_eq(shot_take(&shot), 0); /* the file serves the next time */
        }
        shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
    }
    ck_assert_uint_gt(cancelled, 10);
}
END_TEST

static void release_idle(struct script *script, void *argument)
{
    (void)script;
    release_one(argument);
}

/* A close ends the job; the handle stays. An abort does, too, and writes nothing more. */
START_TEST(a_close_or_an_abort_ends_a_job)
{
    for (uint32_t i = 0; i < 3 * STEPS_MAX; i++) {
        struct shot shot;
        bool aborts = i % 3 == 2;
        shot_at(&shot, i / 3);
        shot.answer = i % 3 ? SHOT_LATER : 0;
        shot.rig.script.idle = shot.next->idle = release_idle;
        shot.rig.script.idle_argument = shot.next->idle_argument = &shot;
        if (aborts) {
            let_go(&shot);
            ploop_dev_abort(shot.rig.dev);
        } else {
            ck_assert_int_eq(ploop_dev_close(shot.rig.dev), 0);
            ck_assert(!script_marked(&shot.rig.script) && !script_marked(shot.next));
        }
        shot.rig.dev = NULL;
        ck_assert_uint_eq(shot.ends, 1);
        ck_assert(shot.result == 0 || shot.result == -ECANCELED);
        struct ploop_job_info info = {.size = sizeof(info)};
        ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
        ck_assert_uint_eq(info.state, PLOOP_JOB_ENDED);
        ck_assert_int_eq(info.result, shot.result);
        ck_assert_int_eq(ploop_job_wait(shot.job), shot.result);
        ck_assert_int_eq(ploop_job_cancel(shot.job), -EALREADY);
        ck_assert_int_eq(ploop_job_free(shot.job), 0);
        ck_assert_int_ne(oracle_status(shot.rig.script.bytes, shot.rig.script.file_size),
                         aborts ? 1 : 2);
        rig_free(&shot.rig);
        script_close(shot.next);
    }
}
END_TEST

/* A suspended device changes nothing, but a job at its commit may be answered. */
START_TEST(a_suspend_pauses_a_job)
{
    uint32_t paused = 0;
    for (uint32_t steps = 0; steps < STEPS_MAX; steps++) {
        struct shot shot;
        struct rig *rig = &shot.rig;
        shot_at(&shot, steps);
        shot.answer = SHOT_LATER;
        shot.rig.script.idle = shot.next->idle = release_idle;
        shot.rig.script.idle_argument = shot.next->idle_argument = &shot;
        ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
        struct ploop_job_info info = {.size = sizeof(info)};
        ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
        ck_assert(info.state != PLOOP_JOB_RUNNING);
        let_go(&shot);
        script_forget(&rig->script);
        script_forget(shot.next);
        for (int i = 0; i < 5; i++) {
            rig_advance(rig, 3 * MS);
            ploop_queue_run(rig->queue);
        }
        paused += info.state == PLOOP_JOB_PAUSED;
        ck_assert_uint_eq(rig->script.submitted[SCRIPT_META] + shot.next->submitted[SCRIPT_META],
                          0);
        if (info.state == PLOOP_JOB_COMMIT) {
            ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
            ck_assert_int_eq(shot_wait(&shot), 0);
        }
        struct req write;
        req_write(&write, rig, 0, CLUSTER, 0x20, 0);
        ck_assert(!req_done(&write));
        ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        if (info.state == PLOOP_JOB_PAUSED) {
            ck_assert_int_eq(ploop_job_wait(shot.job), -EAGAIN);
            ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
        }
        if (shot.job) {
            ck_assert_int_eq(shot_wait(&shot), 0);
        }
        ck_assert_int_eq(req_wait(&write), 0);
        shot_end(&shot, 2, (const uint8_t[]){0x20, 0x11, 0x12, 0x13}, 4);
    }
    ck_assert_uint_gt(paused, 2);
}
END_TEST

/* To undo what a paused job has done is to write. */
START_TEST(a_paused_job_that_is_cancelled_ends_after_the_resume)
{
    uint32_t cancelled = 0;
    for (uint32_t steps = 0; steps < STEPS_MAX; steps++) {
        struct shot shot;
        struct rig *rig = &shot.rig;
        struct ploop_job_info info = {.size = sizeof(info)};
        shot_at(&shot, steps);
        shot.rig.script.idle = shot.next->idle = release_idle;
        shot.rig.script.idle_argument = shot.next->idle_argument = &shot;
        ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
        let_go(&shot);
        script_forget(&rig->script);
        script_forget(shot.next);
        bool is_paused = shot.job && !ploop_job_info(shot.job, &info) &&
                         info.state == PLOOP_JOB_PAUSED && ploop_job_cancel(shot.job) == 0;
        for (int i = 0; i < 5; i++) {
            rig_advance(rig, 3 * MS);
            ploop_queue_run(rig->queue);
        }
        ck_assert_uint_eq(rig->script.log_count + shot.next->log_count, 0);
        ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        if (shot.job) {
            ck_assert_int_eq(shot_wait(&shot), is_paused ? -ECANCELED : 0);
        }
        if (is_paused) {
            ck_assert_int_eq(shot_take(&shot), 0);
        }
        cancelled += is_paused;
        shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
    }
    ck_assert_uint_gt(cancelled, 2);
}
END_TEST

START_TEST(a_refusal_of_a_suspended_device_is_undone_after_the_resume)
{
    struct shot shot;
    struct rig *rig = &shot.rig;
    struct ploop_job_info info = {.size = sizeof(info)};
    shot_open(&shot);
    shot.answer = SHOT_LATER;
    ck_assert_int_eq(shot_begin(&shot), 0);
    ck_assert_int_eq(ploop_job_wait(shot.job), -EAGAIN);
    ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
    script_forget(&rig->script);
    script_forget(shot.next);
    ck_assert_int_eq(ploop_job_committed(shot.job, -EPERM), 0);
    for (int i = 0; i < 5; i++) {
        rig_advance(rig, 3 * MS);
        ploop_queue_run(rig->queue);
    }
    ck_assert_uint_eq(rig->script.log_count + shot.next->log_count, 0);
    ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
    ck_assert_uint_eq(info.state, PLOOP_JOB_COMMIT);
    ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
    ck_assert_int_eq(shot_wait(&shot), -EPERM);
    shot_end(&shot, 1, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
}
END_TEST

/*
 * What the guest waits for: a SYNC, with the pages that were changed since the first flush (here
 * one, or none); the tail cut off, and a SYNC; the old top's mark cleared, and a SYNC. `changes`
 * writes are done during the first flush.
 */
static uint32_t requests_while_held(uint32_t changes)
{
    struct shot shot;
    struct rig *rig = &shot.rig;
    struct ploop_job_info info = {.size = sizeof(info)};
    uint32_t held = 0;
    shot_at(&shot, 0);
    shot.answer = SHOT_LATER;
    for (int i = 0; info.state != PLOOP_JOB_COMMIT; i++) {
        ck_assert_msg(i < 1000, "no commit");
        rig_advance(rig, 3 * MS);
        ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
        for (; info.step == PLOOP_JOB_STEP_FLUSH && changes > 0; changes--) {
            rig->script.hold &= ~SCRIPT_BIT(PLOOP_IO_WRITE);
            ck_assert_int_eq(rig_write(rig, (10 + changes) * CLUSTER, CLUSTER, 0x44, 0), 0);
            rig->script.hold |= SCRIPT_BIT(PLOOP_IO_WRITE);
        }
        held += release_one(&shot) && info.step == PLOOP_JOB_STEP_HOLD;
    }
    let_go(&shot);
    ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
    ck_assert_int_eq(shot_wait(&shot), 0);
    shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
    return held;
}

START_TEST(the_guest_waits_for_a_small_flush)
{
    uint32_t idle = requests_while_held(0), busy = requests_while_held(8);
    ck_assert_msg(idle <= 5, "%u requests where nothing was changed", idle);
    ck_assert_msg(busy > idle && busy <= idle + 2, "%u after changes, %u without", busy, idle);
}
END_TEST

/* H1: of a request of many parts, those that are left go to the new top. */
START_TEST(a_request_of_many_parts_goes_on_on_the_new_top)
{
    struct shot shot;
    struct req discard;
    enum { MANY = 4000 };
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    ck_assert_int_eq(rig_write(rig, 0, (uint64_t)MANY * CLUSTER, 0x44, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    req_discard(&discard, rig, 0, (uint64_t)MANY * CLUSTER);
    shot.answer = SHOT_LATER;
    ck_assert_int_eq(shot_begin(&shot), 0);
    ck_assert_int_eq(ploop_job_wait(shot.job), -EAGAIN);
    ck_assert_msg(!req_done(&discard), "no share of the turn was left over: make MANY larger");
    ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
    ck_assert_int_eq(shot_wait(&shot), 0);
    ck_assert_int_eq(req_wait(&discard), 0);
    uint32_t kept = 0; /* what the old top still had when it became a lower delta stays */
    for (uint32_t n = 0; n < MANY; n += 50) {
        char byte;
        ck_assert_int_eq(ploop_dev_pread(rig->dev, &byte, 1, 0), -EINVAL);
        char sector[512];
        ck_assert_int_eq(ploop_dev_pread(rig->dev, sector, 512, (uint64_t)n * CLUSTER), 512);
        ck_assert(sector[0] == 0 || sector[0] == 0x44);
        kept += sector[0] != 0;
    }
    ck_assert(kept > 0 && kept < MANY / 50);
    rig_close_dev(rig);
    rig_free(rig);
    script_close(shot.next);
}
END_TEST

/* S6: what waits for space holds nothing of the old top, and begins anew on the new one. */
START_TEST(a_parked_request_begins_anew_on_the_new_top)
{
    struct shot shot;
    struct req write, flush;
    memset(&shot, 0, sizeof(shot));
    struct rig *rig = &shot.rig;
    rig_full(rig, PLOOP_ENOSPC_PARK);
    shot.next = shot.tops;
    shot_new_top(shot.next, rig->disk_size);
    req_write(&write, rig, 20 * CLUSTER, 512, 0x25, PLOOP_PIO_FUA);
    ploop_queue_run(rig->queue);
    ck_assert(!req_done(&write));
    ck_assert_uint_eq(rig_info(rig).requests_parked, 1);
    uint64_t writes = rig->script.submitted[PLOOP_IO_WRITE];
    ck_assert_int_eq(shot_take(&shot), 0);
    req_flush(&flush, rig);
    ck_assert_int_eq(req_wait(&flush), 0);
    rig_advance(rig, SECOND);
    ck_assert_int_eq(req_wait(&write), 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], writes);
    rig_expect(rig, 20 * CLUSTER, 512, 0x25);
    rig_expect(rig, 20 * CLUSTER + 512, CLUSTER - 512, 0);
    rig_close_dev(rig);
    ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
    ck_assert_int_eq(oracle_status(shot.next->bytes, shot.next->file_size), 0);
    rig_free(rig);
    script_close(shot.next);
}
END_TEST

/* With files: the old top's is locked for reading only, and another program may read it. */
START_TEST(the_old_tops_file_is_opened_again_for_reading)
{
    char directory[] = "/tmp/snapshot-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
    struct ploop_image_options image = {
        .size = sizeof(image), .disk_size = 1 << 20, .cluster_size = CLUSTER};
    ploop_file *files[2], *reader;
    static const char *const names[] = {"old", "new"};
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(
            ploop_file_open_posix(names[i], PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &files[i]),
            0);
        ck_assert_int_eq(ploop_image_create(files[i], &image), 0);
    }
    ploop_dev *dev;
    ploop_job *job;
    char bytes[CLUSTER];
    memset(bytes, 'x', sizeof(bytes));
    ck_assert_int_eq(ploop_dev_open(files, 1, NULL, &dev), 0);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, CLUSTER, 0), CLUSTER);
    ck_assert_int_eq(ploop_file_open_posix("old", PLOOP_FILE_READ_ONLY, &reader), -EAGAIN);
    ck_assert_int_eq(ploop_dev_snapshot(dev, files[1], NULL, NULL, NULL, &job), 0);
    ck_assert_int_eq(ploop_job_wait(job), -EAGAIN);
    ck_assert_int_eq(ploop_job_committed(job, 0), 0);
    ck_assert_int_eq(ploop_job_wait(job), 0);
    ck_assert_int_eq(ploop_job_free(job), 0);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, CLUSTER), 512);
    ck_assert_int_eq(ploop_file_open_posix("old", PLOOP_FILE_READ_ONLY, &reader), 0);
    ploop_file_close(reader);
    ck_assert_int_eq(ploop_file_open_posix("new", PLOOP_FILE_READ_ONLY, &reader), -EAGAIN);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(files[1]);
    ploop_file_close(files[0]);
    unlink("old");
    unlink("new");
    ck_assert_int_eq(chdir("/"), 0);
    rmdir(directory);
}
END_TEST

/* The thread that ends the last change wakes the job: no clock is waited for. */
START_TEST(the_last_change_wakes_the_job)
{
    struct shot shot;
    struct req write;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    ck_assert_int_eq(rig_flush(rig), 0);
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&write, rig, 0, 512, 0x77, 0);
    ck_assert_uint_eq(rig_info(rig).requests_fast, 1);
    ck_assert_int_eq(shot_begin(&shot), 0);
    struct ploop_job_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
    ck_assert_uint_eq(info.step, PLOOP_JOB_STEP_HOLD);
    ck_assert_uint_gt(ploop_dev_next_deadline(rig->dev), rig->clock.now_ns + SECOND);
    rig->script.hold = 0;
    script_release(&rig->script, 0);
    ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
    ck_assert_uint_eq(info.state, PLOOP_JOB_COMMIT);
    ck_assert_int_eq(shot_wait(&shot), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    rig_expect(rig, 0, 512, 0x77);
    static const uint8_t bytes[] = {0x11, 0x12, 0x13};
    for (uint32_t n = 1; n < 4; n++) {
        rig_expect(rig, n * SHOT_CLUSTER, SHOT_CLUSTER, bytes[n - 1]);
    }
    rig_close_dev(rig);
    rig_free(rig);
    script_close(shot.next);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_job_may_be_cancelled_until_the_commit,
        a_close_or_an_abort_ends_a_job,
        a_suspend_pauses_a_job,
        a_paused_job_that_is_cancelled_ends_after_the_resume,
        a_refusal_of_a_suspended_device_is_undone_after_the_resume,
        the_guest_waits_for_a_small_flush,
        a_request_of_many_parts_goes_on_on_the_new_top,
        a_parked_request_begins_anew_on_the_new_top,
        the_old_tops_file_is_opened_again_for_reading,
        the_last_change_wakes_the_job,
    };
    return RUN_TESTS("snapshot_life", tests);
}
