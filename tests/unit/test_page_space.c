/* SPDX-License-Identifier: MIT */
/*
 * Space for the BAT itself (F7): create and open allocate its blocks; where that is not possible
 * the policy applies.
 */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* rig_create()'s usual disk: 16,384 entries behind a header of 64 bytes, in whole sectors. */
enum { BAT_BYTES = 66048 };

/* Open fails with that error and a line that says why; no byte has changed. */
static void refused(struct rig *rig, int error, const char *words)
{
    uint64_t size = rig->script.file_size;
    uint8_t *before = malloc(size);
    ck_assert_ptr_nonnull(before);
    memcpy(before, rig->script.bytes, size);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_try_open(rig), error);
    ck_assert_msg(strstr(rig->log_text, words), "%s", rig->log_text);
    ck_assert_uint_eq(rig->script.file_size, size);
    ck_assert_int_eq(memcmp(rig->script.bytes, before, size), 0);
    ck_assert_uint_eq(rig->script.submitted[SCRIPT_META] + rig->script.submitted[PLOOP_IO_WRITE],
                      0);
    free(before);
}

/* ---- the blocks of the BAT ---- */

START_TEST(an_open_allocates_the_bat_before_the_mark)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    ck_assert_int_eq(rig_try_open(&rig), 0);
    uint32_t at = script_log_find(&rig.script, PLOOP_IO_ALLOCATE, 0);
    ck_assert_uint_eq(rig.script.log[at].offset, 0);
    ck_assert_uint_eq(rig.script.log[at].length, BAT_BYTES);
    ck_assert_uint_lt(at, script_log_find(&rig.script, SCRIPT_META, 0));
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 1);
    rig_end(&rig);
}
END_TEST

/* If the backend cannot allocate, or the open is read-only, the library does not ask for blocks. */
START_TEST(a_bat_is_allocated_where_that_can_be_done)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(rig_try_open(&rig), 0);
    rig_close_dev(&rig);
    rig.config.flags = 0;
    rig.script.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_ALLOCATE;
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 0);
    rig_close_dev(&rig);
    rig.script.capabilities |= PLOOP_FILE_CAN_ALLOCATE;
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, -ENOTSUP);
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 1);
    rig_end(&rig);
}
END_TEST

START_TEST(an_open_without_space_for_the_bat_changes_nothing)
{
    static const int errors[] = {-ENOSPC, -EDQUOT, -EIO};
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    for (uint32_t i = 0; i < 3; i++) {
        script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, errors[i]);
        refused(&rig, errors[i], "blocks of the BAT");
        ck_assert(!rig_file_marked(&rig));
    }
    rig_open(&rig);
    ploop_dev_abort(rig.dev);
    rig.dev = NULL;
    rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, -ENOSPC);
    refused(&rig, -ENOSPC, "blocks of the BAT");
    rig_open(&rig);
    rig_end(&rig);
}
END_TEST

START_TEST(a_recovery_allocates_the_bats_below)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.in_use = 0x746F6E59, .map = tower_base_map});
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&tower.lowers[0], PLOOP_IO_ALLOCATE, 0, 1, -ENOSPC);
    ck_assert_int_eq(rig_try_open(&tower.rig), -ENOSPC);
    ck_assert_uint_eq(tower.lowers[0].submitted[SCRIPT_META], 0);
    ck_assert_uint_eq(script_changes(&tower.rig.script), 0);
    tower_open(&tower);
    tower_end(&tower);
}
END_TEST

/* ---- page writes that find no space ---- */

/* Every kind of request that waits for the map, and the data writes it makes. */
enum kind { FLUSH, PREFLUSH, FUA, FUA_ABSENT, BAT_WRITE, KINDS };

static void begin(struct req *req, struct rig *rig, enum kind kind)
{
    switch (kind) {
    case FLUSH:
        req_flush(req, rig);
        break;
    case PREFLUSH:
        req_write(req, rig, at(5), CLUSTER, 5, PLOOP_PIO_PREFLUSH);
        break;
    case FUA:
        req_write(req, rig, at(5), CLUSTER, 5, PLOOP_PIO_FUA);
        break;
    case FUA_ABSENT:
        req_zeroes(req, rig, at(0), CLUSTER, PLOOP_PIO_FUA);
        break;
    default:
        req_bat_write(req, rig, 0, 2);
    }
}

/* All page writes fail for lack of space, or none does. */
static void pages_are_full(struct rig *rig, bool full)
{
    script_fail(&rig->script, SCRIPT_META, 0, full ? UINT64_MAX : 0, -ENOSPC);
}

/* Open, cluster 0 durable, cluster 1 written, page 0 dirty, and no space for any page. */
static void rig_pages_full(struct rig *rig, uint32_t policy, uint64_t timeout_ns)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.enospc_policy = policy;
    rig->config.park_timeout_ns = timeout_ns;
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, at(0), CLUSTER, 0xA0, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(rig_write(rig, at(1), CLUSTER, 0xA1, 0), 0);
    pages_are_full(rig, true);
    script_forget(&rig->script);
}

static uint64_t parked(struct rig *rig)
{
    return rig_info(rig).requests_parked;
}

static bool refused_to_allocate(struct rig *rig)
{
    return rig_info(rig).state & PLOOP_STATE_ALLOCATION_REFUSED;
}

START_TEST(what_waits_for_a_page_waits_for_its_space)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
        begin(&req, &rig, kind);
        ck_assert(!req_done(&req));
        ck_assert_uint_eq(parked(&rig), 1);
        ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_PARKED], 1);
        uint64_t data = rig.script.submitted[PLOOP_IO_WRITE];
        ck_assert_uint_eq(data, kind == FUA);

        /* Every try reaches the disk, and the request stays parked. */
        uint64_t tries = rig_page_writes(&rig);
        for (uint32_t i = 0; i < 5; i++) {
            ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 1);
            ck_assert_uint_gt(rig_page_writes(&rig), tries);
            tries = rig_page_writes(&rig);
        }
        ck_assert(!req_done(&req));
        ck_assert_uint_eq(rig.events[PLOOP_EVENT_RESUMED], 0);

        pages_are_full(&rig, false);
        ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 1);
        ck_assert_int_eq(req_end(&req), 0);
        ck_assert_uint_eq(parked(&rig), 0);
        ck_assert_uint_eq(rig.events[PLOOP_EVENT_RESUMED], 1);
        ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], kind == FUA || kind == PREFLUSH);
        ck_assert_uint_ne(rig_file_entry(&rig, 1), 0);
        ck_assert_uint_eq(rig_file_entry(&rig, 0) == 0, kind == FUA_ABSENT);
        ck_assert_uint_eq(rig_file_entry(&rig, 5) != 0, kind == FUA);
        rig_expect(&rig, at(5), CLUSTER, kind == FUA || kind == PREFLUSH ? 5 : 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

START_TEST(the_clock_tries_again_what_waits_for_a_page)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
        begin(&req, &rig, kind);
        pages_are_full(&rig, false);
        for (uint32_t i = 0; i < 20 && !req_done(&req); i++) {
            uint64_t next = ploop_dev_next_deadline(rig.dev);
            ck_assert_uint_lt(next, rig.clock.now_ns + 10 * SECOND);
            rig.clock.now_ns = next;
            ploop_dev_run(rig.dev);
        }
        ck_assert_int_eq(req_end(&req), 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

/*
 * A page without space is no failure for page_failure_limit as long as requests would wait for it.
 */
START_TEST(allocations_go_on_while_a_page_waits_for_space)
{
    struct rig rig;
    struct req flush;
    rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
    req_flush(&flush, &rig);
    for (uint64_t i = 0; i < 20; i++) {
        rig_advance(&rig, 20 * SECOND);
        ck_assert(!refused_to_allocate(&rig));
        ck_assert_int_eq(rig_write(&rig, at(10 + i), CLUSTER, (uint8_t)i, 0), 0);
    }
    ck_assert(rig_page(&rig, 0).state & PLOOP_BAT_PAGE_FAILED);
    ck_assert_int_eq(rig_page(&rig, 0).error, -ENOSPC);
    pages_are_full(&rig, false);
    ploop_dev_retry_parked(rig.dev);
    ck_assert_int_eq(req_end(&flush), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 29), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig_end_with_leaks(&rig); /* blocks ahead went back */
}
END_TEST

START_TEST(another_error_counts_while_requests_wait_for_space)
{
    struct rig rig;
    rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
    for (uint32_t i = 0; i < 5; i++) {
        rig_advance(&rig, 20 * SECOND);
    }
    script_fail(&rig.script, SCRIPT_META, 0, 3, -EIO);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(!refused_to_allocate(&rig));
        ck_assert_int_eq(rig_flush(&rig), -EIO);
    }
    ck_assert(refused_to_allocate(&rig));
    ck_assert_int_eq(rig_write(&rig, at(9), CLUSTER, 1, 0), -EIO);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert(!refused_to_allocate(&rig));
    rig_end(&rig);
}
END_TEST

START_TEST(what_waits_for_a_page_fails_in_time)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 5 * SECOND);
        begin(&req, &rig, kind);
        uint64_t begun = rig.clock.now_ns;
        while (!req_done(&req)) {
            ck_assert_uint_lt(rig.clock.now_ns, begun + 7 * SECOND);
            ck_assert(!refused_to_allocate(&rig));
            rig.clock.now_ns = ploop_dev_next_deadline(rig.dev);
            ploop_dev_run(rig.dev);
        }
        ck_assert_uint_ge(rig.clock.now_ns, begun + 5 * SECOND);
        ck_assert_int_eq(req_end(&req), -ENOSPC);
        ck_assert_uint_eq(parked(&rig), 0);

        /* From now on it is a failure like any other. */
        for (uint32_t i = 0; i < 3; i++) {
            rig_advance(&rig, 20 * SECOND);
        }
        ck_assert(refused_to_allocate(&rig));
        ck_assert_int_eq(rig_write(&rig, at(9), CLUSTER, 1, 0), -ENOSPC);
        pages_are_full(&rig, false);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ck_assert_int_eq(rig_write(&rig, at(9), CLUSTER, 1, 0), 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

START_TEST(a_close_tries_a_page_without_space_once)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
        begin(&req, &rig, kind);
        ck_assert(!req_done(&req));
        int error = ploop_dev_close(rig.dev);
        rig.dev = NULL;
        ck_assert_int_eq(error, -ENOSPC);
        ck_assert_uint_eq(req.calls, 1);
        ck_assert_int_eq(req.result, -ENOSPC);
        free(req.iov.iov_base);
        ck_assert(rig_file_marked(&rig));
        rig_free(&rig);
    }
}
END_TEST

START_TEST(a_suspend_tries_a_page_without_space_once)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req, later;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
        begin(&req, &rig, kind);
        uint64_t tries = rig_page_writes(&rig);
        ck_assert_int_eq(ploop_dev_suspend(rig.dev), -ENOSPC);
        ck_assert_uint_eq(rig_page_writes(&rig), tries + 1);
        ck_assert(rig_info(&rig).state & PLOOP_STATE_SUSPENDED);
        req_flush(&later, &rig);
        pages_are_full(&rig, false);
        ploop_dev_retry_parked(rig.dev);
        ck_assert(!req_done(&req) && !req_done(&later));
        ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
        ck_assert_int_eq(req_wait(&later), 0);
        ploop_dev_retry_parked(rig.dev);
        ck_assert_int_eq(req_end(&req), 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

START_TEST(an_abort_ends_what_waits_for_a_page)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
        begin(&req, &rig, kind);
        script_forget(&rig.script);
        ploop_dev_abort(rig.dev);
        rig.dev = NULL;
        ck_assert_uint_eq(req.calls, 1);
        ck_assert_int_eq(req.result, -ECANCELED);
        ck_assert_uint_eq(rig.script.log_count, 0);
        free(req.iov.iov_base);
        rig_free(&rig);
    }
}
END_TEST

/* New space does not bring back what a failed SYNC may have lost. */
START_TEST(a_sync_without_space_is_not_waited_for)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        for (uint32_t latched = 0; latched < 2; latched++) {
            struct rig rig;
            struct req req;
            rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
            pages_are_full(&rig, false);
            script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -ENOSPC);
            if (latched) {
                ck_assert_int_lt(rig_flush(&rig), 0);
            }
            begin(&req, &rig, kind);
            ck_assert_int_lt(req_end(&req), 0);
            ck_assert_uint_eq(rig.events[PLOOP_EVENT_PARKED], 0);
            rig_free(&rig);
        }
    }
}
END_TEST

START_TEST(without_the_policy_a_page_without_space_is_a_failed_page)
{
    for (enum kind kind = FLUSH; kind < KINDS; kind++) {
        struct rig rig;
        struct req req;
        rig_pages_full(&rig, PLOOP_ENOSPC_FAIL, 0);
        begin(&req, &rig, kind);
        ck_assert_int_eq(req_end(&req), -ENOSPC);
        for (uint32_t i = 0; i < 3; i++) {
            rig_advance(&rig, 20 * SECOND);
        }
        ck_assert(refused_to_allocate(&rig));
        ck_assert_int_eq(rig_write(&rig, at(9), CLUSTER, 1, 0), -ENOSPC);
        ck_assert_uint_eq(rig.events[PLOOP_EVENT_PARKED], 0);
        pages_are_full(&rig, false);
        ck_assert_int_eq(rig_flush(&rig), 0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

/* Many requests, with data and without, wait for one page, and end in one round or two. */
START_TEST(many_requests_wait_for_one_page)
{
    struct rig rig;
    struct req reqs[2 * KINDS];
    rig_pages_full(&rig, PLOOP_ENOSPC_PARK, 0);
    for (uint32_t i = 0; i < 2 * KINDS; i++) {
        begin(&reqs[i], &rig, i % KINDS);
    }
    ck_assert_uint_eq(parked(&rig), 2 * KINDS);
    pages_are_full(&rig, false);
    ck_assert_int_eq(ploop_dev_retry_parked(rig.dev), 2 * KINDS);
    for (uint32_t i = 0; i < 2 * KINDS; i++) {
        ck_assert_int_eq(req_end(&reqs[i]), 0);
    }
    ck_assert_uint_eq(rig.events[PLOOP_EVENT_RESUMED], 1);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * One page finds no space, another one a bad disk. That error does not end when space is available,
 * so the flush fails (R5).
 */
START_TEST(a_lack_of_space_does_not_hide_another_error)
{
    for (uint32_t first = 0; first < 2; first++) {
        struct rig rig;
        struct req flush;
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.enospc_policy = PLOOP_ENOSPC_PARK;
        rig_open(&rig);
        ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 1, 0), 0);
        ck_assert_int_eq(rig_write(&rig, at(16300), CLUSTER, 2, 0), 0);
        rig.script.hold = SCRIPT_BIT(SCRIPT_META);
        req_flush(&flush, &rig);
        ck_assert_uint_eq(rig.script.held_count, 2);
        rig.script.hold = 0;
        for (uint32_t i = 0; i < 2; i++) {
            script_fail(&rig.script, SCRIPT_META, 0, 1, i == first ? -ENOSPC : -EIO);
            script_release(&rig.script, 0);
        }
        ck_assert(req_done(&flush));
        ck_assert_int_eq(req_end(&flush), -EIO);
        rig_free(&rig);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {an_open_allocates_the_bat_before_the_mark,
                                  a_bat_is_allocated_where_that_can_be_done,
                                  an_open_without_space_for_the_bat_changes_nothing,
                                  a_recovery_allocates_the_bats_below,
                                  what_waits_for_a_page_waits_for_its_space,
                                  the_clock_tries_again_what_waits_for_a_page,
                                  allocations_go_on_while_a_page_waits_for_space,
                                  another_error_counts_while_requests_wait_for_space,
                                  what_waits_for_a_page_fails_in_time,
                                  a_close_tries_a_page_without_space_once,
                                  a_suspend_tries_a_page_without_space_once,
                                  an_abort_ends_what_waits_for_a_page,
                                  a_sync_without_space_is_not_waited_for,
                                  without_the_policy_a_page_without_space_is_a_failed_page,
                                  many_requests_wait_for_one_page,
                                  a_lack_of_space_does_not_hide_another_error};
    return RUN_TESTS("page_space", tests);
}
