/* SPDX-License-Identifier: MIT */
/* Bundles where their library was not built, for want of libxml2: see bundle.h. */
#include "bundle.h"

#include <errno.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

int expand_bundle(struct server_config *config)
{
    struct stat status;

    if (stat(config->image, &status) || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    nbdkit_error("%s: is a bundle: this plugin was built without libxml2, which they need",
                 config->image);
    return -1;
}

int split_open(struct device *device, const struct ploop_dev_config *dev_config)
{
    (void)device;
    (void)dev_config;
    return -1;
}

int split_close(struct device *device)
{
    (void)device;
    return 0;
}

int split_run(struct device *device, enum request_kind kind, const struct iovec *memory,
              uint64_t offset, uint32_t flags)
{
    (void)device;
    (void)kind;
    (void)memory;
    (void)offset;
    (void)flags;
    return -ENOTSUP;
}

int split_lookup(struct device *device, uint64_t offset, uint64_t length,
                 struct ploop_extent *extent)
{
    (void)device;
    (void)offset;
    (void)length;
    (void)extent;
    return -ENOTSUP;
}
