/* SPDX-License-Identifier: MIT */
/*
 * Bundles as ploopctl uses them. bundle_missing.c takes the place of bundle.c and
 * bundle_command.c where the library of bundles was not built: it refuses all of it.
 */
#ifndef PLOOPCTL_BUNDLE_H
#define PLOOPCTL_BUNDLE_H

#include "common.h"

/*
 * Where image->path is a bundle, its directory or its XML, replace it with the stack of the
 * bundle's top; else change nothing. *is_raw (NULL: refuse it) is whether that is a raw file alone.
 * The names last until the program ends. 1: it was a bundle; 0: it is none; -errno, with an error
 * printed.
 */
int bundle_expand(struct image *image, bool *is_raw);

/*
 * Make a bundle with an empty image of disk_size, for convert; *image_path lasts until the program
 * ends. Prints errors. 0 or -errno.
 */
int bundle_make(const char *path, const struct new_image *new_image, uint64_t disk_size,
                const char **image_path);

/* Remove a bundle that bundle_make() made. */
void bundle_unmake(const char *path);

#endif
