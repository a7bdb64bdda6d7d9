/* SPDX-License-Identifier: MIT */
/*
 * Copying the data of one disk to another one, which reads as zeros so far. Each of the two is a
 * device or a raw file; the target can be a stream.
 *
 * COPY_WORKERS threads take windows of the source one after the other (data.h). For each window a
 * thread reads it, looks for blocks of zeros, and writes the runs of other blocks. So as many
 * requests are in flight as there are threads, on both sides, and the zeros of one window are
 * looked for while others are read and written. A thread has a queue of its own on each device, and
 * one buffer of a window.
 *
 *  1. The walk, the progress bar and the first error belong to the thread that holds the lock.
 *  2. A window belongs to one thread, and windows do not overlap: no two threads write the same
 *     byte.
 *  3. After an error no window is taken. Requests in flight are waited for.
 *  4. The writes of windows are submitted to a device in the order of the windows. So the device
 *     allocates clusters in the order of the disk: the same source gives the same image, and what
 *     is contiguous in the disk is contiguous in the file. A stream is written in this order, too;
 *     zeros are written for what lies between the windows.
 *  5. A salvage reads what cannot be read again, in smaller and smaller pieces down to a sector;
 *     sectors that cannot be read are zeros and are noted. Other errors end it as they end a copy.
 */
#ifndef PLOOPCTL_COPY_H
#define PLOOPCTL_COPY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "data.h"
#include "lost.h"
#include "progress.h"

/*
 * What a device needs: so many queues, and so many requests for each: a window's runs of data, at
 * most every other block.
 */
enum { COPY_WORKERS = 8, COPY_REQUESTS = DATA_WINDOW_BYTES / DATA_BLOCK_BYTES / 2 };

/* The side of the first error. */
enum copy_side { COPY_SOURCE, COPY_TARGET };

/*
 * A disk: a device, or what `read` reads, or the raw file if both are NULL; a target can also be a
 * stream, which takes the disk from its first byte to its last.
 */
struct copy_disk {
    ploop_dev *dev;
    /* A source that is neither: reads all of these bytes, in any thread. 0 or -errno. */
    int (*read)(void *buffer, uint32_t length, uint64_t offset);
    ploop_file *file;
    bool is_stream;
    int stream;
    uint64_t file_size; /* of a raw source; the rest of its last sector is zeros */
};

struct copy {
    struct copy_disk source, target;
    struct data_walk walk; /* of the source */
    struct progress *progress;
    bool salvages;
    uint64_t cluster_size; /* of the source: what a bad entry of its map takes away */

    pthread_mutex_t lock;
    pthread_cond_t submitted; /* the second of these has changed: */
    uint64_t windows_taken, windows_submitted;
    uint64_t streamed; /* the bytes of the disk that are in the stream; of whose turn it is */
    int error;         /* the first one, -errno */
    enum copy_side error_side;
    uint64_t error_offset; /* in the disk */
    struct lost lost;      /* of a salvage; the caller's to free */
};

/*
 * Copy. The caller has set source, target, walk and progress, the rest is zeros. 0 or copy->error;
 * -ENODATA: the source file is shorter than it was; -EINTR: copy_interrupt() was called.
 */
int copy_run(struct copy *copy);

/* End a copy at its next window; for a signal handler. */
void copy_interrupt(int signal);

#endif
