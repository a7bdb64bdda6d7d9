/* SPDX-License-Identifier: MIT */
/*
 * P8: two threads, each with its own queue, against one, with mapped 4 KiB reads and overwrites
 * over the inline backend that moves no bytes. Each thread has clusters of its own, so that they
 * share no cluster lock that both need; what they then share is a cache line that both write.
 *
 * Two figures: the speed by the clock, which is right on quiet cores only, and by CPU time. A cache
 * line that travels between two cores costs CPU time; a core that is busy with something else does
 * not.
 */
#include "support/bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BLOCK = 4096, THREADS = 2, DEPTH = 32, BATCHES = 12000, ROUNDS = 9, OWN = 32 };
#define CLUSTER (UINT64_C(1) << 20)
#define CLUSTERS ((uint64_t)OWN * THREADS)

static ploop_dev *dev;
static pthread_barrier_t barrier;

struct worker {
    uint32_t index;
    pthread_t thread;
    uint64_t cpu_ns, wall_ns, failures;
};

static void done(ploop_pio *pio, int result, void *user_data)
{
    struct worker *worker = user_data;
    worker->failures += result != 0;
    ploop_pio_put(pio);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    ploop_queue *queue = ploop_dev_queue(dev, worker->index);
    static _Alignas(BLOCK) uint8_t blocks[THREADS][BLOCK];
    struct iovec iov = {blocks[worker->index], BLOCK};
    ploop_pio *pios[DEPTH];
    pthread_barrier_wait(&barrier);
    uint64_t cpu = bench_thread_cpu_ns(), wall = bench_now_ns(NULL);
    for (uint64_t batch = 0; batch < BATCHES; batch++) {
        for (uint64_t i = 0; i < DEPTH; i++) {
            uint64_t at = (worker->index * OWN + (batch * DEPTH + i) * 17 % OWN) * CLUSTER;
            pios[i] = ploop_pio_get(queue);
            ploop_pio_set_callback(pios[i], done, worker);
            if (i % 2) {
                ploop_pio_prep_writev(pios[i], at, &iov, 1, 0);
            } else {
                ploop_pio_prep_readv(pios[i], at, &iov, 1);
            }
        }
        ploop_queue_submit(queue, pios, DEPTH);
        ploop_queue_run(queue);
    }
    worker->cpu_ns = bench_thread_cpu_ns() - cpu;
    worker->wall_ns = bench_now_ns(NULL) - wall;
    return NULL;
}

/* CPU and wall time of a thread's requests, the mean of the threads'. */
static void round_of(uint32_t threads, double *cpu, double *wall)
{
    struct worker workers[THREADS];
    *cpu = *wall = 0;
    pthread_barrier_init(&barrier, NULL, threads);
    for (uint32_t i = 0; i < threads; i++) {
        workers[i] = (struct worker){.index = i};
        bench_check("thread", -pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    for (uint32_t i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        bench_check("a request", workers[i].failures ? -5 : 0);
        *cpu += (double)workers[i].cpu_ns / threads;
        *wall += (double)workers[i].wall_ns / threads;
    }
    pthread_barrier_destroy(&barrier);
}

int main(void)
{
    struct ploop_dev_config config;
    double cpu[ROUNDS], wall[ROUNDS];
    ploop_file *file = bench_map_only(CLUSTERS * CLUSTER, CLUSTER);
    bench_map_all();
    ploop_dev_config_init(&config, sizeof(config));
    config.queue_count = THREADS;
    bench_check("open", ploop_dev_open(&file, 1, &config, &dev));
    for (int round = 0; round < ROUNDS; round++) {
        double cpu_one, wall_one, cpu_two, wall_two;
        round_of(1, &cpu_one, &wall_one);
        round_of(THREADS, &cpu_two, &wall_two);
        cpu[round] = THREADS * cpu_one / cpu_two;
        wall[round] = THREADS * wall_one / wall_two;
    }
    bench_print("P8", "two threads against one, by CPU time", bench_median(cpu, ROUNDS), 1,
                "times one thread");
    bench_print("P8", "two threads against one, by the clock", bench_median(wall, ROUNDS), 1,
                "times one thread");
    bench_check("close", ploop_dev_close(dev));
    bench_map_only_close(file);
    return 0;
}
