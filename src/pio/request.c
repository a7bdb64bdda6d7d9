/* SPDX-License-Identifier: MIT */
/*
 * A request is validated, comes to the turn, and begins.
 *
 *     begun -> (PREFLUSH: a round) -> cut into parts (cut.c) -> completed
 *     begun -> as a whole, what its kind does (flush.c) -> completed
 *     held, until the gate holds nothing back any more -> begun
 */
#include "pio/pio.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>

bool pio_memory_fits(const ploop_pio *pio, uint32_t alignment)
{
    size_t unit = alignment > SECTOR_SIZE ? alignment : SECTOR_SIZE;
    uintptr_t bases = 0;
    size_t lengths = 0;
    for (uint32_t i = 0; i < pio->iov_count; i++) {
        bases |= (uintptr_t)pio->iov[i].iov_base;
        lengths |= pio->iov[i].iov_len;
    }
    return bases % alignment == 0 && lengths % unit == 0;
}

static int validate_pages(const ploop_pio *pio)
{
    uint64_t pages = dev_bat(pio->queue->dev)->page_count;
    bool outside = pio->length == 0 || pio->offset >= pages || pio->length > pages - pio->offset;
    return outside ? -EINVAL : 0;
}

static int validate_bytes(const ploop_pio *pio, const struct kind *kind)
{
    const ploop_dev *dev = pio->queue->dev;
    uint64_t size = dev_disk(dev)->disk_size;
    if ((pio->offset | pio->length) % SECTOR_SIZE || pio->offset > size ||
        pio->length > size - pio->offset) {
        return -EINVAL;
    }
    if (kind->has_memory &&
        (pio->length > MAX_REQUEST_BYTES ||
         (dev->memory_alignment > 1 && !pio_memory_fits(pio, dev->memory_alignment)))) {
        return -EINVAL;
    }
    return 0;
}

int pio_validate(const ploop_pio *pio)
{
    assert(pio->op < PIO_KINDS);
    const struct kind *kind = &kinds[pio->op];
    int error = 0;
    bool is_delivered = pio->callback || pio->blocking || pio->queue->dev->config.runner_count == 0;
    if (pio->op == PIO_NONE || !is_delivered || pio->flags & ~kind->flags) {
        return -EINVAL;
    }
    if (kind->range == RANGE_BYTES) {
        error = validate_bytes(pio, kind);
    } else if (kind->range == RANGE_PAGES) {
        error = validate_pages(pio);
    }
    return error ? error : kind->is_change && pio->queue->dev->read_only ? -EROFS : 0;
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
    if (kinds[pio->op].whole_clusters) {
        /* Only whole clusters; the disk's last one is whole at the disk's end. */
        uint64_t over = pio->next % cluster_size;
        pio->next += over ? cluster_size - over : 0;
        if (pio->end != dev_disk(dev)->disk_size) {
            pio->end -= pio->end % cluster_size;
        }
    }
}

static void pio_start(ploop_pio *pio)
{
    const struct kind *kind = &kinds[pio->op];
    assert(pio->live == 0 && pio->part.state == PART_IDLE);
    pio_set_range(pio);
    if (kind->start) {
        kind->start(pio);
    } else if (pio->flags & PLOOP_PIO_PREFLUSH) {
        preflush_start(pio); /* it advances when its own part ends */
    } else {
        pio_advance(pio);
    }
}

/* A pio comes to the turn: new, or to go on after a pause. */
void pio_begin(struct work *work)
{
    ploop_pio *pio = container_of(work, ploop_pio, work);
    ploop_dev *dev = pio->queue->dev;
    assert(dev->state != DEV_OPENING && list_is_empty(&pio->link));
    if (pio->pause != PIO_GOES_ON) {
        pio->pause = PIO_GOES_ON;
        pio_advance(pio);
    } else if (gate_has(dev, GATE_ENDS)) {
        pio_complete(pio, -ECANCELED);
    } else if (pio_is_held_back(pio, dev)) {
        pio_hold(pio);
    } else {
        pio_start(pio);
    }
}

void pio_refuse_held(ploop_dev *dev)
{
    struct list held, *link;
    assert(dev->in_commit);
    list_init(&held);
    list_move_all(&held, &dev->held);
    while ((link = list_take_first(&held)) != NULL) {
        ploop_pio *pio = container_of(link, ploop_pio, link);
        atomic_fetch_add(&pio->queue->in_flight, pio_weight(pio));
        pio_hold(pio);
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
        assert(pio->live == 0 && (pio->pause == PIO_GOES_ON || pio->pause == PIO_HELD));
        atomic_fetch_add(&pio->queue->in_flight, pio_weight(pio));
        turn_enqueue(&dev->turn, &pio->work);
    }
}
