/* SPDX-License-Identifier: MIT */
/*
 * Submitting requests and their completion: what is refused, batches, the pool, callbacks that
 * submit again, queues.
 */
#include "device_fixture.h"
#include "image_fixture.h"
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

/* Clusters 0 to 3 are mapped. */
static void ready(struct rig *rig, uint32_t flags)
{
    rig_create(rig, 2, 64 << 20, CLUSTER, 0);
    rig->config.flags = flags;
    rig->config.queue_count = 2;
    rig_open(rig);
    uint8_t *bytes = malloc(4 * CLUSTER);
    memset(bytes, 0xA0, 4 * CLUSTER);
    ck_assert_int_eq(ploop_dev_pwrite(rig->dev, bytes, 4 * CLUSTER, 0), 4 * CLUSTER);
    ck_assert_int_eq(ploop_dev_flush(rig->dev), 0);
    free(bytes);
    script_forget(&rig->script);
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void never(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    (void)result;
    (void)user_data;
    ck_abort_msg("a refused request was completed");
}

static void add_one(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    ck_assert_int_eq(result, 0);
    ++*(int *)user_data;
}

/* ---- what is refused ---- */

static void is_refused(struct rig *rig, ploop_pio *pio)
{
    ck_assert_int_eq(ploop_queue_submit(rig->queue, &pio, 1), -EINVAL);
    ploop_dev_run(rig->dev);
    ck_assert_uint_eq(rig->script.log_count, 0);
}

START_TEST(what_is_out_of_place_is_refused)
{
    static const uint64_t size = 64 << 20;
    static const struct {
        uint64_t offset, length;
    } bad[] = {{1, 512},
               {512, 511},
               {0, 513},
               {size, 512},
               {size - 512, 1024},
               {UINT64_MAX, 512},
               {0, size + 512},
               {size + 512, 0},
               {UINT64_MAX - 511, 512},
               {UINT64_MAX - 511, 1024},
               {256, 256}};
    struct rig rig;
    ready(&rig, 0);
    uint8_t *bytes = calloc(1, size + 512);
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_set_callback(pio, never, NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct iovec iov = {bytes, bad[i].length};
        ploop_pio_prep_readv(pio, bad[i].offset, &iov, 1);
        is_refused(&rig, pio);
        ploop_pio_prep_writev(pio, bad[i].offset, &iov, 1, 0);
        is_refused(&rig, pio);
        ploop_pio_prep_write_zeroes(pio, bad[i].offset, bad[i].length, 0);
        is_refused(&rig, pio);
        ploop_pio_prep_discard(pio, bad[i].offset, bad[i].length);
        is_refused(&rig, pio);
        ck_assert_int_eq(ploop_dev_pread(rig.dev, bytes, bad[i].length, bad[i].offset), -EINVAL);
        ck_assert_int_eq(ploop_dev_pwrite(rig.dev, bytes, bad[i].length, bad[i].offset), -EINVAL);
    }
    ck_assert_uint_eq(rig.script.log_count, 0);
    ck_assert_int_eq(ploop_dev_pread(rig.dev, bytes, UINT64_MAX, 0), -EINVAL);
    /* Lengths whose sum overflows. */
    struct iovec endless[2] = {{bytes, SIZE_MAX - 511}, {bytes, 1024}};
    ploop_pio_prep_readv(pio, 0, endless, 2);
    is_refused(&rig, pio);
    ploop_pio_put(pio);
    free(bytes);
    rig_end(&rig);
}
END_TEST

START_TEST(what_is_longer_than_a_request_may_be_is_refused)
{
    struct rig rig;
    rig_create(&rig, 2, UINT64_C(8) << 30, 1 << 20, 0);
    rig_open(&rig);
    uint64_t most = rig_info(&rig).max_request_bytes;
    static uint8_t megabyte[1 << 20];
    uint32_t count = (uint32_t)(most / sizeof(megabyte)) + 1;
    struct iovec *iov = calloc(count, sizeof(*iov));
    for (uint32_t i = 0; i < count; i++) {
        iov[i] = (struct iovec){megabyte, i + 1 < count ? sizeof(megabyte) : 512};
    }
    ploop_pio *pio = ploop_pio_get(rig.queue);
    int done = 0;
    ploop_pio_set_callback(pio, add_one, &done);
    ploop_pio_prep_readv(pio, 0, iov, count);
    is_refused(&rig, pio);
    if (!is_instrumented()) { /* a gigabyte of zeros */
        ploop_pio_prep_readv(pio, 0, iov, count - 1);
        ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
        while (!done) { /* it runs in slices */
            ck_assert_uint_eq(ploop_dev_next_deadline(rig.dev), 0);
            ck_assert_int_gt(ploop_dev_run(rig.dev), 0);
            rig_deliver(&rig);
        }
        ck_assert_int_eq(done, 1);
    }
    ploop_pio_put(pio);
    free(iov);
    rig_end(&rig);
}
END_TEST

START_TEST(wrong_flags_are_refused)
{
    struct rig rig;
    uint8_t bytes[512];
    struct iovec iov = {bytes, sizeof(bytes)};
    ready(&rig, 0);
    ploop_pio *pio = ploop_pio_get(rig.queue);
    ploop_pio_set_callback(pio, never, NULL);
    is_refused(&rig, pio); /* not prepared */
    static const uint32_t of_zeroes = PLOOP_PIO_NO_UNMAP | PLOOP_PIO_FAST_ONLY;
    for (uint32_t flag = 1; flag; flag <<= 1) {
        if (flag != PLOOP_PIO_FUA && flag != PLOOP_PIO_PREFLUSH) {
            ploop_pio_prep_writev(pio, 0, &iov, 1, flag);
            is_refused(&rig, pio);
            ploop_pio_prep_writev(pio, 0, &iov, 1, flag | PLOOP_PIO_FUA);
            is_refused(&rig, pio);
        }
        if (flag != PLOOP_PIO_FUA && flag != PLOOP_PIO_PREFLUSH && !(flag & of_zeroes)) {
            ploop_pio_prep_write_zeroes(pio, 0, 512, flag);
            is_refused(&rig, pio);
        }
    }
    uint32_t pages = ploop_bat_page_count(rig.dev);
    ploop_pio_prep_bat_write(pio, pages, 1);
    is_refused(&rig, pio);
    ploop_pio_prep_bat_write(pio, 0, pages + 1);
    is_refused(&rig, pio);
    ploop_pio_prep_bat_write(pio, pages - 1, UINT32_MAX);
    is_refused(&rig, pio);
    ploop_pio_prep_bat_write(pio, 0, 0);
    is_refused(&rig, pio);
    ploop_pio_put(pio);
    rig_end(&rig);
}
END_TEST

START_TEST(a_batch_is_taken_up_to_the_first_fault)
{
    struct rig rig;
    ploop_pio *pios[5];
    uint8_t bytes[5][512] = {{0}};
    struct iovec iov[5];
    int done[5] = {0};
    ready(&rig, 0);
    for (int i = 0; i < 5; i++) {
        iov[i] = (struct iovec){bytes[i], 512};
        pios[i] = ploop_pio_get(rig.queue);
        ploop_pio_set_callback(pios[i], add_one, &done[i]);
        ploop_pio_prep_readv(pios[i], i == 2 ? 1 : 512u * (unsigned)i, &iov[i], 1);
    }
    uint64_t before = rig_info(&rig).requests;
    ck_assert_int_eq(ploop_queue_submit(rig.queue, pios, 5), 2);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, pios + 2, 3), -EINVAL);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, pios, 0), 0);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 2);
    ck_assert(done[0] == 1 && done[1] == 1 && done[2] == 0 && done[3] == 0);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, pios + 3, 2), 2);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 2);
    ck_assert(done[2] == 0 && done[3] == 1 && done[4] == 1);
    ck_assert_uint_eq(rig_info(&rig).requests - before, 4);
    for (int i = 0; i < 5; i++) {
        ploop_pio_put(pios[i]);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(a_batch_is_kicked_once)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        ploop_pio *pios[8];
        uint8_t bytes[8][512] = {{0}};
        struct iovec iov[8];
        int done = 0;
        ready(&rig, flags);
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
        for (int i = 0; i < 8; i++) {
            iov[i] = (struct iovec){bytes[i], 512};
            pios[i] = ploop_pio_get(rig.queue);
            ploop_pio_set_callback(pios[i], add_one, &done);
            ploop_pio_prep_readv(pios[i], 512u * (unsigned)i, &iov[i], 1);
        }
        ck_assert_int_eq(ploop_queue_submit(rig.queue, pios, 8), 8);
        ck_assert_uint_eq(rig.script.held_count, 8);
        ck_assert_uint_le(rig.script.kicks, 2);
        ck_assert_uint_ge(rig.script.kicks, 1);
        /* Any order of completion will do. */
        rig.script.hold = 0;
        while (rig.script.held_count) {
            script_release(&rig.script, rig.script.held_count / 2);
        }
        ck_assert_int_eq(ploop_queue_run(rig.queue), 8);
        ck_assert_int_eq(done, 8);
        ck_assert_uint_eq(rig_info(&rig).requests_fast != 0, flags == 0);
        for (int i = 0; i < 8; i++) {
            ploop_pio_put(pios[i]);
        }
        rig_end(&rig);
    }
}
END_TEST

START_TEST(nothing_is_done_at_once)
{
    struct rig rig;
    struct req req;
    ready(&rig, 0);
    for (uint64_t offset = 0; offset <= 64 << 20; offset += 64 << 20) {
        req_write(&req, &rig, offset, 0, 0, 0);
        ck_assert_int_eq(req_wait(&req), 0);
        ck_assert_int_eq(rig_zeroes(&rig, offset, 0, 0), 0);
        ck_assert_int_eq(rig_discard(&rig, offset, 0), 0);
    }
    ck_assert_uint_eq(rig.script.log_count, 0);
    rig_end(&rig);
}
END_TEST

/* ---- the pool ---- */

START_TEST(an_empty_pool_says_when_it_has_room)
{
    struct rig rig;
    ploop_pio *pios[4];
    rig_create(&rig, 2, 1 << 20, CLUSTER, 0);
    rig.config.queue_count = 2;
    rig.config.pio_count = 4;
    rig_open(&rig);
    ploop_queue *queue = ploop_dev_queue(rig.dev, 1);
    ck_assert_ptr_nonnull(queue);
    ck_assert_ptr_null(ploop_dev_queue(rig.dev, 2));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            pios[i] = ploop_pio_get(queue);
            ck_assert_ptr_nonnull(pios[i]);
            for (int j = 0; j < i; j++) {
                ck_assert_ptr_ne(pios[i], pios[j]);
            }
        }
        ck_assert_ptr_null(ploop_pio_get(queue));
        ck_assert_ptr_null(ploop_pio_get(queue));
        ck_assert_uint_eq(rig.events[PLOOP_EVENT_POOL_HAS_ROOM], (unsigned)round);
        rig.event_value[PLOOP_EVENT_POOL_HAS_ROOM] = 99;
        for (int i = 0; i < 4; i++) {
            ploop_pio_put(pios[i]);
            /* Reported once. */
            ck_assert_uint_eq(rig.events[PLOOP_EVENT_POOL_HAS_ROOM], (unsigned)round + 1);
        }
        ck_assert_uint_eq(rig.event_value[PLOOP_EVENT_POOL_HAS_ROOM], 1);
    }
    ploop_pio_put(NULL);
    /* The other queue has a separate pool. */
    ck_assert_ptr_nonnull(pios[0] = ploop_pio_get(rig.queue));
    ploop_pio_put(pios[0]);
    rig_end(&rig);
}
END_TEST

/* ---- submitting from callbacks ---- */

struct again {
    struct rig *rig;
    int left, done;
    char *first, *lowest, *highest;
    struct iovec iov;
    bool write, put;
    uint8_t bytes[512];
};

static void again(ploop_pio *pio, int result, void *user_data)
{
    struct again *test = user_data;
    char *here = __builtin_frame_address(0); /* a local variable may lie elsewhere under asan */
    test->lowest = !test->lowest || here < test->lowest ? here : test->lowest;
    test->highest = here > test->highest ? here : test->highest;
    ck_assert_int_eq(result, 0);
    test->done++;
    if (test->left-- == 0) {
        ploop_pio_put(pio);
        return;
    }
    if (test->put) {
        ploop_pio_put(pio);
        pio = ploop_pio_get(test->rig->queue);
        ck_assert_ptr_nonnull(pio);
        ploop_pio_set_callback(pio, again, test);
    }
    uint64_t offset = test->write ? at((uint64_t)test->left % 8000) : at((uint64_t)test->left % 8);
    if (test->write) {
        ploop_pio_prep_writev(pio, offset, &test->iov, 1, 0);
    } else if (test->left % 100 == 7) {
        ploop_pio_prep_flush(pio);
    } else {
        ploop_pio_prep_readv(pio, offset, &test->iov, 1);
    }
    ck_assert_int_eq(ploop_queue_submit(test->rig->queue, &pio, 1), 1);
}

START_TEST(a_callback_may_submit_again_without_bound)
{
    enum { STACK_MAX = 16 << 10 };
    const int times = is_instrumented() ? 1000 : 20000;
    for (int variant = 0; variant < 8; variant++) {
        struct rig rig;
        ready(&rig, variant & 1 ? PLOOP_DEV_NO_FAST_PATH : 0);
        struct again test = {.rig = &rig, .left = times, .write = variant & 2, .put = variant & 4};
        test.iov = (struct iovec){test.bytes, sizeof(test.bytes)};
        ploop_pio *pio = ploop_pio_get(rig.queue);
        ploop_pio_set_callback(pio, again, &test);
        ploop_pio_prep_readv(pio, 0, &test.iov, 1);
        ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
        ck_assert_int_eq(ploop_queue_run(rig.queue), times + 1);
        ck_assert_int_eq(test.done, times + 1);
        ck_assert_int_lt(test.highest - test.lowest, STACK_MAX);
        rig_end(&rig);
    }
}
END_TEST

/* ---- what a callback may not call ---- */

static void call_what_blocks(ploop_pio *pio, int result, void *user_data)
{
    struct rig *rig = user_data;
    char bytes[512];
    ploop_dev *dev = NULL;
    (void)pio;
    ck_assert_int_eq(result, 0);
    ck_assert_int_eq(ploop_dev_pread(rig->dev, bytes, sizeof(bytes), 0), -EDEADLK);
    ck_assert_int_eq(ploop_dev_pwrite(rig->dev, bytes, sizeof(bytes), 0), -EDEADLK);
    ck_assert_int_eq(ploop_dev_flush(rig->dev), -EDEADLK);
    ck_assert_int_eq(ploop_dev_suspend(rig->dev), -EDEADLK);
    ck_assert_int_eq(ploop_queue_wait(rig->queue, 0), -EDEADLK);
    ck_assert_int_eq(ploop_dev_close(rig->dev), -EDEADLK);
    ck_assert_int_eq(ploop_dev_open(&rig->script.file, 1, &rig->config, &dev), -EDEADLK);
    ploop_dev_abort(rig->dev);
    /* And what it may call. */
    struct ploop_bat_page_info page = {.size = sizeof(page)};
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_extent extent = {.size = sizeof(extent)};
    uint32_t number;
    ck_assert_int_eq(ploop_bat_page_info(rig->dev, 0, &page), 0);
    ck_assert_int_eq(ploop_bat_page_next_dirty(rig->dev, 5, &number), -ENOENT);
    ck_assert_int_eq(ploop_bat_page_write(rig->dev, 0), 0);
    ck_assert_int_eq(ploop_bat_set_delay(rig->dev, SECOND, SECOND), 0);
    ck_assert_int_eq(ploop_bat_lookup(rig->dev, 0, 512, &extent), 0);
    ck_assert_int_eq(ploop_dev_info(rig->dev, &info), 0);
    ck_assert_int_eq(ploop_dev_retry_parked(rig->dev), 0);
    ck_assert_int_eq(ploop_queue_run(rig->queue), 0);
    ploop_dev_run(rig->dev);
    ploop_dev_next_deadline(rig->dev);
    rig->events[0]++;
}

START_TEST(a_callback_may_not_call_what_blocks)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        ready(&rig, flags);
        uint8_t bytes[512];
        struct iovec iov = {bytes, sizeof(bytes)};
        ploop_pio *pio = ploop_pio_get(rig.queue);
        ploop_pio_set_callback(pio, call_what_blocks, &rig);
        for (uint64_t i = 0; i < 3; i++) {
            ploop_pio_prep_readv(pio, at(i * 3), &iov, 1);
            ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
            ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
            ck_assert_uint_eq(rig.events[0], i + 1);
        }
        ploop_pio_put(pio);
        ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
        rig_end(&rig);
    }
}
END_TEST

/* ---- queues and delivery ---- */

START_TEST(completions_wait_for_a_run)
{
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        struct req mapped, unmapped, write, flush;
        ready(&rig, flags);
        int fd = ploop_queue_poll_fd(rig.queue);
        ck_assert_int_ge(fd, 0);
        ploop_queue_run(rig.queue);
        ck_assert(!is_readable(fd));
        rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
        req_read(&mapped, &rig, at(0), 512);
        ck_assert(!is_readable(fd));
        script_release_all(&rig.script);
        ck_assert(is_readable(fd));
        req_read(&unmapped, &rig, at(10), 512);
        req_write(&write, &rig, at(11), CLUSTER, 1, 0);
        req_flush(&flush, &rig);
        ploop_dev_run(rig.dev);
        ck_assert(!mapped.calls && !unmapped.calls && !write.calls && !flush.calls);
        ck_assert(is_readable(fd));
        /* A queue runs its own callbacks only. */
        ck_assert_int_eq(ploop_queue_run(ploop_dev_queue(rig.dev, 1)), 0);
        ck_assert(is_readable(fd));
        ck_assert_int_eq(ploop_queue_run(rig.queue), 4);
        ck_assert(!is_readable(fd));
        ck_assert_int_eq(ploop_queue_run(rig.queue), 0);
        ck_assert_int_eq(req_end(&mapped), 0);
        ck_assert_int_eq(req_end(&unmapped), 0);
        ck_assert_int_eq(req_end(&write), 0);
        ck_assert_int_eq(req_end(&flush), 0);
        /* A blocking call runs no callbacks, and does not need to. */
        char bytes[512];
        req_read(&unmapped, &rig, at(10), 512);
        ck_assert_int_eq(ploop_dev_pread(rig.dev, bytes, sizeof(bytes), 0), 512);
        ck_assert_int_eq(ploop_dev_flush(rig.dev), 0);
        ck_assert_int_eq(ploop_dev_suspend(rig.dev), 0);
        ck_assert_int_eq(ploop_dev_resume(rig.dev), 0);
        ck_assert_uint_eq(unmapped.calls, 0);
        /* The close does. */
        rig_close_dev(&rig);
        ck_assert_uint_eq(unmapped.calls, 1);
        free(unmapped.iov.iov_base);
        rig_free(&rig);
    }
}
END_TEST

struct other {
    ploop_queue *queue;
    int calls, fd;
};

static void run_the_other_queue(ploop_pio *pio, int result, void *user_data)
{
    struct other *other = user_data;
    (void)pio;
    (void)result;
    other->calls++;
    ck_assert_int_eq(ploop_queue_run(other->queue), 0);
    ck_assert(is_readable(other->fd));
}

/* From a callback a queue's run runs no callbacks, and must not forget that some are waiting. */
START_TEST(a_run_from_another_queues_callback_loses_nothing)
{
    struct rig rig;
    ready(&rig, 0);
    int done = 0;
    struct other other = {.queue = ploop_dev_queue(rig.dev, 1)};
    other.fd = ploop_queue_poll_fd(other.queue);
    uint8_t bytes[2][512] = {{0}};
    struct iovec iov[2] = {{bytes[0], 512}, {bytes[1], 512}};
    ploop_pio *first = ploop_pio_get(rig.queue), *second = ploop_pio_get(other.queue);
    ploop_pio_set_callback(first, run_the_other_queue, &other);
    ploop_pio_prep_readv(first, 0, &iov[0], 1);
    ploop_pio_set_callback(second, add_one, &done);
    ploop_pio_prep_readv(second, 0, &iov[1], 1);
    ck_assert_int_eq(ploop_queue_submit(other.queue, &second, 1), 1);
    ck_assert_int_eq(ploop_queue_submit(rig.queue, &first, 1), 1);
    ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
    ck_assert_int_eq(other.calls, 1);
    ck_assert_int_eq(done, 0);
    ck_assert(is_readable(other.fd));
    ck_assert_int_eq(ploop_queue_run(other.queue), 1);
    ck_assert_int_eq(done, 1);
    ploop_pio_put(first);
    ploop_pio_put(second);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {what_is_out_of_place_is_refused,
                                  what_is_longer_than_a_request_may_be_is_refused,
                                  wrong_flags_are_refused,
                                  a_batch_is_taken_up_to_the_first_fault,
                                  a_batch_is_kicked_once,
                                  nothing_is_done_at_once,
                                  an_empty_pool_says_when_it_has_room,
                                  a_callback_may_submit_again_without_bound,
                                  a_callback_may_not_call_what_blocks,
                                  completions_wait_for_a_run,
                                  a_run_from_another_queues_callback_loses_nothing};
    return RUN_TESTS("submit", tests);
}
