/* SPDX-License-Identifier: MIT */
/*
 * Who uses which host cluster: duplicates and leaks, in memory bounded by the entries there are.
 * What nothing refers to is free where it is a hole of the file, and a leak where it takes space.
 *
 * A bitmap of the whole file could be of any size, since a sparse file can. So the bitmap is a
 * window on the host clusters: it is filled by a pass over the BAT, which also finds where the next
 * used cluster past the window lies; the next window begins there. Where the file is about as large
 * as its entries say, one window holds all of it, and what the search for duplicates has put there
 * does for the leaks too.
 */
#include "image/bat_run.h"
#include "ops/check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { WINDOW_BYTES_MIN = 1048576, PROGRESS_ENTRIES = 262144 };

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

static int window_init(struct check_window *window, const struct check *check)
{
    uint64_t bytes = (uint64_t)4 * check->image.header.geometry.bat_entries / 8;
    uint64_t bits = 8 * (bytes > WINDOW_BYTES_MIN ? bytes : WINDOW_BYTES_MIN);
    uint64_t first = geometry_host_first(&check->image.header.geometry), end = slots_end(check);

    *window = (struct check_window){.next = first, .slots_end = end};
    return bitmap_init(&window->used, bits < end - first ? bits : end - first);
}

/*
 * A used host cluster: into the window, or a candidate for the next one's start. True where it is
 * the first to claim its place.
 */
static bool window_note(struct check_window *window, uint64_t host)
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

/* A pass over the BAT that fills a window. */
struct pass {
    struct check *check;
    struct check_window *window;
    uint64_t low, high; /* the entries for the window's ends */
    uint64_t best;      /* the lowest good entry past the window, so far */
    bool mark_duplicates;
};

static struct pass pass_begin(struct check *check, struct check_window *window,
                              bool mark_duplicates)
{
    const struct geometry *geometry = &check->image.header.geometry;

    return (struct pass){
        .check = check,
        .window = window,
        .low = geometry_place_offset(geometry, window->first) / geometry->entry_unit,
        .high = geometry_place_offset(geometry, window->end) / geometry->entry_unit,
        .best = UINT64_MAX,
        .mark_duplicates = mark_duplicates,
    };
}

/* Those first that can be dismissed without a division. */
static void note_entry(struct pass *pass, uint32_t index)
{
    struct check *check = pass->check;
    uint32_t entry = check->image.entries[index];

    if (entry < pass->low || (entry >= pass->high && entry >= pass->best)) {
        return;
    }
    bool is_cut = entry && entry == check->good.cut;
    if (!is_cut && !good_entries_have(&check->good, entry)) {
        return;
    }
    if (entry >= pass->high) {
        pass->best = entry;
    }
    uint64_t place = is_cut ? check->good.cut_place : good_entries_host(&check->good, entry).n;
    if (!window_note(pass->window, place) && pass->mark_duplicates) {
        check->duplicate_count += bitmap_set(&check->duplicates, index);
    }
}

/* False: nothing of the run was noted, and it is to be noted entry by entry. */
static bool note_run(const struct pass *pass, uint32_t index, uint32_t length)
{
    const struct good_entries *good = &pass->check->good;
    const uint32_t *run = pass->check->image.entries + index;
    struct check_window *window = pass->window;

    if (!bat_run_is_good(good, run, length)) {
        return false;
    }
    uint64_t host = good_entries_host(good, run[0]).n;
    return host >= window->first && host + length <= window->end &&
           bitmap_set_range(&window->used, host - window->first, host - window->first + length);
}

/* All entries, in their order. */
static int fill_from_bat(struct check *check, struct check_window *window, bool mark_duplicates)
{
    const struct geometry *geometry = &check->image.header.geometry;
    struct pass pass = pass_begin(check, window, mark_duplicates);
    bool is_first = window->first == geometry_host_first(geometry);

    for (uint32_t i = 0, length; i < geometry->bat_entries; i += length) {
        if (i % PROGRESS_ENTRIES == 0 &&
            check_progress(check, is_first ? i : geometry->bat_entries)) {
            return -ECANCELED;
        }
        length = check_run(check, i);
        if (!check->image.entries[i] || (length > 1 && note_run(&pass, i, length))) {
            continue;
        }
        for (uint32_t j = i; j < i + length; j++) {
            note_entry(&pass, j);
        }
    }
    return 0;
}

static void fill_from_extension(const struct check *check, struct check_window *window)
{
    const struct geometry *geometry = &check->image.header.geometry;

    for (uint64_t i = 0; i < check->extension.owned_count; i++) {
        window_note(window, geometry_place_at(geometry, check->extension.owned[i]));
    }
}

/* Move the window to where the last one found more. False: it found nothing. */
static bool window_advance(struct check_window *window)
{
    if (window->next == CHECK_NO_HOST) {
        return false;
    }
    window->first = window->next;
    window->end = window->slots_end - window->first < window->used.bits
                      ? window->slots_end
                      : window->first + window->used.bits;
    window->next = CHECK_NO_HOST;
    memset(window->used.words, 0, (window->used.bits + 63) / 64 * 8);
    return true;
}

static bool window_is_whole(const struct check *check, const struct check_window *window)
{
    return window->used.bits > 0 && window->end == window->slots_end &&
           window->first == geometry_host_first(&check->image.header.geometry);
}

int check_duplicates(struct check *check)
{
    int error = window_init(&check->used, check);

    while (!error && window_advance(&check->used)) {
        error = fill_from_bat(check, &check->used, true);
    }
    return error;
}

/* ---- free, or leaked ---- */

/*
 * Where data lies, from `offset` on, which never goes back. Where nobody can tell there is none as
 * far as a check is concerned.
 */
static int data_from(struct check *check, uint64_t offset)
{
    struct check_data *data = &check->data;
    uint64_t begin, length;
    int error;

    if (data->end && offset >= data->from && offset < data->end) {
        return 0;
    }
    error = file_data_extent(check->image.file, offset, &begin, &length);
    if (error && error != -ENOTSUP) {
        return error;
    }
    if (error || length == 0) {
        begin = UINT64_MAX - 1;
        length = 1;
    }
    *data = (struct check_data){.from = offset, .begin = begin, .end = begin + length};
    return 0;
}

/* The cluster in which a byte of the data area lies. */
static uint64_t place_with(const struct geometry *geometry, uint64_t byte)
{
    uint64_t past_first = (byte - geometry->data_start) / geometry->cluster_size;

    return geometry_host_first(geometry) + past_first;
}

/*
 * The first leak among the unused clusters [from, end): they take space on the host. *first is
 * `end` where there is none.
 */
static int next_leak(struct check *check, uint64_t from, uint64_t end, uint64_t *first,
                     uint64_t *leak_end)
{
    const struct geometry *geometry = &check->image.header.geometry;
    struct check_data *data = &check->data;

    *first = *leak_end = end;
    for (uint64_t at = from; at < end; at = *leak_end) {
        int error = data_from(check, geometry_place_offset(geometry, at));

        if (error) {
            return error;
        }
        uint64_t offset = geometry_place_offset(geometry, at);
        uint64_t begin = data->begin > offset ? data->begin : offset;
        if (begin >= geometry_place_offset(geometry, end)) {
            break;
        }
        uint64_t place = place_with(geometry, begin);
        if (*first < end && place > at) {
            *leak_end = at; /* the leak ended there */
            return 0;
        }
        *first = *first < end ? *first : place;
        uint64_t last = geometry_place_offset(geometry, end) < data->end
                            ? end - 1
                            : place_with(geometry, data->end - 1);
        *leak_end = last + 1;
    }
    return 0;
}

/* Clusters that nothing refers to. */
static int judge_unused(struct check *check, uint64_t from, uint64_t end)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint64_t first, leak_end;

    for (; from < end; from = leak_end) {
        int error = next_leak(check, from, end, &first, &leak_end);

        if (error) {
            return error;
        }
        check->result.free += first - from;
        if (first < leak_end) {
            uint64_t offset = geometry_place_offset(geometry, first), count = leak_end - first;

            check_report(check, PLOOP_CHECK_LEAK, UINT64_MAX, offset, count,
                         "%" PRIu64 " host cluster%s at byte %" PRIu64 ": nothing refers to %s",
                         count, count > 1 ? "s" : "", offset, count > 1 ? "them" : "it");
        }
    }
    return 0;
}

int check_count_leaks(struct check *check, uint64_t from, uint64_t *count)
{
    const struct geometry *geometry = &check->image.header.geometry;
    uint64_t end = slots_end(check), first, leak_end;
    uint64_t at = place_with(geometry, from + geometry->cluster_size - 1);

    check->data = (struct check_data){0};
    for (*count = 0; at < end; at = leak_end) {
        int error = next_leak(check, at, end, &first, &leak_end);

        if (error) {
            return error;
        }
        *count += first < leak_end;
    }
    return 0;
}

/* The gaps in a window, and the one before it. *from is the first cluster not yet judged. */
static int judge_gaps(struct check *check, const struct check_window *window, uint64_t *from)
{
    uint64_t bits = window->end - window->first;
    int error = 0;

    for (uint64_t bit = bitmap_next_set(&window->used, 0, bits); bit < bits && !error;
         bit = bitmap_next_set(&window->used, bit, bits)) {
        error = judge_unused(check, *from, window->first + bit);
        bit += bitmap_run(&window->used, bit, bits - bit);
        *from = window->first + bit;
    }
    return error;
}

int check_leaks(struct check *check)
{
    struct check_window *window = &check->used;
    uint64_t from = geometry_host_first(&check->image.header.geometry);

    if (window_is_whole(check, window)) {
        if (check_progress(check, 0)) {
            return -ECANCELED;
        }
        fill_from_extension(check, window);
        int error = judge_gaps(check, window, &from);
        return error ? error : judge_unused(check, from, window->slots_end);
    }
    bitmap_free(&window->used);
    int error = window_init(window, check);
    while (!error && window_advance(window)) {
        fill_from_extension(check, window);
        error = fill_from_bat(check, window, false);
        error = error ? error : judge_gaps(check, window, &from);
    }
    return error ? error : judge_unused(check, from, window->slots_end);
}
