/* SPDX-License-Identifier: MIT */
/* See extension_rig.h. */
#include "extension_rig.h"

#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "oracle/oracle_extension.h"
#include "util/bytes.h"

#define BITMAP_MAGIC 0x20385FAE252CB34Au

/*
 * Letters: b a bitmap with a cluster of bits, x one that names a place outside the file, s the
 * extension's own cluster, p plain, t and T TRANSIT, n NECESSARY, k NECESSARY and TRANSIT, o a
 * bitmap that claims to be TRANSIT.
 */
static void add_feature(struct extension_plan *plan, const uint8_t *image, char letter)
{
    uint64_t bits = image_data_start(image) / 512 + (uint64_t)BITMAP_HOST * (CLUSTER / 512);
    uint32_t head = plan->end;
    switch (letter) {
    case 'b':
    case 'o':
        extension_add_bitmap(plan, DISK_SECTORS, 8, 1, &bits);
        store_le64(plan->bytes + head + 8, letter == 'o' ? TRANSIT : 0);
        break;
    case 'x':
        extension_add_bitmap(plan, DISK_SECTORS, 8, 1, (uint64_t[]){1 << 20});
        break;
    case 's':
        extension_add_bitmap(plan, DISK_SECTORS, 8, 1, (uint64_t[]){bits - CLUSTER / 512});
        break;
    case 'p':
        extension_add(plan, UNKNOWN + 'p', 0, "plain", 5);
        break;
    case 't':
        extension_add(plan, UNKNOWN + 't', TRANSIT, "kept as it is", 13);
        break;
    case 'T':
        extension_add(plan, UNKNOWN + 'T', TRANSIT | 0x700, NULL, 0);
        break;
    case 'n':
        extension_add(plan, UNKNOWN + 'n', NECESSARY, "?", 1);
        break;
    default:
        extension_add(plan, UNKNOWN + 'k', NECESSARY | TRANSIT, "?", 1);
    }
}

void extension_make(struct rig *rig, uint32_t version, uint32_t in_use, const char *features)
{
    uint64_t size;
    struct extension_plan plan;
    uint8_t *image = image_build(
        &(struct image_plan){.version = version, .in_use = in_use, .host_clusters = HOSTS}, &size);
    uint64_t start = image_data_start(image) + (uint64_t)EXTENSION_HOST * CLUSTER;
    extension_begin(&plan, image + start, CLUSTER);
    for (; *features; features++) {
        add_feature(&plan, image, *features);
    }
    extension_end(&plan);
    store_le64(image + AT_EXT_OFF, start / 512);
    rig_adopt(rig, image, size, 0);
    free(image);
    rig->config.preallocate_bytes = CLUSTER;
}

uint32_t in_use(const struct rig *rig)
{
    return load_le32(rig->script.bytes + AT_IN_USE);
}

uint64_t extension_at(const struct rig *rig)
{
    return load_le64(rig->script.bytes + AT_EXT_OFF) * 512;
}

uint64_t host_at(const struct rig *rig, uint64_t host)
{
    return rig->data_start + host * CLUSTER;
}

static void spell(void *user_data, uint64_t magic, uint64_t flags, const uint8_t *data,
                  uint32_t size)
{
    char *letters = user_data;
    char letter = magic == BITMAP_MAGIC ? 'b' : (char)(magic - UNKNOWN);
    letters[strlen(letters)] = letter;
    if (letter == 't') {
        ck_assert_uint_eq(flags, TRANSIT);
        ck_assert_uint_eq(size, 13);
        ck_assert_mem_eq(data, "kept as it is", 13);
    } else if (letter == 'T') {
        ck_assert_uint_eq(flags, TRANSIT | 0x700);
        ck_assert_uint_eq(size, 0);
    }
}

void extension_found(const struct rig *rig, char letters[16])
{
    struct oracle_memory memory = {rig->script.bytes, rig->script.file_size};
    struct oracle oracle;
    char why[160];
    memset(letters, 0, 16);
    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, memory.size, why),
                     ORACLE_OK);
    if (oracle_extension_features(&oracle, spell, letters, why) < 0) {
        memcpy(letters, "!", 2);
    }
    oracle_close(&oracle);
}

void extension_expect(const struct rig *rig, const char *letters)
{
    char actual[16];
    extension_found(rig, actual);
    ck_assert_str_eq(actual, letters);
}

void extension_expect_guest(struct rig *rig)
{
    static const uint32_t guests[] = {0, 1, 2, 3, 1099};
    for (uint32_t i = 0; i < 5; i++) {
        rig_expect(rig, (uint64_t)guests[i] * CLUSTER, CLUSTER, (uint8_t)(0xA0 + i));
    }
}

const struct extension_mix extension_mixes[EXTENSION_MIXES] = {
    {"", ""},        {"b", ""},   {"p", ""},    {"bp", ""},   {"x", ""},      {"t", "t"},
    {"tT", "tT"},    {"bt", "t"}, {"tb", "t"},  {"tp", "t"},  {"pTbt", "Tt"}, {"xt", "t"},
    {"txbpT", "tT"}, {"ot", "t"}, {"bbt", "t"}, {"stb", "t"}, {"o", ""},
};
