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
};

/* Total 0: it is not known yet, and nothing is drawn before it is. */
void progress_begin(struct progress *progress, uint64_t total);
void progress_set_total(struct progress *progress, uint64_t total);
/* Draws at most ten times a second, so that it may be called for each request. */
void progress_update(struct progress *progress, uint64_t done);
/* Leaves the bar on its line, full after a success. Called before anything else is printed. */
void progress_end(struct progress *progress, bool success);

#endif
