/* SPDX-License-Identifier: MIT */
/*
 * The same requests by three ways, in one process: raw io_uring on a plain file, and a device over
 * the io_uring and over the POSIX backend. A file of each way is open at a time; requests in flight
 * are kept at a depth, and those that complete together are submitted again together.
 */
#ifndef WAYS_H
#define WAYS_H

#include <stdbool.h>
#include <stdint.h>

enum way { WAY_RAW, WAY_URING, WAY_POSIX, WAYS };
enum { WAY_DEPTH_MAX = 32, WAY_BYTES_MAX = 65536 };

struct load {
    bool write, random;
    uint32_t bytes; /* of a request, at most WAY_BYTES_MAX */
    uint32_t depth; /* at most WAY_DEPTH_MAX */
    uint32_t count;
    uint32_t flush_every; /* requests, a multiple of depth; 0: never. When they have completed */
    uint64_t disk_size;   /* the part of the disk that random requests go to */
    uint64_t start;       /* where sequential requests begin; a seed of random ones */
};

struct cost {
    double cpu_us, wall_us; /* per request; CPU time of the whole process */
};

/* What is printed: the backend's name. */
extern const char *const way_names[WAYS];

/*
 * Create a file in BENCH_BUILD, or the current directory, and open it; with `direct` past the page
 * cache. The file is unlinked at once.
 */
void way_open(enum way way, uint64_t disk_size, bool direct);
/* Open an image that exists, past the page cache, as WAY_URING. */
void way_open_image(const char *path);
/* Write all of it, and make that durable. */
void way_fill(enum way way, uint64_t length);
void way_load(enum way way, const struct load *load);
struct cost way_measure(enum way way, const struct load *load);
void way_close(enum way way);

/*
 * Carry the load out by all ways in turn, slice by slice, and print the medians: CPU time per
 * request and throughput, each beside raw's. Short slices in turn see the same noise of a busy
 * machine.
 */
enum { SAMPLES_MAX = 64 };
struct comparison {
    const char *row, *what;
    struct load load;        /* a slice */
    uint32_t slices, rounds; /* at most SAMPLES_MAX slices in all */
    bool fresh;              /* each round has new files, direct ones; the slices go on in them */
    bool cpu;                /* print CPU time, too */
};
void way_compare(const struct comparison *comparison);

#endif
