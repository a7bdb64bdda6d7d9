/* SPDX-License-Identifier: MIT */
/* How the subcommands open an image for reading, and create one. See common.h. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../shared/same_file.h"

/*
 * The program has at most one device, so one line is enough. The library may log from any thread.
 */
static struct {
    pthread_mutex_t lock;
    char text[256];
} logged = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)message_id;
    if (level != PLOOP_LOG_ERROR) {
        return;
    }
    pthread_mutex_lock(&logged.lock);
    snprintf(logged.text, sizeof(logged.text), "%s", text);
    pthread_mutex_unlock(&logged.lock);
}

void init_config(struct ploop_dev_config *config)
{
    ploop_dev_config_init(config, sizeof(*config));
    config->log = keep_line;
}

const char *last_logged(int error)
{
    static char text[sizeof(logged.text)];

    pthread_mutex_lock(&logged.lock);
    memcpy(text, logged.text, sizeof(text));
    pthread_mutex_unlock(&logged.lock);
    return text[0] ? text : reason(error);
}

int open_file(const char *path, uint32_t flags, ploop_file **file)
{
    int error = ploop_file_open_posix(path, flags, file);

    if (error == -EAGAIN && flags & PLOOP_FILE_READ_WRITE) {
        complain(path, "cannot open for writing: another process has it open");
    } else if (error) {
        complain(path, "cannot %s: %s", flags & PLOOP_FILE_CREATE ? "create" : "open",
                 reason(error));
    }
    return error;
}

bool image_take_base(const struct command *command, struct image *image, int option,
                     const char *path)
{
    uint32_t at = option == OPTION_RAW_BASE ? 0 : image->base_count;

    if (option == OPTION_RAW_BASE && image->has_raw_base) {
        complain_usage(command, "more than one --raw-base: '%s' and '%s'", image->bases[0].path,
                       path);
        return false;
    }
    if (image->base_count == BASES_MAX) {
        complain_usage(command, "too many backing files: at most %d are supported", BASES_MAX);
        return false;
    }
    memmove(&image->bases[at + 1], &image->bases[at],
            (image->base_count - at) * sizeof(image->bases[0]));
    image->bases[at] = (struct base){.path = path};
    image->base_count++;
    image->has_raw_base |= option == OPTION_RAW_BASE;
    return true;
}

int probe(ploop_file *file, struct ploop_image_info *info)
{
    info->size = sizeof(*info);
    return ploop_image_probe(file, info);
}

/*
 * What else a file may be that has no image's header, for whoever forgot to say so. A raw disk has
 * whole sectors, and that is all that is known of it.
 */
static const char *header_hint(const struct ploop_image_info *info, int error)
{
    bool may_be_raw = error == -EINVAL && info->file_size >= PLOOP_SECTOR_SIZE &&
                      info->file_size % PLOOP_SECTOR_SIZE == 0;

    return may_be_raw ? "; if it is a raw disk, use --raw-base, or convert --from raw" : "";
}

int complain_of_header(const char *path, const struct ploop_image_info *info, int error)
{
    return info->message[0] ? complain(path, "%s%s", info->message, header_hint(info, error))
                            : complain(path, "cannot read the header: %s", reason(error));
}

int refuse_same_file(const struct image *image, const char *top)
{
    const char *paths[BASES_MAX + 2];
    uint32_t first, second, count = image->base_count;

    for (uint32_t i = 0; i < image->base_count; i++) {
        paths[i] = image->bases[i].path;
    }
    paths[count++] = image->path;
    if (top) {
        paths[count++] = top;
    }
    if (!find_same_file(paths, count, &first, &second)) {
        return 0;
    }
    complain(paths[second], "the same file as %s: a file cannot be in a stack twice", paths[first]);
    return -EINVAL;
}

int image_open_files(struct image *image, uint32_t flags)
{
    uint32_t unlocked = image->is_shared ? PLOOP_FILE_UNLOCKED : 0;
    int error = refuse_same_file(image, NULL);

    if (!error) {
        error = open_file(image->path, flags | unlocked, &image->file);
    }
    for (uint32_t i = 0; i < image->base_count && !error; i++) {
        error =
            open_file(image->bases[i].path, PLOOP_FILE_READ_ONLY | unlocked, &image->bases[i].file);
    }
    if (error) {
        image_close(image);
    } else if (image->is_shared) {
        warn(image->path, "read without a lock: what a process that has it open changes meanwhile "
                          "can look like damage");
    }
    return error;
}

static int probe_base(struct image *image, uint32_t number)
{
    struct base *base = &image->bases[number];
    struct ploop_image_info info = {0};
    int error = number == 0 && image->has_raw_base ? 0 : probe(base->file, &info);

    if (error) {
        complain_of_header(base->path, &info, error);
    }
    base->flags = info.flags;
    return error;
}

int image_open(struct image *image)
{
    int error = image_open_files(image, PLOOP_FILE_READ_ONLY);
    if (error) {
        return error;
    }
    error = probe(image->file, &image->info);
    if (error) {
        complain_of_header(image->path, &image->info, error);
    }
    for (uint32_t i = 0; i < image->base_count && !error; i++) {
        error = probe_base(image, i);
    }
    if (error) {
        image_close(image);
    }
    return error;
}

int image_try_device(struct image *image, const struct ploop_dev_config *config)
{
    ploop_file *deltas[BASES_MAX + 1];
    struct ploop_dev_config own;

    init_config(&own);
    if (config) {
        own = *config;
    }
    own.flags |= PLOOP_DEV_READ_ONLY | (image->has_raw_base ? PLOOP_DEV_RAW_BASE : 0u);
    for (uint32_t i = 0; i < image->base_count; i++) {
        deltas[i] = image->bases[i].file;
    }
    deltas[image->base_count] = image->file;
    return ploop_dev_open(deltas, image->base_count + 1, &own, &image->dev);
}

/* In a stack the library's line begins with the delta's number, 0 the lowest. */
const char *image_blame(const struct image *image, int error, const char **path)
{
    const char *text = last_logged(error);
    unsigned level;
    int length = 0;

    *path = image->path;
    if (sscanf(text, "delta %u: %n", &level, &length) == 1 && length &&
        level <= image->base_count) {
        *path = level < image->base_count ? image->bases[level].path : image->path;
        text += length;
    }
    return text;
}

int image_open_device(struct image *image, const struct ploop_dev_config *config)
{
    int error = image_try_device(image, config);
    const char *path;

    if (error) {
        const char *text = image_blame(image, error, &path);
        complain(path, "%s", text);
    }
    return error;
}

void image_close(struct image *image)
{
    ploop_dev_close(image->dev); /* it was read-only: nothing can be lost */
    ploop_file_close(image->file);
    image->dev = NULL;
    image->file = NULL;
    for (uint32_t i = 0; i < image->base_count; i++) {
        ploop_file_close(image->bases[i].file);
        image->bases[i].file = NULL;
    }
}

void new_image_init(struct new_image *new_image)
{
    *new_image = (struct new_image){.options = {.size = sizeof(new_image->options), .version = 2}};
    new_image->options.cluster_size = PLOOP_CLUSTER_SIZE_DEFAULT;
}

bool new_image_size(const struct command *command, struct new_image *new_image, const char *text)
{
    uint64_t bytes;
    int error = parse_size(text, &bytes);

    if (error == -EINVAL) {
        complain_usage(command,
                       "invalid size '%s': expected a number of bytes, optionally followed by "
                       "K, M, G, T or P",
                       text);
    } else if (error) {
        complain_usage(command, "invalid size '%s': %s", text, strerror(-error));
    } else if (bytes % PLOOP_SECTOR_SIZE) {
        complain_usage(command, "invalid size '%s': expected a multiple of 512 bytes", text);
        error = -EINVAL;
    }
    if (error) {
        return false;
    }
    new_image->options.disk_size = bytes;
    new_image->has_size = true;
    return true;
}

bool new_image_cluster(const struct command *command, struct new_image *new_image, const char *text)
{
    uint64_t bytes;

    if (parse_size(text, &bytes) || bytes < PLOOP_CLUSTER_SIZE_MIN ||
        bytes > PLOOP_CLUSTER_SIZE_MAX || bytes & (bytes - 1)) {
        complain_usage(command, "invalid cluster size '%s': expected a power of two from 4K to 64M",
                       text);
        return false;
    }
    new_image->options.cluster_size = bytes;
    new_image->has_cluster = true;
    return true;
}

int new_image_write(const struct new_image *new_image, const char *path, ploop_file *file)
{
    const struct ploop_image_options *options = &new_image->options;
    uint64_t bat_entries = options->disk_size / options->cluster_size +
                           (options->disk_size % options->cluster_size != 0);
    int error = ploop_image_create(file, options);

    if (error == -EFBIG && bat_entries > PLOOP_BAT_LIMIT_DEFAULT / 4) {
        complain(path,
                 "a disk of %llu bytes with clusters of %llu bytes is too large: its BAT would "
                 "exceed 1 GiB; use larger clusters",
                 (unsigned long long)options->disk_size, (unsigned long long)options->cluster_size);
    } else if (error == -EFBIG) {
        complain(path,
                 "a disk of %llu bytes with clusters of %llu bytes is too large for a version %u "
                 "image, or its BAT for the file system",
                 (unsigned long long)options->disk_size, (unsigned long long)options->cluster_size,
                 options->version);
    } else if (error) {
        complain(path, "cannot write the new image: %s", reason(error));
    }
    return error;
}

int sync_directory_of(const char *path)
{
    char *copy = strdup(path);
    int error = -ENOMEM;

    if (copy) {
        int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        error = directory < 0 || fsync(directory) != 0 ? -errno : 0;
        if (directory >= 0) {
            close(directory);
        }
        free(copy);
    }
    if (error) {
        complain(path, "cannot sync its directory: %s", strerror(-error));
    }
    return error;
}
