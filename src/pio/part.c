/* SPDX-License-Identifier: MIT */
/*
 * The states of part.h, executed. The steps of the kinds call this file and it does not know them:
 * it calls the step that the part's kind names, and `ended`, which the part's owner set.
 */
#include "pio/part.h"

#include "pio/merging.h"
#include "pio/queue.h"

#include <assert.h>

#ifndef NDEBUG
#define BIT(state) (1u << PART_##state)

/* Where each state may go. */
static const uint32_t next_states[PART_STATES] = {
    [PART_IDLE] = BIT(LOCKING) | BIT(LOCKED) | BIT(DURABLE),
    [PART_LOCKING] = BIT(LOCKED),
    [PART_LOCKED] = BIT(IDLE) | BIT(LOCKING) | BIT(AT_BACKEND) | BIT(AT_MEMORY) | BIT(FOR_SPACE) |
                    BIT(FOR_RECORD) | BIT(FOR_BUFFER) | BIT(FOR_OTHERS) | BIT(PARKED) |
                    BIT(DURABLE),
    [PART_AT_BACKEND] = BIT(LOCKED),
    [PART_AT_MEMORY] = BIT(LOCKED),
    [PART_FOR_SPACE] = BIT(LOCKED),
    [PART_FOR_RECORD] = BIT(LOCKED),
    [PART_FOR_BUFFER] = BIT(LOCKED),
    [PART_FOR_OTHERS] = BIT(LOCKED),
    [PART_PARKED] = BIT(IDLE) | BIT(LOCKING) | BIT(DURABLE),
    [PART_DURABLE] = BIT(IDLE) | BIT(DURABLE) | BIT(PARKED),
};
#undef BIT
#endif

void assert_part(const struct part *part)
{
    (void)part;
    assert(part->state < PART_STATES);
    assert(part->state == PART_IDLE || (part->pio && part->kind && part->ended));
    assert(!part->reservation || part_has_lock(part));
    assert(!part->write_error || part_has_lock(part));
    assert(!part->cow.buffer || part_has_lock(part));
    assert(part->state != PART_FOR_OTHERS || (part->reservation && part->write_error));
    assert(part->state != PART_PARKED || (part->parked_ns && part->again && part->wants_space));
    assert(part->state != PART_IDLE || !part->wants_space);
}

void part_set(struct part *part, enum part_state state)
{
    assert(next_states[part->state] & 1u << state);
    part->dev->parts_in_line += (uint32_t)(state == PART_LOCKING) - (part->state == PART_LOCKING);
    part->state = state;
    assert_part(part);
}

void part_init(struct part *part, ploop_dev *dev)
{
    part->dev = dev;
    list_init(&part->link);
    channel_io_init(&part->io, &dev_top(dev)->channel);
}

void part_take(struct part *part, ploop_pio *pio, void (*ended)(struct part *part))
{
    assert(part->state == PART_IDLE && !part->reservation && list_is_empty(&part->link));
    part->pio = pio;
    part->kind = &kinds[pio->op];
    part->ended = ended;
    part->reclaimed = part->asked_alone = part->did_bulk = false;
    part->zeroed = part->parked_ns = 0;
    part->write_error = 0;
    part->cow.buffer = NULL;
    part->follow.is_over = false;
}

bool part_is_whole(const struct part *part)
{
    const struct guest_disk *disk = dev_disk(part->dev);
    uint64_t from = part->cluster.n * disk->cluster_size, left = disk->disk_size - from;
    assert(from < disk->disk_size && part->inside + part->length <= left);
    return part->inside == 0 &&
           part->length == (left < disk->cluster_size ? left : disk->cluster_size);
}

void part_set_cluster(struct part *part, struct guest_cluster cluster)
{
    const struct guest_disk *disk = dev_disk(part->dev);
    uint64_t left = disk->disk_size - cluster.n * disk->cluster_size;
    part->cluster = cluster;
    part->inside = 0;
    part->length = left < disk->cluster_size ? left : disk->cluster_size;
}

bool part_fills_blocks(const struct part *part)
{
    const struct delta *top = dev_top(part->dev);
    const struct geometry *geometry = &top->geometry;
    uint32_t entry = bat_entry(top->bat, part->cluster);
    uint64_t place = geometry_entry_offset(geometry, entry) + part->inside;
    if (entry == 0) {
        place = geometry->data_start | geometry->cluster_size | part->inside;
    }
    return channel_fits(&top->channel, place, part->length);
}

/* ---- the lock ---- */

static bool wants_alone(const struct part *part)
{
    const struct kind *kind = part->kind;
    return (kind->wants_alone && kind->wants_alone(part)) || merging_locks_alone(part);
}

void part_decide(struct part *part)
{
    struct lock_waiter *waiter = &part->lock;
    ploop_dev *dev = part->dev;
    const struct kind *kind = part->kind;
    assert(part->state == PART_LOCKED);
    if (kind->is_change && gate_has(dev, GATE_CHANGES_REFUSED)) {
        part_settle(part, dev->refusal, SYNC_NONE);
        return;
    }
    bool alone = wants_alone(part);
    if (alone && !waiter->exclusive) {
        assert(!part->asked_alone);
        part->asked_alone = true;
        part_set(part, PART_LOCKING);
        lock_take_alone(waiter, &dev->turn);
        return;
    }
    if (!alone && waiter->exclusive) {
        lock_downgrade(waiter, &dev->turn);
        part->asked_alone = false;
    }
    assert(alone == waiter->exclusive);
    kind->locked(part);
}

/* The lock is had, and not yet known to be had as it is needed. */
static void part_locked(struct lock_waiter *waiter)
{
    struct part *part = container_of(waiter, struct part, lock);
    part_set(part, PART_LOCKED);
    part_decide(part);
}

void part_begin(struct part *part)
{
    bool alone = wants_alone(part);
    struct cluster_lock *lock = lock_of(part->dev, part->cluster);
    assert(part->kind->locked && part->length > 0);
    part->asked_alone = part->follow.is_over = false;
    part->returns = alloc_returns(&dev_bat(part->dev)->alloc);
    part_set(part, PART_LOCKING);
    if (lock_take(lock, &part->lock, alone, part_locked)) {
        part_locked(&part->lock);
    }
}

void part_adopt_lock(struct part *part)
{
    assert(part->lock.lock == lock_of(part->dev, part->cluster));
    part->lock.exclusive = false;
    part->lock.locked = part_locked;
    part->returns = 0;
    part_set(part, PART_LOCKED);
}

void part_unlock(struct part *part)
{
    assert(part->state == PART_LOCKED && !part->reservation && !part->cow.buffer);
    lock_release(&part->lock, &part->dev->turn);
}

/* ---- at the backend ---- */

void part_transfer(struct part *part, struct delta *delta, uint32_t op, uint32_t flags,
                   struct iov_cursor cursor, uint64_t offset, uint64_t length, channel_fn *heard)
{
    assert(op == PLOOP_IO_READ || delta == dev_top(part->dev) ||
           (part->dev->merging && delta == part->dev->merging->to));
    part_set(part, PART_AT_BACKEND);
    channel_io_aim(&part->io, &delta->channel);
    channel_transfer(&part->io, op, flags, cursor, offset, length, heard);
}

void part_order(struct part *part, struct delta *delta, uint32_t op, uint64_t offset,
                uint64_t length, channel_fn *heard)
{
    assert(delta == dev_top(part->dev));
    part_set(part, PART_AT_BACKEND);
    channel_io_aim(&part->io, &delta->channel);
    channel_order(&part->io, op, offset, length, heard);
}

struct part *part_heard(struct channel_io *io)
{
    struct part *part = container_of(io, struct part, io);
    assert(part->state == PART_AT_BACKEND);
    part_set(part, PART_LOCKED);
    return part;
}

int part_take_host(struct part *part, struct host_cluster *host, struct sync_number *number)
{
    struct bat *bat = dev_bat(part->dev);
    assert(part->state == PART_LOCKED);
    if (bat->over_limit && !bat_latch(bat)) {
        return bat->allocation_error;
    }
    int error = alloc_take(&bat->alloc, host, number);
    if (!error && part->inside == 0 && part->kind->has_memory) {
        alloc_entered(&bat->alloc, part->cluster, *host);
    }
    return error;
}

uint32_t part_host_flags(const struct part *part, struct host_cluster host)
{
    return alloc_has_blocks(&dev_bat(part->dev)->alloc, host) ? 0 : PLOOP_IO_ALLOCATES;
}

/* ---- the end ---- */

void part_end(struct part *part, int result)
{
    assert(!part->reservation && !part->cow.buffer && result <= 0);
    part_wants_space(part, false);
    part->result = result;
    part_set(part, PART_IDLE);
    part->ended(part);
}

void part_durable(struct part *part, int result, part_fn *again)
{
    assert(part->state == PART_DURABLE);
    if (is_no_space(result) && part_may_park(part)) {
        part_park(part, again);
    } else {
        part_end(part, result);
    }
}

/* Waits for the entry as it is now, and the SYNC of the data. A retry waits once more. */
static void wait_for_entry(struct part *part);

static void entry_ended(struct durable_wait *wait, int result)
{
    part_durable(container_of(wait, struct part, durable), result, wait_for_entry);
}

static void wait_for_entry(struct part *part)
{
    part_set(part, PART_DURABLE);
    uint32_t page = geometry_page_of(part->cluster);
    int result = bat_wait_durable(dev_bat(part->dev), page, part->durable.number, &part->durable,
                                  entry_ended);
    if (result <= 0) {
        part_end(part, result);
    }
}

void part_settle(struct part *part, int result, struct sync_number number)
{
    assert(result <= 0);
    if (part->dev->merging && merging_follows(part, result, number)) {
        return;
    }
    part_unlock(part);
    if (!result && part->pio->flags & PLOOP_PIO_FUA) {
        part->durable.number = number;
        wait_for_entry(part);
    } else {
        part_end(part, result);
    }
}
