/* SPDX-License-Identifier: MIT */
/*
 * Requests in the engine: cut into parts of one cluster each, put together again at the end.
 *
 *     begun -> (PREFLUSH: a round) -> advancing: parts are begun as there are parts to have -> no
 *     part live -> completed
 *     begun -> what it waits for: flush.c -> completed                                a flush, a
 *                                                                                     write of BAT
 *                                                                                     pages
 *     held, until resume -> begun                                                     on a
 *                                                                                     suspended
 *                                                                                     device
 *
 * A pio that advances pauses (enum pio_pause) and goes on from where it stopped:
 *
 *     WAITS_FOR_PART   the device has no part left: it is on part_waiters, or its work is posted
 *     WAITS_FOR_TURN   it has had its share of this batch of work: others come first. It is on
 *                      `later` until the next run; where the embedder cannot be told to run, a
 *                      thread drives: engine.c
 *     HELD             the device is suspended and no part is live: it does not count as in flight
 *
 *  1. A pio always has a part of its own, so that it gets on when the device has none left. What it
 *     does as a whole (flush.c) that part does.
 *  2. After the first error no further part is begun; those that live end by themselves.
 *  3. A pio that pauses is advanced by what its state names, and while it WAITS_FOR_TURN by the end
 *     of one of its parts.
 *  4. A part that ends inside part_begin() does not recurse: `advancing` leaves the rest to the
 *     loop.
 *  5. While the device is suspended no part is begun, so that a suspend waits for parts, never for
 *     whole requests.
 */
#include "dev/dev.h"

#include <assert.h>
#include <errno.h>

/*
 * Steps: a part begun takes STEPS_OF_PART, a page of the map stepped over takes 1. All requests
 * together may take STEPS_OF_BATCH in one batch of work, so that others never wait long for the
 * turn; each may take STEPS_OF_PIO in any case.
 */
enum {
    STEPS_OF_PART = 16,
    STEPS_OF_PIO = 32 * STEPS_OF_PART,
    STEPS_OF_BATCH = 128 * STEPS_OF_PART
};

static void pio_advance(ploop_pio *pio);
static void part_free(struct part *part);

struct guest_cluster cluster_of(const ploop_dev *dev, uint64_t offset, uint64_t *inside)
{
    uint64_t size = dev_disk(dev)->cluster_size;
    uint64_t cluster =
        dev_disk(dev)->cluster_shift ? offset >> dev_disk(dev)->cluster_shift : offset / size;
    *inside = offset - cluster * size;
    return (struct guest_cluster){(uint32_t)cluster};
}

void part_init(struct part *part, ploop_dev *dev)
{
    part->dev = dev;
    list_init(&part->link);
    channel_io_init(&part->io, &dev_top(dev)->channel);
}

void pio_init(ploop_pio *pio, ploop_queue *queue)
{
    *pio = (ploop_pio){.queue = queue};
    list_init(&pio->link);
    part_init(&pio->part, queue->dev);
    pio->part.pio = pio;
}

static bool memory_is_aligned(const ploop_pio *pio, uint32_t alignment)
{
    uintptr_t bases = 0;
    size_t lengths = 0;
    for (uint32_t i = 0; i < pio->iov_count; i++) {
        bases |= (uintptr_t)pio->iov[i].iov_base;
        lengths |= pio->iov[i].iov_len;
    }
    return bases % alignment == 0 && lengths % SECTOR_SIZE == 0;
}

int pio_validate(const ploop_pio *pio)
{
    static const uint32_t flags_of[] = {
        [PIO_WRITE] = PLOOP_PIO_FUA | PLOOP_PIO_PREFLUSH,
        [PIO_ZEROES] =
            PLOOP_PIO_FUA | PLOOP_PIO_PREFLUSH | PLOOP_PIO_NO_UNMAP | PLOOP_PIO_FAST_ONLY,
        [PIO_BAT_WRITE] = 0,
    };
    const ploop_dev *dev = pio->queue->dev;
    if (pio->op == PIO_NONE || (!pio->callback && !pio->blocking) ||
        pio->flags & ~flags_of[pio->op]) {
        return -EINVAL;
    }
    if (pio->op == PIO_FLUSH) {
        return 0;
    }
    if (pio->op == PIO_BAT_WRITE) {
        uint32_t pages = dev_bat(dev)->page_count;
        bool outside =
            pio->length == 0 || pio->offset >= pages || pio->length > pages - pio->offset;
        return outside ? -EINVAL : dev->read_only ? -EROFS : 0;
    }
    uint64_t size = dev_disk(dev)->disk_size;
    if ((pio->offset | pio->length) % SECTOR_SIZE || pio->offset > size ||
        pio->length > size - pio->offset) {
        return -EINVAL;
    }
    if ((pio->op == PIO_READ || pio->op == PIO_WRITE) &&
        (pio->length > MAX_REQUEST_BYTES ||
         (dev->memory_alignment > 1 && !memory_is_aligned(pio, dev->memory_alignment)))) {
        return -EINVAL;
    }
    return pio->op != PIO_READ && dev->read_only ? -EROFS : 0;
}

/* ---- the end ---- */

void pio_complete(ploop_pio *pio, int result)
{
    ploop_queue *queue = pio->queue;
    ploop_dev *dev = queue->dev;
    pio->result = result;
    if (pio->blocking) {
        atomic_store(&pio->finished, true);
        block_wake(dev);
        atomic_fetch_sub(&queue->in_flight, 1);
        return;
    }
    if (queue->event_fd >= 0) {
        atomic_fetch_add_explicit(&queue->waiting, 1, memory_order_relaxed);
    }
    inbox_push(&queue->done, &pio->work);
    if (queue->event_fd >= 0) {
        atomic_fetch_sub(&queue->in_flight, 1);
    }
}

static void pio_finish(ploop_pio *pio, int result)
{
    assert(pio->live == 0 && pio->parked == 0 && !pio->stuck);
    pio_complete(pio, result);
}

/* ---- parts ---- */

static void part_take(struct part *part, ploop_pio *pio)
{
    part->busy = true;
    part->pio = pio;
    channel_io_aim(&part->io, &dev_top(part->dev)->channel);
    part->reservation = NULL;
    part->parked = part->reclaimed = false;
    part->zeroed = part->parked_ns = 0;
}

static struct part *part_get(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    struct part *part = &pio->part;
    if (part->busy) {
        struct list *link = list_take_first(&dev->parts_free);
        if (!link) {
            return NULL;
        }
        part = container_of(link, struct part, link);
        part->pooled = true;
    }
    part_take(part, pio);
    return part;
}

static void part_free(struct part *part)
{
    ploop_dev *dev = part->dev;
    part->busy = false;
    if (!part->pooled) {
        return;
    }
    part->pio = NULL;
    list_append(&dev->parts_free, &part->link);
    struct list *link = list_take_first(&dev->part_waiters);
    if (link) {
        turn_enqueue(&dev->turn, &container_of(link, ploop_pio, link)->work);
    }
}

/* Whether all a pio still has is parked: then suspend does not wait for it. */
static void pio_set_stuck(ploop_pio *pio)
{
    bool stuck = pio->parked > 0 && pio->parked == pio->live && !pio->advancing;
    if (stuck != pio->stuck) {
        pio->stuck = stuck;
        atomic_fetch_add(&pio->queue->dev->stuck_count, stuck ? 1u : UINT64_MAX);
    }
}

void pio_note_parked(ploop_pio *pio, bool parked)
{
    pio->parked += parked ? 1u : UINT32_MAX;
    pio_set_stuck(pio);
}

/*
 * A request waits for space from when a part of it is parked until no such part is left, however
 * often that is tried again.
 */
void part_wants_space(struct part *part, bool wants)
{
    ploop_pio *pio = part->pio;
    if (part->wants_space == wants) {
        return;
    }
    part->wants_space = wants;
    uint32_t before = pio->want_space;
    pio->want_space += wants ? 1u : UINT32_MAX;
    if ((before == 0) != (pio->want_space == 0)) {
        pio->queue->dev->parked_count += wants ? 1u : UINT32_MAX;
    }
}

void part_end(struct part *part, int result)
{
    ploop_pio *pio = part->pio;
    part_wants_space(part, false);
    if (result && !pio->result) {
        pio->result = result;
    }
    assert(pio->live > 0 && !part->parked);
    pio->live--;
    part_free(part);
    pio_set_stuck(pio);
    bool in_line = !list_is_empty(&pio->link);
    if (pio->advancing) {
        return;
    }
    if (pio->pause == PIO_GOES_ON || (pio->pause == PIO_WAITS_FOR_TURN && in_line)) {
        list_remove(&pio->link);
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
    } else if (pio->pause == PIO_WAITS_FOR_PART && in_line && !part->pooled) {
        list_remove(&pio->link); /* its own part is free again */
        turn_enqueue(&part->dev->turn, &pio->work);
    }
}

void part_unlock(struct part *part)
{
    lock_release(&part->lock, &part->dev->turn);
}

void part_settle(struct part *part, int result, uint64_t number)
{
    part_unlock(part);
    if (!result && part->pio->flags & PLOOP_PIO_FUA) {
        part_wait_durable(part, number);
    } else {
        part_end(part, result);
    }
}

static bool wants_unmap(const struct part *part)
{
    const ploop_pio *pio = part->pio;
    return part->whole && (pio->op == PIO_DISCARD ||
                           (pio->op == PIO_ZEROES && !(pio->flags & PLOOP_PIO_NO_UNMAP)));
}

/*
 * An entry never goes where a lower delta has the cluster, so what is decided here before the lock
 * is had holds afterwards.
 */
static bool wants_cow(const struct part *part)
{
    uint32_t op = part->pio->op;
    return (op == PIO_WRITE || op == PIO_ZEROES) && wants_copy(part->dev, part->cluster);
}

/*
 * Zeros over an unmapped cluster are there already, but not in the place that a write has reserved
 * for it: what one that failed left there would show when another enters the place in the map. So
 * they wait until no write is left.
 */
static bool wants_no_reservation(const struct part *part)
{
    return part->pio->op == PIO_ZEROES && bat_entry(dev_bat(part->dev), part->cluster) == 0;
}

static bool wants_alone(const struct part *part)
{
    return wants_unmap(part) || wants_cow(part) || wants_no_reservation(part);
}

static void part_locked(struct lock_waiter *waiter)
{
    struct part *part = container_of(waiter, struct part, lock);
    bool over_lower = stack_maps(&part->dev->stack, part->cluster);
    if (part->pio->op == PIO_READ) {
        read_locked(part);
    } else if (part->dev->refuses_changes) {
        part_settle(part, -EIO, 0);
    } else if (wants_unmap(part)) {
        over_lower ? cover_locked(part) : unmap_locked(part);
    } else if (wants_cow(part)) {
        assert(waiter->exclusive);
        cow_locked(part);
    } else if (part->pio->op == PIO_WRITE) {
        write_locked(part);
    } else {
        zero_locked(part);
    }
}

void part_begin(struct part *part)
{
    ploop_dev *dev = part->dev;
    if (lock_take(lock_of(dev, part->cluster), &part->lock, wants_alone(part), part_locked)) {
        part_locked(&part->lock);
    }
}

/* The next part's place. Returns its length. */
static uint64_t part_place(struct part *part, uint64_t next, uint64_t end)
{
    const ploop_dev *dev = part->dev;
    uint64_t cluster_size = dev_disk(dev)->cluster_size;
    part->cluster = cluster_of(dev, next, &part->inside);
    uint64_t room = cluster_size - part->inside;
    part->length = end - next < room ? end - next : room;
    uint64_t of_disk = dev_disk(dev)->disk_size - (next - part->inside);
    part->whole =
        part->inside == 0 && part->length == (of_disk < cluster_size ? of_disk : cluster_size);
    return part->length;
}

/*
 * Nothing to discard or to zero in this page of the map, for as long as a request of this moment
 * can tell.
 */
static bool page_is_empty(const ploop_dev *dev, struct guest_cluster cluster)
{
    const struct bat_page *page = &dev_bat(dev)->pages[geometry_page_of(cluster)];
    return atomic_load_explicit(&page->mapped, memory_order_relaxed) == 0 && page->reserved == 0;
}

/*
 * How many bytes from `next` on need no part: clusters that nothing maps and that no write has a
 * place for, what one that fails might leave there included. 0: a part is needed. FUA has to wait
 * for the entries that are absent.
 */
static uint64_t skip_length(const ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    bool zeroes = pio->op == PIO_ZEROES && !(pio->flags & PLOOP_PIO_FUA);
    uint64_t inside, clusters = 0;
    if ((pio->op != PIO_DISCARD && !zeroes) || dev->refuses_changes) {
        return 0;
    }
    struct guest_cluster cluster = cluster_of(dev, pio->next, &inside);
    if (page_is_empty(dev, cluster) && !(zeroes && dev->stack.count > 1)) {
        uint32_t page = geometry_page_of(cluster);
        clusters = geometry_page_first(page) +
                   geometry_page_entries(&dev_top(dev)->geometry, page) - cluster.n;
    } else if (bat_entry(dev_bat(dev), cluster) == 0 &&
               !(zeroes && stack_maps(&dev->stack, cluster)) &&
               atomic_load(&lock_of(dev, cluster)->word) == 0) {
        clusters = 1;
    }
    uint64_t length = clusters * dev_disk(dev)->cluster_size, left = pio->end - pio->next;
    length -= clusters ? inside : 0;
    return length < left ? length : left;
}

/* Whether it may take more of this batch of work. */
static bool has_steps(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    if (pio->batch != dev->batch) {
        pio->batch = dev->batch;
        pio->steps = 0;
    }
    return pio->steps < STEPS_OF_PIO || dev->steps < STEPS_OF_BATCH;
}

static void take_steps(ploop_pio *pio, uint32_t steps)
{
    pio->steps += steps;
    pio->queue->dev->steps += steps;
}

void pio_enter(ploop_pio *pio)
{
    struct part *part = &pio->part;
    pio->end = pio->next = pio->offset + pio->length;
    pio->live = 1;
    part_take(part, pio);
    part_place(part, pio->offset, pio->end);
    part->cursor = (struct iov_cursor){.iov = pio->iov, .count = pio->iov_count};
    part->lock.exclusive = false;
    part->lock.locked = part_locked;
}

static void pio_wait_for_part(ploop_pio *pio)
{
    pio->pause = PIO_WAITS_FOR_PART;
    list_append(&pio->queue->dev->part_waiters, &pio->link);
}

static void pio_wait_for_turn(ploop_pio *pio)
{
    pio->pause = PIO_WAITS_FOR_TURN;
    list_append(&pio->queue->dev->later, &pio->link);
}

static void pio_hold(ploop_pio *pio)
{
    list_append(&pio->queue->dev->held, &pio->link);
    atomic_fetch_sub(&pio->queue->in_flight, 1);
}

/* Begin the part at `next`. False: there is none to be had. */
static bool pio_begin_part(ploop_pio *pio)
{
    struct part *part = part_get(pio);
    if (!part) {
        return false;
    }
    uint64_t length = part_place(part, pio->next, pio->end);
    part->cursor = pio->cursor;
    pio->next += length;
    iov_advance(&pio->cursor, length);
    pio->live++;
    take_steps(pio, STEPS_OF_PART);
    part_begin(part);
    return true;
}

static void pio_advance(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    assert(pio->pause == PIO_GOES_ON && list_is_empty(&pio->link));
    if (dev->aborting && pio->next < pio->end && !pio->result) {
        pio->result = -ECANCELED;
    }
    pio->advancing = true;
    while (pio->next < pio->end && !pio->result && !dev->suspended && pio->pause == PIO_GOES_ON) {
        uint64_t skip = skip_length(pio);
        if (!has_steps(pio)) {
            pio_wait_for_turn(pio);
        } else if (skip) {
            pio->next += skip;
            take_steps(pio, 1);
        } else if (!pio_begin_part(pio)) {
            pio_wait_for_part(pio);
        }
    }
    pio->advancing = false;
    pio_set_stuck(pio);
    if (pio->live > 0 || pio->pause != PIO_GOES_ON) {
        return;
    }
    if (pio->next < pio->end && !pio->result) {
        pio->pause = PIO_HELD;
        pio_hold(pio);
    } else {
        pio_finish(pio, pio->result);
    }
}

uint32_t pio_go_on(ploop_dev *dev)
{
    struct list *link;
    uint32_t count = 0;
    /* One at least, which has its own share, whatever others have taken. */
    while ((count == 0 || dev->steps < STEPS_OF_BATCH) &&
           (link = list_take_first(&dev->later)) != NULL) {
        ploop_pio *pio = container_of(link, ploop_pio, link);
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
        count++;
    }
    return count;
}

/* ---- the beginning ---- */

/* What of the request is to be cut into parts. */
static void pio_set_range(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    uint64_t cluster_size = dev_disk(dev)->cluster_size;
    pio->next = pio->offset;
    pio->end = pio->offset + pio->length;
    pio->cursor = (struct iov_cursor){.iov = pio->iov, .count = pio->iov_count};
    if (pio->op == PIO_DISCARD) {
        /* Only whole clusters; the disk's last one is whole at the disk's end. */
        uint64_t over = pio->next % cluster_size;
        pio->next += over ? cluster_size - over : 0;
        if (pio->end != dev_disk(dev)->disk_size) {
            pio->end -= pio->end % cluster_size;
        }
    }
}

struct part *pio_own_part(ploop_pio *pio)
{
    part_take(&pio->part, pio);
    pio->live++;
    return &pio->part;
}

static void pio_start(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    switch (pio->op) {
    case PIO_FLUSH:
        count(&dev->flushes, 1);
        pio->next = pio->end = 0;
        if (dev->read_only) {
            pio_finish(pio, 0);
        } else {
            pio_wait_round(pio);
        }
        break;
    case PIO_BAT_WRITE:
        pio_write_pages(pio);
        break;
    default:
        pio_set_range(pio);
        if (pio->flags & PLOOP_PIO_PREFLUSH) {
            pio_wait_round(pio); /* advances when its own part ends */
        } else {
            pio_advance(pio);
        }
    }
}

/* A pio comes to the turn: new, or to go on after a pause. */
void pio_begin(struct work *work)
{
    ploop_pio *pio = container_of(work, ploop_pio, work);
    ploop_dev *dev = pio->queue->dev;
    if (pio->is_long) {
        pio->is_long = false;
        atomic_fetch_sub(&dev->long_waiting, 1);
    }
    if (pio->pause != PIO_GOES_ON) {
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
    } else if (dev->aborting || dev->closed) {
        pio_finish(pio, -ECANCELED);
    } else if (dev->suspended) {
        pio_hold(pio);
    } else {
        pio_start(pio);
    }
}

void pio_restart_held(ploop_dev *dev)
{
    struct list *link;
    while ((link = list_take_first(&dev->part_waiters)) != NULL) {
        turn_enqueue(&dev->turn, &container_of(link, ploop_pio, link)->work);
    }
    while ((link = list_take_first(&dev->held)) != NULL) {
        ploop_pio *pio = container_of(link, ploop_pio, link);
        atomic_fetch_add(&pio->queue->in_flight, 1);
        turn_enqueue(&dev->turn, &pio->work);
    }
}
