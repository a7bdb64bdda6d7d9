/* SPDX-License-Identifier: MIT */
/*
 * P4 and P5: page writes and SYNCs over a memory backend, with a clock that this program sets, so
 * that the same command prints the same figures everywhere.
 *
 *   writeback DIR --json 10,000 random allocating 4 KiB writes to a disk of 16 GiB with 1 MiB
 *                        clusters (17 map pages), 32 in flight, and each 32 in a millisecond: with
 *                        a flush every 32; and without a flush, with a delay and a maximum age of
 *                        20 ms. Then a page that is dirtied all the time.
 *   writeback delays     the same writes at one a millisecond, for several delays and maximum
 *                        ages: lines for gnuplot
 */
#include "support/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WRITES = 10000, IN_FLIGHT = 32, BLOCK = 4096 };
#define MILLISECOND UINT64_C(1000000)
#define CLUSTER (UINT64_C(1) << 20)
#define DISK (UINT64_C(16) << 30)

static uint64_t now;
static uint32_t live;
static uint64_t random_state = 1;

static uint64_t now_ns(void *context)
{
    (void)context;
    return now;
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    (void)user_data;
    bench_check("a request", result);
    live--;
    ploop_pio_put(pio);
}

struct bench {
    ploop_file *file;
    ploop_dev *dev;
    ploop_queue *queue;
    char block[BLOCK];
    struct iovec iov;
};

static void begin(struct bench *bench, uint64_t delay_ns, uint64_t max_age_ns)
{
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK, .cluster_size = CLUSTER};
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns};
    struct ploop_dev_config config;
    now = MILLISECOND;
    random_state = 1;
    ploop_dev_config_init(&config, sizeof(config));
    config.writeback_delay_ns = delay_ns;
    config.writeback_max_age_ns = max_age_ns;
    config.clock = &clock;
    int error = ploop_file_create_memory(0, &bench->file);
    error = error ? error : ploop_image_create(bench->file, &options);
    error = error ? error : ploop_dev_open(&bench->file, 1, &config, &bench->dev);
    bench_check("open", error);
    bench->queue = ploop_dev_queue(bench->dev, 0);
    memset(bench->block, 0x5a, sizeof(bench->block));
    bench->iov = (struct iovec){bench->block, sizeof(bench->block)};
}

static struct ploop_dev_info counters(const struct bench *bench)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    ploop_dev_info(bench->dev, &info);
    return info;
}

static void end(struct bench *bench)
{
    bench_check("close", ploop_dev_close(bench->dev));
    ploop_file_close(bench->file);
}

static void submit_write(struct bench *bench, uint64_t offset)
{
    ploop_pio *pio = ploop_pio_get(bench->queue);
    ploop_pio_prep_writev(pio, offset, &bench->iov, 1, 0);
    ploop_pio_set_callback(pio, done, NULL);
    live++;
    bench_check("submit", ploop_queue_submit(bench->queue, &pio, 1) - 1);
}

static uint64_t random_offset(void)
{
    return bench_random(&random_state) % (DISK / BLOCK) * BLOCK;
}

/* The time of a request that waits for the disk; only ratios to the delay matter. */
static void pass(struct bench *bench, uint64_t time_ns)
{
    now += time_ns;
    ploop_queue_run(bench->queue);
}

static void count_writes(bool flushing, uint64_t delay_ns, uint64_t max_age_ns)
{
    struct bench bench;
    begin(&bench, delay_ns, max_age_ns);
    struct ploop_dev_info before = counters(&bench);
    uint64_t started = now;
    for (uint32_t i = 0; i < WRITES; i++) {
        submit_write(&bench, random_offset());
        if ((i + 1) % IN_FLIGHT == 0) {
            while (live) {
                ploop_queue_run(bench.queue);
            }
            if (flushing) {
                bench_check("flush", ploop_dev_flush(bench.dev));
            }
            pass(&bench, MILLISECOND);
        }
    }
    struct ploop_dev_info after = counters(&bench);
    double pages = (double)(after.page_writes - before.page_writes);
    double flushes = (double)(after.flushes - before.flushes);
    uint64_t delays = (now - started + delay_ns - 1) / delay_ns;
    if (flushing) {
        bench_print("P4", "metadata bytes per data byte, a flush every 32", pages / WRITES, NAN,
                    "bytes per byte");
        bench_print("P4", "syncs per flush", (double)(after.syncs - before.syncs) / flushes, NAN,
                    "syncs");
    } else {
        bench_print("P5", "page writes with no flush, for each page and delay",
                    pages / (double)(ploop_bat_page_count(bench.dev) * delays), NAN, "writes");
    }
    end(&bench);
}

static void delays(void)
{
    static const uint32_t delay_ms[] = {0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};
    static const uint32_t ages[] = {1, 2, 10, 1000};
    printf("# delay_ms  page writes for 10,000 allocating writes in 10 s, with a maximum age of 1, "
           "2, 10 and 1000 delays\n");
    for (size_t i = 0; i < sizeof(delay_ms) / sizeof(delay_ms[0]); i++) {
        printf("%" PRIu32, delay_ms[i]);
        for (size_t age = 0; age < sizeof(ages) / sizeof(ages[0]); age++) {
            struct bench bench;
            begin(&bench, delay_ms[i] * MILLISECOND,
                  (uint64_t)delay_ms[i] * ages[age] * MILLISECOND);
            struct ploop_dev_info before = counters(&bench);
            for (uint32_t n = 0; n < WRITES; n++) {
                submit_write(&bench, random_offset());
                pass(&bench, MILLISECOND);
            }
            printf(" %" PRIu64, counters(&bench).page_writes - before.page_writes);
            end(&bench);
        }
        printf("\n");
    }
}

static void hot(void)
{
    struct bench bench;
    uint64_t delay = 500 * MILLISECOND, max_age = 2000 * MILLISECOND, time = 60000 * MILLISECOND;
    begin(&bench, delay, max_age);
    uint64_t started = now;
    for (uint64_t cluster = 0; now - started < time; cluster++) {
        /* Allocate and discard in turn: the first page's entries change all the time. */
        uint64_t offset = cluster / 2 % 64 * CLUSTER;
        ploop_pio *pio = ploop_pio_get(bench.queue);
        if (cluster % 2) {
            ploop_pio_prep_discard(pio, offset, CLUSTER);
        } else {
            ploop_pio_prep_writev(pio, offset, &bench.iov, 1, 0);
        }
        ploop_pio_set_callback(pio, done, NULL);
        live++;
        ploop_queue_submit(bench.queue, &pio, 1);
        pass(&bench, 10 * MILLISECOND);
    }
    struct ploop_bat_page_info page = {.size = sizeof(page)};
    ploop_bat_page_info(bench.dev, 0, &page);
    bench_print("P5", "page that changes all the time: writes for each maximum age",
                (double)page.writes / (double)(time / max_age), NAN, "writes");
    end(&bench);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[argc - 1] : "";
    if (strcmp(what, "--json") == 0) {
        count_writes(false, 20 * MILLISECOND, 20 * MILLISECOND);
        count_writes(true, 500 * MILLISECOND, 5000 * MILLISECOND);
        hot();
    } else if (strcmp(what, "delays") == 0) {
        delays();
    } else {
        fprintf(stderr, "usage: writeback [BUILD_DIR] --json|delays\n");
        return 1;
    }
    return 0;
}
