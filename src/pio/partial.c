/* SPDX-License-Identifier: MIT */
/* The records of partial.h, their passes, and their clock. */
#include "pio/partial.h"

#include "pio/pio.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* The first retry after a failure comes this late; each further one twice as late. */
#define RETRY_FIRST_NS UINT64_C(1000000000)
enum { RETRY_DOUBLINGS_MAX = 6 };

struct partial_limits partial_limits = {RUNS_MAX, PARTIAL_RECORDS, PARTIAL_BYTES_MAX};

struct partials {
    ploop_dev *dev;
    struct partial_limits limits;
    uint64_t delay_ns, max_age_ns;
    struct list free, hash[PARTIAL_HASH];
    struct list open;  /* by deadline */
    struct list queue; /* to be completed */
    uint32_t count;    /* in use */
    uint64_t missing;  /* sectors that all of them have still to copy */
    bool distrust;     /* a completion has failed, and none succeeded since */
    bool dispatching;
    /* The pass: */
    uint64_t pass; /* the one that runs or ran last */
    bool runs;
    uint32_t outstanding;
    int error;
    struct list waiters, next;
    uint32_t busy;
    ploop_pio completers[PARTIAL_COMPLETERS];
    struct partial records[PARTIAL_RECORDS];
};

static struct partials *partials_of(const ploop_dev *dev)
{
    return atomic_load_explicit(&dev->partials, memory_order_acquire);
}

static void assert_partials(const struct partials *partials)
{
    (void)partials;
    assert(partials->count <= PARTIAL_RECORDS && partials->busy <= PARTIAL_COMPLETERS);
    assert((partials->count == 0) == (partials->missing == 0));
    assert(partials->missing * SECTOR_SIZE <= partials->limits.bytes);
    assert(partials->runs || (partials->outstanding == 0 && list_is_empty(&partials->waiters)));
    assert(partials->outstanding <= partials->count);
}

int partials_init(ploop_dev *dev)
{
    if (dev->config.cow_delay_ns == 0 || dev->read_only || partials_of(dev)) {
        return 0;
    }
    struct partials *partials = calloc(1, sizeof(*partials));
    if (!partials) {
        return -ENOMEM;
    }
    uint64_t delay = dev->config.cow_delay_ns, age = dev->config.writeback_max_age_ns;
    partials->dev = dev;
    partials->limits = partial_limits;
    partials->delay_ns = delay;
    partials->max_age_ns = age > delay ? age : delay;
    struct list *lists[] = {&partials->free, &partials->open, &partials->queue, &partials->waiters,
                            &partials->next};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        list_init(lists[i]);
    }
    for (uint32_t i = 0; i < PARTIAL_HASH; i++) {
        list_init(&partials->hash[i]);
    }
    for (uint32_t i = 0; i < partials->limits.records; i++) {
        list_init(&partials->records[i].hashed);
        list_append(&partials->free, &partials->records[i].link);
    }
    for (uint32_t i = 0; i < PARTIAL_COMPLETERS; i++) {
        pio_init(&partials->completers[i], dev_engine_queue(dev));
        partials->completers[i].op = PIO_COMPLETE;
    }
    atomic_store_explicit(&dev->partials, partials, memory_order_release);
    return 0;
}

void partials_free(ploop_dev *dev)
{
    free(partials_of(dev));
}

static uint64_t add_time(uint64_t time, uint64_t more)
{
    return time > UINT64_MAX - more ? UINT64_MAX : time + more;
}

static struct list *hash_of(struct partials *partials, struct guest_cluster guest)
{
    return &partials->hash[guest.n % PARTIAL_HASH];
}

struct partial *partial_find(const ploop_dev *dev, struct guest_cluster guest)
{
    struct partials *partials = partials_of(dev);
    if (!partials || partials->count == 0) {
        return NULL;
    }
    struct list *hash = hash_of(partials, guest);
    for (struct list *link = hash->next; link != hash; link = link->next) {
        struct partial *partial = container_of(link, struct partial, hashed);
        if (partial->guest.n == guest.n) {
            return partial;
        }
    }
    return NULL;
}

/* ---- states ---- */

/* On the list of those that are open, by deadline: nearly always at its end. */
static void put_open(struct partials *partials, struct partial *partial)
{
    struct list *behind = partials->open.prev;
    while (behind != &partials->open &&
           container_of(behind, struct partial, link)->deadline_ns > partial->deadline_ns) {
        behind = behind->prev;
    }
    partial->state = PARTIAL_OPEN;
    list_prepend(behind, &partial->link);
}

static void enqueue(struct partials *partials, struct partial *partial)
{
    assert(partial->state == PARTIAL_OPEN || partial->state == PARTIAL_BUSY);
    list_remove(&partial->link);
    partial->state = PARTIAL_QUEUED;
    list_append(&partials->queue, &partial->link);
}

static void pass_ends(struct partials *partials)
{
    struct list told, *link;
    assert(partials->runs && partials->outstanding == 0);
    partials->runs = false;
    list_init(&told);
    list_move_all(&told, &partials->waiters);
    while ((link = list_take_first(&told)) != NULL) {
        struct partial_wait *wait = container_of(link, struct partial_wait, link);
        wait->then(wait, partials->error);
    }
    turn_again(&partials->dev->turn);
}

/* It was tried, or is gone. */
static void member_done(struct partials *partials, struct partial *partial, int error)
{
    if (!partials->runs || partial->pass != partials->pass) {
        return;
    }
    partial->pass = 0;
    /* A lack of space may be waited out: it must not hide another error. */
    if (error && (!partials->error || is_no_space(partials->error))) {
        partials->error = error;
    }
    assert(partials->outstanding > 0);
    if (--partials->outstanding == 0) {
        pass_ends(partials);
    }
}

/* Its entry is in the map, or it never had anything. */
static void drop(struct partials *partials, struct partial *partial)
{
    assert(partial->state != PARTIAL_NONE);
    stack_set_partial(&partials->dev->stack, partial->guest, false);
    list_remove(&partial->hashed);
    list_remove(&partial->link);
    partials->missing -= partial->missing;
    partials->count--;
    partial->state = PARTIAL_NONE;
    partial->missing = 0;
    list_append(&partials->free, &partial->link);
    atomic_store_explicit(&partials->dev->clusters_partial, partials->count, memory_order_relaxed);
    member_done(partials, partial, 0);
    assert_partials(partials);
}

/* ---- a record's life ---- */

/* Sectors that the disk has of the cluster. */
static uint32_t sectors_of(const ploop_dev *dev, struct guest_cluster guest)
{
    const struct guest_disk *disk = dev_disk(dev);
    uint64_t left = disk->disk_size - guest.n * disk->cluster_size;
    return (uint32_t)((left < disk->cluster_size ? left : disk->cluster_size) / SECTOR_SIZE);
}

bool partial_may_begin(const struct part *part)
{
    const ploop_dev *dev = part->dev;
    const struct partials *partials = partials_of(dev);
    if (!partials || part->pio->flags & (PLOOP_PIO_FUA | PLOOP_PIO_FAST_ONLY) ||
        part_is_whole(part) || partials->distrust || dev->state != DEV_RUNNING ||
        atomic_load(&dev->job) || bat_latch(dev_bat(dev))) {
        return false;
    }
    uint64_t all = partials->missing + sectors_of(dev, part->cluster);
    return !list_is_empty(&partials->free) && all * SECTOR_SIZE <= partials->limits.bytes;
}

void partial_begin(struct part *part, struct host_cluster host)
{
    ploop_dev *dev = part->dev;
    struct partials *partials = partials_of(dev);
    struct partial *partial = container_of(list_take_first(&partials->free), struct partial, link);
    uint64_t now = dev_now(dev);
    assert(part->lock.exclusive && !partial_find(dev, part->cluster));
    assert(partial->state == PARTIAL_NONE && bat_entry(dev_bat(dev), part->cluster) == 0);
    partial->guest = part->cluster;
    partial->host = host;
    partial->tops.count = 0;
    partial->sectors = partial->missing = sectors_of(dev, part->cluster);
    partial->in_flight = partial->tries = 0;
    partial->again = false;
    partial->pass = 0;
    partial->born_ns = partial->touched_ns = now;
    partial->deadline_ns = add_time(now, partials->delay_ns);
    partials->missing += partial->missing;
    partials->count++;
    list_append(hash_of(partials, partial->guest), &partial->hashed);
    put_open(partials, partial);
    stack_set_partial(&dev->stack, partial->guest, true);
    atomic_store_explicit(&dev->clusters_partial, partials->count, memory_order_relaxed);
    assert_partials(partials);
}

static struct run run_of(const struct part *part)
{
    uint64_t end = part->inside + part->length;
    return (struct run){(uint32_t)(part->inside / SECTOR_SIZE), (uint32_t)(end / SECTOR_SIZE)};
}

bool partial_fits(const struct partial *partial, const struct part *part)
{
    struct run run = run_of(part);
    uint32_t runs = runs_count_with(&partial->tops, run.begin, run.end);
    return runs + partial->in_flight <= partials_of(part->dev)->limits.runs;
}

void partial_add(ploop_dev *dev, struct partial *partial, const struct part *part)
{
    struct partials *partials = partials_of(dev);
    struct run run = run_of(part);
    uint32_t added = runs_add(&partial->tops, run.begin, run.end);
    assert(added <= partial->missing);
    partial->missing -= added;
    partials->missing -= added;
    partial->touched_ns = dev_now(dev);
}

void partial_enter(ploop_dev *dev, struct partial *partial)
{
    struct partials *partials = partials_of(dev);
    struct bat *bat = dev_bat(dev);
    bat_map(bat, partial->guest, partial->host, sync_next(&bat->syncer));
    partials->distrust = false;
    drop(partials, partial);
}

void partial_drop_empty(ploop_dev *dev, struct partial *partial)
{
    if (partial->tops.count == 0 && partial->in_flight == 0) {
        alloc_give_back_failed(&dev_bat(dev)->alloc, partial->host);
        drop(partials_of(dev), partial);
    }
}

void partial_failed(ploop_dev *dev, struct partial *partial, int error)
{
    struct partials *partials = partials_of(dev);
    if (dev->state == DEV_ABORTING || bat_latch(dev_bat(dev))) {
        return;
    }
    uint32_t doublings =
        partial->tries < RETRY_DOUBLINGS_MAX ? partial->tries : RETRY_DOUBLINGS_MAX;
    partial->tries++;
    partial->born_ns = partial->touched_ns = dev_now(dev);
    partial->deadline_ns = add_time(partial->born_ns, RETRY_FIRST_NS << doublings);
    if (partial->state == PARTIAL_OPEN) {
        list_remove(&partial->link);
        put_open(partials, partial);
    }
    partials->distrust = true;
    count(&dev->copies_failed, 1);
    dev_log(dev, PLOOP_LOG_WARNING, PLOOP_MESSAGE_COPY,
            "guest cluster %" PRIu32 " cannot be copied from the lower delta: %s; what was "
            "written to it is not durable yet",
            partial->guest.n, ERROR_TEXT(error));
    dev_event(dev, PLOOP_EVENT_COPY_FAILED, partial->guest.n);
}

/* ---- completers ---- */

static bool may_complete(const ploop_dev *dev)
{
    return dev->state != DEV_ABORTING && !bat_latch(dev_bat(dev));
}

static void dispatch(struct partials *partials);

static void completer_ended(struct part *part)
{
    struct partials *partials = partials_of(part->dev);
    struct partial *partial = partial_find(part->dev, part->cluster);
    partials->busy--;
    if (partial && partial->state == PARTIAL_BUSY) {
        assert(part->result);
        partial_failed(part->dev, partial, part->result);
        if (partial->again && may_complete(part->dev)) {
            enqueue(partials, partial);
        } else {
            put_open(partials, partial);
            member_done(partials, partial, part->result);
        }
    }
    dispatch(partials);
}

static ploop_pio *idle_completer(struct partials *partials)
{
    for (uint32_t i = 0; i < PARTIAL_COMPLETERS; i++) {
        if (partials->completers[i].part.state == PART_IDLE) {
            return &partials->completers[i];
        }
    }
    return NULL;
}

static void complete(struct partials *partials, struct partial *partial, ploop_pio *pio)
{
    assert(partial->state == PARTIAL_QUEUED);
    list_remove(&partial->link);
    partial->state = PARTIAL_BUSY;
    partial->again = false;
    partials->busy++;
    part_take(&pio->part, pio, completer_ended);
    part_set_cluster(&pio->part, partial->guest);
    part_begin(&pio->part);
}

static void dispatch(struct partials *partials)
{
    if (partials->dispatching) {
        return; /* a completer has ended at once */
    }
    partials->dispatching = true;
    ploop_pio *pio = NULL;
    while (!list_is_empty(&partials->queue)) {
        struct partial *partial = container_of(partials->queue.next, struct partial, link);
        if (!may_complete(partials->dev)) {
            int latch = bat_latch(dev_bat(partials->dev));
            list_remove(&partial->link);
            put_open(partials, partial);
            member_done(partials, partial, latch ? latch : -ECANCELED);
        } else if ((pio = idle_completer(partials)) != NULL) {
            complete(partials, partial, pio);
        } else {
            break;
        }
    }
    partials->dispatching = false;
}

bool partial_is_idle(const ploop_dev *dev)
{
    const struct partials *partials = partials_of(dev);
    return !partials || partials->busy == 0;
}

/* ---- passes ---- */

bool partial_wait_for_all(ploop_dev *dev, struct partial_wait *wait, partial_fn *then)
{
    struct partials *partials = partials_of(dev);
    if (!partials || (partials->count == 0 && partials->busy == 0)) {
        return false;
    }
    wait->then = then;
    list_append(&partials->next, &wait->link);
    turn_again(&dev->turn);
    return true;
}

static void pass_begins(struct partials *partials)
{
    assert(!partials->runs && partials->outstanding == 0);
    partials->runs = true;
    partials->pass++;
    partials->error = 0;
    list_move_all(&partials->waiters, &partials->next);
    for (uint32_t i = 0; i < PARTIAL_RECORDS; i++) {
        struct partial *partial = &partials->records[i];
        if (partial->state == PARTIAL_NONE) {
            continue;
        }
        if (partial->state == PARTIAL_OPEN) {
            enqueue(partials, partial);
        }
        partial->again = true; /* of one that is BUSY */
        partial->pass = partials->pass;
        partials->outstanding++;
    }
    if (partials->outstanding == 0) {
        pass_ends(partials);
    }
}

void partial_pump(ploop_dev *dev)
{
    struct partials *partials = partials_of(dev);
    if (!partials) {
        return;
    }
    if (!partials->runs && !list_is_empty(&partials->next)) {
        pass_begins(partials);
    }
    dispatch(partials);
    assert_partials(partials);
}

void partial_fail_waits(ploop_dev *dev, int error)
{
    struct partials *partials = partials_of(dev);
    if (!partials) {
        return;
    }
    dispatch(partials); /* nothing is queued any more */
    struct list told, *link;
    list_init(&told);
    list_move_all(&told, &partials->next);
    while ((link = list_take_first(&told)) != NULL) {
        struct partial_wait *wait = container_of(link, struct partial_wait, link);
        wait->then(wait, error);
    }
}

/* ---- the clock ---- */

uint32_t partial_run_deadlines(ploop_dev *dev, uint64_t now_ns)
{
    struct partials *partials = partials_of(dev);
    uint32_t due = 0;
    if (!partials || dev->state != DEV_RUNNING || !may_complete(dev)) {
        return 0;
    }
    while (!list_is_empty(&partials->open)) {
        struct partial *partial = container_of(partials->open.next, struct partial, link);
        uint64_t later = add_time(partial->touched_ns, partials->delay_ns);
        uint64_t last = add_time(partial->born_ns, partials->max_age_ns);
        if (partial->deadline_ns > now_ns) {
            break;
        }
        later = later < last ? later : last;
        if (later > now_ns && partial->tries == 0) {
            partial->deadline_ns = later;
            list_remove(&partial->link);
            put_open(partials, partial);
        } else {
            enqueue(partials, partial);
            due++;
        }
    }
    dispatch(partials);
    return due;
}

uint64_t partial_next_deadline(const ploop_dev *dev)
{
    const struct partials *partials = partials_of(dev);
    if (!partials || list_is_empty(&partials->open) || dev->state != DEV_RUNNING) {
        return UINT64_MAX;
    }
    return container_of(partials->open.next, struct partial, link)->deadline_ns;
}
