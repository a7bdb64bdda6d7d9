/* SPDX-License-Identifier: MIT */
/*
 * Judging a disk that a repair left, whether cut off, failed, cancelled or done:
 *
 *  1. Data of a guest cluster that could be read before reads the same. A bad cluster is as it was,
 *     or not mapped any more; a duplicate is as it was, or shows its owner's content. Nothing else
 *     is ever shown.
 *  2. The check finds no more errors than before, the mark excepted. A mark that was found is gone
 *     only if the repair was asked for that and no error is left. An image that RECOVER would have
 *     opened it still opens.
 *  3. A repair of all, run to its end, leaves nothing to find, everything readable as by 1, and no
 *     cluster bad.
 *  4. Run once more it finds nothing and changes nothing.
 */
#ifndef SIM_REPAIR_JUDGE_H
#define SIM_REPAIR_JUDGE_H

#include <ploop/ploop.h>

#include "damage.h"

enum { REPAIR_ALL = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES };

struct repair_judge {
    struct showings found; /* before the repair */
    struct showings
        older; /* where what was found is not durable: what the disk showed without it */
    bool has_older;
    bool recoverable; /* by the library's check */
    uint64_t errors;  /* the most that a disk could have before it */
    uint32_t repair;  /* PLOOP_REPAIR_ ...: what the repair was asked for */
    uint64_t *seen;   /* hashes of the disks judged already */
    uint64_t seen_count;
};

/* Read the content that the disk shows before a repair. */
void repair_judge_init(struct repair_judge *judge, const struct disk *disk, uint32_t repair);
void repair_judge_free(struct repair_judge *judge);

void repair_judge_disk(struct repair_judge *judge, const struct disk_state *state,
                       const char *name);

/* Check that nothing is left to find. */
void repair_judge_clean(const struct disk_state *state, const char *name);

#endif
