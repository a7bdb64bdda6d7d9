/* SPDX-License-Identifier: MIT */
/*
 * Runners: threads of the library that run the queues. The embedder submits and does nothing else.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ploop/ploop.h>

#include "run_tests.h"

/* The number of threads that can still be started. */
static int threads_left = -1;
static int test_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                               void *(*function)(void *argument), void *argument)
{
    if (threads_left == 0) {
        return EAGAIN;
    }
    threads_left -= threads_left > 0;
    return pthread_create(thread, attributes, function, argument);
}
#define pthread_create test_pthread_create
#include "util/thread.c" /* NOLINT(bugprone-suspicious-include): so that its calls are the test's */
#undef pthread_create

enum { CLUSTER = 4096, CLUSTERS = 4096, QUEUES = 3, WRITERS = 4, WRITES = 200, PIOS = 64 };

static ploop_file *file;
static ploop_dev *dev;

static void make_image(void)
{
    const struct ploop_image_options options = {.size = sizeof(options),
                                                .disk_size = (uint64_t)CLUSTERS * CLUSTER,
                                                .cluster_size = CLUSTER};
    ck_assert_int_eq(ploop_file_create_memory(0, &file), 0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
}

static int try_open(uint32_t queues, uint32_t runners, uint32_t flags, uint64_t delay_ns)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.queue_count = queues;
    config.runner_count = runners;
    config.flags = flags;
    config.pio_count = PIOS;
    config.writeback_delay_ns = delay_ns;
    return ploop_dev_open(&file, 1, &config, &dev);
}

static void open_with(uint32_t queues, uint32_t runners)
{
    make_image();
    ck_assert_int_eq(try_open(queues, runners, 0, 500000000), 0);
}

static void end(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Threads of this process that are runners. */
static uint32_t runner_threads(void)
{
    uint32_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(tasks);
    struct dirent *task;
    while ((task = readdir(tasks)) != NULL) {
        char path[300], name[32] = "";
        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
        FILE *comm = fopen(path, "re");
        if (comm) {
            count += fgets(name, sizeof(name), comm) && strncmp(name, "ploop-run/", 10) == 0;
            (void)fclose(comm);
        }
    }
    closedir(tasks);
    return count;
}

/* A thread that was joined may be listed for a moment. */
static void expect_runners(uint32_t count)
{
    for (int i = 0; i < 5000 && runner_threads() != count; i++) {
        nap();
    }
    ck_assert_uint_eq(runner_threads(), count);
}

/* ---- requests ---- */

struct request {
    char name[16]; /* of the thread that called back */
    int result;
    atomic_uint calls;
    struct iovec iov;
    uint8_t bytes[512];
};

static void called_back(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;
    pthread_getname_np(pthread_self(), request->name, sizeof(request->name));
    request->result = result;
    ploop_pio_put(pio);
    atomic_fetch_add(&request->calls, 1);
}

static void begin_write(struct request *request, uint32_t queue, uint64_t sector, uint8_t byte)
{
    ploop_pio *pio;
    while (!(pio = ploop_pio_get(ploop_dev_queue(dev, queue)))) {
        nap();
    }
    memset(request->bytes, byte, sizeof(request->bytes));
    request->iov = (struct iovec){request->bytes, sizeof(request->bytes)};
    ploop_pio_set_callback(pio, called_back, request);
    ploop_pio_prep_writev(pio, sector * 512, &request->iov, 1, 0);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, queue), &pio, 1), 1);
}

static void wait_for(struct request *request)
{
    for (int i = 0; i < 20000 && !atomic_load(&request->calls); i++) {
        nap();
    }
    ck_assert_uint_eq(atomic_load(&request->calls), 1);
    ck_assert_int_eq(request->result, 0);
}

/* ---- tests ---- */

START_TEST(callbacks_run_on_the_runner_of_their_queue)
{
    static const char *names[QUEUES] = {"ploop-run/0", "ploop-run/1", "ploop-run/0"};
    open_with(QUEUES, 2);
    for (uint32_t i = 0; i < 6u * QUEUES; i++) {
        struct request request = {0};
        begin_write(&request, i % QUEUES, i * 8, (uint8_t)i);
        wait_for(&request);
        ck_assert_str_eq(request.name, names[i % QUEUES]);
    }
    end();
}
END_TEST

START_TEST(a_queue_of_a_runner_is_run_by_nobody_else)
{
    open_with(1, 1);
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ck_assert_int_eq(ploop_queue_run(queue), -EBUSY);
    ck_assert_int_eq(ploop_queue_wait(queue, 0), -EBUSY);
    ck_assert_int_eq(ploop_queue_poll_fd(queue), -EBUSY);
    ck_assert_int_ge(ploop_dev_run(dev), 0);
    end();
}
END_TEST

START_TEST(there_are_no_more_runners_than_queues)
{
    make_image();
    ck_assert_int_eq(try_open(2, 3, 0, 0), -EINVAL);
    ck_assert_ptr_null(dev);
    ploop_file_close(file);
}
END_TEST

START_TEST(without_a_thread_the_open_fails_and_leaves_no_mark)
{
    make_image();
    for (int left = 0; left < 2; left++) {
        threads_left = left;
        ck_assert_int_eq(try_open(2, 2, 0, 0), -ENOMEM);
        threads_left = -1;
        expect_runners(0);
    }
    ck_assert_int_eq(try_open(2, 2, 0, 0), 0); /* it was not marked */
    end();
}
END_TEST

START_TEST(a_device_that_is_read_only_has_runners_too)
{
    make_image();
    ck_assert_int_eq(try_open(1, 1, PLOOP_DEV_READ_ONLY, 500000000), 0);
    struct request request = {0};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    request.iov = (struct iovec){request.bytes, sizeof(request.bytes)};
    ploop_pio_set_callback(pio, called_back, &request);
    ploop_pio_prep_readv(pio, 0, &request.iov, 1);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1), 1);
    wait_for(&request);
    end();
}
END_TEST

START_TEST(the_deadline_is_kept_by_a_runner)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    make_image();
    ck_assert_int_eq(try_open(QUEUES, 2, 0, 20000000), 0);
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    uint64_t before = info.page_writes;
    struct request request = {0};
    begin_write(&request, 1, 0, 'a');
    wait_for(&request);
    for (int i = 0; i < 20000 && info.page_writes == before; i++) {
        nap();
        ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    }
    ck_assert_uint_gt(info.page_writes, before);
    end();
}
END_TEST

START_TEST(close_ends_the_runners_after_all_callbacks)
{
    static struct request requests[PIOS];
    memset(requests, 0, sizeof(requests));
    open_with(2, 2);
    expect_runners(2);
    for (uint32_t i = 0; i < PIOS; i++) {
        begin_write(&requests[i], i % 2, i * 8, (uint8_t)i);
    }
    end();
    expect_runners(0);
    for (uint32_t i = 0; i < PIOS; i++) {
        wait_for(&requests[i]);
        ck_assert_str_eq(requests[i].name, i % 2 ? "ploop-run/1" : "ploop-run/0");
    }
}
END_TEST

START_TEST(abort_ends_the_runners)
{
    static struct request request;
    memset(&request, 0, sizeof(request));
    open_with(2, 2);
    begin_write(&request, 0, 0, 'a');
    ploop_dev_abort(dev);
    ck_assert_uint_eq(atomic_load(&request.calls), 1);
    expect_runners(0);
    ploop_file_close(file);
}
END_TEST

static void *write_many(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument;
    for (uint32_t i = 0; i < WRITES; i++) {
        struct request request = {0};
        begin_write(&request, i % QUEUES, (uint64_t)i * WRITERS + number, (uint8_t)(number + i));
        while (!atomic_load(&request.calls)) {
            sched_yield();
        }
        ck_assert_int_eq(request.result, 0);
    }
    return NULL;
}

START_TEST(requests_come_from_any_thread)
{
    pthread_t threads[WRITERS];
    uint8_t sector[512];
    open_with(QUEUES, 2);
    for (uint32_t i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_many, (void *)(uintptr_t)i), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (uint32_t i = 0; i < WRITES * WRITERS; i++) {
        uint8_t expected = (uint8_t)(i % WRITERS + i / WRITERS);
        ck_assert_int_eq(ploop_dev_pread(dev, sector, sizeof(sector), (uint64_t)i * 512), 512);
        ck_assert_uint_eq(sector[0], expected);
        ck_assert_uint_eq(sector[511], expected);
    }
    end();
}
END_TEST

static void *execute_many(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument;
    uint8_t bytes[512];
    struct iovec iov = {bytes, sizeof(bytes)};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    ck_assert_ptr_nonnull(pio);
    for (uint32_t i = 0; i < WRITES; i++) {
        uint64_t offset = ((uint64_t)i * WRITERS + number) * CLUSTER;
        memset(bytes, (int)(number + i), sizeof(bytes));
        ploop_pio_prep_writev(pio, offset, &iov, 1, i % 16 ? 0 : PLOOP_PIO_FUA);
        ck_assert_int_eq(ploop_pio_execute(pio), 0);
        bytes[0]++;
        ploop_pio_prep_readv(pio, offset, &iov, 1);
        ck_assert_int_eq(ploop_pio_execute(pio), 0);
        ck_assert_uint_eq(bytes[0], (uint8_t)(number + i));
    }
    ploop_pio_put(pio);
    return NULL;
}

/* Threads that wait for their requests on a queue that a runner runs: nobody leads there. */
START_TEST(threads_execute_on_a_runners_queue)
{
    pthread_t threads[WRITERS];
    open_with(1, 1);
    for (uint32_t i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, execute_many, (void *)(uintptr_t)i), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    end();
}
END_TEST

static void block(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;
    uint8_t sector[512];
    (void)result;
    request->result = ploop_dev_pread(dev, sector, sizeof(sector), 0) == -EDEADLK &&
                              ploop_dev_close(dev) == -EDEADLK
                          ? 0
                          : -EIO;
    ploop_pio_put(pio);
    atomic_fetch_add(&request->calls, 1);
}

START_TEST(a_callback_must_not_block_its_runner)
{
    struct request request = {0};
    open_with(1, 1);
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    ploop_pio_set_callback(pio, block, &request);
    ploop_pio_prep_flush(pio);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1), 1);
    wait_for(&request);
    end();
}
END_TEST

START_TEST(suspend_and_resume_work_with_runners)
{
    open_with(1, 1);
    ck_assert_int_eq(ploop_dev_suspend(dev), 0);
    struct request request = {0};
    begin_write(&request, 0, 0, 'a');
    for (int i = 0; i < 20; i++) {
        nap();
    }
    ck_assert_uint_eq(atomic_load(&request.calls), 0);
    ck_assert_int_eq(ploop_dev_resume(dev), 0);
    wait_for(&request);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        callbacks_run_on_the_runner_of_their_queue,
        a_queue_of_a_runner_is_run_by_nobody_else,
        there_are_no_more_runners_than_queues,
        without_a_thread_the_open_fails_and_leaves_no_mark,
        a_device_that_is_read_only_has_runners_too,
        the_deadline_is_kept_by_a_runner,
        close_ends_the_runners_after_all_callbacks,
        abort_ends_the_runners,
        requests_come_from_any_thread,
        threads_execute_on_a_runners_queue,
        a_callback_must_not_block_its_runner,
        suspend_and_resume_work_with_runners,
    };
    return RUN_TESTS("runners", tests);
}
