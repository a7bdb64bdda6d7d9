/* SPDX-License-Identifier: MIT */
/*
 * Direct I/O at the rings.
 *
 *  1. With PLOOP_FILE_DIRECT no request of a ring touches the page cache: where its memory is not
 *     aligned it goes through a bounce buffer. So direct and buffered writes never meet, and
 *     posix.c's `exclusion` is not needed. Where sectors are not aligned enough for the file system
 *     the library sends whole blocks (request_alignment). Requests that are not of whole sectors
 *     are a caller's without a device, and the threads'.
 *  2. What changes the file's shape runs beside the rings' direct writes: the kernel lets it wait
 *     for those (inode_dio_wait), and none of it dirties pages that the guest writes.
 *  3. A direct write that is refused (EINVAL, ENOTBLK) is carried out by a thread, buffered. From
 *     then on all writes are the threads', and none of them begins before the last direct write has
 *     left the rings: until then they are `held`.
 *  4. The bounce buffers are taken at open, so that no request allocates. A request that is longer
 *     moves as much as a buffer has, and the library sends the rest. One that finds no buffer free
 *     is refused like one that finds the ring full: those that have them are at the rings, and the
 *     library sends it again when one of them has ended.
 */
#include "file/uring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "util/iov.h"

enum { BOUNCE_ALIGNMENT = 4096 };

/* ---- memory ---- */

bool direct_is_aligned(const struct posix *posix, const struct ploop_io *io)
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

int direct_make_bounces(struct uring *file)
{
    void *memory = NULL;
    if (posix_memalign(&memory, BOUNCE_ALIGNMENT, DIRECT_BOUNCES * DIRECT_BOUNCE_BYTES)) {
        return -ENOMEM;
    }
    file->bounces = memory;
    return 0;
}

uint64_t direct_bounced(const struct ploop_io *io)
{
    return io->length < DIRECT_BOUNCE_BYTES ? io->length : DIRECT_BOUNCE_BYTES;
}

int direct_take_bounce(struct uring *file, struct ploop_io *io)
{
    const uint32_t all = (1u << DIRECT_BOUNCES) - 1;
    uint32_t taken = atomic_load(&file->bounces_taken), free;
    do {
        free = all & ~taken;
        if (!free) {
            return -EAGAIN;
        }
        free &= ~free + 1; /* one of them */
    } while (!atomic_compare_exchange_weak(&file->bounces_taken, &taken, taken | free));
    uint8_t *bounce = file->bounces + (size_t)__builtin_ctz(free) * DIRECT_BOUNCE_BYTES;
    if (io->op == PLOOP_IO_WRITE) {
        iov_copy_out(&(struct iov_cursor){.iov = io->iov, .count = io->iov_count}, bounce,
                     direct_bounced(io));
    }
    io->backend_data[DATA_BOUNCE] = bounce;
    return 0;
}

void direct_drop_bounce(struct uring *file, struct ploop_io *io, int bytes)
{
    const uint8_t *bounce = io->backend_data[DATA_BOUNCE];
    if (!bounce) {
        return;
    }
    if (io->op == PLOOP_IO_READ && bytes > 0) {
        iov_copy_in(&(struct iov_cursor){.iov = io->iov, .count = io->iov_count}, bounce,
                    (uint64_t)bytes);
    }
    uint32_t bit = 1u << (uint32_t)((bounce - file->bounces) / DIRECT_BOUNCE_BYTES);
    assert(atomic_load(&file->bounces_taken) & bit);
    io->backend_data[DATA_BOUNCE] = NULL;
    atomic_fetch_and(&file->bounces_taken, ~bit);
}

/* ---- refused writes ---- */

/* The direct writes have left the rings: those held go on. */
static void release_held(struct uring *file)
{
    pthread_mutex_lock(&file->mutex);
    struct ploop_io *io = atomic_load(&file->direct_writes) == 0 ? file->held : NULL;
    file->held = io ? NULL : file->held;
    pthread_mutex_unlock(&file->mutex);
    while (io) {
        struct ploop_io *next = io->backend_data[DATA_LINK];
        uring_to_thread(file, io);
        io = next;
    }
    uring_kick_threads(file);
}

void direct_hold(struct uring *file, struct ploop_io *io)
{
    pthread_mutex_lock(&file->mutex);
    io->backend_data[DATA_LINK] = file->held;
    file->held = io;
    pthread_mutex_unlock(&file->mutex);
    release_held(file);
}

void direct_write_ends(struct uring *file)
{
    if (atomic_fetch_sub(&file->direct_writes, 1) == 1 && atomic_load(&file->is_refused)) {
        release_held(file);
    }
}

bool direct_write_begins(struct uring *file)
{
    atomic_fetch_add(&file->direct_writes, 1); /* before it looks: see 3 */
    if (atomic_load(&file->is_refused)) {
        direct_write_ends(file);
        return false;
    }
    return true;
}

void direct_write_refused(struct uring *file, struct ploop_io *io)
{
    atomic_store(&file->is_refused, true);
    direct_hold(file, io);
    direct_write_ends(file);
}
