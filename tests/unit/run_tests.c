/* SPDX-License-Identifier: MIT */
#include "run_tests.h"

enum { TIMEOUT_SECONDS = 120 };

int run_case(const char *name, TCase *tests)
{
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

int run_tests(const char *name, const TTest *const *tests, size_t count)
{
    TCase *all = tcase_create(name);
    tcase_set_timeout(all, TIMEOUT_SECONDS);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(all, tests[i]);
    }
    return run_case(name, all);
}
