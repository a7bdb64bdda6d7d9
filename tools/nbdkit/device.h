/* SPDX-License-Identifier: MIT */
/*
 * The devices of a server process, and the requests to them: device.c opens and closes, request.c
 * carries out requests.
 *
 * A function that fails has told nbdkit why, in a message that names the file and as the errno for
 * the client, and returns -1.
 */
#ifndef NBDKIT_PLOOP_DEVICE_H
#define NBDKIT_PLOOP_DEVICE_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "timer.h"

enum { BASES_MAX = 254, LANE_COUNT = 16, LANE_REQUESTS = 16 };

/* The command line. Names are absolute, because nbdkit changes its directory. */
struct server_config {
    char *image;            /* or NULL */
    char *dir;              /* where the images are, by export name; or NULL */
    char *bases[BASES_MAX]; /* the files below it, the lowest first */
    uint32_t base_count;
    bool has_raw_base; /* bases[0] */
    bool is_split;     /* image is a bundle, whose disk is split into parts */
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

/*
 * A queue of a device, and the number of requests in its pool: a thread that has taken one from
 * `room` finds a request there.
 */
struct lane {
    ploop_queue *queue;
    sem_t room;
};

/* An image that is served. */
struct device {
    struct device *next;
    const struct server_config *config;
    char *image;
    unsigned connections;
    ploop_file *files[BASES_MAX + 1]; /* of the stack, the lowest first; NULL: not open */
    ploop_io_threads *threads;        /* of all of them */
    ploop_uring *group;               /* the same; NULL: each has rings of its own */
    ploop_dev *dev;                   /* NULL: a split disk, which is open in its place: */
    struct ploop_bundle_disk *split;
    struct ploop_dev_info info; /* its size, its limits and whether it is read-only, as of open */
    bool holds_line;     /* an error of the library's is kept for later, while it is opened: */
    char held_line[512]; /* it */
    struct timer timer;
    struct lane lanes[LANE_COUNT];
};

/* ---- device.c ---- */

/* Check whether the image of image= can be served; leaves nothing open. */
int device_probe(const struct server_config *config);

/*
 * The device of the image that the export name stands for, opened if it is not open, for one
 * connection more. NULL: failed. The configuration must live until device_close_all(). Any thread.
 */
struct device *device_open(const struct server_config *config, const char *export, bool read_only);

/* A connection is gone, and has no request in flight. */
void device_release(struct device *device);

/* One line in the log for each open device. Any thread. */
void device_tell_all(void);

/* Close all devices: no request is in flight. -1: of one, perhaps earlier, something was lost. */
int device_close_all(void);

/*
 * The extent of a range: ploop_bat_lookup(), except that a cluster with a bad entry counts as
 * mapped; reading it then fails.
 */
int device_lookup(struct device *device, uint64_t offset, uint64_t length,
                  struct ploop_extent *extent);

/* ---- request.c ---- */
enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO, REQUEST_DISCARD, REQUEST_FLUSH };

void lanes_init(struct device *device);
void lanes_destroy(struct device *device);

/*
 * Requests: each call waits until the request is done. Any thread, any number at once. `flags` are
 * PLOOP_PIO_ ...
 */
int device_read(struct device *device, void *buffer, uint64_t length, uint64_t offset);
int device_write(struct device *device, const void *buffer, uint64_t length, uint64_t offset,
                 uint32_t flags);
int device_write_zeroes(struct device *device, uint64_t length, uint64_t offset, uint32_t flags);
int device_discard(struct device *device, uint64_t length, uint64_t offset);
int device_flush(struct device *device);

/* The plugin is about to be unloaded. */
void buffers_end(void);

#endif
