/* SPDX-License-Identifier: MIT */
/* ploopctl info: what an image's header says, and how much of the disk is there. */
#include <stdio.h>
#include <stdlib.h>

#include "common.h"
#include "json.h"

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
    json_end_object(&json);
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
    printf("mapped        %llu clusters, %s\n", (unsigned long long)mapped, format_size(mapped * info->cluster_size, size));
    printf("data offset   %s\n", format_size(info->data_offset, size));
    printf("file size     %s\n", format_size(info->file_size, size));
    if (info->extension_offset) {
        printf("extension     at %s%s\n", format_size(info->extension_offset, size),
               info->flags & PLOOP_IMAGE_EXTENSION ? "" : ", void: written since by software that does not know it");
    }
    printf("state         %s%s\n", info->flags & PLOOP_IMAGE_IN_USE ? "in use: not closed cleanly" : "closed cleanly",
           info->flags & PLOOP_IMAGE_EMPTY ? ", empty" : "");
}

static int run(int argc, char **argv)
{
    struct image image = {0};
    struct ploop_dev_info dev_info = {.size = sizeof(dev_info)};
    const char *path;
    bool json;

    if (parse_json_and_image(&info_command, argc, argv, &json, &path) || image_open(&image, path)) {
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
    .synopsis = "[--json] IMAGE",
    .summary = "Print what an image's header says",
    .details = "      --json             for programs; sizes and offsets in bytes\n",
    .run = run,
};
