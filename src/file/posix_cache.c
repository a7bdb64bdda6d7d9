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

/* A page in use by another processor at this moment is let go soon; one that a process maps is not. */
enum { TRIES = 5, PAUSE_NS = 10 * 1000 * 1000 };

/* mincore() works on a mapping: this much of the file is mapped at a time. */
enum { WINDOW = 256 << 20 };

/* cachestat(2), Linux 6.5, the same number on every architecture; written down here because C libraries learned it later. */
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

/* 0: nothing of [offset, offset + length) is cached; -EBUSY; or -errno. */
static int look_at_window(int fd, uint64_t offset, uint64_t length, uint64_t page, unsigned char *pages)
{
    void *memory = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    int err = mincore(memory, length, pages) ? -errno : 0;
    munmap(memory, length);
    return err ? err : is_anything(pages, (length + page - 1) / page) ? -EBUSY : 0;
}

static int look_page_by_page(int fd, uint64_t file_size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages = malloc(WINDOW / page);
    int err = pages ? 0 : -ENOMEM;
    for (uint64_t offset = 0; offset < file_size && !err; offset += WINDOW) {
        uint64_t left = file_size - offset;
        err = look_at_window(fd, offset, left < WINDOW ? left : WINDOW, page, pages);
    }
    free(pages);
    return err;
}

/* File systems over others have the pages in the file below, where cachestat does not look but a mapping leads. */
static bool is_over_another(const struct statfs *where)
{
    uint32_t type = (uint32_t)where->f_type;
    return type == OVERLAYFS_SUPER_MAGIC || type == FUSE_SUPER_MAGIC || type == ECRYPTFS_SUPER_MAGIC;
}

static int look(int fd, uint64_t file_size, const struct statfs *where)
{
    struct cachestat_range_of all = {0};
    struct cachestat_counts counts = {0};
    if (is_over_another(where) || syscall(CACHESTAT_NUMBER, fd, &all, &counts, 0)) {
        return look_page_by_page(fd, file_size);
    }
    return counts.cached ? -EBUSY : 0;
}

static bool cache_is_storage(const struct statfs *where)
{
    uint32_t type = (uint32_t)where->f_type;
    return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC;
}

int posix_cache_drop(int fd, bool is_block, uint64_t file_size)
{
    struct timespec pause = {.tv_nsec = PAUSE_NS};
    struct statfs where;
    if (fstatfs(fd, &where)) {
        return -errno;
    }
    if (!is_block && cache_is_storage(&where)) {
        return 0;
    }
    for (int i = 0;; i++) {
        if (is_block) {
            (void)ioctl(fd, BLKFLSBUF, 0); /* root only; what counts is whether anything is left */
        }
        int err = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        err = err ? err : look(fd, file_size, &where);
        if (err != -EBUSY || i == TRIES) {
            return err;
        }
        nanosleep(&pause, NULL);
    }
}
