/* SPDX-License-Identifier: MIT */
/*
 * Requests to a device, each carried out in the thread that nbdkit calls with it.
 *
 * nbdkit calls from many threads at once. Each takes a request from a lane's pool, executes it,
 * and puts it back, so that as many are in flight as nbdkit has threads. A lane is a queue of the
 * device; a thread always uses the same one. Through the page cache the thread itself does the I/O
 * (ploop_pio_execute()); with io_uring threads that share a lane share its ring.
 *
 * With direct=1 a request whose memory is not aligned for O_DIRECT, which is how nbdkit allocates
 * it, goes through an aligned buffer of the thread, in pieces of at most BUFFER_BYTES, or of a
 * cluster if that is longer: a cluster that is written whole stays so.
 */
#include "device.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "bundle.h"
#include "complaints.h"

enum { BUFFER_BYTES = 1 << 20, BUFFER_ALIGNMENT = 4096 };

static const char *const request_names[] = {
    [REQUEST_READ] = "read",
    [REQUEST_WRITE] = "write",
    [REQUEST_ZERO] = "zero",
    [REQUEST_DISCARD] = "trim",
};

struct request {
    struct device *device;
    enum request_kind kind;
    uint32_t flags; /* PLOOP_PIO_ ... */
    uint64_t offset;
    struct iovec memory; /* its length counts for requests without memory too */
};

/* ---- lanes ---- */

void lanes_init(struct device *device)
{
    for (uint32_t i = 0; i < LANE_COUNT; i++) {
        device->lanes[i].queue = ploop_dev_queue(device->dev, i);
        sem_init(&device->lanes[i].room, 0, LANE_REQUESTS);
    }
}

void lanes_destroy(struct device *device)
{
    for (uint32_t i = 0; i < LANE_COUNT; i++) {
        sem_destroy(&device->lanes[i].room);
    }
}

/* Threads are assigned to the lanes in turn. */
static struct lane *my_lane(struct device *device)
{
    static atomic_uint threads_seen;
    static _Thread_local uint32_t number; /* plus one; 0: not yet */

    if (!number) {
        number = atomic_fetch_add(&threads_seen, 1) % LANE_COUNT + 1;
    }
    return &device->lanes[number - 1];
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) && errno == EINTR) {
        continue;
    }
}

/* ---- one request ---- */

static void request_prepare(const struct request *request, ploop_pio *pio)
{
    switch (request->kind) {
    case REQUEST_READ:
        ploop_pio_prep_readv(pio, request->offset, &request->memory, 1);
        break;
    case REQUEST_WRITE:
        ploop_pio_prep_writev(pio, request->offset, &request->memory, 1, request->flags);
        break;
    case REQUEST_ZERO:
        ploop_pio_prep_write_zeroes(pio, request->offset, request->memory.iov_len, request->flags);
        break;
    case REQUEST_DISCARD:
        ploop_pio_prep_discard(pio, request->offset, request->memory.iov_len);
        break;
    case REQUEST_FLUSH:
        ploop_pio_prep_flush(pio);
        break;
    }
}

/* Returns its result, 0 or -errno. */
static int request_run(const struct request *request)
{
    struct lane *lane = my_lane(request->device);
    ploop_pio *pio;
    int result;

    if (request->device->split) {
        return split_run(request->device, request->kind, &request->memory, request->offset,
                         request->flags);
    }
    wait_for(&lane->room);
    pio = ploop_pio_get(lane->queue);
    assert(pio);
    request_prepare(request, pio);
    result = ploop_pio_execute(pio);
    ploop_pio_put(pio);
    sem_post(&lane->room);
    return result;
}

static void complain(const struct request *request, int error)
{
    uint64_t count = complaint(request->kind, error, timer_now());
    char more[64] = "";

    if (count == 0) {
        return;
    }
    if (count > 1) {
        snprintf(more, sizeof(more), " (%llu times since the last message)",
                 (unsigned long long)count);
    }
    if (request->kind == REQUEST_FLUSH) {
        nbdkit_error("%s: flush: %s%s", request->device->image, strerror(-error), more);
    } else {
        nbdkit_error("%s: %s of %zu bytes at %llu: %s%s", request->device->image,
                     request_names[request->kind], request->memory.iov_len,
                     (unsigned long long)request->offset, strerror(-error), more);
    }
}

/* A refused fast zero is an expected answer to the client, so it causes no message. */
static int request_finish(const struct request *request)
{
    int error = request_run(request);

    if (!error) {
        return 0;
    }
    if (error != -ENOTSUP) {
        complain(request, error);
    }
    nbdkit_set_error(-error);
    return -1;
}

/* ---- a thread's aligned buffer ---- */

static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static pthread_key_t buffer_key;
static bool buffer_key_made;

struct buffer {
    size_t size;
    void *memory;
};

static void free_buffer(void *argument)
{
    struct buffer *buffer = argument;

    free(buffer->memory);
    free(buffer);
}

static void make_buffer_key(void)
{
    buffer_key_made = pthread_key_create(&buffer_key, free_buffer) == 0;
}

/* Buffers of threads that still run are lost: nbdkit ends them before it unloads a plugin. */
void buffers_end(void)
{
    if (buffer_key_made) {
        void *mine = pthread_getspecific(buffer_key);

        if (mine) {
            free_buffer(mine);
        }
        pthread_key_delete(buffer_key);
    }
}

/* At least `size` bytes, this thread's until the next call; NULL: no memory. */
static void *my_buffer(size_t size)
{
    struct buffer *buffer;

    pthread_once(&buffer_once, make_buffer_key);
    buffer = buffer_key_made ? pthread_getspecific(buffer_key) : NULL;
    if (!buffer) {
        buffer = buffer_key_made ? calloc(1, sizeof(*buffer)) : NULL;
        if (!buffer || pthread_setspecific(buffer_key, buffer)) {
            free(buffer);
            return NULL;
        }
    }
    if (buffer->size < size) {
        free(buffer->memory);
        buffer->size = 0;
        if (posix_memalign(&buffer->memory, BUFFER_ALIGNMENT, size)) {
            buffer->memory = NULL;
            return NULL;
        }
        buffer->size = size;
    }
    return buffer->memory;
}

/* A read or write whose memory does not fit direct I/O. Without a buffer it is as it is. */
static int request_finish_aligned(struct request *request)
{
    const struct iovec own = request->memory;
    int result;
    void *buffer = my_buffer(own.iov_len);

    if (!buffer) {
        return request_finish(request);
    }
    if (request->kind == REQUEST_WRITE) {
        memcpy(buffer, own.iov_base, own.iov_len);
    }
    request->memory.iov_base = buffer;
    result = request_finish(request);
    if (!result && request->kind == REQUEST_READ) {
        memcpy(own.iov_base, buffer, own.iov_len);
    }
    return result;
}

/* ---- requests of any length ---- */

static bool needs_buffer(const struct device *device, const uint8_t *memory)
{
    return device->config->direct && memory && (uintptr_t)memory % BUFFER_ALIGNMENT;
}

/* How much of what is left goes into one request: the device's limit, or that of a buffer. */
static uint64_t piece_of(const struct device *device, bool buffered, uint64_t offset, uint64_t left)
{
    uint64_t most = device->info.max_request_bytes;

    if (buffered) {
        uint64_t border =
            device->info.cluster_size > BUFFER_BYTES ? device->info.cluster_size : BUFFER_BYTES;

        border -= offset % border;
        most = border < most ? border : most;
    }
    return left < most ? left : most;
}

static int run_range(struct device *device, enum request_kind kind, void *memory, uint64_t length,
                     uint64_t offset, uint32_t flags)
{
    const uint32_t alignment = device->info.request_alignment;
    const bool buffered = needs_buffer(device, memory);

    if (offset % alignment || length % alignment) {
        nbdkit_error("%s: %s of %llu bytes at %llu: not aligned to %u bytes", device->image,
                     request_names[kind], (unsigned long long)length, (unsigned long long)offset,
                     alignment);
        nbdkit_set_error(EINVAL);
        return -1;
    }
    for (uint64_t done = 0; done < length;) {
        uint64_t piece = piece_of(device, buffered, offset + done, length - done);
        struct request request = {
            .device = device,
            .kind = kind,
            .flags = flags,
            .offset = offset + done,
            .memory = {.iov_base = memory ? (uint8_t *)memory + done : NULL, .iov_len = piece},
        };

        if (buffered ? request_finish_aligned(&request) : request_finish(&request)) {
            return -1;
        }
        done += piece;
    }
    return 0;
}

int device_read(struct device *device, void *buffer, uint64_t length, uint64_t offset)
{
    return run_range(device, REQUEST_READ, buffer, length, offset, 0);
}

int device_write(struct device *device, const void *buffer, uint64_t length, uint64_t offset,
                 uint32_t flags)
{
    /* An iovec knows no const. */
    return run_range(device, REQUEST_WRITE, (void *)(uintptr_t)buffer, length, offset, flags);
}

int device_write_zeroes(struct device *device, uint64_t length, uint64_t offset, uint32_t flags)
{
    return run_range(device, REQUEST_ZERO, NULL, length, offset, flags);
}

int device_discard(struct device *device, uint64_t length, uint64_t offset)
{
    return run_range(device, REQUEST_DISCARD, NULL, length, offset, 0);
}

int device_flush(struct device *device)
{
    const struct request request = {.device = device, .kind = REQUEST_FLUSH};

    return request_finish(&request);
}
