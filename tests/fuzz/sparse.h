/* SPDX-License-Identifier: MIT */
/*
 * A sparse file in memory that can be copied and compared, for the fuzz targets: a file may claim
 * any size, and only pages with content take memory, at most SPARSE_PAGES_MAX of them.
 */
#ifndef FUZZ_SPARSE_H
#define FUZZ_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

enum { SPARSE_PAGE_SIZE = 4096, SPARSE_PAGES_MAX = 4096, SPARSE_BUCKETS = 512 };

struct sparse_page;

struct sparse {
    uint64_t size;
    struct sparse_page *buckets[SPARSE_BUCKETS];
    uint32_t page_count;
    bool unlimited; /* no limit of SPARSE_PAGES_MAX pages */
};

void sparse_init(struct sparse *file, uint64_t size);
void sparse_free(struct sparse *file);
void sparse_copy(struct sparse *to, const struct sparse *from); /* `to` is empty */

/* Returns the bytes read: fewer only at the end of the file. */
uint64_t sparse_read(const struct sparse *file, void *buffer, uint64_t length, uint64_t offset);
/* Makes the file longer if necessary. False: no room; none or a part of it was written. */
bool sparse_write(struct sparse *file, const void *bytes, uint64_t length, uint64_t offset);
void sparse_zero(struct sparse *file, uint64_t offset, uint64_t end);
void sparse_resize(struct sparse *file, uint64_t size);

/* The first page in [offset, end) that takes memory: its offset, or `end`. */
uint64_t sparse_next(const struct sparse *file, uint64_t offset, uint64_t end);

bool sparse_equal(const struct sparse *a, const struct sparse *b);

/* Save it to a file of the file system, for other tools. */
void sparse_save(const struct sparse *file, const char *path);

#endif
