/* SPDX-License-Identifier: MIT */
/*
 * A progress bar on standard error, drawn only if that is a terminal, with the rate so far and the
 * time that is left at that rate.
 */
#ifndef PLOOPCTL_PROGRESS_H
#define PLOOPCTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t total;
    uint64_t begun_ns, drawn_ns; /* when */
    bool is_shown;
    bool is_of_steps; /* not of bytes: no rate is told, and the bar goes when it is over */
};

/* Total 0: it is not known yet, and nothing is drawn before it is. */
void progress_begin(struct progress *progress, uint64_t total);
/* Of steps; the bar is drawn from half a second on only. */
void progress_begin_steps(struct progress *progress);
void progress_set_total(struct progress *progress, uint64_t total);
/* Draws at most ten times a second, so that it may be called for each request. */
void progress_update(struct progress *progress, uint64_t done);
/* The bar's line is free for something else; the next update draws it again. */
void progress_clear(struct progress *progress);
/* Leaves the bar on its line, full after a success. Called before anything else is printed. */
void progress_end(struct progress *progress, bool success);

#endif
