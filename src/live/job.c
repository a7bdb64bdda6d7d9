/* SPDX-License-Identifier: MIT */
/* The states of job.h, and the public calls that are the same for all jobs. */
#include "live/job.h"

#include "engine/engine.h"
#include "engine/state.h"
#include "pio/queue.h"
#include "util/error_text.h"
#include "util/sized.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

static void set_job_state(ploop_job *job, uint32_t state)
{
#ifndef NDEBUG
    static const uint32_t next[] = {
        [0] = 1u << PLOOP_JOB_RUNNING,
        [PLOOP_JOB_RUNNING] =
            1u << PLOOP_JOB_PAUSED | 1u << PLOOP_JOB_COMMIT | 1u << PLOOP_JOB_ENDED,
        [PLOOP_JOB_PAUSED] = 1u << PLOOP_JOB_RUNNING,
        [PLOOP_JOB_COMMIT] = 1u << PLOOP_JOB_RUNNING,
        [PLOOP_JOB_ENDED] = 0,
    };
    assert(next[atomic_load(&job->state)] & 1u << state);
#endif
    atomic_store(&job->state, state);
    atomic_store(&job->dev->job_moves, state == PLOOP_JOB_RUNNING);
}

/* ---- callbacks ---- */

void ploop_job_reap_commit(void *user_data, ploop_job *job)
{
    (void)user_data;
    (void)job;
}

void ploop_job_reap_end(void *user_data, ploop_job *job, int result)
{
    (void)user_data;
    (void)job;
    (void)result;
}

bool job_is_misled(const ploop_dev *dev, ploop_job_commit_fn *commit, ploop_job_fn *fn)
{
    return dev->config.runner_count > 0 &&
           (commit == ploop_job_reap_commit || fn == ploop_job_reap_end);
}

static void commit_reaped(struct notice *notice)
{
    (void)notice;
}

static void end_reaped(struct notice *notice)
{
    atomic_store(&container_of(notice, ploop_job, end_notice)->life, JOB_OVER);
}

static void keep(ploop_job *job, struct notice *notice, uint32_t kind, int result,
                 void (*reaped)(struct notice *notice))
{
    notice->completion = (struct ploop_completion){
        .job = job, .user_data = job->user_data, .result = result, .kind = kind};
    notice->reaped = reaped;
    queue_keep(&job->dev->queues[0], notice);
}

static void tell_end(ploop_job *job)
{
    ploop_dev *dev = job->dev;
    const struct job_kind *kind = job->kind;
    if (kind->before_fn) {
        kind->before_fn(job);
        atomic_fetch_sub(&dev->jobs_to_tell, 1);
    }
    if (job->fn == ploop_job_reap_end) {
        atomic_store(&job->life, JOB_KEPT);
        keep(job, &job->end_notice, PLOOP_COMPLETION_JOB_END, atomic_load(&job->result),
             end_reaped);
        dev_wake(dev);
        return;
    }
    atomic_store(&job->life, JOB_TELLING);
    if (job->fn) {
        job->fn(job->user_data, job, atomic_load(&job->result));
    }
    uint32_t telling = JOB_TELLING;
    if (!atomic_compare_exchange_strong(&job->life, &telling, JOB_OVER)) {
        kind->destroy(job); /* freed in fn */
    }
    dev_wake(dev);
}

static bool is_waiting(const ploop_job *job)
{
    return atomic_load(&job->state) == PLOOP_JOB_COMMIT &&
           atomic_load(&job->answer) == JOB_UNANSWERED;
}

static void deliver(ploop_pio *pio, int result, void *user_data)
{
    ploop_job *job = user_data;
    uint32_t due = atomic_exchange(&job->due, 0);
    assert(pio == &job->pio && due);
    (void)pio;
    (void)result;
    atomic_store(&job->may_know,
                 due & JOB_CALLS_COMMIT);            /* before it looks: job_outcome_is_open() */
    if (due & JOB_CALLS_COMMIT && is_waiting(job)) { /* not where a close came first */
        if (job->commit == ploop_job_reap_commit) {
            keep(job, &job->commit_notice, PLOOP_COMPLETION_JOB_COMMIT, 0, commit_reaped);
        } else {
            job->commit(job->user_data, job);
        }
        atomic_store(&job->asked, true);
        dev_wake(job->dev);
    }
    if (due & JOB_CALLS_FN) {
        tell_end(job);
    }
}

static void call_later(ploop_job *job, uint32_t what)
{
    if (atomic_fetch_or(&job->due, what) == 0) {
        queue_push(&job->dev->queues[0], &job->pio);
    }
}

/* ---- start and end ---- */

/* At close the job is ended before requests are refused; at abort it has ended. */
static bool no_job(ploop_dev *dev, void *argument)
{
    (void)argument;
    return atomic_load(&dev->job) == NULL;
}

static void end_jobs(ploop_dev *dev)
{
    ploop_job *job = atomic_load(&dev->job);
    if (job) {
        dev_post_run(dev);
        block_until(dev, no_job, NULL);
    }
    job = atomic_exchange(&dev->job_unknown, NULL);
    if (job) {
        atomic_store(&job->unknown, false);
    }
}

void job_drop(ploop_job *job)
{
    assert(atomic_load(&job->dev->job) == job);
    atomic_store(&job->dev->job, NULL);
}

int job_claim(ploop_dev *dev, ploop_job *job, const struct job_kind *kind)
{
    uint32_t state = atomic_load(&dev->shown_state);
    ploop_job *none = NULL;
    if (state & PLOOP_STATE_READ_ONLY) {
        return -EROFS;
    }
    if (state & PLOOP_STATE_SYNC_FAILED || atomic_load(&dev_bat(dev)->stats.pages_failed)) {
        return -EIO;
    }
    job->dev = dev;
    job->kind = kind;
    atomic_store(&job->answer, JOB_UNANSWERED);
    atomic_store(&dev->end_jobs, end_jobs);
    if (!atomic_compare_exchange_strong(&dev->job, &none, job)) {
        return -EBUSY;
    }
    /* Only now: what a job that has just ended left, and a close that has looked for a job. */
    bool ends = atomic_load(&dev->jobs_end);
    if (ends || atomic_load(&dev->job_unknown) || atomic_load(&dev->jobs_to_tell)) {
        job_drop(job);
        return ends ? -ECANCELED : -EBUSY;
    }
    pio_init(&job->pio, &dev->queues[0]);
    job->pio.callback = deliver;
    job->pio.user_data = job;
    return 0;
}

static void completed(struct partial_wait *wait, int result)
{
    ploop_job *job = container_of(wait, ploop_job, copies);
    job->completes = false;
    job->has_begun = true;
    job->copies_error = result;
    turn_again(&job->dev->turn);
}

/* No cluster is partial any more; or the job ends before its first step, as a cancelled one. */
static bool has_begun(ploop_job *job)
{
    if (!job->has_begun && !job->completes && !job_pauses(job)) {
        job->completes = partial_wait_for_all(job->dev, &job->copies, completed);
        job->has_begun = !job->completes;
    }
    return job->has_begun;
}

static void look(struct dev_watch *watch)
{
    ploop_job *job = container_of(watch, ploop_job, watch);
    if (has_begun(job)) {
        job->kind->look(job);
    }
}

static void begin(struct work *work)
{
    ploop_job *job = container_of(work, ploop_job, begin);
    job->watch.look = look;
    set_job_state(job, PLOOP_JOB_RUNNING);
    list_append(&job->dev->watches, &job->watch.link);
}

void job_begin(ploop_job *job)
{
    job->begin.run = begin;
    dev_note_change(job->dev);
    turn_post(&job->dev->turn, &job->begin);
}

void job_end(ploop_job *job, int result)
{
    ploop_dev *dev = job->dev;
    assert(result <= 0 && !gate_has(dev, GATE_JOB));
    if (job->copies_error && result == -ECANCELED) {
        result = job->copies_error;
    }
    list_remove(&job->watch.link);
    atomic_store(&job->result, result);
    if (atomic_load(&job->state) == PLOOP_JOB_PAUSED) {
        set_job_state(job, PLOOP_JOB_RUNNING);
    }
    set_job_state(job, PLOOP_JOB_ENDED);
    atomic_fetch_add(&dev->jobs_to_tell, job->kind->before_fn != NULL);
    atomic_store(&dev->job, NULL);
    call_later(job, JOB_CALLS_FN);
    dev_wake(dev);
}

/* ---- steps ---- */

void job_set_step(ploop_job *job, uint32_t step)
{
    atomic_store(&job->step, step);
}

/* One that pauses hears of it when it goes on: to undo something is to write. */
bool job_is_cancelled(const ploop_job *job)
{
    bool ends = atomic_load(&job->cancelled) || job->copies_error;
    return (ends && atomic_load(&job->state) != PLOOP_JOB_PAUSED) ||
           atomic_load(&job->dev->jobs_end) || job->dev->state == DEV_ABORTING;
}

bool job_pauses(ploop_job *job)
{
    bool pauses = job->dev->state == DEV_SUSPENDED && !job_is_cancelled(job);
    uint32_t state = pauses ? PLOOP_JOB_PAUSED : PLOOP_JOB_RUNNING;
    if (atomic_load(&job->state) != state) {
        set_job_state(job, state);
    }
    return pauses;
}

void job_drains(ploop_job *job, bool drains)
{
    ploop_dev *dev = job->dev;
    job->watch.polls = drains && atomic_load(&dev->reaps);
    channel_drain(&dev_top(dev)->channel, CHANNEL_DRAIN_JOB, drains);
}

bool job_changes_are_over(ploop_dev *dev)
{
    uint64_t changes = 0;
    if (channel_in_lanes(&dev_top(dev)->channel) > 0) {
        return false;
    }
    for (uint32_t i = 0; i <= dev->queue_count; i++) {
        changes += atomic_load(&dev->queues[i].in_flight) >> IN_FLIGHT_CHANGES_SHIFT;
    }
    return changes == atomic_load(&dev->stuck_count) >> IN_FLIGHT_CHANGES_SHIFT;
}

bool job_may_move(ploop_job *job, struct job_rate *rate)
{
    uint64_t wanted = atomic_load(&job->rate), now = dev_now(job->dev);
    uint64_t done = atomic_load(&job->bytes_done);
    if (wanted != rate->rate || now < rate->since_ns) {
        *rate = (struct job_rate){.rate = wanted, .since_ns = now, .done = done};
    }
    double seconds = (double)(now - rate->since_ns) / 1e9;
    bool may = wanted == 0 || (double)(done - rate->done) <= seconds * (double)wanted;
    job->watch.polls = !may;
    return may;
}

void job_go_back(ploop_job *job, uint32_t message_id, int result)
{
    ploop_dev *dev = job->dev;
    if (result && !gate_has(dev, GATE_CHANGES_REFUSED)) {
        dev_log(dev, PLOOP_LOG_ERROR, message_id,
                "the in-use mark cannot be set again: %s; the disk can only be read from now on",
                ERROR_TEXT(result));
        dev->refusal = result;
        gate_change(dev, 0, GATE_CHANGES_REFUSED);
    }
    gate_change(dev, GATE_JOB, 0);
}

void job_ask(ploop_job *job)
{
    ploop_dev *dev = job->dev;
    job_set_step(job, PLOOP_JOB_STEP_COMMIT);
    set_job_state(job, PLOOP_JOB_COMMIT);
    if (gate_has(dev, GATE_JOB)) {
        dev->in_commit = true;
        pio_refuse_held(dev);
        space_refuse_parked(dev);
    }
    if (job->commit) {
        call_later(job, JOB_CALLS_COMMIT);
    } else {
        atomic_store(&job->asked, true);
        atomic_store(&job->may_know, true);
    }
    dev_wake(dev);
}

bool job_is_answered(ploop_job *job, int *result)
{
    ploop_dev *dev = job->dev;
    int answer = atomic_load(&job->answer);
    bool must_end = atomic_load(&dev->jobs_end) || dev->state == DEV_ABORTING;
    /* A refusal is undone, which writes. */
    bool waits = answer == JOB_UNANSWERED || (answer && dev->state == DEV_SUSPENDED);
    if (waits && !must_end) {
        return false;
    }
    if (answer == PLOOP_COMMIT_UNKNOWN) {
        atomic_store(&job->unknown, true);
        atomic_store(&dev->job_unknown, job);
    }
    *result = answer == JOB_UNANSWERED         ? -ECANCELED
              : answer == PLOOP_COMMIT_UNKNOWN ? -EINPROGRESS
                                               : answer;
    dev->in_commit = false;
    set_job_state(job, PLOOP_JOB_RUNNING);
    return true;
}

bool job_outcome_is_open(const ploop_job *job)
{
    assert(atomic_load(&job->state) == PLOOP_JOB_RUNNING);
    return atomic_load(&job->answer) == JOB_UNANSWERED && atomic_load(&job->may_know);
}

/* ---- the public calls ---- */

int ploop_job_committed(ploop_job *job, int result)
{
    if (!job || result > PLOOP_COMMIT_UNKNOWN) {
        return -EINVAL;
    }
    if (atomic_load(&job->unknown) && result != PLOOP_COMMIT_UNKNOWN) {
        atomic_store(&job->dev->job_unknown, NULL);
        atomic_store(&job->unknown, false);
        return 0;
    }
    if (result == PLOOP_COMMIT_UNKNOWN && job->kind->asks_on && job->kind->asks_on(job)) {
        return is_waiting(job) ? 0 : -EINVAL;
    }
    int unanswered = JOB_UNANSWERED;
    if (atomic_load(&job->state) != PLOOP_JOB_COMMIT ||
        !atomic_compare_exchange_strong(&job->answer, &unanswered, result)) {
        return -EINVAL;
    }
    dev_post_run(job->dev);
    return 0;
}

int ploop_job_info(ploop_job *job, struct ploop_job_info *info)
{
    if (!job || sized_out_check(info, offsetof(struct ploop_job_info, reserved))) {
        return -EINVAL;
    }
    struct ploop_job_info full = {
        .kind = job->kind->kind,
        .state = atomic_load(&job->state) ? atomic_load(&job->state) : PLOOP_JOB_RUNNING,
        .step = atomic_load(&job->step),
        .result = atomic_load(&job->result),
        .bytes_done = atomic_load(&job->bytes_done),
        .bytes_total = atomic_load(&job->bytes_total),
        .rate = atomic_load(&job->rate),
    };
    sized_out(info, &full, sizeof(full));
    return 0;
}

/* Its end was told, or is to be reaped. */
static bool has_told(const ploop_job *job)
{
    uint32_t life = atomic_load(&job->life);
    return life == JOB_OVER || life == JOB_KEPT;
}

/* Whether the wait ends. Runs callbacks of queue 0, as ploop_queue_wait() would. */
static bool is_over(ploop_dev *dev, void *argument)
{
    ploop_job *job = argument;
    if (dev->config.runner_count == 0) {
        help_kick(dev); /* a callback may take long */
        queue_deliver(&dev->queues[0], NULL);
    }
    return has_told(job) || (is_waiting(job) && atomic_load(&job->asked));
}

int ploop_job_wait(ploop_job *job)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    if (!has_told(job)) {
        block_until(job->dev, is_over, job);
    }
    return has_told(job) ? atomic_load(&job->result) : -EAGAIN;
}

int ploop_job_cancel(ploop_job *job)
{
    uint32_t state = atomic_load(&job->state), step = atomic_load(&job->step);
    if (state == PLOOP_JOB_ENDED) {
        return -EALREADY;
    }
    if (state == PLOOP_JOB_COMMIT || step == PLOOP_JOB_STEP_FINISH) {
        return -EBUSY;
    }
    atomic_store(&job->cancelled, true);
    dev_post_run(job->dev);
    return 0;
}

void ploop_job_set_rate(ploop_job *job, uint64_t bytes_per_second)
{
    atomic_store(&job->rate, bytes_per_second);
}

int ploop_job_free(ploop_job *job)
{
    if (!job) {
        return 0;
    }
    uint32_t telling = JOB_TELLING;
    if (atomic_load(&job->unknown)) {
        return -EBUSY;
    }
    if (atomic_compare_exchange_strong(&job->life, &telling, JOB_FREED)) {
        return 0; /* when fn has returned */
    }
    if (atomic_load(&job->life) != JOB_OVER) {
        return -EBUSY;
    }
    job->kind->destroy(job);
    return 0;
}
