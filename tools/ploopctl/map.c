/* SPDX-License-Identifier: MIT */
/* ploopctl map: which parts of the disk are mapped, and where in which file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common.h"
#include "json.h"
#include "split.h"

static const char *state_name(uint32_t state)
{
    return state == PLOOP_EXTENT_MAPPED ? "mapped" : state == PLOOP_EXTENT_ZERO ? "zero" : "bad";
}

static void print_extent(const struct ploop_extent *extent)
{
    printf("%16llu %16llu  %-6s", (unsigned long long)extent->offset,
           (unsigned long long)extent->length, state_name(extent->state));
    if (extent->state == PLOOP_EXTENT_MAPPED) {
        printf(" %16llu %5u", (unsigned long long)extent->host_offset, extent->level);
    }
    printf("\n");
}

static void print_extent_json(struct json *json, const struct ploop_extent *extent)
{
    bool mapped = extent->state == PLOOP_EXTENT_MAPPED;

    json_begin_object(json, NULL);
    json_number(json, "offset", extent->offset);
    json_number(json, "length", extent->length);
    json_string(json, "state", state_name(extent->state));
    json_number_or_null(json, "host_offset", mapped ? extent->host_offset : UINT64_MAX);
    json_number_or_null(json, "level", mapped ? extent->level : UINT64_MAX);
    json_end_object(json);
}

/*
 * The extent at `offset`. A cluster with a bad entry is a separate extent, of state 0; the map
 * continues behind it.
 */
static int next_extent(const struct image *image, uint64_t offset, struct ploop_extent *extent)
{
    uint64_t left = image->info.disk_size - offset;
    int error;

    *extent = (struct ploop_extent){.size = sizeof(*extent)};
    error = ploop_bat_lookup(image->dev, offset, left, extent);
    if (error == -EIO) {
        uint64_t in_cluster = image->info.cluster_size - offset % image->info.cluster_size;
        *extent = (struct ploop_extent){.offset = offset,
                                        .length = in_cluster < left ? in_cluster : left};
        error = 0;
    }
    return error;
}

static int print_map(const struct image *image, bool is_json)
{
    struct json json = {0};
    struct ploop_extent extent;
    uint64_t bad_clusters = 0;
    int error = 0;

    if (is_json) {
        json_begin_array(&json, NULL);
    } else {
        printf("%16s %16s  %-6s %16s %5s\n", "offset", "length", "state", "host offset", "level");
    }
    for (uint64_t offset = 0; offset < image->info.disk_size; offset += extent.length) {
        error = next_extent(image, offset, &extent);
        if (error) {
            break;
        }
        bad_clusters += extent.state == 0;
        if (is_json) {
            print_extent_json(&json, &extent);
        } else {
            print_extent(&extent);
        }
    }
    if (is_json) {
        json_end_array(&json);
    }
    if (error) {
        return complain(image->path, "cannot look up the map: %s", reason(error));
    }
    if (bad_clusters) {
        return complain(image->path, "%llu invalid map entr%s; see ploopctl check",
                        (unsigned long long)bad_clusters, bad_clusters == 1 ? "y" : "ies");
    }
    return EXIT_SUCCESS;
}

static int run(int argc, char **argv)
{
    struct image image = {0};
    bool json;

    if (parse_json_and_image(&map_command, argc, argv, &json, &image)) {
        return EXIT_FAILURE;
    }
    if (image.is_split) {
        return split_map(&image, json);
    }
    if (image_open(&image)) {
        return EXIT_FAILURE;
    }
    int status = image_open_device(&image, NULL) ? EXIT_FAILURE : print_map(&image, json);
    image_close(&image);
    return status;
}

const struct command map_command = {
    .name = "map",
    .synopsis = "[--json] [-U] " BASE_SYNOPSIS " IMAGE",
    .summary = "Show which parts of the disk are mapped, and where in which file",
    .options =
        "      --json             print JSON, with offsets and lengths in bytes\n" FORCE_SHARE_HELP
            BASE_OPTIONS,
    .notes = "States: mapped, zero (not mapped, reads as zeros), bad (invalid map entry).\n"
             "Levels: 0 is the lowest file. A disk that is split into parts has a column more,\n"
             "part, and the host offset and the level are those of the part.\n",
    .examples = "  ploopctl map disk.hds\n"
                "  ploopctl map --json --force-share disk.hds\n",
    .run = run,
};
