/* SPDX-License-Identifier: MIT */
/* What an image's header says. */
#include <errno.h>

#include <ploop/image.h>

#include "format/header.h"
#include "image/image_file.h"
#include "util/sized.h"

_Static_assert(sizeof(((struct ploop_image_info *)0)->message) == HEADER_MESSAGE_SIZE,
               "a header's message fits");

static uint32_t flags_of(const struct header *header)
{
    uint32_t flags = 0;

    flags |= header->in_use == HEADER_IN_USE ? PLOOP_IMAGE_IN_USE : 0u;
    flags |= header->flags & HEADER_FLAG_EMPTY ? PLOOP_IMAGE_EMPTY : 0u;
    flags |= header->flags & HEADER_FLAG_CONVERTING ? PLOOP_IMAGE_CONVERTING : 0u;
    flags |= header->in_use == HEADER_CLOSED_EXT && header->extension_sector ? PLOOP_IMAGE_EXTENSION
                                                                             : 0u;
    return flags;
}

int ploop_image_probe(ploop_file *file, struct ploop_image_info *info)
{
    struct image_file image;
    struct ploop_image_info found = {0};
    int error =
        sized_out_check(info, offsetof(struct ploop_image_info, message) + sizeof(info->message));

    if (error || !file) {
        return -EINVAL;
    }
    error = image_file_open(&image, file, found.message);
    found.file_size = image.file_size;
    if (!error) {
        const struct header *header = &image.header;

        found.version = header->version;
        found.flags = flags_of(header);
        found.disk_size = header->geometry.disk_size;
        found.cluster_size = header->geometry.cluster_size;
        found.bat_entries = header->geometry.bat_entries;
        found.data_offset = header->geometry.data_start;
        found.extension_offset = header->extension_sector > UINT64_MAX / SECTOR_SIZE
                                     ? UINT64_MAX
                                     : header->extension_sector * SECTOR_SIZE;
        found.in_use = header->in_use;
    }
    sized_out(info, &found, sizeof(found));
    return error;
}
