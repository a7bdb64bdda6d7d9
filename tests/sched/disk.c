/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fiber.h"
#include "threads.h"

static int64_t move(struct disk *disk, const struct ploop_io *io)
{
    uint64_t at = io->offset, end = io->offset + io->length;
    if (end > disk->capacity) {
        return -ENOSPC;
    }
    for (uint32_t i = 0; i < io->iov_count; i++) {
        if (io->op == PLOOP_IO_READ) {
            memcpy(io->iov[i].iov_base, disk->bytes + at, io->iov[i].iov_len);
        } else {
            memcpy(disk->bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
        }
        at += io->iov[i].iov_len;
    }
    if (io->op == PLOOP_IO_WRITE) {
        disk->written++;
        disk->size = end > disk->size ? end : disk->size;
    }
    return (int64_t)io->length;
}

/* Apply a request to the bytes. SYNC: see `backend_data`, where submit stored what it covers. */
static int64_t execute(struct disk *disk, const struct ploop_io *io)
{
    switch (io->op) {
    case PLOOP_IO_READ:
    case PLOOP_IO_WRITE:
        return move(disk, io);
    case PLOOP_IO_SYNC: {
        uint64_t covers = (uint64_t)(uintptr_t)io->backend_data[0];
        disk->durable = covers > disk->durable ? covers : disk->durable;
        return 0;
    }
    case PLOOP_IO_PUNCH:
        memset(disk->bytes + io->offset, 0, io->length);
        return 0;
    case PLOOP_IO_TRUNCATE:
        if (io->offset > disk->capacity) {
            return -ENOSPC;
        }
        if (io->offset < disk->size) {
            memset(disk->bytes + io->offset, 0, disk->size - io->offset);
        }
        disk->size = io->offset;
        return 0;
    default:
        return -ENOTSUP;
    }
}

static int disk_info(void *context, struct ploop_file_info *info)
{
    const struct disk *disk = context;
    info->file_size = disk->size;
    info->capabilities = PLOOP_FILE_CAN_PUNCH | (disk->no_growth ? 0u : PLOOP_FILE_CAN_GROW);
    info->request_alignment = 1;
    return 0;
}

static int take(struct disk *disk, struct ploop_io *io)
{
    sched_point(__FILE__, __LINE__, "submit", disk, true);
    if (disk->shut) {
        sched_fail("a request comes to a backend that was promised to have rest");
    }
    if (io->op == PLOOP_IO_SYNC) {
        io->backend_data[0] = (void *)(uintptr_t)disk->written;
    }
    if (disk->mode == DISK_INLINE || !sched_is_running()) {
        ploop_io_complete(io, execute(disk, io));
        return 0;
    }
    if (disk->refusals > 0 || disk->held_count >= (disk->room ? disk->room : DISK_ROOM_MAX)) {
        disk->refusals -= disk->refusals > 0;
        disk->refused++;
        return -EAGAIN;
    }
    disk->held[disk->held_count++] = io;
    return 0;
}

/* Some request of that queue can be completed. */
static bool is_ready(const struct disk *disk, uint32_t queue)
{
    for (unsigned i = 0; i < disk->kicked; i++) {
        if (disk->held[i]->queue == queue) {
            return true;
        }
    }
    return false;
}

/* One thread at a time may be in the ring of a queue: submit, kick, reap. */
static void enter_ring(struct disk *disk, uint32_t queue)
{
    if (queue >= DISK_QUEUES_MAX) {
        sched_fail("a queue that attach was not told of");
    }
    if (disk->inside[queue]) {
        sched_fail("two threads in the ring of a queue");
    }
    disk->inside[queue] = true;
}

static void leave_ring(struct disk *disk, uint32_t queue)
{
    disk->inside[queue] = false;
}

static int disk_submit(void *context, struct ploop_io *io)
{
    struct disk *disk = context;
    if (io->flags & PLOOP_IO_MAY_BLOCK) {
        sched_point(__FILE__, __LINE__, "does the I/O", disk, true);
        if (disk->mode != DISK_HELP || disk->shut) {
            sched_fail("a backend is asked to block that does not offer it, or has rest");
        }
        ploop_io_complete(io, execute(disk, io));
        return 0;
    }
    enter_ring(disk, io->queue);
    int result = take(disk, io);
    leave_ring(disk, io->queue);
    return result;
}

static void disk_kick(void *context, uint32_t queue)
{
    struct disk *disk = context;
    if (disk->mode == DISK_HELP) {
        sched_point(__FILE__, __LINE__, "kick", disk, true);
        disk->kicked = disk->held_count;
        return;
    }
    enter_ring(disk, queue);
    sched_point(__FILE__, __LINE__, "kick", disk, true);
    disk->kicked = disk->held_count;
    leave_ring(disk, queue);
    for (uint32_t i = 0; i < DISK_QUEUES_MAX; i++) {
        uint64_t one = 1;
        if (disk->mode == DISK_REAP && is_ready(disk, i)) {
            (void)!write(disk->ready_fds[i], &one, sizeof(one));
            disk->edges++;
        }
    }
}

static bool has_work(void *context)
{
    const struct disk *disk = context;
    return disk->kicked > 0;
}

/* Complete one of the kicked requests. `result`: instead of carrying it out; 0: carry it out. */
static void complete_one(struct disk *disk, unsigned which, int64_t result)
{
    struct ploop_io *io = disk->held[which];
    disk->held_count--;
    disk->kicked -= disk->kicked > 0;
    memmove(&disk->held[which], &disk->held[which + 1],
            (disk->held_count - which) * sizeof(struct ploop_io *));
    ploop_io_complete(io, result ? result : execute(disk, io));
}

static int disk_reap(void *context, uint32_t queue)
{
    struct disk *disk = context;
    int reaped = 0;
    uint64_t count;
    enter_ring(disk, queue);
    (void)!read(disk->ready_fds[queue], &count, sizeof(count));
    sched_point(__FILE__, __LINE__, "reap", disk, true);
    for (unsigned i = 0; i < disk->kicked;) {
        if (disk->held[i]->queue == queue) {
            complete_one(disk, i, 0);
            i = 0; /* others may have been completed meanwhile */
            reaped++;
        } else {
            i++;
        }
    }
    leave_ring(disk, queue);
    return reaped;
}

/* The last request is the helper's, so that those before it may be begun meanwhile. */
static int disk_help(void *context)
{
    struct disk *disk = context;
    sched_point(__FILE__, __LINE__, "help", disk, true);
    if (!disk->held_count) {
        return 0;
    }
    struct ploop_io *io = disk->held[--disk->held_count];
    disk->kicked = disk->held_count;
    sched_point(__FILE__, __LINE__, "does the I/O", disk, true);
    ploop_io_complete(io, execute(disk, io));
    return 1;
}

static int disk_poll_fd(void *context, uint32_t queue)
{
    struct disk *disk = context;
    if (!disk->ready_fds[queue]) {
        disk->ready_fds[queue] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return disk->ready_fds[queue];
}

static bool is_readable(void *argument)
{
    const int *fd = argument;
    return sched_readable(*fd);
}

static int disk_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct disk *disk = context;
    sched_wait(__FILE__, __LINE__, "waits for requests", is_readable, &disk->ready_fds[queue],
               sched_now() + timeout_ns);
    return 0;
}

static void disk_cancel(void *context)
{
    struct disk *disk = context;
    sched_point(__FILE__, __LINE__, "cancel", disk, true);
    while (disk->held_count) {
        complete_one(disk, 0, -ECANCELED);
        sched_point(__FILE__, __LINE__, "cancel", disk, true);
    }
}

ploop_file *disk_open(struct disk *disk, uint64_t capacity)
{
    const struct ploop_io_ops ops = {
        .size = sizeof(ops),
        .get_info = disk_info,
        .submit = disk_submit,
        .kick = disk_kick,
        .reap = disk->mode == DISK_REAP ? disk_reap : NULL,
        .poll_fd = disk->mode == DISK_REAP ? disk_poll_fd : NULL,
        .wait = disk->mode == DISK_REAP ? disk_wait : NULL,
        .cancel = disk_cancel,
        .help = disk->mode == DISK_HELP ? disk_help : NULL,
    };
    ploop_file *file;
    disk->capacity = capacity;
    disk->bytes = calloc(1, capacity);
    if (ploop_file_create(&ops, disk, &file)) {
        sched_fail("no file");
    }
    return file;
}

void disk_device(void *context)
{
    struct disk *disk = context;
    for (;;) {
        sched_wait(__FILE__, __LINE__, "waits for requests", has_work, disk, 0);
        sched_point(__FILE__, __LINE__, "complete", disk, true);
        if (disk->kicked) {
            complete_one(disk, sched_choose(disk->kicked < 3 ? disk->kicked : 3), 0);
        }
    }
}
