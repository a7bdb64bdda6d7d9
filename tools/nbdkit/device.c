/* SPDX-License-Identifier: MIT */
/*
 * The one device of a server process: CLOSED until the first connection, then OPEN until the server
 * ends.
 *
 * nbdkit calls from many threads at once. Each takes a request from a lane's pool, submits it and
 * waits for its callback, so that as many requests are in flight as nbdkit has threads. A lane is a
 * queue of the device; a thread always uses the same one. If threads share a lane, one of the
 * waiting threads runs the queue for all of them (`run_by_one`), and the others sleep; it hands
 * this role on when its own request is done.
 *
 * open_lock guards the step from CLOSED to OPEN and is never held around a request. Variables that
 * open sets do not change afterwards.
 */
#include "device.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "complaints.h"
#include "timer.h"

enum { LANE_COUNT = 16, LANE_REQUESTS = 16 };

#define NS_PER_MS UINT64_C(1000000)

/*
 * A queue of the device, and the number of requests in its pool: a thread that has taken one from
 * `room` finds a request there.
 */
struct lane {
    ploop_queue *queue;
    sem_t room;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool run_by_one;
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct server_config *server;
static ploop_file *files[BASES_MAX + 1]; /* of the stack, the lowest first; NULL: not open */
static ploop_uring *group;               /* of the files; NULL: each has rings of its own */
static ploop_dev *device;                /* NULL: CLOSED */
static struct ploop_dev_info info;
static struct lane lanes[LANE_COUNT];

/* ---- open and close ---- */

static int fail(const char *path, const char *what, int error, const char *why)
{
    nbdkit_error("%s: %s: %s", path, what, why);
    nbdkit_set_error(-error);
    return -1;
}

/* The name of a file of the stack. */
static const char *path_of(const struct server_config *config, uint32_t level)
{
    return level < config->base_count ? config->bases[level] : config->image;
}

static bool is_raw(const struct server_config *config, uint32_t level)
{
    return level == 0 && config->has_raw_base;
}

/* Without io_uring the server goes on with the other backend, and says so once. */
static int open_with_backend(const struct server_config *config, const char *path, uint32_t flags,
                             ploop_file **file)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    int error = config->uring ? ploop_file_open_uring(path, flags, group, file) : -ENOSYS;

    if (error != -ENOSYS) {
        return error;
    }
    if (config->uring_asked && !atomic_flag_test_and_set(&told)) {
        nbdkit_error("warning: io_uring is not available: using backend=posix");
    }
    return ploop_file_open_posix(path, flags, file);
}

static int open_file(const struct server_config *config, uint32_t level, uint32_t flags)
{
    int error = open_with_backend(config, path_of(config, level),
                                  flags | (config->direct ? PLOOP_FILE_DIRECT : 0), &files[level]);
    const char *why;

    if (!error) {
        return 0;
    }
    files[level] = NULL;
    if (error == -EAGAIN) {
        why = "another process has it open";
    } else if (error == -EINVAL && config->direct) {
        why = "the file system does not support direct=1";
    } else {
        why = strerror(-error);
    }
    return fail(path_of(config, level), "cannot open", error, why);
}

static void close_files(const struct server_config *config)
{
    for (uint32_t level = 0; level <= config->base_count; level++) {
        ploop_file_close(files[level]);
        files[level] = NULL;
    }
    ploop_uring_close(group);
    group = NULL;
}

/* Explains an error caused by the image itself. */
static const char *explain(int error)
{
    switch (error) {
    case -EAGAIN:
        return "another process has it open";
    case -EBUSY:
        return "part of it stays in the page cache, which may show data that the disk has lost; "
               "end the programs that map the file, or use recover=cached";
    case -EUCLEAN:
        return "not closed cleanly, or damaged; run ploopctl check, or use recover=1";
    case -EINVAL:
        return "not a ploop image";
    default:
        return strerror(-error);
    }
}

/* In a stack a line begins with the file's number, 0 the lowest; the file's name is clearer. */
static void device_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    const struct server_config *config = user_data;
    const char *path = config->image;
    unsigned number;
    int length = 0;

    (void)message_id;
    if (sscanf(text, "delta %u: %n", &number, &length) == 1 && length &&
        number <= config->base_count) {
        path = path_of(config, number);
        text += length;
    }
    if (level == PLOOP_LOG_ERROR) {
        nbdkit_error("%s: %s", path, text);
    } else if (level == PLOOP_LOG_WARNING) {
        nbdkit_error("%s: warning: %s", path, text);
    } else {
        nbdkit_debug("%s: %s", path, text);
    }
}

static void init_dev_config(const struct server_config *config, bool read_only,
                            struct ploop_dev_config *dev_config)
{
    ploop_dev_config_init(dev_config, sizeof(*dev_config));
    dev_config->flags = (read_only ? PLOOP_DEV_READ_ONLY : 0u) |
                        (config->recover ? PLOOP_DEV_RECOVER : 0u) |
                        (config->recover_cached ? PLOOP_DEV_RECOVER_CACHED : 0u) |
                        (config->has_raw_base ? PLOOP_DEV_RAW_BASE : 0u) |
                        (config->host_shows_stale ? PLOOP_DEV_HOST_SHOWS_STALE : 0u);
    dev_config->log = device_log;
    dev_config->user_data = (void *)(uintptr_t)config;
}

static int probe_file(const struct server_config *config, uint32_t level)
{
    struct ploop_image_info image = {.size = sizeof(image)};
    int error;

    /* A program that writes to a file locks readers out too. */
    if (open_file(config, level, PLOOP_FILE_READ_ONLY)) {
        return -1;
    }
    error = is_raw(config, level) ? 0 : ploop_image_probe(files[level], &image);
    if (error) {
        return fail(path_of(config, level), "cannot serve", error,
                    image.message[0] ? image.message : explain(error));
    }
    if ((image.flags & PLOOP_IMAGE_IN_USE) && !config->recover) {
        nbdkit_error("%s: warning: not closed cleanly; use recover=1, or -r to serve it read-only",
                     path_of(config, level));
    }
    return 0;
}

/* Files with valid headers may not fit together; the log then has the reason. */
static int probe_stack(const struct server_config *config)
{
    struct ploop_dev_config dev_config;
    ploop_dev *probed;
    int error;

    init_dev_config(config, true, &dev_config);
    error = ploop_dev_open(files, config->base_count + 1, &dev_config, &probed);
    ploop_dev_close(probed);
    if (error && error != -EUCLEAN) {
        fail(config->image, "cannot serve", error, explain(error));
    }
    return error ? -1 : 0;
}

int device_probe(const struct server_config *config)
{
    int result = 0;

    for (uint32_t level = 0; level <= config->base_count && !result; level++) {
        result = probe_file(config, level);
    }
    if (!result && config->base_count) {
        result = probe_stack(config);
    }
    close_files(config);
    return result;
}

static int start_lanes(ploop_dev *opened)
{
    uint32_t i;
    int error;

    info = (struct ploop_dev_info){.size = sizeof(info)};
    error = ploop_dev_info(opened, &info);
    for (i = 0; i < LANE_COUNT; i++) {
        lanes[i].queue = ploop_dev_queue(opened, i);
        sem_init(&lanes[i].room, 0, LANE_REQUESTS);
        pthread_mutex_init(&lanes[i].mutex, NULL);
        pthread_cond_init(&lanes[i].changed, NULL);
        lanes[i].run_by_one = false;
    }
    return error ? error : timer_start(opened);
}

static void destroy_lanes(void)
{
    uint32_t i;

    for (i = 0; i < LANE_COUNT; i++) {
        sem_destroy(&lanes[i].room);
        pthread_mutex_destroy(&lanes[i].mutex);
        pthread_cond_destroy(&lanes[i].changed);
    }
}

/*
 * Open a file below the top: for reading only, so that servers can share it; for writing if it must
 * be recovered.
 */
static int open_base(const struct server_config *config, uint32_t level, bool recover)
{
    struct ploop_image_info image = {.size = sizeof(image)};

    if (open_file(config, level, PLOOP_FILE_READ_ONLY)) {
        return -1;
    }
    if (!recover || is_raw(config, level) || ploop_image_probe(files[level], &image) ||
        !(image.flags & PLOOP_IMAGE_IN_USE)) {
        return 0;
    }
    ploop_file_close(files[level]);
    return open_file(config, level, PLOOP_FILE_READ_WRITE);
}

static int open_files(const struct server_config *config, bool read_only)
{
    int result = 0;

    if (config->uring) {
        (void)ploop_uring_create(NULL, &group);
    }
    for (uint32_t level = 0; level < config->base_count && !result; level++) {
        result = open_base(config, level, config->recover && !read_only);
    }
    return result ? result
                  : open_file(config, config->base_count,
                              read_only ? PLOOP_FILE_READ_ONLY : PLOOP_FILE_READ_WRITE);
}

static int open_device(const struct server_config *config, bool read_only)
{
    struct ploop_dev_config dev_config;
    ploop_dev *opened;
    int error;

    if (open_files(config, read_only)) {
        close_files(config);
        return -1;
    }
    init_dev_config(config, read_only, &dev_config);
    dev_config.queue_count = LANE_COUNT;
    dev_config.pio_count = LANE_REQUESTS;
    dev_config.writeback_delay_ns = config->delay_ms * NS_PER_MS;
    dev_config.writeback_max_age_ns = config->max_age_ms * NS_PER_MS;
    dev_config.clock = &timer_clock;
    dev_config.sync_failed_policy = config->refuse_after_sync_failure
                                        ? PLOOP_SYNC_FAILED_REFUSE_CHANGES
                                        : PLOOP_SYNC_FAILED_GO_ON;
    error = ploop_dev_open(files, config->base_count + 1, &dev_config, &opened);
    if (error) {
        goto fail_open;
    }
    error = start_lanes(opened);
    if (error) {
        goto fail_start;
    }
    server = config;
    device = opened;
    return 0;

fail_start:
    destroy_lanes();
    ploop_dev_close(opened);
fail_open:
    close_files(config);
    return fail(config->image, "cannot open", error, explain(error));
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

int device_close(void)
{
    int error;

    if (!device) {
        return 0;
    }
    timer_stop();
    error = ploop_dev_close(device);
    if (error) {
        nbdkit_error("%s: not everything reached the disk; use recover=1 next time: %s",
                     server->image, strerror(-error));
    }
    device = NULL;
    destroy_lanes();
    close_files(server);
    return error ? -1 : 0;
}

const struct ploop_dev_info *device_info(void)
{
    return &info;
}

int device_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent)
{
    int error = ploop_bat_lookup(device, offset, length, extent);

    if (error == -EIO) {
        uint64_t to_border = info.cluster_size - offset % info.cluster_size;

        extent->offset = offset;
        extent->length = to_border < length ? to_border : length;
        extent->state = PLOOP_EXTENT_MAPPED;
        return 0;
    }
    return error ? fail(server->image, "cannot look up the map", error, strerror(-error)) : 0;
}

/* ---- requests ---- */

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO, REQUEST_DISCARD, REQUEST_FLUSH };

static const char *const request_names[] = {
    [REQUEST_READ] = "read",
    [REQUEST_WRITE] = "write",
    [REQUEST_ZERO] = "zero",
    [REQUEST_DISCARD] = "trim",
};

/* A request, on the stack of the thread that waits for it. */
struct request {
    enum request_kind kind;
    uint32_t flags; /* PLOOP_PIO_ ... */
    uint64_t offset;
    struct iovec memory; /* its length counts for requests without memory too */
    struct lane *lane;
    bool done;
    int result;
};

/* Threads are assigned to the lanes in turn. */
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
    pthread_mutex_lock(&request->lane->mutex);
    request->result = result;
    request->done = true;
    pthread_mutex_unlock(&request->lane->mutex); /* request_wait() wakes the request's thread */
}

static void request_wait(struct request *request)
{
    struct lane *lane = request->lane;

    pthread_mutex_lock(&lane->mutex);
    while (!request->done) {
        if (lane->run_by_one) {
            pthread_cond_wait(&lane->changed, &lane->mutex);
            continue;
        }
        lane->run_by_one = true;
        pthread_mutex_unlock(&lane->mutex);
        ploop_queue_wait(lane->queue, UINT64_MAX);
        pthread_mutex_lock(&lane->mutex);
        lane->run_by_one = false;
        pthread_cond_broadcast(&lane->changed);
    }
    pthread_mutex_unlock(&lane->mutex);
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
    request->lane = lane;
    request->done = false;
    request_prepare(request, pio);
    taken = ploop_queue_submit(lane->queue, &pio, 1);
    if (taken == 1) {
        request_wait(request);
    } else {
        request->result = taken;
    }
    ploop_pio_put(pio);
    sem_post(&lane->room);
    return request->result;
}

static void complain(const struct request *request, int error)
{
    uint64_t count = complaint(request->kind, error, timer_clock.now_ns(NULL));
    char more[64] = "";

    if (count == 0) {
        return;
    }
    if (count > 1) {
        snprintf(more, sizeof(more), " (%llu times since the last message)",
                 (unsigned long long)count);
    }
    if (request->kind == REQUEST_FLUSH) {
        nbdkit_error("%s: flush: %s%s", server->image, strerror(-error), more);
    } else {
        nbdkit_error("%s: %s of %zu bytes at %llu: %s%s", server->image,
                     request_names[request->kind], request->memory.iov_len,
                     (unsigned long long)request->offset, strerror(-error), more);
    }
}

/* A refused fast zero is an expected answer to the client, so it causes no message. */
static int request_finish(struct request *request)
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

/* A range, in as many requests as the device's limit requires. */
static int run_range(enum request_kind kind, void *buffer, uint64_t length, uint64_t offset,
                     uint32_t flags)
{
    const uint32_t alignment = info.request_alignment;

    if (offset % alignment || length % alignment) {
        nbdkit_error("%s: %s of %llu bytes at %llu: not aligned to %u bytes", server->image,
                     request_names[kind], (unsigned long long)length, (unsigned long long)offset,
                     alignment);
        nbdkit_set_error(EINVAL);
        return -1;
    }
    for (uint64_t done = 0; done < length;) {
        uint64_t part =
            length - done < info.max_request_bytes ? length - done : info.max_request_bytes;
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
