/* SPDX-License-Identifier: MIT */
/* ploopctl create: a new, empty image in a new file, or on a block device. */
#include <stdlib.h>

#include "common.h"
#include "target.h"

static int create(const char *path, const struct new_image *new_image, bool force)
{
    struct target target;

    if (target_open(&target, path, force, false)) {
        return EXIT_FAILURE;
    }
    return target_end(&target,
                      new_image_write(new_image, path, target.file) ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"size", required_argument, 0, 's'},
        {"cluster", required_argument, 0, 'c'},
        {"v1", no_argument, 0, '1'},
        {"force", no_argument, 0, 'F'},
        OPTION_HELP_ENTRY,
        {0},
    };
    struct new_image new_image;
    bool right = true, force = false;
    int option;

    new_image_init(&new_image);
    while (right && (option = next_option(&create_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 's':
            right = new_image_size(&create_command, &new_image, optarg);
            break;
        case 'c':
            right = new_image_cluster(&create_command, &new_image, optarg);
            break;
        case '1':
            new_image.options.version = 1;
            break;
        case 'F':
            force = true;
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(&create_command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    if (!new_image.has_size) {
        return complain_usage(&create_command, "--size is required");
    }
    return create(argv[optind], &new_image, force);
}

const struct command create_command = {
    .name = "create",
    .synopsis = "--size SIZE [--cluster SIZE] [--v1] [--force] IMAGE",
    .summary = "Create an empty image",
    .options = "      --size SIZE        disk size, a multiple of 512 bytes\n"
               "      --cluster SIZE     cluster size: power of two from 4K to 64M (default 1M)\n"
               "      --v1               use format version 1 (at most 2 TiB)\n" FORCE_HELP,
    .notes = "SIZE is a number of bytes, or like 10G, 1.5T, 512KiB: K, M, G, T and P, with or\n"
             "without B or iB, are powers of 1024.\n"
             "IMAGE must not exist, or be a block device.\n",
    .examples = "  ploopctl create --size 10G disk.hds\n"
                "  ploopctl create --size 10G --force /dev/vg/disk\n",
    .run = run,
};
