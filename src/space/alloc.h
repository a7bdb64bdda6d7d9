/* SPDX-License-Identifier: MIT */
/*
 * Host clusters: which of them a new mapping may have, and how old ones come back.
 *
 * The life of a host cluster, from the engine's point of view:
 *
 *     beyond the end --extension--> fresh --+          (host_shows_stale: unknown, not fresh)
 *                                           +--take--> taken --(mapped, then removed)--> pending
 *     unknown --zeroing--> zeroed --SYNC--> zero --+                                     |
 *        ^                   +---------------------+  (zeroed: with a barrier)           |
 *        |                                                                               |
 *        +-------- the removal is on the disk, and a SYNC after it (ripen) --------------+
 *        +-------- taken, never mapped, and its data writes failed (alloc_give_back)
 *        +-------- below the end of the file at open, and nothing refers to it
 *
 *  1. A cluster is in one state. `zero`, `zeroed` and `unknown` are bits; fresh is [fresh_next,
 *     fresh_end); the rest below fresh_end is taken or pending.
 *  2. Nobody ever wrote to a fresh cluster, and it lay beyond the file's end at open: it reads as
 *     zeros after any cut, once the file is durably long enough. A `zero` cluster is durably zero.
 *  3. alloc_take() gives with each cluster the number of the SYNC that must have succeeded before
 *     an entry for it may go to the disk: 0 where none is needed.
 *  4. A pending cluster is neither zeroed nor handed out. It is held by a record that names the
 *     page whose entry went away and the generation of that page that no longer has it; the record
 *     ripens only by that generation (or a later one) being written and then synced. A page that
 *     cannot be written so keeps every cluster that any version since the last durable one names:
 *     that is the quarantine.
 *  5. Zeroing and extending are one backend request at a time, and never take memory. A zeroing
 *     that ends while a SYNC is in flight waits for that SYNC before its clusters become `zeroed`,
 *     so that a steady stream of them cannot keep `zeroed` from becoming `zero`.
 *  6. Once a SYNC has failed only fresh clusters are handed out, and nothing is zeroed.
 */
#ifndef SPACE_ALLOC_H
#define SPACE_ALLOC_H

#include "file/sync.h"
#include "format/geometry.h"
#include "util/bitmap.h"

enum { PENDING_MAX = 4096, PENDING_NONE = -1, ZEROS_SIZE = 256 << 10 };

struct pending {
    struct host_cluster host;
    uint32_t page;
    uint64_t gen;    /* of the page: the first without the entry */
    uint64_t number; /* ripe when this SYNC is done */
    int32_t next;
};

enum space_work {
    SPACE_IDLE,
    SPACE_EXTENDING,
    SPACE_ZEROING,
    SPACE_ZEROED_WAITS,
    SPACE_CLOSING,
    SPACE_TRIMMING
};

struct alloc {
    struct channel *channel;
    struct syncer *syncer;
    const struct geometry *geometry;

    struct bitmap zero, zeroed, unknown;
    uint64_t zero_count, zeroed_count, unknown_count;
    uint64_t zeroed_first, zeroed_end; /* bits: where `zeroed` has any */
    uint64_t zeroed_number;            /* the SYNC that makes `zeroed` durable */
    uint64_t zero_cursor, unknown_cursor;
    uint64_t first_cluster, window, file_end; /* see alloc.c: which clusters have bits */

    uint64_t fresh_next, fresh_end; /* host clusters */
    uint64_t durable_end;           /* the file is durably this long, in host clusters */
    uint64_t extension_number;      /* the SYNC that makes fresh_end durable */
    uint64_t limit;                 /* no host cluster at or above this */
    uint64_t file_size;             /* as it is now */
    uint64_t extend_bytes_max;      /* configured; 0: none */
    bool can_grow, can_punch;
    bool host_shows_stale; /* a hole may come to show old bytes: what an extension brings is
                              unknown, nothing is punched (R18) */
    bool partial_tail;     /* the file ends inside cluster fresh_end: its bytes are unknown */
    bool changed;          /* something was handed out: the tail may be cut at close */
    bool recovered;        /* it may be cut too: a dead session's extension */

    struct pending pending[PENDING_MAX];
    int32_t pending_free; /* a list through `next`; so are the ripening ones, oldest first */
    int32_t ripening_first, ripening_last;
    uint32_t pending_count;

    enum space_work work;
    struct channel_io io;
    uint64_t work_first, work_count; /* bits being zeroed; for an extension, the file's old and new
                                        end in host clusters */
    uint64_t work_at;                /* bytes zeroed so far, where the backend cannot punch */
    int zeroing_error; /* the last zeroing failed: extend rather, until space is asked for again */
    bool extension_failed; /* do not extend ahead of need */
    bool least;            /* what is under way is the least extension, after a larger one failed */
    bool closing;          /* begin nothing ahead of need any more */
    bool wanted;           /* someone waits for space */
    bool eager;            /* clusters came back: zero them without being asked */
    bool reclaiming,
        reclaimed; /* pending clusters are being made ripe because space ran out; that was done */
    bool reclaim_stale; /* the shortage that asked for the reclaim under way is over */
    uint8_t *zeros;
    struct iovec zero_iov[CHANNEL_WINDOW];
    void (*space)(struct alloc *alloc,
                  int result); /* to who waits: space has come, or none will: 0 or -errno */
    void (*reclaim)(
        struct alloc *alloc); /* make pending clusters ripe, then call alloc_reclaimed() */
    _Atomic uint64_t extensions, punches;
};

struct alloc_config {
    uint64_t file_size;
    uint32_t capabilities;
    uint64_t extend_bytes_max;
    bool host_shows_stale;
};

/*
 * 0 or -ENOMEM; alloc_free() in either case. All clusters of the file are `unknown` until they are
 * claimed.
 */
int alloc_init(struct alloc *alloc, struct channel *channel, struct syncer *syncer,
               const struct geometry *geometry, const struct alloc_config *config);
void alloc_free(struct alloc *alloc);

/* At open: this cluster is mapped. False: it was claimed already. */
bool alloc_claim(struct alloc *alloc, struct host_cluster host);

/*
 * 0, with *number (invariant 3); -EAGAIN: nothing now, and `space` will be called; the caller
 * waits.
 */
int alloc_take(struct alloc *alloc, struct host_cluster *host, uint64_t *number);

/* A taken cluster that never entered the map; its content is not known. */
void alloc_give_back(struct alloc *alloc, struct host_cluster host);

/* Whether a removal could be recorded now. */
bool alloc_can_pend(const struct alloc *alloc);

/*
 * A mapped cluster left the map; the record goes on its page's list, which *first begins. Only
 * while alloc_can_pend().
 */
void alloc_pend(struct alloc *alloc, struct host_cluster host, uint32_t page, uint64_t gen,
                int32_t *first);

/* A page's generation was written: its records up to that start ripening. */
void alloc_page_written(struct alloc *alloc, uint64_t gen, int32_t *first);

/* A SYNC succeeded, or failed: what is durable now. */
void alloc_synced(struct alloc *alloc);

/* The reclaim that was asked for is over. */
void alloc_reclaimed(struct alloc *alloc);

/* Nothing is being zeroed or extended, and nothing waits to be. */
bool alloc_is_settled(const struct alloc *alloc);

/* Start what space work there is to do. */
void alloc_pump(struct alloc *alloc);

/* Free below the end of the file, for the statistics. */
uint64_t alloc_free_count(const struct alloc *alloc);

/*
 * At close, with every removal durable and no space work under way: cut off what is free at the end
 * of the file, if this device changed anything there. True: begun, and over when alloc->work is
 * SPACE_CLOSING again. Nothing is handed out any more.
 */
bool alloc_trim(struct alloc *alloc);

#endif
