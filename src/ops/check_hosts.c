/* SPDX-License-Identifier: MIT */
/*
 * Who uses which host cluster: duplicates and leaks, in memory bounded by the entries there are.
 *
 * A bitmap of the whole file could be of any size, since a sparse file can. So the bitmap is a
 * window on the host clusters: it is filled by a pass over the BAT, which also finds where the next
 * used cluster past the window lies; the next window begins there. Where the file is about as large
 * as its entries say, one window holds all of it.
 */
#include "ops/check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { WINDOW_BYTES_MIN = 1048576, PROGRESS_ENTRIES = 262144 };

#define NO_HOST UINT64_MAX

struct window {
    struct bitmap used;
    uint64_t first, end; /* places */
    uint64_t next;       /* the first used one at or past `end`; NO_HOST: none */
    uint64_t slots_end;  /* where the file's places end */
};

bool check_entry_is_good(const struct check *check, uint32_t entry)
{
    return geometry_judge_entry(&check->image.header.geometry, check->image.file_size, entry) ==
           ENTRY_GOOD;
}

/* The place behind the file's last one, which may be cut short. */
static uint64_t slots_end(const struct check *check)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint64_t area = check->image.file_size - geometry->data_start;

    return geometry_host_end(geometry, check->image.file_size) +
           (area % geometry->cluster_size != 0);
}

static int window_init(struct window *window, const struct check *check)
{
    uint64_t bytes = (uint64_t)4 * check->image.header.geometry.bat_entries / 8;
    uint64_t bits = 8 * (bytes > WINDOW_BYTES_MIN ? bytes : WINDOW_BYTES_MIN);
    uint64_t first = geometry_host_first(&check->image.header.geometry), end = slots_end(check);

    *window = (struct window){.next = first, .slots_end = end};
    return bitmap_init(&window->used, bits < end - first ? bits : end - first);
}

/*
 * A used host cluster: into the window, or a candidate for the next one's start. True where it is
 * the first to claim its place.
 */
static bool window_note(struct window *window, uint64_t host)
{
    if (host < window->first) {
        return true;
    }
    if (host < window->end) {
        return bitmap_set(&window->used, host - window->first);
    }
    window->next = host < window->next ? host : window->next;
    return true;
}

/* All entries, in their order, those first that can be dismissed without a division. */
static int fill_from_bat(struct check *check, struct window *window, bool mark_duplicates)
{
    const struct geometry *geometry = &check->image.header.geometry;
    const uint32_t *entries = check->image.entries;
    uint64_t low = geometry_place_offset(geometry, window->first) / geometry->entry_unit;
    uint64_t high = geometry_place_offset(geometry, window->end) / geometry->entry_unit;
    uint64_t best = UINT64_MAX; /* the lowest good entry past the window, so far */

    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        uint32_t entry = entries[i];

        if (i % PROGRESS_ENTRIES == 0 &&
            check_progress(
                check, window->first > geometry_host_first(geometry) ? geometry->bat_entries : i)) {
            return -ECANCELED;
        }
        if (entry < low || !entry || (entry >= high && entry >= best) ||
            !check_entry_is_good(check, entry)) {
            continue;
        }
        if (entry >= high) {
            best = entry;
        }
        if (!window_note(window, geometry_host(geometry, entry).n) && mark_duplicates) {
            bitmap_set(&check->duplicates, i);
        }
    }
    return 0;
}

static void fill_from_extension(const struct check *check, struct window *window)
{
    const struct geometry *geometry = &check->image.header.geometry;

    for (uint64_t i = 0; i < check->extension.owned_count; i++) {
        window_note(window, geometry_place_at(geometry, check->extension.owned[i]));
    }
}

/* Move the window to where the last one found more. False: it found nothing. */
static bool window_advance(struct window *window)
{
    if (window->next == NO_HOST) {
        return false;
    }
    window->first = window->next;
    window->end = window->slots_end - window->first < window->used.bits
                      ? window->slots_end
                      : window->first + window->used.bits;
    window->next = NO_HOST;
    memset(window->used.words, 0, (window->used.bits + 63) / 64 * 8);
    return true;
}

int check_duplicates(struct check *check)
{
    struct window window;
    int error = window_init(&window, check);

    if (error) {
        return error;
    }
    while (!error && window_advance(&window)) {
        error = fill_from_bat(check, &window, true);
    }
    bitmap_free(&window.used);
    return error;
}

static void report_leak(struct check *check, uint64_t first, uint64_t end)
{
    const struct geometry *geometry = &check->image.header.geometry;

    if (first < end) {
        uint64_t offset = geometry_place_offset(geometry, first);

        check_report(check, PLOOP_CHECK_LEAK, UINT64_MAX, offset, end - first,
                     "%" PRIu64 " host cluster%s at byte %" PRIu64 ": nothing refers to %s",
                     end - first, end - first > 1 ? "s" : "", offset,
                     end - first > 1 ? "them" : "it");
    }
}

/* The gaps in a window, and the one before it. *from is the first cluster not yet judged. */
static void report_gaps(struct check *check, const struct window *window, uint64_t *from)
{
    uint64_t bits = window->end - window->first;

    for (uint64_t bit = bitmap_next_set(&window->used, 0, bits); bit < bits;
         bit = bitmap_next_set(&window->used, bit, bits)) {
        report_leak(check, *from, window->first + bit);
        bit += bitmap_run(&window->used, bit, bits - bit);
        *from = window->first + bit;
    }
}

int check_leaks(struct check *check)
{
    struct window window;
    uint64_t from = geometry_host_first(&check->image.header.geometry);
    int error = window_init(&window, check);

    if (error) {
        return error;
    }
    while (!error && window_advance(&window)) {
        fill_from_extension(check, &window);
        error = fill_from_bat(check, &window, false);
        if (!error) {
            report_gaps(check, &window, &from);
        }
    }
    if (!error) {
        report_leak(check, from, window.slots_end);
    }
    bitmap_free(&window.used);
    return error;
}
