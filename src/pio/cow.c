/* SPDX-License-Identifier: MIT */
/*
 * Changes to a guest cluster that a lower delta has (R8, R9). The part holds the cluster's lock
 * alone, from the first look to its end: the others wait in line. That is as long as a read and a
 * write of each 1 MiB of the cluster take, one after the other; a buffer has no more.
 *
 *     locked -> host cluster taken -+-> the whole cluster's bytes: written ---------------+
 *                                   +-> a buffer had -> [read below, merged, written] ... +
 *                                   +-> zeros over the whole cluster: it reads as zeros --+
 *                                                                                         |
 *                                          settled <- entered in the map, with a barrier <+
 *     failed on the way: buffer and host cluster given back, the map as it was
 *
 *  1. The barrier is the SYNC after the last write completed (for zeros the one that alloc_take()
 *     named): the entry is never on the disk before the whole cluster is.
 *  2. A host cluster taken reads as zeros, so where the lower delta ends inside the cluster, or the
 *     disk, nothing is left over.
 *  3. A part that has a buffer waits for nothing but I/O, so every part that waits for a buffer
 *     gets one.
 *  4. Buffers are taken at open: a running device needs no memory.
 *
 * A copy up (live/merge.c) is a copy of the cluster as it is, zeros too: they hide what lies below.
 * Where the top has the cluster by now it does nothing.
 *
 * The copy may be put off: partial.h. A cluster with a record goes that way, and a first write that
 * may begin one. What does not copies at once, and waits for no record.
 *
 * Where the top has the cluster it is changed in place, and never removed from the map: that would
 * bring the lower content back. A discard then punches it, or does nothing where that cannot be
 * done.
 */
#include "pio/partial.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COW_BUFFERS = 4, COW_ALIGNMENT = 4096 };
#define COW_BYTES_MAX (UINT64_C(1) << 20)

static void copy_next(struct part *part);

int cow_init(ploop_dev *dev)
{
    if (dev->cow_memory || dev->read_only) {
        return 0;
    }
    bool is_put_off = dev->config.cow_delay_ns > 0;
    uint64_t cluster = dev_disk(dev)->cluster_size;
    dev->cow_bytes = cluster < COW_BYTES_MAX ? cluster : COW_BYTES_MAX;
    uint64_t step = (dev->cow_bytes + COW_ALIGNMENT - 1) / COW_ALIGNMENT * COW_ALIGNMENT;
    void *memory = NULL;
    if (!dev->cow_all) { /* there after an attempt that failed */
        dev->cow_all = calloc(COW_BUFFERS, sizeof(*dev->cow_all));
    }
    if (!dev->cow_all || partials_init(dev) ||
        posix_memalign(&memory, COW_ALIGNMENT, (is_put_off ? 2u : 1u) * COW_BUFFERS * step)) {
        return -ENOMEM;
    }
    dev->cow_memory = memory;
    for (uint32_t i = 0; i < COW_BUFFERS; i++) {
        dev->cow_all[i].bytes = dev->cow_memory + i * step;
        dev->cow_all[i].more = is_put_off ? dev->cow_memory + (COW_BUFFERS + i) * step : NULL;
        list_append(&dev->cow_buffers, &dev->cow_all[i].link);
    }
    return 0;
}

void cow_free(ploop_dev *dev)
{
    free(dev->cow_all);
    free(dev->cow_memory);
    partials_free(dev);
}

/* A read and a write for each buffer's bytes: what those that wait for the cluster wait for. */
static void send(struct part *part, struct delta *delta, uint32_t op, uint32_t flags,
                 struct iov_cursor cursor, uint64_t offset, uint64_t length, channel_fn *heard)
{
    uint64_t cluster = dev_disk(part->dev)->cluster_size;
    part->cow.requests++;
    (void)cluster;
    assert(length <= COW_BYTES_MAX);
    assert(part->cow.requests <= 2 * ((cluster + COW_BYTES_MAX - 1) / COW_BYTES_MAX));
    part_transfer(part, delta, op, flags, cursor, offset, length, heard);
}

/* ---- the end ---- */

void cow_give_buffer_back(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct cow_buffer *buffer = part->cow.buffer;
    part->cow.buffer = NULL;
    if (!buffer) {
        return;
    }
    struct list *link = list_take_first(&dev->cow_waiters);
    if (link) {
        struct part *next = container_of(link, struct part, link);
        assert(next->state == PART_FOR_BUFFER && !next->cow.buffer);
        part_set(next, PART_LOCKED);
        next->cow.buffer = buffer;
        next->cow.had(next);
    } else {
        list_append(&dev->cow_buffers, &buffer->link);
    }
}

static void cow_ended(struct part *part, int result)
{
    ploop_dev *dev = part->dev;
    struct sync_number number = sync_next(&dev_bat(dev)->syncer);
    assert(part->state == PART_LOCKED && part->lock.exclusive && wants_copy(part));
    if (!result) {
        bat_map(dev_bat(dev), part->cluster, part->cow.host, number);
    } else {
        alloc_give_back_failed(&dev_bat(dev)->alloc, part->cow.host);
    }
    cow_give_buffer_back(part);
    if (is_no_space(result)) {
        part_no_space(part, result);
    } else {
        part_settle(part, result, number);
    }
}

/* ---- the whole cluster ---- */

static void whole_written(struct channel_io *io, int result)
{
    cow_ended(part_heard(io), result);
}

/* ---- a part of it ---- */

/* How much of the chunk the request has, from *from on. */
static uint64_t overlap(const struct part *part, uint64_t *from)
{
    const struct cow *cow = &part->cow;
    if (!part->kind->fill) {
        *from = cow->at; /* a copy as it is */
        return 0;
    }
    uint64_t end = part->inside + part->length, chunk_end = cow->at + cow->length;
    end = end < chunk_end ? end : chunk_end;
    *from = part->inside > cow->at ? part->inside : cow->at;
    return *from < end ? end - *from : 0;
}

/* What the request has of the chunk goes over what the lower delta had. */
static void merge(const struct part *part)
{
    const struct cow *cow = &part->cow;
    uint64_t from, length = overlap(part, &from);
    assert(cow->buffer && cow->filled <= cow->length);
    memset(cow->buffer->bytes + cow->filled, 0, cow->length - cow->filled);
    if (length > 0) {
        part->kind->fill(part, from, cow->buffer->bytes + (from - cow->at), length);
    }
}

static void chunk_written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    struct cow *cow = &part->cow;
    assert(cow->buffer && cow->length > 0);
    cow->at += cow->length;
    if (!result && cow->at < dev_disk(part->dev)->cluster_size) {
        copy_next(part);
        return;
    }
    if (!result) {
        count(&part->dev->clusters_copied, 1);
    }
    cow_ended(part, result);
}

static void chunk_write(struct part *part)
{
    struct delta *top = dev_top(part->dev);
    struct cow *cow = &part->cow;
    send(part, top, PLOOP_IO_WRITE, part_host_flags(part, cow->host),
         (struct iov_cursor){.iov = &cow->iov, .count = 1},
         geometry_host_offset(&top->geometry, cow->host) + cow->at, cow->length, chunk_written);
}

static void chunk_merge(struct part *part)
{
    const struct cow *cow = &part->cow;
    uint64_t from, bytes = cow->length - cow->filled + overlap(part, &from);
    part_do_bulk(part, bytes, merge, chunk_write);
}

static void chunk_read(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        cow_ended(part, result);
    } else {
        chunk_merge(part);
    }
}

static void copy_next(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct cow *cow = &part->cow;
    uint64_t left = dev_disk(dev)->cluster_size - cow->at, offset, from;
    cow->length = left < dev->cow_bytes ? left : dev->cow_bytes;
    cow->iov = (struct iovec){cow->buffer->bytes, (size_t)cow->length};
    struct iov_cursor cursor = {.iov = &cow->iov, .count = 1};
    struct place below = stack_place(&dev->stack, part->cluster);
    assert(cow->at < dev_disk(dev)->cluster_size && below.delta && below.delta != dev_top(dev));
    uint64_t in_file = delta_fill(below.delta, part->cluster, below.entry, cow->at, cow->length,
                                  &cursor, &offset, &cow->filled);
    if (overlap(part, &from) == cow->length) {
        in_file = 0;
        cow->filled = cow->length;
    }
    if (in_file == 0) {
        chunk_merge(part);
        return;
    }
    send(part, below.delta, PLOOP_IO_READ, 0, cursor, offset, in_file, chunk_read);
}

void cow_take_buffer(struct part *part, part_fn *had)
{
    ploop_dev *dev = part->dev;
    struct list *link = list_take_first(&dev->cow_buffers);
    assert(!part->cow.buffer);
    if (link) {
        part->cow.buffer = container_of(link, struct cow_buffer, link);
        had(part);
    } else {
        part->cow.had = had;
        part_set(part, PART_FOR_BUFFER);
        list_append(&dev->cow_waiters, &part->link);
    }
}

static void copy_begin(struct part *part)
{
    part->cow.at = 0;
    part->cow.requests = 0;
    cow_take_buffer(part, copy_next);
}

/* ---- the beginning ---- */

static void zeros_map(struct part *part, struct sync_number number)
{
    assert(part_is_whole(part) && !part->kind->has_memory);
    bat_map(dev_bat(part->dev), part->cluster, part->cow.host, number);
    part_settle(part, 0, number);
}

bool wants_copy(const struct part *part)
{
    const ploop_dev *dev = part->dev;
    return stack_maps(&dev->stack, part->cluster) && bat_entry(dev_bat(dev), part->cluster) == 0;
}

void cow_locked(struct part *part)
{
    struct delta *top = dev_top(part->dev);
    bool zeros = !part->kind->has_memory, whole = part_is_whole(part);
    struct sync_number number;
    struct partial *partial = partial_find(part->dev, part->cluster);
    assert(wants_copy(part) && part->kind->fill);
    if (partial) {
        partial_write_locked(part, partial);
        return;
    }
    assert(part->lock.exclusive);
    /* A device that has a bad entry below is read-only. */
    assert(stack_place(&part->dev->stack, part->cluster).entry != BAT_ENTRY_BAD);
    if (zeros && !whole && part->pio->flags & PLOOP_PIO_FAST_ONLY) {
        part_settle(part, -ENOTSUP, SYNC_NONE);
        return;
    }
    int error = part_take_host(part, &part->cow.host, &number);
    if (error == -EAGAIN) {
        part_wait_for_space(part);
    } else if (error) {
        part_settle(part, error, SYNC_NONE);
    } else if (whole && zeros) {
        zeros_map(part, number);
    } else if (whole) {
        uint64_t offset = geometry_host_offset(&top->geometry, part->cow.host);
        part_transfer(part, top, PLOOP_IO_WRITE, part_host_flags(part, part->cow.host),
                      part->cursor, offset, part->length, whole_written);
    } else if (partial_may_begin(part)) {
        partial_begin(part, part->cow.host);
        part_decide(part);
    } else {
        copy_begin(part);
    }
}

bool copy_up_wants_alone(const struct part *part)
{
    return wants_copy(part);
}

void copy_up_locked(struct part *part)
{
    struct sync_number number;
    if (!wants_copy(part)) {
        part_settle(part, 0, SYNC_NONE);
        return;
    }
    int error = part_take_host(part, &part->cow.host, &number);
    if (error == -EAGAIN) {
        part_wait_for_space(part);
    } else if (error) {
        part_settle(part, error, SYNC_NONE);
    } else {
        copy_begin(part);
    }
}
