/* SPDX-License-Identifier: MIT */
/*
 * The map of a device's top delta: entries in memory, their pages' way to the disk, and the host
 * clusters behind them.
 *
 * bat_entry() may be called from any thread. Everything else belongs to the owner of the engine's
 * turn; the fields of a page that an operator may look at are atomics that only the owner writes.
 *
 * Where things are: inside.h. Below it are the SYNCs (file/sync.h) and the host clusters
 * (space/alloc.h).
 */
#ifndef BAT_BAT_H
#define BAT_BAT_H

#include <errno.h>

#include "bat/deadline.h"
#include "file/sync.h"
#include "format/header.h"
#include "space/alloc.h"

#include <ploop/bat.h>

/* Besides the public PLOOP_BAT_PAGE_ bits: */
enum {
    PAGE_DUE =
        1 << 8, /* to be written now: on the due list, or put there when its older image is done */
    PAGE_OVER_LIMIT = 1 << 9 /* failed so often that allocations are refused */
};

enum { IMAGE_COUNT = 8, IMAGE_PAGES = 16 };

struct bat_page {
    _Atomic uint32_t state;
    _Atomic uint32_t mapped, changes;
    _Atomic int32_t error;
    _Atomic uint64_t dirtied_ns, deadline_ns, writes;
    uint64_t gen; /* the generation that changes belong to now; images are of the ones before */
    /* The SYNC that must have succeeded before an image taken now may be written. */
    struct sync_number barrier;
    struct sync_number synced_number; /* UNSYNCED: the SYNC that ends it */
    uint64_t round_id, round_gen;     /* member of that round, until that generation is done */
    uint32_t tries;    /* that failed in a row: the delay to the next one grows with them */
    uint32_t failures; /* of those that count against the limit */
    uint64_t
        no_space_ns;   /* the first try that found no space since one that was written; 0: none */
    uint32_t reserved; /* unmapped clusters that writes in flight have a place for: dev/write.c */
    int32_t pending;   /* records of removed entries: alloc.h */
    struct list due;   /* on bat.due */
    struct list unsynced; /* on bat.unsynced */
    struct bat *bat;
    struct work request; /* an operator's "write it now" */
    atomic_bool requested;
};

/* See writeback.c. */
enum image_state { IMAGE_FREE, IMAGE_WAITS, IMAGE_SENT };

/* A frozen run of pages on its way to the disk. */
struct page_image {
    struct bat *bat;
    enum image_state state;
    struct channel_io io;
    struct list link; /* on bat.images_free or bat.images_busy */
    struct sync_wait barrier;
    uint32_t first, count;
    uint64_t gen[IMAGE_PAGES];
    struct iovec iov;
    uint8_t *bytes;
};

struct round_wait;
typedef void round_fn(struct round_wait *wait, int result);

struct round_wait {
    struct list link;
    round_fn *then;
};

/* See round.c. */
struct round {
    uint64_t id; /* of the one that runs or ran last */
    bool running;
    uint32_t outstanding; /* member pages */
    int error;
    struct sync_number number; /* the SYNC it needs at least */
    struct list waiters, next;
    struct sync_wait sync;
};

struct durable_wait;
typedef void durable_fn(struct durable_wait *wait, int result);

/* Waits until a page is on the disk as it is now; see bat_wait_durable(). */
struct durable_wait {
    struct bat *bat;
    struct list link;
    uint32_t page;
    uint64_t gen;
    struct sync_number number;
    durable_fn *then;
    struct sync_wait sync;
};

struct bat_stats {
    _Atomic uint64_t mapped, pages_dirty, pages_failed, page_dirties, page_redirties, page_writes,
        page_write_calls, page_write_failures, barriers, flushes_coalesced;
};

struct bat {
    struct header header;
    struct geometry geometry;
    _Atomic uint32_t *entries; /* these two never move: any thread may look at them */
    struct bat_page *pages;
    _Atomic uint32_t page_count, entry_count; /* any thread looks up to them; they only grow */
    struct growing entries_memory, pages_memory;

    struct channel *channel;
    struct syncer syncer;
    struct alloc alloc;

    struct deadlines deadlines; /* of dirty pages that are not due */
    uint64_t ripen_ns;          /* when a SYNC is sent for removals that only wait for one; 0: none
                                   does */
    struct list due, unsynced;
    struct list images_free, images_busy;
    struct page_image images[IMAGE_COUNT];
    struct round round;
    struct list durable_waits; /* for a page write */

    bool native_fua; /* the backend's writes can be durable by themselves */
    struct iovec zero_iov[CHANNEL_WINDOW];

    uint64_t delay_ns, max_age_ns;
    uint32_t failure_limit;
    uint64_t patience_ns; /* for this time a lack of space does not count as a failure; 0: it always
                             counts */
    uint32_t over_limit;  /* pages with PAGE_OVER_LIMIT */
    int allocation_error; /* of the page that crossed the limit */
    struct round_wait reclaim_wait;

    /* How the bat reaches its device. */
    void *owner;
    uint64_t (*now_ns)(void *owner);
    void (*failed)(void *owner, int error);  /* a page write failed */
    void (*latched)(void *owner, int cause); /* a SYNC failed: once */
    struct bat_stats stats;
    struct bat *older; /* the same delta's, from when it was the top or a receiver; or NULL */
};

/*
 * 0 or -ENOMEM; bat_free() in either case. The entries are all 0 then; bat_set_loaded() fills them.
 */
int bat_init(struct bat *bat, const struct header *header, struct channel *channel,
             const struct alloc_config *space);
void bat_free(struct bat *bat);

/*
 * At open: all entries of a page, BAT_ENTRY_BAD among them, and how many map something. Once for a
 * page; one that is left out is all 0, and takes no memory.
 */
void bat_set_loaded(struct bat *bat, uint32_t page, const uint32_t *entries, uint32_t mapped);

/* At open: an entry that cannot be read, or proves to be another guest cluster's. */
void bat_set_bad(struct bat *bat, struct guest_cluster guest);

/* 0: unmapped; BAT_ENTRY_BAD; or where it is. Any thread. */
static inline uint32_t bat_entry(const struct bat *bat, struct guest_cluster guest)
{
    return atomic_load_explicit(&bat->entries[guest.n], memory_order_acquire);
}

/* Map an unmapped cluster whose data write has completed; `number` is what alloc_take() said. */
void bat_map(struct bat *bat, struct guest_cluster guest, struct host_cluster host,
             struct sync_number number);

/*
 * Whether bat_unmap() could keep track of the host cluster now, or need not because nothing will be
 * freed any more.
 */
bool bat_can_keep_track(const struct bat *bat);

/*
 * Remove a mapping, with nothing in flight to the cluster. Where its host cluster cannot be kept
 * track of it is lost to this device: a leak, to be found at the next open.
 */
void bat_unmap(struct bat *bat, struct guest_cluster guest);

/*
 * A mapped cluster's content was copied to this host cluster, and the copy has completed: it is
 * there from now on. With nothing in flight to either place, and only while bat_can_keep_track().
 */
void bat_move(struct bat *bat, struct guest_cluster guest, struct host_cluster host);

/*
 * For a larger disk: first memory for its geometry, 0 or -ENOMEM; then the map has its entries, all
 * 0, and the last page that there was before is dirty, because more of it is the map's. The header
 * is changed apart from this.
 */
int bat_enlarge(struct bat *bat, const struct geometry *grown);
void bat_grow(struct bat *bat, const struct geometry *grown);

/* A change of the header: page 0 is dirty, and its next image carries bat->header as it is then. */
void bat_header_changed(struct bat *bat, struct sync_number barrier);

/* Every page dirty and due, whether it changed or not: RECOVER, and a BAT that may have holes. */
void bat_rewrite_all(struct bat *bat);

/* When it has to be run; UINT64_MAX: not by the clock. */
uint64_t bat_next_deadline(const struct bat *bat);

/*
 * Pages whose deadline has come become due, and removals that only wait for a SYNC get one. Returns
 * how many.
 */
uint32_t bat_run_deadlines(struct bat *bat, uint64_t now_ns);

/* Write a page at the next opportunity if it is dirty. */
void bat_page_hurry(struct bat *bat, uint32_t index);

void bat_delay_changed(struct bat *bat, uint64_t delay_ns, uint64_t max_age_ns);

/*
 * Wait until page `index` as it is now is durable, and SYNC `number` done.
 * 0: it is so; 1: `then` will run; -errno: it cannot be.
 */
int bat_wait_durable(struct bat *bat, uint32_t index, struct sync_number number,
                     struct durable_wait *wait, durable_fn *then);

/* Wait for everything completed until now to be durable: R3. `then` runs later, never inside. */
void bat_join_round(struct bat *bat, struct round_wait *wait, round_fn *then);

/* Send what can be sent. */
void bat_pump(struct bat *bat);

/* End all waits with an error: after the latch, or at an abort. */
void bat_fail_waiters(struct bat *bat, int error);

/* The bat has no request at the backend or on its way there. */
bool bat_is_idle(const struct bat *bat);

/* Besides, nobody waits for a round or a page, and every change is durable. */
bool bat_is_quiet(const struct bat *bat);

/*
 * Of a map that is not the top's any more, and never changes: this entry counts no more; it is
 * found elsewhere.
 */
void bat_forget(struct bat *bat, struct guest_cluster guest);

/* Of such a map, with all entries forgotten: gives back the memory that nobody looks at. */
void bat_retire(struct bat *bat);

/* What was counted in this device until now, by the map of the old top. */
void bat_take_over_counts(struct bat *bat, const struct bat *old);

static inline bool is_no_space(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

/* Why nothing can be promised any more, or 0: the latch. */
static inline int bat_latch(const struct bat *bat)
{
    return bat->syncer.error;
}

static inline bool page_is(const struct bat_page *page, uint32_t bits)
{
    return (atomic_load_explicit(&page->state, memory_order_relaxed) & bits) == bits;
}

static inline void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

#endif
