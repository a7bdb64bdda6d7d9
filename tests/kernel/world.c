/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECES = 8,
    PIECE_DISTANCE = 1 << 20,
    EXTENTS_MAX = 64,
    FILL_STEP = 1 << 20,
    PAGE_BYTES = 4096
};

void world_failed(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "kernel test cannot go on: ");
    (void)vfprintf(stderr, format, arguments);
    (void)fprintf(stderr, " (%s)\n", strerror(errno));
    va_end(arguments);
    exit(2);
}

static int open_or_die(const char *directory, const char *name, int flags)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s%s%s", directory, *name ? "/" : "", name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0) {
        world_failed("open %s", path);
    }
    return fd;
}

void world_init(struct world *world, const char *mount, const char *tmpfs, const char *device,
                const char *type)
{
    *world = (struct world){.mount = mount, .tmpfs = tmpfs, .device = device, .type = type};
    world->can_doom = strcmp(type, "btrfs") != 0; /* its offsets are not those of the device */
    (void)snprintf(world->image, sizeof(world->image), "%s/image", mount);
    world->backing_fd = open_or_die(tmpfs, "backing", O_RDWR);
    world->filler_fd = open_or_die(tmpfs, "filler", O_RDWR | O_CREAT);
    world->device_fd = open_or_die(device, "", O_RDONLY);
}

void world_fill(struct world *world)
{
    struct stat stat;
    if (fstat(world->filler_fd, &stat)) {
        world_failed("fstat filler");
    }
    off_t end = stat.st_size;
    for (off_t step = FILL_STEP; step >= PAGE_BYTES; step /= 2) {
        while (fallocate(world->filler_fd, 0, end, step) == 0) {
            end += step;
        }
        if (errno != ENOSPC) {
            world_failed("fill the tmpfs");
        }
    }
}

void world_give(struct world *world)
{
    if (ftruncate(world->filler_fd, 0)) {
        world_failed("empty the tmpfs");
    }
}

void world_mend(struct world *world)
{
    struct stat stat;
    if (world->can_doom &&
        (fstat(world->backing_fd, &stat) || fallocate(world->backing_fd, 0, 0, stat.st_size))) {
        world_failed("mend the backing file");
    }
}

static void punch_backing(const struct world *world, uint64_t offset, uint64_t length)
{
    if (fallocate(world->backing_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)length)) {
        world_failed("punch the backing file");
    }
}

void world_doom(struct world *world, uint64_t offset, uint64_t length)
{
    uint64_t memory[(sizeof(struct fiemap) + EXTENTS_MAX * sizeof(struct fiemap_extent)) /
                    sizeof(uint64_t)] = {0};
    struct fiemap *found = (struct fiemap *)(void *)memory;
    found->fm_start = offset;
    found->fm_length = length;
    found->fm_flags = FIEMAP_FLAG_SYNC;
    found->fm_extent_count = EXTENTS_MAX;
    int fd = open_or_die(world->image, "", O_RDWR);
    if (!world->can_doom) {
        close(fd);
        return;
    }
    if (ioctl(fd, FS_IOC_FIEMAP, found) || found->fm_mapped_extents == 0) {
        world_failed("find %llu bytes at %llu on the device", (unsigned long long)length,
                     (unsigned long long)offset);
    }
    for (uint32_t i = 0; i < found->fm_mapped_extents; i++) {
        const struct fiemap_extent *extent = &found->fm_extents[i];
        uint64_t from = extent->fe_logical > offset ? extent->fe_logical : offset;
        uint64_t end = extent->fe_logical + extent->fe_length;
        end = end < offset + length ? end : offset + length;
        if (from < end) {
            punch_backing(world, extent->fe_physical + from - extent->fe_logical, end - from);
        }
    }
    close(fd);
}

void world_preallocate(struct world *world, uint64_t length)
{
    struct stat stat;
    int fd = open_or_die(world->image, "", O_RDWR);
    bool failed =
        fstat(fd, &stat) || fallocate(fd, FALLOC_FL_KEEP_SIZE, stat.st_size, (off_t)length);
    for (off_t i = 1; i <= PIECES && !failed; i++) {
        failed = fallocate(fd, FALLOC_FL_KEEP_SIZE,
                           stat.st_size + (off_t)length + i * PIECE_DISTANCE, PAGE_BYTES);
    }
    if (failed || fsync(fd)) {
        world_failed("preallocate");
    }
    close(fd);
}

void world_write_back(const struct world *world)
{
    int fd = open_or_die(world->image, "", O_RDWR);
    (void)sync_file_range(
        fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    close(fd);
}

void world_sync(const struct world *world)
{
    int fd = open_or_die(world->mount, "", O_RDONLY);
    (void)syncfs(fd); /* it fails once more for a loss of an earlier run */
    close(fd);
}

void world_drop_caches(struct world *world)
{
    /* A child that ended like a crash leaves rings to the kernel, which closes their files late. */
    int error = umount(world->mount);
    for (int i = 0; error && errno == EBUSY && i < 5000; i++) {
        (void)usleep(1000);
        error = umount(world->mount);
    }
    if (error) {
        world_failed("unmount %s", world->mount);
    }
    if (ioctl(world->device_fd, BLKFLSBUF, 0)) {
        world_failed("drop the cache of %s", world->device);
    }
    if (mount(world->device, world->mount, world->type, 0, NULL)) {
        world_failed("mount %s", world->device);
    }
}
