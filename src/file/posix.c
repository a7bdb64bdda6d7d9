/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend: a file of the file system, or a block device, whose requests I/O threads carry out with plain system calls.
 *
 *  1. `fd` and `direct_fd` keep their numbers from open to close: reopen puts other files under them, so that a request that is
 *     just being carried out needs no lock against it. The locks on bytes belong to lock_fd, which reopen does not touch.
 *  2. SYNC is fdatasync: it covers every operation completed before it was submitted, because those were done in the kernel. It
 *     runs beside others.
 *  3. With PLOOP_FILE_DIRECT there are two descriptors. A request whose offset, length and memory are aligned goes past the page
 *     cache, any other through it; so request_alignment is 1 all the same. A direct write of a page drops it from the cache:
 *     were it dirty from a buffered write at that moment, one of the two writes would be lost. Hence `exclusion`: direct writes
 *     share it, everything that dirties pages or changes the file's shape has it alone. Reads need nothing: the kernel writes
 *     dirty pages out before a direct read, and drops what a buffered read brought in after a direct write.
 *  4. A direct request that the file system refuses with EINVAL or ENOTBLK is carried out buffered, once. A file system without
 *     O_DIRECT is one that refuses every request.
 *
 * After fork() the child has the descriptors but no threads: it must not use the file nor close it. Leave by exec or _exit; until
 * then the locks stay.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file/file.h"
#include "file/posix_lock.h"
#include "file/posix_pool.h"

enum { ACCESS_FLAGS = PLOOP_FILE_READ_ONLY | PLOOP_FILE_READ_WRITE };
enum { PAGE = 4096 }; /* where the kernel does not say what direct requests must be aligned to, this is enough for any disk */

struct posix {
    int fd;
    int direct_fd; /* -1: none */
    int lock_fd;
    bool is_block;
    uint32_t direct_alignment; /* of offset and length */
    uint32_t memory_alignment;
    _Atomic uint32_t access; /* PLOOP_FILE_READ_ONLY or READ_WRITE */
    _Atomic uint32_t capabilities;
    uint32_t lock; /* LOCK_ ..., what lock_fd holds */
    pthread_mutex_t reopening;
    pthread_rwlock_t exclusion;
    struct posix_pool pool;
};

/* ---- Carrying out requests, on an I/O thread ---- */

static bool fits_direct(const struct posix *file, const struct ploop_io *io)
{
    uint64_t bits = io->offset | io->length;
    uintptr_t memory = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        bits |= io->iov[i].iov_len;
        memory |= (uintptr_t)io->iov[i].iov_base;
    }
    return (bits & (file->direct_alignment - 1)) == 0 && (memory & (file->memory_alignment - 1)) == 0;
}

/* A write that is durable when it returns, also where the kernel has no such call for this file. */
static ssize_t write_through(int fd, const struct iovec *iov, int count, off_t offset)
{
    ssize_t moved = pwritev2(fd, iov, count, offset, RWF_DSYNC);
    if (moved >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS)) {
        return moved;
    }
    moved = pwritev(fd, iov, count, offset);
    return moved >= 0 && fdatasync(fd) ? -1 : moved;
}

/* One system call's worth, or -errno. */
static int64_t move_some(int fd, const struct ploop_io *io, const struct iovec *iov, int count, uint64_t offset)
{
    ssize_t moved;
    do {
        if (io->op == PLOOP_IO_READ) {
            moved = preadv(fd, iov, count, (off_t)offset);
        } else if (io->flags & PLOOP_IO_FUA) {
            moved = write_through(fd, iov, count, (off_t)offset);
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

static int64_t transfer(struct posix *file, const struct ploop_io *io)
{
    if (file->direct_fd < 0) {
        return move(file->fd, io);
    }
    bool write = io->op == PLOOP_IO_WRITE;
    int64_t result = -ENOTBLK;
    if (fits_direct(file, io)) {
        if (write) {
            pthread_rwlock_rdlock(&file->exclusion);
        }
        result = move(file->direct_fd, io);
        if (write) {
            pthread_rwlock_unlock(&file->exclusion);
        }
    }
    if (result != -ENOTBLK && result != -EINVAL) {
        return result;
    }
    if (write) {
        pthread_rwlock_wrlock(&file->exclusion);
    }
    result = move(file->fd, io);
    if (write) {
        pthread_rwlock_unlock(&file->exclusion);
    }
    return result;
}

static int64_t allocate(int fd, int mode, uint64_t offset, uint64_t length)
{
    int err;
    do {
        err = fallocate(fd, mode, (off_t)offset, (off_t)length) ? -errno : 0;
    } while (err == -EINTR);
    return err;
}

/* Zeros by giving the blocks back; else by whatever way the file system knows that is not writing them. */
static int64_t punch(int fd, uint64_t offset, uint64_t length)
{
    int64_t err = allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    if (err == -EOPNOTSUPP) {
        err = allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
    }
    return err;
}

static int64_t resize(const struct posix *file, uint64_t file_size)
{
    int err;
    if (file->is_block) {
        return -ENOTSUP;
    }
    do {
        err = ftruncate(file->fd, (off_t)file_size) ? -errno : 0;
    } while (err == -EINTR);
    return err;
}

static int64_t sync_data(int fd)
{
    int err;
    do {
        err = fdatasync(fd) ? -errno : 0;
    } while (err == -EINTR);
    return err;
}

static int64_t reshape(struct posix *file, const struct ploop_io *io)
{
    int64_t result;
    pthread_rwlock_wrlock(&file->exclusion);
    if (io->op == PLOOP_IO_ALLOCATE) {
        result = allocate(file->fd, 0, io->offset, io->length);
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
    case PLOOP_IO_WRITE:
        return transfer(file, io);
    case PLOOP_IO_SYNC:
        return sync_data(file->fd);
    default:
        return reshape(file, io);
    }
}

/* ---- The backend's functions ---- */

static int posix_submit(void *context, struct ploop_io *io)
{
    struct posix *file = context;
    bool changes = io->op != PLOOP_IO_READ && io->op != PLOOP_IO_SYNC;
    if (io->op < PLOOP_IO_READ || io->op > PLOOP_IO_TRUNCATE || io->offset > INT64_MAX || io->length > INT64_MAX - io->offset) {
        return -EINVAL;
    }
    if (changes && atomic_load_explicit(&file->access, memory_order_relaxed) == PLOOP_FILE_READ_ONLY) {
        return -EROFS;
    }
    posix_pool_submit(&file->pool, io);
    return 0;
}

static void posix_kick(void *context, uint32_t queue)
{
    struct posix *file = context;
    (void)queue;
    posix_pool_kick(&file->pool);
}

static void posix_cancel(void *context)
{
    struct posix *file = context;
    posix_pool_cancel(&file->pool);
}

static int64_t size_now(const struct posix *file)
{
    struct stat stat;
    if (file->is_block) {
        uint64_t bytes = 0;
        return ioctl(file->fd, BLKGETSIZE64, &bytes) ? -errno : (int64_t)bytes;
    }
    return fstat(file->fd, &stat) ? -errno : stat.st_size;
}

static int posix_get_info(void *context, struct ploop_file_info *info)
{
    struct posix *file = context;
    int64_t size = size_now(file);
    if (size < 0) {
        return (int)size;
    }
    info->file_size = (uint64_t)size;
    info->capabilities = atomic_load_explicit(&file->capabilities, memory_order_relaxed);
    info->request_alignment = 1;
    info->max_transfer = 0;
    return 0;
}

/* ---- Opening and reopening ---- */

/*
 * A punch beyond the end changes nothing and tells what the file system can. Only under our lock: somebody who may write could have
 * made the file longer meanwhile. Until then it is taken to be able.
 */
static uint32_t probe_fallocate(const struct posix *file)
{
    uint32_t able = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    int64_t size = size_now(file);
    if (file->lock != LOCK_WRITER || size < 0 || size > INT64_MAX - 2 * PAGE) {
        return able;
    }
    uint64_t beyond = ((uint64_t)size + PAGE - 1) / PAGE * PAGE;
    int64_t err = allocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, beyond, PAGE);
    return err == -EOPNOTSUPP || err == -ENOSYS ? 0 : able;
}

static uint32_t probe(const struct posix *file)
{
    uint32_t capabilities = 0;
    struct iovec nothing = {.iov_base = NULL, .iov_len = 0};
    if (atomic_load(&file->access) == PLOOP_FILE_READ_ONLY) {
        return 0;
    }
    if (pwritev2(file->fd, &nothing, 1, 0, RWF_DSYNC) == 0) {
        capabilities |= PLOOP_FILE_CAN_FUA;
    }
    if (file->is_block) {
        return capabilities | PLOOP_FILE_CAN_PUNCH; /* where the device cannot, the kernel writes the zeros */
    }
    return capabilities | PLOOP_FILE_CAN_GROW | probe_fallocate(file);
}

static int open_retrying(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0644);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* The same file again, in another mode; by number, so that it does not matter what its name means by now. Needs /proc. */
static int open_again(int fd, int flags)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open_retrying(path, flags);
}

static int open_mode(uint32_t access)
{
    return access == PLOOP_FILE_READ_WRITE ? O_RDWR : O_RDONLY;
}

/* Put the file that `from` is under the number of `to`. */
static void replace(int *to, int from)
{
    int err;
    do {
        err = dup3(from, *to, O_CLOEXEC) < 0 ? errno : 0;
    } while (err == EINTR || err == EBUSY);
    assert(err == 0); /* both numbers are ours */
    close(from);
}

static uint32_t lock_for(uint32_t flags)
{
    if (flags & PLOOP_FILE_UNLOCKED) {
        return LOCK_NONE;
    }
    return flags & PLOOP_FILE_READ_WRITE ? LOCK_WRITER : LOCK_READER;
}

static int change_lock(struct posix *file, uint32_t flags)
{
    int err = posix_lock_change(file->lock_fd, file->lock, lock_for(flags));
    if (!err) {
        file->lock = lock_for(flags);
    }
    return err;
}

static int change_access(struct posix *file, uint32_t flags)
{
    uint32_t access = flags & ACCESS_FLAGS;
    int fd = open_again(file->fd, open_mode(access));
    if (fd < 0) {
        return fd;
    }
    int direct_fd = file->direct_fd < 0 ? -1 : open_again(file->fd, open_mode(access) | O_DIRECT);
    int err = direct_fd < 0 && file->direct_fd >= 0 ? direct_fd : change_lock(file, flags);
    if (err) {
        close(fd);
        if (direct_fd >= 0) {
            close(direct_fd);
        }
        return err;
    }
    replace(&file->fd, fd);
    if (direct_fd >= 0) {
        replace(&file->direct_fd, direct_fd);
    }
    atomic_store(&file->access, access);
    return 0;
}

static bool is_one_access(uint32_t flags)
{
    return (flags & ACCESS_FLAGS) == PLOOP_FILE_READ_ONLY || (flags & ACCESS_FLAGS) == PLOOP_FILE_READ_WRITE;
}

static int posix_reopen(void *context, uint32_t flags)
{
    struct posix *file = context;
    if (!is_one_access(flags) || flags & ~(uint32_t)(ACCESS_FLAGS | PLOOP_FILE_UNLOCKED)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&file->reopening);
    bool same = (flags & ACCESS_FLAGS) == atomic_load(&file->access);
    int err = same ? change_lock(file, flags) : change_access(file, flags);
    if (!err) {
        atomic_store(&file->capabilities, probe(file));
    }
    pthread_mutex_unlock(&file->reopening);
    return err;
}

static void close_descriptors(struct posix *file)
{
    int fds[] = {file->direct_fd, file->fd, file->lock_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static void posix_free(struct posix *file)
{
    close_descriptors(file);
    pthread_rwlock_destroy(&file->exclusion);
    pthread_mutex_destroy(&file->reopening);
    free(file);
}

static void posix_close(void *context)
{
    struct posix *file = context;
    posix_pool_stop(&file->pool);
    posix_free(file);
}

static struct posix *posix_new(uint32_t access)
{
    pthread_rwlockattr_t attributes;
    struct posix *file = calloc(1, sizeof(*file));
    if (!file) {
        return NULL;
    }
    file->fd = file->direct_fd = file->lock_fd = -1;
    atomic_init(&file->access, access);
    pthread_mutex_init(&file->reopening, NULL);
    /* A stream of direct writes must not keep a buffered one waiting for ever. */
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&file->exclusion, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    return file;
}

/* The second descriptor; without one every request is buffered. */
static int open_direct(struct posix *file, uint32_t access)
{
    int fd = open_again(file->fd, open_mode(access) | O_DIRECT);
    if (fd == -EINVAL) {
        return 0;
    }
    if (fd < 0) {
        return fd;
    }
    file->direct_fd = fd;
    file->direct_alignment = file->memory_alignment = PAGE;
#ifdef STATX_DIOALIGN
    struct statx stat;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) == 0 && stat.stx_mask & STATX_DIOALIGN && stat.stx_dio_offset_align &&
        stat.stx_dio_mem_align) {
        file->direct_alignment = stat.stx_dio_offset_align;
        file->memory_alignment = stat.stx_dio_mem_align;
    }
#endif
    return 0;
}

/* What kind of file it is decides whether anything else is done to it: O_NONBLOCK, or opening a FIFO would wait for its writer. */
static int open_file(struct posix *file, const char *path, uint32_t flags)
{
    struct stat stat;
    int mode = open_mode(flags & ACCESS_FLAGS) | (flags & PLOOP_FILE_CREATE ? O_CREAT | O_EXCL : 0);
    file->fd = open_retrying(path, mode | O_NONBLOCK);
    if (file->fd < 0) {
        return file->fd;
    }
    if (fstat(file->fd, &stat)) {
        return -errno;
    }
    if (S_ISDIR(stat.st_mode)) {
        return -EISDIR;
    }
    if (!S_ISREG(stat.st_mode) && !S_ISBLK(stat.st_mode)) {
        return -ENOTBLK;
    }
    file->is_block = S_ISBLK(stat.st_mode);
    if (fcntl(file->fd, F_SETFL, 0)) {
        return -errno;
    }
    file->lock_fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
    return file->lock_fd < 0 ? -errno : 0;
}

static int prepare(struct posix *file, uint32_t flags)
{
    int err = change_lock(file, flags);
    if (!err && flags & PLOOP_FILE_DIRECT) {
        err = open_direct(file, flags & ACCESS_FLAGS);
    }
    if (!err) {
        atomic_store(&file->capabilities, probe(file));
        err = posix_pool_start(&file->pool, posix_execute, file);
    }
    return err;
}

int ploop_file_open_posix(const char *path, uint32_t flags, ploop_file **file)
{
    static const struct ploop_io_ops ops = {.size = sizeof(ops),
                                            .get_info = posix_get_info,
                                            .submit = posix_submit,
                                            .kick = posix_kick,
                                            .cancel = posix_cancel,
                                            .reopen = posix_reopen,
                                            .close = posix_close};
    uint32_t known = ACCESS_FLAGS | PLOOP_FILE_UNLOCKED | PLOOP_FILE_DIRECT | PLOOP_FILE_CREATE;
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    if (!path || flags & ~known || !is_one_access(flags) || (flags & PLOOP_FILE_CREATE && flags & PLOOP_FILE_READ_ONLY)) {
        return -EINVAL;
    }
    struct posix *made = posix_new(flags & ACCESS_FLAGS);
    if (!made) {
        return -ENOMEM;
    }
    int err = open_file(made, path, flags);
    bool created = made->fd >= 0 && flags & PLOOP_FILE_CREATE;
    if (!err) {
        err = prepare(made, flags);
    }
    if (!err) {
        err = ploop_file_create(&ops, made, file);
        if (!err) {
            return 0;
        }
        posix_pool_stop(&made->pool);
    }
    if (created) {
        (void)unlink(path);
    }
    posix_free(made);
    return err;
}
