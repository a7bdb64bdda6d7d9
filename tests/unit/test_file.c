/* SPDX-License-Identifier: MIT */
/*
 * Files over a caller's backend: which backends are accepted, how requests complete, and the calls
 * that wait.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The allocation of a file fails when a test says so. */
static bool calloc_fails;
static void *test_calloc(size_t count, size_t size)
{
    return calloc_fails ? NULL : calloc(count, size);
}
#define calloc test_calloc
#include "file/file.c" /* NOLINT(bugprone-suspicious-include): so that its calls are the test's */
#undef calloc

#include "wild_backend.h"

enum { SIZE = 1 << 20 };

static int info_result;
static struct ploop_file_info info_given;
static int closes;

static int plain_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    info_given.size = info->size;
    *info = info_given;
    return info_result;
}

static int plain_submit(void *context, struct ploop_io *io)
{
    (void)context;
    (void)io;
    return -EIO;
}

static void plain_close(void *context)
{
    (void)context;
    closes++;
}

static struct ploop_io_ops plain_ops(void)
{
    return (struct ploop_io_ops){.size = sizeof(struct ploop_io_ops),
                                 .get_info = plain_info,
                                 .submit = plain_submit,
                                 .close = plain_close};
}

static void refused(const struct ploop_io_ops *ops, int error)
{
    ploop_file *file = (ploop_file *)&closes;
    ck_assert_int_eq(ploop_file_create(ops, NULL, &file), error);
    ck_assert_ptr_null(file);
    ck_assert_int_eq(closes, 0);
}

START_TEST(ops_are_checked)
{
    struct ploop_io_ops ops = plain_ops();
    ck_assert_int_eq(ploop_file_create(&ops, NULL, NULL), -EINVAL);
    refused(NULL, -EINVAL);
    ops.size = offsetof(struct ploop_io_ops, submit);
    refused(&ops, -EINVAL);
    ops.size = sizeof(ops) - 3;
    refused(&ops, -EINVAL);
    ops = plain_ops();
    ops.submit = NULL;
    refused(&ops, -EINVAL);
    ops = plain_ops();
    ops.get_info = NULL;
    refused(&ops, -EINVAL);
    ops = plain_ops();
    ops.size = 1 << 20;
    refused(&ops, -E2BIG);
    ops = plain_ops();
    calloc_fails = true;
    refused(&ops, -ENOMEM);
}
END_TEST

START_TEST(an_older_table_is_as_good)
{
    struct ploop_io_ops ops = plain_ops();
    ploop_file *file;
    ops.size = offsetof(struct ploop_io_ops, attach);
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    ck_assert(!file->ops.close); /* beyond the size: not read */
    ploop_file_close(file);
    ck_assert_int_eq(closes, 0);
}
END_TEST

START_TEST(a_newer_table_may_use_only_what_is_known)
{
    struct {
        struct ploop_io_ops known;
        void (*unknown)(void *context);
    } newer = {.known = plain_ops()};
    ploop_file *file;
    newer.known.size = sizeof(newer);
    ck_assert_int_eq(ploop_file_create(&newer.known, NULL, &file), 0);
    ploop_file_close(file);
    ck_assert_int_eq(closes, 1);
    closes = 0;
    newer.unknown = plain_close;
    refused(&newer.known, -E2BIG);
}
END_TEST

static int odd_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    (void)context;
    *data_offset = offset == 1 ? 0 : UINT64_MAX;
    *data_length = 2;
    return offset == 3 ? -EIO : 0;
}

START_TEST(an_extent_that_makes_no_sense_is_refused)
{
    struct ploop_io_ops ops = plain_ops();
    uint64_t offset, length;
    ploop_file *file;
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    ck_assert_int_eq(file_data_extent(file, 0, &offset, &length), -ENOTSUP);
    ploop_file_close(file);
    ops.data_extent = odd_extent;
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    ck_assert_int_eq(file_data_extent(file, 1, &offset, &length), -EINVAL); /* before it */
    ck_assert_int_eq(file_data_extent(file, 2, &offset, &length), -EINVAL); /* wraps */
    ck_assert_int_eq(file_data_extent(file, 3, &offset, &length), -EIO);
    ploop_file_close(file);
}
END_TEST

START_TEST(close_takes_null)
{
    ploop_file_close(NULL);
    ck_assert_int_eq(closes, 0);
}
END_TEST

START_TEST(info_is_checked)
{
    struct ploop_io_ops ops = plain_ops();
    struct ploop_file_info info = {.size = sizeof(info)};
    ploop_file *file;
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    ck_assert_int_eq(ploop_file_info(NULL, &info), -EINVAL);
    ck_assert_int_eq(ploop_file_info(file, NULL), -EINVAL);
    info.size = offsetof(struct ploop_file_info, reserved) - 1;
    ck_assert_int_eq(ploop_file_info(file, &info), -EINVAL);
    info.size = sizeof(info);
    info_given.file_size = 77;
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    ck_assert_uint_eq(info.file_size, 77);
    ck_assert_uint_eq(info.request_alignment, 1);
    info_given.request_alignment = 3;
    ck_assert_int_eq(ploop_file_info(file, &info), -EINVAL);
    info_given.request_alignment = 4096;
    info_given.max_transfer = 512;
    ck_assert_int_eq(ploop_file_info(file, &info), -EINVAL);
    info_given.max_transfer = 10000;
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    ck_assert_uint_eq(info.max_transfer, 8192);
    info_given.file_size = UINT64_MAX;
    ck_assert_int_eq(ploop_file_info(file, &info), -EINVAL);
    info_result = -ENODEV;
    ck_assert_int_eq(ploop_file_info(file, &info), -ENODEV);
    char byte;
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 0), -ENODEV);
    ploop_file_close(file);
}
END_TEST

/* ---- Completion ---- */

static int done_count;
static int64_t done_result;

static void count_done(struct file_io *io, int64_t result)
{
    ck_assert_uint_eq(atomic_load(&io->state), FILE_IO_IDLE);
    done_count++;
    done_result = result;
}

static void fill_sync(struct file_io *io, ploop_file *file, file_io_fn *done)
{
    file_io_init(io, file, done);
    io->pub.op = PLOOP_IO_SYNC;
}

START_TEST(a_refused_request_is_not_completed)
{
    struct ploop_io_ops ops = plain_ops();
    ploop_file *file;
    struct file_io io;
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    fill_sync(&io, file, count_done);
    ck_assert_int_eq(file_io_submit(&io), -EIO);
    ck_assert_uint_eq(atomic_load(&io.state), FILE_IO_IDLE);
    ck_assert_int_eq(done_count, 0);
    ploop_file_close(file);
}
END_TEST

static void submit_again(struct file_io *io, int64_t result)
{
    ck_assert_int_eq(result, 0);
    if (++done_count < 5) {
        ck_assert_int_eq(file_io_submit(io), 0);
    }
}

START_TEST(a_request_may_be_sent_again_from_its_completion)
{
    struct wild *wild = wild_new(&(struct wild_config){.mode = WILD_INLINE, .file_size_max = SIZE});
    ploop_file *file = wild_open(wild);
    struct file_io io;
    fill_sync(&io, file, submit_again);
    ck_assert_int_eq(file_io_submit(&io), 0);
    ck_assert_int_eq(done_count, 5);
    ploop_file_close(file);
    wild_free(wild);
}
END_TEST

static int double_submit(void *context, struct ploop_io *io)
{
    (void)context;
    ploop_io_complete(io, 5);
    ploop_io_complete(io, 6);
    return 0;
}

static int complete_and_refuse(void *context, struct ploop_io *io)
{
    (void)context;
    ploop_io_complete(io, 5);
    return -EIO;
}

/* A debug build aborts here. */
static void submit_to_faulty(int (*submit)(void *context, struct ploop_io *io))
{
    struct ploop_io_ops ops = plain_ops();
    ploop_file *file;
    struct file_io io;
    ops.submit = submit;
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
    fill_sync(&io, file, count_done);
    (void)file_io_submit(&io);
    ck_assert_int_eq(done_count, 1);
    ck_assert_int_eq(done_result, 5);
    ck_assert_uint_eq(file->double_completions, 1);
    ploop_file_close(file);
}

START_TEST(a_second_completion_is_a_fault)
{
    submit_to_faulty(double_submit);
}
END_TEST

START_TEST(completing_a_refused_request_is_a_fault)
{
    submit_to_faulty(complete_and_refuse);
}
END_TEST

/* ---- Calls that wait ---- */

struct shape {
    struct wild_config config;
    const char *name;
};

#define WILD(...)                                                                                  \
    {                                                                                              \
        .file_size = SIZE, .file_size_max = 2 * SIZE, .seed = 7,                                   \
        .capabilities = PLOOP_FILE_CAN_GROW, __VA_ARGS__                                           \
    }

static const struct wild_config shapes[] = {
    WILD(.mode = WILD_INLINE),
    WILD(.mode = WILD_REAP, .short_percent = 50, .again_percent = 30),
    WILD(.mode = WILD_POLLED, .short_percent = 50),
    WILD(.mode = WILD_THREADS, .short_percent = 50, .again_percent = 30, .delay_us = 200),
    WILD(.mode = WILD_MIXED, .max_transfer = 5000),
    WILD(.mode = WILD_INLINE, .alignment = 512, .max_transfer = 8192, .short_percent = 50),
    WILD(.mode = WILD_THREADS, .alignment = 4096, .short_percent = 50, .again_percent = 10),
    WILD(.mode = WILD_REAP, .alignment = 4096, .max_transfer = 4096 + 512),
};

START_TEST(any_backend_reads_back_what_was_written)
{
    struct wild *wild = wild_new(&shapes[_i]);
    ploop_file *file = wild_open(wild);
    uint8_t *model = calloc(1, 2 * SIZE), *buffer = malloc(2 * SIZE);
    uint64_t size = SIZE;
    srand(1);
    for (int round = 0; round < 200; round++) {
        uint64_t offset = (uint64_t)rand() % SIZE,
                 length = (uint64_t)rand() % (round % 10 ? 10000 : 100000);
        if (round % 2) {
            memset(buffer, round, length);
            memset(model + offset, round, length);
            size = length && offset + length > size ? offset + length : size;
            ck_assert_int_eq(ploop_file_pwrite(file, buffer, length, offset), (int64_t)length);
        } else {
            uint64_t there = offset >= size ? 0 : length < size - offset ? length : size - offset;
            ck_assert_int_eq(ploop_file_pread(file, buffer, length, offset), (int64_t)there);
            ck_assert_mem_eq(buffer, model + offset, there);
        }
        ck_assert_uint_eq(wild->file_size, size);
    }
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(ploop_file_truncate(file, 12345), 0);
    ck_assert_int_eq(ploop_file_pread(file, buffer, 1000, 12000), 345);
    ck_assert_int_eq(ploop_file_pread(file, buffer, 1000, 12345), 0);
    ck_assert_mem_eq(buffer, model + 12000, 345);
    ploop_file_close(file);
    wild_free(wild);
    free(model);
    free(buffer);
}
END_TEST

START_TEST(wrong_calls_are_refused)
{
    struct wild *wild = wild_new(&shapes[0]);
    ploop_file *file = wild_open(wild);
    char byte = 0;
    ck_assert_int_eq(ploop_file_pread(NULL, &byte, 1, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_pwrite(NULL, &byte, 1, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_truncate(NULL, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_sync(NULL), -EINVAL);
    ck_assert_int_eq(ploop_file_pread(file, NULL, 1, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_pwrite(file, NULL, 1, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, INT64_MAX), -EINVAL);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, UINT64_MAX, 0), -EINVAL);
    ck_assert_int_eq(ploop_file_truncate(file, UINT64_MAX), -EINVAL);
    ck_assert_int_eq(ploop_file_pread(file, NULL, 0, 0), 0);
    for (uint32_t op = 0; op < 8; op++) {
        ck_assert_uint_eq(wild->counts[op], 0);
    }
    ploop_file_close(file);
    wild_free(wild);
}
END_TEST

/* Each call returns the backend's error, aligned or not. */
START_TEST(errors_come_through)
{
    struct wild *wild = wild_new(&shapes[_i]);
    ploop_file *file = wild_open(wild);
    char *buffer = aligned_alloc(4096, 8192);
    for (uint64_t offset = 0; offset < 2; offset++) {
        wild_fail(wild, PLOOP_IO_READ, 0, -EIO, false);
        ck_assert_int_eq(ploop_file_pread(file, buffer, 8192, offset), -EIO);
        wild_fail(wild, PLOOP_IO_WRITE, 0, -ENOSPC, false);
        ck_assert_int_eq(ploop_file_pwrite(file, buffer, 8192, offset), -ENOSPC);
        wild_fail(wild, PLOOP_IO_WRITE, 0, 0, false); /* no progress */
        ck_assert_int_eq(ploop_file_pwrite(file, buffer, 8192, offset), -EIO);
        wild_fail(wild, PLOOP_IO_READ, 0, 0, false); /* nothing read, and not the end of the file */
        ck_assert_int_eq(ploop_file_pread(file, buffer, 8192, offset), -EIO);
        wild_fail(wild, PLOOP_IO_READ, 0, 1 << 20, false); /* more than asked for */
        ck_assert_int_eq(ploop_file_pread(file, buffer, 8192, offset), -EIO);
    }
    wild_fail(wild, PLOOP_IO_SYNC, 0, -EIO, false);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    wild_fail(wild, PLOOP_IO_TRUNCATE, 0, -EPERM, false);
    ck_assert_int_eq(ploop_file_truncate(file, 5), -EPERM);
    ploop_file_close(file);
    wild_free(wild);
    free(buffer);
}
END_TEST

/* An unaligned write at the end: the block it shares is read first, and that read may fail. */
START_TEST(a_failed_read_of_a_shared_block_writes_nothing)
{
    struct wild *wild = wild_new(&(struct wild_config)WILD(.mode = WILD_INLINE, .alignment = 4096));
    ploop_file *file = wild_open(wild);
    char bytes[100] = {1};
    wild_fail(wild, PLOOP_IO_READ, 0, -EIO, true);
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, sizeof(bytes), 100), -EIO);
    ck_assert_uint_eq(wild->counts[PLOOP_IO_WRITE], 0);
    wild_fail(wild, PLOOP_IO_TRUNCATE, 0, -EPERM, false);
    wild->fail_op = PLOOP_IO_TRUNCATE;
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, sizeof(bytes), SIZE),
                     -EPERM); /* grew by a block, could not be cut back */
    ploop_file_close(file);
    wild_free(wild);
}
END_TEST

START_TEST(requests_are_as_long_as_they_may_be)
{
    struct wild *wild = wild_new(
        &(struct wild_config)WILD(.mode = WILD_INLINE, .max_transfer = 70000, .alignment = 512));
    ploop_file *file = wild_open(wild);
    char *buffer = aligned_alloc(512, 512 * 512);
    ck_assert_int_eq(ploop_file_pread(file, buffer, 512 * 512, 0), 512 * 512);
    ck_assert_uint_eq(wild->largest, 70000 / 512 * 512);
    ck_assert_uint_eq(wild->counts[PLOOP_IO_READ], 4);
    ploop_file_close(file);
    wild_free(wild);
    free(buffer);
}
END_TEST

static Suite *file_suite(void)
{
    Suite *suite = suite_create("file");
    TCase *ops = tcase_create("ops");
    tcase_add_test(ops, ops_are_checked);
    tcase_add_test(ops, an_older_table_is_as_good);
    tcase_add_test(ops, a_newer_table_may_use_only_what_is_known);
    tcase_add_test(ops, an_extent_that_makes_no_sense_is_refused);
    tcase_add_test(ops, close_takes_null);
    tcase_add_test(ops, info_is_checked);
    suite_add_tcase(suite, ops);

    TCase *completion = tcase_create("completion");
    tcase_add_test(completion, a_refused_request_is_not_completed);
    tcase_add_test(completion, a_request_may_be_sent_again_from_its_completion);
#ifdef NDEBUG
    tcase_add_test(completion, a_second_completion_is_a_fault);
    tcase_add_test(completion, completing_a_refused_request_is_a_fault);
#else
    tcase_add_test_raise_signal(completion, a_second_completion_is_a_fault, SIGABRT);
    tcase_add_test_raise_signal(completion, completing_a_refused_request_is_a_fault, SIGABRT);
#endif
    suite_add_tcase(suite, completion);

    TCase *waiting = tcase_create("waiting");
    int count = (int)(sizeof(shapes) / sizeof(shapes[0]));
    tcase_set_timeout(waiting, 60);
    tcase_add_loop_test(waiting, any_backend_reads_back_what_was_written, 0, count);
    tcase_add_loop_test(waiting, errors_come_through, 0, count);
    tcase_add_test(waiting, wrong_calls_are_refused);
    tcase_add_test(waiting, a_failed_read_of_a_shared_block_writes_nothing);
    tcase_add_test(waiting, requests_are_as_long_as_they_may_be);
    suite_add_tcase(suite, waiting);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(file_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
