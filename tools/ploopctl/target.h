/* SPDX-License-Identifier: MIT */
/*
 * What create and convert write to:
 *
 *     a new file      removed again if the command fails; its name is made durable if it succeeds
 *     a block device  overwritten if the user has said --force and nothing else uses it. What it
 *                     holds after a failure is not defined
 *     a stream        standard output, a pipe or a character device, for raw disks only
 */
#ifndef PLOOPCTL_TARGET_H
#define PLOOPCTL_TARGET_H

#include <stdbool.h>

#include <ploop/ploop.h>

enum target_kind { TARGET_FILE, TARGET_DEVICE, TARGET_STREAM };

struct target {
    const char *path;
    enum target_kind kind;
    ploop_file *file; /* NULL: a stream */
    int fd;           /* a stream's, or the one that claims a device; -1: none */
};

#define FORCE_HELP "      --force            overwrite a block device\n"

/* Whether a target's name is of standard output. */
bool is_standard_output(const char *path);

/* Prints errors. 0 or -errno, with nothing open then. */
int target_open(struct target *target, const char *path, bool force, bool may_be_stream);

/* Make [0, size) of a device read as zeros; prints errors. 0 or -errno. */
int target_clear(const struct target *target, uint64_t size);

/* Close it, and keep it only if `status` is EXIT_SUCCESS. Prints errors. The exit status. */
int target_end(struct target *target, int status);

#endif
