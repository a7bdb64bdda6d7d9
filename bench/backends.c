/* SPDX-License-Identifier: MIT */
/*
 * What a mapped 4 KiB request costs over a real file: raw io_uring on a plain file, and a device
 * over the io_uring and the POSIX backend, in turn, in one run. CPU time of the whole process per
 * request, and time, as ratios to raw: the medians of the rounds.
 *
 *   backends DIRECTORY [buffered]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>
#include <ploop/ploop.h>

enum { BLOCK = 4096, BLOCKS = 16384, REQUESTS = 4000, ROUNDS = 9, DEPTH_MAX = 32 };
enum way { RAW, URING, POSIX, WAYS };

static const char *const way_names[] = {"raw", "io_uring", "posix"};

struct cost {
    double cpu_us, wall_us; /* per request */
};

static bool direct = true;
static uint8_t *memory[DEPTH_MAX];
static uint64_t random_state;

static void die(const char *what, int error)
{
    fprintf(stderr, "backends: %s: %s\n", what, strerror(error < 0 ? -error : error));
    exit(1);
}

static uint64_t next_offset(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % BLOCKS * BLOCK;
}

/* ---- raw ---- */

static int raw_fd;
static struct io_uring raw_ring;

static void raw_open(const char *path)
{
    raw_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | (direct ? O_DIRECT : 0), 0600);
    if (raw_fd < 0) {
        die(path, -1);
    }
    for (uint64_t offset = 0; offset < (uint64_t)BLOCKS * BLOCK; offset += BLOCK) {
        if (pwrite(raw_fd, memory[0], BLOCK, (off_t)offset) != BLOCK) {
            die("write", -1);
        }
    }
    int error = io_uring_queue_init(128, &raw_ring, 0);
    if (error) {
        die("io_uring", error);
    }
}

static void raw_prepare(bool write, uint32_t slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&raw_ring);
    if (write) {
        io_uring_prep_write(sqe, raw_fd, memory[slot], BLOCK, next_offset());
    } else {
        io_uring_prep_read(sqe, raw_fd, memory[slot], BLOCK, next_offset());
    }
    io_uring_sqe_set_data64(sqe, slot);
}

static void raw_requests(bool write, uint32_t depth)
{
    uint32_t begun = 0, ended = 0;
    struct io_uring_cqe *cqe;
    for (; begun < depth; begun++) {
        raw_prepare(write, begun);
    }
    while (ended < REQUESTS) {
        io_uring_submit_and_wait(&raw_ring, 1);
        while (io_uring_peek_cqe(&raw_ring, &cqe) == 0) {
            uint32_t slot = (uint32_t)io_uring_cqe_get_data64(cqe);
            if (cqe->res != BLOCK) {
                die("raw request", cqe->res);
            }
            io_uring_cqe_seen(&raw_ring, cqe);
            ended++;
            if (begun < REQUESTS) {
                raw_prepare(write, slot);
                begun++;
            }
        }
    }
}

/* ---- ours ---- */

static struct {
    ploop_file *file;
    ploop_dev *dev;
    ploop_queue *queue;
} ours[WAYS];

struct slot {
    ploop_pio *pio;
    struct iovec iov;
};

static struct slot slots[DEPTH_MAX];
static uint32_t our_begun, our_ended;
static bool our_write;

static void our_prepare(struct slot *slot)
{
    if (our_write) {
        ploop_pio_prep_writev(slot->pio, next_offset(), &slot->iov, 1, 0);
    } else {
        ploop_pio_prep_readv(slot->pio, next_offset(), &slot->iov, 1);
    }
}

/* Those that ended in one run are submitted again together. */
static ploop_pio *again[DEPTH_MAX];
static uint32_t again_count;

static void our_done(ploop_pio *pio, int result, void *user_data)
{
    if (result) {
        die("request", result);
    }
    our_ended++;
    if (our_begun < REQUESTS) {
        our_prepare(user_data);
        again[again_count++] = pio;
        our_begun++;
    }
}

static void our_requests(ploop_queue *queue, bool write, uint32_t depth)
{
    our_write = write;
    our_ended = again_count = 0;
    for (our_begun = 0; our_begun < depth; our_begun++) {
        slots[our_begun] =
            (struct slot){.pio = ploop_pio_get(queue), .iov = {memory[our_begun], BLOCK}};
        our_prepare(&slots[our_begun]);
        ploop_pio_set_callback(slots[our_begun].pio, our_done, &slots[our_begun]);
        again[again_count++] = slots[our_begun].pio;
    }
    while (our_ended < REQUESTS) {
        if (again_count) {
            uint32_t count = again_count;
            again_count = 0;
            if (ploop_queue_submit(queue, again, count) != (int)count) {
                die("submit", -1);
            }
        }
        ploop_queue_wait(queue, UINT64_MAX);
    }
    for (uint32_t i = 0; i < depth; i++) {
        ploop_pio_put(slots[i].pio);
    }
}

static void our_open(enum way way, const char *path)
{
    const struct ploop_image_options options = {.size = sizeof(options),
                                                .disk_size = (uint64_t)BLOCKS * BLOCK};
    uint32_t flags = PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE | (direct ? PLOOP_FILE_DIRECT : 0u);
    struct ploop_dev_config config;
    (void)unlink(path);
    int error = way == URING ? ploop_file_open_uring(path, flags, NULL, &ours[way].file)
                             : ploop_file_open_posix(path, flags, &ours[way].file);
    error = error ? error : ploop_image_create(ours[way].file, &options);
    ploop_dev_config_init(&config, sizeof(config));
    error = error ? error : ploop_dev_open(&ours[way].file, 1, &config, &ours[way].dev);
    if (error) {
        die(path, error);
    }
    for (uint64_t offset = 0; offset < (uint64_t)BLOCKS * BLOCK; offset += BLOCK) {
        if (ploop_dev_pwrite(ours[way].dev, memory[0], BLOCK, offset) != BLOCK) {
            die("write", -1);
        }
    }
    error = ploop_dev_flush(ours[way].dev);
    if (error) {
        die("flush", error);
    }
    ours[way].queue = ploop_dev_queue(ours[way].dev, 0);
}

/* ---- the measure ---- */

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

static struct cost measure(enum way way, bool write, uint32_t depth)
{
    struct rusage before, after;
    struct timespec begin, end;
    getrusage(RUSAGE_SELF, &before);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (way == RAW) {
        raw_requests(write, depth);
    } else {
        our_requests(ours[way].queue, write, depth);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    getrusage(RUSAGE_SELF, &after);
    double cpu = seconds(&after.ru_utime) + seconds(&after.ru_stime) - seconds(&before.ru_utime) -
                 seconds(&before.ru_stime);
    double wall = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    return (struct cost){cpu * 1e6 / REQUESTS, wall * 1e6 / REQUESTS};
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), by_value);
    return values[ROUNDS / 2];
}

static void row(bool write, uint32_t depth)
{
    double cpu[WAYS][ROUNDS], wall[WAYS][ROUNDS], cpu_raw = 0, wall_raw = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int way = RAW; way < WAYS; way++) {
            random_state = (uint64_t)round;
            struct cost cost = measure((enum way)way, write, depth);
            cpu[way][round] = cost.cpu_us;
            wall[way][round] = cost.wall_us;
        }
    }
    for (int way = RAW; way < WAYS; way++) {
        double cpu_us = median(cpu[way]), wall_us = median(wall[way]);
        cpu_raw = way == RAW ? cpu_us : cpu_raw;
        wall_raw = way == RAW ? wall_us : wall_raw;
        printf("%-9s  QD%-2" PRIu32
               "  %-8s  CPU %6.2f us, %4.2f of raw    throughput %4.2f of raw\n",
               write ? "overwrite" : "read", depth, way_names[way], cpu_us, cpu_us / cpu_raw,
               wall_raw / wall_us);
    }
}

int main(int argc, char **argv)
{
    char path[WAYS][4096];
    if (argc < 2) {
        fprintf(stderr, "usage: backends DIRECTORY [buffered]\n");
        return 2;
    }
    direct = argc < 3;
    for (int i = 0; i < DEPTH_MAX; i++) {
        if (posix_memalign((void **)&memory[i], BLOCK, BLOCK)) {
            die("no memory", -1);
        }
        memset(memory[i], i, BLOCK);
    }
    for (int way = RAW; way < WAYS; way++) {
        (void)snprintf(path[way], sizeof(path[way]), "%s/backends-%ld-%s", argv[1], (long)getpid(),
                       way_names[way]);
        if (way == RAW) {
            raw_open(path[way]);
        } else {
            our_open((enum way)way, path[way]);
        }
    }
    for (uint32_t depth = 1; depth <= DEPTH_MAX; depth *= DEPTH_MAX) {
        row(false, depth);
        row(true, depth);
    }
    for (int way = RAW; way < WAYS; way++) {
        (void)unlink(path[way]);
        if (way != RAW) {
            ploop_dev_close(ours[way].dev);
            ploop_file_close(ours[way].file);
        }
    }
    return 0;
}
