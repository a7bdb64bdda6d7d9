/* SPDX-License-Identifier: MIT */
/*
 * Suspend and resume, and close and abort with requests in flight: at the backend, in the engine,
 * held back.
 */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image_fixture.h"

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void ready(struct rig *rig, uint32_t flags, uint32_t options)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, options);
    rig->config.flags = flags;
    rig->config.queue_count = 2;
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, at(0), 4 * CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

/* The backend's `wait`: each time the library can only wait, complete one request. */
static void complete_one(struct script *script, void *argument)
{
    uint64_t *idle = argument;
    ++*idle;
    if (script->held_count) {
        script_release(script, 0);
    }
}

START_TEST(suspend_waits_and_makes_everything_durable)
{
    struct rig rig;
    struct req in_flight[3], held[3];
    uint64_t idle = 0;
    ready(&rig, 0, 0);
    rig.script.idle = complete_one;
    rig.script.idle_argument = &idle;
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE) | SCRIPT_BIT(PLOOP_IO_READ);
    req_write(&in_flight[0], &rig, at(1), CLUSTER, 1, 0);
    req_write(&in_flight[1], &rig, at(10), 3 * CLUSTER, 2, 0);
    req_read(&in_flight[2], &rig, at(2), CLUSTER);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_uint_ge(idle, 5);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(req_end(&in_flight[i]), 0);
    }
    rig.script.hold = 0;
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SUSPENDED);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 10), 0);
    ck_assert_uint_ge(rig.script.submitted[PLOOP_IO_SYNC], 1);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EALREADY);

    /* Requests of any kind are held back, and begin in their order. */
    script_forget(&rig.script);
    req_write(&held[0], &rig, at(20), CLUSTER, 3, 0);
    req_read(&held[1], &rig, at(0), CLUSTER);
    req_flush(&held[2], &rig);
    rig_advance(&rig, 100 * SECOND);
    ck_assert_uint_eq(rig.script.log_count, 0);
    ck_assert(!req_done(&held[0]) && !req_done(&held[1]) && !req_done(&held[2]));
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert(req_done(&held[i]));
    }
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_WRITE, 0),
                      script_log_find(&rig.script, PLOOP_IO_READ, 0));
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(req_end(&held[i]), 0);
    }
    ck_assert_int_eq(ploop_dev_resume(rig.dev), -EINVAL);
    ck_assert_uint_eq(rig_info(&rig).state, 0);
    rig_expect(&rig, at(20), CLUSTER, 3);
    rig_expect(&rig, at(10), 3 * CLUSTER, 2);
    rig_end(&rig);
}
END_TEST

START_TEST(suspended_once_more_and_again)
{
    struct rig rig;
    struct req req;
    ready(&rig, 0, 0);
    for (uint64_t i = 0; i < 5; i++) {
        ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
        req_write(&req, &rig, at(10 + i), CLUSTER, (uint8_t)i, 0);
        ck_assert(!req_done(&req));
        ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
        ck_assert_int_eq(req_wait(&req), 0);
        rig_expect(&rig, at(10 + i), CLUSTER, (uint8_t)i);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(a_suspend_that_cannot_write_suspends_all_the_same)
{
    struct rig rig;
    struct req req;
    ready(&rig, 0, 0);
    ck_assert_int_eq(rig_write(&rig, at(10), CLUSTER, 1, 0), 0);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EIO);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SUSPENDED);
    req_read(&req, &rig, at(0), 512);
    ck_assert(!req_done(&req));
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(req_wait(&req), 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

/* A suspend on another thread. */
struct suspender {
    pthread_t thread;
    struct rig *rig;
    _Atomic int over;
    int result;
};

static void *suspend_apart(void *argument)
{
    struct suspender *suspender = argument;
    suspender->result = ploop_dev_suspend(suspender->rig->dev);
    suspender->over = 1;
    return NULL;
}

/* Begin it, and wait until it holds requests back. */
static void begin_suspend(struct suspender *suspender, struct rig *rig)
{
    *suspender = (struct suspender){.rig = rig};
    ck_assert_int_eq(pthread_create(&suspender->thread, NULL, suspend_apart, suspender), 0);
    while (!(rig_info(rig).state & PLOOP_STATE_SUSPENDED)) {
        usleep(100);
    }
}

/*
 * A resume and another suspend come while the first suspend waits. It must not be mistaken for the
 * second, whose requests are in flight.
 */
START_TEST(a_suspend_that_was_resumed_says_so_though_another_came)
{
    struct rig rig;
    struct req before, between;
    struct suspender first, second;
    ready(&rig, 0, SCRIPT_NO_WAIT);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE) | SCRIPT_BIT(PLOOP_IO_SYNC);
    req_write(&before, &rig, at(0), 512, 1, 0);
    begin_suspend(&first, &rig);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    req_write(&between, &rig, at(1), 512, 2, 0);
    /* Where the first suspend's thread has the turn, that thread sends the write. */
    while (script_held_of(&rig.script, PLOOP_IO_WRITE) < 2) {
        usleep(100);
    }
    while (!first.over && script_held_of(&rig.script, PLOOP_IO_SYNC) == 0) {
        usleep(100);
    }
    begin_suspend(&second, &rig);
    script_release_kind(&rig.script, PLOOP_IO_SYNC);
    pthread_join(first.thread, NULL);
    ck_assert_int_eq(first.result, -ECANCELED);
    ck_assert(!req_done(&between) && !second.over);
    script_release_all(&rig.script);
    pthread_join(second.thread, NULL);
    ck_assert_int_eq(second.result, 0);
    ck_assert_int_eq(req_end(&before), 0);
    ck_assert_int_eq(req_end(&between), 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EALREADY);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_close_begins_what_was_held_back)
{
    struct rig rig;
    struct req write, flush;
    ready(&rig, 0, 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    req_write(&write, &rig, at(20), CLUSTER, 3, 0);
    req_flush(&flush, &rig);
    rig_close_dev(&rig);
    ck_assert_uint_eq(write.calls, 1);
    ck_assert_uint_eq(flush.calls, 1);
    ck_assert_int_eq(write.result, 0);
    free(write.iov.iov_base);
    ck_assert_uint_ne(rig_file_entry(&rig, 20), 0);
    ck_assert_uint_eq(rig.script.bytes[rig_file_offset(&rig, 20)], 3);
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(a_close_waits_for_requests_in_flight)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        struct req req[4];
        uint64_t idle = 0;
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.flags = flags;
        rig_open(&rig);
        rig.script.idle = complete_one;
        rig.script.idle_argument = &idle;
        rig.script.hold = SCRIPT_ALL;
        req_write(&req[0], &rig, at(1), CLUSTER, 1, 0);
        req_write(&req[1], &rig, at(2), 5 * CLUSTER, 2, PLOOP_PIO_FUA);
        req_flush(&req[2], &rig);
        req_discard(&req[3], &rig, at(1), CLUSTER);
        int error = ploop_dev_close(rig.dev);
        rig.dev = NULL;
        ck_assert_int_eq(error, 0);
        ck_assert_uint_gt(idle, 5);
        for (int i = 0; i < 4; i++) {
            ck_assert_uint_eq(req[i].calls, 1);
            ck_assert_int_eq(req[i].result, 0);
            free(req[i].iov.iov_base);
        }
        ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
        ck_assert(!rig_file_marked(&rig));
        rig_free(&rig);
    }
}
END_TEST

/* Without `cancel` an abort waits for requests at the backend; it sends no more. */
START_TEST(an_abort_ends_everything)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        struct req req[6];
        uint64_t idle = 0;
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.flags = flags;
        rig_open(&rig);
        rig.script.idle = complete_one;
        rig.script.idle_argument = &idle;
        rig.script.hold = SCRIPT_ALL;
        req_write(&req[0], &rig, at(1), CLUSTER, 1, 0);                 /* waits for space */
        req_write(&req[1], &rig, at(2), 2000 * CLUSTER, 2, 0);          /* for parts too */
        req_flush(&req[2], &rig);                                       /* at the backend */
        req_write(&req[3], &rig, at(5000), 512, 1, PLOOP_PIO_PREFLUSH); /* for the next round */
        req_discard(&req[4], &rig, at(1), CLUSTER);                     /* for a lock */
        req_bat_write(&req[5], &rig, 0, 1);
        script_forget(&rig.script);
        ploop_dev_abort(rig.dev);
        rig.dev = NULL;
        ck_assert_uint_eq(rig.script.log_count, 0);
        for (int i = 0; i < 6; i++) {
            ck_assert_uint_eq(req[i].calls, 1);
            free(req[i].iov.iov_base);
        }
        ck_assert_int_eq(req[0].result, -ECANCELED);
        ck_assert_int_eq(req[1].result, -ECANCELED);
        ck_assert_int_eq(req[2].result, -ECANCELED);
        ck_assert_int_eq(req[3].result, -ECANCELED);
        ck_assert(rig_file_marked(&rig));
        ck_assert_uint_eq(rig.script.held_count, 0);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(an_abort_of_a_suspended_device_ends_what_is_held)
{
    struct rig rig;
    struct req req[3];
    ready(&rig, 0, 0);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    req_write(&req[0], &rig, at(1), CLUSTER, 1, 0);
    req_read(&req[1], &rig, at(1), CLUSTER);
    req_flush(&req[2], &rig);
    script_forget(&rig.script);
    ploop_dev_abort(rig.dev);
    rig.dev = NULL;
    ck_assert_uint_eq(rig.script.log_count, 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(req[i].calls, 1);
        ck_assert_int_eq(req[i].result, -ECANCELED);
        free(req[i].iov.iov_base);
    }
    rig_free(&rig);
}
END_TEST

/* ---- no lock is held in a callback ---- */

struct chain {
    struct rig *rig;
    uint32_t calls;
};

/* Completes the next held request, and calls a function that takes a lock inside. */
static void complete_the_next(ploop_pio *pio, int result, void *user_data)
{
    struct chain *chain = user_data;
    (void)pio;
    ck_assert_int_eq(result, 0);
    chain->calls++;
    ck_assert_int_eq(ploop_bat_set_delay(chain->rig->dev, chain->calls, SECOND), 0);
    if (chain->rig->script.held_count) {
        script_release(&chain->rig->script, chain->rig->script.held_count - 1);
    }
}

START_TEST(a_close_delivers_without_a_lock)
{
    struct rig rig;
    ready(&rig, 0, SCRIPT_NO_WAIT);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 0);
    struct chain chain = {.rig = &rig};
    uint8_t bytes[3][512] = {{0}};
    struct iovec iov[3];
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    for (unsigned i = 0; i < 3; i++) {
        /*
         * Queue 0, queue 0, queue 1: the callback of the last request completes the others while
         * callbacks run.
         */
        ploop_queue *queue = ploop_dev_queue(rig.dev, i == 2);
        ploop_pio *pio = ploop_pio_get(queue);
        iov[i] = (struct iovec){bytes[i], 512};
        ploop_pio_set_callback(pio, complete_the_next, &chain);
        ploop_pio_prep_readv(pio, at(i), &iov[i], 1);
        ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    }
    script_release(&rig.script, 2);
    rig.script.hold = 0;
    rig_close_dev(&rig);
    ck_assert_uint_eq(chain.calls, 3);
    rig_free(&rig);
}
END_TEST

/* A callback during the close may still submit; close waits for that request too. */
static void submit_a_write(ploop_pio *pio, int result, void *user_data)
{
    struct chain *chain = user_data;
    static uint8_t bytes[512] = {1};
    static struct iovec iov = {bytes, sizeof(bytes)};
    ck_assert_int_eq(result, 0);
    if (chain->calls++ < 10) {
        ploop_pio_prep_writev(pio, at(100 + chain->calls), &iov, 1,
                              chain->calls & 1 ? PLOOP_PIO_FUA : 0);
        ck_assert_int_eq(ploop_queue_submit(chain->rig->queue, &pio, 1), 1);
    }
}

START_TEST(a_close_waits_for_what_callbacks_submit)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        uint64_t idle = 0;
        uint8_t bytes[512] = {1};
        struct iovec iov = {bytes, sizeof(bytes)};
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.flags = flags;
        rig_open(&rig);
        struct chain chain = {.rig = &rig};
        ploop_pio *pio = ploop_pio_get(rig.queue);
        rig.script.idle = complete_one;
        rig.script.idle_argument = &idle;
        rig.script.hold = SCRIPT_ALL;
        ploop_pio_set_callback(pio, submit_a_write, &chain);
        ploop_pio_prep_writev(pio, 0, &iov, 1, 0);
        ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
        rig_close_dev(&rig);
        ck_assert_uint_eq(chain.calls, 11);
        ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
        rig_free(&rig);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {suspend_waits_and_makes_everything_durable,
                                  suspended_once_more_and_again,
                                  a_suspend_that_cannot_write_suspends_all_the_same,
                                  a_suspend_that_was_resumed_says_so_though_another_came,
                                  a_close_begins_what_was_held_back,
                                  a_close_waits_for_requests_in_flight,
                                  an_abort_ends_everything,
                                  an_abort_of_a_suspended_device_ends_what_is_held,
                                  a_close_delivers_without_a_lock,
                                  a_close_waits_for_what_callbacks_submit};
    return RUN_TESTS("suspend", tests);
}
