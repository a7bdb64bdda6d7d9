/* SPDX-License-Identifier: MIT */
/*
 * A power cut of a stack of files that change, over a base that does not: what the model promises,
 * all disks, and which stacks the embedder's record may name. Each allowed disk of one file is
 * judged with some of the others'; each stack that may be recorded must open and read as promised,
 * and end closed cleanly.
 */
#ifndef SIM_STACK_CUT_H
#define SIM_STACK_CUT_H

#include "sim.h"

enum { STACK_FILES = 5 };

/* Which stacks may be recorded: each a bit for each file, the lowest file's the lowest. */
struct records {
    uint32_t masks[2];
    uint32_t count;
};

struct stack_cut {
    struct stack_cut *next;
    struct cut *files[STACK_FILES];
    uint32_t count;
    struct records records;
};

/* The files' backends, the lowest first. */
struct stack_cut *stack_cut_take(struct sim *sim, struct backend *const *files, uint32_t count,
                                 const struct records *records);

/* Judges it and frees it. */
void stack_cut_judge(struct sim *sim, struct stack_cut *cut);

/*
 * The files after a clean close, read as the stack `mask`: no errors, the content that is promised
 * now, and, where it is `clean`, no mark.
 */
void stack_judge_closed(struct sim *sim, const struct disk_state *const *states, uint32_t mask,
                        bool clean);

#endif
