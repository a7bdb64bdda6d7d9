/* SPDX-License-Identifier: MIT */
/* What posix_cache.h says. */
#include "file/posix_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 20, PAUSE_NS = 5 * 1000 * 1000 };

/*
 * What is dropped and looked at together where not all can be dropped at once; mapped at a time
 * where mincore() has to look.
 */
enum { WINDOW = 4 << 20 };

/*
 * cachestat(2), Linux 6.5, the same number on every architecture; written down here because C
 * libraries learned it later.
 */
enum { CACHESTAT_NUMBER = 451 };

struct cachestat_range_of {
    uint64_t offset;
    uint64_t length; /* 0: to the end */
};

struct cachestat_counts {
    uint64_t cached;
    uint64_t dirty;
    uint64_t writeback;
    uint64_t evicted;
    uint64_t recently_evicted;
};

static bool is_anything(const unsigned char *pages, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (pages[i] & 1) {
            return true;
        }
    }
    return false;
}

/* 0: no byte of [offset, offset + length) is cached; -EBUSY; or -errno. */
static int look_at_window(int fd, uint64_t offset, uint64_t length, uint64_t page,
                          unsigned char *pages)
{
    void *memory = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    int error = mincore(memory, length, pages) ? -errno : 0;
    munmap(memory, length);
    return error ? error : is_anything(pages, (length + page - 1) / page) ? -EBUSY : 0;
}

static int look_page_by_page(int fd, uint64_t offset, uint64_t length)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages = malloc(WINDOW / page);
    int error = pages ? 0 : -ENOMEM;
    for (uint64_t at = offset; at < offset + length && !error; at += WINDOW) {
        uint64_t left = offset + length - at;
        error = look_at_window(fd, at, left < WINDOW ? left : WINDOW, page, pages);
    }
    free(pages);
    return error;
}

/*
 * File systems over others have the pages in the file below, where cachestat does not look but a
 * mapping leads.
 */
static bool is_over_another(const struct statfs *where)
{
    uint32_t type = (uint32_t)where->f_type;
    return type == OVERLAYFS_SUPER_MAGIC || type == FUSE_SUPER_MAGIC ||
           type == ECRYPTFS_SUPER_MAGIC;
}

static int look(int fd, uint64_t offset, uint64_t length, const struct statfs *where)
{
    struct cachestat_range_of range = {.offset = offset, .length = length};
    struct cachestat_counts counts = {0};
    if (is_over_another(where) || syscall(CACHESTAT_NUMBER, fd, &range, &counts, 0)) {
        return look_page_by_page(fd, offset, length);
    }
    return counts.cached ? -EBUSY : 0;
}

static int drop_range(int fd, uint64_t offset, uint64_t length, const struct statfs *where)
{
    int error = -posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
    return error ? error : look(fd, offset, length, where);
}

/* A page in use at this moment is let go soon; one that a process maps is not. */
static int drop_window(int fd, uint64_t offset, uint64_t length, const struct statfs *where)
{
    struct timespec pause = {.tv_nsec = PAUSE_NS};
    int error = drop_range(fd, offset, length, where);
    for (int i = 0; error == -EBUSY && i < TRIES; i++) {
        nanosleep(&pause, NULL);
        error = drop_range(fd, offset, length, where);
    }
    return error;
}

static bool cache_is_storage(const struct statfs *where)
{
    uint32_t type = (uint32_t)where->f_type;
    return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC;
}

/*
 * All at once, and where something stays window by window: a program that only reads the file
 * brings pages back all the time, but each page need only be out of the cache once. What is read
 * after that comes from the storage.
 */
int posix_cache_drop(int fd, bool is_block, uint64_t file_size)
{
    struct statfs where;
    if (fstatfs(fd, &where)) {
        return -errno;
    }
    if ((!is_block && cache_is_storage(&where)) || file_size == 0) {
        return 0;
    }
    if (is_block) {
        (void)ioctl(fd, BLKFLSBUF, 0); /* root only; what counts is whether anything is left */
    }
    int error = drop_range(fd, 0, file_size, &where);
    if (error != -EBUSY) {
        return error;
    }
    error = 0;
    for (uint64_t offset = 0; offset < file_size && !error; offset += WINDOW) {
        uint64_t left = file_size - offset;
        error = drop_window(fd, offset, left < WINDOW ? left : WINDOW, &where);
    }
    return error;
}
