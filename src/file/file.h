/* SPDX-License-Identifier: MIT */
/*
 * The library's side of the backend contract: a file, and a request on its way to it.
 *
 * A file_io is what the library embeds wherever it needs a backend request. Its states:
 *
 *     IDLE --file_io_submit()--> SENT --ploop_io_complete()--> IDLE, then done() is called
 *          (refused: back to IDLE, done() is not called)
 *
 *  1. done() is called exactly once for each submit that returned 0, on whatever thread completes,
 *     perhaps before submit returns. When it is called the io is IDLE and may be filled and
 *     submitted again.
 *  2. A completion that finds the io not SENT is a bug of the backend: a debug build aborts, a
 *     release build counts it in the file.
 */
#ifndef FILE_FILE_H
#define FILE_FILE_H

#include <assert.h>
#include <stdatomic.h>

#include <ploop/file.h>

struct file_io;
typedef void file_io_fn(struct file_io *io, int64_t result);

enum { FILE_IO_IDLE = 0, FILE_IO_SENT = 1 };

struct ploop_file {
    struct ploop_io_ops ops;
    void *context;
    _Atomic uint64_t double_completions;
    _Atomic int32_t claims; /* see file_claim() */
};

/*
 * Who uses a file: FILE_ALONE is one user that writes to it and syncs it, and excludes all others;
 * FILE_SHARED is one of several. A device claims its top alone when it writes and its other files
 * shared, from open until it is freed. A second user of SYNC would take errors away from the
 * device's FLUSH, so the public calls that write or sync, and a repair, claim the file while they
 * work.
 */
enum file_use { FILE_SHARED, FILE_ALONE };

/* 0, to be given back; or -EBUSY. Any thread. */
int file_claim(ploop_file *file, enum file_use use);
void file_give_back(ploop_file *file, enum file_use use);

/*
 * Change a claim that the caller has to the other use. 0; -EBUSY: others share the file. To
 * FILE_SHARED it does not fail.
 */
int file_change_claim(ploop_file *file, enum file_use to);

struct file_io {
    struct ploop_io pub; /* first: what the backend sees */
    ploop_file *file;
    file_io_fn *done;
    _Atomic uint32_t state;
};

/* Everything but pub.op, flags, queue, offset, length and iov, which each use fills. */
void file_io_init(struct file_io *io, ploop_file *file, file_io_fn *done);

/*
 * 0: taken. Otherwise not, and the file_io is SENT until file_io_refused() is called, which says
 * why not.
 */
int file_io_refused(struct file_io *io, int refused);
static inline int file_io_send(struct file_io *io)
{
    assert(atomic_load_explicit(&io->state, memory_order_relaxed) == FILE_IO_IDLE);
    assert(io->pub.op >= PLOOP_IO_READ && io->pub.op <= PLOOP_IO_TRUNCATE);
    atomic_store_explicit(&io->state, FILE_IO_SENT, memory_order_relaxed);
    return io->file->ops.submit(io->file->context, &io->pub);
}

/* 0: taken; -errno: not taken (see ploop_io_ops.submit). */
static inline int file_io_submit(struct file_io *io)
{
    int refused = file_io_send(io);
    /* Where it is 0 the request may be completed, sent again or freed by now. */
    return refused ? file_io_refused(io, refused) : 0;
}

/*
 * Where the next data lies, from `offset` on: ploop_io_ops.data_extent. -ENOTSUP: nobody can tell.
 * An answer that makes no sense is -EINVAL.
 */
int file_data_extent(ploop_file *file, uint64_t offset, uint64_t *data_offset,
                     uint64_t *data_length);

/*
 * Make reads show what the storage holds, before a recovery or a repair trusts them: SYNC, then the
 * backend's invalidate. 0; -ENOTSUP: the backend cannot; -EBUSY, or another -errno: what is read
 * may be lost on the storage. *sync_error is SYNC's result: a failure may be an old loss that is
 * reported once more.
 */
int file_drop_cache(ploop_file *file, int *sync_error);

/*
 * One request, waited for: with the backend's reap and wait where it has them, else asleep until
 * another thread completes. Short transfers are continued, EINTR and EAGAIN tried again,
 * max_transfer kept. READ: the bytes read, fewer only at the end of the file; others: length or 0;
 * or -errno.
 */
int64_t file_sync_io(ploop_file *file, uint32_t op, void *buffer, uint64_t length, uint64_t offset);

#endif
