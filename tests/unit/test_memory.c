/* SPDX-License-Identifier: MIT */
/*
 * The memory backend: every operation compared with a plain array, sparse sizes, parallel threads,
 * and the end of memory.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The number of allocations that will still succeed. */
static long callocs_left = -1;
static void *test_calloc(size_t count, size_t size)
{
    if (callocs_left == 0) {
        return NULL;
    }
    callocs_left -= callocs_left > 0;
    return calloc(count, size);
}
#define calloc test_calloc
#include "file/memory.c" /* NOLINT(bugprone-suspicious-include): so that its calls are the test's */
#undef calloc

enum { SIZE = 1 << 20 };

static ploop_file *new_file(uint64_t size)
{
    ploop_file *file;
    ck_assert_int_eq(ploop_file_create_memory(size, &file), 0);
    return file;
}

static struct memory *memory_of(ploop_file *file)
{
    return file->context;
}

static uint64_t size_of(ploop_file *file)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    return info.file_size;
}

START_TEST(wrong_calls_are_refused)
{
    ploop_file *file = (ploop_file *)&callocs_left;
    ck_assert_int_eq(ploop_file_create_memory(0, NULL), -EINVAL);
    ck_assert_int_eq(ploop_file_create_memory(UINT64_MAX, &file), -EINVAL);
    ck_assert_ptr_null(file);
    file = new_file(0);
    struct file_io io;
    file_io_init(&io, file, NULL);
    io.pub.op = PLOOP_IO_PUNCH;
    io.pub.offset = 1;
    io.pub.length = UINT64_MAX;
    ck_assert_int_eq(file_io_submit(&io), -EINVAL);
    ploop_file_close(file);
}
END_TEST

START_TEST(creation_without_memory_is_refused)
{
    ploop_file *file = (ploop_file *)&callocs_left;
    callocs_left = _i;
    ck_assert_int_eq(ploop_file_create_memory(SIZE, &file), -ENOMEM);
    ck_assert_ptr_null(file);
}
END_TEST

START_TEST(a_write_without_memory_is_enospc)
{
    static char bytes[3 * CHUNK_BYTES];
    ploop_file *file = new_file(0);
    callocs_left = 0;
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, 1, 0), -ENOSPC);
    ck_assert_uint_eq(size_of(file), 0);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, 1, 0), -ENOSPC);
    ck_assert_uint_eq(size_of(file), 0);
    callocs_left = 1;
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, sizeof(bytes), 100),
                     -ENOSPC); /* a part of it was possible */
    ck_assert_uint_eq(size_of(file), CHUNK_BYTES);
    callocs_left = -1;
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, sizeof(bytes), 100), sizeof(bytes));
    ploop_file_close(file);
}
END_TEST

/* Without memory for more buckets it only becomes slower. */
START_TEST(buckets_need_not_grow)
{
    ploop_file *file = new_file(0);
    for (uint64_t i = 0; i < BUCKETS_AT_FIRST + 2; i++) {
        callocs_left = 1; /* the chunk */
        ck_assert_int_eq(ploop_file_pwrite(file, &i, sizeof(i), i * CHUNK_BYTES), sizeof(i));
    }
    ck_assert_uint_eq(memory_of(file)->bucket_count, BUCKETS_AT_FIRST);
    callocs_left = -1;
    ck_assert_int_eq(ploop_file_pwrite(file, "x", 1, UINT64_C(1) << 50), 1);
    ck_assert_uint_eq(memory_of(file)->bucket_count, 2 * BUCKETS_AT_FIRST);
    for (uint64_t i = 0; i < BUCKETS_AT_FIRST + 2; i++) {
        uint64_t number;
        ck_assert_int_eq(ploop_file_pread(file, &number, sizeof(number), i * CHUNK_BYTES),
                         sizeof(number));
        ck_assert_uint_eq(number, i);
    }
    ploop_file_close(file);
}
END_TEST

/* Extents about as long as a chunk, often at its borders. */
static uint64_t around_chunks(uint64_t limit)
{
    uint64_t value = (uint64_t)rand() % limit;
    return rand() % 2 ? value : value / CHUNK_BYTES * CHUNK_BYTES;
}

START_TEST(every_operation_does_what_an_array_does)
{
    static uint8_t model[2 * SIZE], buffer[2 * SIZE];
    ploop_file *file = new_file(SIZE);
    uint64_t size = SIZE;
    srand(3);
    for (int round = 0; round < 3000; round++) {
        uint64_t offset = around_chunks(SIZE), length = 1 + around_chunks(5 * CHUNK_BYTES),
                 end = offset + length;
        int64_t there = end <= size     ? (int64_t)length
                        : offset < size ? (int64_t)(size - offset)
                                        : 0;
        switch (rand() % 6) {
        case 0:
            memset(model + offset, round, length);
            memset(buffer, round, length);
            size = end > size ? end : size;
            ck_assert_int_eq(ploop_file_pwrite(file, buffer, length, offset), (int64_t)length);
            break;
        case 1:
            memset(model + offset, 0, length);
            ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, length, offset), 0);
            break;
        case 2:
            size = end > size ? end : size;
            ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, length, offset), 0);
            break;
        case 3:
            if (rand() % 4 == 0) {
                memset(model + offset, 0, sizeof(model) - offset);
                size = offset;
                ck_assert_int_eq(ploop_file_truncate(file, offset), 0);
            }
            break;
        default:
            ck_assert_int_eq(ploop_file_pread(file, buffer, length, offset), there);
            ck_assert_mem_eq(buffer, model + offset, (size_t)there);
        }
        ck_assert_uint_eq(size_of(file), size);
    }
    ck_assert_int_eq(ploop_file_truncate(file, 2 * SIZE), 0);
    ck_assert_int_eq(ploop_file_pread(file, buffer, 2 * SIZE, 0), 2 * SIZE);
    ck_assert_mem_eq(buffer, model, 2 * SIZE);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ploop_file_close(file);
}
END_TEST

START_TEST(only_what_is_written_takes_memory)
{
    uint64_t huge = INT64_MAX;
    ploop_file *file = new_file(huge);
    char byte = 1;
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, huge - 1), 1);
    ck_assert_int_eq(byte, 0);
    ck_assert_uint_eq(memory_of(file)->chunk_count, 0);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, UINT64_C(1) << 60), 3);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, huge - 3), 3);
    ck_assert_uint_eq(memory_of(file)->chunk_count, 2);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, huge, 0), 0);
    ck_assert_uint_eq(memory_of(file)->chunk_count,
                      1); /* the last one ends in the middle of its chunk */
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, huge - 1), 1);
    ck_assert_int_eq(byte, 0);
    ck_assert_int_eq(ploop_file_truncate(file, 0), 0);
    ck_assert_uint_eq(memory_of(file)->chunk_count, 0);
    ploop_file_close(file);
}
END_TEST

static void data_is(ploop_file *file, uint64_t from, uint64_t begin, uint64_t end)
{
    uint64_t offset, length;
    ck_assert_int_eq(file_data_extent(file, from, &offset, &length), 0);
    ck_assert_uint_eq(length, end - begin);
    ck_assert(length == 0 || offset == begin);
}

START_TEST(chunks_are_data)
{
    uint64_t huge = INT64_MAX, far = UINT64_C(1) << 60;
    ploop_file *file = new_file(huge);
    data_is(file, 0, 0, 0);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, far + CHUNK_BYTES - 1), 3);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, huge - 3), 3);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 5 * CHUNK_BYTES), 3);
    data_is(file, 0, 5 * CHUNK_BYTES, 6 * CHUNK_BYTES);
    data_is(file, 6 * CHUNK_BYTES - 1, 6 * CHUNK_BYTES - 1, 6 * CHUNK_BYTES);
    data_is(file, 6 * CHUNK_BYTES, far, far + 2 * CHUNK_BYTES);
    data_is(file, far + 2 * CHUNK_BYTES, huge - CHUNK_BYTES + 1, huge);
    data_is(file, huge, 0, 0);
    ploop_file_close(file);
    file = new_file(3 * CHUNK_BYTES); /* few enough to be looked up one by one */
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 2 * CHUNK_BYTES), 3);
    data_is(file, 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES);
    ploop_file_close(file);
}
END_TEST

enum { THREADS = 4, ROUNDS = 300, RECORD = 4096 };

struct hammer {
    pthread_t thread;
    ploop_file *file;
    uint32_t number;
};

/*
 * Each thread writes its own records, which must read back, and one record that all write, which
 * must never be a mix.
 */
static void *hammer(void *argument)
{
    struct hammer *self = argument;
    uint8_t mine[RECORD], read[RECORD];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t at = ((uint64_t)(round % 32) * THREADS + self->number + 1) * RECORD;
        memset(mine, round + (int)self->number, sizeof(mine));
        ck_assert_int_eq(ploop_file_pwrite(self->file, mine, RECORD, at), RECORD);
        ck_assert_int_eq(ploop_file_pwrite(self->file, mine, RECORD, 0), RECORD);
        ck_assert_int_eq(ploop_file_pread(self->file, read, RECORD, at), RECORD);
        ck_assert_mem_eq(read, mine, RECORD);
        ck_assert_int_eq(ploop_file_pread(self->file, read, RECORD, 0), RECORD);
        ck_assert_mem_eq(read, read + 1, RECORD - 1);
    }
    return NULL;
}

START_TEST(threads_do_not_disturb_one_another)
{
    struct hammer hammers[THREADS];
    ploop_file *file = new_file(0);
    for (uint32_t i = 0; i < THREADS; i++) {
        hammers[i] = (struct hammer){.file = file, .number = i};
        ck_assert_int_eq(pthread_create(&hammers[i].thread, NULL, hammer, &hammers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(hammers[i].thread, NULL);
    }
    ploop_file_close(file);
}
END_TEST

static Suite *memory_suite(void)
{
    Suite *suite = suite_create("memory");
    TCase *all = tcase_create("memory");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, wrong_calls_are_refused);
    tcase_add_loop_test(all, creation_without_memory_is_refused, 0, 2);
    tcase_add_test(all, a_write_without_memory_is_enospc);
    tcase_add_test(all, buckets_need_not_grow);
    tcase_add_test(all, every_operation_does_what_an_array_does);
    tcase_add_test(all, only_what_is_written_takes_memory);
    tcase_add_test(all, chunks_are_data);
    tcase_add_test(all, threads_do_not_disturb_one_another);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(memory_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
