/* SPDX-License-Identifier: MIT */
/*
 * A power cut of a stack of two files that change, over a base that does not: what the model
 * promises, both disks, and which stack the embedder's record may name. Each allowed disk of one
 * file is judged with some of the other's; each stack that may be recorded must open and read as
 * promised, and end closed cleanly.
 */
#ifndef SIM_STACK_CUT_H
#define SIM_STACK_CUT_H

#include "sim.h"

enum { RECORD_LOWER = 1, RECORD_BOTH = 2, RECORD_UPPER = 4 }; /* bits: which stacks are possible */

struct stack_cut {
    struct stack_cut *next;
    struct cut *lower, *upper;
    uint32_t records;
};

/* `upper`: the second file's; the first is sim->backend's. */
struct stack_cut *stack_cut_take(struct sim *sim, struct backend *upper, uint32_t records);

/* Judges it and frees it. */
void stack_cut_judge(struct sim *sim, struct stack_cut *cut);

/*
 * Both files after a clean close: no errors, the content that is promised now, and, where it is
 * `clean`, no mark.
 */
void stack_judge_closed(struct sim *sim, const struct disk_state *lower,
                        const struct disk_state *upper, uint32_t record, bool clean);

#endif
