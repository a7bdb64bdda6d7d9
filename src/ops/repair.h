/* SPDX-License-Identifier: MIT */
/*
 * Repairs after a check, and what their steps share. A power cut between any two of them leaves an
 * image that a check finds no worse than before, the mark and leaks excepted:
 *
 *     FOUND --begin()--> MARKED --make_whole()--> MARKED --repair_entries()--> MARKED
 *     MARKED --repair_space()--> MARKED --finish()--> done
 *
 *  1. Before MARKED nothing is changed. MARKED is durable, and so is everything that the check
 *     found, before anything else is written.
 *  2. From MARKED on the format extension is void for a program that looks after a cut: its
 *     clusters are free to be moved and rewritten. Not those of one that was void before and is to
 *     stay: the header leads there all the time, and nothing moves. An extension that is to be
 *     there at the end counts from repair_finish() on, as `extension` says then.
 *  3. An entry is written only when the cluster it names holds its content durably, below the
 *     durable end of the file.
 *  4. A host cluster is overwritten or cut off only when no durable entry names it.
 *  5. The extension that was found is never counted again once one of its clusters was overwritten
 *     or cut off: there is no way back.
 *  6. The mark is cleared only when everything is durable, and only where it was not set when the
 *     image was found or the caller asked for that and no error is left.
 */
#ifndef OPS_REPAIR_H
#define OPS_REPAIR_H

#include "ops/check.h"

struct repair {
    struct check *check;
    struct image_file *image;
    struct bitmap dirty; /* BAT pages whose entries are not written yet */
    uint8_t *buffer;     /* of REPAIR_BUFFER_SIZE, aligned */
    uint8_t *found_page; /* page 0 as it was found */
    uint64_t found_size; /* of the file */
    uint8_t *extension;  /* the cluster that the extension will be; NULL: none, or
                            (unusable_extension) one that is left alone */
    uint64_t extension_offset;
    bool unusable_extension; /* one that is in error, and no repair of that was asked for */
    bool keeps_void;         /* a void one that is whole, which nobody asked to drop */
    bool was_clean;          /* the mark was not set when the image was found */
    uint32_t found_in_use;
    bool marked;
    bool irrevocable; /* an entry was changed on the disk, or a cluster of the extension that
                         counted: there is no way back */
    bool cancelled; /* the caller wants no more: nothing new is begun, what was begun is brought to
                       its end */
    bool sync_failed;
    uint64_t leaks_mended; /* findings of PLOOP_CHECK_LEAK */
};

enum { REPAIR_BUFFER_SIZE = 1048576 };

/*
 * 0, with check->result.repaired counted; -ENOTSUP: the image has a feature that this library does
 * not know and that forbids a repair; -EIO: a part of the BAT could not be read; -ENOSPC, -EFBIG,
 * -ENOMEM, -EROFS or what the backend returns. Where nothing that was asked for needs repair,
 * nothing is written; a header that is right but not as a clean close leaves it is made so with
 * PLOOP_REPAIR_UNCLEAN. After a failure half-way the image is whole, and perhaps marked in use.
 * -ECANCELED: by the caller; what was mended by then stays, and the mark is as it was found.
 */
int repair_image(struct check *check);

bool repair_wants(const struct repair *repair, uint32_t what);

/* Asked before each cluster that is copied, for that entry. False: cancelled, now or before. */
bool repair_goes_on(struct repair *repair, uint32_t entry);

/* Called before any cluster that may be the found extension's is changed. */
void repair_give_up_extension(struct repair *repair);

/*
 * repair_entries.c: bad entries cleared, duplicates given clusters of their own, entries beyond the
 * disk's end cleared.
 */
int repair_entries(struct repair *repair);

/*
 * repair_space.c: the used host clusters made the first ones of the data area, the file cut behind
 * them.
 */
int repair_space(struct repair *repair);

/* repair_io.c */
int repair_sync(struct repair *repair);
void repair_set_entry(struct repair *repair, uint32_t index, uint32_t entry);
int repair_write_pages(struct repair *repair); /* those that are dirty */
int repair_publish(struct repair *repair);     /* the same, durably, for entries that changed */
int repair_write(struct repair *repair, const void *bytes, uint64_t length, uint64_t offset);
int repair_copy_cluster(struct repair *repair, uint64_t from, uint64_t to);
int repair_truncate(struct repair *repair, uint64_t file_size);

#endif
