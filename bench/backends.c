/* SPDX-License-Identifier: MIT */
/*
 * P2: what mapped 4 KiB requests cost over a real file: a device over the io_uring and over the
 * POSIX backend beside raw io_uring, past the page cache and through it; CPU time of the process
 * per request, and throughput.
 *
 *   backends BUILD_DIR --json     files in BENCH_BUILD, or in the current directory
 *   backends reads IMAGE COUNT    for P1b: reads at depth 32 from the first 64 MiB of an image, for
 *                                 bench/callgrind.py
 */
#include "support/bench.h"
#include "support/ways.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, SLICES = 45, REQUESTS = 800 };
#define FILLED (UINT64_C(64) << 20)

static void compare(bool direct)
{
    static const uint32_t depths[] = {1, WAY_DEPTH_MAX};
    for (int way = WAY_RAW; way < WAYS; way++) {
        way_open((enum way)way, FILLED, direct);
        way_fill((enum way)way, FILLED);
    }
    for (size_t i = 0; i < 4; i++) {
        char what[80];
        bool write = i % 2;
        uint32_t depth = depths[i / 2];
        (void)snprintf(what, sizeof(what), "%s %s QD%u", direct ? "direct" : "buffered",
                       write ? "overwrite" : "read", (unsigned)depth);
        const struct comparison comparison = {.row = "P2",
                                              .what = what,
                                              .load = {.write = write,
                                                       .random = true,
                                                       .bytes = BLOCK,
                                                       .depth = depth,
                                                       .count = REQUESTS,
                                                       .disk_size = FILLED},
                                              .slices = SLICES,
                                              .rounds = 1,
                                              .cpu = true};
        way_compare(&comparison);
    }
    for (int way = WAY_RAW; way < WAYS; way++) {
        way_close((enum way)way);
    }
}

/* Whole batches between the marks: the first requests warm caches up. */
static void count_reads(const char *image, uint32_t count)
{
    struct load load = {.random = true,
                        .bytes = BLOCK,
                        .depth = WAY_DEPTH_MAX,
                        .count = 10 * WAY_DEPTH_MAX,
                        .disk_size = FILLED};
    way_open_image(image);
    way_load(WAY_URING, &load);
    load.count = count;
    BENCH_COUNT_BEGINS();
    way_load(WAY_URING, &load);
    BENCH_COUNT_ENDS();
    way_close(WAY_URING);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "reads") == 0) {
        count_reads(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
    } else {
        compare(true);
        compare(false);
    }
    return 0;
}
