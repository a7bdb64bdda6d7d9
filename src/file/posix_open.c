/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend's descriptors: which are opened when, what the file can do, and how reopen
 * changes them. posix.h has the rules.
 */
#include "file/posix.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file/posix_lock.h"

/* ---- What the file is like ---- */

int64_t posix_size(const struct posix *file)
{
    struct stat stat;
    if (file->is_block) {
        off_t end = lseek(file->fd, 0, SEEK_END); /* nothing else uses the position */
        return end < 0 ? -errno : end;
    }
    return fstat(file->fd, &stat) ? -errno : stat.st_size;
}

int64_t posix_allocate(int fd, int mode, uint64_t offset, uint64_t length)
{
    int error;
    do {
        error = fallocate(fd, mode, (off_t)offset, (off_t)length) ? -errno : 0;
    } while (error == -EINTR);
    return error;
}

/*
 * A punch beyond the end changes nothing and tells what the file system can. Only under our lock:
 * another process that may write could have made the file longer meanwhile. Until then it is taken
 * to be able.
 */
static uint32_t probe_fallocate(const struct posix *file)
{
    uint32_t able = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    int64_t size = posix_size(file);
    if (file->lock != LOCK_WRITER || size < 0 || size > INT64_MAX - 2 * POSIX_PAGE) {
        return able;
    }
    uint64_t beyond = ((uint64_t)size + POSIX_PAGE - 1) / POSIX_PAGE * POSIX_PAGE;
    int64_t error =
        posix_allocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, beyond, POSIX_PAGE);
    return error == -EOPNOTSUPP || error == -ENOSYS ? 0 : able;
}

static uint32_t probe(const struct posix *file)
{
    uint32_t capabilities = file->is_block ? PLOOP_FILE_FIXED_SIZE : 0;
    capabilities |= file->is_taken ? PLOOP_FILE_TOOK_DESCRIPTOR : 0;
    if (atomic_load(&file->access) == PLOOP_FILE_READ_ONLY) {
        return capabilities;
    }
    capabilities |= file->sync_fd >= 0 && file->fua.count ? PLOOP_FILE_CAN_FUA : 0;
    if (file->is_block) {
        return capabilities |
               PLOOP_FILE_CAN_PUNCH; /* where the device cannot, the kernel writes the zeros */
    }
    return capabilities | PLOOP_FILE_CAN_GROW | probe_fallocate(file);
}

/* ---- Opening ---- */

static int open_retrying(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0644);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

int posix_open_again(int fd, int flags)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open_retrying(path, flags);
}

static int open_mode(uint32_t access)
{
    return access == PLOOP_FILE_READ_WRITE ? O_RDWR : O_RDONLY;
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
    int error = posix_lock_change(file->lock_fd, file->lock, lock_for(flags));
    if (!error) {
        file->lock = lock_for(flags);
    }
    return error;
}

/*
 * For reading; where that cannot be had, the description that is there: its locks do not depend on
 * what else is done on it.
 */
int posix_open_lock(struct posix *file)
{
    file->lock_fd = posix_open_again(file->fd, O_RDONLY);
    if (file->lock_fd < 0) {
        file->lock_fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
    }
    return file->lock_fd < 0 ? -errno : 0;
}

static int look_at_kind(struct posix *file, int fd)
{
    struct stat stat;
    if (fstat(fd, &stat)) {
        return -errno;
    }
    if (S_ISDIR(stat.st_mode)) {
        return -EISDIR;
    }
    file->is_block = S_ISBLK(stat.st_mode);
    return S_ISREG(stat.st_mode) || file->is_block ? 0 : -ENOTBLK;
}

/*
 * What kind of file it is decides whether anything else is done to it: O_NONBLOCK, or opening a
 * FIFO would wait for its writer.
 */
int posix_open_file(struct posix *file, const char *path, uint32_t flags)
{
    int mode =
        open_mode(flags & POSIX_ACCESS_FLAGS) | (flags & PLOOP_FILE_CREATE ? O_CREAT | O_EXCL : 0);
    file->fd = open_retrying(path, mode | O_NONBLOCK);
    if (file->fd < 0) {
        return file->fd;
    }
    int error = look_at_kind(file, file->fd);
    if (!error && fcntl(file->fd, F_SETFL, 0)) {
        error = -errno;
    }
    return error ? error : posix_open_lock(file);
}

int posix_open_fd(struct posix *file, int fd, uint32_t flags)
{
    int status = fcntl(fd, F_GETFL);
    int wanted = open_mode(flags & POSIX_ACCESS_FLAGS);
    if (status < 0) {
        return -errno;
    }
    if (status & O_PATH || (status & O_ACCMODE) == O_WRONLY ||
        (wanted == O_RDWR && (status & O_ACCMODE) != O_RDWR)) {
        return -EACCES;
    }
    int error = look_at_kind(file, fd);
    if (error) {
        return error;
    }
    int own = posix_open_again(fd, wanted);
    if (own < 0) {
        return posix_take(file, fd, status, own);
    }
    file->fd = own;
    return posix_open_lock(file);
}

/*
 * A directory that cannot be opened for reading (0300 is enough to create a file) is not synced: no
 * file could be created there at all otherwise. Nor is one whose file system has no sync of
 * directories.
 */
int posix_sync_directory(const char *path)
{
    char *copy = strdup(path);
    if (!copy) {
        return -ENOMEM;
    }
    int fd = open_retrying(dirname(copy), O_RDONLY | O_DIRECTORY);
    free(copy);
    if (fd < 0) {
        return fd == -EACCES || fd == -EPERM ? 0 : fd;
    }
    int error = fsync(fd) ? -errno : 0;
    close(fd);
    return error == -EINVAL || error == -ENOTSUP ? 0 : error;
}

/* The second descriptor; without one every request is buffered. What is not known is a page. */
static int open_direct(struct posix *file, uint32_t access)
{
    int fd = posix_open_again(file->fd, open_mode(access) | O_DIRECT);
    if (fd == -EINVAL) {
        return 0;
    }
    if (fd < 0) {
        return fd;
    }
    file->direct_alignment = file->memory_alignment = POSIX_PAGE;
#ifdef STATX_DIOALIGN
    struct statx stat;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) == 0 &&
        stat.stx_mask & STATX_DIOALIGN && stat.stx_dio_offset_align && stat.stx_dio_mem_align) {
        file->direct_alignment = stat.stx_dio_offset_align;
        file->memory_alignment = stat.stx_dio_mem_align;
    }
#endif
    if (file->direct_alignment > POSIX_BLOCK_MAX) {
        close(fd);
        return 0;
    }
    file->direct_fd = fd;
    if (file->direct_alignment > SECTOR_BYTES) {
        file->block = file->direct_alignment;
    }
    return 0;
}

/* The kernel punches no part of a device's sector, through the page cache either. */
static void find_sector(struct posix *file)
{
    int bytes = 0;
    if (file->is_block && ioctl(file->fd, BLKSSZGET, &bytes) == 0 && bytes > SECTOR_BYTES &&
        bytes <= POSIX_BLOCK_MAX) {
        file->block = (uint32_t)bytes;
    }
}

int posix_open_rest(struct posix *file, uint32_t flags)
{
    int error = change_lock(file, flags);
    find_sector(file);
    if (!error && flags & PLOOP_FILE_DIRECT) {
        error = open_direct(file, flags & POSIX_ACCESS_FLAGS);
    }
    if (!error && flags & PLOOP_FILE_READ_WRITE) {
        file->sync_fd = posix_open_again(file->fd, O_RDWR);
        posix_fua_open(&file->fua, file->fd, file->direct_fd >= 0);
    }
    if (!error) {
        atomic_store(&file->capabilities, probe(file));
    }
    return error;
}

/* ---- Reopening ---- */

/* Put the file that `from` is under the number of `to`. */
static void replace(int *to, int from)
{
    int error;
    do {
        error = dup3(from, *to, O_CLOEXEC) < 0 ? errno : 0;
    } while (error == EINTR || error == EBUSY);
    assert(error == 0); /* both numbers are ours */
    close(from);
}

/*
 * The descriptors of another access, before they are the file's. Negative: not wanted, or an error.
 */
struct descriptors {
    int fd;
    int direct_fd;
    int sync_fd;
};

static void close_all(const struct descriptors *fds)
{
    int each[] = {fds->fd, fds->direct_fd, fds->sync_fd};
    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
        if (each[i] >= 0) {
            close(each[i]);
        }
    }
}

static int open_for(const struct posix *file, uint32_t access, struct descriptors *fds)
{
    bool direct = file->direct_fd >= 0;
    *fds = (struct descriptors){
        .fd = posix_open_again(file->fd, open_mode(access)), .direct_fd = -1, .sync_fd = -1};
    if (fds->fd >= 0 && direct) {
        fds->direct_fd = posix_open_again(file->fd, open_mode(access) | O_DIRECT);
    }
    if (fds->fd >= 0 && access == PLOOP_FILE_READ_WRITE) {
        fds->sync_fd = posix_open_again(file->fd, O_RDWR);
    }
    return fds->fd < 0 ? fds->fd : direct && fds->direct_fd < 0 ? fds->direct_fd : 0;
}

/* Nothing fails any more. FUA writes under way end first. */
static void take_over(struct posix *file, uint32_t access, const struct descriptors *fds)
{
    atomic_store(&file->access, access);
    replace(&file->fd, fds->fd);
    if (fds->direct_fd >= 0) {
        replace(&file->direct_fd, fds->direct_fd);
    }
    if (file->sync_fd >= 0) {
        close(file->sync_fd);
    }
    file->sync_fd = fds->sync_fd;
    posix_fua_close(&file->fua);
    if (access == PLOOP_FILE_READ_WRITE) {
        posix_fua_open(&file->fua, file->fd, file->direct_fd >= 0);
    }
}

/*
 * A loss that the old description would report is not reported to a new one where some other call
 * was told of it already. So the old one is asked before it goes, and its error ends the change.
 * The new ones are open by then, and are told of what is lost later.
 */
static int change_access(struct posix *file, uint32_t flags)
{
    struct descriptors fds;
    int error = open_for(file, flags & POSIX_ACCESS_FLAGS, &fds);
    pthread_mutex_lock(&file->syncing);
    error = error ? error : posix_sync_locked(file);
    error = error ? error : change_lock(file, flags);
    if (error) {
        close_all(&fds);
    } else {
        take_over(file, flags & POSIX_ACCESS_FLAGS, &fds);
    }
    pthread_mutex_unlock(&file->syncing);
    return error;
}

int posix_reopen(void *context, uint32_t flags)
{
    struct posix *file = context;
    if (!posix_is_one_access(flags) ||
        flags & ~(uint32_t)(POSIX_ACCESS_FLAGS | PLOOP_FILE_UNLOCKED)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&file->reopening);
    bool same = (flags & POSIX_ACCESS_FLAGS) == atomic_load(&file->access);
    int error = same ? change_lock(file, flags) : change_access(file, flags);
    if (!error) {
        atomic_store(&file->capabilities, probe(file));
    }
    pthread_mutex_unlock(&file->reopening);
    return error;
}

/* ---- The object ---- */

static void close_descriptors(struct posix *file)
{
    int fds[] = {file->direct_fd, file->fd, file->sync_fd, file->lock_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

void posix_free(struct posix *file)
{
    posix_taken_ends(file);
    close_descriptors(file);
    posix_fua_destroy(&file->fua);
    pthread_rwlock_destroy(&file->exclusion);
    pthread_mutex_destroy(&file->entrance);
    pthread_mutex_destroy(&file->syncing);
    pthread_mutex_destroy(&file->reopening);
    free(file);
}

struct posix *posix_new(uint32_t access)
{
    struct posix *file = calloc(1, sizeof(*file));
    if (!file) {
        return NULL;
    }
    file->fd = file->direct_fd = file->lock_fd = file->sync_fd = -1;
    file->block = 1;
    atomic_init(&file->access, access);
    pthread_mutex_init(&file->reopening, NULL);
    pthread_mutex_init(&file->syncing, NULL);
    posix_fua_init(&file->fua);
    pthread_mutex_init(&file->entrance, NULL);
    pthread_rwlock_init(&file->exclusion, NULL);
    return file;
}
