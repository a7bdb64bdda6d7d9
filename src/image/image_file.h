/* SPDX-License-Identifier: MIT */
/*
 * A file opened as an image that no device has open: its header, and its whole BAT in memory for
 * the operations that look at all of it.
 *
 *     image_file_open() -> header and sizes known -> image_file_load_bat() -> entries known ->
 *     image_file_close()
 */
#ifndef IMAGE_IMAGE_FILE_H
#define IMAGE_IMAGE_FILE_H

#include "file/file.h"
#include "format/header.h"

struct image_file {
    ploop_file *file;
    uint64_t file_size;
    uint32_t capabilities; /* PLOOP_FILE_CAN_ ... */
    struct header header;  /* after image_file_open() returned 0 */
    uint8_t *area; /* the header and the BAT, laid out as in the file, so that whole pages can be
                      moved */
    uint32_t *entries; /* within area; numbers, no longer bytes */
};

struct image_file_load {
    uint64_t bat_limit_bytes;
    /* An error ends the loading with that error. */
    int (*progress)(void *user_data, uint64_t entries_done);
    /* The entries of a page that cannot be read; they are 0 then. */
    void (*unreadable)(void *user_data, uint32_t first_entry, uint32_t count, int error);
    void *user_data;
};

/*
 * 0; -EINVAL, -EUCLEAN as header_decode(), with its message; -ENOMEM or what the backend returns,
 * with an empty one.
 */
int image_file_open(struct image_file *image, ploop_file *file, char *message);

/* 0, -EFBIG, -ENOMEM, or what `progress` returned. A page that cannot be read is no error. */
int image_file_load_bat(struct image_file *image, const struct image_file_load *load);

void image_file_close(struct image_file *image);

/*
 * Whether the file is as large as it is whatever the image needs: what nothing refers to there is
 * free, and not lost.
 */
bool image_file_is_fixed(const struct image_file *image);

/* Exactly that much, or -errno: a file that ends before is -EIO. */
int image_file_read(const struct image_file *image, void *buffer, uint64_t length, uint64_t offset);

#endif
