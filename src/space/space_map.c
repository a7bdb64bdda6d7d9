/* SPDX-License-Identifier: MIT */
/* The states and invariants stand in space_map.h. Here: how a cluster gets a bit, and is found. */
#include "space/space_map.h"

#include <assert.h>

#include "space/pending.h"

#define BIT_NONE UINT64_MAX

enum {
    WINDOW_PER_ENTRY = 16, /* bits for the file's own clusters, for each BAT entry */
    WINDOW_MIN = 1 << 20,
    TAKEN_SLACK = PENDING_MAX + 4096 /* clusters reserved or pending besides the mapped ones */
};

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t bit_of(const struct space_map *map, struct host_cluster host)
{
    assert(host.n >= map->first && host.n < map->limit);
    if (host.n < map->first + map->window) {
        return host.n - map->first;
    }
    return host.n < map->file_end ? BIT_NONE : host.n - map->file_end + map->window;
}

static uint64_t place_of(const struct space_map *map, uint64_t bit)
{
    return bit < map->window ? map->first + bit : bit - map->window + map->file_end;
}

static struct host_cluster host_of(const struct space_map *map, uint64_t bit)
{
    assert(place_of(map, bit) < map->fresh_next);
    return (struct host_cluster){(uint32_t)place_of(map, bit)};
}

/* Behind the last bit that can be set now. */
static uint64_t bits_end(const struct space_map *map)
{
    return map->fresh_next - map->file_end + map->window;
}

static bool is_free(const struct space_map *map, uint64_t bit)
{
    bool unknown = numbers_have(&map->free[FREE_UNKNOWN], bit);
    bool zeroed = numbers_have(&map->free[FREE_ZEROED], bit);
    bool zero = numbers_have(&map->free[FREE_ZERO], bit);
    assert(unknown + zeroed + zero <= 1);
    return unknown || zeroed || zero;
}

static void assert_map(const struct space_map *map)
{
#ifndef NDEBUG
    assert(map->window <= map->file_end - map->first && map->first <= map->file_end);
    assert(map->file_end <= map->fresh_next && map->fresh_next <= map->fresh_end);
    assert(map->fresh_end <= map->limit && map->claims_end == map->window);
    assert(map->fresh_next >= map->reserved_end || map->fresh_next == map->fresh_end);
#else
    (void)map;
#endif
}

int space_map_init(struct space_map *map, const struct geometry *geometry, uint64_t file_size)
{
    uint64_t first = geometry_host_first(geometry), host_limit = geometry_host_limit(geometry);
    uint64_t end = min64(geometry_host_end(geometry, file_size), host_limit);
    uint64_t window = (uint64_t)geometry->bat_entries * WINDOW_PER_ENTRY + WINDOW_MIN;
    *map = (struct space_map){
        .first = first,
        .window = min64(end - first, window),
        .file_end = end,
        .fresh_next = end,
        .fresh_end = end,
        .limit = min64(end + geometry->bat_entries + TAKEN_SLACK, host_limit),
    };
    uint64_t bits = map->window + (map->limit - end) + 1;
    uint64_t bits_limit = map->window + (host_limit - end) + 1;
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        int error = numbers_init(&map->free[kind], bits, bits_limit);
        if (error) {
            return error;
        }
    }
    return 0;
}

void space_map_free(struct space_map *map)
{
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        numbers_free(&map->free[kind]);
    }
}

/* ---- bits ---- */

/* Bits of clusters that are in use. */
static void put(struct space_map *map, enum free_kind kind, uint64_t bit, uint64_t count)
{
    assert(bit + count <= bits_end(map) && !is_free(map, bit) && !is_free(map, bit + count - 1));
    bool put = numbers_put(&map->free[kind], bit, bit + count);
    assert(put);
    (void)put;
}

/* Of bits [from, end) none is set any more: those clusters are no longer free. */
static void drop_bits(struct space_map *map, uint64_t from, uint64_t end)
{
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        struct numbers *set = &map->free[kind];
        for (uint64_t bit = numbers_next(set, from, end); bit < end;
             bit = numbers_next(set, bit, end)) {
            uint64_t run = numbers_run(set, bit, end - bit);
            numbers_take(set, bit, bit + run);
        }
    }
}

/* Nothing from `end` on was claimed yet. */
static void move_claims_end(struct space_map *map, uint64_t end)
{
    if (end == map->claims_end) {
        return; /* without a look at the bitmap: see 4 */
    }
    bool set = numbers_put(&map->free[FREE_UNKNOWN], map->claims_end, end);
    assert(set && end <= map->window);
    (void)set;
    map->claims_end = end;
}

static bool claim_bits(struct space_map *map, uint64_t bit, uint64_t count)
{
    if (bit < map->claims_end) {
        if (bit + count > map->claims_end) {
            move_claims_end(map, bit + count);
        }
        return numbers_take(&map->free[FREE_UNKNOWN], bit, bit + count);
    }
    move_claims_end(map, bit);
    map->claims_end += count;
    return true;
}

bool space_map_claim(struct space_map *map, struct space_run run)
{
    uint64_t begin = run.first.n, end = begin + run.count, window_end = map->first + map->window;
    assert(run.count > 0 && begin >= map->first && end <= map->file_end);
    return begin >= window_end ||
           claim_bits(map, begin - map->first, min64(end, window_end) - begin);
}

void space_map_end_claims(struct space_map *map)
{
    move_claims_end(map, map->window);
    assert_map(map);
}

/* What of a run is not reserved. */
static struct space_run not_reserved(const struct space_map *map, struct space_run run)
{
    uint64_t reserved = map->reserved_end > run.first.n ? map->reserved_end - run.first.n : 0;
    reserved = min64(reserved, run.count);
    run.first.n += (uint32_t)reserved;
    run.count -= reserved;
    return run;
}

void space_map_give_back(struct space_map *map, struct space_run run)
{
    run = not_reserved(map, run);
    while (run.count > 0) {
        uint64_t bit = bit_of(map, run.first);
        /* Up to the window's end a run of bits is one of clusters; behind it that begins anew. */
        uint64_t count = bit < map->window ? min64(run.count, map->window - bit) : run.count;
        if (bit == BIT_NONE) {
            count = min64(run.count, map->file_end - run.first.n);
        } else {
            put(map, FREE_UNKNOWN, bit, count);
            map->unknown_cursor = min64(map->unknown_cursor, bit);
        }
        run.first.n += (uint32_t)count;
        run.count -= count;
    }
    assert_map(map);
}

uint64_t space_map_free_count(const struct space_map *map)
{
    return space_map_count(map, FREE_UNKNOWN) + space_map_count(map, FREE_ZEROED) +
           space_map_count(map, FREE_ZERO) + space_map_fresh_count(map);
}

struct host_cluster space_map_take(struct space_map *map, enum free_kind kind)
{
    struct numbers *set = &map->free[kind];
    uint64_t bit = numbers_next(set, 0, set->levels[0].bits);
    bool taken = numbers_take(set, bit, bit + 1);
    assert(taken);
    (void)taken;
    assert_map(map);
    return host_of(map, bit);
}

bool space_map_take_hole(struct space_map *map, uint64_t below, struct host_cluster *host)
{
    uint64_t end = bits_end(map), lowest = end;
    struct numbers *from = NULL;
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        uint64_t bit = numbers_next(&map->free[kind], 0, end);
        if (bit < lowest) {
            lowest = bit;
            from = &map->free[kind];
        }
    }
    if (!from || place_of(map, lowest) >= below) {
        return false;
    }
    bool taken = numbers_take(from, lowest, lowest + 1);
    assert(taken);
    (void)taken;
    *host = host_of(map, lowest);
    return true;
}

struct host_cluster space_map_take_fresh(struct space_map *map)
{
    assert(space_map_fresh_count(map) > 0);
    return (struct host_cluster){(uint32_t)map->fresh_next++};
}

struct space_run space_map_take_unknown(struct space_map *map, uint64_t most)
{
    struct numbers *set = &map->free[FREE_UNKNOWN];
    assert(set->count > 0 && most > 0);
    uint64_t end = bits_end(map), bit = numbers_next(set, map->unknown_cursor, end);
    if (bit == end) {
        bit = numbers_next(set, 0, end);
    }
    assert(bit < end);
    /* A run of bits is a run in the file, but for the step at the window's end. */
    if (bit < map->window) {
        most = min64(most, map->window - bit);
    }
    uint64_t count = numbers_run(set, bit, most);
    assert(count > 0 && count <= most);
    bool taken = numbers_take(set, bit, bit + count);
    assert(taken);
    (void)taken;
    map->unknown_cursor = bit + count;
    assert_map(map);
    return (struct space_run){host_of(map, bit), count};
}

void space_map_add(struct space_map *map, enum free_kind kind, struct space_run run)
{
    run = not_reserved(map, run);
    if (run.count == 0) {
        return;
    }
    uint64_t bit = bit_of(map, run.first);
    assert(bit != BIT_NONE);
    assert(bit >= map->window || run.count <= map->window - bit);
    put(map, kind, bit, run.count);
    assert_map(map);
}

void space_map_zeroed_is_zero(struct space_map *map)
{
    struct numbers *zeroed = &map->free[FREE_ZEROED];
    uint64_t end = bits_end(map);
    for (uint64_t bit = numbers_next(zeroed, 0, end); bit < end;
         bit = numbers_next(zeroed, bit, end)) {
        uint64_t run = numbers_run(zeroed, bit, end - bit);
        numbers_take(zeroed, bit, bit + run);
        numbers_put(&map->free[FREE_ZERO], bit, bit + run);
    }
    assert(zeroed->count == 0);
    assert_map(map);
}

/* ---- the end of the file ---- */

/* No fresh cluster is reserved. */
static void skip_reserved(struct space_map *map)
{
    if (map->fresh_next < map->reserved_end) {
        map->fresh_next = min64(map->reserved_end, map->fresh_end);
    }
}

int space_map_enlarge(struct space_map *map, uint64_t more, uint64_t host_limit)
{
    uint64_t limit = min64(map->limit + more, host_limit);
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        int error = numbers_extend(&map->free[kind], map->window + (limit - map->file_end) + 1);
        if (error) {
            return error;
        }
    }
    map->limit = limit;
    return 0;
}

void space_map_reserve(struct space_map *map, uint64_t end)
{
    assert(end <= map->limit);
    if (end <= map->reserved_end) {
        return; /* a grow to a larger size has failed before */
    }
    map->reserved_end = end;
    if (end > map->first) {
        drop_bits(map, 0, min64(end - map->first, map->window));
    }
    if (end > map->file_end) {
        drop_bits(map, map->window, min64(end - map->file_end + map->window, bits_end(map)));
    }
    skip_reserved(map);
    assert_map(map);
}

void space_map_extend(struct space_map *map, uint64_t end)
{
    assert(end > map->fresh_end);
    map->fresh_end = end;
    skip_reserved(map);
    assert_map(map);
}

void space_map_forget_fresh(struct space_map *map, uint64_t count)
{
    assert(count <= space_map_fresh_count(map));
    while (count-- > 0) {
        space_map_give_back(map, (struct space_run){space_map_take_fresh(map), 1});
    }
}

uint64_t space_map_used_end(const struct space_map *map)
{
    uint64_t bit = bits_end(map);
    uint64_t lowest = space_map_is_whole(map) ? 0 : map->window;
    while (bit > lowest && is_free(map, bit - 1)) {
        bit--;
    }
    return place_of(map, bit);
}

/* Those from this place on are free no more. */
static void drop_from(struct space_map *map, uint64_t end)
{
    uint64_t from = end >= map->file_end ? end - map->file_end + map->window : end - map->first;
    if (from < bits_end(map)) {
        drop_bits(map, from, bits_end(map));
    }
}

void space_map_cut(struct space_map *map)
{
    space_map_cut_at(map, space_map_used_end(map));
}

void space_map_cut_at(struct space_map *map, uint64_t end)
{
    assert(end <= map->fresh_end);
    drop_from(map, end);
    if (end < map->file_end) { /* every cluster has a bit then, and keeps it */
        assert(space_map_is_whole(map));
        map->file_end = end;
        map->window = map->claims_end = end - map->first;
    }
    map->fresh_next = min64(map->fresh_next, end);
    map->fresh_end = end;
    assert_map(map);
}

void space_map_uncut(struct space_map *map, uint64_t end)
{
    assert(end >= map->fresh_end);
    map->fresh_next = map->fresh_end = min64(end, map->limit);
    assert_map(map);
}

void space_map_abandon_end(struct space_map *map)
{
    drop_from(map, space_map_used_end(map));
    map->fresh_next = map->fresh_end;
    assert_map(map);
}
