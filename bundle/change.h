/* SPDX-License-Identifier: MIT */
/* What the changes of a bundle share: change.c. */
#ifndef BUNDLE_CHANGE_H
#define BUNDLE_CHANGE_H

#include "bundle.h"

/* Whether a snapshot that is not the top can be changed: 0 or -errno, told. */
int change_may_touch(const ploop_bundle *bundle, uint32_t snapshot);

/* Whether a snapshot, the top too, can be merged: 0 or -errno, told. */
int change_may_merge(const ploop_bundle *bundle, uint32_t snapshot);

/* Keep other programs from an image whose content does not matter. 0 or -errno, told. */
int change_lock_image(const ploop_bundle *bundle, uint32_t snapshot, ploop_file **file);

/*
 * Commit a copy of the document that was edited, or could not be for want of memory. 0 or -errno,
 * told; *written as bundle_commit() says.
 */
int change_commit(ploop_bundle *bundle, xmlDoc *doc, bool edited, bool *written);

/* -ENOMEM, told. */
int change_no_memory(const ploop_bundle *bundle);

#endif
