/* SPDX-License-Identifier: MIT */
/*
 * Jobs: what all long operations on a live disk share.
 *
 *     RUNNING <--> PAUSED                      RUNNING ---> ENDED
 *     RUNNING ---> COMMIT --answered--> RUNNING
 *
 *  1. A device has one job at a time: dev->job, which is claimed by the thread that starts it and
 *     given up in the turn, when the job ends.
 *  2. A job is steps of the turn: its `look` runs after each batch of the turn's work and goes on
 *     when what it waits for is there.
 *  3. What other threads ask for (an answer, a cancel, a close) is noted in atomics and followed in
 *     the turn of the run that they post. So an answer from inside of `commit` does not nest, and
 *     nothing of a job lies in the inbox when it is freed.
 *  4. Callbacks are delivered as requests are, by a pio on queue 0. `due` says what is to be
 *     called; the pio is pushed by the first bit that is set, and END is the last: so it is pushed
 *     once at a time, and never after the handle may be freed.
 *     Where they are to be reaped the call leaves a notice instead: of the commit first, and of
 *     the end, with which the handle may be freed.
 *  5. All memory is taken when a job starts. Its first step comes when no cluster is partial
 *     (pio/partial.h): from the claim on none becomes so. One that cannot be completed ends it.
 *  6. `dev` is looked at only while the job has not ended, or by the thread that delivers its end.
 */
#ifndef LIVE_JOB_H
#define LIVE_JOB_H

#include <limits.h>

#include <ploop/ops.h>

#include "dev/dev.h"
#include "pio/pio.h"

enum { JOB_CALLS_COMMIT = 1, JOB_CALLS_FN = 2 };
enum job_life { JOB_ALIVE, JOB_TELLING, JOB_KEPT, JOB_OVER, JOB_FREED };
#define JOB_UNANSWERED INT_MAX

struct job_kind {
    uint32_t kind;                     /* PLOOP_JOB_SNAPSHOT ... */
    void (*look)(ploop_job *job);      /* in the turn: go on if something can */
    void (*before_fn)(ploop_job *job); /* outside of the turn; may block; NULL: nothing */
    void (*destroy)(ploop_job *job);   /* its own memory, the structure included */
    /* Whether PLOOP_COMMIT_UNKNOWN is no answer: it goes on waiting for another; NULL: it is one */
    bool (*asks_on)(const ploop_job *job);
};

struct ploop_job {
    ploop_dev *dev;
    const struct job_kind *kind;
    ploop_job_commit_fn *commit;
    ploop_job_fn *fn;
    void *user_data;

    struct dev_watch watch;
    struct work begin;

    _Atomic uint32_t state, step; /* PLOOP_JOB_ ...: the turn's, others look */
    _Atomic int32_t result;
    _Atomic uint64_t bytes_done, bytes_total, rate;

    struct partial_wait copies; /* before the first step */
    bool completes, has_begun;  /* they are under way; they are done */
    int copies_error;

    atomic_bool cancelled; /* asked for */
    _Atomic int answer;    /* JOB_UNANSWERED: none yet */
    atomic_bool asked;     /* `commit` has returned, or there is none */
    atomic_bool may_know;  /* it is being called, or that is so: the record may have been begun */
    atomic_bool unknown;   /* PLOOP_COMMIT_UNKNOWN: it is dev->job_unknown, until that is told */

    _Atomic uint32_t due; /* JOB_CALLS_ ... */
    _Atomic uint32_t life;
    ploop_pio pio;
    struct notice commit_notice, end_notice;
};

/* Whether these callbacks cannot be: no one reaps where there are runners. */
bool job_is_misled(const ploop_dev *dev, ploop_job_commit_fn *commit, ploop_job_fn *fn);

/*
 * Any thread. The device's one job. 0, -EBUSY, -EROFS, -EIO where the device has failed, or
 * -ECANCELED where it is being closed. After 0 job_drop(), or job_begin(), which is the last that
 * the starting thread does: it may free the job.
 */
int job_claim(ploop_dev *dev, ploop_job *job, const struct job_kind *kind);
void job_drop(ploop_job *job);
void job_begin(ploop_job *job);

/* ---- in the turn ---- */
void job_set_step(ploop_job *job, uint32_t step);
/* Whether it is to pause, because the device is suspended; it says so to those who look. */
bool job_pauses(ploop_job *job);
/* Whether it is to end early. */
bool job_is_cancelled(const ploop_job *job);
/*
 * The job waits for job_changes_are_over(), or no more. Who ends a request of the fast path wakes
 * it; where backends are reaped that may be a thread that sleeps, so there it polls.
 */
void job_drains(ploop_job *job, bool drains);
/* Under GATE_JOB: no change is in flight, but those that wait for space with all their parts. */
bool job_changes_are_over(ploop_dev *dev);
/*
 * Whether the rate allows to move more now; else it is asked again when that may have changed. A
 * new rate counts from when it is seen. What was moved is counted in job->bytes_done.
 */
struct job_rate {
    uint64_t rate, since_ns, done; /* it holds since then; what was done before */
};
bool job_may_move(ploop_job *job, struct job_rate *rate);
/* The embedder is asked; job->answer will say. */
void job_ask(ploop_job *job);
/*
 * Whether it is answered: then *result is 0 or -errno, and the state is RUNNING. Then
 * job_outcome_is_open() is whether the embedder may have begun its record, and has not said how it
 * ended.
 */
bool job_is_answered(ploop_job *job, int *result);
bool job_outcome_is_open(const ploop_job *job);
/*
 * The top's mark was to be set again, with this result: changes go on, or where it could not be set
 * are refused from now on.
 */
void job_go_back(ploop_job *job, uint32_t message_id, int result);
/* The end. `look` is not called any more, and another job may begin. */
void job_end(ploop_job *job, int result);

#endif
