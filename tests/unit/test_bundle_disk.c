/* SPDX-License-Identifier: MIT */
/*
 * A bundle as one disk: requests anywhere in it do what they do in an array, whatever its parts
 * are; what does not fit is refused before anything is marked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "bundle_fixture.h"
#include "run_tests.h"

/* Borders that no cluster and no other border has in common. */
enum { SECTOR = 512, SECTORS = 1024, DISK = SECTORS * SECTOR, STEPS = 400 };
static const uint32_t ends[] = {3, 300, 427, SECTORS};
enum { PARTS = sizeof(ends) / sizeof(ends[0]) };

static const char *type_of(uint32_t part)
{
    return part % 2 ? "Plain" : "Compressed";
}

static void write_part(uint32_t part, uint64_t sectors)
{
    const struct ploop_image_options options = {.size = sizeof(options),
                                                .version = part == 0 ? 1 : 2,
                                                .disk_size = sectors * SECTOR,
                                                .cluster_size = 4096};
    ploop_file *file;
    char name[8];

    snprintf(name, sizeof(name), "%u", part);
    ck_assert_int_eq(
        ploop_file_open_posix(bundle_file(name), PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file),
        0);
    ck_assert_int_eq(part % 2 ? ploop_file_truncate(file, options.disk_size)
                              : ploop_image_create(file, &options),
                     0);
    ploop_file_close(file);
}

static void write_split(void)
{
    char text[4096];
    int at = snprintf(text, sizeof(text),
                      "<Parallels_disk_image><Disk_Parameters><Disk_size>%d</Disk_size>"
                      "</Disk_Parameters><StorageData>",
                      SECTORS);
    uint32_t start = 0;

    for (uint32_t i = 0; i < PARTS; i++) {
        at += snprintf(text + at, sizeof(text) - (size_t)at,
                       "<Storage><Start>%u</Start><End>%u</End><Blocksize>8</Blocksize><Image>"
                       "<GUID>" GUID_TOP "</GUID><Type>%s</Type><File>%u</File></Image></Storage>",
                       start, ends[i], type_of(i), i);
        write_part(i, ends[i] - start);
        start = ends[i];
    }
    snprintf(text + at, sizeof(text) - (size_t)at,
             "</StorageData><Snapshots><Shot><GUID>" GUID_TOP "</GUID><ParentGUID>" GUID_NONE
             "</ParentGUID></Shot></Snapshots></Parallels_disk_image>");
    bundle_write_xml(text);
}

static int open_disk(uint32_t flags, ploop_bundle_disk **disk)
{
    struct ploop_dev_config config;
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_ONLY);

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    int error = ploop_bundle_disk_open(bundle, 0, &config, disk);
    ploop_bundle_close(bundle); /* which the disk does not need */
    return error;
}

static ploop_bundle_disk *opened(uint32_t flags)
{
    ploop_bundle_disk *disk;
    int error = open_disk(flags, &disk);

    ck_assert_msg(error == 0, "open: %d: %s", error, bundle_log);
    return disk;
}

/* ---- Requests ---- */

static uint8_t model[DISK];

static void assert_content(ploop_bundle_disk *disk)
{
    static uint8_t bytes[DISK];

    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, DISK, 0), DISK);
    ck_assert_int_eq(memcmp(bytes, model, DISK), 0);
}

/* One step, at random. A discard is followed by zeros, because of a raw file it says nothing. */
static void step(ploop_bundle_disk *disk, unsigned *seed)
{
    static uint8_t bytes[DISK];
    uint64_t offset = (uint64_t)rand_r(seed) % SECTORS * SECTOR;
    uint64_t length = (1 + (uint64_t)rand_r(seed) % ((DISK - offset) / SECTOR)) * SECTOR;
    uint32_t fua = rand_r(seed) % 4 ? 0 : PLOOP_PIO_FUA;
    uint8_t byte = (uint8_t)rand_r(seed);

    switch (rand_r(seed) % 5) {
    case 0:
        ck_assert_int_eq(ploop_bundle_disk_discard(disk, length, offset), 0);
        ck_assert_int_eq(ploop_bundle_disk_write_zeroes(disk, length, offset, fua), 0);
        memset(model + offset, 0, length);
        break;
    case 1:
        ck_assert_int_eq(
            ploop_bundle_disk_write_zeroes(disk, length, offset, fua | PLOOP_PIO_NO_UNMAP), 0);
        memset(model + offset, 0, length);
        break;
    case 2:
        ck_assert_int_eq(ploop_bundle_disk_flush(disk), 0);
        break;
    case 3:
        ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, length, offset), (int64_t)length);
        ck_assert_int_eq(memcmp(bytes, model + offset, length), 0);
        break;
    default:
        memset(model + offset, byte, length);
        ck_assert_int_eq(ploop_bundle_disk_pwrite(disk, model + offset, length, offset, fua),
                         (int64_t)length);
    }
}

START_TEST(a_split_disk_is_an_array)
{
    unsigned seed = 1;

    write_split();
    memset(model, 0, sizeof(model));
    ploop_bundle_disk *disk = opened(0);
    assert_content(disk);
    for (int i = 0; i < STEPS; i++) {
        step(disk, &seed);
    }
    assert_content(disk);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
    disk = opened(PLOOP_DEV_READ_ONLY);
    assert_content(disk);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
}
END_TEST

START_TEST(extents_end_where_parts_end)
{
    struct ploop_extent extent = {.size = sizeof(extent)};
    uint64_t at = 0;
    uint32_t storage;

    write_split();
    ploop_bundle_disk *disk = opened(PLOOP_DEV_READ_ONLY);
    for (uint32_t i = 0; i < PARTS; i++) {
        ck_assert_int_eq(ploop_bundle_disk_lookup(disk, at, DISK - at, &extent, &storage), 0);
        ck_assert_uint_eq(storage, i);
        ck_assert_uint_eq(extent.offset, at);
        ck_assert_uint_eq(extent.offset + extent.length, ends[i] * UINT64_C(512));
        ck_assert_uint_eq(extent.state, i % 2 ? PLOOP_EXTENT_MAPPED : PLOOP_EXTENT_ZERO);
        at = extent.offset + extent.length;
    }
    ck_assert_int_eq(ploop_bundle_disk_lookup(disk, 600, 10, &extent, &storage), 0);
    ck_assert_uint_eq(extent.length, 10);
    ck_assert_int_eq(ploop_bundle_disk_lookup(disk, DISK, 1, &extent, &storage), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_lookup(disk, 0, DISK + 1, &extent, &storage), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_lookup(disk, 0, 0, &extent, &storage), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
}
END_TEST

START_TEST(what_is_out_of_place_is_refused)
{
    static uint8_t bytes[DISK];
    ploop_bundle_disk *disk;

    write_split();
    disk = opened(PLOOP_DEV_READ_ONLY);
    ck_assert_int_eq(ploop_bundle_disk_pwrite(disk, bytes, 512, 0, 0), -EROFS);
    ck_assert_int_eq(ploop_bundle_disk_write_zeroes(disk, 512, 0, 0), -EROFS);
    ck_assert_int_eq(ploop_bundle_disk_discard(disk, 512, 0), -EROFS);
    ck_assert_int_eq(ploop_bundle_disk_flush(disk), 0);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
    disk = opened(0);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, 512, DISK), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, DISK + 512, 0), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, 512, UINT64_MAX - 511), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, 512, 1), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, 1, 0), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, NULL, 512, 0), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_pread(disk, bytes, 0, 0), 0);
    ck_assert_int_eq(ploop_bundle_disk_pwrite(disk, bytes, 512, 0, PLOOP_PIO_NO_UNMAP), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_write_zeroes(disk, 512, 0, 0x80), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_write_zeroes(disk, 512, 3 * 512, PLOOP_PIO_FAST_ONLY),
                     -ENOTSUP);
    ck_assert_int_eq(ploop_bundle_disk_flush(NULL), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
    ck_assert_int_eq(ploop_bundle_disk_close(NULL), 0);
}
END_TEST

/* ---- Opening ---- */

START_TEST(configurations)
{
    struct ploop_dev_config config;
    ploop_bundle_disk *disk;

    write_split();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_ONLY);
    ck_assert_int_eq(ploop_bundle_disk_open(bundle, 1, NULL, &disk), -ENOENT);
    ck_assert_int_eq(ploop_bundle_disk_open(NULL, 0, NULL, &disk), -EINVAL);
    ck_assert_int_eq(ploop_bundle_disk_open(bundle, 0, NULL, NULL), -EINVAL);
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_RAW_BASE;
    ck_assert_int_eq(ploop_bundle_disk_open(bundle, 0, &config, &disk), -EINVAL);
    config.flags = 0;
    config.reserved[0] = 1;
    ck_assert_int_eq(ploop_bundle_disk_open(bundle, 0, &config, &disk), -E2BIG);
    ck_assert_ptr_null(disk);
    ck_assert_int_eq(ploop_bundle_disk_open(bundle, 0, NULL, &disk), 0);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
    ploop_bundle_close(bundle);
}
END_TEST

static uint32_t in_use_of(const char *name)
{
    int fd = open(bundle_file(name), O_RDONLY);
    uint32_t value = 0;

    ck_assert_int_eq(pread(fd, &value, sizeof(value), 44), sizeof(value));
    close(fd);
    return value;
}

static void poke(const char *name, off_t at, uint32_t value)
{
    int fd = open(bundle_file(name), O_WRONLY);

    ck_assert_int_eq(pwrite(fd, &value, sizeof(value), at), sizeof(value));
    close(fd);
}

/* The last expanding part, or a raw one, is at fault: the first one is left alone. */
START_TEST(all_is_judged_before_anything_is_marked)
{
    static const uint32_t closed_cleanly = 0;
    ploop_bundle_disk *disk;
    int error = -EUCLEAN;

    write_split();
    switch (_i) {
    case 0:
        poke("2", 28, 16);
        break;
    case 1:
        poke("2", 36, 64);
        break;
    case 2:
        poke("2", 0, 0);
        error = -EINVAL;
        break;
    case 3:
        ck_assert_int_eq(truncate(bundle_file("3"), 512), 0);
        break;
    default:
        ck_assert_int_eq(truncate(bundle_file("1"), 298 * 512), 0);
    }
    ck_assert_int_eq(open_disk(0, &disk), error);
    ck_assert_ptr_null(disk);
    ck_assert_ptr_nonnull(strstr(bundle_log, "its image"));
    ck_assert_uint_eq(in_use_of("0"), closed_cleanly);
    ck_assert_int_eq(open_disk(PLOOP_DEV_READ_ONLY, &disk), error);
}
END_TEST

START_TEST(an_unclean_part_needs_recover)
{
    enum { MARK = 0x746F6E59 };
    const char *preloaded = getenv("LD_PRELOAD");
    ploop_bundle_disk *disk;

    if (preloaded && strstr(preloaded, "vgpreload")) {
        return; /* it does not know the call that tells whether a cache was dropped */
    }
    write_split();
    poke("2", 44, MARK);
    ck_assert_int_eq(open_disk(0, &disk), -EUCLEAN);
    ck_assert_uint_eq(in_use_of("0"), 0);
    ck_assert_uint_eq(in_use_of("2"), MARK);
    disk = opened(PLOOP_DEV_RECOVER);
    ck_assert_uint_eq(in_use_of("0"), MARK);
    ck_assert_int_eq(ploop_bundle_disk_close(disk), 0);
    ck_assert_uint_eq(in_use_of("0"), 0);
    ck_assert_uint_eq(in_use_of("2"), 0);
}
END_TEST

START_TEST(a_part_in_use)
{
    ploop_bundle_disk *disk;
    ploop_file *file;
    char name[2] = {(char)('0' + _i), 0};

    write_split();
    ck_assert_int_eq(ploop_file_open_posix(bundle_file(name), PLOOP_FILE_READ_WRITE, &file), 0);
    ck_assert_int_eq(open_disk(0, &disk), -EAGAIN);
    ck_assert_ptr_nonnull(strstr(bundle_log, "another program has it open"));
    ck_assert_uint_eq(in_use_of("0"), 0);
    ploop_file_close(file);
    ck_assert_int_eq(ploop_bundle_disk_close(opened(0)), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bundle-disk");

    tcase_add_checked_fixture(tests, bundle_setup, bundle_teardown);
    tcase_set_timeout(tests, 60); /* each opens and closes files many times, durably */
    tcase_add_test(tests, a_split_disk_is_an_array);
    tcase_add_test(tests, extents_end_where_parts_end);
    tcase_add_test(tests, what_is_out_of_place_is_refused);
    tcase_add_test(tests, configurations);
    tcase_add_loop_test(tests, all_is_judged_before_anything_is_marked, 0, 5);
    tcase_add_test(tests, an_unclean_part_needs_recover);
    tcase_add_loop_test(tests, a_part_in_use, 0, PARTS);
    return run_case("bundle-disk", tests);
}
