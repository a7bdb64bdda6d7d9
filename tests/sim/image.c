/* SPDX-License-Identifier: MIT */
/* See image.h. */
#include "image.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base.h"
#include "disk.h"
#include "extension.h"
#include "model.h"
#include "report.h"

enum { HEADER = 64, PAGE = 4096, FIRST_PAGE = (PAGE - HEADER) / 4, PER_PAGE = PAGE / 4 };

void put32(uint8_t *bytes, uint64_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

void put64(uint8_t *bytes, uint64_t value)
{
    put32(bytes, value);
    put32(bytes + 4, value >> 32);
}

static void add_run(struct image *image, uint32_t first, uint32_t count)
{
    if (image->run_count)
        while (image->runs[image->run_count - 1].first + image->runs[image->run_count - 1].count >
               first) {
            if (!count--)
                return;
            first++;
        }
    if (!count)
        return;
    image->runs[image->run_count].first = first;
    image->runs[image->run_count++].count = count;
    for (uint32_t i = 0; i < count; i++)
        image->hot[image->hot_count++] = first + i;
}

/* Runs at the start, over both borders between pages, and at the disk's end. */
static void choose_hot(struct image *image, uint32_t first, uint32_t each)
{
    uint32_t clusters =
        (uint32_t)((image->disk_sectors + image->cluster_sectors - 1) / image->cluster_sectors);
    add_run(image, 0, first);
    add_run(image, FIRST_PAGE - each / 2, each);
    add_run(image, FIRST_PAGE + PER_PAGE - each / 2, each);
    add_run(image, clusters - each / 2 - 1, each / 2 + 1);
}

static void lay_out(struct image *image, uint64_t extra)
{
    uint64_t end = HEADER + 4 * (uint64_t)image->entries;
    image->bat_end = (end + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    image->data_off = image->bat_end / DISK_SECTOR + extra;
    if (!image->v1)
        image->data_off = (image->data_off + image->cluster_sectors - 1) / image->cluster_sectors *
                          image->cluster_sectors;
}

void image_random(struct image *image, struct rng *rng)
{
    static const uint32_t clusters[] = {1, 1, 2, 2, 4, 8, 8, 3};
    memset(image, 0, sizeof(*image));
    image->v1 = rng_permille(rng, 500);
    image->cluster_sectors = clusters[rng_below(rng, sizeof(clusters) / sizeof(clusters[0]))];
    image->entries =
        (uint32_t)rng_between(rng, FIRST_PAGE + PER_PAGE + 16, FIRST_PAGE + PER_PAGE + 1500);
    image->disk_sectors =
        (uint64_t)image->entries * image->cluster_sectors - rng_below(rng, image->cluster_sectors);
    lay_out(image, rng_permille(rng, 300) ? rng_below(rng, 10) : 0);
    struct rng longer = {rng->state ^ 0x73747265616d}; /* the other images stay the same */
    uint32_t each = (uint32_t)rng_between(rng, 2, image->cluster_sectors > 4 ? 3 : 5), first = each;
    if (rng_permille(&longer, 300)) /* long enough for a stream: see step_stream() */
        first = (uint32_t)rng_between(&longer, 6, image->cluster_sectors > 4 ? 8 : 12);
    choose_hot(image, first, each);
    image->mapped = (uint32_t)rng_below(rng, image->hot_count / 2 + 1);
    image->leaks = (uint32_t)rng_below(rng, 4);
    image->host_clusters = image->mapped + image->leaks;
    if (rng_permille(rng, 200))
        image->tail = rng_between(rng, 1, (uint64_t)image->cluster_sectors * DISK_SECTOR - 1);
    image->closed_ext = rng_permille(rng, 100);
    static const char *const features[] = {"b", "t", "bt", "tp", "pTbt", "bt"};
    struct rng apart = {rng->state ^ 0x657874656e73696f}; /* the other images stay the same */
    if (rng_permille(&apart, 250)) {
        uint64_t which = rng_below(&apart, 6);
        image_extend(image, features[which], which == 5);
    }
}

void image_extend(struct image *image, const char *features, bool is_void)
{
    snprintf(image->features, sizeof(image->features), "%s", features);
    image->void_extension = is_void;
    image->closed_ext = !is_void;
    image->host_clusters += strchr(features, 'b') ? 2 : 1;
}

void image_fixed(struct image *image, bool odd_v1, uint32_t mapped, uint32_t leaks)
{
    memset(image, 0, sizeof(*image));
    image->v1 = odd_v1;
    image->cluster_sectors = odd_v1 ? 2 : 8;
    image->entries = FIRST_PAGE + PER_PAGE + 100;
    image->disk_sectors = (uint64_t)image->entries * image->cluster_sectors - (odd_v1 ? 1 : 0);
    lay_out(image, 0);
    choose_hot(image, 2, 2);
    image->mapped = mapped;
    image->leaks = leaks;
    image->host_clusters = mapped + leaks;
}

void image_small(struct image *image, bool used, bool split)
{
    memset(image, 0, sizeof(*image));
    image->v1 = used;
    image->cluster_sectors = 2;
    add_run(image, split ? FIRST_PAGE - 1 : 0, 3);
    image->entries = image->hot[2] + 1;
    image->disk_sectors = (uint64_t)image->entries * image->cluster_sectors;
    lay_out(image, 0);
    image->mapped = used;
    image->leaks = used;
    image->host_clusters = image->mapped + image->leaks;
}

/* Runs right behind the old end, somewhere, and at the last end. */
void image_let_grow(struct image *image, struct rng *rng)
{
    uint32_t most = image->entries + (uint32_t)rng_between(rng, 100, 3 * PER_PAGE);
    uint32_t old_count = image->hot_count;
    image->later_sectors =
        (uint64_t)most * image->cluster_sectors - rng_below(rng, image->cluster_sectors);
    add_run(image, image->entries, 3);
    add_run(image, (uint32_t)rng_between(rng, image->entries + 3, most - 3), 3);
    add_run(image, most - 2, 2);
    image->later_hot = image->hot_count - old_count;
    image->hot_count = old_count;
    if (rng_permille(rng, 300))
        image->disk_sectors -= (uint64_t)rng_between(rng, 1, 2) * image->cluster_sectors;
}

void image_below(struct image *image, const struct image *top, struct rng *rng)
{
    *image = *top;
    image->version = BASE_VERSION;
    if (rng_permille(rng, 400)) {
        image->entries = top->hot[rng_below(rng, top->hot_count)] +
                         1; /* it ends inside a cluster that is compared */
        image->disk_sectors =
            (uint64_t)image->entries * top->cluster_sectors - rng_below(rng, top->cluster_sectors);
        if (image->disk_sectors > top->disk_sectors)
            image->disk_sectors = top->disk_sectors;
    }
    lay_out(image, rng_permille(rng, 300) ? rng_below(rng, 10) : 0);
    image->hot_count = 0;
    for (uint32_t i = 0; i < top->hot_count; i++)
        if (top->hot[i] < image->entries)
            image->hot[image->hot_count++] = top->hot[i];
    image->mapped = (uint32_t)rng_between(rng, image->hot_count / 2, image->hot_count);
    image->leaks = (uint32_t)rng_below(rng, 3);
    image->host_clusters = image->mapped + image->leaks;
    image->closed_ext = rng_permille(rng, 100);
    image->features[0] = '\0';
    image->void_extension = false;
}

static void shuffle(uint32_t *numbers, uint32_t count, struct rng *rng)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = (uint32_t)rng_below(rng, i), kept = numbers[i - 1];
        numbers[i - 1] = numbers[other];
        numbers[other] = kept;
    }
}

static void build_header(const struct image *image, uint8_t *bytes)
{
    memcpy(bytes, image->v1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
    put32(bytes + 16, 2);
    put32(bytes + 20, 16);
    put32(bytes + 24, 32);
    put32(bytes + 28, image->cluster_sectors);
    put32(bytes + 32, image->entries);
    put64(bytes + 36, image->disk_sectors);
    put32(bytes + 44, image->closed_ext ? 0x312e3276 : 0);
    put32(bytes + 48,
          image->v1 && image->data_off * DISK_SECTOR == image->bat_end && image->entries % 2
              ? 0
              : image->data_off);
    put32(bytes + 52, image->mapped ? 0 : 1);
}

uint8_t *image_build(const struct image *image, struct rng *rng, uint64_t *size)
{
    uint64_t cluster = (uint64_t)image->cluster_sectors * DISK_SECTOR,
             start = image->data_off * DISK_SECTOR;
    uint32_t guests[IMAGE_HOT_MAX], hosts[IMAGE_HOT_MAX + 64] = {0};
    *size = start + image->host_clusters * cluster + image->tail;
    uint8_t *bytes = sim_alloc(*size + cluster);
    build_header(image, bytes);
    memcpy(guests, image->hot, sizeof(guests));
    shuffle(guests, image->hot_count, rng);
    for (uint32_t i = 0; i < image->host_clusters; i++)
        hosts[i] = i;
    shuffle(hosts, image->host_clusters, rng);
    for (uint64_t at = start; at < *size;
         at += DISK_SECTOR) /* old bytes of other owners, in all unused places */
        content_fill(bytes + at, UINT32_MAX, at);
    assert(image->mapped <= image->host_clusters);
    for (uint32_t i = 0; i < image->mapped; i++) {
        uint64_t offset = start + hosts[i] * cluster;
        put32(bytes + HEADER + 4 * (uint64_t)guests[i],
              image->v1 ? offset / DISK_SECTOR : offset / cluster);
        for (uint32_t s = 0; s < image->cluster_sectors; s++) {
            uint64_t sector = (uint64_t)guests[i] * image->cluster_sectors + s;
            if (sector < image->disk_sectors)
                content_fill(bytes + offset + s * DISK_SECTOR, sector,
                             image->version ? image->version : 1);
        }
    }
    if (image->features[0]) { /* the extension and the bitmap's bits follow the guest's, in a file
                                 where all are shuffled */
        uint64_t offset = start + hosts[image->mapped] * cluster;
        put64(bytes + 56, offset / DISK_SECTOR);
        uint64_t bits =
            strchr(image->features, 'b') ? start + hosts[image->mapped + 1] * cluster : 0;
        extension_fill(image, bytes + offset, bits / DISK_SECTOR);
    }
    *size -= image->cut_bytes;
    return bytes;
}
