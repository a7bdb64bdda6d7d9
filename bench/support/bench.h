/* SPDX-License-Identifier: MIT */
/*
 * What the measuring programs of bench/ share: how they print a figure, end after an error, take
 * times, and the backend over which they count what the library does.
 *
 * A measuring program prints a line of JSON for each figure and nothing else to stdout:
 *
 *     {"row":"P4","what":"...","ours":0.41,"peer":null,"ratio":null,"unit":"..."}
 *
 * `row` and `what` name the figure; bench/limits has its target. The ratio is ours to the peer's.
 */
#ifndef BENCH_H
#define BENCH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

/*
 * What lies between the two is counted under callgrind --instr-atstart=no: bench/callgrind.py.
 * Without valgrind's header, or outside of it, they do nothing.
 */
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define BENCH_COUNT_BEGINS() CALLGRIND_START_INSTRUMENTATION
#define BENCH_COUNT_ENDS() CALLGRIND_STOP_INSTRUMENTATION
#else
#define BENCH_COUNT_BEGINS() ((void)0)
#define BENCH_COUNT_ENDS() ((void)0)
#endif

/* Print a figure; NAN is one that is missing. */
void bench_print(const char *row, const char *what, double ours, double peer, const char *unit);

/* End the program after a negative result, an -errno. */
void bench_check(const char *what, int64_t result);

uint64_t bench_random(uint64_t *state);

uint64_t bench_now_ns(void *context); /* a ploop_clock.now_ns, too */
uint64_t bench_thread_cpu_ns(void);
uint64_t bench_process_cpu_ns(void);

double bench_median(double *values, uint32_t count); /* sorts them */

/* ---- an inline backend that moves no bytes ---- */

/*
 * Create an image on a backend that keeps only its map: what lies behind it is neither stored nor
 * read, and every request completes before submit returns. One file at a time.
 */
ploop_file *bench_map_only(uint64_t disk_size, uint64_t cluster_size);
/* Enter every cluster of the disk in the map, in order. Before a device opens the image. */
void bench_map_all(void);
/* The same for about that many of a hundred clusters, here and there; the others are left free. */
void bench_map_share(uint64_t percent);
/* Whether the last of the two has entered a guest cluster. */
bool bench_is_mapped(uint64_t guest_cluster);
/* Requests that the file got, by operation. */
extern uint64_t bench_map_requests[PLOOP_IO_TRUNCATE + 1];
void bench_map_only_close(ploop_file *file);

#endif
