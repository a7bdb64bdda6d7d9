/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend: reads and writes go through a ring for each queue (uring_ring.h), which the
 * files of a group share (uring_group.h); SYNC, what changes the file's shape, and whatever a ring
 * cannot do go to the I/O threads of the POSIX backend, whose descriptors and rules this file
 * shares (posix.h). uring_direct.c has the rules of direct I/O.
 *
 *     submit -> at the ring -----> over, in a reap
 *            -> waits for a lane -> at the ring
 *            -> at a thread -----> handed over to the ring -> over, in a reap
 *     at the ring -> refused there -> at a thread, once
 *
 *  1. A FUA write has a lane to itself (posix_fua.h) from submit until it is reaped. Where none is
 *     free it waits in the backend, so that what is not FUA goes on; the next FUA write that ends
 *     lets the oldest go on. Whether a lane is free is looked at under the mutex under which a
 *     write begins to wait, and an end gives its lane back before it looks for those that wait.
 *  2. A reopen waits for the FUA writes at the rings, and reaps them itself: their caller may be
 *     the one who waits. Those that come meanwhile wait in the backend.
 *  3. A queue that found no ring of its own uses the last of those that the file has. Which that is
 *     does not change while a device has the file.
 */
#include "file/uring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct ring *ring_of(const struct uring *file, uint32_t queue)
{
    uint32_t count = atomic_load_explicit(&file->ring_count, memory_order_acquire);
    return file->group->rings[queue < count ? queue : count - 1];
}

/* ---- at the I/O threads ---- */

void uring_to_thread(struct uring *file, struct ploop_io *io)
{
    io->backend_data[DATA_FILE] = file;
    posix_pool_submit(&file->posix->pool, io);
    atomic_store(&file->unkicked, true);
}

void uring_kick_threads(struct uring *file)
{
    if (atomic_load_explicit(&file->unkicked, memory_order_relaxed) &&
        atomic_exchange(&file->unkicked, false)) {
        posix_pool_kick(&file->posix->pool);
    }
}

/* On an I/O thread. */
static void thread_ended(void *context, struct ploop_io *io, int64_t result)
{
    ring_hand_over(ring_of(context, io->queue), io, result);
}

/* ---- at a ring ---- */

/* The descriptor that a request goes to, by number where the ring knows that. */
static void aim(struct io_uring_sqe *sqe, const struct uring *file, const struct ring *ring,
                const struct posix_lane *lane, bool direct)
{
    int number = atomic_load_explicit(&file->file_number, memory_order_relaxed);
    if (lane) {
        sqe->fd = direct ? lane->direct_fd : lane->fd;
    } else if (number >= 0 && ring->has_files) {
        sqe->fd = number + direct;
        sqe->flags |= IOSQE_FIXED_FILE;
    } else {
        sqe->fd = direct ? file->posix->direct_fd : file->posix->fd;
    }
}

static void fill_sqe(struct io_uring_sqe *sqe, const struct uring *file, struct ring *ring,
                     struct ploop_io *io)
{
    static const uint8_t one_piece[] = {
        [PLOOP_IO_READ] = IORING_OP_READ, [PLOOP_IO_WRITE] = IORING_OP_WRITE};
    static const uint8_t registered[] = {
        [PLOOP_IO_READ] = IORING_OP_READ_FIXED, [PLOOP_IO_WRITE] = IORING_OP_WRITE_FIXED};
    static const uint8_t in_pieces[] = {
        [PLOOP_IO_READ] = IORING_OP_READV, [PLOOP_IO_WRITE] = IORING_OP_WRITEV};
    const struct posix_lane *lane = io->backend_data[DATA_LANE];
    void *bounce = io->backend_data[DATA_BOUNCE];
    if (bounce) {
        io_uring_prep_rw(one_piece[io->op], sqe, -1, bounce, (unsigned)direct_bounced(io),
                         io->offset);
    } else if (io->iov_count == 1) {
        void *memory = io->iov->iov_base;
        int buffer = group_buffer_at(file->group, ring, memory, io->length);
        io_uring_prep_rw(buffer < 0 ? one_piece[io->op] : registered[io->op], sqe, -1, memory,
                         (unsigned)io->length, io->offset);
        sqe->buf_index = (uint16_t)(buffer < 0 ? 0 : buffer);
    } else {
        io_uring_prep_rw(in_pieces[io->op], sqe, -1, io->iov, io->iov_count, io->offset);
    }
    aim(sqe, file, ring, lane, io->backend_data[DATA_DIRECT]);
    sqe->rw_flags = lane ? RWF_DSYNC : 0;
    io_uring_sqe_set_data(sqe, io);
}

/* A READ or WRITE; a FUA write has its lane. 0; -EAGAIN: nothing was kept. */
static int to_ring(struct uring *file, struct ploop_io *io, struct posix_lane *lane)
{
    const struct posix *posix = file->posix;
    struct ring *ring = ring_of(file, io->queue);
    bool direct = posix->direct_fd >= 0;
    io->backend_data[DATA_LANE] = lane;
    io->backend_data[DATA_BOUNCE] = NULL;
    io->backend_data[DATA_FILE] = file;
    if (direct && !direct_is_aligned(posix, io) && direct_take_bounce(file, io)) {
        return -EAGAIN;
    }
    io->backend_data[DATA_DIRECT] = direct ? file : NULL;
    latch_lock(&ring->latch);
    struct io_uring_sqe *sqe = ring_take_sqe(ring);
    if (sqe) {
        fill_sqe(sqe, file, ring, io);
    }
    latch_unlock(&ring->latch);
    if (!sqe) {
        direct_drop_bounce(file, io, 0);
    }
    return sqe ? 0 : -EAGAIN;
}

/* ---- FUA ---- */

/* For a write at a ring; with the file's mutex held, so that a reopen sees it: 2. */
static struct posix_lane *take_lane(struct uring *file)
{
    struct posix_lane *lane = posix_fua_try(&file->posix->fua);
    if (lane) {
        atomic_fetch_add(&file->fua_at_ring, 1);
    }
    return lane;
}

static void give_lane_back(struct uring *file, struct posix_lane *lane)
{
    posix_fua_give_back(&file->posix->fua, lane);
    atomic_fetch_sub(&file->fua_at_ring, 1);
}

/* The oldest that waits, with a lane for it; without one: none can be had. NULL: none goes on. */
static struct ploop_io *take_waiting(struct uring *file, struct posix_lane **lane)
{
    pthread_mutex_lock(&file->mutex);
    struct ploop_io *io = file->reopens == 0 ? file->fua_first : NULL;
    *lane = io ? take_lane(file) : NULL;
    if (io && !*lane && !posix_fua_is_missing(&file->posix->fua)) {
        io = NULL;
    }
    file->fua_first = io ? io->backend_data[DATA_LINK] : file->fua_first;
    pthread_mutex_unlock(&file->mutex);
    return io;
}

static int fua_to_ring(struct uring *file, struct ploop_io *io, struct posix_lane *lane)
{
    int error = to_ring(file, io, lane);
    if (error) {
        give_lane_back(file, lane);
    }
    return error;
}

static void over(struct uring *file, struct ploop_io *io, int64_t result)
{
    if (io->op == PLOOP_IO_WRITE && file->posix->direct_fd >= 0) {
        direct_write_ends(file);
    }
    ploop_io_complete(io, result);
}

/*
 * A lane may be free. What goes on is sent here, but on the ring that the caller sends itself; what
 * finds the ring full ends, so that the library sends it again when there is room.
 */
static void resume_waiting(struct uring *file, const struct ring *sends)
{
    struct posix_lane *lane;
    struct ploop_io *io;
    while ((io = take_waiting(file, &lane)) != NULL) {
        int error = lane ? fua_to_ring(file, io, lane) : -EOPNOTSUPP;
        if (error) {
            over(file, io, error);
        } else if (ring_of(file, io->queue) != sends) {
            ring_send(ring_of(file, io->queue));
        }
    }
}

static int submit_fua(struct uring *file, struct ploop_io *io)
{
    pthread_mutex_lock(&file->mutex);
    bool waits = file->fua_first || file->reopens > 0;
    struct posix_lane *lane = waits ? NULL : take_lane(file);
    bool is_missing = !lane && !waits && posix_fua_is_missing(&file->posix->fua);
    if (!lane && !is_missing) {
        io->backend_data[DATA_LINK] = NULL;
        if (file->fua_first) {
            file->fua_last->backend_data[DATA_LINK] = io;
        } else {
            file->fua_first = io;
        }
        file->fua_last = io;
    }
    pthread_mutex_unlock(&file->mutex);
    int error = lane ? fua_to_ring(file, io, lane) : is_missing ? -EOPNOTSUPP : 0;
    if (error == -EAGAIN) {
        resume_waiting(file, NULL); /* some may have begun to wait for the lane meanwhile */
    }
    return error;
}

static void cancel_waiting(struct uring *file)
{
    pthread_mutex_lock(&file->mutex);
    struct ploop_io *io = file->fua_first;
    file->fua_first = NULL;
    pthread_mutex_unlock(&file->mutex);
    while (io) {
        struct ploop_io *next = io->backend_data[DATA_LINK];
        over(file, io, -ECANCELED);
        io = next;
    }
}

/* ---- submit ---- */

/* What no ring does. */
static bool is_for_threads(const struct ploop_io *io)
{
    return io->op > PLOOP_IO_WRITE || (io->offset | io->length) % SECTOR_BYTES != 0 ||
           io->length > INT32_MAX;
}

static int uring_submit(void *context, struct ploop_io *io)
{
    struct uring *file = context;
    int error = posix_refuses(file->posix, io);
    if (error) {
        return error;
    }
    bool is_direct_write = io->op == PLOOP_IO_WRITE && file->posix->direct_fd >= 0;
    if (is_for_threads(io)) {
        uring_to_thread(file, io);
        return 0;
    }
    if (is_direct_write && !direct_write_begins(file)) {
        direct_hold(file, io);
        return 0;
    }
    error = io->flags & PLOOP_IO_FUA ? submit_fua(file, io) : to_ring(file, io, NULL);
    if (error && is_direct_write) {
        direct_write_ends(file);
    }
    return error;
}

/* ---- completion ---- */

/* The kernel refuses direct I/O for it. */
static void refused(struct uring *file, struct ploop_io *io)
{
    if (io->op == PLOOP_IO_WRITE) {
        direct_write_refused(file, io);
    } else {
        uring_to_thread(file, io);
        uring_kick_threads(file);
    }
}

void uring_ended(struct ring *ring, struct ploop_io *io, int result)
{
    struct uring *file = io->backend_data[DATA_FILE];
    struct posix_lane *lane = io->backend_data[DATA_LANE];
    bool is_refused = (result == -EINVAL || result == -ENOTBLK) && io->backend_data[DATA_DIRECT];
    if (result == -ECANCELED && !atomic_load(&file->cancelled)) {
        result = -EAGAIN;
    }
    direct_drop_bounce(file, io, result);
    if (lane) {
        give_lane_back(file, lane);
        resume_waiting(file, ring);
    }
    if (is_refused) {
        refused(file, io);
    } else {
        over(file, io, result);
    }
}

void uring_carried_out(struct ring *ring, struct ploop_io *io, int64_t result)
{
    struct uring *file = io->backend_data[DATA_FILE];
    if (io->flags & PLOOP_IO_FUA) {
        resume_waiting(file, ring);
    }
    ploop_io_complete(io, result);
}

static int uring_reap(void *context, uint32_t queue)
{
    struct ring *ring = ring_of(context, queue);
    return ring_is_ready(ring) ? ring_reap(ring) : 0;
}

static void uring_kick(void *context, uint32_t queue)
{
    struct uring *file = context;
    uring_kick_threads(file);
    ring_send(ring_of(file, queue));
}

/* ---- waiting ---- */

static int uring_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct ring *ring = ring_of(context, queue);
    struct pollfd fd = {.fd = ring->uring.ring_fd, .events = POLLIN};
    const struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                                     .tv_nsec = (long)(timeout_ns % 1000000000u)};
    if (!ring_is_ready(ring)) {
        (void)ppoll(&fd, 1, &timeout, NULL);
    }
    return 0;
}

static int uring_poll_fd(void *context, uint32_t queue)
{
    return ring_of(context, queue)->uring.ring_fd;
}

/* ---- the file ---- */

static int uring_attach(void *context, uint32_t queue_count)
{
    struct uring *file = context;
    uint32_t has = group_want_rings(file->group, queue_count);
    pthread_mutex_lock(&file->mutex);
    /* Where a device shares rings among its queues, it goes on to: 3. */
    bool is_short = atomic_load(&file->ring_count) < atomic_load(&file->queue_count);
    if (queue_count > atomic_load(&file->queue_count)) {
        atomic_store(&file->queue_count, queue_count);
        if (!is_short) {
            atomic_store(&file->ring_count, has < queue_count ? has : queue_count);
        }
    }
    atomic_store(&file->cancelled, false);
    pthread_mutex_unlock(&file->mutex);
    return 0;
}

static int uring_get_info(void *context, struct ploop_file_info *info)
{
    const struct uring *file = context;
    return posix_get_info(file->posix, info);
}

/* What is at a ring ends by itself, as what a thread is carrying out does. */
static void uring_cancel(void *context)
{
    struct uring *file = context;
    atomic_store(&file->cancelled, true);
    cancel_waiting(file);
    posix_pool_cancel(&file->posix->pool);
}

/* End the FUA writes at the rings. */
static void wait_for_fua(struct uring *file)
{
    const uint64_t slice_ns = 1000000; /* another thread may reap the last of them */
    while (atomic_load(&file->fua_at_ring) > 0) {
        for (uint32_t i = 0; i < atomic_load(&file->ring_count); i++) {
            ring_send(ring_of(file, i));
            (void)uring_reap(file, i);
        }
        if (atomic_load(&file->fua_at_ring) > 0) {
            /* They come on one queue, a device's last. */
            (void)uring_wait(file, atomic_load(&file->queue_count), slice_ns);
        }
    }
}

static int uring_reopen(void *context, uint32_t flags)
{
    struct uring *file = context;
    pthread_mutex_lock(&file->mutex);
    file->reopens++;
    pthread_mutex_unlock(&file->mutex);
    wait_for_fua(file);
    int error = posix_reopen(file->posix, flags);
    int number = atomic_load(&file->file_number);
    if (!error &&
        !group_replace_files(file->group, number, file->posix->fd, file->posix->direct_fd)) {
        atomic_store(&file->file_number, -1); /* a ring may have the old ones */
        group_remove_files(file->group, number);
    }
    pthread_mutex_lock(&file->mutex);
    file->reopens--;
    pthread_mutex_unlock(&file->mutex);
    resume_waiting(file, NULL);
    return error;
}

static int uring_data_extent(void *context, uint64_t offset, uint64_t *data_offset,
                             uint64_t *data_length)
{
    struct uring *file = context;
    return posix_data_extent(file->posix, offset, data_offset, data_length);
}

static int uring_invalidate(void *context)
{
    struct uring *file = context;
    return posix_invalidate(file->posix);
}

static int uring_register_memory(void *context, void *memory, uint64_t length)
{
    struct uring *file = context;
    return group_register_memory(file->group, memory, length);
}

static void uring_unregister_memory(void *context, void *memory, uint64_t length)
{
    struct uring *file = context;
    group_unregister_memory(file->group, memory, length);
}

static void uring_free(struct uring *file)
{
    assert(!file->held && !file->fua_first);
    pthread_mutex_destroy(&file->mutex);
    group_give_back(file->group);
    free(file->bounces);
    free(file);
}

static void uring_close(void *context)
{
    struct uring *file = context;
    posix_pool_stop(&file->posix->pool);
    group_remove_files(file->group, atomic_load(&file->file_number));
    posix_free(file->posix);
    uring_free(file);
}

/* In this group, or in one of its own. 0 or -errno. */
static int uring_new(ploop_uring *group, struct uring **file)
{
    int error = 0;
    struct uring *made = calloc(1, sizeof(*made));
    if (!made) {
        return -ENOMEM;
    }
    if (group) {
        group_take(group);
    } else {
        error = ploop_uring_create(NULL, &group);
    }
    if (error) {
        free(made);
        return error;
    }
    pthread_mutex_init(&made->mutex, NULL);
    made->group = group;
    atomic_init(&made->file_number, -1);
    atomic_init(&made->ring_count, 1);
    atomic_init(&made->queue_count, 1);
    *file = made;
    return 0;
}

static void ready(struct uring *file)
{
    struct posix *posix = file->posix;
    posix->pool.ended = thread_ended;
    posix->pool.ended_context = file;
    atomic_store(&file->file_number, group_add_files(file->group, posix->fd, posix->direct_fd));
}

int ploop_file_open_uring(const char *path, uint32_t flags, ploop_uring *group, ploop_file **file)
{
    static const struct ploop_io_ops ops = {.size = sizeof(ops),
                                            .get_info = uring_get_info,
                                            .submit = uring_submit,
                                            .attach = uring_attach,
                                            .kick = uring_kick,
                                            .reap = uring_reap,
                                            .wait = uring_wait,
                                            .poll_fd = uring_poll_fd,
                                            .cancel = uring_cancel,
                                            .reopen = uring_reopen,
                                            .invalidate = uring_invalidate,
                                            .register_memory = uring_register_memory,
                                            .unregister_memory = uring_unregister_memory,
                                            .close = uring_close,
                                            .data_extent = uring_data_extent};
    struct uring *made;
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    int error = uring_new(group, &made);
    if (error) {
        return error;
    }
    error = posix_open(path, flags, &made->posix);
    if (!error) {
        error = made->posix->direct_fd >= 0 ? direct_make_bounces(made) : 0;
        error = error ? error : ploop_file_create(&ops, made, file);
        if (error) {
            posix_abandon(made->posix, path);
        }
    }
    if (error) {
        uring_free(made);
        return error;
    }
    ready(made);
    return 0;
}
