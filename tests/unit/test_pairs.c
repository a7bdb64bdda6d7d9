/* SPDX-License-Identifier: MIT */
/*
 * Two faults at once: every fault of header_faults.h together with every other, in each base image,
 * by every way in. A fault must not let another one through by hiding it, and the oracle checks in
 * no particular order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "header_faults.h"
#include "hostile.h"
#include "run_tests.h"

enum { PAIR_BASES = 12 /* clusters of 1, 8 and 63 sectors */, STEP_IF_SLOW = 67 };

static void pair(struct fixture *fixture, const struct fault *one, const struct fault *other,
                 const uint8_t *found, uint64_t size, const char *base)
{
    char first[64], second[64], what[256];

    fault_apply(fixture, one);
    fault_apply(fixture, other);
    fault_print(one, first, sizeof(first));
    fault_print(other, second, sizeof(second));
    snprintf(what, sizeof(what), "%s: %s, %s", base, first, second);
    hostile_judge(fixture, what);
    memcpy(fixture->bytes, found, size);
    fixture->size = size;
}

START_TEST(every_pair_of_faults)
{
    struct fault_base base = fault_base((uint32_t)_i);
    struct fault faults[FAULTS_MAX];
    struct fixture fixture;
    char name[80];

    fault_base_open(&fixture, &base);

    uint32_t count = fault_list(&fixture, faults), step = test_share(STEP_IF_SLOW);
    uint64_t size = fixture.size;
    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    snprintf(name, sizeof(name), "version %u, %u sectors, %s", base.version, base.cluster_sectors,
             base.extended ? "extension" : "plain");
    for (uint32_t one = 0; one < count; one++) {
        for (uint32_t other = one + 1 + one % step; other < count; other += step) {
            if (strcmp(faults[one].field, faults[other].field) != 0) {
                pair(&fixture, &faults[one], &faults[other], found, size, name);
            }
        }
    }
    hostile_print("pairs of faults");
    free(found);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("pairs");

    tcase_add_loop_test(tests, every_pair_of_faults, 0, PAIR_BASES);
    tcase_set_timeout(tests, 250);
    return run_case("pairs", tests);
}
