/* SPDX-License-Identifier: MIT */
/* The library of bundles, with its messages printed. */
#ifndef PLOOPCTL_BUNDLE_LIBRARY_H
#define PLOOPCTL_BUNDLE_LIBRARY_H

#include <ploop/bundle.h>

#include "common.h"

/* Each prints its errors. 0 or -errno. */
int bundle_open(const char *path, uint32_t flags, ploop_bundle **bundle);
/*
 * For a change that may take long: with a progress bar; SIGINT and SIGTERM end it in an orderly
 * way. `rate` is ploop_bundle_config.merge_rate.
 */
int bundle_open_long(const char *path, uint64_t rate, ploop_bundle **bundle);
int bundle_create(const char *path, const struct new_image *new_image);

/* Whether the path is a bundle's: its directory or its XML. */
bool bundle_is_one(const char *path);

/*
 * Fill in the stack of the top in a storage; image->path names the bundle in messages, and is the
 * top's then. *is_raw as bundle_expand() has it. Prints errors. 0 or -errno.
 */
int bundle_take_stack(struct image *image, const ploop_bundle *bundle, uint32_t storage,
                      bool *is_raw);

/* Returns `error`; has printed something if it is none of 0 and what the library has told. */
int bundle_told(const char *path, int error);
/* The same after bundle_open_long() and the change. */
int bundle_told_long(const char *path, int error);

#endif
