/* SPDX-License-Identifier: MIT */
/*
 * The format extension's cluster: see the header for its layout. A cluster has a sector at least,
 * so that its head always fits.
 */
#include "format/extension.h"

#include <assert.h>
#include <string.h>

#include "util/bytes.h"
#include "util/md5.h"

#define EXTENSION_MAGIC 0xAB234CEF23DCEA87u

enum {
    HEAD_SIZE = 24, /* of the extension */
    AT_MD5 = 8,
    FEATURE_HEAD_SIZE = 24,
    BITMAP_HEAD_SIZE = 32,
    AT_BITMAP_ID = 8,
    AT_BITMAP_GRANULARITY = 24,
    AT_BITMAP_L1_SIZE = 28,
    L1_ENTRY_SIZE = 8
};

static size_t padded(size_t size)
{
    return (size + 7) / 8 * 8;
}

static uint64_t divide_up(uint64_t value, uint64_t unit)
{
    return value / unit + (value % unit != 0);
}

struct extension_fault extension_verify(const uint8_t *bytes, size_t size)
{
    uint8_t digest[MD5_SIZE];

    assert(size >= HEAD_SIZE);
    if (load_le64(bytes) != EXTENSION_MAGIC) {
        return (struct extension_fault){"another magic", load_le64(bytes)};
    }
    md5(bytes + HEAD_SIZE, size - HEAD_SIZE, digest);
    if (memcmp(digest, bytes + AT_MD5, MD5_SIZE) != 0) {
        return (struct extension_fault){"a checksum that does not match, beginning with",
                                        load_le64(bytes + AT_MD5)};
    }
    return (struct extension_fault){NULL, 0};
}

bool extension_next(const uint8_t *bytes, size_t size, size_t *at,
                    struct extension_feature *feature, struct extension_fault *fault)
{
    size_t head = *at ? *at : HEAD_SIZE;

    *fault = (struct extension_fault){NULL, 0};
    if (head > size || size - head < FEATURE_HEAD_SIZE) {
        *fault = (struct extension_fault){"a list of features without an end before byte", size};
        return false;
    }
    *feature = (struct extension_feature){
        .magic = load_le64(bytes + head),
        .flags = load_le64(bytes + head + 8),
        .data_size = load_le32(bytes + head + 16),
        .data_at = head + FEATURE_HEAD_SIZE,
    };
    if (feature->magic == 0) {
        return false;
    }
    if (feature->data_size > size - feature->data_at) {
        *fault = (struct extension_fault){"a feature that does not fit its cluster, of bytes",
                                          feature->data_size};
        return false;
    }
    *at = feature->data_at + padded(feature->data_size);
    return true;
}

struct extension_fault extension_bitmap_decode(const uint8_t *bytes,
                                               const struct extension_feature *feature,
                                               const struct geometry *geometry,
                                               struct extension_bitmap *bitmap)
{
    const uint8_t *data = bytes + feature->data_at;

    assert(feature->magic == EXTENSION_BITMAP_MAGIC);
    if (feature->data_size < BITMAP_HEAD_SIZE) {
        return (struct extension_fault){"less than its fields, bytes", feature->data_size};
    }

    uint64_t sectors = load_le64(data);

    *bitmap = (struct extension_bitmap){
        .granularity = load_le32(data + AT_BITMAP_GRANULARITY),
        .l1_size = load_le32(data + AT_BITMAP_L1_SIZE),
        .l1_at = feature->data_at + BITMAP_HEAD_SIZE,
    };
    memcpy(bitmap->id, data + AT_BITMAP_ID, sizeof(bitmap->id));
    if (sectors != geometry->disk_size / SECTOR_SIZE) {
        return (struct extension_fault){"not the disk's size, sectors", sectors};
    }
    if (bitmap->granularity == 0 || (bitmap->granularity & (bitmap->granularity - 1))) {
        return (struct extension_fault){"granularity (no power of two)", bitmap->granularity};
    }

    uint64_t bits = divide_up(sectors, bitmap->granularity);
    uint64_t l1_size = divide_up(bits, geometry->cluster_size * 8);

    if (bitmap->l1_size != l1_size) {
        return (struct extension_fault){"l1_size (does not cover the disk)", bitmap->l1_size};
    }
    if ((feature->data_size - BITMAP_HEAD_SIZE) / L1_ENTRY_SIZE < bitmap->l1_size) {
        return (struct extension_fault){"l1_size (larger than the feature)", bitmap->l1_size};
    }
    return (struct extension_fault){NULL, 0};
}

uint64_t extension_l1_get(const uint8_t *bytes, const struct extension_bitmap *bitmap,
                          uint32_t index)
{
    assert(index < bitmap->l1_size);
    return load_le64(bytes + bitmap->l1_at + (size_t)L1_ENTRY_SIZE * index);
}

void extension_l1_set(uint8_t *bytes, const struct extension_bitmap *bitmap, uint32_t index,
                      uint64_t entry)
{
    assert(index < bitmap->l1_size);
    store_le64(bytes + bitmap->l1_at + (size_t)L1_ENTRY_SIZE * index, entry);
}

void extension_seal(uint8_t *bytes, size_t size)
{
    md5(bytes + HEAD_SIZE, size - HEAD_SIZE, bytes + AT_MD5);
}

uint32_t extension_filter(const uint8_t *from, uint8_t *to, size_t size, extension_keep_fn *keep,
                          const void *context)
{
    struct extension_feature feature;
    struct extension_fault fault;
    size_t at = 0, end = HEAD_SIZE;
    uint32_t kept = 0;

    memset(to, 0, size); /* the zeros behind the last feature end the list */
    store_le64(to, EXTENSION_MAGIC);
    while (extension_next(from, size, &at, &feature, &fault)) {
        if (keep(&feature, context)) {
            size_t whole = FEATURE_HEAD_SIZE + padded(feature.data_size);

            memcpy(to + end, from + feature.data_at - FEATURE_HEAD_SIZE, whole);
            end += whole;
            kept++;
        }
    }
    assert(!fault.what);
    extension_seal(to, size);
    return kept;
}
