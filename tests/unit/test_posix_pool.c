/* SPDX-License-Identifier: MIT */
/* The POSIX backend's requests by the contract, and the I/O threads that carry them out. */
#include "posix_faults.h"

/* ---- Requests of the contract, and the test's own wait for them ---- */

struct request {
    struct file_io io;
    struct iovec iov;
    atomic_int done;
    int64_t result;
};

static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;

static void request_done(struct file_io *io, int64_t result)
{
    struct request *request = (struct request *)io;
    pthread_mutex_lock(&done_mutex);
    request->result = result;
    atomic_fetch_add(&request->done, 1);
    pthread_cond_broadcast(&done_cond);
    pthread_mutex_unlock(&done_mutex);
}

static void send(struct request *request, ploop_file *file, uint32_t op, void *buffer,
                 uint64_t length, uint64_t offset)
{
    *request = (struct request){.iov = {.iov_base = buffer, .iov_len = length}};
    file_io_init(&request->io, file, request_done);
    request->io.pub.op = op;
    request->io.pub.offset = offset;
    request->io.pub.length = length;
    request->io.pub.iov = &request->iov;
    request->io.pub.iov_count = 1;
    ck_assert_int_eq(file_io_submit(&request->io), 0);
}

static void kick(ploop_file *file)
{
    file->ops.kick(file->context, 0);
}

static int64_t await(struct request *request)
{
    pthread_mutex_lock(&done_mutex);
    while (!atomic_load(&request->done)) {
        pthread_cond_wait(&done_cond, &done_mutex);
    }
    pthread_mutex_unlock(&done_mutex);
    ck_assert_int_eq(atomic_load(&request->done), 1);
    return request->result;
}

START_TEST(senseless_requests_are_refused)
{
    static const struct ploop_io senseless[] = {
        {.op = 0},
        {.op = 7},
        {.op = PLOOP_IO_TRUNCATE, .offset = UINT64_MAX},
        {.op = PLOOP_IO_PUNCH, .offset = 2, .length = INT64_MAX}};
    ploop_file *file = new_image(0);
    for (size_t i = 0; i < sizeof(senseless) / sizeof(senseless[0]); i++) {
        struct ploop_io io = senseless[i];
        ck_assert_int_eq(file->ops.submit(file->context, &io), -EINVAL);
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(a_short_transfer_says_so)
{
    struct request request;
    char bytes[1000] = {1};
    ploop_file *file = new_image(0);
    fail_next(WRITES, 1, 0);
    send(&request, file, PLOOP_IO_WRITE, bytes, 1000, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 500);
    ck_assert_uint_eq(info_of(file).file_size, 500);
    send(&request, file, PLOOP_IO_READ, bytes, 1000, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 500);
    fail_next(READS, 1, 0);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 500, 0), 500); /* continued */
    ploop_file_close(file);
}
END_TEST

enum { SEGMENTS = 3000 };

START_TEST(any_number_of_segments_is_moved)
{
    static struct iovec iov[SEGMENTS];
    static uint32_t numbers[SEGMENTS], read[SEGMENTS];
    struct request request;
    ploop_file *file = new_image(0);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        numbers[i] = i;
        iov[i] = (struct iovec){.iov_base = &numbers[i], .iov_len = sizeof(numbers[i])};
    }
    send(&request, file, PLOOP_IO_SYNC, NULL, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    for (int round = 0; round < 3; round++) {
        request.done = 0;
        request.io.pub.op = PLOOP_IO_WRITE;
        request.io.pub.iov = iov;
        request.io.pub.iov_count = SEGMENTS;
        request.io.pub.length = sizeof(numbers);
        if (round == 1) {
            fail_next(WRITES, 1,
                      0); /* the first segment is written short: the others are not begun */
        }
        ck_assert_int_eq(file_io_submit(&request.io), 0);
        kick(file);
        ck_assert_int_eq(await(&request), round == 1 ? 2 : (int64_t)sizeof(numbers));
    }
    ck_assert_int_eq(ploop_file_pread(file, read, sizeof(read), 0), sizeof(read));
    ck_assert_mem_eq(read, numbers, sizeof(read));
    ploop_file_close(file);
}
END_TEST

static int64_t write_fua(ploop_file *file, void *buffer, uint64_t length)
{
    struct request request;
    send(&request, file, PLOOP_IO_SYNC, buffer, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    request.done = 0;
    request.iov.iov_len = length;
    request.io.pub.op = PLOOP_IO_WRITE;
    request.io.pub.flags = PLOOP_IO_FUA;
    request.io.pub.length = length;
    ck_assert_int_eq(file_io_submit(&request.io), 0);
    kick(file);
    return await(&request);
}

START_TEST(fua_is_one_call)
{
    char bytes[512] = {1};
    ploop_file *file = new_image(0);
    int through = calls(WRITES_THROUGH), syncs;
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), sizeof(bytes));
    ck_assert_int_eq(calls(WRITES_THROUGH), through + 1);
    syncs = calls(SYNCS);
    fail_next(WRITES_THROUGH, 1, EOPNOTSUPP);
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), -EOPNOTSUPP);
    ck_assert_int_eq(calls(WRITES), 0);
    ck_assert_int_eq(calls(SYNCS),
                     syncs + 1); /* write_fua's own: another SYNC would consume its errors */
    fail_next(WRITES_THROUGH, 1, EIO);
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), -EIO);
    ploop_file_close(file);
}
END_TEST

/* ---- I/O threads ---- */

/* A thread that is about to look for work would find it without being woken. */
static void await_idle(struct posix_pool *pool)
{
    uint32_t busy;
    do {
        usleep(1000);
        pthread_mutex_lock(&pool->threads->mutex);
        busy = pool->threads->running - pool->threads->idle;
        pthread_mutex_unlock(&pool->threads->mutex);
    } while (busy);
    usleep(10000);
}

START_TEST(nothing_runs_before_the_kick)
{
    struct request requests[20];
    char bytes[20];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 20), 0);
    await_idle(&posix_of(file)->pool);
    for (int i = 0; i < 20; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, (uint64_t)i);
    }
    usleep(20000);
    ck_assert_int_eq(calls(READS), 0);
    kick(file);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    kick(file); /* with nothing to do */
    ploop_file_close(file);
}
END_TEST

START_TEST(requests_run_side_by_side)
{
    struct request requests[POSIX_POOL_THREADS], sync;
    char bytes[POSIX_POOL_THREADS];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, POSIX_POOL_THREADS), 0);
    gate_set(true);
    for (uint32_t i = 0; i + 1 < POSIX_POOL_THREADS; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    gate_await(POSIX_POOL_THREADS - 1);
    send(&sync, file, PLOOP_IO_SYNC, NULL, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&sync), 0);
    gate_set(false);
    for (uint32_t i = 0; i + 1 < POSIX_POOL_THREADS; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    ck_assert_uint_le(posix_pool_thread_count(&posix_of(file)->pool), POSIX_POOL_THREADS);
    ploop_file_close(file);
}
END_TEST

START_TEST(one_thread_is_enough)
{
    struct request requests[10], sync;
    char bytes[10];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 10), 0);
    ck_assert_uint_eq(posix_pool_thread_count(&posix_of(file)->pool), 0); /* truncate needs none */
    send(&sync, file, PLOOP_IO_SYNC, NULL, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&sync), 0);
    fail_next(THREADS, 1000, 0);
    for (uint32_t i = 0; i < 10; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    for (uint32_t i = 0; i < 10; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(without_a_thread_it_is_to_be_sent_again)
{
    struct request request;
    char byte;
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 1), 0);
    fail_next(THREADS, 1, 0);
    send(&request, file, PLOOP_IO_READ, &byte, 1, 0);
    kick(file);
    ck_assert_int_eq(await(&request), -EAGAIN);
    send(&request, file, PLOOP_IO_READ, &byte, 1, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 1);
    ploop_file_close(file);
}
END_TEST

START_TEST(a_helper_carries_out_one_and_has_others_begun)
{
    struct request requests[3];
    char bytes[3];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 3), 0);
    ck_assert_int_eq(file->ops.help(file->context), 0);
    send(&requests[0], file, PLOOP_IO_READ, &bytes[0], 1, 0);
    ck_assert_int_eq(file->ops.help(file->context), 1);
    ck_assert_int_eq(atomic_load(&requests[0].done), 1);
    ck_assert_uint_eq(posix_pool_thread_count(&posix_of(file)->pool), 0);
    for (uint32_t i = 0; i < 3; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    ck_assert_int_eq(file->ops.help(file->context), 1);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(idle_threads_end_and_new_ones_come)
{
    struct request request;
    char byte;
    ploop_file *file = new_image(0);
    struct posix_pool *pool = &posix_of(file)->pool;
    ck_assert_int_eq(ploop_file_truncate(file, 1), 0);
    for (int round = 0; round < 2; round++) {
        send(&request, file, PLOOP_IO_READ, &byte, 1, 0);
        kick(file);
        ck_assert_int_eq(await(&request), 1);
        ck_assert_uint_eq(posix_pool_thread_count(pool), 1);
        for (int i = 0; round == 0 && posix_pool_thread_count(pool) > 0; i++) {
            ck_assert_int_lt(i, 10 * IDLE_S);
            usleep(1000000);
        }
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(files_share_threads)
{
    enum { SHARED = 2 };
    struct request requests[2][SHARED];
    char bytes[2][SHARED], other[sizeof(path) + 8];
    ploop_io_threads *threads;
    ploop_file *files[2];
    (void)snprintf(other, sizeof(other), "%s-other", path);
    ck_assert_int_eq(ploop_io_threads_create(POSIX_POOL_THREADS_MAX + 1, &threads), -EINVAL);
    ck_assert_int_eq(ploop_io_threads_create(1, NULL), -EINVAL);
    ck_assert_int_eq(ploop_file_open_posix_shared(path, RW | PLOOP_FILE_CREATE, NULL, &files[0]),
                     -EINVAL);
    ck_assert_int_eq(ploop_io_threads_create(SHARED, &threads), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ploop_file_open_posix_shared(i ? other : path, RW | PLOOP_FILE_CREATE,
                                                      threads, &files[i]),
                         0);
        ck_assert_int_eq(ploop_file_truncate(files[i], SHARED), 0);
    }
    ploop_io_threads_free(threads); /* the files keep them */
    ploop_io_threads_free(NULL);
    gate_set(true);
    for (uint32_t i = 0; i < 2 * SHARED; i++) {
        send(&requests[i % 2][i / 2], files[i % 2], PLOOP_IO_READ, &bytes[i % 2][i / 2], 1, i / 2);
    }
    kick(files[0]);
    gate_await(SHARED); /* one of each file: they take turns */
    ck_assert_uint_eq(posix_of(files[0])->pool.running, 1);
    ck_assert_uint_eq(posix_of(files[1])->pool.running, 1);
    ck_assert_uint_eq(posix_pool_thread_count(&posix_of(files[0])->pool), SHARED);
    gate_set(false);
    for (uint32_t i = 0; i < 2 * SHARED; i++) {
        ck_assert_int_eq(await(&requests[i % 2][i / 2]), 1);
    }
    ploop_file_close(files[0]);
    ck_assert_int_eq(ploop_file_pread(files[1], bytes[0], 1, 0), 1);
    ploop_file_close(files[1]);
    unlink(other);
}
END_TEST

static atomic_int ended_count;

static void count_ended(void *context, struct ploop_io *io, int64_t result)
{
    (void)context;
    (void)io;
    ck_assert_int_eq(result, 0);
    atomic_fetch_add(&ended_count, 1);
}

/* All but SYNC waits at the gate. */
static int64_t pass_gate(void *context, const struct ploop_io *io)
{
    (void)context;
    if (io->op != PLOOP_IO_SYNC) {
        gate_pass();
    }
    return 0;
}

START_TEST(few_writes_that_allocate_run_at_once)
{
    enum { MOST = POSIX_POOL_ALLOCATING, WRITES_HERE = MOST + 4, READS_HERE = 3 };
    struct ploop_io writes[WRITES_HERE], reads[READS_HERE], sync = {.op = PLOOP_IO_SYNC};
    struct posix_pool pool;
    ck_assert_int_eq(posix_pool_start(&pool, NULL, pass_gate, NULL), 0);
    pool.ended = count_ended;
    gate_set(true);
    for (int i = 0; i < WRITES_HERE; i++) {
        writes[i] = (struct ploop_io){.op = PLOOP_IO_WRITE, .flags = PLOOP_IO_ALLOCATES};
        posix_pool_submit(&pool, &writes[i]);
    }
    posix_pool_kick(&pool);
    gate_await(MOST);
    ck_assert_uint_eq(posix_pool_thread_count(&pool), MOST);
    /* Other requests go on beside them. */
    for (int i = 0; i < READS_HERE; i++) {
        reads[i] = (struct ploop_io){.op = PLOOP_IO_READ};
        posix_pool_submit(&pool, &reads[i]);
    }
    posix_pool_kick(&pool);
    gate_await(MOST + READS_HERE);
    ck_assert_uint_eq(posix_pool_thread_count(&pool), MOST + READS_HERE);
    ck_assert(!posix_pool_help(&pool)); /* a helper does not add to them */
    posix_pool_submit(&pool, &sync);
    ck_assert(posix_pool_help(&pool));
    ck_assert_int_eq(atomic_load(&ended_count), 1);
    ck_assert_uint_eq(pool.queued, WRITES_HERE - MOST);
    gate_set(false);
    while (atomic_load(&ended_count) < WRITES_HERE + READS_HERE + 1) {
        usleep(1000);
    }
    posix_pool_stop(&pool);
}
END_TEST

static char thread_name[16];
static int unblocked_signals;

static void look_at_thread(struct file_io *io, int64_t result)
{
    sigset_t blocked;
    pthread_getname_np(pthread_self(), thread_name, sizeof(thread_name));
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int i = 1; i < 32; i++) {
        unblocked_signals += !sigismember(&blocked, i) && i != SIGKILL && i != SIGSTOP;
    }
    request_done(io, result);
}

START_TEST(threads_have_names_and_no_signals)
{
    struct request request = {.done = 0};
    ploop_file *file = new_image(0);
    file_io_init(&request.io, file, look_at_thread);
    request.io.pub.op = PLOOP_IO_SYNC;
    ck_assert_int_eq(file_io_submit(&request.io), 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    ck_assert_mem_eq(thread_name, "ploop-io/", 9);
    ck_assert_int_eq(unblocked_signals, 0);
    ploop_file_close(file);
}
END_TEST

static atomic_bool cancelled;

static void *cancel(void *argument)
{
    ploop_file *file = argument;
    file->ops.cancel(file->context);
    atomic_store(&cancelled, true);
    return NULL;
}

START_TEST(cancel_ends_what_waits_and_awaits_what_runs)
{
    enum { RUNNING = POSIX_POOL_THREADS, WAITING = 5 };
    struct request requests[RUNNING + WAITING];
    char bytes[RUNNING + WAITING];
    pthread_t canceller;
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, RUNNING + WAITING), 0);
    gate_set(true);
    for (uint32_t i = 0; i < RUNNING + WAITING; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    gate_await(RUNNING);
    ck_assert_int_eq(pthread_create(&canceller, NULL, cancel, file), 0);
    for (uint32_t i = RUNNING; i < RUNNING + WAITING; i++) {
        ck_assert_int_eq(await(&requests[i]), -ECANCELED);
    }
    ck_assert(!atomic_load(&cancelled));
    gate_set(false);
    pthread_join(canceller, NULL);
    for (uint32_t i = 0; i < RUNNING; i++) {
        ck_assert_int_eq(atomic_load(&requests[i].done), 1); /* before cancel returned */
        ck_assert_int_eq(requests[i].result, 1);
    }
    ck_assert_int_eq(calls(READS), RUNNING);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 1, 0), 1); /* the pool still works */
    ploop_file_close(file);
}
END_TEST

static Suite *posix_pool_suite(void)
{
    Suite *suite = suite_create("posix_pool");
    TCase *all = tcase_create("posix_pool");
    add_fixtures(all);
    tcase_add_test(all, senseless_requests_are_refused);
    tcase_add_test(all, a_short_transfer_says_so);
    tcase_add_test(all, any_number_of_segments_is_moved);
    tcase_add_test(all, fua_is_one_call);
    tcase_add_test(all, nothing_runs_before_the_kick);
    tcase_add_test(all, requests_run_side_by_side);
    tcase_add_test(all, one_thread_is_enough);
    tcase_add_test(all, without_a_thread_it_is_to_be_sent_again);
    tcase_add_test(all, a_helper_carries_out_one_and_has_others_begun);
    tcase_add_test(all, idle_threads_end_and_new_ones_come);
    tcase_add_test(all, files_share_threads);
    tcase_add_test(all, few_writes_that_allocate_run_at_once);
    tcase_add_test(all, threads_have_names_and_no_signals);
    tcase_add_test(all, cancel_ends_what_waits_and_awaits_what_runs);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    return run_suite(posix_pool_suite());
}
