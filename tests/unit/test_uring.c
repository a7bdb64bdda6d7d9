/* SPDX-License-Identifier: MIT */
/* Requests through the io_uring backend: how they end, and who carries them out. */
#include "uring_inside.h"

START_TEST(a_disk_is_an_array)
{
    like_an_array(0);
}
END_TEST

START_TEST(a_disk_is_an_array_past_the_page_cache)
{
    like_an_array(PLOOP_FILE_DIRECT);
}
END_TEST

/* ---- what can go wrong ---- */

START_TEST(wrong_flags_are_refused)
{
    ploop_file *none = (ploop_file *)path;
    ck_assert_int_eq(ploop_file_open_uring("x", PLOOP_FILE_READ_WRITE, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_file_open_uring("x", 0, NULL, &none), -EINVAL);
    ck_assert_ptr_null(none);
    ck_assert_int_eq(ploop_file_open_uring("no/such/file", PLOOP_FILE_READ_ONLY, NULL, &none),
                     -ENOENT);
    ck_assert_int_eq(ploop_file_open_uring("/dev/null", PLOOP_FILE_READ_ONLY, NULL, &none),
                     -ENOTBLK);
}
END_TEST

/* Cancelled because its thread ended, cut short, interrupted: the library sends the rest again. */
START_TEST(what_is_not_done_is_done_again)
{
    static const int results[] = {-ECANCELED, -EINTR, -EAGAIN, 512};
    static uint8_t memory[8192], found[8192];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    for (size_t i = 0; i < sizeof(results) / sizeof(*results); i++) {
        for (uint32_t op = PLOOP_IO_READ; op <= PLOOP_IO_WRITE; op++) {
            memset(memory, (int)(16 * i + op), sizeof(memory));
            inject.op = op;
            inject.result = results[i];
            inject.count = 1;
            ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
            ck_assert_int_eq(transfer(1, false, found, sizeof(found), 0, 0), 0);
            ck_assert_uint_eq(inject.count, 0);
            ck_assert_int_eq(memcmp(memory, found, sizeof(found)), 0);
        }
    }
    end();
}
END_TEST

START_TEST(an_error_is_the_requests)
{
    static uint8_t memory[4096];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    for (uint32_t op = PLOOP_IO_READ; op <= PLOOP_IO_WRITE; op++) {
        inject.op = op;
        inject.result = -EIO;
        inject.count = 1;
        ck_assert_int_eq(transfer(0, op == PLOOP_IO_WRITE, memory, sizeof(memory), 0, 0), -EIO);
    }
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, PLOOP_PIO_FUA), 0);
    end();
}
END_TEST

/* Direct I/O that the file system refuses is done buffered; writes are the threads' after that. */
START_TEST(refused_direct_requests_are_done_buffered)
{
    static _Alignas(4096) uint8_t memory[8192], found[8192];
    begin(PLOOP_FILE_DIRECT);
    if (uring_of()->posix->direct_fd < 0) {
        end();
        return; /* this file system has none */
    }
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    inject.op = PLOOP_IO_READ;
    inject.result = -EINVAL;
    inject.count = 1;
    ck_assert_int_eq(transfer(0, false, found, sizeof(found), 0, 0), 0);
    ck_assert_uint_eq(inject.count, 0);
    ck_assert(!uring_of()->is_refused);
    memset(memory, 1, sizeof(memory));
    inject.op = PLOOP_IO_WRITE;
    inject.result = -EINVAL;
    inject.count = 1;
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    ck_assert(uring_of()->is_refused);
    ck_assert_uint_eq(uring_of()->direct_writes, 0);
    uint64_t seen = inject.seen;
    memset(memory, 2, sizeof(memory));
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    ck_assert_uint_eq(inject.seen, seen);
    ck_assert_int_eq(transfer(1, false, found, sizeof(found), 0, 0), 0);
    ck_assert_int_eq(memcmp(memory, found, sizeof(found)), 0);
    end();
}
END_TEST

/* Writes that are refused wait for the direct ones at the rings. */
START_TEST(held_writes_wait_for_direct_ones)
{
    struct uring *uring;
    struct ploop_io io = {.op = PLOOP_IO_SYNC};
    begin(PLOOP_FILE_DIRECT);
    uring = uring_of();
    atomic_store(&uring->direct_writes, 2);
    atomic_store(&uring->is_refused, true);
    direct_hold(uring, &io);
    ck_assert_ptr_eq(uring->held, &io);
    direct_write_ends(uring);
    ck_assert_ptr_eq(uring->held, &io);
    uring->held = NULL;
    direct_write_ends(uring);
    ck_assert(!direct_write_begins(uring));
    ck_assert_uint_eq(uring->direct_writes, 0);
    end();
}
END_TEST

/* More requests than a ring has entries, and than it has room for. */
START_TEST(a_ring_may_be_full)
{
    enum { COUNT = 1500 };
    struct ploop_dev_config config;
    static uint8_t memory[COUNT][512];
    static struct request requests[COUNT];
    ploop_pio *pios[COUNT];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, CLUSTER, 0, 0), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_dev_config_init(&config, sizeof(config));
    config.pio_count = COUNT;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct iovec iov = {memory[i], 512};
        static struct iovec iovs[COUNT];
        iovs[i] = iov;
        pios[i] = ploop_pio_get(queue);
        ck_assert_ptr_nonnull(pios[i]);
        memset(memory[i], (int)i, 512);
        ploop_pio_prep_writev(pios[i], UINT64_C(512) * (i % 128), &iovs[i], 1, 0);
        requests[i].done = false;
        ploop_pio_set_callback(pios[i], done, &requests[i]);
    }
    ck_assert_int_eq(ploop_queue_submit(queue, pios, COUNT), COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        while (!requests[i].done) {
            must(ploop_queue_wait(queue, UINT64_C(1000000000)) >= 0);
        }
        must(requests[i].result == 0);
    }
    end();
}
END_TEST

/* The kernel ends a batch at a request that cannot begin: those behind it are sent all the same. */
START_TEST(a_bad_address_stops_no_other_request)
{
    static uint8_t memory[8192];
    static struct request requests[2];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    struct iovec bad[2] = {{(void *)(uintptr_t)4096, 512}, {(void *)(uintptr_t)8192, 512}};
    struct iovec good = {memory, 4096};
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pios[2] = {ploop_pio_get(queue), ploop_pio_get(queue)};
    ploop_pio_prep_writev(pios[0], 0, bad, 2, 0);
    ploop_pio_prep_writev(pios[1], 4096, &good, 1, 0);
    for (int i = 0; i < 2; i++) {
        ploop_pio_set_callback(pios[i], done, &requests[i]);
    }
    ck_assert_int_eq(ploop_queue_submit(queue, pios, 2), 2);
    for (int i = 0; i < 100 && !(requests[0].done && requests[1].done); i++) {
        must(ploop_queue_wait(queue, UINT64_C(20000000)) >= 0);
    }
    ck_assert(requests[0].done && requests[0].result == -EFAULT);
    ck_assert(requests[1].done && requests[1].result == 0);
    end();
}
END_TEST

static void *read_often(void *unused)
{
    static _Thread_local uint8_t bytes[512];
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        must(ploop_file_pread(file, bytes, sizeof(bytes), 0) == sizeof(bytes));
    }
    return NULL;
}

/* The file's own calls may come from any thread, after a device too. */
START_TEST(threads_read_a_file_that_was_a_devices)
{
    pthread_t threads[4];
    begin(0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_often, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    open_device();
    end();
}
END_TEST

/* Not of whole sectors: buffered, by a thread, and the rings go on as before. */
START_TEST(odd_requests_are_the_threads)
{
    static _Alignas(4096) uint8_t memory[4096];
    begin(PLOOP_FILE_DIRECT);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_int_eq(ploop_file_pread(file, memory, 100, 0), 100);
    ck_assert_int_eq(ploop_file_pwrite(file, memory, 100, 0), 100);
    ck_assert(!uring_of()->is_refused);
    open_device();
    end();
}
END_TEST

/* Two devices that read one file share its rings. */
START_TEST(two_readers_share_the_rings)
{
    struct ploop_dev_config config;
    static uint8_t memory[4096];
    ploop_dev *second;
    begin(0);
    memset(memory, 5, sizeof(memory));
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    config.queue_count = QUEUES;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    struct request request = {0};
    struct iovec iov = {memory, sizeof(memory)};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    ploop_pio_prep_readv(pio, 0, &iov, 1);
    ploop_pio_set_callback(pio, done, &request);
    memset(memory, 0, sizeof(memory));
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1), 1);
    config.queue_count = QUEUES + 1;
    int error = ploop_dev_open(&file, 1, &config, &second);
    ck_assert(error == 0 || error == -EBUSY);
    while (!request.done) {
        must(ploop_queue_wait(ploop_dev_queue(dev, 0), UINT64_C(100000000)) >= 0);
    }
    ck_assert_int_eq(request.result, 0);
    ck_assert_int_eq(memory[0], 5);
    ploop_dev_close(error ? NULL : second);
    end();
}
END_TEST

static void *write_and_exit(void *unused)
{
    static uint8_t memory[4096];
    static struct request request;
    static struct iovec iov = {memory, sizeof(memory)};
    (void)unused;
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    ploop_pio_prep_writev(pio, 0, &iov, 1, 0);
    ploop_pio_set_callback(pio, done, &request);
    ck_assert_int_eq(ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1), 1);
    return &request;
}

/* The thread that sent a request is gone when it ends. */
START_TEST(a_thread_may_end_before_its_request)
{
    static uint8_t memory[4096];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *request;
        ck_assert_int_eq(pthread_create(&thread, NULL, write_and_exit, NULL), 0);
        ck_assert_int_eq(pthread_join(thread, &request), 0);
        while (!((struct request *)request)->done) {
            must(ploop_queue_wait(ploop_dev_queue(dev, 0), UINT64_C(1000000000)) >= 0);
        }
        ck_assert_int_eq(((struct request *)request)->result, 0);
        ((struct request *)request)->done = false;
    }
    end();
}
END_TEST

START_TEST(an_abort_ends_what_is_at_a_ring)
{
    static uint8_t memory[64][4096];
    static struct request requests[64];
    begin(PLOOP_FILE_DIRECT);
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    for (uint32_t i = 0; i < 64; i++) {
        static struct iovec iovs[64];
        iovs[i] = (struct iovec){memory[i], sizeof(memory[i])};
        ploop_pio *pio = ploop_pio_get(queue);
        ploop_pio_prep_writev(pio, UINT64_C(4096) * i * 16, &iovs[i], 1, 0);
        ploop_pio_set_callback(pio, done, &requests[i]);
        ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    }
    ploop_dev_abort(dev);
    for (uint32_t i = 0; i < 64; i++) {
        ck_assert(requests[i].done);
    }
    ploop_file_close(file);
    (void)unlink(path);
}
END_TEST

/* Requests that need a bounce buffer move as much as it has, and wait where none is free. */
START_TEST(bounce_buffers_are_few)
{
    enum { OFFSET = 2 << 20, BYTES = 3 * DIRECT_BOUNCE_BYTES + 8192 };
    uint8_t *memory = malloc(BYTES + 8), *found = malloc(BYTES + 8);
    begin(PLOOP_FILE_DIRECT);
    struct uring *uring = uring_of();
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    for (size_t i = 0; i < BYTES; i++) {
        memory[8 + i] = (uint8_t)(i >> 9);
    }
    ck_assert_int_eq(ploop_file_pwrite(file, memory + 8, BYTES, OFFSET), BYTES);
    ck_assert_int_eq(ploop_file_pread(file, found + 8, BYTES, OFFSET), BYTES);
    ck_assert_int_eq(memcmp(memory + 8, found + 8, BYTES), 0);
    ck_assert_uint_eq(uring->bounces_taken, 0);
    if (uring->posix->direct_fd >= 0 && uring->posix->memory_alignment > 8) {
        const struct iovec iov = {memory + 8, 4096};
        struct ploop_io io = {.op = PLOOP_IO_READ, .length = 4096, .iov = &iov, .iov_count = 1};
        uring->bounces_taken = (1u << DIRECT_BOUNCES) - 1;
        ck_assert_int_eq(file->ops.submit(uring, &io), -EAGAIN);
        uring->bounces_taken = 0;
    }
    free(memory);
    free(found);
    ploop_file_close(file);
    (void)unlink(path);
}
END_TEST

int main(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    if (preloaded && strstr(preloaded, "vgpreload")) {
        return 0; /* valgrind does not know what the kernel writes into a ring and by it */
    }
    const TTest *const tests[] = {bounce_buffers_are_few,
                                  a_disk_is_an_array,
                                  a_disk_is_an_array_past_the_page_cache,
                                  wrong_flags_are_refused,
                                  what_is_not_done_is_done_again,
                                  an_error_is_the_requests,
                                  refused_direct_requests_are_done_buffered,
                                  held_writes_wait_for_direct_ones,
                                  a_ring_may_be_full,
                                  a_bad_address_stops_no_other_request,
                                  threads_read_a_file_that_was_a_devices,
                                  odd_requests_are_the_threads,
                                  two_readers_share_the_rings,
                                  a_thread_may_end_before_its_request,
                                  an_abort_ends_what_is_at_a_ring};
    return RUN_TESTS("uring", tests);
}
