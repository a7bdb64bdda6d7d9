/* SPDX-License-Identifier: MIT */
/* See copy.h. */
#include "copy.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* A piece of the window that is to be read or written. */
struct piece {
    struct worker *worker;
    enum copy_side side;
    ploop_pio *pio; /* NULL: the disk is a raw file */
    struct iovec iov;
    uint64_t offset; /* in the disk */
    int result;      /* of a read; 0 or -errno */
};

struct worker {
    struct copy *copy;
    ploop_queue *source, *target; /* NULL: a raw file */
    struct data_window window;
    uint64_t window_number;
    uint8_t *bytes; /* of the window */
    struct piece read;
    struct piece runs[COPY_REQUESTS];
    uint32_t run_count;
    uint32_t in_flight;
    pthread_t thread;
};

static atomic_bool is_interrupted;

void copy_interrupt(int signal)
{
    (void)signal;
    is_interrupted = true;
}

static void fail_locked(struct copy *copy, enum copy_side side, int error, uint64_t offset)
{
    if (!copy->error) {
        copy->error = error;
        copy->error_side = side;
        copy->error_offset = offset;
    }
}

static void fail(struct copy *copy, enum copy_side side, int error, uint64_t offset)
{
    pthread_mutex_lock(&copy->lock);
    fail_locked(copy, side, error, offset);
    pthread_mutex_unlock(&copy->lock);
}

static bool has_failed(struct copy *copy)
{
    pthread_mutex_lock(&copy->lock);
    bool failed = copy->error != 0;
    pthread_mutex_unlock(&copy->lock);
    return failed;
}

/* ---- Requests to a device ---- */

static void request_done(ploop_pio *pio, int result, void *user_data)
{
    struct piece *piece = user_data;

    (void)pio;
    piece->worker->in_flight--;
    piece->result = result;
    if (result && piece->side == COPY_TARGET) {
        fail(piece->worker->copy, piece->side, result, piece->offset);
    }
}

static void submit(struct worker *worker, ploop_queue *queue, struct piece *pieces, uint32_t count)
{
    ploop_pio *pios[COPY_REQUESTS] = {NULL};

    for (uint32_t i = 0; i < count; i++) {
        pios[i] = pieces[i].pio;
    }
    worker->in_flight = count;
    int taken = ploop_queue_submit(queue, pios, count);
    for (uint32_t i = taken < 0 ? 0 : (uint32_t)taken; i < count; i++) {
        request_done(NULL, taken < 0 ? taken : -EINVAL, &pieces[i]);
    }
}

static void wait_for_requests(struct worker *worker, ploop_queue *queue)
{
    while (worker->in_flight) {
        ploop_queue_wait(queue, UINT64_MAX);
    }
}

static void set_piece(struct worker *worker, struct piece *piece, uint32_t from, uint32_t to)
{
    piece->iov = (struct iovec){.iov_base = worker->bytes + from, .iov_len = to - from};
    piece->offset = worker->window.offset + from;
}

/* ---- A window ---- */

/* What the map cannot tell is lost up to the end of its cluster. */
static void lose_cluster(struct copy *copy)
{
    struct data_walk *walk = &copy->walk;
    uint64_t left = walk->disk_size - walk->at;
    uint64_t in_cluster = copy->cluster_size - walk->at % copy->cluster_size;
    uint64_t length = in_cluster < left ? in_cluster : left;
    int error = lost_add(&copy->lost, walk->at, length);

    if (error) {
        fail_locked(copy, COPY_SOURCE, error, walk->at);
    }
    data_skip(walk, walk->at + length);
}

static int next_window(struct copy *copy, struct data_window *window)
{
    int result = data_next(&copy->walk, window);

    while (result == -EIO && copy->salvages && !copy->error) {
        lose_cluster(copy);
        result = data_next(&copy->walk, window);
    }
    return result;
}

static bool take_window(struct worker *worker)
{
    struct copy *copy = worker->copy;
    bool has_window = false;

    pthread_mutex_lock(&copy->lock);
    if (is_interrupted) {
        fail_locked(copy, COPY_TARGET, -EINTR, copy->walk.at);
    }
    if (!copy->error) {
        int result = next_window(copy, &worker->window);
        has_window = result > 0;
        worker->window_number = copy->windows_taken;
        copy->windows_taken += has_window;
        if (result < 0) {
            fail_locked(copy, COPY_SOURCE, result, copy->walk.at);
        }
        progress_update(copy->progress, copy->walk.at);
    }
    pthread_mutex_unlock(&copy->lock);
    return has_window;
}

/* ---- Reading ---- */

/* `length` bytes of the window, `from` bytes into it. 0 or -errno. */
static int read_raw(struct worker *worker, uint32_t from, uint32_t length)
{
    const struct copy_disk *disk = &worker->copy->source;
    uint64_t offset = worker->window.offset + from;

    if (disk->read) {
        return disk->read(worker->bytes + from, length, offset);
    }
    uint64_t left = disk->file_size > offset ? disk->file_size - offset : 0;
    uint32_t wanted = left < length ? (uint32_t)left : length;
    int64_t count = ploop_file_pread(disk->file, worker->bytes + from, wanted, offset);

    memset(worker->bytes + from + wanted, 0, length - wanted);
    return count < 0 ? (int)count : count < wanted ? -ENODATA : 0;
}

static int read_device(struct worker *worker, uint32_t from, uint32_t length)
{
    struct piece *piece = &worker->read;

    set_piece(worker, piece, from, from + length);
    ploop_pio_prep_readv(piece->pio, piece->offset, &piece->iov, 1);
    submit(worker, worker->source, piece, 1);
    wait_for_requests(worker, worker->source);
    return piece->result;
}

static void lose(struct worker *worker, uint32_t from, uint32_t length)
{
    struct copy *copy = worker->copy;
    uint64_t offset = worker->window.offset + from;

    memset(worker->bytes + from, 0, length);
    pthread_mutex_lock(&copy->lock);
    int error = lost_add(&copy->lost, offset, length);
    if (error) {
        fail_locked(copy, COPY_SOURCE, error, offset);
    }
    pthread_mutex_unlock(&copy->lock);
}

/* The largest power of two that is less than `length`, which is more than a sector. */
static uint32_t half_of(uint32_t length)
{
    uint32_t half = PLOOP_SECTOR_SIZE;

    while (2 * half < length) {
        half *= 2;
    }
    return half;
}

/*
 * Read a part of the window; where that fails, a salvage reads its halves. Not deep: a window has
 * 2^11 sectors.
 */
static void read_part(struct worker *worker, uint32_t from, uint32_t length)
{
    int error = worker->source ? read_device(worker, from, length) : read_raw(worker, from, length);

    if (!error) {
        return;
    }
    bool can_lose = worker->copy->salvages && (error == -EIO || error == -ENODATA);
    if (!can_lose) {
        fail(worker->copy, COPY_SOURCE, error, worker->window.offset + from);
    } else if (length <= PLOOP_SECTOR_SIZE) {
        lose(worker, from, length);
    } else if (!has_failed(worker->copy) && !is_interrupted) {
        uint32_t half = half_of(length);
        read_part(worker, from, half);
        read_part(worker, from + half, length - half);
    }
}

/* ---- Writing ---- */

/* With the C library's memcmp(), which uses the vector instructions of the machine it runs on. */
static bool is_zero(const uint8_t *block, uint32_t length)
{
    static const uint8_t zeros[DATA_BLOCK_BYTES];

    return memcmp(block, zeros, length) == 0;
}

static void add_run(struct worker *worker, uint32_t from, uint32_t to)
{
    struct piece *run = &worker->runs[worker->run_count++];

    set_piece(worker, run, from, to);
    if (run->pio) {
        ploop_pio_prep_writev(run->pio, run->offset, &run->iov, 1, 0);
    }
}

/* Find the blocks of the window that are not zeros; adjacent ones are one run. */
static void find_runs(struct worker *worker)
{
    uint32_t length = worker->window.length;
    uint32_t from = 0; /* of the run that is being collected */

    worker->run_count = 0;
    for (uint32_t at = 0; at < length; at += DATA_BLOCK_BYTES) {
        uint32_t end = length - at < DATA_BLOCK_BYTES ? length : at + DATA_BLOCK_BYTES;
        if (!is_zero(worker->bytes + at, end - at)) {
            continue;
        }
        if (from < at) {
            add_run(worker, from, at);
        }
        from = end;
    }
    if (from < length) {
        add_run(worker, from, length);
    }
}

static void write_raw(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->run_count && !has_failed(worker->copy); i++) {
        const struct piece *run = &worker->runs[i];
        int64_t result = ploop_file_pwrite(worker->copy->target.file, run->iov.iov_base,
                                           run->iov.iov_len, run->offset);
        if (result < 0) {
            fail(worker->copy, COPY_TARGET, (int)result, run->offset);
        }
    }
}

/* ---- A stream ---- */

static void stream_bytes(struct copy *copy, const uint8_t *bytes, uint64_t length)
{
    while (length && !has_failed(copy)) {
        ssize_t count = write(copy->target.stream, bytes, length);
        if (count < 0 && (errno != EINTR || is_interrupted)) {
            fail(copy, COPY_TARGET, -errno, copy->streamed);
        }
        uint64_t done = count < 0 ? 0 : (uint64_t)count;
        bytes += done;
        length -= done;
        copy->streamed += done;
    }
}

/* Up to `end` in the disk. */
static void stream_zeros(struct copy *copy, uint64_t end)
{
    static const uint8_t zeros[DATA_WINDOW_BYTES];

    while (copy->streamed < end && !has_failed(copy)) {
        uint64_t left = end - copy->streamed;
        stream_bytes(copy, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
    }
}

/* ---- In the order of the windows ---- */

/* Submit the window's runs, or write it to the stream. */
static void write_in_turn(struct worker *worker)
{
    const struct data_window *window = &worker->window;

    if (worker->copy->target.is_stream) {
        stream_zeros(worker->copy, window->offset);
        stream_bytes(worker->copy, worker->bytes, window->length);
    } else if (worker->run_count) {
        submit(worker, worker->target, worker->runs, worker->run_count);
    }
}

/* Wait for the window's turn: copy.h, 4. After an error only let the next window in. */
static void take_turn(struct worker *worker)
{
    struct copy *copy = worker->copy;

    pthread_mutex_lock(&copy->lock);
    while (copy->windows_submitted != worker->window_number) {
        pthread_cond_wait(&copy->submitted, &copy->lock);
    }
    bool failed = copy->error != 0;
    pthread_mutex_unlock(&copy->lock);
    if (!failed) {
        write_in_turn(worker);
    }
    pthread_mutex_lock(&copy->lock);
    copy->windows_submitted++;
    pthread_cond_broadcast(&copy->submitted);
    pthread_mutex_unlock(&copy->lock);
}

/* ---- The workers ---- */

static void *work(void *argument)
{
    struct worker *worker = argument;

    while (take_window(worker)) {
        read_part(worker, 0, worker->window.length);
        find_runs(worker);
        if (worker->target) {
            take_turn(worker);
            wait_for_requests(worker, worker->target);
        } else if (worker->copy->target.is_stream) {
            take_turn(worker);
        } else {
            write_raw(worker);
        }
    }
    return NULL;
}

static int get_pio(struct worker *worker, struct piece *piece, enum copy_side side,
                   ploop_queue *queue)
{
    *piece = (struct piece){.worker = worker, .side = side};
    if (!queue) {
        return 0;
    }
    piece->pio = ploop_pio_get(queue);
    if (!piece->pio) {
        return -ENOMEM;
    }
    ploop_pio_set_callback(piece->pio, request_done, piece);
    return 0;
}

static void worker_end(struct worker *worker)
{
    ploop_pio_put(worker->read.pio);
    for (int i = 0; i < COPY_REQUESTS; i++) {
        ploop_pio_put(worker->runs[i].pio);
    }
    free(worker->bytes);
}

static ploop_queue *queue_of(const struct copy_disk *disk, uint32_t number)
{
    return disk->dev ? ploop_dev_queue(disk->dev, number) : NULL;
}

static int worker_begin(struct worker *worker, struct copy *copy, uint32_t number)
{
    *worker = (struct worker){.copy = copy,
                              .source = queue_of(&copy->source, number),
                              .target = queue_of(&copy->target, number)};
    worker->bytes = aligned_alloc(DATA_BLOCK_BYTES, DATA_WINDOW_BYTES);
    int error = worker->bytes ? 0 : -ENOMEM;
    if (!error) {
        error = get_pio(worker, &worker->read, COPY_SOURCE, worker->source);
    }
    for (int i = 0; i < COPY_REQUESTS && !error; i++) {
        error = get_pio(worker, &worker->runs[i], COPY_TARGET, worker->target);
    }
    if (!error) {
        error = -pthread_create(&worker->thread, NULL, work, worker);
    }
    if (error) {
        worker_end(worker);
    }
    return error;
}

int copy_run(struct copy *copy)
{
    struct worker workers[COPY_WORKERS];
    uint32_t started = 0;
    int error = 0;

    pthread_mutex_init(&copy->lock, NULL);
    pthread_cond_init(&copy->submitted, NULL);
    while (started < COPY_WORKERS && !error) {
        error = worker_begin(&workers[started], copy, started);
        started += !error;
    }
    if (!started) {
        fail(copy, COPY_SOURCE, error, 0);
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        worker_end(&workers[i]);
    }
    if (copy->target.is_stream) {
        stream_zeros(copy, copy->walk.disk_size);
    }
    pthread_cond_destroy(&copy->submitted);
    pthread_mutex_destroy(&copy->lock);
    return copy->error;
}
