/* SPDX-License-Identifier: MIT */
/*
 * P20: how long a guest waits for a snapshot. A thread writes 4 KiB at a time, one write after the
 * other, to random places of a disk in a file. Beside it, after some time each, a flush or a
 * snapshot: the row is the longest write in which one of them took place, by the clock, as the
 * median of some rounds. On both sides the disk is as dirty as the writes of that time left it.
 */
#include "support/bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, ROUNDS = 5, PAUSE_MS = 400 };
#define CLUSTER (UINT64_C(1) << 20)
#define DISK_SIZE (UINT64_C(1) << 30)

static ploop_dev *dev;
static atomic_bool finished;
static _Atomic uint64_t longest_ns, writes;

static void *write_on(void *unused)
{
    (void)unused;
    static uint8_t block[BLOCK] = {1}; /* zeros would take no cluster */
    uint64_t random = 1;
    while (!atomic_load(&finished)) {
        uint64_t at = bench_random(&random) % (DISK_SIZE / BLOCK) * BLOCK;
        uint64_t begun = bench_now_ns(NULL);
        int64_t done;
        do { /* a call that waits is refused while the stack is recorded */
            done = ploop_dev_pwrite(dev, block, BLOCK, at);
        } while (done == -EAGAIN);
        bench_check("a write", done);
        uint64_t took = bench_now_ns(NULL) - begun;
        if (took > atomic_load(&longest_ns)) {
            atomic_store(&longest_ns, took);
        }
        atomic_fetch_add(&writes, 1);
    }
    return NULL;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void path_of(char path[512], int number)
{
    const char *directory = getenv("BENCH_BUILD");
    (void)snprintf(path, 512, "%s/snapshot-%ld-%d", directory ? directory : ".", (long)getpid(),
                   number);
}

static ploop_file *new_image(int number)
{
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK_SIZE, .cluster_size = CLUSTER};
    ploop_file *file;
    char path[512];
    path_of(path, number);
    bench_check("open",
                ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file));
    bench_check("create", ploop_image_create(file, &options));
    unlink(path);
    return file;
}

/* It records the stack nowhere: what that takes is the embedder's. */
static void commit(void *user_data, ploop_job *job)
{
    (void)user_data;
    bench_check("committed", ploop_job_committed(job, 0));
}

static double snapshot(ploop_file *next)
{
    ploop_job *job;
    uint64_t begun = bench_now_ns(NULL);
    bench_check("snapshot", ploop_dev_snapshot(dev, next, commit, NULL, NULL, &job));
    bench_check("the snapshot", ploop_job_wait(job));
    double took = (double)(bench_now_ns(NULL) - begun) / 1e6;
    bench_check("free", ploop_job_free(job));
    return took;
}

int main(void)
{
    ploop_file *files[ROUNDS + 1] = {new_image(0)};
    double flush_ms[ROUNDS], snapshot_ms[ROUNDS], whole_ms[ROUNDS];
    pthread_t thread;
    bench_check("open", ploop_dev_open(files, 1, NULL, &dev));
    bench_check("thread", -pthread_create(&thread, NULL, write_on, NULL));
    for (int round = 0; round < ROUNDS; round++) {
        files[round + 1] = new_image(round + 1);
        sleep_ms(PAUSE_MS);
        atomic_store(&longest_ns, 0);
        bench_check("flush", ploop_dev_flush(dev));
        sleep_ms(20);
        flush_ms[round] = (double)atomic_load(&longest_ns) / 1e6;
        sleep_ms(PAUSE_MS);
        atomic_store(&longest_ns, 0);
        whole_ms[round] = snapshot(files[round + 1]);
        sleep_ms(20);
        snapshot_ms[round] = (double)atomic_load(&longest_ns) / 1e6;
    }
    atomic_store(&finished, true);
    pthread_join(thread, NULL);
    bench_check("close", ploop_dev_close(dev));
    for (int i = 0; i <= ROUNDS; i++) {
        ploop_file_close(files[i]);
    }
    bench_print("P20", "the longest 4 KiB write beside a snapshot; peer: beside a flush",
                bench_median(snapshot_ms, ROUNDS), bench_median(flush_ms, ROUNDS), "ms");
    bench_print("P20", "a snapshot, whole", bench_median(whole_ms, ROUNDS), NAN, "ms");
    return 0;
}
