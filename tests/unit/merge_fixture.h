/* SPDX-License-Identifier: MIT */
/*
 * A tower of four images, in which each cluster of each file has a byte of its own, merges of any
 * two neighbours of it, and a model of what the guest has to read.
 */
#ifndef MERGE_FIXTURE_H
#define MERGE_FIXTURE_H

#include "tower_fixture.h"

enum { MERGE_DELTAS = 4, MODEL_CLUSTERS = 9, MODEL_SECTORS = MODEL_CLUSTERS * 8 };
enum { DOWN = PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS, UP = PLOOP_MERGE_UP, LATER = 1000 };

struct stacked {
    struct tower tower;
    struct script *scripts[MERGE_DELTAS]; /* those that are left, the base first */
    uint32_t count;
    uint8_t model[MODEL_SECTORS];
    ploop_job *job;
    int answer; /* of the commit callback; LATER: the test's */
    uint32_t commits, ends;
    int result;
    bool marked_at_commit[MERGE_DELTAS];
};

/* Open, of a format's version. */
void stacked_open(struct stacked *stacked, uint32_t version);
int stacked_begin(struct stacked *stacked, uint32_t level, uint32_t direction);
/* Runs the device until fn was called; after a success the file that is not needed has gone. */
int stacked_finish(struct stacked *stacked, uint32_t level, uint32_t direction);
/* The file that a merge has made superfluous. */
void stacked_forget(struct stacked *stacked, uint32_t level, uint32_t direction);
int stacked_merge(struct stacked *stacked, uint32_t level, uint32_t direction);
/* The guest reads what the model says. */
void stacked_expect(struct stacked *stacked);
/* A guest's write of these sectors, waited for, and the model with it. */
void stacked_write(struct stacked *stacked, uint32_t sector, uint32_t count, uint8_t byte);
/* All files hold requests back from now on; or complete them, when the library can only wait. */
void stacked_hold(struct stacked *stacked);
void stacked_release_one(struct stacked *stacked);
void stacked_go(struct stacked *stacked);
/* What the first `count` files hold as a stack, read by the oracle. */
void stacked_read_files(const struct stacked *stacked, uint32_t count, uint8_t *model);
/*
 * Closed: all files that are left are clean, and the stack reads as the model says, with the oracle
 * and opened again.
 */
void stacked_end(struct stacked *stacked);
void stacked_free(struct stacked *stacked);

#endif
