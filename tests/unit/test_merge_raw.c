/* SPDX-License-Identifier: MIT */
/* Merges down into a raw base, below the top. */
#include <errno.h>
#include <string.h>

#include "run_tests.h"
#include "tower_fixture.h"

enum { DOWN = PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS, READ_CLUSTERS = 12, STEPS = 60 };

/* Of the image above the raw base: the last cluster of the disk is among those that it has. */
static const uint32_t middle_map[] = {0, 1, 5, 2, 6, 3, 9, 4, 1099, 5, 0, 0};

struct merged {
    struct tower tower;
    ploop_job *job;
    int answer;
    bool was_durable; /* at the commit */
    uint8_t content[READ_CLUSTERS + 1][CLUSTER];
};

/* The first clusters, and the last one. */
static void read_disk(struct merged *merged, uint8_t content[READ_CLUSTERS + 1][CLUSTER])
{
    ploop_dev *dev = merged->tower.rig.dev;
    ck_assert_int_eq(ploop_dev_pread(dev, content, READ_CLUSTERS * CLUSTER, 0),
                     READ_CLUSTERS * CLUSTER);
    ck_assert_int_eq(ploop_dev_pread(dev, content[READ_CLUSTERS], CLUSTER, at(ENTRIES - 1)),
                     CLUSTER);
}

static void expect_disk(struct merged *merged)
{
    uint8_t now[READ_CLUSTERS + 1][CLUSTER];
    read_disk(merged, now);
    for (uint32_t i = 0; i <= READ_CLUSTERS; i++) {
        ck_assert_msg(memcmp(now[i], merged->content[i], CLUSTER) == 0, "cluster %u", i);
    }
}

static void open_stack(struct merged *merged, uint64_t raw_size)
{
    memset(merged, 0, sizeof(*merged));
    tower_top(&merged->tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&merged->tower, raw_size);
    tower_add(&merged->tower, &(struct image_plan){.map = middle_map});
    tower_open(&merged->tower);
    read_disk(merged, merged->content);
}

static void commit(void *user_data, ploop_job *job)
{
    struct merged *merged = user_data;
    const struct script *raw = &merged->tower.lowers[0];
    uint32_t last = raw->log_count;
    merged->was_durable = last > 0 && raw->log[last - 1].kind == PLOOP_IO_SYNC;
    ck_assert_int_eq(ploop_job_committed(job, merged->answer), 0);
}

static int begin(struct merged *merged)
{
    return ploop_dev_merge(merged->tower.rig.dev, 0, DOWN, commit, NULL, merged, &merged->job);
}

static int finish(struct merged *merged)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    for (int i = 0; info.state != PLOOP_JOB_ENDED; i++) {
        ck_assert_msg(i < 10000, "a merge does not end");
        rig_advance(&merged->tower.rig, 3 * MS);
        ploop_queue_run(merged->tower.rig.queue);
        ck_assert_int_eq(ploop_job_info(merged->job, &info), 0);
    }
    int result = ploop_job_wait(merged->job);
    ck_assert_int_eq(ploop_job_free(merged->job), 0);
    return result;
}

/* Closed, and opened as what is recorded: without the image between, or with it. */
static void open_again(struct merged *merged, bool without)
{
    struct rig *rig = &merged->tower.rig;
    rig_close_dev(rig);
    rig->lower_count = without ? 1 : 2;
    rig_open(rig);
    expect_disk(merged);
    rig->lower_count = 2;
}

static void end(struct merged *merged)
{
    rig_close_dev(&merged->tower.rig);
    tower_free(&merged->tower);
}

START_TEST(a_raw_base_gets_what_the_image_has)
{
    static const uint64_t sizes[] = {512,
                                     700,
                                     6 * CLUSTER + 700,
                                     9 * CLUSTER,
                                     ENTRIES * CLUSTER - 100,
                                     ENTRIES * CLUSTER,
                                     2000 * CLUSTER};
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct merged merged;
        open_stack(&merged, sizes[i]);
        const struct script *raw = &merged.tower.lowers[0], *middle = &merged.tower.lowers[1];
        ck_assert_int_eq(begin(&merged), 0);
        ck_assert_int_eq(finish(&merged), 0);
        ck_assert(merged.was_durable);
        ck_assert_uint_eq(rig_info(&merged.tower.rig).delta_count, 2);
        ck_assert_uint_eq(raw->file_size, sizes[i] > at(ENTRIES) ? sizes[i] : at(ENTRIES));
        ck_assert_uint_eq(script_changes(middle), 0);
        tower_forget(&merged.tower);
        expect_disk(&merged);
        ck_assert_uint_eq(middle->submitted[PLOOP_IO_READ], 0);
        open_again(&merged, true);
        /* A cluster of the base is copied before it is changed, as ever. */
        ck_assert_int_eq(rig_write(&merged.tower.rig, at(9) + 512, 512, 0x55, 0), 0);
        memset(merged.content[9] + 512, 0x55, 512);
        expect_disk(&merged);
        end(&merged);
    }
}
END_TEST

/* The disk ends inside a cluster: so does the file afterwards. */
START_TEST(its_file_ends_where_the_disk_does)
{
    struct merged merged = {.answer = 0};
    static const uint32_t last[] = {2, 1, 0, 0};
    uint64_t sectors = 2 * 8 + 3;
    const struct image_plan plan = {.entries = 3, .sectors = sectors, .map = last};
    tower_top(&merged.tower,
              &(struct image_plan){.entries = 3, .sectors = sectors, .map = MAP_NONE});
    tower_add_raw(&merged.tower, 1000);
    tower_add(&merged.tower, &plan);
    tower_open(&merged.tower);
    ck_assert_int_eq(begin(&merged), 0);
    ck_assert_int_eq(finish(&merged), 0);
    ck_assert_uint_eq(merged.tower.lowers[0].file_size, sectors * 512);
    uint8_t tail[512], expected[512] = {0};
    memset(expected, 0xB0, 1000 - 512);
    ck_assert_int_eq(ploop_dev_pread(merged.tower.rig.dev, tail, 512, 512), 512);
    ck_assert_mem_eq(tail, expected, 512);
    rig_expect(&merged.tower.rig, 1024, 2 * CLUSTER - 1024, 0);
    rig_expect(&merged.tower.rig, 2 * CLUSTER, 3 * 512, 0xA0);
    end(&merged);
}
END_TEST

static void release_idle(struct script *script, void *argument)
{
    struct merged *merged = argument;
    struct script *scripts[] = {&merged->tower.lowers[0], &merged->tower.lowers[1],
                                &merged->tower.rig.script};
    (void)script;
    for (uint32_t i = 0; i < 3; i++) {
        if (scripts[i]->held_count) {
            script_release(scripts[i], 0);
            return;
        }
    }
}

static void let_go(struct merged *merged)
{
    struct rig *rig = &merged->tower.rig;
    struct script *scripts[] = {&rig->script, &merged->tower.lowers[0], &merged->tower.lowers[1]};
    for (uint32_t i = 0; i < 3; i++) {
        scripts[i]->idle = release_idle;
        scripts[i]->idle_argument = merged;
        script_release_all(scripts[i]);
    }
}

/* At each step: cancelled, refused, suspended, closed or aborted. */
START_TEST(whatever_comes_the_disk_reads_the_same)
{
    uint32_t ended_early = 0, merges = 0;
    for (uint32_t i = 0; i < 5 * STEPS; i++) {
        struct merged merged;
        struct rig *rig = &merged.tower.rig;
        open_stack(&merged, 6 * CLUSTER + 700);
        merged.answer = i % 5 == 1 ? -EPERM : 0;
        rig->script.hold = merged.tower.lowers[0].hold = merged.tower.lowers[1].hold = SCRIPT_ALL;
        ck_assert_int_eq(begin(&merged), 0);
        for (uint32_t step = 0; step < i / 5; step++) {
            rig_advance(rig, 3 * MS);
            release_idle(NULL, &merged);
        }
        if (i % 5 == 0) {
            (void)ploop_job_cancel(merged.job);
        }
        let_go(&merged);
        if (i % 5 == 2) {
            ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
            ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        }
        int result;
        if (i % 5 == 3) {
            ck_assert_int_eq(ploop_dev_close(rig->dev), 0);
        } else if (i % 5 == 4) {
            ploop_dev_abort(rig->dev);
        }
        if (i % 5 >= 3) {
            result = ploop_job_wait(merged.job);
            ck_assert_int_eq(ploop_job_free(merged.job), 0);
            rig->dev = NULL;
            rig->config.flags |= PLOOP_DEV_RECOVER;
            rig_open(rig);
        } else {
            result = finish(&merged);
        }
        ck_assert(result == 0 || result == (i % 5 == 1 ? -EPERM : -ECANCELED));
        ended_early += result != 0;
        merges += result == 0;
        expect_disk(&merged);
        open_again(&merged, result == 0);
        end(&merged);
    }
    ck_assert_msg(ended_early > 2 * STEPS && merges > STEPS, "%u, %u", ended_early, merges);
}
END_TEST

START_TEST(an_error_ends_it_and_changes_nothing)
{
    static const uint32_t kinds[] = {PLOOP_IO_WRITE, PLOOP_IO_TRUNCATE, PLOOP_IO_SYNC};
    for (uint32_t i = 0; i < 3; i++) {
        struct merged merged;
        open_stack(&merged, 700);
        script_fail(&merged.tower.lowers[0], kinds[i], 0, 1, -EIO);
        ck_assert_int_eq(begin(&merged), 0);
        ck_assert_int_eq(finish(&merged), -EIO);
        expect_disk(&merged);
        /* After a SYNC that failed nobody knows what of it is durable. */
        ck_assert_int_eq(begin(&merged), kinds[i] == PLOOP_IO_SYNC ? -EIO : 0);
        if (kinds[i] != PLOOP_IO_SYNC) {
            ck_assert_int_eq(finish(&merged), 0);
        }
        expect_disk(&merged);
        end(&merged);
    }
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    struct merged merged;
    open_stack(&merged, 700);
    struct rig *rig = &merged.tower.rig;
    ploop_job *job;
    rig_close_dev(rig);
    merged.tower.lowers[0].capabilities &= ~(uint32_t)PLOOP_FILE_CAN_GROW;
    rig_open(rig);
    tower_forget(&merged.tower);
    ck_assert_int_eq(begin(&merged), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(rig->log_text, "cannot become larger"));
    rig_close_dev(rig);
    rig->lower_count = 1;
    rig_open(rig);
    ck_assert_int_eq(ploop_dev_merge(rig->dev, 0, DOWN, NULL, NULL, NULL, &job), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(rig->log_text, "needs an image as its top"));
    rig->lower_count = 2;
    tower_end(&merged.tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_raw_base_gets_what_the_image_has,     its_file_ends_where_the_disk_does,
        whatever_comes_the_disk_reads_the_same, an_error_ends_it_and_changes_nothing,
        what_does_not_fit_is_refused,
    };
    return RUN_TESTS("merge_raw", tests);
}
