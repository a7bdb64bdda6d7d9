/* SPDX-License-Identifier: MIT */
/*
 * A channel: how the engine sends requests to one file and hears of their end in its own turn.
 *
 * What the backend may do - complete inline, late, on another thread, move a part of the bytes, say
 * EINTR or EAGAIN - ends here. An engine part sees a request as one step:
 *
 *     channel_transfer() / channel_order()  ...  then(io, 0 or -errno)
 *
 *  1. `then` runs in a turn, later than the call that began the request, never inside it.
 *  2. Short transfers are continued; no progress at all is -EIO. A sector is moved by one backend
 *     request, whole: requests are cut and continued at sector borders only.
 *  3. Every request of a channel goes out on one queue of the backend, the engine's.
 *  4. -EAGAIN, from submit or as a result, and -EINTR put the request on the retry list. While one
 *     is there, later ones stand behind it, in order, and the fast path sends nothing past the
 *     channel, on whatever queue (channel_is_full()). They are sent again, the first ones first and
 *     as many as the backend has room for, when another request of the channel makes progress; one
 *     is tried too when a request comes and nothing at all is at the backend; or by
 *     channel_retry(), which a run calls: channel_wants_run() says that nothing else would.
 *     Requests that the fast path sends on a user's queue make progress too: from channel_bypass()
 *     to channel_bypass_over(), which says whether to run.
 *  5. After channel_cut() nothing reaches the backend any more: what is begun ends with -ECANCELED.
 *
 * All functions but channel_io_init(), channel_io_aim() and the bypass belong to the owner of the
 * turn.
 */
#ifndef FILE_CHANNEL_H
#define FILE_CHANNEL_H

#include "file/file.h"
#include "format/geometry.h"
#include "util/iov.h"
#include "util/list.h"
#include "util/work.h"

enum {
    CHANNEL_WINDOW = 8,
    CHANNEL_IOV_MAX = PLOOP_IO_SEGMENTS_MAX,
    CHANNEL_QUEUES_MAX = 64,
    CHANNEL_LANES = 16
};

/* For queues of their own, or few of them: as far from the next as a cache line is long. */
struct channel_lane {
    _Atomic uint64_t bypassing;
    uint64_t distance[7];
};

struct channel {
    ploop_file *file;
    struct turn *turn;
    uint64_t max_transfer;
    uint32_t queue;     /* the engine's: what the backend is told with every request */
    uint64_t in_flight; /* begun here and at the backend */
    uint64_t room;      /* how many the backend held when it last refused one */
    uint64_t sent;      /* without a refusal since then, or since `room` grew */
    struct list retry;
    atomic_bool waiting; /* requests are on the retry list, or are going to be */
    bool unkicked;       /* something was sent since the last kick */
    bool cut;
    struct channel_lane
        lanes[CHANNEL_LANES]; /* requests that were sent directly and are not over */
};

struct channel_io;
typedef void channel_fn(struct channel_io *io, int result);

struct channel_io {
    struct file_io io;
    struct work work;
    struct list link;
    struct channel *channel;
    channel_fn *then;
    const _Atomic int
        *stop; /* or NULL: once this is an error the request is sent no more, and ends with it */
    _Atomic int
        *trip; /* or NULL: becomes -EIO as soon as the backend says that this request failed */
    struct iov_cursor cursor;
    uint64_t left; /* bytes of a transfer still to be moved */
    int64_t result;
    uint32_t slivers; /* results in a row that moved less than a sector */
    bool bounced;     /* the backend has `sector` instead of the caller's memory */
    struct iovec window[CHANNEL_WINDOW];
    uint8_t sector[SECTOR_SIZE];
};

void channel_init(struct channel *channel, ploop_file *file, struct turn *turn,
                  uint64_t max_transfer, uint32_t queue);
void channel_io_init(struct channel_io *io, struct channel *channel);

/* What an idle io is begun with next goes there. Any thread that owns the io. */
static inline void channel_io_aim(struct channel_io *io, struct channel *channel)
{
    io->channel = channel;
    io->io.file = channel->file;
}

/* READ or WRITE. The iovec array behind the cursor stays valid until `then`. */
void channel_transfer(struct channel_io *io, uint32_t op, uint32_t flags, struct iov_cursor cursor,
                      uint64_t offset, uint64_t length, channel_fn *then);

/* SYNC, ALLOCATE, PUNCH, TRUNCATE. */
void channel_order(struct channel_io *io, uint32_t op, uint64_t offset, uint64_t length,
                   channel_fn *then);

/*
 * Any thread. Requests wait for room: what would be sent directly now goes through the channel,
 * behind them.
 */
static inline bool channel_is_full(const struct channel *channel)
{
    return atomic_load_explicit(&channel->waiting, memory_order_relaxed);
}

/*
 * Any thread. The backend has refused a request that was sent directly, and that comes through
 * channel_adopt().
 */
static inline void channel_note_full(struct channel *channel)
{
    atomic_store(&channel->waiting, true);
}

/* Any thread. A request is about to go to the file directly. */
static inline void channel_bypass(struct channel *channel, uint32_t queue)
{
    atomic_fetch_add(&channel->lanes[queue % CHANNEL_LANES].bypassing, 1);
}

/*
 * It has completed or was refused: true where a run should follow. Of this and channel_wants_run()
 * at least one sees what the other has done: each first writes, then looks.
 */
static inline bool channel_bypass_over(struct channel *channel, uint32_t queue)
{
    atomic_fetch_sub(&channel->lanes[queue % CHANNEL_LANES].bypassing, 1);
    return atomic_load(&channel->waiting);
}

/*
 * Go on with a transfer that was sent to the file directly, past the channel and on a user's queue:
 * `result` is what its submit or its completion said. pub.offset and pub.length stand as they were
 * sent.
 */
void channel_adopt(struct channel_io *io, struct iov_cursor cursor, int64_t result,
                   channel_fn *then);

/* Send what waits on the retry list, as much as there is room for. Returns how many were tried. */
uint32_t channel_retry(struct channel *channel);
bool channel_wants_run(const struct channel *channel);

/* Nothing begun here is at the backend, or waits to be. */
bool channel_is_idle(const struct channel *channel);

/* The end of a batch. */
void channel_kick(struct channel *channel);

void channel_cut(struct channel *channel);

#endif
