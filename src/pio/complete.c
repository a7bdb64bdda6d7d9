/* SPDX-License-Identifier: MIT */
/*
 * The rest of a partial cluster is copied from the lower delta (R9, partial.h).
 *
 *     a buffer is had -> of each piece: [what is missing read below] -> [the top's own between that
 *     read] -> merged -> written ... -> entered in the map, the record is gone
 *     a write failed -> another host cluster is taken -> from the beginning, everything
 *     failed otherwise, or again -> the record as it was
 *
 *  1. The part holds the cluster's lock alone throughout, and no write is in flight.
 *  2. A piece is what a buffer holds, and takes one read of each delta and one write at most. Of a
 *     piece without a missing sector nothing is read or written, unless the cluster moves.
 *  3. What is written over the top's own sectors are their bytes, as they were read with the lock
 *     held.
 *  4. With a buffer the part waits for I/O only; it gives the buffer back before it waits for
 *     space.
 */
#include "pio/partial.h"

#include "pio/pio.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static part_fn next_piece, take_host;

static struct partial *partial_of(const struct part *part)
{
    struct partial *partial = partial_find(part->dev, part->cluster);
    assert(partial && part->lock.exclusive && partial->in_flight == 0);
    return partial;
}

/* A read of each delta and a write for each piece. */
static void send(struct part *part, struct delta *delta, uint32_t op, uint64_t offset,
                 uint8_t *bytes, uint64_t length, channel_fn *heard)
{
    struct cow *cow = &part->cow;
    uint64_t all = partial_of(part)->sectors * (uint64_t)SECTOR_SIZE, most = part->dev->cow_bytes;
    cow->requests++;
    (void)all;
    (void)most;
    assert(length > 0 && length <= most && cow->requests <= 3 * ((all + most - 1) / most));
    cow->iov = (struct iovec){bytes, (size_t)length};
    part_transfer(part, delta, op, op == PLOOP_IO_WRITE ? PLOOP_IO_ALLOCATES : 0,
                  (struct iov_cursor){.iov = &cow->iov, .count = 1}, offset, length, heard);
}

/* Where a byte of the cluster lies in the top: in its old place. */
static uint64_t old_place(const struct part *part, uint64_t inside)
{
    return geometry_host_offset(&dev_top(part->dev)->geometry, partial_of(part)->host) + inside;
}

/* ---- the end ---- */

static void completed(struct part *part, int result)
{
    ploop_dev *dev = part->dev;
    struct partial *partial = partial_of(part);
    struct cow *cow = &part->cow;
    cow_give_buffer_back(part);
    if (!result) {
        if (cow->moves) {
            alloc_give_back_failed(&dev_bat(dev)->alloc, partial->host);
            partial->host = cow->host;
        }
        count(&dev->clusters_copied, 1);
        partial_enter(dev, partial);
    } else if (cow->moves) {
        alloc_give_back_failed(&dev_bat(dev)->alloc, cow->host);
    }
    cow->completed(part, result);
}

/* ---- another host cluster ---- */

static void space_came(struct alloc_wait *wait, int result)
{
    struct part *part = container_of(wait, struct part, space);
    assert(part->state == PART_FOR_SPACE);
    part_set(part, PART_LOCKED);
    if (result) {
        completed(part, result);
    } else {
        take_host(part);
    }
}

static void take_host(struct part *part)
{
    struct bat *bat = dev_bat(part->dev);
    struct sync_number number; /* of an extension: before the one that the copy needs */
    int error = part->dev->state == DEV_ABORTING ? -ECANCELED : bat_latch(bat);
    if (!error && bat->over_limit) {
        error = bat->allocation_error;
    }
    error = error ? error : alloc_take(&bat->alloc, &part->cow.host, &number);
    if (error == -EAGAIN) {
        part_set(part, PART_FOR_SPACE);
        alloc_wait(&bat->alloc, &part->space, space_came);
    } else if (error) {
        completed(part, error);
    } else {
        part->cow.moves = true;
        part->cow.at = 0;
        part->cow.requests = 0;
        cow_take_buffer(part, next_piece);
    }
}

/* ---- a piece ---- */

static void piece_written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    struct cow *cow = &part->cow;
    if (!result) {
        cow->at = cow->piece_end;
        next_piece(part);
    } else if (cow->moves || is_no_space(result) || result == -ECANCELED) {
        completed(part, result);
    } else {
        cow_give_buffer_back(part);
        take_host(part);
    }
}

static void write_piece(struct part *part)
{
    const struct delta *top = dev_top(part->dev);
    struct cow *cow = &part->cow;
    uint64_t place = cow->moves ? geometry_host_offset(&top->geometry, cow->host) + cow->at
                                : old_place(part, cow->at);
    send(part, dev_top(part->dev), PLOOP_IO_WRITE, place, cow->buffer->bytes, cow->length,
         piece_written);
}

/* The top's own sectors go over what was read below, or over nothing. */
static void merge(const struct part *part)
{
    const struct cow *cow = &part->cow;
    uint32_t end = (uint32_t)((cow->at + cow->length) / SECTOR_SIZE);
    if (cow->below_end > cow->below_filled) {
        memset(cow->buffer->bytes + (cow->below_filled - cow->at), 0,
               cow->below_end - cow->below_filled);
    }
    const struct run_set *tops = &cow->buffer->tops;
    for (uint32_t i = 0; i < tops->count && tops->runs[i].begin < end; i++) {
        uint64_t from = tops->runs[i].begin * (uint64_t)SECTOR_SIZE;
        uint64_t to = tops->runs[i].end * (uint64_t)SECTOR_SIZE;
        from = from > cow->at ? from : cow->at;
        to = to < cow->at + cow->length ? to : cow->at + cow->length;
        if (from < to) {
            memcpy(cow->buffer->bytes + (from - cow->at), cow->buffer->more + (from - cow->at),
                   to - from);
        }
    }
}

static void merge_piece(struct part *part)
{
    part_do_bulk(part, part->cow.length, merge, write_piece);
}

static void top_heard(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        completed(part, result);
    } else {
        merge_piece(part);
    }
}

/* The top's own sectors that lie in the piece. */
static void read_top(struct part *part)
{
    struct cow *cow = &part->cow;
    struct run own;
    uint32_t begin = (uint32_t)(cow->at / SECTOR_SIZE);
    uint32_t end = (uint32_t)((cow->at + cow->length) / SECTOR_SIZE);
    cow->buffer->tops = partial_of(part)->tops;
    if (!runs_span(&cow->buffer->tops, begin, end, &own)) {
        merge_piece(part);
        return;
    }
    uint64_t from = own.begin * (uint64_t)SECTOR_SIZE;
    send(part, dev_top(part->dev), PLOOP_IO_READ, old_place(part, from),
         cow->buffer->more + (from - cow->at), (own.end - own.begin) * (uint64_t)SECTOR_SIZE,
         top_heard);
}

static void below_heard(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        completed(part, result);
    } else {
        read_top(part);
    }
}

/* What is missing of the piece, from its first sector to its last. */
static void read_below(struct part *part, struct run gap)
{
    struct cow *cow = &part->cow;
    uint64_t from = gap.begin * (uint64_t)SECTOR_SIZE, offset, filled;
    uint64_t length = (gap.end - gap.begin) * (uint64_t)SECTOR_SIZE;
    uint8_t *bytes = cow->buffer->bytes + (from - cow->at);
    struct place below = stack_place(&part->dev->stack, part->cluster);
    assert(below.delta && below.is_partial && below.entry != BAT_ENTRY_BAD);
    cow->iov = (struct iovec){bytes, (size_t)length};
    struct iov_cursor cursor = {.iov = &cow->iov, .count = 1};
    uint64_t in_file = delta_fill(below.delta, part->cluster, below.entry, from, length, &cursor,
                                  &offset, &filled);
    cow->below_filled = from + filled;
    cow->below_end = from + length;
    if (in_file == 0) {
        read_top(part);
    } else {
        send(part, below.delta, PLOOP_IO_READ, offset, bytes, in_file, below_heard);
    }
}

/* The next piece that has something to be written, from cow.at on. */
static void next_piece(struct part *part)
{
    const struct partial *partial = partial_of(part);
    struct cow *cow = &part->cow;
    uint64_t all = partial->sectors * (uint64_t)SECTOR_SIZE;
    while (cow->at < all) {
        uint64_t left = all - cow->at;
        cow->piece_end = cow->at + (left < part->dev->cow_bytes ? left : part->dev->cow_bytes);
        struct run gap,
            piece = {(uint32_t)(cow->at / SECTOR_SIZE), (uint32_t)(cow->piece_end / SECTOR_SIZE)};
        bool lacks = runs_gap_span(&partial->tops, piece.begin, piece.end, &gap);
        if (lacks && !cow->moves) {
            piece = gap;
        }
        cow->at = piece.begin * (uint64_t)SECTOR_SIZE;
        cow->length = (piece.end - piece.begin) * (uint64_t)SECTOR_SIZE;
        cow->below_filled = cow->below_end = 0;
        if (lacks) {
            read_below(part, gap);
            return;
        }
        if (cow->moves) {
            read_top(part);
            return;
        }
        cow->at = cow->piece_end;
    }
    completed(part, 0);
}

void partial_complete(struct part *part, struct partial *partial, partial_then_fn *then)
{
    assert(part->state == PART_LOCKED && partial == partial_of(part) && partial->missing > 0);
    (void)partial;
    part->cow.completed = then;
    part->cow.moves = false;
    part->cow.at = 0;
    part->cow.requests = 0;
    cow_take_buffer(part, next_piece);
}

/* ---- as a request of the library's own ---- */

bool complete_wants_alone(const struct part *part)
{
    (void)part;
    return true;
}

static void ended(struct part *part, int result)
{
    if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, SYNC_NONE);
    }
}

void complete_locked(struct part *part)
{
    struct partial *partial = partial_find(part->dev, part->cluster);
    int latch = bat_latch(dev_bat(part->dev));
    if (!partial) {
        part_settle(part, 0, SYNC_NONE); /* by a request of the guest's, meanwhile */
    } else if (latch || part->dev->state == DEV_ABORTING) {
        part_settle(part, latch ? latch : -ECANCELED, SYNC_NONE);
    } else {
        partial_complete(part, partial, ended);
    }
}
