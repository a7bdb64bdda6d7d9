/* SPDX-License-Identifier: MIT */
/*
 * Single situations that the backend contract allows, and exactly how the engine must react: a full
 * backend, one that completes inline for ever, one that has almost no space, and calls that meet
 * another thread in the engine's turn.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "wild_backend.h"

enum { SECTOR = 512, CLUSTER = 16384, DISK = 300 * CLUSTER };

static uint64_t now_ns(void *context)
{
    struct timespec now;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct wild *new_wild(enum wild_mode mode, uint64_t seed)
{
    return wild_new(&(struct wild_config){
        .mode = mode, .seed = seed, .file_size_max = 16 << 20, .capabilities = 15});
}

static void end(ploop_dev *dev, ploop_file *file, struct wild *wild)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    wild_free(wild);
}

static ploop_dev *open_new(struct wild *wild, ploop_file **file,
                           const struct ploop_dev_config *config)
{
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK, .cluster_size = CLUSTER};
    ploop_dev *dev;
    *file = wild_open(wild);
    ck_assert_int_eq(ploop_image_create(*file, &options), 0);
    ck_assert_int_eq(ploop_dev_open(file, 1, config, &dev), 0);
    return dev;
}

/*
 * Extending by a large amount fails, by one cluster succeeds, over and over: the engine then does
 * not extend the file ahead of need.
 */
START_TEST(a_file_system_almost_full_is_not_filled)
{
    struct wild *wild = wild_new(&(struct wild_config){.mode = _i ? WILD_THREADS : WILD_INLINE,
                                                       .seed = 1,
                                                       .delay_us = 1000,
                                                       .file_size_max = 4 << 20,
                                                       .capabilities = 15});
    ploop_file *file;
    ploop_dev *dev = open_new(wild, &file, NULL);
    char bytes[SECTOR] = {1};
    for (uint64_t i = 0; i < 5; i++) {
        ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, SECTOR, i * CLUSTER), SECTOR);
    }
    ck_assert_uint_lt(wild->file_size, 1 << 20);
    end(dev, file, wild);
}
END_TEST

/* ---- A backend that is full ---- */

static atomic_uint wakes_now;

static void count_wakes(void *context, uint64_t deadline_ns)
{
    (void)context;
    atomic_fetch_add(&wakes_now, deadline_ns == 0);
}

static void note_done(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    ck_assert_int_eq(result, 0);
    atomic_fetch_add((atomic_int *)user_data, 1);
}

static void note_ended(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    ck_assert(result == 0 || result == -ECANCELED);
    atomic_fetch_add((atomic_int *)user_data, 1);
}

/*
 * After a refusal with nothing in flight the engine asks for a run, once, and tries once in each
 * run (F3).
 */
START_TEST(a_full_backend_is_not_pestered)
{
    struct wild *wild = new_wild(WILD_INLINE, 1);
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns, .wake_at = count_wakes};
    struct ploop_dev_config config;
    ploop_file *file;
    char bytes[SECTOR] = {1};
    struct iovec iov = {.iov_base = bytes, .iov_len = SECTOR};
    atomic_int done = 0;
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = &clock;
    config.flags = _i ? PLOOP_DEV_NO_FAST_PATH : 0;
    ploop_dev *dev = open_new(wild, &file, &config);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, SECTOR, 0), SECTOR);
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    wild->config.again_percent = 100;
    atomic_store(&wakes_now, 0);
    uint64_t before = wild->refusals;
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ploop_pio_set_callback(pio, note_done, &done);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1), 1);
    ck_assert_uint_eq(wild->refusals, before + 1);
    ck_assert_uint_eq(atomic_load(&wakes_now), 1);
    ck_assert_uint_eq(ploop_dev_next_deadline(dev), 0);
    for (uint32_t i = 1; i < 10; i++) {
        (void)ploop_dev_run(dev);
        ck_assert_uint_eq(wild->refusals, before + 1 + i);
        ck_assert_uint_eq(atomic_load(&wakes_now), 1 + i);
    }
    ck_assert_int_eq(atomic_load(&done), 0);
    wild->config.again_percent = 0;
    ck_assert_int_eq(ploop_queue_run(ploop_dev_queue(dev, 0)), 1);
    ck_assert_int_eq(atomic_load(&done), 1);
    ck_assert_uint_ne(ploop_dev_next_deadline(dev), 0);
    end(dev, file, wild);
}
END_TEST

/* ---- Depth of the stack ---- */

static struct {
    ploop_queue *queue;
    struct iovec iov;
    uint32_t left;
    uintptr_t lowest, highest;
} endless;

static void again(ploop_pio *pio, int result, void *user_data)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    (void)user_data;
    ck_assert_int_eq(result, 0);
    endless.lowest = here < endless.lowest ? here : endless.lowest;
    endless.highest = here > endless.highest ? here : endless.highest;
    if (endless.left-- > 0) {
        /* Requests on the fast path, requests through the engine, requests that allocate. */
        if (endless.left % 3) {
            ploop_pio_prep_readv(pio, 0, &endless.iov, 1);
        } else {
            ploop_pio_prep_writev(pio, (endless.left % 297) * CLUSTER, &endless.iov, 1,
                                  endless.left % 30 ? 0 : PLOOP_PIO_FUA);
        }
        ck_assert_int_eq(ploop_queue_submit(endless.queue, &pio, 1), 1);
    }
}

/*
 * With a backend that completes inline and a callback that submits, the stack does not grow (F8).
 */
START_TEST(submitting_from_callbacks_does_not_nest)
{
    struct wild *wild = new_wild(WILD_INLINE, 1);
    static char bytes[SECTOR];
    struct ploop_dev_config config;
    ploop_file *file;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = _i ? PLOOP_DEV_NO_FAST_PATH : 0;
    ploop_dev *dev = open_new(wild, &file, &config);
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    endless.queue = ploop_dev_queue(dev, 0);
    endless.iov = (struct iovec){.iov_base = bytes, .iov_len = SECTOR};
    endless.left = 4000;
    endless.lowest = UINTPTR_MAX;
    ploop_pio_prep_readv(pio, 0, &endless.iov, 1);
    ploop_pio_set_callback(pio, again, NULL);
    ck_assert_int_eq(ploop_queue_submit(endless.queue, &pio, 1), 1);
    ck_assert_int_eq(ploop_queue_run(endless.queue), 4001);
    ck_assert_uint_eq(endless.left, UINT32_MAX);
    ck_assert_uint_lt(endless.highest - endless.lowest, 4096);
    end(dev, file, wild);
}
END_TEST

/* ---- Suspend and resume while another thread has the turn ---- */

static struct {
    atomic_bool shut, inside;
} turnstile;

static uint64_t now_at_turnstile(void *context)
{
    while (atomic_load(&turnstile.shut)) {
        atomic_store(&turnstile.inside, true);
        sched_yield();
    }
    return now_ns(context);
}

static void *run_once(void *dev)
{
    (void)ploop_dev_run(dev);
    return NULL;
}

static void *open_turnstile(void *argument)
{
    (void)argument;
    usleep(20000);
    atomic_store(&turnstile.shut, false);
    return NULL;
}

START_TEST(what_was_resumed_can_be_suspended_at_once)
{
    struct wild *wild = new_wild(WILD_INLINE, 1);
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_at_turnstile};
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_dev_config config;
    ploop_file *file;
    pthread_t runner, opener;
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = &clock;
    ploop_dev *dev = open_new(wild, &file, &config);
    ck_assert_int_eq(ploop_dev_suspend(dev), 0);
    ck_assert_int_eq(ploop_dev_suspend(dev), -EALREADY);
    atomic_store(&turnstile.shut, true);
    ck_assert_int_eq(pthread_create(&runner, NULL, run_once, dev), 0);
    while (!atomic_load(&turnstile.inside)) {
        sched_yield();
    }
    ck_assert_int_eq(ploop_dev_resume(dev), 0);
    ck_assert_int_eq(ploop_dev_resume(dev), -EINVAL);
    ck_assert_int_eq(pthread_create(&opener, NULL, open_turnstile, NULL), 0);
    ck_assert_int_eq(ploop_dev_suspend(dev), 0);
    pthread_join(runner, NULL);
    pthread_join(opener, NULL);
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    ck_assert(info.state & PLOOP_STATE_SUSPENDED);
    ck_assert_int_eq(ploop_dev_resume(dev), 0);
    end(dev, file, wild);
}
END_TEST

/* ---- Abort ---- */

/*
 * Requests in flight, some on threads, are completed once each, and no memory of the device is
 * touched afterwards.
 */
START_TEST(an_abort_ends_everything_once)
{
    for (uint64_t seed = 1; seed < 16; seed++) {
        struct wild *wild =
            wild_new(&(struct wild_config){.mode = seed % 2 ? WILD_THREADS : WILD_REAP,
                                           .seed = seed,
                                           .delay_us = 100,
                                           .again_percent = seed % 3 ? 0 : 30,
                                           .file_size_max = 16 << 20,
                                           .capabilities = 15});
        static char bytes[CLUSTER];
        struct iovec iov = {.iov_base = bytes, .iov_len = CLUSTER};
        struct ploop_dev_config config;
        ploop_pio *pios[40];
        ploop_file *file;
        atomic_int done = 0;
        ploop_dev_config_init(&config, sizeof(config));
        config.flags = seed % 5 ? 0 : PLOOP_DEV_NO_FAST_PATH;
        ploop_dev *dev = open_new(wild, &file, &config);
        ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, CLUSTER, 0), CLUSTER);
        for (uint32_t i = 0; i < 40; i++) {
            pios[i] = ploop_pio_get(ploop_dev_queue(dev, 0));
            if (i % 4 == 3) {
                ploop_pio_prep_flush(pios[i]);
            } else if (i % 4 == 2) {
                ploop_pio_prep_discard(pios[i], 0, DISK);
            } else {
                ploop_pio_prep_writev(pios[i], i % 4 ? 0 : i * CLUSTER, &iov, 1,
                                      i % 8 ? 0 : PLOOP_PIO_FUA);
            }
            ploop_pio_set_callback(pios[i], note_ended, &done);
        }
        ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), pios, 40), 40);
        usleep((useconds_t)seed * 50);
        ploop_dev_abort(dev);
        ck_assert_int_eq(atomic_load(&done), 40);
        ploop_file_close(file);
        wild_free(wild);
    }
}
END_TEST

static Suite *contract_cases_suite(void)
{
    Suite *suite = suite_create("contract_cases");
    TCase *single = tcase_create("single");
    tcase_set_timeout(single, 60);
    tcase_add_loop_test(single, a_file_system_almost_full_is_not_filled, 0, 2);
    tcase_add_loop_test(single, a_full_backend_is_not_pestered, 0, 2);
    tcase_add_loop_test(single, submitting_from_callbacks_does_not_nest, 0, 2);
    tcase_add_test(single, what_was_resumed_can_be_suspended_at_once);
    tcase_add_test(single, an_abort_ends_everything_once);
    suite_add_tcase(suite, single);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(contract_cases_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
