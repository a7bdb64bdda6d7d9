/* SPDX-License-Identifier: MIT */
/*
 * P1: a mapped 4 KiB request from submit to callback, over an inline backend that moves no bytes.
 * bench/callgrind.py counts the instructions, and subtracts those of this file and of its backend.
 * The requests are submitted one by one; the queue runs once for each DEPTH of them.
 *
 *   instructions read|overwrite COUNT DEPTH
 */
#include "support/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, WARM_UP = 1000 };
#define CLUSTER (UINT64_C(1) << 20)
#define CLUSTERS UINT64_C(64)

static char block[BLOCK];
static const struct iovec iov = {block, sizeof(block)};
static uint64_t failures;

static void done(ploop_pio *pio, int result, void *user_data)
{
    (void)user_data;
    failures += result != 0;
    ploop_pio_put(pio);
}

static void requests(ploop_queue *queue, bool overwrite, uint64_t count, uint64_t depth)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = i * 17 % CLUSTERS * CLUSTER;
        ploop_pio *pio = ploop_pio_get(queue);
        ploop_pio_set_callback(pio, done, NULL);
        if (overwrite) {
            ploop_pio_prep_writev(pio, offset, &iov, 1, 0);
        } else {
            ploop_pio_prep_readv(pio, offset, &iov, 1);
        }
        ploop_queue_submit(queue, &pio, 1);
        if ((i + 1) % depth == 0) {
            ploop_queue_run(queue);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: instructions read|overwrite COUNT DEPTH\n");
        return 1;
    }
    bool overwrite = strcmp(argv[1], "overwrite") == 0;
    uint64_t depth = strtoull(argv[3], NULL, 10);
    ploop_file *file = bench_map_only(CLUSTERS * CLUSTER, CLUSTER);
    ploop_dev *dev;
    bench_map_all();
    bench_check("open", ploop_dev_open(&file, 1, NULL, &dev));
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    requests(queue, overwrite, WARM_UP * depth, depth);
    BENCH_COUNT_BEGINS();
    requests(queue, overwrite, strtoull(argv[2], NULL, 10), depth);
    BENCH_COUNT_ENDS();
    bench_check("a request", failures ? -5 : 0);
    bench_check("close", ploop_dev_close(dev));
    bench_map_only_close(file);
    return 0;
}
