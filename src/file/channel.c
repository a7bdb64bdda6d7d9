/* SPDX-License-Identifier: MIT */
/*
 * The states of a channel_io:
 *
 *     idle -> sent | waiting on the retry list | in line for a buffer (bounce.h)
 *     in line -> sent | waiting, when it has the buffer
 *     waiting -> sent, when there is room
 *     sent -> heard (its work is posted) -> its next step: as from idle | waiting, for the same one
 *     again | idle, `then` called
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
#include "file/channel_steps.h"

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
                  const struct ploop_file_info *info, struct bounces *bounces, uint32_t queue)
{
    uint32_t block = info->request_alignment > SECTOR_SIZE ? info->request_alignment : SECTOR_SIZE;
    uint64_t max_transfer = info->max_transfer ? info->max_transfer : UINT64_MAX;
    *channel = (struct channel){.file = file,
                                .turn = turn,
                                .max_transfer = max_transfer - max_transfer % block,
                                .block = block,
                                .bounces = bounces,
                                .helps = file->ops.help != NULL,
                                .file_end = info->file_size,
                                .file_size = info->file_size,
                                .queue = queue,
                                .obstacles = CHANNEL_SPECIAL,
                                .room = UINT64_MAX};
    assert(channel->max_transfer > 0 && (block & (block - 1)) == 0 && block <= BOUNCE_SIZE);
    assert(block == SECTOR_SIZE || bounces->memory);
    list_init(&channel->retry);
}

void channel_io_init(struct channel_io *io, struct channel *channel)
{
    file_io_init(&io->io, channel->file, channel_io_done);
    io->work.run = channel_heard;
    io->channel = channel;
    list_init(&io->link);
    list_init(&io->bounce.link);
    io->bounce.had = NULL;
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

void channel_drain(struct channel *channel, enum channel_drain who, bool drains)
{
    channel->drains = drains ? channel->drains | who : channel->drains & ~(uint32_t)who;
    mark_lanes(channel, channel->drains || !list_is_empty(&channel->retry));
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
            mark_lanes(channel, channel->drains != 0);
        }
    }
    if (channel_is_full(channel)) {
        atomic_fetch_and(&channel->obstacles, ~(uint32_t)CHANNEL_WAITING);
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

/* The buffer that the next step waits for is had. */
static void bounce_granted(struct bounce_wait *wait)
{
    struct channel_io *io = container_of(wait, struct channel_io, bounce);
    assert(io->channel->in_line > 0);
    io->channel->in_line--;
    step_into_buffer(io);
    channel_send(io);
}

static void next_step(struct channel_io *io)
{
    struct channel *channel = io->channel;
    assert(!io->bounce.had);
    if (step_directly(io)) {
        channel_send(io);
    } else if (bounce_take(channel->bounces, &io->bounce, channel, step_block(io),
                           bounce_granted)) {
        step_into_buffer(io);
        channel_send(io);
    } else {
        channel->in_line++;
    }
}

void channel_transfer(struct channel_io *io, uint32_t op, uint32_t flags, struct iov_cursor cursor,
                      uint64_t offset, uint64_t length, channel_fn *then)
{
    assert(length > 0 && length % SECTOR_SIZE == 0);
    assert(op == PLOOP_IO_READ || op == PLOOP_IO_WRITE);
    io->op = op;
    io->flags = flags;
    io->at = offset;
    io->cursor = cursor;
    io->left = length;
    io->then = then;
    io->slivers = 0;
    next_step(io);
}

void channel_order(struct channel_io *io, uint32_t op, uint64_t offset, uint64_t length,
                   channel_fn *then)
{
    struct channel *channel = io->channel;
    assert(op != PLOOP_IO_READ && op != PLOOP_IO_WRITE);
    io->op = op;
    io->flags = 0;
    io->at = offset;
    io->left = length;
    io->then = then;
    io->slivers = 0;
    if (op == PLOOP_IO_TRUNCATE && offset < channel->file_end) {
        channel->file_end = offset;
    }
    next_step(io);
}

static int try_later(const struct channel_io *io)
{
    return io->channel->cut ? -ECANCELED : -EAGAIN;
}

/*
 * What the backend said of a request: -EAGAIN to send it again later, 0 where it made progress
 * (then *bytes says how much), else how it failed.
 */
static int judge(struct channel_io *io, uint64_t *bytes)
{
    int64_t result = io->result;
    uint32_t op = io->io.pub.op;
    *bytes = io->io.pub.length;
    if (says_again(result)) {
        return try_later(io);
    }
    if (result < 0) {
        return result < -4095 ? -EIO : (int)result;
    }
    if (op != PLOOP_IO_READ && op != PLOOP_IO_WRITE) {
        return 0;
    }
    if (result == 0 || (uint64_t)result > io->io.pub.length) {
        return -EIO;
    }
    *bytes = (uint64_t)result;
    if (*bytes >= io->wanted) {
        *bytes = io->wanted;
    } else {
        *bytes -= *bytes % io->channel->block;
    }
    if (*bytes == 0) {
        /* A sliver of a block: the whole of it, later. */
        return ++io->slivers > SLIVERS_MAX ? -EIO : try_later(io);
    }
    io->slivers = 0;
    return 0;
}

static void channel_heard(struct work *work)
{
    struct channel_io *io = container_of(work, struct channel_io, work);
    struct channel *channel = io->channel;
    uint64_t bytes;
    assert(channel->in_flight > 0);
    channel->in_flight--;
    int verdict = judge(io, &bytes);
    if (verdict == -EAGAIN) {
        wait_for_room(io);
        return;
    }
    if (!verdict && io->step == STEP_FETCH) {
        step_merge(io); /* it keeps the block */
        channel_send(io);
        (void)retry(channel);
        return;
    }
    if (!verdict) {
        step_over(io, bytes);
    }
    if (io->bounce.had) {
        bounce_give_back(channel->bounces, &io->bounce);
    }
    if (!verdict && io->left > 0) {
        next_step(io);
    } else {
        io->then(io, verdict);
    }
    (void)retry(channel);
}

void channel_adopt(struct channel_io *io, struct iov_cursor cursor, int64_t result,
                   channel_fn *then)
{
    /* From here on no thread may block for it. */
    io->io.pub.flags &= ~(uint32_t)PLOOP_IO_MAY_BLOCK;
    io->op = io->io.pub.op;
    io->flags = io->io.pub.flags;
    io->cursor = cursor;
    io->at = io->io.pub.offset;
    io->left = io->wanted = io->io.pub.length;
    io->then = then;
    io->slivers = 0;
    io->step = STEP_DIRECT;
    assert(channel_fits(io->channel, io->at, io->left) && !io->bounce.had);
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
    return channel->in_flight == 0 && channel->in_line == 0 && list_is_empty(&channel->retry);
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
