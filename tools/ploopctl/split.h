/* SPDX-License-Identifier: MIT */
/*
 * Disks that are split into parts, as ploopctl reads them: the bundle's library makes one disk of
 * them. bundle_missing.c takes the place of bundle_split.c where that was not built: there are
 * none.
 */
#ifndef PLOOPCTL_SPLIT_H
#define PLOOPCTL_SPLIT_H

#include "common.h"

/* Whether the path is of a bundle whose disk is split; if it cannot be read, it is not. */
bool is_split(const char *path);

/* ---- Open for reading; the program has at most one ---- */

/* Prints errors. 0 or -errno; split_close() after a success. */
int split_open(const char *path, uint64_t *disk_size);
void split_close(void);
/* 0 or -errno. */
int split_read(void *buffer, uint32_t length, uint64_t offset);
/* As ploop_bundle_disk_lookup(); `part` may be NULL. */
int split_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent, uint32_t *part);

/* ---- Commands; each returns the exit status ---- */

int split_info(const struct image *image, bool is_json);
int split_map(const struct image *image, bool is_json);

/*
 * Fill in the stack of a part, or a raw file alone. *count is how many there are, *size how many
 * bytes of the disk this one is. Prints errors. 0 or -errno; the names last until the next call.
 */
int split_part(const char *path, uint32_t part, struct image *image, bool *is_raw, uint32_t *count,
               uint64_t *size);

#endif
