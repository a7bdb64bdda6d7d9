/* SPDX-License-Identifier: MIT */
/* The format extension: its codec, its validation, and what survives a session of writing. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/extension_load.h"
#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

enum {
    CLOSED = 0x312e3276,
    IN_USE = 0x746F6E59,
    CLUSTER = 4096,
    DISK_SECTORS = 8800,
    GRANULARITY = 8
};

#define UNKNOWN 0x1122334455667788u

static struct fixture fixture;
static struct extension extension;
static struct extension_plan plan;
static uint8_t *cluster; /* the extension's cluster in the fixture's bytes: host cluster 5 */
static char message[HEADER_MESSAGE_SIZE];

/* Host clusters 0 to 4 are guests', 5 the extension's, 6 and 7 free for bitmaps. */
static void open_image(uint32_t version, uint32_t in_use)
{
    fixture_open_image(
        &fixture, &(struct image_plan){.version = version, .host_clusters = 8, .in_use = in_use});

    uint64_t start = image_data_start(fixture.bytes) + (uint64_t)5 * CLUSTER;

    store_le64(fixture.bytes + 56, start / 512);
    cluster = fixture.bytes + start;
    extension_begin(&plan, cluster, CLUSTER);
}

static uint64_t sector_of_host(uint64_t host)
{
    return (image_data_start(fixture.bytes) + host * CLUSTER) / 512;
}

static uint32_t entry_in_fixture(const void *context, uint32_t guest_cluster)
{
    return image_entry(context, guest_cluster);
}

static int load(void)
{
    struct header header;
    const struct entry_source entries = {entry_in_fixture, fixture.bytes};

    ck_assert_int_eq(header_decode(fixture.bytes, 64, fixture.size, &header, message), 0);
    return extension_load(&extension, fixture.file, &header, fixture.size, entries);
}

/* Load it; the check's verdict must be the oracle's. */
static void loaded(enum extension_state state, int writable, int check_status)
{
    struct check_outcome outcome;

    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(extension.state, state);
    ck_assert_int_eq(extension_writable(&extension, message), writable);
    ck_assert_msg(!writable == !message[0] && !strchr(message, '\n'), "\"%s\"", message);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), check_status);
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.result.errors ? 2 : outcome.result.leaks ? 3 : 0, check_status);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_EXTENSION], check_status == 2);
    ck_assert_uint_eq(outcome.result.recoverable, !writable);
    ck_assert_uint_eq(fixture.log_size, 0);
}

static void close_image(void)
{
    extension_free(&extension);
    fixture_close(&fixture);
}

static void add_bitmap(uint64_t l1_entry)
{
    extension_add_bitmap(&plan, DISK_SECTORS, GRANULARITY, 1, &l1_entry);
}

START_TEST(none_and_void)
{
    fixture_open_image(&fixture, &(struct image_plan){.in_use = CLOSED});
    loaded(EXTENSION_NONE, 0, 3);
    close_image();
    for (uint32_t in_use = 0; in_use <= IN_USE; in_use += IN_USE) {
        open_image(2, in_use);
        store_le64(fixture.bytes + 56, UINT64_MAX); /* not followed */
        ck_assert_int_eq(load(), 0);
        ck_assert_int_eq(extension.state, EXTENSION_VOID);
        ck_assert_int_eq(extension_writable(&extension, message), 0);
        ck_assert_uint_eq(fixture.counts[PLOOP_IO_READ], 0);
        close_image();
    }
}
END_TEST

START_TEST(bitmaps_own_their_clusters)
{
    for (uint32_t version = 1; version <= 2; version++) {
        open_image(version, CLOSED);
        add_bitmap(L1_ALL_ONES);
        add_bitmap(sector_of_host(7));
        add_bitmap(L1_ALL_ZEROS);
        add_bitmap(sector_of_host(6));
        extension_end(&plan);
        loaded(EXTENSION_VALID, 0, 0);
        ck_assert_uint_eq(extension.bitmap_count, 4);
        ck_assert_uint_eq(extension.bitmaps[1].bitmap.granularity, GRANULARITY);
        ck_assert_mem_eq(extension.bitmaps[1].bitmap.id, "0123456789abcdef", 16);
        ck_assert_uint_eq(extension.owned_count, 3);
        for (uint64_t i = 0; i < 3; i++) {
            ck_assert_uint_eq(extension.owned[i], sector_of_host(5 + i) * 512);
        }
        close_image();
    }
}
END_TEST

START_TEST(places_it_cannot_have)
{
    const uint64_t wrong[] = {1,
                              UINT64_MAX,
                              (UINT64_C(1) << 63) + 1,
                              UINT64_MAX / 512,
                              UINT64_MAX / 512 + 1,
                              0x7FFFFFFFFFFF,
                              16 + 8 * 8 /* one past the last */,
                              16 + 8 * 5 + 1,
                              16 + 8 * 4 + 7};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        open_image(2, CLOSED);
        extension_end(&plan);
        store_le64(fixture.bytes + 56, wrong[i]);
        loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
        ck_assert_uint_eq(extension.owned_count, 0);
        close_image();
    }
    open_image(2, CLOSED);
    extension_begin(&plan, cluster - CLUSTER, CLUSTER);
    extension_end(&plan);
    store_le64(fixture.bytes + 56, sector_of_host(4)); /* a good one, in guest cluster 1099's own */
    loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
    ck_assert_uint_eq(extension.owned_count, 0);
    ck_assert_ptr_nonnull(strstr(message, "guest"));
    close_image();
}
END_TEST

START_TEST(bytes_it_cannot_have)
{
    open_image(2, CLOSED);
    add_bitmap(L1_ALL_ONES);
    extension_end(&plan);
    for (uint32_t i = 0; i < CLUSTER; i += i < 130 ? 1 : 97) { /* one bit wrong anywhere */
        cluster[i] ^= 4;
        loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
        ck_assert_uint_eq(extension.owned_count,
                          1); /* its own cluster, although the header names it */
        extension_free(&extension);
        cluster[i] ^= 4;
    }
    close_image();

    open_image(2, CLOSED);
    memset(cluster + 24, 0xFF, CLUSTER - 24);
    extension_end(&plan);
    loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
    close_image();

    open_image(2, CLOSED); /* features up to the last byte, and no end */
    extension_add(&plan, UNKNOWN, 0, cluster, CLUSTER - 24 - 24);
    extension_end(&plan);
    loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
    close_image();

    open_image(2, CLOSED); /* room for half of one more */
    extension_add(&plan, UNKNOWN, 0, cluster, CLUSTER - 24 - 24 - 16);
    extension_end(&plan);
    loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
    close_image();

    open_image(2, CLOSED); /* room for just the end */
    extension_add(&plan, UNKNOWN, 0, cluster, CLUSTER - 24 - 24 - 24);
    extension_end(&plan);
    loaded(EXTENSION_VALID, 0, 3);
    close_image();

    open_image(2, CLOSED); /* one byte longer than what is left */
    extension_add(&plan, UNKNOWN, 0, NULL, 0);
    store_le32(cluster + 24 + 16, CLUSTER - 48 + 1);
    extension_end(&plan);
    loaded(EXTENSION_UNUSABLE, -EUCLEAN, 2);
    close_image();
}
END_TEST

START_TEST(unknown_features)
{
    open_image(2, CLOSED);
    extension_add(&plan, UNKNOWN, FEATURE_NECESSARY, "abc", 3);
    extension_end(&plan);
    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(extension_writable(&extension, message), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(message, "1122334455667788"));
    close_image();

    open_image(2, CLOSED);
    extension_add(&plan, UNKNOWN, FEATURE_TRANSIT, "abc", 3);
    extension_add(&plan, UNKNOWN + 1, 0, "abcdefghi", 9);
    extension_end(&plan);
    loaded(EXTENSION_VALID, 0, 3);
    ck_assert(extension.unknown_transit && extension.unknown_plain && !extension.unknown_necessary);
    close_image();
}
END_TEST

/* An invalid bitmap is dropped; one that overlaps a guest's cluster forbids writing. */
START_TEST(bitmaps_that_cannot_be)
{
    const struct {
        uint64_t sectors;
        uint32_t granularity, l1_size;
        uint64_t l1;
        int writable;
    } wrong[] = {
        {DISK_SECTORS - 1, 8, 1, 1, 0},
        {UINT64_MAX, 8, 1, 1, 0},
        {DISK_SECTORS, 0, 1, 1, 0},
        {DISK_SECTORS, 3, 1, 1, 0},
        {DISK_SECTORS, 8, 0, 1, 0},
        {DISK_SECTORS, 8, 2, 1, 0},
        {DISK_SECTORS, 8, 1, 16 + 8 * 8, 0},            /* past the end of the file */
        {DISK_SECTORS, 8, 1, 2, 0},                     /* in the BAT */
        {DISK_SECTORS, 8, 1, UINT64_MAX, 0},            /* overflows */
        {DISK_SECTORS, 8, 1, UINT64_MAX / 512, 0},      /* just does not overflow */
        {DISK_SECTORS, 8, 1, 16 + 8 * 5, 0},            /* the extension's own */
        {DISK_SECTORS, 8, 1, 16 + 8 * 6 + 4, 0},        /* off the grid, over unowned clusters */
        {DISK_SECTORS, 8, 1, 16 + 8 * 0, -EUCLEAN},     /* guest cluster 0's */
        {DISK_SECTORS, 8, 1, 16 + 8 * 4, -EUCLEAN},     /* guest cluster 1099's */
        {DISK_SECTORS, 8, 1, 16 + 8 * 4 + 7, -EUCLEAN}, /* the last sector of it */
        {DISK_SECTORS, 8, 1, 16 - 7, -EUCLEAN},         /* the first sector of guest cluster 0's */
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        const uint64_t l1[] = {wrong[i].l1, 0};

        open_image(2, CLOSED);
        extension_add_bitmap(&plan, wrong[i].sectors, wrong[i].granularity, wrong[i].l1_size, l1);
        extension_end(&plan);
        loaded(EXTENSION_VALID, wrong[i].writable, 2);
        ck_assert_ptr_nonnull(extension.bitmaps[0].fault.what);
        ck_assert_uint_eq(extension.owned_count, 1);
        close_image();
    }
}
END_TEST

START_TEST(the_first_of_two_bitmaps_keeps_a_cluster)
{
    open_image(2, CLOSED);
    add_bitmap(sector_of_host(6));
    add_bitmap(sector_of_host(6));
    extension_end(&plan);
    loaded(EXTENSION_VALID, 0, 2);
    ck_assert_ptr_null(extension.bitmaps[0].fault.what);
    ck_assert_ptr_nonnull(extension.bitmaps[1].fault.what);
    ck_assert_uint_eq(extension.owned_count, 2);
    close_image();
}
END_TEST

START_TEST(a_feature_too_short_for_a_bitmap)
{
    open_image(2, CLOSED);
    extension_add(&plan, EXTENSION_BITMAP_MAGIC, 0, cluster, 31);
    extension_end(&plan);
    loaded(EXTENSION_VALID, 0, 2);
    close_image();

    open_image(2, CLOSED); /* the table is longer than the feature */
    add_bitmap(L1_ALL_ONES);
    store_le32(cluster + 24 + 16, 39);
    extension_end(&plan);
    loaded(EXTENSION_VALID, 0, 2);
    close_image();
}
END_TEST

/* A table of several entries, with clusters of one sector. */
START_TEST(a_table_of_several_clusters)
{
    const uint32_t sectors = 10000; /* bits of one sector each: three clusters of 4096 bits */

    for (uint32_t size = 2; size <= 4; size++) {
        uint64_t l1[4] = {0, 1, 1, 1};

        fixture_open_image(&fixture, &(struct image_plan){.cluster_sectors = 1,
                                                          .entries = sectors,
                                                          .host_clusters = 8,
                                                          .in_use = CLOSED});
        store_le64(fixture.bytes + 56, image_data_start(fixture.bytes) / 512 + 5);
        l1[0] = image_data_start(fixture.bytes) / 512 + 7;
        extension_begin(&plan, fixture.bytes + image_data_start(fixture.bytes) + (size_t)5 * 512,
                        512);
        extension_add_bitmap(&plan, sectors, 1, size, l1);
        extension_end(&plan);
        loaded(EXTENSION_VALID, 0, size == 3 ? 3 : 2);
        ck_assert_uint_eq(extension.owned_count, size == 3 ? 2 : 1);
        close_image();
    }
}
END_TEST

START_TEST(what_is_kept)
{
    uint8_t kept[CLUSTER];
    struct extension_feature feature;
    struct extension_fault fault;
    size_t at = 0;

    open_image(2, CLOSED);
    add_bitmap(sector_of_host(6));
    extension_add(&plan, UNKNOWN, 0, "plain", 5);
    extension_add(&plan, UNKNOWN + 1, FEATURE_TRANSIT, "transit feature", 15);
    extension_add_bitmap(&plan, DISK_SECTORS, 3, 1, (uint64_t[]){1});
    extension_end(&plan);
    ck_assert_int_eq(load(), 0);

    ck_assert_uint_eq(extension_kept(&extension, true, kept, CLUSTER), 2);
    ck_assert_ptr_null(extension_verify(kept, CLUSTER).what);
    ck_assert(extension_next(kept, CLUSTER, &at, &feature, &fault));
    ck_assert_uint_eq(feature.magic, EXTENSION_BITMAP_MAGIC);
    ck_assert_mem_eq(kept + feature.data_at, cluster + 48, 40);
    ck_assert(extension_next(kept, CLUSTER, &at, &feature, &fault));
    ck_assert_uint_eq(feature.magic, UNKNOWN + 1);
    ck_assert_uint_eq(feature.flags, FEATURE_TRANSIT);
    ck_assert_uint_eq(feature.data_size, 15);
    ck_assert_mem_eq(kept + feature.data_at, "transit feature", 16);
    ck_assert(!extension_next(kept, CLUSTER, &at, &feature, &fault));
    ck_assert_ptr_null(fault.what);

    ck_assert_uint_eq(extension_kept(&extension, false, kept, CLUSTER), 1);
    close_image();

    open_image(2, CLOSED);
    add_bitmap(L1_ALL_ONES);
    extension_end(&plan);
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(extension_kept(&extension, false, kept, CLUSTER), 0);
    close_image();
}
END_TEST

/*
 * Thousands of claims on one guest cluster, and thousands of entries there, are judged in no time.
 */
START_TEST(many_claims_on_one_cluster)
{
    enum { BIG_SECTORS = 2048, BITMAPS = 16000, ENTRIES = 200000 };

    fixture_open_image(&fixture, &(struct image_plan){.cluster_sectors = BIG_SECTORS,
                                                      .entries = ENTRIES,
                                                      .host_clusters = 3,
                                                      .in_use = CLOSED,
                                                      .map = MAP_NONE});

    uint64_t start = image_data_start(fixture.bytes);

    for (uint32_t i = 0; i < ENTRIES; i++) {
        image_set_entry(fixture.bytes, i, image_entry_for(fixture.bytes, 0));
    }
    store_le64(fixture.bytes + 56, start / 512 + 2 * BIG_SECTORS);
    extension_begin(&plan, fixture.bytes + start + (size_t)2 * BIG_SECTORS * 512,
                    BIG_SECTORS * 512);
    for (uint64_t i = 0; i < BITMAPS; i++) {
        extension_add_bitmap(&plan, (uint64_t)ENTRIES * BIG_SECTORS, 64, 1,
                             (uint64_t[]){start / 512 + i % BIG_SECTORS});
    }
    extension_end(&plan);
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(extension.bitmap_count, BITMAPS);
    ck_assert(extension.in_guest_cluster);
    ck_assert_uint_eq(extension.owned_count, 1);

    uint8_t *kept = malloc((size_t)BIG_SECTORS * 512);

    ck_assert_uint_eq(extension_kept(&extension, true, kept, (size_t)BIG_SECTORS * 512), 0);
    free(kept);
    close_image();
}
END_TEST

/*
 * An extension that cannot be read is a finding. The rest of the image is checked, and no cluster
 * that the extension may own is reported as a leak. Opening such an image for writing fails with
 * the backend's error.
 */
START_TEST(an_extension_that_cannot_be_read)
{
    static const int errors[] = {EIO, ENODATA, ECONNRESET};
    struct check_outcome outcome;
    open_image(2, CLOSED);
    extension_end(&plan);
    fixture.fail_op = PLOOP_IO_READ;
    fixture.fail_from = 1;
    fixture.fail_offset = sector_of_host(5) * 512;
    fixture.fail_error = errors[_i];
    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(extension.state, EXTENSION_UNUSABLE);
    ck_assert_int_eq(extension_writable(&extension, message), -errors[_i]);
    ck_assert_ptr_nonnull(strstr(message, "cannot be read"));
    extension_free(&extension);
    run_check(&fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_READ], 1);
    ck_assert_uint_eq(outcome.result.errors, 1);
    ck_assert_uint_eq(outcome.result.leaks, 0);
    run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_int_eq(outcome.error, -errors[_i]);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("extension");

    tcase_add_test(tests, none_and_void);
    tcase_add_test(tests, bitmaps_own_their_clusters);
    tcase_add_test(tests, places_it_cannot_have);
    tcase_add_test(tests, bytes_it_cannot_have);
    tcase_add_test(tests, unknown_features);
    tcase_add_test(tests, bitmaps_that_cannot_be);
    tcase_add_test(tests, the_first_of_two_bitmaps_keeps_a_cluster);
    tcase_add_test(tests, a_feature_too_short_for_a_bitmap);
    tcase_add_test(tests, a_table_of_several_clusters);
    tcase_add_test(tests, what_is_kept);
    tcase_add_test(tests, many_claims_on_one_cluster);
    tcase_add_loop_test(tests, an_extension_that_cannot_be_read, 0, 3);
    tcase_set_timeout(tests, 60);
    return run_case("extension", tests);
}
