/* SPDX-License-Identifier: MIT */
/*
 * See sparse.h.
 *
 *  1. A page that does not exist reads as zeros, and so do the bytes of a page that lie beyond the
 *     end of the file.
 *  2. Zeros are not written to a page that does not exist: holes stay holes in copies.
 */
#include "sparse.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sparse_page {
    struct sparse_page *next; /* of the same bucket */
    uint64_t number;
    uint8_t bytes[SPARSE_PAGE_SIZE];
};

static const uint8_t zeros[SPARSE_PAGE_SIZE];

static struct sparse_page *find_page(const struct sparse *file, uint64_t number)
{
    struct sparse_page *page = file->buckets[number % SPARSE_BUCKETS];

    while (page && page->number != number) {
        page = page->next;
    }
    return page;
}

static struct sparse_page *make_page(struct sparse *file, uint64_t number)
{
    struct sparse_page **bucket = &file->buckets[number % SPARSE_BUCKETS];
    struct sparse_page *page =
        !file->unlimited && file->page_count >= SPARSE_PAGES_MAX ? NULL : calloc(1, sizeof(*page));

    if (page) {
        page->number = number;
        page->next = *bucket;
        *bucket = page;
        file->page_count++;
    }
    return page;
}

void sparse_init(struct sparse *file, uint64_t size)
{
    *file = (struct sparse){.size = size};
}

void sparse_free(struct sparse *file)
{
    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (struct sparse_page *page = file->buckets[i], *next; page; page = next) {
            next = page->next;
            free(page);
        }
    }
    *file = (struct sparse){0};
}

void sparse_copy(struct sparse *to, const struct sparse *from)
{
    sparse_init(to, from->size);
    to->unlimited = true;
    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (const struct sparse_page *page = from->buckets[i]; page; page = page->next) {
            struct sparse_page *copy = make_page(to, page->number);

            if (!copy) {
                abort();
            }
            memcpy(copy->bytes, page->bytes, SPARSE_PAGE_SIZE);
        }
    }
    to->unlimited = from->unlimited;
}

static uint64_t piece_at(uint64_t offset, uint64_t length)
{
    uint64_t inside = SPARSE_PAGE_SIZE - offset % SPARSE_PAGE_SIZE;

    return length < inside ? length : inside;
}

uint64_t sparse_read(const struct sparse *file, void *buffer, uint64_t length, uint64_t offset)
{
    uint64_t readable = offset < file->size ? file->size - offset : 0, piece;

    length = length < readable ? length : readable;
    for (uint64_t done = 0; done < length; done += piece) {
        uint64_t at = offset + done;
        const struct sparse_page *page = find_page(file, at / SPARSE_PAGE_SIZE);

        piece = piece_at(at, length - done);
        memcpy((uint8_t *)buffer + done, (page ? page->bytes : zeros) + at % SPARSE_PAGE_SIZE,
               piece);
    }
    return length;
}

bool sparse_write(struct sparse *file, const void *bytes, uint64_t length, uint64_t offset)
{
    uint64_t piece;

    for (uint64_t done = 0; done < length; done += piece) {
        const uint8_t *from = (const uint8_t *)bytes + done;
        uint64_t at = offset + done;
        struct sparse_page *page = find_page(file, at / SPARSE_PAGE_SIZE);

        piece = piece_at(at, length - done);
        if (!page && memcmp(from, zeros, piece) != 0) {
            page = make_page(file, at / SPARSE_PAGE_SIZE);
            if (!page) {
                return false;
            }
        }
        if (page) {
            memcpy(page->bytes + at % SPARSE_PAGE_SIZE, from, piece);
        }
    }
    if (length && offset + length > file->size) {
        file->size = offset + length;
    }
    return true;
}

void sparse_zero(struct sparse *file, uint64_t offset, uint64_t end)
{
    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (struct sparse_page *page = file->buckets[i]; page; page = page->next) {
            uint64_t start = page->number * SPARSE_PAGE_SIZE;
            uint64_t from = offset > start ? offset - start : 0;
            uint64_t to = end > start ? end - start : 0;

            to = to < SPARSE_PAGE_SIZE ? to : SPARSE_PAGE_SIZE;
            if (from < to) {
                memset(page->bytes + from, 0, to - from);
            }
        }
    }
}

void sparse_resize(struct sparse *file, uint64_t size)
{
    if (size < file->size) {
        sparse_zero(file, size, UINT64_MAX);
    }
    file->size = size;
}

uint64_t sparse_next(const struct sparse *file, uint64_t offset, uint64_t end)
{
    uint64_t first = end;

    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (struct sparse_page *page = file->buckets[i]; page; page = page->next) {
            uint64_t start = page->number * SPARSE_PAGE_SIZE;

            if (start < end && start + SPARSE_PAGE_SIZE > offset && start < first) {
                first = start > offset ? start : offset;
            }
        }
    }
    return first;
}

static bool holds(const struct sparse *file, const struct sparse *pages_of)
{
    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (const struct sparse_page *page = pages_of->buckets[i]; page; page = page->next) {
            const struct sparse_page *other = find_page(file, page->number);

            if (memcmp(page->bytes, other ? other->bytes : zeros, SPARSE_PAGE_SIZE) != 0) {
                return false;
            }
        }
    }
    return true;
}

bool sparse_equal(const struct sparse *a, const struct sparse *b)
{
    return a->size == b->size && holds(a, b) && holds(b, a);
}

void sparse_save(const struct sparse *file, const char *path)
{
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (descriptor < 0 || ftruncate(descriptor, (off_t)file->size)) {
        perror(path);
        abort();
    }
    for (uint32_t i = 0; i < SPARSE_BUCKETS; i++) {
        for (const struct sparse_page *page = file->buckets[i]; page; page = page->next) {
            uint64_t start = page->number * SPARSE_PAGE_SIZE;
            uint64_t length = start < file->size ? piece_at(start, file->size - start) : 0;

            if (pwrite(descriptor, page->bytes, length, (off_t)start) != (ssize_t)length) {
                perror(path);
                abort();
            }
        }
    }
    close(descriptor);
}
