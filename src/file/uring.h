/* SPDX-License-Identifier: MIT */
/* What the io_uring backend keeps of a file: see uring.c. */
#ifndef FILE_URING_H
#define FILE_URING_H

#include <liburing.h>
#include <stdalign.h>

#include "file/posix.h"

/* A queue's ring. Its mutex guards all of it but the descriptor, which is only looked at. */
struct ring {
    pthread_mutex_t mutex;
    struct io_uring uring;
    uint32_t in_flight; /* taken and not yet completed */
    uint32_t room;      /* the most of those: the completion ring never overflows */
};

enum { RINGS_MAX = 65 }; /* one for each queue of a device, and the engine's */

/* Sends what an I/O thread may not send: uring.c, 6. */
struct sender {
    pthread_t thread;
    bool runs, wanted, stop; /* under the file's mutex, as what follows */
    pthread_cond_t wake;
};

struct uring {
    struct posix *posix; /* the file, its descriptors, and the I/O threads */
    struct ring *rings[RINGS_MAX];
    _Atomic uint32_t ring_count; /* it grows under `mutex`; a ring stays until the file is closed */
    struct sender sender;
    bool rings_write_direct; /* set by attach: uring.c, 2 */
    atomic_bool cancelled;
    /* Refused direct writes: uring.c, 4. */
    atomic_bool is_refused;
    _Atomic uint32_t direct_writes; /* at the rings */
    pthread_mutex_t mutex;
    struct ploop_io *held; /* under `mutex`; linked by backend_data[0] */
    /* Calls that wait for a ring, and have to hear of an I/O thread's completion too. */
    int event_fd;
    int never_fd; /* an event that never comes: what a queue without a ring has to be reaped */
    _Atomic uint32_t waiters;
};

#endif
