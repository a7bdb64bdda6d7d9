/* SPDX-License-Identifier: MIT */
/*
 * A check under way: what its parts share. The order in which they run, and what each leaves
 * behind:
 *
 *     image_file_open, image_file_load_bat   image
 *     check_duplicates             duplicates, used
 *     extension_load               extension
 *     (the findings in BAT order)  counts, result
 *     check_leaks                  the same
 *     repair                       the image changed, result.repaired
 */
#ifndef OPS_CHECK_H
#define OPS_CHECK_H

#include <ploop/image.h>

#include "image/extension_load.h"
#include "image/image_file.h"
#include "util/bitmap.h"

enum { CHECK_KINDS = PLOOP_CHECK_VOID_EXTENSION + 1, CHECK_BLOCK = 4096 /* entries */ };

/*
 * Which of the host clusters [first, end) are used. A bitmap of the whole file could be of any
 * size, since a sparse file can: see check_hosts.c.
 */
struct check_window {
    struct bitmap used;
    uint64_t first, end; /* places */
    uint64_t next;       /* the first used one at or past `end`; CHECK_NO_HOST: none */
    uint64_t slots_end;  /* where the file's places end */
};

#define CHECK_NO_HOST UINT64_MAX

/* What is known of the file's holes: bytes [from, begin) are one, [begin, end) are data. */
struct check_data {
    uint64_t from, begin, end;
};

struct check {
    struct image_file image;
    struct extension extension;
    struct good_entries good; /* after image_file_open() */
    struct check_window used; /* as the last pass over the BAT has left it */
    struct bitmap duplicates; /* a bit per BAT entry: not the first that names its host cluster */
    uint64_t duplicate_count; /* how many bits are set */
    struct ploop_check_options options;
    struct ploop_check_result result;
    uint64_t counts[CHECK_KINDS]; /* findings by PLOOP_CHECK_ kind */
    uint64_t owners; /* entries that are their host cluster's owner, beyond the disk's end or not */
    int read_error;  /* of the first thing that could not be read */
    struct check_data data;
    uint64_t progress_base;
};

/* A finding. `count` clusters from host_offset on; the text as by printf. */
void check_report(struct check *check, uint32_t kind, uint64_t guest_cluster, uint64_t host_offset,
                  uint64_t count, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Not 0: the caller wants no more. */
int check_progress(struct check *check, uint64_t entries_done);

bool check_entry_is_good(const struct check *check, uint32_t entry);

/*
 * How many entries from `index` on are a run: all 0, or neighbours in the file (image/bat_run.h);
 * at least one, and none past a multiple of CHECK_BLOCK.
 */
uint32_t check_run(const struct check *check, uint32_t index);

/* 0, -ENOMEM, -ECANCELED. */
int check_duplicates(struct check *check);
int check_leaks(struct check *check);

/*
 * How many leaks, each one run of clusters, lie between byte `from` and the end of the file. To be
 * asked where nothing is used. 0 or -errno.
 */
int check_count_leaks(struct check *check, uint64_t from, uint64_t *count);

#endif
