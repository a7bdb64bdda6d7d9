/* SPDX-License-Identifier: MIT */
/*
 * Which host clusters are free, and what is known of their content.
 *
 *     unknown   free; its bytes may be anything
 *     zeroed    free; it was zeroed, and the zeros may not be durable yet
 *     zero      free; it is durably zero
 *     fresh     free; behind everything that was ever used: [fresh_next, fresh_end)
 *     reserved  below reserved_end and not mapped
 *     in use    below fresh_next, and none of the above
 *
 *  1. A cluster is in one of these states. The first three are bits of one bitmap each.
 *  2. A sparse file can have any size for nothing, so the bitmaps are sized by the entries there
 *     are and not by the file: bits [0, window) are the clusters from `first` on of the file as it
 *     was at open, bits from `window` on are the clusters that this device adds behind file_end.
 *     What lies between the two (usually nothing) has no bits: it counts as in use, and is never
 *     reused.
 *  3. A header can put `first` anywhere for nothing as well, so what lies below it (the header, the
 *     BAT) has no bits.
 *  4. While an image is loaded the bits [claims_end, window) stand for unknown clusters although
 *     they are not set yet. So the bitmap of a file that is claimed from its beginning to its end
 *     is never touched.
 *  5. What a longer BAT is going to take is reserved, and stays so: a cluster there never becomes
 *     free again, and is neither handed out nor zeroed nor punched.
 */
#ifndef SPACE_SPACE_MAP_H
#define SPACE_SPACE_MAP_H

#include "format/geometry.h"
#include "util/numbers.h"

enum free_kind { FREE_UNKNOWN, FREE_ZEROED, FREE_ZERO, FREE_KINDS };

struct space_map {
    struct numbers free[FREE_KINDS]; /* of bits */
    uint64_t window;                 /* how many bits the file's own clusters have: see 2 */
    uint64_t claims_end;             /* a bit: see 4 */
    uint64_t first, file_end;        /* places */
    uint64_t fresh_next, fresh_end;  /* places */
    uint64_t limit;                  /* no place at or above this is ever used */
    uint64_t reserved_end;           /* a place: see 5 */
    uint64_t unknown_cursor; /* a bit: the next run of unknown ones is taken from there on */
};

/* Neighbours in the file. */
struct space_run {
    struct host_cluster first;
    uint64_t count;
};

/* Every cluster of the file is unknown at first. 0 or -ENOMEM; space_map_free() in either case. */
int space_map_init(struct space_map *map, const struct geometry *geometry, uint64_t file_size);
void space_map_free(struct space_map *map);

/* Whether each cluster of the file has a bit. */
static inline bool space_map_is_whole(const struct space_map *map)
{
    return map->window == map->file_end - map->first;
}

/*
 * At open: clusters of the file are in use. False: one of them was in use already, and nothing is
 * changed. True where they have no bits: then nothing is known.
 */
bool space_map_claim(struct space_map *map, struct space_run run);

/* After the first claims, before anything else but more of them. */
void space_map_end_claims(struct space_map *map);

/* Clusters that were in use are free; their content is not known. */
void space_map_give_back(struct space_map *map, struct space_run run);

static inline uint64_t space_map_count(const struct space_map *map, enum free_kind kind)
{
    uint64_t unclaimed = kind == FREE_UNKNOWN ? map->window - map->claims_end : 0;
    return map->free[kind].count + unclaimed;
}

static inline uint64_t space_map_fresh_count(const struct space_map *map)
{
    return map->fresh_end - map->fresh_next;
}

/* All that is free. */
uint64_t space_map_free_count(const struct space_map *map);

/* The first one of a kind that has any. */
struct host_cluster space_map_take(struct space_map *map, enum free_kind kind);

/* The lowest free one below this place, whatever its content; not a fresh one. False: none. */
bool space_map_take_hole(struct space_map *map, uint64_t below, struct host_cluster *host);

/* The first fresh one. Only where there is one. */
struct host_cluster space_map_take_fresh(struct space_map *map);

/*
 * A run of unknown clusters, at most `most` of them. Only where there is one. Those are taken first
 * that were not taken last.
 */
struct space_run space_map_take_unknown(struct space_map *map, uint64_t most);

/* A run that was taken becomes free again. */
void space_map_add(struct space_map *map, enum free_kind kind, struct space_run run);

/* The zeros of all that was zeroed are durable. */
void space_map_zeroed_is_zero(struct space_map *map);

/* The file ends at that place now; the new clusters are fresh. */
void space_map_extend(struct space_map *map, uint64_t end);

/* The first `count` of the fresh ones become unknown. */
void space_map_forget_fresh(struct space_map *map, uint64_t count);

/*
 * Room for so many more clusters in use, besides those that will be reserved below `end`. 0, or
 * -ENOMEM: nothing is changed.
 */
int space_map_enlarge(struct space_map *map, uint64_t more, uint64_t host_limit);

/* Clusters below this place are reserved from now on, and those that were it before. */
void space_map_reserve(struct space_map *map, uint64_t end);

/* The place behind the last cluster in use. */
uint64_t space_map_used_end(const struct space_map *map);

/* The file was cut there, at space_map_used_end(): what lies behind it is no cluster any more. */
void space_map_cut(struct space_map *map);

/* The same at a place from space_map_used_end() on, up to the end of the file. */
void space_map_cut_at(struct space_map *map, uint64_t end);

/* It was not cut after all, or nobody knows: up to `end`, where it ended, nothing is used again. */
void space_map_uncut(struct space_map *map, uint64_t end);

/* What lies behind space_map_used_end(), below the end of the file, is not used any more. */
void space_map_abandon_end(struct space_map *map);

#endif
