/* SPDX-License-Identifier: MIT */
/* What image_file.h says. */
#include "image/image_file.h"

#include "image/bat_load.h"
#include "util/bytes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int image_file_read(const struct image_file *image, void *buffer, uint64_t length, uint64_t offset)
{
    int64_t got = file_sync_io(image->file, PLOOP_IO_READ, buffer, length, offset);

    if (got < 0) {
        return (int)got;
    }
    return (uint64_t)got == length ? 0 : -EIO;
}

int image_file_open(struct image_file *image, ploop_file *file, char *message)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    int error = ploop_file_info(file, &info);

    message[0] = '\0';
    *image = (struct image_file){
        .file = file, .file_size = info.file_size, .capabilities = info.capabilities};
    if (error) {
        return error;
    }

    uint8_t *page = aligned_alloc(BAT_PAGE_SIZE, BAT_PAGE_SIZE);

    if (!page) {
        return -ENOMEM;
    }

    int64_t got = file_sync_io(file, PLOOP_IO_READ, page, BAT_PAGE_SIZE, 0);

    error = got < 0 ? (int)got
                    : header_decode(page, (size_t)got, image->file_size, &image->header, message);
    free(page);
    return error;
}

void image_file_close(struct image_file *image)
{
    free(image->area);
    image->area = NULL;
    image->entries = NULL;
}

struct area_load {
    struct image_file *image;
    const struct image_file_load *load;
};

static int take_page(void *context, uint32_t page, uint8_t *bytes)
{
    const struct area_load *area = context;
    const struct geometry *geometry = &area->image->header.geometry;
    bytes += page == 0 ? HEADER_SIZE : 0;
    words_from_le32((uint32_t *)(void *)bytes, geometry_page_entries(geometry, page));
    return area->load->progress(area->load->user_data, geometry_page_first(page));
}

static int skip_page(void *context, uint32_t page, int error)
{
    const struct area_load *area = context;
    const struct geometry *geometry = &area->image->header.geometry;
    memset(area->image->area + (size_t)page * BAT_PAGE_SIZE, 0, BAT_PAGE_SIZE);
    area->load->unreadable(area->load->user_data, geometry_page_first(page),
                           geometry_page_entries(geometry, page), error);
    return 0;
}

int image_file_load_bat(struct image_file *image, const struct image_file_load *load)
{
    const struct geometry *geometry = &image->header.geometry;
    struct area_load area = {image, load};
    assert(!image->area);
    if ((uint64_t)4 * geometry->bat_entries > load->bat_limit_bytes) {
        return -EFBIG;
    }
    image->area =
        aligned_alloc(BAT_PAGE_SIZE, (size_t)geometry_page_count(geometry) * BAT_PAGE_SIZE);
    if (!image->area) {
        return -ENOMEM;
    }
    image->entries = (uint32_t *)(void *)(image->area + HEADER_SIZE);
    return bat_load(&(struct bat_load){.file = image->file,
                                       .geometry = geometry,
                                       .area = image->area,
                                       .page = take_page,
                                       .unreadable = skip_page,
                                       .context = &area});
}

bool image_file_is_fixed(const struct image_file *image)
{
    return image->capabilities & PLOOP_FILE_FIXED_SIZE;
}
