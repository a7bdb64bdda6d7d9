/* SPDX-License-Identifier: MIT */
/*
 * What a bundle's XML says, without the XML. xml.c fills a model in with what is written there;
 * model_settle() judges it and resolves what refers to something else. A settled model is right:
 *
 *  1. Storages cover the disk, in its order, without gaps.
 *  2. Snapshots are a tree with one root; each GUID is there once, and none is zero.
 *  3. Nothing is built on the top.
 *  4. A storage has one image for each snapshot, at the snapshot's number. Only a root is plain.
 *  5. An image's name is the plain name of a file; no name is there twice.
 */
#ifndef BUNDLE_MODEL_H
#define BUNDLE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "guid.h"
#include "report.h"

#define NO_PARENT UINT32_MAX

/* The most sectors of a disk: its bytes are counted in 63 bits. */
#define DISK_SECTORS_MAX (UINT64_C(1) << 54)

struct snapshot {
    struct guid guid, parent_guid;
    uint32_t parent, child_count; /* settled: numbers of snapshots */
};

struct image {
    struct guid guid;
    uint32_t type; /* PLOOP_BUNDLE_PLAIN or EXPANDING */
    char *name;
    char *path; /* settled */
};

struct storage {
    uint64_t start, end; /* in sectors */
    uint64_t block_sectors;
    struct image *images;
    uint32_t image_count;
};

struct model {
    uint64_t disk_sectors;
    struct storage *storages;
    struct snapshot *snapshots;
    uint32_t storage_count, snapshot_count;
    struct guid top_guid; /* where the XML names it */
    bool names_top;
    uint32_t top; /* settled */
};

/*
 * Judge a model that is filled in, and resolve it; paths begin with `directory`. 0, -EUCLEAN or
 * -ENOMEM, told in either case; the model can then only be freed.
 */
int model_settle(struct model *model, const char *directory, const struct report *report);

/* The number of the snapshot with this GUID; UINT32_MAX: none. */
uint32_t model_find(const struct model *model, const struct guid *guid);

/* NULL: no memory. */
char *join_path(const char *directory, const char *name);

void model_free(struct model *model);

#endif
