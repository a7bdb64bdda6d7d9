/* SPDX-License-Identifier: MIT */
/*
 * A backend over a sparse file, which counts the requests that change it, and breaks at a given
 * change in one of four ways:
 *
 *     BREAK_ONCE  that one change fails with EIO
 *     BREAK_STAY  that one fails and all later ones: a power cut after which everything before
 *                 it is durable
 *     BREAK_DROP  the same, and every change that no SYNC covered is lost
 *     BREAK_PICK  the same, and of the changes that no SYNC covered some are there, some are lost,
 *                 and some are torn between two sectors
 */
#ifndef FUZZ_BACKEND_H
#define FUZZ_BACKEND_H

#include <ploop/file.h>

#include "sim/rng.h"
#include "sparse.h"

enum break_mode { BREAK_ONCE, BREAK_STAY, BREAK_DROP, BREAK_PICK };

struct pending; /* a change since the last SYNC */

struct backend {
    struct sparse state;
    struct sparse durable;        /* for BREAK_DROP and BREAK_PICK: as the last SYNC left it ... */
    struct pending *first, *last; /* ... and what came after */
    ploop_file *file;
    uint32_t capabilities;
    bool read_only;   /* a change is a violation */
    uint64_t changes; /* writes, syncs and the rest: everything but reads */
    uint64_t edits;   /* of these, all but SYNCs: recovery and repair begin with a SYNC */
    uint64_t break_at;
    enum break_mode mode;
    struct rng rng; /* picks */
    bool broken;    /* a change has failed */
};

/* A file with a copy of that content. */
void backend_open(struct backend *backend, const struct sparse *content);
/* Fail the break_at'th change from here on, 1 the next; 0: none. `options` of an input say how. */
void backend_break(struct backend *backend, uint64_t break_at, uint32_t seed, uint32_t options);
/* The file becomes what the break, or a power cut now, leaves; no request fails any more. */
void backend_mend(struct backend *backend);
void backend_close(struct backend *backend);

#endif
