/* SPDX-License-Identifier: MIT */
/*
 * The format extension: one cluster of features, among them dirty bitmaps. Bytes in, values out;
 * nothing in the bytes is trusted, and where the clusters lie that they name is not judged here.
 *
 *     magic (8)  MD5 of all that follows in the cluster (16)  features ...
 *     feature:   magic (8)  flags (8)  data size (4)  0 (4)  data, padded to 8 bytes;  magic 0 ends
 *                the list
 *     bitmap:    sectors (8)  id (16)  granularity (4)  l1_size (4)  l1 entries (8 each)
 */
#ifndef FORMAT_EXTENSION_H
#define FORMAT_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/geometry.h"

#define EXTENSION_BITMAP_MAGIC 0x20385FAE252CB34Au

enum {
    FEATURE_NECESSARY = 1,
    FEATURE_TRANSIT = 2
}; /* extension_feature.flags, of a feature that is not known */
enum {
    L1_ALL_ZEROS = 0,
    L1_ALL_ONES = 1
}; /* l1 entries that name no cluster; the others are sectors */

struct extension_feature {
    uint64_t magic;
    uint64_t flags;
    size_t data_at; /* in the cluster */
    uint32_t data_size;
};

struct extension_bitmap {
    uint8_t id[16];
    uint32_t granularity; /* sectors, a power of two */
    uint32_t l1_size;
    size_t l1_at; /* in the cluster */
};

/* What is wrong, in words and with a number where one helps. */
struct extension_fault {
    const char *what; /* NULL: nothing */
    uint64_t value;
};

/* Magic and checksum of a whole cluster. */
struct extension_fault extension_verify(const uint8_t *bytes, size_t size);

/*
 * The feature at *at, 0 for the first; moves *at past it. True: there is one. False: the list ends
 * here, rightly where fault->what is NULL.
 */
bool extension_next(const uint8_t *bytes, size_t size, size_t *at,
                    struct extension_feature *feature, struct extension_fault *fault);

/* A feature that is a bitmap; its fields are held against the image it is to describe. */
struct extension_fault extension_bitmap_decode(const uint8_t *bytes,
                                               const struct extension_feature *feature,
                                               const struct geometry *geometry,
                                               struct extension_bitmap *bitmap);

uint64_t extension_l1_get(const uint8_t *bytes, const struct extension_bitmap *bitmap,
                          uint32_t index);
void extension_l1_set(uint8_t *bytes, const struct extension_bitmap *bitmap, uint32_t index,
                      uint64_t entry);

/* Set the checksum, after a change. */
void extension_seal(uint8_t *bytes, size_t size);

/*
 * Write to `to` an extension that holds those features of the valid extension `from` which `keep`
 * is true for, in their order. Returns how many those are.
 */
typedef bool extension_keep_fn(const struct extension_feature *feature, const void *context);
uint32_t extension_filter(const uint8_t *from, uint8_t *to, size_t size, extension_keep_fn *keep,
                          const void *context);

#endif
