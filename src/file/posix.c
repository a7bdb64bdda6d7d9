/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend: a file of the file system, or a block device, whose requests are carried out
 * with plain system calls: by the thread that waits for them (submit with PLOOP_IO_MAY_BLOCK, and
 * help), else by I/O threads (posix_pool.h). posix.h explains its descriptors.
 *
 *  1. SYNC is fdatasync: it covers every operation completed before it was submitted, because those
 *     were done in the kernel. It runs beside other requests.
 *  2. With PLOOP_FILE_DIRECT a request whose offset, length and memory are aligned goes past the
 *     page cache, any other through it. Where sectors are not aligned enough the file says so
 *     (request_alignment), and the library sends whole blocks in aligned memory; elsewhere only
 *     memory makes the difference, and request_alignment is 1. A direct write of a
 *     page drops it from the cache: were it dirty from a buffered write at that moment, one of the
 *     two writes would be lost. Hence `exclusion`: direct writes share it, everything that dirties
 *     pages or changes the file's shape has it alone. Reads need nothing: the kernel writes dirty
 *     pages out before a direct read, and drops what a buffered read brought in after a direct
 *     write.
 *  3. A direct request that the file system refuses with EINVAL or ENOTBLK is carried out buffered,
 *     once. A file system without O_DIRECT is one that refuses every request.
 *
 * After fork() the child has the descriptors but no threads: it must not use the file nor close it.
 * Leave by exec or _exit; until then the locks stay.
 */
#include "file/posix.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file/posix_cache.h"
#include "file/pwritev2.h"
#include "util/refusal.h"

/* ---- Carrying out requests, on any thread that may block ---- */

static bool fits_direct(const struct posix *file, const struct ploop_io *io)
{
    uint64_t bits = io->offset | io->length;
    uintptr_t memory = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        bits |= io->iov[i].iov_len;
        memory |= (uintptr_t)io->iov[i].iov_base;
    }
    return (bits & (file->direct_alignment - 1)) == 0 &&
           (memory & (file->memory_alignment - 1)) == 0;
}

/* One system call's worth, or -errno. */
static int64_t move_some(int fd, const struct ploop_io *io, const struct iovec *iov, int count,
                         uint64_t offset)
{
    ssize_t moved;
    do {
        if (io->op == PLOOP_IO_READ) {
            moved = preadv(fd, iov, count, (off_t)offset);
        } else if (io->flags & PLOOP_IO_FUA) {
            moved = pwritev2(fd, iov, count, (off_t)offset, RWF_DSYNC);
        } else {
            moved = pwritev(fd, iov, count, (off_t)offset);
        }
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

/* All of a READ or WRITE, or what went well of it before something did not. */
static int64_t move(int fd, const struct ploop_io *io)
{
    uint64_t moved = 0;
    for (uint32_t first = 0; first < io->iov_count; first += IOV_MAX) {
        uint32_t count = io->iov_count - first < IOV_MAX ? io->iov_count - first : IOV_MAX;
        uint64_t wanted = 0;
        for (uint32_t i = 0; i < count; i++) {
            wanted += io->iov[first + i].iov_len;
        }
        int64_t result = move_some(fd, io, &io->iov[first], (int)count, io->offset + moved);
        if (result < 0) {
            return moved ? (int64_t)moved : result;
        }
        moved += (uint64_t)result;
        if ((uint64_t)result < wanted) {
            break;
        }
    }
    return (int64_t)moved;
}

/*
 * Who waits for the lock waits in `entrance`, and others behind him: a stream of direct writes does
 * not keep a buffered one waiting for ever.
 */
static void share(struct posix *file)
{
    pthread_mutex_lock(&file->entrance);
    pthread_rwlock_rdlock(&file->exclusion);
    pthread_mutex_unlock(&file->entrance);
}

static void exclude(struct posix *file)
{
    pthread_mutex_lock(&file->entrance);
    pthread_rwlock_wrlock(&file->exclusion);
    pthread_mutex_unlock(&file->entrance);
}

/* A READ or WRITE through these two descriptors. */
static int64_t transfer(struct posix *file, int fd, int direct_fd, const struct ploop_io *io)
{
    if (direct_fd < 0) {
        return move(fd, io);
    }
    bool write = io->op == PLOOP_IO_WRITE;
    int64_t result = -ENOTBLK;
    if (fits_direct(file, io)) {
        if (write) {
            share(file);
        }
        result = move(direct_fd, io);
        if (write) {
            pthread_rwlock_unlock(&file->exclusion);
        }
    }
    if (result != -ENOTBLK && result != -EINVAL) {
        return result;
    }
    if (write) {
        exclude(file);
    }
    result = move(fd, io);
    if (write) {
        pthread_rwlock_unlock(&file->exclusion);
    }
    return result;
}

static int64_t write_through(struct posix *file, const struct ploop_io *io)
{
    struct posix_lane *lane = posix_fua_take(&file->fua);
    if (!lane) {
        return -EOPNOTSUPP;
    }
    int64_t result = transfer(file, lane->fd, lane->direct_fd, io);
    posix_fua_give_back(&file->fua, lane);
    return result;
}

/*
 * Zeros by giving the blocks back; else by whatever way the file system knows that is not writing
 * them.
 */
static int64_t punch(int fd, uint64_t offset, uint64_t length)
{
    int64_t error = posix_allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    if (is_refusal((int)error)) {
        error = posix_allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
    }
    return error;
}

static int64_t resize(const struct posix *file, uint64_t file_size)
{
    int error;
    if (file->is_block) {
        return -ENOTSUP;
    }
    do {
        error = ftruncate(file->fd, (off_t)file_size) ? -errno : 0;
    } while (error == -EINTR);
    return error;
}

int posix_sync_locked(struct posix *file)
{
    int fd = file->sync_fd >= 0 ? file->sync_fd : file->fd, error;
    /*
     * After a failure too: what is dirty goes out before the cache is dropped, and a further loss
     * is told now and not after that.
     */
    do {
        error = fdatasync(fd) ? -errno : 0;
    } while (error == -EINTR);
    file->sync_error = file->sync_error ? file->sync_error : error;
    return file->sync_error;
}

static int64_t sync_data(struct posix *file)
{
    pthread_mutex_lock(&file->syncing);
    int error = posix_sync_locked(file);
    pthread_mutex_unlock(&file->syncing);
    return error;
}

static int64_t reshape(struct posix *file, const struct ploop_io *io)
{
    int64_t result;
    exclude(file);
    if (io->op == PLOOP_IO_ALLOCATE) {
        result = posix_allocate(file->fd, 0, io->offset, io->length);
    } else if (io->op == PLOOP_IO_PUNCH) {
        result = punch(file->fd, io->offset, io->length);
    } else {
        assert(io->op == PLOOP_IO_TRUNCATE);
        result = resize(file, io->offset);
    }
    pthread_rwlock_unlock(&file->exclusion);
    return result;
}

static int64_t posix_execute(void *context, const struct ploop_io *io)
{
    struct posix *file = context;
    switch (io->op) {
    case PLOOP_IO_READ:
        return transfer(file, file->fd, file->direct_fd, io);
    case PLOOP_IO_WRITE:
        return io->flags & PLOOP_IO_FUA ? write_through(file, io)
                                        : transfer(file, file->fd, file->direct_fd, io);
    case PLOOP_IO_SYNC:
        return sync_data(file);
    default:
        return reshape(file, io);
    }
}

/* ---- The backend's functions ---- */

int posix_refuses(const struct posix *file, const struct ploop_io *io)
{
    bool changes = io->op != PLOOP_IO_READ && io->op != PLOOP_IO_SYNC;
    if (io->op < PLOOP_IO_READ || io->op > PLOOP_IO_TRUNCATE || io->offset > INT64_MAX ||
        io->length > INT64_MAX - io->offset) {
        return -EINVAL;
    }
    if (changes &&
        atomic_load_explicit(&file->access, memory_order_relaxed) == PLOOP_FILE_READ_ONLY) {
        return -EROFS;
    }
    return 0;
}

static int posix_submit(void *context, struct ploop_io *io)
{
    struct posix *file = context;
    int error = posix_refuses(file, io);
    if (error) {
        return error;
    }
    if (io->flags & PLOOP_IO_MAY_BLOCK) {
        ploop_io_complete(io, posix_execute(file, io));
    } else {
        posix_pool_submit(&file->pool, io);
    }
    return 0;
}

static void posix_kick(void *context, uint32_t queue)
{
    struct posix *file = context;
    (void)queue;
    posix_pool_kick(&file->pool);
}

static int posix_help(void *context)
{
    struct posix *file = context;
    return posix_pool_help(&file->pool);
}

/* What a thread carries out that waits for it ends by itself. */
static void posix_cancel(void *context)
{
    struct posix *file = context;
    posix_pool_cancel(&file->pool);
}

int posix_get_info(void *context, struct ploop_file_info *info)
{
    struct posix *file = context;
    int64_t size = posix_size(file);
    if (size < 0) {
        return (int)size;
    }
    info->file_size = (uint64_t)size;
    info->capabilities = atomic_load_explicit(&file->capabilities, memory_order_relaxed);
    info->request_alignment = file->block;
    info->max_transfer = 0;
    return 0;
}

int posix_invalidate(void *context)
{
    struct posix *file = context;
    pthread_mutex_lock(&file->reopening);
    int64_t size = posix_size(file);
    int error = size < 0 ? (int)size : posix_cache_drop(file->fd, file->is_block, (uint64_t)size);
    posix_fua_forget_errors(&file->fua);
    pthread_mutex_lock(&file->syncing);
    file->sync_error = 0;
    pthread_mutex_unlock(&file->syncing);
    pthread_mutex_unlock(&file->reopening);
    return error;
}

/* All descriptors' positions are free to be moved: nothing reads or writes at one. */
int posix_data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    struct posix *file = context;
    if (file->is_block) {
        return -ENOTSUP;
    }
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    off_t hole = data < 0 ? -1 : lseek(file->fd, data, SEEK_HOLE);
    if (data >= 0 && hole > data) {
        *data_offset = (uint64_t)data;
        *data_length = (uint64_t)(hole - data);
        return 0;
    }
    *data_length = 0;
    if (data < 0 && errno == ENXIO) {
        return 0;
    }
    return data < 0 && errno != EINVAL ? -errno : -ENOTSUP;
}

static void posix_end(void *context)
{
    struct posix *file = context;
    posix_pool_stop(&file->pool);
    posix_free(file);
}

void posix_abandon(struct posix *file, const char *path)
{
    if (path && file->is_created) {
        (void)unlink(path);
    }
    posix_leave_descriptor(file);
    posix_end(file);
}

/* By name, or where that is NULL by the caller's descriptor. */
static int open_either(const char *path, int fd, uint32_t flags, struct ploop_io_threads *threads,
                       struct posix **file)
{
    struct posix *made = posix_new(flags & POSIX_ACCESS_FLAGS);
    if (!made) {
        return -ENOMEM;
    }
    int error = path ? posix_open_file(made, path, flags) : posix_open_fd(made, fd, flags);
    made->is_created = made->fd >= 0 && flags & PLOOP_FILE_CREATE;
    if (!error) {
        error = posix_open_rest(made, flags);
    }
    if (!error && made->is_created) {
        error = posix_sync_directory(path);
    }
    if (!error) {
        error = posix_pool_start(&made->pool, threads, posix_execute, made);
    }
    if (error) {
        if (path && made->is_created) {
            (void)unlink(path);
        }
        posix_leave_descriptor(made);
        posix_free(made);
        return error;
    }
    *file = made;
    return 0;
}

int posix_open_shared(const char *path, uint32_t flags, struct ploop_io_threads *threads,
                      struct posix **file)
{
    uint32_t known =
        POSIX_ACCESS_FLAGS | PLOOP_FILE_UNLOCKED | PLOOP_FILE_DIRECT | PLOOP_FILE_CREATE;
    if (!path || flags & ~known || !posix_is_one_access(flags) ||
        (flags & PLOOP_FILE_CREATE && flags & PLOOP_FILE_READ_ONLY)) {
        return -EINVAL;
    }
    return open_either(path, -1, flags, threads, file);
}

int posix_open(const char *path, uint32_t flags, struct posix **file)
{
    return posix_open_shared(path, flags, NULL, file);
}

/* `path` is NULL where it was opened by descriptor. */
static int make_file(struct posix *made, const char *path, ploop_file **file)
{
    static const struct ploop_io_ops ops = {.size = sizeof(ops),
                                            .get_info = posix_get_info,
                                            .submit = posix_submit,
                                            .kick = posix_kick,
                                            .cancel = posix_cancel,
                                            .reopen = posix_reopen,
                                            .invalidate = posix_invalidate,
                                            .close = posix_end,
                                            .help = posix_help,
                                            .data_extent = posix_data_extent};
    int error = ploop_file_create(&ops, made, file);
    if (error) {
        posix_abandon(made, path);
    }
    return error;
}

static int open_file(const char *path, uint32_t flags, struct ploop_io_threads *threads,
                     ploop_file **file)
{
    struct posix *made;
    int error = posix_open_shared(path, flags, threads, &made);
    return error ? error : make_file(made, path, file);
}

int ploop_file_open_fd(int fd, uint32_t flags, ploop_file **file)
{
    uint32_t known = POSIX_ACCESS_FLAGS | PLOOP_FILE_UNLOCKED | PLOOP_FILE_DIRECT;
    struct posix *made;
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    if (flags & ~known || !posix_is_one_access(flags)) {
        return -EINVAL;
    }
    int error = open_either(NULL, fd, flags, NULL, &made);
    return error ? error : make_file(made, NULL, file);
}

int ploop_file_open_posix(const char *path, uint32_t flags, ploop_file **file)
{
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    return open_file(path, flags, NULL, file);
}

int ploop_file_open_posix_shared(const char *path, uint32_t flags, ploop_io_threads *threads,
                                 ploop_file **file)
{
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    return threads ? open_file(path, flags, threads, file) : -EINVAL;
}
