/* SPDX-License-Identifier: MIT */
/* How a measuring program prints figures, and takes times: bench.h. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_number(const char *name, double value)
{
    if (isnan(value)) {
        printf(",\"%s\":null", name);
    } else {
        printf(",\"%s\":%.6g", name, value);
    }
}

void bench_print(const char *row, const char *what, double ours, double peer, const char *unit)
{
    printf("{\"row\":\"%s\",\"what\":\"%s\"", row, what);
    print_number("ours", ours);
    print_number("peer", peer);
    print_number("ratio", peer > 0 ? ours / peer : NAN);
    printf(",\"unit\":\"%s\"}\n", unit);
    fflush(stdout);
}

void bench_check(const char *what, int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror((int)-result));
        exit(1);
    }
}

uint64_t bench_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static uint64_t time_of(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t bench_now_ns(void *context)
{
    (void)context;
    return time_of(CLOCK_MONOTONIC);
}

uint64_t bench_thread_cpu_ns(void)
{
    return time_of(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t bench_process_cpu_ns(void)
{
    return time_of(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

double bench_median(double *values, uint32_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}
