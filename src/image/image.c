/* SPDX-License-Identifier: MIT */
/*
 * Reading an image's header and BAT. Reads begin on pages of the file and end there or at the end
 * of the file, into memory aligned alike, so that a backend which wants alignment gets it.
 */
#include "image/image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

enum { PIECE_PAGES = 256 };

int image_read(const struct image *image, void *buffer, uint64_t length, uint64_t offset)
{
    int64_t got = file_sync_io(image->file, PLOOP_IO_READ, buffer, length, offset);

    if (got < 0) {
        return (int)got;
    }
    return (uint64_t)got == length ? 0 : -EIO;
}

int image_open(struct image *image, ploop_file *file, char *message)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    int err = ploop_file_info(file, &info);

    message[0] = '\0';
    *image = (struct image){
        .file = file, .file_size = info.file_size, .capabilities = info.capabilities};
    if (err) {
        return err;
    }

    uint8_t *page = aligned_alloc(BAT_PAGE_SIZE, BAT_PAGE_SIZE);

    if (!page) {
        return -ENOMEM;
    }

    int64_t got = file_sync_io(file, PLOOP_IO_READ, page, BAT_PAGE_SIZE, 0);

    err = got < 0 ? (int)got
                  : header_decode(page, (size_t)got, image->file_size, &image->header, message);
    free(page);
    return err;
}

void image_close(struct image *image)
{
    free(image->area);
    image->area = NULL;
    image->entries = NULL;
}

/* Read pages of the BAT area; the last one may be cut by the end of the file, behind the BAT. */
static int read_pages(const struct image *image, uint32_t first, uint32_t count)
{
    uint64_t offset = (uint64_t)first * BAT_PAGE_SIZE;
    uint64_t wanted = 0;

    for (uint32_t page = first; page < first + count; page++) {
        wanted += geometry_page_bytes(&image->header.geometry, page);
    }
    return image_read(image, image->area + offset, wanted, offset);
}

/* One page after the other, where reading them together failed: what can be read is wanted. */
static int read_each_page(const struct image *image, const struct image_load *load, uint32_t first,
                          uint32_t count)
{
    const struct geometry *geometry = &image->header.geometry;

    for (uint32_t page = first; page < first + count; page++) {
        int err = read_pages(image, page, 1);

        if (err && err != -EIO) {
            return err;
        }
        if (err) {
            memset(image->area + (size_t)page * BAT_PAGE_SIZE, 0, BAT_PAGE_SIZE);
            load->unreadable(load->user_data, geometry_page_first(page),
                             geometry_page_entries(geometry, page), err);
        }
    }
    return 0;
}

int image_load_bat(struct image *image, const struct image_load *load)
{
    const struct geometry *geometry = &image->header.geometry;
    uint32_t pages = geometry_page_count(geometry);

    assert(!image->area);
    if ((uint64_t)4 * geometry->bat_entries > load->bat_limit_bytes) {
        return -EFBIG;
    }
    image->area = aligned_alloc(BAT_PAGE_SIZE, (size_t)pages * BAT_PAGE_SIZE);
    if (!image->area) {
        return -ENOMEM;
    }
    image->entries = (uint32_t *)(void *)(image->area + HEADER_SIZE);
    for (uint32_t page = 0; page < pages; page += PIECE_PAGES) {
        uint32_t count = pages - page < PIECE_PAGES ? pages - page : PIECE_PAGES;
        int err = read_pages(image, page, count);

        if (err == -EIO) {
            err = read_each_page(image, load, page, count);
        }
        if (err) {
            return err;
        }
        if (load->progress(load->user_data, geometry_page_first(page))) {
            return -ECANCELED;
        }
    }
    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        image->entries[i] = load_le32((const uint8_t *)&image->entries[i]);
    }
    return 0;
}
