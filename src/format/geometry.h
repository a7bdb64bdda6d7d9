/* SPDX-License-Identifier: MIT */
/*
 * An image's geometry: how its clusters, BAT entries and BAT pages lie in the file. Values only, no
 * I/O.
 *
 * A guest cluster is a position in the BAT. A host cluster is a position in the file, on the grid
 * whose origin is data_start % cluster_size: cluster n begins at that origin plus n * cluster_size.
 * They are different types on purpose: mixing them up is how dm-ploop freed other people's
 * clusters.
 *
 * Host clusters are numbered from the start of the file and not from data_start. When a longer BAT
 * moves data_start, it moves by whole clusters; no cluster behind it changes its number then. In
 * version 2 data_start is on a cluster border, and a cluster's number is its entry. In version 1
 * the grid need not begin with the file: offset / cluster_size is the number all the same.
 *
 *  1. Clusters below geometry_host_first() hold the header and the BAT; no entry names one.
 *  2. A file may have more clusters than entries can name. Where those matter (leaks, an extension)
 *     the number is a uint64_t: a "place".
 */
#ifndef FORMAT_GEOMETRY_H
#define FORMAT_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SECTOR_SIZE = 512,
    HEADER_SIZE = 64,
    BAT_PAGE_SIZE = 4096,
    BAT_PAGE_ENTRIES = BAT_PAGE_SIZE / 4,
    BAT_FIRST_PAGE_ENTRIES = (BAT_PAGE_SIZE - HEADER_SIZE) / 4,
    CLUSTER_SECTORS_MAX = 131072
};

/*
 * Never a valid entry: the last value of 32 bits is kept out of use, so that it can stand for "bad"
 * in memory.
 */
#define BAT_ENTRY_BAD UINT32_MAX

struct guest_cluster {
    uint32_t n;
};

struct host_cluster {
    uint32_t n;
};

struct geometry {
    uint64_t cluster_size; /* bytes */
    uint64_t disk_size;    /* bytes */
    uint64_t data_start;   /* bytes: where the first cluster for data lies */
    uint64_t entry_unit;   /* bytes per BAT entry step: the cluster in v2, a sector in v1 */
    uint32_t bat_entries;
};

/* CUT: the cluster begins inside the file and ends past it. */
enum entry_verdict { ENTRY_GOOD, ENTRY_BEFORE_DATA, ENTRY_OFF_GRID, ENTRY_PAST_END, ENTRY_CUT };

/* How many guest clusters the disk has: ceil(disk_size / cluster_size), at most bat_entries. */
uint32_t geometry_guest_clusters(const struct geometry *geometry);

/* The first host cluster of the data area. */
uint64_t geometry_host_first(const struct geometry *geometry);

/*
 * The place behind the last whole host cluster of a file of that size; geometry_host_first() where
 * it has none.
 */
uint64_t geometry_host_end(const struct geometry *geometry, uint64_t file_size);

/* Whether the file ends inside the cluster at the place geometry_host_end(). */
bool geometry_has_tail(const struct geometry *geometry, uint64_t file_size);

/* The highest host cluster that an entry can name, plus one. At least geometry_host_first(). */
uint64_t geometry_host_limit(const struct geometry *geometry);

/* How many BAT entries a larger disk may come to have: as many as there are clusters for them. */
uint64_t geometry_entries_limit(const struct geometry *geometry);

/* For offsets on the grid, from data_start on. */
uint64_t geometry_place_at(const struct geometry *geometry, uint64_t offset);
uint64_t geometry_place_offset(const struct geometry *geometry, uint64_t place);

uint64_t geometry_host_offset(const struct geometry *geometry, struct host_cluster host);
static inline uint64_t geometry_entry_offset(const struct geometry *geometry, uint32_t entry)
{
    return entry * geometry->entry_unit;
}
uint32_t geometry_entry(const struct geometry *geometry, struct host_cluster host);

/* For an entry that is ENTRY_GOOD. */
struct host_cluster geometry_host(const struct geometry *geometry, uint32_t entry);

/* Whether a non-zero entry can be right in a file of that size; duplicates are not its business. */
enum entry_verdict geometry_judge_entry(const struct geometry *geometry, uint64_t file_size,
                                        uint32_t entry);

/*
 * The entries that are ENTRY_GOOD in a file of a certain size, for a caller that judges millions:
 * first, first + step, ... last; none where first > last. The next one names the next host cluster.
 * And the one that is ENTRY_CUT.
 */
struct good_entries {
    uint32_t first, last, step;
    uint32_t host_first; /* the host cluster that `first` names */
    uint32_t cut;        /* 0: no entry can be */
    uint64_t cut_place;
};

struct good_entries geometry_good_entries(const struct geometry *geometry, uint64_t file_size);

static inline bool good_entries_have(const struct good_entries *good, uint32_t entry)
{
    return entry >= good->first && entry <= good->last &&
           (good->step == 1 || (entry - good->first) % good->step == 0);
}

/* As geometry_host(), without its division in version 2. */
static inline struct host_cluster good_entries_host(const struct good_entries *good, uint32_t entry)
{
    uint32_t steps = entry - good->first;
    return (struct host_cluster){good->host_first + (good->step == 1 ? steps : steps / good->step)};
}

/* BAT pages: 4 KiB pages of the file from offset 0; page 0 begins with the header. */
uint32_t geometry_page_count(const struct geometry *geometry);
uint32_t geometry_page_limit(const struct geometry *geometry); /* with all those entries */
uint32_t geometry_page_of(struct guest_cluster cluster);
uint32_t geometry_page_first(uint32_t page); /* its first entry */
uint32_t geometry_page_entries(const struct geometry *geometry,
                               uint32_t page); /* how many it has */
uint64_t geometry_bat_bytes(
    const struct geometry *geometry); /* the BAT area, from offset 0, in whole sectors */
uint32_t geometry_page_bytes(const struct geometry *geometry,
                             uint32_t page); /* a page's part of the BAT area */

#endif
