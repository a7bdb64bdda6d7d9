/* SPDX-License-Identifier: MIT */
/*
 * Bundles as image=. bundle_missing.c takes the place of bundle.c where the library of bundles was
 * not built.
 */
#ifndef NBDKIT_PLOOP_BUNDLE_H
#define NBDKIT_PLOOP_BUNDLE_H

#include "device.h"

/*
 * Where config->image is a directory, a bundle, replace it with the stack of the bundle's top. 0;
 * -1: told nbdkit why not.
 */
int expand_bundle(struct server_config *config);

#endif
