/* SPDX-License-Identifier: MIT */
/*
 * How long a large request delays others: one thread's runs carry out a discard of 200,000 mapped
 * clusters, while another thread writes 4 KiB through the engine as fast as it can. Prints the time
 * of the discard's submit, the longest run, and the longest of the other thread's writes, from
 * submit to callback. The backend completes inline and keeps the map only, so that only the
 * library's own work is measured. A busy machine adds its own pauses to the figures.
 */
#include <ploop/ploop.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLUSTER = 4096, CLUSTERS = 200000, OTHERS = 1000, WRITE_AT_ONCE = 1 << 20 };

static ploop_file *memory;
static uint64_t data_offset; /* bytes behind it are not kept */
static ploop_dev *dev;
static atomic_bool finished;

static uint64_t now_ns(void *context)
{
    struct timespec now;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The main thread runs the device all the time. */
static void wake_at(void *context, uint64_t deadline_ns)
{
    (void)context;
    (void)deadline_ns;
}

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    return ploop_file_info(memory, info);
}

static int submit(void *context, struct ploop_io *io)
{
    int64_t result = (int64_t)io->length;
    uint64_t at = io->offset;
    (void)context;
    for (uint32_t i = 0; i < io->iov_count && at < data_offset && result >= 0; i++) {
        const struct iovec *piece = &io->iov[i];
        result = io->op == PLOOP_IO_READ
                     ? ploop_file_pread(memory, piece->iov_base, piece->iov_len, at)
                     : ploop_file_pwrite(memory, piece->iov_base, piece->iov_len, at);
        at += piece->iov_len;
    }
    if (io->op == PLOOP_IO_TRUNCATE) {
        result = ploop_file_truncate(memory, io->offset);
    }
    ploop_io_complete(io, result < 0 ? result : (int64_t)io->length);
    return 0;
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    if (result) {
        fprintf(stderr, "turn: a request failed: %s\n", strerror(-result));
        exit(1);
    }
    atomic_store((atomic_bool *)user_data, true);
}

struct figures {
    uint64_t count, longest_ns;
};

/* Write one request after another, each into one of the clusters behind the discarded ones. */
static void *write_on(void *argument)
{
    struct figures *figures = argument;
    static uint8_t block[CLUSTER];
    const struct iovec iov = {block, sizeof(block)};
    ploop_queue *queue = ploop_dev_queue(dev, 1);
    for (; !atomic_load(&finished); figures->count++) {
        atomic_bool written = false;
        ploop_pio *pio = ploop_pio_get(queue);
        ploop_pio_prep_writev(pio, (CLUSTERS + figures->count % OTHERS) * CLUSTER, &iov, 1, 0);
        ploop_pio_set_callback(pio, done, &written);
        uint64_t begun = now_ns(NULL);
        ploop_queue_submit(queue, &pio, 1);
        while (!atomic_load(&written)) {
            ploop_queue_run(queue);
        }
        uint64_t took = now_ns(NULL) - begun;
        figures->longest_ns = took > figures->longest_ns ? took : figures->longest_ns;
        ploop_pio_put(pio);
    }
    return NULL;
}

static int prepare(ploop_file **file)
{
    struct ploop_io_ops ops = {.size = sizeof(ops), .get_info = get_info, .submit = submit};
    struct ploop_image_options image = {.size = sizeof(image),
                                        .disk_size = (uint64_t)(CLUSTERS + OTHERS) * CLUSTER,
                                        .cluster_size = CLUSTER};
    struct ploop_image_info info = {.size = sizeof(info)};
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns, .wake_at = wake_at};
    struct ploop_dev_config config;
    static uint8_t bytes[WRITE_AT_ONCE];
    int error = ploop_file_create_memory(0, &memory);
    error = error ? error : ploop_image_create(memory, &image);
    error = error ? error : ploop_image_probe(memory, &info);
    data_offset = info.data_offset;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_NO_FAST_PATH;
    config.queue_count = 2;
    config.clock = &clock;
    error = error ? error : ploop_file_create(&ops, NULL, file);
    error = error ? error : ploop_dev_open(file, 1, &config, &dev);
    for (uint64_t at = 0; at < image.disk_size && !error; at += sizeof(bytes)) {
        uint64_t length =
            image.disk_size - at < sizeof(bytes) ? image.disk_size - at : sizeof(bytes);
        error = ploop_dev_pwrite(dev, bytes, length, at) < 0 ? -1 : 0;
    }
    return error ? error : ploop_dev_flush(dev);
}

int main(void)
{
    ploop_file *file;
    struct figures others = {0};
    pthread_t thread;
    if (prepare(&file) || pthread_create(&thread, NULL, write_on, &others)) {
        fprintf(stderr, "turn: cannot prepare\n");
        return 1;
    }
    atomic_bool discarded = false;
    uint64_t runs = 0, longest_ns = 0;
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    ploop_pio_prep_discard(pio, 0, (uint64_t)CLUSTERS * CLUSTER);
    ploop_pio_set_callback(pio, done, &discarded);
    uint64_t begun = now_ns(NULL);
    ploop_queue_submit(ploop_dev_queue(dev, 0), &pio, 1);
    uint64_t submitted_ns = now_ns(NULL) - begun;
    for (; !atomic_load(&discarded); runs++) {
        uint64_t run = now_ns(NULL);
        ploop_queue_run(ploop_dev_queue(dev, 0));
        run = now_ns(NULL) - run;
        longest_ns = run > longest_ns ? run : longest_ns;
    }
    uint64_t all_ns = now_ns(NULL) - begun;
    atomic_store(&finished, true);
    pthread_join(thread, NULL);
    printf("discard of %d mapped clusters: %.1f ms; its submit %.3f ms, the longest of %llu runs "
           "%.3f ms\n",
           CLUSTERS, (double)all_ns / 1e6, (double)submitted_ns / 1e6, (unsigned long long)runs,
           (double)longest_ns / 1e6);
    printf("writes beside it: %llu, the longest %.3f ms from submit to completion\n",
           (unsigned long long)others.count, (double)others.longest_ns / 1e6);
    ploop_pio_put(pio);
    int error = ploop_dev_close(dev);
    ploop_file_close(file);
    ploop_file_close(memory);
    return error ? 1 : 0;
}
