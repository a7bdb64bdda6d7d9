/* SPDX-License-Identifier: MIT */
/*
 * A new, empty image. The header comes last, when the zeros of the BAT are durable: whatever stood
 * in the file before, it is never taken for entries.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/image.h>

#include "file/file.h"
#include "format/header.h"
#include "util/refusal.h"
#include "util/sized.h"

enum { ZERO_PIECE = 1048576 };

/* A file that cannot be extended is not cut either; its BAT area is overwritten. */
static int clear_in_place(ploop_file *file, uint64_t data_start, uint64_t file_size)
{
    uint8_t *zeros;
    int64_t done = 0;

    if (file_size < data_start) {
        return -ENOSPC;
    }
    zeros = aligned_alloc(BAT_PAGE_SIZE, ZERO_PIECE);
    if (!zeros) {
        return -ENOMEM;
    }
    memset(zeros, 0, ZERO_PIECE);
    for (uint64_t at = 0; at < data_start && done >= 0; at += ZERO_PIECE) {
        uint64_t length = data_start - at < ZERO_PIECE ? data_start - at : ZERO_PIECE;

        done = file_sync_io(file, PLOOP_IO_WRITE, zeros, length, at);
    }
    free(zeros);
    return done < 0 ? (int)done : 0;
}

/*
 * The file becomes [0, data_start), all zeros. The BAT gets its blocks, so that no page write runs
 * out of space (F7).
 */
static int lay_out(ploop_file *file, const struct geometry *geometry)
{
    uint64_t data_start = geometry->data_start;
    struct ploop_file_info info = {.size = sizeof(info)};
    int error = ploop_file_info(file, &info);

    if (error) {
        return error;
    }
    if (!(info.capabilities & PLOOP_FILE_CAN_GROW)) {
        return clear_in_place(file, data_start, info.file_size);
    }
    error = (int)file_sync_io(file, PLOOP_IO_TRUNCATE, NULL, 0, 0);
    if (!error) {
        error = (int)file_sync_io(file, PLOOP_IO_TRUNCATE, NULL, 0, data_start);
    }
    if (!error && info.capabilities & PLOOP_FILE_CAN_ALLOCATE) {
        int64_t allocated =
            file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, geometry_bat_bytes(geometry), 0);

        error = allocated < 0 && !is_refusal((int)allocated) ? (int)allocated : 0;
    }
    return error;
}

static int write_header(ploop_file *file, const struct header *header)
{
    uint8_t *page = aligned_alloc(BAT_PAGE_SIZE, BAT_PAGE_SIZE);
    int64_t done;

    if (!page) {
        return -ENOMEM;
    }
    memset(page, 0, BAT_PAGE_SIZE); /* the first entries: a new image's data area never begins
                                       within this page */
    header_encode(header, page);
    done = file_sync_io(file, PLOOP_IO_WRITE, page, BAT_PAGE_SIZE, 0);
    free(page);
    return done < 0 ? (int)done : (int)file_sync_io(file, PLOOP_IO_SYNC, NULL, 0, 0);
}

int ploop_image_create(ploop_file *file, const struct ploop_image_options *options)
{
    struct ploop_image_options given;
    struct header header;
    int error =
        sized_in(&given, sizeof(given), offsetof(struct ploop_image_options, reserved), options);

    if (error) {
        return error;
    }
    if (!file || given.flags) {
        return -EINVAL;
    }
    error = header_for_new_image(given.version, given.disk_size, given.cluster_size, &header);
    if (!error && (uint64_t)4 * header.geometry.bat_entries > PLOOP_BAT_LIMIT_DEFAULT) {
        error = -EFBIG; /* what opening would refuse is not made */
    }
    error = error ? error : file_claim(file, FILE_ALONE);
    if (error) {
        return error;
    }
    error = lay_out(file, &header.geometry);
    if (!error) {
        error = (int)file_sync_io(file, PLOOP_IO_SYNC, NULL, 0, 0);
    }
    error = error ? error : write_header(file, &header);
    if (error) {
        int ignored;
        (void)file_drop_cache(file,
                              &ignored); /* what is lost is told once: another try begins anew */
    }
    file_give_back(file, FILE_ALONE);
    return error;
}
