/* SPDX-License-Identifier: MIT */
/*
 * Copying between a device and a raw file, with many requests in flight.
 *
 * Callbacks run in copy_wait(), and all of this is one thread: the loop goes along the disk, starts
 * a request for each piece to copy, and waits only when every buffer is in use.
 *
 * A buffer holds a window of up to 1 MiB of the disk. Its states:
 *
 *     raw to device    FREE --a window is taken--> BUSY (requests > 0) --the last completes--> FREE
 *     device to raw    FREE --a window is taken--> BUSY --the last completes--> READY --written-->
 *                      FREE
 *
 *  1. The loop touches a buffer's memory only when the buffer is not BUSY.
 *  2. After an error no request is started, but requests in flight are waited for.
 */
#ifndef PLOOPCTL_COPY_H
#define PLOOPCTL_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <ploop/ploop.h>

#include "progress.h"

enum { COPY_BUFFERS = 16, COPY_BUFFER_BYTES = 1048576, COPY_REQUESTS = 64 };

struct copy;

struct copy_buffer {
    struct copy_buffer *next; /* while FREE or READY */
    uint8_t *bytes;
    uint64_t offset; /* of the window, in the disk */
    uint32_t length;
    uint32_t requests; /* in flight */
};

struct copy_request {
    struct copy_request *next; /* while free */
    struct copy *copy;
    struct copy_buffer *buffer;
    ploop_pio *pio;
    struct iovec iov;
    uint64_t offset;
};

/* The side of the first error. */
enum copy_side { COPY_SOURCE, COPY_TARGET };

struct copy {
    ploop_dev *dev;
    ploop_queue *queue;
    uint64_t disk_size;
    struct progress *progress;

    struct copy_buffer buffers[COPY_BUFFERS];
    struct copy_request requests[COPY_REQUESTS];
    struct copy_buffer *free_buffers;
    struct copy_buffer *ready_buffers;
    struct copy_request *free_requests;
    uint32_t in_flight;
    uint64_t walked; /* the offset up to which every request was started */
    /* The target of data read from the device; NULL: requests are writes to the device. */
    ploop_file *target;

    int error; /* the first one, -errno */
    enum copy_side error_side;
    uint64_t error_offset; /* in the disk */
};

/* The device must have at least COPY_REQUESTS pios. 0 or -errno; copy_end() in either case. */
int copy_begin(struct copy *copy, ploop_dev *dev, uint64_t disk_size, struct progress *progress);
void copy_end(struct copy *copy);

/*
 * Copy the mapped data of the device to a file that is as large as the disk and all holes. 0 or
 * copy->error.
 */
int copy_to_raw(struct copy *copy, ploop_file *target);

/*
 * Copy the data that is not zero from the raw file behind a descriptor to an empty device. Its size
 * may be odd; the disk's is rounded up. `part` is the smallest unit that is written or left out, a
 * power of two of at most COPY_BUFFER_BYTES. 0 or copy->error.
 */
int copy_from_raw(struct copy *copy, int fd, uint64_t file_size, uint32_t part);

/* End a copy at its next step with -EINTR; for a signal handler. */
void copy_interrupt(int signal);

#endif
