/* SPDX-License-Identifier: MIT */
/*
 * P3 and P7: writes to what is not mapped yet, past the page cache: a device over the io_uring and
 * over the POSIX backend beside raw io_uring, which writes into a sparse file. Each round has new
 * files.
 */
#include "support/ways.h"

enum { KIBIBYTE = 1024 };
#define GIBIBYTE (UINT64_C(1) << 30)

int main(void)
{
    const struct comparison comparisons[] = {
        {.row = "P3",
         .what = "random 4 KiB QD32, no flush",
         .load = {.random = true, .bytes = 4 * KIBIBYTE, .depth = 32, .count = 320},
         .slices = 6,
         .rounds = 3},
        {.row = "P3",
         .what = "random 4 KiB QD32, a flush every 32",
         .load =
             {.random = true, .bytes = 4 * KIBIBYTE, .depth = 32, .count = 96, .flush_every = 32},
         .slices = 10,
         .rounds = 3},
        {.row = "P7",
         .what = "sequential 64 KiB QD1",
         .load = {.bytes = 64 * KIBIBYTE, .depth = 1, .count = 100},
         .slices = 8,
         .rounds = 7},
        {.row = "P7",
         .what = "sequential 64 KiB QD16",
         .load = {.bytes = 64 * KIBIBYTE, .depth = 16, .count = 200},
         .slices = 8,
         .rounds = 7},
    };
    for (unsigned i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++) {
        struct comparison comparison = comparisons[i];
        comparison.load.write = comparison.fresh = true;
        comparison.load.disk_size = 16 * GIBIBYTE;
        way_compare(&comparison);
    }
    return 0;
}
