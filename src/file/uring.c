/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend: reads and writes go through a ring for each queue; SYNC, what changes the
 * file's shape, and whatever a ring cannot do go to the I/O threads of the POSIX backend, whose
 * descriptors and rules this file shares (posix.h).
 *
 *     submit -> at the ring -----> completed by a reap
 *            -> at a thread -----> completed by it
 *     at the ring -> refused there -> at a thread, once
 *
 *  1. A FUA write has a lane to itself (posix_fua.h) from submit until it is reaped. Where no lane
 *     is free the ring is full for it.
 *  2. With PLOOP_FILE_DIRECT no request of the ring touches the page cache: where its memory is not
 *     aligned it goes through a bounce buffer. So direct and buffered writes never meet, and
 *     posix.c's `exclusion` is not needed. This holds where sectors are aligned enough for the file
 *     system; where its blocks are larger, writes go to the threads, which have `exclusion`.
 *     The same where a queue has no ring: its buffered writes are the threads'. Requests that are
 *     not of whole sectors are a caller's without a device, and the threads'.
 *  3. What changes the file's shape runs beside the rings' direct writes: the kernel lets it wait
 *     for those (inode_dio_wait), and none of it dirties pages that the guest writes.
 *  4. A direct write that is refused (EINVAL, ENOTBLK) is carried out by a thread, buffered. From
 *     then on all writes are the threads', and none of them begins before the last direct write has
 *     left the rings: until then they are `held`.
 *  5. A ring is not bound to a thread, nor to one device: two that read the same file share it.
 *     When the thread that sent a request ends, the kernel may cancel the request: then the library
 *     sends it again.
 *  6. The kernel posts the completion of a request through the thread that sent it, and waits until
 *     that thread can be interrupted. An I/O thread may sleep in fdatasync or fallocate for long,
 *     and fallocate waits for direct writes: so it sends nothing itself, but wakes the sender, a
 *     thread that does nothing else.
 */
#include "file/uring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "util/iov.h"

enum { RING_ENTRIES = 128, SECTOR_BYTES = 512, BOUNCE_ALIGNMENT = 4096 };

/* backend_data while a request is at a ring. */
enum { DATA_LINK = 0, DATA_LANE = 1, DATA_BOUNCE = 2, DATA_DIRECT = 3 };

/* ---- at the I/O threads ---- */

static void to_thread(struct uring *file, struct ploop_io *io)
{
    posix_pool_submit(&file->posix->pool, io);
}

/* The direct writes have left the rings: those held go on. */
static void release_held(struct uring *file)
{
    pthread_mutex_lock(&file->mutex);
    struct ploop_io *io = atomic_load(&file->direct_writes) == 0 ? file->held : NULL;
    file->held = io ? NULL : file->held;
    pthread_mutex_unlock(&file->mutex);
    while (io) {
        struct ploop_io *next = io->backend_data[DATA_LINK];
        to_thread(file, io);
        io = next;
    }
    posix_pool_kick(&file->posix->pool);
}

/* A write after one was refused. */
static void hold(struct uring *file, struct ploop_io *io)
{
    pthread_mutex_lock(&file->mutex);
    io->backend_data[DATA_LINK] = file->held;
    file->held = io;
    pthread_mutex_unlock(&file->mutex);
    release_held(file);
}

static void direct_write_ends(struct uring *file)
{
    if (atomic_fetch_sub(&file->direct_writes, 1) == 1 && atomic_load(&file->is_refused)) {
        release_held(file);
    }
}

/* Called by a thread of the pool after it has completed a request. */
static void thread_completed(void *context)
{
    struct uring *file = context;
    uint64_t one = 1;
    if (atomic_load(&file->waiters)) {
        ssize_t written = write(file->event_fd, &one, sizeof(one));
        (void)written; /* a full counter is readable too */
    }
}

/* ---- at a ring ---- */

static bool is_aligned(const struct posix *posix, const struct ploop_io *io)
{
    uintptr_t memory = 0;
    uint64_t bits = io->offset | io->length;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        memory |= (uintptr_t)io->iov[i].iov_base;
        bits |= io->iov[i].iov_len;
    }
    return (memory & (posix->memory_alignment - 1)) == 0 &&
           (bits & (posix->direct_alignment - 1)) == 0;
}

static struct ring *ring_of(struct uring *file, uint32_t queue)
{
    return queue < atomic_load(&file->ring_count) ? file->rings[queue] : NULL;
}

/* The kernel may take a part of them: one that cannot begin ends the batch, and has completed. */
static void send_all(struct ring *ring)
{
    assert(!posix_pool_has_this_thread());
    pthread_mutex_lock(&ring->mutex);
    while (io_uring_sq_ready(&ring->uring) > 0) {
        int sent = io_uring_submit(&ring->uring);
        if (sent < 0 && sent != -EINTR) {
            assert(sent == -EAGAIN || sent == -EBUSY);
            (void)sched_yield();
        }
    }
    pthread_mutex_unlock(&ring->mutex);
}

static void *sender_thread(void *argument)
{
    struct uring *file = argument;
    struct sender *sender = &file->sender;
    pthread_mutex_lock(&file->mutex);
    while (!sender->stop) {
        if (!sender->wanted) {
            pthread_cond_wait(&sender->wake, &file->mutex);
            continue;
        }
        sender->wanted = false;
        pthread_mutex_unlock(&file->mutex);
        for (uint32_t i = 0; i < atomic_load(&file->ring_count); i++) {
            send_all(file->rings[i]);
        }
        pthread_mutex_lock(&file->mutex);
    }
    pthread_mutex_unlock(&file->mutex);
    return NULL;
}

static void wake_sender(struct uring *file)
{
    pthread_mutex_lock(&file->mutex);
    assert(file->sender.runs);
    file->sender.wanted = true;
    pthread_cond_signal(&file->sender.wake);
    pthread_mutex_unlock(&file->mutex);
}

/* As the I/O threads, deaf to signals. 0 or -errno. */
static int start_sender(struct uring *file)
{
    sigset_t all, before;
    if (file->sender.runs) {
        return 0;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = -pthread_create(&file->sender.thread, NULL, sender_thread, file);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) {
        file->sender.runs = true;
        (void)pthread_setname_np(file->sender.thread, "ploop-ring");
    }
    return error;
}

static void stop_sender(struct uring *file)
{
    if (!file->sender.runs) {
        return;
    }
    pthread_mutex_lock(&file->mutex);
    file->sender.stop = true;
    pthread_cond_signal(&file->sender.wake);
    pthread_mutex_unlock(&file->mutex);
    pthread_join(file->sender.thread, NULL);
}

/* Whether a write may go to a ring, and is counted where it is direct. */
static bool enter_write(struct uring *file, bool direct)
{
    if (!direct) {
        return true;
    }
    if (!file->rings_write_direct) {
        return false;
    }
    atomic_fetch_add(&file->direct_writes, 1); /* before it looks: see 4 */
    if (atomic_load(&file->is_refused)) {
        direct_write_ends(file);
        return false;
    }
    return true;
}

static void fill_sqe(struct io_uring_sqe *sqe, struct ploop_io *io, int fd, int rw_flags)
{
    void *bounce = io->backend_data[DATA_BOUNCE];
    bool is_write = io->op == PLOOP_IO_WRITE;
    if (bounce || io->iov_count == 1) {
        void *memory = bounce ? bounce : io->iov->iov_base;
        if (is_write) {
            io_uring_prep_write(sqe, fd, memory, (unsigned)io->length, io->offset);
        } else {
            io_uring_prep_read(sqe, fd, memory, (unsigned)io->length, io->offset);
        }
    } else if (is_write) {
        io_uring_prep_writev(sqe, fd, io->iov, io->iov_count, io->offset);
    } else {
        io_uring_prep_readv(sqe, fd, io->iov, io->iov_count, io->offset);
    }
    sqe->rw_flags = rw_flags;
    io_uring_sqe_set_data(sqe, io);
}

static struct io_uring_sqe *take_sqe(struct ring *ring)
{
    struct io_uring_sqe *sqe = ring->in_flight < ring->room ? io_uring_get_sqe(&ring->uring) : NULL;
    if (!sqe && ring->in_flight < ring->room && !posix_pool_has_this_thread()) {
        io_uring_submit(&ring->uring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    return sqe;
}

/* Memory that direct I/O takes, in place of the request's. 0 or -EAGAIN. */
static int take_bounce(struct ploop_io *io)
{
    void *bounce = NULL;
    if (posix_memalign(&bounce, BOUNCE_ALIGNMENT, io->length)) {
        return -EAGAIN;
    }
    if (io->op == PLOOP_IO_WRITE) {
        iov_copy_out(&(struct iov_cursor){.iov = io->iov, .count = io->iov_count}, bounce,
                     io->length);
    }
    io->backend_data[DATA_BOUNCE] = bounce;
    return 0;
}

/*
 * A READ or a plain or FUA WRITE, with the ring's mutex held. 0; -EAGAIN or -EOPNOTSUPP: nothing
 * was kept.
 */
static int to_ring(struct uring *file, struct ring *ring, struct ploop_io *io)
{
    struct posix *posix = file->posix;
    bool is_fua = io->flags & PLOOP_IO_FUA;
    bool direct = posix->direct_fd >= 0;
    memset(io->backend_data, 0, sizeof(io->backend_data));
    if (direct && posix->direct_alignment > SECTOR_BYTES && !is_aligned(posix, io)) {
        /* Such a write is the threads'; a buffered read meets nothing it could disturb. */
        assert(io->op == PLOOP_IO_READ);
        direct = false;
    }
    if (direct && !is_aligned(posix, io) && take_bounce(io)) {
        return -EAGAIN;
    }
    struct posix_lane *lane = is_fua ? posix_fua_try(&posix->fua) : NULL;
    struct io_uring_sqe *sqe = is_fua && !lane ? NULL : take_sqe(ring);
    if (!sqe) {
        if (lane) {
            posix_fua_give_back(&posix->fua, lane);
        }
        free(io->backend_data[DATA_BOUNCE]);
        return is_fua && posix_fua_is_missing(&posix->fua) ? -EOPNOTSUPP : -EAGAIN;
    }
    io->backend_data[DATA_LANE] = lane;
    io->backend_data[DATA_DIRECT] = direct ? file : NULL;
    int fd = lane ? (direct ? lane->direct_fd : lane->fd) : direct ? posix->direct_fd : posix->fd;
    fill_sqe(sqe, io, fd, is_fua ? RWF_DSYNC : 0);
    ring->in_flight++;
    return 0;
}

static int uring_submit(void *context, struct ploop_io *io)
{
    struct uring *file = context;
    int error = posix_refuses(file->posix, io);
    struct ring *ring = ring_of(file, io->queue);
    bool is_write = io->op == PLOOP_IO_WRITE;
    bool direct = file->posix->direct_fd >= 0;
    bool is_odd = (io->offset | io->length) % SECTOR_BYTES != 0 || io->length > INT32_MAX;
    if (error) {
        return error;
    }
    if (!ring || (!is_write && io->op != PLOOP_IO_READ) || is_odd) {
        to_thread(file, io);
        return 0;
    }
    if (is_write && !enter_write(file, direct)) {
        hold(file, io);
        return 0;
    }
    pthread_mutex_lock(&ring->mutex);
    error = to_ring(file, ring, io);
    pthread_mutex_unlock(&ring->mutex);
    if (error && is_write && direct) {
        direct_write_ends(file);
    }
    return error;
}

/* ---- completion ---- */

static bool is_refusal(const struct ploop_io *io, int result)
{
    return io->backend_data[DATA_DIRECT] && (result == -EINVAL || result == -ENOTBLK);
}

static void finish(struct uring *file, struct ploop_io *io, int result)
{
    struct posix_lane *lane = io->backend_data[DATA_LANE];
    void *bounce = io->backend_data[DATA_BOUNCE];
    bool is_write = io->op == PLOOP_IO_WRITE;
    bool was_direct_write = is_write && io->backend_data[DATA_DIRECT];
    bool refused = is_refusal(io, result);
    if (result == -ECANCELED && !atomic_load(&file->cancelled)) {
        result = -EAGAIN;
    }
    if (lane) {
        posix_fua_give_back(&file->posix->fua, lane);
    }
    if (bounce && !is_write && result > 0) {
        iov_copy_in(&(struct iov_cursor){.iov = io->iov, .count = io->iov_count}, bounce,
                    (uint64_t)result);
    }
    free(bounce);
    if (refused && was_direct_write) {
        atomic_store(&file->is_refused, true);
        hold(file, io);
    } else if (refused) {
        to_thread(file, io);
        posix_pool_kick(&file->posix->pool);
    }
    if (was_direct_write) {
        direct_write_ends(file);
    }
    if (!refused) {
        ploop_io_complete(io, result);
    }
}

/* Completions are taken under the mutex, and told without it: they send further requests. */
struct completion {
    struct ploop_io *io;
    int result;
};

static uint32_t take_completions(struct ring *ring, struct completion *completions, uint32_t most)
{
    struct io_uring_cqe *cqe;
    uint32_t count = 0;
    pthread_mutex_lock(&ring->mutex);
    while (count < most && ring->in_flight > 0 && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        completions[count++] = (struct completion){io_uring_cqe_get_data(cqe), cqe->res};
        io_uring_cqe_seen(&ring->uring, cqe);
        ring->in_flight--;
    }
    pthread_mutex_unlock(&ring->mutex);
    return count;
}

static int uring_reap(void *context, uint32_t queue)
{
    enum { BATCH = 64 };
    struct uring *file = context;
    struct ring *ring = ring_of(file, queue);
    struct completion completions[BATCH];
    uint32_t done = 0, count = ring ? BATCH : 0;
    while (count == BATCH && done < ring->room) {
        count = take_completions(ring, completions, BATCH);
        for (uint32_t i = 0; i < count; i++) {
            finish(file, completions[i].io, completions[i].result);
        }
        done += count;
    }
    return (int)done;
}

static void uring_kick(void *context, uint32_t queue)
{
    struct uring *file = context;
    struct ring *ring = ring_of(file, queue);
    posix_pool_kick(&file->posix->pool);
    if (ring && posix_pool_has_this_thread()) {
        wake_sender(file);
    } else if (ring) {
        send_all(ring);
    }
}

/* ---- waiting ---- */

static int uring_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct uring *file = context;
    struct pollfd fds[2] = {{.fd = file->event_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    const struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                                     .tv_nsec = (long)(timeout_ns % 1000000000u)};
    uint64_t count;
    fds[1].fd = ring_of(file, queue) ? ring_of(file, queue)->uring.ring_fd : -1;
    atomic_fetch_add(&file->waiters, 1);
    (void)ppoll(fds, 2, &timeout, NULL);
    ssize_t got = read(file->event_fd, &count, sizeof(count));
    (void)got;
    atomic_fetch_sub(&file->waiters, 1);
    return 0;
}

/* Without rings nothing is ever to be reaped: the threads complete by themselves. */
static int uring_poll_fd(void *context, uint32_t queue)
{
    struct uring *file = context;
    const struct ring *ring = ring_of(file, queue);
    return ring ? ring->uring.ring_fd : file->never_fd;
}

/* ---- rings ---- */

static void close_ring(struct ring *ring)
{
    assert(ring->in_flight == 0);
    io_uring_queue_exit(&ring->uring);
    pthread_mutex_destroy(&ring->mutex);
    free(ring);
}

/* NULL and *error = -errno. */
static struct ring *open_ring(unsigned entries, int *error)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP};
    struct ring *ring = calloc(1, sizeof(*ring));
    *error = ring ? io_uring_queue_init_params(entries, &ring->uring, &params) : -ENOMEM;
    if (*error) {
        free(ring);
        return NULL;
    }
    pthread_mutex_init(&ring->mutex, NULL);
    ring->room = params.cq_entries;
    return ring;
}

/* Rings that are there stay. Queues for which none can be had are the threads'. */
static int uring_attach(void *context, uint32_t queue_count)
{
    struct uring *file = context;
    pthread_mutex_lock(&file->mutex);
    uint32_t count = start_sender(file) ? RINGS_MAX : atomic_load(&file->ring_count);
    for (; count < queue_count && count < RINGS_MAX; count++) {
        int error;
        file->rings[count] = open_ring(RING_ENTRIES, &error);
        if (error) {
            break;
        }
        atomic_store(&file->ring_count, count + 1);
    }
    file->rings_write_direct = file->posix->direct_alignment <= SECTOR_BYTES &&
                               atomic_load(&file->ring_count) >= queue_count;
    atomic_store(&file->cancelled, false);
    pthread_mutex_unlock(&file->mutex);
    return 0;
}

/* ---- the file ---- */

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
    posix_pool_cancel(&file->posix->pool);
}

static int uring_reopen(void *context, uint32_t flags)
{
    struct uring *file = context;
    return posix_reopen(file->posix, flags);
}

static int uring_invalidate(void *context)
{
    struct uring *file = context;
    return posix_invalidate(file->posix);
}

static void uring_free(struct uring *file)
{
    for (uint32_t i = 0; i < file->ring_count; i++) {
        close_ring(file->rings[i]);
    }
    pthread_cond_destroy(&file->sender.wake);
    pthread_mutex_destroy(&file->mutex);
    if (file->event_fd >= 0) {
        close(file->event_fd);
    }
    if (file->never_fd >= 0) {
        close(file->never_fd);
    }
    free(file);
}

static void uring_close(void *context)
{
    struct uring *file = context;
    posix_pool_stop(&file->posix->pool);
    stop_sender(file);
    posix_free(file->posix);
    uring_free(file);
}

static struct uring *uring_new(void)
{
    struct uring *file = calloc(1, sizeof(*file));
    if (!file) {
        return NULL;
    }
    pthread_mutex_init(&file->mutex, NULL);
    pthread_cond_init(&file->sender.wake, NULL);
    file->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    file->never_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (file->event_fd < 0 || file->never_fd < 0) {
        uring_free(file);
        return NULL;
    }
    return file;
}

/* -ENOSYS: the kernel has no io_uring, or this process may not use it. */
static int probe(void)
{
    int error;
    struct ring *ring = open_ring(1, &error);
    if (ring) {
        close_ring(ring);
    }
    return error == -EPERM || error == -EACCES ? -ENOSYS : error;
}

int ploop_file_open_uring(const char *path, uint32_t flags, ploop_file **file)
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
                                            .close = uring_close};
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    int error = probe();
    struct uring *made = error ? NULL : uring_new();
    if (!made) {
        return error ? error : -ENOMEM;
    }
    error = posix_open(path, flags, &made->posix);
    if (!error) {
        struct posix *posix = made->posix;
        posix->pool.completed = thread_completed;
        posix->pool.completed_context = made;
        error = ploop_file_create(&ops, made, file);
        if (error) {
            posix_abandon(posix, path);
        }
    }
    if (error) {
        uring_free(made);
    }
    return error;
}
