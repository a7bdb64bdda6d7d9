/* SPDX-License-Identifier: MIT */
/* ploopctl merge: two neighbours of a stack become one, so that one of the files can go. */
#include <errno.h>
#include <stdlib.h>

#include "common.h"
#include "job.h"

struct request {
    struct image image;
    bool has_level;
    uint32_t level; /* of the lower one */
    uint64_t rate;  /* bytes a second; 0: no limit */
    bool is_down;
};

static bool take_level(struct request *request, const char *text)
{
    char *end;

    errno = 0;
    unsigned long level = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || level > BASES_MAX) {
        complain_usage(&merge_command, "invalid level '%s': expected a number, 0 for the lowest",
                       text);
        return false;
    }
    request->has_level = true;
    request->level = (uint32_t)level;
    return true;
}

static const char *path_at(const struct image *image, uint32_t level)
{
    return level < image->base_count ? image->bases[level].path : image->path;
}

static int merge(struct request *request)
{
    struct image *image = &request->image;
    ploop_job *job = NULL;

    if (!request->has_level) {
        request->level = image->base_count - 1;
    }
    if (request->level >= image->base_count) {
        return complain(image->path,
                        "there is no image above level %u: the stack has levels 0 to %u",
                        request->level, image->base_count);
    }
    uint32_t receiver = request->is_down ? request->level : request->level + 1;
    const char *path = path_at(image, receiver);
    const struct job_texts texts = {
        .path = path, .about = "merge: ", .other = path, .done = "merged"};
    int error = job_open(image);
    if (error) {
        return EXIT_FAILURE;
    }
    uint32_t direction =
        request->is_down ? PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS : PLOOP_MERGE_UP;
    error = ploop_dev_merge(image->dev, request->level, direction, job_commit, NULL, NULL, &job);
    if (!error) {
        ploop_job_set_rate(job, request->rate);
    }
    error = job_finish(image, error, job, &texts);
    image_close(image);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"level", required_argument, 0, 'l'},
        {"down", no_argument, 0, 'd'},
        {"rate", required_argument, 0, 'r'},
        OPTION_BASE_ENTRIES,
        OPTION_HELP_ENTRY,
        {0},
    };
    struct request request = {0};
    bool right = true;
    int option;

    while (right && (option = next_option(&merge_command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 'l':
            right = take_level(&request, optarg);
            break;
        case 'd':
            request.is_down = true;
            break;
        case 'r':
            right = take_rate(&merge_command, &request.rate, optarg);
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(&merge_command, &request.image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(&merge_command, argc, argv, 1)) {
        return EXIT_FAILURE;
    }
    if (request.image.base_count == 0) {
        return complain_usage(&merge_command, "--base or --raw-base is required");
    }
    request.image.path = argv[optind];
    return merge(&request);
}

const struct command merge_command = {
    .name = "merge",
    .synopsis = "[--level N] [--down] [--rate SIZE] " BASE_SYNOPSIS " IMAGE",
    .summary = "Merge two neighbours of a stack into one image",
    .options = "      --level N          the lower one of the two, 0 the lowest of all (default:\n"
               "                         the one right below IMAGE)\n"
               "      --down             merge the upper one into the lower one\n"
               "      --rate SIZE        copy at most so many bytes a second\n" BASE_OPTIONS,
    .notes = "The upper one gets all that it has not, and the disk stays as it is; the lower one\n"
             "does not change, and is not part of the stack any more. With --down the lower one\n"
             "gets all that the upper one has, and the upper one is not needed any more; say so\n"
             "only if no other image is built on the lower one: it is changed. If the command is\n"
             "cut off, the stack is whole, and the merge can be run again.\n",
    .examples = "  ploopctl merge --base base.hds top.hds\n",
    .run = run,
};
