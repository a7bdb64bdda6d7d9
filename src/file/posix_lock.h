/* SPDX-License-Identifier: MIT */
/*
 * Who may use an image file at the same time: advisory locks on single bytes, the scheme that QEMU
 * has for its image files, so that each refuses what the other has open.
 *
 * There are four things one can do to a file (LOCK_...). Whoever does one holds a shared lock on
 * byte 100 + its number; a program that does not want others to do it holds one on byte 200 + its
 * number. Locks are taken first, then each looks whether another holds the opposite byte: two that
 * come at once may both be refused, never both let in.
 *
 * The locks belong to the open file description (F_OFD_SETLK): other descriptors of the process do
 * not matter, closing them neither, and a forked child keeps the lock alive until it closes its
 * copy or executes another program.
 */
#ifndef FILE_POSIX_LOCK_H
#define FILE_POSIX_LOCK_H

#include <stdint.h>

enum { LOCK_NONE = 0, LOCK_READER = 1, LOCK_WRITER = 2 };

/*
 * Change what this descriptor holds from one LOCK_ to another. A descriptor open for reading will
 * do. 0; -EAGAIN: another user excludes this one; or what the file system says. It holds
 * what it held then.
 */
int posix_lock_change(int fd, uint32_t from, uint32_t to);

#endif
