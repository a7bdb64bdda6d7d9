/* SPDX-License-Identifier: MIT */
/* See bundle.h. */
#include "bundle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <ploop/bundle.h>

enum { SPLIT_REQUEST_BYTES = 1 << 25 };

static void bundle_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)level;
    (void)message_id;
    nbdkit_error("%s", text);
}

/* The names of the stack, in memory of the configuration's. 0 or -1, told. */
static int take_stack(struct server_config *config, const ploop_bundle *bundle,
                      const uint32_t *chain, uint32_t count)
{
    struct ploop_bundle_image image = {.size = sizeof(image)};

    for (uint32_t i = 0; i < count; i++) {
        ploop_bundle_image(bundle, 0, chain[i], &image);
        char *path = strdup(image.path);
        if (!path) {
            nbdkit_error("%s: %m", config->image);
            return -1;
        }
        if (i + 1 < count) {
            config->bases[config->base_count++] = path;
            config->has_raw_base |= image.type == PLOOP_BUNDLE_PLAIN;
        } else {
            free(config->image);
            config->image = path;
        }
    }
    return 0;
}

static int take_bundle(struct server_config *config, const ploop_bundle *bundle)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct ploop_bundle_image image = {.size = sizeof(image)};
    uint32_t chain[BASES_MAX + 1];

    ploop_bundle_info(bundle, &info);
    ploop_bundle_image(bundle, 0, info.top, &image);
    int64_t count = ploop_bundle_chain(bundle, info.top, chain, BASES_MAX + 1);
    if (info.storage_count > 1) {
        if (config->direct || config->uring) {
            nbdkit_error("%s: a disk split into parts takes neither direct=1 nor backend=uring",
                         config->image);
            return -1;
        }
        config->is_split = true;
        return 0;
    }
    if (image.type == PLOOP_BUNDLE_PLAIN) {
        nbdkit_error("%s: its only image, %s, is a raw disk: use nbdkit's file plugin",
                     config->image, image.name);
    } else if (count > BASES_MAX + 1) {
        nbdkit_error("%s: its stack has more than %d images", config->image, BASES_MAX + 1);
    } else {
        return take_stack(config, bundle, chain, (uint32_t)count);
    }
    return -1;
}

int expand_bundle(struct server_config *config)
{
    struct ploop_bundle_config bundle_config = {.size = sizeof(bundle_config), .log = bundle_log};
    struct stat status;
    ploop_bundle *bundle;

    if (stat(config->image, &status) || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    if (config->base_count) {
        nbdkit_error("%s: a bundle names its backing images itself", config->image);
        return -1;
    }
    int error = ploop_bundle_open(config->image, &bundle_config, &bundle);
    if (error) {
        nbdkit_set_error(-error); /* the log has said why */
        return -1;
    }
    int result = take_bundle(config, bundle);
    ploop_bundle_close(bundle);
    return result;
}

/* ---- Split disks ---- */

int split_open(struct device *device, const struct ploop_dev_config *dev_config)
{
    const struct ploop_bundle_config config = {.size = sizeof(config), .log = bundle_log};
    struct ploop_bundle_info info = {.size = sizeof(info)};
    ploop_bundle *bundle;

    int error = ploop_bundle_open(device->image, &config, &bundle);
    if (!error) {
        ploop_bundle_info(bundle, &info);
        error = ploop_bundle_disk_open(bundle, info.top, dev_config, &device->split);
        ploop_bundle_close(bundle);
    }
    if (error) {
        device->split = NULL;
        nbdkit_set_error(-error); /* the log has said why */
        return -1;
    }
    device->info = (struct ploop_dev_info){.size = sizeof(device->info)};
    device->info.disk_size = info.disk_size;
    device->info.request_alignment = PLOOP_SECTOR_SIZE;
    device->info.max_request_bytes = SPLIT_REQUEST_BYTES;
    device->info.cluster_size = PLOOP_SECTOR_SIZE;
    device->info.state = dev_config->flags & PLOOP_DEV_READ_ONLY ? PLOOP_STATE_READ_ONLY : 0;
    return 0;
}

int split_close(struct device *device)
{
    int error = ploop_bundle_disk_close(device->split);

    device->split = NULL;
    return error;
}

int split_run(struct device *device, enum request_kind kind, const struct iovec *memory,
              uint64_t offset, uint32_t flags)
{
    struct ploop_bundle_disk *disk = device->split;
    int64_t result = 0;

    switch (kind) {
    case REQUEST_READ:
        result = ploop_bundle_disk_pread(disk, memory->iov_base, memory->iov_len, offset);
        break;
    case REQUEST_WRITE:
        result = ploop_bundle_disk_pwrite(disk, memory->iov_base, memory->iov_len, offset, flags);
        break;
    case REQUEST_ZERO:
        result = ploop_bundle_disk_write_zeroes(disk, memory->iov_len, offset, flags);
        break;
    case REQUEST_DISCARD:
        result = ploop_bundle_disk_discard(disk, memory->iov_len, offset);
        break;
    case REQUEST_FLUSH:
        result = ploop_bundle_disk_flush(disk);
        break;
    }
    return result < 0 ? (int)result : 0;
}

int split_lookup(struct device *device, uint64_t offset, uint64_t length,
                 struct ploop_extent *extent)
{
    uint32_t storage;

    return ploop_bundle_disk_lookup(device->split, offset, length, extent, &storage);
}
