/* SPDX-License-Identifier: MIT */
/*
 * See the header. One mutex protects everything except the completions, which the contract requires
 * to run without it.
 */
#include "wild_backend.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static uint64_t draw(struct wild *wild)
{
    wild->random ^= wild->random << 13;
    wild->random ^= wild->random >> 7;
    wild->random ^= wild->random << 17;
    return wild->random * UINT64_C(2685821657736338717) >> 11;
}

static bool chance(struct wild *wild, uint32_t percent)
{
    return percent && draw(wild) % 100 < percent;
}

static void check_request(const struct wild *wild, const struct ploop_io *io)
{
    uint64_t length = 0;
    bool moves = io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE;
    ck_assert(!wild->closed);
    ck_assert_uint_ge(io->size, sizeof(*io));
    ck_assert_uint_ge(io->op, PLOOP_IO_READ);
    ck_assert_uint_le(io->op, PLOOP_IO_TRUNCATE);
    ck_assert_uint_lt(io->queue, wild->queue_count);
    uint32_t flags = io->flags & ~(uint32_t)PLOOP_IO_ALLOCATES;
    ck_assert(!io->flags || io->op == PLOOP_IO_WRITE);
    ck_assert(!flags || (flags == PLOOP_IO_FUA && wild->config.capabilities & PLOOP_FILE_CAN_FUA));
    for (uint32_t i = 0; i < io->iov_count; i++) {
        ck_assert_uint_eq((uintptr_t)io->iov[i].iov_base % wild->config.alignment, 0);
        ck_assert_uint_eq(io->iov[i].iov_len % wild->config.alignment, 0);
        length += io->iov[i].iov_len;
    }
    if (moves) {
        ck_assert_uint_eq(length, io->length);
        ck_assert_uint_gt(length, 0);
        ck_assert(!wild->config.max_transfer || length <= wild->config.max_transfer);
        ck_assert_uint_eq(io->offset % wild->config.alignment, 0);
    } else {
        ck_assert_uint_eq(io->iov_count, 0);
        ck_assert_int_eq(io->length > 0, io->op == PLOOP_IO_ALLOCATE || io->op == PLOOP_IO_PUNCH);
    }
}

static int64_t move(struct wild *wild, const struct ploop_io *io)
{
    bool write = io->op == PLOOP_IO_WRITE;
    uint64_t end = write ? wild->config.file_size_max : wild->file_size;
    uint64_t length = io->length, at = io->offset, left;
    uint32_t block = wild->config.short_unit;
    if (write && at >= end) {
        return -ENOSPC;
    }
    length = at >= end ? 0 : length < end - at ? length : end - at;
    if (length > block && chance(wild, wild->config.short_percent)) {
        length = (1 + draw(wild) % (length / block)) * block;
    }
    left = length;
    for (uint32_t i = 0; i < io->iov_count && left; i++) {
        uint64_t piece = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;
        if (write) {
            memcpy(wild->bytes + at, io->iov[i].iov_base, piece);
        } else {
            memcpy(io->iov[i].iov_base, wild->bytes + at, piece);
        }
        at += piece;
        left -= piece;
    }
    if (write && at > wild->file_size) {
        wild->file_size = at;
    }
    return (int64_t)length;
}

static int64_t carry_out(struct wild *wild, const struct ploop_io *io)
{
    uint64_t end = io->offset + io->length;
    if (wild->fail_op == io->op) {
        if (wild->fail_after > 0) {
            wild->fail_after--;
        } else {
            wild->fail_op = wild->fail_always ? wild->fail_op : 0;
            return wild->fail_with;
        }
    }
    if (chance(wild, wild->config.again_percent)) {
        return chance(wild, 50) ? -EAGAIN : -EINTR;
    }
    wild->counts[io->op]++;
    if (end > wild->config.file_size_max && io->op != PLOOP_IO_READ && io->op != PLOOP_IO_WRITE) {
        return -ENOSPC;
    }
    switch (io->op) {
    case PLOOP_IO_READ:
    case PLOOP_IO_WRITE:
        wild->largest = io->length > wild->largest ? io->length : wild->largest;
        return move(wild, io);
    case PLOOP_IO_ALLOCATE:
        wild->file_size = end > wild->file_size ? end : wild->file_size;
        return 0;
    case PLOOP_IO_PUNCH:
        memset(wild->bytes + io->offset, 0, io->length);
        return 0;
    case PLOOP_IO_TRUNCATE:
        if (io->offset < wild->file_size) {
            memset(wild->bytes + io->offset, 0, wild->file_size - io->offset);
        }
        wild->file_size = io->offset;
        return 0;
    default:
        return 0;
    }
}

/* Called with the mutex held; releases it for the completion. */
static void finish(struct wild *wild, struct ploop_io *io)
{
    int64_t result = carry_out(wild, io);
    pthread_mutex_unlock(&wild->mutex);
    ploop_io_complete(io, result);
    pthread_mutex_lock(&wild->mutex);
    wild->in_flight--;
}

static struct ploop_io *take_any(struct wild *wild)
{
    uint32_t at = (uint32_t)(draw(wild) % wild->kicked_count);
    struct ploop_io *io = wild->pending[at];
    wild->pending[at] = wild->pending[--wild->kicked_count];
    wild->pending[wild->kicked_count] = wild->pending[--wild->pending_count];
    return io;
}

static void *wild_thread(void *argument)
{
    struct wild *wild = argument;
    pthread_mutex_lock(&wild->mutex);
    while (!wild->stop) {
        if (wild->kicked_count == 0) {
            pthread_cond_wait(&wild->work, &wild->mutex);
            continue;
        }
        struct ploop_io *io = take_any(wild);
        if (wild->config.delay_us) {
            useconds_t delay = (useconds_t)(draw(wild) % wild->config.delay_us);
            pthread_mutex_unlock(&wild->mutex);
            usleep(delay);
            pthread_mutex_lock(&wild->mutex);
        }
        finish(wild, io);
    }
    pthread_mutex_unlock(&wild->mutex);
    return NULL;
}

static void kick_locked(struct wild *wild)
{
    wild->kicked_count = wild->pending_count;
    pthread_cond_broadcast(&wild->work);
    eventfd_write(wild->fd, wild->kicked_count > 0);
}

static int wild_submit(void *context, struct ploop_io *io)
{
    struct wild *wild = context;
    enum wild_mode mode = wild->config.mode;
    pthread_mutex_lock(&wild->mutex);
    check_request(wild, io);
    if (wild->pending_count == WILD_PENDING_MAX || chance(wild, wild->config.again_percent)) {
        wild->refusals++;
        pthread_mutex_unlock(&wild->mutex);
        return -EAGAIN;
    }
    wild->in_flight++;
    if (mode == WILD_INLINE || (mode == WILD_MIXED && chance(wild, 50))) {
        finish(wild, io);
    } else {
        wild->pending[wild->pending_count++] = io;
        if (wild->config.runs_without_kick) {
            kick_locked(wild);
        }
    }
    pthread_mutex_unlock(&wild->mutex);
    return 0;
}

static void wild_kick(void *context, uint32_t queue)
{
    struct wild *wild = context;
    pthread_mutex_lock(&wild->mutex);
    ck_assert_uint_lt(queue, wild->queue_count);
    kick_locked(wild);
    pthread_mutex_unlock(&wild->mutex);
}

static int wild_reap(void *context, uint32_t queue)
{
    struct wild *wild = context;
    int reaped = 0;
    pthread_mutex_lock(&wild->mutex);
    ck_assert_uint_lt(queue, wild->queue_count);
    uint64_t leave = draw(wild) % 4; /* some come later */
    while (wild->kicked_count > leave || (wild->kicked_count && !reaped)) {
        finish(wild, take_any(wild));
        reaped++;
    }
    if (wild->kicked_count == 0) {
        eventfd_t count;
        (void)eventfd_read(wild->fd, &count);
    }
    pthread_mutex_unlock(&wild->mutex);
    return reaped;
}

static int wild_poll_fd(void *context, uint32_t queue)
{
    struct wild *wild = context;
    ck_assert_uint_lt(queue, wild->queue_count);
    return wild->fd;
}

static int wild_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct wild *wild = context;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (timeout_ns < 50000000 ? timeout_ns : 50000000);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&wild->mutex);
    ck_assert_uint_lt(queue, wild->queue_count);
    if (wild->kicked_count == 0) {
        pthread_cond_timedwait(&wild->work, &wild->mutex, &until);
    }
    pthread_mutex_unlock(&wild->mutex);
    return 0;
}

static int wild_attach(void *context, uint32_t queue_count)
{
    struct wild *wild = context;
    pthread_mutex_lock(&wild->mutex);
    wild->queue_count = queue_count;
    pthread_mutex_unlock(&wild->mutex);
    return 0;
}

static void wild_cancel(void *context)
{
    struct wild *wild = context;
    pthread_mutex_lock(&wild->mutex);
    while (wild->pending_count) {
        struct ploop_io *io = wild->pending[--wild->pending_count];
        wild->kicked_count =
            wild->kicked_count < wild->pending_count ? wild->kicked_count : wild->pending_count;
        pthread_mutex_unlock(&wild->mutex);
        ploop_io_complete(io, -ECANCELED);
        pthread_mutex_lock(&wild->mutex);
        wild->in_flight--;
    }
    while (wild->in_flight) {
        pthread_mutex_unlock(&wild->mutex);
        usleep(100);
        pthread_mutex_lock(&wild->mutex);
    }
    pthread_mutex_unlock(&wild->mutex);
}

static int wild_get_info(void *context, struct ploop_file_info *info)
{
    struct wild *wild = context;
    pthread_mutex_lock(&wild->mutex);
    info->file_size = wild->file_size;
    pthread_mutex_unlock(&wild->mutex);
    info->capabilities = wild->config.capabilities;
    info->request_alignment = wild->config.alignment;
    info->max_transfer = wild->config.max_transfer;
    return 0;
}

static void wild_close(void *context)
{
    struct wild *wild = context;
    pthread_mutex_lock(&wild->mutex);
    ck_assert_uint_eq(wild->pending_count, 0);
    wild->closed = true;
    pthread_mutex_unlock(&wild->mutex);
}

struct wild *wild_new(const struct wild_config *config)
{
    struct wild *wild = calloc(1, sizeof(*wild));
    ck_assert_ptr_nonnull(wild);
    wild->config = *config;
    wild->config.alignment += wild->config.alignment == 0;
    wild->config.short_unit = config->short_unit ? config->short_unit : wild->config.alignment;
    wild->random = config->seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    wild->bytes = calloc(1, config->file_size_max);
    ck_assert_ptr_nonnull(wild->bytes);
    wild->file_size = config->file_size;
    wild->queue_count = 1;
    wild->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ck_assert_int_ge(wild->fd, 0);
    pthread_mutex_init(&wild->mutex, NULL);
    pthread_cond_init(&wild->work, NULL);
    if (config->mode == WILD_THREADS || config->mode == WILD_MIXED) {
        for (; wild->thread_count < WILD_THREADS_MAX; wild->thread_count++) {
            ck_assert_int_eq(
                pthread_create(&wild->threads[wild->thread_count], NULL, wild_thread, wild), 0);
        }
    }
    return wild;
}

void wild_free(struct wild *wild)
{
    pthread_mutex_lock(&wild->mutex);
    wild->stop = true;
    pthread_cond_broadcast(&wild->work);
    pthread_mutex_unlock(&wild->mutex);
    for (uint32_t i = 0; i < wild->thread_count; i++) {
        pthread_join(wild->threads[i], NULL);
    }
    ck_assert_uint_eq(wild->in_flight, 0);
    pthread_cond_destroy(&wild->work);
    pthread_mutex_destroy(&wild->mutex);
    close(wild->fd);
    free(wild->bytes);
    free(wild);
}

ploop_file *wild_open(struct wild *wild)
{
    struct ploop_io_ops ops = {.size = sizeof(ops),
                               .get_info = wild_get_info,
                               .submit = wild_submit,
                               .attach = wild_attach,
                               .kick = wild_kick,
                               .cancel = wild_cancel,
                               .close = wild_close};
    if (wild->config.mode == WILD_REAP || wild->config.mode == WILD_POLLED) {
        ops.reap = wild_reap;
        ops.poll_fd = wild_poll_fd;
    }
    if (wild->config.mode == WILD_REAP) {
        ops.wait = wild_wait;
    }
    ploop_file *file;
    wild->closed = false;
    wild->queue_count = 1;
    ck_assert_int_eq(ploop_file_create(&ops, wild, &file), 0);
    return file;
}

void wild_fail(struct wild *wild, uint32_t op, uint32_t after, int64_t with, bool always)
{
    pthread_mutex_lock(&wild->mutex);
    wild->fail_op = op;
    wild->fail_after = after;
    wild->fail_with = with;
    wild->fail_always = always;
    pthread_mutex_unlock(&wild->mutex);
}
