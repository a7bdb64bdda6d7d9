/* SPDX-License-Identifier: MIT */
/*
 * One request, waited for: how tools, tests and the steps of opening a device read and write a
 * file.
 *
 * The waiting thread carries the request out itself where the backend has `help`. Elsewhere it
 * brings its own mutex and condition on its stack; the completion, on whatever thread, rings it. A
 * backend that completes in reap is asked to between sleeps. Everything is sent on queue 0, which
 * every backend has.
 *
 *     file_sync_io -> transfer (aligned, in pieces of max_transfer, short ones continued) ->
 *     request_once -> backend
 *                  -> bounce   (what is not aligned: through a buffer that is)            ->
 *                              transfer
 */
#include "file/file.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLICE_NS = 1000000, BOUNCE_BYTES = 1 << 20, SLIVERS_MAX = 100 };

/* A request and the one thread that waits for it. */
struct sync_io {
    struct file_io io;
    pthread_mutex_t mutex;
    pthread_cond_t rung;
    bool done;
    int64_t result;
};

/* What the backend says, and what follows from it, for the length of one call. */
struct sync_limits {
    struct ploop_file_info info;
    uint64_t alignment;
    uint64_t max_transfer;
};

static void sync_io_done(struct file_io *io, int64_t result)
{
    struct sync_io *wait = (struct sync_io *)io;
    /*
     * The condition is signalled under the mutex: once the waiter has it, no thread touches its
     * stack frame any more.
     */
    pthread_mutex_lock(&wait->mutex);
    wait->done = true;
    wait->result = result;
    pthread_cond_signal(&wait->rung);
    pthread_mutex_unlock(&wait->mutex);
}

static bool is_done(struct sync_io *wait)
{
    pthread_mutex_lock(&wait->mutex);
    bool done = wait->done;
    pthread_mutex_unlock(&wait->mutex);
    return done;
}

/*
 * Give the backend a chance to go on. Sleeps are short because another thread may reap what this
 * one waits for.
 */
static void sleep_slice(ploop_file *file)
{
    if (file->ops.reap && file->ops.reap(file->context, 0) > 0) {
        return;
    }
    if (file->ops.wait && file->ops.wait(file->context, 0, SLICE_NS) == 0) {
        return;
    }
    struct timespec slice = {.tv_nsec = SLICE_NS};
    nanosleep(&slice, NULL);
}

static int64_t wait_done(struct sync_io *wait)
{
    ploop_file *file = wait->io.file;
    if (file->ops.kick) {
        file->ops.kick(file->context, 0);
    }
    if (file->ops.reap) {
        while (!is_done(wait)) {
            sleep_slice(file);
        }
        return wait->result;
    }
    pthread_mutex_lock(&wait->mutex);
    while (!wait->done) {
        pthread_cond_wait(&wait->rung, &wait->mutex);
    }
    pthread_mutex_unlock(&wait->mutex);
    return wait->result;
}

/* Until the backend says something other than "again": bytes, 0 or -errno. */
static int64_t request_once(ploop_file *file, uint32_t op, void *buffer, uint64_t length,
                            uint64_t offset)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct sync_io wait = {.mutex = PTHREAD_MUTEX_INITIALIZER, .rung = PTHREAD_COND_INITIALIZER};
    file_io_init(&wait.io, file, sync_io_done);
    wait.io.pub.op = op;
    wait.io.pub.flags = file->ops.help ? PLOOP_IO_MAY_BLOCK : 0;
    wait.io.pub.offset = offset;
    wait.io.pub.length = length;
    if (buffer) {
        wait.io.pub.iov = &iov;
        wait.io.pub.iov_count = 1;
    }
    int64_t result;
    for (;;) {
        wait.done = false;
        result = file_io_submit(&wait.io);
        if (result == 0) {
            result = wait_done(&wait);
        }
        if (result != -EAGAIN && result != -EINTR) {
            break;
        }
        sleep_slice(file);
    }
    pthread_cond_destroy(&wait.rung);
    pthread_mutex_destroy(&wait.mutex);
    return result;
}

static int get_limits(ploop_file *file, struct sync_limits *limits)
{
    limits->info = (struct ploop_file_info){.size = sizeof(limits->info)};
    int error = ploop_file_info(file, &limits->info);
    if (error) {
        return error;
    }
    limits->alignment = limits->info.request_alignment;
    limits->max_transfer = limits->info.max_transfer ? limits->info.max_transfer : UINT64_MAX;
    return 0;
}

static bool past_end(ploop_file *file, uint64_t offset)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    return ploop_file_info(file, &info) == 0 && offset >= info.file_size;
}

/*
 * All of an aligned READ or WRITE. A read ends early at the end of the file; anything else that
 * stands still is -EIO.
 */
static int64_t transfer(ploop_file *file, const struct sync_limits *limits, uint32_t op,
                        uint8_t *buffer, uint64_t length, uint64_t offset)
{
    uint64_t moved = 0;
    uint32_t slivers = 0; /* results in a row that moved less than a block */
    while (moved < length) {
        uint64_t piece =
            length - moved < limits->max_transfer ? length - moved : limits->max_transfer;
        int64_t result = request_once(file, op, buffer + moved, piece, offset + moved);
        if (result < 0) {
            return result;
        }
        uint64_t bytes = (uint64_t)result;
        if (bytes > piece) {
            return -EIO;
        }
        if (op == PLOOP_IO_READ && bytes < piece && past_end(file, offset + moved + bytes)) {
            return (int64_t)(moved + bytes);
        }
        if (bytes < piece) {
            bytes -=
                bytes %
                limits->alignment; /* the rest is asked for from a place that may be asked for */
        }
        if (bytes == 0 && (result == 0 || ++slivers > SLIVERS_MAX)) {
            return -EIO;
        }
        slivers = bytes ? 0 : slivers;
        moved += bytes;
    }
    return (int64_t)moved;
}

/*
 * Read [start, start + length) of the file into a bounce buffer; what lies past the end of the file
 * is zeros.
 */
static int64_t read_block(ploop_file *file, const struct sync_limits *limits, uint8_t *bounce,
                          uint64_t length, uint64_t start)
{
    int64_t bytes = transfer(file, limits, PLOOP_IO_READ, bounce, length, start);
    if (bytes >= 0) {
        memset(bounce + bytes, 0, length - (uint64_t)bytes);
    }
    return bytes;
}

/*
 * One bufferful of an unaligned request: `length` bytes that begin `head` bytes into an aligned
 * stretch of `stretch` bytes.
 */
static int64_t bounce_piece(ploop_file *file, const struct sync_limits *limits, uint32_t op,
                            uint8_t *bounce, uint8_t *buffer, uint64_t length, uint64_t offset)
{
    uint64_t block = limits->alignment;
    uint64_t head = offset % block;
    uint64_t start = offset - head;
    uint64_t stretch = (head + length + block - 1) / block * block;
    if (op == PLOOP_IO_READ) {
        int64_t bytes = transfer(file, limits, op, bounce, stretch, start);
        if (bytes < 0) {
            return bytes;
        }
        uint64_t useful = (uint64_t)bytes > head ? (uint64_t)bytes - head : 0;
        useful = useful < length ? useful : length;
        memcpy(buffer, bounce + head, useful);
        return (int64_t)useful;
    }
    int64_t error = 0;
    if (head) {
        error = read_block(file, limits, bounce, block, start);
    }
    if (error >= 0 && (head + length) % block && (stretch > block || !head)) {
        error = read_block(file, limits, bounce + stretch - block, block, start + stretch - block);
    }
    if (error < 0) {
        return error;
    }
    memcpy(bounce + head, buffer, length);
    error = transfer(file, limits, op, bounce, stretch, start);
    return error < 0 ? error : (int64_t)length;
}

/*
 * A READ or WRITE that is not aligned, through a buffer that is. Blocks written in part are read,
 * changed and written: no other call writes the file then. Where that made the file longer than the
 * caller's write would have, it is cut back.
 */
static int64_t bounce_transfer(ploop_file *file, const struct sync_limits *limits, uint32_t op,
                               uint8_t *buffer, uint64_t length, uint64_t offset)
{
    uint64_t block = limits->alignment;
    uint64_t size = BOUNCE_BYTES < limits->max_transfer ? BOUNCE_BYTES : limits->max_transfer;
    size = size > block ? size - size % block : block;
    void *bounce = NULL;
    if (posix_memalign(&bounce, block < sizeof(void *) ? sizeof(void *) : block, size)) {
        return -ENOMEM;
    }
    uint64_t moved = 0;
    int64_t result = 0;
    while (moved < length) {
        uint64_t at = offset + moved;
        uint64_t room = size - at % block;
        uint64_t piece = length - moved < room ? length - moved : room;
        result = bounce_piece(file, limits, op, bounce, buffer + moved, piece, at);
        if (result <= 0) {
            break;
        }
        moved += (uint64_t)result;
        if ((uint64_t)result < piece) {
            break;
        }
    }
    free(bounce);
    if (result < 0) {
        return result;
    }
    uint64_t end = offset + length;
    bool longer = op == PLOOP_IO_WRITE && end > limits->info.file_size && end % block;
    if (longer && limits->info.capabilities & PLOOP_FILE_CAN_GROW) {
        result = request_once(file, PLOOP_IO_TRUNCATE, NULL, 0, end);
    }
    return result < 0 ? result : (int64_t)moved;
}

int64_t file_sync_io(ploop_file *file, uint32_t op, void *buffer, uint64_t length, uint64_t offset)
{
    if (offset > INT64_MAX || length > INT64_MAX - offset) {
        return -EINVAL;
    }
    if (op != PLOOP_IO_READ && op != PLOOP_IO_WRITE) {
        int64_t result = request_once(file, op, NULL, length, offset);
        return result < 0 ? result : 0;
    }
    if (length == 0) {
        return 0;
    }
    if (!buffer || length > PTRDIFF_MAX) {
        return -EINVAL; /* no memory is that long */
    }
    struct sync_limits limits;
    int error = get_limits(file, &limits);
    if (error) {
        return error;
    }
    if ((offset | length | (uintptr_t)buffer) % limits.alignment) {
        return bounce_transfer(file, &limits, op, buffer, length, offset);
    }
    return transfer(file, &limits, op, buffer, length, offset);
}

int file_drop_cache(ploop_file *file, int *sync_error)
{
    *sync_error = (int)file_sync_io(file, PLOOP_IO_SYNC, NULL, 0, 0);
    return file->ops.invalidate ? file->ops.invalidate(file->context) : -ENOTSUP;
}

int64_t ploop_file_pread(ploop_file *file, void *buffer, uint64_t length, uint64_t offset)
{
    return file ? file_sync_io(file, PLOOP_IO_READ, buffer, length, offset) : -EINVAL;
}

/* A request that changes or syncs the file, for a caller that is no device. */
static int64_t claimed_io(ploop_file *file, uint32_t op, void *buffer, uint64_t length,
                          uint64_t offset)
{
    if (!file) {
        return -EINVAL;
    }
    int64_t result = file_claim(file, FILE_SHARED);
    if (result == 0) {
        result = file_sync_io(file, op, buffer, length, offset);
        file_give_back(file, FILE_SHARED);
    }
    return result;
}

int64_t ploop_file_pwrite(ploop_file *file, const void *buffer, uint64_t length, uint64_t offset)
{
    return claimed_io(file, PLOOP_IO_WRITE, (void *)(uintptr_t)buffer, length, offset);
}

int ploop_file_truncate(ploop_file *file, uint64_t file_size)
{
    return (int)claimed_io(file, PLOOP_IO_TRUNCATE, NULL, 0, file_size);
}

int ploop_file_sync(ploop_file *file)
{
    return (int)claimed_io(file, PLOOP_IO_SYNC, NULL, 0, 0);
}
