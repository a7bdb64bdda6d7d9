/* SPDX-License-Identifier: MIT */
/* What runs.h says. */
#include "util/runs.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

static void assert_runs(const struct run_set *set)
{
    (void)set;
    assert(set->count <= RUNS_MAX);
    for (uint32_t i = 0; i < set->count; i++) {
        assert(set->runs[i].begin < set->runs[i].end);
        assert(i == 0 || set->runs[i - 1].end < set->runs[i].begin);
    }
}

/* The runs that overlap or touch [begin, end): from *first on, so many. */
static uint32_t touched(const struct run_set *set, uint32_t begin, uint32_t end, uint32_t *first)
{
    uint32_t at = 0, count = 0;
    while (at < set->count && set->runs[at].end < begin) {
        at++;
    }
    while (at + count < set->count && set->runs[at + count].begin <= end) {
        count++;
    }
    *first = at;
    return count;
}

uint32_t runs_count_with(const struct run_set *set, uint32_t begin, uint32_t end)
{
    uint32_t first;
    return set->count + 1 - touched(set, begin, end, &first);
}

uint32_t runs_add(struct run_set *set, uint32_t begin, uint32_t end)
{
    uint32_t first, count = touched(set, begin, end, &first), known = 0;
    assert(begin < end && set->count + 1 - count <= RUNS_MAX);
    struct run all = {begin, end};
    for (uint32_t i = first; i < first + count; i++) {
        const struct run *run = &set->runs[i];
        known += run->end - run->begin;
        all.begin = run->begin < all.begin ? run->begin : all.begin;
        all.end = run->end > all.end ? run->end : all.end;
    }
    memmove(&set->runs[first + 1], &set->runs[first + count],
            (set->count - first - count) * sizeof(all));
    set->runs[first] = all;
    set->count = set->count + 1 - count;
    assert_runs(set);
    return all.end - all.begin - known;
}

const struct run *runs_from(const struct run_set *set, uint32_t from)
{
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->runs[i].end > from) {
            return &set->runs[i];
        }
    }
    return NULL;
}

bool runs_span(const struct run_set *set, uint32_t begin, uint32_t end, struct run *span)
{
    bool any = false;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct run *run = &set->runs[i];
        if (run->end <= begin || run->begin >= end) {
            continue;
        }
        if (!any) {
            span->begin = run->begin > begin ? run->begin : begin;
        }
        span->end = run->end < end ? run->end : end;
        any = true;
    }
    return any;
}

bool runs_gap_span(const struct run_set *set, uint32_t begin, uint32_t end, struct run *span)
{
    *span = (struct run){begin, end};
    for (uint32_t i = 0; i < set->count; i++) {
        const struct run *run = &set->runs[i];
        if (run->begin <= span->begin && run->end > span->begin) {
            span->begin = run->end;
        }
        if (run->begin < span->end && run->end >= span->end) {
            span->end = run->begin;
        }
    }
    return span->begin < span->end;
}
