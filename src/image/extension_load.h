/* SPDX-License-Identifier: MIT */
/*
 * An image's format extension, read and judged: what may be believed, and which host clusters
 * belong to it.
 *
 * What each state means:
 *
 *     NONE      the header names none.
 *     VOID      it names one that does not count, because in_use is not HEADER_CLOSED_EXT. `whole`
 *               if nothing is wrong with it: somebody may miss it.
 *     UNUSABLE  it counts and cannot be believed; `fault` says why. The image is not to be written.
 *     VALID     its features can be told apart. Each bitmap has a verdict of its own.
 *
 *  1. A host cluster is in `owned` once, and no BAT entry names it.
 *  2. Only the clusters of good bitmaps are owned; a bitmap that is not good is dropped at the
 *     first write. A void extension that is not whole owns nothing.
 */
#ifndef IMAGE_EXTENSION_LOAD_H
#define IMAGE_EXTENSION_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/file.h>

#include "format/extension.h"
#include "format/header.h"

enum extension_state { EXTENSION_NONE, EXTENSION_VOID, EXTENSION_UNUSABLE, EXTENSION_VALID };

struct loaded_bitmap {
    struct extension_bitmap bitmap;
    struct extension_fault fault; /* fault.what NULL: it is good */
    size_t data_at;               /* of its feature */
};

struct extension {
    enum extension_state state;
    bool whole;      /* VOID: it can be believed, every bitmap is good, and all of it is its own */
    uint64_t sector; /* ext_off */
    struct extension_fault fault;
    int read_error; /* UNUSABLE because its cluster cannot be read */
    uint8_t *bytes; /* the cluster, where state is VALID, or VOID and whole */
    struct loaded_bitmap *bitmaps;
    uint32_t bitmap_count;
    uint64_t unknown_necessary; /* the magic of an unknown feature with that flag, 0: none. The
                                   image is not to be written */
    bool unknown_transit;       /* there is one that must be kept as it is */
    bool unknown_plain;         /* there is one to be dropped at the first write */
    uint64_t in_guest_cluster;  /* where a bitmap overlaps a guest's cluster, in bytes; 0: nowhere.
                                   The image is not to be written */
    uint64_t *owned;            /* host offsets in bytes, ascending */
    uint64_t owned_count;
};

/* The map, however its keeper holds it. */
struct entry_source {
    uint32_t (*entry)(const void *context, uint32_t guest_cluster); /* 0: not mapped */
    const void *context;
};

/*
 * 0: see extension->state; or -ENOMEM. To be freed after 0. Memory is
 * bounded by a few times the cluster size, whatever the cluster holds.
 */
int extension_load(struct extension *extension, ploop_file *file, const struct header *header,
                   uint64_t file_size, struct entry_source entries);
void extension_free(struct extension *extension);

/*
 * Whether the image may be written, as far as its extension goes. 0; -EUCLEAN: it must be checked
 * first; -ENOTSUP: a feature that this library does not know forbids it; what the backend returned
 * where the extension cannot be read. `message`
 * (HEADER_MESSAGE_SIZE bytes) says which; "" after 0.
 */
int extension_writable(const struct extension *extension, char *message);

/*
 * Make a cluster for the features that outlive a session of writing: good bitmaps if
 * `keep_bitmaps`, and unknown TRANSIT ones. Returns how many those are; 0: the image needs no
 * extension any more. For a VALID extension.
 */
uint32_t extension_kept(const struct extension *extension, bool keep_bitmaps, uint8_t *bytes,
                        size_t size);

#endif
