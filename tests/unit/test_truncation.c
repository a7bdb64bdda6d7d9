/* SPDX-License-Identifier: MIT */
/*
 * Images that end at any byte: header, BAT, data and extension cut off at every offset, by every
 * way in.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "header_faults.h"
#include "hostile.h"
#include "run_tests.h"

enum {
    EVERY_BYTE_BASES = 4 /* clusters of one sector */,
    BASES = 12,
    STEP = 41,
    STEP_IF_SLOW = 1499
};

START_TEST(cut_at_every_offset)
{
    struct fault_base base = fault_base((uint32_t)_i);
    struct fixture fixture;
    uint64_t share = test_share(STEP_IF_SLOW), step = _i < EVERY_BYTE_BASES ? 1 : STEP;

    step = step < share ? share : step;

    fault_base_open(&fixture, &base);

    uint64_t size = fixture.size;
    uint8_t *whole = malloc(size);

    memcpy(whole, fixture.bytes, size);
    for (uint64_t cut = 0; cut <= size; cut += cut < 100 ? 1 : step) {
        char what[100];

        memcpy(fixture.bytes, whole, size);
        fixture.size = cut;
        snprintf(what, sizeof(what), "version %u, %u sectors, cut to %" PRIu64 " bytes of %" PRIu64,
                 base.version, base.cluster_sectors, cut, size);
        hostile_judge(&fixture, what);
    }
    hostile_print("truncations");
    free(whole);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("truncation");

    tcase_add_loop_test(tests, cut_at_every_offset, 0, BASES);
    tcase_set_timeout(tests, 250);
    return run_case("truncation", tests);
}
