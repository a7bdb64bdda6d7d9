/* SPDX-License-Identifier: MIT */
/*
 * Bundles as image=. bundle_missing.c takes the place of bundle.c where the library of bundles was
 * not built.
 */
#ifndef NBDKIT_PLOOP_BUNDLE_H
#define NBDKIT_PLOOP_BUNDLE_H

#include "device.h"

/*
 * Where config->image is a directory, a bundle, replace it with the stack of the bundle's top, or
 * say that it is a split disk. 0;
 * -1: told nbdkit why not.
 */
int expand_bundle(struct server_config *config);

/* ---- Split disks (config->is_split) ---- */

/* Open it as device->split, and set what is known of device->info. 0; -1: told nbdkit why not. */
int split_open(struct device *device, const struct ploop_dev_config *dev_config);
/* 0 or -errno; the log has said it. */
int split_close(struct device *device);
/* `memory` is what is read or written, or NULL; see request.c. 0 or -errno. */
int split_run(struct device *device, enum request_kind kind, const struct iovec *memory,
              uint64_t offset, uint32_t flags);
/* As ploop_bundle_disk_lookup(). */
int split_lookup(struct device *device, uint64_t offset, uint64_t length,
                 struct ploop_extent *extent);

#endif
