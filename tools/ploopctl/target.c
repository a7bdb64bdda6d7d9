/* SPDX-License-Identifier: MIT */
/* See target.h. */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum { CLEAR_PIECE = 1048576, CLEAR_ALIGNMENT = 4096 };

bool is_standard_output(const char *path)
{
    return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0;
}

static int open_stream(struct target *target, bool may_be_stream)
{
    if (!may_be_stream) {
        complain(target->path, "an image can only be written to a file or a block device");
        return -EINVAL;
    }
    target->kind = TARGET_STREAM;
    target->fd = is_standard_output(target->path) ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                                                  : open(target->path, O_WRONLY | O_CLOEXEC);
    int error = target->fd < 0 ? -errno : isatty(target->fd) == 1 ? -ENOTTY : 0;
    if (error) {
        complain(target->path, "cannot write: %s",
                 error == -ENOTTY ? "it is a terminal" : strerror(-error));
    }
    return error;
}

/* A device that is mounted, or that another program claims as this one does, is not opened. */
static int open_device(struct target *target, bool force)
{
    if (!force) {
        complain(target->path, "is a block device; use --force to overwrite what it holds");
        return -EEXIST;
    }
    target->kind = TARGET_DEVICE;
    target->fd = open(target->path, O_RDWR | O_EXCL | O_CLOEXEC);
    if (target->fd < 0) {
        int error = -errno;
        complain(target->path, "cannot open: %s",
                 error == -EBUSY ? "it is mounted, or another program uses it" : strerror(-error));
        return error;
    }
    return open_file(target->path, PLOOP_FILE_READ_WRITE, &target->file);
}

int target_open(struct target *target, const char *path, bool force, bool may_be_stream)
{
    struct stat status;
    int error;

    *target = (struct target){.path = path, .fd = -1};
    mode_t type = stat(path, &status) ? 0 : status.st_mode & S_IFMT;
    if (is_standard_output(path) || type == S_IFIFO || type == S_IFCHR) {
        error = open_stream(target, may_be_stream);
    } else if (type == S_IFBLK) {
        error = open_device(target, force);
    } else {
        return open_file(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &target->file);
    }
    if (error && target->fd >= 0) {
        close(target->fd);
    }
    return error;
}

/* Where the kernel cannot zero a range of the device. */
static int write_zeros(const struct target *target, uint64_t size)
{
    static const uint8_t zeros[CLEAR_PIECE];
    int64_t done = 0;

    for (uint64_t at = 0; at < size && done >= 0; at += CLEAR_PIECE) {
        uint64_t length = size - at < CLEAR_PIECE ? size - at : CLEAR_PIECE;
        done = ploop_file_pwrite(target->file, zeros, length, at);
    }
    return done < 0 ? (int)done : 0;
}

int target_clear(const struct target *target, uint64_t size)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    uint64_t end = size + (CLEAR_ALIGNMENT - size % CLEAR_ALIGNMENT) % CLEAR_ALIGNMENT;
    int error = ploop_file_info(target->file, &info);

    if (!error && info.file_size < size) {
        complain(target->path, "has %llu bytes, and the disk needs %llu",
                 (unsigned long long)info.file_size, (unsigned long long)size);
        return -ENOSPC;
    }
    end = end < info.file_size ? end : info.file_size;
    if (!error && end &&
        fallocate(target->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, (off_t)end)) {
        error = write_zeros(target, size);
    }
    if (error) {
        complain(target->path, "cannot be overwritten with zeros: %s", reason(error));
    }
    return error;
}

int target_end(struct target *target, int status)
{
    if (target->kind == TARGET_FILE) {
        if (status == EXIT_SUCCESS && sync_directory_of(target->path)) {
            status = EXIT_FAILURE;
        }
        if (status != EXIT_SUCCESS) {
            /* While it is still locked: no other program has begun to use it. */
            unlink(target->path);
        }
    }
    ploop_file_close(target->file);
    if (target->fd >= 0 && close(target->fd) && status == EXIT_SUCCESS) {
        status = complain(target->path, "cannot close: %s", strerror(errno));
    }
    return status;
}
