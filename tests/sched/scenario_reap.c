/* SPDX-License-Identifier: MIT */
/* Completions without a callback, which a loop reaps one at a time. */
#include <stdlib.h>
#include <string.h>

#include "scenarios.h"
#include "world.h"

enum { WRITES = 3 };

/* The writes' numbers are their user_data. */
static struct request *begin_uncalled(unsigned number)
{
    struct request *request = &world->requests[world->request_count++];
    ploop_pio *pio = ploop_pio_get(world->queue);
    request->iov = (struct iovec){malloc(SECTOR), SECTOR};
    memset(request->iov.iov_base, 'a' + (int)number, SECTOR);
    ploop_pio_set_callback(pio, NULL, request);
    /* The last one goes to a cluster that is not mapped: through the engine. */
    ploop_pio_prep_writev(pio, number * CLUSTER, &request->iov, 1, 0);
    must_be(ploop_queue_submit(world->queue, &pio, 1), 1, "submit");
    return request;
}

static unsigned reap_one(void)
{
    struct ploop_completion done;
    int count = ploop_queue_reap(world->queue, &done, 1);
    if (count < 0 || count > 1) {
        sched_fail("ploop_queue_reap fails");
    }
    if (count == 1) {
        struct request *request = done.user_data;
        must_be(done.result, 0, "a write");
        request->calls++;
        ploop_pio_put(done.pio);
    }
    return (unsigned)count;
}

static bool is_readable(void *unused)
{
    (void)unused;
    return sched_readable(ploop_queue_poll_fd(world->queue));
}

static void sleep_until_readable(void *unused)
{
    bool due = ploop_dev_next_deadline(world->dev) <= sched_now();
    sched_wait(HERE, "polls", is_readable, unused, due ? sched_now() : 0);
}

/* It sleeps after every single completion: the descriptor stays readable for the others. */
static void reap_by_descriptor(void *unused)
{
    for (unsigned i = 0; i < WRITES; i++) {
        begin_uncalled(i);
    }
    for (unsigned got = 0; got < WRITES;) {
        sleep_until_readable(unused);
        got += reap_one();
    }
}

/* It polls a little while, switches notification on and sleeps. */
static void reap_by_turns(void *unused)
{
    for (unsigned got = 0, i = 0; got < WRITES;) {
        must_be(ploop_queue_set_notify(world->queue, 0), 0, "off");
        if (i < WRITES) {
            begin_uncalled(i++);
        }
        got += reap_one();
        must_be(ploop_queue_set_notify(world->queue, 1), 0, "on");
        if (i == WRITES && got < WRITES) {
            sleep_until_readable(unused);
        }
    }
}

static void set_up(fiber_fn *loop)
{
    world_open(&(struct plan){.mode = DISK_DEVICE, .mapped = 2, .devices = 2, .no_wake_at = true});
    sched_spawn("loop", loop, NULL, false);
}

static void descriptor_set_up(void)
{
    set_up(reap_by_descriptor);
}

static void notify_set_up(void)
{
    set_up(reap_by_turns);
}

static void finish(void)
{
    world_is_quiet();
    for (unsigned i = 0; i < WRITES; i++) {
        must_be((int)world->requests[i].calls, 1, "completions of a write");
        expect(i * CLUSTER, SECTOR, (char)('a' + i), "a write");
    }
}

const struct scenario reap_descriptor = {
    .name = "reap-descriptor",
    .about = "a loop that reaps one completion at a time and sleeps on its descriptor misses none",
    .set_up = descriptor_set_up,
    .finish = finish,
    .bound = 1,
    .random = 10000,
};

const struct scenario reap_notify = {
    .name = "reap-notify",
    .about = "notification that is switched on tells of what was completed while it was off",
    .set_up = notify_set_up,
    .finish = finish,
    .bound = 1,
    .random = 10000,
};
