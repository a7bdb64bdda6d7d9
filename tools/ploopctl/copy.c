/* SPDX-License-Identifier: MIT */
/* See copy.h. */
#include "copy.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

void copy_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void fail(struct copy *copy, enum copy_side side, int error, uint64_t offset)
{
    if (copy->error) {
        return;
    }
    copy->error = error;
    copy->error_side = side;
    copy->error_offset = offset;
}

static void free_buffer(struct copy *copy, struct copy_buffer *buffer)
{
    buffer->next = copy->free_buffers;
    copy->free_buffers = buffer;
}

static void free_request(struct copy *copy, struct copy_request *request)
{
    request->next = copy->free_requests;
    copy->free_requests = request;
}

int copy_begin(struct copy *copy, ploop_dev *dev, uint64_t disk_size, struct progress *progress)
{
    *copy = (struct copy){
        .dev = dev, .queue = ploop_dev_queue(dev, 0), .disk_size = disk_size, .progress = progress};
    for (int i = 0; i < COPY_BUFFERS; i++) {
        copy->buffers[i].bytes = aligned_alloc(4096, COPY_BUFFER_BYTES);
        if (!copy->buffers[i].bytes) {
            fail(copy, COPY_SOURCE, -ENOMEM, 0);
        }
        free_buffer(copy, &copy->buffers[i]);
    }
    for (int i = 0; i < COPY_REQUESTS; i++) {
        copy->requests[i].copy = copy;
        copy->requests[i].pio = ploop_pio_get(copy->queue);
        if (!copy->requests[i].pio) {
            fail(copy, COPY_SOURCE, -ENOMEM, 0);
        }
        free_request(copy, &copy->requests[i]);
    }
    return copy->error;
}

void copy_end(struct copy *copy)
{
    for (int i = 0; i < COPY_REQUESTS; i++) {
        ploop_pio_put(copy->requests[i].pio);
    }
    for (int i = 0; i < COPY_BUFFERS; i++) {
        free(copy->buffers[i].bytes);
    }
}

static void request_done(ploop_pio *pio, int result, void *user_data)
{
    struct copy_request *request = user_data;
    struct copy *copy = request->copy;
    struct copy_buffer *buffer = request->buffer;

    (void)pio;
    if (result) {
        fail(copy, copy->target ? COPY_SOURCE : COPY_TARGET, result, request->offset);
    }
    copy->in_flight--;
    if (--buffer->requests == 0) {
        if (copy->target) {
            buffer->next = copy->ready_buffers;
            copy->ready_buffers = buffer;
        } else {
            free_buffer(copy, buffer);
        }
    }
    free_request(copy, request);
}

static void write_ready_buffers(struct copy *copy)
{
    while (copy->ready_buffers) {
        struct copy_buffer *buffer = copy->ready_buffers;
        copy->ready_buffers = buffer->next;
        int64_t written = copy->error ? 0
                                      : ploop_file_pwrite(copy->target, buffer->bytes,
                                                          buffer->length, buffer->offset);
        if (written < 0) {
            fail(copy, COPY_TARGET, (int)written, buffer->offset);
        }
        free_buffer(copy, buffer);
    }
}

/* Sleep until a request completes or work is due, and handle it. Callbacks run only here. */
static void copy_wait(struct copy *copy)
{
    ploop_queue_wait(copy->queue, UINT64_MAX);
    write_ready_buffers(copy);
}

/* A free buffer, or NULL after an error. */
static struct copy_buffer *take_buffer(struct copy *copy)
{
    while (!copy->free_buffers && !copy->error) {
        copy_wait(copy);
    }
    if (interrupted) {
        fail(copy, COPY_TARGET, -EINTR, copy->walked);
    }
    if (copy->error) {
        return NULL;
    }
    struct copy_buffer *buffer = copy->free_buffers;
    copy->free_buffers = buffer->next;
    buffer->requests = 0;
    return buffer;
}

/* Read or write [from, to) of a buffer. After an error no request is started. */
static void start_request(struct copy *copy, struct copy_buffer *buffer, uint32_t from, uint32_t to)
{
    while (!copy->free_requests && !copy->error) {
        copy_wait(copy);
    }
    if (copy->error) {
        return;
    }
    struct copy_request *request = copy->free_requests;
    copy->free_requests = request->next;
    request->buffer = buffer;
    request->offset = buffer->offset + from;
    request->iov = (struct iovec){.iov_base = buffer->bytes + from, .iov_len = to - from};
    if (copy->target) {
        ploop_pio_prep_readv(request->pio, request->offset, &request->iov, 1);
    } else {
        ploop_pio_prep_writev(request->pio, request->offset, &request->iov, 1, 0);
    }
    ploop_pio_set_callback(request->pio, request_done, request);
    buffer->requests++;
    copy->in_flight++;
    int taken = ploop_queue_submit(copy->queue, &request->pio, 1);
    if (taken != 1) {
        request_done(request->pio, taken < 0 ? taken : -EIO, request);
    }
}

static void drain(struct copy *copy)
{
    while (copy->in_flight) {
        copy_wait(copy);
    }
}

static void walked_to(struct copy *copy, uint64_t offset)
{
    copy->walked = offset;
    progress_update(copy->progress, offset);
}

/* Device to raw. */

static void read_extent(struct copy *copy, const struct ploop_extent *extent)
{
    uint64_t end = extent->offset + extent->length;

    while (copy->walked < end) {
        struct copy_buffer *buffer = take_buffer(copy);
        if (!buffer) {
            return;
        }
        uint64_t left = end - copy->walked;
        buffer->offset = copy->walked;
        buffer->length = left < COPY_BUFFER_BYTES ? (uint32_t)left : COPY_BUFFER_BYTES;
        start_request(copy, buffer, 0, buffer->length);
        walked_to(copy, copy->walked + buffer->length);
    }
}

int copy_to_raw(struct copy *copy, ploop_file *target)
{
    struct ploop_extent extent = {.size = sizeof(extent)};

    copy->target = target;
    while (copy->walked < copy->disk_size && !copy->error) {
        int error =
            ploop_bat_lookup(copy->dev, copy->walked, copy->disk_size - copy->walked, &extent);
        if (error) {
            fail(copy, COPY_SOURCE, error, copy->walked);
        } else if (extent.state == PLOOP_EXTENT_MAPPED) {
            read_extent(copy, &extent);
        } else {
            walked_to(copy, copy->walked + extent.length);
        }
    }
    drain(copy);
    return copy->error;
}

/* Raw to device. */

/*
 * The next run of data in a sparse file, from `offset` on: [*from, *to). A file that cannot tell
 * counts as all data. False at the end.
 */
static bool find_data(int fd, uint64_t offset, uint64_t file_size, uint64_t *from, uint64_t *to)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

    *from = data < 0 ? offset : (uint64_t)data;
    *to = file_size;
    if (data < 0 && errno == ENXIO) {
        return false;
    }
    if (data >= 0) {
        off_t hole = lseek(fd, data, SEEK_HOLE);
        *to = hole < 0 || (uint64_t)hole > file_size ? file_size : (uint64_t)hole;
    }
    return *from < *to;
}

/* Fill a window from the file; bytes past the file's end, in its last sector, are zeros. */
static bool fill_buffer(struct copy *copy, struct copy_buffer *buffer, int fd, uint64_t file_size)
{
    uint64_t left = file_size - buffer->offset;
    size_t want = left < buffer->length ? (size_t)left : buffer->length;
    size_t done = 0;

    while (done < want) {
        ssize_t count =
            pread(fd, buffer->bytes + done, want - done, (off_t)(buffer->offset + done));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            fail(copy, COPY_SOURCE, count < 0 ? -errno : -ENODATA, buffer->offset + done);
            return false;
        }
        done += (size_t)count;
    }
    memset(buffer->bytes + want, 0, buffer->length - want);
    return true;
}

static bool is_zero(const uint8_t *bytes, uint32_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* Write the parts of a window that are not zero, adjacent ones in one request. */
static void write_parts(struct copy *copy, struct copy_buffer *buffer, uint32_t part)
{
    uint32_t from = 0; /* of the run of parts that is being collected */

    buffer->requests =
        1; /* the loop's own, so that a request that completes early does not free the buffer */
    for (uint32_t at = 0; at < buffer->length; at += part) {
        uint32_t end = buffer->length - at < part ? buffer->length : at + part;
        if (!is_zero(buffer->bytes + at, end - at)) {
            continue;
        }
        if (from < at) {
            start_request(copy, buffer, from, at);
        }
        from = end;
    }
    if (from < buffer->length) {
        start_request(copy, buffer, from, buffer->length);
    }
    if (--buffer->requests == 0) {
        free_buffer(copy, buffer);
    }
}

static void write_window(struct copy *copy, struct copy_buffer *buffer, int fd, uint64_t file_size,
                         uint32_t part)
{
    uint64_t left = copy->disk_size - copy->walked;

    buffer->offset = copy->walked;
    buffer->length = left < COPY_BUFFER_BYTES ? (uint32_t)left : COPY_BUFFER_BYTES;
    if (fill_buffer(copy, buffer, fd, file_size)) {
        write_parts(copy, buffer, part);
        walked_to(copy, buffer->offset + buffer->length);
    } else {
        free_buffer(copy, buffer);
    }
}

int copy_from_raw(struct copy *copy, int fd, uint64_t file_size, uint32_t part)
{
    uint64_t from, to;

    while (!copy->error && find_data(fd, copy->walked, file_size, &from, &to)) {
        from -= from % part;
        if (from > copy->walked) {
            walked_to(copy, from);
        }
        while (copy->walked < to && !copy->error) {
            struct copy_buffer *buffer = take_buffer(copy);
            if (buffer) {
                write_window(copy, buffer, fd, file_size, part);
            }
        }
    }
    drain(copy);
    return copy->error;
}
