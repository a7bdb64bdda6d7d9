/* SPDX-License-Identifier: MIT */
/*
 * The one device of a server process: CLOSED until the first connection, then OPEN until the server ends.
 *
 * nbdkit calls from many threads at once. Each takes a request from a lane's pool, submits it and sleeps until its callback, so
 * that as many requests are in flight as nbdkit has threads. A lane is a queue of the device; a thread always uses the same one.
 *
 * open_lock guards the step from CLOSED to OPEN and is never held around a request. What open sets does not change afterwards.
 */
#include "device.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "timer.h"

enum { LANE_COUNT = 4, LANE_REQUESTS = 64 };

#define NS_PER_MS UINT64_C(1000000)

/* A queue of the device, and how many requests its pool has: whoever took one from `room` finds one there. */
struct lane {
    ploop_queue *queue;
    sem_t room;
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct server_config *server;
static ploop_file *file;
static ploop_dev *device; /* NULL: CLOSED */
static struct ploop_dev_info info;
static struct lane lanes[LANE_COUNT];

/* ---- open and close ---- */

static int fail(const struct server_config *config, const char *what, int err, const char *why)
{
    nbdkit_error("%s: %s: %s", config->image, what, why);
    nbdkit_set_error(-err);
    return -1;
}

static int open_file(const struct server_config *config, uint32_t flags, ploop_file **opened)
{
    int err = ploop_file_open_posix(config->image, flags | (config->direct ? PLOOP_FILE_DIRECT : 0), opened);
    const char *why;

    if (!err) {
        return 0;
    }
    if (err == -EAGAIN) {
        why = "another process has it open";
    } else if (err == -EINVAL && config->direct) {
        why = "its file system cannot bypass the page cache, as direct=1 asks";
    } else {
        why = strerror(-err);
    }
    return fail(config, "cannot open", err, why);
}

/* What the image itself is reproached with. */
static const char *explain(int err)
{
    switch (err) {
    case -EAGAIN:
    case -EBUSY:
        return "another process has it open";
    case -EUCLEAN:
        return "not closed cleanly, or damaged: check it (ploopctl check), or try recover=1";
    case -EINVAL:
        return "not a ploop image";
    default:
        return strerror(-err);
    }
}

int device_probe(const struct server_config *config)
{
    struct ploop_image_info image = {.size = sizeof(image)};
    ploop_file *probed;
    int err;

    /* Whoever writes to the image excludes a reader too. */
    if (open_file(config, PLOOP_FILE_READ_ONLY, &probed)) {
        return -1;
    }
    err = ploop_image_probe(probed, &image);
    ploop_file_close(probed);
    if (err) {
        return fail(config, "cannot be served", err, image.message[0] ? image.message : explain(err));
    }
    if ((image.flags & PLOOP_IMAGE_IN_USE) && !config->recover) {
        nbdkit_error("%s: warning: not closed cleanly: to be served with recover=1, or read-only (-r)", config->image);
    }
    return 0;
}

static void device_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    const struct server_config *config = user_data;

    (void)message_id;
    if (level == PLOOP_LOG_ERROR) {
        nbdkit_error("%s: %s", config->image, text);
    } else if (level == PLOOP_LOG_WARNING) {
        nbdkit_error("%s: warning: %s", config->image, text);
    } else {
        nbdkit_debug("%s: %s", config->image, text);
    }
}

static int start_lanes(ploop_dev *opened)
{
    uint32_t i;
    int err;

    info = (struct ploop_dev_info){.size = sizeof(info)};
    err = ploop_dev_info(opened, &info);
    for (i = 0; i < LANE_COUNT; i++) {
        lanes[i].queue = ploop_dev_queue(opened, i);
        sem_init(&lanes[i].room, 0, LANE_REQUESTS);
    }
    return err ? err : timer_start(opened);
}

static void destroy_lanes(void)
{
    uint32_t i;

    for (i = 0; i < LANE_COUNT; i++) {
        sem_destroy(&lanes[i].room);
    }
}

static int open_device(const struct server_config *config, bool read_only)
{
    struct ploop_dev_config dev_config;
    ploop_dev *opened;
    int err;

    if (open_file(config, read_only ? PLOOP_FILE_READ_ONLY : PLOOP_FILE_READ_WRITE, &file)) {
        return -1;
    }
    ploop_dev_config_init(&dev_config, sizeof(dev_config));
    dev_config.flags = (read_only ? PLOOP_DEV_READ_ONLY : 0u) | (config->recover ? PLOOP_DEV_RECOVER : 0u);
    dev_config.queue_count = LANE_COUNT;
    dev_config.pio_count = LANE_REQUESTS;
    dev_config.writeback_delay_ns = config->delay_ms * NS_PER_MS;
    dev_config.writeback_max_age_ns = config->max_age_ms * NS_PER_MS;
    dev_config.clock = &timer_clock;
    dev_config.log = device_log;
    dev_config.user_data = (void *)(uintptr_t)config;
    err = ploop_dev_open(&file, 1, &dev_config, &opened);
    if (err) {
        goto fail_open;
    }
    err = start_lanes(opened);
    if (err) {
        goto fail_start;
    }
    server = config;
    device = opened;
    return 0;

fail_start:
    destroy_lanes();
    ploop_dev_close(opened);
fail_open:
    ploop_file_close(file);
    return fail(config, "cannot open", err, explain(err));
}

int device_open(const struct server_config *config, bool read_only)
{
    int result = 0;

    pthread_mutex_lock(&open_lock);
    if (!device) {
        result = open_device(config, read_only);
    }
    pthread_mutex_unlock(&open_lock);
    return result;
}

void device_close(void)
{
    int err;

    if (!device) {
        return;
    }
    timer_stop();
    err = ploop_dev_close(device);
    if (err) {
        nbdkit_error("%s: not everything reached the disk, next time it needs recover=1: %s", server->image, strerror(-err));
    }
    device = NULL;
    destroy_lanes();
    ploop_file_close(file);
}

const struct ploop_dev_info *device_info(void)
{
    return &info;
}

int device_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent)
{
    int err = ploop_bat_lookup(device, offset, length, extent);

    if (err == -EIO) {
        uint64_t to_border = info.cluster_size - offset % info.cluster_size;

        extent->offset = offset;
        extent->length = to_border < length ? to_border : length;
        extent->state = PLOOP_EXTENT_MAPPED;
        return 0;
    }
    return err ? fail(server, "cannot look up the map", err, strerror(-err)) : 0;
}

/* ---- requests ---- */

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO, REQUEST_DISCARD, REQUEST_FLUSH };

static const char *const request_names[] = {
    [REQUEST_READ] = "read",
    [REQUEST_WRITE] = "write",
    [REQUEST_ZERO] = "zero",
    [REQUEST_DISCARD] = "trim",
};

/* One request, on the stack of the thread that waits for it. */
struct request {
    enum request_kind kind;
    uint32_t flags; /* PLOOP_PIO_ ... */
    uint64_t offset;
    struct iovec memory; /* its length counts for requests without memory too */
    sem_t done;
    int result;
};

/* Threads are dealt to the lanes in turn. */
static struct lane *my_lane(void)
{
    static atomic_uint threads_seen;
    static _Thread_local struct lane *lane;

    if (!lane) {
        lane = &lanes[atomic_fetch_add(&threads_seen, 1) % LANE_COUNT];
    }
    return lane;
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) && errno == EINTR) {
        continue;
    }
}

static void request_done(ploop_pio *pio, int result, void *user_data)
{
    struct request *request = user_data;

    (void)pio;
    request->result = result;
    sem_post(&request->done); /* the request may be gone from here on: it is on the stack of the thread that this wakes */
}

static void request_prepare(struct request *request, ploop_pio *pio)
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
    ploop_pio_set_callback(pio, request_done, request);
}

/* Send a request and sleep until it is done. Returns its result, 0 or -errno. */
static int request_run(struct request *request)
{
    struct lane *lane = my_lane();
    ploop_pio *pio;
    int taken;

    wait_for(&lane->room);
    pio = ploop_pio_get(lane->queue);
    assert(pio);
    sem_init(&request->done, 0, 0);
    request_prepare(request, pio);
    taken = ploop_queue_submit(lane->queue, &pio, 1);
    if (taken == 1) {
        wait_for(&request->done);
    } else {
        request->result = taken;
    }
    sem_destroy(&request->done);
    ploop_pio_put(pio);
    sem_post(&lane->room);
    return request->result;
}

/* A fast zero refused is an answer that the client reckons with, and no message. */
static int request_finish(struct request *request)
{
    int err = request_run(request);

    if (!err) {
        return 0;
    }
    if (request->kind == REQUEST_FLUSH) {
        nbdkit_error("%s: flush: %s", server->image, strerror(-err));
    } else if (err != -ENOTSUP) {
        nbdkit_error("%s: %s of %zu bytes at %llu: %s", server->image, request_names[request->kind], request->memory.iov_len,
                     (unsigned long long)request->offset, strerror(-err));
    }
    nbdkit_set_error(-err);
    return -1;
}

/* A range, in as many requests as the device's limit makes of it. */
static int run_range(enum request_kind kind, void *buffer, uint64_t length, uint64_t offset, uint32_t flags)
{
    const uint32_t alignment = info.request_alignment;

    if (offset % alignment || length % alignment) {
        nbdkit_error("%s: %s of %llu bytes at %llu: not aligned to %u bytes", server->image, request_names[kind],
                     (unsigned long long)length, (unsigned long long)offset, alignment);
        nbdkit_set_error(EINVAL);
        return -1;
    }
    for (uint64_t done = 0; done < length;) {
        uint64_t part = length - done < info.max_request_bytes ? length - done : info.max_request_bytes;
        struct request request = {
            .kind = kind,
            .flags = flags,
            .offset = offset + done,
            .memory = {.iov_base = buffer ? (uint8_t *)buffer + done : NULL, .iov_len = part},
        };

        if (request_finish(&request)) {
            return -1;
        }
        done += part;
    }
    return 0;
}

int device_read(void *buffer, uint64_t length, uint64_t offset)
{
    return run_range(REQUEST_READ, buffer, length, offset, 0);
}

int device_write(const void *buffer, uint64_t length, uint64_t offset, uint32_t flags)
{
    /* An iovec knows no const. */
    return run_range(REQUEST_WRITE, (void *)(uintptr_t)buffer, length, offset, flags);
}

int device_write_zeroes(uint64_t length, uint64_t offset, uint32_t flags)
{
    return run_range(REQUEST_ZERO, NULL, length, offset, flags);
}

int device_discard(uint64_t length, uint64_t offset)
{
    return run_range(REQUEST_DISCARD, NULL, length, offset, 0);
}

int device_flush(void)
{
    struct request request = {.kind = REQUEST_FLUSH};

    return request_finish(&request);
}
