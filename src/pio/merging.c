/* SPDX-License-Identifier: MIT */
/* What merging.h says. */
#include "pio/merging.h"

#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static void copy_next(struct part *part);
static void take_host(struct part *part);

bool merging_finds(const struct merging *merging, struct guest_cluster guest, uint32_t *entry)
{
    const struct delta *from = merging->from;
    uint64_t offset = guest.n * from->geometry.cluster_size;
    if (offset >= from->end) {
        return false;
    }
    *entry = from->is_raw       ? guest.n
             : merging->entries ? merging->entries[guest.n]
                                : bat_entry(from->bat, guest);
    return from->is_raw || *entry != 0;
}

/* Its place in the receiver, where it has one. */
static uint32_t receiver_entry(const struct merging *merging, struct guest_cluster guest)
{
    return merging->to->is_raw ? guest.n : bat_entry(merging->to->bat, guest);
}

static bool receiver_has(const struct merging *merging, struct guest_cluster guest)
{
    return merging->to->is_raw || bat_entry(merging->to->bat, guest) != 0;
}

bool merging_wants(const struct merging *merging, struct guest_cluster guest)
{
    uint32_t entry;
    return merging_finds(merging, guest, &entry) &&
           (merging->overwrites || !receiver_has(merging, guest));
}

static struct merging *merging_of(const struct part *part)
{
    assert(part->dev->merging);
    return part->dev->merging;
}

/* ---- the end ---- */

static void copied(struct part *part, int result)
{
    struct merging *merging = merging_of(part);
    struct bat *bat = merging->to->bat;
    assert(part->state == PART_LOCKED && result <= 0);
    if (!result && part->follow.is_new) {
        bat_map(bat, part->cluster, part->cow.host, sync_next(&bat->syncer));
    } else if (part->follow.is_new) {
        alloc_give_back_failed(&bat->alloc, part->cow.host);
    }
    if (!result && merging->mirrors) {
        stack_set_place(&part->dev->stack, part->cluster, merging->to,
                        bat_entry(bat, part->cluster));
    }
    assert(merging->under_way > 0);
    merging->under_way--;
    merging->error = merging->error ? merging->error : result;
    part->follow.is_over = true;
    cow_give_buffer_back(part);
    part_settle(part, part->follow.result, part->follow.number);
}

/* ---- the copy ---- */

static void chunk_written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    struct cow *cow = &part->cow;
    cow->at += cow->length;
    if (!result && cow->at < part->follow.end) {
        copy_next(part);
    } else {
        copied(part, result);
    }
}

static void zero_rest(const struct part *part)
{
    const struct cow *cow = &part->cow;
    memset(cow->buffer->bytes + cow->filled, 0, cow->length - cow->filled);
}

static void chunk_write(struct part *part)
{
    const struct merging *merging = merging_of(part);
    struct delta *to = merging->to;
    struct cow *cow = &part->cow;
    uint32_t entry = part->follow.is_new ? geometry_entry(&to->geometry, cow->host)
                                         : receiver_entry(merging, part->cluster);
    part_transfer(part, to, PLOOP_IO_WRITE, PLOOP_IO_ALLOCATES,
                  (struct iov_cursor){.iov = &cow->iov, .count = 1},
                  geometry_entry_offset(&to->geometry, entry) + cow->at, cow->length,
                  chunk_written);
}

static void chunk_zero(struct part *part)
{
    part_do_bulk(part, part->cow.length - part->cow.filled, zero_rest, chunk_write);
}

static void chunk_read(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    if (result) {
        copied(part, result);
    } else {
        chunk_zero(part);
    }
}

static void copy_next(struct part *part)
{
    struct merging *merging = merging_of(part);
    struct cow *cow = &part->cow;
    uint64_t left = part->follow.end - cow->at, most = part->dev->cow_bytes, offset;
    uint32_t entry;
    bool found = merging_finds(merging, part->cluster, &entry);
    (void)found;
    assert(found && left > 0 && cow->buffer);
    cow->length = left < most ? left : most;
    cow->iov = (struct iovec){cow->buffer->bytes, (size_t)cow->length};
    struct iov_cursor cursor = {.iov = &cow->iov, .count = 1};
    uint64_t in_file = delta_fill(merging->from, part->cluster, entry, cow->at, cow->length,
                                  &cursor, &offset, &cow->filled);
    if (in_file == 0) {
        chunk_zero(part);
    } else {
        part_transfer(part, merging->from, PLOOP_IO_READ, 0, cursor, offset, in_file, chunk_read);
    }
}

/* ---- a place ---- */

static void space_came(struct alloc_wait *wait, int result)
{
    struct part *part = container_of(wait, struct part, space);
    assert(part->state == PART_FOR_SPACE);
    part_set(part, PART_LOCKED);
    part->follow.is_new = false;
    if (result) {
        copied(part, result);
    } else {
        take_host(part);
    }
}

static void take_host(struct part *part)
{
    struct bat *bat = merging_of(part)->to->bat;
    struct sync_number number; /* of an extension: before the one that the copy needs */
    int error = part->dev->state == DEV_ABORTING ? -ECANCELED : bat_latch(bat);
    if (!error && bat->over_limit) {
        error = bat->allocation_error;
    }
    error = error ? error : alloc_take(&bat->alloc, &part->cow.host, &number);
    part->follow.is_new = !error;
    if (error == -EAGAIN) {
        part_set(part, PART_FOR_SPACE);
        alloc_wait(&bat->alloc, &part->space, space_came);
    } else if (error) {
        copied(part, error);
    } else {
        cow_take_buffer(part, copy_next);
    }
}

/* Of a cluster that has a place in the receiver: where the copy ends. */
static uint64_t copy_end(const struct part *part)
{
    const struct merging *merging = merging_of(part);
    uint64_t end = part->inside + part->length;
    uint64_t left = merging->from->end - part->cluster.n * dev_disk(part->dev)->cluster_size;
    return merging->to->is_raw && left < end ? left : end;
}

/* Of a cluster that `from` has. */
static void follow(struct part *part, int result, struct sync_number number)
{
    struct merging *merging = merging_of(part);
    bool has_place = receiver_has(merging, part->cluster);
    merging->under_way++;
    part->follow.result = result;
    part->follow.number = number;
    part->follow.is_new = false;
    part->cow.at = has_place ? part->inside : 0;
    part->follow.end = has_place ? copy_end(part) : dev_disk(part->dev)->cluster_size;
    if (has_place) {
        cow_take_buffer(part, copy_next);
    } else {
        take_host(part);
    }
}

bool merging_follows(struct part *part, int result, struct sync_number number)
{
    const struct merging *merging = part->dev->merging;
    uint32_t entry;
    if (!merging_locks_alone(part) || part->follow.is_over || merging->error ||
        !part->lock.exclusive || part->cluster.n >= merging->next ||
        !merging_finds(merging, part->cluster, &entry)) {
        return false;
    }
    follow(part, result, number);
    return true;
}

/* ---- a job's copy ---- */

bool merge_wants_alone(const struct part *part)
{
    return merging_of(part)->mirrors;
}

void merge_locked(struct part *part)
{
    const struct merging *merging = merging_of(part);
    if (merging->error || !merging_wants(merging, part->cluster)) {
        part->follow.is_over = true;
        part_settle(part, 0, SYNC_NONE);
    } else {
        follow(part, 0, SYNC_NONE);
    }
}
