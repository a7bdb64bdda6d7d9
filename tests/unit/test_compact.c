/* SPDX-License-Identifier: MIT */
/*
 * The file becomes shorter while its disk is used: what is cut off, what goes on meanwhile, and
 * what a failure or a cancel leaves. The simulator has the power cuts (sim --grow).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <ploop/ops.h>

/* Of the clusters of the disk the first are discarded, so that the others leave holes. */
enum { CLUSTER = 4096, CLUSTERS = 60, GONE = 40 };

struct compacter {
    struct rig rig;
    ploop_job *job;
    uint32_t ends;
    int result;
};

static void ended(void *user_data, ploop_job *job, int result)
{
    struct compacter *compacter = user_data;
    ck_assert_ptr_eq(job, compacter->job);
    compacter->ends++;
    compacter->result = result;
}

static uint8_t byte_of(uint64_t cluster)
{
    return (uint8_t)(cluster % 250 + 1);
}

static void open_with_holes(struct compacter *compacter, uint32_t version)
{
    struct rig *rig = &compacter->rig;
    memset(compacter, 0, sizeof(*compacter));
    rig_create(rig, version, CLUSTERS * CLUSTER, CLUSTER, 0);
    rig->config.preallocate_bytes = 4 * CLUSTER;
    rig_open(rig);
    for (uint64_t n = 0; n < CLUSTERS; n++) {
        ck_assert_int_eq(rig_write(rig, n * CLUSTER, CLUSTER, byte_of(n), 0), 0);
    }
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_int_eq(rig_discard(rig, 0, (uint64_t)GONE * CLUSTER), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    rig_advance(rig, UINT64_C(5000) * MS);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

static int begin(struct compacter *compacter)
{
    compacter->ends = 0;
    return ploop_dev_compact(compacter->rig.dev, ended, compacter, &compacter->job);
}

static int finish(struct compacter *compacter)
{
    for (int i = 0; compacter->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a job does not end");
        rig_advance(&compacter->rig, 3 * MS);
        ploop_queue_run(compacter->rig.queue);
    }
    ck_assert_int_eq(ploop_job_wait(compacter->job), compacter->result);
    ck_assert_int_eq(ploop_job_free(compacter->job), 0);
    return compacter->result;
}

static void expect_content(struct rig *rig)
{
    for (uint64_t n = 0; n < CLUSTERS; n++) {
        rig_expect(rig, n * CLUSTER, CLUSTER, n < GONE ? 0 : byte_of(n));
    }
}

START_TEST(the_file_is_as_long_as_what_it_holds)
{
    for (uint32_t version = 1; version <= 2; version++) {
        struct compacter compacter;
        struct rig *rig = &compacter.rig;
        struct ploop_job_info info = {.size = sizeof(info)};
        open_with_holes(&compacter, version);
        ck_assert_uint_ge(rig->script.file_size, rig->data_start + CLUSTERS * CLUSTER);
        ck_assert_int_eq(begin(&compacter), 0);
        ck_assert_int_eq(ploop_job_info(compacter.job, &info), 0);
        ck_assert_uint_eq(info.kind, PLOOP_JOB_COMPACT);
        ck_assert_int_eq(finish(&compacter), 0);
        ck_assert_uint_eq(rig->script.file_size,
                          rig->data_start + (uint64_t)(CLUSTERS - GONE) * CLUSTER);
        ck_assert_uint_eq(rig_info(rig).file_size, rig->script.file_size);
        ck_assert_uint_eq(rig_info(rig).disk_size, CLUSTERS * CLUSTER);
        expect_content(rig);
        /* It becomes longer again when that is needed, and what is new in it is zeros. */
        ck_assert_int_eq(rig_write(rig, 0, 512, 0x77, 0), 0);
        rig_expect(rig, 0, 512, 0x77);
        rig_expect(rig, 512, CLUSTER - 512, 0);
        ck_assert_int_eq(rig_discard(rig, 0, CLUSTER), 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_int_eq(begin(&compacter), 0);
        ck_assert_int_eq(finish(&compacter), 0);
        expect_content(rig);
        rig_close_dev(rig);
        ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
        rig_open(rig);
        expect_content(rig);
        rig_end(rig);
    }
}
END_TEST

START_TEST(requests_go_on_meanwhile)
{
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct compacter compacter;
        struct rig *rig = &compacter.rig;
        uint8_t model[CLUSTERS];
        uint64_t random = seed;
        open_with_holes(&compacter, seed % 2 + 1);
        for (uint64_t n = 0; n < CLUSTERS; n++) {
            model[n] = n < GONE ? 0 : byte_of(n);
        }
        ck_assert_int_eq(begin(&compacter), 0);
        ploop_job_set_rate(compacter.job, 1000 * CLUSTER);
        while (compacter.ends == 0) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint64_t n = (random >> 33) % CLUSTERS;
            if (random >> 60 & 1) {
                ck_assert_int_eq(rig_discard(rig, n * CLUSTER, CLUSTER), 0);
                model[n] = 0;
            } else {
                model[n] = (uint8_t)(random >> 50) | 1;
                ck_assert_int_eq(rig_write(rig, n * CLUSTER, CLUSTER, model[n], 0), 0);
            }
            rig_advance(rig, MS);
            ploop_queue_run(rig->queue);
        }
        ck_assert_int_eq(finish(&compacter), 0);
        for (uint64_t n = 0; n < CLUSTERS; n++) {
            rig_expect(rig, n * CLUSTER, CLUSTER, model[n]);
        }
        rig_end_with_leaks(rig);
    }
}
END_TEST

/* The nth write, page write, SYNC, read or cut fails: the disk reads the same, and goes on. */
START_TEST(a_failure_anywhere_changes_no_content)
{
    static const uint32_t kinds[] = {PLOOP_IO_WRITE, SCRIPT_META, PLOOP_IO_SYNC, PLOOP_IO_READ,
                                     PLOOP_IO_TRUNCATE};
    uint32_t failed = 0;
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        int error = 1;
        for (uint64_t after = 0; error; after++) {
            struct compacter compacter;
            struct rig *rig = &compacter.rig;
            open_with_holes(&compacter, 2);
            script_fail(&rig->script, kinds[kind], after, 1, -EIO);
            ck_assert_int_eq(begin(&compacter), 0);
            error = finish(&compacter);
            ck_assert(error == 0 || error == -EIO);
            failed += error != 0;
            script_fail(&rig->script, kinds[kind], 0, 0, 0);
            expect_content(rig);
            if (error && kinds[kind] == PLOOP_IO_SYNC) {
                ck_assert_int_eq(ploop_dev_close(rig->dev), -EIO);
                rig->dev = NULL;
                rig_free(rig);
                continue;
            }
            ck_assert_int_eq(rig_write(rig, 0, 512, 0x77, 0), 0);
            rig_expect(rig, 512, CLUSTER - 512, 0);
            ck_assert_int_eq(rig_discard(rig, 0, CLUSTER), 0);
            rig_advance(rig, UINT64_C(20000) * MS);
            ck_assert_int_eq(rig_flush(rig), 0);
            ck_assert_int_eq(begin(&compacter), 0);
            ck_assert_int_eq(finish(&compacter), 0);
            expect_content(rig);
            rig_end_with_leaks(rig);
        }
    }
    ck_assert_uint_gt(failed, 10);
}
END_TEST

static void release_idle(struct script *script, void *argument)
{
    (void)argument;
    script_release_all(script);
}

/*
 * While the file is cut no cluster is handed out. A suspend that comes then waits for a write that
 * needs one: so the cut goes on until it is durable, whatever was held.
 */
START_TEST(a_suspend_during_the_cut_does_not_wait_for_ever)
{
    static const uint32_t kinds[] = {PLOOP_IO_TRUNCATE, PLOOP_IO_SYNC};
    for (uint32_t i = 0; i < 2; i++) {
        struct compacter compacter;
        struct rig *rig = &compacter.rig;
        struct req write;
        open_with_holes(&compacter, 2);
        rig->script.hold = SCRIPT_BIT(PLOOP_IO_TRUNCATE);
        ck_assert_int_eq(begin(&compacter), 0);
        for (int n = 0; script_held_of(&rig->script, PLOOP_IO_TRUNCATE) == 0; n++) {
            ck_assert_msg(n < 1000, "no cut");
            rig_advance(rig, 3 * MS);
        }
        req_write(&write, rig, 0, CLUSTER, 77, 0);
        ck_assert(!req_done(&write));
        rig->script.hold = SCRIPT_BIT(kinds[i]);
        if (kinds[i] == PLOOP_IO_SYNC) {
            ck_assert(script_release_kind(&rig->script, PLOOP_IO_TRUNCATE));
        }
        rig->script.idle = release_idle;
        ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
        ck_assert(req_done(&write));
        ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        ck_assert_int_eq(req_wait(&write), 0);
        ck_assert_int_eq(finish(&compacter), 0);
        rig_expect(rig, 0, CLUSTER, 77);
        rig_end(rig);
    }
}
END_TEST

START_TEST(a_rate_is_kept_and_a_cancel_heard)
{
    struct compacter compacter;
    struct rig *rig = &compacter.rig;
    struct ploop_job_info info = {.size = sizeof(info)};
    open_with_holes(&compacter, 2);
    rig->script.hold = SCRIPT_ALL;
    ck_assert_int_eq(begin(&compacter), 0);
    ploop_job_set_rate(compacter.job, 10 * CLUSTER);
    rig->script.hold = 0;
    script_release_all(&rig->script);
    for (int i = 0; i < 100; i++) { /* half a second */
        rig_advance(rig, 5 * MS);
        ploop_queue_run(rig->queue);
    }
    ck_assert_int_eq(ploop_job_info(compacter.job, &info), 0);
    ck_assert_uint_eq(info.bytes_total, (uint64_t)(CLUSTERS - GONE) * CLUSTER);
    ck_assert_uint_ge(info.bytes_done, 4 * CLUSTER);
    ck_assert_uint_le(info.bytes_done, 8 * CLUSTER);
    ck_assert_int_eq(ploop_job_cancel(compacter.job), 0);
    ck_assert_int_eq(finish(&compacter), -ECANCELED);
    expect_content(rig);
    ploop_job *none;
    ck_assert_int_eq(ploop_dev_compact(rig->dev, NULL, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_dev_compact(NULL, NULL, NULL, &none), -EINVAL);
    rig_end_with_leaks(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        the_file_is_as_long_as_what_it_holds,
        requests_go_on_meanwhile,
        a_failure_anywhere_changes_no_content,
        a_rate_is_kept_and_a_cancel_heard,
        a_suspend_during_the_cut_does_not_wait_for_ever,
    };
    return RUN_TESTS("compact", tests);
}
