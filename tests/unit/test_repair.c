/* SPDX-License-Identifier: MIT */
/*
 * Repairs: what each flag repairs and what it leaves alone. test_repair_failures.c has power cuts
 * and failures.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "repair_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

/* ---- all at once ---- */

START_TEST(all_leaves_nothing)
{
    struct fixture fixture;
    struct check_outcome outcome;
    struct content before, after;
    enum scenario scenario = (enum scenario)(_i / 2);

    repair_make(&fixture, scenario, (uint32_t)_i % 2 + 1);
    read_content(fixture.bytes, fixture.size, &before);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_gt(outcome.result.errors + outcome.result.leaks, 0);

    uint64_t findings = 0;

    for (uint32_t kind = 0; kind <= PLOOP_CHECK_ENTRY_CUT; kind++) {
        findings += outcome.kinds[kind]; /* void extensions are none */
    }
    ck_assert_uint_eq(outcome.result.repaired, findings);
    read_content(fixture.bytes, fixture.size, &after);
    assert_kept(&before, &after, "repaired");
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        ck_assert(after.status[i] != -1);
        ck_assert(before.status[i] != -1 ||
                  (i != 7 && i != 900 && (i != 1050 || scenario == EVERYTHING)) ||
                  after.status[i] == 1);
    }
    fixture_reset(&fixture);
    run_check(&fixture, ALL,
              &outcome); /* the second time the repair finds nothing to do, and does nothing */
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.result.errors + outcome.result.leaks + outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
    fixture_close(&fixture);
}
END_TEST

/* ---- each alone ---- */

static void repair_one(struct fixture *fixture, uint32_t repair, uint64_t errors, uint64_t leaks)
{
    struct check_outcome outcome;

    run_check(fixture, repair, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    run_check(fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.result.errors, errors);
    ck_assert_uint_eq(outcome.result.leaks, leaks);
}

START_TEST(leaks_alone)
{
    struct fixture fixture;

    repair_make(&fixture, UNCLEAN_LEAKS, 2); /* the mark stays, the Empty flag does not */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 1, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), IN_USE);
    ck_assert_uint_eq(load_le64(fixture.bytes + 56), 0);
    fixture_close(&fixture);
    repair_make(&fixture, BAD_ENTRIES, 2); /* errors stay: only the tail is cut */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 4, 7);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    fixture_close(&fixture);
    repair_make(&fixture, EXTENSION_BAD,
                2); /* and if the extension has an error the header still names it */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 1, 7);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);
    ck_assert_uint_ne(load_le64(fixture.bytes + 56), 0);
    fixture_close(&fixture);
}
END_TEST

/* What an image does not use of a device is free: nothing moves, nothing is cut. */
START_TEST(a_device_has_no_leaks)
{
    static const enum scenario scenarios[] = {LEAKS_ONLY, EXTENSION_LEAKS, EXTENSION_INSIDE,
                                              VOID_EXTENSION};
    struct fixture fixture;
    struct check_outcome outcome;

    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        repair_make(&fixture, scenarios[i], 2);
        fixture.capabilities = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_FIXED_SIZE;
        run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
        ck_assert_int_eq(outcome.error, 0);
        ck_assert_uint_eq(outcome.result.errors + outcome.result.leaks, 0);
        ck_assert_uint_eq(fixture_changes(&fixture), 0);
        fixture_close(&fixture);
    }
}
END_TEST

/* Copies lie behind all that is used, if there is room: the device cannot grow. */
START_TEST(duplicates_on_a_device_get_free_clusters)
{
    static struct content before, after;
    struct fixture fixture;
    struct check_outcome outcome;

    for (uint32_t version = 1; version <= 2; version++) {
        repair_make(&fixture, DUPLICATES, version);
        fixture.capabilities = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_FIXED_SIZE;
        read_content(fixture.bytes, fixture.size, &before);
        run_check(&fixture, ALL, &outcome);
        ck_assert_int_eq(outcome.error, -ENOSPC);
        read_content(fixture.bytes, fixture.size, &after);
        assert_kept(&before, &after, "no room");
        fixture_close(&fixture);

        repair_make(&fixture, DUPLICATES, version);
        fixture.capabilities = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_FIXED_SIZE;
        uint64_t size = fixture.size + (uint64_t)4 * CLUSTER + 512;
        uint8_t *larger = malloc(size);
        ck_assert_ptr_nonnull(larger);
        memset(larger, 0xA5, size);
        memcpy(larger, fixture.bytes, fixture.size);
        fixture_close(&fixture);
        fixture_open(&fixture, larger, size);
        free(larger);
        fixture.capabilities = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_FIXED_SIZE;
        run_check(&fixture, ALL, &outcome);
        ck_assert_int_eq(outcome.error, 0);
        ck_assert_uint_eq(fixture.size, size);
        read_content(fixture.bytes, fixture.size, &after);
        assert_kept(&before, &after, "room");
        run_check(&fixture, 0, &outcome);
        ck_assert_uint_eq(outcome.result.errors + outcome.result.leaks, 0);
        fixture_close(&fixture);
    }
}
END_TEST

/* A bad entry that reaches into the last cluster: the data that it could name is not cut off. */
START_TEST(leaks_leave_what_a_bad_entry_means)
{
    struct fixture fixture;
    struct check_outcome outcome;

    repair_make(&fixture, LEAKS_ONLY, 1);
    image_set_entry(fixture.bytes, 5, image_entry_for(fixture.bytes, 12) + 1);

    uint64_t size = fixture.size;

    run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(fixture.size, size - CLUSTER + 512);
    fixture_close(&fixture);
}
END_TEST

START_TEST(unclean_alone)
{
    struct fixture fixture;
    struct check_outcome outcome;

    repair_make(&fixture, UNCLEAN_LEAKS, 2);
    repair_one(&fixture, PLOOP_REPAIR_UNCLEAN, 0, 9);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    fixture_close(&fixture);
    repair_make(&fixture, BAD_ENTRIES,
                2); /* not after a check that found more errors: nothing is written */
    store_le32(fixture.bytes + 44, IN_USE);
    run_check(&fixture, PLOOP_REPAIR_UNCLEAN, &outcome);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
    repair_one(&fixture, PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES, 0, 9);
    fixture_close(&fixture);
    repair_make(&fixture, LEAKS_ONLY, 2); /* a value of other software's is no mark */
    store_le32(fixture.bytes + 44, 77);
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    fixture_close(&fixture);
}
END_TEST

START_TEST(entries_alone)
{
    struct fixture fixture;

    repair_make(&fixture, EVERYTHING, 2);
    repair_one(&fixture, PLOOP_REPAIR_ENTRIES, 1,
               10); /* the mark; in some runs one cluster lies beyond the disk's end */
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), IN_USE);
    fixture_close(&fixture);
}
END_TEST

/* The Empty flag is set as a clean close would set it. */
START_TEST(empty_at_last)
{
    struct fixture fixture;

    fixture_open_image(&fixture,
                       &(struct image_plan){.map = (uint32_t[]){3, 9, 0, 0}, .host_clusters = 2});
    repair_one(&fixture, ALL, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 52), 1);
    ck_assert_uint_eq(fixture.size, image_data_start(fixture.bytes));
    fixture_close(&fixture);
}
END_TEST

/* Valid, but not as a clean close leaves it, which confuses other software. */
START_TEST(a_header_is_tidied)
{
    const struct image_plan untidy[] = {
        {.host_clusters = 5, .in_use = CLOSED},
        {.host_clusters = 5, .extension_sector = 99999},
        {.host_clusters = 1, .map = (uint32_t[]){0, 0}, .entries = 1009, .sectors = 1},
    };

    for (int i = 0; i < 3; i++) {
        struct fixture fixture;

        fixture_open_image(&fixture, &untidy[i]);
        fixture.size = i == 2 ? image_data_start(fixture.bytes) : fixture.size;
        repair_one(&fixture, PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_ENTRIES, 0, 0);
        ck_assert_uint_eq(fixture_changes(&fixture), 0);
        repair_one(&fixture, PLOOP_REPAIR_UNCLEAN, 0, 0);
        ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
        ck_assert_uint_eq(load_le64(fixture.bytes + 56), 0);
        ck_assert_uint_eq(load_le32(fixture.bytes + 52), i == 2);
        fixture_reset(&fixture);
        repair_one(&fixture, ALL, 0, 0);
        ck_assert_uint_eq(fixture_changes(&fixture), 0);
        fixture_close(&fixture);
    }
}
END_TEST

/* Words behind the last entry, in its sector, are written back unchanged. */
START_TEST(only_the_bat_changes)
{
    struct fixture fixture;
    struct check_outcome outcome;

    repair_make(&fixture, UNCLEAN_LEAKS, 1); /* the data area begins within the BAT's second page */
    ck_assert_uint_eq(image_data_start(fixture.bytes), 4608);
    memset(fixture.bytes + 64 + 4 * ENTRIES, 0x5A, 4608 - 64 - 4 * ENTRIES);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    for (uint64_t i = 64 + 4 * ENTRIES; i < 4608; i++) {
        ck_assert_uint_eq(fixture.bytes[i], 0x5A);
    }
    fixture_close(&fixture);
}
END_TEST

/* Clusters that take more than one read and write: every part is copied, to its place. */
START_TEST(a_large_cluster_is_copied_whole)
{
    static const uint32_t sectors[] = {4095, 8192};
    struct fixture fixture;
    uint64_t size = (uint64_t)sectors[_i] * 512;

    fixture_open_image(&fixture, &(struct image_plan){.cluster_sectors = sectors[_i],
                                                      .entries = 4,
                                                      .sectors = (uint64_t)4 * sectors[_i],
                                                      .host_clusters = 3,
                                                      .map = (uint32_t[]){0, 2, 1, 3, 0, 0}});
    image_set_entry(fixture.bytes, 2,
                    image_entry(fixture.bytes, 0)); /* and host cluster 0 is a leak, to be filled */

    uint64_t owner = (uint64_t)image_entry(fixture.bytes, 0) * size;

    for (uint64_t at = 0; at < size; at += 4) {
        store_le32(fixture.bytes + owner + at, (uint32_t)at + 1);
    }
    repair_one(&fixture, ALL, 0, 0);
    for (uint32_t guest = 0; guest < 3; guest += 2) {
        const uint8_t *copy = fixture.bytes + (uint64_t)image_entry(fixture.bytes, guest) * size;

        uint64_t right = 0;
        while (right < size && load_le32(copy + right) == (uint32_t)right + 1) {
            right += 4;
        }
        ck_assert_uint_eq(right, size);
    }
    ck_assert_uint_eq(fixture.bytes[(uint64_t)image_entry(fixture.bytes, 1) * size + size - 1],
                      0xA2);
    fixture_close(&fixture);
}
END_TEST

/* ---- the extension ---- */

static uint64_t bitmap_l1(const uint8_t *image)
{
    uint64_t start = load_le64(image + 56) * 512;

    ck_assert_uint_ne(start, 0);
    return load_le64(image + start + 48 + 32) * 512;
}

START_TEST(a_bitmap_moves_with_its_extension)
{
    struct fixture fixture;

    repair_make(&fixture, EXTENSION_LEAKS, 2);
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);
    ck_assert_uint_eq(fixture.size, image_data_start(fixture.bytes) + 7 * CLUSTER);
    ck_assert_uint_eq(fixture.bytes[bitmap_l1(fixture.bytes)],
                      0xA0 + 13); /* its bits, at their new place */
    fixture_close(&fixture);
}
END_TEST

/* Where the data area of the smallest images begins: as a table entry this means "all ones". */
enum { SMALL_ENTRIES = 4, SMALL_HOSTS = 5, SECTOR_ONE = 512 };

/* Host clusters of a small image; a guest's of SMALL_HOSTS: not mapped. */
struct small_plan {
    uint32_t version, cluster_sectors, guest, extension, bitmaps[2];
};

static void make_small(struct fixture *fixture, const struct small_plan *small)
{
    uint64_t size = (uint64_t)small->cluster_sectors * 512;
    uint64_t sectors = (uint64_t)SMALL_ENTRIES * small->cluster_sectors;
    struct extension_plan plan;

    fixture_open_image(fixture, &(struct image_plan){.version = small->version,
                                                     .cluster_sectors = small->cluster_sectors,
                                                     .entries = SMALL_ENTRIES,
                                                     .sectors = sectors,
                                                     .in_use = CLOSED,
                                                     .host_clusters = SMALL_HOSTS,
                                                     .map = MAP_NONE});
    ck_assert_uint_eq(image_data_start(fixture->bytes), SECTOR_ONE);
    if (small->guest < SMALL_HOSTS) {
        image_set_entry(fixture->bytes, 2, image_entry_for(fixture->bytes, small->guest));
    }
    store_le64(fixture->bytes + 56, (SECTOR_ONE + small->extension * size) / 512);
    extension_begin(&plan, fixture->bytes + SECTOR_ONE + small->extension * size, (uint32_t)size);
    for (int i = 0; i < 2; i++) {
        extension_add_bitmap(&plan, sectors, 1, 1,
                             (uint64_t[]){(SECTOR_ONE + small->bitmaps[i] * size) / 512});
    }
    extension_end(&plan);
}

static void assert_filled(const struct fixture *fixture, uint64_t at, uint64_t size, uint32_t host)
{
    ck_assert_uint_ge(at, SECTOR_ONE);
    ck_assert_uint_le(at + size, fixture->size);
    for (uint64_t i = at; i < at + size; i++) {
        must(fixture->bytes[i] == 0xA0 + host);
    }
}

static void repair_small(const struct small_plan *small)
{
    struct fixture fixture;
    uint64_t size = (uint64_t)small->cluster_sectors * 512;
    bool mapped = small->guest < SMALL_HOSTS;

    make_small(&fixture, small);
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 0, 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);
    ck_assert_uint_eq(fixture.size, SECTOR_ONE + (3 + mapped) * size);
    if (mapped) {
        uint64_t unit = small->version == 1 ? 512 : size;

        assert_filled(&fixture, image_entry(fixture.bytes, 2) * unit, size, small->guest);
    }

    const uint8_t *extension = fixture.bytes + load_le64(fixture.bytes + 56) * 512;

    for (uint32_t i = 0; i < 2; i++) { /* features of 24 + 40 bytes, the entry their last 8 */
        assert_filled(&fixture, load_le64(extension + 24 + 64 * i + 56) * 512, size,
                      small->bitmaps[i]);
    }
    fixture_close(&fixture);
}

/* Wherever all of them lay: a bitmap moved there would lose its bits, and leak. */
START_TEST(no_bitmap_moves_to_sector_one)
{
    struct small_plan small = {.version = (uint32_t)_i + 1, .cluster_sectors = _i ? 1 : 8};
    uint32_t *a = &small.bitmaps[0], *b = &small.bitmaps[1];

    for (small.guest = 0; small.guest <= SMALL_HOSTS; small.guest++) {
        for (small.extension = 0; small.extension < SMALL_HOSTS; small.extension++) {
            for (uint32_t pair = 0; pair < SMALL_HOSTS * SMALL_HOSTS; pair++) {
                *a = pair / SMALL_HOSTS;
                *b = pair % SMALL_HOSTS;
                if (*a && *b && *a != *b && *a != small.guest && *b != small.guest &&
                    small.extension != small.guest && *a != small.extension &&
                    *b != small.extension) {
                    repair_small(&small);
                }
            }
        }
    }
}
END_TEST

/*
 * Changed entries change what the guest sees, and no bitmap records it, so bitmaps are dropped; a
 * TRANSIT feature stays.
 */
START_TEST(no_bitmap_survives_changed_entries)
{
    struct fixture fixture;

    repair_make(&fixture, EXTENSION_ENTRIES, 2);
    repair_one(&fixture, ALL, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);

    const uint8_t *extension = fixture.bytes + load_le64(fixture.bytes + 56) * 512;

    ck_assert_uint_eq(load_le64(extension + 24), 0x1122334455667788u);
    ck_assert_uint_eq(load_le64(extension + 24 + 24 + 8), 0);
    fixture_close(&fixture);
}
END_TEST

START_TEST(a_necessary_feature_forbids_repair)
{
    struct fixture fixture;
    struct check_outcome outcome;
    struct extension_plan plan;

    repair_make(&fixture, EXTENSION_LEAKS, 2);
    extension_begin(&plan, fixture.bytes + image_data_start(fixture.bytes) + 12 * CLUSTER, CLUSTER);
    extension_add(&plan, 5, 1, NULL, 0);
    extension_end(&plan);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.error, -ENOTSUP);
    ck_assert_uint_eq(outcome.result.errors, 0);
    ck_assert_uint_gt(outcome.result.leaks, 0);
    ck_assert_uint_eq(fixture_changes(&fixture), 0);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("repair");

    tcase_add_loop_test(tests, all_leaves_nothing, 0, 2 * SCENARIOS);
    tcase_add_test(tests, leaks_alone);
    tcase_add_test(tests, leaks_leave_what_a_bad_entry_means);
    tcase_add_test(tests, a_device_has_no_leaks);
    tcase_add_test(tests, duplicates_on_a_device_get_free_clusters);
    tcase_add_test(tests, unclean_alone);
    tcase_add_test(tests, entries_alone);
    tcase_add_test(tests, empty_at_last);
    tcase_add_test(tests, a_header_is_tidied);
    tcase_add_test(tests, only_the_bat_changes);
    tcase_add_loop_test(tests, a_large_cluster_is_copied_whole, 0, 2);
    tcase_add_test(tests, a_bitmap_moves_with_its_extension);
    tcase_add_loop_test(tests, no_bitmap_moves_to_sector_one, 0, 2);
    tcase_add_test(tests, no_bitmap_survives_changed_entries);
    tcase_add_test(tests, a_necessary_feature_forbids_repair);
    tcase_set_timeout(tests, 250);
    return run_case("repair", tests);
}
