/* SPDX-License-Identifier: MIT */
/*
 * Power cuts: a snapshot of the disk and of the promises at one event, and the disks that the model
 * allows after it: all kept, all dropped, every operation dropped alone, every one kept alone,
 * random subsets with tears at sector borders.
 */
#ifndef SIM_CUT_H
#define SIM_CUT_H

#include "backend.h"
#include "disk.h"
#include "model.h"

enum {
    CUT_SINGLES = 24,
    CUT_RANDOM = 4
}; /* bounds per cut: of the drop-ones, of the keep-ones, and of the random subsets */

struct cut {
    struct cut *next;
    uint64_t at; /* the event */
    struct disk_state durable;
    struct disk_op *ops;
    uint64_t op_count;
    struct snapshot snapshot;
    uint64_t bat_end;
    bool shows_stale;
    uint32_t rules, states; /* for the counters */
    struct rng rng;
};

struct cut *cut_take(struct backend *backend, const struct model *model, struct rng *rng);
void cut_free(struct cut *cut);

/* Called with the disks, one after another. */
typedef void cut_fn(void *context, const struct disk_state *state, const char *name);
void cut_disks(struct cut *cut, cut_fn *fn, void *context);

/* Build one of them by chance, to continue with it. */
void cut_random_disk(struct cut *cut, struct disk_state *state);

#endif
