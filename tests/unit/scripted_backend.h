/* SPDX-License-Identifier: MIT */
/*
 * A backend over memory that a test controls: it counts requests by kind, holds some back and
 * completes them when told to, fails the Nth of a kind, refuses submits, moves fewer bytes than
 * requested, and is full at a given size.
 *
 *  1. A request takes its effect on the bytes when it is completed, not when it is submitted.
 *  2. Writes below `meta_end` are a separate kind, SCRIPT_META: BAT pages and the header.
 *  3. One mutex protects everything except completions, hooks and naps.
 */
#ifndef SCRIPTED_BACKEND_H
#define SCRIPTED_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/file.h>

enum {
    SCRIPT_META = PLOOP_IO_TRUNCATE + 1,
    SCRIPT_KINDS,
    SCRIPT_LOG_MAX = 4096,
    SCRIPT_HELD_MAX = 1024
};

#define SCRIPT_BIT(kind) (1u << (kind))
#define SCRIPT_ALL ((1u << SCRIPT_KINDS) - 2)

enum { SCRIPT_CAN_ALL = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE | PLOOP_FILE_CAN_GROW };

/* The submitted requests, in order. */
struct script_entry {
    uint32_t kind, flags;
    uint64_t offset, length;
};

struct script_held {
    struct ploop_io *io;
    uint32_t kind;
};

struct script {
    ploop_file *file;
    uint8_t *bytes;
    uint64_t file_size;
    uint64_t size_max; /* -ENOSPC beyond */
    uint64_t meta_end;
    uint32_t capabilities;
    uint64_t max_transfer;
    uint32_t alignment;

    uint32_t hold;        /* kinds that are held until script_release...() */
    uint32_t refuse;      /* the number of submits that still get -EAGAIN */
    uint32_t short_bytes; /* transfers move at most this, if not 0 */
    struct {
        uint64_t after; /* this many succeed */
        uint64_t times; /* then this many fail */
        int error;
    } fail[SCRIPT_KINDS];

    int invalidate_error; /* the result of `invalidate` */
    uint64_t invalidates;
    /* The content that the file turns out to have when the cache is dropped; NULL: its own. */
    const uint8_t *disk;
    uint64_t disk_size;

    uint64_t submitted[SCRIPT_KINDS], completed[SCRIPT_KINDS], kicks;
    uint64_t in_flight, in_flight_most;
    struct script_entry log[SCRIPT_LOG_MAX];
    uint32_t log_count;
    struct script_held held[SCRIPT_HELD_MAX];
    uint32_t held_count;

    /* Called by `wait`, when the library can only wait. */
    void (*idle)(struct script *script, void *argument);
    void *idle_argument;
    uint64_t naps; /* waits of the library without progress; too many fail the test */

    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_t thread;
    bool threaded, stop, closed;
    uint64_t random;
};

enum { SCRIPT_THREAD = 1, SCRIPT_NO_WAIT = 2, SCRIPT_NO_INVALIDATE = 4 };

/*
 * A file with a copy of these bytes. SCRIPT_THREAD: a thread completes held requests, in random
 * order. SCRIPT_NO_...: without that function.
 */
void script_open(struct script *script, const void *bytes, uint64_t size, uint32_t options);
/* Make a new handle of the file, as another program that opens it would have; the bytes stay. */
void script_reopen(struct script *script, uint32_t options);
void script_close(struct script *script);

/* Reset the counts and the log. */
void script_forget(struct script *script);

void script_fail(struct script *script, uint32_t kind, uint64_t after, uint64_t times, int error);

/* Complete the held request number `at`, of any kind. */
void script_release(struct script *script, uint32_t at);
/* Complete the oldest held request of a kind. False: there is none. */
bool script_release_kind(struct script *script, uint32_t kind);
/* Stop holding requests, and complete all held ones, including those that arrive meanwhile. */
void script_release_all(struct script *script);
uint32_t script_held_of(struct script *script, uint32_t kind);

/*
 * The index in the log of the nth request (0 the first) of a kind; fails the test if there is none.
 */
uint32_t script_log_find(const struct script *script, uint32_t kind, uint32_t nth);

#endif
