/* SPDX-License-Identifier: MIT */
/* Stacks of deltas: which fit together, what shows through, and what a change of the top does (R8, R9). */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"

enum { CLUSTER = 4096, ENTRIES = 1100, SECTORS = ENTRIES * 8 };

/* Host cluster n holds 0xA0 + n, so that a byte tells where it comes from. */
static const uint32_t base_map[] = {0, 1, 1, 2, 2, 3, 1099, 4, 0, 0};
static const uint32_t middle_map[] = {1, 5, 3, 6, 0, 0};
static const uint32_t top_map[] = {2, 1, 4, 2, 0, 0};

struct tower {
    struct rig rig;
    struct script lowers[RIG_LOWERS_MAX];
};

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void open_script(struct script *script, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    script_open(script, image, size, 0);
    script->meta_end = image_data_start(image);
    free(image);
}

static void tower_add(struct tower *tower, const struct image_plan *plan)
{
    struct script *script = &tower->lowers[tower->rig.lower_count];
    open_script(script, plan);
    tower->rig.lowers[tower->rig.lower_count++] = script->file;
}

static void tower_add_raw(struct tower *tower, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    memset(bytes, 0xB0, size);
    script_open(&tower->lowers[0], bytes, size, 0);
    free(bytes);
    tower->rig.lowers[0] = tower->lowers[0].file;
    tower->rig.lower_count = 1;
    tower->rig.config.flags |= PLOOP_DEV_RAW_BASE;
}

static void tower_top(struct tower *tower, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    rig_adopt(&tower->rig, image, size, 0);
    free(image);
}

/* Top and base, for which `version` is the format's, not open yet. */
static void tower_of_two(struct tower *tower, uint32_t version)
{
    tower_top(tower, &(struct image_plan){.version = version, .map = top_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = base_map});
}

static void forget_all(struct tower *tower)
{
    script_forget(&tower->rig.script);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        script_forget(&tower->lowers[i]);
    }
}

static void tower_open(struct tower *tower)
{
    rig_open(&tower->rig);
    forget_all(tower);
}

static uint64_t changes(const struct script *script)
{
    return script->submitted[PLOOP_IO_WRITE] + script->submitted[SCRIPT_META] + script->submitted[PLOOP_IO_SYNC] +
           script->submitted[PLOOP_IO_PUNCH] + script->submitted[PLOOP_IO_TRUNCATE] + script->submitted[PLOOP_IO_ALLOCATE];
}

static void tower_free(struct tower *tower)
{
    rig_free(&tower->rig);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        script_close(&tower->lowers[i]);
    }
}

/* Closed clean, the top blessed, the lower deltas untouched since they were last forgotten. */
static void tower_end(struct tower *tower)
{
    rig_close_dev(&tower->rig);
    ck_assert_int_ne(oracle_status(tower->rig.script.bytes, tower->rig.script.file_size), 2);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        ck_assert_uint_eq(changes(&tower->lowers[i]), 0);
    }
    tower_free(tower);
}

/* ---- what shows through ---- */

START_TEST(the_uppermost_delta_that_has_a_cluster_shows)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct tower tower;
        uint32_t version = 1 + i % 2;
        tower_top(&tower, &(struct image_plan){.version = version, .map = top_map});
        tower_add(&tower, &(struct image_plan){.version = version, .map = base_map});
        tower_add(&tower, &(struct image_plan){.version = version, .map = middle_map});
        tower.rig.config.flags |= i & 2 ? PLOOP_DEV_READ_ONLY : 0;
        tower.rig.config.flags |= i & 4 ? PLOOP_DEV_NO_FAST_PATH : 0;
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        ck_assert_uint_eq(rig_info(rig).delta_count, 3);
        rig_expect(rig, at(0), CLUSTER, 0xA0);
        rig_expect(rig, at(1), CLUSTER, 0xA4);
        rig_expect(rig, at(2), CLUSTER, 0xA0);
        rig_expect(rig, at(3), CLUSTER, 0xA5);
        rig_expect(rig, at(4), CLUSTER, 0xA1);
        rig_expect(rig, at(5), 1000 * CLUSTER, 0);
        rig_expect(rig, at(1099), CLUSTER, 0xA3);
        rig_expect(rig, at(1) + 512, 1024, 0xA4);
        struct req req;
        req_read(&req, rig, 0, 6 * CLUSTER);
        ck_assert_int_eq(req.result, 0);
        static const uint8_t shown[] = {0xA0, 0xA4, 0xA0, 0xA5, 0xA1, 0};
        for (uint32_t n = 0; n < 6; n++) {
            ck_assert_uint_eq(((uint8_t *)req.iov.iov_base)[at(n)], shown[n]);
            ck_assert_uint_eq(((uint8_t *)req.iov.iov_base)[at(n) + CLUSTER - 1], shown[n]);
        }
        req_end(&req);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_small_read_of_a_lower_delta_takes_the_fast_path)
{
    struct tower tower;
    tower_of_two(&tower, 2);
    tower_open(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    rig_expect(&tower.rig, at(1), 512, 0xA1);
    ck_assert_uint_eq(rig_info(&tower.rig).requests_fast, 2);
    ck_assert_uint_eq(tower.lowers[0].submitted[PLOOP_IO_READ], 2);
    ck_assert_uint_eq(tower.rig.script.submitted[PLOOP_IO_READ], 0);
    /* What the backend does not simply do, the engine finishes. */
    tower.lowers[0].short_bytes = 512;
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    tower.lowers[0].short_bytes = 0;
    tower.lowers[0].refuse = 1;
    rig_expect(&tower.rig, at(1), CLUSTER, 0xA1);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 1, -EIO);
    struct req req;
    req_read(&req, &tower.rig, at(1), 512);
    ck_assert_int_eq(req_wait(&req), -EIO);
    tower_end(&tower);
}
END_TEST

/* Zeros from a delta's own end on, whatever its last cluster holds; with a small cluster inside one that is longer than a part. */
START_TEST(what_lies_past_a_deltas_end_is_not_seen)
{
    for (uint32_t fast = 0; fast < 2; fast++) {
        struct tower tower;
        tower_top(&tower, &(struct image_plan){.map = top_map});
        tower_add(&tower, &(struct image_plan){.entries = 2, .sectors = 8 + 3, .map = (const uint32_t[]){0, 1, 1, 2, 0, 0}});
        tower.rig.config.flags |= fast ? 0 : PLOOP_DEV_NO_FAST_PATH;
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        rig_expect(rig, at(0), CLUSTER, 0xA0);
        rig_expect(rig, at(1), 3 * 512, 0xA1);
        rig_expect(rig, at(1) + 3 * 512, CLUSTER - 3 * 512, 0);
        rig_expect(rig, at(1) + 512, 512, 0xA1);
        rig_expect(rig, at(1) + 4 * 512, 1024, 0);
        struct req req;
        req_read(&req, rig, at(1), CLUSTER);
        ck_assert_uint_eq(((uint8_t *)req.iov.iov_base)[3 * 512 - 1], 0xA1);
        ck_assert_uint_eq(((uint8_t *)req.iov.iov_base)[3 * 512], 0);
        ck_assert_int_eq(req_end(&req), 0);
        /* A copy of it does not bring it up either. */
        ck_assert_int_eq(rig_write(rig, at(1), 512, 1, 0), 0);
        rig_expect(rig, at(1), 512, 1);
        rig_expect(rig, at(1) + 512, 1024, 0xA1);
        rig_expect(rig, at(1) + 3 * 512, CLUSTER - 3 * 512, 0);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(a_raw_base_shows_as_far_as_it_goes)
{
    static const uint64_t sizes[] = {3 * CLUSTER, 2 * CLUSTER + 1024, 2 * CLUSTER + 700, 300,
                                     0,           1101 * CLUSTER,     1099 * CLUSTER + 1};
    for (uint32_t i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct tower tower;
        uint64_t size = sizes[i / 2];
        tower_top(&tower, &(struct image_plan){.map = (const uint32_t[]){2, 1, 0, 0}});
        tower_add_raw(&tower, size);
        tower.rig.config.flags |= i % 2 ? PLOOP_DEV_NO_FAST_PATH : 0;
        tower_open(&tower);
        struct rig *rig = &tower.rig;
        for (uint64_t cluster = 0; cluster < ENTRIES; cluster += cluster == 4 ? 1095 : 1) {
            uint64_t there = size <= at(cluster) ? 0 : size - at(cluster) < CLUSTER ? size - at(cluster) : CLUSTER;
            struct req req;
            req_read(&req, rig, at(cluster), CLUSTER);
            ck_assert_int_eq(req_wait(&req), 0);
            req_read(&req, rig, at(cluster), CLUSTER);
            for (uint64_t n = 0; n < CLUSTER; n++) {
                uint8_t expected = cluster == 2 ? 0xA0 : n < there ? 0xB0 : 0;
                ck_assert_msg(((uint8_t *)req.iov.iov_base)[n] == expected, "raw of %llu: cluster %llu, byte %llu",
                              (unsigned long long)size, (unsigned long long)cluster, (unsigned long long)n);
            }
            req_end(&req);
        }
        ck_assert_int_eq(rig_write(rig, at(0) + 1024, 512, 1, 0), 0);
        rig_expect(rig, at(0) + 1024, 512, 1);
        rig_expect(rig, at(0) + 1536, 1024, size > CLUSTER ? 0xB0 : 0);
        tower_end(&tower);
    }
}
END_TEST

/* ---- which fit together ---- */

static void refused(struct tower *tower, int error, const char *words)
{
    struct rig *rig = &tower->rig;
    rig->log_lines = 0;
    memset(rig->log_text, 0, sizeof(rig->log_text));
    forget_all(tower);
    ck_assert_int_eq(rig_try_open(rig), error);
    ck_assert_uint_eq(changes(&rig->script), 0);
    for (uint32_t i = 0; i < rig->lower_count; i++) {
        ck_assert_uint_eq(changes(&tower->lowers[i]), 0);
    }
    ck_assert_uint_eq(rig->log_lines, words != NULL);
    ck_assert_msg(!words || strstr(rig->log_text, words), "\"%s\" does not say \"%s\"", rig->log_text, words);
}

START_TEST(deltas_that_do_not_fit_are_refused)
{
    static const struct {
        struct image_plan top, base;
        const char *words;
    } cases[] = {
        {{.version = 2}, {.version = 1}, "delta 0: version 1: not the top delta's, 2"},
        {{.version = 1}, {.version = 2}, "delta 0: version 2: not the top delta's, 1"},
        {{0}, {.cluster_sectors = 16}, "delta 0: cluster size 8192: not the top delta's, 4096"},
        {{.entries = 1099}, {0}, "delta 0: disk size 4505600: larger than that of the delta above it, 4501504"},
        {{.sectors = SECTORS - 1}, {0}, "delta 0: disk size 4505600: larger than that of the delta above it, 4505088"},
    };
    for (uint32_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        struct tower tower;
        struct image_plan top = cases[i / 2].top, base = cases[i / 2].base;
        top.map = MAP_NONE;
        base.map = MAP_NONE;
        tower_top(&tower, &top);
        tower_add(&tower, &base);
        tower.rig.config.flags |= i % 2 ? PLOOP_DEV_READ_ONLY : 0;
        refused(&tower, -EUCLEAN, cases[i / 2].words);
        tower_free(&tower);
    }
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = top_map});
    tower_add(&tower, &(struct image_plan){.map = base_map});
    tower_add(&tower, &(struct image_plan){.entries = 20, .map = middle_map});
    refused(&tower, -EUCLEAN, "delta 0: disk size 4505600: larger than that of the delta above it, 81920");
    tower_free(&tower);
}
END_TEST

START_TEST(a_base_is_raw_because_the_caller_says_so)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = top_map});
    tower_add_raw(&tower, CLUSTER);
    tower.rig.config.flags = 0;
    refused(&tower, -EINVAL, "delta 0: ");
    /* And an image is a raw file to who says so. */
    tower.rig.config.flags = PLOOP_DEV_RAW_BASE;
    script_close(&tower.lowers[0]);
    open_script(&tower.lowers[0], &(struct image_plan){.map = base_map});
    tower.rig.lowers[0] = tower.lowers[0].file;
    tower_open(&tower);
    char magic[512];
    ck_assert_int_eq(ploop_dev_pread(tower.rig.dev, magic, sizeof(magic), 0), sizeof(magic));
    ck_assert_int_eq(memcmp(magic, "WithouFreSpacExt", 16), 0);
    rig_close_dev(&tower.rig);
    /* The top is never raw. */
    tower.rig.lower_count = 0;
    refused(&tower, -EINVAL, NULL);
    tower.rig.lower_count = 1;
    tower_free(&tower);
}
END_TEST

START_TEST(a_bad_entry_below_is_an_error_to_read_and_not_written_over)
{
    for (uint32_t i = 0; i < 4; i++) {
        struct tower tower;
        tower_top(&tower, &(struct image_plan){.map = top_map});
        tower_add(&tower, &(struct image_plan){.map = base_map});
        uint8_t *base = tower.lowers[0].bytes;
        uint32_t entry = i % 2 ? 9999 : image_entry(base, 0);
        image_set_entry(base, 1, entry);
        char expected[80];
        const char *fault = i % 2 ? "past the end of the file" : "another guest cluster's";
        snprintf(expected, sizeof(expected), "delta 0: BAT[1]=%u: %s", entry, fault);
        refused(&tower, -EUCLEAN, expected);
        tower.rig.config.flags |= PLOOP_DEV_READ_ONLY | (i & 2 ? PLOOP_DEV_NO_FAST_PATH : 0);
        tower_open(&tower);
        struct req req;
        req_read(&req, &tower.rig, at(1) + 512, 512);
        ck_assert_int_eq(req_wait(&req), -EIO);
        struct ploop_extent extent = {.size = sizeof(extent)};
        ck_assert_int_eq(ploop_bat_lookup(tower.rig.dev, at(1), 1, &extent), -EIO);
        rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
        rig_expect(&tower.rig, at(2), CLUSTER, 0xA0);
        tower_end(&tower);
    }
}
END_TEST

START_TEST(an_unclean_base_is_read_and_recovered)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = top_map});
    tower_add(&tower, &(struct image_plan){.in_use = 0x746F6E59, .map = base_map});
    tower.rig.config.flags = PLOOP_DEV_READ_ONLY;
    tower_open(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    rig_close_dev(&tower.rig);
    tower.rig.config.flags = 0;
    refused(&tower, -EUCLEAN, "delta 0: in_use 0x746f6e59: open elsewhere or not closed cleanly");

    /* Its recovery fails, and with it the open; the top stays as it is. */
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&tower.lowers[0], SCRIPT_META, 0, UINT64_MAX, -EROFS);
    forget_all(&tower);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EROFS);
    ck_assert_msg(strstr(tower.rig.log_text, "delta 0: not closed cleanly, and cannot be recovered"), "%s", tower.rig.log_text);
    ck_assert_uint_eq(changes(&tower.rig.script), 0);

    script_fail(&tower.lowers[0], SCRIPT_META, 0, 0, 0);
    forget_all(&tower);
    ck_assert_int_eq(rig_try_open(&tower.rig), 0);
    ck_assert_uint_gt(tower.lowers[0].submitted[SCRIPT_META], 0);
    ck_assert_int_ne(oracle_status(tower.lowers[0].bytes, tower.lowers[0].file_size), 2);
    forget_all(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    rig_expect(&tower.rig, at(1099), CLUSTER, 0xA3);
    tower_end(&tower);
}
END_TEST

/* ---- changes ---- */

/* A part of a cluster is written: one read below, one write above, and the entry is published behind a SYNC. */
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
        ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0), script_log_find(&rig->script, SCRIPT_META, 0));
        ck_assert_uint_lt(script_log_find(&rig->script, SCRIPT_META, 0), script_log_find(&rig->script, PLOOP_IO_SYNC, 1));
        ck_assert_uint_ne(rig_file_entry(rig, 1), 0);
        /* From now on it is the top's. */
        forget_all(&tower);
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
    ck_assert_uint_lt(script_log_find(&rig->script, PLOOP_IO_SYNC, 0), script_log_find(&rig->script, SCRIPT_META, 0));
    rig_expect(rig, at(0), CLUSTER, 1);
    /* What no delta has needs no barrier. */
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
    uint32_t data = script_log_find(&rig->script, PLOOP_IO_WRITE, 0), page = script_log_find(&rig->script, SCRIPT_META, 0);
    uint32_t barrier = script_log_find(&rig->script, PLOOP_IO_SYNC, 0), last = script_log_find(&rig->script, PLOOP_IO_SYNC, 1);
    ck_assert(data < barrier && barrier < page && page < last);
    tower_end(&tower);
}
END_TEST

/* A page that is due while the copy is under way does not publish it. */
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

/* More than there are buffers, several to one cluster, all at once. */
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
            rig_expect(rig, at(i % 8) + (i / 8) * 512, 512, (uint8_t)(result ? 0xA0 + i % 8 : i + 1));
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
        script_fail(faults[i / 2].below ? &tower.lowers[0] : &rig->script, faults[i / 2].kind, 0, UINT64_MAX, faults[i / 2].error);
        /* What is free in the file goes first. */
        for (uint64_t n = 10; faults[i / 2].kind == PLOOP_IO_TRUNCATE && rig_write(rig, at(n), CLUSTER, 3, 0) == 0;) {
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
    struct image_plan plan = {.cluster_sectors = LARGE / 512, .entries = 4, .host_clusters = 1, .map = MAP_NONE};
    tower_top(&tower, &plan);
    plan.map = (const uint32_t[]){0, 1, 0, 0};
    tower_add(&tower, &plan);
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    /* Over a border between pieces. */
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
        forget_all(&tower);
        uint64_t mapped = rig_info(rig).clusters_mapped;
        ck_assert_int_eq(rig_discard(rig, at(0), 5 * CLUSTER), 0);
        rig_expect(rig, at(0), CLUSTER, 0xA0); /* only below: left alone */
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
        ck_assert_int_eq(rig_zeroes(rig, at(0), CLUSTER, flags | (i & 1 ? 0 : PLOOP_PIO_FAST_ONLY)), 0);
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

/* ---- the rest ---- */

static void expect_extent(struct rig *rig, uint64_t offset, uint64_t length, uint32_t state, uint32_t level)
{
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig->dev, offset, UINT64_MAX, &extent), 0);
    ck_assert_uint_eq(extent.offset, offset);
    ck_assert_uint_eq(extent.length, length);
    ck_assert_uint_eq(extent.state, state);
    ck_assert_uint_eq(extent.level, level);
}

START_TEST(a_lookup_names_the_delta)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = top_map});
    tower_add(&tower, &(struct image_plan){.map = base_map});
    tower_add(&tower, &(struct image_plan){.map = middle_map});
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    expect_extent(rig, at(0), CLUSTER, PLOOP_EXTENT_MAPPED, 0);
    expect_extent(rig, at(1), CLUSTER, PLOOP_EXTENT_MAPPED, 1);
    expect_extent(rig, at(2), CLUSTER, PLOOP_EXTENT_MAPPED, 2);
    expect_extent(rig, at(3), CLUSTER, PLOOP_EXTENT_MAPPED, 1);
    expect_extent(rig, at(5), 1094 * CLUSTER, PLOOP_EXTENT_ZERO, 0);
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig->dev, at(1099) + 7, 9, &extent), 0);
    ck_assert_uint_eq(extent.host_offset, image_data_start(tower.lowers[0].bytes) + 3 * CLUSTER + 7);
    tower_end(&tower);

    tower_top(&tower, &(struct image_plan){.map = top_map});
    tower_add_raw(&tower, at(1) + 1024);
    tower_open(&tower);
    expect_extent(&tower.rig, at(0), CLUSTER + 1024, PLOOP_EXTENT_MAPPED, 0);
    expect_extent(&tower.rig, at(1) + 1024, CLUSTER - 1024, PLOOP_EXTENT_ZERO, 0);
    expect_extent(&tower.rig, at(1) + 2048, CLUSTER - 2048, PLOOP_EXTENT_ZERO, 0);
    tower_end(&tower);
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
            ck_assert_int_eq(writes[i].result, above && i < 4 ? 0 : -ECANCELED); /* those had been written */
            free(writes[i].iov.iov_base);
        }
        tower_free(&tower);
    }
}
END_TEST

START_TEST(memory_that_runs_out_at_open_leaves_nothing)
{
    struct tower tower;
    tower_of_two(&tower, 2);
    tower.rig.config.bat_limit_bytes = 4000;
    refused(&tower, -EFBIG, "bat_entries 1100");
    tower_free(&tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        the_uppermost_delta_that_has_a_cluster_shows,
        a_small_read_of_a_lower_delta_takes_the_fast_path,
        what_lies_past_a_deltas_end_is_not_seen,
        a_raw_base_shows_as_far_as_it_goes,
        deltas_that_do_not_fit_are_refused,
        a_base_is_raw_because_the_caller_says_so,
        a_bad_entry_below_is_an_error_to_read_and_not_written_over,
        an_unclean_base_is_read_and_recovered,
        a_write_to_a_part_copies_the_cluster,
        a_write_of_the_whole_cluster_copies_nothing,
        fua_over_a_copy_is_durable_with_its_entry,
        a_copy_is_entered_when_it_is_there,
        many_copies_at_once,
        a_copy_that_fails_changes_nothing,
        a_large_cluster_is_copied_piece_by_piece,
        a_discard_never_brings_lower_content_back,
        zeros_hide_lower_content,
        a_lookup_names_the_delta,
        an_abort_ends_copies_under_way,
        memory_that_runs_out_at_open_leaves_nothing,
    };
    return RUN_TESTS("stack", tests);
}
