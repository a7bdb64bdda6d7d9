/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend's rings: FUA writes, reopen, what cannot be sent, groups, and what the
 * kernel knows of files and memory.
 */
#include <poll.h>

#include "uring_inside.h"

/* ---- batches on one queue ---- */

enum { BATCH_MAX = 64 };

static struct {
    uint8_t memory[BATCH_MAX][4096];
    struct iovec iovs[BATCH_MAX];
    struct request requests[BATCH_MAX];
} sent;

/* A write of 4 KiB, at a place of its own; a flush where flags are ~0. Not waited for. */
static void send_write(uint32_t i, uint32_t flags)
{
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pio = ploop_pio_get(queue);
    sent.iovs[i] = (struct iovec){sent.memory[i], sizeof(sent.memory[i])};
    sent.requests[i].done = false;
    if (flags == ~0u) {
        ploop_pio_prep_flush(pio);
    } else {
        ploop_pio_prep_writev(pio, UINT64_C(65536) * i, &sent.iovs[i], 1, flags);
    }
    ploop_pio_set_callback(pio, done, &sent.requests[i]);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
}

static void wait_for_writes(uint32_t count, int result)
{
    for (uint32_t i = 0; i < count; i++) {
        while (!sent.requests[i].done) {
            must(ploop_queue_wait(ploop_dev_queue(dev, 0), UINT64_C(100000000)) >= 0);
        }
        must_msg(sent.requests[i].result == result, "%d", sent.requests[i].result);
    }
}

/* FUA writes and flushes in any order, many more than there are lanes. */
START_TEST(fua_writes_and_flushes_mix)
{
    begin(0);
    for (int round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < BATCH_MAX; i++) {
            send_write(i, i % 8 == 7 ? ~0u : PLOOP_PIO_FUA);
        }
        wait_for_writes(BATCH_MAX, 0);
    }
    ck_assert_ptr_null(uring_of()->fua_first);
    ck_assert_uint_eq(uring_of()->fua_at_ring, 0);
    end();
}
END_TEST

/* Backend requests to the file itself, on the engine's queue: nothing runs unless the test does. */
struct own_io {
    struct file_io io;
    struct iovec iov;
    uint8_t memory[4096];
    bool done;
    int64_t result;
};

static void own_done(struct file_io *io, int64_t result)
{
    struct own_io *own = (struct own_io *)io;
    own->done = true;
    own->result = result;
}

static int own_write(struct own_io *own, uint64_t offset, uint32_t flags)
{
    file_io_init(&own->io, file, own_done);
    own->iov = (struct iovec){own->memory, sizeof(own->memory)};
    own->io.pub.op = PLOOP_IO_WRITE;
    own->io.pub.flags = flags;
    own->io.pub.queue = QUEUES;
    own->io.pub.offset = offset;
    own->io.pub.length = sizeof(own->memory);
    own->io.pub.iov = &own->iov;
    own->io.pub.iov_count = 1;
    own->done = false;
    return file_io_submit(&own->io);
}

static void own_wait(struct own_io *own)
{
    while (!own->done) {
        uring_kick(uring_of(), QUEUES);
        (void)uring_wait(uring_of(), QUEUES, UINT64_C(10000000));
        (void)uring_reap(uring_of(), QUEUES);
    }
}

enum { OWN_COUNT = 3 * POSIX_POOL_THREADS, OWN_OFFSET = 2 * 1048576 };

static struct own_io own[OWN_COUNT];

/* A closed device's file, to which nothing is sent but by the test. */
static void begin_alone(uint32_t flags)
{
    begin(flags);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}

static void end_alone(void)
{
    ploop_file_close(file);
    (void)unlink(path);
}

/* Those that find no lane are the backend's, which takes other requests meanwhile. */
START_TEST(fua_writes_wait_for_a_lane_in_the_backend)
{
    begin_alone(0);
    for (uint32_t i = 0; i < OWN_COUNT; i++) {
        must(own_write(&own[i], OWN_OFFSET + 4096 * (uint64_t)i, PLOOP_IO_FUA) == 0);
    }
    ck_assert_ptr_nonnull(uring_of()->fua_first);
    ck_assert_uint_eq(uring_of()->fua_at_ring, POSIX_POOL_THREADS);
    static struct own_io plain;
    must(own_write(&plain, 1048576, 0) == 0);
    own_wait(&plain);
    for (uint32_t i = 0; i < OWN_COUNT; i++) {
        own_wait(&own[i]);
        ck_assert_int_eq(own[i].result, sizeof(own[i].memory));
    }
    ck_assert_ptr_null(uring_of()->fua_first);
    end_alone();
}
END_TEST

START_TEST(an_abort_ends_fua_writes_that_wait)
{
    begin_alone(0);
    for (uint32_t i = 0; i < OWN_COUNT; i++) {
        must(own_write(&own[i], OWN_OFFSET + 4096 * (uint64_t)i, PLOOP_IO_FUA) == 0);
    }
    uring_cancel(uring_of());
    for (uint32_t i = POSIX_POOL_THREADS; i < OWN_COUNT; i++) {
        ck_assert(own[i].done && own[i].result == -ECANCELED);
    }
    for (uint32_t i = 0; i < POSIX_POOL_THREADS; i++) {
        own_wait(&own[i]);
    }
    end_alone();
}
END_TEST

/* A reopen ends the FUA writes at the rings, sent or not, which no other thread reaps. */
START_TEST(a_reopen_ends_fua_writes)
{
    for (int kicked = 0; kicked < 2; kicked++) {
        begin_alone(0);
        for (uint32_t i = 0; i < OWN_COUNT; i++) {
            must(own_write(&own[i], OWN_OFFSET + 4096 * (uint64_t)i, PLOOP_IO_FUA) == 0);
        }
        if (kicked) {
            uring_kick(uring_of(), QUEUES);
        }
        ck_assert_int_eq(file->ops.reopen(file->context, PLOOP_FILE_READ_ONLY), 0);
        for (uint32_t i = 0; i < OWN_COUNT; i++) {
            ck_assert(own[i].done);
            bool was_at_ring = i < POSIX_POOL_THREADS;
            ck_assert_int_eq(own[i].result, was_at_ring ? 4096 : -EOPNOTSUPP);
        }
        ck_assert_int_eq(own_write(&own[0], OWN_OFFSET, 0), -EROFS);
        ck_assert_int_eq(file->ops.reopen(file->context, PLOOP_FILE_READ_WRITE), 0);
        open_device();
        static uint8_t memory[4096];
        ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, PLOOP_PIO_FUA), 0);
        end();
    }
}
END_TEST

/* The rings do not go on with the descriptors of before a reopen. */
START_TEST(a_reopen_replaces_what_the_rings_know)
{
    begin_alone(0);
    if (uring_of()->file_number < 0) {
        end_alone();
        return;
    }
    ck_assert_int_eq(file->ops.reopen(file->context, PLOOP_FILE_READ_ONLY), 0);
    /* A write past posix_refuses(): the kernel itself says that the description is for reading. */
    atomic_store(&uring_of()->posix->access, PLOOP_FILE_READ_WRITE);
    inject.fixed_files = 0;
    must(own_write(&own[0], OWN_OFFSET, 0) == 0);
    own_wait(&own[0]);
    ck_assert_uint_eq(inject.fixed_files, 1);
    ck_assert_int_eq(own[0].result, -EBADF);
    atomic_store(&uring_of()->posix->access, PLOOP_FILE_READ_ONLY);
    end_alone();
}
END_TEST

/* What cannot be sent ends with the error, or is sent later; nothing spins. */
START_TEST(what_cannot_be_sent_ends)
{
    static uint8_t memory[4096];
    begin(0);
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    inject.submit_error = -EBADF;
    inject.submit_count = 1;
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), -EBADF);
    inject.submit_error = -EAGAIN;
    inject.submit_count = 3;
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    ck_assert_uint_eq(inject.submit_count, 0);
    inject.submit_error = -EINTR;
    inject.submit_count = 3;
    ck_assert_int_eq(transfer(1, false, memory, sizeof(memory), 0, 0), 0);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    /* FUA writes that wait for a lane get the same error, one after the other. */
    for (uint32_t i = 0; i < OWN_COUNT; i++) {
        must(own_write(&own[i], OWN_OFFSET + 4096 * (uint64_t)i, PLOOP_IO_FUA) == 0);
    }
    inject.submit_error = -EBADF;
    inject.submit_count = UINT32_MAX;
    uring_kick(uring_of(), QUEUES);
    inject.submit_count = 0;
    for (uint32_t i = 0; i < OWN_COUNT; i++) {
        ck_assert(own[i].done && own[i].result == -EBADF);
    }
    end_alone();
}
END_TEST

/* A flush, by an event loop that runs the queue only when its descriptor says so. */
static void flush_in_a_loop(void)
{
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    struct pollfd event = {.fd = ploop_queue_poll_fd(queue), .events = POLLIN};
    send_write(0, ~0u);
    while (!sent.requests[0].done) {
        must_msg(poll(&event, 1, 20000) == 1, "the descriptor does not become readable");
        must(ploop_queue_run(queue) >= 0);
    }
    ck_assert_int_eq(sent.requests[0].result, 0);
}

/* What an I/O thread has done makes the ring readable, each time; also after a send that failed. */
START_TEST(a_ring_is_woken_again)
{
    begin(0);
    for (int i = 0; i < 5; i++) {
        flush_in_a_loop();
    }
    inject.submit_error = -EAGAIN;
    inject.submit_count = 1;
    ck_assert_int_eq(transfer(0, true, sent.memory[0], 4096, 0, 0), 0);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    for (int i = 0; i < 5; i++) {
        flush_in_a_loop();
    }
    /* The read of wake_fd itself is refused, by a reap; then by the I/O thread that sends it. */
    for (uint32_t refusals = 1; refusals < 5; refusals++) {
        inject.submit_count = refusals;
        flush_in_a_loop();
        flush_in_a_loop();
        ck_assert_uint_eq(inject.submit_count, 0);
    }
    end();
}
END_TEST

/* ---- rings ---- */

START_TEST(queues_without_a_ring_share_one)
{
    refuse.rings = rings_made + 2;
    begin(PLOOP_FILE_DIRECT);
    ck_assert_uint_eq(uring_of()->ring_count, 2);
    ck_assert_ptr_eq(ring_of(uring_of(), 1), ring_of(uring_of(), QUEUES));
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        ck_assert_int_eq(transfer(i % QUEUES, true, sent.memory[i] + i % 2 * 8, 4088 / 512 * 512,
                                  65536 * (uint64_t)i, i % 3 ? 0 : PLOOP_PIO_FUA),
                         0);
    }
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    refuse.rings = 0;
    /* While a device may have the file, they go on to. */
    ck_assert_int_eq(uring_attach(uring_of(), QUEUES + 2), 0);
    ck_assert_uint_eq(uring_of()->group->ring_count, QUEUES + 2);
    ck_assert_uint_eq(uring_of()->ring_count, 2);
    end();
}
END_TEST

static char base_path[80];

/* A stack of two in one group, or each with rings of its own. */
static void open_stack(ploop_file **files)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    ck_assert_int_eq(ploop_file_open_uring(base_path, PLOOP_FILE_READ_ONLY, group, &files[0]), 0);
    ck_assert_int_eq(ploop_file_open_uring(path, PLOOP_FILE_READ_WRITE, group, &files[1]), 0);
    ck_assert_int_eq(ploop_dev_open(files, 2, &config, &dev), 0);
}

START_TEST(files_of_a_group_share_its_rings)
{
    ploop_file *files[2];
    static uint8_t memory[2 * CLUSTER], found[2 * CLUSTER];
    ck_assert_int_eq(ploop_uring_create(NULL, &group), 0);
    begin(0);
    memset(memory, 3, sizeof(memory));
    ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    (void)snprintf(base_path, sizeof(base_path), "%s.base", path);
    ck_assert_int_eq(rename(path, base_path), 0);
    begin(0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    uint32_t before = rings_made;
    open_stack(files);
    ck_assert_uint_eq(rings_made, before); /* those of the first device */
    ck_assert_ptr_eq(ring_of(files[0]->context, 0), ring_of(files[1]->context, 0));
    ploop_uring_close(group); /* the files keep it */
    group = NULL;
    memset(memory, 4, 512);
    ck_assert_int_eq(transfer(0, true, memory, 512, 0, 0), 0);
    ck_assert_int_eq(transfer(0, false, found, sizeof(found), 0, 0), 0);
    ck_assert_int_eq(memcmp(memory, found, sizeof(found)), 0);
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    /* Nothing to send and to reap: no system call, whatever file is asked. */
    inject.submit_error = -EBADF;
    inject.submit_count = 1;
    for (uint32_t i = 0; i < 2; i++) {
        uring_kick(files[i]->context, 0);
        ck_assert_int_eq(uring_reap(files[i]->context, 0), 0);
    }
    ck_assert_uint_eq(inject.submit_count, 1);
    inject.submit_count = 0;
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(files[0]);
    ploop_file_close(files[1]);
    (void)unlink(path);
    (void)unlink(base_path);
}
END_TEST

/* ---- what the kernel knows by number ---- */

START_TEST(files_are_known_by_number)
{
    static uint8_t memory[4096];
    for (int refused = 0; refused < 2; refused++) {
        refuse.files = refused;
        begin(0);
        ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
        inject.fixed_files = inject.sent = 0;
        ck_assert_int_eq(transfer(0, true, memory, sizeof(memory), 0, 0), 0);
        ck_assert_int_eq(transfer(1, false, memory, sizeof(memory), 0, 0), 0);
        ck_assert_uint_eq(inject.sent, 2);
        ck_assert_uint_eq(inject.fixed_files, refused ? 0 : 2);
        end();
    }
}
END_TEST

/* A closed file is no longer open in the kernel, and its number is free. */
START_TEST(a_closed_file_leaves_the_rings)
{
    ck_assert_int_eq(ploop_uring_create(NULL, &group), 0);
    for (int i = 0; i < RING_FILES_MAX; i++) {
        begin(0);
        ck_assert_int_eq(uring_of()->file_number, 0);
        end();
    }
    ploop_uring_close(group);
    group = NULL;
}
END_TEST

/* Memory of whole pages. */
static struct iovec map(size_t length)
{
    struct iovec region = {
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), length};
    ck_assert_ptr_ne(region.iov_base, MAP_FAILED);
    return region;
}

static void is_used(void *memory, bool used)
{
    uint64_t before = inject.fixed_memory;
    ck_assert_int_eq(transfer(0, true, memory, 4096, 0, 0), 0);
    ck_assert_int_eq(transfer(1, false, memory, 4096, 0, 0), 0);
    ck_assert_uint_eq(inject.fixed_memory - before, used ? 2 : 0);
}

START_TEST(registered_memory_is_used)
{
    static uint8_t other[4096];
    struct iovec region[2] = {map(65536), map(131072)};
    uint8_t *memory = region[0].iov_base, *more = region[1].iov_base;
    begin(0);
    is_used(other, false);
    is_used(memory, false);
    int error = ploop_dev_register_memory(dev, region, 2);
    if (error == -ENOTSUP) {
        end();
        return; /* an old kernel */
    }
    ck_assert_int_eq(error, 0);
    memset(memory, 9, 4096);
    is_used(memory, true);
    is_used(memory + 65536 - 4096, true);
    is_used(more + 65536, true);
    is_used(other, false);
    ck_assert_int_eq(transfer(0, false, other, 4096, 0, 0), 0);
    /* Half of it outside: not wholly in one region, unless both are neighbours. */
    ck_assert_int_eq(
        group_buffer_at(uring_of()->group, ring_of(uring_of(), 0), memory + 61440, 8192), -1);
    ck_assert_int_eq(ploop_dev_unregister_memory(dev, region, 1), 0);
    is_used(memory, false);
    is_used(more, true);
    ck_assert_int_eq(ploop_dev_register_memory(dev, region, 1), 0);
    is_used(memory, true);
    end(); /* unregisters the rest */
    (void)munmap(memory, 65536);
    (void)munmap(more, 131072);
}
END_TEST

START_TEST(memory_is_judged)
{
    struct iovec region = map(65536), nothing = {region.iov_base, 0};
    struct iovec inside = {(uint8_t *)region.iov_base + 4096, 4096};
    struct iovec both[2] = {region, inside};
    struct iovec bad = {(void *)(uintptr_t)4096, 4096};
    begin(0);
    ck_assert_int_eq(ploop_dev_register_memory(dev, NULL, 1), -EINVAL);
    ck_assert_int_eq(ploop_dev_register_memory(dev, &region, 0), -EINVAL);
    ck_assert_int_eq(ploop_dev_register_memory(dev, &nothing, 1), -EINVAL);
    ck_assert_int_eq(ploop_dev_unregister_memory(dev, &region, 1), -ENOENT);
    if (ploop_dev_register_memory(dev, &region, 1) == 0) {
        ck_assert_int_eq(ploop_dev_register_memory(dev, &region, 1), -EEXIST);
        ck_assert_int_eq(ploop_dev_register_memory(dev, &inside, 1), -EEXIST);
        ck_assert_int_eq(ploop_dev_unregister_memory(dev, &inside, 1), -ENOENT);
        ck_assert_int_eq(ploop_dev_unregister_memory(dev, &region, 1), 0);
        ck_assert_int_eq(ploop_dev_register_memory(dev, both, 2), -EEXIST);
        ck_assert_uint_eq(uring_of()->group->piece_count, 0);
        ck_assert_int_eq(ploop_dev_register_memory(dev, &bad, 1), -EFAULT);
        refuse.memory_error = -ENOMEM;
        ck_assert_int_eq(ploop_dev_register_memory(dev, &region, 1), -ENOMEM);
        refuse.memory_error = 0;
        ck_assert_int_eq(ploop_dev_register_memory(dev, &region, 1), 0);
        is_used(region.iov_base, true);
    }
    end();
    /* A backend that has no use for it. */
    begin(0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    ck_assert_int_eq(ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE, &file), 0);
    open_device();
    ck_assert_int_eq(ploop_dev_register_memory(dev, &region, 1), -ENOTSUP);
    end();
    (void)munmap(region.iov_base, region.iov_len);
}
END_TEST

/* More than the kernel takes as one buffer; and rings that come later. */
START_TEST(long_memory_becomes_pieces)
{
    const uint64_t gib = UINT64_C(1) << 30;
    begin(0);
    struct ploop_uring *rings = uring_of()->group;
    struct iovec region = map(4096); /* of an address, which the kernel is not asked about */
    if (group_register_memory(rings, region.iov_base, 4096) == 0) {
        group_unregister_memory(rings, region.iov_base, 4096);
        refuse.pinning = true;
        void *memory = (void *)(uintptr_t)(4 * gib);
        ck_assert_int_eq(group_register_memory(rings, memory, 2 * gib + 8192), 0);
        ck_assert_int_eq(group_register_memory(rings, memory, 2 * gib + 8192), 0); /* a file more */
        ck_assert_uint_eq(rings->piece_count, 3);
        ck_assert_uint_eq(rings->pieces[2].length, 8192);
        const struct ring *last = ring_of(uring_of(), QUEUES);
        ck_assert_int_eq(uring_attach(uring_of(), QUEUES + 2), 0);
        ck_assert_ptr_ne(last, ring_of(uring_of(), QUEUES + 1));
        ck_assert(ring_of(uring_of(), QUEUES + 1)->has_memory);
        group_unregister_memory(rings, memory, 2 * gib + 8192);
        ck_assert_uint_eq(rings->piece_count, 3);
        group_unregister_memory(rings, memory, 2 * gib + 8192);
        refuse.pinning = false;
        ck_assert_uint_eq(rings->piece_count, 0);
    }
    (void)munmap(region.iov_base, region.iov_len);
    end();
}
END_TEST

/* ---- SQPOLL ---- */

static uint32_t lines;

static void count_lines(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)message_id;
    ck_assert_uint_eq(level, PLOOP_LOG_WARNING);
    ck_assert_ptr_nonnull(strstr(text, "SQPOLL"));
    lines++;
}

START_TEST(a_thread_of_the_kernels_polls)
{
    const struct ploop_uring_options options = {.size = sizeof(options),
                                                .flags = PLOOP_URING_SQPOLL,
                                                .sqpoll_idle_ms = 10,
                                                .log = count_lines};
    for (int refused = 0; refused < 2; refused++) {
        refuse.polling = refused;
        lines = 0;
        ck_assert_int_eq(ploop_uring_create(&options, &group), 0);
        ck_assert_uint_eq(lines, !group->rings[0]->is_polled);
        if (refused) {
            ck_assert(!group->rings[0]->is_polled);
        }
        like_an_array(PLOOP_FILE_DIRECT);
        ploop_uring_close(group);
        group = NULL;
    }
}
END_TEST

START_TEST(wrong_options_are_refused)
{
    struct ploop_uring_options options = {.size = sizeof(options), .flags = 2};
    ploop_uring *none = (ploop_uring *)path;
    ck_assert_int_eq(ploop_uring_create(&options, NULL), -EINVAL);
    ck_assert_int_eq(ploop_uring_create(&options, &none), -EINVAL);
    ck_assert_ptr_null(none);
    options.flags = 0;
    options.reserved[3] = 1;
    ck_assert_int_eq(ploop_uring_create(&options, &none), -E2BIG);
    options.size = 1;
    ck_assert_int_eq(ploop_uring_create(&options, &none), -EINVAL);
    ploop_uring_close(NULL);
    refuse.rings = 1;
    rings_made = 1;
    ck_assert_int_eq(ploop_uring_create(NULL, &none), -ENOMEM);
}
END_TEST

int main(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    if (preloaded && strstr(preloaded, "vgpreload")) {
        return 0; /* valgrind does not know what the kernel writes into a ring and by it */
    }
    const TTest *const tests[] = {fua_writes_and_flushes_mix,
                                  fua_writes_wait_for_a_lane_in_the_backend,
                                  an_abort_ends_fua_writes_that_wait,
                                  a_reopen_ends_fua_writes,
                                  a_reopen_replaces_what_the_rings_know,
                                  what_cannot_be_sent_ends,
                                  a_ring_is_woken_again,
                                  queues_without_a_ring_share_one,
                                  files_of_a_group_share_its_rings,
                                  files_are_known_by_number,
                                  a_closed_file_leaves_the_rings,
                                  registered_memory_is_used,
                                  memory_is_judged,
                                  long_memory_becomes_pieces,
                                  a_thread_of_the_kernels_polls,
                                  wrong_options_are_refused};
    return RUN_TESTS("uring-rings", tests);
}
