/* SPDX-License-Identifier: MIT */
/*
 * Calls that wait do the I/O of the POSIX backend themselves: no thread is started for them, errors
 * and FUA are as they are with threads, and a call that is stuck in I/O holds up no other thread.
 */
#include "posix_faults.h"

#include <dirent.h>
#include <ploop/ploop.h>

enum { CLUSTER = 65536, DISK = 16 * CLUSTER };

static ploop_file *file;
static ploop_dev *dev;

static int threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (readdir(tasks)) {
        count++;
    }
    closedir(tasks);
    return count - 2; /* . and .. */
}

static void open_device(void)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.queue_count = 2;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
}

static void begin(void)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK, .cluster_size = CLUSTER};
    file = new_image(0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    open_device();
}

static void end(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}

static int execute(bool write, char *memory, uint64_t offset, uint32_t flags)
{
    const struct iovec iov = {memory, 512};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 1));
    if (write) {
        ploop_pio_prep_writev(pio, offset, &iov, 1, flags);
    } else {
        ploop_pio_prep_readv(pio, offset, &iov, 1);
    }
    int result = ploop_pio_execute(pio);
    ploop_pio_put(pio);
    return result;
}

static int execute_other(void (*prepare)(ploop_pio *pio))
{
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    prepare(pio);
    int result = ploop_pio_execute(pio);
    ploop_pio_put(pio);
    return result;
}

static void prepare_zeroes(ploop_pio *pio)
{
    ploop_pio_prep_write_zeroes(pio, 0, CLUSTER, 0);
}

static void prepare_discard(ploop_pio *pio)
{
    ploop_pio_prep_discard(pio, 3 * CLUSTER, CLUSTER);
}

static void prepare_beyond(ploop_pio *pio)
{
    ploop_pio_prep_discard(pio, DISK, CLUSTER);
}

START_TEST(calls_that_wait_start_no_thread)
{
    static char large[3 * CLUSTER], back[sizeof(large)];
    char bytes[512] = {1}, read[512];
    int before = threads();
    begin();
    memset(large, 7, sizeof(large));
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, 0), 512);    /* a new cluster */
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, 4096), 512); /* an overwrite */
    ck_assert_int_eq(ploop_dev_pread(dev, read, 512, 4096), 512);
    ck_assert_mem_eq(read, bytes, 512);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    ck_assert_int_eq(execute(true, bytes, CLUSTER, 0), 0);
    ck_assert_int_eq(execute(true, bytes, CLUSTER, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(execute(false, read, CLUSTER, 0), 0);
    ck_assert_int_eq(execute_other(ploop_pio_prep_flush), 0);
    ck_assert_int_eq(execute_other(prepare_zeroes), 0);
    ck_assert_int_eq(execute_other(prepare_discard), 0);
    ck_assert_int_eq(execute_other(prepare_beyond), -EINVAL);
    ck_assert_int_eq(threads(), before);
    ck_assert_uint_eq(posix_pool_thread_count(&posix_of(file)->pool), 0);
    /* Several parts at once: the caller does one of them, threads the others. */
    ck_assert_int_eq(ploop_dev_pwrite(dev, large, sizeof(large), 4 * CLUSTER), sizeof(large));
    ck_assert_int_eq(ploop_dev_pread(dev, back, sizeof(back), 4 * CLUSTER), sizeof(back));
    ck_assert_mem_eq(back, large, sizeof(back));
    end();
}
END_TEST

START_TEST(errors_reach_the_caller)
{
    char bytes[512] = {1};
    begin();
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, 0), 512);
    fail_next(READS, 1, EIO);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, 512, 0), -EIO);
    fail_next(READS, 1, EIO);
    ck_assert_int_eq(execute(false, bytes, 0, 0), -EIO);
    end();
}
END_TEST

START_TEST(a_short_transfer_is_continued)
{
    static char bytes[8192], read[8192];
    begin();
    memset(bytes, 5, sizeof(bytes));
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, sizeof(bytes), 0), sizeof(bytes));
    fail_next(READS, 1, 0);
    ck_assert_int_eq(ploop_dev_pread(dev, read, sizeof(read), 0), sizeof(read));
    ck_assert_mem_eq(read, bytes, sizeof(read));
    fail_next(WRITES, 1, 0);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, sizeof(bytes), 4096), sizeof(bytes));
    ck_assert_uint_eq(posix_pool_thread_count(&posix_of(file)->pool), 0);
    end();
}
END_TEST

START_TEST(fua_is_one_write_through)
{
    char bytes[512] = {1};
    begin();
    ck_assert_int_eq(execute(true, bytes, 0, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    int through = calls(WRITES_THROUGH);
    ck_assert_int_eq(execute(true, bytes, 0, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(calls(WRITES_THROUGH), through + 1);
    fail_next(WRITES_THROUGH, 1, EIO);
    ck_assert_int_eq(execute(true, bytes, 0, PLOOP_PIO_FUA), -EIO);
    end();
}
END_TEST

START_TEST(a_failed_sync_fails_the_flush_and_those_after)
{
    char bytes[512] = {1};
    begin();
    ck_assert_int_eq(execute(true, bytes, 0, 0), 0);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(execute_other(ploop_pio_prep_flush), -EIO);
    ck_assert_int_eq(ploop_dev_flush(dev), -EIO);
    ck_assert_int_eq(ploop_dev_close(dev), -EIO);
    ploop_file_close(file);
}
END_TEST

static void *read_one(void *argument)
{
    static char bytes[512];
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, 512, *(uint64_t *)argument), 512);
    return NULL;
}

/* While one call is stuck in a read, others write new clusters and flush, which takes the turn. */
START_TEST(a_call_that_is_stuck_holds_up_no_other)
{
    pthread_t stuck;
    uint64_t offset = 0;
    char bytes[512] = {1};
    begin();
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, 0), 512);
    gate_set(true);
    ck_assert_int_eq(pthread_create(&stuck, NULL, read_one, &offset), 0);
    gate_await(1);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, CLUSTER), 512);
    ck_assert_int_eq(execute(true, bytes, 2 * CLUSTER, PLOOP_PIO_FUA), 0);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    gate_set(false);
    pthread_join(stuck, NULL);
    end();
}
END_TEST

/* What the engine goes on with, after a read that failed with EAGAIN, is not done in the turn. */
START_TEST(a_call_that_goes_on_holds_up_no_other)
{
    pthread_t stuck;
    uint64_t offset = 0;
    char bytes[512] = {1};
    begin();
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, 0), 512);
    fail_next(READS, 1, EAGAIN);
    gate.shuts = true; /* behind the first read, and before the one that goes on */
    ck_assert_int_eq(pthread_create(&stuck, NULL, read_one, &offset), 0);
    gate_await(1);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, 512, CLUSTER), 512);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    gate_set(false);
    pthread_join(stuck, NULL);
    end();
}
END_TEST

static int main_result;

static void call_inside(ploop_pio *pio, int result, void *user_data)
{
    (void)user_data;
    ck_assert_int_eq(result, 0);
    main_result = ploop_pio_execute(pio);
}

START_TEST(it_is_refused_in_a_callback)
{
    begin();
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pio = ploop_pio_get(queue);
    ploop_pio_prep_flush(pio);
    ploop_pio_set_callback(pio, call_inside, NULL);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    while (ploop_queue_wait(queue, UINT64_MAX) == 0) {
    }
    ck_assert_int_eq(main_result, -EDEADLK);
    ploop_pio_put(pio);
    end();
}
END_TEST

static Suite *help_suite(void)
{
    Suite *suite = suite_create("help");
    TCase *all = tcase_create("help");
    add_fixtures(all);
    tcase_add_test(all, calls_that_wait_start_no_thread);
    tcase_add_test(all, errors_reach_the_caller);
    tcase_add_test(all, a_short_transfer_is_continued);
    tcase_add_test(all, fua_is_one_write_through);
    tcase_add_test(all, a_failed_sync_fails_the_flush_and_those_after);
    tcase_add_test(all, a_call_that_is_stuck_holds_up_no_other);
    tcase_add_test(all, a_call_that_goes_on_holds_up_no_other);
    tcase_add_test(all, it_is_refused_in_a_callback);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    return run_suite(help_suite());
}
