/* SPDX-License-Identifier: MIT */
/* One SYNC in flight: what becomes wanted meanwhile shares the next one. */
#include "file/sync.h"

#include <assert.h>
#include <errno.h>

static void sync_done(struct channel_io *io, int result);

static void assert_syncer(const struct syncer *syncer)
{
#ifndef NDEBUG
    assert(syncer->succeeded <= syncer->submitted && syncer->submitted <= syncer->succeeded + 1);
    assert(syncer->in_flight || syncer->error || syncer->submitted == syncer->succeeded);
    assert(!syncer->in_flight || syncer->submitted == syncer->succeeded + 1);
    assert(syncer->wanted <= syncer->submitted + 1);
    assert((syncer->error == 0) == (syncer->cause == 0));
#else
    (void)syncer;
#endif
}

void sync_init(struct syncer *syncer, struct channel *channel)
{
    channel_io_init(&syncer->io, channel);
    syncer->io.trip = &syncer->tripped;
    list_init(&syncer->waiters);
    assert_syncer(syncer);
}

struct sync_number sync_next(const struct syncer *syncer)
{
    return (struct sync_number){syncer->submitted + 1};
}

bool sync_is_done(const struct syncer *syncer, struct sync_number number)
{
    return number.n <= syncer->succeeded;
}

void sync_want(struct syncer *syncer, struct sync_number number)
{
    if (number.n > syncer->wanted) {
        syncer->wanted = number.n;
    }
}

int sync_wait_for(struct syncer *syncer, struct sync_wait *wait, struct sync_number number,
                  sync_fn *then)
{
    assert(number.n <= sync_next(syncer).n);
    if (syncer->error) {
        return syncer->error;
    }
    if (sync_is_done(syncer, number)) {
        return 0;
    }
    wait->number = number;
    wait->then = then;
    list_append(&syncer->waiters, &wait->link);
    sync_want(syncer, number);
    assert_syncer(syncer);
    return 1;
}

void sync_pump(struct syncer *syncer)
{
    if (syncer->in_flight || syncer->error || syncer->wanted <= syncer->succeeded) {
        return;
    }
    syncer->in_flight = true;
    syncer->submitted++;
    assert(syncer->wanted <= syncer->submitted);
    assert_syncer(syncer);
    atomic_fetch_add_explicit(&syncer->count, 1, memory_order_relaxed);
    channel_order(&syncer->io, PLOOP_IO_SYNC, 0, 0, sync_done);
}

static void wake_waiters(struct syncer *syncer, int result)
{
    struct list due;
    list_init(&due);
    for (struct list *link = syncer->waiters.next, *next; link != &syncer->waiters; link = next) {
        next = link->next;
        if (result || sync_is_done(syncer, container_of(link, struct sync_wait, link)->number)) {
            list_remove(link);
            list_append(&due, link);
        }
    }
    struct list *link;
    while ((link = list_take_first(&due)) != NULL) {
        struct sync_wait *wait = container_of(link, struct sync_wait, link);
        wait->then(wait, result);
    }
}

static void sync_done(struct channel_io *io, int result)
{
    struct syncer *syncer = container_of(io, struct syncer, io);
    assert(syncer->in_flight);
    assert_syncer(syncer);
    syncer->in_flight = false;
    if (syncer->error) {
        return; /* given up while it was in flight: all waiters know */
    }
    if (result) {
        syncer->error = -EIO;
        syncer->cause = result;
        atomic_store(&syncer->tripped, -EIO);
        atomic_fetch_add_explicit(&syncer->failures, 1, memory_order_relaxed);
    } else {
        syncer->succeeded = syncer->submitted;
    }
    assert_syncer(syncer);
    syncer->done(syncer);
    wake_waiters(syncer, syncer->error);
}

void sync_fail_waiters(struct syncer *syncer, int error)
{
    assert(error);
    wake_waiters(syncer, error);
}

void sync_give_up(struct syncer *syncer, int error)
{
    if (!syncer->error) {
        syncer->error = syncer->cause = error;
        atomic_store(&syncer->tripped, error);
    }
}
