/* SPDX-License-Identifier: MIT */
/*
 * A backend over memory that does what a test tells it: it counts requests by kind, holds some back
 * and completes them when told to, fails the Nth of a kind, refuses submits, moves fewer bytes than
 * asked for, and is full at a size.
 *
 *  1. A request takes its effect on the bytes when it is completed, not when it is submitted.
 *  2. Writes below `meta_end` are a kind of their own, SCRIPT_META: BAT pages and the header.
 *  3. Everything is under one mutex but completions, hooks and naps.
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

/* What was submitted, in order. */
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
    uint32_t refuse;      /* so many submits more say -EAGAIN */
    uint32_t short_bytes; /* transfers move at most this, if not 0 */
    struct {
        uint64_t after; /* so many are let through */
        uint64_t times; /* then so many fail */
        int error;
    } fail[SCRIPT_KINDS];

    int invalidate_error; /* what `invalidate` returns */
    uint64_t invalidates;
    const uint8_t
        *disk; /* or NULL: what the file turns out to hold when the cache is dropped; the test's */
    uint64_t disk_size;

    uint64_t submitted[SCRIPT_KINDS], completed[SCRIPT_KINDS], kicks;
    uint64_t in_flight, in_flight_most;
    struct script_entry log[SCRIPT_LOG_MAX];
    uint32_t log_count;
    struct script_held held[SCRIPT_HELD_MAX];
    uint32_t held_count;

    /* Called by `wait`, when the library has nothing left to do but wait. */
    void (*idle)(struct script *script, void *argument);
    void *idle_argument;
    uint64_t naps; /* of the library without progress; too many fail the test */

    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_t thread;
    bool threaded, stop, closed;
    uint64_t random;
};

enum { SCRIPT_THREAD = 1, SCRIPT_NO_WAIT = 2, SCRIPT_NO_INVALIDATE = 4 };

/*
 * A file of those bytes, copied. SCRIPT_THREAD: held requests are completed by a thread, in random
 * order. SCRIPT_NO_...: without that function.
 */
void script_open(struct script *script, const void *bytes, uint64_t size, uint32_t options);
/* The file's handle anew, as another program would open it; the bytes stay. */
void script_reopen(struct script *script, uint32_t options);
void script_close(struct script *script);

/* The counts and the log begin again. */
void script_forget(struct script *script);

void script_fail(struct script *script, uint32_t kind, uint64_t after, uint64_t times, int error);

/* Complete the held request number `at`, of whatever kind. */
void script_release(struct script *script, uint32_t at);
/* Complete the oldest held one of a kind. False: there is none. */
bool script_release_kind(struct script *script, uint32_t kind);
/* Hold nothing any more, and complete everything held, those that come meanwhile too. */
void script_release_all(struct script *script);
uint32_t script_held_of(struct script *script, uint32_t kind);

/* The place in the log of the nth (0 the first) of a kind; fails the test where there is none. */
uint32_t script_log_find(const struct script *script, uint32_t kind, uint32_t nth);

#endif
