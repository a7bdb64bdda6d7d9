/* SPDX-License-Identifier: MIT */
/*
 * A delta: one file of the stack that makes up a disk, the top and the ones below it alike.
 *
 *  1. A delta's number stays with it and is never given to another one while the device lives. So
 *     a map word that a thread has read can name a delta that is gone, but never a wrong one.
 *  2. A thread reads a map word and counts the request that it sends in that delta's channel while
 *     it holds the cluster's lock, shared at least. So a delta can be let go once no word names it,
 *     every cluster lock has been held alone once since then, and nothing is in flight in its
 *     channel. No reference count is needed for that. The structure lives as long as the device.
 *  3. From its `end` on a delta reads as zeros, whatever its file holds there. `end` and then
 *     `tail_at` become larger where a raw file gets what the delta above it has; until both have,
 *     a reader finds the same bytes with the old ones.
 *  4. Only the top has a `bat`, what is about to be the top or was, and the receiver of a merge.
 *     Nothing is written to a delta without one but by RECOVER, before the device is open
 *     (load_stack.c). An old bat stays in memory, whoever still looks at it.
 */
#ifndef DELTA_DELTA_H
#define DELTA_DELTA_H

#include "bat/bat.h"
#include "file/channel.h"
#include "format/geometry.h"
#include "util/iov.h"

struct delta {
    struct channel channel; /* first: then its address is the delta's */
    uint32_t number;        /* from 1 on */
    _Atomic uint32_t level; /* its place in the stack now; 0: the base */
    ploop_file *file;
    uint32_t capabilities;    /* of the file: PLOOP_FILE_CAN_ ... */
    bool is_raw;              /* it has no header and no map */
    bool sync_failed;         /* a SYNC of it, as a receiver: it is none any more */
    atomic_bool left;         /* it is served no more: delta_use() */
    _Atomic uint32_t users;   /* threads that call its file just now */
    uint32_t queues_seen;     /* while it leaves: life/top.c */
    struct geometry geometry; /* cluster n of a raw file is its entry n */
    struct bat *bat;          /* the map of the top: see 4; NULL: none */
    _Atomic uint64_t end;     /* bytes of the disk that it has */
    _Atomic uint64_t
        tail_at; /* [tail_at, end) is in `tail`: the end of a raw file that ends inside a
                         sector. Else tail_at is `end` */
    uint8_t tail[SECTOR_SIZE];
};

/* NULL without memory. The file stays the caller's. */
struct delta *delta_new(ploop_file *file, uint32_t number, uint32_t level);
void delta_free(struct delta *delta);

/* Allocates a bat for it, empty and not yet initialized by bat_init(). 0 or -ENOMEM. */
int delta_new_bat(struct delta *delta);

/*
 * Around a call of the file's functions from outside of the turn, by a thread that has not entered
 * a queue. False: the file is going, and is not to be called.
 */
static inline bool delta_use(struct delta *delta)
{
    atomic_fetch_add(&delta->users, 1);
    if (atomic_load(&delta->left)) {
        atomic_fetch_sub(&delta->users, 1);
        return false;
    }
    return true;
}

static inline void delta_unuse(struct delta *delta)
{
    atomic_fetch_sub(&delta->users, 1);
}

/*
 * Begins a read of [inside, inside + length) of a guest cluster that lies at `entry` in this delta,
 * an entry that is not bad. Returns how many bytes, from the beginning, have to be read from the
 * file, at *offset. What the delta itself keeps of the rest is copied to the memory at the cursor;
 * [*filled, length) is zeros, which the caller sets.
 */
uint64_t delta_fill(const struct delta *delta, struct guest_cluster guest, uint32_t entry,
                    uint64_t inside, uint64_t length, const struct iov_cursor *cursor,
                    uint64_t *offset, uint64_t *filled);

#endif
