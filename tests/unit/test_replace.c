/* SPDX-License-Identifier: MIT */
/* Another file in the place of one below the top, while the disk is used (R20). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ops.h>

#include "run_tests.h"
#include "tower_fixture.h"

enum { LATER = 1000, SEEN = 6, RAW_SIZE = 5 * CLUSTER + 700 };

struct replacing {
    struct tower tower;
    struct script next;
    uint8_t seen[SEEN * CLUSTER]; /* what the guest reads */
    ploop_job *job;
    int answer;
    uint32_t commits, ends;
    int result;
};

static void committed(void *user_data, ploop_job *job)
{
    struct replacing *replacing = user_data;
    replacing->commits++;
    if (replacing->answer != LATER) {
        ck_assert_int_eq(ploop_job_committed(job, replacing->answer), 0);
    }
}

static void ended(void *user_data, ploop_job *job, int result)
{
    struct replacing *replacing = user_data;
    ck_assert_ptr_eq(job, replacing->job);
    replacing->ends++;
    replacing->result = result;
}

static void expect_disk(struct replacing *replacing)
{
    uint8_t found[SEEN * CLUSTER];
    ploop_dev *dev = replacing->tower.rig.dev;
    ck_assert_int_eq(ploop_dev_pread(dev, found, sizeof(found), 0), sizeof(found));
    ck_assert_int_eq(memcmp(found, replacing->seen, sizeof(found)), 0);
}

/* Three images, or a raw base under one; and a copy of the lowest. */
static void open_with_copy(struct replacing *replacing, uint32_t version)
{
    struct tower *tower = &replacing->tower;
    memset(replacing, 0, sizeof(*replacing));
    tower_top(tower, &(struct image_plan){.version = version ? version : 2, .map = tower_top_map});
    if (version) {
        tower_add(tower, &(struct image_plan){.version = version, .map = tower_base_map});
        tower_add(tower, &(struct image_plan){.version = version, .map = tower_middle_map});
    } else {
        tower_add_raw(tower, RAW_SIZE);
    }
    script_open(&replacing->next, tower->lowers[0].bytes, tower->lowers[0].file_size, 0);
    tower_open(tower);
    ck_assert_int_eq(ploop_dev_pread(tower->rig.dev, replacing->seen, sizeof(replacing->seen), 0),
                     sizeof(replacing->seen));
    tower_forget(tower);
}

static int begin(struct replacing *replacing, uint32_t level, uint32_t flags)
{
    replacing->commits = replacing->ends = 0;
    replacing->tower.rig.log_text[0] = '\0';
    return ploop_dev_replace(replacing->tower.rig.dev, level, replacing->next.file, flags,
                             committed, ended, replacing, &replacing->job);
}

static int finish(struct replacing *replacing)
{
    struct rig *rig = &replacing->tower.rig;
    for (int i = 0; replacing->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a job does not end");
        rig_advance(rig, 3 * MS);
        ploop_queue_run(rig->queue);
    }
    ck_assert_int_eq(ploop_job_wait(replacing->job), replacing->result);
    ck_assert_int_eq(ploop_job_free(replacing->job), 0);
    return replacing->result;
}

static void end(struct replacing *replacing)
{
    rig_close_dev(&replacing->tower.rig);
    ck_assert_uint_eq(script_changes(&replacing->tower.lowers[0]), 0);
    tower_free(&replacing->tower);
    script_close(&replacing->next);
}

START_TEST(a_copy_takes_the_place)
{
    for (uint32_t version = 0; version <= 2; version++) {
        for (uint32_t flags = 0; flags <= PLOOP_REPLACE_COMPARE; flags++) {
            struct replacing replacing;
            struct rig *rig = &replacing.tower.rig;
            struct ploop_job_info info = {.size = sizeof(info)};
            open_with_copy(&replacing, version);
            struct script *old = &replacing.tower.lowers[0], *next = &replacing.next;
            ck_assert_int_eq(begin(&replacing, 0, flags), 0);
            ck_assert_int_eq(ploop_job_info(replacing.job, &info), 0);
            ck_assert_uint_eq(info.kind, PLOOP_JOB_REPLACE);
            ck_assert_int_eq(finish(&replacing), 0);
            ck_assert_uint_eq(replacing.commits, 1);
            ck_assert_uint_eq(next->submitted[PLOOP_IO_SYNC], 1);
            ck_assert_uint_eq(script_changes(next), 1); /* that SYNC */
            ck_assert(flags || old->submitted[PLOOP_IO_READ] == 0);
            script_forget(old);
            script_forget(next);
            expect_disk(&replacing);
            ck_assert_uint_eq(old->submitted[PLOOP_IO_READ], 0);
            ck_assert_uint_gt(next->submitted[PLOOP_IO_READ], 0);
            /* It is copied from there, too. */
            ck_assert_int_eq(rig_write(rig, 512, 512, 0x77, 0), 0);
            memset(replacing.seen + 512, 0x77, 512);
            expect_disk(&replacing);
            ck_assert_int_eq(rig_flush(rig), 0);
            ck_assert_uint_eq(old->submitted[PLOOP_IO_READ], 0);
            end(&replacing);
        }
    }
}
END_TEST

/* Storage that has gone: what is read of it fails, and the job reads nothing of it. */
START_TEST(the_old_file_may_be_gone)
{
    struct replacing replacing;
    struct rig *rig = &replacing.tower.rig;
    uint8_t sector[512];
    open_with_copy(&replacing, 2);
    script_fail(&replacing.tower.lowers[0], PLOOP_IO_READ, 0, UINT64_MAX, -ENOTCONN);
    ck_assert_int_eq(ploop_dev_pread(rig->dev, sector, sizeof(sector), 0), -ENOTCONN);
    ck_assert_int_eq(begin(&replacing, 0, 0), 0);
    ck_assert_int_eq(finish(&replacing), 0);
    expect_disk(&replacing);
    end(&replacing);
}
END_TEST

START_TEST(what_is_under_way_in_the_old_file_ends_first)
{
    struct replacing replacing;
    struct rig *rig = &replacing.tower.rig;
    struct req read, write;
    open_with_copy(&replacing, 2);
    struct script *old = &replacing.tower.lowers[0];
    old->hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_read(&read, rig, 0, CLUSTER);
    req_write(&write, rig, 512, 512, 0x77, 0); /* waits for the read's cluster, and copies it */
    ck_assert_uint_gt(old->held_count, 0);
    ck_assert_int_eq(begin(&replacing, 0, 0), 0);
    for (int i = 0; i < 100; i++) {
        rig_advance(rig, 3 * MS);
        ploop_queue_run(rig->queue);
    }
    ck_assert_uint_eq(replacing.commits, 1);
    ck_assert_uint_eq(replacing.ends, 0);
    script_release_all(old);
    ck_assert_int_eq(req_wait(&read), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    ck_assert_int_eq(finish(&replacing), 0);
    memset(replacing.seen + 512, 0x77, 512);
    expect_disk(&replacing);
    end(&replacing);
}
END_TEST

START_TEST(the_old_file_stays_where_it_does_not_come_about)
{
    static const int answers[] = {-EPERM, PLOOP_COMMIT_UNKNOWN, LATER};
    for (int i = 0; i < 3; i++) {
        struct replacing replacing;
        open_with_copy(&replacing, 2);
        struct script *old = &replacing.tower.lowers[0], *next = &replacing.next;
        replacing.answer = answers[i];
        ck_assert_int_eq(ploop_dev_suspend(replacing.tower.rig.dev), 0); /* which pauses it */
        ck_assert_int_eq(begin(&replacing, 0, 0), 0);
        if (answers[i] == LATER) {
            ck_assert_int_eq(ploop_job_cancel(replacing.job), 0);
        }
        ck_assert_int_eq(ploop_dev_resume(replacing.tower.rig.dev), 0);
        int result = answers[i] == LATER ? -ECANCELED : i == 1 ? -EINPROGRESS : -EPERM;
        if (i == 1) {
            for (int turn = 0; replacing.ends == 0 && turn < 1000; turn++) {
                rig_advance(&replacing.tower.rig, 3 * MS);
                ploop_queue_run(replacing.tower.rig.queue);
            }
            ck_assert_int_eq(ploop_job_committed(replacing.job, -EPERM), 0);
        }
        ck_assert_int_eq(finish(&replacing), result);
        script_forget(old);
        script_forget(next);
        expect_disk(&replacing);
        ck_assert_uint_gt(old->submitted[PLOOP_IO_READ], 0);
        ck_assert_uint_eq(next->submitted[PLOOP_IO_READ], 0);
        end(&replacing);
    }
}
END_TEST

/* ---- what does not fit ---- */

static void store(struct script *script, uint64_t offset, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        script->bytes[offset + (uint64_t)i] = (uint8_t)(value >> 8 * i);
    }
}

static void expect_refusal(struct replacing *replacing, uint32_t level, uint32_t flags,
                           const char *why)
{
    const char *text = replacing->tower.rig.log_text;
    int result = begin(replacing, level, flags);
    result = result ? result : finish(replacing);
    ck_assert_int_eq(result, -EINVAL);
    ck_assert_msg(strstr(text, why), "'%s' and not '%s'", text, why);
    ck_assert_uint_eq(replacing->commits, 0);
    ck_assert_uint_le(script_changes(&replacing->next), 1); /* the SYNC before it was read */
    expect_disk(replacing);
    end(replacing);
}

START_TEST(a_file_that_does_not_fit_is_refused)
{
    static const struct {
        uint64_t offset;
        uint32_t value;
        uint32_t flags;
        const char *why;
    } faults[] = {
        {28, 16, 0, "cluster size"},
        {36, 8 * 900, 0, "disk size"},
        {32, 1200, 0, "bat_entries"},
        {44, 0x746F6E59, 0, "in use elsewhere"},
        {0, 0x77777777, 0, "replace: "},
        {64, 0, 0, "cluster 0: it lies elsewhere"},
        {64 + 4, 3, 0, "cluster 1: "},
        {64 + 4 * 5, 2, 0, "cluster 5: the new file has it and the old not"},
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        struct replacing replacing;
        open_with_copy(&replacing, 2);
        if (i == 6) { /* the middle one hides cluster 1, so it may lie anywhere: 0 is changed */
            store(&replacing.next, 64, 7777);
            expect_refusal(&replacing, 0, 0, "cluster 0: it lies elsewhere");
            continue;
        }
        store(&replacing.next, faults[i].offset, faults[i].value);
        expect_refusal(&replacing, 0, faults[i].flags, faults[i].why);
    }
}
END_TEST

START_TEST(other_bytes_are_found_where_that_is_asked_for)
{
    struct replacing replacing;
    open_with_copy(&replacing, 2);
    uint64_t start = image_data_start(replacing.next.bytes);
    for (uint64_t where = start; where < replacing.next.file_size; where += CLUSTER) {
        replacing.next.bytes[where + 1000] ^= 1;
    }
    expect_refusal(&replacing, 0, PLOOP_REPLACE_COMPARE, "its bytes differ");
    for (uint64_t where = RAW_SIZE - 1000; where < RAW_SIZE; where += 999) {
        open_with_copy(&replacing, 0);
        replacing.next.bytes[where] ^= 1;
        expect_refusal(&replacing, 0, PLOOP_REPLACE_COMPARE, "bytes");
    }
}
END_TEST

START_TEST(wrong_calls_are_refused)
{
    struct replacing replacing;
    ploop_job *job;
    open_with_copy(&replacing, 2);
    ploop_dev *dev = replacing.tower.rig.dev;
    ploop_file *next = replacing.next.file;
    ck_assert_int_eq(ploop_dev_replace(NULL, 0, next, 0, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_replace(dev, 0, NULL, 0, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_replace(dev, 0, next, 0, NULL, NULL, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_dev_replace(dev, 0, next, 2, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_replace(dev, 2, next, 0, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert(strstr(replacing.tower.rig.log_text, "not below the top"));
    ck_assert_int_eq(ploop_dev_replace(dev, 7, next, 0, NULL, NULL, NULL, &job), -EINVAL);
    ploop_file *own = replacing.tower.rig.lowers[0];
    ck_assert_int_eq(ploop_dev_replace(dev, 0, own, 0, NULL, NULL, NULL, &job), -EINVAL);
    replacing.next.invalidate_error = -EBUSY;
    ck_assert_int_eq(begin(&replacing, 0, 0), -EBUSY);
    ck_assert(strstr(replacing.tower.rig.log_text, "cannot be made durable"));
    replacing.next.invalidate_error = 0;
    expect_disk(&replacing);
    ck_assert_int_eq(begin(&replacing, 0, 0), 0);
    ck_assert_int_eq(ploop_dev_replace(dev, 0, next, 0, NULL, NULL, NULL, &job), -EBUSY);
    ck_assert_int_eq(finish(&replacing), 0);
    end(&replacing);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {a_copy_takes_the_place,
                            the_old_file_may_be_gone,
                            what_is_under_way_in_the_old_file_ends_first,
                            the_old_file_stays_where_it_does_not_come_about,
                            a_file_that_does_not_fit_is_refused,
                            other_bytes_are_found_where_that_is_asked_for,
                            wrong_calls_are_refused};
    return RUN_TESTS("replace", tests);
}
