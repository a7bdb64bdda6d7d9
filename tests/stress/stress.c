/* SPDX-License-Identifier: MIT */
/*
 * All operations at once, from several threads, on a real file; for the thread sanitizer.
 *
 *     stress DIRECTORY SECONDS
 *
 * Each thread has a queue, a depth of requests, and every fourth cluster of the disk, so that the
 * threads share map pages, host clusters and locks, and each knows what its own blocks hold. The
 * main thread suspends, resumes, flushes, writes map pages, changes the delay and looks at
 * everything meanwhile, and runs jobs: the disk grows, its file is made shorter, snapshots are
 * taken and merged away again, up and down, and some of this is cancelled or refused. After a
 * session the stack is opened again and read whole. Sessions take turns with the backends: POSIX,
 * io_uring, each with and without the page cache; and with who runs the queues: the threads
 * themselves, or runners.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ops.h>
#include <ploop/ploop.h>

enum {
    THREADS = 4,
    DEPTH = 8,
    CLUSTER = 65536,
    BLOCK = 4096,
    CLUSTER_BLOCKS = CLUSTER / BLOCK,
    CLUSTERS = 2048, /* of the disk: three map pages */
    FILES = 5,       /* of the stack, at most */
    SESSION_SECONDS = 3
};

#define NS UINT64_C(1000000000)

#define MUST(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "stress: %s:%d: %s: ", __FILE__, __LINE__, #condition);          \
            (void)fprintf(stderr, __VA_ARGS__);                                                    \
            (void)fprintf(stderr, "\n");                                                           \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum what { READ, WRITE, ZEROES, DISCARD, FLUSH, KINDS };
static const char *const names[] = {"read", "write", "zeroes", "discard", "flush"};

/* A request, on blocks [first, first + count) of its thread's. */
struct slot {
    struct worker *worker;
    bool busy;
    enum what what;
    uint32_t first, count;
    uint8_t value;
    struct iovec iov;
    uint8_t *memory;
};

struct worker {
    pthread_t thread;
    uint32_t index;
    unsigned seed;
    ploop_queue *queue;
    bool has_runner;
    pthread_mutex_t mutex; /* around all that follows: a runner calls back */
    pthread_cond_t called_back;
    uint32_t in_flight;
    struct slot slots[DEPTH];
    bool busy[CLUSTERS / THREADS];                       /* clusters with a request */
    uint8_t values[CLUSTERS / THREADS * CLUSTER_BLOCKS]; /* what each block holds */
    bool or_zeros[CLUSTERS / THREADS * CLUSTER_BLOCKS];  /* that, or zeros */
    uint64_t done[KINDS];
};

static struct worker workers[THREADS];
static ploop_dev *dev;
static ploop_uring *group;
static atomic_bool stop;

/* The stack, the base first, and the name of each: the session's directory and a number. */
static struct {
    ploop_file *file;
    char path[4096];
} files[FILES];
static uint32_t file_count;
/* A lower delta may have been there since the session began: a discard may have done nothing. */
static atomic_bool was_stacked;

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

/* Where a thread's block lies on the disk. */
static uint64_t offset_of(const struct worker *worker, uint32_t block)
{
    uint64_t cluster = (uint64_t)(block / CLUSTER_BLOCKS) * THREADS + worker->index;
    return cluster * CLUSTER + (uint64_t)(block % CLUSTER_BLOCKS) * BLOCK;
}

static void must_hold(const struct worker *worker, uint32_t first, uint32_t count,
                      const uint8_t *bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t value = worker->values[first + i];
        for (uint32_t at = 0; at < BLOCK; at += 512) {
            const uint8_t *sector = bytes + (size_t)i * BLOCK + at;
            bool may_be = sector[0] == value || (sector[0] == 0 && worker->or_zeros[first + i]);
            MUST(may_be && memcmp(sector, sector + 1, 511) == 0,
                 "block %u of thread %u holds 0x%02x, not 0x%02x", first + i, worker->index,
                 sector[0], value);
        }
    }
}

/* ---- a thread's requests ---- */

static void request_done(ploop_pio *pio, int result, void *user_data)
{
    struct slot *slot = user_data;
    struct worker *worker = slot->worker;
    MUST(result == 0, "%s: %s", names[slot->what], strerror(-result));
    pthread_mutex_lock(&worker->mutex);
    if (slot->what == READ) {
        must_hold(worker, slot->first, slot->count, slot->memory);
    } else if (slot->what == DISCARD && atomic_load(&was_stacked)) {
        memset(worker->or_zeros + slot->first, true, slot->count);
    } else if (slot->what != FLUSH) {
        memset(worker->values + slot->first, slot->value, slot->count);
        memset(worker->or_zeros + slot->first, false, slot->count);
    }
    if (slot->what != FLUSH) {
        worker->busy[slot->first / CLUSTER_BLOCKS] = false;
    }
    worker->done[slot->what]++;
    slot->busy = false;
    worker->in_flight--;
    ploop_pio_put(pio);
    pthread_cond_signal(&worker->called_back);
    pthread_mutex_unlock(&worker->mutex);
}

static void prepare(struct slot *slot, ploop_pio *pio)
{
    struct worker *worker = slot->worker;
    uint64_t offset = offset_of(worker, slot->first), length = (uint64_t)slot->count * BLOCK;
    uint32_t fua = rand_r(&worker->seed) % 8 == 0 ? PLOOP_PIO_FUA : 0u;
    slot->iov = (struct iovec){slot->memory, length};
    switch (slot->what) {
    case READ:
        ploop_pio_prep_readv(pio, offset, &slot->iov, 1);
        break;
    case WRITE:
        slot->value = (uint8_t)(1 + rand_r(&worker->seed) % 255);
        memset(slot->memory, slot->value, length);
        ploop_pio_prep_writev(pio, offset, &slot->iov, 1, fua);
        break;
    case ZEROES:
        ploop_pio_prep_write_zeroes(pio, offset, length, fua);
        break;
    case DISCARD:
        ploop_pio_prep_discard(pio, offset, length);
        break;
    default:
        ploop_pio_prep_flush(pio);
    }
}

/* False: what was chosen is busy. */
static bool begin(struct worker *worker, struct slot *slot)
{
    static const enum what mix[] = {READ,  READ,  READ,  READ,   READ,   WRITE,   WRITE,   WRITE,
                                    WRITE, WRITE, WRITE, ZEROES, ZEROES, DISCARD, DISCARD, FLUSH};
    uint32_t cluster = (uint32_t)rand_r(&worker->seed) % (CLUSTERS / THREADS), inside;
    slot->what = mix[(uint32_t)rand_r(&worker->seed) % (sizeof(mix) / sizeof(*mix))];
    slot->value = 0;
    if (slot->what != FLUSH && worker->busy[cluster]) {
        return false;
    }
    inside = slot->what == DISCARD ? 0 : (uint32_t)rand_r(&worker->seed) % CLUSTER_BLOCKS;
    slot->first = cluster * CLUSTER_BLOCKS + inside;
    slot->count = slot->what == DISCARD
                      ? CLUSTER_BLOCKS
                      : 1 + (uint32_t)rand_r(&worker->seed) % (CLUSTER_BLOCKS - inside);
    ploop_pio *pio = ploop_pio_get(worker->queue);
    MUST(pio, "the pool is empty");
    worker->busy[cluster] |= slot->what != FLUSH;
    slot->busy = true;
    worker->in_flight++;
    prepare(slot, pio);
    ploop_pio_set_callback(pio, request_done, slot);
    MUST(ploop_queue_submit(worker->queue, &pio, 1) == 1, "submit");
    return true;
}

/* Between two requests, with the mutex. */
static void wait_for_some(struct worker *worker)
{
    if (worker->has_runner) {
        while (worker->in_flight == DEPTH || (worker->in_flight && atomic_load(&stop))) {
            pthread_cond_wait(&worker->called_back, &worker->mutex);
        }
        return;
    }
    pthread_mutex_unlock(&worker->mutex);
    MUST(ploop_queue_wait(worker->queue, NS / 10) >= 0, "ploop_queue_wait");
    pthread_mutex_lock(&worker->mutex);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    pthread_mutex_lock(&worker->mutex);
    while (!atomic_load(&stop) || worker->in_flight) {
        for (int i = 0; i < DEPTH && !atomic_load(&stop); i++) {
            if (!worker->slots[i].busy) {
                (void)begin(worker, &worker->slots[i]);
            }
        }
        wait_for_some(worker);
    }
    pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

/* ---- the main thread meanwhile ---- */

static void disturb(unsigned *seed)
{
    static uint8_t bytes[CLUSTER];
    const struct iovec region = {bytes, sizeof(bytes)};
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_extent extent = {.size = sizeof(extent)};
    struct ploop_bat_page_info page = {.size = sizeof(page)};
    uint64_t offset = (uint64_t)rand_r(seed) % CLUSTERS * CLUSTER;
    int error = 0;
    switch (rand_r(seed) % 7) {
    case 0:
        error = ploop_dev_suspend(dev);
        error = error ? error : ploop_dev_resume(dev);
        break;
    case 1:
        error = ploop_dev_flush(dev);
        break;
    case 2:
        error = ploop_dev_pread(dev, bytes, sizeof(bytes), offset) == sizeof(bytes) ? 0 : -EIO;
        break;
    case 3:
        error = ploop_bat_page_write(dev, (uint32_t)rand_r(seed) % ploop_bat_page_count(dev));
        break;
    case 4:
        error = ploop_bat_set_delay(dev, (uint64_t)rand_r(seed) % (NS / 50), NS);
        break;
    case 5:
        error = ploop_bat_lookup(dev, offset, CLUSTER, &extent);
        error = error ? error : ploop_bat_page_info(dev, 0, &page);
        break;
    default:
        error = ploop_dev_info(dev, &info);
        ploop_dev_run(dev);
        if (ploop_dev_register_memory(dev, &region, 1) == 0) {
            error = error ? error : ploop_dev_unregister_memory(dev, &region, 1);
        }
    }
    MUST(error == 0, "%s", strerror(-error));
}

/* ---- jobs ---- */

enum change { GROW, COMPACT, SNAPSHOT, MERGE_UP, MERGE_DOWN, CHANGES };
static uint64_t changes_done[CHANGES];
static _Atomic(ploop_job *) asks; /* for its new stack to be recorded */

static ploop_file *open_file(const char *path, uint32_t session, uint32_t flags)
{
    flags |= session & 2 ? PLOOP_FILE_DIRECT : 0u;
    ploop_file *file;
    int error = session & 1 ? ploop_file_open_uring(path, flags, group, &file)
                            : ploop_file_open_posix(path, flags, &file);
    MUST(error == 0, "%s: %s", path, strerror(-error));
    return file;
}

static void create(const char *path, uint64_t disk_size)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = disk_size, .cluster_size = CLUSTER};
    ploop_file *file;
    (void)unlink(path);
    MUST(ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file) == 0, "%s",
         path);
    MUST(ploop_image_create(file, &options) == 0, "create");
    ploop_file_close(file);
}

static void record(void *user_data, ploop_job *job)
{
    (void)user_data;
    atomic_store(&asks, job);
}

static uint64_t disk_size(void)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    MUST(ploop_dev_info(dev, &info) == 0, "info");
    return info.disk_size;
}

/* What this file takes away or brings is known when the job has ended. */
static void drop_file(uint32_t at)
{
    char path[sizeof(files[0].path)];
    memcpy(path, files[at].path, sizeof(path));
    ploop_file_close(files[at].file);
    MUST(unlink(path) == 0, "%s", path);
    for (uint32_t i = at; i + 1 < file_count; i++) {
        files[i] = files[i + 1];
    }
    file_count--;
    memcpy(files[file_count].path, path, sizeof(path));
    files[file_count].file = NULL;
}

static enum change choose(unsigned *seed)
{
    enum change change = (enum change)(rand_r(seed) % CHANGES);
    if (change >= MERGE_UP && file_count == 1) {
        change = SNAPSHOT;
    }
    return change == SNAPSHOT && file_count == FILES ? MERGE_UP : change;
}

static ploop_job *start(enum change change, uint32_t level, uint32_t session, unsigned *seed)
{
    ploop_job *job;
    int error;
    switch (change) {
    case GROW:
        error = ploop_dev_grow(dev, disk_size() + (uint64_t)rand_r(seed) % 4096 * CLUSTER, NULL,
                               NULL, &job);
        break;
    case COMPACT:
        error = ploop_dev_compact(dev, NULL, NULL, &job);
        break;
    case SNAPSHOT:
        create(files[file_count].path, disk_size());
        files[file_count].file = open_file(files[file_count].path, session, PLOOP_FILE_READ_WRITE);
        atomic_store(&was_stacked, true);
        error = ploop_dev_snapshot(dev, files[file_count].file, record, NULL, NULL, &job);
        break;
    default:
        error = ploop_dev_merge(
            dev, level,
            change == MERGE_UP ? PLOOP_MERGE_UP : PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS,
            record, NULL, NULL, &job);
    }
    MUST(error == 0 || (error == -ENOTSUP && change == MERGE_DOWN), "%s", strerror(-error));
    return error ? NULL : job;
}

static void account(enum change change, uint32_t level, int result)
{
    if (change == SNAPSHOT) {
        file_count++;
        if (result) {
            drop_file(file_count - 1);
        }
    } else if (change > SNAPSHOT && !result) {
        drop_file(change == MERGE_UP ? level : level + 1);
    }
    changes_done[change] += !result;
}

/* A job, of which there is one at a time; it goes on while others run the device. */
static void change_stack(uint32_t session, unsigned *seed)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    static uint32_t entries[1024];
    enum change change = choose(seed);
    uint32_t level = file_count > 1 ? (uint32_t)rand_r(seed) % (file_count - 1) : 0;
    bool cancels = rand_r(seed) % 8 == 0, refuses = rand_r(seed) % 8 == 0;
    MUST(ploop_bat_page_read(dev, ploop_bat_page_count(dev) - 1, entries, 1024) > 0, "page");
    atomic_store(&asks, NULL);
    ploop_job *job = start(change, level, session, seed), *asking;
    if (!job) {
        return;
    }
    do {
        disturb(seed);
        if (cancels && rand_r(seed) % 4 == 0) {
            (void)ploop_job_cancel(job);
        }
        asking = atomic_exchange(&asks, NULL);
        if (asking) {
            (void)ploop_job_committed(asking, refuses ? -EROFS : 0);
        }
        MUST(ploop_job_info(job, &info) == 0, "job");
    } while (info.state != PLOOP_JOB_ENDED);
    int result = ploop_job_wait(job);
    MUST(result == 0 || (cancels && result == -ECANCELED) || (refuses && result == -EROFS),
         "%d: %s", change, strerror(-result));
    MUST(ploop_job_free(job) == 0, "free");
    account(change, level, result);
}

/* ---- a session ---- */

/* The top for writing, those below it for reading. */
static void open_device(uint32_t session, uint32_t runners)
{
    ploop_file *stack[FILES];
    for (uint32_t i = 0; i < file_count; i++) {
        files[i].file =
            open_file(files[i].path, session,
                      i + 1 == file_count ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY);
        stack[i] = files[i].file;
    }
    atomic_store(&was_stacked, file_count > 1);
    struct ploop_dev_config config;
    struct iovec regions[THREADS];
    ploop_dev_config_init(&config, sizeof(config));
    config.queue_count = THREADS;
    config.runner_count = runners;
    config.writeback_delay_ns = NS / 100;
    config.cow_delay_ns = session & 1 ? NS / 20 : 0;
    int error = ploop_dev_open(stack, file_count, &config, &dev);
    MUST(error == 0, "open: %s", strerror(-error));
    /* Of each thread's memory that of its first slot. */
    for (uint32_t i = 0; i < THREADS; i++) {
        regions[i] = (struct iovec){workers[i].slots[0].memory, CLUSTER};
    }
    error = ploop_dev_register_memory(dev, regions, THREADS);
    MUST(error == 0 || error == -ENOTSUP, "register: %s", strerror(-error));
}

static void close_device(void)
{
    int error = ploop_dev_close(dev);
    MUST(error == 0, "close: %s", strerror(-error));
    for (uint32_t i = 0; i < file_count; i++) {
        ploop_file_close(files[i].file);
        files[i].file = NULL;
    }
}

/* Every fourth with a thread of the kernel's that polls. */
static void open_group(uint32_t session)
{
    const struct ploop_uring_options options = {.size = sizeof(options),
                                                .flags = session & 4 ? PLOOP_URING_SQPOLL : 0};
    int error = session & 1 ? ploop_uring_create(&options, &group) : 0;
    MUST(error == 0 || error == -ENOSYS, "group: %s", strerror(-error));
}

static void run_session(uint32_t session, uint64_t end_ns)
{
    open_group(session);
    unsigned seed = session;
    uint32_t runners = session & 4 ? 1 + session % 3 : 0;
    open_device(session, runners);
    atomic_store(&stop, false);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i].queue = ploop_dev_queue(dev, i);
        workers[i].has_runner = runners > 0;
        MUST(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "pthread_create");
    }
    while (now_ns() < end_ns) {
        rand_r(&seed) % 16 ? disturb(&seed) : change_stack(session, &seed);
        (void)usleep(2000);
    }
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < THREADS; i++) {
        MUST(pthread_join(workers[i].thread, NULL) == 0, "pthread_join");
    }
    close_device();
    ploop_uring_close(group);
    group = NULL;
}

static void verify(uint32_t session)
{
    static uint8_t bytes[CLUSTER];
    open_device(session, 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        for (uint32_t block = 0; block < CLUSTERS / THREADS * CLUSTER_BLOCKS;
             block += CLUSTER_BLOCKS) {
            MUST(ploop_dev_pread(dev, bytes, CLUSTER, offset_of(&workers[i], block)) == CLUSTER,
                 "read");
            must_hold(&workers[i], block, CLUSTER_BLOCKS, bytes);
        }
    }
    close_device();
}

static void init_workers(void)
{
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i].index = i;
        workers[i].seed = i + 1;
        pthread_mutex_init(&workers[i].mutex, NULL);
        pthread_cond_init(&workers[i].called_back, NULL);
        for (int slot = 0; slot < DEPTH; slot++) {
            workers[i].slots[slot].worker = &workers[i];
            /* Every second one is not aligned for direct I/O. */
            uint8_t *memory = NULL;
            MUST(posix_memalign((void **)&memory, BLOCK, CLUSTER + BLOCK) == 0, "no memory");
            workers[i].slots[slot].memory = memory + (slot & 1 ? 64 : 0);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t done[KINDS] = {0};
    uint32_t sessions = 0;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: stress DIRECTORY SECONDS\n");
        return 2;
    }
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(files[i].path, sizeof(files[i].path), "%s/stress-%ld-%d.hds", argv[1],
                       (long)getpid(), i);
    }
    uint64_t end_ns = now_ns() + strtoull(argv[2], NULL, 10) * NS;
    init_workers();
    create(files[0].path, (uint64_t)CLUSTERS * CLUSTER);
    file_count = 1;
    while (now_ns() < end_ns || sessions < 8) {
        run_session(sessions, now_ns() + SESSION_SECONDS * NS);
        verify(sessions + 1);
        sessions++;
    }
    for (uint32_t i = 0; i < file_count; i++) {
        (void)unlink(files[i].path);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        for (int what = 0; what < KINDS; what++) {
            done[what] += workers[i].done[what];
        }
    }
    printf(
        "stress: %u sessions, %llu reads, %llu writes, %llu zeroes, %llu discards, %llu flushes\n",
        sessions, (unsigned long long)done[READ], (unsigned long long)done[WRITE],
        (unsigned long long)done[ZEROES], (unsigned long long)done[DISCARD],
        (unsigned long long)done[FLUSH]);
    printf("stress: grown %llu times, compacted %llu, %llu snapshots, merged up %llu, down %llu\n",
           (unsigned long long)changes_done[GROW], (unsigned long long)changes_done[COMPACT],
           (unsigned long long)changes_done[SNAPSHOT], (unsigned long long)changes_done[MERGE_UP],
           (unsigned long long)changes_done[MERGE_DOWN]);
    return 0;
}
