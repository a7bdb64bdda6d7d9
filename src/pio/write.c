/* SPDX-License-Identifier: MIT */
/*
 * Writes of one cluster, under its shared lock; alone where they do not fill their blocks (R17).
 *
 * A mapped cluster is overwritten in place. The first write to one that no delta has takes a host
 * cluster and makes a reservation (what a lower delta has is copied: cow.c):
 *
 *     none --first write--> reserved --a write completes--> entered in the map --last ends--> none
 *                                    \--- all of them failed: the host cluster is given back --/
 *
 *  1. Every host cluster taken reads as zeros (space/alloc.h, invariant 2), so writes to other
 *     parts of the same guest cluster may join: the one that completes first enters the cluster,
 *     and what the others have not written yet is zeros.
 *  2. The entry enters the map when a write of its data has completed, never earlier: a page that
 *     falls due meanwhile cannot publish a write that then fails (R1).
 *  3. A reservation stands in one of the parts that joined it, so that there are always enough.
 *  4. A write that failed may have left its bytes in the place. It ends when it is known whether
 *     they show: when another write has entered the cluster, or none is left that could. Otherwise
 *     a read after its end could find the old content, and a later one the new.
 *  5. Writes hold the cluster's lock shared from before the reservation until after its end, so a
 *     discard meets none.
 */
#include "pio/partial.h"
#include "pio/queue.h"
#include "pio/steps.h"

#include <assert.h>
#include <errno.h>

static struct list *hash_of(ploop_dev *dev, struct guest_cluster guest)
{
    return &dev->reservation_hash[guest.n % RESERVATION_HASH];
}

static struct bat_page *page_of(ploop_dev *dev, struct guest_cluster guest)
{
    return &dev_bat(dev)->pages[geometry_page_of(guest)];
}

static struct reservation *reservation_find(ploop_dev *dev, struct guest_cluster guest)
{
    struct list *hash = hash_of(dev, guest);
    for (struct list *link = hash->next; link != hash; link = link->next) {
        struct reservation *reservation = container_of(link, struct reservation, link);
        if (reservation->guest.n == guest.n) {
            return reservation;
        }
    }
    return NULL;
}

/* As part_take_host(). */
static int reservation_make(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct reservation *reservation = &part->own_reservation;
    struct host_cluster host;
    struct sync_number number;
    int error = part_take_host(part, &host, &number);
    if (error) {
        return error;
    }
    assert(!reservation_find(dev, part->cluster) && bat_entry(dev_bat(dev), part->cluster) == 0);
    *reservation = (struct reservation){.guest = part->cluster, .host = host, .number = number};
    list_init(&reservation->parts);
    list_append(hash_of(dev, part->cluster), &reservation->link);
    page_of(dev, part->cluster)->reserved++;
    return 0;
}

static void reservation_join(struct reservation *reservation, struct part *part)
{
    assert(!part->reservation && list_is_empty(&part->link));
    assert(reservation->guest.n == part->cluster.n);
    assert(!part->lock.exclusive || list_is_empty(&reservation->parts));
    list_append(&reservation->parts, &part->link);
    part->reservation = reservation;
    part->write_error = 0;
    reservation->in_flight++;
}

/* The part it stands in is going: it moves to another one that joined it. */
static void reservation_move(ploop_dev *dev, struct reservation *from)
{
    struct reservation *to = &container_of(from->parts.next, struct part, link)->own_reservation;
    assert(to != from);
    *to = *from;
    list_init(&to->parts);
    list_move_all(&to->parts, &from->parts);
    list_remove(&from->link);
    list_append(hash_of(dev, to->guest), &to->link);
    for (struct list *link = to->parts.next; link != &to->parts; link = link->next) {
        container_of(link, struct part, link)->reservation = to;
    }
}

static void reservation_leave(struct part *part)
{
    ploop_dev *dev = part->dev;
    struct reservation *reservation = part->reservation;
    assert(reservation && reservation->guest.n == part->cluster.n);
    part->reservation = NULL;
    list_remove(&part->link);
    if (!list_is_empty(&reservation->parts)) {
        if (reservation == &part->own_reservation) {
            reservation_move(dev, reservation);
        }
        return;
    }
    assert(reservation->in_flight == 0);
    if (!reservation->entered) {
        alloc_give_back_failed(&dev_bat(dev)->alloc, reservation->host);
    }
    list_remove(&reservation->link);
    assert(page_of(dev, reservation->guest)->reserved > 0);
    page_of(dev, reservation->guest)->reserved--;
}

/* Data that the backend made durable by itself needs no SYNC. */
static uint32_t data_flags(const struct part *part)
{
    return part->pio->flags & PLOOP_PIO_FUA && dev_bat(part->dev)->native_fua ? PLOOP_IO_FUA : 0;
}

static void write_ended(struct part *part, int result)
{
    assert(!part->reservation && part->state == PART_LOCKED);
    if (is_no_space(result)) {
        part_no_space(part, result);
        return;
    }
    struct sync_number number =
        data_flags(part) ? SYNC_NONE : sync_next(&dev_bat(part->dev)->syncer);
    part_settle(part, result, number);
}

static void mapped_written(struct channel_io *io, int result)
{
    write_ended(part_heard(io), result);
}

/*
 * The part has been written, or has failed; with it end those that failed before, if it is known
 * now what becomes of the cluster. All leave the reservation before one of them ends, because the
 * end of one may begin the next write of the same cluster.
 */
static void leave_together(struct part *part, bool decided)
{
    struct reservation *reservation = part->reservation;
    struct part *ended = NULL;
    assert(decided || reservation->in_flight > 0);    /* one that decides is still to come */
    if (!part->write_error && !reservation->failed) { /* nearly always */
        reservation_leave(part);
        write_ended(part, 0);
        return;
    }
    reservation->failed = !decided;
    if (part->write_error && !decided) {
        part_set(part, PART_FOR_OTHERS);
    }
    for (struct list *link = reservation->parts.next; link != &reservation->parts;
         link = link->next) {
        struct part *member = container_of(link, struct part, link);
        if ((member->write_error && decided) || (member == part && !member->write_error)) {
            member->ended_next = ended;
            ended = member;
        }
    }
    for (struct part *member = ended; member; member = member->ended_next) {
        reservation_leave(member);
        if (member != part) {
            assert(member->state == PART_FOR_OTHERS);
            part_set(member, PART_LOCKED);
        }
    }
    while (ended) {
        struct part *member = ended;
        int error = member->write_error;
        ended = member->ended_next;
        member->write_error = 0;
        write_ended(member, error);
    }
}

static void reserved_written(struct channel_io *io, int result)
{
    struct part *part = part_heard(io);
    ploop_dev *dev = part->dev;
    struct reservation *reservation = part->reservation;
    assert(reservation && reservation->in_flight > 0);
    reservation->in_flight--;
    part->write_error = result;
    if (!result && !reservation->entered) {
        assert(bat_entry(dev_bat(dev), reservation->guest) == 0);
        reservation->entered = true;
        bat_map(dev_bat(dev), reservation->guest, reservation->host, reservation->number);
    }
    leave_together(part, reservation->entered || reservation->in_flight == 0);
}

bool write_wants_alone(const struct part *part)
{
    return (wants_copy(part) && partial_wants_alone(part)) || !part_fills_blocks(part);
}

void write_fill(const struct part *part, uint64_t from, uint8_t *bytes, uint64_t length)
{
    struct iov_cursor cursor = part->cursor;
    assert(from >= part->inside && from + length <= part->inside + part->length);
    iov_advance(&cursor, from - part->inside);
    iov_copy_out(&cursor, bytes, length);
}

/*
 * Zeros over a cluster that no delta has, and no write is going to enter: they are there already.
 * With FUA the part waits for the absence to be durable, like one of zeros (unmap.c).
 */
static bool changes_nothing(const struct part *part, const struct reservation *reservation)
{
    return !reservation && !(part->dev->config.flags & PLOOP_DEV_WRITE_ZEROS_AS_DATA) &&
           iov_is_zero(&part->cursor, part->length);
}

static void write_reserved(struct part *part)
{
    struct delta *top = dev_top(part->dev);
    struct reservation *reservation = reservation_find(part->dev, part->cluster);
    assert(!wants_copy(part)); /* a cluster that a lower delta has is copied: cow.c */
    if (changes_nothing(part, reservation)) {
        part_settle(part, 0, SYNC_NONE);
        return;
    }
    int error = reservation ? 0 : reservation_make(part);
    if (error == -EAGAIN) {
        part_wait_for_space(part);
    } else if (error) {
        part_settle(part, error, SYNC_NONE);
    } else {
        reservation_join(reservation ? reservation : &part->own_reservation, part);
        struct host_cluster host = part->reservation->host;
        uint64_t offset = geometry_host_offset(&top->geometry, host) + part->inside;
        uint32_t flags = data_flags(part) | part_host_flags(part, host);
        part_transfer(part, top, PLOOP_IO_WRITE, flags, part->cursor, offset, part->length,
                      reserved_written);
    }
}

void write_locked(struct part *part)
{
    struct delta *top = dev_top(part->dev);
    uint32_t entry = bat_entry(top->bat, part->cluster);
    if (entry) {
        assert(entry != BAT_ENTRY_BAD); /* a device with such an entry is read-only */
        uint64_t offset = geometry_entry_offset(&top->geometry, entry) + part->inside;
        part_transfer(part, top, PLOOP_IO_WRITE, data_flags(part), part->cursor, offset,
                      part->length, mapped_written);
    } else if (wants_copy(part)) {
        cow_locked(part);
    } else {
        write_reserved(part);
    }
}
