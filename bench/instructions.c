/* SPDX-License-Identifier: MIT */
/*
 * The library's own cost of a mapped 4 KiB request, from submit to callback, over a backend that
 * completes inline and moves no bytes. The queue runs once for each DEPTH submits; the default is
 * 1.
 *
 *   instructions read|overwrite COUNT [DEPTH]
 *
 * Count the instructions of the process under callgrind for two COUNTs; the difference is the cost
 * of the requests (scripts/bench does that).
 */
#include <ploop/ploop.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096 };
#define CLUSTER (UINT64_C(1) << 20)
#define CLUSTERS UINT64_C(64)

static ploop_file *memory; /* the image is prepared here */
static struct ploop_io_ops ops;
static bool measuring;

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    return ploop_file_info(memory, info);
}

static int submit(void *context, struct ploop_io *io)
{
    (void)context;
    int64_t result = 0;
    if (measuring) {
        result = (int64_t)io->length;
    } else if (io->op == PLOOP_IO_READ) {
        result = ploop_file_pread(memory, io->iov[0].iov_base, io->iov[0].iov_len, io->offset);
    } else if (io->op == PLOOP_IO_WRITE) {
        result = ploop_file_pwrite(memory, io->iov[0].iov_base, io->iov[0].iov_len, io->offset);
    } else if (io->op == PLOOP_IO_TRUNCATE) {
        result = ploop_file_truncate(memory, io->offset);
    }
    ploop_io_complete(io, result);
    return 0;
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    uint32_t *failures = user_data;
    *failures += result != 0;
    ploop_pio_put(pio);
}

static int fail(const char *what, int error)
{
    fprintf(stderr, "instructions: %s: %s\n", what, strerror(-error));
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: instructions read|overwrite COUNT [DEPTH]\n");
        return 1;
    }
    bool overwrite = strcmp(argv[1], "overwrite") == 0;
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t depth = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = CLUSTERS * CLUSTER, .cluster_size = CLUSTER};
    ploop_file *file;
    ploop_dev *dev;
    ops = (struct ploop_io_ops){.size = sizeof(ops), .get_info = get_info, .submit = submit};
    int error = ploop_file_create_memory(0, &memory);
    error = error ? error : ploop_image_create(memory, &options);
    error = error ? error : ploop_file_create(&ops, NULL, &file);
    error = error ? error : ploop_dev_open(&file, 1, NULL, &dev);
    if (error) {
        return fail("open", error);
    }
    static char block[BLOCK];
    struct iovec iov = {block, sizeof(block)};
    for (uint64_t i = 0; i < CLUSTERS; i++) {
        ploop_dev_pwrite(dev, block, sizeof(block), i * CLUSTER);
    }
    ploop_dev_flush(dev);

    ploop_queue *queue = ploop_dev_queue(dev, 0);
    uint32_t failures = 0;
    measuring = true;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = i * 17 % CLUSTERS * CLUSTER;
        ploop_pio *pio = ploop_pio_get(queue);
        ploop_pio_set_callback(pio, done, &failures);
        if (overwrite) {
            ploop_pio_prep_writev(pio, offset, &iov, 1, 0);
        } else {
            ploop_pio_prep_readv(pio, offset, &iov, 1);
        }
        ploop_queue_submit(queue, &pio, 1);
        if ((i + 1) % depth == 0 || i + 1 == count) {
            ploop_queue_run(queue);
        }
    }
    measuring = false;
    error = ploop_dev_close(dev);
    if (error || failures) {
        return fail("close", error ? error : -5);
    }
    ploop_file_close(file);
    ploop_file_close(memory);
    return 0;
}
