/* SPDX-License-Identifier: MIT */
/* See top.h. */
#include "top.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512 };

static int judge_header(const ploop_bundle *bundle, const struct image *image,
                        const struct ploop_image_info *info)
{
    const struct report *report = &bundle->report;
    uint64_t cluster_size = bundle->model.storages[0].block_sectors * SECTOR;
    uint64_t disk_size = bundle->model.disk_sectors * SECTOR;

    if (info->cluster_size != cluster_size || info->disk_size != disk_size) {
        return fault(report, -EUCLEAN,
                     "its image '%.100s' has a disk of %llu bytes and clusters of %llu, not %llu "
                     "and %llu",
                     image->name, (unsigned long long)info->disk_size,
                     (unsigned long long)info->cluster_size, (unsigned long long)disk_size,
                     (unsigned long long)cluster_size);
    }
    return info->flags & PLOOP_IMAGE_IN_USE
               ? fault(report, -EUCLEAN, "its image '%.100s' was not closed cleanly", image->name)
               : 0;
}

int image_open_checked(const ploop_bundle *bundle, uint32_t snapshot, uint32_t flags,
                       ploop_file **file, struct ploop_image_info *info)
{
    const struct image *image = &bundle->model.storages[0].images[snapshot];
    int error = check_image_file(bundle->directory_fd, image->name, &bundle->report);

    *file = NULL;
    *info = (struct ploop_image_info){.size = sizeof(*info)};
    if (error) {
        return error;
    }
    error = ploop_file_open_posix(image->path, flags, file);
    if (error) {
        return fault(&bundle->report, error, "its image '%.100s': %s", image->name,
                     error == -EAGAIN ? "another program has it open" : strerror(-error));
    }
    if (image->type == PLOOP_BUNDLE_EXPANDING) {
        error = ploop_image_probe(*file, info);
        error = error ? fault(&bundle->report, error == -EINVAL ? -EUCLEAN : error,
                              "its image '%.100s': %s", image->name,
                              info->message[0] ? info->message : strerror(-error))
                      : judge_header(bundle, image, info);
    }
    if (error) {
        ploop_file_close(*file);
        *file = NULL;
    }
    return error;
}

/*
 * Parallels Desktop's names end in ".{GUID}.hds"; there the GUID is replaced. Behind other names it
 * is appended, as OpenVZ does it.
 */
char *name_of_top(const char *root_name, const struct guid *guid)
{
    static const char ending[] = ".hds";
    enum { GUID_LENGTH = PLOOP_BUNDLE_GUID_SIZE - 1, ENDING_LENGTH = sizeof(ending) - 1 };
    size_t length = strlen(root_name), size = length + GUID_LENGTH + sizeof(ending) + 1;
    char text[PLOOP_BUNDLE_GUID_SIZE], *name = malloc(size);
    char old[PLOOP_BUNDLE_GUID_SIZE] = "";
    struct guid parsed;

    if (!name) {
        return NULL;
    }
    guid_print(guid, text);
    if (length > GUID_LENGTH + ENDING_LENGTH) {
        memcpy(old, root_name + length - ENDING_LENGTH - GUID_LENGTH, GUID_LENGTH);
    }
    if (guid_parse(old, &parsed) && strcmp(root_name + length - ENDING_LENGTH, ending) == 0) {
        snprintf(name, size, "%.*s%s%s", (int)(length - ENDING_LENGTH - GUID_LENGTH), root_name,
                 text, ending);
    } else {
        snprintf(name, size, "%s.%s", root_name, text);
    }
    return name;
}

static int write_image(const ploop_bundle *bundle, const struct ploop_image_info *base,
                       ploop_file *file)
{
    struct ploop_image_options options = {.size = sizeof(options)};

    options.disk_size = bundle->model.disk_sectors * SECTOR;
    options.cluster_size = bundle->model.storages[0].block_sectors * SECTOR;
    options.version = base->version ? base->version : 1; /* on a plain one what both can read */
    int error = ploop_image_create(file, &options);
    if (error == -EFBIG && !base->version) {
        options.version = 2;
        error = ploop_image_create(file, &options);
    }
    if (error == -EINVAL) {
        return fault(&bundle->report, -ENOTSUP,
                     "images with clusters of %llu bytes are read, but not created",
                     (unsigned long long)options.cluster_size);
    }
    return error ? fault(&bundle->report, error, "cannot write a new image: %s", strerror(-error))
                 : 0;
}

static const char *root_name(const ploop_bundle *bundle)
{
    uint32_t at = bundle->model.top;

    while (bundle->model.snapshots[at].parent != NO_PARENT) {
        at = bundle->model.snapshots[at].parent;
    }
    return bundle->model.storages[0].images[at].name;
}

int new_top_create(const ploop_bundle *bundle, const struct ploop_image_info *base, char **name)
{
    ploop_file *file = NULL;
    struct guid guid;
    int error = guid_random(&guid);

    *name = error ? NULL : name_of_top(root_name(bundle), &guid);
    char *path = *name ? join_path(bundle->directory, *name) : NULL;
    if (!error) {
        error = path ? ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file)
                     : -ENOMEM;
    }
    if (error) {
        fault(&bundle->report, error, "cannot create a new image: %s", strerror(-error));
    } else {
        error = write_image(bundle, base, file);
        if (error) {
            remove_image(bundle, *name);
        }
        ploop_file_close(file);
    }
    if (error) {
        free(*name);
        *name = NULL;
    }
    free(path);
    return error;
}

void remove_image(const ploop_bundle *bundle, const char *name)
{
    if (unlinkat(bundle->directory_fd, name, 0)) {
        warn(&bundle->report, "'%.100s', which is not part of it, cannot be removed: %s", name,
             strerror(errno));
    }
}
