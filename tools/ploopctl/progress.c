/* SPDX-License-Identifier: MIT */
/* See progress.h. */
#include "progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { BAR_WIDTH = 50, INTERVAL_NS = 100000000 };

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void draw(const struct progress *progress, uint64_t done)
{
    static const char full[] = "##################################################";
    static const char empty[] = "..................................................";
    double part = progress->total ? (double)done / (double)progress->total : 1;
    int width = (int)(part * BAR_WIDTH);

    fprintf(stderr, "\r[%.*s%.*s] %3d%% of %.1f MiB", width, full, BAR_WIDTH - width, empty,
            (int)(part * 100), (double)progress->total / 1048576);
}

void progress_begin(struct progress *progress, uint64_t total)
{
    *progress = (struct progress){.total = total, .is_shown = isatty(STDERR_FILENO) == 1};
    progress_update(progress, 0);
}

void progress_update(struct progress *progress, uint64_t done)
{
    if (!progress->is_shown) {
        return;
    }
    uint64_t now = now_ns();
    if (progress->drawn_ns && now - progress->drawn_ns < INTERVAL_NS) {
        return;
    }
    progress->drawn_ns = now;
    draw(progress, done);
}

void progress_end(struct progress *progress, bool success)
{
    if (!progress->is_shown) {
        return;
    }
    if (success) {
        draw(progress, progress->total);
    }
    fputc('\n', stderr);
    progress->is_shown = false;
}
