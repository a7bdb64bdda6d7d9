/* SPDX-License-Identifier: MIT */
/*
 * Requests without a callback, and jobs: ploop_queue_reap(), and the descriptor that tells of them.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#include <ploop/ploop.h>

#include "run_tests.h"

enum { DISK_SIZE = 8 << 20, SECTOR = 512, COUNT = 6 };

static ploop_file *file;
static ploop_dev *dev;
static ploop_queue *queue;
static unsigned char bytes[COUNT][SECTOR];
static struct iovec iov[COUNT];

static void open_with(uint32_t runner_count)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_SIZE};
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.runner_count = runner_count;
    ck_assert_int_eq(ploop_file_create_memory(0, &file), 0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    queue = ploop_dev_queue(dev, 0);
    ck_assert_int_eq(ploop_queue_wait(queue, 0),
                     runner_count ? -EBUSY : 0); /* nothing is left to tell of the open */
}

static void setup(void)
{
    open_with(0);
}

static void end(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}

static bool is_readable(void)
{
    struct pollfd event = {.fd = ploop_queue_poll_fd(queue), .events = POLLIN};
    return poll(&event, 1, 0) == 1;
}

static uint32_t undelivered(void)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    return info.completions_waiting;
}

/* A write of a sector of `number`, which is done when this returns. */
static ploop_pio *write_one(uint32_t number, ploop_pio_fn *fn, void *user_data)
{
    ploop_pio *pio = ploop_pio_get(queue);
    ck_assert_ptr_nonnull(pio);
    memset(bytes[number], (int)number + 1, SECTOR);
    iov[number] = (struct iovec){bytes[number], SECTOR};
    ploop_pio_prep_writev(pio, number * SECTOR, &iov[number], 1, 0);
    ploop_pio_set_callback(pio, fn, user_data);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    return pio;
}

static void take(uint32_t room, uint32_t wanted, ploop_pio *const *pios, uint32_t first)
{
    struct ploop_completion done[COUNT + 1];
    memset(done, 0xff, sizeof(done));
    ck_assert_int_eq(ploop_queue_reap(queue, done, room), (int)wanted);
    for (uint32_t i = 0; i < wanted; i++) {
        ck_assert_ptr_eq(done[i].pio, pios[first + i]);
        ck_assert_ptr_eq(done[i].user_data, &bytes[first + i]);
        ck_assert_int_eq(done[i].result, 0);
        ck_assert_uint_eq(done[i].kind, PLOOP_COMPLETION_PIO);
        ck_assert_ptr_null(done[i].job);
        ploop_pio_put(done[i].pio);
    }
    ck_assert_uint_eq(done[wanted].kind, UINT32_MAX);
}

START_TEST(what_does_not_fit_is_kept_and_told)
{
    ploop_pio *pios[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        pios[i] = write_one(i, NULL, &bytes[i]);
    }
    ck_assert(is_readable());
    /* A run calls back, and reaps nothing. */
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(ploop_queue_run(queue), 0);
        ck_assert(is_readable());
        ck_assert_uint_eq(undelivered(), COUNT);
    }
    ck_assert_int_eq(ploop_queue_wait(queue, UINT64_MAX), 0);
    take(4, 4, pios, 0);
    ck_assert(is_readable());
    ck_assert_uint_eq(undelivered(), 2);
    take(1, 1, pios, 4);
    take(0, 0, pios, 5);
    ck_assert(is_readable());
    take(4, 1, pios, 5);
    ck_assert_uint_eq(undelivered(), 0);
    take(4, 0, pios, COUNT);
    ck_assert(!is_readable());
    ck_assert_int_eq(ploop_queue_wait(queue, 0), 0);
    end();
}
END_TEST

/* Calls what a callback may not get anything from, too. */
static void called(ploop_pio *pio, int result, void *user_data)
{
    struct ploop_completion none;
    ck_assert_int_eq(result, 0);
    ck_assert_int_eq(ploop_queue_reap(queue, &none, 1), 0);
    ++*(int *)user_data;
    ploop_pio_put(pio);
}

START_TEST(what_has_a_callback_is_called)
{
    int calls = 0;
    ploop_pio *pios[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        pios[i] = write_one(i, i % 2 ? called : NULL, i % 2 ? (void *)&calls : &bytes[i]);
    }
    struct ploop_completion done[COUNT];
    ck_assert_int_eq(ploop_queue_reap(queue, done, COUNT), COUNT / 2);
    ck_assert_int_eq(calls, COUNT / 2);
    for (uint32_t i = 0; i < COUNT / 2; i++) {
        ck_assert_ptr_eq(done[i].pio, pios[2 * i]);
        /* Reaped and submitted again: it is delivered once more. */
        ck_assert_int_eq(ploop_queue_submit(queue, &done[i].pio, 1), 1);
    }
    ck_assert_int_eq(ploop_queue_reap(queue, done, COUNT), COUNT / 2);
    ck_assert(!is_readable());
    end();
}
END_TEST

START_TEST(errors_are_results)
{
    struct ploop_completion done;
    ploop_pio *pio = write_one(0, NULL, NULL);
    ck_assert_int_eq(ploop_queue_reap(queue, &done, 1), 1);
    ploop_pio_prep_write_zeroes(pio, 0, SECTOR, PLOOP_PIO_FAST_ONLY | PLOOP_PIO_NO_UNMAP);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    int got;
    while ((got = ploop_queue_reap(queue, &done, 1)) == 0) {
        ck_assert_int_ge(ploop_queue_wait(queue, 1000000), 0);
    }
    ck_assert_int_eq(got, 1);
    ck_assert(done.result == 0 || done.result == -ENOTSUP);
    ck_assert_int_eq(ploop_queue_reap(queue, NULL, 1), -EINVAL);
    ck_assert_int_eq(ploop_queue_reap(queue, &done, UINT32_MAX), -EINVAL);
    end();
}
END_TEST

START_TEST(notification_can_be_off)
{
    ploop_pio *pios[COUNT];
    ck_assert_int_eq(ploop_queue_set_notify(queue, 2), -EINVAL);
    ck_assert_int_eq(ploop_queue_set_notify(queue, 0), 0);
    pios[0] = write_one(0, NULL, &bytes[0]);
    ck_assert(!is_readable());
    ck_assert_int_eq(ploop_queue_set_notify(queue, 1), 0);
    ck_assert(is_readable());
    take(COUNT, 1, pios, 0);
    ck_assert(!is_readable());
    /* What a run has kept, too; and polled without sleeping. */
    ck_assert_int_eq(ploop_queue_set_notify(queue, 0), 0);
    pios[1] = write_one(1, NULL, &bytes[1]);
    ck_assert_int_eq(ploop_queue_run(queue), 0);
    ck_assert(!is_readable());
    ck_assert_int_eq(ploop_queue_set_notify(queue, 1), 0);
    ck_assert(is_readable());
    ck_assert_int_eq(ploop_queue_set_notify(queue, 0), 0);
    take(COUNT, 1, pios, 1);
    ck_assert_int_eq(ploop_queue_set_notify(queue, 1), 0);
    ck_assert_int_eq(ploop_queue_wait(queue, 0), 0);
    ck_assert(!is_readable());
    end();
}
END_TEST

START_TEST(a_wait_is_woken_all_the_same)
{
    ploop_pio *pios[COUNT];
    ck_assert_int_eq(ploop_queue_set_notify(queue, 0), 0);
    pios[0] = write_one(0, NULL, &bytes[0]);
    ck_assert_int_eq(ploop_queue_wait(queue, UINT64_MAX), 0); /* or it sleeps for ever */
    take(COUNT, 1, pios, 0);
    pios[1] = write_one(1, NULL, &bytes[1]);
    ck_assert_int_eq(ploop_queue_run(queue), 0);
    /* It was off, and is off. */
    pios[2] = write_one(2, NULL, &bytes[2]);
    take(COUNT, 2, pios, 1);
    ck_assert_int_eq(ploop_queue_wait(queue, 0), 0);
    pios[3] = write_one(3, NULL, &bytes[3]);
    ck_assert(!is_readable());
    ploop_pio *call = ploop_pio_get(queue);
    ploop_pio_prep_flush(call);
    ck_assert_int_eq(ploop_pio_execute(call), 0);
    ploop_pio_put(call);
    take(COUNT, 1, pios, 3);
    end();
}
END_TEST

START_TEST(a_close_drops_what_was_not_reaped)
{
    write_one(0, NULL, NULL);
    ck_assert_int_eq(ploop_queue_run(queue), 0);
    write_one(1, NULL, NULL);
    end();
    open_with(0);
    write_one(0, NULL, NULL);
    ploop_dev_abort(dev);
    ploop_file_close(file);
}
END_TEST

START_TEST(runners_call_back_only)
{
    struct ploop_completion done;
    end();
    open_with(1);
    ploop_pio *pio = ploop_pio_get(queue);
    ck_assert_int_eq(ploop_queue_reap(queue, &done, 1), -EBUSY);
    ck_assert_int_eq(ploop_queue_set_notify(queue, 0), -EBUSY);
    ploop_pio_prep_flush(pio);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), -EINVAL);
    iov[0] = (struct iovec){bytes[0], SECTOR};
    ploop_pio_prep_readv(pio, 0, iov, 1);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), -EINVAL);
    ploop_pio_put(pio);
    end();
}
END_TEST

/* ---- jobs ---- */

/* Until something is there to reap. */
static struct ploop_completion reap_one(void)
{
    struct ploop_completion done;
    for (int i = 0; ploop_queue_reap(queue, &done, 1) != 1; i++) {
        ck_assert_msg(i < 10000, "nothing is to be reaped");
        ploop_queue_wait(queue, 1000000);
    }
    return done;
}

static ploop_file *new_file(void)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_SIZE};
    ploop_file *made;
    ck_assert_int_eq(ploop_file_create_memory(0, &made), 0);
    ck_assert_int_eq(ploop_image_create(made, &options), 0);
    return made;
}

START_TEST(jobs_are_reaped)
{
    ploop_job *job;
    ploop_file *top = new_file();
    int mine;
    ck_assert_int_eq(
        ploop_dev_snapshot(dev, top, ploop_job_reap_commit, ploop_job_reap_end, &mine, &job), 0);
    struct ploop_completion done = reap_one();
    ck_assert(done.kind == PLOOP_COMPLETION_JOB_COMMIT && done.job == job && !done.pio);
    ck_assert_ptr_eq(done.user_data, &mine);
    ck_assert_int_eq(ploop_job_wait(job), -EAGAIN);
    ck_assert_int_eq(ploop_job_committed(job, 0), 0);
    ck_assert_int_eq(ploop_job_wait(job), 0);
    ck_assert_int_eq(ploop_job_free(job), -EBUSY); /* its end was not reaped */
    ck_assert_uint_eq(undelivered(), 1);
    ck_assert(is_readable());
    done = reap_one();
    ck_assert(done.kind == PLOOP_COMPLETION_JOB_END && done.job == job && done.result == 0);
    ck_assert_uint_eq(undelivered(), 0);
    ck_assert_int_eq(ploop_job_free(job), 0);
    ck_assert_int_eq(ploop_dev_grow(dev, 2 * DISK_SIZE, ploop_job_reap_end, &mine, &job), 0);
    done = reap_one();
    ck_assert(done.kind == PLOOP_COMPLETION_JOB_END && done.job == job && done.result == 0);
    ck_assert_int_eq(ploop_job_free(job), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    dev = NULL;
    ploop_file_close(top);
    ploop_file_close(file);
}
END_TEST

/* What was not reaped is dropped, and the handle can be freed. */
START_TEST(a_close_ends_jobs_that_nobody_reaps)
{
    ploop_job *job;
    ploop_file *top = new_file();
    ck_assert_int_eq(
        ploop_dev_snapshot(dev, top, ploop_job_reap_commit, ploop_job_reap_end, NULL, &job), 0);
    ck_assert_int_eq(ploop_job_wait(job), -EAGAIN);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_int_eq(ploop_job_wait(job), -ECANCELED);
    ck_assert_int_eq(ploop_job_free(job), 0);
    ploop_file_close(top);
    ploop_file_close(file);
}
END_TEST

START_TEST(runners_leave_nothing_to_reap)
{
    ploop_job *job;
    end();
    open_with(1);
    ck_assert_int_eq(ploop_dev_grow(dev, 2 * DISK_SIZE, ploop_job_reap_end, NULL, &job), -EINVAL);
    ck_assert_int_eq(
        ploop_dev_merge(dev, 0, PLOOP_MERGE_UP, ploop_job_reap_commit, NULL, NULL, &job), -EINVAL);
    end();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("reap");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, what_does_not_fit_is_kept_and_told);
    tcase_add_test(tests, what_has_a_callback_is_called);
    tcase_add_test(tests, errors_are_results);
    tcase_add_test(tests, notification_can_be_off);
    tcase_add_test(tests, a_wait_is_woken_all_the_same);
    tcase_add_test(tests, a_close_drops_what_was_not_reaped);
    tcase_add_test(tests, runners_call_back_only);
    tcase_add_test(tests, jobs_are_reaped);
    tcase_add_test(tests, a_close_ends_jobs_that_nobody_reaps);
    tcase_add_test(tests, runners_leave_nothing_to_reap);
    return run_case("reap", tests);
}
