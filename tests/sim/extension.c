/* SPDX-License-Identifier: MIT */
/*
 * See extension.h. Where ext_off may point, by in_use:
 *
 *     0               nowhere; in an image whose extension is void from the start, there until a
 *                     change was submitted
 *     the mark        nowhere, or to a whole extension that has exactly the features to be kept
 *     closed with it  to a whole extension that has the features to be kept; nothing else once a
 *                     change was submitted
 */
#include "extension.h"

#include <string.h>

#include "../oracle/oracle_extension.h"
#include "disk.h"
#include "report.h"
#include "util/md5.h"

#define MAGIC UINT64_C(0xAB234CEF23DCEA87)
#define BITMAP UINT64_C(0x20385FAE252CB34A)
#define UNKNOWN UINT64_C(0x5349004d00000000)

enum { TRANSIT = 2, FEATURE_DATA = 48, AT_IN_USE = 44, AT_EXT_OFF = 56 };

/* A feature's data, by its letter; its length. */
static uint32_t data_of(const struct image *image, char letter, uint64_t bits_sector,
                        uint8_t data[FEATURE_DATA])
{
    uint64_t cluster = (uint64_t)image->cluster_sectors * DISK_SECTOR;
    uint32_t granularity = 1;
    memset(data, letter, FEATURE_DATA);
    if (letter != 'b')
        return letter == 'T' ? 17 : letter == 't' ? 8 : 0;
    while ((image->disk_sectors + granularity - 1) / granularity > cluster * 8)
        granularity *= 2;
    put64(data, image->disk_sectors);
    put32(data + 24, granularity);
    put32(data + 28, 1);
    put64(data + 32, bits_sector);
    return 40;
}

static bool to_be_kept(char letter)
{
    return letter == 't' || letter == 'T';
}

void extension_fill(const struct image *image, uint8_t *cluster, uint64_t bits_sector)
{
    uint64_t size = (uint64_t)image->cluster_sectors * DISK_SECTOR, at = 24;
    uint8_t data[FEATURE_DATA];
    memset(cluster, 0, size);
    put64(cluster, MAGIC);
    for (const char *letter = image->features; *letter; letter++) {
        uint32_t length = data_of(image, *letter, bits_sector, data);
        put64(cluster + at, *letter == 'b' ? BITMAP : UNKNOWN + (uint64_t)*letter);
        put64(cluster + at + 8, to_be_kept(*letter) ? TRANSIT : 0);
        put32(cluster + at + 16, length);
        memcpy(cluster + at + 24, data, length);
        at += 24 + (length + 7) / 8 * 8;
    }
    md5(cluster + 24, size - 24, cluster + 8);
}

static uint64_t number(const uint8_t *bytes, int count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | bytes[count];
    return value;
}

bool extension_is_kept(const struct image *image, const uint8_t *bytes)
{
    return strpbrk(image->features, "tT") && number(bytes + AT_IN_USE, 4) == ORACLE_CLOSED &&
           number(bytes + AT_EXT_OFF, 8);
}

bool extension_is_rewritten(const struct image *image, const uint8_t *bytes)
{
    return extension_is_kept(image, bytes) && strpbrk(image->features, "bp");
}

struct found {
    const struct image *image;
    char letters[sizeof(((struct image *)0)->features)];
    unsigned count;
    bool changed;
};

static void note(void *user_data, uint64_t magic, uint64_t flags, const uint8_t *data,
                 uint32_t size)
{
    struct found *found = user_data;
    uint8_t expected[FEATURE_DATA];
    char letter = magic == BITMAP ? 'b' : (char)(magic - UNKNOWN);
    if (found->count + 1 < sizeof(found->letters))
        found->letters[found->count++] = letter;
    if (letter != 'b' &&
        (flags != (to_be_kept(letter) ? TRANSIT : 0u) ||
         size != data_of(found->image, letter, 0, expected) || memcmp(data, expected, size)))
        found->changed = true;
}

/* Its letters that must be kept, in their order. */
static void kept_of(const struct image *image, char kept[sizeof(image->features)])
{
    memset(kept, 0, sizeof(image->features));
    for (const char *letter = image->features; *letter; letter++)
        if (to_be_kept(*letter))
            kept[strlen(kept)] = *letter;
}

void extension_judge(const struct image *image, struct oracle *oracle, bool used, const char *name)
{
    struct found found = {.image = image};
    char why[160], kept[sizeof(image->features)];
    bool closed = oracle->in_use == ORACLE_CLOSED, marked = oracle->in_use == ORACLE_IN_USE;
    kept_of(image, kept);
    if (!oracle->ext_off) {
        if (!used && !marked && image->features[0])
            violation("extension", "%s: nothing was changed, and the extension is gone", name);
        if (closed && kept[0])
            violation("extension", "%s: closed with an extension, and there is none", name);
        return;
    }
    if (!closed && !marked && (used || !image->void_extension))
        violation("extension", "%s: in_use is 0 and ext_off is not", name);
    if (oracle_extension_features(oracle, note, &found, why) < 0)
        violation("extension", "%s: ext_off leads to none that is whole: %s", name, why);
    const char *expected = marked || used ? kept : image->features;
    if (found.changed || !found.letters[0] || strcmp(found.letters, expected))
        violation("extension", "%s: where in_use is 0x%x the extension has \"%s\"%s, not \"%s\"",
                  name, oracle->in_use, found.letters, found.changed ? ", changed" : "", expected);
}

void extension_judge_closed(const uint8_t *bytes, uint32_t expected, const char *name)
{
    uint64_t in_use = number(bytes + AT_IN_USE, 4);
    if (in_use != expected)
        violation("extension", "%s: in_use 0x%x, not 0x%x", name, (unsigned)in_use,
                  (unsigned)expected);
}
