/* SPDX-License-Identifier: MIT */
/*
 * Reads of a partial cluster (partial.h), with its lock held shared.
 *
 *     all of it is the top's --> read there ------------------------------------------> settled
 *     else: the lower delta's bytes are in the reader's memory (read.c) --> a buffer is had -->
 *     [from the first sector that is the top's to the last: read, and those copied] ... --> settled
 *
 *  1. Which sectors are the top's is asked when the read of the top is sent: these were written
 *     before it. One that becomes the top's later was written by a request that had not ended when
 *     this one began, so its old content may be read.
 *  2. Writes go on meanwhile. When one of them has filled the cluster there is no record any more:
 *     the cluster is mapped, and is read anew.
 */
#include "pio/partial.h"

#include "pio/pio.h"
#include "pio/steps.h"

#include <assert.h>

static part_fn next_piece;

static uint64_t place_of(const struct part *part, const struct partial *partial, uint64_t inside)
{
    return geometry_host_offset(&dev_top(part->dev)->geometry, partial->host) + inside;
}

static void all_heard(struct channel_io *io, int result)
{
    part_settle(part_heard(io), result, SYNC_NONE);
}

bool partial_read_alone(struct part *part, const struct partial *partial)
{
    struct run gap;
    uint32_t begin = (uint32_t)(part->inside / SECTOR_SIZE);
    uint32_t end = (uint32_t)((part->inside + part->length) / SECTOR_SIZE);
    if (runs_gap_span(&partial->tops, begin, end, &gap)) {
        return false;
    }
    part_transfer(part, dev_top(part->dev), PLOOP_IO_READ, 0, part->cursor,
                  place_of(part, partial, part->inside), part->length, all_heard);
    return true;
}

static void copy_tops(const struct part *part)
{
    const struct cow *cow = &part->cow;
    const struct run_set *tops = &cow->buffer->tops;
    uint64_t end = cow->at + cow->length;
    for (uint32_t i = 0; i < tops->count; i++) {
        uint64_t from = tops->runs[i].begin * (uint64_t)SECTOR_SIZE;
        uint64_t to = tops->runs[i].end * (uint64_t)SECTOR_SIZE;
        from = from > cow->at ? from : cow->at;
        to = to < end ? to : end;
        if (from < to) {
            struct iov_cursor cursor = part->cursor;
            iov_advance(&cursor, from - part->inside);
            iov_copy_in(&cursor, cow->buffer->bytes + (from - cow->at), to - from);
        }
    }
}

static void piece_copied(struct part *part)
{
    part->cow.at += part->cow.length;
    next_piece(part);
}

static void piece_heard(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        cow_give_buffer_back(part);
        part_settle(part, result, SYNC_NONE);
    } else {
        part_do_bulk(part, part->cow.length, copy_tops, piece_copied);
    }
}

static void next_piece(struct part *part)
{
    const struct partial *partial = partial_find(part->dev, part->cluster);
    struct cow *cow = &part->cow;
    uint64_t end = part->inside + part->length;
    struct run own;
    if (!partial) {
        cow_give_buffer_back(part);
        part->kind->locked(part);
        return;
    }
    cow->buffer->tops = partial->tops;
    const struct run *next = runs_from(&partial->tops, (uint32_t)(cow->at / SECTOR_SIZE));
    uint64_t begin = next ? next->begin * (uint64_t)SECTOR_SIZE : end;
    cow->at = cow->at > begin ? cow->at : begin;
    if (cow->at >= end) {
        cow_give_buffer_back(part);
        part_settle(part, 0, SYNC_NONE);
        return;
    }
    uint64_t most = end - cow->at < part->dev->cow_bytes ? end - cow->at : part->dev->cow_bytes;
    bool any = runs_span(&partial->tops, (uint32_t)(cow->at / SECTOR_SIZE),
                         (uint32_t)((cow->at + most) / SECTOR_SIZE), &own);
    (void)any;
    assert(any && own.begin == cow->at / SECTOR_SIZE);
    cow->length = (own.end - own.begin) * (uint64_t)SECTOR_SIZE;
    cow->iov = (struct iovec){cow->buffer->bytes, (size_t)cow->length};
    part_transfer(part, dev_top(part->dev), PLOOP_IO_READ, 0,
                  (struct iov_cursor){.iov = &cow->iov, .count = 1},
                  place_of(part, partial, cow->at), cow->length, piece_heard);
}

void partial_read_over(struct part *part)
{
    part->cow.at = part->inside;
    cow_take_buffer(part, next_piece);
}
