/* SPDX-License-Identifier: MIT */
/*
 * Whatever a header claims, reading an image costs no more than the limits and the file's real
 * content allow. The tests count memory and backend requests, not time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "counted_memory.h"
#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define TIB (MIB * MIB)

enum { CLOSED = 0x312e3276 };

#define DATA_OFF_MAX_V2 0xFFFFFFF8u

/* ---- the ways in ---- */

static struct fixture fixture;
static uint64_t progress_calls;

enum way { PROBE, CHECK, REPAIR, OPEN_FOR_READING, OPEN_FOR_WRITING, WAYS };

static int go_on(void *user_data, uint64_t done, uint64_t total)
{
    (void)user_data;
    ck_assert_uint_le(done, total);
    progress_calls++;
    return 0;
}

static int check(uint64_t bat_limit, uint32_t repair)
{
    const struct ploop_check_options options = {
        .size = sizeof(options), .repair = repair, .bat_limit_bytes = bat_limit, .progress = go_on};
    struct ploop_check_result result = {.size = sizeof(result)};

    return ploop_image_check(fixture.file, &options, &result);
}

static int open_and_close(uint64_t bat_limit, uint32_t flags)
{
    struct ploop_dev_config config;
    ploop_dev *dev;

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    config.bat_limit_bytes = bat_limit;

    int error = ploop_dev_open(&fixture.file, 1, &config, &dev);

    ploop_dev_abort(error ? NULL : dev);
    return error;
}

static int go(enum way way, uint64_t bat_limit)
{
    struct ploop_image_info info = {.size = sizeof(info)};

    fixture_reset(&fixture);
    counted_memory = (struct counted_memory){.bytes = 0};
    progress_calls = 0;
    switch (way) {
    case PROBE:
        return ploop_image_probe(fixture.file, &info);
    case CHECK:
        return check(bat_limit, 0);
    case REPAIR:
        return check(bat_limit, PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES);
    case OPEN_FOR_READING:
        return open_and_close(bat_limit, PLOOP_DEV_READ_ONLY);
    default:
        return open_and_close(bat_limit, PLOOP_DEV_RECOVER);
    }
}

static void cost_at_most(const char *what, uint64_t bytes, uint64_t reads)
{
    ck_assert_msg(counted_memory.bytes <= bytes,
                  "%s: %" PRIu64 " bytes of memory, %" PRIu64 " at most", what,
                  counted_memory.bytes, bytes);
    ck_assert_msg(fixture.counts[PLOOP_IO_READ] <= reads, "%s: %" PRIu64 " reads", what,
                  fixture.counts[PLOOP_IO_READ]);
}

/*
 * Every way in refuses the image with that error, reads no more than the header, and writes
 * nothing.
 */
static void refused(const char *what, int error)
{
    for (int way = PROBE; way < WAYS; way++) {
        int got = go((enum way)way, 0);

        ck_assert_msg(got == (way == PROBE && error == -EFBIG ? 0 : error), "%s: way %d: %d", what,
                      way, got);
        cost_at_most(what, 512 * KIB, 1);
        ck_assert_uint_eq(fixture_changes(&fixture), 0);
    }
}

/* ---- headers ---- */

static void header(uint32_t version, uint32_t tracks, uint32_t bat_entries, uint64_t sectors,
                   uint32_t data_off, uint64_t claimed_size)
{
    uint8_t *bytes = fixture.bytes;

    memset(bytes, 0, fixture.size);
    memcpy(bytes, version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
    store_le32(bytes + 16, 2);
    store_le32(bytes + 28, tracks);
    store_le32(bytes + 32, bat_entries);
    store_le64(bytes + 36, sectors);
    store_le32(bytes + 48, data_off);
    fixture.claimed_size = claimed_size;
}

static void begin(uint64_t real_size)
{
    uint8_t *zeros = calloc(1, real_size);

    fixture_open(&fixture, zeros, real_size);
    free(zeros);
}

START_TEST(four_kibibytes_that_claim_anything)
{
    static const uint32_t entries[] = {1009,       0x40000000, 0x40000001, 0x7FFFFFFF,
                                       0x80000000, 0xFFFFFFFE, 0xFFFFFFFF};
    static const uint32_t tracks[] = {0, 131073, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};

    begin(4096);
    for (uint32_t version = 1; version <= 2; version++) {
        for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++) {
            header(version, 8, entries[i], 1, 8, 0);
            refused("more entries than the file has", -EUCLEAN);
        }
        for (size_t i = 0; i < sizeof(tracks) / sizeof(*tracks); i++) {
            header(version, tracks[i], 1, 1, 8, 0);
            refused("a cluster of no such size", -EUCLEAN);
        }
        header(version, 8, 1000, UINT64_MAX, 8, 0);
        refused("a disk larger than its BAT", -EUCLEAN);
        header(version, 8, 1000, 1, DATA_OFF_MAX_V2, 0);
        refused("a data area behind the file", -EUCLEAN);
    }
    fixture_close(&fixture);
}
END_TEST

/* A BAT that a file of that size could really hold, but that no process should load. */
START_TEST(sixteen_tebibytes_of_holes)
{
    begin(4096);
    for (uint32_t version = 1; version <= 2; version++) {
        header(version, 8, UINT32_MAX, 1, DATA_OFF_MAX_V2, 16 * TIB);
        refused("2^32 - 1 entries", -EFBIG);
        header(version, 8, (1 << 28) + 1, 1, DATA_OFF_MAX_V2, 16 * TIB);
        refused("one entry more than the limit", -EFBIG);
        header(version, 0x80000000, 1000, 1, DATA_OFF_MAX_V2, 16 * TIB);
        refused("clusters of 2^31 sectors", -EUCLEAN);
        header(version, 131072, 1, 131073, DATA_OFF_MAX_V2, 16 * TIB);
        refused("one sector more than the BAT", -EUCLEAN);
    }
    fixture_close(&fixture);
}
END_TEST

/*
 * At the configured limit: the expected memory for each byte of the BAT, and reads of a reasonable
 * size.
 */
START_TEST(a_bat_at_its_limit)
{
    enum { ENTRIES = 262144, DATA_OFF = 4096 };
    static const uint32_t tracks[] = {1, 8, 131072};
    const uint64_t limit = 4 * ENTRIES;

    begin(4096);
    for (size_t i = 0; i < 2 * sizeof(tracks) / sizeof(*tracks); i++) {
        uint32_t version = i % 2 + 1, c = tracks[i / 2], data_off = c < DATA_OFF ? DATA_OFF : c;

        for (int way = PROBE; way < WAYS; way++) {
            header(version, c, ENTRIES, 1, data_off, 16 * TIB);
            ck_assert_int_eq(go((enum way)way, limit), 0);
            cost_at_most("a BAT of 1 MiB", 12 * limit + 4 * MIB, limit / (64 * KIB));
            ck_assert(way == PROBE || go((enum way)way, limit - 1) == -EFBIG);
        }
    }
    fixture_close(&fixture);
}
END_TEST

/*
 * Entries as far apart as possible: the check passes over the BAT as often as windows of its memory
 * fit into 2^32 clusters.
 */
START_TEST(entries_far_apart)
{
    enum { ENTRIES = 1000, PASSES_MAX = 2 * 513 };

    begin(4096);
    for (uint32_t version = 1; version <= 2; version++) {
        header(version, 1, ENTRIES, ENTRIES, 8, 16 * TIB);
        for (uint32_t i = 0; i < ENTRIES; i++) {
            image_set_entry(fixture.bytes, i, UINT32_MAX - 1 - i * (UINT32_MAX / ENTRIES));
        }
        ck_assert_int_eq(go(CHECK, 0), 0);
        cost_at_most("entries far apart", 4 * MIB, 2);
        ck_assert_uint_gt(progress_calls, 400);
        ck_assert_uint_le(progress_calls, PASSES_MAX + 8);
        ck_assert_int_eq(go(OPEN_FOR_READING, 0), 0);
        cost_at_most("entries far apart", 4 * MIB, 2);
        ck_assert_int_eq(go(OPEN_FOR_WRITING, 0), 0);
        cost_at_most("entries far apart", 4 * MIB, 2);
    }
    fixture_close(&fixture);
}
END_TEST

/* The clusters before the data area do not belong to the device, so they cost it nothing. */
START_TEST(a_data_area_far_away)
{
    begin(4096);
    for (uint32_t version = 1; version <= 2; version++) {
        for (int way = CHECK; way < WAYS; way++) {
            header(version, 1, 900, 900, DATA_OFF_MAX_V2, 16 * TIB);
            ck_assert_int_eq(go((enum way)way, 0), 0);
            cost_at_most("a data area far away", 4 * MIB, 3);
        }
    }
    fixture_close(&fixture);
}
END_TEST

/*
 * The copy of a duplicate would lie where no entry can name it: the repair takes everything back.
 */
START_TEST(no_place_for_a_copy)
{
    uint8_t before[4096];

    begin(4096);
    for (uint32_t version = 1; version <= 2; version++) {
        header(version, 1, 900, 900, 8, 16 * TIB);
        image_set_entry(fixture.bytes, 0, 100000);
        image_set_entry(fixture.bytes, 5, 100000);
        memcpy(before, fixture.bytes, sizeof(before));
        ck_assert_int_eq(go(REPAIR, 0), -EFBIG);
        ck_assert_uint_eq(fixture.size, sizeof(before));
        ck_assert_mem_eq(fixture.bytes, before, sizeof(before));
    }
    fixture_close(&fixture);
}
END_TEST

/*
 * The extension's cluster is the largest item that is read whole. The library does not process one
 * that has only zeros.
 */
START_TEST(an_extension_of_the_largest_size)
{
    enum { C = 131072 };

    begin(4096);
    header(2, C, 1, 1, C, 16 * TIB);
    store_le32(fixture.bytes + 44, CLOSED);
    store_le64(fixture.bytes + 56, (uint64_t)C * 1000);
    ck_assert_int_eq(go(CHECK, 0), 0);
    cost_at_most("an extension of 64 MiB", 64 * MIB + 4 * MIB, 3);
    ck_assert_int_eq(go(OPEN_FOR_WRITING, 0), -EUCLEAN);
    cost_at_most("an extension of 64 MiB", 64 * MIB + 4 * MIB, 4);
    ck_assert_int_eq(go(OPEN_FOR_READING, 0), 0);
    cost_at_most("none to be read", 4 * MIB, 3);
    store_le64(fixture.bytes + 56, UINT64_MAX);
    ck_assert_int_eq(go(CHECK, 0), 0);
    cost_at_most("an extension that is nowhere", 4 * MIB, 3);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bounds");

    tcase_add_test(tests, four_kibibytes_that_claim_anything);
    tcase_add_test(tests, sixteen_tebibytes_of_holes);
    tcase_add_test(tests, a_bat_at_its_limit);
    tcase_add_test(tests, entries_far_apart);
    tcase_add_test(tests, a_data_area_far_away);
    tcase_add_test(tests, no_place_for_a_copy);
    tcase_add_test(tests, an_extension_of_the_largest_size);
    tcase_set_timeout(tests, 120);
    return run_case("bounds", tests);
}
