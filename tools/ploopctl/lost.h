/* SPDX-License-Identifier: MIT */
/* What a salvage could not read: ranges of the disk, which are zeros in the target. */
#ifndef PLOOPCTL_LOST_H
#define PLOOPCTL_LOST_H

#include <stdint.h>

struct lost_range {
    uint64_t offset, length; /* in the disk */
};

/* Zeros at first. */
struct lost {
    struct lost_range *ranges;
    uint64_t count, room;
};

/* In any order. 0 or -ENOMEM. */
int lost_add(struct lost *lost, uint64_t offset, uint64_t length);

/* Put them in order, adjacent ones together. Returns how many bytes they are. */
uint64_t lost_settle(struct lost *lost);

void lost_free(struct lost *lost);

#endif
