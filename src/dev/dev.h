/* SPDX-License-Identifier: MIT */
/*
 * A device: what it is made of, and what the rooms above the stack offer each other.
 *
 * A request (pio) takes one of two ways. A read or plain overwrite that lies in one cluster goes
 * from submit.c straight to the backend and back, under a shared cluster lock and nothing else.
 * Everything else goes to the engine: it is cut into parts of one cluster each, and the parts take
 * their steps in the turn (util/work.h), so that no state here needs a lock. pio/pio.h says which
 * of those files leads.
 */
#ifndef DEV_DEV_H
#define DEV_DEV_H

#include <errno.h>
#include <pthread.h>

#include <ploop/ploop.h>

#include "bat/bat.h"
#include "delta/stack.h"

enum { PIO_COUNT_DEFAULT = 128, PIO_COUNT_MAX = 65536, PARTS_MAX = 1024, RESERVATION_HASH = 256 };
#define MAX_REQUEST_BYTES (UINT64_C(1) << 30)

/* The states of a device, and the reasons for a closed gate: engine/state.h. */
enum dev_state {
    DEV_OPENING,
    DEV_RUNNING,
    DEV_SUSPENDED,
    DEV_CLOSING,
    DEV_CLOSED,
    DEV_ABORTING,
    DEV_STATES
};

enum gate_reason {
    GATE_SUSPENDED = 1 << 0,
    GATE_JOB = 1 << 1, /* a job changes the stack: what changes the disk is held, reads go on */
    GATE_CLOSED = 1 << 2,
    GATE_ABORTING = 1 << 3,
    GATE_CHANGES_REFUSED = 1 << 4, /* dev->refusal says why */
    GATE_ENGINE_ONLY = 1 << 5,     /* PLOOP_DEV_NO_FAST_PATH */
    GATE_MIRROR = 1 << 6,          /* a merge mirrors what changes the top: pio/merging.h */
    GATE_HOLDS = GATE_SUSPENDED | GATE_JOB,
    GATE_ENDS = GATE_CLOSED | GATE_ABORTING
};

/*
 * Work of the rooms above that takes long: `look` is called in the turn, after each batch of work,
 * and goes on when what it waits for is there. It may remove itself. While it `polls` it waits for
 * what rings nobody, and the engine comes back soon.
 */
struct dev_watch {
    struct list link; /* on dev->watches */
    void (*look)(struct dev_watch *watch);
    bool polls;
};

struct ploop_job;

/* What a close restores of the top's header where nothing changed. */
struct found_header {
    uint32_t in_use, flags;
    uint64_t extension_sector;
};

/* A thread of the library that runs queues: engine/runner.c. */
struct runner {
    struct ploop_dev *dev;
    uint32_t index; /* and the first of its queues */
    pthread_t thread;
    atomic_bool stop;
};

struct ploop_dev {
    struct turn turn;
    struct stack stack;   /* the files, and what is below the top */
    atomic_bool reaps;    /* a backend completes requests only when it is asked to */
    uint32_t queue_count; /* the users' */
    ploop_queue *queues;  /* and behind them the engine's: dev_engine_queue() */
    struct ploop_dev_config config;
    struct ploop_clock clock;
    uint32_t memory_alignment; /* what the backends want of requests' memory, up to a sector */
    _Atomic uint32_t fast_alignment; /* the same, of those with larger blocks too: what the engine
                                        has to bounce does not take the fast path */
    struct bounces bounces;
    bool read_only;
    bool native_zeroing;              /* what the top's backend said at open */
    bool is_inside;                   /* opened by dev_open_inside() */
    bool has_claims;                  /* on its files, see file_claim() */
    struct extension_keep *extension; /* life/extension_keep.h */
    struct found_header found;        /* before the mark; see R11 */
    atomic_bool changed;              /* a change was accepted: the header does not go back */
    enum dev_state state;             /* the turn's, as the next one */
    uint32_t gate_reasons;            /* why the gate is closed: enum gate_reason */
    _Atomic(struct delta *) fast_top; /* the top while the gate is open; NULL: it is closed, and
                                         every request goes to the engine */
    int refusal;                      /* with GATE_CHANGES_REFUSED: what a change fails with */
    struct list watches;              /* dev_watch.link: the turn's */
    bool all_durable;                 /* under GATE_JOB: nothing is left for a flush to do */
    bool in_commit;                   /* under GATE_JOB: the embedder is asked; see pio_hold() */
    _Atomic(struct ploop_job *) job;  /* the one that changes the stack: live/job.h */
    atomic_bool job_moves;            /* it is doing something that a suspend waits for */
    _Atomic(struct ploop_job *) job_unknown; /* how its commit ended nobody knows yet */
    _Atomic uint32_t jobs_to_tell; /* that have ended, and still change how a file is open */
    atomic_bool jobs_end; /* a close or abort has begun: a job is to end early, and none begins */
    _Atomic(void (*)(struct ploop_dev *dev)) end_jobs; /* at close and abort; NULL: there never was
                                                          a job */

    struct cluster_lock *locks;
    struct part *parts;
    struct list parts_free, part_waiters; /* pios */
    uint32_t parts_in_line;               /* for a cluster's lock */
    struct list reservation_hash[RESERVATION_HASH];

    uint8_t *cow_memory;
    uint64_t cow_bytes; /* of a buffer */
    struct cow_buffer *cow_all;
    struct list cow_buffers, cow_waiters; /* free ones; parts, for one */
    struct merging *merging;              /* pio/merging.h: the turn's; NULL: none */
    _Atomic(struct partials *)
        partials; /* pio/partial.h: the turn's; NULL: copies are not put off */
    _Atomic uint64_t clusters_copied, clusters_partial, copies_failed;

    struct inbox bulk; /* parts: pio/bulk.c */

    struct runner *runners; /* engine/runner.c; config.runner_count of them, or NULL */
    uint32_t runners_started;
    _Atomic uint32_t bulk_runner; /* who is next to do bulk work */

    struct list parked;    /* parts: ENOSPC_PARK; they hold no lock */
    struct list held;      /* pios: suspended */
    struct list later;     /* pios: they have had their share of the turn */
    atomic_bool has_later; /* `later` is not empty: a blocking call goes on instead of sleeping */
    uint64_t batch;        /* of work that the turn does now, counted by the pump */
    uint32_t steps;        /* that requests have taken in it */
    _Atomic uint64_t suspends;    /* suspends and resumes that the embedder asked for: odd for
                                  suspended; the turn follows */
    _Atomic uint32_t suspensions; /* begun by ploop_dev_suspend_start() and not ended */
    bool at_rest;                 /* rest.c */
    /* Pios that are parked with all their parts: no call waits for them. */
    _Atomic uint64_t stuck_count;
    uint64_t park_retry_ns;
    uint32_t parked_count; /* requests with parts that want space */
    uint32_t parked_told;  /* of those, what the embedder knows of */

    struct work run_work, delay_work, retry_work, resume_work;
    atomic_bool run_posted, delay_posted, retry_posted, resume_posted;
    uint64_t wanted_delay_ns, wanted_max_age_ns; /* under wait_mutex */
    _Atomic uint64_t flushes;
    _Atomic uint32_t done_by_run;
    _Atomic uint64_t next_deadline_ns;
    pthread_mutex_t clock_mutex;   /* around wake_at */
    _Atomic uint64_t announced_ns; /* what it was told last */
    _Atomic uint64_t ran_ns;       /* the time of the last run; the turn's, but for a look */
    atomic_bool engine_waits;      /* the engine's queue may have something to reap */
    bool announce_again;           /* a run came when that was due: the timer is spent */
    _Atomic uint64_t requests_parked;
    _Atomic uint64_t clusters_free, clusters_pending, file_size; /* copies for info.c */
    _Atomic uint32_t shown_state;                                /* for info.c, as the next one */
    _Atomic int32_t shown_error;

    pthread_mutex_t memory_mutex;
    struct iovec *memory; /* registered: life/memory.c; under memory_mutex */
    uint32_t memory_count;

    pthread_mutex_t wait_mutex;
    pthread_cond_t wait_cond;
    _Atomic uint32_t waiting;
    _Atomic uint64_t rings;
};

/* ---- what the device is made of ---- */
static inline struct delta *dev_top(const ploop_dev *dev)
{
    return stack_top(&dev->stack);
}

static inline struct bat *dev_bat(const ploop_dev *dev)
{
    return dev_top(dev)->bat;
}

static inline const struct guest_disk *dev_disk(const ploop_dev *dev)
{
    return atomic_load_explicit(&dev->stack.disk, memory_order_acquire);
}

/* The guest cluster at an offset of the disk, and how far inside of it that is. */
static inline struct guest_cluster cluster_of(const ploop_dev *dev, uint64_t offset,
                                              uint64_t *inside)
{
    return guest_cluster_at(dev_disk(dev), offset, inside);
}

/* ---- dev.c ---- */
uint64_t dev_now(const ploop_dev *dev);
void dev_log(const ploop_dev *dev, uint32_t level, uint32_t message_id, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/*
 * Between these two the thread stores its first line of level PLOOP_LOG_ERROR in this memory, too.
 * It is thread-local, so that a runner's line never comes when the memory is the caller's again.
 */
void dev_text_begin(char *text, size_t size);
void dev_text_end(int error);
void dev_event(const ploop_dev *dev, uint32_t event, uint64_t value);
/* A run: the turn's owner reaps the engine's queue and does what is due. Any thread. */
void dev_post_run(ploop_dev *dev);
/* Reaps this queue of all files, by the thread that has entered it. How many were completed. */
int dev_reap(ploop_dev *dev, uint32_t queue);
/* Wakes the calls that wait in block_until(). Any thread. */
void dev_wake(ploop_dev *dev);

/* Any thread, before the request is sent. */
static inline void dev_note_change(ploop_dev *dev)
{
    if (!atomic_load_explicit(&dev->changed, memory_order_relaxed)) {
        atomic_store(&dev->changed, true);
    }
}

/* In the turn. */
static inline bool gate_has(const ploop_dev *dev, uint32_t reasons)
{
    return dev->gate_reasons & reasons;
}

#endif
