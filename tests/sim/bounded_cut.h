/* SPDX-License-Identifier: MIT */
/*
 * The disks of the bounded simulation: of each cut, all those where everything that is not durable
 * is there but at most two losses, and all those where nothing of it is but at most two. A loss is
 * a whole operation, or one sector of it where several matter.
 *
 *  1. A cut is worked on once: two with the same durable content, the same operations and the same
 *     promises have the same disks.
 *  2. A disk is judged once for each set of promises, and gone on with once. What a judge says
 *     depends on nothing else.
 *  3. A disk is known by a sum over its sectors, each with its place, and its size. A loss changes
 *     nothing but which operation a sector has its content from, so the sum is had without building
 *     the disk; it is built where it is new, and the sum compared.
 */
#ifndef SIM_BOUNDED_CUT_H
#define SIM_BOUNDED_CUT_H

#include "seen.h"
#include "sim.h"

enum { BOUNDED_LOSSES = 2 };

struct bounded_counts {
    uint64_t sequences, unlike, runs, cuts, new_cuts, disks, judged, continued;
};

struct bounded_judge {
    struct seen cuts, judged, disks;
    struct bounded_counts *counts;
};

/* Judges the cuts that the world has taken, and forgets them. */
void bounded_judge_cuts(struct bounded_judge *judge, struct sim *sim);
void bounded_judge_free(struct bounded_judge *judge);

#endif
