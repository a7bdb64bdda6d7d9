/* SPDX-License-Identifier: MIT */
/* A suspend that no thread waits for: ploop_dev_suspend_start(). */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void ready(struct rig *rig, uint32_t flags)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.flags = flags;
    rig->config.queue_count = 2;
    rig_open(rig);
    ck_assert_int_eq(rig_write(rig, at(0), 4 * CLUSTER, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

struct told {
    ploop_dev *dev;
    uint32_t calls;
    int result;
};

static void tell(ploop_dev *dev, int result, void *user_data)
{
    struct told *told = user_data;
    told->dev = dev;
    told->calls++;
    told->result = result;
}

static void run(struct rig *rig)
{
    for (int i = 0; i < 8; i++) {
        ploop_queue_run(rig->queue);
    }
}

/* By the fast path, by the engine: _i is the device's flags. */
START_TEST(it_ends_when_everything_is_durable)
{
    struct rig rig;
    struct req in_flight[3], held;
    struct told told = {0};
    ready(&rig, (uint32_t)_i);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE) | SCRIPT_BIT(PLOOP_IO_READ);
    req_write(&in_flight[0], &rig, at(1), CLUSTER, 1, 0);
    req_write(&in_flight[1], &rig, at(10), 3 * CLUSTER, 2, 0);
    req_read(&in_flight[2], &rig, at(2), CLUSTER);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), -EALREADY);
    ck_assert_int_eq(ploop_dev_suspend(rig.dev), -EALREADY);
    req_write(&held, &rig, at(3), 512, 7, 0);
    run(&rig);
    ck_assert_uint_eq(told.calls, 0);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SUSPENDED);
    while (rig.script.held_count) {
        ck_assert_uint_eq(told.calls, 0);
        script_release(&rig.script, 0);
        run(&rig);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(req_end(&in_flight[i]), 0);
    }
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, 0);
    ck_assert_ptr_eq(told.dev, rig.dev);
    ck_assert_uint_eq(rig_info(&rig).pages_dirty, 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 10), 0);
    ck_assert_uint_ge(rig.script.submitted[PLOOP_IO_SYNC], 1);
    rig.script.hold = 0;
    run(&rig);
    ck_assert(!req_done(&held));
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(req_wait(&held), 0);
    ck_assert_uint_eq(told.calls, 1);
    rig_expect(&rig, at(3), 512, 7);
    rig_end(&rig);
}
END_TEST

static bool is_readable(struct rig *rig)
{
    struct pollfd poll_fd = {.fd = ploop_queue_poll_fd(rig->queue), .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

/* The last request of the fast path ends on a queue that nobody runs: it wakes the other one. */
START_TEST(who_ends_the_last_request_wakes_queue_0)
{
    struct rig rig;
    struct told told = {0};
    uint8_t bytes[512];
    struct iovec iov = {bytes, 512};
    ready(&rig, 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(rig.dev, 1));
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(rig.dev, 1), &pio, 1), 1);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    run(&rig);
    ck_assert(!is_readable(&rig));
    script_release(&rig.script, 0);
    ck_assert(is_readable(&rig));
    ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
    ck_assert_uint_eq(told.calls, 1);
    struct ploop_completion done;
    ck_assert_int_eq(ploop_queue_reap(ploop_dev_queue(rig.dev, 1), &done, 1), 1);
    ploop_pio_put(pio);
    rig_end(&rig);
}
END_TEST

START_TEST(it_can_be_reaped)
{
    struct rig rig;
    struct ploop_completion done = {0};
    ready(&rig, 0);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, NULL, &rig), 0);
    ck_assert(is_readable(&rig));
    ck_assert_int_eq(ploop_queue_reap(rig.queue, &done, 1), 1);
    ck_assert_uint_eq(done.kind, PLOOP_COMPLETION_SUSPENDED);
    ck_assert_ptr_eq(done.user_data, &rig);
    ck_assert_int_eq(done.result, 0);
    ck_assert(!done.pio && !done.job);
    ck_assert_uint_eq(rig_info(&rig).completions_waiting, 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, NULL, &rig), 0);
    rig_end(&rig); /* what nobody has reaped is dropped */
}
END_TEST

START_TEST(a_resume_ends_it)
{
    struct rig rig;
    struct req req;
    struct told first = {0}, second = {0};
    ready(&rig, (uint32_t)_i);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    req_write(&req, &rig, at(1), CLUSTER, 1, 0);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &first), 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &second), 0);
    run(&rig);
    ck_assert_uint_eq(first.calls, 1);
    ck_assert_int_eq(first.result, -ECANCELED);
    ck_assert_uint_eq(second.calls, 0);
    script_release_all(&rig.script);
    run(&rig);
    ck_assert_uint_eq(second.calls, 1);
    ck_assert_int_eq(second.result, 0);
    ck_assert_int_eq(req_end(&req), 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

/* While the flush is under way. */
START_TEST(a_resume_in_the_flush_ends_it)
{
    struct rig rig;
    struct told told = {0};
    ready(&rig, 0);
    ck_assert_int_eq(rig_write(&rig, at(20), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    run(&rig);
    ck_assert_uint_ge(rig.script.held_count, 1);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    script_release_all(&rig.script);
    run(&rig);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, -ECANCELED);
    rig_end(&rig);
}
END_TEST

START_TEST(a_flush_that_fails_is_told)
{
    struct rig rig;
    struct told told = {0};
    ready(&rig, 0);
    ck_assert_int_eq(rig_write(&rig, at(10), CLUSTER, 1, 0), 0);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -EIO);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    run(&rig);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, -EIO);
    ck_assert_uint_eq(rig_info(&rig).state, PLOOP_STATE_SUSPENDED);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

static void release_in_wait(struct script *script, void *argument)
{
    (void)argument;
    script_release_all(script);
}

/* A close, an abort: it is told in there, however far it had come. */
START_TEST(the_end_of_the_device_ends_it)
{
    struct rig rig;
    struct req req;
    struct told told = {0};
    bool aborts = _i & 1, flushes = _i & 2;
    ready(&rig, 0);
    ck_assert_int_eq(rig_write(&rig, at(10), CLUSTER, 1, 0), 0);
    rig.script.hold = SCRIPT_BIT(flushes ? PLOOP_IO_SYNC : PLOOP_IO_WRITE);
    rig.script.idle = release_in_wait;
    if (!flushes) {
        req_write(&req, &rig, at(1), CLUSTER, 1, 0);
    }
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    run(&rig);
    ck_assert_uint_eq(told.calls, 0);
    if (aborts) {
        ploop_dev_abort(rig.dev);
    } else {
        ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
    }
    rig.dev = NULL;
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, flushes && !aborts ? 0 : -ECANCELED);
    if (!flushes) {
        ck_assert_uint_eq(req.calls, 1);
        free(req.iov.iov_base); /* the request itself went with the device */
    }
    rig_free(&rig);
}
END_TEST

static void start_from_inside(ploop_pio *pio, int result, void *user_data)
{
    (void)result;
    ploop_dev *dev = ((struct told *)user_data)->dev;
    ck_assert_int_eq(ploop_dev_suspend_start(dev, tell, user_data), 0);
    ploop_pio_put(pio);
}

START_TEST(a_callback_may_begin_it)
{
    struct rig rig;
    uint8_t bytes[512];
    struct iovec iov = {bytes, 512};
    ready(&rig, 0);
    struct told told = {.dev = rig.dev};
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_set_callback(pio, start_from_inside, &told);
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
    run(&rig);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_device_that_is_only_read_has_nothing_to_flush)
{
    struct rig rig;
    struct told told = {0};
    ready(&rig, 0);
    rig_close_dev(&rig);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    rig_open(&rig);
    script_forget(&rig.script);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    run(&rig);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_int_eq(told.result, 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_SYNC], 0);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
    rig_close_dev(&rig);
    rig_free(&rig);
}
END_TEST

START_TEST(nobody_reaps_a_runners_queue)
{
    struct rig rig;
    struct told told = {0};
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.runner_count = 1;
    rig_open(&rig);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, NULL, &told), -EINVAL);
    ck_assert_int_eq(ploop_dev_resume(rig.dev), -EINVAL);
    ck_assert_int_eq(ploop_dev_suspend_start(rig.dev, tell, &told), 0);
    ck_assert_int_eq(ploop_dev_close(rig.dev), 0);
    rig.dev = NULL;
    ck_assert_uint_eq(told.calls, 1);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("suspend_start");
    static const int flags[] = {0, PLOOP_DEV_NO_FAST_PATH};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        tcase_add_loop_test(tests, it_ends_when_everything_is_durable, flags[i], flags[i] + 1);
        tcase_add_loop_test(tests, a_resume_ends_it, flags[i], flags[i] + 1);
    }
    tcase_add_test(tests, who_ends_the_last_request_wakes_queue_0);
    tcase_add_test(tests, it_can_be_reaped);
    tcase_add_test(tests, a_resume_in_the_flush_ends_it);
    tcase_add_test(tests, a_flush_that_fails_is_told);
    tcase_add_loop_test(tests, the_end_of_the_device_ends_it, 0, 4);
    tcase_add_test(tests, a_callback_may_begin_it);
    tcase_add_test(tests, a_device_that_is_only_read_has_nothing_to_flush);
    tcase_add_test(tests, nobody_reaps_a_runners_queue);
    return run_case("suspend_start", tests);
}
