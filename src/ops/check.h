/* SPDX-License-Identifier: MIT */
/*
 * A check under way: what its parts share. The order in which they run, and what each leaves
 * behind:
 *
 *     image_file_open, image_file_load_bat   image
 *     check_duplicates             duplicates
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

enum { CHECK_KINDS = PLOOP_CHECK_READ + 1 };

struct check {
    struct image_file image;
    struct extension extension;
    struct bitmap duplicates; /* a bit per BAT entry: not the first that names its host cluster */
    struct ploop_check_options options;
    struct ploop_check_result result;
    uint64_t counts[CHECK_KINDS]; /* findings by PLOOP_CHECK_ kind */
    uint64_t owners; /* entries that are their host cluster's owner, beyond the disk's end or not */
    int read_error;  /* of the first thing that could not be read */
    uint64_t progress_base;
};

/* A finding. `count` clusters from host_offset on; the text as by printf. */
void check_report(struct check *check, uint32_t kind, uint64_t guest_cluster, uint64_t host_offset,
                  uint64_t count, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Not 0: the caller wants no more. */
int check_progress(struct check *check, uint64_t entries_done);

bool check_entry_is_good(const struct check *check, uint32_t entry);

/* 0, -ENOMEM, -ECANCELED. */
int check_duplicates(struct check *check);
int check_leaks(struct check *check);

#endif
