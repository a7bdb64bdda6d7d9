/* SPDX-License-Identifier: MIT */
/*
 * A backend that does everything the contract allows: it completes inline, late, on other threads,
 * in reap, in any order, moves a part of the bytes, returns EAGAIN and EINTR, and carries out
 * nothing before it was kicked. It holds its file in memory and fails a test whose requests break
 * the contract.
 */
#ifndef WILD_BACKEND_H
#define WILD_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/file.h>

enum wild_mode {
    WILD_INLINE,  /* before submit returns */
    WILD_REAP,    /* in reap, with `wait` to sleep for it */
    WILD_POLLED,  /* in reap, without `wait` */
    WILD_THREADS, /* on threads of its own */
    WILD_MIXED    /* inline or on threads, by chance */
};

enum { WILD_PENDING_MAX = 1024, WILD_THREADS_MAX = 4 };

struct wild_config {
    enum wild_mode mode;
    uint64_t seed;
    uint64_t file_size;
    uint64_t file_size_max; /* -ENOSPC beyond */
    uint32_t alignment;
    uint64_t max_transfer;
    uint32_t capabilities;
    uint32_t short_percent; /* of transfers longer than one unit */
    uint32_t short_unit;    /* moved bytes are a multiple of this; 0: of the alignment */
    uint32_t
        again_percent; /* of submits that are refused, and of results that are EAGAIN or EINTR */
    uint32_t delay_us; /* at most, before a thread completes */
    bool runs_without_kick;
};

struct wild {
    struct wild_config config;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    uint64_t random;
    uint8_t *bytes;
    uint64_t file_size;
    struct ploop_io *pending[WILD_PENDING_MAX];
    uint32_t pending_count;
    uint32_t kicked_count; /* the first of those, which may be carried out */
    uint32_t in_flight;
    uint32_t queue_count;
    int fd; /* readable while there is a completion to reap */
    bool stop, closed;
    pthread_t threads[WILD_THREADS_MAX];
    uint32_t thread_count;
    /* The next request of fail_op, after fail_after others of it, ends with fail_with. */
    uint32_t fail_op;
    uint32_t fail_after;
    int64_t fail_with;
    bool fail_always;
    uint64_t counts[8]; /* requests carried out, by op */
    uint64_t refusals;  /* submits that returned EAGAIN */
    uint64_t largest;   /* the longest transfer requested */
};

struct wild *wild_new(const struct wild_config *config);
void wild_free(struct wild *wild);

/*
 * A file on it. The backend belongs to the test, and may be opened again after the file was closed.
 */
ploop_file *wild_open(struct wild *wild);

void wild_fail(struct wild *wild, uint32_t op, uint32_t after, int64_t with, bool always);

#endif
