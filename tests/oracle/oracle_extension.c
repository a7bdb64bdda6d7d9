/* SPDX-License-Identifier: MIT */
/*
 * See oracle_extension.h. MD5 (RFC 1321) is implemented here because the oracle has no
 * dependencies.
 */
#include "oracle_extension.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, FEATURE_NECESSARY = 1 };
#define BITMAP 0x20385FAE252CB34Au

static uint32_t le32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static uint64_t le64(const uint8_t *bytes)
{
    return le32(bytes) | (uint64_t)le32(bytes + 4) << 32;
}

static void md5_block(uint32_t state[4], const uint8_t *block)
{
    static const uint8_t shift[4][4] = {
        {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    static uint32_t sine[64];
    if (!sine[0])
        for (int i = 0; i < 64; i++)
            sine[i] = (uint32_t)(fabs(sin(i + 1)) * 4294967296.0);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t mixed, word;
        switch (i / 16) {
        case 0:
            mixed = (b & c) | (~b & d);
            word = i;
            break;
        case 1:
            mixed = (d & b) | (~d & c);
            word = (5 * i + 1) % 16;
            break;
        case 2:
            mixed = b ^ c ^ d;
            word = (3 * i + 5) % 16;
            break;
        default:
            mixed = c ^ (b | ~d);
            word = 7 * i % 16;
        }
        uint32_t sum = a + mixed + sine[i] + le32(block + 4 * word), by = shift[i / 16][i % 4];
        a = d;
        d = c;
        c = b;
        b += sum << by | sum >> (32 - by);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static void md5(const uint8_t *bytes, uint64_t length, uint8_t digest[16])
{
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    uint8_t tail[128] = {0};
    uint64_t left = length % 64, bits = length * 8;
    for (uint64_t at = 0; at + 64 <= length; at += 64)
        md5_block(state, bytes + at);
    memcpy(tail, bytes + length - left, left);
    tail[left] = 0x80;
    uint64_t end = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++)
        tail[end - 8 + (uint64_t)i] = (uint8_t)(bits >> 8 * i);
    for (uint64_t at = 0; at < end; at += 64)
        md5_block(state, tail + at);
    for (int i = 0; i < 16; i++)
        digest[i] = (uint8_t)(state[i / 4] >> 8 * (i % 4));
}

/* Whether a whole host cluster lies at that byte of the file. */
static bool on_grid(const struct oracle *oracle, uint64_t offset)
{
    return offset >= oracle->data_start && (offset - oracle->data_start) % oracle->cluster == 0 &&
           offset <= oracle->file_size && oracle->file_size - offset >= oracle->cluster;
}

/* Whether any entry names it, a bad one too. */
static bool guest_has(const struct oracle *oracle, uint64_t offset)
{
    for (uint32_t index = 0; index < oracle->bat_entries; index++)
        if (oracle->bat[index] && oracle_host_offset(oracle, index) == offset)
            return true;
    return false;
}

static int bitmap_fields_check(const struct oracle *oracle, const uint8_t *data, uint64_t length,
                               char *why)
{
    if (length < 32) {
        snprintf(why, 160, "bitmap: shorter than its fields");
        return -1;
    }
    uint64_t size = le64(data);
    uint32_t granularity = le32(data + 24), l1_size = le32(data + 28);
    if (size != oracle->disk_sectors) {
        snprintf(why, 160, "bitmap: covers %" PRIu64 " sectors", size);
        return -1;
    }
    if (granularity == 0 || granularity & (granularity - 1)) {
        snprintf(why, 160, "bitmap: granularity %" PRIu32, granularity);
        return -1;
    }
    uint64_t bits = size / granularity + (size % granularity != 0),
             per_cluster = 8 * oracle->cluster;
    if (l1_size != (bits + per_cluster - 1) / per_cluster || 32 + 8 * (uint64_t)l1_size > length) {
        snprintf(why, 160, "bitmap: table of %" PRIu32 " entries", l1_size);
        return -1;
    }
    return 0;
}

static int bitmap_check(struct oracle *oracle, const uint8_t *data, uint64_t length,
                        uint8_t *clusters, char *why)
{
    if (bitmap_fields_check(oracle, data, length, why))
        return -1;
    uint32_t l1_size = le32(data + 28);
    for (uint32_t i = 0; i < l1_size; i++) {
        uint64_t entry = le64(data + 32 + 8 * (uint64_t)i);
        if (entry <= 1)
            continue;
        if (entry > UINT64_MAX / SECTOR || !on_grid(oracle, entry * SECTOR)) {
            snprintf(why, 160, "bitmap: table entry %" PRIu64 " outside the cluster grid", entry);
            return -1;
        }
        uint64_t slot = (entry * SECTOR - oracle->data_start) / oracle->cluster;
        if (guest_has(oracle, entry * SECTOR) || clusters[slot]) {
            snprintf(why, 160, "bitmap: table entry %" PRIu64 " names a cluster in use", entry);
            return -1;
        }
        clusters[slot] = 1;
    }
    return 0;
}

static int features_check(struct oracle *oracle, const uint8_t *area, uint8_t *clusters, char *why)
{
    uint8_t digest[16];
    md5(area + 24, oracle->cluster - 24, digest);
    if (le64(area) != 0xAB234CEF23DCEA87) {
        snprintf(why, 160, "bad magic");
        return -1;
    }
    if (memcmp(digest, area + 8, 16)) {
        snprintf(why, 160, "bad checksum");
        return -1;
    }
    for (uint64_t at = 24;;) {
        if (at + 24 > oracle->cluster) {
            snprintf(why, 160, "no end of features");
            return -1;
        }
        uint64_t feature = le64(area + at), size = le32(area + at + 16);
        at += 24;
        if (feature == 0)
            return 0;
        if (at + size > oracle->cluster) {
            snprintf(why, 160, "feature longer than its cluster");
            return -1;
        }
        if (feature == BITMAP && bitmap_check(oracle, area + at, size, clusters, why))
            return -1;
        at += (size + 7) / 8 * 8;
    }
}

/* The extension's cluster, which the caller frees; NULL: there is none, and `why`. */
static uint8_t *read_area(struct oracle *oracle, char *why)
{
    uint64_t start = oracle->ext_off * SECTOR;
    if (oracle->ext_off > UINT64_MAX / SECTOR || start < oracle->data_start ||
        start > oracle->file_size || oracle->file_size - start < oracle->cluster) {
        snprintf(why, 160, "outside the data area");
        return NULL;
    }
    if (!on_grid(oracle, start)) {
        snprintf(why, 160, "off the cluster grid");
        return NULL;
    }
    if (guest_has(oracle, start)) {
        snprintf(why, 160, "in a guest's cluster");
        return NULL;
    }
    uint8_t *area = malloc(oracle->cluster);
    if (!area || oracle->read(oracle->context, area, oracle->cluster, start)) {
        snprintf(why, 160, "could not be read");
        free(area);
        return NULL;
    }
    return area;
}

int oracle_extension_check(struct oracle *oracle, uint8_t *clusters, char *why)
{
    uint8_t *area = read_area(oracle, why);
    if (!area)
        return -1;
    clusters[(oracle->ext_off * SECTOR - oracle->data_start) / oracle->cluster] = 1;
    int result = features_check(oracle, area, clusters, why);
    free(area);
    return result;
}

int oracle_extension_features(struct oracle *oracle, oracle_feature_fn *feature, void *user_data,
                              char *why)
{
    int count = -1;
    if (!oracle->ext_off)
        return 0;
    uint8_t *clusters = calloc((size_t)oracle->slots + 1, 1), *area = malloc(oracle->cluster);
    if (!clusters || !area)
        snprintf(why, 160, "no memory");
    else if (!oracle_extension_check(oracle, clusters, why))
        count =
            oracle->read(oracle->context, area, oracle->cluster, oracle->ext_off * SECTOR) ? -1 : 0;
    for (uint64_t at = 24; count >= 0 && le64(area + at);) {
        uint32_t size = le32(area + at + 16);
        feature(user_data, le64(area + at), le64(area + at + 8), area + at + 24, size);
        at += 24 + (size + 7) / 8 * 8;
        count++;
    }
    free(area);
    free(clusters);
    return count;
}

/*
 * Whether a cluster at that byte, on the grid or not, would share a byte with one that an entry
 * names.
 */
static bool guest_overlaps(const struct oracle *oracle, uint64_t offset)
{
    for (uint32_t index = 0; index < oracle->bat_entries; index++) {
        uint64_t guest = oracle_host_offset(oracle, index);
        if (oracle->bat[index] &&
            (guest > offset ? guest - offset : offset - guest) < oracle->cluster)
            return true;
    }
    return false;
}

static bool bitmap_forbids(const struct oracle *oracle, const uint8_t *data, uint64_t length)
{
    char why[160];
    if (bitmap_fields_check(oracle, data, length, why))
        return false;
    for (uint32_t i = 0; i < le32(data + 28); i++) {
        uint64_t entry = le64(data + 32 + 8 * (uint64_t)i);
        if (entry > 1 && entry <= UINT64_MAX / SECTOR && guest_overlaps(oracle, entry * SECTOR))
            return true;
    }
    return false;
}

static bool features_forbid(const struct oracle *oracle, const uint8_t *area)
{
    for (uint64_t at = 24;;) {
        if (at + 24 > oracle->cluster)
            return true;
        uint64_t feature = le64(area + at), flags = le64(area + at + 8),
                 size = le32(area + at + 16);
        at += 24;
        if (feature == 0)
            return false;
        if (at + size > oracle->cluster || (feature != BITMAP && flags & FEATURE_NECESSARY) ||
            (feature == BITMAP && bitmap_forbids(oracle, area + at, size)))
            return true;
        at += (size + 7) / 8 * 8;
    }
}

bool oracle_extension_forbids(struct oracle *oracle)
{
    uint8_t digest[16];
    char why[160];
    uint8_t *area = read_area(oracle, why);
    if (!area)
        return true;
    md5(area + 24, oracle->cluster - 24, digest);
    bool forbids = le64(area) != 0xAB234CEF23DCEA87 || memcmp(digest, area + 8, 16) ||
                   features_forbid(oracle, area);
    free(area);
    return forbids;
}
