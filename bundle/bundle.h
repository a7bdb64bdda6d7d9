/* SPDX-License-Identifier: MIT */
/*
 * The handle of a bundle: its XML, what that says, and the directory.
 *
 *     READ (lock_fd < 0) or WRITE (lock_fd >= 0), as opened; a change needs WRITE
 *
 * `doc` is what the file on the disk says, and `model` is what `doc` says. Both change together, in
 * bundle_commit(), when the file has.
 */
#ifndef BUNDLE_BUNDLE_H
#define BUNDLE_BUNDLE_H

#include <ploop/ploop.h>

#include "xml.h"

struct ploop_bundle {
    struct report report;
    int (*progress)(void *user_data, uint64_t done, uint64_t total); /* or NULL */
    void *progress_data;
    uint64_t merge_rate;
    char *path;      /* of the XML; the report's subject */
    char *directory; /* the path of it */
    char *xml_name;
    int directory_fd;
    int lock_fd;
    xmlDoc *doc;
    struct model model;
};

/* Whether a file in the directory can be an image: 0 or -errno, told. */
int check_image_file(int directory_fd, const char *name, const struct report *report);

/* Take a caller's structure in, or check that it has room for an answer: as the core library. */
int options_in(void *known, size_t known_size, size_t reserved_at, const void *given);
int answer_out(void *given, const void *known, size_t known_size, size_t reserved_at);

/* ---- commit.c ---- */

/*
 * Write a document to a file of the directory: under another name, synced, then renamed. What is in
 * the directory is durable before the name is. 0 or -errno, told; with *written the file is the new
 * one nevertheless.
 */
int write_document(int directory_fd, const char *name, xmlDoc *doc, const struct report *report,
                   bool *written);

/*
 * Make a changed document the bundle's, and free it if that fails. 0 or -errno, told; *written as
 * above: then the handle has it too.
 */
int bundle_commit(ploop_bundle *bundle, xmlDoc *doc, bool *written);

#endif
