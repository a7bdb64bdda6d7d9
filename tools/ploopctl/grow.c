/* SPDX-License-Identifier: MIT */
/* ploopctl grow: a larger disk, in the same image; with its backing files where it has some. */
#include <stdlib.h>

#include "common.h"
#include "job.h"

/* 0, or -errno after a message. */
static int grow(struct image *image, uint64_t disk_size)
{
    const struct job_texts texts = {.path = image->path, .done = "grown"};
    ploop_job *job = NULL;
    int error = job_open(image);

    if (!error) {
        error = ploop_dev_grow(image->dev, disk_size, NULL, NULL, &job);
        error = job_finish(image, error, job, &texts);
        image_close(image);
    }
    return error;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"size", required_argument, 0, 's'},
        OPTION_BASE_ENTRIES,
        OPTION_HELP_ENTRY,
        {0},
    };
    struct image image = {0};
    struct new_image new_image;
    bool right = true;
    int option;

    new_image_init(&new_image);
    while (right && (option = next_option(&grow_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 's':
            right = new_image_size(&grow_command, &new_image, optarg);
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(&grow_command, &image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(&grow_command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    if (!new_image.has_size) {
        return complain_usage(&grow_command, "--size is required");
    }
    image.path = argv[optind];
    return grow(&image, new_image.options.disk_size) ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct command grow_command = {
    .name = "grow",
    .synopsis = "--size SIZE " BASE_SYNOPSIS " IMAGE",
    .summary = "Make the disk of an image larger",
    .options = "      --size SIZE        new disk size, a multiple of 512 bytes\n" BASE_OPTIONS,
    .notes = "SIZE is a number of bytes, optionally followed by K, M, G or T (powers of 1024).\n"
             "The new part reads as zeros. Clusters that lie where the longer map is going to be\n"
             "move; if the command is cut off, the disk has the old size or the new one.\n",
    .examples = "  ploopctl grow --size 20G disk.hds\n",
    .run = run,
};
