/* SPDX-License-Identifier: MIT */
/*
 * The engine's turn: what happens after each batch of work, and after the turn was given back.
 *
 * In the turn: reap the engine's queue, send what can be sent, tell the backends a batch has ended,
 * tell the clock when to come back. After it: tell the queues whose requests are done, and do the
 * bulk work on memory that the turn has left. The embedder's log, event and wake_at functions are
 * called in the turn; they must not call the library.
 *
 *  1. The engine's queue is submitted to, kicked and reaped by the owner of the turn only.
 *  2. One piece of work, run_work, does all that a run does in the turn. A run that finds the turn
 *     taken leaves it in the inbox, and the owner does it before it goes away: it looks at the
 *     engine's queue once more. So no completion there is lost between two threads.
 *  3. What is left undone, because it has had its share of the turn, or because the turn was handed
 *     over, is announced as a deadline of 0 to the clock and to every queue's descriptor. A thread
 *     never stays for it.
 */
#include "engine/engine.h"

#include "engine/runner.h"
#include "engine/state.h"
#include "pio/pio.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <assert.h>
#include <time.h>

static uint64_t monotonic_ns(void *context)
{
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t bat_now(void *owner)
{
    return dev_now(owner);
}

static void page_failed(void *owner, int error)
{
    assert(error < 0);
    dev_event(owner, PLOOP_EVENT_FAILED, (uint64_t)-error);
}

static void latched(void *owner, int cause)
{
    ploop_dev *dev = owner;
    assert(cause < 0 && bat_latch(dev_bat(dev)));
    if (dev->config.sync_failed_policy == PLOOP_SYNC_FAILED_REFUSE_CHANGES &&
        !gate_has(dev, GATE_CHANGES_REFUSED)) {
        dev->refusal = -EIO;
        gate_change(dev, 0, GATE_CHANGES_REFUSED);
    }
    dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_SYNC_FAILED,
            "a SYNC failed: %s; data written since the last flush may be lost, and every flush "
            "fails from now on; close the image and open it again with recovery",
            ERROR_TEXT(cause));
    dev_event(dev, PLOOP_EVENT_SYNC_FAILED, (uint64_t)-cause);
}

/* ---- the clock ---- */

/*
 * A part may wait for a lock whose holder is done at the backend, on the queue of a thread that
 * sleeps; or for room in a backend that such requests fill. What is there rings no other thread, so
 * that a run looks at all queues, and comes again soon.
 */
#define LINE_NS UINT64_C(2000000)

/* Requests of the engine wait for room, and none of its own is at the backend to make some. */
static bool others_fill_a_backend(const ploop_dev *dev)
{
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        const struct channel *channel = &delta->channel;
        if (channel->in_flight == 0 && channel_is_full(channel)) {
            return true;
        }
    }
    return false;
}

/* What a watch waits for may be that the fast path is done, which rings nobody. */
static bool is_polled(const ploop_dev *dev)
{
    bool polls = false;
    for (struct list *link = dev->watches.next; link != &dev->watches; link = link->next) {
        polls |= container_of(link, struct dev_watch, link)->polls;
    }
    return polls;
}

static bool other_queues_matter(const ploop_dev *dev)
{
    return dev->reaps && dev->queue_count > 1 &&
           (dev->parts_in_line > 0 || is_polled(dev) || others_fill_a_backend(dev));
}

static uint32_t reap_other_queues(ploop_dev *dev)
{
    uint32_t done = 0;
    for (uint32_t i = 0; other_queues_matter(dev) && i < dev->queue_count; i++) {
        done += (uint32_t)queue_reap(&dev->queues[i]);
    }
    return done;
}

/* A timer may fire this much before its time: its run finds nothing due, and must set it again. */
#define EARLY_NS UINT64_C(2000000)

/* With a clock that went back it may have fired all the same. */
static bool timer_may_have_fired(const ploop_dev *dev, uint64_t now)
{
    uint64_t announced = atomic_load(&dev->announced_ns);
    return now >= announced || announced - now <= EARLY_NS || now < atomic_load(&dev->ran_ns);
}

/* The turn's owner has perhaps not yet said what it waits for: look at `owned` first. */
bool engine_is_due(const ploop_dev *dev)
{
    uint64_t next = atomic_load(&dev->next_deadline_ns);
    if (atomic_load(&dev->turn.owned) || atomic_load(&dev->engine_waits) || next == 0) {
        return true;
    }
    if (next == UINT64_MAX && atomic_load(&dev->announced_ns) == UINT64_MAX) {
        return false;
    }
    uint64_t now = dev_now(dev);
    return now >= next || timer_may_have_fired(dev, now);
}

static uint64_t earliest(ploop_dev *dev)
{
    if (!list_is_empty(&dev->later)) {
        return 0;
    }
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        if (channel_wants_run(&delta->channel)) {
            return 0;
        }
    }
    uint64_t next = bat_latch(dev_bat(dev)) ? UINT64_MAX : bat_next_deadline(dev_bat(dev));
    uint64_t copies = bat_latch(dev_bat(dev)) ? UINT64_MAX : partial_next_deadline(dev);
    next = copies < next ? copies : next;
    if (!list_is_empty(&dev->parked) && !gate_has(dev, GATE_HOLDS) && dev->park_retry_ns < next) {
        next = dev->park_retry_ns;
    }
    if ((other_queues_matter(dev) || is_polled(dev)) && dev->ran_ns + LINE_NS < next) {
        next = dev->ran_ns + LINE_NS;
    }
    return next;
}

static void ring_queues(ploop_dev *dev)
{
    for (uint32_t i = 0; i < (dev->config.runner_count ? 1 : dev->queue_count); i++) {
        queue_ring(&dev->queues[i]); /* of several runners the first one keeps the time */
    }
    dev_wake(dev);
}

/* wake_at and the record of what it was told change together, under clock_mutex. */
static void tell_clock(ploop_dev *dev, uint64_t when)
{
    pthread_mutex_lock(&dev->clock_mutex);
    atomic_store(&dev->announced_ns, when);
    if (when != UINT64_MAX && dev->clock.wake_at) {
        dev->clock.wake_at(dev->clock.context, when);
    }
    pthread_mutex_unlock(&dev->clock_mutex);
}

/*
 * Tell the embedder when to run, in two ways, each of which is enough alone.
 *
 *     descriptor  A loop sleeps until the last value of ploop_dev_next_deadline(). It is rung when
 *                 that value moves forward.
 *     wake_at     A timer holds what wake_at asked for last. wake_at is called when the deadline
 *                 moves forward from that, and after a run that may have used up the timer. A
 *                 deadline that moves back is not told: the run that comes too early finds the new
 *                 one.
 */
static void announce(ploop_dev *dev)
{
    uint64_t next = earliest(dev);
    if (next < atomic_exchange(&dev->next_deadline_ns, next)) {
        ring_queues(dev);
    }
    if (next < atomic_load(&dev->announced_ns) || dev->announce_again) {
        dev->announce_again = false;
        tell_clock(dev, next);
    }
}

uint64_t ploop_dev_next_deadline(const ploop_dev *dev)
{
    return atomic_load(&dev->next_deadline_ns);
}

/* ---- the turn ---- */

static void publish_state(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    uint32_t state = (dev->read_only ? PLOOP_STATE_READ_ONLY : 0u) |
                     (dev->state == DEV_SUSPENDED ? PLOOP_STATE_SUSPENDED : 0u) |
                     (bat_latch(bat) ? PLOOP_STATE_SYNC_FAILED : 0u) |
                     (bat->over_limit ? PLOOP_STATE_ALLOCATION_REFUSED : 0u);
    int error = bat_latch(bat) ? bat->syncer.cause : bat->over_limit ? bat->allocation_error : 0;
    atomic_store_explicit(&dev->shown_state, state, memory_order_relaxed);
    atomic_store_explicit(&dev->shown_error, error, memory_order_relaxed);
    atomic_store_explicit(&dev->clusters_free, alloc_free_count(&bat->alloc), memory_order_relaxed);
    atomic_store_explicit(&dev->clusters_pending, bat->alloc.pending.clusters,
                          memory_order_relaxed);
    atomic_store_explicit(&dev->file_size, bat->alloc.work.file_size, memory_order_relaxed);
}

/* Once per turn: a request that is retried and parked again must not send two events. */
static void tell_parked(ploop_dev *dev)
{
    if (dev->parked_count == dev->parked_told) {
        return;
    }
    dev->parked_told = dev->parked_count;
    atomic_store_explicit(&dev->requests_parked, dev->parked_count, memory_order_relaxed);
    dev_event(dev, dev->parked_count ? PLOOP_EVENT_PARKED : PLOOP_EVENT_RESUMED, dev->parked_count);
}

static void look_at_watches(ploop_dev *dev)
{
    struct list watches, *link;
    list_init(&watches);
    list_move_all(&watches, &dev->watches);
    while ((link = list_take_first(&watches)) != NULL) {
        struct dev_watch *watch = container_of(link, struct dev_watch, link);
        list_append(&dev->watches, link);
        watch->look(watch);
    }
}

static void engine_pump(struct turn *turn)
{
    ploop_dev *dev = container_of(turn, ploop_dev, turn);
    if (!dev->read_only) {
        partial_pump(dev);
        bat_pump(dev_bat(dev));
    }
    look_at_watches(dev);
    bool waits = false;
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        waits |= dev->reaps && delta->channel.in_flight > 0;
    }
    atomic_store(&dev->engine_waits, waits);
    help_or_kick(dev);
    publish_state(dev);
    tell_parked(dev);
    announce(dev);
    atomic_store(&dev->has_later, !list_is_empty(&dev->later));
    dev->batch++;
    dev->steps = 0;
}

static void engine_leave(struct turn *turn)
{
    ploop_dev *dev = container_of(turn, ploop_dev, turn);
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        queue_announce(&dev->queues[i]);
    }
    if (dev->config.runner_count == 0 || on_runner()) {
        bulk_run(dev);
    } else if (!inbox_is_empty(&dev->bulk)) {
        runners_do_bulk(dev);
    }
}

/* How long others' work may hold a thread that only came with its own. */
#define HELD_NS UINT64_C(500000)

/*
 * Called outside the turn. It asks the embedder for a run now. That run asks for the right deadline
 * again, because 0 was asked for last. Another thread may take the turn before that run: it then
 * does the work that is left, or hands it over itself.
 */
static bool engine_hand_over(struct turn *turn, uint64_t *since)
{
    ploop_dev *dev = container_of(turn, ploop_dev, turn);
    uint64_t now = dev_now(dev);
    if (*since == 0 || now < *since) {
        *since = now;
    }
    if (now - *since < HELD_NS) {
        return false;
    }
    tell_clock(dev, 0);
    if (atomic_exchange(&dev->next_deadline_ns, 0) != 0) {
        ring_queues(dev);
    }
    return true;
}

static void run_due(struct work *work)
{
    ploop_dev *dev = container_of(work, ploop_dev, run_work);
    assert(work == &dev->run_work);
    atomic_store(&dev->run_posted, false); /* before it looks: see dev_post_run() */
    uint64_t now = dev_now(dev);
    uint32_t done = dev->reaps ? (uint32_t)dev_reap(dev, dev->queue_count) : 0;
    dev->announce_again |= timer_may_have_fired(dev, now);
    dev->ran_ns = now;
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        done += channel_retry(&delta->channel);
    }
    if (!dev->read_only && !bat_latch(dev_bat(dev))) {
        done += partial_run_deadlines(dev, now);
        done += bat_run_deadlines(dev_bat(dev), now);
    }
    done += space_retry_parked(dev, false);
    done += reap_other_queues(dev);
    done += pio_go_on(dev);
    atomic_fetch_add(&dev->done_by_run, done);
}

int engine_run(ploop_dev *dev)
{
    int done = 0;
    for (uint32_t i = 0; i < dev->queue_count; i++) {
        done += queue_reap(&dev->queues[i]);
    }
    dev_post_run(dev);
    done += atomic_load(&dev->run_posted); /* another thread has the turn, and will do it */
    return done + (int)atomic_exchange(&dev->done_by_run, 0);
}

int ploop_dev_run(ploop_dev *dev)
{
    return engine_run(dev);
}

static void retry_now(struct work *work)
{
    ploop_dev *dev = container_of(work, ploop_dev, retry_work);
    atomic_store(&dev->retry_posted, false);
    space_retry_parked(dev, true);
}

int ploop_dev_retry_parked(ploop_dev *dev)
{
    uint64_t parked = atomic_load(&dev->requests_parked);
    if (parked && !atomic_exchange(&dev->retry_posted, true)) {
        turn_post(&dev->turn, &dev->retry_work);
    }
    return (int)parked;
}

static void ignore(void *owner, int error)
{
    (void)owner;
    (void)error;
}

void engine_join_bat(ploop_dev *dev, struct bat *bat)
{
    bat->owner = dev;
    bat->now_ns = bat_now;
    bat->failed = bat->latched = ignore;
}

void engine_adopt_bat(ploop_dev *dev, struct bat *bat)
{
    engine_join_bat(dev, bat);
    bat->failed = page_failed;
    bat->latched = latched;
}

void engine_init(ploop_dev *dev)
{
    dev->turn.pump = engine_pump;
    dev->turn.leave = engine_leave;
    dev->turn.hand_over = engine_hand_over;
    dev->run_work.run = run_due;
    dev->retry_work.run = retry_now;
    atomic_store(&dev->announced_ns, UINT64_MAX);
    atomic_store(&dev->next_deadline_ns, UINT64_MAX);
    if (!dev->clock.now_ns) {
        dev->clock.now_ns = monotonic_ns;
    }
    engine_adopt_bat(dev, dev_bat(dev));
}
