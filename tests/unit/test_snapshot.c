/* SPDX-License-Identifier: MIT */
/* Snapshots of a live disk: what they leave, what they refuse, and what fails in them. */
#include <errno.h>
#include <string.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "snapshot_fixture.h"

enum { CLUSTER = SHOT_CLUSTER };

/* ---- what it leaves ---- */

START_TEST(another_file_is_written_from_now_on)
{
    struct shot shot;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    ck_assert_int_eq(shot_take(&shot), 0);
    ck_assert_uint_eq(shot.commits, 1);
    ck_assert(!shot.marked_at_commit && shot.next_marked_at_commit);
    struct ploop_dev_info info = rig_info(rig);
    ck_assert_uint_eq(info.delta_count, 2);
    ck_assert_uint_eq(info.clusters_mapped, 0);
    ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_write(rig, 0, CLUSTER, 0x20, 0), 0);
    ck_assert_int_eq(rig_write(rig, CLUSTER + 512, 512, 0x21, 0), 0);
    ck_assert_int_eq(rig_write(rig, 9 * CLUSTER, CLUSTER, 0x29, 0), 0);
    ck_assert_int_eq(rig_discard(rig, 2 * CLUSTER, CLUSTER), 0);
    ck_assert_int_eq(rig_zeroes(rig, 3 * CLUSTER, CLUSTER, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE] + rig->script.submitted[SCRIPT_META] +
                          rig->script.submitted[PLOOP_IO_PUNCH] +
                          rig->script.submitted[PLOOP_IO_TRUNCATE],
                      0);
    rig_expect(rig, CLUSTER, 512, 0x11);
    rig_expect(rig, CLUSTER + 512, 512, 0x21);
    ck_assert_int_eq(rig_write(rig, CLUSTER, CLUSTER, 0x21, 0), 0);
    static const uint8_t bytes[] = {0x20, 0x21, 0x12, 0, 0, 0, 0, 0, 0, 0x29};
    shot_end(&shot, 2, bytes, 10);
}
END_TEST

/* A removal is durable, and what it freed at the end is cut off, when the mark is cleared. */
START_TEST(the_old_top_is_as_a_close_leaves_it)
{
    struct shot shot;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    ck_assert_int_eq(rig_discard(rig, 3 * CLUSTER, CLUSTER), 0);
    ck_assert_int_eq(shot_take(&shot), 0);
    ck_assert_uint_eq(rig->script.file_size, rig->data_start + 3 * CLUSTER);
    ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
    shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0}, 4);
}
END_TEST

/* Each finds the words of those before it. */
START_TEST(snapshots_follow_each_other)
{
    struct shot shot;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    for (uint32_t i = 0; i < 3; i++) {
        shot.next = &shot.tops[i];
        if (i > 0) {
            shot_new_top(shot.next, 0);
        }
        ck_assert_int_eq(shot_take(&shot), 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, 2 + i);
        ck_assert_int_eq(rig_write(rig, i * CLUSTER, 512, (uint8_t)(0x30 + i), 0), 0);
        ck_assert_int_eq(rig_write(rig, 9 * CLUSTER, CLUSTER, (uint8_t)(0x90 + i), 0), 0);
        for (uint32_t n = 0; n < 4; n++) {
            rig_expect(rig, n * CLUSTER, 512, (uint8_t)((n <= i ? 0x30 : 0x10) + n));
            rig_expect(rig, n * CLUSTER + 512, CLUSTER - 512, (uint8_t)(0x10 + n));
        }
        rig_expect(rig, 9 * CLUSTER, CLUSTER, (uint8_t)(0x90 + i));
    }
    rig_close_dev(rig);
    ck_assert_int_eq(oracle_status(shot.next->bytes, shot.next->file_size), 0);
    rig_free(rig);
    for (uint32_t i = 0; i < 3; i++) {
        script_close(&shot.tops[i]);
    }
}
END_TEST

/* ---- the commit ---- */

START_TEST(changes_wait_for_the_commit_and_reads_do_not)
{
    struct shot shot;
    struct req write, discard;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    shot.answer = SHOT_LATER;
    ck_assert_int_eq(shot_begin(&shot), 0);
    ck_assert_int_eq(ploop_job_wait(shot.job), -EAGAIN);
    ck_assert_uint_eq(shot.commits, 1);
    struct ploop_job_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_job_info(shot.job, &info), 0);
    ck_assert_uint_eq(info.state, PLOOP_JOB_COMMIT);
    ck_assert_uint_eq(info.kind, PLOOP_JOB_SNAPSHOT);
    ck_assert_int_eq(ploop_job_cancel(shot.job), -EBUSY);
    ck_assert_int_eq(ploop_job_free(shot.job), -EBUSY);
    ploop_job *second;
    ck_assert_int_eq(ploop_dev_snapshot(rig->dev, shot.next->file, NULL, NULL, NULL, &second),
                     -EBUSY);
    req_write(&write, rig, 0, CLUSTER, 0x20, 0);
    req_discard(&discard, rig, CLUSTER, CLUSTER);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_int_eq(ploop_dev_flush(rig->dev), 0);
    ck_assert_uint_eq(script_held_of(&rig->script, PLOOP_IO_SYNC), 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_SYNC], 0);
    rig_expect(rig, 0, CLUSTER, 0x10);
    char byte[512] = {0};
    ck_assert_int_eq(ploop_dev_pread(rig->dev, byte, 512, CLUSTER), 512);
    ck_assert_int_eq(byte[0], 0x11);
    ck_assert_int_eq(ploop_dev_pwrite(rig->dev, byte, 512, 0), -EAGAIN);
    ck_assert(!req_done(&write) && !req_done(&discard));
    ck_assert(!script_marked(&rig->script));
    ck_assert_int_eq(ploop_job_committed(shot.job, 2), -EINVAL);
    ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
    ck_assert_int_eq(ploop_job_committed(shot.job, 0), -EINVAL);
    ck_assert_int_eq(shot_wait(&shot), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    ck_assert_int_eq(req_wait(&discard), 0);
    shot_end(&shot, 2, (const uint8_t[]){0x20, 0x11, 0x12, 0x13}, 4);
}
END_TEST

/* Refused, or unknown: the old top goes on, marked, with its space as it is durably. */
START_TEST(the_old_top_goes_on_where_the_record_is_refused)
{
    for (int i = 0; i < 3; i++) {
        struct shot shot;
        shot_open(&shot);
        struct rig *rig = &shot.rig;
        if (i == 2) {
            ck_assert_int_eq(rig_discard(rig, 3 * CLUSTER, CLUSTER), 0);
        }
        shot.answer = i == 0 ? -EDOM : i == 1 ? PLOOP_COMMIT_UNKNOWN : -EPERM;
        shot.ends = 0;
        ck_assert_int_eq(shot_begin(&shot), 0);
        if (i == 1) {
            ck_assert_int_eq(ploop_job_wait(shot.job), -EINPROGRESS);
            ploop_job *second;
            ck_assert_int_eq(
                ploop_dev_snapshot(rig->dev, shot.next->file, NULL, NULL, NULL, &second), -EBUSY);
            ck_assert_int_eq(ploop_job_free(shot.job), -EBUSY);
            ck_assert_int_eq(ploop_job_committed(shot.job, 0), 0);
        }
        ck_assert_int_eq(shot_wait(&shot), i == 0 ? -EDOM : i == 1 ? -EINPROGRESS : -EPERM);
        ck_assert(!shot.marked_at_commit);
        ck_assert(script_marked(&rig->script) && !script_marked(shot.next));
        ck_assert_uint_eq(rig_info(rig).delta_count, 1);
        /* What a write leaves out of a new cluster is zeros, not the bytes that were cut off. */
        ck_assert_int_eq(rig_write(rig, 7 * CLUSTER, 512, 0x27, 0), 0);
        rig_expect(rig, 7 * CLUSTER + 512, CLUSTER - 512, 0);
        ck_assert_int_eq(rig_write(rig, 7 * CLUSTER, CLUSTER, 0x27, 0), 0);
        ck_assert_int_eq(rig_write(rig, 0, CLUSTER, 0x20, 0), 0);
        shot.answer = 0;
        ck_assert_int_eq(shot_take(&shot), 0); /* the same file serves the next time */
        shot_end(&shot, 2, (const uint8_t[]){0x20, 0x11, 0x12, i == 2 ? 0 : 0x13, 0, 0, 0, 0x27},
                 8);
    }
}
END_TEST

/* Where the mark cannot be set again nothing is changed any more. */
START_TEST(without_its_mark_the_old_top_is_only_read)
{
    struct shot shot;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    shot.answer = SHOT_LATER;
    ck_assert_int_eq(shot_begin(&shot), 0);
    ck_assert_int_eq(ploop_job_wait(shot.job), -EAGAIN);
    script_fail(&rig->script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(ploop_job_committed(shot.job, -EPERM), 0);
    ck_assert_int_eq(shot_wait(&shot), -EPERM);
    rig_expect(rig, 0, CLUSTER, 0x10);
    ck_assert_int_eq(rig_write(rig, 0, CLUSTER, 0x20, 0), -EIO);
    ck_assert_int_eq(rig_write(rig, 9 * CLUSTER, 512, 0x20, 0), -EIO);
    ck_assert_int_eq(rig_discard(rig, 0, CLUSTER), -EIO);
    rig_expect(rig, 0, CLUSTER, 0x10);
    shot_end(&shot, 1, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
}
END_TEST

/* ---- what is refused ---- */

static void refused(struct shot *shot, struct script *next, int error, const char *text)
{
    ploop_job *job = NULL;
    struct rig *rig = &shot->rig;
    script_forget(next);
    rig->log_text[0] = '\0';
    int result = ploop_dev_snapshot(rig->dev, next->file, NULL, NULL, NULL, &job);
    if (!result) { /* what only its map can tell */
        result = ploop_job_wait(job);
        ck_assert_int_eq(ploop_job_free(job), 0);
    }
    ck_assert_int_eq(result, error);
    ck_assert_msg(strstr(rig->log_text, text) != NULL, "%s: %s", text, rig->log_text);
    ck_assert_uint_eq(next->submitted[PLOOP_IO_WRITE] + next->submitted[SCRIPT_META] +
                          next->submitted[PLOOP_IO_TRUNCATE] + next->submitted[PLOOP_IO_SYNC],
                      0);
}

START_TEST(a_file_that_does_not_fit_is_refused_before_anything_changes)
{
    struct shot shot;
    shot_open(&shot);
    struct rig *rig = &shot.rig;
    struct script *next = shot.next;
    ploop_job *job;
    ck_assert_int_eq(ploop_dev_snapshot(rig->dev, NULL, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_snapshot(rig->dev, next->file, NULL, NULL, NULL, NULL), -EINVAL);
    next->bytes[64 + 4 * 9000] = 1;
    refused(&shot, next, -EINVAL, "not empty");
    next->bytes[64 + 4 * 9000] = 0;
    memcpy(next->bytes + 44, "Ynot", 4);
    refused(&shot, next, -EINVAL, "in_use 1953459801");
    memset(next->bytes + 44, 0, 4);
    next->bytes[0] ^= 1;
    refused(&shot, next, -EINVAL, "not a ploop image");
    next->bytes[0] ^= 1;
    next->alignment = 512;
    refused(&shot, next, -EINVAL, "request_alignment 512");
    next->alignment = 1;
    struct script other;
    shot_new_top(&other, 32 << 20);
    refused(&shot, &other, -EINVAL, "disk size 33554432");
    ck_assert_int_eq(ploop_dev_snapshot(rig->dev, rig->script.file, NULL, NULL, NULL, &job),
                     -EBUSY);
    ploop_dev *reader;
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(ploop_dev_open(&next->file, 1, &config, &reader), 0);
    refused(&shot, next, -EBUSY, "in use");
    ck_assert_int_eq(ploop_dev_snapshot(reader, other.file, NULL, NULL, NULL, &job), -EROFS);
    ck_assert_int_eq(ploop_dev_close(reader), 0);
    ck_assert_ptr_null(job);
    script_close(&other);
    ck_assert_int_eq(shot_take(&shot), 0);
    shot_end(&shot, 2, (const uint8_t[]){0x10, 0x11, 0x12, 0x13}, 4);
}
END_TEST

/* ---- failures ---- */

/* Whatever fails, and whenever: the job ends, and the disk reads as before. */
START_TEST(a_failure_anywhere_leaves_the_old_top)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, SCRIPT_META, PLOOP_IO_SYNC, PLOOP_IO_TRUNCATE,
                                     PLOOP_IO_ALLOCATE};
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 5 * 2 * 8; i++) {
        uint32_t kind = kinds[i % 5], after = i / 10;
        struct shot shot;
        shot_open(&shot);
        struct rig *rig = &shot.rig;
        struct script *script = i / 5 % 2 ? shot.next : &rig->script;
        script_fail(script, kind, after, 1, -EIO);
        int error = shot_begin(&shot);
        error = error ? error : shot_wait(&shot);
        script_fail(script, kind, 0, 0, 0);
        bool is_latched = rig_info(rig).state & PLOOP_STATE_SYNC_FAILED;
        failed += error != 0;
        for (uint32_t n = 0; n < 4; n++) {
            rig_expect(rig, n * CLUSTER, CLUSTER, (uint8_t)(0x10 + n));
        }
        ck_assert_int_eq(rig_flush(rig), is_latched ? -EIO : 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, error ? 1 : 2);
        ck_assert(script_marked(error ? &rig->script : shot.next) || is_latched);
        ck_assert_int_eq(ploop_dev_close(rig->dev), is_latched ? -EIO : 0);
        rig->dev = NULL;
        rig_free(rig);
        script_close(shot.next);
    }
    ck_assert_uint_gt(failed, 10);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        another_file_is_written_from_now_on,
        the_old_top_is_as_a_close_leaves_it,
        snapshots_follow_each_other,
        changes_wait_for_the_commit_and_reads_do_not,
        the_old_top_goes_on_where_the_record_is_refused,
        without_its_mark_the_old_top_is_only_read,
        a_file_that_does_not_fit_is_refused_before_anything_changes,
        a_failure_anywhere_leaves_the_old_top,
    };
    return RUN_TESTS("snapshot", tests);
}
