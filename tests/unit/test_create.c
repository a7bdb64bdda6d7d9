/* SPDX-License-Identifier: MIT */
/* New images: their content, the order of the writes that create them, and every refusal. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

static struct fixture fixture;

static void setup(void)
{
    uint8_t old[20000];

    memset(old, 0xDD, sizeof(old)); /* the file's old content must never be visible again */
    fixture_open(&fixture, old, sizeof(old));
}

static void teardown(void)
{
    fixture_close(&fixture);
}

static int create(uint32_t version, uint64_t disk_size, uint64_t cluster_size)
{
    const struct ploop_image_options options = {.size = sizeof(options),
                                                .version = version,
                                                .disk_size = disk_size,
                                                .cluster_size = cluster_size};

    return ploop_image_create(fixture.file, &options);
}

static void assert_new_image(uint32_t version, uint64_t disk_size, uint64_t cluster_size)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    struct check_outcome outcome;

    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);
    ck_assert_int_eq(ploop_image_probe(fixture.file, &info), 0);
    ck_assert_uint_eq(info.version, version);
    ck_assert_uint_eq(info.disk_size, disk_size);
    ck_assert_uint_eq(info.cluster_size, cluster_size);
    ck_assert_uint_eq(info.flags, PLOOP_IMAGE_EMPTY);
    ck_assert_uint_eq(info.data_offset, fixture.size);
    ck_assert_uint_eq(info.in_use, 0);
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.errors + outcome.result.leaks + outcome.result.mapped, 0);
    for (uint64_t i = 64; i < fixture.size; i++) {
        if (fixture.bytes[i]) {
            ck_abort_msg("byte %llu is not zero", (unsigned long long)i);
        }
    }
}

START_TEST(images_of_all_kinds)
{
    static const uint64_t clusters[] = {4096, 65536, 1048576};
    static const uint64_t disks[] = {
        0, 512, 4096, 1048576 - 512, 1048576, 10485760 + 512, (uint64_t)3 << 30};

    for (uint32_t version = 1; version <= 2; version++) {
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 7; j++) {
                ck_assert_int_eq(create(version, disks[j], clusters[i]), 0);
                assert_new_image(version, disks[j], clusters[i]);
            }
        }
    }
    ck_assert_int_eq(create(0, 1 << 20, 0), 0);
    assert_new_image(2, 1 << 20, PLOOP_CLUSTER_SIZE_DEFAULT);
}
END_TEST

/* If the header is there, the BAT of zeros is there. */
START_TEST(the_header_comes_last)
{
    uint32_t last_write = 0, writes = 0, syncs_before = 0;

    fixture_reset(&fixture);
    ck_assert_int_eq(create(2, (uint64_t)1 << 30, 4096), 0);
    for (uint32_t i = 0; i < fixture.log_size; i++) {
        if (fixture.log[i].op == PLOOP_IO_WRITE) {
            last_write = i;
            writes++;
        }
    }
    for (uint32_t i = 0; i < last_write; i++) {
        syncs_before += fixture.log[i].op == PLOOP_IO_SYNC;
    }
    ck_assert_uint_eq(writes, 1);
    ck_assert_uint_eq(fixture.log[last_write].offset, 0);
    ck_assert_uint_eq(syncs_before, 1);
    ck_assert_uint_eq(fixture.log[fixture.log_size - 1].op, PLOOP_IO_SYNC);
    ck_assert_uint_eq(fixture.counts[PLOOP_IO_ALLOCATE], 1);
}
END_TEST

/*
 * The space between the BAT and the first cluster needs no blocks: with large clusters it is most
 * of a new image.
 */
START_TEST(only_the_bat_gets_blocks)
{
    uint32_t found = 0;

    fixture_reset(&fixture);
    ck_assert_int_eq(create(2, (uint64_t)256 << 20, 64 << 20), 0);
    ck_assert_uint_eq(fixture.size, 64 << 20);
    for (uint32_t i = 0; i < fixture.log_size; i++) {
        if (fixture.log[i].op == PLOOP_IO_ALLOCATE) {
            ck_assert_uint_eq(fixture.log[i].offset, 0);
            ck_assert_uint_eq(fixture.log[i].length, 512);
            found++;
        }
    }
    ck_assert_uint_eq(found, 1);
}
END_TEST

START_TEST(a_file_that_cannot_grow_is_cleared_in_place)
{
    uint8_t *old = malloc(3000000);

    memset(old, 0xDD, 3000000);
    fixture_close(&fixture);
    fixture_open(&fixture, old, 3000000);
    free(old);
    fixture.capabilities = 0;
    ck_assert_int_eq(create(2, (uint64_t)1 << 30, 4096),
                     0); /* a BAT of just over 1 MiB: two pieces of zeros */
    ck_assert_uint_eq(fixture.size, 3000000);
    ck_assert_uint_eq(fixture.counts[PLOOP_IO_TRUNCATE] + fixture.counts[PLOOP_IO_ALLOCATE], 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size),
                     3); /* the bytes behind it are a leak */
    ck_assert_int_eq(create(2, (uint64_t)4 << 30, 4096), -ENOSPC);
}
END_TEST

START_TEST(options_are_checked)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = 1 << 20};
    const struct {
        struct ploop_image_options known;
        uint64_t more;
    } newer = {{.size = sizeof(newer), .disk_size = 1 << 20}, 0},
      too_new = {{.size = sizeof(too_new), .disk_size = 1 << 20}, 1};

    fixture_reset(&fixture);
    ck_assert_int_eq(create(3, 1 << 20, 0), -EINVAL);
    ck_assert_int_eq(create(2, 1000, 0), -EINVAL);
    ck_assert_int_eq(create(2, 1 << 20, 2048), -EINVAL);
    ck_assert_int_eq(create(2, 1 << 20, 12288), -EINVAL);
    ck_assert_int_eq(create(2, 1 << 20, (uint64_t)PLOOP_CLUSTER_SIZE_MAX * 2), -EINVAL);
    ck_assert_int_eq(create(1, (uint64_t)2 << 40, 0), -EFBIG);
    ck_assert_int_eq(create(2, UINT64_MAX - 511, 4096), -EFBIG);
    ck_assert_int_eq(create(2, ((uint64_t)1 << 40) + 512, 4096),
                     -EFBIG); /* a BAT that opening would refuse */
    ck_assert_int_eq(ploop_image_create(NULL, &options), -EINVAL);
    ck_assert_int_eq(ploop_image_create(fixture.file, NULL), -EINVAL);
    options.flags = 1;
    ck_assert_int_eq(ploop_image_create(fixture.file, &options), -EINVAL);
    options.flags = 0;
    options.reserved[1] = 1;
    ck_assert_int_eq(ploop_image_create(fixture.file, &options), -E2BIG);
    options.reserved[1] = 0;
    options.size = 8;
    ck_assert_int_eq(ploop_image_create(fixture.file, &options), -EINVAL);
    options.size = SIZE_MAX;
    ck_assert_int_eq(ploop_image_create(fixture.file, &options), -E2BIG);
    ck_assert_int_eq(ploop_image_create(fixture.file, &too_new.known), -E2BIG);
    ck_assert_uint_eq(fixture.log_size, 0); /* the file was not touched */
    ck_assert_int_eq(ploop_image_create(fixture.file, &newer.known), 0);
}
END_TEST

/* Fail the Nth backend request, N = 1, 2, 3 ... of each kind: create returns the error. */
START_TEST(backend_errors_come_out)
{
    static const uint32_t kinds[] = {PLOOP_IO_WRITE, PLOOP_IO_SYNC, PLOOP_IO_ALLOCATE,
                                     PLOOP_IO_TRUNCATE};
    static const int errors[] = {EROFS, EIO, ENOSPC};
    uint32_t failures = 0;

    for (int i = 0; i < 4; i++) {
        int error = -1;

        for (uint64_t from = 1; error; from++) {
            fixture_reset(&fixture);
            fixture.fail_op = kinds[i];
            fixture.fail_from = from;
            fixture.fail_count = 1;
            fixture.fail_error = errors[from % 3];
            error = create(2, 1 << 20, 4096);
            ck_assert(error == 0 || error == -fixture.fail_error);
            failures += error != 0;
        }
    }
    ck_assert_uint_eq(failures, 1 + 2 + 1 + 2);
    fixture.fail_from = 0;
    fixture.capabilities = 0;
    fixture.fail_op = PLOOP_IO_WRITE;
    fixture.fail_from = 1;
    fixture_reset(&fixture);
    ck_assert_int_eq(create(2, 4096, 4096), -fixture.fail_error);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("create");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, images_of_all_kinds);
    tcase_add_test(tests, the_header_comes_last);
    tcase_add_test(tests, only_the_bat_gets_blocks);
    tcase_add_test(tests, a_file_that_cannot_grow_is_cleared_in_place);
    tcase_add_test(tests, options_are_checked);
    tcase_add_test(tests, backend_errors_come_out);
    tcase_set_timeout(tests, 120);
    return run_case("create", tests);
}
