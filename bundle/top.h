/* SPDX-License-Identifier: MIT */
/* The files of a bundle that changes. */
#ifndef BUNDLE_TOP_H
#define BUNDLE_TOP_H

#include "bundle.h"

/*
 * Open a snapshot's image, of the only storage, with these flags, and see that it is what the XML
 * describes, and closed cleanly. *info is its header; zeros for a plain one. 0 or -errno, told.
 */
int image_open_checked(const ploop_bundle *bundle, uint32_t snapshot, uint32_t flags,
                       ploop_file **file, struct ploop_image_info *info);

/*
 * Write a new, empty image to be the top, on an image with this header, in a new file, and make it
 * durable. *name is its name in the directory, to be freed. 0 or -errno, told.
 */
int new_top_create(const ploop_bundle *bundle, const struct ploop_image_info *base, char **name);

/* Remove a file that the bundle does not name. A failure is a warning. */
void remove_image(const ploop_bundle *bundle, const char *name);

/* An image's name with a GUID of its own. NULL: no memory. */
char *name_of_top(const char *root_name, const struct guid *guid);

#endif
