/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a device: what is refused and why, that a refused open changes nothing, the
 * in-use mark, RECOVER.
 */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "util/bytes.h"

enum { CLUSTER = 4096, AT_IN_USE = 44, AT_FLAGS = 52, CLOSED = 0x312e3276, IN_USE = 0x746F6E59 };

static void adopt_plan(struct rig *rig, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    rig_adopt(rig, image, size, 0);
    free(image);
}

/* Refused with that error; the device wrote nothing, and the bytes are unchanged. */
static void refused(struct rig *rig, int error)
{
    uint64_t size = rig->script.file_size;
    uint8_t *before = malloc(size + 1);
    ck_assert_ptr_nonnull(before);
    if (size) {
        memcpy(before, rig->script.bytes, size);
    }
    rig->dev = (ploop_dev *)rig;
    script_forget(&rig->script);
    ck_assert_int_eq(rig_try_open(rig), error);
    ck_assert_ptr_null(rig->dev);
    ck_assert_uint_eq(rig->script.file_size, size);
    ck_assert(size == 0 || memcmp(rig->script.bytes, before, size) == 0);
    ck_assert_uint_eq(rig->script.submitted[PLOOP_IO_WRITE] + rig->script.submitted[SCRIPT_META],
                      0);
    ck_assert_uint_eq(
        rig->script.submitted[PLOOP_IO_TRUNCATE] + rig->script.submitted[PLOOP_IO_PUNCH], 0);
    free(before);
}

static void refused_with_line(struct rig *rig, int error, const char *words)
{
    rig->log_lines = 0;
    memset(rig->log_text, 0, sizeof(rig->log_text));
    refused(rig, error);
    ck_assert_uint_eq(rig->log_lines, 1);
    ck_assert_uint_eq(rig->log_level, PLOOP_LOG_ERROR);
    ck_assert_msg(strstr(rig->log_text, words), "\"%s\" does not say \"%s\"", rig->log_text, words);
}

/* ---- parameters ---- */

START_TEST(wrong_parameters_are_refused)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    ploop_dev *dev = (ploop_dev *)&rig;
    ploop_file *none = NULL, *two[] = {rig.script.file, rig.script.file};
    ck_assert_int_eq(ploop_dev_open(NULL, 1, NULL, &dev), -EINVAL);
    ck_assert_ptr_null(dev);
    ck_assert_int_eq(ploop_dev_open(&none, 1, NULL, &dev), -EINVAL);
    ck_assert_int_eq(ploop_dev_open(&rig.script.file, 0, NULL, &dev), -EINVAL);
    ck_assert_int_eq(ploop_dev_open(&rig.script.file, 1, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_dev_open(two, 2, NULL, &dev), -EINVAL);
    two[1] = NULL;
    ck_assert_int_eq(ploop_dev_open(two, 2, NULL, &dev), -EINVAL);
    ploop_file *many[256];
    for (uint32_t i = 0; i < 256; i++) {
        many[i] = (ploop_file *)(uintptr_t)(0x1000 * (i + 1));
    }
    ck_assert_int_eq(ploop_dev_open(many, 256, NULL, &dev), -EINVAL);
    ck_assert_ptr_null(dev);

    struct ploop_dev_config good = rig.config;
    rig.config.size = 8;
    refused(&rig, -EINVAL);
    rig.config.size = 1 << 20;
    refused(&rig, -E2BIG);
    rig.config = good;
    rig.config.reserved[3] = 1;
    refused(&rig, -E2BIG);
    rig.config = good;
    for (uint32_t flag = 512; flag; flag = flag == 512 ? 1u << 31 : 0) { /* not yet known */
        rig.config.flags = flag;
        refused(&rig, -EINVAL);
    }
    rig.config = good;
    rig.config.enospc_policy = 2;
    refused(&rig, -EINVAL);
    rig.config = good;
    rig.config.queue_count = 1000;
    refused(&rig, -EINVAL);
    rig.config = good;
    rig.config.pio_count = 1u << 30;
    refused(&rig, -EINVAL);
    rig.config = good;
    rig.config.writeback_max_age_ns = rig.config.writeback_delay_ns - 1;
    refused(&rig, -EINVAL);
    rig.config = good;
    rig.clock_ops.now_ns = NULL;
    refused(&rig, -EINVAL);
    rig_free(&rig);
}
END_TEST

START_TEST(what_is_not_in_this_version_says_so)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_INACTIVE;
    refused(&rig, -ENOTSUP);
    rig.config.flags = 0;
    rig.script.alignment = 131072;
    refused_with_line(&rig, -ENOTSUP, "alignment");
    rig_free(&rig);
}
END_TEST

/*
 * A caller that was compiled with a newer header and leaves its additions zero; and the defaults.
 */
START_TEST(other_sizes_of_the_configuration_are_taken)
{
    struct rig rig;
    struct {
        struct ploop_dev_config config;
        uint64_t unknown[4];
    } newer;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    memset(&newer, 0, sizeof(newer));
    newer.config = rig.config;
    newer.config.size = sizeof(newer);
    ck_assert_int_eq(ploop_dev_open(&rig.script.file, 1, &newer.config, &rig.dev), 0);
    rig_close_dev(&rig);
    newer.unknown[1] = 1;
    ck_assert_int_eq(ploop_dev_open(&rig.script.file, 1, &newer.config, &rig.dev), -E2BIG);

    rig.config.size = offsetof(struct ploop_dev_config, reserved);
    rig_open(&rig);
    rig_close_dev(&rig);

    ck_assert_int_eq(ploop_dev_open(&rig.script.file, 1, NULL, &rig.dev), 0);
    ck_assert_ptr_nonnull(ploop_dev_queue(rig.dev, 0));
    ck_assert_ptr_null(ploop_dev_queue(rig.dev, 1));
    rig_end(&rig);
}
END_TEST

/* ---- images ---- */

START_TEST(what_is_no_image_is_refused)
{
    struct rig rig;
    uint8_t nothing[8192] = {0};
    rig_adopt(&rig, nothing, 0, 0);
    refused(&rig, -EINVAL);
    rig_free(&rig);
    rig_adopt(&rig, nothing, 63, 0);
    refused(&rig, -EINVAL);
    rig_free(&rig);
    memset(nothing, 'x', sizeof(nothing));
    rig_adopt(&rig, nothing, sizeof(nothing), 0);
    refused_with_line(&rig, -EINVAL, "magic");
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    refused(&rig, -EINVAL);
    rig_free(&rig);
}
END_TEST

START_TEST(an_image_that_cannot_be_trusted_is_refused)
{
    struct rig rig;
    adopt_plan(&rig, &(struct image_plan){.data_off = 1});
    refused_with_line(&rig, -EUCLEAN, "data_off");
    rig_free(&rig);
}
END_TEST

/* What Parallels Desktop leaves, and others may. */
START_TEST(only_the_mark_makes_an_image_unclean)
{
    static const uint32_t values[] = {0x37316470, 0x32326470, 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct rig rig;
        adopt_plan(&rig, &(struct image_plan){.in_use = values[i]});
        rig_open(&rig);
        ck_assert(rig_file_marked(&rig));
        rig_close_dev(&rig);
        ck_assert(!rig_file_marked(&rig));
        rig_free(&rig);
    }
}
END_TEST

/*
 * For writing, every entry must be valid; for reading, a bad entry only makes reads of its cluster
 * fail.
 */
START_TEST(a_bad_entry_refuses_writing)
{
    static const struct {
        uint32_t entry;
        const char *words;
    } bad[] = {{1, "before the data area"},
               {1000000, "past the end"},
               {0, "another guest cluster's"},
               {UINT32_MAX, "past the end"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig rig;
        adopt_plan(&rig, &(struct image_plan){.host_clusters = 5});
        uint32_t entry = bad[i].entry ? bad[i].entry : rig_file_entry(&rig, 2);
        image_set_entry(rig.script.bytes, 7, entry);
        refused_with_line(&rig, -EUCLEAN, bad[i].words);
        ck_assert_ptr_nonnull(strstr(rig.log_text, "BAT[7]"));

        rig.config.flags = PLOOP_DEV_READ_ONLY;
        rig_open(&rig);
        char buffer[512];
        struct ploop_extent extent = {.size = sizeof(extent)};
        ck_assert_int_eq(ploop_dev_pread(rig.dev, buffer, sizeof(buffer), 7 * CLUSTER), -EIO);
        ck_assert_int_eq(ploop_bat_lookup(rig.dev, 7 * CLUSTER, 512, &extent), -EIO);
        rig_expect(&rig, 2 * CLUSTER, CLUSTER, 0xA2);
        rig_expect(&rig, 6 * CLUSTER, CLUSTER, 0);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(a_bat_too_large_is_refused)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.bat_limit_bytes = 16384 * 4 - 1;
    refused_with_line(&rig, -EFBIG, "bat_entries");
    rig.config.bat_limit_bytes = 16384 * 4;
    rig_open(&rig);
    rig_end(&rig);
}
END_TEST

START_TEST(what_the_backend_says_is_handed_on)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
    refused(&rig, -EIO);
    script_fail(&rig.script, PLOOP_IO_READ, 1, 1, -ENODEV);
    refused(&rig, -ENODEV);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    refused(&rig, -EIO);
    rig_open(&rig);
    rig_end(&rig);
}
END_TEST

START_TEST(a_file_that_cannot_be_written_is_refused)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    script_fail(&rig.script, SCRIPT_META, 0, UINT64_MAX, -EROFS);
    uint8_t before = rig.script.bytes[AT_IN_USE];
    ck_assert_int_eq(rig_try_open(&rig), -EROFS);
    ck_assert_uint_eq(rig.script.bytes[AT_IN_USE], before);
    ck_assert_uint_ge(rig.log_lines, 1);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    rig_open(&rig);
    rig_free(&rig);
}
END_TEST

START_TEST(a_device_for_reading_changes_nothing)
{
    struct rig rig;
    adopt_plan(&rig, &(struct image_plan){.in_use = IN_USE});
    uint64_t size = rig.script.file_size;
    uint8_t *before = malloc(size);
    memcpy(before, rig.script.bytes, size);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    rig_open(&rig);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_READ_ONLY);
    rig_expect(&rig, 0, CLUSTER, 0xA0);
    rig_expect(&rig, 5 * CLUSTER, CLUSTER, 0);
    char buffer[512] = {0};
    ck_assert_int_eq(ploop_dev_pwrite(rig.dev, buffer, sizeof(buffer), 0), -EROFS);
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_set_callback(pio, (ploop_pio_fn *)abort, NULL);
    ploop_pio_prep_discard(pio, 0, CLUSTER);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), -EROFS);
    ploop_pio_prep_write_zeroes(pio, 0, CLUSTER, 0);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), -EROFS);
    ploop_pio_prep_bat_write(pio, 0, 1);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), -EROFS);
    ploop_pio_put(pio);
    ck_assert_int_eq(ploop_bat_page_write(rig.dev, 0), -EROFS);
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 0, 0), -EROFS);
    ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_advance(&rig, 100 * SECOND);
    rig_close_dev(&rig);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE] + rig.script.submitted[SCRIPT_META], 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert_uint_eq(rig.script.file_size, size);
    ck_assert_int_eq(memcmp(rig.script.bytes, before, size), 0);
    free(before);
    rig_free(&rig);
}
END_TEST

/* A page of the BAT cannot be read: reads of its clusters fail, the others are rescued. */
START_TEST(a_page_that_cannot_be_read_is_bad_for_reading)
{
    struct rig rig;
    char buffer[512];
    adopt_plan(&rig, &(struct image_plan){0});
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    /* The header, both pages at once, page 0. */
    script_fail(&rig.script, PLOOP_IO_READ, 1, 2, -EIO);
    rig_open(&rig);
    ck_assert_uint_eq(rig.log_level, PLOOP_LOG_WARNING);
    ck_assert_int_eq(ploop_dev_pread(rig.dev, buffer, sizeof(buffer), 0), -EIO);
    rig_expect(&rig, 1099 * CLUSTER, CLUSTER, 0xA4);
    rig_free(&rig);
}
END_TEST

/* ---- the mark ---- */

START_TEST(the_mark_is_durable_at_open_and_cleared_at_close)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    ck_assert(!rig_file_marked(&rig));
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert(rig_file_marked(&rig));
    /* SYNC, mark, SYNC: nothing found counts as durable before the first. */
    uint32_t mark = script_log_find(&rig.script, SCRIPT_META, 0);
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0), mark);
    ck_assert_uint_gt(script_log_find(&rig.script, PLOOP_IO_SYNC, 1), mark);
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 1);
    ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 1, 0), 0);
    script_forget(&rig.script);
    rig_close_dev(&rig);
    ck_assert(!rig_file_marked(&rig));
    uint32_t metas = (uint32_t)rig.script.submitted[SCRIPT_META],
             syncs = (uint32_t)rig.script.submitted[PLOOP_IO_SYNC];
    uint32_t cleared = script_log_find(&rig.script, SCRIPT_META, metas - 1);
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, syncs - 2), cleared);
    ck_assert_uint_gt(script_log_find(&rig.script, PLOOP_IO_SYNC, syncs - 1), cleared);
    ck_assert_uint_gt(cleared, script_log_find(&rig.script, SCRIPT_META, metas - 2));
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(an_abort_leaves_the_mark_and_recover_opens)
{
    for (uint32_t version = 1; version <= 2; version++) {
        struct rig rig;
        rig_create(&rig, version, 16 << 20, CLUSTER, 0);
        rig_open(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 1, 0), 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ck_assert_int_eq(rig_write(&rig, CLUSTER, CLUSTER, 2, 0), 0);
        script_forget(&rig.script);
        ploop_dev_abort(rig.dev);
        rig.dev = NULL;
        ck_assert_uint_eq(rig.script.log_count, 0);
        ck_assert(rig_file_marked(&rig));
        refused_with_line(&rig, -EUCLEAN, "in_use");
        rig.config.flags = PLOOP_DEV_RECOVER;
        script_forget(&rig.script);
        ck_assert_int_eq(rig_try_open(&rig), 0);
        ck_assert_uint_eq(rig.recoveries, 1);
        /* Every page was written anew, behind a SYNC. */
        uint64_t bytes = 0, pages = ploop_bat_page_count(rig.dev);
        for (uint32_t i = 0; i < rig.script.log_count; i++) {
            bytes += rig.script.log[i].kind == SCRIPT_META ? rig.script.log[i].length : 0;
        }
        ck_assert_uint_gt(bytes, (pages - 1) * 4096);
        ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 0),
                          script_log_find(&rig.script, SCRIPT_META, 0));
        rig_expect(&rig, 0, CLUSTER, 1);
        rig_expect(&rig, CLUSTER, CLUSTER, 0);
        ck_assert_int_eq(rig_write(&rig, 2 * CLUSTER, 512, 3, 0), 0);
        rig_expect(&rig, 2 * CLUSTER + 512, CLUSTER - 512, 0);
        rig_close_dev(&rig);
        ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(recover_of_a_clean_image_is_an_open)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_RECOVER;
    rig_open(&rig);
    ck_assert_uint_eq(rig.recoveries, 0);
    ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 1, 0), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(recover_refuses_what_is_worse_than_unclean)
{
    struct rig rig;
    adopt_plan(&rig, &(struct image_plan){.in_use = IN_USE});
    image_set_entry(rig.script.bytes, 7, 1000000);
    rig.config.flags = PLOOP_DEV_RECOVER;
    refused_with_line(&rig, -EUCLEAN, "BAT[7]");
    rig_free(&rig);
}
END_TEST

START_TEST(the_empty_flag_is_cleared_with_the_mark)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    ck_assert_uint_eq(load_le32(rig.script.bytes + AT_FLAGS) & 1, 1);
    rig_open(&rig);
    ck_assert_uint_eq(load_le32(rig.script.bytes + AT_FLAGS) & 1, 0);
    ck_assert_int_eq(rig_write(&rig, 0, CLUSTER, 1, 0), 0);
    rig_close_dev(&rig);
    ck_assert_uint_eq(load_le32(rig.script.bytes + AT_FLAGS) & 1, 0);
    rig_free(&rig);
}
END_TEST

START_TEST(both_values_of_closed_are_taken)
{
    struct rig rig;
    adopt_plan(&rig, &(struct image_plan){.in_use = CLOSED, .host_clusters = 5});
    rig_open(&rig);
    rig_expect(&rig, 0, CLUSTER, 0xA0);
    rig_end(&rig);
}
END_TEST

START_TEST(closing_nothing_is_nothing)
{
    ck_assert_int_eq(ploop_dev_close(NULL), 0);
    ploop_dev_abort(NULL);
}
END_TEST

/* Space that was allocated ahead is cut off. */
START_TEST(a_close_trims_the_file)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, 0, 3 * CLUSTER, 1, 0), 0);
    ck_assert_uint_gt(rig.script.file_size, rig.data_start + 3 * CLUSTER);
    rig_close_dev(&rig);
    ck_assert_uint_eq(rig.script.file_size, rig.data_start + 3 * CLUSTER);
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(an_empty_disk_opens)
{
    struct rig rig;
    char byte;
    rig_create(&rig, 2, 0, CLUSTER, 0);
    rig_open(&rig);
    ck_assert_int_eq(ploop_dev_pread(rig.dev, &byte, 0, 0), 0);
    ck_assert_int_eq(ploop_dev_pread(rig.dev, &byte, 512, 0), -EINVAL);
    ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {wrong_parameters_are_refused,
                                  what_is_not_in_this_version_says_so,
                                  other_sizes_of_the_configuration_are_taken,
                                  what_is_no_image_is_refused,
                                  an_image_that_cannot_be_trusted_is_refused,
                                  only_the_mark_makes_an_image_unclean,
                                  a_bad_entry_refuses_writing,
                                  a_bat_too_large_is_refused,
                                  what_the_backend_says_is_handed_on,
                                  a_file_that_cannot_be_written_is_refused,
                                  a_device_for_reading_changes_nothing,
                                  a_page_that_cannot_be_read_is_bad_for_reading,
                                  the_mark_is_durable_at_open_and_cleared_at_close,
                                  an_abort_leaves_the_mark_and_recover_opens,
                                  recover_of_a_clean_image_is_an_open,
                                  recover_refuses_what_is_worse_than_unclean,
                                  the_empty_flag_is_cleared_with_the_mark,
                                  both_values_of_closed_are_taken,
                                  closing_nothing_is_nothing,
                                  a_close_trims_the_file,
                                  an_empty_disk_opens};
    return RUN_TESTS("open", tests);
}
