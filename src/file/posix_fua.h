/* SPDX-License-Identifier: MIT */
/*
 * The open file descriptions of FUA writes: a write takes a lane, with a description that no other
 * request uses meanwhile.
 *
 * A FUA write asks for errors on the description that it is made on. If two writes shared one and
 * the kernel lost the bytes of both, the first to ask would be told and the second would take its
 * bytes for durable. (posix.h tells the same of SYNC.)
 *
 *  1. A lane is free or has one write. There are as many lanes as I/O threads, or fewer where no
 *     more could be opened; a write that finds none free waits.
 *  2. posix_fua_close() waits for the writes that are under way; later ones find no lane.
 */
#ifndef FILE_POSIX_FUA_H
#define FILE_POSIX_FUA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "file/posix_pool.h"

struct posix_lane {
    int fd;
    int direct_fd; /* -1: none */
    bool is_taken;
};

struct posix_fua {
    pthread_mutex_t mutex;
    pthread_cond_t given_back;
    uint32_t count;
    struct posix_lane lanes[POSIX_POOL_THREADS];
};

void posix_fua_init(struct posix_fua *fua);
void posix_fua_destroy(struct posix_fua *fua);

/*
 * Open lanes to the file behind `fd`, where FUA writes to it work. With none FUA cannot be offered.
 * `direct`: with a second descriptor each, past the page cache.
 */
void posix_fua_open(struct posix_fua *fua, int fd, bool direct);
void posix_fua_close(struct posix_fua *fua);

/*
 * No request is told of an old error: each description, which the kernel may owe one, is asked
 * once. For a recovery, with no write under way; otherwise the first FUA writes after it would fail
 * with a loss that it has dealt with.
 */
void posix_fua_forget_errors(struct posix_fua *fua);

/* A lane, to be given back; NULL: there are none. */
struct posix_lane *posix_fua_take(struct posix_fua *fua);
/* The same without waiting; NULL: none is free. */
struct posix_lane *posix_fua_try(struct posix_fua *fua);
/* Whether there are none at all. */
bool posix_fua_is_missing(struct posix_fua *fua);
void posix_fua_give_back(struct posix_fua *fua, struct posix_lane *lane);

#endif
