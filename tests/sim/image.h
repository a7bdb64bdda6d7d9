/* SPDX-License-Identifier: MIT */
/*
 * The images of the simulation, written by hand rather than by the library: small clusters, at
 * least three BAT pages, either version, a data area that may begin inside the last BAT page, guest
 * clusters mapped from the start, unowned host clusters full of old bytes, a file of odd size, a
 * format extension.
 */
#ifndef SIM_IMAGE_H
#define SIM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "rng.h"

enum { IMAGE_HOT_MAX = 64, IMAGE_RUNS_MAX = 8 };

/* Adjacent guest clusters: requests stay within a run. */
struct run_of_clusters {
    uint32_t first, count;
};

struct image {
    bool v1;
    uint32_t cluster_sectors;
    uint32_t entries;
    uint64_t disk_sectors;
    uint64_t data_off;             /* sectors */
    uint64_t bat_end;              /* bytes, up to a sector */
    uint32_t host_clusters, leaks; /* at the start; leaks are unowned and full of old bytes */
    uint32_t mapped;
    uint64_t tail;       /* bytes after the last whole cluster */
    uint64_t cut_bytes;  /* of the last cluster, which is mapped, missing: see cut_tail.h */
    bool closed_ext;     /* in_use 0x312e3276 */
    char features[8];    /* of its format extension, see extension.h; "": none */
    bool void_extension; /* it has one, and in_use is 0 */
    uint64_t version;    /* that mapped sectors carry; 1 if 0 */
    struct run_of_clusters runs[IMAGE_RUNS_MAX];
    uint32_t run_count;
    uint32_t hot[IMAGE_HOT_MAX];
    uint32_t hot_count;
    uint32_t later_hot;     /* behind those: hot clusters that only a larger disk has */
    uint64_t later_sectors; /* the disk may grow to that; 0: it does not */
};

void image_random(struct image *image, struct rng *rng);

/*
 * A fixed image for the scenarios: version 2 with 4 KiB clusters, or version 1 with odd data_off;
 * three pages.
 */
void image_fixed(struct image *image, bool odd_v1, uint32_t mapped, uint32_t leaks);

/*
 * The smallest image: three guest clusters of two sectors, all hot, in one page; or, `split`, the
 * first of them the last of page 0. With `used`, one of them is mapped, a host cluster is unowned
 * and full of old bytes, and the format is version 1, whose data begins inside the last page.
 */
void image_small(struct image *image, bool used, bool split);

/* Give it a format extension, void or not. */
void image_extend(struct image *image, const char *features, bool is_void);

/*
 * The disk may grow, by so many entries at most: runs and hot clusters behind its end. Some images
 * get a disk that is smaller than their entries allow, and clusters mapped beyond its end.
 */
void image_let_grow(struct image *image, struct rng *rng);

/* An image that can lie below another, with a base's content; it may be smaller. */
void image_below(struct image *image, const struct image *top, struct rng *rng);

/* Its bytes; *size of them; free them with sim_free(). Mapped guest sectors carry its version. */
uint8_t *image_build(const struct image *image, struct rng *rng, uint64_t *size);

/*
 * Which of the hot clusters are mapped in a fresh image: the first `mapped` of a shuffle by the rng
 * handed to image_build().
 */

/* Store numbers in the format's byte order. */
void put32(uint8_t *bytes, uint64_t value);
void put64(uint8_t *bytes, uint64_t value);

#endif
