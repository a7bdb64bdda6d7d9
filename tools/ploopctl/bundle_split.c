/* SPDX-License-Identifier: MIT */
/* See split.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "bundle_library.h"
#include "json.h"
#include "split.h"

static ploop_bundle *bundle; /* whose names are in use */
static ploop_bundle_disk *disk;

static struct ploop_bundle_info info_of(const ploop_bundle *of)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};

    ploop_bundle_info(of, &info);
    return info;
}

bool is_split(const char *path)
{
    ploop_bundle *tried;

    if (!bundle_is_one(path) || ploop_bundle_open(path, NULL, &tried)) {
        return false; /* who opens it for good says why */
    }
    bool is = info_of(tried).storage_count > 1;
    ploop_bundle_close(tried);
    return is;
}

/* ---- One disk ---- */

int split_open(const char *path, uint64_t *disk_size)
{
    struct ploop_dev_config config;
    int error = bundle_open(path, PLOOP_BUNDLE_READ_ONLY, &bundle);

    if (error) {
        return error;
    }
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    *disk_size = info_of(bundle).disk_size;
    error = bundle_told(path, ploop_bundle_disk_open(bundle, info_of(bundle).top, &config, &disk));
    if (error) {
        split_close();
    }
    return error;
}

void split_close(void)
{
    ploop_bundle_disk_close(disk);
    disk = NULL;
    ploop_bundle_close(bundle);
    bundle = NULL;
}

int split_read(void *buffer, uint32_t length, uint64_t offset)
{
    int64_t done = ploop_bundle_disk_pread(disk, buffer, length, offset);

    return done < 0 ? (int)done : 0;
}

int split_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent, uint32_t *part)
{
    uint32_t storage;
    int error = ploop_bundle_disk_lookup(disk, offset, length, extent, &storage);

    if (part) {
        *part = storage;
    }
    return error;
}

/* A cluster with a bad entry is an extent of state 0, which ends with the cluster. */
static int next_extent(uint64_t offset, uint64_t left, struct ploop_extent *extent, uint32_t *part)
{
    struct ploop_bundle_storage storage = {.size = sizeof(storage)};

    *extent = (struct ploop_extent){.size = sizeof(*extent)};
    int error = split_lookup(offset, left, extent, part);
    if (error != -EIO) {
        return error;
    }
    ploop_bundle_storage(bundle, *part, &storage);
    uint64_t length = storage.cluster_size - (offset - storage.start) % storage.cluster_size;
    if (length > storage.end - offset) {
        length = storage.end - offset;
    }
    *extent = (struct ploop_extent){.offset = offset, .length = length < left ? length : left};
    return 0;
}

/* ---- info ---- */

static uint64_t mapped_bytes(const struct ploop_bundle_storage *storage)
{
    struct ploop_extent extent;
    uint64_t bytes = 0;
    uint32_t part;

    for (uint64_t at = storage->start; at < storage->end; at += extent.length) {
        if (next_extent(at, storage->end - at, &extent, &part)) {
            break;
        }
        bytes += extent.state == PLOOP_EXTENT_MAPPED ? extent.length : 0;
    }
    return bytes;
}

static void print_part(struct json *json, uint32_t number)
{
    struct ploop_bundle_storage storage = {.size = sizeof(storage)};
    struct ploop_bundle_image image = {.size = sizeof(image)};
    char size[SIZE_TEXT];

    ploop_bundle_storage(bundle, number, &storage);
    ploop_bundle_image(bundle, number, info_of(bundle).top, &image);
    bool is_raw = image.type == PLOOP_BUNDLE_PLAIN;
    uint64_t mapped = mapped_bytes(&storage);
    if (!json) {
        printf("part %-8u bytes %llu to %llu: %s%s, mapped %s\n", number,
               (unsigned long long)storage.start, (unsigned long long)storage.end, image.path,
               is_raw ? ", raw" : "", format_size(mapped, size));
        return;
    }
    json_begin_object(json, NULL);
    json_string(json, "image", image.path);
    json_bool(json, "raw", is_raw);
    json_number(json, "start", storage.start);
    json_number(json, "end", storage.end);
    json_number(json, "cluster_size", storage.cluster_size);
    json_number(json, "mapped_bytes", mapped);
    json_end_object(json);
}

static void print_info(const char *path, struct json *json)
{
    struct ploop_bundle_info info = info_of(bundle);
    char size[SIZE_TEXT];

    if (json) {
        json_begin_object(json, NULL);
        json_string(json, "image", path);
        json_number(json, "disk_size", info.disk_size);
        json_begin_array(json, "parts");
    } else {
        printf("image         %s\n", path);
        printf("format        bundle, a disk split into %u parts\n", info.storage_count);
        printf("disk size     %s\n", format_size(info.disk_size, size));
    }
    for (uint32_t i = 0; i < info.storage_count; i++) {
        print_part(json, i);
    }
    if (json) {
        json_end_array(json);
        json_end_object(json);
    }
}

static int refuse_shared(const struct image *image)
{
    return complain(image->path, "--force-share does not work with a disk split into parts");
}

int split_info(const struct image *image, bool is_json)
{
    struct json json = {0};
    uint64_t disk_size;

    if (image->is_shared) {
        return refuse_shared(image);
    }
    if (split_open(image->path, &disk_size)) {
        return EXIT_FAILURE;
    }
    print_info(image->path, is_json ? &json : NULL);
    split_close();
    return EXIT_SUCCESS;
}

/* ---- map ---- */

static void print_extent(struct json *json, const struct ploop_extent *extent, uint32_t part)
{
    bool mapped = extent->state == PLOOP_EXTENT_MAPPED;
    const char *state = mapped ? "mapped" : extent->state == PLOOP_EXTENT_ZERO ? "zero" : "bad";

    if (!json) {
        printf("%16llu %16llu  %-6s", (unsigned long long)extent->offset,
               (unsigned long long)extent->length, state);
        if (mapped) {
            printf(" %16llu %5u %5u", (unsigned long long)extent->host_offset, extent->level, part);
        }
        printf("\n");
        return;
    }
    json_begin_object(json, NULL);
    json_number(json, "offset", extent->offset);
    json_number(json, "length", extent->length);
    json_string(json, "state", state);
    json_number_or_null(json, "host_offset", mapped ? extent->host_offset : UINT64_MAX);
    json_number_or_null(json, "level", mapped ? extent->level : UINT64_MAX);
    json_number(json, "part", part);
    json_end_object(json);
}

static int print_map(const char *path, struct json *json, uint64_t disk_size)
{
    struct ploop_extent extent;
    uint64_t bad = 0;
    uint32_t part;

    for (uint64_t at = 0; at < disk_size; at += extent.length) {
        int error = next_extent(at, disk_size - at, &extent, &part);
        if (error) {
            return complain(path, "cannot look up the map: %s", reason(error));
        }
        bad += extent.state == 0;
        print_extent(json, &extent, part);
    }
    return bad ? complain(path, "%llu invalid map entr%s; see ploopctl check",
                          (unsigned long long)bad, bad == 1 ? "y" : "ies")
               : EXIT_SUCCESS;
}

int split_map(const struct image *image, bool is_json)
{
    struct json json = {0};
    uint64_t disk_size;

    if (image->is_shared) {
        return refuse_shared(image);
    }
    if (split_open(image->path, &disk_size)) {
        return EXIT_FAILURE;
    }
    if (is_json) {
        json_begin_array(&json, NULL);
    } else {
        printf("%16s %16s  %-6s %16s %5s %5s\n", "offset", "length", "state", "host offset",
               "level", "part");
    }
    int status = print_map(image->path, is_json ? &json : NULL, disk_size);
    if (is_json) {
        json_end_array(&json);
    }
    split_close();
    return status;
}

/* ---- A part by itself ---- */

int split_part(const char *path, uint32_t part, struct image *image, bool *is_raw, uint32_t *count,
               uint64_t *size)
{
    struct ploop_bundle_storage storage = {.size = sizeof(storage)};

    if (part == 0) {
        split_close();
        int error = bundle_open(path, PLOOP_BUNDLE_READ_ONLY, &bundle);
        if (error) {
            return error;
        }
    }
    *count = info_of(bundle).storage_count;
    ploop_bundle_storage(bundle, part, &storage);
    *size = storage.end - storage.start;
    image->path = path;
    image->base_count = 0;
    image->has_raw_base = false;
    return bundle_take_stack(image, bundle, part, is_raw);
}
