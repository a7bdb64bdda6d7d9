/* SPDX-License-Identifier: MIT */
/*
 * A device with some old content, and a file that is to become its new top by a snapshot. The
 * commit callback answers with `answer`, or leaves that to the test.
 */
#ifndef SNAPSHOT_FIXTURE_H
#define SNAPSHOT_FIXTURE_H

#include "device_fixture.h"

enum { SHOT_LATER = 1000, SHOT_CLUSTER = 4096, SHOT_CLUSTERS = 64 << 20 >> 12 };

struct shot {
    struct rig rig;
    struct script tops[3]; /* those that are to come; `next` is one of them */
    struct script *next;
    ploop_job *job;
    int answer; /* SHOT_LATER: the test answers */
    uint32_t commits, ends;
    int result; /* as `fn` was told */
    bool marked_at_commit, next_marked_at_commit;
};

/* The device, open, with clusters 0 to 3 filled with 0x10 ... 0x13 and page 0 dirty. */
void shot_open(struct shot *shot);
/* An empty image as the top's; `size` 0: of the same disk. */
void shot_new_top(struct script *next, uint64_t size);
int shot_begin(struct shot *shot);
/* Runs the device until fn was called. */
int shot_wait(struct shot *shot);
/* Begin and wait. */
int shot_take(struct shot *shot);
/* Whether the header of the script's bytes has the mark. */
bool script_marked(const struct script *script);
/* The device is closed, both files are clean, and the stack reads as these bytes, by cluster. */
void shot_end(struct shot *shot, uint32_t deltas, const uint8_t *bytes, uint32_t count);

#endif
