/* SPDX-License-Identifier: MIT */
/* See data.h. */
#include "data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

struct data_file data_file_open(const char *path)
{
    struct data_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    off_t end = file.fd < 0 ? 0 : lseek(file.fd, 0, SEEK_END);

    file.file_size = end < 0 ? 0 : (uint64_t)end;
    return file;
}

void data_file_close(struct data_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
    }
}

/*
 * Make the file's answer hold for `offset`. It asks for the next data only. The end of the data is
 * not asked for, because a file system may search the rest of the file for it, and would do so for
 * each cluster where clusters lie in reverse order. What lies past the end of the file counts as
 * data.
 */
static void find_data(struct data_file *file, uint64_t offset)
{
    if (offset >= file->known && offset < file->end) {
        return;
    }
    off_t data = file->fd < 0 ? -1 : lseek(file->fd, (off_t)offset, SEEK_DATA);
    bool is_hole_to_end = file->fd >= 0 && data < 0 && errno == ENXIO;

    file->known = offset;
    file->data = data < 0 ? offset : (uint64_t)data;
    if (is_hole_to_end && offset < file->file_size) {
        file->data = file->file_size;
    }
    file->end = data < 0 ? UINT64_MAX : file->data + DATA_STEP_BYTES;
}

/* Go to the next range that a file holds. 0 or -errno. */
static int find_mapped(struct data_walk *walk)
{
    struct ploop_extent extent = {.size = sizeof(extent)};

    if (!walk->dev && !walk->lookup) {
        walk->file = walk->files;
        walk->host_at = walk->at;
        walk->mapped_end = walk->disk_size;
        return 0;
    }
    uint64_t left = walk->disk_size - walk->at;
    int error = walk->lookup ? walk->lookup(walk->at, left, &extent)
                             : ploop_bat_lookup(walk->dev, walk->at, left, &extent);
    if (error) {
        return error;
    }
    if (extent.state == PLOOP_EXTENT_MAPPED) {
        walk->file = &walk->files[walk->lookup ? 0 : extent.level];
        walk->host_at = extent.host_offset;
        walk->mapped_end = walk->at + extent.length;
    } else {
        walk->at += extent.length;
    }
    return 0;
}

static void go_to(struct data_walk *walk, uint64_t at)
{
    walk->host_at += at - walk->at;
    walk->at = at;
}

/* Go to the next data: then [at, data_end) is not empty. 1, 0 or -errno as data_next(). */
static int find_run(struct data_walk *walk)
{
    while (walk->at >= walk->data_end && walk->at < walk->disk_size) {
        if (walk->at >= walk->mapped_end) {
            int error = find_mapped(walk);
            if (error) {
                return error;
            }
            continue;
        }
        struct data_file *file = walk->file;
        uint64_t left = walk->mapped_end - walk->at;
        find_data(file, walk->host_at);
        uint64_t skip = file->data > walk->host_at ? file->data - walk->host_at : 0;
        uint64_t run = file->end - walk->host_at;
        if (skip < left) {
            walk->data_end = walk->at + (run < left ? run : left);
        }
        go_to(walk, walk->at + (skip < left ? skip : left));
    }
    return walk->at < walk->disk_size;
}

static uint64_t round_up(uint64_t value, uint64_t unit, uint64_t limit)
{
    uint64_t rest = value % unit;

    return !rest ? value : limit - value < unit - rest ? limit : value + unit - rest;
}

int data_next(struct data_walk *walk, struct data_window *window)
{
    int result = find_run(walk);
    if (result <= 0) {
        return result;
    }
    uint64_t offset = walk->at - walk->at % DATA_BLOCK_BYTES;
    uint64_t limit = round_up(walk->at + 1, DATA_WINDOW_BYTES, walk->disk_size);
    uint64_t end = offset;
    while (result > 0 && walk->at < limit) {
        end = walk->data_end < limit ? walk->data_end : limit;
        go_to(walk, end);
        result = end < limit ? find_run(walk) : 1;
    }
    end = round_up(end, DATA_BLOCK_BYTES, limit);
    *window = (struct data_window){.offset = offset, .length = (uint32_t)(end - offset)};
    return 1;
}

void data_skip(struct data_walk *walk, uint64_t offset)
{
    go_to(walk, offset);
}
