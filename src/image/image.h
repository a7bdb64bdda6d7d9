/* SPDX-License-Identifier: MIT */
/*
 * An image that no device has open: its header and its whole BAT in memory, for the operations that
 * look at all of it.
 *
 *     image_open() -> header and sizes known -> image_load_bat() -> entries known -> image_close()
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include "file/file.h"
#include "format/header.h"

struct image {
    ploop_file *file;
    uint64_t file_size;
    uint32_t capabilities; /* PLOOP_FILE_CAN_ ... */
    struct header header;  /* after image_open() returned 0 */
    uint8_t *area; /* the header and the BAT, laid out as in the file, so that whole pages can be
                      moved */
    uint32_t *entries; /* within area; numbers, no longer bytes */
};

struct image_load {
    uint64_t bat_limit_bytes;
    int (*progress)(void *user_data,
                    uint64_t entries_done); /* not 0 ends the loading with -ECANCELED */
    void (*unreadable)(void *user_data, uint32_t first_entry, uint32_t count,
                       int error); /* these entries are 0 then */
    void *user_data;
};

/*
 * 0; -EINVAL, -EUCLEAN as header_decode(), with its message; -ENOMEM or what the backend returns,
 * with an empty one.
 */
int image_open(struct image *image, ploop_file *file, char *message);

/*
 * 0, -EFBIG, -ENOMEM, -ECANCELED, or what the backend returns. -EIO is not among them: that is for
 * `unreadable`.
 */
int image_load_bat(struct image *image, const struct image_load *load);

void image_close(struct image *image);

/* Exactly that much, or -errno: a file that ends before is -EIO. */
int image_read(const struct image *image, void *buffer, uint64_t length, uint64_t offset);

#endif
