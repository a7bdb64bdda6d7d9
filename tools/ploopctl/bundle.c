/* SPDX-License-Identifier: MIT */
/* Bundles where other subcommands take or make an image: see bundle.h. */
#include "bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle_library.h"
#include "progress.h"

static const char xml_file[] = "DiskDescriptor.xml";

/* ---- The library ---- */

static bool has_told; /* since the last call began */
static struct progress progress;

static void print_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)message_id;
    has_told |= level == PLOOP_LOG_ERROR;
    progress_clear(&progress);
    fprintf(stderr, "ploopctl: %s%s\n", level == PLOOP_LOG_WARNING ? "warning: " : "", text);
}

int bundle_told(const char *path, int error)
{
    if (error && !has_told) {
        complain(path, "%s", strerror(-error));
    }
    has_told = false;
    return error;
}

int bundle_open(const char *path, uint32_t flags, ploop_bundle **bundle)
{
    struct ploop_bundle_config config = {.size = sizeof(config), .flags = flags};

    config.log = print_line;
    return bundle_told(path, ploop_bundle_open(path, &config, bundle));
}

static atomic_bool is_interrupted;
static bool has_progress; /* it has begun */

static void interrupt(int signal)
{
    (void)signal;
    is_interrupted = true;
}

static int on_progress(void *user_data, uint64_t done, uint64_t total)
{
    (void)user_data;
    if (!has_progress) {
        progress_begin(&progress, total);
        has_progress = true;
    }
    progress_set_total(&progress, total);
    progress_update(&progress, done);
    return is_interrupted;
}

int bundle_open_long(const char *path, uint64_t rate, ploop_bundle **bundle)
{
    const struct sigaction action = {.sa_handler = interrupt};
    struct ploop_bundle_config config = {.size = sizeof(config), .flags = PLOOP_BUNDLE_READ_WRITE};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    config.log = print_line;
    config.progress = on_progress;
    config.merge_rate = rate;
    return bundle_told(path, ploop_bundle_open(path, &config, bundle));
}

int bundle_told_long(const char *path, int error)
{
    if (has_progress) {
        progress_end(&progress, !error);
    }
    return bundle_told(path, error);
}

int bundle_create(const char *path, const struct new_image *new_image)
{
    struct ploop_bundle_options options = {.size = sizeof(options), .log = print_line};

    options.version = new_image->options.version;
    options.disk_size = new_image->options.disk_size;
    options.cluster_size = new_image->options.cluster_size;
    if (!options.disk_size) {
        complain(path, "a bundle's disk cannot be empty");
        return -EINVAL;
    }
    return bundle_told(path, ploop_bundle_create(path, &options));
}

/* ---- A bundle as an image ---- */

bool bundle_is_one(const char *path)
{
    const char *slash = strrchr(path, '/');
    struct stat status;

    return (!stat(path, &status) && S_ISDIR(status.st_mode)) ||
           strcmp(slash ? slash + 1 : path, xml_file) == 0;
}

int bundle_take_stack(struct image *image, const ploop_bundle *bundle, uint32_t storage,
                      bool *is_raw)
{
    struct ploop_bundle_image part = {.size = sizeof(part)};
    struct ploop_bundle_info info = {.size = sizeof(info)};
    uint32_t chain[BASES_MAX + 1];

    ploop_bundle_info(bundle, &info);
    int64_t count = ploop_bundle_chain(bundle, info.top, chain, BASES_MAX + 1);
    if (count > BASES_MAX + 1) {
        complain(image->path, "its stack has %lld images, more than %d", (long long)count,
                 BASES_MAX + 1);
        return -EFBIG;
    }
    for (uint32_t i = 0; i < count; i++) {
        ploop_bundle_image(bundle, storage, chain[i], &part);
        if (i + 1 < count) {
            image->bases[i] = (struct base){.path = part.path};
            image->has_raw_base |= part.type == PLOOP_BUNDLE_PLAIN;
        }
    }
    if (part.type == PLOOP_BUNDLE_PLAIN) {
        if (!is_raw) {
            complain(image->path, "its only image, %s, is a raw disk", part.name);
            return -EINVAL;
        }
        *is_raw = true;
    }
    image->base_count = (uint32_t)count - 1;
    image->path = part.path;
    return 0;
}

int bundle_expand(struct image *image, bool *is_raw)
{
    static ploop_bundle *bundle; /* it has the names */
    struct ploop_bundle_info info = {.size = sizeof(info)};

    if (!bundle_is_one(image->path)) {
        return 0;
    }
    if (image->base_count) {
        complain(image->path, "is a bundle, which names its backing images itself");
        return -EINVAL;
    }
    ploop_bundle_close(bundle);
    int error = bundle_open(image->path, PLOOP_BUNDLE_READ_ONLY, &bundle);
    if (error) {
        return error;
    }
    ploop_bundle_info(bundle, &info);
    if (info.storage_count > 1) {
        complain(image->path, "a disk split into %u parts cannot be used here", info.storage_count);
        return -ENOTSUP;
    }
    error = bundle_take_stack(image, bundle, 0, is_raw);
    return error ? error : 1;
}

/* ---- A new one ---- */

int bundle_make(const char *path, const struct new_image *new_image, uint64_t disk_size,
                const char **image_path)
{
    static ploop_bundle *bundle; /* it has the name */
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct ploop_bundle_image image = {.size = sizeof(image)};
    struct new_image wanted = *new_image;

    wanted.options.disk_size = disk_size;
    int error = bundle_create(path, &wanted);
    if (error) {
        return error;
    }
    error = bundle_open(path, PLOOP_BUNDLE_READ_ONLY, &bundle);
    if (error) {
        bundle_unmake(path);
        return error;
    }
    ploop_bundle_info(bundle, &info);
    ploop_bundle_image(bundle, 0, info.top, &image);
    *image_path = image.path;
    return 0;
}

void bundle_unmake(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;

    while (directory && (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            unlinkat(dirfd(directory), entry->d_name, 0);
        }
    }
    if (directory) {
        closedir(directory);
    }
    rmdir(path);
}
