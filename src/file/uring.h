/* SPDX-License-Identifier: MIT */
/* What the parts of the io_uring backend share of a file: uring.c, and uring_direct.c. */
#ifndef FILE_URING_H
#define FILE_URING_H

#include "file/posix.h"
#include "file/uring_group.h"

/*
 * backend_data. The first is a link while a request is on a list, and with DATA_DIRECT says that
 * it went past the page cache while it is at a ring.
 */
enum { DATA_LINK = 0, DATA_DIRECT = 0, DATA_LANE = 1, DATA_BOUNCE = 2, DATA_FILE = 3 };

/* Memory that direct I/O takes: uring_direct.c, 4. */
enum { DIRECT_BOUNCES = 4, DIRECT_BOUNCE_BYTES = 256 << 10 };

struct uring {
    struct posix *posix; /* the file, its descriptors, and the I/O threads */
    struct ploop_uring *group;
    _Atomic int file_number;      /* what the rings know its descriptors by, or -1 */
    _Atomic uint32_t ring_count;  /* of the group's, that it uses */
    _Atomic uint32_t queue_count; /* the most that it was attached for */
    atomic_bool cancelled;
    atomic_bool unkicked; /* the I/O threads were given requests since the last kick */
    pthread_mutex_t mutex;
    /* Direct writes: uring_direct.c. */
    atomic_bool is_refused;
    _Atomic uint32_t direct_writes; /* at the rings */
    struct ploop_io *held;          /* under `mutex` */
    uint8_t *bounces;               /* NULL without direct I/O */
    _Atomic uint32_t bounces_taken; /* a bit for each */
    /* FUA writes that wait for a lane, the oldest first: uring.c, 1; under `mutex`. */
    struct ploop_io *fua_first, *fua_last;
    uint32_t reopens;             /* under way */
    _Atomic uint32_t fua_at_ring; /* they have a lane each */
};

/* ---- uring.c ---- */
/* An I/O thread is to carry it out, after the next kick. */
void uring_to_thread(struct uring *file, struct ploop_io *io);
void uring_kick_threads(struct uring *file);

/* ---- uring_direct.c ---- */
bool direct_is_aligned(const struct posix *posix, const struct ploop_io *io);

/* At open, with direct I/O. 0 or -ENOMEM; the file frees them. */
int direct_make_bounces(struct uring *file);

/* Memory that direct I/O takes, in place of the request's. 0 or -EAGAIN. */
int direct_take_bounce(struct uring *file, struct ploop_io *io);
/* How much of the request goes through it. */
uint64_t direct_bounced(const struct ploop_io *io);
/* Give it back, if there is one; of `bytes` that were read the request gets its own. */
void direct_drop_bounce(struct uring *file, struct ploop_io *io, int bytes);

/* A direct write is about to go to a ring. False: one was refused, and it is direct_hold()'s. */
bool direct_write_begins(struct uring *file);
void direct_write_ends(struct uring *file);
/* A thread carries the write out once no direct write is at a ring. */
void direct_hold(struct uring *file, struct ploop_io *io);
/* The same for the write that was refused: all later ones follow it. */
void direct_write_refused(struct uring *file, struct ploop_io *io);

#endif
