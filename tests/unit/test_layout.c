/* SPDX-License-Identifier: MIT */
/*
 * Threads that submit on queues of their own write to no common cache line, but for the word of a
 * cluster's lock that both need: by layout, because a time would show it on quiet machines only.
 */
#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <stddef.h>

#include "delta/delta.h"
#include "dev/dev.h"
#include "pio/lock.h"
#include "pio/queue.h"

enum { CACHE_LINE = 64, QUEUES = 4 };

static uintptr_t line_of(const void *address)
{
    return (uintptr_t)address / CACHE_LINE;
}

START_TEST(queues_share_no_cache_line)
{
    struct rig rig;
    rig_create(&rig, 2, 1 << 20, 4096, 0);
    rig.config.queue_count = QUEUES;
    rig_open(&rig);
    for (uint32_t i = 0; i < QUEUES; i++) {
        const ploop_queue *queue = ploop_dev_queue(rig.dev, i);
        ck_assert_uint_eq((uintptr_t)queue % CACHE_LINE, 0);
        /* The next one is the engine's, after the last. */
        ck_assert_uint_gt(line_of(queue + 1), line_of((const char *)(queue + 1) - 1));
        /* What every thread reads is apart from what the owner writes. */
        ck_assert_uint_ne(line_of(&queue->pios), line_of(&queue->free_head));
    }
    rig_free(&rig);
}
END_TEST

START_TEST(lanes_share_no_cache_line)
{
    struct rig rig;
    rig_usual(&rig);
    const struct channel *channel = &dev_top(rig.dev)->channel;
    /* The first lane begins a line, so what all threads read before it is not in that line. */
    ck_assert_uint_eq((uintptr_t)&channel->lanes[0] % CACHE_LINE, 0);
    ck_assert_uint_ne(line_of(&channel->lanes[0]), line_of(&channel->cut));
    for (uint32_t i = 1; i < CHANNEL_LANES; i++) {
        /* The counter is a lane's first member. */
        ck_assert_uint_ne(line_of(&channel->lanes[i]), line_of(&channel->lanes[i - 1]));
    }
    rig_free(&rig);
}
END_TEST

START_TEST(cluster_locks_share_no_cache_line)
{
    struct rig rig;
    rig_usual(&rig);
    for (uint32_t i = 1; i < LOCK_COUNT; i++) {
        ck_assert_uint_ne(line_of(&rig.dev->locks[i].word), line_of(&rig.dev->locks[i - 1].word));
    }
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {queues_share_no_cache_line, lanes_share_no_cache_line,
                                  cluster_locks_share_no_cache_line};
    return RUN_TESTS("layout", tests);
}
