/* SPDX-License-Identifier: MIT */
/*
 * Queues: the pool, the ring at the backend, delivery of callbacks, and the descriptor of an event
 * loop.
 */
#include "scenarios.h"

#include <stdlib.h>

#include "pio/queue.h"
#include "world.h"

/* ---- the pool ---- */

static bool has_room(void *seen)
{
    return world->room_events != *(const uint64_t *)seen;
}

/*
 * As an embedder does: without a request, wait until the event says that another try is worth it.
 */
static ploop_pio *get_patiently(void)
{
    for (;;) {
        uint64_t seen = world->room_events;
        ploop_pio *pio = ploop_pio_get(world->queue);
        if (pio) {
            return pio;
        }
        sched_wait(HERE, "waits for POOL_HAS_ROOM", has_room, &seen, 0);
    }
}

static void get_and_put(void *unused)
{
    (void)unused;
    ploop_pio *pio = get_patiently();
    struct request *owner = &world->requests[0]; /* `calls`: the fiber that has a request */
    sched_point(HERE, "has one", owner, true);
    if (owner->pio == pio) {
        sched_fail("two threads have the same request");
    }
    owner->pio = pio;
    sched_point(HERE, "has one", owner, true);
    owner->pio = NULL;
    ploop_pio_put(pio);
}

static void pool_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .pio_count = 1});
    sched_spawn("one", get_and_put, NULL, false);
    sched_spawn("two", get_and_put, NULL, false);
    sched_spawn("three", get_and_put, NULL, false);
}

static void pool_finish(void)
{
    ploop_pio *pio = ploop_pio_get(world->queue);
    if (!pio || ploop_pio_get(world->queue)) {
        sched_fail("the pool has not the one request it began with");
    }
}

const struct scenario pool_room = {
    .name = "pool-room",
    .about = "three threads share a pool of one request, and wait for POOL_HAS_ROOM",
    .set_up = pool_set_up,
    .finish = pool_finish,
    .bound = 3,
    .random = 3000,
};

/* The stack's head is taken and given back while another thread looks at it (ABA). */
static void take_two_give_back(void *argument)
{
    (void)argument;
    ploop_pio *first = ploop_pio_get(world->queue), *second = ploop_pio_get(world->queue);
    if (first && first == second) {
        sched_fail("the pool gives one request twice");
    }
    ploop_pio_put(first);
    ploop_pio_put(second);
}

static void pool_stack_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .pio_count = 3});
    sched_spawn("one", take_two_give_back, NULL, false);
    sched_spawn("two", take_two_give_back, NULL, false);
}

static void pool_stack_finish(void)
{
    ploop_pio *all[3];
    for (unsigned i = 0; i < 3; i++) {
        all[i] = ploop_pio_get(world->queue);
        for (unsigned j = 0; j < i; j++) {
            if (all[j] == all[i]) {
                sched_fail("the pool gives one request twice");
            }
        }
        if (!all[i]) {
            sched_fail("the pool has lost a request");
        }
    }
    if (ploop_pio_get(world->queue)) {
        sched_fail("the pool has more requests than it began with");
    }
}

const struct scenario pool_stack = {
    .name = "pool-stack",
    .about = "two threads take and give back requests: none is lost, none is had twice",
    .set_up = pool_stack_set_up,
    .finish = pool_stack_finish,
    .bound = 3,
    .random = 3000,
};

/* ---- delivery ---- */

static void write_two(void *unused)
{
    (void)unused;
    struct request *first = begin_write(world->queue, 0, SECTOR, 'a', 0);
    struct request *second = begin_write(world->queue, CLUSTER, SECTOR, 'b', 0);
    must_be(end(first), 0, "the first write");
    must_be(end(second), 0, "the second write");
}

static void two_writes_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the first write");
    expect(CLUSTER, SECTOR, 'b', "the second write");
}

static void delivery_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2, .devices = 2});
    sched_spawn("writer", write_two, NULL, false);
}

const struct scenario delivery = {
    .name = "delivery",
    .about = "two threads complete requests of one queue: callbacks one after another, each once",
    .set_up = delivery_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 10000,
};

/* ---- callbacks that submit again ---- */

enum { LINKS = 3 };

static void submit_again(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;
    must_be(result, 0, "a write of the chain");
    if (++request->calls < LINKS) {
        ploop_pio_prep_writev(pio, 0, &request->iov, 1, 0);
        must_be(ploop_queue_submit(world->queue, &pio, 1), 1, "submit from a callback");
    }
}

static bool chain_has_ended(void *argument)
{
    const struct request *request = argument;
    return request->calls == LINKS;
}

static void run_chain(void *argument)
{
    struct request *request = argument;
    ploop_pio *pio = ploop_pio_get(world->queue);
    request->iov = (struct iovec){calloc(1, SECTOR), SECTOR};
    ploop_pio_set_callback(pio, submit_again, request);
    ploop_pio_prep_writev(pio, 0, &request->iov, 1, 0);
    must_be(ploop_queue_submit(world->queue, &pio, 1), 1, "submit");
    run_until(world->queue, chain_has_ended, request);
}

static void chain_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1, .devices = 2});
    sched_spawn("one", run_chain, &world->requests[0], false);
    sched_spawn("two", run_chain, &world->requests[1], false);
}

const struct scenario callback_chain = {
    .name = "callback-chain",
    .about = "callbacks submit again while two threads complete",
    .set_up = chain_set_up,
    .finish = world_is_quiet,
    .bound = 1,
    .random = 20000,
};

/* ---- an event loop ---- */

static bool is_readable(void *unused)
{
    (void)unused;
    return sched_readable(ploop_queue_poll_fd(world->queue));
}

/* The loop uses the descriptor and the next deadline only: there is no wake_at. */
static void event_loop(void *unused)
{
    struct request *first = begin_write(world->queue, 0, SECTOR, 'a', 0);
    struct request *second = begin_write(world->queue, CLUSTER, SECTOR, 'b', 0);
    while (!first->calls || !second->calls) {
        bool due = ploop_dev_next_deadline(world->dev) <= sched_now();
        sched_wait(HERE, "polls", is_readable, unused, due ? sched_now() : 0);
        ploop_queue_run(world->queue);
    }
}

static void loop_set_up(unsigned room)
{
    world_open(&(struct plan){
        .mode = DISK_DEVICE, .room = room, .mapped = 2, .devices = 2, .no_wake_at = true});
    sched_spawn("loop", event_loop, NULL, false);
}

static void event_descriptor_set_up(void)
{
    loop_set_up(0);
}

const struct scenario event_descriptor = {
    .name = "event-descriptor",
    .about = "an event loop sleeps on its descriptor while two threads complete: no ring is lost",
    .set_up = event_descriptor_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 20000,
};

static void event_full_set_up(void)
{
    loop_set_up(1);
}

const struct scenario event_full_ring = {
    .name = "event-full-ring",
    .about =
        "an event loop over a backend with room for one request: the refused one is sent again",
    .set_up = event_full_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 3000,
};

/* ---- the ring of a queue ---- */

static void write_mapped(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, SECTOR, (char)('a' + cluster), 0)), 0,
            "a write");
}

static void same_queue_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .mapped = 2});
    sched_spawn("one", write_mapped, (void *)(uintptr_t)0, false);
    sched_spawn("two", write_mapped, (void *)(uintptr_t)1, false);
}

const struct scenario same_queue = {
    .name = "same-queue",
    .about = "two threads submit on one queue and reap it: one at a time is in its ring",
    .set_up = same_queue_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 3000,
};

/* One thread may deliver the first of both while the other brings its second. */
static void write_twice(void *argument)
{
    write_mapped(argument);
    write_mapped(argument);
}

static void same_queue_inline_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .mapped = 2});
    sched_spawn("one", write_twice, (void *)(uintptr_t)0, false);
    sched_spawn("two", write_twice, (void *)(uintptr_t)1, false);
}

const struct scenario same_queue_inline = {
    .name = "same-queue-inline",
    .about = "two threads submit on one queue, run it and deliver its requests",
    .set_up = same_queue_inline_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 3000,
};

/* The owner of queue 1 has a write that is done at the backend, and does not run its queue. */
static bool *owner_may_run;

static bool may_run(void *unused)
{
    (void)unused;
    return *owner_may_run;
}

static void write_and_sleep(void *unused)
{
    struct request *request = begin_write(ploop_dev_queue(world->dev, 1), 0, SECTOR, 'a', 0);
    sched_wait(HERE, "is at lunch", may_run, unused, 0);
    must_be(end(request), 0, "a write");
}

static void suspend_meanwhile(void *unused)
{
    (void)unused;
    must_be(ploop_dev_suspend(world->dev), 0, "suspend");
    must_be((int)world->disk.held_count, 0, "requests at the backend of a suspended device");
    must_be(world->request_count ? (int)world->requests[0].calls : 0, 0,
            "callbacks that a suspend has run");
    must_be(ploop_dev_resume(world->dev), 0, "resume");
    *owner_may_run = true;
}

static void owner_sleeps_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .mapped = 1, .queue_count = 2});
    owner_may_run = calloc(1, sizeof(*owner_may_run));
    sched_spawn("owner", write_and_sleep, NULL, false);
    sched_spawn("suspend", suspend_meanwhile, NULL, false);
}

static void owner_sleeps_finish(void)
{
    world_is_quiet();
    expect(0, SECTOR, 'a', "the write");
}

/* What the discard waits for is reaped by a run of its own queue, which the deadline asks for. */
static void discard_meanwhile(void *unused)
{
    (void)unused;
    struct request *request = begin_discard(world->queue, 0, CLUSTER);
    while (!request->calls) {
        ploop_queue_wait(world->queue, UINT64_MAX);
    }
    must_be(request->result, 0, "discard");
    *owner_may_run = true;
}

static void owner_sleeps_discard_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .mapped = 1, .queue_count = 2});
    owner_may_run = calloc(1, sizeof(*owner_may_run));
    sched_spawn("owner", write_and_sleep, NULL, false);
    sched_spawn("discard", discard_meanwhile, NULL, false);
}

static void owner_sleeps_discard_finish(void)
{
    world_is_quiet();
    expect_one_of(0, SECTOR, "a0", "the write, or the discard");
    expect(SECTOR, CLUSTER - SECTOR, '0', "the rest of the cluster");
}

const struct scenario owner_sleeps_discard = {
    .name = "owner-sleeps-discard",
    .about = "a discard of a cluster whose last write is done, and its owner sleeps",
    .set_up = owner_sleeps_discard_set_up,
    .finish = owner_sleeps_discard_finish,
    .may_expire = true,
    .bound = 2,
    .random = 3000,
};

const struct scenario owner_sleeps = {
    .name = "owner-sleeps",
    .about = "a suspend reaps the queue of a thread that sleeps, and leaves its callback to it",
    .set_up = owner_sleeps_set_up,
    .finish = owner_sleeps_finish,
    .bound = 2,
    .random = 3000,
    .may_expire = true, /* completions reaped on a user's queue wake no waiter */
};

/* ---- the engine's ring ---- */

static bool has_edge(void *argument)
{
    const uint64_t *seen = argument;
    return world->disk.edges != *seen || sched_readable(world->queue->event_fd);
}

/*
 * Woken once when the descriptor becomes readable, however long it stays so: one run must be
 * enough.
 */
static void run_at_edges(void *unused)
{
    uint64_t seen = 0;
    (void)unused;
    for (;;) {
        sched_wait(HERE, "waits for an edge", has_edge, &seen, 0);
        seen = world->disk.edges;
        ploop_queue_run(world->queue);
    }
}

static bool is_called(void *argument)
{
    const struct request *request = argument;
    return request->calls > 0;
}

static void write_and_leave(void *unused)
{
    (void)unused;
    struct request *request = begin_write(world->queue, CLUSTER, SECTOR, 'b', 0);
    sched_wait(HERE, "waits for its callback", is_called, request, 0);
    must_be(request->result, 0, "the write");
}

static void engine_ring_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_REAP, .mapped = 1});
    sched_spawn("writer", write_and_leave, NULL, false);
    sched_spawn("loop", run_at_edges, NULL, true);
}

static void engine_ring_finish(void)
{
    world_is_quiet();
    expect(CLUSTER, SECTOR, 'b', "the write");
}

const struct scenario engine_ring = {
    .name = "engine-ring",
    .about = "a run that finds the turn taken is enough for what has become ready on the engine's "
             "queue",
    .set_up = engine_ring_set_up,
    .finish = engine_ring_finish,
    .bound = 2,
    .random = 10000,
};

/* ---- threads that wait for their queue ---- */

static void wait_for_two(void *unused)
{
    (void)unused;
    struct request *first = begin_write(world->queue, 0, SECTOR, 'a', 0);
    struct request *second = begin_write(world->queue, CLUSTER, SECTOR, 'b', 0);
    while (!first->calls || !second->calls) {
        if (ploop_queue_wait(world->queue, UINT64_MAX) < 0) {
            sched_fail("ploop_queue_wait fails");
        }
    }
}

static void queue_wait_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 1, .no_wake_at = true});
    sched_spawn("waiter", wait_for_two, NULL, false);
}

const struct scenario queue_wait = {
    .name = "queue-wait",
    .about = "a thread that only waits for its queue gets its callbacks, of the fast path and of "
             "the engine",
    .set_up = queue_wait_set_up,
    .finish = two_writes_finish,
    .bound = 2,
    .random = 3000,
};
