/* SPDX-License-Identifier: MIT */
/* ploopctl info: the fields of an image's header, and how much of the disk is mapped. */
#include <stdio.h>
#include <stdlib.h>

#include "common.h"
#include "json.h"
#include "split.h"

static void print_json(const struct image *image, uint64_t mapped)
{
    const struct ploop_image_info *info = &image->info;
    struct json json = {0};

    json_begin_object(&json, NULL);
    json_string(&json, "image", image->path);
    json_number(&json, "version", info->version);
    json_number(&json, "cluster_size", info->cluster_size);
    json_number(&json, "disk_size", info->disk_size);
    json_number(&json, "bat_entries", info->bat_entries);
    json_number(&json, "data_offset", info->data_offset);
    json_number(&json, "file_size", info->file_size);
    json_number(&json, "mapped", mapped);
    json_bool(&json, "in_use", info->flags & PLOOP_IMAGE_IN_USE);
    json_number(&json, "in_use_value", info->in_use);
    json_bool(&json, "empty", info->flags & PLOOP_IMAGE_EMPTY);
    json_number(&json, "extension_offset", info->extension_offset);
    json_number(&json, "delta_count", image->base_count + 1);
    json_begin_array(&json, "bases");
    for (uint32_t i = 0; i < image->base_count; i++) {
        json_string(&json, NULL, image->bases[i].path);
    }
    json_end_array(&json);
    json_bool(&json, "raw_base", image->has_raw_base);
    json_end_object(&json);
}

/* Stacks are printed after the device was opened, so the files fit together. */
static void print_bases(const struct image *image)
{
    if (image->base_count) {
        printf("stack         %u deltas, which fit together\n", image->base_count + 1);
    }
    for (uint32_t i = 0; i < image->base_count; i++) {
        const struct base *base = &image->bases[i];
        const char *kind = i == 0 && image->has_raw_base      ? ", raw"
                           : base->flags & PLOOP_IMAGE_IN_USE ? ", in use: not closed cleanly"
                                                              : "";
        printf("  delta %-5u %s%s\n", i, base->path, kind);
    }
}

enum { CLOSED_WITH_EXTENSION = 0x312e3276 };

static const char *state_of(const struct ploop_image_info *info)
{
    return info->flags & PLOOP_IMAGE_IN_USE ? "in use: not closed cleanly"
           : info->in_use == 0 || info->in_use == CLOSED_WITH_EXTENSION
               ? "closed cleanly"
               : "closed cleanly, by other software";
}

static void print_text(const struct image *image, uint64_t mapped)
{
    const struct ploop_image_info *info = &image->info;
    char size[SIZE_TEXT];

    printf("image         %s\n", image->path);
    printf("format        ploop version %u\n", info->version);
    printf("disk size     %s\n", format_size(info->disk_size, size));
    printf("cluster size  %s\n", format_size(info->cluster_size, size));
    printf("BAT entries   %llu\n", (unsigned long long)info->bat_entries);
    printf("mapped        %llu clusters, %s\n", (unsigned long long)mapped,
           format_size(mapped * info->cluster_size, size));
    printf("data offset   %s\n", format_size(info->data_offset, size));
    printf("file size     %s\n", format_size(info->file_size, size));
    if (info->extension_offset) {
        printf("extension     at %s%s\n", format_size(info->extension_offset, size),
               info->flags & PLOOP_IMAGE_EXTENSION
                   ? ""
                   : ", void: written since by software that does not know it");
    }
    printf("state         %s%s\n", state_of(info),
           info->flags & PLOOP_IMAGE_EMPTY ? ", empty" : "");
    print_bases(image);
}

static int run(int argc, char **argv)
{
    struct image image = {0};
    struct ploop_dev_info dev_info = {.size = sizeof(dev_info)};
    bool json;

    if (parse_json_and_image(&info_command, argc, argv, &json, &image)) {
        return EXIT_FAILURE;
    }
    if (image.is_split) {
        return split_info(&image, json);
    }
    if (image_open(&image)) {
        return EXIT_FAILURE;
    }
    int error = image_open_device(&image, NULL);
    if (!error) {
        ploop_dev_info(image.dev, &dev_info);
        (json ? print_json : print_text)(&image, dev_info.clusters_mapped);
    }
    image_close(&image);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct command info_command = {
    .name = "info",
    .synopsis = "[--json] [-U] " BASE_SYNOPSIS " IMAGE",
    .summary = "Show the header of an image and how much of it is mapped",
    .options =
        "      --json             print JSON, with sizes and offsets in bytes\n" FORCE_SHARE_HELP
            BASE_OPTIONS,
    .notes = "With backing images, also checks that all of them fit together.\n",
    .examples = "  ploopctl info disk.hds\n"
                "  ploopctl info --json --base base.hds top.hds\n",
    .run = run,
};
