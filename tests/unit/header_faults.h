/* SPDX-License-Identifier: MIT */
/*
 * Faults of an image: every field of its header, some of its entries, and the file's size, each at
 * its limits and one past. The limits are taken from the image itself, so that they are limits with
 * any cluster size and either version.
 */
#ifndef HEADER_FAULTS_H
#define HEADER_FAULTS_H

#include "image_fixture.h"

enum { FAULTS_MAX = 256 };

struct fault {
    const char *field;   /* as the library's messages name it */
    const char *related; /* another field that may be said to be wrong instead, as it is no longer
                            fitting; NULL: none */
    uint32_t at;         /* in the file */
    uint32_t size;       /* 0: it is the file that gets this many bytes */
    uint64_t value;
};

struct fault_base {
    uint32_t version, cluster_sectors;
    bool extended; /* closed by software that knows the extension, which is there */
};

/*
 * All bases: each version, cluster sizes that are powers of two and that are not, with and without
 * an extension.
 */
enum { FAULT_BASES = 20 };
struct fault_base fault_base(uint32_t number);

/*
 * Six host clusters, 1100 entries. Guest clusters 0 to 3 and 1099 are mapped to the first five, a
 * valid extension with a bitmap lies in the last.
 */
void fault_base_open(struct fixture *fixture, const struct fault_base *base);

/* All faults of that image; how many. */
uint32_t fault_list(const struct fixture *fixture, struct fault *list);

void fault_apply(struct fixture *fixture, const struct fault *fault);

/* "bat_entries = 7" */
void fault_print(const struct fault *fault, char *text, size_t size);

#endif
