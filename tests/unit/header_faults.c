/* SPDX-License-Identifier: MIT */
#include "header_faults.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

enum {
    ENTRIES = 1100,
    HOSTS = 6,
    TRACKS_MAX = 131072,
    IN_USE = 0x746F6E59,
    CLOSED = 0x312e3276,
    FILE_TAIL = 512
};

struct list {
    struct fault *faults;
    uint32_t count;
};

/* The limits that follow from the image. */
struct limits {
    uint64_t tracks, data_off, end; /* sectors; `end` of the file */
    uint64_t unit;                  /* of an entry, in sectors */
    uint64_t first_entry;           /* the entry of host cluster 0 */
    uint64_t cluster_entries;       /* from one host cluster's entry to that of the next */
    uint64_t bat_end;               /* bytes */
    uint64_t file_size;
};

struct fault_base fault_base(uint32_t number)
{
    static const uint32_t clusters[] = {1, 8, 63, 7, 128};

    ck_assert_uint_lt(number, FAULT_BASES);
    return (struct fault_base){.version = number % 2 + 1,
                               .extended = number / 2 % 2,
                               .cluster_sectors = clusters[number / 4]};
}

void fault_base_open(struct fixture *fixture, const struct fault_base *base)
{
    static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 3, 4, 1099, 5, 0, 0};
    struct image_plan plan = {.version = base->version,
                              .cluster_sectors = base->cluster_sectors,
                              .entries = ENTRIES,
                              .host_clusters = HOSTS,
                              .map = map};
    struct extension_plan extension;
    uint64_t all_ones = 1;

    fixture_open_image(fixture, &plan);

    uint64_t cluster = (uint64_t)base->cluster_sectors * 512;
    uint64_t start = fixture->size - cluster;
    uint64_t sectors = (uint64_t)ENTRIES * base->cluster_sectors;

    extension_begin(&extension, fixture->bytes + start, (uint32_t)cluster);
    extension_add_bitmap(&extension, sectors, 1024, 1, &all_ones);
    extension_end(&extension);
    if (base->extended) {
        store_le32(fixture->bytes + 44, CLOSED);
        store_le64(fixture->bytes + 56, start / 512);
    }
}

static struct limits limits_of(const struct fixture *fixture)
{
    const uint8_t *image = fixture->bytes;
    bool v1 = image[6] == 't';
    struct limits limits = {.tracks = load_le32(image + 28),
                            .data_off = load_le32(image + 48),
                            .file_size = fixture->size};

    limits.end = fixture->size / 512;
    limits.unit = v1 ? 1 : limits.tracks;
    limits.first_entry = limits.data_off / limits.unit;
    limits.cluster_entries = limits.tracks / limits.unit;
    limits.bat_end = 64 + (uint64_t)4 * ENTRIES;
    return limits;
}

static void add(struct list *list, struct fault fault, const uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fault.size == 4 && values[i] > UINT32_MAX) {
            continue;
        }
        must(list->count < FAULTS_MAX);
        fault.value = values[i];
        list->faults[list->count++] = fault;
    }
}

#define ADD(list, name, also, offset, bytes, ...)                                                  \
    do {                                                                                           \
        const uint64_t values[] = {__VA_ARGS__};                                                   \
        add(list,                                                                                  \
            (struct fault){.field = (name), .related = (also), .at = (offset), .size = (bytes)},   \
            values, sizeof(values) / sizeof(*values));                                             \
    } while (0)

static void header_fields(struct list *list, const struct limits *limits)
{
    uint64_t c = limits->tracks, d = limits->data_off, covered = ENTRIES * c, end = limits->end;
    uint64_t bat_to_data = (d * 512 - 64) / 4, bat_to_end = (limits->file_size - 64) / 4;

    ADD(list, "magic", NULL, 0, 4, 0, 0x68746956, 0x69746957);
    ADD(list, "version", NULL, 16, 4, 0, 1, 3, UINT32_MAX);
    ADD(list, "heads", NULL, 20, 4, UINT32_MAX);
    ADD(list, "cylinders", NULL, 24, 4, UINT32_MAX);
    ADD(list, "tracks", "sectors", 28, 4, 0, 1, c - 1, c + 1, 2 * c, 63, TRACKS_MAX, TRACKS_MAX + 1,
        0x80000000u, UINT32_MAX);
    ADD(list, "bat_entries", NULL, 32, 4, 0, 1, ENTRIES - 1, ENTRIES + 1, bat_to_data,
        bat_to_data + 1, bat_to_end, bat_to_end + 1, 0x40000000, 0x40000001, UINT32_MAX);
    ADD(list, "nb_sectors", NULL, 36, 8, 0, 1, covered - 1, covered, covered + 1, 3 * c + 1,
        UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 32) + covered, (UINT64_C(1) << 55) - 1,
        UINT64_C(1) << 55, UINT64_C(1) << 63, UINT64_MAX);
    ADD(list, "in_use", NULL, 44, 4, 0, 1, IN_USE - 1, IN_USE, CLOSED, UINT32_MAX);
    ADD(list, "data_off", NULL, 48, 4, 0, 1, d - 1, d + 1, d - c, d + c, d + 5 * c, end - 1, end,
        end + 1, UINT32_MAX);
    ADD(list, "flags", NULL, 52, 4, 1, 2, 3, 4, UINT32_MAX - 2, UINT32_MAX);
    ADD(list, "ext_off", NULL, 56, 8, 0, 1, d - 1, d, d + 1, d + 4 * c, end - c - 1, end - c,
        end - c + 1, end, end + 1, UINT32_MAX, (UINT64_C(1) << 55) - 1, UINT64_C(1) << 55,
        UINT64_MAX);
}

static void entries(struct list *list, const struct limits *limits)
{
    static const struct {
        const char *name;
        uint32_t index;
    } places[] = {{"BAT[0]", 0}, {"BAT[7]", 7}, {"BAT[1099]", ENTRIES - 1}};
    uint64_t first = limits->first_entry, step = limits->cluster_entries;

    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        ADD(list, places[i].name, NULL, 64 + 4 * places[i].index, 4, 0, 1, first - 1, first,
            first + 1, first + 2 * step, first + 5 * step, first + 5 * step + 1, first + 6 * step,
            UINT32_MAX / 2 + 1, UINT32_MAX - 1, UINT32_MAX);
    }
}

static void sizes(struct list *list, const struct limits *limits)
{
    uint64_t cluster = limits->tracks * 512, data = limits->data_off * 512,
             size = limits->file_size;

    ADD(list, "bytes", NULL, 0, 0, 0, 63, 64, limits->bat_end - 1, limits->bat_end, data - 1, data,
        data + 1, size - 2 * cluster, size - cluster - 1, size - cluster, size - cluster + 1,
        size - 1, size + 1, size + FILE_TAIL);
}

uint32_t fault_list(const struct fixture *fixture, struct fault *list)
{
    struct list all = {.faults = list};
    struct limits limits = limits_of(fixture);

    header_fields(&all, &limits);
    entries(&all, &limits);
    sizes(&all, &limits);
    return all.count;
}

void fault_apply(struct fixture *fixture, const struct fault *fault)
{
    for (uint32_t i = 0; i < fault->size; i++) {
        fixture->bytes[fault->at + i] = (uint8_t)(fault->value >> 8 * i);
    }
    if (fault->size == 0) {
        must(fault->value <= fixture->capacity);
        if (fault->value > fixture->size) {
            memset(fixture->bytes + fixture->size, 0, fault->value - fixture->size);
        }
        fixture->size = fault->value;
    }
}

void fault_print(const struct fault *fault, char *text, size_t size)
{
    snprintf(text, size, "%s = %" PRIu64, fault->size ? fault->field : "the file's size",
             fault->value);
}
