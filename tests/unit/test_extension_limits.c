/* SPDX-License-Identifier: MIT */
/*
 * Every field of an extension, its feature and its bitmap at its limits and one past, with a new
 * checksum, by every way into the image.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "header_faults.h"
#include "hostile.h"
#include "run_tests.h"
#include "util/bytes.h"

/* In the extension's cluster: the one feature that header_faults.h puts there. */
enum {
    AT_MAGIC = 24,
    AT_FLAGS = 32,
    AT_SIZE = 40,
    AT_SECTORS = 48,
    AT_GRANULARITY = 72,
    AT_L1_SIZE = 76,
    AT_L1 = 80
};

static struct fixture fixture;
static uint32_t cluster;
static char base_name[64];

static void judge(const char *field, uint32_t at, uint32_t size, uint64_t value)
{
    uint8_t *extension = fixture.bytes + fixture.size - cluster, found[128];
    struct extension_plan plan = {.bytes = extension, .size = cluster};
    char what[200];

    memcpy(found, extension, sizeof(found));
    for (uint32_t i = 0; i < size; i++) {
        extension[at + i] = (uint8_t)(value >> 8 * i);
    }
    extension_end(&plan);
    snprintf(what, sizeof(what), "%s: %s = %" PRIu64, base_name, field, value);
    hostile_judge(&fixture, what);
    memcpy(extension, found, sizeof(found));
}

#define JUDGE(field, at, size, ...)                                                                \
    do {                                                                                           \
        const uint64_t values[] = {__VA_ARGS__};                                                   \
        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {                            \
            judge(field, at, size, values[i]);                                                     \
        }                                                                                          \
    } while (0)

static void begin(uint32_t number)
{
    struct fault_base base =
        fault_base(number / 2 * 4 + 2 + number % 2); /* those with an extension */

    ck_assert(base.extended);
    fault_base_open(&fixture, &base);
    cluster = base.cluster_sectors * 512;
    snprintf(base_name, sizeof(base_name), "version %u, %u sectors", base.version,
             base.cluster_sectors);
}

START_TEST(every_field)
{
    if (is_instrumented() && _i % 3 != 0) {
        return; /* a third of the bases then */
    }
    begin((uint32_t)_i);

    uint64_t sectors = load_le64(fixture.bytes + 36);

    hostile_judge(&fixture, base_name);
    JUDGE("feature magic", AT_MAGIC, 8, 0, 1, UINT64_MAX);
    JUDGE("feature size", AT_SIZE, 4, 0, 31, 32, 39, 40, 41, cluster - 48, cluster - 47, cluster,
          UINT32_MAX);
    JUDGE("sectors", AT_SECTORS, 8, 0, 1, sectors - 1, sectors + 1, UINT64_MAX);
    JUDGE("granularity", AT_GRANULARITY, 4, 0, 1, 3, 512, 1024, 1025, 0x80000000u, UINT32_MAX);
    JUDGE("l1_size", AT_L1_SIZE, 4, 0, 1, 2, UINT32_MAX);
    store_le64(fixture.bytes + fixture.size - cluster + AT_MAGIC, 5); /* an unknown one */
    JUDGE("flags", AT_FLAGS, 8, 0, 1, 2, 3, 4, UINT64_MAX - 3, UINT64_MAX);
    hostile_print("extensions");
    fixture_close(&fixture);
}
END_TEST

/*
 * Every sector of the data area, some before it and behind it; and the same with no guest cluster
 * in the way.
 */
START_TEST(every_place_of_a_bitmap)
{
    begin((uint32_t)_i);

    uint64_t c = cluster / 512, d = load_le32(fixture.bytes + 48), end = fixture.size / 512;
    uint64_t step = is_instrumented() ? 43 : c > 8 ? 5 : 1;

    for (int mapped = 1; mapped >= 0; mapped--) {
        for (uint64_t sector = d > c ? d - c : 0; sector <= end + 1; sector += step) {
            judge("l1 entry", AT_L1, 8, sector);
        }
        JUDGE("l1 entry", AT_L1, 8, 0, 1, 2, d - 1, d, d + 1, end - c - 1, end - c, end, UINT32_MAX,
              (UINT64_C(1) << 55) - 1, UINT64_C(1) << 55, UINT64_MAX);
        image_set_entry(fixture.bytes, 0, 0);
        image_set_entry(fixture.bytes, 2, 0);
    }
    hostile_print("extensions");
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("extension_limits");

    tcase_add_loop_test(tests, every_field, 0, FAULT_BASES / 2);
    tcase_add_loop_test(tests, every_place_of_a_bitmap, 0, 6);
    tcase_set_timeout(tests, 250);
    return run_case("extension_limits", tests);
}
