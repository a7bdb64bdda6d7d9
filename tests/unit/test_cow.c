/* SPDX-License-Identifier: MIT */
/* How changes of the top treat clusters that a lower delta has (R8, R9). */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "file/file.h"

/*
 * A write to a part of a cluster causes one read below and one write above, and publishes the entry
 * behind a SYNC.
 */
START_TEST(a_write_to_a_part_copies_the_cluster)
{
    for (uint32_t i = 0; i < 4; i++) {
        struct tower tower;
        tower_of_two(&tower, 1 + i % 2);
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        uint64_t inside = i & 2 ? 1024 : 0;
        ck_assert_int_eq(rig_write(rig, at(1) + inside, 512, 1, 0), 0);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 1);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 1);
        ck_assert_uint_eq(rig->script.submitted[SCRIPT_META], 0);
        ck_assert_uint_eq(rig_info(rig).clusters_copied, 1);
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, 3);
        rig_expect(rig, at(1) + inside, 512, 1);
        rig_expect(rig, at(1) + inside + 512, CLUSTER - inside - 512, 0xA1);
        if (inside) {
            rig_expect(rig, at(1), inside, 0xA1);
        }
        script_forget(&rig->script);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0),
                          script_log_find(&rig->script, SCRIPT_META, 0));
        ck_assert_uint_lt(script_log_find(&rig->script, SCRIPT_META, 0),
                          script_log_find(&rig->script, PLOOP_IO_SYNC, 1));
        ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
        /* From now on the top has it. */
        tower_forget(&tower);
        ck_assert_int_eq(rig_write(rig, at(1), 512, 2, 0), 0);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 1);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_write_of_the_whole_cluster_copies_nothing)
{
    struct tower tower;
    tower_of_two(&tower, 2);
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(0), CLUSTER, 1, 0), 0);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 1);
    ck_assert_uint_eq(rig_info(rig).clusters_copied, 0);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0),
                      script_log_find(&rig->script, SCRIPT_META, 0));
    rig_expect(rig, at(0), CLUSTER, 1);
    /* A cluster that no delta has needs no barrier. */
    script_forget(&rig->script);
    ck_assert_int_eq(rig_write(rig, at(7), 512, 1, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_SYNC], 1);
    tower_end(&tower);
}
END_TEST

START_TEST(fua_over_a_copy_is_durable_with_its_entry)
{
    struct tower tower;
    tower_of_two(&tower, 2);
    tower.rig.script.capabilities |= PLOOP_FILE_CAN_FUA;
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    ck_assert_int_eq(rig_write(rig, at(1), 512, 1, PLOOP_PIO_FUA), 0);
    ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
    uint32_t data = script_log_find(&rig->script, PLOOP_IO_WRITE, 0),
             page = script_log_find(&rig->script, SCRIPT_META, 0);
    uint32_t barrier = script_log_find(&rig->script, PLOOP_IO_SYNC, 0),
             last = script_log_find(&rig->script, PLOOP_IO_SYNC, 1);
    ck_assert(data < barrier && barrier < page && page < last);
    tower_end(&tower);
}
END_TEST

/* A page that is due while the copy is in progress does not publish it. */
START_TEST(a_copy_is_entered_when_it_is_there)
{
    struct tower tower;
    struct req write, read;
    tower_of_two(&tower, 2);
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&write, rig, at(1), 512, 1, 0);
    ck_assert(!req_done(&write));
    req_read(&read, rig, at(1), 512); /* in line behind it */
    ck_assert(!req_done(&read));
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_uint_eq(rig_file_entry(rig, 1), 0);
    script_release_all(&rig->script);
    ck_assert_int_eq(req_end(&write), 0);
    ck_assert_uint_eq(((uint8_t *)read.iov.iov_base)[0], 1);
    ck_assert_int_eq(req_end(&read), 0);
    tower_end(&tower);
}
END_TEST

/* More copies than there are buffers, several to one cluster, all at once. */
START_TEST(many_copies_at_once)
{
    enum { WRITES = 24 };
    static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 0, 0};
    for (uint32_t failing = 0; failing < 2; failing++) {
        struct tower tower;
        struct req writes[WRITES];
        tower_top(&tower, &(struct image_plan){.map = MAP_NONE});
        tower_add(&tower, &(struct image_plan){.host_clusters = 8, .map = map});
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        tower.lowers[0].hold = SCRIPT_BIT(PLOOP_IO_READ);
        for (uint32_t i = 0; i < WRITES; i++) {
            req_write(&writes[i], rig, at(i % 8) + (i / 8) * 512, 512, (uint8_t)(i + 1), 0);
        }
        ck_assert_uint_eq(tower.lowers[0].held_count, 4);
        script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, failing ? 8 : 0, -EIO);
        script_release_all(&tower.lowers[0]);
        uint32_t failed = 0;
        bool copied[8] = {false};
        for (uint32_t i = 0; i < WRITES; i++) {
            int result = req_wait(&writes[i]);
            ck_assert(result == 0 || result == -EIO);
            failed += result != 0;
            copied[i % 8] |= result == 0;
            rig_expect(rig, at(i % 8) + (i / 8) * 512, 512,
                       (uint8_t)(result ? 0xA0 + i % 8 : i + 1));
        }
        ck_assert_uint_eq(failed, failing ? 8 : 0);
        for (uint32_t i = 0; i < 8; i++) {
            rig_expect(rig, at(i) + 3 * 512, CLUSTER - 3 * 512, (uint8_t)(0xA0 + i));
        }
        uint64_t mapped = 0;
        for (uint32_t i = 0; i < 8; i++) {
            mapped += copied[i];
        }
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, mapped);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_copy_that_fails_changes_nothing)
{
    static const struct {
        bool below;
        uint32_t kind;
        int error;
    } faults[] = {{true, PLOOP_IO_READ, -EIO},
                  {false, PLOOP_IO_WRITE, -EIO},
                  {false, PLOOP_IO_WRITE, -ENOSPC},
                  {false, PLOOP_IO_TRUNCATE, -ENOSPC}};
    for (uint32_t i = 0; i < 2 * sizeof(faults) / sizeof(faults[0]); i++) {
        struct tower tower;
        bool whole = i % 2;
        tower_of_two(&tower, 2);
        tower.rig.script.capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH;
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        script_fail(faults[i / 2].below ? &tower.lowers[0] : &rig->script, faults[i / 2].kind, 0,
                    UINT64_MAX, faults[i / 2].error);
        /* Free space in the file is used first. */
        for (uint64_t n = 10; faults[i / 2].kind == PLOOP_IO_TRUNCATE &&
                              rig_write(rig, at(n), CLUSTER, 3, 0) == 0;) {
            ck_assert_uint_lt(++n, 1000);
        }
        uint64_t mapped = rig_info(rig).clusters_mapped;
        int result = rig_write(rig, at(1) + (whole ? 0 : 512), whole ? CLUSTER : 512, 1, 0);
        ck_assert_int_eq(result, whole && faults[i / 2].below ? 0 : faults[i / 2].error);
        script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 0, 0);
        script_fail(&rig->script, faults[i / 2].kind, 0, 0, 0);
        if (result) {
            ck_assert_uint_eq(rig_info(rig).clusters_mapped, mapped);
            rig_expect(rig, at(1), CLUSTER, 0xA1);
        }
        ck_assert_int_eq(rig_write(rig, at(1), 512, 4, 0), 0);
        rig_expect(rig, at(1), 512, 4);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_large_cluster_is_copied_piece_by_piece)
{
    enum { LARGE = 5 << 19 }; /* 2.5 MiB: two pieces and a half */
    struct tower tower;
    struct image_plan plan = {
        .cluster_sectors = LARGE / 512, .entries = 4, .host_clusters = 1, .map = MAP_NONE};
    tower_top(&tower, &plan);
    plan.map = (const uint32_t[]){0, 1, 0, 0};
    tower_add(&tower, &plan);
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    /* Across a border between pieces. */
    ck_assert_int_eq(rig_write(rig, (1 << 20) - 512, 1024, 1, 0), 0);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 3);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 3);
    rig_expect(rig, 0, (1 << 20) - 512, 0xA0);
    rig_expect(rig, (1 << 20) - 512, 1024, 1);
    rig_expect(rig, (1 << 20) + 512, LARGE - (1 << 20) - 512, 0xA0);
    tower_end(&tower);
}
END_TEST

/* ---- discard and zeros ---- */

START_TEST(a_discard_never_brings_lower_content_back)
{
    for (uint32_t punch = 0; punch < 2; punch++) {
        struct tower tower;
        tower_of_two(&tower, 2);
        tower.rig.script.capabilities = PLOOP_FILE_CAN_GROW | (punch ? PLOOP_FILE_CAN_PUNCH : 0);
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        tower_forget(&tower);
        uint64_t mapped = rig_info(rig).clusters_mapped;
        ck_assert_int_eq(rig_discard(rig, at(0), 5 * CLUSTER), 0);
        rig_expect(rig, at(0), CLUSTER, 0xA0); /* only below: left unchanged */
        rig_expect(rig, at(1), 512, punch ? 0 : 1);
        rig_expect(rig, at(1) + 512, CLUSTER - 512, punch ? 0 : 0xA1);
        rig_expect(rig, at(2), CLUSTER, punch ? 0 : 0xA0);
        rig_expect(rig, at(4), CLUSTER, 0); /* only above: as without lower deltas */
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, mapped - 1);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
        ck_assert_uint_ne(rig_file_entry(rig, 2), 0);
        ck_assert_uint_eq(rig_file_entry(rig, 4), 0);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(zeros_hide_lower_content)
{
    for (uint32_t i = 0; i < 4; i++) {
        struct tower tower;
        uint32_t flags = (i & 1 ? PLOOP_PIO_NO_UNMAP : 0) | (i & 2 ? PLOOP_PIO_FUA : 0);
        tower_of_two(&tower, 2);
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_int_eq(rig_zeroes(rig, at(0), CLUSTER, flags | (i & 1 ? 0 : PLOOP_PIO_FAST_ONLY)),
                         0);
        ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 0);
        ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE], 0);
        rig_expect(rig, at(0), CLUSTER, 0);
        ck_assert_int_eq(rig_zeroes(rig, at(1) + 512, 512, PLOOP_PIO_FAST_ONLY), -ENOTSUP);
        rig_expect(rig, at(1), CLUSTER, 0xA1);
        ck_assert_int_eq(rig_zeroes(rig, at(1) + 512, 512, flags), 0);
        rig_expect(rig, at(1), 512, 0xA1);
        rig_expect(rig, at(1) + 512, 512, 0);
        rig_expect(rig, at(1) + 1024, CLUSTER - 1024, 0xA1);
        ck_assert_int_eq(rig_zeroes(rig, at(2), CLUSTER, flags), 0);
        rig_expect(rig, at(2), CLUSTER, 0);
        ck_assert_int_eq(rig_zeroes(rig, at(4), CLUSTER, flags), 0);
        rig_expect(rig, at(4), CLUSTER, 0);
        ck_assert_int_eq(rig_zeroes(rig, at(9), CLUSTER, flags), 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_uint_ne(rig_file_entry(rig, 0), 0);
        ck_assert_uint_ne(rig_file_entry(rig, 2), 0);
        ck_assert_uint_eq(rig_file_entry(rig, 9), 0);
        rig_close_dev(rig);
        rig_open(rig);
        rig_expect(rig, at(0), CLUSTER, 0);
        rig_expect(rig, at(1) + 512, 512, 0);
        rig_expect(rig, at(2), CLUSTER, 0);
        tower_end(&tower);
    }
}
END_TEST

static void release_held(struct script *script, void *argument)
{
    (void)script;
    script_release_all(argument);
}

START_TEST(an_abort_ends_copies_under_way)
{
    for (uint32_t above = 0; above < 2; above++) {
        struct tower tower;
        struct req writes[6];
        static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 0, 0};
        tower_top(&tower, &(struct image_plan){.map = MAP_NONE});
        tower_add(&tower, &(struct image_plan){.map = map});
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        struct script *held = above ? &rig->script : &tower.lowers[0];
        held->hold = SCRIPT_BIT(above ? PLOOP_IO_WRITE : PLOOP_IO_READ);
        for (uint32_t i = 0; i < 6; i++) {
            req_write(&writes[i], rig, at(i), 512, 1, 0);
        }
        ck_assert_uint_eq(held->held_count, 4);
        rig->script.idle = release_held;
        rig->script.idle_argument = held;
        ploop_dev_abort(rig->dev);
        rig->dev = NULL;
        for (uint32_t i = 0; i < 6; i++) {
            ck_assert(req_done(&writes[i]));
            ck_assert_int_eq(writes[i].result,
                             above && i < 4 ? 0 : -ECANCELED); /* those had been written */
            free(writes[i].iov.iov_base);
        }
        tower_free(&tower);
    }
}
END_TEST

/* Eight clusters below, all of host clusters 0 to 7, and nothing in the top. */
static void tower_of_eight(struct tower *tower)
{
    static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 0, 0};
    tower_top(tower, &(struct image_plan){.host_clusters = 1, .map = MAP_NONE});
    tower_add(tower, &(struct image_plan){.host_clusters = 8, .map = map});
}

/*
 * More copies than there are buffers, and no space for any: no buffer is kept from other requests,
 * and none is lost.
 */
START_TEST(copies_without_space_are_parked)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct tower tower;
        struct req writes[6];
        struct rig *rig = &tower.rig;
        tower_of_eight(&tower);
        rig->config.enospc_policy = PLOOP_ENOSPC_PARK;
        tower_open(&tower);
        /* No host cluster is available, or none that can be written to. */
        script_fail(&rig->script, i ? PLOOP_IO_WRITE : PLOOP_IO_TRUNCATE, 0, UINT64_MAX, -ENOSPC);
        rig->script.capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH;
        for (uint32_t n = 0; n < 6; n++) {
            req_write(&writes[n], rig, at(n) + 1024, 512, (uint8_t)(n + 1),
                      n % 2 ? PLOOP_PIO_FUA : 0);
        }
        uint64_t parked = rig_info(rig).requests_parked, mapped = rig_info(rig).clusters_mapped;
        ck_assert_uint_ge(parked, i ? 6 : 1);
        ck_assert_int_eq(ploop_dev_retry_parked(rig->dev), (int)parked);
        ck_assert_uint_eq(rig_info(rig).requests_parked, parked);
        rig_expect(rig, at(7), CLUSTER, 0xA7);
        for (uint32_t n = 0; n < 6; n++) {
            rig_expect(rig, at(n), 1024, (uint8_t)(0xA0 + n));
        }
        ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
        ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, mapped);
        script_fail(&rig->script, i ? PLOOP_IO_WRITE : PLOOP_IO_TRUNCATE, 0, 0, 0);
        ploop_dev_retry_parked(rig->dev);
        for (uint32_t n = 0; n < 6; n++) {
            ck_assert_int_eq(req_wait(&writes[n]), 0);
            rig_expect(rig, at(n), 1024, (uint8_t)(0xA0 + n));
            rig_expect(rig, at(n) + 1024, 512, (uint8_t)(n + 1));
            rig_expect(rig, at(n) + 1536, CLUSTER - 1536, (uint8_t)(0xA0 + n));
        }
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, 6);
        ck_assert_uint_eq(rig_info(rig).requests_parked, 0);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_suspend_waits_for_copies)
{
    struct tower tower;
    struct req writes[6], late;
    struct rig *rig = &tower.rig;
    tower_of_eight(&tower);
    tower_open(&tower);
    tower.lowers[0].hold = SCRIPT_BIT(PLOOP_IO_READ);
    for (uint32_t n = 0; n < 6; n++) {
        req_write(&writes[n], rig, at(n), 512, 1, 0);
    }
    rig->script.idle = release_held;
    rig->script.idle_argument = &tower.lowers[0];
    ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
    for (uint32_t n = 0; n < 6; n++) {
        ck_assert(req_done(&writes[n]));
        ck_assert_int_eq(req_end(&writes[n]), 0);
        ck_assert_uint_ne(rig_file_entry(rig, n), 0);
    }
    tower_forget(&tower);
    req_write(&late, rig, at(6), 512, 1, 0);
    ck_assert(!req_done(&late));
    ck_assert_uint_eq(script_changes(&rig->script), 0);
    ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
    ck_assert_int_eq(req_wait(&late), 0);
    rig_expect(rig, at(6), 512, 1);
    rig_expect(rig, at(6) + 512, CLUSTER - 512, 0xA6);
    tower_end(&tower);
}
END_TEST

/*
 * The delta below returns EAGAIN, moves a part, accepts only a limited amount at once. The lower
 * channel handles all of it.
 */
START_TEST(a_difficult_lower_delta_is_asked_again)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct tower tower;
        struct req req;
        struct rig *rig = &tower.rig;
        tower_of_eight(&tower);
        rig->config.flags = i & 1 ? PLOOP_DEV_NO_FAST_PATH : 0;
        tower.lowers[0].max_transfer = i & 2 ? 1024 : 0;
        tower_open(&tower);
        tower.lowers[0].short_bytes = i & 4 ? 512 : 0;
        for (uint32_t refusals = 0; refusals < 3; refusals++) {
            tower.lowers[0].refuse = refusals;
            req_read(&req, rig, at(refusals) + 512, 3 * 512);
            for (uint32_t run = 0; run < 4; run++) {
                ploop_dev_run(rig->dev);
            }
            ck_assert(req_done(&req));
            for (uint32_t byte = 0; byte < 3 * 512; byte++) {
                ck_assert_uint_eq(((uint8_t *)req.iov.iov_base)[byte], 0xA0 + refusals);
            }
            ck_assert_int_eq(req_end(&req), 0);
            tower.lowers[0].refuse = refusals;
            ck_assert_int_eq(rig_write(rig, at(refusals) + 512, 512, 1, 0), 0);
            rig_expect(rig, at(refusals), 512, (uint8_t)(0xA0 + refusals));
            rig_expect(rig, at(refusals) + 512, 512, 1);
            rig_expect(rig, at(refusals) + 1024, CLUSTER - 1024, (uint8_t)(0xA0 + refusals));
        }
        tower_end(&tower);
    }
}
END_TEST

static int lower_fd;

static int fd_of_lower(void *context, uint32_t queue)
{
    (void)context;
    (void)queue;
    return lower_fd;
}

/*
 * An event loop is told about each delta that has completions to reap, even if two share a
 * descriptor.
 */
static int nothing_to_reap(void *context, uint32_t queue)
{
    (void)context;
    (void)queue;
    return 0;
}

START_TEST(every_delta_wakes_the_event_loop)
{
    struct tower tower;
    uint64_t one = 1;
    lower_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    tower_of_two(&tower, 2);
    tower_add(&tower, &(struct image_plan){.map = tower_middle_map});
    tower.lowers[0].file->ops.poll_fd = fd_of_lower;
    tower.lowers[1].file->ops.poll_fd = fd_of_lower;
    tower.lowers[0].file->ops.reap = tower.lowers[1].file->ops.reap = nothing_to_reap;
    tower_open(&tower);
    struct pollfd poll_fd = {.fd = ploop_queue_poll_fd(tower.rig.queue), .events = POLLIN};
    ploop_queue_run(tower.rig.queue);
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0);
    ck_assert_int_eq(write(lower_fd, &one, sizeof(one)), sizeof(one));
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 1);
    ck_assert_int_eq(read(lower_fd, &one, sizeof(one)), sizeof(one));
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0);
    tower_end(&tower);
    close(lower_fd);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_write_to_a_part_copies_the_cluster,
        a_write_of_the_whole_cluster_copies_nothing,
        fua_over_a_copy_is_durable_with_its_entry,
        a_copy_is_entered_when_it_is_there,
        many_copies_at_once,
        a_copy_that_fails_changes_nothing,
        a_large_cluster_is_copied_piece_by_piece,
        a_discard_never_brings_lower_content_back,
        zeros_hide_lower_content,
        an_abort_ends_copies_under_way,
        copies_without_space_are_parked,
        a_suspend_waits_for_copies,
        a_difficult_lower_delta_is_asked_again,
        every_delta_wakes_the_event_loop,
    };
    return RUN_TESTS("cow", tests);
}
