/* SPDX-License-Identifier: MIT */
/*
 * A pipe as a source. A disk's size has to be known before its image can be made, so all of the
 * pipe is read into a temporary file first, which has no name and is gone with the program. Blocks
 * of zeros take no space in it.
 */
#ifndef PLOOPCTL_SPOOL_H
#define PLOOPCTL_SPOOL_H

#include <stdbool.h>

enum { SPOOL_PATH = 32 };

/* Whether a source's name is of standard input, or of what has to be read in one go. */
bool is_pipe(const char *path);

/*
 * Read all of a pipe into a file in `directory`. `path` becomes a name of it that this process can
 * open, as long as it lives. Prints errors. 0 or -errno.
 */
int spool(const char *source, const char *directory, char path[SPOOL_PATH]);

#endif
