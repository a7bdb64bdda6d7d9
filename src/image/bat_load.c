/* SPDX-License-Identifier: MIT */
/*
 * What bat_load.h says. Reads begin on pages of the file and end there or at the end of the BAT,
 * into memory aligned alike, so that a backend which wants alignment gets it.
 *
 * Holes of the file are read like everything else. A file system that reports data as a hole, as
 * some have done, would cost the map, and with it the disk.
 */
#include "image/bat_load.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { CHUNK_PAGES = 128 };

/* The bytes of pages [first, first + count) that belong to the BAT area. */
static uint64_t bytes_of(const struct geometry *geometry, uint32_t first, uint32_t count)
{
    uint32_t last = first + count - 1;
    return (uint64_t)(count - 1) * BAT_PAGE_SIZE + geometry_page_bytes(geometry, last);
}

/* 0, or why not all of it was read. */
static int read_pages(const struct bat_load *load, uint32_t first, uint32_t count, uint8_t *bytes)
{
    uint64_t offset = (uint64_t)first * BAT_PAGE_SIZE;
    uint64_t length = bytes_of(load->geometry, first, count);
    assert(length > 0 && length <= (uint64_t)count * BAT_PAGE_SIZE);
    int64_t got = file_sync_io(load->file, PLOOP_IO_READ, bytes, length, offset);
    if (got < 0) {
        return (int)got;
    }
    return (uint64_t)got < length ? -EIO : 0;
}

/* Pages [first, first + count), in one read; where that fails, one by one. */
static int load_pages(const struct bat_load *load, uint32_t first, uint32_t count, uint8_t *bytes)
{
    int unread = read_pages(load, first, count, bytes), error = 0;
    if (unread && count == 1) {
        return load->unreadable(load->context, first, unread);
    }
    for (uint32_t i = 0; i < count && !error; i++) {
        uint8_t *page = bytes + (size_t)i * BAT_PAGE_SIZE;
        error = unread ? load_pages(load, first + i, 1, page)
                       : load->page(load->context, first + i, page);
    }
    return error;
}

int bat_load(const struct bat_load *load)
{
    uint32_t pages = geometry_page_count(load->geometry);
    uint8_t *chunk = NULL;
    int error = 0;
    if (!load->area) {
        chunk = aligned_alloc(BAT_PAGE_SIZE, (size_t)CHUNK_PAGES * BAT_PAGE_SIZE);
        error = chunk ? 0 : -ENOMEM;
    }
    for (uint32_t page = 0; page < pages && !error; page += CHUNK_PAGES) {
        uint32_t left = pages - page;
        error = load_pages(load, page, left < CHUNK_PAGES ? left : CHUNK_PAGES,
                           chunk ? chunk : load->area + (size_t)page * BAT_PAGE_SIZE);
    }
    free(chunk);
    return error;
}
