/* SPDX-License-Identifier: MIT */
/* ploopctl snapshot: a new top above an image, which keeps the disk as it is now. */
#include <stdlib.h>
#include <sys/stat.h>

#include "common.h"
#include "job.h"
#include "target.h"

struct request {
    struct image image;
    struct target top; /* the new one; its file is NULL until it is open */
    bool is_made;      /* by this command, so that it goes if the command fails */
};

/* An image that exists is used as it is: whether it fits the library says. */
static int open_existing(struct request *request)
{
    int error = refuse_same_file(&request->image, request->top.path);

    return error ? error : open_file(request->top.path, PLOOP_FILE_READ_WRITE, &request->top.file);
}

/* A new one is like the image below it. */
static int make(struct request *request)
{
    struct new_image like;
    const struct ploop_image_info *info = &request->image.info;
    const char *path = request->top.path;

    new_image_init(&like);
    like.options.version = info->version;
    like.options.cluster_size = info->cluster_size;
    like.options.disk_size = info->disk_size;
    int error = target_open(&request->top, path, false, false);
    if (!error) {
        request->is_made = true;
        error = new_image_write(&like, path, request->top.file);
    }
    return error;
}

static int close_top(struct request *request, int error)
{
    if (!request->is_made) {
        ploop_file_close(request->top.file);
        return error ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    /* Once the snapshot is taken the new top belongs to the disk. */
    int kept = target_end(&request->top, request->image.is_changed ? EXIT_SUCCESS : EXIT_FAILURE);
    return error ? EXIT_FAILURE : kept;
}

static int take(struct request *request)
{
    const struct job_texts texts = {.path = request->image.path,
                                    .about = "new top: ",
                                    .other = request->top.path,
                                    .done = "the snapshot is taken"};
    struct stat status;
    ploop_job *job = NULL;

    int error = job_open(&request->image);
    if (error) {
        return EXIT_FAILURE;
    }
    error = stat(request->top.path, &status) ? make(request) : open_existing(request);
    if (!error) {
        error =
            ploop_dev_snapshot(request->image.dev, request->top.file, job_commit, NULL, NULL, &job);
        error = job_finish(&request->image, error, job, &texts);
    }
    image_close(&request->image);
    return close_top(request, error);
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {OPTION_BASE_ENTRIES, OPTION_HELP_ENTRY, {0}};
    struct request request = {.top = {.fd = -1}};
    int option;

    while ((option = next_option(&snapshot_command, argc, argv, options)) != OPTION_END) {
        if (option == OPTION_WRONG ||
            !image_take_base(&snapshot_command, &request.image, option, optarg)) {
            return EXIT_FAILURE;
        }
    }
    if (!has_arguments(&snapshot_command, argc, argv, 2)) {
        return EXIT_FAILURE;
    }
    request.image.path = argv[optind];
    request.top.path = argv[optind + 1];
    return take(&request);
}

const struct command snapshot_command = {
    .name = "snapshot",
    .synopsis = BASE_SYNOPSIS " IMAGE NEW-TOP",
    .summary = "Keep the disk as it is, and write to a new top from now on",
    .options = BASE_OPTIONS,
    .notes = "NEW-TOP is made, like IMAGE, if it does not exist; else it must be an empty image\n"
             "that fits. From now on the disk is NEW-TOP with IMAGE as its uppermost base, and\n"
             "IMAGE must not be changed any more. For a bundle: ploopctl bundle snapshot.\n",
    .examples = "  ploopctl snapshot base.hds top.hds\n",
    .run = run,
};
