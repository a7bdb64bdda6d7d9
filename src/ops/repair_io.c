/* SPDX-License-Identifier: MIT */
/* What a repair does to the file: pages of the BAT, clusters, its size. */
#include "ops/repair.h"

#include <assert.h>
#include <string.h>

#include "util/bytes.h"

enum { BUFFER_PAGES = REPAIR_BUFFER_SIZE / BAT_PAGE_SIZE };

int repair_sync(struct repair *repair)
{
    int error = (int)file_sync_io(repair->image->file, PLOOP_IO_SYNC, NULL, 0, 0);

    repair->sync_failed = repair->sync_failed || error;
    return error;
}

int repair_write(struct repair *repair, const void *bytes, uint64_t length, uint64_t offset)
{
    int64_t done =
        file_sync_io(repair->image->file, PLOOP_IO_WRITE, (void *)(uintptr_t)bytes, length, offset);

    return done < 0 ? (int)done : 0;
}

int repair_truncate(struct repair *repair, uint64_t file_size)
{
    int error = (int)file_sync_io(repair->image->file, PLOOP_IO_TRUNCATE, NULL, 0, file_size);

    if (!error) {
        repair->image->file_size = file_size;
    }
    return error;
}

void repair_set_entry(struct repair *repair, uint32_t index, uint32_t entry)
{
    repair->image->entries[index] = entry;
    bitmap_set(&repair->dirty, geometry_page_of((struct guest_cluster){index}));
}

/*
 * Pages [first, end) as the file has them: numbers become bytes, and what is no entry stays as it
 * was read.
 */
static uint64_t encode_pages(struct repair *repair, uint32_t first, uint32_t end)
{
    const struct image_file *image = repair->image;
    const struct geometry *geometry = &image->header.geometry;
    uint64_t bytes = 0;

    for (uint32_t page = first; page < end; page++) {
        uint8_t *to = repair->buffer + bytes;
        uint8_t *entry_bytes = page == 0 ? to + HEADER_SIZE : to;

        memcpy(to, image->area + (size_t)page * BAT_PAGE_SIZE, BAT_PAGE_SIZE);
        for (uint32_t i = 0; i < geometry_page_entries(geometry, page); i++) {
            store_le32(entry_bytes + (size_t)4 * i, image->entries[geometry_page_first(page) + i]);
        }
        bytes += geometry_page_bytes(geometry, page);
    }
    return bytes;
}

int repair_write_pages(struct repair *repair)
{
    uint32_t pages = geometry_page_count(&repair->image->header.geometry);
    uint64_t first = bitmap_next_set(&repair->dirty, 0, pages);

    header_encode(&repair->image->header, repair->image->area);
    while (first < pages) {
        uint64_t end = first + bitmap_run(&repair->dirty, first, BUFFER_PAGES);
        uint64_t bytes = encode_pages(repair, (uint32_t)first, (uint32_t)end);
        int error = repair_write(repair, repair->buffer, bytes, first * BAT_PAGE_SIZE);

        if (error) {
            return error;
        }
        for (; first < end; first++) {
            bitmap_clear(&repair->dirty, first);
        }
        first = bitmap_next_set(&repair->dirty, first, pages);
    }
    return 0;
}

int repair_publish(struct repair *repair)
{
    int error;

    if (bitmap_next_set(&repair->dirty, 0, repair->dirty.bits) == repair->dirty.bits) {
        return 0;
    }
    repair->irrevocable = true;
    error = repair_write_pages(repair);
    return error ? error : repair_sync(repair);
}

int repair_copy_cluster(struct repair *repair, uint64_t from, uint64_t to)
{
    uint64_t size = repair->image->header.geometry.cluster_size;

    assert(from != to);
    for (uint64_t done = 0; done < size; done += REPAIR_BUFFER_SIZE) {
        uint64_t length = size - done < REPAIR_BUFFER_SIZE ? size - done : REPAIR_BUFFER_SIZE;
        int error = image_file_read(repair->image, repair->buffer, length, from + done);

        if (!error) {
            error = repair_write(repair, repair->buffer, length, to + done);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}
