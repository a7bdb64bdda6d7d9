/* SPDX-License-Identifier: MIT */
/* See progress.h. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR_MAX = 50, LINE_MAX_BYTES = 160, INTERVAL_NS = 100000000, STEPS_AFTER_NS = 500000000 };

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* How fast it goes, and when it will be over. */
static void write_time(const struct progress *progress, uint64_t done, char *text, size_t size)
{
    double seconds = (double)(now_ns() - progress->begun_ns) / 1e9;

    *text = '\0';
    if (done > 0 && seconds > 0) {
        double rate = (double)done / seconds;
        uint64_t left =
            done < progress->total ? (uint64_t)((double)(progress->total - done) / rate) : 0;
        int length =
            progress->is_of_steps ? 0 : snprintf(text, size, ", %.1f MiB/s", rate / 1048576);
        (void)snprintf(text + length, size - (size_t)length, ", %llu:%02llu left",
                       (unsigned long long)left / 60, (unsigned long long)left % 60);
    }
}

/* The window may have become narrower meanwhile. A line that reaches its end would be two. */
static int columns(void)
{
    struct winsize window;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col - 1
                                                                               : 79;
}

/* The bar has what the text leaves of the window. */
static void draw(const struct progress *progress, uint64_t done)
{
    static const char full[] = "##################################################";
    static const char empty[] = "..................................................";
    double part = progress->total > done ? (double)done / (double)progress->total : 1;
    char time[LINE_MAX_BYTES / 2], text[LINE_MAX_BYTES];

    write_time(progress, done, time, sizeof(time));
    if (progress->is_of_steps) {
        (void)snprintf(text, sizeof(text), "%3d%%%s", (int)(part * 100), time);
    } else {
        (void)snprintf(text, sizeof(text), "%3d%% of %.1f MiB%s", (int)(part * 100),
                       (double)progress->total / 1048576, time);
    }
    int width = columns(), bar = width - (int)strlen(text) - 3;
    bar = bar < 0 ? 0 : bar > BAR_MAX ? BAR_MAX : bar;
    int done_width = (int)(part * bar);
    fprintf(stderr, "\r[%.*s%.*s] %.*s\033[K", done_width, full, bar - done_width, empty,
            width > 3 ? width - 3 : 0, text);
}

void progress_begin(struct progress *progress, uint64_t total)
{
    *progress = (struct progress){
        .total = total, .begun_ns = now_ns(), .is_shown = isatty(STDERR_FILENO) == 1};
    progress_update(progress, 0);
}

void progress_begin_steps(struct progress *progress)
{
    progress_begin(progress, 0);
    progress->is_of_steps = true;
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn_ns) {
        fprintf(stderr, "\r\033[K");
        progress->drawn_ns = 0;
    }
}

void progress_set_total(struct progress *progress, uint64_t total)
{
    progress->total = total;
}

void progress_update(struct progress *progress, uint64_t done)
{
    if (!progress->is_shown || !progress->total) {
        return;
    }
    uint64_t now = now_ns();
    if ((progress->drawn_ns && now - progress->drawn_ns < INTERVAL_NS) ||
        (progress->is_of_steps && now - progress->begun_ns < STEPS_AFTER_NS)) {
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
    if (progress->is_of_steps) {
        progress_clear(progress);
    } else if (success && progress->total) {
        draw(progress, progress->total);
    }
    if (!progress->is_of_steps && (progress->drawn_ns || (success && progress->total))) {
        fputc('\n', stderr);
    }
    progress->is_shown = false;
}
