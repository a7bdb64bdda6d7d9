/* SPDX-License-Identifier: MIT */
/*
 * A guest cluster moves to another host cluster, on a live disk (R7, R10). States and order stand
 * in relocate.c. One at a time for each structure; all of it belongs to the owner of the turn.
 */
#ifndef LIVE_RELOCATE_H
#define LIVE_RELOCATE_H

#include "dev/dev.h"
#include "pio/lock.h"

struct relocate;

/* 0: it has moved, or need not; or -errno: it is where it was. */
typedef void relocate_fn(struct relocate *relocate, int result);

struct relocate {
    ploop_dev *dev;
    relocate_fn *then, *had; /* of the move; of a host cluster */
    struct guest_cluster guest;
    uint64_t begin, end; /* places: those outside of them stay where they are; 0, 0 at first */
    uint64_t holes_end;  /* not 0: move only into holes below that place */
    struct lock_waiter lock;
    struct alloc_wait wait;
    struct channel_io io;
    struct host_cluster to;
    uint64_t at, length; /* of the cluster: what is being copied */
    struct iovec iov;
    uint8_t *buffer;
    uint64_t buffer_bytes;
    _Atomic uint64_t *bytes_done; /* counts what was copied */
};

/* Takes a buffer. 0 or -ENOMEM; relocate_free() in either case. */
int relocate_init(struct relocate *relocate, ploop_dev *dev, _Atomic uint64_t *bytes_done);
void relocate_free(struct relocate *relocate);

/*
 * Move a guest cluster of the top to a free host cluster, if it lies in [begin, end). `then` may be
 * called inside; with -ENOSPC where there is no hole.
 */
void relocate_begin(struct relocate *relocate, struct guest_cluster guest, relocate_fn *then);

/*
 * Take a host cluster, as alloc_take() does, and wait for one where there is none now. `then` is
 * called with relocate->to, perhaps inside.
 */
void relocate_take(struct relocate *relocate, relocate_fn *then);

#endif
