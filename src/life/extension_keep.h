/* SPDX-License-Identifier: MIT */
/*
 * What of a format extension outlives a session of writing, and how it gets there: states and order
 * stand in extension_keep.c.
 */
#ifndef LIFE_EXTENSION_KEEP_H
#define LIFE_EXTENSION_KEEP_H

#include "dev/dev.h"
#include "format/geometry.h"
#include "image/extension_load.h"

struct ploop_dev;
struct extension_write;

struct extension_keep {
    bool in_place;  /* it holds nothing but what is to be kept, and stays where it is */
    uint8_t *bytes; /* the new one's cluster, until the header leads there; NULL: none is to be
                       written */
    uint64_t found_sector;    /* ext_off of the one that was found */
    struct host_cluster *old; /* its clusters, claimed until the header leads to the new one */
    uint64_t old_count;
    struct extension_write *write; /* while it is under way */

    bool is_faulty;   /* a bitmap that counts is wrong: it is dropped, changed or not */
    uint32_t bitmaps; /* that are dropped at the first change */
    struct ploop_dev *dev;
    struct dev_watch watch; /* for the first change, where it drops anything */
};

/*
 * While the image is read, after its BAT: decide, and claim the clusters that it must not lose. 0
 * or -ENOMEM.
 */
int extension_keep_plan(struct ploop_dev *dev, const struct extension *extension);

/*
 * Once the mark is durable: write what is to be kept to a new cluster and let the header lead
 * there, durably. After an error the image is closed again, with the extension it had, if the file
 * can still be written. 0, -ENOSPC, or what the backend returns.
 */
int extension_keep_write(struct ploop_dev *dev);

void extension_keep_free(struct extension_keep *keep);

#endif
