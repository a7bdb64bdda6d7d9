/* SPDX-License-Identifier: MIT */
/*
 * A part: one cluster's share of a request; or what a request does as a whole (flush.c).
 *
 *     IDLE --part_begin--> LOCKING --> LOCKED --part_transfer, part_order--> AT_BACKEND
 *                             ^          ^                                      |
 *                             |          +------------- part_heard -------------+
 *                             |          |
 *                             |       LOCKED <--part_do_bulk--> AT_MEMORY
 *                             |          |
 *                             |       LOCKED <--> FOR_SPACE, FOR_RECORD, FOR_BUFFER, FOR_OTHERS
 *                             |          |
 *                             |          +--part_settle--> IDLE, or with FUA: DURABLE --> IDLE
 *                             |          |                                       |
 *                             |          v                                       v
 *                             +------- PARKED <----- no space, the policy is to wait
 *
 *     IDLE --part_take_own--> DURABLE --> IDLE      a flush, a write of BAT pages
 *
 *  1. A part holds its cluster's lock in LOCKED, AT_BACKEND, AT_MEMORY and the four waits, and in
 *     no other state. In LOCKED one of its steps runs, in the turn.
 *  2. A part keeps nothing of a delta across a wait: delta, entry, offset and abilities are read
 *     together, under the lock, in the step that sends. A part that was parked begins anew.
 *  3. Whether the lock is needed alone is decided again once it is had. A part that holds it alone
 *     without need lets others in. One that needs it alone and has it shared gives it back and goes
 *     to the head of the line, once.
 *  4. A part belongs to its pio from part_take() on until `ended` is called, which is once.
 */
#ifndef PIO_PART_H
#define PIO_PART_H

#include "bat/bat.h"
#include "delta/stack.h"
#include "file/channel.h"
#include "pio/kind.h"
#include "pio/lock.h"
#include "util/runs.h"

struct ploop_dev;

enum part_state {
    PART_IDLE,
    PART_LOCKING,    /* in its cluster's line */
    PART_LOCKED,     /* one of its steps runs */
    PART_AT_BACKEND, /* its io is under way */
    PART_AT_MEMORY,  /* memory is filled for it, outside the turn: bulk.c */
    PART_FOR_SPACE,  /* waits for a host cluster, or for pending ones to come back: park.c */
    PART_FOR_RECORD, /* waits for a removal's record: park.c */
    PART_FOR_BUFFER, /* waits for memory to copy through: cow.c */
    PART_FOR_OTHERS, /* a write that failed waits for those that share its place: write.c */
    PART_PARKED,     /* waits for space without a lock: park.c */
    PART_DURABLE,    /* waits for a round, a page or its entry to be durable */
    PART_STATES
};

/*
 * A host cluster taken for an unmapped guest cluster, until every write that joined it has ended:
 * write.c.
 */
struct reservation {
    struct list link;  /* in the device's hash */
    struct list parts; /* those that joined, by part.link */
    struct guest_cluster guest;
    struct host_cluster host;
    struct sync_number number; /* see alloc_take() */
    uint32_t in_flight;        /* of the parts, those at the backend */
    bool entered;              /* in the map */
    bool failed;               /* one of the parts, and waits for the others: write.c, 4 */
};

/* Memory to copy a cluster through. */
struct cow_buffer {
    struct list link; /* in the device's cow_buffers, while no part has it */
    uint8_t *bytes;
    /* Where copies are put off (partial.h): */
    uint8_t *more;       /* as much again, for the top's own bytes */
    struct run_set tops; /* which of those that were read are the top's */
};

struct part;
/* Fills memory outside the turn: bulk.c. */
typedef void part_fill_fn(const struct part *part);

/* A copy of a cluster from a lower delta: cow.c, complete.c. */
struct cow {
    struct host_cluster host;  /* taken for it; of a completion, where it moves to */
    struct cow_buffer *buffer; /* NULL: none is had */
    uint64_t at, length;       /* of the cluster: what is being copied */
    uint64_t filled;           /* of that: the lower delta has bytes for it; the rest is zeros */
    uint32_t requests;         /* sent for it */
    struct iovec iov;
    void (*had)(struct part *part); /* FOR_BUFFER: goes on when it has one */
    /* A completion: */
    bool moves;                       /* to another host cluster */
    uint64_t piece_end;               /* of the cluster, where the next piece begins */
    uint64_t below_filled, below_end; /* of the cluster: what is zeros of what was missing */
    void (*completed)(struct part *part, int result);
};

/* What goes to the receiver of a merge before the part settles: merging.c. */
struct follow {
    bool is_over; /* done, or nothing is to be done */
    bool is_new;  /* cow.host was taken for it */
    uint64_t end; /* of the cluster, where the copy ends */
    int result;   /* of the part, as it settles then */
    struct sync_number number;
};

struct part {
    struct channel_io io;
    struct work work; /* hands the part to the turn: submit.c, bulk.c */
    struct ploop_dev *dev;
    ploop_pio *pio;
    const struct kind *kind;          /* the pio's */
    void (*ended)(struct part *part); /* tells the pio */
    int result;                       /* of the part, when `ended` is called */
    struct list link;                 /* on the list that its state names */
    enum part_state state;
    bool pooled;      /* not the pio's own */
    bool wants_space; /* parked, or tried again after that */
    bool reclaimed;   /* pending clusters were made to come back for it, once */
    bool did_bulk;    /* memory was filled for it outside the turn: cut.c, 3 */
    bool asked_alone; /* it went to the head of its lock's line, once */
    uint32_t returns; /* alloc_returns() when it began; 0, as in the beginning: that is not known */
    struct guest_cluster cluster;
    uint64_t inside, length; /* bytes in the cluster */
    struct iov_cursor cursor;
    struct lock_waiter lock;
    struct alloc_wait space; /* FOR_SPACE, FOR_RECORD */
    /* PARKED, and after that until the part ends: */
    uint64_t parked_ns; /* since when; 0: it never was */
    part_fn *again;     /* what a retry calls */
    /* DURABLE: */
    struct durable_wait durable;
    /* A write to an unmapped cluster: */
    struct reservation *reservation, own_reservation;
    int write_error;         /* FOR_OTHERS: how it failed */
    struct part *ended_next; /* of those that leave the reservation together */
    /* AT_MEMORY: */
    part_fill_fn *bulk_fill;
    part_fn *bulk_then;
    /* A read: */
    uint64_t filled; /* bytes that do not become zeros */
    /* A write of zeros: */
    uint64_t zeroed; /* bytes done */
    /* A copy: */
    struct cow cow;
    struct follow follow;
};

/*
 * Whether the part covers all that the disk has of its cluster. Asked in the step that acts on it,
 * because the disk may have grown while the part waited.
 */
bool part_is_whole(const struct part *part);

/*
 * Whether what it writes to the top fills the blocks of the file that it touches. A part that does
 * not holds its cluster's lock alone (R17), because others may fill those blocks meanwhile. Of a
 * cluster without a place it is known where all clusters lie on blocks.
 */
bool part_fills_blocks(const struct part *part);

static inline bool part_has_lock(const struct part *part)
{
    return part->state >= PART_LOCKED && part->state <= PART_FOR_OTHERS;
}

void part_init(struct part *part, struct ploop_dev *dev);

/* A part's place: a cluster, as much of it as the disk has. */
void part_set_cluster(struct part *part, struct guest_cluster cluster);

/* The only way to change a part's state; the transition must be one of those above. */
void part_set(struct part *part, enum part_state state);
void assert_part(const struct part *part);

/* An idle part becomes the pio's. `ended` hears of its end. */
void part_take(struct part *part, ploop_pio *pio, void (*ended)(struct part *part));

/* Takes the lock, then the first step of its kind. From IDLE or PARKED. */
void part_begin(struct part *part);

/* The lock is held, shared, by the fast path already. From IDLE: LOCKED. */
void part_adopt_lock(struct part *part);

/* ---- steps, in LOCKED ---- */

/* What it needs is another thing now: the lock as that wants it, then the first step again. */
void part_decide(struct part *part);

/*
 * Send a request to a delta; `heard` runs later, in the turn, and begins with part_heard(). The
 * delta, the offset and the rest were read in this step.
 */
void part_transfer(struct part *part, struct delta *delta, uint32_t op, uint32_t flags,
                   struct iov_cursor cursor, uint64_t offset, uint64_t length, channel_fn *heard);
void part_order(struct part *part, struct delta *delta, uint32_t op, uint64_t offset,
                uint64_t length, channel_fn *heard);
struct part *part_heard(struct channel_io *io);

/*
 * Fills `bytes` bytes of memory, or none where that is 0, and goes on with `then`, in the turn:
 * bulk.c.
 */
void part_do_bulk(struct part *part, uint64_t bytes, part_fill_fn *fill, part_fn *then);

/*
 * Its effect is there, or failed. `number`: the SYNC that makes its data durable, SYNC_NONE if it
 * is. The lock is given back; with FUA the part becomes durable before it ends.
 */
void part_settle(struct part *part, int result, struct sync_number number);
void part_unlock(struct part *part); /* before another state that holds no lock */

/*
 * Takes a host cluster, as alloc_take(). 0; -EAGAIN: no space now; the error for which allocations
 * are refused.
 */
int part_take_host(struct part *part, struct host_cluster *host, struct sync_number *number);

/* The flags of a write to a cluster that was taken so. */
uint32_t part_host_flags(const struct part *part, struct host_cluster host);

/* ---- without a lock ---- */

/* A wait to be durable has ended: parks the part, to wait again by `again`, or ends it. */
void part_durable(struct part *part, int result, part_fn *again);
void part_end(struct part *part, int result);

/* ---- park.c: waits for space. part.c leads; park.c keeps the lists ---- */
void part_wait_for_space(struct part *part);
void part_wait_for_record(struct part *part);
/* The data write itself, or the allocation, found no space: waits, is parked, or settles. */
void part_no_space(struct part *part, int error);
/* Whether a part that finds no space is to be parked, and has not waited long enough. */
bool part_may_park(const struct part *part);
void part_park(struct part *part, part_fn *again);

/* ---- cow.c: memory to copy through. `had` is called with a buffer, at once or later ---- */
void cow_take_buffer(struct part *part, part_fn *had);
void cow_give_buffer_back(struct part *part);

/* ---- bulk.c: for the engine, outside the turn ---- */
void bulk_run(struct ploop_dev *dev);

#endif
