/* SPDX-License-Identifier: MIT */
/*
 * The states of a channel_io:
 *
 *     idle -> sent | waiting on the retry list waiting -> sent, when there is room sent -> heard
 *     (its work is posted) -> sent again, for the rest | waiting | idle, `then` called
 *
 * `sent` is file_io's SENT. Everything but the step from sent to heard happens in the turn.
 *
 * A full backend must not make work quadratic. The channel remembers how many requests the backend
 * held when it last refused one, those of the fast path included: `room`. A completion, and a run
 * after a completion of the fast path, sends as many waiting requests as fit, and stops at the
 * first refusal. After `room` requests without a refusal `room` grows by one, which finds a backend
 * that has more room now. If nothing is at the backend, one request is tried whatever `room` says.
 * While requests wait the fast path sends nothing, so the number it has at the backend only falls:
 * a count over all queues serves a backend that shares its room among them as well as one that
 * keeps a ring for each.
 */
#include "file/channel.h"

#include <assert.h>
#include <errno.h>

enum { SLIVERS_MAX = 100 };

static void channel_heard(struct work *work);

static bool says_again(int64_t result)
{
    return result == -EAGAIN || result == -EINTR;
}

static void channel_io_done(struct file_io *file_io, int64_t result)
{
    struct channel_io *io = container_of(file_io, struct channel_io, io);
    io->result = result;
    if (io->trip && result < 0 && !says_again(result)) {
        atomic_store(io->trip, -EIO);
    }
    turn_post(io->channel->turn, &io->work);
}

void channel_init(struct channel *channel, ploop_file *file, struct turn *turn,
                  uint64_t max_transfer, uint32_t queue)
{
    max_transfer = max_transfer ? max_transfer : UINT64_MAX;
    *channel = (struct channel){.file = file,
                                .turn = turn,
                                .max_transfer = max_transfer - max_transfer % SECTOR_SIZE,
                                .queue = queue,
                                .room = UINT64_MAX};
    assert(channel->max_transfer > 0);
    list_init(&channel->retry);
}

void channel_io_init(struct channel_io *io, struct channel *channel)
{
    file_io_init(&io->io, channel->file, channel_io_done);
    io->work.run = channel_heard;
    io->channel = channel;
    list_init(&io->link);
}

static bool is_transfer(const struct channel_io *io)
{
    return io->io.pub.op == PLOOP_IO_READ || io->io.pub.op == PLOOP_IO_WRITE;
}

/* The caller's memory comes in so small pieces that a window of them holds less than a sector. */
static void bounce_sector(struct channel_io *io)
{
    io->bounced = true;
    io->window[0] = (struct iovec){io->sector, SECTOR_SIZE};
    io->io.pub.iov_count = 1;
    if (io->io.pub.op == PLOOP_IO_WRITE) {
        iov_copy_out(&io->cursor, io->sector, SECTOR_SIZE);
    }
}

/* Point the request at as much of what is left as one backend request may carry. */
static void take_window(struct channel_io *io)
{
    struct ploop_io *pub = &io->io.pub;
    uint64_t length = io->left < io->channel->max_transfer ? io->left : io->channel->max_transfer;
    io->bounced = false;
    if (io->cursor.skip == 0 && io->cursor.count <= CHANNEL_IOV_MAX &&
        iov_length(io->cursor.iov, io->cursor.count) == length) {
        pub->iov = io->cursor.iov;
        pub->iov_count = io->cursor.count;
    } else {
        iov_window(&io->cursor, length, io->window, CHANNEL_WINDOW, &length);
        length -= length % SECTOR_SIZE;
        pub->iov_count = iov_window(&io->cursor, length, io->window, CHANNEL_WINDOW, &length);
        pub->iov = io->window;
        if (length == 0) {
            bounce_sector(io);
            length = SECTOR_SIZE;
        }
    }
    pub->length = length;
}

static void heard_soon(struct channel_io *io, int64_t result)
{
    io->result = result;
    turn_enqueue(io->channel->turn, &io->work);
}

uint64_t channel_in_lanes(const struct channel *channel)
{
    uint64_t count = 0;
    for (uint32_t lane = 0; lane < CHANNEL_LANES; lane++) {
        count += atomic_load(&channel->lanes[lane].word) & ~LANE_WAITED;
    }
    return count;
}

/* Requests at the backend: the channel's, and those of the fast path. */
static uint64_t at_backend(const struct channel *channel)
{
    return channel->in_flight + channel_in_lanes(channel);
}

static void mark_lanes(struct channel *channel, bool waited)
{
    for (uint32_t lane = 0; lane < CHANNEL_LANES; lane++) {
        _Atomic uint64_t *word = &channel->lanes[lane].word;
        (void)(waited ? atomic_fetch_or(word, LANE_WAITED) : atomic_fetch_and(word, ~LANE_WAITED));
    }
}

static void note_room(struct channel *channel)
{
    channel->room = at_backend(channel);
    channel->sent = 0;
}

static void wait_for_room(struct channel_io *io)
{
    struct channel *channel = io->channel;
    if (list_is_empty(&channel->retry)) {
        mark_lanes(channel, true);
        note_room(channel);
    }
    list_append(&channel->retry, &io->link);
    channel_note_full(channel);
}

/* True: it is sent, or has ended and will be heard of. False: the backend has no room for it. */
static bool channel_try(struct channel_io *io)
{
    struct channel *channel = io->channel;
    int stopped = channel->cut ? -ECANCELED : io->stop ? atomic_load(io->stop) : 0;
    channel->in_flight++;
    if (stopped) {
        heard_soon(io, stopped);
        return true;
    }
    if (is_transfer(io)) {
        take_window(io);
    }
    io->io.pub.queue = channel->queue;
    io->io.done = channel_io_done;
    int refused = file_io_submit(&io->io);
    if (says_again(refused)) {
        channel->in_flight--;
        note_room(channel);
        return false;
    }
    if (refused) {
        heard_soon(io, refused);
        return true;
    }
    channel->unkicked = true;
    if (++channel->sent > channel->room) {
        channel->room++;
        channel->sent = 0;
    }
    return true;
}

/* Send what waits, as much as there is room for. Returns how many were tried. */
static uint32_t retry(struct channel *channel)
{
    uint32_t tried = 0;
    while (!list_is_empty(&channel->retry)) {
        struct channel_io *io = container_of(channel->retry.next, struct channel_io, link);
        uint64_t held = at_backend(channel);
        if (!channel->cut && held > 0 && held >= channel->room) {
            return tried;
        }
        tried++;
        if (!channel_try(io)) {
            return tried;
        }
        list_remove(&io->link);
        if (list_is_empty(&channel->retry)) {
            mark_lanes(channel, false);
        }
    }
    if (channel_is_full(channel)) {
        atomic_store(&channel->waiting, false);
    }
    return tried;
}

/* Behind those that wait already. */
static void channel_send(struct channel_io *io)
{
    struct channel *channel = io->channel;
    bool alone = list_is_empty(&channel->retry);
    if (alone && channel_try(io)) {
        return;
    }
    wait_for_room(io);
    if (channel->cut || (!alone && at_backend(channel) == 0)) {
        (void)retry(channel);
    }
}

void channel_transfer(struct channel_io *io, uint32_t op, uint32_t flags, struct iov_cursor cursor,
                      uint64_t offset, uint64_t length, channel_fn *then)
{
    assert(length > 0 && length % SECTOR_SIZE == 0);
    io->io.pub.op = op;
    io->io.pub.flags = flags;
    io->io.pub.offset = offset;
    io->cursor = cursor;
    io->left = length;
    io->then = then;
    io->slivers = 0;
    assert(is_transfer(io));
    channel_send(io);
}

void channel_order(struct channel_io *io, uint32_t op, uint64_t offset, uint64_t length,
                   channel_fn *then)
{
    struct ploop_io *pub = &io->io.pub;
    pub->op = op;
    pub->flags = 0;
    pub->offset = offset;
    pub->length = length;
    pub->iov = NULL;
    pub->iov_count = 0;
    io->left = 0;
    io->then = then;
    assert(!is_transfer(io));
    channel_send(io);
}

static int try_later(const struct channel_io *io)
{
    return io->channel->cut ? -ECANCELED : -EAGAIN;
}

/*
 * What the backend said of a request: 1 to send again now, -EAGAIN to send again later, else how it
 * ended.
 */
static int judge(struct channel_io *io, int64_t result)
{
    if (says_again(result)) {
        return try_later(io);
    }
    if (result < 0) {
        return result < -4095 ? -EIO : (int)result;
    }
    if (!is_transfer(io)) {
        return 0;
    }
    if (result == 0 || (uint64_t)result > io->io.pub.length) {
        return -EIO;
    }
    result -= result % SECTOR_SIZE;
    if (result == 0) {
        /* A sliver of a sector: the whole of it, later. */
        return ++io->slivers > SLIVERS_MAX ? -EIO : try_later(io);
    }
    io->slivers = 0;
    if (io->bounced && io->io.pub.op == PLOOP_IO_READ) {
        iov_copy_in(&io->cursor, io->sector, SECTOR_SIZE);
    }
    io->left -= (uint64_t)result;
    io->io.pub.offset += (uint64_t)result;
    iov_advance(&io->cursor, (uint64_t)result);
    return io->left > 0;
}

static void channel_heard(struct work *work)
{
    struct channel_io *io = container_of(work, struct channel_io, work);
    struct channel *channel = io->channel;
    assert(channel->in_flight > 0);
    channel->in_flight--;
    int verdict = judge(io, io->result);
    if (verdict == -EAGAIN) {
        wait_for_room(io);
        return;
    }
    if (verdict > 0) {
        channel_send(io);
    } else {
        io->then(io, verdict);
    }
    (void)retry(channel);
}

void channel_adopt(struct channel_io *io, struct iov_cursor cursor, int64_t result,
                   channel_fn *then)
{
    io->io.pub.flags = 0; /* from here on no thread may block for it */
    io->cursor = cursor;
    io->left = io->io.pub.length;
    io->then = then;
    io->slivers = 0;
    io->bounced = false;
    if (says_again(result) && !io->channel->cut) {
        wait_for_room(io); /* now, so that it stands before those that come later */
        return;
    }
    io->channel->in_flight++;
    heard_soon(io, result);
}

uint32_t channel_retry(struct channel *channel)
{
    return retry(channel);
}

bool channel_wants_run(const struct channel *channel)
{
    return !list_is_empty(&channel->retry) && at_backend(channel) == 0;
}

bool channel_is_idle(const struct channel *channel)
{
    return channel->in_flight == 0 && list_is_empty(&channel->retry);
}

void channel_kick(struct channel *channel)
{
    bool unkicked = channel->unkicked;
    channel->unkicked = false;
    if (unkicked && channel->file->ops.kick) {
        channel->file->ops.kick(channel->file->context, channel->queue);
    }
}

void channel_cut(struct channel *channel)
{
    channel->cut = true;
    channel_retry(channel);
}
