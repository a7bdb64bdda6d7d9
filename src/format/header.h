/* SPDX-License-Identifier: MIT */
/*
 * The image header: 64 bytes in, values out, and back. No I/O, and nothing in the bytes is trusted.
 */
#ifndef FORMAT_HEADER_H
#define FORMAT_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "format/geometry.h"

#define HEADER_IN_USE 0x746F6E59u     /* open for writing */
#define HEADER_CLOSED_EXT 0x312e3276u /* closed by software that knows the format extension */
/* Any other value: closed by software that does not. */

enum { HEADER_FLAG_EMPTY = 1, HEADER_FLAG_CONVERTING = 2 };

struct header {
    struct geometry geometry;
    uint32_t version; /* of the format: 1 or 2 */
    uint32_t in_use;
    uint32_t flags;
    uint64_t extension_sector; /* ext_off as it stands; 0 for none. It counts only while in_use is
                                  HEADER_CLOSED_EXT */
    uint32_t heads, cylinders;
    uint32_t data_off;   /* as it stands, in sectors; 0 is possible in v1 */
    uint64_t nb_sectors; /* as it stands: in v1 the high half means nothing, and is kept */
};

enum { HEADER_MESSAGE_SIZE = 160 };

/*
 * Read a header. `size` bytes are there (a short file has fewer than 64). `file_size` is what the
 * header's claims are held against. 0; -EINVAL: no image (too short, another magic); -EUCLEAN: an
 * image whose header cannot be trusted. `message` (HEADER_MESSAGE_SIZE bytes) then names the field
 * and the value; it is "" after 0.
 */
int header_decode(const uint8_t *bytes, size_t size, uint64_t file_size, struct header *header,
                  char *message);

/* Write a header's 64 bytes. */
void header_encode(const struct header *header, uint8_t bytes[HEADER_SIZE]);

/*
 * A header for a new, empty image. 0, -EINVAL, -EFBIG as ploop_image_create() documents. in_use 0,
 * flag Empty set, data_start on a cluster border for both versions.
 */
int header_for_new_image(uint32_t version, uint64_t disk_size, uint64_t cluster_size,
                         struct header *header);

/*
 * The header of the same image with a larger disk. The BAT gets the entries that it needs, and
 * data_start moves, by whole clusters, where they need more room. 0; -EINVAL: no whole sectors, or
 * less than the disk has; -EFBIG: the version's limits, or the entries', are exceeded.
 */
int header_grow(const struct header *header, uint64_t disk_size, struct header *grown);

#endif
