/* SPDX-License-Identifier: MIT */
/*
 * How an event loop learns that there is work: from the queue's descriptor or the clock. Each is
 * enough alone, and neither repeats itself. Also backends that cannot tell, and the threads on
 * which callbacks run that no run has called.
 */
#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/engine.h"
#include "pio/queue.h"

enum { CLUSTER = 4096 };
#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void ready(struct rig *rig, uint32_t queues)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.queue_count = queues;
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, at(0), 8 * CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    for (uint32_t i = 0; i < queues; i++) {
        ploop_queue_run(ploop_dev_queue(rig->dev, i));
    }
    script_forget(&rig->script);
}

static bool is_readable(ploop_queue *queue)
{
    struct pollfd poll_fd = {.fd = ploop_queue_poll_fd(queue), .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

/* The number of writes to the queue's event descriptor since it was last read. */
static uint64_t writes(ploop_queue *queue)
{
    uint64_t count = 0;
    ssize_t got = read(queue->event_fd, &count, sizeof(count));
    ck_assert(got == sizeof(count) || errno == EAGAIN);
    return got == sizeof(count) ? count : 0;
}

/* ---- the descriptor ---- */

START_TEST(a_batch_of_completions_is_one_write)
{
    struct rig rig;
    struct req reqs[8];
    ready(&rig, 1);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 8; i++) {
            req_read(&reqs[i], &rig, at(i), 512);
        }
        ck_assert(!is_readable(rig.queue));
        while (rig.script.held_count) {
            script_release(&rig.script, 0);
        }
        ck_assert(is_readable(rig.queue));
        ck_assert_int_eq(ploop_queue_run(rig.queue), 8);
        ck_assert(!is_readable(rig.queue));
        for (int i = 0; i < 8; i++) {
            ck_assert_int_eq(req_end(&reqs[i]), 0);
        }
    }
    for (uint64_t i = 0; i < 8; i++) {
        req_read(&reqs[i], &rig, at(i), 512);
    }
    while (rig.script.held_count) {
        script_release(&rig.script, 0);
    }
    ck_assert_uint_eq(writes(rig.queue), 1);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 8);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(req_end(&reqs[i]), 0);
    }
    rig.script.hold = 0;
    rig_end(&rig);
}
END_TEST

/*
 * A callback's own requests, completed inside the run, need no event: the run calls their
 * callbacks.
 */
static void read_again(ploop_pio *pio, int result, void *user_data)
{
    int *left = user_data;
    ck_assert_int_eq(result, 0);
    if (--*left > 0) {
        ck_assert_int_eq(ploop_queue_submit(pio->queue, &pio, 1), 1);
    }
}

START_TEST(a_run_does_not_ring_itself)
{
    struct rig rig;
    ready(&rig, 1);
    static uint8_t bytes[512];
    struct iovec iov = {bytes, sizeof(bytes)};
    ploop_pio *pio = ploop_pio_get(rig.queue);
    int left = 10;
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ploop_pio_set_callback(pio, read_again, &left);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
    ck_assert(is_readable(rig.queue));
    ck_assert_int_eq(ploop_queue_run(rig.queue), 10);
    ck_assert_int_eq(left, 0);
    ck_assert_uint_eq(writes(rig.queue), 0);
    ploop_pio_put(pio);
    rig_end(&rig);
}
END_TEST

START_TEST(the_descriptor_tells_of_a_deadline_that_moves_forward)
{
    struct rig rig;
    ready(&rig, 2);
    ploop_queue *other = ploop_dev_queue(rig.dev, 1);
    rig.clock.now_ns += 10 * SECOND; /* the deadline announced before is past */
    ploop_queue_run(rig.queue);
    ploop_queue_run(other);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert(!is_readable(rig.queue) && !is_readable(other));

    struct req write;
    req_write(&write, &rig, at(100), CLUSTER, 1, 0);
    ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert(is_readable(other)); /* each loop alone is enough */
    ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
    ploop_queue_run(other);
    ck_assert_int_eq(req_end(&write), 0);
    ck_assert(!is_readable(rig.queue) && !is_readable(other));
    /* A deadline that moves back, as every further change moves it, is not announced. */
    rig.clock.now_ns += 100 * MS;
    req_write(&write, &rig, at(101), CLUSTER, 1, 0);
    ploop_queue_run(rig.queue);
    ck_assert_int_eq(req_end(&write), 0);
    ck_assert(!is_readable(other));
    ck_assert_int_eq(ploop_bat_set_delay(rig.dev, 10 * MS, SECOND), 0);
    ck_assert(is_readable(rig.queue) && is_readable(other));
    rig_end(&rig);
}
END_TEST

/*
 * A parked request and a failed page are retried with the descriptor and the deadline alone: no
 * completion tells the loop.
 */
START_TEST(the_descriptor_alone_brings_a_parked_request_back)
{
    struct rig rig;
    struct req write;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.enospc_policy = PLOOP_ENOSPC_PARK;
    rig.clock_ops.wake_at = NULL;
    rig_limit_to(&rig, 2);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), 2 * CLUSTER, 1, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig.clock.now_ns += 10 * SECOND;
    ploop_queue_run(rig.queue);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_TRUNCATE);
    req_write(&write, &rig, at(2), CLUSTER, 1, 0);
    ploop_queue_run(rig.queue);
    ck_assert(!is_readable(rig.queue));
    rig.script.hold = 0;
    script_release_all(&rig.script); /* as on a thread of the backend: no space */
    ck_assert(!req_done(&write));
    ck_assert_uint_eq(rig_info(&rig).requests_parked, 1);
    ck_assert(is_readable(rig.queue));
    ploop_queue_run(rig.queue);
    uint64_t deadline = ploop_dev_next_deadline(rig.dev);
    ck_assert_uint_ne(deadline, UINT64_MAX);
    rig_limit_to(&rig, 8);
    rig.clock.now_ns = deadline;
    ploop_queue_run(rig.queue);
    ck_assert(req_done(&write));
    ck_assert_int_eq(req_end(&write), 0);
    rig_end(&rig);
}
END_TEST

/* ---- threads without a loop ---- */

static void *release_soon(void *argument)
{
    struct rig *rig = argument;
    usleep(20000);
    script_release_all(&rig->script);
    return NULL;
}

START_TEST(a_wait_sleeps_and_runs)
{
    struct rig rig;
    struct req read;
    pthread_t thread;
    ready(&rig, 1);
    rig.clock.now_ns += 10 * SECOND;
    ploop_queue_run(rig.queue);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_read(&read, &rig, at(0), 512);
    ck_assert_int_eq(ploop_queue_wait(rig.queue, 0), 0);
    ck_assert_int_eq(ploop_queue_wait(rig.queue, 3 * MS), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, release_soon, &rig), 0);
    while (!read.calls) {
        ck_assert_int_ge(ploop_queue_wait(rig.queue, UINT64_MAX), 0);
    }
    pthread_join(thread, NULL);
    ck_assert_int_eq(req_end(&read), 0);
    /* Completions that are there already are delivered without sleep; work that is due is done. */
    rig.script.hold = 0;
    req_read(&read, &rig, at(0), 512);
    ck_assert_int_eq(ploop_queue_wait(rig.queue, UINT64_MAX), 1);
    ck_assert_int_eq(req_end(&read), 0);
    ck_assert_int_eq(rig_write(&rig, at(100), CLUSTER, 1, 0), 0);
    rig.clock.now_ns = ploop_dev_next_deadline(rig.dev);
    ck_assert_int_eq(ploop_queue_wait(rig.queue, 1), 0);
    ck_assert_uint_eq(rig_page_writes(&rig), 1);
    rig_end(&rig);
}
END_TEST

/* ---- the engine's queue ---- */

static struct {
    int fds[4];
    uint32_t attached;
} rings;

static int ring_fd(void *context, uint32_t queue)
{
    (void)context;
    return rings.fds[queue];
}

static int ring_attach(void *context, uint32_t queue_count)
{
    (void)context;
    rings.attached = queue_count;
    return 0;
}

static int reap_nothing(void *context, uint32_t queue)
{
    (void)context;
    (void)queue;
    return 0;
}

/*
 * The engine's queue comes after the users'. Its descriptor may be one that cannot be watched
 * exclusively.
 */
START_TEST(the_engines_queue_is_in_every_descriptor)
{
    for (int nested = 0; nested < 2; nested++) {
        struct rig rig;
        uint64_t one = 1;
        struct epoll_event event = {.events = EPOLLIN};
        for (int i = 0; i < 4; i++) {
            rings.fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        }
        int engine_fd = rings.fds[2];
        if (nested) {
            rings.fds[2] = epoll_create1(EPOLL_CLOEXEC);
            ck_assert_int_eq(epoll_ctl(rings.fds[2], EPOLL_CTL_ADD, engine_fd, &event), 0);
        }
        rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
        rig.config.queue_count = 2;
        rig.script.file->ops.attach = ring_attach;
        rig.script.file->ops.reap = reap_nothing;
        rig.script.file->ops.poll_fd = ring_fd;
        rig_open(&rig);
        ploop_queue *other = ploop_dev_queue(rig.dev, 1);
        ck_assert_uint_eq(rings.attached, 3);
        ploop_queue_run(rig.queue);
        ploop_queue_run(other);
        ck_assert(!is_readable(rig.queue) && !is_readable(other));
        ck_assert_int_eq(write(engine_fd, &one, sizeof(one)), sizeof(one));
        ck_assert(is_readable(rig.queue) && is_readable(other));
        ck_assert_int_eq(read(engine_fd, &one, sizeof(one)), sizeof(one));
        ck_assert_int_eq(write(rings.fds[1], &one, sizeof(one)), sizeof(one));
        ck_assert(!is_readable(rig.queue) && is_readable(other));
        rig_end(&rig);
        for (int i = 0; i < 4; i++) {
            close(rings.fds[i]);
        }
        if (nested) {
            close(engine_fd);
        }
    }
}
END_TEST

/* ---- the clock ---- */

static struct script *reaped;

static int reap_held(void *context, uint32_t queue)
{
    (void)context;
    (void)queue;
    int count = (int)script_held_of(reaped, PLOOP_IO_WRITE);
    script_release_all(reaped);
    return count;
}

/*
 * Another thread may sleep on the descriptor of the queue that this one runs, until the deadline of
 * before.
 */
START_TEST(a_run_that_moves_the_deadline_forward_rings)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    reaped = &rig.script;
    for (int i = 0; i < 2; i++) {
        rings.fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    rig.script.file->ops.attach = ring_attach;
    rig.script.file->ops.reap = reap_held;
    rig.script.file->ops.poll_fd = ring_fd;
    rig_open(&rig);
    rig.clock.now_ns += 10 * SECOND;
    ploop_queue_run(rig.queue);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert(!is_readable(rig.queue));
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    struct req write;
    req_write(&write, &rig, at(9), CLUSTER, 1, 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    rig.script.hold = 0;
    int delivered = 0;
    while (ploop_dev_next_deadline(rig.dev) == UINT64_MAX) {
        ck_assert(!is_readable(rig.queue));
        delivered += ploop_queue_run(rig.queue);
    }
    ck_assert(is_readable(rig.queue));
    delivered += ploop_queue_run(rig.queue);
    ck_assert_int_eq(delivered, 1);
    ck_assert(!is_readable(rig.queue));
    ck_assert_int_eq(req_end(&write), 0);
    rig_end(&rig);
    close(rings.fds[0]);
    close(rings.fds[1]);
}
END_TEST

START_TEST(runs_that_come_early_ask_for_nothing)
{
    struct rig rig;
    struct req req;
    ready(&rig, 1);
    req_write(&req, &rig, at(100), CLUSTER, 1, 0);
    ploop_queue_run(rig.queue);
    ck_assert_int_eq(req_end(&req), 0);
    uint64_t wakes = rig.clock.wakes;
    for (int i = 0; i < 100; i++) {
        rig.clock.now_ns += MS;
        ploop_queue_run(rig.queue);
        ploop_dev_run(rig.dev);
    }
    ck_assert_uint_eq(rig.clock.wakes, wakes);
    rig_end(&rig);
}
END_TEST

/* ---- backends that cannot tell ---- */

static int poll_nothing(void *context, uint32_t queue)
{
    (void)context;
    (void)queue;
    return -ENOTSUP;
}

START_TEST(functions_that_do_not_fit_together_are_refused)
{
    static const struct {
        bool reap, poll_fd;
        int error;
        const char *name;
    } cases[] = {
        {true, false, -EINVAL, "poll_fd"},
        {false, true, -EINVAL, "reap"},
        {true, true, -ENOTSUP, NULL}, /* poll_fd returns an error */
        {false, false, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig rig;
        rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
        rig.script.file->ops.reap = cases[i].reap ? reap_nothing : NULL;
        rig.script.file->ops.poll_fd = cases[i].poll_fd ? poll_nothing : NULL;
        ck_assert_int_eq(rig_try_open(&rig), cases[i].error);
        if (cases[i].name) {
            ck_assert_uint_eq(rig.log_lines, 1);
            ck_assert_ptr_nonnull(strstr(rig.log_text, cases[i].name));
            ck_assert_uint_eq(rig.script.log_count, 0);
        }
        rig_free(&rig);
    }
}
END_TEST

/* ---- callbacks that have not run ---- */

START_TEST(suspend_says_how_many_callbacks_wait)
{
    struct rig rig;
    struct req reqs[4];
    ready(&rig, 1);
    for (uint64_t i = 0; i < 4; i++) {
        req_read(&reqs[i], &rig, at(i), 512);
    }
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
    ck_assert_uint_eq(rig_info(&rig).completions_waiting, 4);
    ck_assert_uint_eq(reqs[0].calls, 0);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 4);
    ck_assert_uint_eq(rig_info(&rig).completions_waiting, 0);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(req_end(&reqs[i]), 0);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(close_and_abort_run_the_callbacks)
{
    for (int abort = 0; abort < 2; abort++) {
        struct rig rig;
        struct req read;
        ready(&rig, 1);
        req_read(&read, &rig, at(0), 512);
        ck_assert_uint_eq(read.calls, 0);
        if (abort) {
            ploop_dev_abort(rig.dev);
        } else {
            ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
        }
        rig.dev = NULL;
        ck_assert(req_done(&read));
        ck_assert_int_eq(read.result, 0);
        free(read.iov.iov_base);
        rig_free(&rig);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_batch_of_completions_is_one_write,
        a_run_does_not_ring_itself,
        the_descriptor_tells_of_a_deadline_that_moves_forward,
        the_descriptor_alone_brings_a_parked_request_back,
        a_wait_sleeps_and_runs,
        a_run_that_moves_the_deadline_forward_rings,
        the_engines_queue_is_in_every_descriptor,
        runs_that_come_early_ask_for_nothing,
        functions_that_do_not_fit_together_are_refused,
        suspend_says_how_many_callbacks_wait,
        close_and_abort_run_the_callbacks,
    };
    return RUN_TESTS("wakeups", tests);
}
