/* SPDX-License-Identifier: MIT */
/*
 * P12: a run that writes 16 dirty pages must not cost more because the map has more pages.
 * bench/callgrind.py counts the instructions of that run.
 *
 *   dirty_pages PAGES
 */
#include "support/bench.h"

#include <stdio.h>
#include <stdlib.h>

enum { DIRTY = 16, BLOCK = 4096, ENTRIES = 1024 };
#define CLUSTER (UINT64_C(1) << 20)
#define SECOND UINT64_C(1000000000)

static uint64_t now = SECOND;

static uint64_t now_ns(void *context)
{
    (void)context;
    return now;
}

static char block[BLOCK] = {1}; /* zeros would take no cluster */

/* One new cluster in each of 16 pages that are spread over the map. */
static void make_dirty(ploop_dev *dev, uint64_t pages, uint64_t entry)
{
    for (uint64_t i = 0; i < DIRTY; i++) {
        uint64_t cluster = pages / DIRTY * i * ENTRIES + entry;
        bench_check("write", ploop_dev_pwrite(dev, block, sizeof(block), cluster * CLUSTER));
    }
}

int main(int argc, char **argv)
{
    uint64_t pages = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    if (pages < DIRTY) {
        fprintf(stderr, "usage: dirty_pages PAGES\n");
        return 1;
    }
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns};
    struct ploop_dev_config config;
    ploop_dev *dev;
    /* Page 0 begins with the header: 16 entries less. */
    ploop_file *file = bench_map_only((pages * ENTRIES - 16) * CLUSTER, CLUSTER);
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = &clock;
    bench_check("open", ploop_dev_open(&file, 1, &config, &dev));
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    /* The first time warms caches of the allocator and of the loader. */
    for (uint64_t round = 0; round < 2; round++) {
        make_dirty(dev, pages, 100 + round);
        now += 10 * SECOND;
        if (round == 0) {
            ploop_queue_run(queue);
            bench_check("flush", ploop_dev_flush(dev));
        }
    }
    struct ploop_dev_info before = {.size = sizeof(before)}, after = {.size = sizeof(after)};
    ploop_dev_info(dev, &before);
    BENCH_COUNT_BEGINS();
    ploop_queue_run(queue);
    BENCH_COUNT_ENDS();
    ploop_dev_info(dev, &after);
    bench_check("16 page writes", after.page_writes - before.page_writes == DIRTY ? 0 : -5);
    ploop_dev_abort(dev);
    bench_map_only_close(file);
    return 0;
}
