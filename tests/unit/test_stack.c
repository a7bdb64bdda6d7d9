/* SPDX-License-Identifier: MIT */
/* Stacks of deltas: which fit together, and which delta's data is visible. */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/sized.h"

/* ---- the visible data ---- */

START_TEST(the_uppermost_delta_that_has_a_cluster_shows)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct tower tower;
        uint32_t version = 1 + i % 2;
        tower_top(&tower, &(struct image_plan){.version = version, .map = tower_top_map});
        tower_add(&tower, &(struct image_plan){.version = version, .map = tower_base_map});
        tower_add(&tower, &(struct image_plan){.version = version, .map = tower_middle_map});
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
    /* The engine finishes what the backend does only in part. */
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

/*
 * A delta reads as zeros past its own end, whatever its last cluster holds; with a small cluster,
 * inside a cluster that is longer than a part.
 */
START_TEST(what_lies_past_a_deltas_end_is_not_seen)
{
    for (uint32_t fast = 0; fast < 2; fast++) {
        struct tower tower;
        tower_top(&tower, &(struct image_plan){.map = tower_top_map});
        tower_add(&tower, &(struct image_plan){.entries = 2,
                                               .sectors = 8 + 3,
                                               .map = (const uint32_t[]){0, 1, 1, 2, 0, 0}});
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
        /* A copy of it does not make it visible either. */
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
            uint64_t there = size <= at(cluster)            ? 0
                             : size - at(cluster) < CLUSTER ? size - at(cluster)
                                                            : CLUSTER;
            struct req req;
            req_read(&req, rig, at(cluster), CLUSTER);
            ck_assert_int_eq(req_wait(&req), 0);
            req_read(&req, rig, at(cluster), CLUSTER);
            for (uint64_t n = 0; n < CLUSTER; n++) {
                uint8_t expected = cluster == 2 ? 0xA0 : n < there ? 0xB0 : 0;
                ck_assert_msg(((uint8_t *)req.iov.iov_base)[n] == expected,
                              "raw of %llu: cluster %llu, byte %llu", (unsigned long long)size,
                              (unsigned long long)cluster, (unsigned long long)n);
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

/* The part of a sector at its end is read at open. */
START_TEST(a_raw_bases_end_that_cannot_be_read_is_bad)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&tower, 6 * CLUSTER + 700);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, UINT64_MAX, -EIO);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EIO);
    tower.rig.config.flags |= PLOOP_DEV_READ_ONLY;
    tower_open(&tower);
    ck_assert_msg(strstr(tower.rig.log_text, "delta 0: the last 188 bytes cannot be read"), "%s",
                  tower.rig.log_text);
    script_fail(&tower.lowers[0], PLOOP_IO_READ, 0, 0, 0);
    rig_expect(&tower.rig, at(5), CLUSTER, 0xB0);
    struct req req;
    req_read(&req, &tower.rig, at(6), 512);
    ck_assert_int_eq(req_wait(&req), -EIO);
    tower_end(&tower);
}
END_TEST

/* ---- which fit together ---- */

static void refused(struct tower *tower, int error, const char *words)
{
    struct rig *rig = &tower->rig;
    rig->log_lines = 0;
    memset(rig->log_text, 0, sizeof(rig->log_text));
    tower_forget(tower);
    ck_assert_int_eq(rig_try_open(rig), error);
    ck_assert_uint_eq(script_changes(&rig->script), 0);
    for (uint32_t i = 0; i < rig->lower_count; i++) {
        ck_assert_uint_eq(script_changes(&tower->lowers[i]), 0);
    }
    ck_assert_uint_eq(rig->log_lines, words != NULL);
    ck_assert_msg(!words || strstr(rig->log_text, words), "\"%s\" does not say \"%s\"",
                  rig->log_text, words);
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
        {{.entries = 1099},
         {0},
         "delta 0: disk size 4505600: larger than that of the delta above it, 4501504"},
        {{.sectors = SECTORS - 1},
         {0},
         "delta 0: disk size 4505600: larger than that of the delta above it, 4505088"},
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
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.map = tower_base_map});
    tower_add(&tower, &(struct image_plan){.entries = 20, .map = tower_middle_map});
    refused(&tower, -EUCLEAN,
            "delta 0: disk size 4505600: larger than that of the delta above it, 81920");
    tower_free(&tower);
}
END_TEST

START_TEST(a_base_is_raw_because_the_caller_says_so)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&tower, CLUSTER);
    tower.rig.config.flags = 0;
    refused(&tower, -EINVAL, "delta 0: ");
    /* And an image is a raw file if the caller says so. */
    tower.rig.config.flags = PLOOP_DEV_RAW_BASE;
    script_close(&tower.lowers[0]);
    tower_open_script(&tower.lowers[0], &(struct image_plan){.map = tower_base_map});
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
        tower_top(&tower, &(struct image_plan){.map = tower_top_map});
        tower_add(&tower, &(struct image_plan){.map = tower_base_map});
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
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.in_use = 0x746F6E59, .map = tower_base_map});
    tower.rig.config.flags = PLOOP_DEV_READ_ONLY;
    tower_open(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    rig_close_dev(&tower.rig);
    tower.rig.config.flags = 0;
    refused(&tower, -EUCLEAN, "delta 0: in_use 0x746f6e59: open elsewhere or not closed cleanly");

    /* Its recovery fails, and so does the open; the top is unchanged. */
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&tower.lowers[0], SCRIPT_META, 0, UINT64_MAX, -EROFS);
    tower_forget(&tower);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EROFS);
    ck_assert_msg(
        strstr(tower.rig.log_text, "delta 0: not closed cleanly, and cannot be recovered"), "%s",
        tower.rig.log_text);
    ck_assert_uint_eq(script_changes(&tower.rig.script), 0);

    script_fail(&tower.lowers[0], SCRIPT_META, 0, 0, 0);
    tower_forget(&tower);
    ck_assert_int_eq(rig_try_open(&tower.rig), 0);
    ck_assert_uint_gt(tower.lowers[0].submitted[SCRIPT_META], 0);
    ck_assert_int_ne(oracle_status(tower.lowers[0].bytes, tower.lowers[0].file_size), 2);
    tower_forget(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
    rig_expect(&tower.rig, at(1099), CLUSTER, 0xA3);
    tower_end(&tower);
}
END_TEST

/* The configuration of a program that was compiled with a longer structure, or a shorter one. */
START_TEST(a_recovery_below_takes_a_configuration_of_another_size)
{
    static const size_t sizes[] = {SIZED_MAX, sizeof(struct ploop_dev_config) + 8,
                                   offsetof(struct ploop_dev_config, reserved)};
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct tower tower;
        tower_top(&tower, &(struct image_plan){.map = tower_top_map});
        tower_add(&tower, &(struct image_plan){.in_use = 0x746F6E59, .map = tower_base_map});
        struct ploop_dev_config *config = calloc(1, SIZED_MAX);
        memcpy(config, &tower.rig.config, sizeof(*config));
        config->size = sizes[i];
        config->flags = PLOOP_DEV_RECOVER;
        ploop_file *deltas[] = {tower.lowers[0].file, tower.rig.script.file};
        ck_assert_int_eq(ploop_dev_open(deltas, 2, config, &tower.rig.dev), 0);
        free(config);
        tower.rig.queue = ploop_dev_queue(tower.rig.dev, 0);
        rig_expect(&tower.rig, at(0), CLUSTER, 0xA0);
        rig_close_dev(&tower.rig);
        tower_free(&tower);
    }
}
END_TEST

/* ---- the rest ---- */

static void expect_extent(struct rig *rig, uint64_t offset, uint64_t length, uint32_t state,
                          uint32_t level)
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
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.map = tower_base_map});
    tower_add(&tower, &(struct image_plan){.map = tower_middle_map});
    tower_open(&tower);
    struct rig *rig = &tower.rig;
    expect_extent(rig, at(0), CLUSTER, PLOOP_EXTENT_MAPPED, 0);
    expect_extent(rig, at(1), CLUSTER, PLOOP_EXTENT_MAPPED, 1);
    expect_extent(rig, at(2), CLUSTER, PLOOP_EXTENT_MAPPED, 2);
    expect_extent(rig, at(3), CLUSTER, PLOOP_EXTENT_MAPPED, 1);
    expect_extent(rig, at(5), 1094 * CLUSTER, PLOOP_EXTENT_ZERO, 0);
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig->dev, at(1099) + 7, 9, &extent), 0);
    ck_assert_uint_eq(extent.host_offset,
                      image_data_start(tower.lowers[0].bytes) + 3 * CLUSTER + 7);
    tower_end(&tower);

    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add_raw(&tower, at(1) + 1024);
    tower_open(&tower);
    expect_extent(&tower.rig, at(0), CLUSTER + 1024, PLOOP_EXTENT_MAPPED, 0);
    expect_extent(&tower.rig, at(1) + 1024, CLUSTER - 1024, PLOOP_EXTENT_ZERO, 0);
    expect_extent(&tower.rig, at(1) + 2048, CLUSTER - 2048, PLOOP_EXTENT_ZERO, 0);
    tower_end(&tower);
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
        a_raw_bases_end_that_cannot_be_read_is_bad,
        deltas_that_do_not_fit_are_refused,
        a_base_is_raw_because_the_caller_says_so,
        a_bad_entry_below_is_an_error_to_read_and_not_written_over,
        an_unclean_base_is_read_and_recovered,
        a_recovery_below_takes_a_configuration_of_another_size,
        a_lookup_names_the_delta,
        memory_that_runs_out_at_open_leaves_nothing,
    };
    return RUN_TESTS("stack", tests);
}
