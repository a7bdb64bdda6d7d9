/* SPDX-License-Identifier: MIT */
/*
 * Rows that are counts of backend requests and of wake-ups: P11, P13, P14, P15, P16. The backend is
 * a memory file; it counts what it is asked, and holds requests back while `hold` has their
 * operation's bit or, with `room`, refuses what it has no room for. A held request is carried out
 * when it is released.
 */
#include "support/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pio/queue.h"

enum { CLUSTER = 4096, CLUSTERS = 4096, DEPTH_MAX = 2048, BATCH = 8, ROOM = 32, EARLY_RUNS = 100 };
#define DISK ((uint64_t)CLUSTERS * CLUSTER)
#define DATA ((uint64_t)CLUSTERS * 4) /* of an image, at least */
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

struct backend {
    ploop_file *memory, *file;
    struct ploop_io *held[DEPTH_MAX];
    uint32_t first, count; /* a ring */
    uint32_t hold;         /* 1 << operation */
    uint32_t room;         /* 0: unlimited */
    uint64_t submits, of[PLOOP_IO_TRUNCATE + 1];
    uint64_t moved; /* bytes read and written */
};

static uint64_t now = SECOND, wakes, cow_delay_ns;
static uint32_t cluster_size = CLUSTER;
static uint8_t bytes[DISK];
static const struct iovec one_cluster = {bytes, CLUSTER};

static uint64_t now_ns(void *context)
{
    (void)context;
    return now;
}

static void wake_at(void *context, uint64_t deadline_ns)
{
    (void)context;
    (void)deadline_ns;
    wakes++;
}

/* ---- the backend ---- */

static int get_info(void *context, struct ploop_file_info *info)
{
    struct backend *backend = context;
    int error = ploop_file_info(backend->memory, info);
    info->capabilities = PLOOP_FILE_CAN_GROW;
    return error;
}

static void carry_out(struct backend *backend, struct ploop_io *io)
{
    int64_t result = io->op == PLOOP_IO_TRUNCATE ? ploop_file_truncate(backend->memory, io->offset)
                                                 : (int64_t)io->length;
    uint64_t at = io->offset;
    backend->moved += io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE ? io->length : 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        const struct iovec *piece = &io->iov[i];
        bench_check("memory",
                    io->op == PLOOP_IO_READ
                        ? ploop_file_pread(backend->memory, piece->iov_base, piece->iov_len, at)
                        : ploop_file_pwrite(backend->memory, piece->iov_base, piece->iov_len, at));
        at += piece->iov_len;
    }
    ploop_io_complete(io, result);
}

static int submit(void *context, struct ploop_io *io)
{
    struct backend *backend = context;
    backend->submits++;
    backend->of[io->op]++;
    if (!(backend->hold & 1u << io->op)) {
        carry_out(backend, io);
        return 0;
    }
    if (backend->count == DEPTH_MAX || (backend->room && backend->count == backend->room)) {
        return -EAGAIN;
    }
    backend->held[(backend->first + backend->count++) % DEPTH_MAX] = io;
    return 0;
}

/* Carry out the oldest held request. */
static bool release(struct backend *backend)
{
    if (backend->count == 0) {
        return false;
    }
    struct ploop_io *io = backend->held[backend->first];
    backend->first = (backend->first + 1) % DEPTH_MAX;
    backend->count--;
    carry_out(backend, io);
    return true;
}

static void release_all(struct backend *backend)
{
    backend->hold = 0;
    while (release(backend)) {
    }
}

static void backend_create(struct backend *backend)
{
    const struct ploop_io_ops ops = {.size = sizeof(ops), .get_info = get_info, .submit = submit};
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK, .cluster_size = cluster_size};
    memset(backend, 0, sizeof(*backend));
    bench_check("memory file", ploop_file_create_memory(0, &backend->memory));
    bench_check("file", ploop_file_create(&ops, backend, &backend->file));
    bench_check("create", ploop_image_create(backend->file, &options));
}

/* ---- the device ---- */

struct world {
    struct backend base, top; /* the base is used where there are two */
    ploop_dev *dev;
    ploop_queue *queue;
    uint32_t done;
};

static struct world world;

static void world_open(uint32_t deltas, uint32_t flags)
{
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns, .wake_at = wake_at};
    struct ploop_dev_config config;
    ploop_file *files[2];
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    config.pio_count = DEPTH_MAX;
    config.clock = &clock;
    config.cow_delay_ns = cow_delay_ns;
    memset(&world, 0, sizeof(world));
    memset(bytes, 0x5a, sizeof(bytes)); /* zeros would take no cluster */
    if (deltas == 2) {
        backend_create(&world.base);
        bench_check("base", ploop_dev_open(&world.base.file, 1, NULL, &world.dev));
        bench_check("write", ploop_dev_pwrite(world.dev, bytes, DISK, 0));
        bench_check("close", ploop_dev_close(world.dev));
    }
    backend_create(&world.top);
    files[0] = deltas == 2 ? world.base.file : world.top.file;
    files[1] = world.top.file;
    bench_check("open", ploop_dev_open(files, deltas, &config, &world.dev));
    world.queue = ploop_dev_queue(world.dev, 0);
}

/* Write so many clusters, durably, and let a run find that nothing is due any more. */
static void map_clusters(uint64_t count)
{
    bench_check("write", ploop_dev_pwrite(world.dev, bytes, count * CLUSTER, 0));
    bench_check("flush", ploop_dev_flush(world.dev));
    now += 10 * SECOND;
    ploop_queue_run(world.queue);
}

static void world_close(void)
{
    release_all(&world.top);
    bench_check("close", ploop_dev_close(world.dev));
    for (struct backend *backend = &world.base; backend <= &world.top; backend++) {
        ploop_file_close(backend->file);
        ploop_file_close(backend->memory);
    }
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    (void)user_data;
    bench_check("a request", result);
    world.done++;
    ploop_pio_put(pio);
}

static ploop_pio *new_pio(void)
{
    ploop_pio *pio = ploop_pio_get(world.queue);
    ploop_pio_set_callback(pio, done, NULL);
    return pio;
}

static void send(ploop_pio *pio)
{
    bench_check("submit", ploop_queue_submit(world.queue, &pio, 1) == 1 ? 0 : -EIO);
}

static void send_read(uint64_t cluster)
{
    ploop_pio *pio = new_pio();
    ploop_pio_prep_readv(pio, cluster * CLUSTER, &one_cluster, 1);
    send(pio);
}

static void send_write(uint64_t cluster, uint64_t length)
{
    static struct iovec iov = {bytes, 0};
    ploop_pio *pio = new_pio();
    iov.iov_len = length;
    ploop_pio_prep_writev(pio, cluster * CLUSTER, &iov, 1, 0);
    send(pio);
}

static void run_until(uint32_t count)
{
    while (world.done < count) {
        ploop_queue_run(world.queue);
    }
}

/* ---- the rows ---- */

static void flushes_at_once(void)
{
    enum { FLUSHES = 32 };
    world_open(1, 0);
    map_clusters(BATCH);
    bench_check("write", ploop_dev_pwrite(world.dev, bytes, CLUSTER, DISK / 2));
    uint64_t before = world.top.of[PLOOP_IO_SYNC];
    world.top.hold = 1u << PLOOP_IO_SYNC;
    for (int i = 0; i < FLUSHES; i++) {
        ploop_pio *pio = new_pio();
        ploop_pio_prep_flush(pio);
        send(pio);
    }
    release_all(&world.top);
    run_until(FLUSHES);
    bench_print("P11", "32 flushes at once", (double)(world.top.of[PLOOP_IO_SYNC] - before), NAN,
                "syncs");
    world_close();
}

/* Reads of mapped clusters: how many backend requests each, and whether the engine had a share. */
static void reads_beside(const char *what, uint64_t first)
{
    struct ploop_dev_info before = {.size = sizeof(before)}, after = {.size = sizeof(after)};
    uint64_t reads = world.top.of[PLOOP_IO_READ] + world.base.of[PLOOP_IO_READ];
    uint32_t completed = world.done;
    ploop_dev_info(world.dev, &before);
    for (uint64_t i = 0; i < BATCH; i++) {
        send_read(first + i);
    }
    ploop_queue_run(world.queue);
    ploop_dev_info(world.dev, &after);
    reads = world.top.of[PLOOP_IO_READ] + world.base.of[PLOOP_IO_READ] - reads;
    bench_check("a read was not completed", world.done - completed < BATCH ? -EIO : 0);
    bench_print("P13", what, (double)reads / BATCH, NAN, "backend requests per read");
    char through_engine[128];
    (void)snprintf(through_engine, sizeof(through_engine), "%s: through the engine", what);
    bench_print("P13", through_engine, BATCH - (double)(after.requests_fast - before.requests_fast),
                NAN, "of 8 reads");
}

static void reads_beside_writeback(void)
{
    world_open(1, 0);
    map_clusters(BATCH);
    send_write(CLUSTERS - 1, CLUSTER);
    run_until(1);
    world.top.hold = 1u << PLOOP_IO_WRITE;
    now += 10 * SECOND;
    ploop_queue_run(world.queue);
    bench_check("no page is being written", world.top.count ? 0 : -EIO);
    reads_beside("mapped read while a map page is written", 0);
    world_close();
}

static void reads_beside_copy(void)
{
    world_open(2, 0);
    map_clusters(BATCH);
    world.base.hold = 1u << PLOOP_IO_READ;
    send_write(CLUSTERS - 1, 512);
    bench_check("no cluster is being copied", world.base.count ? 0 : -EIO);
    reads_beside("mapped read while another cluster is copied", 0);
    release_all(&world.base);
    world_close();
}

/* The discard has begun and has not come to the last clusters. */
static void reads_beside_discard(void)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    world_open(1, 0);
    map_clusters(CLUSTERS);
    ploop_pio *pio = new_pio();
    ploop_pio_prep_discard(pio, 0, DISK);
    send(pio);
    ploop_dev_info(world.dev, &info);
    bench_check("no discard under way",
                info.clusters_mapped < CLUSTERS && info.clusters_mapped > 2 * BATCH ? 0 : -EIO);
    reads_beside("mapped read beside a discard of the disk", CLUSTERS - BATCH);
    run_until(BATCH + 1);
    world_close();
}

/* The job's copies stand at their writes, all that it makes at once. */
static void reads_beside_merge(const char *what, uint32_t direction)
{
    struct backend *receiver = direction & PLOOP_MERGE_UP ? &world.top : &world.base;
    ploop_job *job;
    world_open(2, 0);
    map_clusters(8 * BATCH);
    receiver->hold = 1u << PLOOP_IO_WRITE;
    bench_check("merge", ploop_dev_merge(world.dev, 0, direction, NULL, NULL, NULL, &job));
    for (int i = 0; i < EARLY_RUNS; i++) {
        ploop_queue_run(world.queue);
        while (receiver->count && receiver->held[receiver->first]->offset < DATA) {
            release(receiver); /* a mark */
        }
    }
    bench_check("nothing is being copied", receiver->count ? 0 : -EIO);
    reads_beside(what, 7 * BATCH);
    release_all(receiver);
    int error;
    while ((error = ploop_job_wait(job)) == -EAGAIN) {
        bench_check("committed", ploop_job_committed(job, 0));
    }
    bench_check("merge", error);
    bench_check("free", ploop_job_free(job));
    world_close();
}

static void full_backend(const char *what, uint32_t flags)
{
    static ploop_pio *pios[DEPTH_MAX];
    world_open(1, flags);
    map_clusters(CLUSTERS);
    world.top.hold = 1u << PLOOP_IO_READ;
    world.top.room = ROOM;
    uint64_t before = world.top.submits;
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        pios[i] = new_pio();
        ploop_pio_prep_readv(pios[i], (uint64_t)i * CLUSTER, &one_cluster, 1);
    }
    bench_check("submit", ploop_queue_submit(world.queue, pios, DEPTH_MAX) - DEPTH_MAX);
    while (release(&world.top)) {
    }
    run_until(DEPTH_MAX);
    bench_print("P14", what, (double)(world.top.submits - before) / DEPTH_MAX, NAN,
                "submit calls per request");
    world_close();
}

/* Small writes over a cluster of 1 MiB that the lower delta has, without a flush. */
static void delayed_copies(void)
{
    cluster_size = 1 << 20;
    cow_delay_ns = SECOND;
    world_open(2, 0);
    uint64_t before = world.top.moved + world.base.moved, lower = world.base.moved;
    send_write(0, CLUSTER);
    run_until(1);
    bench_print("P15", "first 4 KiB write over a lower delta",
                (double)(world.top.moved + world.base.moved - before), NAN, "backend bytes");
    for (uint32_t i = 1; i < cluster_size / CLUSTER; i++) {
        send_write(i, CLUSTER);
        run_until(i + 1);
    }
    bench_print("P15", "4 KiB writes that cover its cluster: bytes copied",
                (double)(world.base.moved - lower), NAN, "bytes");
    bench_print("P15", "the same: bytes written for each byte of the guest's",
                (double)(world.top.moved + world.base.moved - before) / cluster_size, NAN,
                "bytes per byte");
    world_close();
    cluster_size = CLUSTER;
    cow_delay_ns = 0;
}

static void wakeups(void)
{
    uint64_t writes = 0;
    world_open(1, 0);
    map_clusters(BATCH);
    world.top.hold = 1u << PLOOP_IO_READ;
    for (uint64_t i = 0; i < BATCH; i++) {
        send_read(i);
    }
    while (release(&world.top)) {
    }
    /* An event descriptor counts the writes to it until it is read. */
    bench_check("event descriptor",
                read(world.queue->event_fd, &writes, sizeof(writes)) == sizeof(writes) ? 0 : -EIO);
    bench_print("P16", "eventfd writes for 8 completions", (double)writes, NAN, "writes");
    world.top.hold = 0;
    run_until(BATCH);

    send_write(CLUSTERS - 1, CLUSTER);
    run_until(BATCH + 1);
    uint64_t before = wakes;
    for (int i = 0; i < EARLY_RUNS; i++) {
        now += MILLISECOND;
        ploop_queue_run(world.queue);
        ploop_dev_run(world.dev);
    }
    bench_print("P16", "wake_at in 200 early runs", (double)(wakes - before), NAN, "calls");
    world_close();
}

int main(void)
{
    flushes_at_once();
    reads_beside_writeback();
    reads_beside_copy();
    reads_beside_discard();
    reads_beside_merge("mapped read while the delta below is merged up", PLOOP_MERGE_UP);
    reads_beside_merge("mapped read while the top is merged down",
                       PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS);
    full_backend("2,048 reads, room for 32", 0);
    full_backend("the same, all through the engine", PLOOP_DEV_NO_FAST_PATH);
    delayed_copies();
    wakeups();
    return 0;
}
