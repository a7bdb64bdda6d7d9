/* SPDX-License-Identifier: MIT */
/* Structures that begin with their size: older callers, newer callers, and garbage. */
#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "run_tests.h"
#include "util/sized.h"

struct small {
    size_t size;
    uint64_t first;
};

struct known {
    size_t size;
    uint64_t first, second;
    uint64_t reserved[2];
};

struct newer {
    struct known known;
    uint64_t more;
};

enum { RESERVED_AT = offsetof(struct known, reserved) };

START_TEST(taken_in)
{
    struct newer newer = {.known = {.size = sizeof(newer), .first = 1, .second = 2}};
    struct known known;

    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), 0);
    ck_assert_uint_eq(known.first + known.second, 3);
    newer.more = 1;
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), -E2BIG);
    newer.more = 0;
    newer.known.reserved[1] = 1;
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), -E2BIG);
    newer.known.reserved[1] = 0;
    newer.known.size = RESERVED_AT;
    memset(&known, 0xFF, sizeof(known));
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), 0);
    ck_assert_uint_eq(known.reserved[0], 0);
    newer.known.size = RESERVED_AT - 1;
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), -EINVAL);
    newer.known.size = SIZED_MAX + 1;
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, &newer), -E2BIG);
    ck_assert_int_eq(sized_in(&known, sizeof(known), RESERVED_AT, NULL), -EINVAL);
}
END_TEST

START_TEST(given_out)
{
    const struct known answer = {.first = 1, .second = 2};
    struct newer newer;
    struct small small = {.size = sizeof(small)};

    memset(&newer, 0xFF, sizeof(newer));
    newer.known.size = sizeof(newer);
    ck_assert_int_eq(sized_out_check(&newer, RESERVED_AT), 0);
    sized_out(&newer, &answer, sizeof(answer));
    ck_assert_uint_eq(newer.known.size, sizeof(newer));
    ck_assert_uint_eq(newer.known.second, 2);
    ck_assert_uint_eq(newer.more, 0);
    sized_out(&small, &answer, sizeof(answer));
    ck_assert_uint_eq(small.size, sizeof(small));
    ck_assert_uint_eq(small.first, 1);
    ck_assert_int_eq(sized_out_check(&small, RESERVED_AT), -EINVAL);
    ck_assert_int_eq(sized_out_check(NULL, RESERVED_AT), -EINVAL);
    newer.known.size = SIZE_MAX;
    ck_assert_int_eq(sized_out_check(&newer, RESERVED_AT), -EINVAL);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("sized");

    tcase_add_test(tests, taken_in);
    tcase_add_test(tests, given_out);
    return run_case("sized", tests);
}
