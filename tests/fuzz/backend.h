/* SPDX-License-Identifier: MIT */
/*
 * A backend over a sparse file, which counts what changes it, and breaks at a given change in one
 * of four ways:
 *
 *     BREAK_ONCE  that one change fails with EIO
 *     BREAK_STAY  that one fails and all later ones: what a power cut leaves where everything
 *                 before it was durable
 *     BREAK_DROP  the same, and what no SYNC covered is gone
 *     BREAK_PICK  the same, and of what no SYNC covered some is there, some is gone, and some is
 *                 torn between two sectors
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
    uint64_t edits;   /* of these, those that are no SYNC: recovery and repair begin with one */
    uint64_t break_at;
    enum break_mode mode;
    struct rng rng; /* picks */
    bool broken;    /* a change has failed */
};

/* A file with a copy of that content. */
void backend_open(struct backend *backend, const struct sparse *content);
/* The break_at'th change from here on fails, 1 the next; 0: none. `options` of an input say how. */
void backend_break(struct backend *backend, uint64_t break_at, uint32_t seed, uint32_t options);
/* What the break left, or a power cut now, is the file, and nothing fails any more. */
void backend_mend(struct backend *backend);
void backend_close(struct backend *backend);

#endif
