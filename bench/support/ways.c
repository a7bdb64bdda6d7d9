/* SPDX-License-Identifier: MIT */
/* The same requests by three ways: ways.h. One thread; all state is static. */
#include "ways.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liburing.h>

#include "bench.h"

enum { RING_ENTRIES = 128 };

const char *const way_names[WAYS] = {"raw", "io_uring", "posix"};

static uint8_t memory[WAY_DEPTH_MAX][WAY_BYTES_MAX] __attribute__((aligned(4096)));

/* ---- the load under way ---- */

static struct {
    const struct load *load;
    uint64_t random, next; /* the state of the random numbers; the next sequential offset */
    uint32_t limit;        /* begin no more than that */
    uint32_t begun, ended;
} now;

static uint64_t next_offset(void)
{
    const struct load *load = now.load;
    if (load->random) {
        return bench_random(&now.random) % (load->disk_size / load->bytes) * load->bytes;
    }
    uint64_t offset = now.next;
    now.next += load->bytes;
    return offset;
}

/* ---- raw ---- */

static int raw_fd;
static struct io_uring raw_ring;

static void raw_open(const char *path, uint64_t disk_size, bool direct)
{
    raw_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
    bench_check(path, raw_fd < 0 ? -errno : 0);
    bench_check("size", ftruncate(raw_fd, (off_t)disk_size) ? -errno : 0);
    bench_check("io_uring", io_uring_queue_init(RING_ENTRIES, &raw_ring, 0));
}

static void raw_prepare(uint32_t slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&raw_ring);
    const struct load *load = now.load;
    if (load->write) {
        io_uring_prep_write(sqe, raw_fd, memory[slot], load->bytes, next_offset());
    } else {
        io_uring_prep_read(sqe, raw_fd, memory[slot], load->bytes, next_offset());
    }
    io_uring_sqe_set_data64(sqe, slot);
    now.begun++;
}

static void raw_reap(void)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&raw_ring, &cqe) == 0) {
        uint32_t slot = (uint32_t)io_uring_cqe_get_data64(cqe);
        bench_check("raw request", cqe->res == (int)now.load->bytes ? 0 : -EIO);
        io_uring_cqe_seen(&raw_ring, cqe);
        now.ended++;
        if (now.begun < now.limit) {
            raw_prepare(slot);
        }
    }
}

static void raw_requests(void)
{
    for (uint32_t slot = 0; slot < now.load->depth && now.begun < now.limit; slot++) {
        raw_prepare(slot);
    }
    while (now.ended < now.limit) {
        io_uring_submit_and_wait(&raw_ring, 1);
        raw_reap();
    }
}

static void raw_flush(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&raw_ring);
    struct io_uring_cqe *cqe;
    io_uring_prep_fsync(sqe, raw_fd, IORING_FSYNC_DATASYNC);
    io_uring_submit_and_wait(&raw_ring, 1);
    bench_check("flush", io_uring_wait_cqe(&raw_ring, &cqe));
    bench_check("flush", cqe->res);
    io_uring_cqe_seen(&raw_ring, cqe);
}

/* ---- ours ---- */

static struct {
    ploop_file *file;
    ploop_dev *dev;
    ploop_queue *queue;
} ours[WAYS];

static struct slot {
    ploop_pio *pio;
    struct iovec iov;
} slots[WAY_DEPTH_MAX];

/* Those that ended in one run are submitted again together. */
static ploop_pio *again[WAY_DEPTH_MAX];
static uint32_t again_count;

static void our_device(enum way way)
{
    bench_check("open", ploop_dev_open(&ours[way].file, 1, NULL, &ours[way].dev));
    ours[way].queue = ploop_dev_queue(ours[way].dev, 0);
}

static void our_open(enum way way, const char *path, uint64_t disk_size, bool direct)
{
    const struct ploop_image_options options = {.size = sizeof(options), .disk_size = disk_size};
    uint32_t flags = PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE | (direct ? PLOOP_FILE_DIRECT : 0u);
    bench_check(path, way == WAY_URING ? ploop_file_open_uring(path, flags, NULL, &ours[way].file)
                                       : ploop_file_open_posix(path, flags, &ours[way].file));
    bench_check("create", ploop_image_create(ours[way].file, &options));
    our_device(way);
}

static void our_prepare(struct slot *slot)
{
    if (now.load->write) {
        ploop_pio_prep_writev(slot->pio, next_offset(), &slot->iov, 1, 0);
    } else {
        ploop_pio_prep_readv(slot->pio, next_offset(), &slot->iov, 1);
    }
    again[again_count++] = slot->pio;
    now.begun++;
}

static void our_done(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    bench_check("request", result);
    now.ended++;
    if (now.begun < now.limit) {
        our_prepare(user_data);
    }
}

static void our_requests(ploop_queue *queue)
{
    uint32_t depth = now.load->depth;
    for (uint32_t i = 0; i < depth; i++) {
        slots[i] = (struct slot){ploop_pio_get(queue), {memory[i], now.load->bytes}};
        ploop_pio_set_callback(slots[i].pio, our_done, &slots[i]);
        if (now.begun < now.limit) {
            our_prepare(&slots[i]);
        }
    }
    while (now.ended < now.limit) {
        uint32_t count = again_count;
        again_count = 0;
        if (count) {
            bench_check("submit", ploop_queue_submit(queue, again, count) - (int)count);
        }
        ploop_queue_wait(queue, UINT64_MAX);
    }
    for (uint32_t i = 0; i < depth; i++) {
        ploop_pio_put(slots[i].pio);
    }
}

static void flush_done(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    bench_check("flush", result);
    *(bool *)user_data = true;
}

static void our_flush(ploop_queue *queue)
{
    bool flushed = false;
    ploop_pio *pio = ploop_pio_get(queue);
    ploop_pio_prep_flush(pio);
    ploop_pio_set_callback(pio, flush_done, &flushed);
    bench_check("submit", ploop_queue_submit(queue, &pio, 1) - 1);
    while (!flushed) {
        ploop_queue_wait(queue, UINT64_MAX);
    }
    ploop_pio_put(pio);
}

/* ---- any way ---- */

void way_open(enum way way, uint64_t disk_size, bool direct)
{
    const char *directory = getenv("BENCH_BUILD");
    char path[4096];
    directory = directory ? directory : ".";
    (void)snprintf(path, sizeof(path), "%s/way-%ld-%s", directory, (long)getpid(), way_names[way]);
    memset(memory, 0x5a, sizeof(memory));
    if (way == WAY_RAW) {
        raw_open(path, disk_size, direct);
    } else {
        our_open(way, path, disk_size, direct);
    }
    (void)unlink(path);
}

void way_open_image(const char *path)
{
    uint32_t flags = PLOOP_FILE_READ_WRITE | PLOOP_FILE_DIRECT;
    memset(memory, 0x5a, sizeof(memory));
    bench_check(path, ploop_file_open_uring(path, flags, NULL, &ours[WAY_URING].file));
    our_device(WAY_URING);
}

void way_close(enum way way)
{
    if (way == WAY_RAW) {
        io_uring_queue_exit(&raw_ring);
        close(raw_fd);
    } else {
        ploop_dev_abort(ours[way].dev); /* the file is gone: nothing has to reach it */
        ploop_file_close(ours[way].file);
    }
}

void way_load(enum way way, const struct load *load)
{
    now.load = load;
    now.random = load->start;
    now.next = load->start;
    now.begun = now.ended = 0;
    while (now.ended < load->count) {
        now.limit = load->flush_every ? now.ended + load->flush_every : load->count;
        if (way == WAY_RAW) {
            raw_requests();
        } else {
            our_requests(ours[way].queue);
        }
        if (load->flush_every && way == WAY_RAW) {
            raw_flush();
        } else if (load->flush_every) {
            our_flush(ours[way].queue);
        }
    }
}

void way_fill(enum way way, uint64_t length)
{
    const struct load load = {.write = true,
                              .bytes = WAY_BYTES_MAX,
                              .depth = 1,
                              .count = (uint32_t)(length / WAY_BYTES_MAX),
                              .flush_every = (uint32_t)(length / WAY_BYTES_MAX)};
    way_load(way, &load);
}

struct cost way_measure(enum way way, const struct load *load)
{
    uint64_t cpu = bench_process_cpu_ns(), wall = bench_now_ns(NULL);
    way_load(way, load);
    return (struct cost){(double)(bench_process_cpu_ns() - cpu) / 1e3 / load->count,
                         (double)(bench_now_ns(NULL) - wall) / 1e3 / load->count};
}

struct samples {
    double cpu[SAMPLES_MAX], rate[SAMPLES_MAX];
};

static void print_comparison(const struct comparison *comparison, struct samples samples[WAYS])
{
    uint32_t count = comparison->rounds * comparison->slices;
    double raw_cpu = bench_median(samples[WAY_RAW].cpu, count);
    double raw_rate = bench_median(samples[WAY_RAW].rate, count);
    for (int way = WAY_URING; way < WAYS; way++) {
        char what[160];
        (void)snprintf(what, sizeof(what), "%s, %s, throughput", comparison->what, way_names[way]);
        bench_print(comparison->row, what, bench_median(samples[way].rate, count), raw_rate,
                    "MiB/s");
        if (comparison->cpu) {
            (void)snprintf(what, sizeof(what), "%s, %s, CPU", comparison->what, way_names[way]);
            bench_print(comparison->row, what, bench_median(samples[way].cpu, count), raw_cpu,
                        "us");
        }
    }
}

void way_compare(const struct comparison *comparison)
{
    static struct samples samples[WAYS];
    struct load load = comparison->load;
    uint32_t at = 0;
    for (uint32_t round = 0; round < comparison->rounds; round++) {
        for (int way = WAY_RAW; way < WAYS && comparison->fresh; way++) {
            way_open((enum way)way, load.disk_size, true);
        }
        for (uint32_t slice = 0; slice < comparison->slices; slice++, at++) {
            load.start = (uint64_t)slice * load.count * load.bytes;
            for (int way = WAY_RAW; way < WAYS; way++) {
                struct cost cost = way_measure((enum way)way, &load);
                samples[way].cpu[at] = cost.cpu_us;
                samples[way].rate[at] = load.bytes / cost.wall_us * 1e6 / (1 << 20);
            }
        }
        for (int way = WAY_RAW; way < WAYS && comparison->fresh; way++) {
            way_close((enum way)way);
        }
    }
    print_comparison(comparison, samples);
}
