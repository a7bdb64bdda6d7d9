/* SPDX-License-Identifier: MIT */
/* See spool.h. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum { PIECE = 65536, BLOCK = 4096 };

static bool is_standard_input(const char *path)
{
    return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdin") == 0;
}

bool is_pipe(const char *path)
{
    struct stat status;

    return is_standard_input(path) || (!stat(path, &status) && S_ISFIFO(status.st_mode));
}

static int open_temporary(const char *directory)
{
    char name[4096];
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 &&
        snprintf(name, sizeof(name), "%s/ploopctl.XXXXXX", directory) < (int)sizeof(name)) {
        fd = mkstemp(name);
        if (fd >= 0) {
            unlink(name);
        }
    }
    return fd < 0 ? -errno : fd;
}

/* Fills the piece, but at the end. The number of bytes or -errno. */
static ssize_t read_piece(int pipe, uint8_t *bytes)
{
    size_t done = 0;
    ssize_t count = 1;

    while (done < PIECE && count > 0) {
        count = read(pipe, bytes + done, PIECE - done);
        done += count > 0 ? (size_t)count : 0;
    }
    return count < 0 ? -errno : (ssize_t)done;
}

static int write_block(int fd, const uint8_t *bytes, size_t length, uint64_t offset)
{
    static const uint8_t zeros[BLOCK];

    if (memcmp(bytes, zeros, length) == 0) {
        return 0;
    }
    ssize_t count = pwrite(fd, bytes, length, (off_t)offset);
    return count < 0 ? -errno : count < (ssize_t)length ? -ENOSPC : 0;
}

/* 0 or -errno; *is_source is whose error it is. */
static int copy_all(int pipe, int fd, bool *is_source)
{
    static uint8_t bytes[PIECE];
    uint64_t size = 0;
    int error = 0;

    *is_source = true;
    for (ssize_t length = PIECE; length == PIECE;) {
        length = read_piece(pipe, bytes);
        if (length < 0) {
            return (int)length;
        }
        for (size_t at = 0; at < (size_t)length && !error; at += BLOCK) {
            size_t left = (size_t)length - at;
            error = write_block(fd, bytes + at, left < BLOCK ? left : BLOCK, size + at);
        }
        size += (uint64_t)length;
        if (error) {
            *is_source = false;
            return error;
        }
    }
    *is_source = false;
    return ftruncate(fd, (off_t)size) ? -errno : 0;
}

int spool(const char *source, const char *directory, char path[SPOOL_PATH])
{
    bool is_source = false;
    int fd = open_temporary(directory);

    if (fd < 0) {
        complain(directory, "cannot create a temporary file: %s", strerror(-fd));
        return fd;
    }
    int pipe = is_standard_input(source) ? STDIN_FILENO : open(source, O_RDONLY | O_CLOEXEC);
    int error = pipe < 0 ? -errno : copy_all(pipe, fd, &is_source);
    if (error == -EINTR) {
        complain(source, "interrupted");
    } else if (error && (is_source || pipe < 0)) {
        complain(source, "cannot read: %s", strerror(-error));
    } else if (error) {
        complain(directory, "cannot write a temporary file: %s", strerror(-error));
    }
    if (pipe > STDIN_FILENO) {
        close(pipe);
    }
    (void)snprintf(path, SPOOL_PATH, "/proc/self/fd/%d", fd);
    return error;
}
