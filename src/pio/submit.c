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
 *  4. What the fast path takes is valid: `fast_op`, which preparing sets, is_in_cluster() and
 *     fits_device() ask for more than pio_validate() does.
 *  5. A request that does not fill the blocks of the file that it touches never goes this way: the
 *     engine reads, changes and writes them, with the cluster's lock held alone (R17).
 *  6. A request that its thread waits for, pio_submit_blocking(), needs no ring where the backend
 *     has `help`: that thread does the I/O, in submit, and no other thread has a part in it.
 *  7. The top changes while the gate is closed and the old top's lanes are empty. So a request that
 *     was counted in the top's lane, and then has found the gate open and the top to be the same,
 *     meets no change of it before it has left that lane.
 *  8. With a plain top the last of these three is not asked, nor where the blocks of the file lie:
 *     whatever the disk's size allows fits. The device may be written to, has no runners and files
 *     that take any memory; the top takes a whole cluster at once and any sectors; and a cluster is
 *     a power of two. None of this changes while the top is the top: it is made out before.
 */
#include "pio/pio.h"
#include "pio/queue.h"
#include "util/probe.h"

#include <assert.h>
#include <errno.h>

/*
 * What every request meets is one function, and what few meet are others: else the compiler saves
 * registers for both.
 */
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))

/* The ways of a request: constants of each call, so that each is compiled by itself. */
struct way {
    bool is_plain; /* see 8 */
    bool entered;  /* the queue's ring is this thread's, so that the fast path may use it */
    bool blocking; /* the request's */
};

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
    channel_leave(part->io.channel, queue->lane_at);
}

/* Requests wait for the room that this one leaves. The device outlives a visit. */
static NEVER_INLINE void leave_and_run(ploop_queue *queue, struct channel *channel)
{
    ploop_dev *dev = queue->dev;
    atomic_fetch_add(&dev->turn.visitors, 1);
    channel_leave(channel, queue->lane_at);
    dev_post_run(dev);
    atomic_fetch_sub(&dev->turn.visitors, 1);
}

/* The channel has nothing more of it. The device may be freed when this returns. */
static ALWAYS_INLINE void leave(ploop_queue *queue, struct channel *channel)
{
    if (!channel_leave_unless_waited(channel, queue->lane_at)) {
        leave_and_run(queue, channel);
    }
}

static NEVER_INLINE void announce_and_leave(ploop_queue *queue, struct channel *channel)
{
    queue_announce(queue);
    leave(queue, channel);
}

/* It has succeeded, and its lock is given back. The device may be freed when this returns. */
static ALWAYS_INLINE void fast_deliver(ploop_queue *queue, ploop_pio *pio, struct channel *channel)
{
    if (queue_push(queue, pio)) {
        announce_and_leave(queue, channel);
        return;
    }
    leave(queue, channel);
}

static NEVER_INLINE void fast_over_drained(ploop_queue *queue, ploop_pio *pio,
                                           struct channel *channel)
{
    lock_post_drained(pio->part.lock.lock, &queue->dev->turn);
    fast_deliver(queue, pio, channel);
}

/*
 * It has succeeded. The device may be freed when this returns. What few meet are calls at the end
 * only: then no register has to be saved for those that do not meet them.
 */
static ALWAYS_INLINE void fast_over(ploop_queue *queue, ploop_pio *pio, struct channel *channel)
{
    if (lock_leave_shared(pio->part.lock.lock)) {
        fast_over_drained(queue, pio, channel);
        return;
    }
    fast_deliver(queue, pio, channel);
}

/* The same, of one that a thread waits for. */
static void fast_call_over(ploop_pio *pio, struct channel *channel)
{
    ploop_queue *queue = pio->queue;
    unlock_fast(&pio->part);
    pio_call_over(pio);
    leave(queue, channel);
}

static NEVER_INLINE void fast_not_simply_done(struct part *part, int64_t result)
{
    to_engine(part, result);
    turn_post(&part->dev->turn, &part->work);
}

static void fast_done(struct file_io *file_io, int64_t result)
{
    struct channel_io *io = container_of(file_io, struct channel_io, io);
    struct part *part = container_of(io, struct part, io);
    ploop_pio *pio = container_of(part, ploop_pio, part);
    if (result != (int64_t)pio->length) {
        fast_not_simply_done(part, result);
        return;
    }
    fast_over(pio->queue, pio, io->channel);
}

static void fast_call_done(struct file_io *file_io, int64_t result)
{
    struct channel_io *io = container_of(file_io, struct channel_io, io);
    struct part *part = container_of(io, struct part, io);
    ploop_pio *pio = container_of(part, ploop_pio, part);
    if (result != (int64_t)pio->length) {
        fast_not_simply_done(part, result);
        return;
    }
    fast_call_over(pio, io->channel);
}

/* What each request of the fast path would set. */
void fast_rest(ploop_pio *pio)
{
    pio->part.io.io.pub.flags = 0;
    pio->part.io.io.done = fast_done;
}

/* Where a request goes. */
struct aim {
    struct channel *channel; /* NULL: to no file */
    uint64_t offset;
    bool is_zeros; /* it ends here */
};

/* It is the engine's now, and turn_take() has to follow. */
static NEVER_INLINE void fast_refused(ploop_pio *pio, int refused)
{
    struct part *part = &pio->part;
    refused = file_io_refused(&part->io.io, refused);
    if (refused == -EAGAIN || refused == -EINTR) {
        channel_note_full(part->io.channel); /* the rest of the batch need not ask */
    }
    to_engine(part, refused); /* the turn that takes it looks for room again */
    turn_enqueue(&part->dev->turn, &part->work);
}

/*
 * What has become of a request: it is on its way or done; or it is still the caller's; or, below 0,
 * the backend would not take it, and fast_refused() has to follow. That is not done here because
 * the request would have to be kept in a register while the backend is called.
 */
enum { FAST_SENT = 0, FAST_NOT = 1 };

static NEVER_INLINE int fast_below_zero(int refused)
{
    return refused < 0 ? refused : -EIO;
}

static ALWAYS_INLINE int fast_send(ploop_pio *pio, struct channel *channel, uint64_t offset,
                                   struct way way)
{
    struct part *part = &pio->part;
    struct ploop_io *io = &part->io.io.pub;
    channel_io_aim(&part->io, channel);
    assert(part->io.io.done == fast_done && io->flags == 0);
    io->op = pio->fast_op;
    io->iov_count = pio->iov_count;
    io->queue = pio->queue_index;
    io->offset = offset;
    io->length = pio->length;
    io->iov = pio->iov;
    if (way.blocking) {
        io->flags = channel->helps ? PLOOP_IO_MAY_BLOCK : 0;
        part->io.io.done = fast_call_done;
    }
    int refused = file_io_send(&part->io.io);
    return refused ? fast_below_zero(refused) : FAST_SENT;
}

/* Whether this thread may send a request to the file from here. */
static inline bool may_send(const struct channel *channel, struct way way)
{
    return way.entered || (way.blocking && channel->helps);
}

/* Only what one request to the delta's file can do. */
static NEVER_INLINE struct aim aim_lower(const ploop_pio *pio, struct way way, struct place place,
                                         struct guest_cluster cluster, uint64_t inside)
{
    struct channel *channel = &place.delta->channel;
    struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
    uint64_t offset, filled;
    if (!may_send(channel, way) || pio->length > channel->max_transfer ||
        channel_is_full(channel) || place.entry == BAT_ENTRY_BAD || place.is_partial ||
        delta_fill(place.delta, cluster, place.entry, inside, pio->length, &cursor, &offset,
                   &filled) < pio->length ||
        !channel_fits(channel, offset, pio->length)) {
        return (struct aim){.channel = NULL};
    }
    return (struct aim){channel, offset, false};
}

/*
 * What the top does not map. With the cluster's lock. The top's entry is asked after the word: who
 * finds the word without the mark of a partial cluster finds the entry of one that was completed
 * (delta/stack.h, 6).
 */
static struct aim aim_elsewhere(const ploop_dev *dev, const ploop_pio *pio, struct way way,
                                struct guest_cluster cluster, uint64_t inside)
{
    bool maps = stack_maps(&dev->stack, cluster);
    struct place place = maps ? stack_place(&dev->stack, cluster) : (struct place){.delta = NULL};
    if (bat_entry(dev_top(dev)->bat, cluster) != 0 || kinds[pio->op].is_change) {
        return (struct aim){.channel = NULL};
    }
    return place.delta ? aim_lower(pio, way, place, cluster, inside)
                       : (struct aim){.is_zeros = !maps};
}

/* By who has entered the queue, of a request that it takes. */
static ALWAYS_INLINE void count_fast(ploop_queue *queue, uint32_t fast_op, uint64_t length)
{
    counter_add(&queue->fast_requests[fast_op], 1);
    counter_add(&queue->fast_bytes[fast_op], length);
}

/* What the top's file cannot simply do. It is in the top's lane, with the cluster's lock. */
static NEVER_INLINE int fast_elsewhere(ploop_pio *pio, struct guest_cluster cluster,
                                       uint64_t inside, struct way way)
{
    ploop_queue *queue = pio->queue;
    struct channel *top = &dev_top(queue->dev)->channel;
    struct aim aim = aim_elsewhere(queue->dev, pio, way, cluster, inside);
    int end = FAST_SENT;
    if (aim.is_zeros || aim.channel) {
        PROBE3(submit, pio, PIO_READ, pio->length);
    }
    if (aim.is_zeros) {
        struct iov_cursor cursor = {.iov = pio->iov, .count = pio->iov_count};
        iov_zero(&cursor, pio->length);
        if (way.blocking) {
            fast_call_over(pio, top);
        } else {
            count_fast(queue, PLOOP_IO_READ, pio->length);
            fast_over(queue, pio, top);
        }
    } else if (aim.channel) {
        const ploop_file *file = aim.channel->file;
        if (!way.blocking) {
            count_fast(queue, PLOOP_IO_READ, pio->length);
        }
        channel_enter(aim.channel, queue->lane_at);
        leave(queue, top);
        end = fast_send(pio, aim.channel, aim.offset, way);
        if (way.entered && file->ops.kick) {
            file->ops.kick(file->context, queue->index);
        }
    } else {
        unlock_fast(&pio->part);
        channel_leave(top, queue->lane_at);
        end = FAST_NOT;
    }
    return end;
}

static NEVER_INLINE bool is_in_last_cluster(const struct guest_disk *disk, const ploop_pio *pio)
{
    return pio->offset < disk->disk_size && pio->length <= disk->disk_size - pio->offset;
}

/* Whole sectors of one cluster of the disk. length - 1 is large where the length is 0. */
static ALWAYS_INLINE bool is_in_cluster(const struct guest_disk *disk, const ploop_pio *pio,
                                        uint64_t length, uint64_t cluster, uint64_t inside)
{
    return (pio->offset | length) % SECTOR_SIZE == 0 && length - 1 <= disk->inside_mask - inside &&
           (cluster < disk->whole_clusters || is_in_last_cluster(disk, pio));
}

/* What does not have to be asked where the top is plain. */
static NEVER_INLINE bool fits_device(const ploop_dev *dev, const ploop_pio *pio,
                                     const struct delta *top, struct way way)
{
    return may_send(&top->channel, way) &&
           (pio->callback || pio->blocking || dev->config.runner_count == 0) &&
           !(kinds[pio->op].is_change && dev->read_only) &&
           pio->length <= top->channel.max_transfer &&
           (dev->fast_alignment <= 1 || pio_memory_fits(pio, dev->fast_alignment));
}

void fast_look_at_top(const ploop_dev *dev, struct delta *top)
{
    const struct guest_disk *disk = dev_disk(dev);
    bool is_plain = !dev->read_only && dev->config.runner_count == 0 && disk->cluster_shift &&
                    top->channel.block == SECTOR_SIZE &&
                    top->channel.max_transfer >= disk->cluster_size && dev->fast_alignment <= 1;
    if (is_plain) {
        atomic_fetch_and(&top->channel.obstacles, ~(uint32_t)CHANNEL_SPECIAL);
    } else {
        atomic_fetch_or(&top->channel.obstacles, CHANNEL_SPECIAL); /* it may have been the top */
    }
}

/* Of a plain way there must be no obstacle at all. */
static ALWAYS_INLINE bool is_in_the_way(const struct channel *channel, struct way way)
{
    uint32_t obstacles = atomic_load_explicit(&channel->obstacles, memory_order_relaxed);
    return way.is_plain ? obstacles : obstacles & CHANNEL_WAITING;
}

static ALWAYS_INLINE int submit_fast(ploop_queue *queue, struct delta *top, ploop_pio *pio,
                                     struct way way)
{
    ploop_dev *dev = queue->dev;
    struct channel *channel = &top->channel;
    if (is_in_the_way(channel, way)) {
        return FAST_NOT;
    }
    const struct guest_disk *disk = dev_disk(dev);
    uint64_t inside;
    uint64_t cluster = way.is_plain ? shifted_cluster_at(disk, pio->offset, &inside)
                                    : cluster_at(disk, pio->offset, &inside);
    uint64_t length = pio->length;
    __asm__("" : "+r"(length)); /* it stays in a register */
    assert(pio->blocking == way.blocking);
    if (!pio->fast_op || !is_in_cluster(disk, pio, length, cluster, inside) ||
        (!way.is_plain && !fits_device(dev, pio, top, way))) {
        return FAST_NOT;
    }
    assert(pio_validate(pio) == 0);
    struct guest_cluster guest = {(uint32_t)cluster};
    struct cluster_lock *lock = lock_of(dev, guest);
    channel_enter(channel, queue->lane_at);
    if (atomic_load(&dev->fast_top) != top || !lock_try_shared(lock)) {
        channel_leave(channel, queue->lane_at);
        return FAST_NOT;
    }
    pio->part.lock.lock = lock;
    pio->result = 0;
    uint32_t entry = bat_entry(top->bat, guest);
    uint64_t offset = geometry_entry_offset(&top->geometry, entry) + inside;
    if (entry == 0 || entry == BAT_ENTRY_BAD ||
        (!way.is_plain && !channel_fits(channel, offset, pio->length))) {
        return fast_elsewhere(pio, guest, inside, way);
    }
    assert(channel_fits(channel, offset, pio->length));
    if (pio->fast_op == PLOOP_IO_WRITE) {
        dev_note_change(dev);
        PROBE3(submit, pio, PIO_WRITE, length);
        if (!way.blocking) {
            count_fast(queue, PLOOP_IO_WRITE, length);
        }
    } else {
        PROBE3(submit, pio, PIO_READ, length);
        if (!way.blocking) {
            count_fast(queue, PLOOP_IO_READ, length);
        }
    }
    return fast_send(pio, channel, offset, way);
}

/* What it covers: of BAT pages, their bytes. */
static uint64_t kind_bytes(const ploop_pio *pio)
{
    return kinds[pio->op].range == RANGE_PAGES ? pio->length * BAT_PAGE_SIZE : pio->length;
}

void pio_accept(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    struct kind_counts *counts = &queue->counts[pio->op];
    if (kinds[pio->op].is_change) {
        dev_note_change(queue->dev);
    }
    PROBE3(submit, pio, pio->op, pio->length);
    atomic_fetch_add(&queue->in_flight, pio_weight(pio));
    atomic_fetch_add_explicit(&counts->requests, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counts->bytes, kind_bytes(pio), memory_order_relaxed);
    pio->result = 0;
    pio->work.run = pio_begin;
}

/* The same, where the top is to be looked for. False: it is still the caller's. */
static bool submit_fast_anyhow(ploop_queue *queue, ploop_pio *pio, bool entered, bool blocking)
{
    struct delta *top = atomic_load(&queue->dev->fast_top);
    struct way way = {.entered = entered, .blocking = blocking};
    int end = top ? submit_fast(queue, top, pio, way) : FAST_NOT;
    if (end < 0) {
        fast_refused(pio, end);
    }
    return end != FAST_NOT;
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
    bool is_fast = submit_fast_anyhow(queue, pio, entered, true);
    if (entered) {
        kick_tops(dev, file, queue->index);
        queue_leave(queue);
    }
    if (is_fast) {
        struct kind_counts *counts = &queue->counts[pio->op];
        atomic_fetch_add_explicit(&counts->calls_fast, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&counts->bytes, pio->length, memory_order_relaxed);
        turn_take(&dev->turn); /* the backend may have refused it */
    } else {
        pio_accept(pio);
        turn_post(&dev->turn, &pio->work);
    }
}

static int submit_one(ploop_queue *queue, ploop_pio *pio, bool entered)
{
    if (entered && submit_fast_anyhow(queue, pio, true, false)) {
        return 0;
    }
    int error = pio_validate(pio);
    if (!error) {
        pio_accept(pio);
        turn_enqueue(&queue->dev->turn, &pio->work);
    }
    return error;
}

/*
 * A batch, or the rest of one, each by the way that it needs; `before` have gone the fast way. The
 * batch began when `file` was the top's; NULL where the queue is not entered.
 */
static NEVER_INLINE int submit_rest(ploop_queue *queue, const ploop_file *file,
                                    ploop_pio *const *pios, uint32_t count, uint32_t before,
                                    bool entered)
{
    ploop_dev *dev = queue->dev;
    int error = 0;
    uint32_t taken = 0;
    while (taken < count && (error = submit_one(queue, pios[taken], entered)) == 0) {
        taken++;
    }
    taken += before;
    if (entered) {
        if (taken) {
            kick_tops(dev, file, queue->index);
        }
        queue_leave(queue);
    }
    turn_take(&dev->turn);
    return taken ? (int)taken : error;
}

/* The first of those that are left has ended so, and not as FAST_SENT. */
static NEVER_INLINE int submit_not_sent(ploop_queue *queue, const ploop_file *file,
                                        ploop_pio *const *pios, uint32_t left, uint32_t count,
                                        int end)
{
    if (end < 0) {
        fast_refused(*pios, end);
        pios++;
        left--;
    }
    return submit_rest(queue, file, pios, left, count - left, true);
}

int ploop_queue_submit(ploop_queue *queue, ploop_pio *const *pios, uint32_t count)
{
    const struct way way = {.is_plain = true, .entered = true};
    uint32_t left = count;
    if (!queue_enter(queue)) {
        return submit_rest(queue, NULL, pios, count, 0, false);
    }
    struct delta *top = dev_top(queue->dev); /* its file is looked at only by who has entered */
    if (count == 0) {
        return submit_rest(queue, top->file, pios, 0, 0, true);
    }
    do {
        int end = submit_fast(queue, top, *pios, way);
        if (end != FAST_SENT) {
            return submit_not_sent(queue, top->file, pios, left, count, end);
        }
        pios++;
    } while (--left > 0);
    if (top->file->ops.kick) {
        top->file->ops.kick(top->file->context, queue->index);
    }
    queue_leave(queue);
    return (int)count;
}
