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
 * A request is in flight from submit to completion, and is counted where it is: in a lane of the
 * channel on the fast path, in the queue's in_flight when the engine has it.
 *
 *  1. The gate is looked at after the request was counted, and closed before the counts are looked
 *     at: a suspend or abort sees every request that did not see it.
 *  2. A request that the engine adopts is counted in its queue before it leaves the lane, and one
 *     that goes to a lower delta in that lane before it leaves the top's. Who adds the counts up
 *     looks at the top's lanes first, then at the others, and at the queues last. So it is never
 *     missed between the two.
 *  3. Between lock_try_shared() and the release the cluster's mapping does not change: removal and
 *     relocation hold the lock alone.
 *  4. What the fast path takes is valid: is_simple() and the cluster's bounds ask for more than
 *     pio_validate() does.
 *  5. A request that does not fill the blocks of the file that it touches never goes this way: the
 *     engine reads, changes and writes them, with the cluster's lock held alone (R17).
 *  6. A request that its thread waits for, pio_submit_blocking(), needs no ring where the backend
 *     has `help`: that thread does the I/O, in submit, and no other thread has a part in it.
 *  7. The top changes while the gate is closed and the old top's lanes are empty. So a request that
 *     was counted in the top's lane, and then has found the gate open and the top to be the same,
 *     meets no change of it before it has left that lane.
 */
#include "pio/pio.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>

/*
 * What every request meets is one function, and what few meet are others: else the compiler saves
 * registers for both.
 */
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))

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

/* The engine goes on with a request of the fast path. turn_post() or turn_enqueue() follows. */
static void to_engine(struct part *part, int64_t result)
{
    ploop_queue *queue = part->pio->queue;
    part->io.result = result;
    part->work.run = adopt;
    atomic_fetch_add(&queue->in_flight, pio_weight(part->pio));
    channel_leave(part->io.channel, queue->index);
}

/* Requests wait for the room that this one leaves. The device outlives a visit. */
static void leave_and_run(ploop_dev *dev, struct channel *channel, uint32_t index)
{
    atomic_fetch_add(&dev->turn.visitors, 1);
    channel_leave(channel, index);
    dev_post_run(dev);
    atomic_fetch_sub(&dev->turn.visitors, 1);
}

/* The channel has nothing more of it. The device may be freed when this returns. */
static inline void leave(ploop_dev *dev, struct channel *channel, uint32_t index)
{
    if (!channel_leave_unless_waited(channel, index)) {
        leave_and_run(dev, channel, index);
    }
}

/* It has succeeded. The device may be freed when this returns. */
static inline void fast_over(ploop_queue *queue, ploop_pio *pio, struct channel *channel)
{
    unlock_fast(&pio->part);
    if (pio->blocking) {
        pio_call_over(pio);
    } else {
        queue_push(queue, pio);
        queue_announce(queue);
    }
    leave(queue->dev, channel, queue->index);
}

static void fast_done(struct file_io *file_io, int64_t result)
{
    struct channel_io *io = container_of(file_io, struct channel_io, io);
    struct part *part = container_of(io, struct part, io);
    ploop_pio *pio = container_of(part, ploop_pio, part);
    if (result == (int64_t)pio->length) {
        fast_over(pio->queue, pio, io->channel);
        return;
    }
    to_engine(part, result);
    turn_post(&part->dev->turn, &part->work);
}

/* Only who has entered the queue counts here: no other thread writes the counter. */
static void count_fast(ploop_queue *queue)
{
    uint64_t count = atomic_load_explicit(&queue->requests_fast, memory_order_relaxed);
    atomic_store_explicit(&queue->requests_fast, count + 1, memory_order_relaxed);
}

/* Where a request goes. */
struct aim {
    struct channel *channel; /* NULL: to no file */
    uint64_t offset;
    bool is_zeros; /* it ends here */
};

static NEVER_INLINE void fast_refused(struct part *part, int refused)
{
    if (refused == -EAGAIN || refused == -EINTR) {
        channel_note_full(part->io.channel); /* the rest of the batch need not ask */
    }
    to_engine(part, refused); /* the turn that takes it looks for room again */
    turn_enqueue(&part->dev->turn, &part->work);
}

static ALWAYS_INLINE void fast_send(ploop_queue *queue, ploop_pio *pio, struct aim aim,
                                    bool blocking)
{
    struct part *part = &pio->part;
    struct ploop_io *io = &part->io.io.pub;
    channel_io_aim(&part->io, aim.channel);
    io->op = kinds[pio->op].fast_op;
    io->flags = blocking && aim.channel->file->ops.help ? PLOOP_IO_MAY_BLOCK : 0;
    io->queue = queue->index;
    io->offset = aim.offset;
    io->length = pio->length;
    io->iov = pio->iov;
    io->iov_count = pio->iov_count;
    part->io.io.done = fast_done;
    int refused = file_io_submit(&part->io.io);
    if (refused) {
        fast_refused(part, refused);
    }
}

/*
 * Whether this thread may send a request to the file from here. `entered`: the queue's ring is this
 * thread's.
 */
static inline bool may_send(const ploop_pio *pio, const struct channel *channel, bool entered)
{
    return entered || (pio->blocking && channel->helps);
}

/* Only what one request to the delta's file can do. */
static NEVER_INLINE struct aim aim_lower(const ploop_dev *dev, const ploop_pio *pio, bool entered,
                                         struct guest_cluster cluster, uint64_t inside)
{
    struct place place = stack_place(&dev->stack, cluster);
    struct channel *channel = &place.delta->channel;
    struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
    uint64_t offset, filled;
    if (!may_send(pio, channel, entered) || pio->length > channel->max_transfer ||
        channel_is_full(channel) || place.entry == BAT_ENTRY_BAD ||
        delta_fill(place.delta, cluster, place.entry, inside, pio->length, &cursor, &offset,
                   &filled) < pio->length ||
        !channel_fits(channel, offset, pio->length)) {
        return (struct aim){.channel = NULL};
    }
    return (struct aim){channel, offset, false};
}

/* With the cluster's lock. */
static ALWAYS_INLINE struct aim aim_at(const ploop_dev *dev, const ploop_pio *pio, bool entered,
                                       struct guest_cluster cluster, uint64_t inside)
{
    struct delta *top = dev_top(dev);
    uint32_t entry = bat_entry(top->bat, cluster);
    if (entry != 0 && entry != BAT_ENTRY_BAD) {
        uint64_t offset = geometry_entry_offset(&top->geometry, entry) + inside;
        if (!channel_fits(&top->channel, offset, pio->length)) {
            return (struct aim){.channel = NULL};
        }
        return (struct aim){&top->channel, offset, false};
    }
    if (entry != 0 || kinds[pio->op].is_change) {
        return (struct aim){.channel = NULL};
    }
    return stack_maps(&dev->stack, cluster) ? aim_lower(dev, pio, entered, cluster, inside)
                                            : (struct aim){.is_zeros = true};
}

/* What does not lie in the top. It is counted in the top's lane. False: nothing was done. */
static NEVER_INLINE bool fast_elsewhere(ploop_queue *queue, ploop_pio *pio, bool entered,
                                        struct aim aim)
{
    struct channel *top = &dev_top(queue->dev)->channel;
    if (aim.is_zeros) {
        struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
        iov_zero(&cursor, pio->length);
        fast_over(queue, pio, top);
    } else if (aim.channel) {
        const ploop_file *file = aim.channel->file;
        channel_enter(aim.channel, queue->index);
        leave(queue->dev, top, queue->index);
        fast_send(queue, pio, aim, pio->blocking);
        if (entered && file->ops.kick) {
            file->ops.kick(file->context, queue->index);
        }
    }
    return aim.is_zeros || aim.channel;
}

/*
 * A valid request that one request to a file can carry out, if it lies in one cluster. length - 1
 * is large where the length is 0.
 */
static inline bool is_simple(const ploop_dev *dev, const ploop_pio *pio,
                             const struct channel *channel, uint64_t disk_size)
{
    uint64_t offset = pio->offset, length = pio->length;
    return dev->fast_ops >> pio->op & 1 &&
           (pio->callback || pio->blocking || dev->config.runner_count == 0) &&
           ((offset | length) % SECTOR_SIZE | pio->flags) == 0 && offset < disk_size &&
           length <= disk_size - offset && length - 1 < channel->max_transfer &&
           pio->iov_count <= CHANNEL_IOV_MAX &&
           (dev->fast_alignment <= 1 || pio_memory_fits(pio, dev->fast_alignment));
}

/*
 * True: the request is under way or done. False: it is still the caller's. `blocking` is the
 * request's, as a constant of each call.
 */
static ALWAYS_INLINE bool submit_fast(ploop_queue *queue, ploop_pio *pio, bool entered,
                                      bool blocking)
{
    ploop_dev *dev = queue->dev;
    struct delta *top = dev_top(dev);
    struct channel *channel = &top->channel;
    const struct guest_disk *disk = dev_disk(dev);
    uint64_t inside;
    assert(pio->blocking == blocking);
    if (!may_send(pio, channel, entered) || !is_simple(dev, pio, channel, disk->disk_size)) {
        return false;
    }
    struct guest_cluster cluster = guest_cluster_at(disk, pio->offset, &inside);
    if (pio->length > disk->cluster_size - inside || channel_is_full(channel)) {
        return false;
    }
    assert(pio_validate(pio) == 0);
    struct cluster_lock *lock = lock_of(dev, cluster);
    channel_enter(channel, queue->index);
    if (!atomic_load(&dev->gate) && dev_top(dev) == top && lock_try_shared(lock)) {
        pio->part.lock.lock = lock;
        pio->result = 0;
        struct aim aim = aim_at(dev, pio, entered, cluster, inside);
        if (aim.channel == channel) {
            if (kinds[pio->op].is_change) {
                dev_note_change(dev);
            }
            fast_send(queue, pio, aim, blocking);
            return true;
        }
        if (fast_elsewhere(queue, pio, entered, aim)) {
            return true;
        }
        unlock_fast(&pio->part);
    }
    channel_leave(channel, queue->index);
    return false;
}

void pio_accept(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    if (kinds[pio->op].is_change) {
        dev_note_change(queue->dev);
    }
    atomic_fetch_add(&queue->in_flight, pio_weight(pio));
    atomic_fetch_add_explicit(&queue->requests, 1, memory_order_relaxed);
    pio->result = 0;
    pio->work.run = pio_begin;
}

/*
 * The end of a batch that began when `file` was the top's. The top may have changed since, but
 * once: what was sent to a new top and is not kicked keeps its lane.
 */
static void kick_tops(const ploop_dev *dev, const ploop_file *file, uint32_t queue)
{
    const ploop_file *now = dev_top(dev)->file;
    if (file->ops.kick) {
        file->ops.kick(file->context, queue);
    }
    if (now != file && now->ops.kick) {
        now->ops.kick(now->context, queue);
    }
}

void pio_submit_blocking(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    ploop_dev *dev = queue->dev;
    bool needs_ring = !dev_top(dev)->channel.helps && queue != dev_engine_queue(dev);
    bool entered = needs_ring && queue_enter(queue);
    const ploop_file *file = dev_top(dev)->file; /* looked at only by who has entered */
    bool is_fast = submit_fast(queue, pio, entered, true);
    if (entered) {
        kick_tops(dev, file, queue->index);
        queue_leave(queue);
    }
    if (is_fast) {
        atomic_fetch_add_explicit(&queue->calls_fast, 1, memory_order_relaxed);
        turn_take(&dev->turn); /* the backend may have refused it */
    } else {
        pio_accept(pio);
        turn_post(&dev->turn, &pio->work);
    }
}

/* `entered`: the queue's ring is this thread's, so that the fast path may use it. */
static int submit_one(ploop_queue *queue, ploop_pio *pio, bool entered)
{
    if (entered && submit_fast(queue, pio, true, false)) {
        count_fast(queue);
        return 0;
    }
    int error = pio_validate(pio);
    if (!error) {
        pio_accept(pio);
        turn_enqueue(&queue->dev->turn, &pio->work);
    }
    return error;
}

int ploop_queue_submit(ploop_queue *queue, ploop_pio *const *pios, uint32_t count)
{
    ploop_dev *dev = queue->dev;
    int error = 0;
    uint32_t taken = 0;
    bool entered = queue_enter(queue);
    const ploop_file *file = dev_top(dev)->file; /* looked at only by who has entered */
    while (taken < count && (error = submit_one(queue, pios[taken], entered)) == 0) {
        taken++;
    }
    if (entered) {
        if (taken) {
            kick_tops(dev, file, queue->index);
        }
        queue_leave(queue);
    }
    turn_take(&dev->turn);
    return taken ? (int)taken : error;
}
