/* SPDX-License-Identifier: MIT */
/*
 * ploopctl convert: copies a disk, which is a raw file or an image with its backing files, to a new
 * raw file or image, to a block device or a pipe.
 *
 * The command creates the target, and removes it again if anything fails. It only reads the source,
 * under the lock that excludes writers. The user names the source's format; the command never
 * guesses it, because a guest can write anything to the start of its disk.
 */
#include <errno.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "common.h"
#include "copy.h"
#include "json.h"
#include "split.h"
#include "spool.h"
#include "target.h"

enum format { FORMAT_UNSAID, FORMAT_RAW, FORMAT_PLOOP, FORMAT_BUNDLE };

struct request {
    const char *source_path;
    const char *target_path;
    enum format from, to;
    bool force, is_json;
    bool is_split;      /* the source, and it is open */
    bool is_to_file;    /* the target is a file in a directory */
    struct image image; /* the source; a raw one is its file alone */
    struct data_file data_files[BASES_MAX + 1];
    struct new_image new_image; /* the target's options, if it is an image */
    struct copy copy;
};

static const struct command *const command = &convert_command;

static int complain_of_copy(const struct request *request)
{
    const struct copy *copy = &request->copy;

    if (copy->error == -EINTR) {
        return complain(request->target_path, "interrupted");
    }
    bool is_source = copy->error_side == COPY_SOURCE;
    const char *why = copy->error == -ENODATA ? "the file was truncated" : strerror(-copy->error);
    return complain(is_source ? request->source_path : request->target_path,
                    "error while %s at byte %llu of the disk: %s",
                    is_source ? "reading" : "writing", (unsigned long long)copy->error_offset, why);
}

static void init_copy_config(struct ploop_dev_config *config, uint32_t flags)
{
    init_config(config);
    config->flags = flags;
    config->queue_count = COPY_WORKERS;
    config->pio_count = COPY_REQUESTS;
}

/* ---- The source ---- */

static void warn_of_mark(const char *path, uint32_t flags)
{
    if (flags & PLOOP_IMAGE_IN_USE) {
        warn(path, "not closed cleanly; writes that were not flushed may be missing");
    }
}

static int open_image(struct request *request)
{
    struct image *image = &request->image;
    struct ploop_dev_config config;

    int error = image_open(image);
    if (error) {
        return error;
    }
    for (uint32_t i = 0; i < image->base_count; i++) {
        warn_of_mark(image->bases[i].path, image->bases[i].flags);
    }
    warn_of_mark(image->path, image->info.flags);
    init_copy_config(&config, PLOOP_DEV_READ_ONLY);
    error = image_open_device(image, &config);
    request->copy.source.dev = image->dev;
    request->copy.walk.disk_size = image->info.disk_size;
    request->copy.cluster_size = image->info.cluster_size;
    return error;
}

/* Into a file beside the target, where there has to be room for the disk anyway. */
static int spool_source(struct request *request)
{
    static char path[SPOOL_PATH];
    const char *directory = getenv("TMPDIR");
    char *copy = NULL;

    if (!request->is_to_file || !(copy = strdup(request->target_path))) {
        directory = directory && *directory ? directory : "/var/tmp";
    } else {
        directory = dirname(copy);
    }
    request->image.path = path;
    int error = spool(request->source_path, directory, path);
    free(copy);
    return error;
}

static int open_raw(struct request *request)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    struct copy *copy = &request->copy;

    int error = is_pipe(request->source_path) ? spool_source(request) : 0;
    if (!error) {
        error = image_open_files(&request->image, PLOOP_FILE_READ_ONLY);
    }
    if (error) {
        return error;
    }
    error = ploop_file_info(request->image.file, &info);
    if (error) {
        complain(request->source_path, "cannot open: %s", reason(error));
    }
    uint64_t rest = info.file_size % PLOOP_SECTOR_SIZE;
    copy->source.file = request->image.file;
    copy->source.file_size = info.file_size;
    copy->walk.disk_size = info.file_size + (rest ? PLOOP_SECTOR_SIZE - rest : 0);
    return error;
}

static int lookup_split(uint64_t offset, uint64_t length, struct ploop_extent *extent)
{
    return split_lookup(offset, length, extent, NULL);
}

/* A bad entry takes away a cluster of its part, which is found out sector by sector. */
static int open_split(struct request *request)
{
    int error = split_open(request->source_path, &request->copy.walk.disk_size);

    request->is_split = !error;
    request->copy.source.read = split_read;
    request->copy.walk.lookup = lookup_split;
    request->copy.cluster_size = PLOOP_SECTOR_SIZE;
    return error;
}

/* A bundle's XML says what its images are, so nothing is guessed. 0 or -errno, printed. */
static int settle_source(struct request *request)
{
    bool is_raw = false;
    int found = bundle_expand(&request->image, &is_raw);

    if (found > 0) {
        request->from = is_raw ? FORMAT_RAW : FORMAT_PLOOP;
    } else if (found == 0 && request->from == FORMAT_BUNDLE) {
        complain(request->source_path, "not a bundle");
        found = -EINVAL;
    }
    return found < 0 ? found : 0;
}

/* Prints errors. 0 or -errno; close_source() in either case. */
static int open_source(struct request *request)
{
    struct image *image = &request->image;

    image->path = request->source_path;
    if (!image->base_count && is_split(request->source_path)) {
        request->data_files[0] = (struct data_file){.fd = -1};
        request->copy.walk.files = request->data_files;
        return open_split(request);
    }
    int error = settle_source(request);
    if (!error) {
        error = request->from == FORMAT_PLOOP ? open_image(request) : open_raw(request);
    }
    for (uint32_t i = 0; i <= image->base_count; i++) {
        const char *path = i < image->base_count ? image->bases[i].path : image->path;
        request->data_files[i] = (struct data_file){.fd = -1};
        if (!error) {
            request->data_files[i] = data_file_open(path);
        }
    }
    request->copy.walk.dev = image->dev;
    request->copy.walk.files = request->data_files;
    return error;
}

static void close_source(struct request *request)
{
    for (uint32_t i = 0; i <= request->image.base_count; i++) {
        data_file_close(&request->data_files[i]);
    }
    image_close(&request->image);
    if (request->is_split) {
        split_close();
    }
}

/* ---- What a salvage has lost ---- */

static void print_json(const struct request *request, uint64_t lost_bytes)
{
    const struct lost *lost = &request->copy.lost;
    struct json json = {0};

    json_begin_object(&json, NULL);
    json_string(&json, "source", request->source_path);
    json_string(&json, "target", request->target_path);
    json_number(&json, "disk_size", request->copy.walk.disk_size);
    json_number(&json, "lost_bytes", lost_bytes);
    json_begin_array(&json, "lost");
    for (uint64_t i = 0; i < lost->count; i++) {
        json_begin_object(&json, NULL);
        json_number(&json, "offset", lost->ranges[i].offset);
        json_number(&json, "length", lost->ranges[i].length);
        json_end_object(&json);
    }
    json_end_array(&json);
    json_end_object(&json);
}

/* The target is complete. EXIT_FAILURE if it lacks anything. */
static int report(struct request *request)
{
    struct lost *lost = &request->copy.lost;
    uint64_t bytes = lost_settle(lost);

    for (uint64_t i = 0; i < lost->count; i++) {
        complain(request->source_path, "lost: %llu bytes at byte %llu of the disk",
                 (unsigned long long)lost->ranges[i].length,
                 (unsigned long long)lost->ranges[i].offset);
    }
    if (bytes) {
        complain(request->target_path,
                 "is not complete: %llu bytes are zeros that could not be "
                 "read",
                 (unsigned long long)bytes);
    }
    if (request->is_json) {
        print_json(request, bytes);
    }
    lost_free(lost);
    return bytes ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- The target ---- */

static int copy_data(struct request *request)
{
    struct progress progress;

    progress_begin(&progress, request->copy.walk.disk_size);
    request->copy.progress = &progress;
    int error = copy_run(&request->copy);
    progress_end(&progress, !error);
    return error ? complain_of_copy(request) : EXIT_SUCCESS;
}

static int fill_stream(struct request *request, const struct target *target)
{
    request->copy.target.stream = target->fd;
    request->copy.target.is_stream = true;
    return copy_data(request);
}

static int fill_raw(struct request *request, const struct target *target)
{
    uint64_t disk_size = request->copy.walk.disk_size;
    int error;

    if (target->kind == TARGET_DEVICE) {
        error = target_clear(target, disk_size);
    } else {
        error = ploop_file_truncate(target->file, disk_size);
        if (error) {
            complain(request->target_path, "cannot resize to %llu bytes: %s",
                     (unsigned long long)disk_size, reason(error));
        }
    }
    request->copy.target.file = target->file;
    if (error || copy_data(request) != EXIT_SUCCESS) {
        return EXIT_FAILURE;
    }
    error = ploop_file_sync(target->file);
    return error ? complain(request->target_path, "cannot sync: %s", reason(error)) : EXIT_SUCCESS;
}

/* The file holds an empty image. */
static int fill_device(struct request *request, ploop_file *file)
{
    struct ploop_dev_config config;
    ploop_dev *dev;

    init_copy_config(&config, 0);
    int error = ploop_dev_open(&file, 1, &config, &dev);
    if (error) {
        return complain(request->target_path, "%s", last_logged(error));
    }
    request->copy.target.dev = dev;
    if (copy_data(request) != EXIT_SUCCESS) {
        ploop_dev_abort(dev); /* the file is removed, so there is nothing to save */
        return EXIT_FAILURE;
    }
    error = ploop_dev_close(dev); /* writes the map, and makes all durable */
    return error ? complain(request->target_path, "cannot close: %s", last_logged(error))
                 : EXIT_SUCCESS;
}

static int fill_image(struct request *request, ploop_file *file)
{
    request->new_image.options.disk_size = request->copy.walk.disk_size;
    return new_image_write(&request->new_image, request->target_path, file)
               ? EXIT_FAILURE
               : fill_device(request, file);
}

/* A bundle is made with its disk's size, so the source is opened first. */
static int convert_to_bundle(struct request *request)
{
    const char *image_path;
    ploop_file *file;
    int status = EXIT_FAILURE;

    request->is_to_file = true;
    if (!open_source(request) && !bundle_make(request->target_path, &request->new_image,
                                              request->copy.walk.disk_size, &image_path)) {
        if (!open_file(image_path, PLOOP_FILE_READ_WRITE, &file)) {
            status = fill_device(request, file);
            ploop_file_close(file);
        }
        if (status != EXIT_SUCCESS) {
            bundle_unmake(request->target_path);
        }
    }
    close_source(request);
    return status == EXIT_SUCCESS ? report(request) : status;
}

static int fill(struct request *request, const struct target *target)
{
    return target->kind == TARGET_STREAM ? fill_stream(request, target)
           : request->to == FORMAT_RAW   ? fill_raw(request, target)
                                         : fill_image(request, target->file);
}

/*
 * Create the target first: this shows at once whether the command can do anything, and from then on
 * the file is ours to remove.
 */
static int convert(struct request *request)
{
    struct target target;
    const struct sigaction interrupt = {.sa_handler = copy_interrupt};

    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &interrupt, NULL);
    if (request->to == FORMAT_BUNDLE) {
        return convert_to_bundle(request);
    }
    if (target_open(&target, request->target_path, request->force, request->to == FORMAT_RAW)) {
        return EXIT_FAILURE;
    }
    if (target.kind == TARGET_STREAM) { /* there is nothing to remove, and a pipe may be stuck */
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
    }
    request->is_to_file = target.kind == TARGET_FILE;
    int status = open_source(request) ? EXIT_FAILURE : fill(request, &target);
    close_source(request);
    status = target_end(&target, status);
    return status == EXIT_SUCCESS ? report(request) : status;
}

static bool parse_format(const char *word, enum format *format)
{
    *format = strcmp(word, "raw") == 0      ? FORMAT_RAW
              : strcmp(word, "ploop") == 0  ? FORMAT_PLOOP
              : strcmp(word, "bundle") == 0 ? FORMAT_BUNDLE
                                            : FORMAT_UNSAID;
    if (*format == FORMAT_UNSAID) {
        complain_usage(command, "invalid format '%s': expected raw, ploop or bundle", word);
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
    if (request->is_json && is_standard_output(request->target_path)) {
        complain_usage(command, "--json and the disk cannot both go to standard output");
        return false;
    }
    if (request->from != FORMAT_RAW && is_pipe(request->source_path)) {
        complain_usage(command, "only a raw disk can be read from a pipe");
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
        {"force", no_argument, 0, 'F'},
        {"salvage", no_argument, 0, 's'},
        {"json", no_argument, 0, 'j'},
        OPTION_BASE_ENTRIES,
        OPTION_HELP_ENTRY,
        {0},
    };
    static struct request request; /* too large for a stack */
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
        case 'F':
            request.force = true;
            break;
        case 's':
            request.copy.salvages = true;
            break;
        case 'j':
            request.is_json = true;
            break;
        case OPTION_BASE:
        case OPTION_RAW_BASE:
            right = image_take_base(command, &request.image, option, optarg);
            break;
        default:
            right = false;
        }
    }
    if (!right || !has_arguments(command, argc, argv, 2)) {
        return EXIT_FAILURE;
    }
    request.source_path = argv[optind];
    request.target_path = argv[optind + 1];
    if (!settle_formats(&request)) {
        return EXIT_FAILURE;
    }
    return convert(&request);
}

const struct command convert_command = {
    .name = "convert",
    .synopsis = "[--from FORMAT] [--to FORMAT] [--cluster SIZE] [--v1] [--force]\n"
                "                        [--salvage] [--json] " BASE_SYNOPSIS " SOURCE TARGET",
    .summary = "Copy a raw disk or an image to a new image or raw file",
    .options = "      --from FORMAT      format of the source: raw, ploop or bundle\n"
               "      --to FORMAT        format of the target: raw, ploop or bundle\n"
               "      --cluster SIZE     cluster size: power of two from 4K to 64M (default 1M)\n"
               "      --v1               use format version 1 (at most 2 TiB)\n" FORCE_HELP
               "      --salvage          go on where the source cannot be read, with zeros\n"
               "      --json             print what was lost as JSON\n" BASE_OPTIONS,
    .notes =
        "One of --from and --to is enough: the other format is its opposite.\n"
        "Both may be given, and may be the same.\n"
        "An image is copied together with its backing images, as one disk.\n"
        "TARGET must not exist; it is removed on error. Blocks of zeros take no space in it.\n"
        "It can be a block device, with --force. Raw disks can come from and go to a pipe, or\n"
        "- for standard input and output.\n",
    .examples = "  ploopctl convert --to ploop disk.raw disk.hds\n"
                "  ploopctl convert --from ploop disk.hds - | gzip >disk.raw.gz\n"
                "  ploopctl convert --to bundle disk.raw disk.hdd\n",
    .run = run,
};
