/* SPDX-License-Identifier: MIT */
/*
 * A backend that has room for few requests: how often the engine asks it, and in which order. It
 * holds accepted requests in a ring and completes the oldest when told to.
 */
#include "image_fixture.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

enum {
    CLUSTER = 65536,
    BLOCK = 4096,
    DEPTH_MAX = 2048,
    ROOM = 32,
    ENGINE_QUEUE = 2,
    NO_QUEUE = 99
};

struct ring {
    ploop_file *memory;
    struct ploop_io *held[DEPTH_MAX];
    uint32_t first, count, room;
    uint64_t submits;
    uint32_t segments_most, full_queue;
    bool holding;
};

static void carry_out(struct ring *ring, struct ploop_io *io)
{
    int64_t result = 0;
    uint64_t at = io->offset;
    for (uint32_t i = 0; i < io->iov_count && result >= 0; i++) {
        const struct iovec *piece = &io->iov[i];
        result = io->op == PLOOP_IO_READ
                     ? ploop_file_pread(ring->memory, piece->iov_base, piece->iov_len, at)
                     : ploop_file_pwrite(ring->memory, piece->iov_base, piece->iov_len, at);
        at += piece->iov_len;
    }
    if (io->op == PLOOP_IO_TRUNCATE) {
        result = ploop_file_truncate(ring->memory, io->offset);
    }
    ck_assert_int_ge(result, 0);
    ploop_io_complete(io, io->iov_count ? (int64_t)io->length : 0);
}

static int ring_info(void *context, struct ploop_file_info *info)
{
    struct ring *ring = context;
    int error = ploop_file_info(ring->memory, info);
    info->capabilities = PLOOP_FILE_CAN_GROW;
    return error;
}

static int ring_submit(void *context, struct ploop_io *io)
{
    struct ring *ring = context;
    ring->submits++;
    ring->segments_most = io->iov_count > ring->segments_most ? io->iov_count : ring->segments_most;
    if (!ring->holding) {
        carry_out(ring, io);
        return 0;
    }
    if (ring->count == ring->room || io->queue == ring->full_queue) {
        return -EAGAIN;
    }
    ring->held[(ring->first + ring->count++) % DEPTH_MAX] = io;
    return 0;
}

static bool complete_oldest(struct ring *ring)
{
    if (ring->count == 0) {
        return false;
    }
    struct ploop_io *io = ring->held[ring->first];
    ring->first = (ring->first + 1) % DEPTH_MAX;
    ring->count--;
    carry_out(ring, io);
    return true;
}

struct world {
    struct ring ring;
    ploop_file *file;
    ploop_dev *dev;
    ploop_queue *queue;
    uint64_t done[DEPTH_MAX]; /* offsets, in the order of completion */
    uint32_t done_count;
};

static void world_open(struct world *world, uint32_t flags)
{
    struct ploop_image_options image = {
        .size = sizeof(image), .disk_size = 64 * CLUSTER, .cluster_size = CLUSTER};
    struct ploop_io_ops ops = {.size = sizeof(ops), .get_info = ring_info, .submit = ring_submit};
    struct ploop_dev_config config;
    static uint8_t bytes[64 * CLUSTER];
    memset(world, 0, sizeof(*world));
    world->ring.room = ROOM;
    world->ring.full_queue = NO_QUEUE;
    ck_assert_int_eq(ploop_file_create_memory(0, &world->ring.memory), 0);
    ck_assert_int_eq(ploop_file_create(&ops, &world->ring, &world->file), 0);
    ck_assert_int_eq(ploop_image_create(world->file, &image), 0);
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags | PLOOP_DEV_WRITE_ZEROS_AS_DATA;
    config.pio_count = DEPTH_MAX;
    config.queue_count = 2;
    ck_assert_int_eq(ploop_dev_open(&world->file, 1, &config, &world->dev), 0);
    world->queue = ploop_dev_queue(world->dev, 0);
    ck_assert_int_eq(ploop_dev_pwrite(world->dev, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(ploop_dev_flush(world->dev), 0);
    world->ring.submits = 0;
    world->ring.holding = true;
}

static void world_close(struct world *world)
{
    world->ring.holding = false;
    ck_assert_int_eq(ploop_dev_close(world->dev), 0);
    ploop_file_close(world->file);
    ploop_file_close(world->ring.memory);
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    struct world *world = user_data;
    ck_assert_int_eq(result, 0);
    world->done[world->done_count++] = (uint64_t)(uintptr_t)pio;
}

static uint8_t block[BLOCK];
static const struct iovec block_iov = {block, BLOCK};

/* Submit several reads at once; the nth is pios[n]. */
static void read_at_once(struct world *world, uint32_t depth, ploop_pio **pios)
{
    for (uint32_t i = 0; i < depth; i++) {
        pios[i] = ploop_pio_get(world->queue);
        ploop_pio_prep_readv(pios[i], (uint64_t)i % 1024 * BLOCK, &block_iov, 1);
        ploop_pio_set_callback(pios[i], done, world);
    }
    ck_assert_int_eq(ploop_queue_submit(world->queue, pios, depth), (int)depth);
}

static void run_queues(struct world *world)
{
    for (uint32_t i = 0; i < ENGINE_QUEUE; i++) {
        ploop_queue_run(ploop_dev_queue(world->dev, i));
    }
}

static void finish(struct world *world, uint32_t depth, ploop_pio **pios)
{
    while (complete_oldest(&world->ring)) {
    }
    run_queues(world);
    ck_assert_uint_eq(world->done_count, depth);
    for (uint32_t i = 0; i < depth; i++) {
        ploop_pio_put(pios[i]);
    }
}

static const uint32_t WAYS[] = {0, PLOOP_DEV_NO_FAST_PATH};

START_TEST(a_full_backend_is_asked_little_more_than_once_a_request)
{
    static const uint32_t depths[] = {ROOM, 4 * ROOM, DEPTH_MAX};
    static ploop_pio *pios[DEPTH_MAX];
    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        struct world world;
        world_open(&world, WAYS[_i]);
        read_at_once(&world, depths[i], pios);
        finish(&world, depths[i], pios);
        ck_assert_uint_le(world.ring.submits * 100, depths[i] * UINT64_C(110));
        world_close(&world);
    }
}
END_TEST

START_TEST(requests_without_room_keep_their_order)
{
    static ploop_pio *pios[DEPTH_MAX];
    struct world world;
    world_open(&world, WAYS[_i]);
    read_at_once(&world, 8 * ROOM, pios);
    finish(&world, 8 * ROOM, pios);
    for (uint32_t i = 0; i < 8 * ROOM; i++) {
        ck_assert_uint_eq(world.done[i], (uint64_t)(uintptr_t)pios[i]);
    }
    world_close(&world);
}
END_TEST

/* After the backend had room for few, it has room for more, and the engine notices. */
START_TEST(room_that_comes_is_used)
{
    static ploop_pio *pios[DEPTH_MAX];
    struct world world;
    world_open(&world, WAYS[_i]);
    world.ring.room = 2;
    read_at_once(&world, DEPTH_MAX, pios);
    ck_assert_uint_eq(world.ring.count, 2);
    for (uint32_t i = 0; i < 100; i++) {
        complete_oldest(&world.ring);
    }
    ck_assert_uint_eq(world.ring.count, 2);
    world.ring.room = ROOM;
    for (uint32_t i = 0; i < DEPTH_MAX / 2 && world.ring.count < ROOM; i++) {
        complete_oldest(&world.ring);
    }
    ck_assert_uint_eq(world.ring.count, ROOM);
    finish(&world, DEPTH_MAX, pios);
    world_close(&world);
}
END_TEST

/* A ring that is full of other users' requests: ours wait for a run, and each run tries one. */
START_TEST(without_anything_in_flight_each_run_tries_one)
{
    static ploop_pio *pios[DEPTH_MAX];
    struct world world;
    world_open(&world, WAYS[_i]);
    world.ring.room = 0;
    read_at_once(&world, 4, pios);
    ck_assert_uint_eq(world.ring.count, 0);
    for (int run = 0; run < 3; run++) {
        ck_assert_uint_eq(ploop_dev_next_deadline(world.dev), 0);
        uint64_t submits = world.ring.submits;
        ploop_dev_run(world.dev);
        ck_assert_uint_eq(world.ring.submits, submits + 1);
    }
    world.ring.room = ROOM;
    while (ploop_dev_next_deadline(world.dev) == 0) {
        ploop_dev_run(world.dev);
    }
    finish(&world, 4, pios);
    world_close(&world);
}
END_TEST

/*
 * Nothing is in flight and no thread runs the device: the next request finds out that there is
 * room.
 */
START_TEST(a_request_that_comes_brings_those_before_it_along)
{
    static ploop_pio *pios[DEPTH_MAX];
    struct world world;
    world_open(&world, WAYS[_i]);
    world.ring.room = 0;
    read_at_once(&world, 1, pios);
    ck_assert_uint_eq(world.ring.count, 0);
    world.ring.room = ROOM;
    read_at_once(&world, 1, pios + 1);
    ck_assert_uint_ge(world.ring.count, 1);
    finish(&world, 2, pios);
    world_close(&world);
}
END_TEST

/*
 * Each queue has a ring, and so has the engine. A request that finds its queue's ring full is sent
 * on the engine's, and waits there if that is full too.
 */
START_TEST(what_finds_its_ring_full_goes_out_on_the_engines)
{
    static ploop_pio *pios[DEPTH_MAX];
    struct world world;
    world_open(&world, WAYS[_i]);
    world.ring.full_queue = 0;
    read_at_once(&world, 4, pios);
    ck_assert_uint_ge(world.ring.count, 1);
    do {
        ck_assert_uint_eq(world.ring.held[world.ring.first]->queue, ENGINE_QUEUE);
    } while (complete_oldest(&world.ring) && world.ring.count);
    run_queues(&world);
    ck_assert_uint_eq(world.done_count, 4);
    world.ring.full_queue = ENGINE_QUEUE;
    world.queue = ploop_dev_queue(world.dev, 1);
    read_at_once(&world, 4, pios + 4);
    ck_assert_uint_eq(world.ring.count, _i ? 0 : 4);
    world.ring.full_queue = NO_QUEUE;
    ploop_dev_run(world.dev);
    finish(&world, 8, pios);
    world_close(&world);
}
END_TEST

START_TEST(no_request_has_more_pieces_than_the_limit)
{
    enum { PIECES = 2 * PLOOP_IO_SEGMENTS_MAX, PIECE = 16 };
    static uint8_t bytes[PIECES * PIECE];
    static struct iovec iov[PIECES];
    struct world world;
    world_open(&world, WAYS[_i]);
    world.ring.holding = false;
    struct ploop_dev_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_dev_info(world.dev, &info), 0);
    ck_assert_uint_eq(info.max_segments, PLOOP_IO_SEGMENTS_MAX);
    for (uint32_t i = 0; i < PIECES; i++) {
        iov[i] = (struct iovec){bytes + (uint64_t)i * PIECE, PIECE};
    }
    for (uint32_t count = PLOOP_IO_SEGMENTS_MAX; count <= PIECES; count += PLOOP_IO_SEGMENTS_MAX) {
        ploop_pio *pio = ploop_pio_get(world.queue);
        ploop_pio_prep_writev(pio, 0, iov, count, 0);
        ploop_pio_set_callback(pio, done, &world);
        ck_assert_int_eq(ploop_queue_submit(world.queue, &pio, 1), 1);
        run_queues(&world);
        ploop_pio_put(pio);
    }
    ck_assert_uint_eq(world.done_count, 2);
    ck_assert_uint_eq(world.ring.segments_most, PLOOP_IO_SEGMENTS_MAX);
    world_close(&world);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("ways");
    tcase_add_loop_test(tests, a_full_backend_is_asked_little_more_than_once_a_request, 0, 2);
    tcase_add_loop_test(tests, requests_without_room_keep_their_order, 0, 2);
    tcase_add_loop_test(tests, room_that_comes_is_used, 0, 2);
    tcase_add_loop_test(tests, without_anything_in_flight_each_run_tries_one, 0, 2);
    tcase_add_loop_test(tests, a_request_that_comes_brings_those_before_it_along, 0, 2);
    tcase_add_loop_test(tests, what_finds_its_ring_full_goes_out_on_the_engines, 0, 2);
    tcase_add_loop_test(tests, no_request_has_more_pieces_than_the_limit, 0, 2);
    return run_case("full backend", tests);
}
