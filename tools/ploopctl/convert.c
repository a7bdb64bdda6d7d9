/* SPDX-License-Identifier: MIT */
/*
 * ploopctl convert: copies a raw file to an image, and an image with its backing files to a raw
 * file.
 *
 * The command creates the target, and removes it again if anything fails. It only reads the source,
 * under the lock that excludes writers. The user names the source's format; the command never
 * guesses it, because a guest can write anything to the start of its disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "copy.h"

enum format { FORMAT_UNSAID, FORMAT_RAW, FORMAT_PLOOP };

struct request {
    const char *source;
    const char *target;
    struct image image;         /* the source, if it is an image */
    struct new_image new_image; /* for a target that is an image */
    enum format from, to;
};

static const struct command *const command = &convert_command;

static int complain_of_copy(const struct request *request, const struct copy *copy)
{
    if (copy->error == -EINTR) {
        return complain(request->target, "interrupted");
    }
    bool is_source = copy->error_side == COPY_SOURCE;
    const char *why = copy->error == -ENODATA ? "the file was truncated" : strerror(-copy->error);
    return complain(is_source ? request->source : request->target,
                    "error while %s at byte %llu of the disk: %s",
                    is_source ? "reading" : "writing", (unsigned long long)copy->error_offset, why);
}

static void init_copy_config(struct ploop_dev_config *config, uint32_t flags)
{
    init_config(config);
    config->flags = flags;
    config->pio_count = COPY_REQUESTS + 1; /* one for a flush */
}

/* ploop to raw. */

static int fill_raw(const struct request *request, struct image *source, ploop_file *target)
{
    struct progress progress;
    struct copy copy;
    int error = ploop_file_truncate(target, source->info.disk_size);

    if (error) {
        return complain(request->target, "cannot resize to %llu bytes: %s",
                        (unsigned long long)source->info.disk_size, reason(error));
    }
    progress_begin(&progress, source->info.disk_size);
    error = copy_begin(&copy, source->dev, source->info.disk_size, &progress);
    if (!error) {
        error = copy_to_raw(&copy, target);
    }
    progress_end(&progress, !error);
    copy_end(&copy);
    if (error) {
        return complain_of_copy(request, &copy);
    }
    error = ploop_file_sync(target);
    return error ? complain(request->target, "cannot sync: %s", reason(error)) : EXIT_SUCCESS;
}

static void warn_of_mark(const char *path, uint32_t flags)
{
    if (flags & PLOOP_IMAGE_IN_USE) {
        warn(path, "not closed cleanly; writes that were not flushed may be missing");
    }
}

static int convert_to_raw(struct request *request, ploop_file *target)
{
    struct ploop_dev_config config;
    struct image *source = &request->image;

    source->path = request->source;
    if (image_open(source)) {
        return EXIT_FAILURE;
    }
    for (uint32_t i = 0; i < source->base_count; i++) {
        warn_of_mark(source->bases[i].path, source->bases[i].flags);
    }
    warn_of_mark(source->path, source->info.flags);
    init_copy_config(&config, PLOOP_DEV_READ_ONLY);
    int status =
        image_open_device(source, &config) ? EXIT_FAILURE : fill_raw(request, source, target);
    image_close(source);
    return status;
}

/* raw to ploop. */

static int fill_image(const struct request *request, int source, uint64_t source_size,
                      ploop_dev *dev)
{
    uint64_t cluster_size = request->new_image.options.cluster_size;
    uint32_t part = cluster_size < COPY_BUFFER_BYTES ? (uint32_t)cluster_size : COPY_BUFFER_BYTES;
    struct progress progress;
    struct copy copy;

    progress_begin(&progress, request->new_image.options.disk_size);
    int error = copy_begin(&copy, dev, request->new_image.options.disk_size, &progress);
    if (!error) {
        error = copy_from_raw(&copy, source, source_size, part);
    }
    progress_end(&progress, !error);
    copy_end(&copy);
    if (error) {
        return complain_of_copy(request, &copy);
    }
    error = ploop_dev_flush(dev);
    return error ? complain(request->target, "cannot flush: %s", last_logged(error)) : EXIT_SUCCESS;
}

/* `request` has the size of the disk now. */
static int convert_to_image(const struct request *request, int source, uint64_t source_size,
                            ploop_file *target)
{
    struct ploop_dev_config config;
    ploop_dev *dev;

    if (new_image_write(&request->new_image, request->target, target)) {
        return EXIT_FAILURE;
    }
    init_copy_config(&config, 0);
    int error = ploop_dev_open(&target, 1, &config, &dev);
    if (error) {
        return complain(request->target, "%s", last_logged(error));
    }
    int status = fill_image(request, source, source_size, dev);
    if (status != EXIT_SUCCESS) {
        ploop_dev_abort(dev); /* the file is removed, so there is nothing to save */
        return status;
    }
    error = ploop_dev_close(dev);
    return error ? complain(request->target, "cannot close: %s", last_logged(error)) : EXIT_SUCCESS;
}

static int convert_from_raw(struct request *request, ploop_file *target)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ploop_file *guard; /* holds the lock, and knows the size of a block device; the reading is done
                          by descriptor, for the holes */
    int status = EXIT_FAILURE;

    if (open_file(request->source, PLOOP_FILE_READ_ONLY, &guard)) {
        return EXIT_FAILURE;
    }
    int fd = open(request->source, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? -errno : ploop_file_info(guard, &info);
    if (error) {
        complain(request->source, "cannot open: %s", reason(error));
    } else {
        uint64_t sectors =
            info.file_size / PLOOP_SECTOR_SIZE + (info.file_size % PLOOP_SECTOR_SIZE != 0);
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        request->new_image.options.disk_size = sectors * PLOOP_SECTOR_SIZE;
        status = convert_to_image(request, fd, info.file_size, target);
    }
    if (fd >= 0) {
        close(fd);
    }
    ploop_file_close(guard);
    return status;
}

/*
 * Create the target first: this shows at once whether the command can do anything, and from then on
 * the file is ours to remove.
 */
static int convert(struct request *request)
{
    ploop_file *target;
    const struct sigaction interrupt = {.sa_handler = copy_interrupt};

    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &interrupt, NULL);
    if (open_file(request->target, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &target)) {
        return EXIT_FAILURE;
    }
    int status = request->from == FORMAT_PLOOP ? convert_to_raw(request, target)
                                               : convert_from_raw(request, target);
    if (status == EXIT_SUCCESS && sync_directory_of(request->target)) {
        status = EXIT_FAILURE;
    }
    if (status != EXIT_SUCCESS) {
        unlink(
            request->target); /* while it is still locked: no other program has begun to use it */
    }
    ploop_file_close(target);
    return status;
}

static bool parse_format(const char *word, enum format *format)
{
    *format = strcmp(word, "raw") == 0     ? FORMAT_RAW
              : strcmp(word, "ploop") == 0 ? FORMAT_PLOOP
                                           : FORMAT_UNSAID;
    if (*format == FORMAT_UNSAID) {
        complain_usage(command, "invalid format '%s': expected raw or ploop", word);
    }
    return *format != FORMAT_UNSAID;
}

static enum format opposite(enum format format)
{
    return format == FORMAT_RAW ? FORMAT_PLOOP : FORMAT_RAW;
}

/* One of the two formats is enough: the other one is the opposite. */
static bool settle_formats(struct request *request)
{
    if (request->from == FORMAT_UNSAID && request->to == FORMAT_UNSAID) {
        complain_usage(command, "--from or --to is required: formats are never guessed");
        return false;
    }
    if (request->from == FORMAT_UNSAID) {
        request->from = opposite(request->to);
    }
    if (request->to == FORMAT_UNSAID) {
        request->to = opposite(request->from);
    }
    if (request->from == request->to) {
        complain_usage(command, "--from and --to must differ");
        return false;
    }
    if (request->from == FORMAT_RAW && request->image.base_count) {
        complain_usage(command, "--base and --raw-base require a ploop source");
        return false;
    }
    if (request->to == FORMAT_RAW &&
        (request->new_image.has_cluster || request->new_image.options.version == 1)) {
        complain_usage(command, "--cluster and --v1 require a ploop target");
        return false;
    }
    return true;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"from", required_argument, 0, 'f'},
        {"to", required_argument, 0, 't'},
        {"cluster", required_argument, 0, 'c'},
        {"v1", no_argument, 0, '1'},
        OPTION_BASE_ENTRIES,
        OPTION_HELP_ENTRY,
        {0},
    };
    struct request request = {0};
    bool right = true;
    int option;

    new_image_init(&request.new_image);
    while (right && (option = next_option(command, argc, argv, options)) != OPTION_END) {
        switch (option) {
        case 'f':
            right = parse_format(optarg, &request.from);
            break;
        case 't':
            right = parse_format(optarg, &request.to);
            break;
        case 'c':
            right = new_image_cluster(command, &request.new_image, optarg);
            break;
        case '1':
            request.new_image.options.version = 1;
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(command, &request.image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(command, argc, argv, 2) || !settle_formats(&request)) {
        return EXIT_FAILURE;
    }
    request.source = argv[optind];
    request.target = argv[optind + 1];
    return convert(&request);
}

const struct command convert_command = {
    .name = "convert",
    .synopsis = "[--from raw|ploop] [--to raw|ploop] [--cluster SIZE] [--v1] " BASE_SYNOPSIS
                " SOURCE TARGET",
    .summary = "Convert a raw disk to a new image, or an image to a new raw file",
    .options = "      --from FORMAT      format of the source, raw or ploop\n"
               "      --to FORMAT        format of the target, raw or ploop\n"
               "      --cluster SIZE     cluster size: power of two from 4K to 64M (default 1M)\n"
               "      --v1               use format version 1 (at most 2 TiB)\n" BASE_OPTIONS,
    .notes = "One of --from and --to is enough: the other format is its opposite.\n"
             "An image is copied together with its backing images, as one disk.\n"
             "TARGET must not exist; it is removed on error. Zeros take no space in it.\n",
    .run = run,
};
