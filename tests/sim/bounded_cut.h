/* SPDX-License-Identifier: MIT */
/*
 * The disks of the bounded simulation: for each cut, all disks that have everything that is not
 * durable except at most two losses, and all that have nothing of it except at most two operations.
 * A loss is a whole operation, or one sector of it if several matter.
 *
 *  1. A cut is processed once: two with the same durable content, the same operations and the same
 *     promises have the same disks.
 *  2. A disk is judged once for each set of promises, and used to continue once. A judgement
 *     depends on nothing else.
 *  3. A disk is identified by a sum over its sectors, each with its place, and its size. A loss
 *     changes only the operation from which a sector has its content, so the sum is computed
 *     without building the disk; a new disk is built, and the sum compared.
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

/* Judge the cuts that the world has taken, and forget them. */
void bounded_judge_cuts(struct bounded_judge *judge, struct sim *sim);
void bounded_judge_free(struct bounded_judge *judge);

#endif
