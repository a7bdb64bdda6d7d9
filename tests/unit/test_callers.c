/* SPDX-License-Identifier: MIT */
/*
 * Callers that were compiled with older or newer headers than the library, simulated for every
 * structure that they hand over: one that is shorter, one that is longer with zeros where the
 * library knows nothing, and one with something there. A structure that is filled keeps what lies
 * behind its size.
 */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "run_tests.h"

enum { ROOM = 2048, GUARD = 0xa5, DISK_SIZE = 8 << 20 };

/* What the calls below work on. */
static ploop_file *file;
static ploop_dev *dev;

static void setup(void)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_SIZE};
    ck_assert_int_eq(ploop_file_create_memory(0, &file), 0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    ck_assert_int_eq(ploop_dev_open(&file, 1, NULL, &dev), 0);
}

static void teardown(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}

/* A structure that a caller fills; `call` hands it over, and undoes what that did. */
struct given {
    const char *name;
    size_t known;    /* the library's size */
    size_t oldest;   /* the shortest that was ever released */
    bool is_a_table; /* its size is a size_t */
    void (*fill)(void *given);
    int (*call)(const void *given);
};

static void fill_config(void *given)
{
    ploop_dev_config_init(given, sizeof(struct ploop_dev_config));
}

static int open_with(const void *given)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_SIZE};
    ploop_file *other;
    ploop_dev *opened;
    ck_assert_int_eq(ploop_file_create_memory(0, &other), 0);
    ck_assert_int_eq(ploop_image_create(other, &options), 0);
    int error = ploop_dev_open(&other, 1, given, &opened);
    if (!error) {
        ck_assert_int_eq(ploop_dev_close(opened), 0);
    }
    ploop_file_close(other);
    return error;
}

static uint64_t no_time(void *context)
{
    (void)context;
    return 1;
}

static void fill_clock(void *given)
{
    ((struct ploop_clock *)given)->now_ns = no_time;
}

static int open_with_clock(const void *given)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = given;
    return open_with(&config);
}

static void fill_image_options(void *given)
{
    ((struct ploop_image_options *)given)->disk_size = DISK_SIZE;
}

static int create_with(const void *given)
{
    ploop_file *other;
    ck_assert_int_eq(ploop_file_create_memory(0, &other), 0);
    int error = ploop_image_create(other, given);
    ploop_file_close(other);
    return error;
}

static int check_with(const void *given)
{
    struct ploop_check_result result = {.size = sizeof(result)};
    return ploop_image_check(file, given, &result);
}

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    info->file_size = 0;
    return 0;
}

static int submit(void *context, struct ploop_io *io)
{
    (void)context;
    (void)io;
    return -EIO;
}

static void fill_ops(void *given)
{
    struct ploop_io_ops *ops = given;
    ops->get_info = get_info;
    ops->submit = submit;
}

static int file_with(const void *given)
{
    ploop_file *other;
    int error = ploop_file_create(given, NULL, &other);
    ploop_file_close(other);
    return error;
}

static void fill_nothing(void *given)
{
    (void)given;
}

static int group_with(const void *given)
{
    ploop_uring *group;
    int error = ploop_uring_create(given, &group);
    ploop_uring_close(group);
    return error == -ENOSYS ? 0 : error; /* no io_uring: judged before that */
}

#define GIVEN(type, end, table, fill, call)                                                        \
    {                                                                                              \
#type, sizeof(struct type), offsetof(struct type, end), table, fill, call                  \
    }

static const struct given all_given[] = {
    GIVEN(ploop_dev_config, reserved, false, fill_config, open_with),
    {"ploop_clock", sizeof(struct ploop_clock), sizeof(struct ploop_clock), true, fill_clock,
     open_with_clock},
    GIVEN(ploop_image_options, reserved, false, fill_image_options, create_with),
    GIVEN(ploop_check_options, reserved2, false, fill_nothing, check_with),
    GIVEN(ploop_io_ops, attach, true, fill_ops, file_with),
    GIVEN(ploop_uring_options, reserved, false, fill_nothing, group_with)};

static void set_size(const struct given *given, unsigned char *bytes, size_t size)
{
    uint64_t number = size;
    memcpy(bytes, given->is_a_table ? (void *)&size : (void *)&number,
           given->is_a_table ? sizeof(size) : sizeof(number));
}

static int call_sized(const struct given *given, size_t size, size_t unknown_at)
{
    _Alignas(16) unsigned char bytes[ROOM];
    memset(bytes, 0, sizeof(bytes));
    given->fill(bytes);
    set_size(given, bytes, size);
    if (unknown_at) {
        bytes[unknown_at] = 1;
    }
    memset(bytes + size, GUARD, ROOM - size); /* not the structure's any more */
    return given->call(bytes);
}

START_TEST(what_is_given_may_be_of_any_age)
{
    const struct given *given = &all_given[_i];
    /* Tables of functions grow by pointers. */
    size_t longer = given->known + 8 * sizeof(void *);

    ck_assert_msg(call_sized(given, given->known, 0) == 0, "%s", given->name);
    ck_assert_msg(call_sized(given, given->oldest, 0) == 0, "an older %s", given->name);
    ck_assert_msg(call_sized(given, given->oldest - sizeof(void *), 0) == -EINVAL,
                  "%s that never was", given->name);
    ck_assert_msg(call_sized(given, longer, 0) == 0, "a newer %s", given->name);
    for (size_t at = given->known; at < longer; at++) {
        ck_assert_msg(call_sized(given, longer, at) == -E2BIG, "%s with byte %zu set", given->name,
                      at);
    }
    for (size_t at = given->is_a_table ? given->known : given->oldest; at < given->known; at++) {
        ck_assert_msg(call_sized(given, given->known, at) == -E2BIG, "%s with byte %zu set",
                      given->name, at);
    }
}
END_TEST

/* A structure that the library fills. */
struct answer {
    const char *name;
    size_t known;
    size_t oldest;
    int (*call)(void *answer);
};

static int ask_dev(void *answer)
{
    return ploop_dev_info(dev, answer);
}

static int ask_stats(void *answer)
{
    return ploop_dev_stats(dev, 0, PLOOP_KIND_READ, answer);
}

static int ask_file(void *answer)
{
    return ploop_file_info(file, answer);
}

static int ask_page(void *answer)
{
    return ploop_bat_page_info(dev, 0, answer);
}

static int ask_extent(void *answer)
{
    return ploop_bat_lookup(dev, 0, DISK_SIZE, answer);
}

static int ask_image(void *answer)
{
    return ploop_image_probe(file, answer);
}

static int ask_check(void *answer)
{
    return ploop_image_check(file, NULL, answer);
}

static const struct answer answers[] = {
    {"ploop_dev_info", sizeof(struct ploop_dev_info), offsetof(struct ploop_dev_info, reserved),
     ask_dev},
    {"ploop_stats", sizeof(struct ploop_stats), offsetof(struct ploop_stats, reserved), ask_stats},
    {"ploop_file_info", sizeof(struct ploop_file_info), offsetof(struct ploop_file_info, reserved),
     ask_file},
    {"ploop_bat_page_info", sizeof(struct ploop_bat_page_info),
     offsetof(struct ploop_bat_page_info, reserved), ask_page},
    {"ploop_extent", sizeof(struct ploop_extent), offsetof(struct ploop_extent, reserved),
     ask_extent},
    {"ploop_image_info", sizeof(struct ploop_image_info), sizeof(struct ploop_image_info),
     ask_image},
    {"ploop_check_result", sizeof(struct ploop_check_result),
     offsetof(struct ploop_check_result, reserved), ask_check}};

/* Everything behind the size is the caller's; what the library does not know is zero. */
static void ask_sized(const struct answer *answer, size_t size)
{
    _Alignas(16) unsigned char bytes[ROOM], full[ROOM];
    uint64_t number = answer->known;
    memset(full, GUARD, sizeof(full));
    memcpy(full, &number, sizeof(number));
    ck_assert_msg(answer->call(full) == 0, "%s", answer->name);
    memset(bytes, GUARD, sizeof(bytes));
    number = size;
    memcpy(bytes, &number, sizeof(number));
    ck_assert_msg(answer->call(bytes) == 0, "%s of %zu bytes", answer->name, size);

    memcpy(&number, bytes, sizeof(number));
    ck_assert_msg(number == size, "%s: its size has changed", answer->name);
    size_t common = size < answer->known ? size : answer->known;
    ck_assert_msg(memcmp(bytes + 8, full + 8, common - 8) == 0, "%s of %zu bytes differs",
                  answer->name, size);
    for (size_t i = common; i < ROOM; i++) {
        ck_assert_msg(bytes[i] == (i < size ? 0 : GUARD), "%s of %zu bytes: byte %zu is %u",
                      answer->name, size, i, bytes[i]);
    }
}

START_TEST(what_is_filled_may_be_of_any_age)
{
    const struct answer *answer = &answers[_i];
    _Alignas(16) unsigned char bytes[ROOM] = {0};
    uint64_t number = answer->oldest - 1;

    ask_sized(answer, answer->known);
    ask_sized(answer, answer->oldest);
    ask_sized(answer, answer->known + 64);
    memcpy(bytes, &number, sizeof(number));
    ck_assert_msg(answer->call(bytes) == -EINVAL, "%s that never was", answer->name);
}
END_TEST

START_TEST(limits_and_features_are_told)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_dev_config config;
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    ck_assert_uint_eq(info.physical_block_bytes, 512);
    ck_assert_uint_eq(info.optimal_io_bytes, info.cluster_size);
    ck_assert_uint_eq(info.max_discard_bytes, DISK_SIZE);
    ck_assert_uint_eq(info.fua, PLOOP_ABILITY_NATIVE);
    ck_assert_uint_eq(info.zeroing, PLOOP_ABILITY_NATIVE);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    ck_assert_uint_eq(info.fua, PLOOP_ABILITY_NONE);
    ck_assert_uint_eq(info.zeroing, PLOOP_ABILITY_NONE);
    ck_assert_uint_eq(ploop_has(PLOOP_FEATURE_REAP), 1);
    ck_assert_uint_eq(ploop_has(0), 0);
    ck_assert_uint_eq(ploop_has(UINT32_MAX), 0);
    /* It says what the build has. */
    ploop_uring *group;
    int error = ploop_uring_create(NULL, &group);
    ck_assert(error == -ENOSYS || ploop_has(PLOOP_FEATURE_URING) == 1);
    ploop_uring_close(group);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("callers");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, what_is_given_may_be_of_any_age, 0,
                        sizeof(all_given) / sizeof(all_given[0]));
    tcase_add_loop_test(tests, what_is_filled_may_be_of_any_age, 0,
                        sizeof(answers) / sizeof(answers[0]));
    tcase_add_test(tests, limits_and_features_are_told);
    return run_case("callers", tests);
}
