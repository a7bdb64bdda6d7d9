/* SPDX-License-Identifier: MIT */
/*
 * The backend of the simulator: it accepts the library's requests, executes and completes them in
 * an order and at times of its own choosing, and fails them on purpose.
 *
 * A request: TAKEN --execute--> EXECUTED --complete--> gone. Between any two such steps the power
 * can be cut. If the backend keeps rings, one for each queue: TAKEN waits for its queue's kick,
 * EXECUTED becomes READY, and completes when its queue is reaped; a full ring accepts nothing
 * before that. The backend checks some rules itself, because a wrong disk might hide a violation:
 *  - memory lent for a write does not change before its completion;
 *  - R16: no two writes of one sector of the BAT area in flight;
 *  - R17: a write that begins in the BAT area ends in it, or with the block of the file that it
 *    ends in; reads, writes and punches are of whole blocks;
 *  - R7: no punch or truncation while a write to the same place is in flight, unless the guest
 *    itself zeroes something;
 *  - R11: no change but the header's before the mark is durable;
 *  - F8: the stack does not grow with the number of times a callback submits again;
 *  - R8, R9: the base, a second file behind the same backend, is only read;
 *  - R1: blocks are allocated ahead of writes inside the file, which does not become longer;
 *  - R18: no punch where the host shows stale blocks;
 *  - R6: after a failed SYNC no write to the BAT area, not even the rest of one that was cut short,
 *    and the file is not cut;
 *  - R11: the cache is dropped after a SYNC and with nothing in flight.
 *
 * It keeps the rule of ploop/file.h for errors that are reported once (F14): a FUA write that
 * reports a loss leaves it to the next SYNC to report. With backend_steals_reports it breaks the
 * rule, to prove that the simulator would find this.
 */
#ifndef SIM_BACKEND_H
#define SIM_BACKEND_H

#include <ploop/file.h>

#include "counters.h"
#include "disk.h"

/* BACKEND_RINGS: one for each queue of the users', and the engine's. */
enum { BACKEND_REQUESTS = 256, BACKEND_QUEUES = 4, BACKEND_RINGS = BACKEND_QUEUES + 1 };

extern bool backend_steals_reports;

struct request {
    struct ploop_io *io;
    uint64_t order;     /* of submission */
    uint64_t submitted; /* when */
    uint64_t sum;       /* of the memory to be written */
    uint64_t seq;       /* of the disk's operation, 0 if none */
    int64_t result;
    bool kicked, executed, ready;
    bool below; /* to the base */
};

struct backend {
    struct disk *disk;
    const uint8_t *base; /* of a second file, or NULL */
    uint64_t base_size;
    struct rng *rng;
    uint64_t now;                              /* counts events */
    struct request requests[BACKEND_REQUESTS]; /* the first in_flight of them, in no order */
    unsigned in_flight;
    uint64_t bat_end;    /* bytes: the BAT area, up to a sector */
    uint64_t size_limit; /* of the file */
    uint32_t capabilities, alignment;
    uint64_t max_transfer;
    unsigned inline_permille;
    unsigned write_back_permille; /* of the steps: the cache writes something back */
    bool keeps_cache;             /* it has no `invalidate` */
    bool needs_kick;
    bool by_reap;                   /* completes requests only in reap */
    unsigned ring;                  /* requests that a queue's ring has room for; 0: no ring */
    uint32_t queue_count;           /* that attach was given */
    int poll_fds[2][BACKEND_RINGS]; /* of the file and of the base; -1: not asked for */
    bool reaping[BACKEND_RINGS];    /* inside reap of that queue */
    bool fifo;                      /* the oldest request first */
    bool lifo;                      /* the youngest first */
    uint32_t late_op;             /* not 0: a punch, or a write of data, mostly after the others */
    bool quick;                   /* executed and completed at once, at the next chance */
    unsigned chance[FAULT_COUNT]; /* permille */
    bool quiet;                   /* no new faults */
    bool pages_full;              /* no write of a BAT page finds space */
    bool shows_stale;             /* after a cut, as disk_state_stale() */

    /* fail the Nth call, and those after it; error 0 is a short transfer */
    uint64_t calls, fail_at;
    bool fail_persistent;
    int fail_error;

    bool forgiving; /* the next SYNC may fail and the session continue: RECOVER's first */
    bool synced;    /* a SYNC of this session has ended, with or without success */
    uint64_t drops; /* of the cache asked for in this session; RECOVER's is the first, the last may
                       be that of an open that fails */
    bool busy;      /* the first one could not be done */
    bool latched;   /* a SYNC failed in this session, and the library knows */
    bool session_marked; /* the mark was found durable in this session */
    bool session_synced; /* a SYNC of this session has succeeded */
    uint64_t whole_size; /* of a file that is cut off (R19); 0: it is not */
    bool writable;
    bool is_raw;           /* no header: it has no mark */
    unsigned guest_zeroes; /* in flight */
    uint64_t idle_waits;
    const char *stack; /* where a run's stack begins */
    uint64_t errors;   /* injected in this session: a request may fail */
    uint64_t sync_errors;
    void (*event)(void *context); /* after each step */
    void (*asked)(void *context); /* before a request is looked at; or NULL */
    void (*invalidated)(void *context);
    void (*fault)(void *context, enum fault fault);
    void *context;
    bool gone; /* the file was let go: nothing may be asked of it */
    /* Of the next file of the device, in a ring: they go on while it waits; or NULL */
    struct backend *peer;
};

void backend_init(struct backend *backend, struct disk *disk, struct rng *rng);
void backend_ops(struct backend *backend, struct ploop_io_ops *ops);
void backend_base_ops(const struct backend *backend, struct ploop_io_ops *ops);
void backend_new_session(struct backend *backend, bool recovers);

/* Do one step of one request; false: none can continue by itself. */
bool backend_step(struct backend *backend);

/* Whether what is in flight is late_op's, all of it. */
bool backend_only_late(const struct backend *backend);

unsigned backend_unkicked(const struct backend *backend); /* requests that wait for a kick */
void backend_close(struct backend *backend);              /* after its files */

/* Data writes and other requests that are in flight and not executed: they may happen at a cut. */
typedef void backend_pending_fn(void *context, enum disk_kind kind, uint64_t offset,
                                uint64_t length, const uint8_t *data);
void backend_pending(struct backend *backend, backend_pending_fn *fn, void *context);

#endif
