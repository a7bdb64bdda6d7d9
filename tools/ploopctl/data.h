/* SPDX-License-Identifier: MIT */
/*
 * Where the data of a disk is: a walk along the disk that leaves out what is known to be zeros
 * without reading it.
 *
 * A range is left out if no file of the stack holds it, or if it lies in a hole of the file that
 * holds it. The walk asks the library for the first, and the file system (SEEK_DATA) for the
 * second. If the file system cannot tell, all of the file is data.
 *
 *  1. Each byte of the disk that is not zero is in exactly one window.
 *  2. A window lies in one aligned stretch of DATA_WINDOW_BYTES, and begins at a multiple of
 *     DATA_BLOCK_BYTES. It ends at one too, unless the disk ends there.
 *  3. There is at most one window in each such stretch. It may have holes inside, which read as
 *     zeros: to read over a hole costs less than a request for each side of it.
 */
#ifndef PLOOPCTL_DATA_H
#define PLOOPCTL_DATA_H

#include <stdint.h>

#include <ploop/ploop.h>

enum { DATA_WINDOW_BYTES = 1048576, DATA_BLOCK_BYTES = 4096 };

/* How much of a file counts as data where data begins, before the file system is asked again. */
enum { DATA_STEP_BYTES = 262144 };

/*
 * A file that holds data, and the last answer of its file system: [known, data) is a hole, and
 * [data, end) counts as data.
 */
struct data_file {
    int fd; /* negative: no file system to ask */
    uint64_t file_size;
    uint64_t known, data, end;
};

struct data_walk {
    ploop_dev *dev; /* NULL: the only file is the disk, from its first byte on */
    /* Instead of dev: as ploop_bat_lookup(), and files[0] knows no holes. */
    int (*lookup)(uint64_t offset, uint64_t length, struct ploop_extent *extent);
    struct data_file *files; /* one for each level of the stack */
    uint64_t disk_size;

    uint64_t at;            /* in the disk: what is before it has been handed out or left out */
    uint64_t data_end;      /* [at, data_end) is data, where that is not empty */
    uint64_t mapped_end;    /* [at, mapped_end) is in one file, where that is not empty: */
    struct data_file *file; /* that file, */
    uint64_t host_at;       /* and the place of `at` in it, right while at <= mapped_end */
};

struct data_window {
    uint64_t offset; /* in the disk */
    uint32_t length;
};

/*
 * Open a file by its name a second time, to ask for its holes. If that fails the whole file is
 * data.
 */
struct data_file data_file_open(const char *path);
void data_file_close(struct data_file *file);

/*
 * The next window. 1: there is one; 0: no data is left; -errno: the map cannot be read at `at`, and
 * all data before that has been handed out.
 */
int data_next(struct data_walk *walk, struct data_window *window);

/* Go on behind what cannot be read: at `offset`, which is not before `at`. */
void data_skip(struct data_walk *walk, uint64_t offset);

#endif
