/* SPDX-License-Identifier: MIT */
/*
 * The disk grows (R10): what it leaves, what goes on meanwhile, what is refused, what fails in it,
 * and what a power cut leaves anywhere in it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <ploop/ops.h>

enum { CLUSTER = 4096 };

/* Clusters of the disk before; the BAT then has one cluster, and five for LARGE. */
enum { SMALL = 60, LARGE = 5000, MOVED = 4 };

struct grower {
    struct rig rig;
    ploop_job *job;
    uint32_t ends;
    int result;
};

static void ended(void *user_data, ploop_job *job, int result)
{
    struct grower *grower = user_data;
    ck_assert_ptr_eq(job, grower->job);
    grower->ends++;
    grower->result = result;
}

static uint8_t byte_of(uint64_t cluster)
{
    return (uint8_t)(cluster % 250 + 1);
}

/* Every cluster of the disk but the second is written; the last one may be a part. */
static void open_full(struct grower *grower, uint32_t version, uint64_t disk_size)
{
    memset(grower, 0, sizeof(*grower));
    rig_create(&grower->rig, version, disk_size, CLUSTER, 0);
    grower->rig.config.preallocate_bytes = 4 * CLUSTER;
    rig_open(&grower->rig);
    for (uint64_t n = 0; n * CLUSTER < disk_size; n++) {
        uint64_t left = disk_size - n * CLUSTER;
        ck_assert_int_eq(
            rig_write(&grower->rig, n * CLUSTER, left < CLUSTER ? left : CLUSTER, byte_of(n), 0),
            0);
    }
    if (disk_size >= 2 * CLUSTER) {
        ck_assert_int_eq(rig_discard(&grower->rig, CLUSTER, CLUSTER), 0);
    }
    ck_assert_int_eq(rig_flush(&grower->rig), 0);
    /* What other software left behind the BAT must not become entries. */
    uint64_t entries = (disk_size + CLUSTER - 1) / CLUSTER;
    uint64_t bat_end = (64 + 4 * entries + 511) / 512 * 512;
    memset(grower->rig.script.bytes + bat_end, 0xEE, grower->rig.data_start - bat_end);
    script_forget(&grower->rig.script);
}

static int begin(struct grower *grower, uint64_t disk_size)
{
    grower->ends = 0;
    return ploop_dev_grow(grower->rig.dev, disk_size, ended, grower, &grower->job);
}

static int finish(struct grower *grower)
{
    for (int i = 0; grower->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a job does not end");
        rig_advance(&grower->rig, 3 * MS);
        ploop_queue_run(grower->rig.queue);
    }
    ck_assert_int_eq(ploop_job_wait(grower->job), grower->result);
    ck_assert_int_eq(ploop_job_free(grower->job), 0);
    grower->rig.script.meta_end = image_data_start(grower->rig.script.bytes);
    return grower->result;
}

static int grow(struct grower *grower, uint64_t disk_size)
{
    int error = begin(grower, disk_size);
    return error ? error : finish(grower);
}

static void expect_content(struct rig *rig, uint64_t old_size, uint64_t new_size)
{
    for (uint64_t n = 0; n * CLUSTER < old_size; n++) {
        uint64_t left = old_size - n * CLUSTER;
        rig_expect(rig, n * CLUSTER, left < CLUSTER ? left : CLUSTER, n == 1 ? 0 : byte_of(n));
    }
    for (uint64_t at = old_size; at < new_size; at += 64 * CLUSTER) {
        rig_expect(rig, at, new_size - at < CLUSTER ? new_size - at : CLUSTER, 0);
    }
}

/* ---- what it leaves ---- */

START_TEST(the_map_takes_the_place_of_clusters_that_move)
{
    static const uint64_t sizes[][2] = {{SMALL * CLUSTER, LARGE * CLUSTER},
                                        {SMALL * CLUSTER - 3 * 512, LARGE * CLUSTER - 512},
                                        {SMALL * CLUSTER - 512, SMALL * CLUSTER},
                                        {SMALL * CLUSTER, SMALL * CLUSTER},
                                        {1100 * CLUSTER, LARGE * CLUSTER},
                                        {CLUSTER / 2, 100000 * (uint64_t)CLUSTER}};
    for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct grower grower;
        uint64_t old_size = sizes[i / 2][0], new_size = sizes[i / 2][1];
        struct rig *rig = &grower.rig;
        open_full(&grower, i % 2 + 1, old_size);
        uint64_t mapped = rig_info(rig).clusters_mapped;
        /* What other software left behind the disk's end must not come to be seen. */
        uint64_t last = rig_file_offset(rig, (uint32_t)((old_size - 1) / CLUSTER));
        memset(rig->script.bytes + last + (old_size - 1) % CLUSTER + 1, 0xEE,
               CLUSTER - 1 - (old_size - 1) % CLUSTER);
        ck_assert_int_eq(grow(&grower, new_size), 0);
        ck_assert_uint_eq(rig_info(rig).disk_size, new_size);
        ck_assert_uint_eq(rig->events[PLOOP_EVENT_RESIZED], 1);
        ck_assert_uint_eq(rig->event_value[PLOOP_EVENT_RESIZED], new_size);
        ck_assert_uint_eq(rig_info(rig).clusters_mapped, mapped);
        expect_content(rig, old_size, new_size);
        bool has_room = new_size - old_size >= CLUSTER;
        uint8_t byte = has_room ? 0x77 : 0;
        if (has_room) {
            ck_assert_int_eq(rig_write(rig, new_size - 512, 512, byte, 0), 0);
        }
        rig_close_dev(rig);
        ck_assert_int_ne(oracle_status(rig->script.bytes, rig->script.file_size), 2);
        rig_open(rig);
        ck_assert_uint_eq(rig_info(rig).disk_size, new_size);
        expect_content(rig, old_size, has_room ? new_size - CLUSTER : new_size);
        if (new_size > old_size) {
            rig_expect(rig, new_size - 512, 512, byte);
        }
        rig_end_with_leaks(rig);
    }
}
END_TEST

/* Again and again, and each time what was written before is there. */
START_TEST(a_disk_grows_more_than_once)
{
    struct grower grower;
    struct rig *rig = &grower.rig;
    uint64_t size = SMALL * CLUSTER;
    open_full(&grower, 2, size);
    for (uint64_t round = 0; round < 8; round++) {
        uint64_t larger = size * 3 + 512 * round;
        ck_assert_int_eq(grow(&grower, larger), 0);
        ck_assert_int_eq(rig_write(rig, larger - 512, 512, (uint8_t)(0x50 + round), 0), 0);
        rig_expect(rig, size - 512, 512, round ? (uint8_t)(0x4F + round) : byte_of(SMALL - 1));
        size = larger;
    }
    expect_content(rig, SMALL * CLUSTER, SMALL * CLUSTER);
    rig_end_with_leaks(rig);
}
END_TEST

/*
 * The file ends where the longer BAT is going to lie, with a part of a cluster, or where what is
 * new in it is not known to be zeros (R18): what the BAT takes never becomes free.
 */
START_TEST(a_file_that_ends_where_the_map_will_lie)
{
    for (int stale = 0; stale < 2; stale++) {
        struct grower grower;
        struct rig *rig = &grower.rig;
        uint64_t size = 100000 * (uint64_t)CLUSTER;
        open_full(&grower, 2, SMALL * CLUSTER);
        rig_close_dev(rig);
        rig->config.flags |= stale ? PLOOP_DEV_HOST_SHOWS_STALE : 0;
        rig->script.file_size += stale ? 0 : 700;
        rig_open(rig);
        ck_assert_int_eq(grow(&grower, size), 0);
        for (uint64_t n = 0; n < SMALL; n++) {
            ck_assert_int_eq(rig_write(rig, (SMALL + 100 * n) * CLUSTER, 512, (uint8_t)(n + 1), 0),
                             0);
        }
        for (uint64_t n = 0; n < SMALL; n++) {
            rig_expect(rig, (SMALL + 100 * n) * CLUSTER, 512, (uint8_t)(n + 1));
            rig_expect(rig, (SMALL + 100 * n) * CLUSTER + 512, CLUSTER - 512, 0);
        }
        expect_content(rig, SMALL * CLUSTER, SMALL * CLUSTER);
        rig_end_with_leaks(rig);
    }
}
END_TEST

/* An embedder that runs only what is announced, with a clock that stands still. */
START_TEST(each_step_is_announced)
{
    struct grower grower;
    struct rig *rig = &grower.rig;
    open_full(&grower, 2, SMALL * CLUSTER);
    rig->script.hold = SCRIPT_ALL;
    ck_assert_int_eq(begin(&grower, LARGE * CLUSTER), 0);
    while (grower.ends == 0) {
        struct pollfd poll_fd = {.fd = ploop_queue_poll_fd(rig->queue), .events = POLLIN};
        bool is_due = ploop_dev_next_deadline(rig->dev) <= rig->clock.now_ns;
        if (is_due || poll(&poll_fd, 1, 0) > 0) {
            ploop_queue_run(rig->queue);
        } else {
            ck_assert_msg(rig->script.held_count > 0, "the job waits for a run of others");
            script_release(&rig->script, 0);
        }
    }
    rig->script.hold = 0;
    ck_assert_int_eq(finish(&grower), 0);
    rig_end_with_leaks(rig);
}
END_TEST

/* Writes, reads and discards of all the disk, between the steps of the job. */
START_TEST(requests_go_on_meanwhile)
{
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct grower grower;
        struct rig *rig = &grower.rig;
        uint8_t model[SMALL];
        uint64_t random = seed;
        open_full(&grower, seed % 2 + 1, SMALL * CLUSTER);
        for (uint64_t n = 0; n < SMALL; n++) {
            model[n] = n == 1 ? 0 : byte_of(n);
        }
        ck_assert_int_eq(begin(&grower, LARGE * CLUSTER), 0);
        while (grower.ends == 0) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint64_t n = (random >> 33) % SMALL;
            switch (random >> 60 & 3) {
            case 0:
                ck_assert_int_eq(rig_discard(rig, n * CLUSTER, CLUSTER), 0);
                model[n] = 0;
                break;
            case 1:
                ck_assert_int_eq(rig_flush(rig), 0);
                break;
            default:
                model[n] = (uint8_t)(random >> 50) | 1;
                ck_assert_int_eq(rig_write(rig, n * CLUSTER, CLUSTER, model[n],
                                           random >> 59 & 1 ? PLOOP_PIO_FUA : 0),
                                 0);
            }
            rig_expect(rig, n * CLUSTER, CLUSTER, model[n]);
            rig_advance(rig, MS);
            ploop_queue_run(rig->queue);
        }
        ck_assert_int_eq(finish(&grower), 0);
        for (uint64_t n = 0; n < SMALL; n++) {
            rig_expect(rig, n * CLUSTER, CLUSTER, model[n]);
        }
        rig_end_with_leaks(rig);
    }
}
END_TEST

/* ---- what is refused ---- */

START_TEST(what_does_not_fit_is_refused_before_anything_changes)
{
    struct grower grower;
    struct rig *rig = &grower.rig;
    open_full(&grower, 1, SMALL * CLUSTER);
    ck_assert_int_eq(begin(&grower, SMALL * CLUSTER - 512), -EINVAL);
    ck_assert_int_eq(begin(&grower, LARGE * CLUSTER + 1), -EINVAL);
    ck_assert_int_eq(begin(&grower, UINT64_C(3) << 40), -EFBIG); /* version 1 ends at 2 TiB */
    ck_assert_uint_eq(rig_page_writes(rig), 0);
    rig_end_with_leaks(rig);
    open_full(&grower, 2, SMALL * CLUSTER);
    ck_assert_int_eq(begin(&grower, UINT64_C(2) << 40), -EFBIG); /* more than 1 GiB of BAT */
    ck_assert_int_eq(begin(&grower, UINT64_MAX - 511), -EFBIG);
    ck_assert_int_eq(ploop_dev_grow(rig->dev, LARGE * CLUSTER, NULL, NULL, NULL), -EINVAL);
    rig->script.hold = SCRIPT_ALL;
    ck_assert_int_eq(begin(&grower, LARGE * CLUSTER), 0);
    ploop_job *second;
    ck_assert_int_eq(ploop_dev_grow(rig->dev, LARGE * CLUSTER, NULL, NULL, &second), -EBUSY);
    rig->script.hold = 0;
    script_release_all(&rig->script);
    ck_assert_int_eq(finish(&grower), 0);
    rig_end_with_leaks(rig);
}
END_TEST

/* ---- what fails ---- */

/*
 * The nth write, page write, SYNC or extension fails: the disk is as it was, and goes on; when that
 * is over it can grow.
 */
START_TEST(a_failure_anywhere_leaves_the_old_size)
{
    static const uint32_t kinds[] = {PLOOP_IO_WRITE, SCRIPT_META, PLOOP_IO_SYNC, PLOOP_IO_READ};
    uint32_t failed = 0;
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        int error = 1;
        for (uint64_t after = 0; error; after++) {
            struct grower grower;
            struct rig *rig = &grower.rig;
            bool is_sync = kinds[kind] == PLOOP_IO_SYNC;
            open_full(&grower, 2, SMALL * CLUSTER);
            script_fail(&rig->script, kinds[kind], after, 1, -EIO);
            error = grow(&grower, LARGE * CLUSTER);
            ck_assert(error == 0 || error == -EIO);
            failed += error != 0;
            script_fail(&rig->script, kinds[kind], 0, 0, 0);
            ck_assert_uint_eq(rig_info(rig).disk_size, (error ? SMALL : LARGE) * CLUSTER);
            expect_content(rig, SMALL * CLUSTER, SMALL * CLUSTER);
            if (error && is_sync) {
                ck_assert_int_eq(ploop_dev_close(rig->dev), -EIO);
                rig->dev = NULL;
                rig_free(rig);
                continue;
            }
            rig_advance(rig, UINT64_C(20000) * MS);
            ck_assert_int_eq(rig_flush(rig), 0);
            rig_close_dev(rig);
            rig_open(rig);
            ck_assert_int_eq(grow(&grower, LARGE * CLUSTER), 0);
            expect_content(rig, SMALL * CLUSTER, LARGE * CLUSTER);
            rig_end_with_leaks(rig);
        }
    }
    ck_assert_uint_gt(failed, 10);
}
END_TEST

START_TEST(a_cancelled_one_leaves_the_old_size)
{
    uint32_t cancelled = 0;
    for (uint32_t steps = 0; steps < 200; steps++) {
        struct grower grower;
        struct rig *rig = &grower.rig;
        open_full(&grower, 2, SMALL * CLUSTER);
        rig->script.hold = SCRIPT_ALL;
        ck_assert_int_eq(begin(&grower, LARGE * CLUSTER), 0);
        for (uint32_t i = 0; i < steps && grower.ends == 0; i++) {
            ploop_dev_run(rig->dev);
            if (rig->script.held_count) {
                script_release(&rig->script, 0);
            }
            ploop_queue_run(rig->queue);
        }
        int asked = grower.ends ? -EALREADY : ploop_job_cancel(grower.job);
        script_release_all(&rig->script);
        int error = finish(&grower);
        ck_assert(error == (asked ? 0 : -ECANCELED));
        cancelled += error != 0;
        expect_content(rig, SMALL * CLUSTER, (error ? SMALL : LARGE) * CLUSTER);
        if (error) { /* to a smaller size, and then to that one */
            ck_assert_int_eq(grow(&grower, (SMALL + 2000) * CLUSTER), 0);
            ck_assert_int_eq(grow(&grower, LARGE * CLUSTER), 0);
        }
        rig_end_with_leaks(rig);
        if (asked == -EALREADY) {
            break;
        }
    }
    ck_assert_uint_gt(cancelled, 10);
}
END_TEST

/* ---- power cuts ---- */

enum { OPS_MAX = 256, FILE_MAX = 512 * 1024 };

/* A change that has completed and is not durable. */
struct change {
    uint32_t op;
    uint64_t offset, length;
    uint8_t *bytes;
};

struct world {
    struct grower grower;
    uint8_t *durable, *at_sync, *trial;
    uint64_t durable_size, at_sync_size;
    struct change changes[OPS_MAX];
    uint32_t count, at_sync_count; /* changes before it are in at_sync */
    bool syncs;
    uint32_t judged, grown;
};

static void apply(const struct change *change, uint8_t *bytes, uint64_t *size)
{
    if (change->op == PLOOP_IO_TRUNCATE) {
        uint64_t low = change->offset < *size ? change->offset : *size;
        memset(bytes + low, 0, FILE_MAX - low);
        *size = change->offset;
    } else if (change->op == PLOOP_IO_PUNCH) {
        memset(bytes + change->offset, 0, change->length);
    } else if (change->op == PLOOP_IO_WRITE) {
        memcpy(bytes + change->offset, change->bytes, change->length);
        *size = change->offset + change->length > *size ? change->offset + change->length : *size;
    }
}

/* The disk that a cut leaves opens with RECOVER, and is the old one or the new one. */
static void judge(struct world *world, const uint8_t *bytes, uint64_t size)
{
    struct rig rig;
    rig_adopt(&rig, bytes, size, 0);
    rig.config.flags |= PLOOP_DEV_RECOVER;
    rig_open(&rig);
    uint64_t disk_size = rig_info(&rig).disk_size;
    ck_assert(disk_size == SMALL * CLUSTER - 512 || disk_size == LARGE * CLUSTER);
    expect_content(&rig, SMALL * CLUSTER - 512, disk_size);
    world->judged++;
    world->grown += disk_size == LARGE * CLUSTER;
    rig_end_with_leaks(&rig);
}

/* All of what is not durable, none of it, each alone, and each one missing. */
static void judge_all(struct world *world)
{
    for (uint32_t left = 0; left < 2; left++) {
        for (uint32_t one = 0; one <= world->count; one++) {
            uint64_t size = world->durable_size;
            memcpy(world->trial, world->durable, FILE_MAX);
            for (uint32_t i = 0; i < world->count; i++) {
                if ((i == one) != (left == 1)) {
                    apply(&world->changes[i], world->trial, &size);
                }
            }
            judge(world, world->trial, size);
        }
    }
}

static void take_snapshot(struct world *world)
{
    const struct script *script = &world->grower.rig.script;
    memcpy(world->at_sync, script->bytes, FILE_MAX);
    world->at_sync_size = script->file_size;
    world->at_sync_count = world->count;
}

static void remember(struct world *world, const struct ploop_io *io)
{
    ck_assert_uint_lt(world->count, OPS_MAX);
    struct change *change = &world->changes[world->count++];
    *change = (struct change){.op = io->op, .offset = io->offset, .length = io->length};
    change->bytes = malloc(io->length + 1);
    uint64_t at = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        memcpy(change->bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
        at += io->iov[i].iov_len;
    }
}

static void became_durable(struct world *world)
{
    memcpy(world->durable, world->at_sync, FILE_MAX);
    world->durable_size = world->at_sync_size;
    for (uint32_t i = 0; i < world->at_sync_count; i++) {
        free(world->changes[i].bytes);
    }
    world->count -= world->at_sync_count;
    memmove(world->changes, world->changes + world->at_sync_count,
            world->count * sizeof(world->changes[0]));
    world->syncs = false;
}

/* One request completes, any of those that are held. */
static void step(struct world *world, uint64_t *random)
{
    struct script *script = &world->grower.rig.script;
    ploop_dev_run(world->grower.rig.dev);
    for (uint32_t i = 0; i < script->held_count && !world->syncs; i++) {
        if (script->held[i].io->op == PLOOP_IO_SYNC) {
            world->syncs = true;
            take_snapshot(world);
        }
    }
    if (script->held_count) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        uint32_t at = (uint32_t)((*random >> 33) % script->held_count);
        const struct ploop_io *io = script->held[at].io;
        bool is_sync = io->op == PLOOP_IO_SYNC;
        if (io->op != PLOOP_IO_READ && !is_sync) {
            remember(world, io);
        }
        script_release(script, at);
        if (is_sync) {
            became_durable(world);
        }
        judge_all(world);
    } else {
        rig_advance(&world->grower.rig, MS);
    }
    ploop_queue_run(world->grower.rig.queue);
}

START_TEST(a_cut_anywhere_leaves_the_old_disk_or_the_new)
{
    uint32_t judged = 0, grown = 0, seeds = is_instrumented() ? 1 : 3;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world *world = calloc(1, sizeof(*world));
        uint64_t random = seed;
        open_full(&world->grower, seed % 2 + 1, SMALL * CLUSTER - 512);
        world->durable = calloc(1, FILE_MAX);
        world->at_sync = calloc(1, FILE_MAX);
        world->trial = calloc(1, FILE_MAX);
        take_snapshot(world);
        became_durable(world);
        ck_assert_uint_lt(world->durable_size, FILE_MAX);
        world->grower.rig.script.hold = SCRIPT_ALL;
        ck_assert_int_eq(begin(&world->grower, LARGE * CLUSTER), 0);
        while (world->grower.ends == 0) {
            step(world, &random);
        }
        ck_assert_uint_eq(world->grown > 0, true);
        judged += world->judged;
        grown += world->grown;
        script_release_all(&world->grower.rig.script);
        ck_assert_int_eq(finish(&world->grower), 0);
        for (uint32_t i = 0; i < world->count; i++) {
            free(world->changes[i].bytes);
        }
        rig_end_with_leaks(&world->grower.rig);
        free(world->durable);
        free(world->at_sync);
        free(world->trial);
        free(world);
    }
    ck_assert_uint_gt(judged, grown);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        the_map_takes_the_place_of_clusters_that_move,
        a_disk_grows_more_than_once,
        a_file_that_ends_where_the_map_will_lie,
        each_step_is_announced,
        requests_go_on_meanwhile,
        what_does_not_fit_is_refused_before_anything_changes,
        a_failure_anywhere_leaves_the_old_size,
        a_cancelled_one_leaves_the_old_size,
        a_cut_anywhere_leaves_the_old_disk_or_the_new,
    };
    return RUN_TESTS("grow", tests);
}
