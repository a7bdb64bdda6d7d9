/* SPDX-License-Identifier: MIT */
/* What probe reports of an image, and that it changes nothing. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

static struct fixture fixture;
static struct ploop_image_info info;

static int probe(const struct image_plan *plan)
{
    fixture_open_image(&fixture, plan);
    memset(&info, 0xFF, sizeof(info));
    info.size = sizeof(info);

    int error = ploop_image_probe(fixture.file, &info);

    ck_assert_uint_eq(fixture.log_size, 0);
    ck_assert_uint_eq(info.file_size, fixture.size);
    fixture_close(&fixture);
    return error;
}

START_TEST(fields)
{
    for (uint32_t version = 1; version <= 2; version++) {
        const struct image_plan plan = {.version = version, .sectors = 8799};

        ck_assert_int_eq(probe(&plan), 0);
        ck_assert_uint_eq(info.version, version);
        ck_assert_uint_eq(info.flags, 0);
        ck_assert_uint_eq(info.disk_size, 8799 * 512);
        ck_assert_uint_eq(info.cluster_size, 4096);
        ck_assert_uint_eq(info.bat_entries, 1100);
        ck_assert_uint_eq(info.data_offset, version == 1 ? 4608 : 8192);
        ck_assert_uint_eq(info.extension_offset, 0);
        ck_assert_uint_eq(info.in_use, 0);
        ck_assert_str_eq(info.message, "");
        ck_assert_uint_eq(info.reserved[3], 0);
    }
}
END_TEST

START_TEST(flags)
{
    ck_assert_int_eq(probe(&(struct image_plan){.in_use = 0x746F6E59}), 0);
    ck_assert_uint_eq(info.flags, PLOOP_IMAGE_IN_USE);
    ck_assert_uint_eq(info.in_use, 0x746F6E59);
    ck_assert_int_eq(probe(&(struct image_plan){.flags = 1}), 0);
    ck_assert_uint_eq(info.flags, PLOOP_IMAGE_EMPTY);
    ck_assert_int_eq(probe(&(struct image_plan){.in_use = 0x312e3276}), 0);
    ck_assert_uint_eq(info.flags, 0);
    ck_assert_int_eq(probe(&(struct image_plan){.in_use = 0x312e3276, .extension_sector = 24}), 0);
    ck_assert_uint_eq(info.flags, PLOOP_IMAGE_EXTENSION);
    ck_assert_uint_eq(info.extension_offset, 24 * 512);
    ck_assert_int_eq(probe(&(struct image_plan){.extension_sector = 24}),
                     0); /* void: it does not count */
    ck_assert_uint_eq(info.flags, 0);
    ck_assert_int_eq(probe(&(struct image_plan){.extension_sector = UINT64_MAX / 512 + 1}), 0);
    ck_assert_uint_eq(info.extension_offset, UINT64_MAX);
}
END_TEST

START_TEST(headers_that_cannot_be_trusted)
{
    ck_assert_int_eq(probe(&(struct image_plan){.sectors = 8801}), -EUCLEAN);
    ck_assert_ptr_nonnull(strstr(info.message, "nb_sectors 8801"));
    ck_assert_int_eq(probe(&(struct image_plan){.flags = 2}), -EUCLEAN);
    ck_assert_ptr_nonnull(strstr(info.message, "flags 0x2"));
    fixture_open(&fixture, "WithouFreSpacExt", 16);
    ck_assert_int_eq(ploop_image_probe(fixture.file, &info), -EINVAL);
    ck_assert_ptr_nonnull(strstr(info.message, "16 bytes"));
    fixture_close(&fixture);
    fixture_open(&fixture, NULL, 0);
    ck_assert_int_eq(ploop_image_probe(fixture.file, &info), -EINVAL);
    fixture_close(&fixture);
}
END_TEST

START_TEST(parameters_and_backend_errors)
{
    fixture_open_image(&fixture, &(struct image_plan){0});
    info.size = sizeof(info);
    ck_assert_int_eq(ploop_image_probe(NULL, &info), -EINVAL);
    ck_assert_int_eq(ploop_image_probe(fixture.file, NULL), -EINVAL);
    info.size = sizeof(info) - 1;
    ck_assert_int_eq(ploop_image_probe(fixture.file, &info), -EINVAL);
    info.size = sizeof(info);
    fixture.fail_op = PLOOP_IO_READ;
    fixture.fail_from = 1;
    fixture.fail_error = EIO;
    ck_assert_int_eq(ploop_image_probe(fixture.file, &info), -EIO);
    ck_assert_str_eq(info.message, "");
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("probe");

    tcase_add_test(tests, fields);
    tcase_add_test(tests, flags);
    tcase_add_test(tests, headers_that_cannot_be_trusted);
    tcase_add_test(tests, parameters_and_backend_errors);
    tcase_set_timeout(tests, 120);
    return run_case("probe", tests);
}
