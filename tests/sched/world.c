/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "pio/queue.h"

struct world *world;

enum { DISK_BYTES = 1 << 20 };

void must_be(int result, int expected, const char *what)
{
    if (result != expected) {
        sched_fail("%s: %d instead of %d", what, result, expected);
    }
}

/* ---- the device ---- */

static uint64_t now_ns(void *context)
{
    (void)context;
    return sched_now() + world->tick_ns * ++world->ticks;
}

static void wake_at(void *context, uint64_t deadline_ns)
{
    (void)context;
    world->wake_ns = deadline_ns;
}

static void on_event(void *user_data, uint32_t event, uint64_t value)
{
    (void)user_data;
    (void)value;
    sched_point(HERE, "event", &world->room_events, true);
    world->room_events += event == PLOOP_EVENT_POOL_HAS_ROOM;
}

static bool is_due(void *unused)
{
    (void)unused;
    return world->wake_ns <= sched_now();
}

void world_runner(void *unused)
{
    for (;;) {
        sched_wait(HERE, "waits for wake_at", is_due, unused, 0);
        world->wake_ns = UINT64_MAX;
        ploop_dev_run(world->dev);
    }
}

static void open_device(uint32_t count, const struct plan *plan)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    world->clock = (struct ploop_clock){.size = sizeof(world->clock),
                                        .now_ns = now_ns,
                                        .wake_at = plan->no_wake_at ? NULL : wake_at};
    world->tick_ns = plan->tick_ns;
    world->wake_ns = UINT64_MAX;
    config.clock = &world->clock;
    config.event = on_event;
    config.flags = plan->flags;
    config.pio_count = plan->pio_count ? plan->pio_count : 8;
    config.queue_count = plan->queue_count ? plan->queue_count : 1;
    config.runner_count = plan->runner_count;
    config.cow_delay_ns = plan->cow_delay_ns;
    config.writeback_delay_ns = config.writeback_max_age_ns =
        plan->delay_ns ? plan->delay_ns : UINT64_C(3600000000000);
    must_be(ploop_dev_open(world->deltas + world->delta_count - count, count, &config, &world->dev),
            0, "open");
    world->queue = ploop_dev_queue(world->dev, 0);
}

static void fill(uint32_t clusters, char byte)
{
    uint8_t bytes[CLUSTER];
    memset(bytes, byte, sizeof(bytes));
    for (uint32_t i = 0; i < clusters; i++) {
        must_be((int)ploop_dev_pwrite(world->dev, bytes, CLUSTER, (uint64_t)i * CLUSTER), CLUSTER,
                "fill");
    }
}

static ploop_file *make_image(struct disk *disk, uint32_t clusters, char byte)
{
    const struct ploop_image_options image = {
        .size = sizeof(image), .cluster_size = CLUSTER, .disk_size = DISK_CLUSTERS * CLUSTER};
    const struct plan plain = {.mode = DISK_INLINE};
    ploop_file *file = disk_open(disk, DISK_BYTES);
    must_be(ploop_image_create(file, &image), 0, "create");
    world->deltas[world->delta_count++] = file;
    open_device(1, &plain);
    fill(clusters, byte);
    must_be(ploop_dev_close(world->dev), 0, "close");
    return file;
}

void world_open(const struct plan *plan)
{
    world = calloc(1, sizeof(*world));
    world->disk.mode = world->below.mode = plan->mode;
    world->disk.room = plan->room;
    if (plan->lower) {
        make_image(&world->below, plan->lower, 'l');
    }
    make_image(&world->disk, plan->mapped, 'm');
    world->disk.no_growth = plan->full;
    open_device(world->delta_count, plan);
    bool has_device = plan->mode == DISK_DEVICE || plan->mode == DISK_HELP;
    for (unsigned i = 0; has_device && i < (plan->devices ? plan->devices : 1); i++) {
        sched_spawn(i ? "device 2" : "device", disk_device, &world->disk, true);
        if (plan->lower) {
            sched_spawn("below", disk_device, &world->below, true);
        }
    }
}

/* ---- requests ---- */

static void called_back(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;
    bool *calling = &world->calling_back[pio->queue->index];
    if (*calling) {
        sched_fail("two callbacks of one queue at the same time");
    }
    *calling = true;
    sched_point(HERE, "callback", &request->calls, true);
    request->result = result;
    if (++request->calls > 1) {
        sched_fail("a request is completed twice");
    }
    *calling = false;
}

static struct request *take_request(ploop_queue *queue, uint64_t length, char byte)
{
    struct request *request = &world->requests[world->request_count++];
    if (world->request_count > REQUESTS_MAX) {
        sched_fail("too many requests");
    }
    *request = (struct request){.pio = ploop_pio_get(queue), .iov = {NULL, (size_t)length}};
    if (!request->pio) {
        sched_fail("the pool is empty");
    }
    if (length) {
        request->iov.iov_base = memset(malloc(length), byte, length);
    }
    ploop_pio_set_callback(request->pio, called_back, request);
    return request;
}

static struct request *submit(ploop_queue *queue, struct request *request)
{
    must_be(ploop_queue_submit(queue, &request->pio, 1), 1, "submit");
    return request;
}

struct request *begin_write(ploop_queue *queue, uint64_t offset, uint64_t length, char byte,
                            uint32_t flags)
{
    struct request *request = take_request(queue, length, byte);
    ploop_pio_prep_writev(request->pio, offset, &request->iov, 1, flags);
    return submit(queue, request);
}

struct request *begin_read(ploop_queue *queue, uint64_t offset, uint64_t length)
{
    struct request *request = take_request(queue, length, '?');
    ploop_pio_prep_readv(request->pio, offset, &request->iov, 1);
    return submit(queue, request);
}

struct request *begin_discard(ploop_queue *queue, uint64_t offset, uint64_t length)
{
    struct request *request = take_request(queue, 0, 0);
    ploop_pio_prep_discard(request->pio, offset, length);
    return submit(queue, request);
}

struct request *begin_flush(ploop_queue *queue)
{
    struct request *request = take_request(queue, 0, 0);
    ploop_pio_prep_flush(request->pio);
    return submit(queue, request);
}

static bool is_done(void *argument)
{
    const struct request *request = argument;
    return request->calls > 0;
}

/*
 * Another thread has the turn and will do the work of the run, or is in the queue's ring: until
 * then a further run does nothing new.
 */
static bool run_is_done(void *argument)
{
    const ploop_queue *queue = argument;
    return !world->dev->run_posted && !queue->ring;
}

struct owner {
    ploop_queue *queue;
    world_fn *done;
    void *argument;
};

static bool may_go_on(void *argument)
{
    const struct owner *owner = argument;
    return owner->done(owner->argument) || sched_readable(ploop_queue_poll_fd(owner->queue));
}

void run_until(ploop_queue *queue, world_fn *done, void *argument)
{
    struct owner owner = {queue, done, argument};
    while (!done(argument)) {
        sched_wait(HERE, "polls", may_go_on, &owner, 0);
        if (!done(argument)) {
            ploop_queue_run(queue);
            sched_wait(HERE, "lets the turn's owner go on", run_is_done, queue, 0);
        }
    }
}

int end(struct request *request)
{
    run_until(request->pio->queue, is_done, request);
    return request->result;
}

/* ---- the end ---- */

void expect_one_of(uint64_t offset, uint64_t length, const char *bytes, const char *what)
{
    uint8_t sector[SECTOR];
    for (uint64_t at = offset; at < offset + length; at += SECTOR) {
        must_be((int)ploop_dev_pread(world->dev, sector, SECTOR, at), SECTOR, "read");
        char found = sector[0] ? (char)sector[0] : '0';
        if (!strchr(bytes, found)) {
            sched_fail("%s: the disk has '%c' at %llu", what, found, (unsigned long long)at);
        }
        for (unsigned i = 1; i < SECTOR; i++) {
            if (sector[i] != sector[0]) {
                sched_fail("%s: the sector at %llu is mixed", what, (unsigned long long)at);
            }
        }
    }
}

void expect(uint64_t offset, uint64_t length, char byte, const char *what)
{
    expect_one_of(offset, length, (const char[]){byte, 0}, what);
}

void world_is_quiet(void)
{
    for (unsigned i = 0; i < world->request_count; i++) {
        must_be((int)world->requests[i].calls, 1, "callbacks of a request");
    }
    const ploop_dev *dev = world->dev;
    for (uint32_t i = 0; i <= dev->queue_count; i++) {
        must_be((int)dev->queues[i].in_flight, 0, "requests in flight");
        must_be(dev->queues[i].done.head != NULL, false, "completions to deliver");
        must_be(dev->queues[i].delivering, false, "delivering");
        must_be(dev->queues[i].ring, 0, "a thread in the ring of a queue");
    }
    must_be(dev->turn.inbox.head != NULL, false, "work in the turn's inbox");
    must_be(dev->turn.owned, false, "the turn is taken");
    must_be((int)dev->turn.visitors, 0, "visitors");
    must_be((int)dev->waiting, 0, "threads that wait");
    for (uint32_t i = 0; i < LOCK_COUNT; i++) {
        must_be((int)dev->locks[i].word, 0, "a cluster's lock");
        must_be(dev->locks[i].held_exclusive, false, "a cluster's lock");
    }
}
