/* SPDX-License-Identifier: MIT */
/* Merges up into the top of a live disk. */
#include <errno.h>
#include <string.h>

#include "run_tests.h"
#include "tower_fixture.h"

struct ending {
    ploop_job *job;
    uint32_t commits, ends;
    int result, answer;
};

enum { LATER = 1000 };

static void committed(void *user_data, ploop_job *job)
{
    struct ending *ending = user_data;
    ending->commits++;
    if (ending->answer != LATER) {
        ck_assert_int_eq(ploop_job_committed(job, ending->answer), 0);
    }
}

static void ended(void *user_data, ploop_job *job, int result)
{
    struct ending *ending = user_data;
    ck_assert_ptr_eq(job, ending->job);
    ending->ends++;
    ending->result = result;
}

static int begin(struct tower *tower, uint32_t level, struct ending *ending)
{
    return ploop_dev_merge(tower->rig.dev, level, PLOOP_MERGE_UP, committed, ended, ending,
                           &ending->job);
}

static int finish(struct tower *tower, struct ending *ending)
{
    for (int i = 0; ending->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a merge does not end");
        rig_advance(&tower->rig, 3 * MS);
        ploop_queue_run(tower->rig.queue);
    }
    ck_assert_int_eq(ploop_job_wait(ending->job), ending->result);
    ck_assert_int_eq(ploop_job_free(ending->job), 0);
    return ending->result;
}

static int merge(struct tower *tower, uint32_t level)
{
    struct ending ending = {.answer = 0};
    ck_assert_int_eq(begin(tower, level, &ending), 0);
    return finish(tower, &ending);
}

static void expect(struct tower *tower, const uint8_t *bytes, uint32_t count)
{
    for (uint32_t n = 0; n < count; n++) {
        rig_expect(&tower->rig, at(n), CLUSTER, bytes[n]);
    }
}

static void open_three(struct tower *tower, uint32_t version)
{
    tower_top(tower, &(struct image_plan){.version = version, .map = tower_top_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = tower_base_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = tower_middle_map});
    tower_open(tower);
}

static const uint8_t three[] = {0xA0, 0xA4, 0xA0, 0xA5, 0xA1, 0};

/* ---- what it leaves ---- */

/* One after the other, until one file is left, which has it all and is clean. */
START_TEST(the_top_gets_what_it_had_not)
{
    for (uint32_t version = 1; version <= 2; version++) {
        struct tower tower;
        open_three(&tower, version);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(merge(&tower, 1), 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, 2);
        expect(&tower, three, 6);
        tower_forget(&tower);
        rig_expect(rig, at(3), CLUSTER, 0xA5);
        ck_assert_uint_eq(tower.lowers[1].submitted[PLOOP_IO_READ], 0);
        ck_assert_int_eq(merge(&tower, 0), 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, 1);
        tower_forget(&tower);
        expect(&tower, three, 6);
        rig_expect(rig, at(1099), CLUSTER, 0xA3);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
        rig_close_dev(rig);
        rig->lower_count = 0;
        rig_open(rig);
        expect(&tower, three, 6);
        rig_expect(rig, at(1099), CLUSTER, 0xA3);
        rig->lower_count = 2;
        tower_end(&tower);
    }
}
END_TEST

/* R8: the entry stays while another delta below may map the cluster; it goes when none can. */
START_TEST(a_discard_removes_an_entry_when_nothing_is_below)
{
    struct tower tower;
    open_three(&tower, 2);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(merge(&tower, 1), 0);
    ck_assert_int_eq(rig_discard(rig, at(1), CLUSTER), 0); /* the middle one hid the base's */
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
    rig_expect(rig, at(1), CLUSTER, 0);
    ck_assert_int_eq(merge(&tower, 0), 0);
    ck_assert_int_eq(rig_discard(rig, at(1), 2 * CLUSTER), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_eq(rig_file_entry(rig, 1), 0);
    ck_assert_uint_eq(rig_file_entry(rig, 2), 0);
    rig_expect(rig, at(1), 2 * CLUSTER, 0);
    rig_close_dev(rig);
    tower_free(&tower);
}
END_TEST

/* A raw base that ends inside a sector, and before the disk does. */
START_TEST(a_raw_base_is_merged_too)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&tower, 6 * CLUSTER + 700);
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(merge(&tower, 0), 0);
    ck_assert_uint_eq(rig_info(rig).delta_count, 1);
    tower_forget(&tower);
    rig_expect(rig, at(0), 2 * CLUSTER, 0xB0);
    rig_expect(rig, at(2), CLUSTER, 0xA0);
    rig_expect(rig, at(5), CLUSTER + 512, 0xB0);
    rig_expect(rig, at(6) + 1024, CLUSTER, 0);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
    tower_end(&tower);
}
END_TEST

/* ---- beside requests ---- */

static void release_idle(struct script *script, void *argument)
{
    struct tower *tower = argument;
    struct script *scripts[] = {&tower->rig.script, &tower->lowers[0], &tower->lowers[1]};
    (void)script;
    for (uint32_t i = 0; i < 3; i++) {
        if (scripts[i]->held_count) {
            script_release(scripts[i], 0);
            return;
        }
    }
}

/* At each step of the merge the guest writes, then the job is cancelled, or the device closed. */
START_TEST(whatever_comes_the_disk_reads_the_same)
{
    uint32_t cancelled = 0, merged = 0;
    for (uint32_t i = 0; i < 4 * 40; i++) {
        struct tower tower;
        struct ending ending = {.answer = i % 4 == 3 ? -EPERM : 0};
        struct req write;
        open_three(&tower, 2);
        struct rig *rig = &tower.rig;
        rig->script.hold = tower.lowers[0].hold = tower.lowers[1].hold = SCRIPT_ALL;
        ck_assert_int_eq(begin(&tower, 1, &ending), 0);
        for (uint32_t step = 0; step < i / 4; step++) {
            rig_advance(rig, 3 * MS);
            release_idle(NULL, &tower);
        }
        req_write(&write, rig, at(3) + 512, 512, 0x33, 0);
        if (i % 4 == 1) {
            int error = ploop_job_cancel(ending.job);
            ck_assert(error == 0 || error == -EBUSY || error == -EALREADY);
        }
        rig->script.idle = tower.lowers[0].idle = tower.lowers[1].idle = release_idle;
        rig->script.idle_argument = tower.lowers[0].idle_argument = tower.lowers[1].idle_argument =
            &tower;
        if (i % 4 == 2) {
            ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
            ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        }
        for (uint32_t n = 0; n < 3; n++) {
            script_release_all(n ? &tower.lowers[n - 1] : &rig->script);
        }
        int result = finish(&tower, &ending);
        ck_assert(result == 0 || result == (i % 4 == 3 ? -EPERM : -ECANCELED));
        cancelled += result == -ECANCELED;
        merged += result == 0;
        ck_assert_int_eq(req_wait(&write), 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, result ? 3 : 2);
        rig_expect(rig, at(3), 512, 0xA5);
        rig_expect(rig, at(3) + 512, 512, 0x33);
        expect(&tower, three, 3);
        tower_end(&tower);
    }
    ck_assert(cancelled > 5 && merged > 40);
}
END_TEST

START_TEST(an_error_ends_it_and_changes_nothing)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 8; i++) {
        struct tower tower;
        open_three(&tower, 2);
        struct rig *rig = &tower.rig;
        struct script *script = i % 2 ? &rig->script : &tower.lowers[1];
        uint32_t kind = i % 2 ? (i % 4 == 1 ? PLOOP_IO_WRITE : SCRIPT_META) : PLOOP_IO_READ;
        script_fail(script, kind, i / 4, 1, -EIO);
        int result = merge(&tower, 1);
        ck_assert(result == 0 || result == -EIO);
        failed += result != 0;
        script_fail(script, kind, 0, 0, 0);
        ck_assert_uint_eq(rig_info(rig).delta_count, result ? 3 : 2);
        expect(&tower, three, 6);
        if (result) {
            ck_assert_int_eq(rig_flush(rig), 0);
            ck_assert_int_eq(merge(&tower, 1), 0);
            expect(&tower, three, 6);
        }
        tower_end(&tower);
    }
    ck_assert_uint_ge(failed, 5);
}
END_TEST

/* So many bytes a second, by the device's clock. */
START_TEST(a_rate_limits_it)
{
    struct tower tower;
    struct ending ending = {.answer = 0};
    tower_top(&tower, &(struct image_plan){.map = MAP_NONE});
    tower_add_raw(&tower, 64 * CLUSTER);
    tower_open(&tower);
    tower.rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    ck_assert_int_eq(begin(&tower, 0, &ending), 0);
    ploop_job_set_rate(ending.job, 8 * CLUSTER);
    script_release_all(&tower.rig.script);
    for (uint32_t second = 1; second < 6; second++) {
        for (uint32_t i = 0; i < 100; i++) {
            rig_advance(&tower.rig, 10 * MS);
        }
        struct ploop_job_info info = {.size = sizeof(info)};
        ck_assert_int_eq(ploop_job_info(ending.job, &info), 0);
        ck_assert_uint_eq(info.bytes_total, 64 * CLUSTER);
        ck_assert_uint_eq(info.rate, 8 * CLUSTER);
        ck_assert_uint_le(info.bytes_done, (8 * second + 8) * CLUSTER);
        ck_assert_uint_ge(info.bytes_done, 8 * (second - 1) * CLUSTER);
    }
    ploop_job_set_rate(ending.job, 0);
    ck_assert_int_eq(finish(&tower, &ending), 0);
    rig_expect(&tower.rig, 0, 64 * CLUSTER, 0xB0);
    tower_end(&tower);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(a_merge_that_cannot_be_is_refused)
{
    struct tower tower;
    ploop_job *job;
    open_three(&tower, 2);
    ploop_dev *dev = tower.rig.dev;
    ck_assert_int_eq(ploop_dev_merge(dev, 2, PLOOP_MERGE_UP, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tower.rig.log_text, "level 2"));
    ck_assert_int_eq(ploop_dev_merge(dev, 3, PLOOP_MERGE_UP, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, 3, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_UP, NULL, NULL, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_DOWN, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tower.rig.log_text, "down"));
    ck_assert_ptr_null(job);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_UP, NULL, NULL, NULL, &job), 0);
    ploop_job *second;
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_UP, NULL, NULL, NULL, &second), -EBUSY);
    ck_assert_int_eq(ploop_job_wait(job), -EAGAIN);
    ck_assert_int_eq(ploop_dev_pwrite(dev, (char[512]){0}, 512, at(7)), 512); /* not held */
    ck_assert_int_eq(ploop_job_committed(job, PLOOP_COMMIT_UNKNOWN), 0);
    ck_assert_int_eq(ploop_job_wait(job), -EINPROGRESS);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_UP, NULL, NULL, NULL, &second), -EBUSY);
    ck_assert_int_eq(ploop_job_committed(job, -EPERM), 0);
    ck_assert_int_eq(ploop_job_free(job), 0);
    ck_assert_int_eq(merge(&tower, 1), 0);
    tower_end(&tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        the_top_gets_what_it_had_not,
        a_discard_removes_an_entry_when_nothing_is_below,
        a_raw_base_is_merged_too,
        whatever_comes_the_disk_reads_the_same,
        an_error_ends_it_and_changes_nothing,
        a_rate_limits_it,
        a_merge_that_cannot_be_is_refused,
    };
    return RUN_TESTS("merge", tests);
}
