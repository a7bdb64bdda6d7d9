/* SPDX-License-Identifier: MIT */
/*
 * Wake-ups that are easily lost: a loop that sleeps while a deadline comes and goes, a turn that is
 * handed over, a run by another thread, a clock that goes back.
 */
#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "pio/queue.h"

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static bool is_readable(ploop_queue *queue)
{
    struct pollfd poll_fd = {.fd = ploop_queue_poll_fd(queue), .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

/*
 * A loop that runs when the descriptor is readable or the time of next_deadline has come; it asks
 * for that time before each sleep.
 */
START_TEST(a_loop_that_slept_hears_of_a_parked_request)
{
    struct rig rig;
    struct req write;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.enospc_policy = PLOOP_ENOSPC_PARK;
    rig.clock_ops.wake_at = NULL;
    rig_limit_to(&rig, 2);
    rig_open(&rig);
    req_write(&write, &rig, at(0), 2 * CLUSTER, 1, 0);
    ploop_queue_run(rig.queue);
    ck_assert_int_eq(req_end(&write), 0);
    struct req flush;
    req_flush(&flush, &rig);
    while (is_readable(rig.queue)) {
        ploop_queue_run(rig.queue);
    }
    ck_assert_int_eq(req_end(&flush), 0);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev),
                      UINT64_MAX); /* the loop sleeps for as long as the guest is idle */
    rig.clock.now_ns += 10 * SECOND;
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_TRUNCATE);
    req_write(&write, &rig, at(2), CLUSTER, 1, 0);
    while (is_readable(rig.queue)) {
        ploop_queue_run(rig.queue);
    }
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX); /* sleeps again */
    rig.script.hold = 0;
    script_release_all(&rig.script); /* on a thread of the backend: no space */
    ck_assert_uint_eq(rig_info(&rig).requests_parked, 1);
    ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert(is_readable(rig.queue)); /* else it sleeps for ever */
    ploop_dev_abort(rig.dev);
    rig.dev = NULL;
    ck_assert(req_done(&write));
    free(write.iov.iov_base);
    rig_free(&rig);
}
END_TEST

START_TEST(a_loop_that_slept_hears_of_a_failed_page)
{
    struct rig rig;
    struct req write;
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.clock_ops.wake_at = NULL;
    rig_open(&rig);
    req_write(&write, &rig, at(0), 2 * CLUSTER, 1, 0);
    ploop_queue_run(rig.queue);
    ck_assert_int_eq(req_end(&write), 0);
    uint64_t deadline = ploop_dev_next_deadline(rig.dev);
    ck_assert_uint_ne(deadline, UINT64_MAX);
    rig.clock.now_ns =
        deadline - 3 * MS; /* e.g. an unrelated run; then the page is written at its deadline */
    ploop_queue_run(rig.queue);
    rig.clock.now_ns = deadline;
    rig.script.hold = SCRIPT_BIT(SCRIPT_META);
    ploop_queue_run(rig.queue);
    ck_assert_uint_eq(script_held_of(&rig.script, SCRIPT_META), 1);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    while (is_readable(rig.queue)) {
        ploop_queue_run(rig.queue);
    }
    uint64_t sleeping_until = ploop_dev_next_deadline(rig.dev);
    rig.script.hold = 0;
    script_release_all(&rig.script);
    ck_assert_uint_eq(rig_info(&rig).pages_failed, 1);
    ck_assert(ploop_dev_next_deadline(rig.dev) >= sleeping_until || is_readable(rig.queue));
    rig_free(&rig);
}
END_TEST

static void write_then(ploop_pio *pio, int result, void *user_data)
{
    static uint8_t bytes[CLUSTER] = {1};
    static struct iovec iov = {bytes, sizeof(bytes)};
    int *left = user_data;
    ck_assert_int_eq(result, 0);
    if (--*left > 0) {
        ploop_pio_prep_writev(pio, at(7), &iov, 1, 0);
        ck_assert_int_eq(ploop_queue_submit(pio->queue, &pio, 1), 1);
    }
}

/* The queue's loop sleeps in poll() on another thread; this one runs the queue for it. */
START_TEST(a_run_by_another_thread_tells_the_loop_of_a_new_deadline)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.clock_ops.wake_at = NULL;
    rig_open(&rig);
    rig.clock.now_ns += 10 * SECOND;
    ploop_queue_run(rig.queue);
    ck_assert(!is_readable(rig.queue));
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), UINT64_MAX); /* the loop goes to sleep */
    int left = 2;
    static uint8_t bytes[512];
    struct iovec iov = {bytes, sizeof(bytes)};
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ploop_pio_set_callback(pio, write_then, &left);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 2);
    ck_assert_uint_ne(ploop_dev_next_deadline(rig.dev), UINT64_MAX);
    ck_assert(is_readable(rig.queue));
    ploop_pio_put(pio);
    rig_free(&rig);
}
END_TEST

/* F10: a timer may still fire. */
START_TEST(a_clock_that_goes_back_does_not_lose_the_deadline)
{
    struct rig rig;
    struct req write;
    rig_usual(&rig);
    req_write(&write, &rig, at(7), CLUSTER, 1, 0);
    ck_assert_int_eq(req_end(&write), 0);
    uint64_t deadline = rig.clock.wake_at_ns;
    rig.clock.now_ns -= 100 * SECOND;
    rig.clock.wake_at_ns = 1; /* fires: it was a relative one, for example */
    ploop_dev_run(rig.dev);
    ck_assert_uint_eq(rig.clock.wake_at_ns, deadline);
    rig_free(&rig);
}
END_TEST

/* ---- a turn that was handed over ---- */

struct jump {
    struct rig *rig;
    int (*submit)(void *context, struct ploop_io *io);
    int runs_left;
    uint64_t step;
};
static struct jump jump;

static uint64_t jumping_now(void *context)
{
    struct hand_clock *clock = context;
    clock->now_ns += jump.step;
    return clock->now_ns;
}

static void *other_thread(void *argument)
{
    (void)argument;
    ploop_dev_run(jump.rig->dev);
    return NULL;
}

/*
 * Called in the turn: meanwhile another thread runs the device, finds the turn taken, and returns.
 */
static int submit(void *context, struct ploop_io *io)
{
    if (jump.runs_left > 0 && io->op == PLOOP_IO_READ) {
        jump.runs_left--;
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
        pthread_join(thread, NULL);
    }
    return jump.submit(context, io);
}

static void jump_ready(struct rig *rig, uint64_t delay_ns)
{
    rig_create(rig, 2, 64 << 20, 1 << 20, 0);
    rig->script.max_transfer = 512;
    rig->config.flags = PLOOP_DEV_NO_FAST_PATH;
    rig->clock_ops.now_ns = jumping_now;
    if (delay_ns) {
        rig->config.writeback_delay_ns = rig->config.writeback_max_age_ns = delay_ns;
    }
    jump = (struct jump){.rig = rig};
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, 0, 1 << 20, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    jump.submit = rig->script.file->ops.submit;
    rig->script.file->ops.submit = submit;
}

START_TEST(a_turn_that_was_handed_over_is_taken_by_a_run)
{
    struct rig rig;
    struct req read;
    jump_ready(&rig, 0);
    jump.step = MS;
    jump.runs_left = 1000000;
    rig.clock.wakes = 0;
    rig.clock.wake_at_ns = 1;
    req_read(&read, &rig, 0, 1 << 20); /* one part, 2,048 steps of the channel */
    ck_assert(!req_done(&read));       /* handed over */
    ck_assert_uint_gt(rig.clock.wakes, 0);
    ck_assert_uint_eq(rig.clock.wake_at_ns, 0);
    jump.runs_left = 0;
    for (int i = 0; i < 10000 && !req_done(&read); i++) {
        ploop_dev_run(rig.dev);
        ploop_queue_run(rig.queue);
    }
    ck_assert(req_done(&read));
    req_end(&read);
    rig_free(&rig);
}
END_TEST

/*
 * The new time of wake_at replaces the one before, so the engine must ask for the page's deadline
 * again.
 */
START_TEST(a_hand_over_does_not_take_the_deadline_away)
{
    struct rig rig;
    struct req read;
    jump_ready(&rig, 3600 * SECOND);
    ck_assert_int_eq(rig_write(&rig, 1 << 20, 1 << 20, 0xA0, 0), 0);
    uint64_t deadline = ploop_dev_next_deadline(rig.dev);
    ck_assert_uint_eq(rig.clock.wake_at_ns, deadline); /* the embedder's one timer */
    jump.step = MS;
    req_read(&read, &rig, 0, 1 << 20);
    ck_assert(!req_done(&read)); /* handed over */
    ck_assert_uint_eq(rig.clock.wake_at_ns, 0);
    while (rig.clock.wake_at_ns == 0) {
        rig.clock.wake_at_ns = UINT64_MAX; /* the timer fires, once */
        ploop_dev_run(rig.dev);
    }
    ck_assert(req_done(&read));
    req_end(&read);
    ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), deadline);
    ck_assert_uint_eq(rig.clock.wake_at_ns, deadline);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_loop_that_slept_hears_of_a_parked_request,
        a_loop_that_slept_hears_of_a_failed_page,
        a_run_by_another_thread_tells_the_loop_of_a_new_deadline,
        a_clock_that_goes_back_does_not_lose_the_deadline,
        a_turn_that_was_handed_over_is_taken_by_a_run,
        a_hand_over_does_not_take_the_deadline_away,
    };
    return RUN_TESTS("lost wakeups", tests);
}
