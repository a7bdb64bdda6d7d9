/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of the caller's that cannot be opened again: without /proc, or without permission.
 *
 *  1. Such a descriptor is the file's from then on, SYNC runs on it, and FUA is not offered.
 *  2. Each description is taken once: of two files one would be told of the losses of both, and the
 *     locks of one would be the other's. Those that are taken are on `all`, under `mutex`.
 */
#include "file/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct posix *all;

/* Where the kernel does not tell, two descriptors of one file may share their description. */
static bool may_share(int one, int two)
{
    struct stat first, second;
    long order =
        syscall(SYS_kcmp, (long)getpid(), (long)getpid(), (long)KCMP_FILE, (long)one, (long)two);
    if (order >= 0) {
        return order == 0;
    }
    return fstat(one, &first) || fstat(two, &second) ||
           (first.st_dev == second.st_dev && first.st_ino == second.st_ino);
}

/* Not for what may be better the next time. */
static bool cannot_be_opened(int error)
{
    return error == -ENOENT || error == -ENOTDIR || error == -EACCES || error == -EPERM ||
           error == -ENOSYS;
}

int posix_take(struct posix *file, int fd, int status, int error)
{
    if (!cannot_be_opened(error)) {
        return error;
    }
    if (status & (O_APPEND | O_DIRECT)) {
        return -EINVAL; /* writes would go elsewhere, or fail where they are not aligned */
    }
    pthread_mutex_lock(&mutex);
    bool is_free = true;
    for (const struct posix *other = all; other && is_free; other = other->next_taken) {
        is_free = !may_share(other->fd, fd);
    }
    if (is_free) {
        file->fd = fd;
        file->is_taken = true;
        file->next_taken = all;
        all = file;
    }
    pthread_mutex_unlock(&mutex);
    if (!is_free) {
        return -EBUSY;
    }
    error = fcntl(fd, F_SETFD, FD_CLOEXEC) ? -errno : posix_open_lock(file);
    return error;
}

void posix_taken_ends(struct posix *file)
{
    if (!file->is_taken) {
        return;
    }
    pthread_mutex_lock(&mutex);
    struct posix **link = &all;
    while (*link != file) {
        link = &(*link)->next_taken;
    }
    *link = file->next_taken;
    file->is_taken = false;
    pthread_mutex_unlock(&mutex);
}

void posix_leave_descriptor(struct posix *file)
{
    if (file->is_taken) {
        posix_taken_ends(file);
        file->fd = -1; /* the caller's again */
    }
}
