/* SPDX-License-Identifier: MIT */
/*
 * What is done to the file for space: it is made longer, blocks are allocated ahead of sequential
 * writes, unknown clusters are zeroed, its end is cut off. alloc.c decides what is to be done next;
 * the steps of it are here.
 *
 *     IDLE --extend--> EXTENDING or EXTENDING_LEAST ----------------------------> IDLE
 *     IDLE --allocate--> ALLOCATING --------------------------------------------> IDLE
 *     IDLE --zero--> ZEROING --no SYNC in flight-------------------------------> IDLE
 *                       \-----a SYNC in flight--> ZEROED --it succeeded, or not--> IDLE
 *     IDLE --trim--> TRIMMING --> ENDED      or, where there is nothing to cut: IDLE --> ENDED
 *     ENDED --resume--> IDLE
 *     IDLE --cut--> TRIMMING --> ENDED --cut_durable--> IDLE     where the device goes on meanwhile
 *
 *  1. One piece of work at a time, and one request of it at the backend. It takes no memory.
 *  2. A zeroing that ends while a SYNC is in flight waits in ZEROED for that SYNC, so that a steady
 *     stream of them cannot keep `zeroed` clusters from becoming `zero`.
 *  3. The clusters of ZEROING and ZEROED have no bit in the map: nothing else gets them.
 *  4. Once a SYNC has failed nothing is zeroed: what was under way becomes unknown again.
 *  5. In ENDED nothing is handed out or begun any more. It is final but for a change of the stack
 *     that is not to be: space_resume().
 *  6. Blocks are allocated for fresh clusters below the end of the file: neither a content nor the
 *     file's size changes, so a cluster may be handed out and written meanwhile.
 */
#ifndef SPACE_SPACE_WORK_H
#define SPACE_SPACE_WORK_H

#include "file/sync.h"
#include "space/space_map.h"

enum space_state {
    SPACE_IDLE,
    SPACE_EXTENDING,
    SPACE_EXTENDING_LEAST, /* by as little as possible, after a larger one failed */
    SPACE_ALLOCATING,
    SPACE_ZEROING,
    SPACE_ZEROED,
    SPACE_TRIMMING,
    SPACE_ENDED
};

struct space_work;

/*
 * A piece of work is done; `was` is the state it was done in. 0, or why it failed; -EAGAIN: the
 * backend cannot punch, and the next zeroing writes.
 */
typedef void space_done_fn(struct space_work *work, enum space_state was, int result);

struct space_work {
    enum space_state state;
    struct channel_io io;
    struct syncer *syncer;
    const struct geometry *geometry;
    struct space_map *map;
    space_done_fn *done;

    /* While ZEROING and ZEROED: */
    struct space_run run;
    uint64_t zeroing_at; /* bytes of it zeroed so far, or sent */
    /* While EXTENDING and EXTENDING_LEAST: */
    uint64_t new_end; /* a place */
    /* When an extension has failed: */
    uint64_t failed_clusters; /* how many it was for */

    /* The places of clusters that were allocated ahead, or that an ALLOCATE is under way for: */
    uint64_t blocks_begin, blocks_end;

    bool can_allocate; /* only where it can also punch, which gives blocks back */
    bool can_punch;
    bool host_shows_stale;    /* a hole may come to show old bytes: what an extension brings is
                                  unknown, nothing is punched (R18) */
    bool was_cut, cut_failed; /* by space_trim() */
    uint64_t old_end;         /* by space_cut(): where the file ended before, a place; 0: no cut */
    int cut_result;
    bool partial_tail;    /* the file ends inside cluster fresh_end: its bytes are unknown */
    uint64_t file_size;   /* as it is now */
    uint64_t durable_end; /* the file is durably this long: a place */
    struct sync_number extension_number; /* the SYNC that makes fresh_end durable */
    struct sync_number zeroed_number;    /* the SYNC that makes what is zeroed durable */

    struct iovec zero_iov[CHANNEL_WINDOW];
    _Atomic uint64_t extensions, punches; /* clusters zeroed */
};

/* What is set before: syncer, geometry, map, done and the backend's abilities. */
void space_work_init(struct space_work *work, struct channel *channel, uint64_t file_size);

/*
 * Only while IDLE: a run of unknown clusters, of which there must be one, is zeroed. `ahead`:
 * nobody waits for it.
 */
void space_zero(struct space_work *work, bool ahead);

/*
 * Only while IDLE: up to `clusters` new ones, within the map's limit; `least`: as an attempt after
 * a larger one failed.
 */
void space_extend(struct space_work *work, uint64_t clusters, bool least);

/*
 * Only while IDLE: blocks for fresh clusters in [begin, end), places, which is not empty. -ENOTSUP
 * ends it for good.
 */
void space_allocate(struct space_work *work, uint64_t begin, uint64_t end);

/* Whether a cluster that was just taken has blocks, as far as is known. */
static inline bool space_has_blocks(const struct space_work *work, struct host_cluster host)
{
    return host.n >= work->blocks_begin && host.n < work->blocks_end;
}

/*
 * How many of the fresh clusters, from the first one on, lie below the end of what was allocated
 * ahead.
 */
static inline uint64_t space_blocks_ahead(const struct space_work *work)
{
    uint64_t next = work->map->fresh_next;
    return work->blocks_end > next ? work->blocks_end - next : 0;
}

/*
 * The clusters that were allocated ahead and are not handed out become unknown: zeroing punches
 * them. Nothing else gets them meanwhile.
 */
void space_forget_blocks(struct space_work *work);

/* Whether the extension that has just failed could be tried with fewer clusters. */
bool space_extension_was_large(const struct space_work *work);

/*
 * Only while IDLE. The file is cut at its end, where that leaves something out; then, or at once,
 * the state is ENDED. True: the backend has it.
 */
bool space_trim(struct space_work *work, bool may_cut);

/*
 * At open, after the claims, before any SYNC: the file, which ended inside a cluster, was made
 * `file_size` long, to that cluster's end, because an entry names it (R19). It is in use, like one
 * that was handed out.
 */
void space_own_tail(struct space_work *work, uint64_t file_size);

/*
 * Only while ENDED, after a SYNC that succeeded since: there is space work again. Where the file
 * was cut, it ends there; where that failed nobody knows where it ends, and what lay behind is
 * left.
 */
void space_resume(struct space_work *work);

/*
 * Only while IDLE: the file is cut behind the last cluster in use, while clusters may become free
 * below that. Then, ENDED and a SYNC later, whose result that is: there is space work again. Where
 * the cut or the SYNC has failed, what lay behind is not used any more. Returns the cut's result.
 */
void space_cut(struct space_work *work);
int space_cut_durable(struct space_work *work, int result);

/* A SYNC succeeded, or failed. */
void space_synced(struct space_work *work);

#endif
