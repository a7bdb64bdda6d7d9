/* SPDX-License-Identifier: MIT */
/*
 * Faults of an image: every field of its header, some of its entries, and the file's size, each at
 * its limits and one past. The limits are computed from the image, so that they hold for any
 * cluster size and both versions.
 */
#ifndef HEADER_FAULTS_H
#define HEADER_FAULTS_H

#include "image_fixture.h"

enum { FAULTS_MAX = 256 };

struct fault {
    const char *field; /* as the library's messages name it */
    /* Another field that may be reported instead, because it does not fit any more; NULL: none. */
    const char *related;
    uint32_t at;   /* in the file */
    uint32_t size; /* 0: the file gets this many bytes */
    uint64_t value;
};

struct fault_base {
    uint32_t version, cluster_sectors;
    bool extended; /* the image has an extension, and was closed by software that knows it */
};

/*
 * All bases: each version, cluster sizes that are powers of two and that are not, with and without
 * an extension.
 */
enum { FAULT_BASES = 20 };
struct fault_base fault_base(uint32_t number);

/*
 * Six host clusters, 1100 entries. Guest clusters 0 to 3 and 1099 are mapped to the first five; a
 * valid extension with a bitmap lies in the last.
 */
void fault_base_open(struct fixture *fixture, const struct fault_base *base);

/* List all faults of that image; returns their number. */
uint32_t fault_list(const struct fixture *fixture, struct fault *list);

void fault_apply(struct fixture *fixture, const struct fault *fault);

/* "bat_entries = 7" */
void fault_print(const struct fault *fault, char *text, size_t size);

#endif
