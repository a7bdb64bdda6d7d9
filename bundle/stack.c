/* SPDX-License-Identifier: MIT */
/* See stack.h. */
#include "stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512 };

/* A line of the device's begins with the delta's number, 0 the lowest; its name is clearer. */
static void device_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    struct stack *stack = user_data;
    uint32_t number = stack->count - 1;
    unsigned found;
    int length = 0;

    (void)message_id;
    if (sscanf(text, "delta %u: %n", &found, &length) == 1 && length && found < stack->count) {
        number = found;
        text += length;
    }
    if (level == PLOOP_LOG_ERROR) {
        atomic_store(&stack->has_told, true);
        fault(&stack->report, 0, "its image '%.100s': %s", stack->names[number], text);
    } else if (level == PLOOP_LOG_WARNING) {
        warn(&stack->report, "its image '%.100s': %s", stack->names[number], text);
    }
}

/* ---- The files ---- */

static int judge_image(const struct stack *stack, uint32_t level, ploop_file *file,
                       struct ploop_image_info *info)
{
    const char *name = stack->names[level];
    uint64_t disk_size = stack->end - stack->start;
    int error = ploop_image_probe(file, info);

    if (error) {
        return fault(&stack->report, error, "its image '%.100s': %s", name,
                     info->message[0] ? info->message : strerror(-error));
    }
    return info->disk_size == disk_size && info->cluster_size == stack->cluster_size
               ? 0
               : fault(&stack->report, -EUCLEAN,
                       "its image '%.100s' has a disk of %llu bytes and clusters of %llu, not "
                       "%llu and %llu",
                       name, (unsigned long long)info->disk_size,
                       (unsigned long long)info->cluster_size, (unsigned long long)disk_size,
                       (unsigned long long)stack->cluster_size);
}

/* A raw file alone has the size of its storage; a block device may be larger. */
static int judge_plain(const struct stack *stack, ploop_file *file)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    uint64_t wanted = stack->end - stack->start;
    int error = ploop_file_info(file, &info);

    if (error) {
        return fault(&stack->report, error, "its image '%.100s': %s", stack->names[0],
                     strerror(-error));
    }
    bool fits = info.capabilities & PLOOP_FILE_FIXED_SIZE ? info.file_size >= wanted
                                                          : info.file_size == wanted;
    return fits ? 0
                : fault(&stack->report, -EUCLEAN,
                        "its image '%.100s' is a raw disk of %llu bytes, not %llu", stack->names[0],
                        (unsigned long long)info.file_size, (unsigned long long)wanted);
}

/* Open one file; `is_raw`: it has no header. *wants_write: recovering would change it. */
static int open_one(struct stack *stack, const ploop_bundle *bundle, const struct image *image,
                    uint32_t level, uint32_t flags, bool *wants_write)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    int error = check_image_file(bundle->directory_fd, image->name, &stack->report);

    *wants_write = false;
    if (error) {
        return error;
    }
    error = ploop_file_open_posix(image->path, flags, &stack->files[level]);
    if (error) {
        stack->files[level] = NULL;
        return fault(&stack->report, error, "its image '%.100s': %s", image->name,
                     error == -EAGAIN ? "another program has it open" : strerror(-error));
    }
    if (image->type == PLOOP_BUNDLE_PLAIN) {
        return stack->count == 1 ? judge_plain(stack, stack->files[level]) : 0;
    }
    error = judge_image(stack, level, stack->files[level], &info);
    *wants_write = info.flags & PLOOP_IMAGE_IN_USE;
    return error;
}

/* A lower image is opened for reading, so that others may read it too, unless it must be mended. */
static int open_level(struct stack *stack, const ploop_bundle *bundle, const struct image *image,
                      uint32_t level, uint32_t dev_flags)
{
    bool is_top = level == stack->count - 1, wants_write;
    uint32_t flags = is_top && stack->is_writable ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY;
    int error = open_one(stack, bundle, image, level, flags, &wants_write);

    if (error || !wants_write || is_top || !stack->is_writable ||
        !(dev_flags & PLOOP_DEV_RECOVER)) {
        return error;
    }
    ploop_file_close(stack->files[level]);
    return open_one(stack, bundle, image, level, PLOOP_FILE_READ_WRITE, &wants_write);
}

/* ---- The device ---- */

static int open_device(struct stack *stack, struct ploop_dev_config config)
{
    config.flags |= stack->has_plain_root ? PLOOP_DEV_RAW_BASE : 0u;
    config.log = device_log;
    config.user_data = stack;
    int error = ploop_dev_open(stack->files, stack->count, &config, &stack->dev);
    if (error && !stack->has_told) {
        fault(&stack->report, error, "its image '%.100s': %s", stack->names[stack->count - 1],
              strerror(-error));
    }
    return error;
}

static int open_all(struct stack *stack, const ploop_bundle *bundle, uint32_t storage,
                    const uint32_t *chain, const struct stack_options *options)
{
    const struct image *images = bundle->model.storages[storage].images;
    struct ploop_dev_config config;
    int error = 0;

    ploop_dev_config_init(&config, sizeof(config));
    if (options->config) {
        config = *options->config;
    }
    stack->is_writable = !(config.flags & PLOOP_DEV_READ_ONLY);

    for (uint32_t level = 0; level < stack->count && !error; level++) {
        stack->names[level] = strdup(images[chain[level]].name);
        error = stack->names[level]
                    ? open_level(stack, bundle, &images[chain[level]], level, config.flags)
                    : fault(&stack->report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    stack->has_plain_root = images[chain[0]].type == PLOOP_BUNDLE_PLAIN;
    return error || (stack->count == 1 && stack->has_plain_root) ? error
                                                                 : open_device(stack, config);
}

int stack_open(struct stack *stack, const ploop_bundle *bundle, uint32_t storage, uint32_t snapshot,
               const struct stack_options *options)
{
    const struct storage *own = &bundle->model.storages[storage];
    uint32_t chain[STACK_MAX];
    int64_t count = ploop_bundle_chain(bundle, snapshot, chain, STACK_MAX);

    *stack = (struct stack){.report = bundle->report,
                            .start = own->start * SECTOR,
                            .end = own->end * SECTOR,
                            .cluster_size = own->block_sectors * SECTOR};
    if (count < 0 || count > STACK_MAX) {
        return fault(&bundle->report, count < 0 ? (int)count : -EFBIG,
                     "its stack has %lld images, more than %d", (long long)count, STACK_MAX);
    }
    stack->subject = strdup(bundle->report.subject);
    if (!stack->subject) {
        return fault(&bundle->report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    stack->report.subject = stack->subject;
    stack->count = (uint32_t)count;
    int error = open_all(stack, bundle, storage, chain, options);
    if (error) {
        stack->dev = NULL;
        stack_close(stack);
    }
    return error;
}

int stack_close(struct stack *stack)
{
    atomic_store(&stack->has_told, false);
    int error = ploop_dev_close(stack->dev);
    if (error && !stack->has_told) {
        fault(&stack->report, error, "its image '%.100s' was not closed cleanly: %s",
              stack->names[stack->count - 1], strerror(-error));
    }
    for (uint32_t level = 0; level < stack->count; level++) {
        ploop_file_close(stack->files[level]);
        free(stack->names[level]);
    }
    free(stack->subject);
    *stack = (struct stack){0};
    return error;
}
