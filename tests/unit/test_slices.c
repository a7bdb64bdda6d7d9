/* SPDX-License-Identifier: MIT */
/*
 * Requests over very many clusters run in slices, so that no other request waits long for the turn,
 * and a suspend stops them between clusters.
 */
#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum { CLUSTER = 4096, CLUSTERS = 16000 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

/* A disk of 16,000 clusters, all mapped. */
static void ready(struct rig *rig, bool wakes)
{
    rig_create(rig, 2, at(CLUSTERS), CLUSTER, 0);
    if (!wakes) {
        rig->config.clock = NULL;
    }
    rig->config.flags = PLOOP_DEV_WRITE_ZEROS_AS_DATA;
    rig_open(rig);
    uint8_t *bytes = calloc(1000, CLUSTER);
    for (uint64_t i = 0; i < CLUSTERS; i += 1000) {
        ck_assert_int_eq(ploop_dev_pwrite(rig->dev, bytes, 1000 * CLUSTER, at(i)), 1000 * CLUSTER);
    }
    ck_assert_int_eq(ploop_dev_flush(rig->dev), 0);
    ck_assert_uint_eq(rig_info(rig).clusters_mapped, CLUSTERS);
    free(bytes);
    script_forget(&rig->script);
}

/* Run the device until the request is done. Returns the number of runs. */
static uint64_t run_until_done(struct rig *rig, const struct req *req)
{
    uint64_t runs = 0;
    for (; !req_done(req); runs++) {
        ck_assert_uint_eq(ploop_dev_next_deadline(rig->dev), 0);
        uint64_t mapped = rig_info(rig).clusters_mapped;
        ploop_dev_run(rig->dev);
        /* parts that waited can end too, so a run can remove a few more than one share */
        ck_assert_uint_le(mapped - rig_info(rig).clusters_mapped, 2000);
        ck_assert_uint_lt(runs, CLUSTERS);
    }
    return runs;
}

START_TEST(a_discard_of_many_clusters_is_sliced)
{
    struct rig rig;
    struct req discard, other;
    ready(&rig, true);
    req_discard(&discard, &rig, 0, at(CLUSTERS));
    ck_assert(!req_done(&discard));
    ck_assert_uint_ge(rig_info(&rig).clusters_mapped, CLUSTERS - 200);
    ck_assert_uint_eq(rig.clock.wake_at_ns, 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), 0);
    /* Another request is not delayed, on the fast path or off it. */
    req_write(&other, &rig, at(CLUSTERS - 1), 512, 1, 0);
    ck_assert(req_done(&other));
    ck_assert_int_eq(req_end(&other), 0);
    req_read(&other, &rig, at(CLUSTERS - 2), 2 * CLUSTER);
    ck_assert(req_done(&other));
    ck_assert_int_eq(req_end(&other), 0);
    ck_assert_uint_ge(run_until_done(&rig, &discard), 30);
    ck_assert_int_eq(req_end(&discard), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    rig_end(&rig);
}
END_TEST

/* Without the embedder's clock a thread that waits for its queue continues the slices. */
START_TEST(a_thread_that_waits_needs_no_clock)
{
    struct rig rig;
    struct req discard;
    ready(&rig, false);
    req_discard(&discard, &rig, 0, at(CLUSTERS));
    ck_assert(!req_done(&discard));
    while (!discard.calls) {
        ck_assert_int_ge(ploop_queue_wait(rig.queue, UINT64_MAX), 0);
    }
    ck_assert_int_eq(req_end(&discard), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(shares_are_dealt_in_turn)
{
    struct rig rig;
    struct req first, second;
    ready(&rig, true);
    req_discard(&first, &rig, 0, at(CLUSTERS / 2));
    req_discard(&second, &rig, at(CLUSTERS / 2), at(CLUSTERS / 8));
    ck_assert(!req_done(&first) && !req_done(&second));
    run_until_done(&rig, &second);
    ck_assert(!req_done(&first));
    run_until_done(&rig, &first);
    ck_assert_int_eq(req_end(&first), 0);
    ck_assert_int_eq(req_end(&second), 0);
    rig_end_with_leaks(&rig);
}
END_TEST

/* The engine steps over a page of the map, 1,024 clusters, at once if it maps nothing. */
START_TEST(what_is_not_mapped_is_stepped_over_by_page)
{
    struct rig rig;
    const uint64_t clusters = UINT64_C(1) << 24;
    rig_create(&rig, 2, at(clusters), CLUSTER, 0);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(5000), CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_write(&rig, at(clusters - 1), CLUSTER, 1, 0), 0);
    for (int zeroes = 0; zeroes < 2; zeroes++) {
        struct req req;
        uint64_t runs = 0;
        if (zeroes) {
            req_zeroes(&req, &rig, 0, at(clusters), 0);
        } else {
            req_discard(&req, &rig, 512, at(clusters) - 512);
        }
        for (; !req_done(&req); runs++) {
            ploop_dev_run(rig.dev);
        }
        ck_assert_int_eq(req_end(&req), 0);
        /* 16,385 pages, 2,048 in each run, and the parts */
        ck_assert_uint_ge(runs, 8);
        ck_assert_uint_le(runs, 20);
        ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
        rig_expect(&rig, at(5000), CLUSTER, 0);
    }
    rig_end(&rig);
}
END_TEST

/*
 * The bytes that a failed write has left in a cluster shared with another write must not be visible
 * under zeros: the engine does not step over such a page.
 */
START_TEST(a_place_that_writes_share_is_not_stepped_over)
{
    struct rig rig;
    struct req failing, good, zeroes;
    rig_usual(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&failing, &rig, at(7), 512, 1, 0);
    req_write(&good, &rig, at(7) + 1024, 512, 2, 0);
    req_zeroes(&zeroes, &rig, at(4), at(8), 0);
    ck_assert(!req_done(&zeroes));
    rig.script.hold = 0;
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&failing), 0);
    ck_assert_int_eq(req_wait(&good), 0);
    ck_assert_int_eq(req_wait(&zeroes), 0);
    rig_expect(&rig, at(4), at(8), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(fua_zeros_wait_for_removals_everywhere)
{
    struct rig rig;
    ready(&rig, true);
    ck_assert_int_eq(rig_discard(&rig, 0, at(CLUSTERS)), 0);
    ck_assert_uint_gt(rig_info(&rig).pages_dirty, 0);
    ck_assert_int_eq(rig_zeroes(&rig, 0, at(CLUSTERS), PLOOP_PIO_FUA), 0);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    for (uint32_t i = 0; i < CLUSTERS; i++) {
        ck_assert_uint_eq(rig_file_entry(&rig, i), 0);
    }
    rig_end(&rig);
}
END_TEST

/* ---- suspend ---- */

/* The backend's `wait`. */
static void complete_all(struct script *script, void *argument)
{
    (void)argument;
    while (script->held_count) {
        script_release(script, 0);
    }
}

START_TEST(suspend_stops_a_request_between_clusters)
{
    struct rig rig;
    struct req discard;
    ready(&rig, true);
    req_discard(&discard, &rig, 0, at(CLUSTERS));
    ploop_dev_run(rig.dev);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert(!req_done(&discard));
    uint64_t mapped = rig_info(&rig).clusters_mapped;
    ck_assert_uint_ge(mapped, CLUSTERS / 2);
    for (int i = 0; i < 10; i++) {
        ploop_dev_run(rig.dev);
    }
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, mapped);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    run_until_done(&rig, &discard);
    ck_assert_int_eq(req_end(&discard), 0);
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, 0);
    rig_end(&rig);
}
END_TEST

/* The same with its parts at the backend: those end, and no further one begins. */
START_TEST(suspend_waits_for_parts_not_for_requests)
{
    struct rig rig;
    struct req write;
    ready(&rig, true);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    rig.script.idle = complete_all;
    req_write(&write, &rig, 0, at(CLUSTERS / 2), 1, 0);
    uint64_t parts = rig.script.submitted[PLOOP_IO_WRITE];
    ck_assert_uint_gt(parts, 0);
    ck_assert_uint_lt(parts, CLUSTERS / 4);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert(!req_done(&write));
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], parts);
    rig.script.hold = 0;
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(req_wait(&write), 0);
    rig_expect(&rig, 0, at(CLUSTERS / 2), 1);
    rig_end(&rig);
}
END_TEST

/* Held by a suspend, or waiting for its turn. */
START_TEST(close_and_abort_end_a_request_that_is_not_over)
{
    for (int abort = 0; abort < 2; abort++) {
        struct rig rig;
        struct req discard;
        ready(&rig, true);
        req_discard(&discard, &rig, 0, at(CLUSTERS));
        if (_i) {
            ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
        }
        ck_assert(!req_done(&discard));
        rig.script.naps = 0;
        if (abort) {
            ploop_dev_abort(rig.dev);
        } else {
            ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
        }
        rig.dev = NULL;
        ck_assert(req_done(&discard));
        ck_assert_int_eq(discard.result, abort ? -ECANCELED : 0);
        ck_assert_uint_le(rig.script.naps, 10); /* none between slices */
        rig_free(&rig);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_discard_of_many_clusters_is_sliced,
        a_thread_that_waits_needs_no_clock,
        shares_are_dealt_in_turn,
        what_is_not_mapped_is_stepped_over_by_page,
        a_place_that_writes_share_is_not_stepped_over,
        fua_zeros_wait_for_removals_everywhere,
        suspend_stops_a_request_between_clusters,
        suspend_waits_for_parts_not_for_requests,
    };
    TCase *flat = tcase_create("slices");
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(flat, tests[i]);
    }
    tcase_add_loop_test(flat, close_and_abort_end_a_request_that_is_not_over, 0, 2);
    return run_case("slices", flat);
}
