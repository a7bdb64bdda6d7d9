/* SPDX-License-Identifier: MIT */
/* The places of clusters, entries and pages, at the limits of the format. */
#include <check.h>

#include "format/geometry.h"
#include "run_tests.h"

static const struct geometry v2 = {.cluster_size = 1 << 20,
                                   .disk_size = (10 << 20) + 512,
                                   .data_start = 1 << 20,
                                   .entry_unit = 1 << 20,
                                   .bat_entries = 2000};
static const struct geometry v1 = {.cluster_size = 63 * 512,
                                   .disk_size = 63 * 512 * 100,
                                   .data_start = 9 * 512,
                                   .entry_unit = 512,
                                   .bat_entries = 100};
static const struct geometry largest = {.cluster_size = UINT64_C(131072) * 512,
                                        .disk_size = (UINT64_C(1) << 32) * 131072 * 512 -
                                                     (UINT64_C(131072) * 512),
                                        .data_start = UINT64_C(131072) * 512 * 257,
                                        .entry_unit = UINT64_C(131072) * 512,
                                        .bat_entries = UINT32_MAX};

START_TEST(guest_clusters_are_rounded_up_and_bounded)
{
    struct geometry geometry = v2;

    ck_assert_uint_eq(geometry_guest_clusters(&geometry), 11);
    geometry.disk_size = 10 << 20;
    ck_assert_uint_eq(geometry_guest_clusters(&geometry), 10);
    geometry.disk_size = 0;
    ck_assert_uint_eq(geometry_guest_clusters(&geometry), 0);
    geometry.disk_size = UINT64_MAX;
    ck_assert_uint_eq(geometry_guest_clusters(&geometry), 2000);
    ck_assert_uint_eq(geometry_guest_clusters(&largest), UINT32_MAX);
}
END_TEST

START_TEST(host_clusters_are_whole_ones)
{
    ck_assert_uint_eq(geometry_host_first(&v2), 1);
    ck_assert_uint_eq(geometry_host_end(&v2, 0), 1);
    ck_assert_uint_eq(geometry_host_end(&v2, v2.data_start - 1), 1);
    ck_assert_uint_eq(geometry_host_end(&v2, v2.data_start), 1);
    ck_assert_uint_eq(geometry_host_end(&v2, v2.data_start + v2.cluster_size - 1), 1);
    ck_assert_uint_eq(geometry_host_end(&v2, v2.data_start + v2.cluster_size), 2);
    ck_assert_uint_eq(geometry_host_first(&v1), 0);
    ck_assert_uint_eq(geometry_host_end(&v1, INT64_MAX),
                      (INT64_MAX - v1.data_start) / v1.cluster_size);
}
END_TEST

/* The highest entry is 0xFFFFFFFE: in v2 a cluster's number, in v1 a sector's. */
START_TEST(host_limit_is_what_an_entry_can_name)
{
    struct geometry geometry = v1;

    ck_assert_uint_eq(geometry_host_limit(&v2), UINT32_MAX);
    ck_assert_uint_eq(geometry_host_limit(&largest), UINT32_MAX);
    ck_assert_uint_eq(geometry_entries_limit(&v2), UINT32_MAX);
    ck_assert_uint_eq(geometry_page_limit(&v2), 4194305);
    ck_assert_uint_eq(geometry_entries_limit(&v1), geometry_host_limit(&v1));
    ck_assert_uint_eq(geometry_host_limit(&v1), (UINT64_C(0xFFFFFFFE) - 9) / 63 + 1);
    geometry.data_start = UINT64_C(0xFFFFFFFE) * 512;
    ck_assert_uint_eq(geometry_host_limit(&geometry), geometry_host_first(&geometry) + 1);
    geometry.data_start = UINT64_C(0xFFFFFFFF) * 512;
    ck_assert_uint_eq(geometry_host_limit(&geometry), geometry_host_first(&geometry));
    geometry.bat_entries = UINT32_MAX; /* more entries than it can ever have clusters for */
    ck_assert_uint_eq(geometry_entries_limit(&geometry), UINT32_MAX);
}
END_TEST

START_TEST(entries_and_host_clusters_go_both_ways)
{
    static const struct geometry *const all[] = {&v1, &v2, &largest};

    for (int i = 0; i < 3; i++) {
        uint32_t first = (uint32_t)geometry_host_first(all[i]);
        uint32_t last = (uint32_t)(geometry_host_limit(all[i]) - 1);
        const uint32_t hosts[] = {first, first + 1, last / 2, last};

        for (int j = 0; j < 4; j++) {
            struct host_cluster host = {hosts[j]};
            uint32_t entry = geometry_entry(all[i], host);

            ck_assert_uint_ne(entry, 0);
            ck_assert_uint_ne(entry, BAT_ENTRY_BAD);
            ck_assert_uint_eq(geometry_host(all[i], entry).n, host.n);
            ck_assert_uint_eq(geometry_entry_offset(all[i], entry),
                              geometry_host_offset(all[i], host));
            ck_assert_uint_eq(geometry_place_at(all[i], geometry_host_offset(all[i], host)),
                              host.n);
            ck_assert(all[i]->entry_unit == 512 || entry == host.n);
        }
    }
    ck_assert_uint_eq(geometry_host_offset(&largest, (struct host_cluster){UINT32_MAX - 1}),
                      UINT64_C(0xFFFFFFFE) * 131072 * 512);
}
END_TEST

/* A longer BAT takes whole clusters of the data area, and renumbers none. */
START_TEST(a_later_data_start_renumbers_nothing)
{
    static const struct geometry *const all[] = {&v1, &v2, &largest};

    for (int i = 0; i < 3; i++) {
        struct geometry grown = *all[i];
        uint64_t first = geometry_host_first(all[i]);
        uint64_t offset = grown.data_start + 1000 * grown.cluster_size;

        grown.data_start += 7 * grown.cluster_size;
        ck_assert_uint_eq(geometry_host_first(&grown), first + 7);
        ck_assert_uint_eq(geometry_place_at(&grown, offset), geometry_place_at(all[i], offset));
        ck_assert_uint_eq(geometry_place_offset(&grown, first + 1000), offset);
        ck_assert_uint_eq(geometry_host_end(&grown, offset), first + 1000);
        ck_assert_uint_eq(geometry_host_limit(&grown), geometry_host_limit(all[i]));
    }
}
END_TEST

START_TEST(entries_are_judged)
{
    uint64_t size = v1.data_start + 3 * v1.cluster_size;

    ck_assert_int_eq(geometry_judge_entry(&v1, size, 8), ENTRY_BEFORE_DATA);
    ck_assert_int_eq(geometry_judge_entry(&v1, size, 9), ENTRY_GOOD);
    ck_assert_int_eq(geometry_judge_entry(&v1, size, 10), ENTRY_OFF_GRID);
    ck_assert_int_eq(geometry_judge_entry(&v1, size, 9 + 63 * 2), ENTRY_GOOD);
    ck_assert_int_eq(geometry_judge_entry(&v1, size - 1, 9 + 63 * 2), ENTRY_CUT);
    ck_assert_int_eq(geometry_judge_entry(&v1, size - v1.cluster_size + 1, 9 + 63 * 2), ENTRY_CUT);
    ck_assert_int_eq(geometry_judge_entry(&v1, size - v1.cluster_size, 9 + 63 * 2), ENTRY_PAST_END);
    ck_assert_int_eq(geometry_judge_entry(&v1, size, 9 + 63 * 3), ENTRY_PAST_END);
    ck_assert_int_eq(geometry_judge_entry(&v1, size, 9 + 63 * 3 - 1), ENTRY_OFF_GRID);
    ck_assert_int_eq(geometry_judge_entry(&v2, v2.data_start + v2.cluster_size, 1), ENTRY_GOOD);
    ck_assert_int_eq(geometry_judge_entry(&v2, v2.data_start + v2.cluster_size, 2), ENTRY_PAST_END);
}
END_TEST

/* The last value of 32 bits is bad even in a file so large that the offset would lie inside it. */
/* The test by numbers says what the test by offsets does, and names the same cluster. */
START_TEST(good_entries_are_those_that_are_judged_good)
{
    const struct geometry *const all[] = {&v1, &v2, &largest};
    for (int i = 0; i < 3; i++) {
        const struct geometry *geometry = all[i];
        uint64_t start = geometry->data_start, cluster = geometry->cluster_size;
        const uint64_t sizes[] = {
            start,    start + 1, start + cluster - 1, start + cluster, start + 100 * cluster + 5,
            INT64_MAX};
        for (int n = 0; n < 6; n++) {
            struct good_entries good = geometry_good_entries(geometry, sizes[n]);
            for (uint32_t j = 0; j < 100000; j++) {
                uint32_t entry = j < 50000 ? j : 0 - (j - 50000);
                bool is_good =
                    entry && geometry_judge_entry(geometry, sizes[n], entry) == ENTRY_GOOD;
                if (good_entries_have(&good, entry) != is_good) {
                    ck_abort_msg("geometry %d, size %d, entry %u", i, n, entry);
                }
                if (is_good &&
                    good_entries_host(&good, entry).n != geometry_host(geometry, entry).n) {
                    ck_abort_msg("geometry %d, entry %u: another host cluster", i, entry);
                }
            }
        }
    }
}
END_TEST

START_TEST(the_last_entry_is_always_bad)
{
    ck_assert_int_eq(geometry_judge_entry(&v2, INT64_MAX, BAT_ENTRY_BAD - 1), ENTRY_GOOD);
    ck_assert_int_eq(geometry_judge_entry(&v2, INT64_MAX, BAT_ENTRY_BAD), ENTRY_PAST_END);
    ck_assert_int_eq(geometry_judge_entry(&v1, INT64_MAX, BAT_ENTRY_BAD), ENTRY_PAST_END);
    ck_assert_int_eq(geometry_judge_entry(&largest, UINT64_MAX, BAT_ENTRY_BAD), ENTRY_PAST_END);
}
END_TEST

START_TEST(pages_cover_all_entries)
{
    static const uint32_t counts[] = {0, 1, 1007, 1008, 1009, 2031, 2032, 2033, 5000, UINT32_MAX};
    static const uint32_t pages[] = {1, 1, 1, 1, 2, 2, 2, 3, 5, 4194305};
    struct geometry geometry = v2;

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        uint64_t entries = 0, bytes = 0;
        bool gapless = true;

        geometry.bat_entries = counts[i];
        ck_assert_uint_eq(geometry_page_count(&geometry), pages[i]);
        for (uint32_t page = 0; page < pages[i]; page++) {
            gapless = gapless && geometry_page_first(page) == entries;
            entries += geometry_page_entries(&geometry, page);
            bytes += geometry_page_bytes(&geometry, page);
        }
        ck_assert(gapless);
        ck_assert_uint_eq(entries, counts[i]);
        ck_assert_uint_eq(bytes, (HEADER_SIZE + (uint64_t)4 * counts[i] + 511) / 512 * 512);
        if (counts[i]) {
            ck_assert_uint_eq(geometry_page_of((struct guest_cluster){counts[i] - 1}),
                              pages[i] - 1);
        }
    }
    ck_assert_uint_eq(geometry_page_of((struct guest_cluster){1007}), 0);
    ck_assert_uint_eq(geometry_page_of((struct guest_cluster){1008}), 1);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("geometry");

    tcase_add_test(tests, guest_clusters_are_rounded_up_and_bounded);
    tcase_add_test(tests, host_clusters_are_whole_ones);
    tcase_add_test(tests, host_limit_is_what_an_entry_can_name);
    tcase_add_test(tests, entries_and_host_clusters_go_both_ways);
    tcase_add_test(tests, a_later_data_start_renumbers_nothing);
    tcase_add_test(tests, entries_are_judged);
    tcase_add_test(tests, good_entries_are_those_that_are_judged_good);
    tcase_add_test(tests, the_last_entry_is_always_bad);
    tcase_add_test(tests, pages_cover_all_entries);
    tcase_set_timeout(tests, 60);
    return run_case("geometry", tests);
}
