/* SPDX-License-Identifier: MIT */
/*
 * Host clusters: which of them a new mapping may have, and how old ones come back.
 *
 * The life of a host cluster, from the engine's point of view (space_map.h has its states on the
 * left, pending.h those on the right, space_work.h what moves it from one to the next):
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
 *  1. A cluster is in one state.
 *  2. No device ever wrote to a fresh cluster, and it lay beyond the file's end at open: it reads
 * as zeros after any cut, once the file is durably long enough. A `zero` cluster is durably zero.
 *  3. alloc_take() gives with each cluster the number of the SYNC that must have succeeded before
 *     an entry for it may go to the disk: SYNC_NONE where none is needed.
 *  4. A pending cluster is neither zeroed nor handed out.
 *  5. Once a SYNC has failed only fresh clusters are handed out, and nothing is zeroed.
 *
 * Waiting for space:
 *
 *     NO_SHORTAGE --alloc_wait--> SHORTAGE --extension failed--> RECLAIMING --reclaimed-->
 * RECLAIMED ^                          |                              |                        |
 *          +------ clusters came, or there are none: all waits end --+------------------------+
 *
 *  6. There is a shortage while a wait for space is on the list. The allocator then zeroes what is
 *     unknown, or else extends the file, or else reclaims once; then the shortage ends with an
 * error.
 *
 * Blocks ahead of sequential writes (ahead.h):
 *
 *  7. They are a hint to the host and no promise: an ALLOCATE that fails fails no request. After a
 *     failure none is begun until the file has been extended.
 *  8. Only fresh clusters get them, from the first one on. Where space is short, the blocks of
 *     clusters that are not handed out are given back: those clusters become unknown, and are
 *     punched like all unknown ones. A close cuts them off with the rest of the tail.
 *  9. A write that found no space while space was on its way back, or before some had come back,
 *     is not believed: alloc_can_reclaim() and alloc_returns() tell.
 *
 * A reclaim makes pending clusters ripe: its round, which the bat runs, makes every removal durable
 * that was made before it began. There is one at a time. Reclaims are counted as SYNCs are: a wait
 * needs the one with a certain number, and one that is under way when the wait begins does only for
 * a wait for a record, because it may not cover the latest removals.
 */
#ifndef SPACE_ALLOC_H
#define SPACE_ALLOC_H

#include "file/sync.h"
#include "format/geometry.h"
#include "space/ahead.h"
#include "space/pending.h"
#include "space/space_map.h"
#include "space/space_work.h"

struct alloc_wait;
typedef void alloc_fn(struct alloc_wait *wait, int result);

struct alloc_wait {
    struct list link;
    alloc_fn *then;
    uint64_t reclaim; /* the number of the reclaim that it needs */
};

enum alloc_shortage { NO_SHORTAGE, SHORTAGE, SHORTAGE_RECLAIMING, SHORTAGE_RECLAIMED };

struct alloc {
    struct channel *channel;
    struct syncer *syncer;
    const struct geometry *geometry;
    struct space_map map;
    struct pending_set pending;
    struct space_work work;
    struct ahead ahead;
    uint64_t ahead_clusters; /* how many are to have blocks, when allocating is worth while */
    uint64_t ahead_end;      /* up to where: a place */

    enum alloc_shortage shortage;
    uint64_t shortage_reclaim; /* SHORTAGE_RECLAIMING: the reclaim that it waits for */
    struct list waits;         /* for a host cluster */
    struct list record_waits;  /* for a reclaim to be done */
    struct list reclaim_waits; /* for that, and for its clusters to be zeroed */
    uint64_t reclaims_begun, reclaims_done, reclaim_wanted;
    void (*reclaim)(struct alloc *alloc); /* begin a round, then call alloc_reclaimed() */

    uint64_t extend_bytes_max; /* configured; 0: none */
    int zeroing_error; /* the last zeroing failed: extend rather, until space is asked for again */
    bool can_grow;
    bool extension_failed; /* do not extend ahead of need */
    bool ahead_failed;     /* do not allocate blocks ahead: see 7 */
    bool returning;        /* blocks ahead are being given back */
    uint32_t returns;      /* how often a reclaim, or blocks ahead, have brought space */
    bool eager;            /* clusters came back, or the first is handed out: zero what is unknown
                              without being asked */
    bool changed;          /* something was handed out: the tail may be cut at close */
    bool recovered;        /* it may be cut too: a dead session's extension */
    bool prefers_holes;    /* the file is to become shorter: do not extend it ahead of need */
    bool closing;          /* begin nothing ahead of need any more, but give space back */
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

/* 0, with *number (invariant 3); -EAGAIN: nothing now, and the caller may alloc_wait(). */
int alloc_take(struct alloc *alloc, struct host_cluster *host, struct sync_number *number);

/* The cluster that was just taken is for a write that enters this guest cluster at its start. */
void alloc_entered(struct alloc *alloc, struct guest_cluster guest, struct host_cluster host);

/*
 * After alloc_take() was -EAGAIN. `then` runs later, never inside: 0: it is worth another try; or
 * why there is no space.
 */
void alloc_wait(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then);

/* Whether alloc_wait_for_reclaim() could bring space: there is some, or it is on its way. */
bool alloc_can_reclaim(const struct alloc *alloc);

/*
 * Another number, now and then, once space has come back: what was sent to the backend before may
 * have failed for the lack of it.
 */
uint32_t alloc_returns(const struct alloc *alloc);

/*
 * Until pending clusters have come back: after a reclaim that begins now or, where one is under
 * way, after that, when what it brought is zeroed; the blocks ahead come back, too. `then` runs
 * later, never inside, with 0; or with the error of alloc_fail_waits().
 */
void alloc_wait_for_reclaim(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then);

/* Space is short: blocks of clusters that are not handed out go back to the host, if there are any.
 */
void alloc_give_blocks_back(struct alloc *alloc);

/*
 * While alloc_can_pend() is false: until a reclaim, which may be under way already, has set records
 * free. As alloc_wait_for_reclaim() in what `then` is told.
 */
void alloc_wait_for_record(struct alloc *alloc, struct alloc_wait *wait, alloc_fn *then);

/* At an abort: end all waits with an error. */
void alloc_fail_waits(struct alloc *alloc, int error);

/* A taken cluster that never entered the map; its content is not known. */
void alloc_give_back(struct alloc *alloc, struct host_cluster host);

/*
 * The same, of a cluster to which a write failed: it may have taken blocks, which others lack, so
 * it is punched soon.
 */
void alloc_give_back_failed(struct alloc *alloc, struct host_cluster host);

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

/* The round of the reclaim that was asked for is done. */
void alloc_reclaimed(struct alloc *alloc);

/*
 * Start a reclaim before space runs out, if more than half of the records are in use, or very many
 * clusters wait: their pages make a long round.
 */
void alloc_reclaim_early(struct alloc *alloc);

/*
 * For a longer BAT, which is going to take the clusters below `end` (see space_map.h, 5). First
 * memory for `more` clusters in use: 0, or -ENOMEM. Then the clusters are reserved, with no write
 * under way that has taken one of them.
 */
int alloc_enlarge(struct alloc *alloc, uint64_t more);
void alloc_reserve(struct alloc *alloc, uint64_t end);

/*
 * Whether nothing reserved is pending, or being zeroed or punched; so that nothing of this device
 * reaches a reserved cluster that is not mapped.
 */
bool alloc_reserve_is_dry(const struct alloc *alloc);

/*
 * For a file that is to become shorter. Where its end would be if nothing below it were free, a
 * place; then holes are preferred to what is fresh, until that is taken back; a hole below a place,
 * for a whole cluster: 0, or -ENOSPC.
 */
uint64_t alloc_packed_end(const struct alloc *alloc);
void alloc_prefer_holes(struct alloc *alloc, bool prefers);
int alloc_take_hole(struct alloc *alloc, uint64_t below, struct host_cluster *host);

/*
 * With alloc_can_cut(): the file is cut behind the last cluster in use. Until alloc_end_cut() no
 * host cluster is handed out. That comes after a SYNC that was submitted when alloc_is_cut(), with
 * its result, and returns the cut's.
 */
bool alloc_can_cut(const struct alloc *alloc);
void alloc_cut(struct alloc *alloc);
bool alloc_is_cut(const struct alloc *alloc);
int alloc_end_cut(struct alloc *alloc, int result);

/* Start the space work that is due. */
void alloc_pump(struct alloc *alloc);

/*
 * The allocator has no request at the backend, and needs none; and what it was going to give back
 * to the host it has given back, or could not.
 */
bool alloc_is_at_rest(const struct alloc *alloc);

static inline bool alloc_can_punch(const struct alloc *alloc)
{
    return alloc->work.can_punch;
}

/* The backend said that it cannot, although it had claimed to. */
static inline void alloc_cannot_punch(struct alloc *alloc)
{
    alloc->work.can_punch = false;
}

/* Whether a cluster that was taken has blocks, as far as is known. */
static inline bool alloc_has_blocks(const struct alloc *alloc, struct host_cluster host)
{
    return space_has_blocks(&alloc->work, host);
}

/* Free below the end of the file, for the statistics. */
static inline uint64_t alloc_free_count(const struct alloc *alloc)
{
    return space_map_free_count(&alloc->map);
}

/*
 * At close, with every removal durable and no space work under way: cut off what is free at the end
 * of the file, if this device changed anything there. True: begun, and done when the allocator is
 * at rest. Nothing is handed out any more. Once more it does nothing.
 */
bool alloc_trim(struct alloc *alloc);

/*
 * At rest, as at close: begin nothing ahead of need any more; then alloc_trim(). And back, when the
 * device goes on with this file after all: see space_resume().
 */
void alloc_stop(struct alloc *alloc);
void alloc_go_on(struct alloc *alloc);

#endif
