/* SPDX-License-Identifier: MIT */
/*
 * The engine over a backend that does everything the contract allows. The disk must still read as
 * its model predicts.
 *
 * Each sector written carries its number and a version. The model stores for a sector the last
 * version that was written, the last that was sent, and which of them were zeros; while writes are
 * in flight, a read may return any version from the one to the other.
 *
 * After two sessions the image becomes the base of a stack, under a top over a backend of another
 * shape; two more sessions write there. A discard over a base may leave a sector unchanged: the
 * model then allows both contents.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ploop/ploop.h>

#include "image_fixture.h"
#include "wild_backend.h"

enum {
    SECTOR = 512,
    CLUSTER = 16384,
    SECTORS_PER_CLUSTER = CLUSTER / SECTOR,
    DISK = 300 * CLUSTER + 7 * SECTOR, /* filling more than one BAT page would take too long */
    DISK_SECTORS = DISK / SECTOR,
    REQUEST_SECTORS = 3 * SECTORS_PER_CLUSTER,
    SLOTS = 12,
    QUEUES = 2,
    REQUESTS = 800,
    REQUESTS_INSTRUMENTED = 80
};

struct sector {
    uint32_t done, sent, zeros_sent; /* versions */
    bool done_zeros;
    bool maybe_zeros; /* discarded since */
    bool writing;
    uint32_t reading;
};

enum kind { READ, WRITE, ZEROES, DISCARD, FLUSH, BAT_WRITE };

struct slot {
    struct run *run;
    ploop_pio *pio;
    ploop_queue *queue;
    enum kind kind;
    uint32_t first, count, flags, version;
    uint8_t *buffer;
    struct iovec iov[4];
    uint32_t iov_count;
    struct {
        uint32_t done;
        bool zeros, maybe_zeros;
    } before[REQUEST_SECTORS];
};

struct shape {
    const char *name;
    struct wild_config backend;
    uint32_t dev_flags;
    bool overlap; /* reads overlap writes in flight: only if the backend moves whole sectors */
    bool from_callbacks; /* completions send the next request */
};

struct run {
    const struct shape *shape;
    bool over_base, overlap, refuses;
    uint32_t requests; /* in a session */
    uint32_t alignment;
    ploop_dev *dev;
    ploop_queue *queues[QUEUES];
    pthread_mutex_t mutex;
    pthread_cond_t change;
    uint64_t random;
    struct sector sectors[DISK_SECTORS];
    struct slot slots[SLOTS];
    uint32_t idle[SLOTS], idle_count;
    uint32_t version, sent, completed;
    atomic_int callbacks_of[QUEUES];
    atomic_bool wake;
};

static uint32_t draw(struct run *run, uint32_t below)
{
    run->random = run->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(run->random >> 33) % below;
}

/* ---- The model; called with the mutex held ---- */

static void stamp(uint8_t *bytes, uint32_t sector, uint32_t version)
{
    uint64_t word = (uint64_t)sector << 32 | version;
    for (uint32_t i = 0; i < SECTOR; i += sizeof(word)) {
        memcpy(bytes + i, &word, sizeof(word));
    }
}

static void judge_sector(const struct sector *sector, uint32_t number, const uint8_t *bytes,
                         uint32_t done, bool done_zeros, bool maybe_zeros)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    must_msg(memcmp(bytes, bytes + sizeof(word), SECTOR - sizeof(word)) == 0, "sector %u is a mix",
             number);
    if (word == 0) {
        must_msg(done_zeros || maybe_zeros || sector->maybe_zeros || sector->zeros_sent > done,
                 "sector %u reads as zeros instead of version %u..%u", number, done, sector->sent);
        return;
    }
    uint32_t version = (uint32_t)word;
    must_msg(word >> 32 == number, "sector %u holds sector %u", number, (uint32_t)(word >> 32));
    must_msg((version == done && !done_zeros) || (version > done && version <= sector->sent),
             "sector %u has version %u instead of %u..%u", number, version, done, sector->sent);
}

/*
 * The sectors that a request changes: a discard ignores the clusters that it covers only in part.
 */
static void changed_range(const struct slot *slot, uint32_t *first, uint32_t *end)
{
    *first = slot->first;
    *end = slot->first + slot->count;
    if (slot->kind == DISCARD) {
        *first = (*first + SECTORS_PER_CLUSTER - 1) / SECTORS_PER_CLUSTER * SECTORS_PER_CLUSTER;
        *end = *end == DISK_SECTORS ? *end : *end / SECTORS_PER_CLUSTER * SECTORS_PER_CLUSTER;
        *end = *end < *first ? *first : *end;
    }
}

static bool is_free(const struct run *run, const struct slot *slot)
{
    for (uint32_t i = slot->first; i < slot->first + slot->count; i++) {
        const struct sector *sector = &run->sectors[i];
        if (slot->kind == READ ? sector->writing && !run->overlap
                               : sector->writing || (sector->reading && !run->overlap)) {
            return false;
        }
    }
    return true;
}

static void model_send(struct run *run, struct slot *slot)
{
    uint32_t first, end;
    if (slot->kind == READ) {
        for (uint32_t i = 0; i < slot->count; i++) {
            struct sector *sector = &run->sectors[slot->first + i];
            sector->reading++;
            slot->before[i].done = sector->done;
            slot->before[i].zeros = sector->done_zeros;
            slot->before[i].maybe_zeros = sector->maybe_zeros;
        }
        return;
    }
    slot->version = ++run->version;
    changed_range(slot, &first, &end);
    for (uint32_t i = first; i < end; i++) {
        run->sectors[i].writing = true;
        if (slot->kind == DISCARD && run->over_base) {
            run->sectors[i].maybe_zeros = true;
            continue;
        }
        run->sectors[i].sent = slot->version;
        if (slot->kind == WRITE) {
            stamp(slot->buffer + (i - slot->first) * SECTOR, i, slot->version);
        } else {
            run->sectors[i].zeros_sent = slot->version;
        }
    }
}

static void model_complete(struct run *run, struct slot *slot)
{
    uint32_t first, end;
    if (slot->kind == READ) {
        for (uint32_t i = 0; i < slot->count; i++) {
            uint32_t number = slot->first + i;
            run->sectors[number].reading--;
            judge_sector(&run->sectors[number], number, slot->buffer + i * SECTOR,
                         slot->before[i].done, slot->before[i].zeros, slot->before[i].maybe_zeros);
        }
        return;
    }
    changed_range(slot, &first, &end);
    for (uint32_t i = first; i < end; i++) {
        struct sector *sector = &run->sectors[i];
        must(sector->writing);
        sector->writing = false;
        if (slot->kind == DISCARD && run->over_base) {
            continue;
        }
        must(sector->sent == slot->version);
        sector->maybe_zeros = false;
        sector->done = slot->version;
        sector->done_zeros = slot->kind != WRITE;
    }
}

/* ---- Requests ---- */

static enum kind draw_kind(struct run *run)
{
    static const enum kind kinds[] = {READ,  READ,  READ,  READ,   WRITE,   WRITE,
                                      WRITE, WRITE, WRITE, ZEROES, DISCARD, FLUSH};
    uint32_t drawn = draw(run, 61);
    return drawn == 60 ? BAT_WRITE : kinds[drawn / 5];
}

/*
 * Draw sectors for a request that overlap no request they must not overlap. After a few failed
 * tries the request becomes a flush.
 */
static void draw_request(struct run *run, struct slot *slot)
{
    slot->kind = draw_kind(run);
    slot->flags = draw(run, 12) == 0 ? PLOOP_PIO_FUA : 0;
    slot->flags |= draw(run, 20) == 0 ? PLOOP_PIO_PREFLUSH : 0;
    for (int tries = 0; slot->kind <= DISCARD && tries < 20; tries++) {
        slot->count = 1 + draw(run, draw(run, 3) ? 8 : REQUEST_SECTORS);
        slot->first = draw(run, DISK_SECTORS);
        if (draw(run, 2)) {
            slot->first -= slot->first % SECTORS_PER_CLUSTER;
        }
        if (slot->count > DISK_SECTORS - slot->first) {
            slot->count = DISK_SECTORS - slot->first;
        }
        if (is_free(run, slot)) {
            model_send(run, slot);
            return;
        }
    }
    slot->kind = slot->kind <= DISCARD ? FLUSH : slot->kind;
    slot->first = slot->count = 0;
}

/* The buffer in up to four segments of odd lengths. */
static void cut_buffer(struct run *run, struct slot *slot)
{
    uint32_t left = slot->count * SECTOR, at = 0;
    slot->iov_count = 0;
    while (left) {
        uint32_t unit = run->alignment ? run->alignment : 1;
        uint32_t piece = slot->iov_count == 3 ? left : unit * (1 + draw(run, left / unit));
        slot->iov[slot->iov_count++] =
            (struct iovec){.iov_base = slot->buffer + at, .iov_len = piece};
        at += piece;
        left -= piece;
    }
}

static void request_done(ploop_pio *pio, int result, void *user_data);

static void prepare(struct run *run, struct slot *slot)
{
    uint64_t offset, length;
    draw_request(run, slot);
    offset = (uint64_t)slot->first * SECTOR;
    length = (uint64_t)slot->count * SECTOR;
    switch (slot->kind) {
    case READ:
        cut_buffer(run, slot);
        ploop_pio_prep_readv(slot->pio, offset, slot->iov, slot->iov_count);
        break;
    case WRITE:
        cut_buffer(run, slot);
        ploop_pio_prep_writev(slot->pio, offset, slot->iov, slot->iov_count, slot->flags);
        break;
    case ZEROES:
        slot->flags |= draw(run, 3) == 0 ? PLOOP_PIO_NO_UNMAP : 0;
        ploop_pio_prep_write_zeroes(slot->pio, offset, length, slot->flags);
        break;
    case DISCARD:
        ploop_pio_prep_discard(slot->pio, offset, length);
        break;
    case FLUSH:
        ploop_pio_prep_flush(slot->pio);
        break;
    default:
        ploop_pio_prep_bat_write(slot->pio, 0, ploop_bat_page_count(run->dev));
    }
    ploop_pio_set_callback(slot->pio, request_done, slot);
    run->sent++;
}

static void request_done(ploop_pio *pio, int result, void *user_data)
{
    struct slot *slot = user_data;
    struct run *run = slot->run;
    uint32_t queue = slot->queue == run->queues[0] ? 0 : 1;
    ck_assert_ptr_eq(pio, slot->pio);
    ck_assert_msg(result == 0, "request of kind %d: %d", (int)slot->kind, result);
    ck_assert_int_eq(atomic_fetch_add(&run->callbacks_of[queue], 1),
                     0); /* never two of one queue at once */
    ck_assert_int_eq(ploop_dev_flush(run->dev), -EDEADLK);
    pthread_mutex_lock(&run->mutex);
    model_complete(run, slot);
    run->completed++;
    bool again = run->shape->from_callbacks && run->sent < run->requests && draw(run, 4);
    if (again) {
        prepare(run, slot);
    } else {
        run->idle[run->idle_count++] = (uint32_t)(slot - run->slots);
        pthread_cond_signal(&run->change);
    }
    pthread_mutex_unlock(&run->mutex);
    if (again) {
        ck_assert_int_eq(ploop_queue_submit(slot->queue, &slot->pio, 1), 1);
    }
    atomic_fetch_sub(&run->callbacks_of[queue], 1);
}

/* Send the idle slots, each queue's in one batch. */
static void send_batch(struct run *run)
{
    ploop_pio *batch[QUEUES][SLOTS];
    uint32_t counts[QUEUES] = {0};
    pthread_mutex_lock(&run->mutex);
    while (run->idle_count && run->sent < run->requests) {
        uint32_t index = run->idle[--run->idle_count];
        prepare(run, &run->slots[index]);
        batch[index % QUEUES][counts[index % QUEUES]++] = run->slots[index].pio;
    }
    pthread_mutex_unlock(&run->mutex);
    for (uint32_t i = 0; i < QUEUES; i++) {
        if (counts[i]) {
            ck_assert_int_eq(ploop_queue_submit(run->queues[i], batch[i], counts[i]),
                             (int)counts[i]);
        }
    }
}

/* Run the device as an embedder would: when it asks for a run, and its queues all the time. */
static void run_device(struct run *run)
{
    uint64_t due = ploop_dev_next_deadline(run->dev);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (atomic_exchange(&run->wake, false) ||
        (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec >= due) {
        ploop_dev_run(run->dev);
    }
    for (uint32_t i = 0; i < QUEUES; i++) {
        ploop_queue_run(run->queues[i]);
    }
}

static void wait_for_idle(struct run *run)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 500000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&run->mutex);
    if (run->idle_count == 0 || run->sent == run->requests) {
        pthread_cond_timedwait(&run->change, &run->mutex, &until);
    }
    pthread_mutex_unlock(&run->mutex);
}

static bool is_over(struct run *run)
{
    pthread_mutex_lock(&run->mutex);
    bool over = run->completed == run->requests;
    pthread_mutex_unlock(&run->mutex);
    return over;
}

static uint64_t now_ns(void *context)
{
    struct timespec now;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void wake_at(void *context, uint64_t deadline_ns)
{
    struct run *run = context;
    if (deadline_ns == 0) {
        atomic_store(&run->wake, true);
    }
}

static void open_device(struct run *run, ploop_file *const *deltas, uint32_t count)
{
    struct ploop_clock clock = {
        .size = sizeof(clock), .context = run, .now_ns = now_ns, .wake_at = wake_at};
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = run->shape->dev_flags;
    config.queue_count = QUEUES;
    config.pio_count = SLOTS;
    config.clock = &clock;
    config.writeback_delay_ns = 300000;
    config.writeback_max_age_ns = 1000000;
    ck_assert_int_eq(ploop_dev_open(deltas, count, &config, &run->dev), 0);
    for (uint32_t i = 0; i < QUEUES; i++) {
        run->queues[i] = ploop_dev_queue(run->dev, i);
    }
    run->idle_count = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &run->slots[i];
        slot->run = run;
        slot->queue = run->queues[i % QUEUES];
        slot->pio = ploop_pio_get(slot->queue);
        ck_assert_ptr_nonnull(slot->pio);
        run->idle[run->idle_count++] = i;
    }
}

static void judge_all(struct run *run)
{
    uint8_t *whole = aligned_alloc(SECTOR, DISK);
    ck_assert_int_eq(ploop_dev_pread(run->dev, whole, DISK, 0), DISK);
    for (uint32_t i = 0; i < DISK_SECTORS; i++) {
        judge_sector(&run->sectors[i], i, whole + i * SECTOR, run->sectors[i].done,
                     run->sectors[i].done_zeros, false);
    }
    free(whole);
}

#define BACKEND(...)                                                                               \
    {                                                                                              \
        .file_size_max = 16 << 20, .capabilities = 15, __VA_ARGS__                                 \
    }

static const struct shape shapes[] = {
    {"inline", BACKEND(.mode = WILD_INLINE, .seed = 1), 0, true, true},
    {"inline, no abilities",
     {.file_size_max = 16 << 20,
      .mode = WILD_INLINE,
      .seed = 2,
      .capabilities = PLOOP_FILE_CAN_GROW},
     0,
     true,
     true},
    {"inline, short, again",
     BACKEND(.mode = WILD_INLINE, .seed = 3, .short_percent = 40, .again_percent = 20), 0, false,
     true},
    {"reaped",
     BACKEND(.mode = WILD_REAP, .seed = 4, .short_percent = 20, .short_unit = 512,
             .again_percent = 10),
     0, true, true},
    {"polled", BACKEND(.mode = WILD_POLLED, .seed = 5, .max_transfer = 4096), 0, true, false},
    {"threads", BACKEND(.mode = WILD_THREADS, .seed = 6), 0, true, true},
    {"threads, late, short, again",
     BACKEND(.mode = WILD_THREADS, .seed = 7, .delay_us = 300, .short_percent = 30,
             .short_unit = 512, .again_percent = 20),
     0, true, true},
    {"threads, odd lengths",
     BACKEND(.mode = WILD_THREADS, .seed = 8, .short_percent = 50, .max_transfer = 7001), 0, false,
     true},
    {"mixed", BACKEND(.mode = WILD_MIXED, .seed = 9, .again_percent = 10), 0, true, true},
    {"mixed, engine only", BACKEND(.mode = WILD_MIXED, .seed = 10, .again_percent = 10),
     PLOOP_DEV_NO_FAST_PATH, true, true},
    {"threads, aligned",
     BACKEND(.mode = WILD_THREADS, .seed = 14, .alignment = 512, .max_transfer = 7001,
             .short_percent = 20),
     0, true, true},
};

static void run_session(struct run *run, ploop_file *const *deltas, uint32_t count)
{
    open_device(run, deltas, count);
    judge_all(run);
    run->sent = run->completed = 0;
    while (!is_over(run)) {
        send_batch(run);
        run_device(run);
        wait_for_idle(run);
    }
    judge_all(run);
    struct ploop_dev_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_dev_info(run->dev, &info), 0);
    ck_assert_uint_eq(info.double_completions, 0);
    /* A backend that refuses often is seldom asked past the engine. */
    ck_assert(run->shape->dev_flags & PLOOP_DEV_NO_FAST_PATH
                  ? info.requests_fast == 0
                  : info.requests_fast > 0 || run->refuses);
    ck_assert(count == 1 || info.clusters_copied > 0);
    ck_assert_int_eq(ploop_dev_close(run->dev), 0);
}

/* The image as a base, under a top on a backend of another shape. */
static void run_over_base(struct run *run, struct wild *base, ploop_file *base_file,
                          const struct ploop_image_options *options)
{
    const uint32_t shape_count = sizeof(shapes) / sizeof(shapes[0]);
    const struct shape *above = &shapes[((uint32_t)(run->shape - shapes) + 5) % shape_count];
    struct wild *wild = wild_new(&above->backend);
    ploop_file *deltas[] = {base_file, wild_open(wild)};
    uint8_t *before = malloc(base->file_size);
    memcpy(before, base->bytes, base->file_size);
    run->over_base = true;
    run->refuses |= above->backend.again_percent > 0;
    run->overlap = run->shape->overlap && above->overlap;
    run->alignment = run->alignment ? run->alignment : above->backend.alignment;
    ck_assert_int_eq(ploop_image_create(deltas[1], options), 0);
    run_session(run, deltas, 2);
    run_session(run, deltas, 2);
    ck_assert_mem_eq(base->bytes, before, base->file_size);
    free(before);
    ploop_file_close(deltas[1]);
    wild_free(wild);
}

START_TEST(the_disk_reads_as_its_model)
{
    const struct shape *shape = &shapes[_i];
    struct ploop_image_options options = {.size = sizeof(options),
                                          .disk_size = DISK,
                                          .cluster_size = CLUSTER,
                                          .version = 2 - (uint32_t)_i % 2};
    struct run *run = calloc(1, sizeof(*run));
    run->refuses = shape->backend.again_percent > 0;
    struct wild *wild = wild_new(&shape->backend);
    ploop_file *file = wild_open(wild);
    run->shape = shape;
    run->overlap = shape->overlap;
    run->alignment = shape->backend.alignment;
    run->random = shape->backend.seed;
    run->requests = is_instrumented() ? REQUESTS_INSTRUMENTED : REQUESTS;
    pthread_mutex_init(&run->mutex, NULL);
    pthread_cond_init(&run->change, NULL);
    for (uint32_t i = 0; i < DISK_SECTORS; i++) {
        run->sectors[i].done_zeros = true;
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        run->slots[i].buffer = aligned_alloc(SECTOR, REQUEST_SECTORS * SECTOR);
    }
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    run_session(run, &file, 1);
    run_session(run, &file, 1);
    run_over_base(run, wild, file, &options);
    ploop_file_close(file);
    wild_free(wild);
    for (uint32_t i = 0; i < SLOTS; i++) {
        free(run->slots[i].buffer);
    }
    pthread_cond_destroy(&run->change);
    pthread_mutex_destroy(&run->mutex);
    free(run);
}
END_TEST

static Suite *contract_suite(void)
{
    Suite *suite = suite_create("contract");
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 120);
    tcase_add_loop_test(model, the_disk_reads_as_its_model, 0,
                        (int)(sizeof(shapes) / sizeof(shapes[0])));
    suite_add_tcase(suite, model);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(contract_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
