/* SPDX-License-Identifier: MIT */
/*
 * For tests of the io_uring backend: its sources, with results of the kernel's that the test can
 * change, and a device on a real file, in the current directory, where O_DIRECT is likely to work.
 * Each test program has it once, for itself.
 */
#ifndef URING_INSIDE_H
#define URING_INSIDE_H

/* Not every program calls each. */
#define UNUSED __attribute__((unused))

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liburing.h>
#include <ploop/ploop.h>

#include "image_fixture.h"
#include "run_tests.h"

/*
 * Of the next completions of writes (or of reads), `count` have that result; all are counted. And
 * the next `submit_count` calls that send fail with submit_error.
 */
static struct {
    uint32_t op, count;
    int result;
    uint64_t seen;
    uint32_t submit_count;
    int submit_error;
    uint64_t sent, fixed_files, fixed_memory; /* entries: all, with these */
} inject;

UNUSED static int peek(struct io_uring *ring, struct io_uring_cqe **cqe)
{
    int error = io_uring_peek_cqe(ring, cqe);
    const struct ploop_io *io = error ? NULL : io_uring_cqe_get_data(*cqe);
    if (io) {
        inject.seen++;
        if (inject.count > 0 && io->op == inject.op) {
            inject.count--;
            (*cqe)->res = inject.result;
        }
    }
    return error;
}

UNUSED static int submit_or_fail(struct io_uring *ring)
{
    const struct io_uring_sq *sq = &ring->sq;
    if (inject.submit_count > 0) {
        inject.submit_count--;
        return inject.submit_error;
    }
    for (unsigned at = sq->sqe_head; at != sq->sqe_tail; at++) {
        const struct io_uring_sqe *sqe = &sq->sqes[at & sq->ring_mask];
        inject.sent += sqe->user_data != 0;
        inject.fixed_files += (sqe->flags & IOSQE_FIXED_FILE) != 0;
        inject.fixed_memory +=
            sqe->opcode == IORING_OP_READ_FIXED || sqe->opcode == IORING_OP_WRITE_FIXED;
    }
    return io_uring_submit(ring);
}

/* What the kernel does not have. */
static struct {
    bool files, polling, pinning; /* pinning: memory is taken, and not looked at */
    int memory_error;
    uint32_t rings; /* how many can be had; 0: any number */
} refuse;

UNUSED static int register_files(struct io_uring *ring, const int *files, unsigned count)
{
    return refuse.files ? -EMFILE : io_uring_register_files(ring, files, count);
}

UNUSED static int update_buffer(struct io_uring *ring, unsigned at, const struct iovec *iov,
                                const __u64 *tags, unsigned count)
{
    if (refuse.pinning) {
        return 1;
    }
    return refuse.memory_error && iov->iov_base
               ? refuse.memory_error
               : io_uring_register_buffers_update_tag(ring, at, iov, tags, count);
}

static uint32_t rings_made;

UNUSED static int init_ring(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    if (refuse.polling && params->flags & IORING_SETUP_SQPOLL) {
        return -EPERM;
    }
    if (refuse.rings && rings_made >= refuse.rings) {
        return -ENOMEM;
    }
    rings_made++;
    return io_uring_queue_init_params(entries, ring, params);
}

// NOLINTBEGIN(bugprone-suspicious-include)
#define io_uring_peek_cqe peek
#define io_uring_submit submit_or_fail
#define io_uring_queue_init_params init_ring
#include "file/uring_ring.c"
#undef io_uring_peek_cqe
#undef io_uring_submit
#undef io_uring_queue_init_params
#define io_uring_register_files register_files
#include "file/uring_group.c"
#undef io_uring_register_files
#define io_uring_register_buffers_update_tag update_buffer
#include "file/uring_memory.c"
#undef io_uring_register_buffers_update_tag
#include "file/uring.c"
#include "file/uring_direct.c"
// NOLINTEND(bugprone-suspicious-include)

enum { CLUSTER = 65536, DISK_CLUSTERS = 64, DISK = DISK_CLUSTERS * CLUSTER, QUEUES = 2 };

static char path[64];
static ploop_uring *group; /* NULL: one of the file's own */
static ploop_file *file;
static ploop_dev *dev;

UNUSED static struct uring *uring_of(void)
{
    return file->context;
}

UNUSED static void open_file(uint32_t flags)
{
    ck_assert_int_eq(ploop_file_open_uring(path, PLOOP_FILE_READ_WRITE | flags, group, &file), 0);
}

UNUSED static void open_device(void)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.queue_count = QUEUES;
    config.flags = PLOOP_DEV_WRITE_ZEROS_AS_DATA;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
}

UNUSED static void begin(uint32_t flags)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK, .cluster_size = CLUSTER};
    (void)snprintf(path, sizeof(path), "uring-%ld.hds", (long)getpid());
    (void)unlink(path);
    memset(&inject, 0, sizeof(inject));
    open_file(PLOOP_FILE_CREATE | flags);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    open_device();
}

UNUSED static void end(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    (void)unlink(path);
}

/* ---- requests, on their own queue ---- */

struct request {
    bool done;
    int result;
};

UNUSED static void done(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;
    *request = (struct request){true, result};
    ploop_pio_put(pio);
}

UNUSED static int wait_for(ploop_queue *queue, ploop_pio *pio, struct request *request)
{
    ploop_pio_set_callback(pio, done, request);
    ck_assert_int_eq(ploop_queue_submit(queue, &pio, 1), 1);
    while (!request->done) {
        must(ploop_queue_wait(queue, UINT64_C(1000000000)) >= 0);
    }
    return request->result;
}

UNUSED static int transfer(uint32_t queue, bool write, void *memory, size_t length, uint64_t offset,
                           uint32_t flags)
{
    struct request request = {0};
    struct iovec iov[2] = {{memory, 512}, {(char *)memory + 512, length - 512}};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, queue));
    uint32_t count = length > 512 && length % 1024 ? 2 : 1;
    iov[0].iov_len = count == 1 ? length : 512;
    if (write) {
        ploop_pio_prep_writev(pio, offset, iov, count, flags);
    } else {
        ploop_pio_prep_readv(pio, offset, iov, count);
    }
    return wait_for(ploop_dev_queue(dev, queue), pio, &request);
}

/* ---- a disk is an array ---- */

/* Memory that is aligned, and memory that is not; every fifth write is FUA. */
UNUSED static void like_an_array(uint32_t flags)
{
    begin(flags);
    uint8_t *model = calloc(1, DISK), *memory = NULL;
    ck_assert_int_eq(posix_memalign((void **)&memory, 4096, 2 * CLUSTER), 0);
    unsigned seed = 1;
    int rounds = is_instrumented() ? 200 : 2000;
    for (int i = 0; i < rounds; i++) {
        size_t length = 512 * (1 + (size_t)rand_r(&seed) % 160);
        uint64_t offset = 512 * ((uint64_t)rand_r(&seed) % ((DISK - length) / 512 + 1));
        uint8_t *at = memory + (rand_r(&seed) % 2 ? 0 : 8);
        bool write = rand_r(&seed) % 2;
        if (write) {
            memset(at, i + 1, length);
            memcpy(model + offset, at, length);
        }
        int result = transfer((uint32_t)i % QUEUES, write, at, length, offset,
                              write && i % 5 == 0 ? PLOOP_PIO_FUA : 0);
        must_msg(result == 0, "%s of %zu at %lu: %d", write ? "write" : "read", length,
                 (unsigned long)offset, result);
        must(memcmp(at, model + offset, length) == 0);
        if (i % 100 == 0) {
            must(ploop_dev_flush(dev) == 0);
        }
    }
    ck_assert_uint_gt(inject.seen, (uint64_t)rounds / 2); /* the rings did it */
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    /* As another backend finds it. */
    ck_assert_int_eq(ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE, &file), 0);
    open_device();
    for (uint64_t offset = 0; offset < DISK; offset += CLUSTER) {
        must(ploop_dev_pread(dev, memory, CLUSTER, offset) == CLUSTER);
        must(memcmp(memory, model + offset, CLUSTER) == 0);
    }
    free(memory);
    free(model);
    end();
}

#endif
