/* SPDX-License-Identifier: MIT */
/*
 * The one device of a server process, and the requests to it.
 *
 * A function that fails has told nbdkit why, in a message that names the file and as the errno for
 * the client, and returns -1.
 */
#ifndef NBDKIT_PLOOP_DEVICE_H
#define NBDKIT_PLOOP_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

enum { BASES_MAX = 254 };

/* The command line. Names are absolute, because nbdkit changes its directory. */
struct server_config {
    char *image;
    char *bases[BASES_MAX]; /* the files below it, the lowest first */
    uint32_t base_count;
    bool has_raw_base; /* bases[0] */
    bool recover;
    bool recover_cached; /* even if the file's cache cannot be dropped */
    bool host_shows_stale;
    bool direct;
    bool uring;       /* files are opened with io_uring, where the kernel has it */
    bool uring_asked; /* the user has said so: where it has not, that is told */
    bool refuse_after_sync_failure;
    uint32_t delay_ms;
    uint32_t max_age_ms;
};

/* Check whether the image can be served; leaves nothing open. */
int device_probe(const struct server_config *config);

/*
 * Open the device if it is not open. The configuration must live until device_close(). Any thread.
 */
int device_open(const struct server_config *config, bool read_only);

/* Close the device if it is open: no request is in flight. -1: not everything reached the disk. */
int device_close(void);

/* From here on, the device is open. */

/* Its size, its limits and whether it is read-only, as of open. */
const struct ploop_dev_info *device_info(void);

/*
 * The extent of a range: ploop_bat_lookup(), except that a cluster with a bad entry counts as
 * mapped; reading it then fails.
 */
int device_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent);

/*
 * Requests: each call waits until the request is done. Any thread, any number at once. `flags` are
 * PLOOP_PIO_ ...
 */
int device_read(void *buffer, uint64_t length, uint64_t offset);
int device_write(const void *buffer, uint64_t length, uint64_t offset, uint32_t flags);
int device_write_zeroes(uint64_t length, uint64_t offset, uint32_t flags);
int device_discard(uint64_t length, uint64_t offset);
int device_flush(void);

#endif
