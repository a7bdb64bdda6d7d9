/* SPDX-License-Identifier: MIT */
/* A progress bar on standard error, drawn only if that is a terminal. */
#ifndef PLOOPCTL_PROGRESS_H
#define PLOOPCTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t total;
    uint64_t drawn_ns; /* when */
    bool is_shown;
};

void progress_begin(struct progress *progress, uint64_t total);
/* Draws at most ten times a second, so that it may be called for each request. */
void progress_update(struct progress *progress, uint64_t done);
/* Leaves the bar on its line, full after a success. Called before anything else is printed. */
void progress_end(struct progress *progress, bool success);

#endif
