/* SPDX-License-Identifier: MIT */
/*
 * What space costs, over an inline backend that keeps only the map.
 *
 *   space fill PERCENT COUNT   COUNT new clusters in a file of which PERCENT are used and the rest
 *                              is free, one cluster here and one there; bench/callgrind.py counts
 *                              the instructions (P19)
 *   space                      a full disk of 64 GiB is discarded: backend requests, and CPU time
 */
#include "support/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096 };
#define CLUSTER (UINT64_C(1) << 20)
#define CLUSTERS (UINT64_C(1) << 18)
#define FULL_DISK (UINT64_C(64) << 30)

static char block[BLOCK] = {1}; /* zeros would take no cluster */

static void fill(uint64_t percent, uint64_t count)
{
    struct ploop_dev_config config;
    ploop_dev *dev;
    ploop_file *file = bench_map_only(CLUSTERS * CLUSTER, CLUSTER);
    bench_map_share(percent);
    ploop_dev_config_init(&config, sizeof(config));
    bench_check("open", ploop_dev_open(&file, 1, &config, &dev));
    uint64_t guest = 0, done = 0, warm_up = count / 4;
    for (; done < warm_up + count && guest < CLUSTERS; guest++) {
        if (bench_is_mapped(guest)) {
            continue;
        }
        if (done == warm_up) {
            bench_check("flush", ploop_dev_flush(dev));
            BENCH_COUNT_BEGINS();
        }
        bench_check("write", ploop_dev_pwrite(dev, block, BLOCK, guest * CLUSTER));
        done++;
    }
    BENCH_COUNT_ENDS();
    bench_check("as many clusters", done == warm_up + count ? 0 : -28);
    bench_check("close", ploop_dev_close(dev));
    bench_map_only_close(file);
}

static void discard(void)
{
    ploop_dev *dev;
    ploop_file *file = bench_map_only(FULL_DISK, CLUSTER);
    bench_map_all();
    bench_check("open", ploop_dev_open(&file, 1, NULL, &dev));
    uint64_t before[PLOOP_IO_TRUNCATE + 1], begun = bench_process_cpu_ns();
    memcpy(before, bench_map_requests, sizeof(before));
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pio = ploop_pio_get(queue);
    ploop_pio_prep_discard(pio, 0, FULL_DISK);
    bench_check("discard", ploop_pio_execute(pio));
    ploop_pio_put(pio);
    bench_check("flush", ploop_dev_flush(dev));
    bench_check("close", ploop_dev_close(dev));
    double seconds = (double)(bench_process_cpu_ns() - begun) / 1e9;
    static const struct {
        uint32_t op;
        const char *what;
    } rows[] = {{PLOOP_IO_WRITE, "64 GiB discarded, to the close: page writes"},
                {PLOOP_IO_SYNC, "64 GiB discarded, to the close: SYNCs"},
                {PLOOP_IO_PUNCH, "64 GiB discarded, to the close: punches"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t count = bench_map_requests[rows[i].op] - before[rows[i].op];
        bench_print("P19", rows[i].what, (double)count, NAN, "requests");
    }
    bench_print("P19", "64 GiB discarded, to the close: CPU", seconds, NAN, "s");
    bench_map_only_close(file);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "fill") == 0) {
        fill(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    } else {
        discard();
    }
    return 0;
}
