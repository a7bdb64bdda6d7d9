/* SPDX-License-Identifier: MIT */
/*
 * Advisory locks on single bytes decide which programs may use an image file at the same time. QEMU
 * uses the same scheme for its image files, so that QEMU and this library refuse each other's open
 * images.
 *
 * The scheme knows four kinds of access to a file, numbered from 0. A program with an access holds
 * a shared lock on byte 100 + its number; a program that excludes an access holds one on byte 200 +
 * its number. A program takes its locks first, then checks whether another holds the opposite byte:
 * two that come at once may both be refused, but are never both admitted.
 *
 * The locks belong to the open file description (F_OFD_SETLK): other descriptors of the process,
 * and closing them, have no effect. A forked child keeps the lock alive until it closes its copy or
 * executes another program.
 */
#ifndef FILE_POSIX_LOCK_H
#define FILE_POSIX_LOCK_H

#include <stdint.h>

enum { LOCK_NONE = 0, LOCK_READER = 1, LOCK_WRITER = 2 };

/*
 * Change the access that this descriptor holds from one LOCK_ to another. A descriptor open for
 * reading is enough. 0; -EAGAIN: another user excludes this one; or the file system's error. After
 * a failure it still holds `from`.
 */
int posix_lock_change(int fd, uint32_t from, uint32_t to);

#endif
