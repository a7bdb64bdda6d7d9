/* SPDX-License-Identifier: MIT */
/*
 * The storage under the test: a file system on a loop device, whose backing file lies on a tmpfs.
 * While the tmpfs is full, a range that is punched out of the backing file cannot be written: the
 * kernel loses the page and reports the error once for each open file description.
 *
 *     tmpfs/backing     the loop device's content, with blocks everywhere except where a test has
 *                       doomed them
 *     tmpfs/filler      takes the rest of the tmpfs, from world_fill() to world_give()
 *     mount/image       the image under test
 */
#ifndef KERNEL_WORLD_H
#define KERNEL_WORLD_H

#include <stdbool.h>
#include <stdint.h>

struct world {
    const char *mount;  /* where the file system is mounted */
    const char *tmpfs;  /* where backing and filler are */
    const char *device; /* the loop device */
    const char *type;   /* of the file system */
    bool can_doom; /* offsets in a file can be found in the backing file; else whatever is new is
                      lost while the tmpfs is full */
    char image[256];
    int backing_fd, filler_fd, device_fd;
};

void world_init(struct world *world, const char *mount, const char *tmpfs, const char *device,
                const char *type);

/* No space in the tmpfs; space again. */
void world_fill(struct world *world);
void world_give(struct world *world);

/* Undo all dooming. There must be space. */
void world_mend(struct world *world);

/*
 * From here on, [offset, offset + length) of the image cannot be written while the tmpfs is full.
 * Its content on the disk is zeros.
 */
void world_doom(struct world *world, uint64_t offset, uint64_t length);

/*
 * Allocate blocks for the image beyond its end, without making it longer: `length` bytes in one
 * piece, then enough pieces that the file system needs no further block for its own list of them.
 * Such a block could later lie in a doomed range, where an image was cut.
 */
void world_preallocate(struct world *world, uint64_t length);

/*
 * Write back all dirty data of the image, and wait: writes that must be lost are lost now. Asks for
 * errors only on a separate description.
 */
void world_write_back(const struct world *world);

/* Write everything of the file system to the device. */
void world_sync(const struct world *world);

/* Unmount and mount, so that no page of the image is cached. */
void world_drop_caches(struct world *world);

/* Print a line like printf() and exit with status 2: the test itself could not be carried out. */
void world_failed(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
