/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the POSIX backend share: posix.c carries requests out, posix_open.c opens and
 * reopens, posix_fua.c has the descriptors of FUA writes, posix_cache.c empties the page cache,
 * posix_lock.c locks, posix_pool.c has the threads.
 *
 * Linux reports a lost writeback once for each open file description, to the first call on it that
 * asks: fsync, fdatasync, a write with RWF_DSYNC, on NFS a plain write too. From that follow these
 * invariants:
 *
 *  1. sync_fd is a description of its own, and nothing but SYNC is done on it. Where it cannot be
 *     opened SYNC runs on `fd` and FUA is not offered: plain writes do not ask for errors, but on
 *     NFS.
 *  2. Each FUA write has a description to itself while it is under way (posix_fua.h).
 *  3. SYNCs run one at a time, and once one has failed all fail with its error until
 *     posix_invalidate() was called, whose result tells what the cache may show. Without that, of
 *     two callers one would be told of the loss and the other would take what it wrote for durable.
 *  4. `fd` and `direct_fd` keep their numbers from open to close: reopen puts other files under
 *     them, so that a request that is being carried out needs no lock against it. sync_fd and
 *     sync_error belong to `syncing`.
 *  5. The locks on bytes belong to lock_fd, a description for reading that reopen does not touch. A
 *     file that is read-only has no description that could write.
 */
#ifndef FILE_POSIX_H
#define FILE_POSIX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "file/file.h"
#include "file/posix_fua.h"
#include "file/posix_pool.h"

_Static_assert(sizeof(off_t) == 8, "offsets would be cut: compile with _FILE_OFFSET_BITS=64");

enum { POSIX_ACCESS_FLAGS = PLOOP_FILE_READ_ONLY | PLOOP_FILE_READ_WRITE };

/*
 * Where the kernel does not say what direct requests must be aligned to, this is enough for any
 * disk.
 */
enum { POSIX_PAGE = 4096, POSIX_BLOCK_MAX = 65536, SECTOR_BYTES = 512 };

struct posix {
    int fd;
    int direct_fd; /* -1: none */
    int lock_fd;
    bool is_block;
    uint32_t block;            /* what requests are to be multiples of; 1: bytes */
    uint32_t direct_alignment; /* of offset and length */
    uint32_t memory_alignment;
    _Atomic uint32_t access; /* PLOOP_FILE_READ_ONLY or READ_WRITE */
    _Atomic uint32_t capabilities;
    uint32_t lock; /* LOCK_ ..., what lock_fd holds */
    pthread_mutex_t reopening;
    pthread_mutex_t syncing;
    int sync_fd;              /* -1: SYNC runs on fd */
    int sync_error;           /* of the first SYNC that failed, or 0 */
    pthread_mutex_t entrance; /* of exclusion */
    pthread_rwlock_t exclusion;
    bool is_created;          /* by this open */
    bool is_taken;            /* fd was the caller's: posix_taken.c */
    struct posix *next_taken; /* under the mutex there */
    struct posix_fua fua;
    struct posix_pool pool;
};

static inline bool posix_is_one_access(uint32_t flags)
{
    return (flags & POSIX_ACCESS_FLAGS) == PLOOP_FILE_READ_ONLY ||
           (flags & POSIX_ACCESS_FLAGS) == PLOOP_FILE_READ_WRITE;
}

/* A new object, all of its descriptors -1, and its end. NULL: no memory. */
struct posix *posix_new(uint32_t access);
void posix_free(struct posix *file);

/*
 * Open by name; then, under its lock, everything else that PLOOP_FILE_ flags ask for. 0 or -errno;
 * posix_free() in any case.
 */
int posix_open_file(struct posix *file, const char *path, uint32_t flags);
/* A file that was created is found under its name after a power cut. 0 or -errno. */
int posix_sync_directory(const char *path);
int posix_open_rest(struct posix *file, uint32_t flags);
/* The same for a descriptor of the caller's, instead of a name. */
int posix_open_fd(struct posix *file, int fd, uint32_t flags);
int posix_open_lock(struct posix *file);

/* ---- posix_taken.c ---- */
/* It could not be opened again, which failed with `error`. 0, or -errno. */
int posix_take(struct posix *file, int fd, int status, int error);
void posix_taken_ends(struct posix *file);
/* The open has failed: a descriptor that was taken stays the caller's. */
void posix_leave_descriptor(struct posix *file);

/* ---- posix.c: the file with its I/O threads, for the backend that is made of it ---- */

/* 0 or -errno, nothing left behind. The second with I/O threads that it shares. */
int posix_open(const char *path, uint32_t flags, struct posix **file);
int posix_open_shared(const char *path, uint32_t flags, struct ploop_io_threads *threads,
                      struct posix **file);
/* What posix_open() has made is not used after all: undone. */
void posix_abandon(struct posix *file, const char *path);
/* Why a request is not taken: 0 or -errno. */
int posix_refuses(const struct posix *file, const struct ploop_io *io);
int posix_get_info(void *context, struct ploop_file_info *info);
int posix_invalidate(void *context);
int posix_data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length);

/* ---- posix_open.c ---- */
int posix_reopen(void *context, uint32_t flags);

/*
 * The same file again, in another mode; by number, so that it does not matter what its name means
 * by now. Needs /proc.
 */
int posix_open_again(int fd, int flags);

/* The file's size now, or -errno. */
int64_t posix_size(const struct posix *file);

/* fallocate(2), made again where a signal interrupts it. 0 or -errno. */
int64_t posix_allocate(int fd, int mode, uint64_t offset, uint64_t length);

/* One SYNC, by the thread that holds `syncing`. 0 or -errno. */
int posix_sync_locked(struct posix *file);

#endif
