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
 *     Requests that the fast path sends on a user's queue make progress too: they are counted in a
 *     lane of the channel, from channel_enter() until they leave, and who leaves a lane that is
 *     WAITED for posts a run. A lane is marked WAITED, in the turn, before the channel looks
 *     whether anything is at the backend; so either the channel sees the request, or the request
 *     the mark.
 *  5. After channel_cut() nothing reaches the backend any more: what is begun ends with -ECANCELED.
 *  6. The backend sees whole blocks of the file only, in READ, WRITE and PUNCH, and memory that is
 *     aligned for it. Who begins a request sees neither: what begins or ends inside a block, or has
 *     other memory, goes through a buffer (channel_steps.h).
 *  7. Bytes from file_end on are nobody's, and zeros to whoever comes to own them; the file may be
 *     longer, by the rest of a block.
 *
 * All functions but channel_io_init(), channel_io_aim() and those of the lanes belong to the owner
 * of the turn.
 */
#ifndef FILE_CHANNEL_H
#define FILE_CHANNEL_H

#include <stdalign.h>
#include <stddef.h>

#include "file/bounce.h"
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

/*
 * How many requests the fast path of a queue has at the backend; queues that are CHANNEL_LANES
 * apart share a lane. Each lane has a cache line of its own.
 */
struct channel_lane {
    alignas(64) _Atomic uint64_t word; /* the count, and LANE_WAITED */
};

/*
 * Requests wait for the room that those of the lane leave, or a job for the lane to be empty. Set
 * and cleared in the turn.
 */
#define LANE_WAITED (UINT64_C(1) << 63)

struct channel {
    _Atomic uint32_t obstacles; /* CHANNEL_... : why the fast path may not simply send; one word, so
                                   that one look is enough */
    ploop_file *file;
    struct turn *turn;
    uint64_t max_transfer;   /* a multiple of block */
    uint32_t block;          /* what requests are multiples of; a sector at least */
    uint32_t queue;          /* the engine's: what the backend is told with every request */
    bool helps;              /* the backend has `help`: any thread may look, also when the file has
                                gone */
    struct bounces *bounces; /* the device's; used where block is more than a sector */
    uint64_t file_end;       /* see 7 */
    uint64_t file_size;      /* bytes, now */
    uint64_t in_flight;      /* begun here and at the backend */
    uint64_t room;           /* how many the backend held when it last refused one */
    uint64_t sent;           /* without a refusal since then, or since `room` grew */
    struct list retry;
    bool unkicked; /* something was sent since the last kick */
    bool cut;
    uint32_t drains;  /* who leaves a lane is to post a run: channel_drain() */
    uint32_t in_line; /* requests that wait for a buffer or a block */
    struct channel_lane lanes[CHANNEL_LANES];
};

/* Who waits for the lanes to be empty. */
enum channel_drain { CHANNEL_DRAIN_JOB = 1 << 0, CHANNEL_DRAIN_SUSPEND = 1 << 1 };

enum channel_obstacle {
    CHANNEL_WAITING = 1 << 0, /* requests are on the retry list, or are going to be */
    CHANNEL_SPECIAL = 1 << 1 /* there is more to ask of a request: for submit.c, which changes it */
};

struct channel_io;
typedef void channel_fn(struct channel_io *io, int result);

/* What is at the backend of a transfer or an order: channel_steps.h. */
enum channel_step { STEP_DIRECT, STEP_SECTOR, STEP_READ, STEP_WRITE, STEP_FETCH, STEP_STORE };

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
    uint32_t op, flags; /* what was asked for */
    struct iov_cursor cursor;
    uint64_t at, left; /* of a transfer or punch: what is still to be done */
    int64_t result;
    uint32_t slivers; /* results in a row that moved less than a block */
    enum channel_step step;
    uint64_t wanted; /* bytes of a READ or WRITE with which the step is over */
    uint64_t span;   /* bytes of the request that a step with a buffer is about */
    struct bounce_wait bounce;
    struct iovec window[CHANNEL_WINDOW];
    uint8_t sector[SECTOR_SIZE];
};

/* `bounces` has memory where info->request_alignment is more than a sector. */
void channel_init(struct channel *channel, ploop_file *file, struct turn *turn,
                  const struct ploop_file_info *info, struct bounces *bounces, uint32_t queue);
void channel_io_init(struct channel_io *io, struct channel *channel);

/* What an idle io is begun with next goes there. Any thread that owns the io. */
static inline void channel_io_aim(struct channel_io *io, struct channel *channel)
{
    io->channel = channel;
    io->io.file = channel->file;
}

/* READ or WRITE, of whole sectors. The iovec array behind the cursor stays valid until `then`. */
void channel_transfer(struct channel_io *io, uint32_t op, uint32_t flags, struct iov_cursor cursor,
                      uint64_t offset, uint64_t length, channel_fn *then);

/* SYNC, ALLOCATE, PUNCH, TRUNCATE. A punch writes zeros over what it has of blocks in part. */
void channel_order(struct channel_io *io, uint32_t op, uint64_t offset, uint64_t length,
                   channel_fn *then);

/* Any thread. Whether the file takes a request for this range as it is. */
static inline bool channel_fits(const struct channel *channel, uint64_t offset, uint64_t length)
{
    return ((offset | length) & (channel->block - 1)) == 0;
}

/*
 * Any thread. Requests wait for room: what would be sent directly now goes through the channel,
 * behind them.
 */
static inline bool channel_is_full(const struct channel *channel)
{
    return atomic_load_explicit(&channel->obstacles, memory_order_relaxed) & CHANNEL_WAITING;
}

/*
 * Any thread. The backend has refused a request that was sent directly, and that comes through
 * channel_adopt().
 */
static inline void channel_note_full(struct channel *channel)
{
    atomic_fetch_or(&channel->obstacles, CHANNEL_WAITING);
}

/* Where a queue's lane lies in every channel, in bytes: what the functions below take. */
static inline uint32_t channel_lane_at(uint32_t queue)
{
    size_t lane = queue % CHANNEL_LANES * sizeof(struct channel_lane);
    return (uint32_t)(offsetof(struct channel, lanes) + lane);
}

static inline _Atomic uint64_t *channel_lane(struct channel *channel, uint32_t lane_at)
{
    struct channel_lane *lane = (void *)((char *)channel + lane_at);
    assert(lane >= channel->lanes && lane < channel->lanes + CHANNEL_LANES);
    return &lane->word;
}

/* Any thread. A request of this queue's fast path is counted in, before it goes to the file. */
static inline void channel_enter(struct channel *channel, uint32_t lane_at)
{
    atomic_fetch_add(channel_lane(channel, lane_at), 1);
}

/* Any thread. It goes on in the turn, or was never sent. */
static inline void channel_leave(struct channel *channel, uint32_t lane_at)
{
    atomic_fetch_sub(channel_lane(channel, lane_at), 1);
}

/*
 * Any thread. It has ended. True: it has left, and the device may be freed from here on. False: it
 * is still counted, because a run has to follow when it leaves.
 */
static inline bool channel_leave_unless_waited(struct channel *channel, uint32_t lane_at)
{
    _Atomic uint64_t *word = channel_lane(channel, lane_at);
    uint64_t count = atomic_load_explicit(word, memory_order_relaxed);
    while (!(count & LANE_WAITED)) {
        if (atomic_compare_exchange_weak(word, &count, count - 1)) {
            return true;
        }
    }
    return false;
}

/* Any thread. How many requests of the fast path are at the backend. */
uint64_t channel_in_lanes(const struct channel *channel);

/*
 * From here on a run follows whenever a request of the fast path has left a lane, or no more.
 * Requests may be in the lanes then: who looks at channel_in_lanes() next sees them, or they the
 * mark.
 */
void channel_drain(struct channel *channel, enum channel_drain who, bool drains);

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
