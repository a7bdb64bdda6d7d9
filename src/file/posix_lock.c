/* SPDX-License-Identifier: MIT */
/* Locks on image files: see the header for the scheme. */
#include "file/posix_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

enum {
    READ_CONSISTENT = 1 << 0,
    WRITE_ANEW = 1 << 1,
    WRITE_UNCHANGED = 1 << 2,
    RESIZE = 1 << 3,
    USE_COUNT = 4
};
enum { USED_BASE = 100, UNSHARED_BASE = 200 };

struct uses {
    uint32_t used;
    uint32_t unshared;
};

/* A reader excludes writers too: a write would make the BAT that it has in memory wrong. */
static struct uses uses_of(uint32_t lock)
{
    switch (lock) {
    case LOCK_READER:
        return (struct uses){READ_CONSISTENT, WRITE_ANEW | RESIZE};
    case LOCK_WRITER:
        return (struct uses){READ_CONSISTENT | WRITE_ANEW | RESIZE, WRITE_ANEW | RESIZE};
    default:
        return (struct uses){0, 0};
    }
}

static int byte_lock(int fd, short type, uint32_t byte)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int error;
    do {
        error = fcntl(fd, F_OFD_SETLK, &range) ? -errno : 0;
    } while (error == -EINTR);
    return error == -EACCES ? -EAGAIN : error;
}

/* 0: no other description holds it. */
static int byte_test(int fd, uint32_t byte)
{
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &range)) {
        return -errno;
    }
    return range.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/*
 * For each bit: lock its byte, unlock it, or see whether others hold it. The first failure ends it.
 */
static int for_each_bit(int fd, uint32_t bits, uint32_t base, int (*action)(int fd, uint32_t byte))
{
    int error = 0;
    for (uint32_t i = 0; i < USE_COUNT && !error; i++) {
        if (bits & UINT32_C(1) << i) {
            error = action(fd, base + i);
        }
    }
    return error;
}

static int take(int fd, uint32_t byte)
{
    return byte_lock(fd, F_RDLCK, byte);
}

static int drop(int fd, uint32_t byte)
{
    (void)byte_lock(fd, F_UNLCK, byte); /* there is nothing to be done about it */
    return 0;
}

static void drop_all_but(int fd, struct uses held, struct uses kept)
{
    (void)for_each_bit(fd, held.used & ~kept.used, USED_BASE, drop);
    (void)for_each_bit(fd, held.unshared & ~kept.unshared, UNSHARED_BASE, drop);
}

int posix_lock_change(int fd, uint32_t from, uint32_t to)
{
    struct uses held = uses_of(from);
    struct uses want = uses_of(to);
    int error = for_each_bit(fd, want.used & ~held.used, USED_BASE, take);
    if (!error) {
        error = for_each_bit(fd, want.unshared & ~held.unshared, UNSHARED_BASE, take);
    }
    if (!error) {
        error = for_each_bit(fd, want.used, UNSHARED_BASE, byte_test);
    }
    if (!error) {
        error = for_each_bit(fd, want.unshared, USED_BASE, byte_test);
    }
    if (error) {
        drop_all_but(fd, want, held);
    } else {
        drop_all_but(fd, held, want);
    }
    return error;
}
