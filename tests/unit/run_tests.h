/* SPDX-License-Identifier: MIT */
/* The main function of a test program, which runs its tests. */
#ifndef RUN_TESTS_H
#define RUN_TESTS_H

#include <check.h>
#include <stddef.h>

/* Run the tests of one case; returns the program's exit status. */
int run_case(const char *name, TCase *tests);

/* Run one flat list of tests. */
int run_tests(const char *name, const TTest *const *tests, size_t count);

#define RUN_TESTS(name, tests) run_tests(name, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
