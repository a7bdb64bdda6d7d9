/* SPDX-License-Identifier: MIT */
/* ploop_bat_lookup(): where the guest's bytes are. */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>

#include "image_fixture.h"

enum { CLUSTER = 4096 };

static const uint32_t map[] = {0, 1, 1, 2, 2, 4, 3, 3, 5, 5, 6, 6, 7, 7, 99, 8, 0, 0};

/* The disk ends inside its last cluster. */
static void open_mapped(struct rig *rig, uint32_t version)
{
    uint64_t size;
    uint8_t *image = image_build(&(struct image_plan){.version = version,
                                                      .entries = 100,
                                                      .sectors = 100 * 8 - 3,
                                                      .host_clusters = 8,
                                                      .map = map},
                                 &size);
    rig_adopt(rig, image, size, 0);
    free(image);
    rig_open(rig);
}

static void expect(struct rig *rig, uint64_t offset, uint64_t length, uint64_t found, uint64_t host)
{
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig->dev, offset, length, &extent), 0);
    ck_assert_uint_eq(extent.size, sizeof(extent));
    ck_assert_uint_eq(extent.offset, offset);
    ck_assert_uint_eq(extent.length, found);
    ck_assert_uint_eq(extent.state, host ? PLOOP_EXTENT_MAPPED : PLOOP_EXTENT_ZERO);
    ck_assert_uint_eq(extent.host_offset, host);
    ck_assert_uint_eq(extent.level, 0);
}

START_TEST(an_extent_is_as_long_as_it_is_contiguous)
{
    for (uint32_t version = 1; version <= 2; version++) {
        struct rig rig;
        open_mapped(&rig, version);
        uint64_t data = rig.data_start, disk = 100 * CLUSTER - 3 * 512;
        ck_assert_uint_eq(rig.disk_size, disk);
        expect(&rig, 0, disk, 2 * CLUSTER, data);
        expect(&rig, 0, 1, 1, data);
        expect(&rig, 0, CLUSTER + 7, CLUSTER + 7, data);
        expect(&rig, 100, 2 * CLUSTER - 100, 2 * CLUSTER - 100, data + 100);
        expect(&rig, CLUSTER + 5, UINT64_MAX, CLUSTER - 5, data + CLUSTER + 5);
        expect(&rig, 2 * CLUSTER, disk, CLUSTER, data + 3 * CLUSTER);
        expect(&rig, 3 * CLUSTER, disk, CLUSTER, data + 2 * CLUSTER);
        expect(&rig, 4 * CLUSTER, disk, CLUSTER, 0);
        expect(&rig, 4 * CLUSTER + 512, disk, CLUSTER - 512, 0);
        expect(&rig, 5 * CLUSTER, disk, 3 * CLUSTER, data + 4 * CLUSTER);
        expect(&rig, 8 * CLUSTER, disk, 91 * CLUSTER, 0);
        expect(&rig, 8 * CLUSTER, 10, 10, 0);
        expect(&rig, 99 * CLUSTER, disk, CLUSTER - 3 * 512, data + 7 * CLUSTER);
        expect(&rig, disk - 1, disk, 1, data + 8 * CLUSTER - 3 * 512 - 1);
        rig_end(&rig);
    }
}
END_TEST

START_TEST(what_is_beyond_the_disk_is_refused)
{
    struct rig rig;
    struct ploop_extent extent = {.size = sizeof(extent)};
    open_mapped(&rig, 2);
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, rig.disk_size, 1, &extent), -EINVAL);
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, UINT64_MAX, 1, &extent), -EINVAL);
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, 0, 0, &extent), -EINVAL);
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, 0, 1, NULL), -EINVAL);
    extent.size = 4;
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, 0, 1, &extent), -EINVAL);
    extent.size = 1 << 20;
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, 0, 1, &extent), -EINVAL);
    rig_end(&rig);
}
END_TEST

START_TEST(a_bad_entry_is_an_error_and_ends_an_extent)
{
    struct rig rig;
    uint64_t size;
    struct ploop_extent extent = {.size = sizeof(extent)};
    uint8_t *image =
        image_build(&(struct image_plan){.entries = 100, .host_clusters = 8, .map = map}, &size);
    image_set_entry(image, 1, 77777);
    image_set_entry(image, 10, 77777);
    rig_adopt(&rig, image, size, 0);
    free(image);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    rig_open(&rig);
    expect(&rig, 0, 4 * CLUSTER, CLUSTER, rig.data_start);
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, CLUSTER, 512, &extent), -EIO);
    expect(&rig, 8 * CLUSTER, 10 * CLUSTER, 2 * CLUSTER, 0);
    rig_free(&rig);
}
END_TEST

START_TEST(a_mapping_is_seen_at_once)
{
    struct rig rig;
    open_mapped(&rig, 2);
    ck_assert_int_eq(rig_write(&rig, 4 * CLUSTER, 512, 1, 0), 0);
    struct ploop_extent extent = {.size = sizeof(extent)};
    ck_assert_int_eq(ploop_bat_lookup(rig.dev, 4 * CLUSTER, CLUSTER, &extent), 0);
    ck_assert_uint_eq(extent.state, PLOOP_EXTENT_MAPPED);
    ck_assert_uint_eq(rig.script.bytes[extent.host_offset], 1);
    ck_assert_int_eq(rig_discard(&rig, 4 * CLUSTER, CLUSTER), 0);
    expect(&rig, 4 * CLUSTER, CLUSTER, CLUSTER, 0);
    rig_close_dev(&rig);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        an_extent_is_as_long_as_it_is_contiguous, what_is_beyond_the_disk_is_refused,
        a_bad_entry_is_an_error_and_ends_an_extent, a_mapping_is_seen_at_once};
    return RUN_TESTS("lookup", tests);
}
