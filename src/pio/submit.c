/* SPDX-License-Identifier: MIT */
/*
 * Submitting, and the fast path.
 *
 * A read or a plain write that lies in one cluster goes to the backend from here, under the
 * cluster's shared lock: no turn, no other lock, no memory. A read of an unmapped cluster ends
 * here. Everything else is posted to the engine, and so is all that comes while another thread is
 * in the queue's ring (queue.c, 2). The fast completion gives the lock back and leaves the request
 * in the queue's `done`; a result that is not simply all of the bytes goes to the engine's channel,
 * which knows what to do.
 *
 *  1. The gate is looked at after in_flight was counted up, and closed before in_flight is looked
 *     at: a suspend or abort sees every request that did not see it.
 *  2. Between lock_try_shared() and the release the cluster's mapping does not change: removal and
 *     relocation hold the lock alone.
 *  3. A request that its thread waits for, pio_submit_blocking(), needs no ring where the backend
 *     has `help`: that thread does the I/O, in submit, and no other thread has a part in it.
 */
#include "pio/pio.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>

static void unlock_fast(struct part *part)
{
    lock_release_shared(part->lock.lock, &part->dev->turn);
}

static void adopted_done(struct channel_io *io, int result)
{
    struct part *part = container_of(io, struct part, io);
    if (is_no_space(result) && kinds[part->pio->op].is_change) {
        pio_enter(part->pio);
        part_no_space(part, result);
        return;
    }
    unlock_fast(part);
    pio_complete(part->pio, result);
}

/* In the turn: go on with what the backend did not simply do. */
static void adopt(struct work *work)
{
    struct part *part = container_of(work, struct part, work);
    ploop_pio *pio = part->pio;
    struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
    channel_adopt(&part->io, cursor, part->io.result, adopted_done);
}

static void fast_done(struct file_io *file_io, int64_t result)
{
    struct channel_io *io = container_of(file_io, struct channel_io, io);
    struct part *part = container_of(io, struct part, io);
    ploop_pio *pio = part->pio;
    ploop_queue *queue = pio->queue;
    bool wants_run = channel_bypass_over(io->channel, queue->index);
    if (result != (int64_t)pio->length) {
        io->result = result;
        part->work.run = adopt;
        turn_post(&part->dev->turn, &part->work);
        return;
    }
    unlock_fast(part);
    if (pio->blocking) {
        pio_call_over(pio);
    } else {
        queue_push(queue, pio);
        queue_announce(queue);
    }
    if (wants_run) {
        dev_post_run(queue->dev); /* the backend has room again for what it refused */
    }
    atomic_fetch_sub(&queue->in_flight, 1); /* last: the device may be freed from here on */
}

static void fast_send(ploop_queue *queue, ploop_pio *pio, struct channel *channel, uint64_t offset)
{
    struct part *part = &pio->part;
    struct ploop_io *io = &part->io.io.pub;
    channel_io_aim(&part->io, channel);
    io->op = kinds[pio->op].fast_op;
    io->flags = pio->blocking && channel->file->ops.help ? PLOOP_IO_MAY_BLOCK : 0;
    io->queue = queue->index;
    io->offset = offset;
    io->length = pio->length;
    io->iov = pio->iov;
    io->iov_count = pio->iov_count;
    part->io.io.done = fast_done;
    atomic_fetch_add_explicit(&queue->requests_fast, 1, memory_order_relaxed);
    channel_bypass(channel, queue->index);
    int refused = file_io_submit(&part->io.io);
    if (refused) {
        if (refused == -EAGAIN || refused == -EINTR) {
            channel_note_full(channel); /* the rest of the batch need not ask */
        }
        channel_bypass_over(channel, queue->index); /* the turn that takes it looks again */
        part->io.result = refused;
        part->work.run = adopt;
        turn_enqueue(&queue->dev->turn, &part->work);
    }
}

/* Whether this thread may send a request to the file from here. */
static bool may_send(const ploop_pio *pio, const ploop_file *file, bool entered)
{
    return entered || (pio->blocking && file->ops.help);
}

/* Only what one request to the delta's file can do: the lock is given back otherwise. */
static bool read_lower_fast(ploop_queue *queue, ploop_pio *pio, bool entered,
                            struct guest_cluster cluster, uint64_t inside)
{
    struct place place = stack_place(&queue->dev->stack, cluster);
    struct channel *channel = &place.delta->channel;
    const ploop_file *file = place.delta->file;
    struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
    uint64_t offset, filled;
    if (!may_send(pio, file, entered) || pio->length > channel->max_transfer ||
        channel_is_full(channel) || place.entry == BAT_ENTRY_BAD ||
        delta_fill(place.delta, cluster, place.entry, inside, pio->length, &cursor, &offset,
                   &filled) < pio->length) {
        unlock_fast(&pio->part);
        return false;
    }
    fast_send(queue, pio, channel, offset);
    if (entered && file->ops.kick) {
        file->ops.kick(file->context, queue->index);
    }
    return true;
}

/*
 * True: the request is under way or done. False: it is the engine's. `entered`: the queue's ring is
 * this thread's.
 */
static bool submit_fast(ploop_queue *queue, ploop_pio *pio, bool entered)
{
    ploop_dev *dev = queue->dev;
    struct delta *top = dev_top(dev);
    struct part *part = &pio->part;
    uint64_t inside;
    if (!kinds[pio->op].fast_op || pio->flags || atomic_load(&dev->gate) || pio->length == 0 ||
        pio->length > top->channel.max_transfer || pio->iov_count > CHANNEL_IOV_MAX ||
        channel_is_full(&top->channel) || !may_send(pio, top->file, entered)) {
        return false;
    }
    const struct guest_disk *disk = dev_disk(dev);
    struct guest_cluster cluster = guest_cluster_at(disk, pio->offset, &inside);
    if (pio->length > disk->cluster_size - inside) {
        return false;
    }
    part->lock.lock = lock_of(dev, cluster);
    if (!lock_try_shared(part->lock.lock)) {
        return false;
    }
    uint32_t entry = bat_entry(top->bat, cluster);
    if (entry != 0 && entry != BAT_ENTRY_BAD) {
        fast_send(queue, pio, &top->channel, geometry_entry_offset(&top->geometry, entry) + inside);
        return true;
    }
    if (entry == 0 && !kinds[pio->op].is_change && stack_maps(&dev->stack, cluster)) {
        return read_lower_fast(queue, pio, entered, cluster, inside);
    }
    bool zeros = entry == 0 && !kinds[pio->op].is_change;
    if (zeros) {
        struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
        iov_zero(&cursor, pio->length);
    }
    unlock_fast(part);
    if (zeros) {
        atomic_fetch_add_explicit(&queue->requests_fast, 1, memory_order_relaxed);
        pio_complete(pio, 0);
    }
    return zeros;
}

void pio_accept(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    atomic_fetch_add(&queue->in_flight, 1);
    atomic_fetch_add_explicit(&queue->requests, 1, memory_order_relaxed);
    pio->result = 0;
    pio->work.run = pio_begin;
}

void pio_submit_blocking(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    ploop_dev *dev = queue->dev;
    const ploop_file *file = dev_top(dev)->file;
    bool needs_ring = !file->ops.help && queue != dev_engine_queue(dev);
    bool entered = needs_ring && queue_enter(queue);
    pio_accept(pio);
    bool is_fast = submit_fast(queue, pio, entered);
    if (entered) {
        if (file->ops.kick) {
            file->ops.kick(file->context, queue->index);
        }
        queue_leave(queue);
    }
    if (!is_fast) {
        turn_post(&dev->turn, &pio->work);
    }
}

static int submit_one(ploop_queue *queue, ploop_pio *pio, bool entered)
{
    int error = pio_validate(pio);
    if (error) {
        return error;
    }
    pio_accept(pio);
    if (!entered || !submit_fast(queue, pio, entered)) {
        turn_enqueue(&queue->dev->turn, &pio->work);
    }
    return 0;
}

int ploop_queue_submit(ploop_queue *queue, ploop_pio *const *pios, uint32_t count)
{
    ploop_dev *dev = queue->dev;
    int error = 0;
    uint32_t taken = 0;
    bool entered = queue_enter(queue);
    while (taken < count && (error = submit_one(queue, pios[taken], entered)) == 0) {
        taken++;
    }
    if (entered) {
        if (taken && dev_top(dev)->file->ops.kick) {
            dev_top(dev)->file->ops.kick(dev_top(dev)->file->context, queue->index);
        }
        queue_leave(queue);
    }
    turn_take(&dev->turn);
    queue_announce(queue);
    return taken ? (int)taken : error;
}
