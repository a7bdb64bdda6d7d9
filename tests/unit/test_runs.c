/* SPDX-License-Identifier: MIT */
/* Sets of sectors, as a few runs. */
#include "run_tests.h"

#include <check.h>

#include "util/runs.h"

START_TEST(runs_are_kept_apart_and_joined)
{
    struct run_set set = {.count = 0};
    struct run span;
    ck_assert(!runs_span(&set, 0, 100, &span));
    ck_assert(runs_gap_span(&set, 3, 9, &span));
    ck_assert(span.begin == 3 && span.end == 9);
    ck_assert_uint_eq(runs_add(&set, 10, 20), 10);
    ck_assert_uint_eq(runs_add(&set, 30, 40), 10);
    ck_assert_uint_eq(runs_count_with(&set, 20, 30), 1);
    ck_assert_uint_eq(runs_count_with(&set, 21, 29), 3);
    ck_assert(runs_span(&set, 0, 100, &span));
    ck_assert(span.begin == 10 && span.end == 40);
    ck_assert(runs_span(&set, 15, 35, &span));
    ck_assert(span.begin == 15 && span.end == 35);
    ck_assert(!runs_span(&set, 20, 30, &span));
    ck_assert(runs_gap_span(&set, 15, 35, &span));
    ck_assert(span.begin == 20 && span.end == 30);
    ck_assert(!runs_gap_span(&set, 12, 18, &span));
    ck_assert(runs_gap_span(&set, 0, 100, &span));
    ck_assert(span.begin == 0 && span.end == 100);
    ck_assert_uint_eq(runs_from(&set, 20)->begin, 30);
    ck_assert_ptr_eq(runs_from(&set, 40), NULL);
    ck_assert_uint_eq(runs_add(&set, 5, 35), 15);
    ck_assert_uint_eq(set.count, 1);
    ck_assert(set.runs[0].begin == 5 && set.runs[0].end == 40);
    ck_assert_uint_eq(runs_add(&set, 0, 2), 2);
    ck_assert_uint_eq(runs_add(&set, 2, 3), 1);
    ck_assert_uint_eq(set.count, 2);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {runs_are_kept_apart_and_joined};
    return RUN_TESTS("runs", tests);
}
