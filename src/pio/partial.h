/* SPDX-License-Identifier: MIT */
/*
 * Copy on write that is put off (R9): a record for each partial cluster, of which the top has some
 * sectors and a lower delta the others.
 *
 *     none --first write, with the lock held alone: host cluster taken, mark set--> OPEN
 *     OPEN --its deadline, or a pass--> QUEUED --a completer is free--> BUSY
 *     BUSY --failed--> OPEN, with a later deadline; a member of a pass once more where it has to be
 *     any --completed, or filled by the guest: its entry is in the map--> none
 *     any --no write to it completed, and none is in flight--> none, the host cluster is given back
 *
 *  1. A record begins with its cluster's lock held alone, and the mark in the cluster's map word
 *     (delta/stack.h) is set then: whoever gets the lock after that sees it. The mark is taken back
 *     when the record is gone: after the entry is in the map, where there is one.
 *  2. A sector is in `tops` when a write of it has completed, before the callback. It stays there,
 *     with its bytes in the host cluster, until the record is gone.
 *  3. Writes to a partial cluster hold its lock shared. `in_flight` counts them, and there is
 *     room in `tops` for all of them. What holds the lock alone meets none in flight.
 *  4. A cluster is completed with its lock held alone, from before the first read of the lower
 *     delta to the entry in the map (complete.c).
 *  5. A part that holds a cluster's lock waits for no record and no pass. A completer holds no
 *     lock but its own cluster's.
 *  6. A pass is what flushes wait for: each record that is there when it begins is its member until
 *     it was tried once more, or is gone. One runs at a time; who comes while one runs shares the
 *     next.
 *  7. No record begins while a job is under way, and a job begins when none is left (live/job.c).
 *  8. Once a SYNC has failed, and at an abort, no completion begins but by a guest's own write.
 *
 * All of it belongs to the owner of the turn.
 */
#ifndef PIO_PARTIAL_H
#define PIO_PARTIAL_H

#include "dev/dev.h"
#include "pio/part.h"
#include "util/runs.h"

enum { PARTIAL_RECORDS = 512, PARTIAL_HASH = 256, PARTIAL_COMPLETERS = 4 };
#define PARTIAL_BYTES_MAX (UINT64_C(64) << 20)

/* What a device that is opened takes; tests make these smaller. */
struct partial_limits {
    uint32_t runs;    /* of a record; at most RUNS_MAX */
    uint32_t records; /* at most PARTIAL_RECORDS */
    uint64_t bytes;   /* that all records have still to copy */
};
extern struct partial_limits partial_limits;

enum partial_state { PARTIAL_NONE, PARTIAL_OPEN, PARTIAL_QUEUED, PARTIAL_BUSY };

struct partial {
    struct list link; /* on the list that its state names; of BUSY none */
    struct list hashed;
    enum partial_state state;
    struct guest_cluster guest;
    struct host_cluster host;
    struct run_set tops;
    uint32_t sectors; /* that the disk has of the cluster */
    uint32_t missing; /* of these, not in `tops` */
    uint32_t in_flight;
    uint32_t tries; /* that failed in a row */
    bool again;     /* BUSY: a pass began since; a failure is tried once more */
    uint64_t pass;  /* member of that one, until it was tried */
    uint64_t born_ns, touched_ns, deadline_ns;
};

struct partial_wait;
typedef void partial_fn(struct partial_wait *wait, int result);

struct partial_wait {
    struct list link;
    partial_fn *then;
};

/* The records of a device that is open for writing, with a delay. */
struct partials;

/* ---- partial.c: the records ---- */
/* 0 or -ENOMEM; nothing where the configuration has no delay, or it was done. */
int partials_init(struct ploop_dev *dev);
void partials_free(struct ploop_dev *dev);

/* The cluster's record, or NULL. */
struct partial *partial_find(const struct ploop_dev *dev, struct guest_cluster guest);

/* Whether a part that needs a copy, with the lock held alone, may put it off. */
bool partial_may_begin(const struct part *part);

/* It does: the host cluster was taken for it. */
void partial_begin(struct part *part, struct host_cluster host);

/* Whether the part's sectors find room in the record, beside those in flight. */
bool partial_fits(const struct partial *partial, const struct part *part);

/* The part's sectors are the top's now. */
void partial_add(struct ploop_dev *dev, struct partial *partial, const struct part *part);

/*
 * The whole cluster is in its host cluster, written: it enters the map, with the barrier of the
 * next SYNC, and the record is gone.
 */
void partial_enter(struct ploop_dev *dev, struct partial *partial);

/* The record is gone if nothing was ever written to it. */
void partial_drop_empty(struct ploop_dev *dev, struct partial *partial);

/* A completion has failed: what the log, the event and the clock are told. */
void partial_failed(struct ploop_dev *dev, struct partial *partial, int error);

/* ---- partial.c: passes and the clock ---- */
/*
 * Completes all records that there are. False: there is none to wait for; else `then` is called
 * later, never inside, with 0 or the first error, when each was tried.
 */
bool partial_wait_for_all(struct ploop_dev *dev, struct partial_wait *wait, partial_fn *then);

/* Begin what can be begun. */
void partial_pump(struct ploop_dev *dev);

/* Those whose deadline has come. Returns how many. */
uint32_t partial_run_deadlines(struct ploop_dev *dev, uint64_t now_ns);
uint64_t partial_next_deadline(const struct ploop_dev *dev);

/* At an abort: no wait is left. */
void partial_fail_waits(struct ploop_dev *dev, int error);

/* No completer has anything under way. */
bool partial_is_idle(const struct ploop_dev *dev);

/* ---- partial_write.c: steps, with a record ---- */
/* Whether a change of the cluster needs its lock alone, as far as the record is asked. */
bool partial_wants_alone(const struct part *part);

/* A write or a write of zeros, with the lock held as it wants it. */
void partial_write_locked(struct part *part, struct partial *partial);

/* A change of the sectors of the part has ended. May be of a cluster that has entered the map. */
void partial_changed(struct part *part, int result);

/* ---- partial_read.c: steps of a read ---- */
/* False: not all of it is the top's, and nothing was done. */
bool partial_read_alone(struct part *part, const struct partial *partial);

/* What the lower delta has is in its memory: the top's sectors go over that. */
void partial_read_over(struct part *part);

/* ---- complete.c ---- */
/*
 * Completes the part's cluster, whose lock the part holds alone. `then`: 0, and the cluster is in
 * the map; or an error, and it is as it was.
 */
typedef void partial_then_fn(struct part *part, int result);
void partial_complete(struct part *part, struct partial *partial, partial_then_fn *then);

#endif
