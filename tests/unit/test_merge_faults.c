/* SPDX-License-Identifier: MIT */
/* Merges of any two neighbours: faults, refusals, and a commit whose outcome is not known. */
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

/* ---- one request fails ---- */

static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, SCRIPT_META, PLOOP_IO_SYNC,
                                 PLOOP_IO_TRUNCATE};

/* Whether the top's own promises are gone: then the stack is not judged by a clean close. */
static bool is_lost(struct stacked *stacked)
{
    struct ploop_dev_info info = rig_info(&stacked->tower.rig);
    return info.state & PLOOP_STATE_SYNC_FAILED;
}

/* The stack as it is recorded opens with RECOVER and reads as before. */
static void expect_recovered(struct stacked *stacked)
{
    struct rig *rig = &stacked->tower.rig;
    ploop_file *files[MERGE_DELTAS];
    ploop_dev_close(rig->dev);
    rig->dev = NULL;
    for (uint32_t i = 0; i < stacked->count; i++) {
        ck_assert_int_ne(oracle_status(stacked->scripts[i]->bytes, stacked->scripts[i]->file_size),
                         1);
        files[i] = stacked->scripts[i]->file;
    }
    rig->config.flags |= PLOOP_DEV_RECOVER;
    ck_assert_int_eq(ploop_dev_open(files, stacked->count, &rig->config, &rig->dev), 0);
    rig->queue = ploop_dev_queue(rig->dev, 0);
    stacked_end(stacked);
}

/* Each request of each kind, of each file, until none is left that fails. */
START_TEST(an_error_anywhere_leaves_the_stack)
{
    uint32_t failed = 0, step = is_instrumented() ? 7 : 1;
    for (uint32_t i = 0; i < WAYS * MERGE_DELTAS * 5; i += step) {
        const struct way *way = &ways[i % WAYS];
        uint32_t level = i / WAYS % MERGE_DELTAS, kind = kinds[i / WAYS / MERGE_DELTAS];
        for (uint64_t after = 0, fails = 1; fails && after < 30; after += 1 + after / 2) {
            struct stacked stacked;
            stacked_open(&stacked, 2);
            struct script *script = stacked.scripts[level];
            script_fail(script, kind, after, 1, -EIO);
            int result = stacked_merge(&stacked, way->level, way->direction);
            fails = script->fail[kind].times == 0;
            ck_assert(result == 0 || result == -EIO);
            ck_assert(fails || result == 0);
            failed += result != 0;
            script_fail(script, kind, 0, 0, 0);
            bool lost = is_lost(&stacked);
            if (result && !lost && rig_flush(&stacked.tower.rig) == 0) {
                int again = stacked_begin(&stacked, way->level, way->direction);
                again = again ? again : stacked_finish(&stacked, way->level, way->direction);
                ck_assert(again == 0 || (kind != PLOOP_IO_READ && again < 0));
            }
            stacked_expect(&stacked);
            expect_recovered(&stacked);
        }
    }
    ck_assert_uint_ge(failed, 60 / step);
}
END_TEST

/* ---- a discard beside a merge down ---- */

/* R8: what the receiver has come to map counts as below, before the commit and without one. */
START_TEST(a_discard_does_not_bring_back_what_was_copied)
{
    for (uint32_t i = 0; i < 3; i++) {
        struct stacked stacked;
        stacked_open(&stacked, 2);
        struct rig *rig = &stacked.tower.rig;
        stacked_write(&stacked, 64, 8, 0x55); /* no delta below has it */
        ck_assert_int_eq(rig_flush(rig), 0);
        stacked.answer = i == 1 ? -EPERM : LATER;
        ck_assert_int_eq(stacked_begin(&stacked, 2, DOWN), 0);
        if (i == 1) {
            ck_assert_int_eq(stacked_finish(&stacked, 2, DOWN), -EPERM);
        } else {
            ck_assert_int_eq(ploop_job_wait(stacked.job), -EAGAIN);
        }
        struct req discard;
        req_discard(&discard, rig, 64 * 512, CLUSTER);
        if (i != 1) {
            ck_assert(!req_done(&discard)); /* held */
            ck_assert_int_eq(ploop_job_committed(stacked.job, i == 0 ? 0 : -EPERM), 0);
            ck_assert_int_eq(stacked_finish(&stacked, 2, DOWN), i == 0 ? 0 : -EPERM);
        }
        ck_assert_int_eq(req_wait(&discard), 0);
        memset(stacked.model + 64, 0, 8);
        ck_assert_int_eq(rig_flush(rig), 0);
        stacked_end(&stacked);
    }
}
END_TEST

/* ---- writes that were under way when the mirror began ---- */

/* The first write to a cluster enters it in the map when the copies have passed, perhaps. */
START_TEST(a_write_under_way_is_copied_too)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct stacked stacked;
        struct req write;
        stacked_open(&stacked, 2);
        struct rig *rig = &stacked.tower.rig;
        ck_assert_int_eq(rig_flush(rig), 0);
        rig->script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
        uint32_t sector = i ? 8 : 64; /* mapped: on the fast path; and not */
        req_write(&write, rig, sector * 512, 512, 0x55, 0);
        ck_assert_uint_eq(rig->script.held_count, 1);
        ck_assert_int_eq(stacked_begin(&stacked, 2, DOWN), 0);
        for (uint32_t n = 0; n < 50; n++) {
            rig_advance(rig, 3 * MS);
        }
        ck_assert(!req_done(&write));
        script_release_all(&rig->script);
        ck_assert_int_eq(stacked_finish(&stacked, 2, DOWN), 0);
        ck_assert_int_eq(req_wait(&write), 0);
        stacked.model[sector] = 0x55;
        stacked_end(&stacked);
    }
}
END_TEST

/* ---- after a recovery ---- */

/* R19: RECOVER has made the file longer than it was when the device first looked at it. */
START_TEST(a_source_that_was_cut_off_is_merged)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct stacked stacked;
        ploop_file *files[MERGE_DELTAS];
        stacked_open(&stacked, 2);
        struct rig *rig = &stacked.tower.rig;
        struct script *source = stacked.scripts[i];
        rig_close_dev(rig);
        uint64_t end = image_data_start(source->bytes) + (i ? 4 : 5) * (uint64_t)CLUSTER;
        source->file_size = end - 3 * 1024;
        rig->config.flags |= PLOOP_DEV_RECOVER;
        for (uint32_t level = 0; level < MERGE_DELTAS; level++) {
            files[level] = stacked.scripts[level]->file;
        }
        ck_assert_int_eq(ploop_dev_open(files, MERGE_DELTAS, &rig->config, &rig->dev), 0);
        rig->queue = ploop_dev_queue(rig->dev, 0);
        ck_assert_uint_eq(source->file_size, end);
        stacked_read_files(&stacked, MERGE_DELTAS, stacked.model);
        ck_assert_int_eq(stacked_merge(&stacked, 0, i ? DOWN : UP), 0);
        stacked_end(&stacked);
    }
}
END_TEST

/* ---- what is not known ---- */

/* Nothing is changed in either file until a definite answer comes. */
START_TEST(an_unknown_outcome_holds_changes)
{
    for (uint32_t i = 0; i < 3; i++) {
        struct stacked stacked;
        uint8_t found[MODEL_SECTORS];
        struct req write;
        stacked_open(&stacked, 2);
        struct rig *rig = &stacked.tower.rig;
        stacked.answer = LATER;
        ck_assert_int_eq(stacked_begin(&stacked, 2, DOWN), 0);
        ck_assert_int_eq(ploop_job_wait(stacked.job), -EAGAIN);
        ck_assert_int_eq(ploop_job_committed(stacked.job, PLOOP_COMMIT_UNKNOWN), 0);
        ck_assert_int_eq(ploop_job_wait(stacked.job), -EAGAIN);
        ck_assert_int_eq(ploop_job_cancel(stacked.job), -EBUSY);
        req_write(&write, rig, 0, 512, 0x66, 0);
        rig_advance(rig, SECOND);
        ck_assert(!req_done(&write));
        ck_assert_int_eq(rig_flush(rig), 0);
        stacked_expect(&stacked);
        stacked_read_files(&stacked, 4, found);
        ck_assert_mem_eq(found, stacked.model, sizeof(found));
        stacked_read_files(&stacked, 3, found);
        ck_assert_mem_eq(found, stacked.model, sizeof(found));
        if (i < 2) {
            ck_assert_int_eq(ploop_job_committed(stacked.job, i ? -EPERM : 0), 0);
            ck_assert_int_eq(stacked_finish(&stacked, 2, DOWN), i ? -EPERM : 0);
            ck_assert_int_eq(req_wait(&write), 0);
            stacked.model[0] = 0x66;
            stacked_end(&stacked);
            continue;
        }
        /* Closed: both stacks open, are clean and read the same, without the write. */
        rig_close_dev(rig);
        ck_assert_int_eq(write.result, -ECANCELED);
        free(write.iov.iov_base);
        ck_assert_int_eq(stacked.result, -ECANCELED);
        ck_assert_int_eq(ploop_job_free(stacked.job), 0);
        for (uint32_t count = 3; count <= 4; count++) {
            stacked_read_files(&stacked, count, found);
            ck_assert_mem_eq(found, stacked.model, sizeof(found));
            ck_assert_int_ne(memcmp(stacked.scripts[count - 1]->bytes + 44, "Ynot", 4), 0);
        }
        stacked_free(&stacked);
    }
}
END_TEST

/* Below the top that is a refusal: both stacks read the same whatever comes. */
START_TEST(an_unknown_outcome_below_the_top_ends_it)
{
    for (uint32_t i = 0; i < WAYS; i++) {
        struct stacked stacked;
        ploop_job *second;
        if (ways[i].level == 2 && ways[i].direction == DOWN) {
            continue;
        }
        stacked_open(&stacked, 2);
        stacked.answer = PLOOP_COMMIT_UNKNOWN;
        ploop_dev *dev = stacked.tower.rig.dev;
        ck_assert_int_eq(stacked_begin(&stacked, ways[i].level, ways[i].direction), 0);
        while (!stacked.ends) {
            rig_advance(&stacked.tower.rig, 3 * MS);
            ploop_queue_run(stacked.tower.rig.queue);
        }
        ck_assert_int_eq(stacked.result, -EINPROGRESS);
        ck_assert_int_eq(ploop_dev_merge(dev, 0, UP, NULL, NULL, NULL, &second), -EBUSY);
        ck_assert_int_eq(ploop_job_committed(stacked.job, -EPERM), 0);
        ck_assert_int_eq(ploop_job_free(stacked.job), 0);
        stacked_write(&stacked, 3, 30, 0x66);
        stacked_end(&stacked);
    }
}
END_TEST

/* ---- what is refused ---- */

START_TEST(a_receiver_that_is_no_good_is_refused)
{
    static const struct {
        uint32_t at;
        uint8_t bytes[4];
        int error;
        const char *text;
    } damages[] = {
        {44, {'Y', 'n', 'o', 't'}, -EUCLEAN, "not closed cleanly"},
        {32, {0x11, 0, 0, 0}, -EUCLEAN, "delta 0"},
        {64, {0xff, 0xff, 0xff, 0x7f}, -EUCLEAN, "is no good"},
        {68, {1, 0, 0, 0}, -EUCLEAN, "is no good"},
    };
    for (uint32_t i = 0; i < 4; i++) {
        struct stacked stacked;
        stacked_open(&stacked, 2);
        struct script *base = stacked.scripts[0];
        uint8_t *before = malloc(base->file_size), keep[4];
        memcpy(keep, base->bytes + damages[i].at, 4);
        memcpy(base->bytes + damages[i].at, damages[i].bytes, 4);
        memcpy(before, base->bytes, base->file_size);
        ck_assert_int_eq(stacked_merge(&stacked, 0, DOWN), damages[i].error);
        ck_assert_ptr_nonnull(strstr(stacked.tower.rig.log_text, damages[i].text));
        ck_assert_mem_eq(before, base->bytes, base->file_size);
        memcpy(base->bytes + damages[i].at, keep, 4);
        free(before);
        ck_assert_int_eq(stacked_merge(&stacked, 0, DOWN), 0);
        stacked_end(&stacked);
    }
}
END_TEST

/* R6: what a failed SYNC may have lost is not there, although it can be read. */
START_TEST(a_receiver_whose_sync_failed_is_none_any_more)
{
    struct stacked stacked;
    stacked_open(&stacked, 2);
    struct script *base = stacked.scripts[0];
    script_fail(base, PLOOP_IO_SYNC, 1, 1, -EIO);
    ck_assert_int_eq(stacked_merge(&stacked, 0, DOWN), -EIO);
    ck_assert_int_eq(stacked_begin(&stacked, 0, DOWN), -EIO);
    ck_assert_ptr_nonnull(strstr(stacked.tower.rig.log_text, "open the stack again"));
    ck_assert_int_eq(stacked_merge(&stacked, 1, DOWN), 0);
    stacked_write(&stacked, 20, 20, 0x44);
    expect_recovered(&stacked);
}
END_TEST

START_TEST(calls_that_cannot_be)
{
    struct stacked stacked;
    ploop_job *job;
    stacked_open(&stacked, 2);
    ploop_dev *dev = stacked.tower.rig.dev;
    ck_assert_int_eq(ploop_dev_merge(dev, 1, PLOOP_MERGE_DOWN, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(stacked.tower.rig.log_text, "PLOOP_MERGE_RECEIVER_IS_OURS"));
    ck_assert_int_eq(
        ploop_dev_merge(dev, 1, UP | PLOOP_MERGE_RECEIVER_IS_OURS, NULL, NULL, NULL, &job),
        -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, 0, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, 3, DOWN, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_int_eq(ploop_dev_merge(dev, UINT32_MAX, DOWN, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(stacked.tower.rig.log_text, "no delta above it"));
    stacked_end(&stacked);
}
END_TEST

/* The image between them hides what the raw file has past its end. */
START_TEST(a_raw_base_is_not_uncovered)
{
    struct tower tower;
    ploop_job *job;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&tower, 2000 * CLUSTER);
    tower_add(&tower, &(struct image_plan){.entries = 1000, .map = MAP_NONE});
    tower_open(&tower);
    ploop_dev *dev = tower.rig.dev;
    rig_expect(&tower.rig, at(1050), CLUSTER, 0);
    ck_assert_int_eq(ploop_dev_merge(dev, 1, UP, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tower.rig.log_text, "level 1: it would uncover the raw base"));
    ck_assert_int_eq(ploop_dev_merge(dev, 0, DOWN, NULL, NULL, NULL, &job), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tower.rig.log_text, "level 0 down: it would uncover"));
    ck_assert_int_eq(ploop_dev_merge(dev, 1, DOWN, NULL, NULL, NULL, &job), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(tower.rig.log_text, "smaller one"));
    tower_end(&tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        an_error_anywhere_leaves_the_stack,
        a_discard_does_not_bring_back_what_was_copied,
        a_write_under_way_is_copied_too,
        a_source_that_was_cut_off_is_merged,
        an_unknown_outcome_holds_changes,
        an_unknown_outcome_below_the_top_ends_it,
        a_receiver_that_is_no_good_is_refused,
        a_receiver_whose_sync_failed_is_none_any_more,
        calls_that_cannot_be,
        a_raw_base_is_not_uncovered,
    };
    return RUN_TESTS("merge_faults", tests);
}
