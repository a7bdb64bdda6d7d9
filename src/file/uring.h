/* SPDX-License-Identifier: MIT */
/* What the io_uring backend keeps of a file: see uring.c. */
#ifndef FILE_URING_H
#define FILE_URING_H

#include <liburing.h>
#include <stdalign.h>

#include "file/posix.h"

/*
 * A queue's ring. Its submission side and its completion side belong to the thread that is in the
 * queue: ploop_io_ops, "Who calls what for which queue".
 */
struct ring {
    alignas(64) struct io_uring uring;
    uint32_t in_flight; /* taken and not yet completed */
    uint32_t room;      /* the most of those: the completion ring never overflows */
};

struct uring {
    struct posix *posix; /* the file, its descriptors, and the I/O threads */
    struct ring *rings;
    uint32_t ring_count; /* 0: no device is attached, or no ring could be had */
    bool rings_write_direct;
    atomic_bool cancelled;
    /* Refused direct writes: uring.c, 4. */
    atomic_bool is_refused;
    _Atomic uint32_t direct_writes; /* at the rings */
    pthread_mutex_t mutex;
    struct ploop_io *held; /* under `mutex`; linked by backend_data[0] */
    /* Calls that wait for a ring, and have to hear of an I/O thread's completion too. */
    int event_fd;
    _Atomic uint32_t waiters;
};

#endif
