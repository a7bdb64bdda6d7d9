/* SPDX-License-Identifier: MIT */
/*
 * The guest: it submits requests, gets completions, and tells the model what each completion
 * promises. See sim.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "report.h"
#include "sim.h"

enum { BLANK_EVERY = 11 }; /* so many writes, or fewer: one has zeros as its data */

static const char *kind_name(enum guest_kind kind)
{
    static const char *const names[] = {"?",       "read",  "write",    "zeroes",
                                        "discard", "flush", "bat_write"};
    return names[kind];
}

/*
 * The part of a request that changes the guest's sectors: for a discard only the clusters within
 * it.
 */
static void changed(const struct guest_op *op, uint64_t *first, uint64_t *count)
{
    uint64_t cluster = op->sim->image.cluster_sectors, end = op->first + op->count;
    *first = op->first;
    *count = op->kind == GUEST_WRITE || op->kind == GUEST_ZEROES ? op->count : 0;
    if (op->kind != GUEST_DISCARD)
        return;
    *first = (op->first + cluster - 1) / cluster * cluster;
    if (end < op->disk_sectors)
        end = end / cluster * cluster;
    *count = end > *first ? end - *first : 0;
}

/*
 * The disk's end may cut its last cluster: a discard up to there may leave that cluster unchanged,
 * and also clusters that the base has.
 */
static bool may_stay(const struct guest_op *op, uint64_t first, uint64_t count)
{
    uint64_t cluster = op->sim->image.cluster_sectors;
    return op->kind == GUEST_DISCARD && (count < cluster || op->sim->discards_may_stay ||
                                         base_has(&op->sim->base, first / cluster));
}

static void note_oldest_read(struct sim *sim)
{
    sim->model.oldest_read = sim->backend.now;
    for (unsigned i = 0; i < GUEST_OPS; i++)
        if (sim->ops[i].submitted && sim->ops[i].kind == GUEST_READ &&
            sim->ops[i].submit < sim->model.oldest_read)
            sim->model.oldest_read = sim->ops[i].submit;
}

static void check_result(const struct guest_op *op, int result)
{
    const struct sim *sim = op->sim;
    if (result > 0)
        violation("R14", "%s completes with %d", kind_name(op->kind), result);
    if (result == 0) {
        if (op->latched &&
            (op->kind == GUEST_FLUSH || (op->flags & (PLOOP_PIO_FUA | PLOOP_PIO_PREFLUSH))))
            violation("R6", "%s with flags %" PRIu32 " succeeds after a failed SYNC",
                      kind_name(op->kind), op->flags);
        return;
    }
    if (result == -ENOTSUP && (op->flags & PLOOP_PIO_FAST_ONLY))
        return;
    if (sim->backend.errors || sim->aborting || sim->expect_errors)
        return;
    violation("R14",
              "%s of sectors %" PRIu64 "+%" PRIu64 " fails with %d although nothing went wrong",
              kind_name(op->kind), op->first, op->count, result);
}

static void read_done(struct guest_op *op, uint64_t now)
{
    for (uint64_t at = 0; at < op->count; at++)
        model_read(&op->sim->model, op->first + at, op->buffer + at * DISK_SECTOR, op->submit, now,
                   "a read");
    counters->reads_checked += op->count;
}

static void change_done(struct guest_op *op, int result, uint64_t now)
{
    struct model *model = &op->sim->model;
    uint64_t first, count;
    changed(op, &first, &count);
    bool durable = result == 0 && (op->flags & PLOOP_PIO_FUA);
    for (uint64_t cluster = op->sim->image.cluster_sectors, part; count > 0;
         first += part, count -= part) {
        part = cluster - first % cluster < count ? cluster - first % cluster : count;
        model_done(model, first, part, op->id, now, result, durable, may_stay(op, first, part));
    }
    if (result == 0 && (op->flags & PLOOP_PIO_PREFLUSH))
        model_flushed(model, op->submit);
}

static void guest_done(ploop_pio *pio, int result, void *user_data)
{
    struct guest_op *op = user_data;
    struct sim *sim = op->sim;
    if (!op->submitted || op->pio != pio)
        violation("R14", "a request completes that is not in flight, or twice");
    if (!sim->closing && !sim->aborting && sim->running != op->queue + 1)
        violation("contract", "a callback of queue %" PRIu32 " runs in no run of that queue",
                  op->queue);
    uint64_t now = ++sim->backend.now;
    trace("  [%" PRIu64 "] request %" PRIu64 " (%s %" PRIu64 "+%" PRIu64 ") -> %d", now, op->id,
          kind_name(op->kind), op->first, op->count, result);
    check_result(op, result);
    op->submitted = false;
    sim->outstanding--;
    sim->backend.guest_zeroes -= op->kind == GUEST_ZEROES;
    switch (op->kind) {
    case GUEST_READ:
        if (!result)
            read_done(op, now);
        break;
    case GUEST_WRITE:
    case GUEST_ZEROES:
    case GUEST_DISCARD:
        change_done(op, result, now);
        break;
    case GUEST_FLUSH:
        if (!result)
            model_flushed(&sim->model, op->submit);
        break;
    case GUEST_BAT_WRITE:
        break;
    }
    enum guest_kind kind = op->kind;
    uint64_t first = op->first, count = op->count;
    uint32_t flags = op->flags;
    note_oldest_read(sim);
    ploop_pio_put(pio);
    sim_free(op->buffer);
    op->buffer = NULL;
    op->pio = NULL;
    if (sim->resubmissions && !sim->aborting && !sim->closing) {
        sim->resubmissions--;
        guest_do(sim, kind, first, count, flags);
    } else if (!sim->aborting && !sim->closing && sim->resubmit_permille &&
               rng_permille(&sim->rng, sim->resubmit_permille))
        guest_random(sim);
}

/* The buffer of a read or write in up to three pieces, cut anywhere. */
static void make_iov(struct guest_op *op)
{
    struct rng *rng = &op->sim->rng;
    uint64_t length = op->count * DISK_SECTOR, at = 0, alignment = op->sim->backend.alignment;
    if (alignment > DISK_SECTOR)
        alignment = 1; /* the library copies what does not fit */
    op->buffer = sim_alloc_aligned(length);
    op->iov_count = 0;
    while (at < length) {
        uint64_t part = length - at;
        if (op->iov_count < 2 && rng_permille(rng, 300) && part > 8)
            part = rng_permille(rng, 800) ? rng_between(rng, 1, part / 8) * 8
                                          : rng_between(rng, 1, part);
        if (part % alignment)
            part += alignment - part % alignment;
        op->iov[op->iov_count].iov_base = op->buffer + at;
        op->iov[op->iov_count++].iov_len = part;
        at += part;
    }
}

/* On the queue that sim->target names. NULL: no room. */
static struct guest_op *prepare(struct sim *sim, enum guest_kind kind, uint64_t first,
                                uint64_t count, uint32_t flags)
{
    struct guest_op *op = NULL;
    for (unsigned i = 0; i < GUEST_OPS && !op; i++)
        if (!sim->ops[i].submitted && !sim->ops[i].pio)
            op = &sim->ops[i];
    ploop_pio *pio = op ? ploop_pio_get(sim->queues[sim->target]) : NULL;
    if (!pio)
        return NULL;
    memset(op, 0, sizeof(*op));
    op->sim = sim;
    op->pio = pio;
    op->queue = sim->target;
    op->kind = kind;
    op->flags = flags;
    op->first = first;
    op->count = count;
    op->disk_sectors = sim->image.disk_sectors;
    op->id = ++sim->next_id;
    if (kind == GUEST_READ || kind == GUEST_WRITE)
        make_iov(op);
    uint64_t offset = first * DISK_SECTOR, length = count * DISK_SECTOR;
    switch (kind) {
    case GUEST_READ:
        ploop_pio_prep_readv(pio, offset, op->iov, op->iov_count);
        break;
    case GUEST_WRITE:
        op->is_blank = op->id % BLANK_EVERY == 0;
        for (uint64_t at = 0; at < count && !op->is_blank; at++)
            content_fill(op->buffer + at * DISK_SECTOR, first + at, op->id);
        if (op->is_blank)
            memset(op->buffer, 0, length);
        ploop_pio_prep_writev(pio, offset, op->iov, op->iov_count, flags);
        break;
    case GUEST_ZEROES:
        ploop_pio_prep_write_zeroes(pio, offset, length, flags);
        break;
    case GUEST_DISCARD:
        ploop_pio_prep_discard(pio, offset, length);
        break;
    case GUEST_FLUSH:
        ploop_pio_prep_flush(pio);
        break;
    case GUEST_BAT_WRITE:
        ploop_pio_prep_bat_write(pio, (uint32_t)first, (uint32_t)count);
        break;
    }
    ploop_pio_set_callback(pio, guest_done, op);
    return op;
}

static bool is_data(const struct guest_op *op)
{
    return op->kind == GUEST_WRITE && !op->is_blank;
}

/* It is about to be submitted, or executed. */
static void note(struct guest_op *op)
{
    struct sim *sim = op->sim;
    uint64_t first, changes;
    op->submitted = true;
    op->submit = ++sim->backend.now;
    op->latched = sim->backend.latched;
    changed(op, &first, &changes);
    if (changes)
        sim->model.used = sim->changed = true;
    if (changes)
        model_submit(&sim->model, first, changes, op->id, is_data(op) ? op->id : 0, op->submit,
                     op->flags & PLOOP_PIO_PREFLUSH ? op->submit : 0);
    sim->outstanding++;
    sim->backend.guest_zeroes += op->kind == GUEST_ZEROES;
    counters->requests++;
    sim->discards += op->kind == GUEST_DISCARD;
    trace("  [%" PRIu64 "] request %" PRIu64 ": %s %" PRIu64 "+%" PRIu64 " flags %" PRIu32
          ", queue %" PRIu32,
          op->submit, op->id, kind_name(op->kind), op->first, op->count, op->flags, op->queue);
}

static void submit(struct sim *sim, struct guest_op **ops, uint32_t count)
{
    ploop_pio *pios[8];
    for (uint32_t i = 0; i < count; i++) {
        pios[i] = ops[i]->pio;
        note(ops[i]);
    }
    note_oldest_read(sim);
    int taken = ploop_queue_submit(sim->queues[ops[0]->queue], pios, count);
    if (taken != (int)count)
        violation("contract", "of %" PRIu32 " right requests, submit took %d", count, taken);
}

bool guest_do(struct sim *sim, enum guest_kind kind, uint64_t first, uint64_t count, uint32_t flags)
{
    sim->target = (uint32_t)rng_below(&sim->rng, sim->queue_count);
    struct guest_op *op = prepare(sim, kind, first, count, flags);
    if (op)
        submit(sim, &op, 1);
    return op != NULL;
}

/* How many of the runs begin inside the disk. */
static uint32_t runs_inside(const struct image *image)
{
    uint32_t count = image->run_count;
    while (image->runs[count - 1].first * (uint64_t)image->cluster_sectors >= image->disk_sectors)
        count--;
    return count;
}

/* A stretch of sectors within one run of hot clusters, and within the disk. */
static void random_range(struct sim *sim, uint64_t *first, uint64_t *count)
{
    struct rng *rng = &sim->rng;
    uint64_t cluster = sim->image.cluster_sectors;
    const struct run_of_clusters *run = &sim->image.runs[rng_below(rng, runs_inside(&sim->image))];
    uint64_t start = run->first * cluster, end = start + run->count * cluster;
    if (end > sim->image.disk_sectors)
        end = sim->image.disk_sectors;
    switch (rng_below(rng, 4)) {
    case 0: /* whole clusters */
        *first = start + rng_below(rng, run->count) * cluster;
        *count = rng_between(rng, 1, 2) * cluster;
        break;
    case 1: /* one sector */
        *first = start + rng_below(rng, end - start);
        *count = 1;
        break;
    default:
        *first = start + rng_below(rng, end - start);
        *count = rng_between(rng, 1, 2 * cluster);
    }
    if (*first >= end)
        *first = end - 1;
    if (*count > end - *first)
        *count = end - *first;
}

/* Over the whole disk: more clusters than the library has parts for. */
static struct guest_op *prepare_wide(struct sim *sim)
{
    static const enum guest_kind kinds[] = {GUEST_READ, GUEST_ZEROES, GUEST_ZEROES, GUEST_DISCARD};
    enum guest_kind kind = kinds[rng_below(&sim->rng, 4)];
    uint32_t flags = kind == GUEST_ZEROES && rng_permille(&sim->rng, 700) ? PLOOP_PIO_FUA : 0;
    return prepare(sim, kind, 0, sim->image.disk_sectors, flags);
}

static struct guest_op *prepare_random(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    uint64_t first, count;
    uint32_t flags = 0;
    if (rng_permille(rng, 10))
        return prepare_wide(sim);
    random_range(sim, &first, &count);
    if (rng_permille(rng, 150))
        flags |= PLOOP_PIO_FUA;
    if (rng_permille(rng, 60))
        flags |= PLOOP_PIO_PREFLUSH;
    switch (rng_below(rng, 20)) {
    case 0:
    case 1:
    case 2:
    case 3:
        return prepare(sim, GUEST_READ, first, count, 0);
    case 4:
    case 5:
        return prepare(sim, GUEST_FLUSH, 0, 0, 0);
    case 6:
    case 7:
        flags |= rng_permille(rng, 300) ? PLOOP_PIO_NO_UNMAP : 0;
        flags |= rng_permille(rng, 100) ? PLOOP_PIO_FAST_ONLY : 0;
        return prepare(sim, GUEST_ZEROES, first, count, flags);
    case 8:
    case 9:
    case 10:
        return prepare(sim, GUEST_DISCARD, first, count, 0);
    case 11:
        if (rng_permille(rng, 300))
            return prepare(sim, GUEST_BAT_WRITE, rng_below(rng, ploop_bat_page_count(sim->dev)), 1,
                           0);
        /* fall through */
    default:
        return prepare(sim, GUEST_WRITE, first, count, flags);
    }
}

bool guest_random(struct sim *sim)
{
    struct guest_op *ops[8];
    uint32_t count = 0,
             wanted = rng_permille(&sim->rng, 200) ? (uint32_t)rng_between(&sim->rng, 2, 6) : 1;
    sim->target = (uint32_t)rng_below(&sim->rng, sim->queue_count);
    while (count < wanted && (ops[count] = prepare_random(sim)))
        count++;
    if (count)
        submit(sim, ops, count);
    return count > 0;
}

/* ---- a request that the guest's thread waits for ---- */

static struct sim *executing;
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms);
int __real_epoll_wait(int epoll, struct epoll_event *events, int most, int ms);

/*
 * The thread sleeps, so the world goes on: the backend first, then the clock. What waits for space
 * gets some after a while, and then nothing fails any more.
 */
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms)
{
    struct sim *sim = executing;
    if (!sim)
        return __real_epoll_wait(epoll, events, most, ms);
    if (backend_step(&sim->backend))
        return 1;
    uint64_t next = ploop_dev_next_deadline(sim->dev);
    if (next != UINT64_MAX && next > sim->clock.now_ns)
        clock_advance(&sim->clock, next - sim->clock.now_ns);
    if (++sim->sleeps > SLEEPS_MAX / 10) {
        sim->backend.quiet = true;
        sim->backend.size_limit = UINT64_C(1) << 29;
        ploop_dev_retry_parked(sim->dev);
    }
    if (sim->sleeps > SLEEPS_MAX)
        violation("R14", "a thread executes a request and sleeps although nothing can happen");
    return 1;
}

bool guest_execute(struct sim *sim)
{
    sim->target = (uint32_t)rng_below(&sim->rng, sim->queue_count);
    struct guest_op *op = prepare_random(sim);
    if (!op)
        return false;
    note(op);
    note_oldest_read(sim);
    bool was_quiet = sim->backend.quiet;
    executing = sim;
    sim->sleeps = 0;
    sim->running = op->queue + 1; /* it runs its queue, and the callbacks there */
    int result = ploop_pio_execute(op->pio);
    executing = NULL;
    sim->backend.quiet = was_quiet;
    guest_done(op->pio, result, op);
    sim->running = 0;
    return true;
}
