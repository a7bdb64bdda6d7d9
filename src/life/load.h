/* SPDX-License-Identifier: MIT */
/*
 * Reading images into a device that is being opened: header, BAT, extension. Blocks; nothing is
 * changed in a file but by RECOVER.
 *
 * For writing everything must be right, or the open is refused. Read-only is for rescue: a bad
 * entry becomes BAT_ENTRY_BAD, so does every entry of a BAT page that cannot be read, and of
 * several entries for one host cluster only the first is kept.
 */
#ifndef LIFE_LOAD_H
#define LIFE_LOAD_H

#include "life/life.h"

/* One delta that is being read. */
struct load {
    ploop_dev *dev;
    ploop_file *file;
    uint32_t level; /* 0: the base */
    struct header header;
    struct ploop_file_info info;
    struct good_entries good; /* load_bat() makes it */
    uint32_t *entries; /* a lower delta's map; NULL: the top's, which goes to the device's bat */
    struct space_map *space;  /* with `entries`: a lower delta's, while it is loaded */
    bool has_cut;             /* an entry's cluster is cut off by the file's end (R19) */
    struct guest_cluster cut; /* whose it is */
};

/* A line for the operator, which says which delta it is about where there are several. */
void load_log(const struct load *load, uint32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills load->info. 0, -ENOTSUP with a line in the log, or what the backend returns. */
int load_info(struct load *load);

/*
 * After load_info(): fills load->header. With RECOVER, where the mark is set, header and file size
 * are read again when the cache was dropped. 0; -EINVAL, -EUCLEAN, -EBUSY (the cache cannot be
 * dropped) with a line in the log; -EFBIG; or what the backend returns.
 */
int load_header(struct load *load);

/*
 * After load_header(), for the top after bat_init(). 0, -EUCLEAN with a line in the log, -ENOMEM,
 * or what the backend returns.
 */
int load_bat(struct load *load);

/*
 * When every delta was judged, for the top that is written, with RECOVER: where a cluster is cut
 * off by the file's end, the file is made to hold it whole. 0, or what the backend returns, with a
 * line in the log.
 */
int load_make_whole(const struct load *load);

/*
 * After load_bat(), for writing. 0, -EUCLEAN or -ENOTSUP with a line in the log, -ENOMEM, or what
 * the backend returns.
 */
int load_extension(ploop_dev *dev, uint64_t file_size);

/*
 * load_stack.c: everything below the top, when the top was judged. The last step may write: lower
 * deltas that were not closed cleanly are made so. As load_bat(), or what a recovery's open and
 * close return.
 */
int load_stack(ploop_dev *dev);

#endif
