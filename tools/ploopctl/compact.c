/* SPDX-License-Identifier: MIT */
/* ploopctl compact: a shorter file, of the same disk; with its backing files where it has some. */
#include <stdlib.h>

#include "common.h"
#include "job.h"

/* 0, or -errno after a message. */
static int compact(struct image *image, uint64_t rate)
{
    const struct job_texts texts = {.path = image->path, .done = "compacted"};
    ploop_job *job = NULL;
    int error = job_open(image);

    if (!error) {
        error = ploop_dev_compact(image->dev, NULL, NULL, &job);
        if (!error) {
            ploop_job_set_rate(job, rate);
        }
        error = job_finish(image, error, job, &texts);
        image_close(image);
    }
    return error;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"rate", required_argument, 0, 'r'},
        OPTION_BASE_ENTRIES,
        OPTION_HELP_ENTRY,
        {0},
    };
    struct image image = {0};
    uint64_t rate = 0;
    bool right = true;
    int option;

    while (right && (option = next_option(&compact_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 'r':
            right = parse_size(optarg, &rate) == 0 && rate > 0;
            if (!right) {
                complain_usage(&compact_command,
                               "invalid rate '%s': expected bytes a second, like 20M", optarg);
            }
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(&compact_command, &image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(&compact_command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    image.path = argv[optind];
    return compact(&image, rate) ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct command compact_command = {
    .name = "compact",
    .synopsis = "[--rate SIZE] " BASE_SYNOPSIS " IMAGE",
    .summary = "Make the file of an image shorter, by what is free in it",
    .options = "      --rate SIZE        move at most so many bytes a second\n" BASE_OPTIONS,
    .notes = "Clusters at the end of the file move into holes, and the end is cut off. The disk\n"
             "stays as it is, also if the command is cut off.\n",
    .examples = "  ploopctl compact disk.hds\n",
    .run = run,
};
