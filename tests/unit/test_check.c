/* SPDX-License-Identifier: MIT */
/*
 * Checks: every kind of finding, compared with the oracle's; bounds on memory; and every refusal.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <ploop/ploop.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

enum { IN_USE = 0x746F6E59, CLOSED = 0x312e3276 };

static struct fixture fixture;
static struct check_outcome outcome;

static void check_plan(const struct image_plan *plan)
{
    fixture_open_image(&fixture, plan);
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(fixture.log_size, 0);
}

/* The verdict, which must be the oracle's too. */
static void verdict(uint64_t errors, uint64_t leaks, uint32_t recoverable)
{
    int status = errors ? 2 : leaks ? 3 : 0;

    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.errors, errors);
    ck_assert_uint_eq(outcome.result.leaks, leaks);
    ck_assert_uint_eq(outcome.result.recoverable, recoverable);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), status);
    fixture_close(&fixture);
}

/*
 * One change to the usual image, whose entries 0, 1, 2, 3 and 1099 name host clusters 0 to 4;
 * number 5 is a leak.
 */
static void check_entry(uint32_t version, uint32_t guest, uint32_t entry)
{
    fixture_open_image(&fixture, &(struct image_plan){.version = version});
    image_set_entry(fixture.bytes, guest, entry);
    run_check(&fixture, 0, &outcome);
}

START_TEST(clean)
{
    for (uint32_t version = 1; version <= 2; version++) {
        check_plan(&(struct image_plan){.version = version, .host_clusters = 5});
        ck_assert_uint_eq(outcome.result.mapped, 5);
        verdict(0, 0, 1);
        check_plan(&(struct image_plan){.version = version,
                                        .entries = 1,
                                        .sectors = 3,
                                        .host_clusters = 1,
                                        .map = (uint32_t[]){0, 1, 0, 0}});
        verdict(0, 0, 1);
    }
}
END_TEST

START_TEST(marks)
{
    check_plan(&(struct image_plan){.host_clusters = 5, .in_use = IN_USE});
    ck_assert_uint_eq(outcome.last.kind, PLOOP_CHECK_UNCLEAN);
    ck_assert_uint_eq(outcome.last.repair, PLOOP_REPAIR_UNCLEAN);
    verdict(1, 0, 1);
    check_plan(&(struct image_plan){.in_use = IN_USE});
    verdict(1, 1, 1);
    check_plan(&(struct image_plan){.host_clusters = 5, .in_use = 0x12345678});
    ck_assert_uint_eq(outcome.last.kind, PLOOP_CHECK_IN_USE_VALUE);
    ck_assert_ptr_nonnull(strstr(outcome.last_text, "0x12345678"));
    ck_assert_uint_eq(outcome.result.notes, 1);
    verdict(0, 0, 1);
    check_plan(&(struct image_plan){.host_clusters = 5, .flags = 1});
    ck_assert_uint_eq(outcome.last.kind, PLOOP_CHECK_EMPTY_FLAG);
    verdict(1, 0, 1);
    check_plan(&(struct image_plan){.host_clusters = 5, .in_use = CLOSED});
    verdict(0, 0, 1);
}
END_TEST

START_TEST(entries_out_of_range)
{
    static const uint32_t values[] = {1, 6 + 2, 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000};

    for (int i = 0; i < 5; i++) {
        check_entry(2, 700, values[i]);
        ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_RANGE], 1);
        verdict(1, 1, 0);
        check_entry(1, 700, i == 0 ? 8 : 9 + 8 * 6);
        ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_RANGE], 1);
        verdict(1, 1, 0);
    }
    check_entry(2, 700, 6 + 1); /* the leak's own cluster */
    verdict(0, 0, 1);
}
END_TEST

START_TEST(entries_off_the_grid)
{
    check_entry(1, 5, 10);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_GRID], 1);
    verdict(1, 1, 0);
}
END_TEST

/* The first entry in the BAT's order is the owner. */
START_TEST(duplicates)
{
    check_entry(2, 500, 2);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_DUPLICATE], 1);
    ck_assert_uint_eq(outcome.result.mapped, 5);
    verdict(1, 1, 0);
    fixture_open_image(&fixture, &(struct image_plan){.host_clusters = 5});
    image_set_entry(fixture.bytes, 0, image_entry(fixture.bytes, 1099));
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_DUPLICATE], 1);
    verdict(1, 1, 0);
}
END_TEST

START_TEST(leaks_are_ranges)
{
    static const uint32_t map[] = {0, 3, 1, 2, 2, 8, 0, 0};

    check_plan(
        &(struct image_plan){.host_clusters = 12, .map = map}); /* 0, 3-6 and 8-11 are unowned */
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_LEAK], 3);
    ck_assert_uint_eq(outcome.last.count, 4);
    ck_assert_uint_eq(outcome.last.host_offset,
                      image_data_start(fixture.bytes) + (uint64_t)8 * 4096);
    ck_assert_uint_eq(outcome.last.guest_cluster, UINT64_MAX);
    verdict(0, 9, 1);
    check_plan(&(struct image_plan){.sectors = 8 * 3,
                                    .host_clusters = 5}); /* entries 3 and 1099 lie beyond */
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_BEYOND], 2);
    ck_assert_uint_eq(outcome.result.mapped, 3);
    verdict(0, 2, 1);
}
END_TEST

/* A last cluster that is cut short is a leak too. */
START_TEST(a_tail_of_odd_size)
{
    uint64_t size;
    uint8_t *image = image_build(&(struct image_plan){0}, &size);

    fixture_open(&fixture, image, size - 4096 + 1);
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.last.count, 1);
    verdict(0, 1, 1);
    fixture_open(&fixture, image, size - 4096 - 1); /* an entry names it: cut off, no leak */
    run_check(&fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_CUT], 1);
    ck_assert_uint_eq(outcome.last.repair, PLOOP_REPAIR_CUT);
    verdict(1, 0, 1);
    fixture_open(&fixture, image, size - 4096 - 1);
    fixture.capabilities |= PLOOP_FILE_FIXED_SIZE;
    run_check(&fixture, 0, &outcome);
    verdict(1, 0, 0);
    free(image);
}
END_TEST

/* ---- free, or leaked ---- */

static void check_with_hole(uint64_t first, uint64_t end, uint64_t leaks, uint64_t ranges,
                            uint64_t count_free)
{
    uint64_t data = image_data_start(fixture.bytes);

    fixture.hole_begin = first ? data + first * 4096 / 2 : 0; /* in halves of clusters */
    fixture.hole_end = data + end * 4096 / 2;
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.leaks, leaks);
    ck_assert_uint_eq(outcome.result.free, count_free);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_LEAK], ranges);
}

/* A cluster that nothing refers to is free where all of it is a hole, and a leak elsewhere. */
START_TEST(holes_are_free)
{
    static const uint32_t map[] = {0, 3, 1, 2, 2, 8, 0, 0};

    check_plan(
        &(struct image_plan){.host_clusters = 12, .map = map}); /* 0, 3-6 and 8-11 are unowned */
    check_with_hole(0, 0, 9, 3, 0);
    check_with_hole(0, 2, 8, 2, 1);
    check_with_hole(0, 24, 0, 0, 9);
    check_with_hole(8, 12, 7, 4, 2); /* 4 and 5: in the middle of a range */
    check_with_hole(7, 9, 9, 3, 0);  /* the second half of 3, the first of 4 */
    check_with_hole(9, 11, 9, 3, 0); /* inside 4 and 5 */
    check_with_hole(9, 12, 8, 4, 1);
    check_with_hole(20, 24, 7, 3, 2); /* at the end */
    ck_assert_uint_eq(outcome.last.count, 2);
    check_with_hole(2, 6, 9, 3, 0); /* only in what is mapped */
    fixture_close(&fixture);
}
END_TEST

/* Nobody can tell: all of it is free, and a repair has nothing to do. */
START_TEST(where_nobody_can_tell_nothing_is_lost)
{
    check_plan(&(struct image_plan){.host_clusters = 12});
    fixture.extent_error = -ENOTSUP;
    check_with_hole(0, 0, 0, 0, 7);
    fixture_reset(&fixture);
    run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
    fixture.extent_error = -EIO;
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, -EIO);
    fixture_close(&fixture);
}
END_TEST

/* ---- size ---- */

static uint64_t peak_bytes(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}

/*
 * The file claims 4 EiB; its few entries lie far apart. The check reports one range between each
 * two, in no time and with hardly any memory.
 */
START_TEST(a_sparse_file_of_any_size)
{
    static const uint32_t hosts[] = {0, 77777, 1u << 27, 3u << 29, 0xFFFFFF00u};
    uint64_t before = peak_bytes();

    fixture_open_image(&fixture, &(struct image_plan){.map = MAP_NONE, .host_clusters = 1});
    for (uint32_t i = 0; i < 5; i++) {
        image_set_entry(fixture.bytes, 10 * (5 - i), image_entry_for(fixture.bytes, hosts[i]));
    }
    image_set_entry(fixture.bytes, 1000, image_entry_for(fixture.bytes, hosts[3]));
    fixture.claimed_size = UINT64_C(1) << 62;
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.errors, 1);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_DUPLICATE], 1);
    ck_assert_uint_eq(outcome.result.mapped, 5);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_LEAK], 5);
    ck_assert_uint_eq(outcome.result.leaks,
                      ((UINT64_C(1) << 62) - image_data_start(fixture.bytes)) / 4096 - 5);
    ck_assert(is_instrumented() || peak_bytes() - before < 16 << 20);
    fixture_close(&fixture);
}
END_TEST

/*
 * The check looks for unowned clusters in several windows. The extension's own cluster, which lies
 * in one between, is not among them.
 */
START_TEST(an_extension_between_far_entries)
{
    enum { EXTENSION = 20000000 };
    static const uint32_t hosts[] = {0, 10000000, 40000000};

    fixture_open_image(&fixture,
                       &(struct image_plan){.map = MAP_NONE, .host_clusters = 1, .in_use = CLOSED});
    for (uint32_t i = 0; i < 3; i++) {
        image_set_entry(fixture.bytes, i, image_entry_for(fixture.bytes, hosts[i]));
    }
    store_le64(fixture.bytes + 56, image_data_start(fixture.bytes) / 512 + (uint64_t)EXTENSION * 8);
    fixture.claimed_size = image_data_start(fixture.bytes) + UINT64_C(50000000) * 4096;
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_EXTENSION],
                      1); /* it has zeros, and is in its place */
    ck_assert_uint_eq(outcome.result.errors, 1);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_LEAK], 4);
    ck_assert_uint_eq(outcome.result.leaks, 50000000 - 3 - 1);
    ck_assert_uint_eq(outcome.last.count, 9999999);
    fixture_close(&fixture);
}
END_TEST

/*
 * 16 TiB in clusters of 1 MiB, all mapped: a BAT of 64 MiB. The file's bytes are only claimed; the
 * BAT is generated as it is read.
 */
static int huge_info(void *context, struct ploop_file_info *info)
{
    info->file_size = *(uint64_t *)context;
    info->request_alignment = 1;
    return 0;
}

enum { HUGE_DATA = 65 };

static uint32_t huge_entries; /* 16 Mi, except under a tool that takes minutes for that */

static int huge_submit(void *context, struct ploop_io *io)
{
    uint8_t *bytes = io->iov[0].iov_base;

    (void)context;
    ck_assert_uint_eq(io->op, PLOOP_IO_READ);
    for (uint64_t i = 0; i < io->length; i += 4) {
        store_le32(bytes + i, (uint32_t)((io->offset + i - 64) / 4) + HUGE_DATA);
    }
    if (io->offset == 0) {
        memset(bytes, 0, 64);
        memcpy(bytes, "WithouFreSpacExt", 16);
        store_le32(bytes + 16, 2);
        store_le32(bytes + 28, 2048);
        store_le32(bytes + 32, huge_entries);
        store_le64(bytes + 36, (uint64_t)huge_entries * 2048);
        store_le32(bytes + 48, HUGE_DATA * 2048);
    }
    ploop_io_complete(io, (int64_t)io->length);
    return 0;
}

START_TEST(sixteen_tebibytes_in_eighty_mebibytes)
{
    const struct ploop_io_ops ops = {
        .size = sizeof(ops), .get_info = huge_info, .submit = huge_submit};
    huge_entries = is_instrumented() ? 1 << 18 : 1 << 24;

    uint64_t size = (uint64_t)(huge_entries + HUGE_DATA) << 20;
    struct ploop_check_result result = {.size = sizeof(result)};
    ploop_file *file;

    ck_assert_int_eq(ploop_file_create(&ops, &size, &file), 0);
    ck_assert_int_eq(ploop_image_check(file, NULL, &result), 0);
    ck_assert_uint_eq(result.errors + result.leaks, 0);
    ck_assert_uint_eq(result.mapped, huge_entries);
    size = INT64_MAX; /* and the same BAT in the largest possible file */
    ck_assert_int_eq(ploop_image_check(file, NULL, &result), 0);
    ck_assert_uint_eq(result.errors, 0);
    ploop_file_close(file);
    if (!is_instrumented()) {
        ck_assert_uint_lt(peak_bytes(), 80 << 20);
    }
}
END_TEST

/* ---- parameters and errors ---- */

START_TEST(progress_can_end_it)
{
    struct ploop_check_options options = {.size = sizeof(options), .progress = stop_after};
    struct ploop_check_result result = {.size = sizeof(result)};
    uint64_t calls = 0, ended = 0;
    int error = -1;

    options.user_data = &calls;
    fixture_open_image(&fixture, &(struct image_plan){0});
    for (uint64_t stop = 1; error; stop++) {
        calls = stop;
        error = ploop_image_check(fixture.file, &options, &result);
        ck_assert(error == 0 || error == -ECANCELED);
        ended += error != 0;
    }
    ck_assert_uint_ge(ended, 4);
    fixture_close(&fixture);
}
END_TEST

START_TEST(parameters)
{
    struct ploop_check_options options = {.size = sizeof(options), .bat_limit_bytes = 4 * 1100};
    struct ploop_check_result result = {.size = sizeof(result)};

    fixture_open_image(&fixture, &(struct image_plan){0});
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), 0);
    options.bat_limit_bytes--;
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), -EFBIG);
    options.bat_limit_bytes = 0;
    options.repair = 8;
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), -EINVAL);
    options.repair = 0;
    options.reserved1 = 1;
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), -EINVAL);
    options.reserved1 = 0;
    options.reserved[3] = 1;
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), -E2BIG);
    options.reserved[3] = 0;
    options.size = 4;
    ck_assert_int_eq(ploop_image_check(fixture.file, &options, &result), -EINVAL);
    ck_assert_int_eq(ploop_image_check(NULL, NULL, &result), -EINVAL);
    ck_assert_int_eq(ploop_image_check(fixture.file, NULL, NULL), -EINVAL);
    result.size = 4;
    ck_assert_int_eq(ploop_image_check(fixture.file, NULL, &result), -EINVAL);
    fixture_close(&fixture);
}
END_TEST

START_TEST(a_header_that_cannot_be_trusted_is_one_error)
{
    check_plan(&(struct image_plan){.flags = 2});
    ck_assert_int_eq(outcome.error, -EUCLEAN);
    ck_assert_uint_eq(outcome.result.errors, 1);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_HEADER], 1);
    ck_assert_uint_eq(outcome.last.repair, 0);
    ck_assert_ptr_nonnull(strstr(outcome.last_text, "flags 0x2"));
    fixture_close(&fixture);
    fixture_open(&fixture, "nothing", 7);
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, -EINVAL);
    fixture_close(&fixture);
}
END_TEST

/* The errors that a disk, a file system or a network returns for a sector that it cannot read. */
static const int read_errors[] = {EIO, ENODATA, EREMOTEIO, EILSEQ, EBADMSG, ETIMEDOUT, ECONNRESET};

/*
 * One BAT page of three cannot be read: the check reports an error for it, checks the others, and
 * reports no unknown cluster as a leak. The check continues wherever a device opens read-only,
 * whatever the error.
 */
START_TEST(an_unreadable_page)
{
    fixture_open_image(&fixture, &(struct image_plan){.entries = 3000});
    fixture.fail_op = PLOOP_IO_READ;
    fixture.fail_from = 1;
    fixture.fail_offset = 4096 + 100;
    fixture.fail_error = read_errors[_i];
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_READ], 1);
    ck_assert_uint_eq(outcome.last.guest_cluster, 1008);
    ck_assert_uint_eq(outcome.result.errors, 1);
    ck_assert_uint_eq(outcome.result.leaks, 0);
    ck_assert_uint_eq(outcome.result.mapped, 4);
    ck_assert_uint_eq(outcome.result.recoverable, 0);
    run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_int_eq(outcome.error, -read_errors[_i]);
    ploop_dev *dev;
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(ploop_dev_open(&fixture.file, 1, &config, &dev), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("check");

    tcase_add_test(tests, clean);
    tcase_add_test(tests, marks);
    tcase_add_test(tests, entries_out_of_range);
    tcase_add_test(tests, entries_off_the_grid);
    tcase_add_test(tests, duplicates);
    tcase_add_test(tests, leaks_are_ranges);
    tcase_add_test(tests, holes_are_free);
    tcase_add_test(tests, where_nobody_can_tell_nothing_is_lost);
    tcase_add_test(tests, a_tail_of_odd_size);
    tcase_add_test(tests, a_sparse_file_of_any_size);
    tcase_add_test(tests, an_extension_between_far_entries);
    tcase_add_test(tests, sixteen_tebibytes_in_eighty_mebibytes);
    tcase_add_test(tests, progress_can_end_it);
    tcase_add_test(tests, parameters);
    tcase_add_test(tests, a_header_that_cannot_be_trusted_is_one_error);
    tcase_add_loop_test(tests, an_unreadable_page, 0,
                        (int)(sizeof(read_errors) / sizeof(read_errors[0])));
    tcase_set_timeout(tests, 250);
    return run_case("check", tests);
}
