/* SPDX-License-Identifier: MIT */
/*
 * The devices of a server process: one for each image that clients use.
 *
 *     CLOSED (not on the list) -> OPEN, from the first connection to the image
 *       image=: until the server ends; dir=: until the last connection to it is gone -> CLOSED
 *
 * open_lock guards the list, the counts of connections and both steps, and is never held around a
 * request: an image that takes long to open or to close keeps other clients from connecting, but
 * no request waits for it. What open sets in a device does not change afterwards.
 */
#include "device.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "../shared/same_file.h"
#include "bundle.h"
#include "exports.h"

#define NS_PER_MS UINT64_C(1000000)

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct device *devices; /* the open ones, linked by `next` */

/* ---- open and close ---- */

static int fail(const char *path, const char *what, int error, const char *why)
{
    nbdkit_error("%s: %s: %s", path, what, why);
    nbdkit_set_error(-error);
    return -1;
}

/* The name of a file of the stack. */
static const char *path_of(const struct device *device, uint32_t level)
{
    const struct server_config *config = device->config;

    return level < config->base_count ? config->bases[level] : device->image;
}

static bool is_raw(const struct server_config *config, uint32_t level)
{
    return level == 0 && config->has_raw_base;
}

/* Without io_uring the server goes on with the other backend, and says so once. */
static int open_with_backend(const struct device *device, const char *path, uint32_t flags,
                             ploop_file **file)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    const struct server_config *config = device->config;
    int error = config->uring ? ploop_file_open_uring(path, flags, device->group, file) : -ENOSYS;

    if (error != -ENOSYS) {
        return error;
    }
    if (config->uring_asked && !atomic_flag_test_and_set(&told)) {
        nbdkit_error("warning: io_uring is not available: using backend=posix");
    }
    return ploop_file_open_posix_shared(path, flags, device->threads, file);
}

static int open_file(struct device *device, uint32_t level, uint32_t flags)
{
    const struct server_config *config = device->config;
    ploop_file **file = &device->files[level];
    int error = open_with_backend(device, path_of(device, level),
                                  flags | (config->direct ? PLOOP_FILE_DIRECT : 0), file);
    const char *why;

    if (!error) {
        return 0;
    }
    *file = NULL;
    if (error == -EAGAIN) {
        why = "another process has it open";
    } else if (error == -EINVAL && config->direct) {
        why = "the file system does not support direct=1";
    } else {
        why = strerror(-error);
    }
    return fail(path_of(device, level), "cannot open", error, why);
}

static void close_files(struct device *device)
{
    for (uint32_t level = 0; level <= device->config->base_count; level++) {
        ploop_file_close(device->files[level]);
        device->files[level] = NULL;
    }
}

/* Explains an error caused by the image itself; advises nothing that was given already. */
static const char *explain(const struct server_config *config, int error)
{
    switch (error) {
    case -EAGAIN:
        return "another process has it open";
    case -EBUSY:
        return "part of it stays in the page cache, which may show data that the disk has lost; "
               "end the programs that map the file, or use recover=cached";
    case -EUCLEAN:
        return config->recover
                   ? "damaged, which recover= cannot repair; run ploopctl check"
                   : "not closed cleanly, or damaged; run ploopctl check, or use recover=1";
    case -EINVAL:
        return "not a ploop image";
    default:
        return strerror(-error);
    }
}

/* In a stack a line begins with the file's number, 0 the lowest; the file's name is clearer. */
static void device_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    struct device *device = user_data;
    const char *path = device->image;
    unsigned number;
    int length = 0;

    (void)message_id;
    if (sscanf(text, "delta %u: %n", &number, &length) == 1 && length &&
        number <= device->config->base_count) {
        path = path_of(device, number);
        text += length;
    }
    if (level == PLOOP_LOG_ERROR && device->holds_line) {
        snprintf(device->held_line, sizeof(device->held_line), "%s: %s", path, text);
    } else if (level == PLOOP_LOG_ERROR) {
        nbdkit_error("%s: %s", path, text);
    } else if (level == PLOOP_LOG_WARNING) {
        nbdkit_error("%s: warning: %s", path, text);
    } else {
        nbdkit_debug("%s: %s", path, text);
    }
}

static uint32_t policy_of(const struct server_config *config)
{
    return config->refuse_after_sync_failure ? PLOOP_SYNC_FAILED_REFUSE_CHANGES
                                             : PLOOP_SYNC_FAILED_GO_ON;
}

static void init_dev_config(struct device *device, bool read_only,
                            struct ploop_dev_config *dev_config)
{
    const struct server_config *config = device->config;

    ploop_dev_config_init(dev_config, sizeof(*dev_config));
    dev_config->flags = (read_only ? PLOOP_DEV_READ_ONLY : 0u) |
                        (config->recover ? PLOOP_DEV_RECOVER : 0u) |
                        (config->recover_cached ? PLOOP_DEV_RECOVER_CACHED : 0u) |
                        (config->has_raw_base ? PLOOP_DEV_RAW_BASE : 0u) |
                        (config->host_shows_stale ? PLOOP_DEV_HOST_SHOWS_STALE : 0u);
    dev_config->log = device_log;
    dev_config->user_data = device;
}

/* The bundle's library has a log and a clock of its own. */
static void init_split_config(struct device *device, bool read_only,
                              struct ploop_dev_config *dev_config)
{
    const struct server_config *config = device->config;

    init_dev_config(device, read_only, dev_config);
    dev_config->log = NULL;
    dev_config->user_data = NULL;
    dev_config->writeback_delay_ns = config->delay_ms * NS_PER_MS;
    dev_config->writeback_max_age_ns = config->max_age_ms * NS_PER_MS;
    dev_config->sync_failed_policy = policy_of(config);
}

static int probe_file(struct device *device, uint32_t level)
{
    const struct server_config *config = device->config;
    struct ploop_image_info image = {.size = sizeof(image)};
    int error;

    /* A program that writes to a file locks readers out too. */
    if (open_file(device, level, PLOOP_FILE_READ_ONLY)) {
        return -1;
    }
    error = is_raw(config, level) ? 0 : ploop_image_probe(device->files[level], &image);
    if (error) {
        const char *why = image.message[0] ? image.message : explain(config, error);
        bool may_be_raw = error == -EINVAL && image.file_size >= PLOOP_SECTOR_SIZE &&
                          image.file_size % PLOOP_SECTOR_SIZE == 0;
        nbdkit_error("%s: cannot serve: %s%s", path_of(device, level), why,
                     may_be_raw ? "; if it is a raw disk, use raw-base= below an image" : "");
        nbdkit_set_error(-error);
        return -1;
    }
    if ((image.flags & PLOOP_IMAGE_IN_USE) && !config->recover) {
        nbdkit_error("%s: warning: not closed cleanly; use recover=1, or -r to serve it read-only",
                     path_of(device, level));
    }
    return 0;
}

/* Files with valid headers may not fit together; the log then has the reason. */
static int probe_stack(struct device *device)
{
    struct ploop_dev_config dev_config;
    ploop_dev *probed;
    int error;

    init_dev_config(device, true, &dev_config);
    error = ploop_dev_open(device->files, device->config->base_count + 1, &dev_config, &probed);
    ploop_dev_close(probed);
    if (error && error != -EUCLEAN) {
        fail(device->image, "cannot serve", error, explain(device->config, error));
    }
    return error ? -1 : 0;
}

/* NULL: no memory, which nbdkit was told. */
static struct device *new_device(const struct server_config *config, const char *image)
{
    struct device *device = calloc(1, sizeof(*device));

    if (device) {
        device->config = config;
        device->image = strdup(image);
    }
    if (!device || !device->image || ploop_io_threads_create(0, &device->threads)) {
        fail(image, "cannot open", -ENOMEM, strerror(ENOMEM));
        free(device ? device->image : NULL);
        free(device);
        return NULL;
    }
    if (config->uring) {
        (void)ploop_uring_create(NULL, &device->group); /* else each file has rings of its own */
    }
    timer_init(&device->timer);
    return device;
}

static void free_device(struct device *device)
{
    close_files(device);
    ploop_uring_close(device->group);
    timer_destroy(&device->timer);
    ploop_io_threads_free(device->threads);
    free(device->image);
    free(device);
}

/* A file that is in a stack twice would lock itself out, or be read as its own base. */
static int refuse_same_file(const struct device *device)
{
    const char *paths[BASES_MAX + 1];
    uint32_t first, second, count = device->config->base_count + 1;

    for (uint32_t level = 0; level < count; level++) {
        paths[level] = path_of(device, level);
    }
    if (!find_same_file(paths, count, &first, &second)) {
        return 0;
    }
    nbdkit_error("%s: the same file as %s: a file cannot be in a stack twice", paths[second],
                 paths[first]);
    nbdkit_set_error(EINVAL);
    return -1;
}

/* Its parts are only looked at. */
static int probe_split(struct device *device)
{
    struct ploop_dev_config dev_config;

    init_split_config(device, true, &dev_config);
    int result = split_open(device, &dev_config);
    if (!result) {
        split_close(device);
    }
    return result;
}

int device_probe(const struct server_config *config)
{
    struct device *device = new_device(config, config->image);
    int result = device ? refuse_same_file(device) : -1;

    if (config->is_split) {
        result = device ? probe_split(device) : -1;
        if (device) {
            free_device(device);
        }
        return result;
    }

    for (uint32_t level = 0; !result && level <= config->base_count; level++) {
        result = probe_file(device, level);
    }
    if (!result && config->base_count) {
        result = probe_stack(device);
    }
    if (device) {
        free_device(device);
    }
    return result;
}

/* How the files below the top are opened. */
enum bases {
    BASES_READ,   /* for reading only, so that servers can share them */
    BASES_MARKED, /* for writing where the mark says that it must be recovered */
    BASES_WRITE   /* all for writing: any of them may be cut off, which no header tells */
};

static int open_base(struct device *device, uint32_t level, enum bases bases)
{
    struct ploop_image_info image = {.size = sizeof(image)};

    if (bases == BASES_WRITE && !is_raw(device->config, level)) {
        return open_file(device, level, PLOOP_FILE_READ_WRITE);
    }
    if (open_file(device, level, PLOOP_FILE_READ_ONLY)) {
        return -1;
    }
    if (bases == BASES_READ || is_raw(device->config, level) ||
        ploop_image_probe(device->files[level], &image) || !(image.flags & PLOOP_IMAGE_IN_USE)) {
        return 0;
    }
    ploop_file_close(device->files[level]);
    return open_file(device, level, PLOOP_FILE_READ_WRITE);
}

static int open_files(struct device *device, bool read_only, enum bases bases)
{
    const struct server_config *config = device->config;
    int result = 0;

    for (uint32_t level = 0; level < config->base_count && !result; level++) {
        result = open_base(device, level, bases);
    }
    return result ? result
                  : open_file(device, config->base_count,
                              read_only ? PLOOP_FILE_READ_ONLY : PLOOP_FILE_READ_WRITE);
}

/*
 * The stack is damaged with its bases open for reading: if one of them is cut off it becomes whole
 * where it is open for writing (R19 in docs/crash-rules.md). -1: told, with what was held back.
 */
static int recover_bases(struct device *device)
{
    struct ploop_dev_config dev_config;
    int error = 0;

    close_files(device);
    device->holds_line = false;
    int result = open_files(device, false, BASES_WRITE);
    if (result) {
        nbdkit_error("%s", device->held_line);
    } else {
        init_dev_config(device, false, &dev_config);
        error = ploop_dev_open(device->files, device->config->base_count + 1, &dev_config,
                               &device->dev);
        error = error ? error : ploop_dev_close(device->dev);
        device->dev = NULL;
    }
    close_files(device);
    return error ? fail(device->image, "cannot open", error, explain(device->config, error))
                 : result;
}

/* Its files, and the device of them. -1: told. */
static int open_dev(struct device *device, bool read_only)
{
    const struct server_config *config = device->config;
    struct ploop_dev_config dev_config;
    int error;

    if (config->is_split) {
        init_split_config(device, read_only, &dev_config);
        return split_open(device, &dev_config);
    }
    bool recovers = config->recover && !read_only;
    if (open_files(device, read_only, recovers ? BASES_MARKED : BASES_READ)) {
        return -1;
    }
    init_dev_config(device, read_only, &dev_config);
    dev_config.queue_count = LANE_COUNT;
    dev_config.pio_count = LANE_REQUESTS;
    dev_config.writeback_delay_ns = config->delay_ms * NS_PER_MS;
    dev_config.writeback_max_age_ns = config->max_age_ms * NS_PER_MS;
    dev_config.clock = &device->timer.clock;
    dev_config.sync_failed_policy = policy_of(config);
    device->holds_line = recovers && config->base_count;
    error = ploop_dev_open(device->files, config->base_count + 1, &dev_config, &device->dev);
    if (error == -EUCLEAN && device->holds_line) {
        if (recover_bases(device) || open_files(device, false, BASES_MARKED)) {
            return -1;
        }
        error = ploop_dev_open(device->files, config->base_count + 1, &dev_config, &device->dev);
    } else if (error && device->held_line[0]) {
        nbdkit_error("%s", device->held_line);
    }
    device->holds_line = false;
    if (error) {
        return fail(device->image, "cannot open", error, explain(config, error));
    }
    device->info = (struct ploop_dev_info){.size = sizeof(device->info)};
    error = ploop_dev_info(device->dev, &device->info);
    if (!error) {
        error = timer_start(&device->timer, device->dev);
    }
    if (error) {
        ploop_dev_close(device->dev);
        return fail(device->image, "cannot open", error, explain(config, error));
    }
    return 0;
}

static struct device *open_device(const struct server_config *config, const char *image,
                                  bool read_only)
{
    struct device *device = new_device(config, image);

    if (device && open_dev(device, read_only)) {
        free_device(device);
        device = NULL;
    }
    if (device) {
        if (device->dev) {
            lanes_init(device);
        }
        device->next = devices;
        devices = device;
    }
    return device;
}

struct device *device_open(const struct server_config *config, const char *export, bool read_only)
{
    char *image = export_path(config, export);
    struct device *device;

    if (!image) {
        return NULL;
    }
    pthread_mutex_lock(&open_lock);
    for (device = devices; device && strcmp(device->image, image); device = device->next) {
        continue;
    }
    if (!device) {
        device = open_device(config, image, read_only);
    }
    if (device) {
        device->connections++;
    }
    pthread_mutex_unlock(&open_lock);
    free(image);
    return device;
}

static bool ended_badly;

/* With open_lock. */
static void close_device(struct device *device)
{
    struct device **link = &devices;
    int error;

    while (*link != device) {
        link = &(*link)->next;
    }
    *link = device->next;
    if (device->dev) {
        timer_stop(&device->timer);
    }
    error = device->split ? split_close(device) : ploop_dev_close(device->dev);
    if (error) {
        nbdkit_error("%s: not everything reached the disk; use recover=1 next time: %s",
                     device->image, strerror(-error));
        ended_badly = true;
    }
    if (device->dev) {
        lanes_destroy(device);
    }
    free_device(device);
}

void device_release(struct device *device)
{
    pthread_mutex_lock(&open_lock);
    if (--device->connections == 0 && device->config->dir) {
        close_device(device);
    }
    pthread_mutex_unlock(&open_lock);
}

static const char *health_of(const struct ploop_dev_info *info)
{
    if (info->state & PLOOP_STATE_SYNC_FAILED) {
        return "a SYNC has failed: restart with recover=1";
    }
    if (info->state & PLOOP_STATE_ALLOCATION_REFUSED) {
        return "the map cannot be written: new clusters are refused";
    }
    return info->pages_failed ? "pages of the map cannot be written now" : "healthy";
}

/* With open_lock. nbdkit shows no other messages than errors without its option -v. */
static void tell(const struct device *device)
{
    struct ploop_dev_info info = {.size = sizeof(info)};

    if (device->split) {
        nbdkit_error("%s: status: a disk split into parts; %u connections", device->image,
                     device->connections);
    } else if (!ploop_dev_info(device->dev, &info)) {
        nbdkit_error("%s: status: %s; %u connections, %" PRIu64 " requests so far, %" PRIu64
                     " clusters mapped, %" PRIu64 " pages of the map to be written, %" PRIu64
                     " MiB file",
                     device->image, health_of(&info), device->connections, info.requests,
                     info.clusters_mapped, info.pages_dirty, info.file_size >> 20);
    }
}

void device_tell_all(void)
{
    pthread_mutex_lock(&open_lock);
    for (const struct device *device = devices; device; device = device->next) {
        tell(device);
    }
    pthread_mutex_unlock(&open_lock);
}

int device_close_all(void)
{
    pthread_mutex_lock(&open_lock);
    while (devices) {
        close_device(devices);
    }
    pthread_mutex_unlock(&open_lock);
    return ended_badly ? -1 : 0;
}

int device_lookup(struct device *device, uint64_t offset, uint64_t length,
                  struct ploop_extent *extent)
{
    int error = device->split ? split_lookup(device, offset, length, extent)
                              : ploop_bat_lookup(device->dev, offset, length, extent);

    if (error == -EIO) {
        uint64_t to_border = device->info.cluster_size - offset % device->info.cluster_size;

        extent->offset = offset;
        extent->length = to_border < length ? to_border : length;
        extent->state = PLOOP_EXTENT_MAPPED;
        return 0;
    }
    return error ? fail(device->image, "cannot look up the map", error, strerror(-error)) : 0;
}
