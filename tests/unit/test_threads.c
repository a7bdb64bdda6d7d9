/* SPDX-License-Identifier: MIT */
/*
 * Threads: several submit, the backend completes on another, others flush, suspend and read the
 * state; and callbacks exclude each other.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

enum {
    CLUSTER = 4096,
    QUEUES = 2,
    SUBMITTERS = 4,
    DEPTH = 4,
    BLOCKS = 32,
    ROUNDS = 400,
    ROUNDS_INSTRUMENTED = 40
};

static int rounds(void)
{
    return is_instrumented() ? ROUNDS_INSTRUMENTED : ROUNDS;
}

struct world {
    struct rig rig;
    _Atomic int inside[QUEUES]; /* callbacks that are running */
    atomic_bool together, stop;
};

/*
 * The state of a submitter's request, which writes a block with the next number, reads it back, and
 * so on.
 */
struct chain {
    struct world *world;
    ploop_queue *queue;
    uint32_t queue_index;
    uint64_t block;
    int left;
    bool reading;
    uint8_t number;
    uint8_t bytes[512];
    struct iovec iov;
    atomic_bool over;
};

static void chain_step(ploop_pio *pio, int result, void *user_data)
{
    struct chain *chain = user_data;
    struct world *world = chain->world;
    if (atomic_fetch_add(&world->inside[chain->queue_index], 1) != 0) {
        atomic_store(&world->together, true);
    }
    ck_assert_int_eq(result, 0);
    if (chain->reading) {
        for (size_t i = 0; i < sizeof(chain->bytes); i++) {
            ck_assert_uint_eq(chain->bytes[i], chain->number);
        }
        chain->number++;
    }
    chain->reading = !chain->reading;
    atomic_fetch_sub(&world->inside[chain->queue_index], 1);
    if (chain->left-- == 0) {
        ploop_pio_put(pio);
        atomic_store(&chain->over, true);
        return;
    }
    uint64_t offset = chain->block * 1536;
    memset(chain->bytes, chain->reading ? 0xEE : chain->number, sizeof(chain->bytes));
    if (chain->reading) {
        ploop_pio_prep_readv(pio, offset, &chain->iov, 1);
    } else if (chain->left % 16 == 3) {
        ploop_pio_prep_writev(pio, offset, &chain->iov, 1, PLOOP_PIO_FUA);
    } else {
        ploop_pio_prep_writev(pio, offset, &chain->iov, 1, 0);
    }
    ck_assert_int_eq(ploop_queue_submit(chain->queue, &pio, 1), 1);
}

static void *submitter(void *argument)
{
    struct chain *chains = argument;
    for (int i = 0; i < DEPTH; i++) {
        struct chain *chain = &chains[i];
        ploop_pio *pio = ploop_pio_get(chain->queue);
        ck_assert_ptr_nonnull(pio);
        ploop_pio_set_callback(pio, chain_step, chain);
        memset(chain->bytes, chain->number, sizeof(chain->bytes));
        ploop_pio_prep_writev(pio, chain->block * 1536, &chain->iov, 1, 0);
        ck_assert_int_eq(ploop_queue_submit(chain->queue, &pio, 1), 1);
    }
    for (int i = 0; i < DEPTH; i++) {
        while (!atomic_load(&chains[i].over)) {
            ploop_queue_run(chains[i].queue);
            usleep(50);
        }
    }
    return NULL;
}

/* Calls that other threads of a program make meanwhile. */
static void *bystander(void *argument)
{
    struct world *world = argument;
    ploop_dev *dev = world->rig.dev;
    uint8_t bytes[512];
    for (int i = 0; !atomic_load(&world->stop); i++) {
        struct ploop_dev_info info = {.size = sizeof(info)};
        uint32_t page;
        world->rig.clock.now_ns += 100 * MS;
        ploop_dev_run(dev);
        ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
        ck_assert_int_eq(ploop_dev_flush(dev), 0);
        ck_assert_int_eq(ploop_bat_page_write(dev, 0), 0);
        ck_assert_int_eq(ploop_bat_set_delay(dev, (uint64_t)(i % 3) * MS, SECOND), 0);
        ploop_bat_page_next_dirty(dev, 0, &page);
        ck_assert_int_eq(ploop_dev_pread(dev, bytes, sizeof(bytes), 1 << 20), sizeof(bytes));
        ck_assert_int_eq(
            ploop_dev_pwrite(dev, bytes, sizeof(bytes), (2 << 20) + (uint64_t)(i % 64) * CLUSTER),
            sizeof(bytes));
        if (i % 4 == 0) {
            ck_assert_int_eq(ploop_dev_suspend(dev), 0);
            ck_assert_int_eq(ploop_dev_resume(dev), 0);
        }
    }
    return NULL;
}

static void run_world(uint32_t flags)
{
    static struct chain chains[SUBMITTERS][DEPTH];
    struct world *world = calloc(1, sizeof(*world));
    pthread_t threads[SUBMITTERS], other;
    rig_create(&world->rig, 2, 8 << 20, CLUSTER, SCRIPT_THREAD | SCRIPT_NO_WAIT);
    world->rig.config.flags = flags;
    world->rig.config.queue_count = QUEUES;
    rig_open(&world->rig);
    memset(chains, 0, sizeof(chains));
    for (uint32_t i = 0; i < SUBMITTERS; i++) {
        for (uint32_t j = 0; j < DEPTH; j++) {
            struct chain *chain = &chains[i][j];
            *chain = (struct chain){.world = world,
                                    .queue_index = i % QUEUES,
                                    .queue = ploop_dev_queue(world->rig.dev, i % QUEUES),
                                    .block = i * DEPTH + j, /* neighbours share clusters */
                                    .left = rounds(),
                                    .number = (uint8_t)(i + j)};
            chain->iov = (struct iovec){chain->bytes, sizeof(chain->bytes)};
        }
        ck_assert_int_eq(pthread_create(&threads[i], NULL, submitter, chains[i]), 0);
    }
    ck_assert_int_eq(pthread_create(&other, NULL, bystander, world), 0);
    for (uint32_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&world->stop, true);
    pthread_join(other, NULL);
    ck_assert(!atomic_load(&world->together));
    rig_end(&world->rig);
    free(world);
}

START_TEST(threads_submit_and_the_backend_completes_on_its_own)
{
    run_world(0);
}
END_TEST

START_TEST(threads_without_the_fast_path)
{
    run_world(PLOOP_DEV_NO_FAST_PATH);
}
END_TEST

/* Open, use and close at once: no thread may be left inside memory that is freed. */
START_TEST(a_device_lives_as_long_as_its_last_completion)
{
    for (int i = 0; i < rounds() / 8; i++) {
        struct rig rig;
        struct req req[8];
        rig_create(&rig, 2, 8 << 20, CLUSTER, SCRIPT_THREAD | SCRIPT_NO_WAIT);
        rig_open(&rig);
        for (uint64_t j = 0; j < 8; j++) {
            req_write(&req[j], &rig, j * 1536, 512, 1, j == 5 ? PLOOP_PIO_FUA : 0);
        }
        if (i % 2) {
            rig_close_dev(&rig);
        } else {
            ploop_dev_abort(rig.dev);
            rig.dev = NULL;
        }
        for (int j = 0; j < 8; j++) {
            ck_assert_uint_eq(req[j].calls, 1);
            free(req[j].iov.iov_base);
        }
        rig_free(&rig);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {threads_submit_and_the_backend_completes_on_its_own,
                                  threads_without_the_fast_path,
                                  a_device_lives_as_long_as_its_last_completion};
    return RUN_TESTS("threads", tests);
}
