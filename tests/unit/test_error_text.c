/* SPDX-License-Identifier: MIT */
/* Why an open failed, in the caller's memory, and what the lines of the log are about. */
#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <ploop/ploop.h>

#include "run_tests.h"

enum { TEXT_SIZE = 200, DISK_BYTES = 8 << 20 };

static ploop_file *file, *base;
static struct ploop_dev_config config;
static char text[TEXT_SIZE];
static char line[TEXT_SIZE];
static uint32_t line_id;

/* The first line of level ERROR. */
static void take_log(void *user_data, uint32_t level, uint32_t message_id, const char *said)
{
    (void)user_data;
    if (level == PLOOP_LOG_ERROR && !line[0]) {
        (void)snprintf(line, sizeof(line), "%s", said);
        line_id = message_id;
    }
}

static ploop_file *image(void)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_BYTES};
    ploop_file *made;
    ck_assert_int_eq(ploop_file_create_memory(0, &made), 0);
    ck_assert_int_eq(ploop_image_create(made, &options), 0);
    return made;
}

static void setup(void)
{
    file = image();
    base = image();
    ploop_dev_config_init(&config, sizeof(config));
    config.log = take_log;
    config.error_text = text;
    config.error_text_size = sizeof(text);
    memset(text, 'x', sizeof(text));
    line[0] = '\0';
    line_id = 0;
}

static void teardown(void)
{
    ploop_file_close(file);
    ploop_file_close(base);
}

static void spoil(ploop_file *one)
{
    ck_assert_int_eq(ploop_file_pwrite(one, "spoilt", 6, 0), 6);
}

static void fails_with(int error)
{
    ploop_dev *dev;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), error);
}

START_TEST(the_first_line_of_the_log_is_stored)
{
    spoil(file);
    fails_with(-EINVAL);
    ck_assert_str_ne(text, "");
    ck_assert_str_eq(text, line);
    ck_assert_uint_eq(line_id, PLOOP_MESSAGE_IMAGE);
    config.log = NULL;
    memset(text, 'x', sizeof(text));
    fails_with(-EINVAL);
    ck_assert_str_eq(text, line);
}
END_TEST

START_TEST(what_does_not_fit_is_cut_off)
{
    spoil(file);
    config.error_text_size = 5;
    fails_with(-EINVAL);
    ck_assert_uint_eq(strlen(text), 4);
    ck_assert_mem_eq(text, line, 4);
    ck_assert_int_eq(text[5], 'x');
    memset(text, 'x', sizeof(text));
    config.error_text_size = 0;
    fails_with(-EINVAL);
    ck_assert_int_eq(text[0], 'x');
    config.error_text = NULL;
    config.error_text_size = sizeof(text);
    fails_with(-EINVAL);
}
END_TEST

START_TEST(it_says_which_delta)
{
    ploop_file *stack[2] = {base, file};
    ploop_dev *dev;
    spoil(base);
    ck_assert_int_eq(ploop_dev_open(stack, 2, &config, &dev), -EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "delta 0"));
}
END_TEST

START_TEST(an_error_without_a_line_has_its_name)
{
    ploop_dev *other;
    struct ploop_dev_config first;
    ploop_dev_config_init(&first, sizeof(first));
    ck_assert_int_eq(ploop_dev_open(&file, 1, &first, &other), 0);
    fails_with(-EBUSY);
    ck_assert_str_eq(text, line[0] ? line : strerror(EBUSY));
    ck_assert_int_eq(ploop_dev_close(other), 0);
}
END_TEST

START_TEST(an_open_that_succeeds_says_nothing_ever)
{
    ploop_dev *dev, *again;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    ck_assert_str_eq(text, "");
    /* Neither a line of this device nor one of another open is stored there now. */
    memset(text, 'x', sizeof(text));
    config.error_text = NULL;
    spoil(base);
    ck_assert_int_eq(ploop_dev_open(&base, 1, &config, &again), -EINVAL);
    ck_assert_str_ne(line, "");
    ck_assert_int_eq(text[0], 'x');
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}
END_TEST

START_TEST(a_configuration_that_is_refused_stores_nothing)
{
    config.reserved[0] = 1;
    fails_with(-E2BIG);
    ck_assert_int_eq(text[0], 'x');
    config.reserved[0] = 0;
    config.enospc_policy = 7;
    fails_with(-EINVAL);
    ck_assert_str_eq(text, strerror(EINVAL));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("error_text");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, the_first_line_of_the_log_is_stored);
    tcase_add_test(tests, what_does_not_fit_is_cut_off);
    tcase_add_test(tests, it_says_which_delta);
    tcase_add_test(tests, an_error_without_a_line_has_its_name);
    tcase_add_test(tests, an_open_that_succeeds_says_nothing_ever);
    tcase_add_test(tests, a_configuration_that_is_refused_stores_nothing);
    return run_case("error_text", tests);
}
