/* SPDX-License-Identifier: MIT */
/*
 * A guest cluster moves to another host cluster.
 *
 *     idle -> the cluster's lock is had alone -> a removal can be recorded -> a host cluster is
 *          taken -> [read, written] ... -> entered in the map -> the lock is given back -> idle
 *     failed on the way: the host cluster is given back, the map as it was
 *
 *  1. The lock is held alone from the first look at the entry to its change, so nothing is in
 *     flight to either place, and guest requests wait for one cluster. It is not held for a SYNC:
 *     the entry changes in memory, with the barrier of the SYNC after the last write (R1), and the
 *     old place is pending (R7).
 *  2. A part that holds a lock never waits for a relocation, and a relocation has one lock only, so
 *     it waits for I/O, for space and for records as a part does.
 */
#include "live/relocate.h"

#include "pio/pio.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { RELOCATE_ALIGNMENT = 4096 };
#define RELOCATE_BYTES_MAX (UINT64_C(1) << 20)

static void take_next(struct relocate *relocate);
static void copy_next(struct relocate *relocate);

int relocate_init(struct relocate *relocate, ploop_dev *dev, _Atomic uint64_t *bytes_done)
{
    uint64_t cluster = dev_disk(dev)->cluster_size;
    void *memory = NULL;
    *relocate = (struct relocate){.dev = dev, .bytes_done = bytes_done};
    relocate->buffer_bytes = cluster < RELOCATE_BYTES_MAX ? cluster : RELOCATE_BYTES_MAX;
    if (posix_memalign(&memory, RELOCATE_ALIGNMENT, relocate->buffer_bytes)) {
        return -ENOMEM;
    }
    relocate->buffer = memory;
    list_init(&relocate->lock.link);
    list_init(&relocate->wait.link);
    return 0;
}

void relocate_free(struct relocate *relocate)
{
    free(relocate->buffer);
    relocate->buffer = NULL;
}

static struct bat *bat_of(const struct relocate *relocate)
{
    return dev_bat(relocate->dev);
}

/* ---- a host cluster ---- */

static void space_came(struct alloc_wait *wait, int result)
{
    struct relocate *relocate = container_of(wait, struct relocate, wait);
    if (result) {
        relocate->had(relocate, result);
    } else {
        take_next(relocate);
    }
}

static void take_next(struct relocate *relocate)
{
    struct bat *bat = bat_of(relocate);
    struct sync_number number; /* of an extension: before the one that a copy needs */
    int error = relocate->dev->state == DEV_ABORTING ? -ECANCELED : bat_latch(bat);
    if (!error && bat->over_limit) {
        error = bat->allocation_error;
    }
    if (!error && relocate->holes_end) {
        error = alloc_take_hole(&bat->alloc, relocate->holes_end, &relocate->to);
    } else if (!error) {
        error = alloc_take(&bat->alloc, &relocate->to, &number);
    }
    if (error == -EAGAIN) {
        alloc_wait(&bat->alloc, &relocate->wait, space_came);
    } else {
        relocate->had(relocate, error);
    }
}

void relocate_take(struct relocate *relocate, relocate_fn *then)
{
    relocate->had = then;
    take_next(relocate);
}

/* ---- the copy ---- */

static void unlock(struct relocate *relocate, int result)
{
    lock_release(&relocate->lock, &relocate->dev->turn);
    relocate->then(relocate, result);
}

static void failed(struct relocate *relocate, int error)
{
    alloc_give_back_failed(&bat_of(relocate)->alloc, relocate->to);
    unlock(relocate, error);
}

static void written(struct channel_io *io, int result)
{
    struct relocate *relocate = container_of(io, struct relocate, io);
    relocate->at += relocate->length;
    if (result) {
        failed(relocate, result);
        return;
    }
    atomic_fetch_add(relocate->bytes_done, relocate->length);
    if (relocate->at < dev_disk(relocate->dev)->cluster_size) {
        copy_next(relocate);
        return;
    }
    bat_move(bat_of(relocate), relocate->guest, relocate->to);
    unlock(relocate, 0);
}

static void transfer(struct relocate *relocate, uint32_t op, uint64_t offset, channel_fn *then)
{
    relocate->iov = (struct iovec){relocate->buffer, (size_t)relocate->length};
    channel_io_init(&relocate->io, &dev_top(relocate->dev)->channel);
    channel_transfer(&relocate->io, op, 0, (struct iov_cursor){.iov = &relocate->iov, .count = 1},
                     offset, relocate->length, then);
}

static void read_from(struct channel_io *io, int result)
{
    struct relocate *relocate = container_of(io, struct relocate, io);
    const struct geometry *geometry = &bat_of(relocate)->geometry;
    if (result) {
        failed(relocate, result);
    } else {
        transfer(relocate, PLOOP_IO_WRITE,
                 geometry_host_offset(geometry, relocate->to) + relocate->at, written);
    }
}

static void copy_next(struct relocate *relocate)
{
    const struct bat *bat = bat_of(relocate);
    uint32_t entry = bat_entry(bat, relocate->guest);
    uint64_t left = dev_disk(relocate->dev)->cluster_size - relocate->at;
    relocate->length = left < relocate->buffer_bytes ? left : relocate->buffer_bytes;
    transfer(relocate, PLOOP_IO_READ, geometry_entry_offset(&bat->geometry, entry) + relocate->at,
             read_from);
}

/* ---- the beginning ---- */

static void taken(struct relocate *relocate, int result)
{
    if (result) {
        unlock(relocate, result);
    } else {
        relocate->at = 0;
        copy_next(relocate);
    }
}

static void look(struct relocate *relocate);

static void record_came(struct alloc_wait *wait, int result)
{
    struct relocate *relocate = container_of(wait, struct relocate, wait);
    if (result) {
        unlock(relocate, result);
    } else {
        look(relocate);
    }
}

static bool is_to_move(const struct relocate *relocate)
{
    const struct bat *bat = bat_of(relocate);
    uint32_t entry = bat_entry(bat, relocate->guest);
    if (entry == 0 || entry == BAT_ENTRY_BAD) {
        return false;
    }
    uint64_t place = geometry_host(&bat->geometry, entry).n;
    return place >= relocate->begin && place < relocate->end;
}

static void look(struct relocate *relocate)
{
    struct bat *bat = bat_of(relocate);
    if (!is_to_move(relocate)) {
        unlock(relocate, 0);
    } else if (relocate->dev->state == DEV_ABORTING || bat_latch(bat)) {
        unlock(relocate, bat_latch(bat) ? bat_latch(bat) : -ECANCELED);
    } else if (!bat_can_keep_track(bat)) {
        alloc_wait_for_record(&bat->alloc, &relocate->wait, record_came);
    } else {
        relocate_take(relocate, taken);
    }
}

static void locked(struct lock_waiter *waiter)
{
    look(container_of(waiter, struct relocate, lock));
}

void relocate_begin(struct relocate *relocate, struct guest_cluster guest, relocate_fn *then)
{
    relocate->guest = guest;
    relocate->then = then;
    if (lock_take(lock_of(relocate->dev, guest), &relocate->lock, true, locked)) {
        look(relocate);
    }
}
