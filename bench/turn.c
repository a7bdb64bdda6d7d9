/* SPDX-License-Identifier: MIT */
/*
 * P18: how long a large request delays others. The device is a disk of 16 TiB with 1 MiB clusters,
 * all mapped. One thread's runs carry out a discard of all but its end, while another thread writes
 * 4 KiB there through the engine as fast as it can, over an inline backend that keeps the map only.
 *
 * A request waits for the turn as long as another thread holds it, and a thread holds it inside one
 * call. So the row is the CPU time of the longest call of either thread: on a busy machine the
 * clock adds pauses in which a thread does not run at all. The time of the longest write, from
 * submit to callback by the clock, is printed beside it. A virtual machine's host takes CPU time
 * too, so the discard is done three times, and each figure is the least of the three: what the
 * library does is in all of them.
 */
#include "support/bench.h"

#include <pthread.h>
#include <stdatomic.h>

enum { BLOCK = 4096, OTHERS = 1024, ROUNDS = 3 };
#define CLUSTER (UINT64_C(1) << 20)
#define CLUSTERS (UINT64_C(16) << 20)

static ploop_dev *dev;
static atomic_bool finished;

/* The main thread runs the device all the time. */
static void wake_at(void *context, uint64_t deadline_ns)
{
    (void)context;
    (void)deadline_ns;
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    bench_check("a request", result);
    atomic_store((atomic_bool *)user_data, true);
}

struct figures {
    uint64_t count, call_ns, wait_ns; /* the longest */
};

static void note(uint64_t *longest, uint64_t took)
{
    *longest = took > *longest ? took : *longest;
}

static void timed_submit(struct figures *figures, ploop_queue *queue, ploop_pio *pio)
{
    uint64_t begun = bench_thread_cpu_ns();
    bench_check("submit", ploop_queue_submit(queue, &pio, 1) - 1);
    note(&figures->call_ns, bench_thread_cpu_ns() - begun);
}

static void timed_run(struct figures *figures, ploop_queue *queue)
{
    uint64_t begun = bench_thread_cpu_ns();
    ploop_queue_run(queue);
    note(&figures->call_ns, bench_thread_cpu_ns() - begun);
}

/* Write one request after another, each into one of the clusters behind the discarded ones. */
static void *write_on(void *argument)
{
    struct figures *figures = argument;
    static uint8_t block[BLOCK] = {1}; /* zeros would take no cluster */
    const struct iovec iov = {block, sizeof(block)};
    ploop_queue *queue = ploop_dev_queue(dev, 1);
    for (; !atomic_load(&finished); figures->count++) {
        atomic_bool written = false;
        ploop_pio *pio = ploop_pio_get(queue);
        ploop_pio_prep_writev(pio, (CLUSTERS - 1 - figures->count % OTHERS) * CLUSTER, &iov, 1, 0);
        ploop_pio_set_callback(pio, done, &written);
        uint64_t begun = bench_now_ns(NULL);
        timed_submit(figures, queue, pio);
        while (!atomic_load(&written)) {
            timed_run(figures, queue);
        }
        note(&figures->wait_ns, bench_now_ns(NULL) - begun);
        ploop_pio_put(pio);
    }
    return NULL;
}

static void discard(struct figures *own)
{
    atomic_bool discarded = false;
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pio = ploop_pio_get(queue);
    ploop_pio_prep_discard(pio, 0, (CLUSTERS - OTHERS) * CLUSTER);
    ploop_pio_set_callback(pio, done, &discarded);
    uint64_t begun = bench_now_ns(NULL);
    timed_submit(own, queue, pio);
    while (!atomic_load(&discarded)) {
        timed_run(own, queue);
    }
    own->wait_ns = bench_now_ns(NULL) - begun;
    ploop_pio_put(pio);
}

/* One discard on a device of its own: the discard's figures, and the writes'. */
static void round_of(struct figures *own, struct figures *others)
{
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = bench_now_ns, .wake_at = wake_at};
    struct ploop_dev_config config;
    pthread_t thread;
    ploop_file *file = bench_map_only(CLUSTERS * CLUSTER, CLUSTER);
    bench_map_all();
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_NO_FAST_PATH;
    config.queue_count = 2;
    config.clock = &clock;
    bench_check("open", ploop_dev_open(&file, 1, &config, &dev));
    atomic_store(&finished, false);
    bench_check("thread", -pthread_create(&thread, NULL, write_on, others));
    discard(own);
    atomic_store(&finished, true);
    pthread_join(thread, NULL);
    ploop_dev_abort(dev);
    bench_map_only_close(file);
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

int main(void)
{
    double call = INFINITY, wait = INFINITY, whole = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        struct figures own = {0}, others = {0};
        round_of(&own, &others);
        note(&own.call_ns, others.call_ns);
        call = least(call, (double)own.call_ns / 1e6);
        wait = least(wait, (double)others.wait_ns / 1e6);
        whole = least(whole, (double)own.wait_ns / 1e9);
    }
    bench_print("P18", "longest call that holds the turn, CPU time", call, NAN, "ms");
    bench_print("P18", "longest 4 KiB write beside the discard, by the clock", wait, NAN, "ms");
    bench_print("P18", "the discard", whole, NAN, "s");
    return 0;
}
