/* SPDX-License-Identifier: MIT */
/**
 * @file file.h
 * Image files, and the contract between the library and the backends that move their bytes.
 *
 * A ::ploop_file is one image file behind a backend. The library brings an io_uring, a POSIX and a
 * memory backend; any other is a ::ploop_io_ops table of the caller's. A file belongs to the caller
 * before, during and after its use by a device.
 */
#ifndef PLOOP_FILE_H
#define PLOOP_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One image file behind a backend. */
typedef struct ploop_file ploop_file;

/** The io_uring rings that several files share: see ploop_uring_create(). */
typedef struct ploop_uring ploop_uring;

/** The operation of a backend request: ploop_io.op. */
enum {
    PLOOP_IO_READ = 1,
    PLOOP_IO_WRITE = 2,
    PLOOP_IO_SYNC = 3, /**< every operation completed before this one was submitted is durable once
                          it succeeds; see below */
    PLOOP_IO_ALLOCATE = 4, /**< blocks for [offset, offset + length), the file extended if need be;
                              content unchanged */
    PLOOP_IO_PUNCH = 5,    /**< [offset, offset + length) reads as zeros afterwards; the file's size
                              does not change. Where it is refused (-ENOTSUP, -EINVAL, -ENOSYS and
                              the like; not -EIO or -ENOSPC) the library writes zeros instead */
    PLOOP_IO_TRUNCATE =
        6 /**< the file's size becomes offset; bytes beyond the old size read as zeros */
};

/**
 * The most pieces of memory in one backend request: ploop_io.iov_count. Longer requests of a guest
 * are cut up.
 */
enum { PLOOP_IO_SEGMENTS_MAX = 1024 };

/** Flags of a backend request: ploop_io.flags. */
enum {
    PLOOP_IO_FUA = 1,       /**< a write that is durable when it completes; sent only where the
                              backend says PLOOP_FILE_CAN_FUA */
    PLOOP_IO_MAY_BLOCK = 2, /**< the thread that submits waits for this request and holds nothing
                              that another thread needs: `submit` may carry the request out before
                              it returns. Sent only to a backend that has `help` */
    PLOOP_IO_ALLOCATES = 4  /**< a hint: the file probably has no blocks yet for this write. A file
                                system carries such writes to one file out one after the other,
                                so that a backend with threads had better not use many for them */
};

/** What a backend can do: ploop_file_info.capabilities. */
enum {
    PLOOP_FILE_CAN_FUA = 1,
    PLOOP_FILE_CAN_PUNCH = 2,
    PLOOP_FILE_CAN_ALLOCATE = 4,
    PLOOP_FILE_CAN_GROW = 8, /**< TRUNCATE may make the file larger; without it no new cluster can
                                  be had beyond its end */
    PLOOP_FILE_FIXED_SIZE = 16, /**< no ability: the size is that of a device, whatever the image on
                                   it needs. Said of a file that is open for reading only, too */
    PLOOP_FILE_TOOK_DESCRIPTOR = 32 /**< ploop_file_open_fd(): the descriptor is the file's, and not
                                       the caller's any more */
};

/** Flags to open and reopen a file. */
enum {
    PLOOP_FILE_READ_ONLY = 1,
    PLOOP_FILE_READ_WRITE = 2,
    PLOOP_FILE_UNLOCKED = 4, /**< take no lock: the caller keeps other programs away by other means,
                                or locks the file later through `reopen` */
    PLOOP_FILE_DIRECT =
        8, /**< bypass the page cache (O_DIRECT) for requests that are aligned for it. Where that
                takes more than sectors, request_alignment says so */
    PLOOP_FILE_CREATE =
        16 /**< create the file; with READ_WRITE. An existing one is -EEXIST and stays as it is. The
                directory is synced, so that the file is found under its name after a power cut;
                but not where the caller may not read it, or the file system cannot sync it. An
                embedder's backend is to do the like in its own open */
};

/**
 * A backend request. The library owns it and lends it to the backend from `submit` until
 * ploop_io_complete(); in between the library does not change it. The memory that `iov` points to
 * stays valid as long.
 */
struct ploop_io {
    uint32_t size;      /**< of this structure */
    uint32_t op;        /**< PLOOP_IO_READ ... */
    uint32_t flags;     /**< PLOOP_IO_FUA */
    uint32_t iov_count; /**< at most PLOOP_IO_SEGMENTS_MAX; 0 for all but READ and WRITE */
    uint32_t queue; /**< the queue it is sent on, below attach's queue_count: a backend may keep a
                       ring for each. See ploop_io_ops */
    uint32_t reserved;
    uint64_t offset; /**< in the file; the new size for TRUNCATE */
    uint64_t length; /**< what the iov holds in all; 0 for SYNC and TRUNCATE */
    const struct iovec *iov;
    void *backend_data[5]; /**< the backend's own while it holds the request */
};

/** What a backend reports about its file: see ploop_io_ops.get_info. */
struct ploop_file_info {
    uint64_t size; /**< of this structure, set by the library; fill no more than this */
    uint64_t file_size;
    uint32_t capabilities; /**< PLOOP_FILE_CAN_ ... */
    /**
     * What offset and length of a READ, WRITE and PUNCH have to be multiples of, a power of two up
     * to 65536; 1 for none. ALLOCATE and TRUNCATE come for any number of sectors. Memory begins at
     * multiples of it, and where it is more than 512 each piece of memory ends so; of 4096 where it
     * is more than that.
     *
     * A device's requests are multiples of 512 bytes whatever is said here. Where it is more than
     * 512, the engine reads and writes whole blocks for them. A request that fills its blocks, in
     * memory that is aligned, costs what it costs elsewhere. A read of a part of a block is one of
     * the whole block and a copy, and so is a read into other memory. A write of a part of a block
     * is a read and a write of the block, and keeps other requests of its cluster waiting. Four
     * buffers of 64 KiB, taken at open, serve all of a device's files.
     */
    uint32_t request_alignment;
    uint64_t max_transfer; /**< the longest READ or WRITE it takes; 0: no limit */
    uint64_t reserved[4];
};

/**
 * A backend: the functions through which the library reaches one file. `context` is what
 * ploop_file_create() was given.
 *
 * Every function may be called from any thread, several at once, and must not call the library but
 * for ploop_io_complete(). No library lock is held around a call. The table is copied; functions
 * are only ever appended to it.
 *
 * **What SYNC must report.** If the backend loses bytes of an operation that it had completed, the
 * next SYNC fails. An error that anything but SYNC returns must not take away what SYNC would
 * report: a guest whose FLUSH succeeds after a loss has lost data without being told. Linux reports
 * a lost writeback once for each open file description, to the first call on it that asks: fsync,
 * fdatasync, a write with RWF_DSYNC or O_DSYNC, sync_file_range, on NFS a plain write too, each of
 * them through io_uring as well. Therefore:
 *  - The description on which SYNC runs is known to nothing else. A duplicated descriptor shares
 *    its description; one that was opened again does not.
 *  - A FUA write that is told of a lost write fails, and so does the next SYNC. Two FUA writes that
 *    are under way at the same time do not share a description: the one that asks first would be
 *    told of the loss of both. A backend that cannot keep to this does not say PLOOP_FILE_CAN_FUA;
 *    the library then makes writes durable by SYNC.
 *  - After a SYNC has failed, the library sends no SYNC to the file before the next open or repair.
 *    Those begin with a SYNC, which may report the old loss once more, and then call `invalidate`.
 *
 * **Who calls what for which queue.** A device has the queues that its embedder asked for, and
 * behind them, with the highest index, one of its own: the engine's. On a user's queue go the reads
 * and overwrites that its embedder submits there and that need nothing but one backend request; on
 * the engine's queue goes everything else: parts of requests, BAT pages, SYNC, space, copies, and
 * all of ploop_dev_pread(), ploop_dev_pwrite() and ploop_dev_flush().
 *  - `submit`, `kick` and `reap` for one queue are called by one thread at a time, though not
 *    always by the same one: a ring needs no lock, and must not be bound to a thread (as io_uring's
 *    SINGLE_ISSUER does). `submit` may come from inside `reap` only for another queue.
 *  - `wait` and `poll_fd` for a queue may be called beside them, and so may `help` and the `kick`
 *    that takes its place.
 *  - A request with PLOOP_IO_MAY_BLOCK may come from any thread, on any queue, beside others there;
 *    no `kick` follows it.
 *  - A ring that refuses a request (-EAGAIN) on a user's queue is not asked again for it: it goes
 *    out on the engine's queue.
 *  - ploop_file_pread() and the other calls of this file use queue 0, and are not for a file that a
 *    device has open behind a backend with rings.
 *
 * Which functions belong together: a backend that completes requests only when it is asked to has
 * `reap`, `poll_fd`, and `wait` for calls that block. Without `wait`, calls that block look every
 * few milliseconds. The open of a device refuses, with -EINVAL and a line in the log that names
 * what is missing: `poll_fd` without `reap`, `reap` without `poll_fd`, `register_memory` without
 * `unregister_memory`.
 */
struct ploop_io_ops {
    size_t size; /**< of this structure; size_t, as in each table of functions */
    /** The file's size and abilities now. @return 0 or -errno. */
    int (*get_info)(void *context, struct ploop_file_info *info);
    /**
     * Take a request. It is completed exactly once through ploop_io_complete(), from any thread,
     * perhaps before submit returns. Requests may be executed and completed in any order.
     * @return 0: taken; -EAGAIN: no room now, will be tried again; another -errno: not taken, the
     *         request fails with it
     */
    int (*submit)(void *context, struct ploop_io *io);
    /**
     * Optional: how many queues there will be, the engine's included: one more than
     * ploop_dev_config.queue_count. Before a device's first request, and again by the next device.
     * @return 0 or -errno.
     */
    int (*attach)(void *context, uint32_t queue_count);
    /** Optional: the end of a batch of requests on this queue: a good moment to send them. */
    void (*kick)(void *context, uint32_t queue);
    /** Optional: complete what is ready, without waiting. @return how many were completed. */
    int (*reap)(void *context, uint32_t queue);
    /**
     * Optional: sleep until something can be reaped or the time is over. With it, blocking calls
     * work in a process without threads. @return 0 (also after the time is over) or -errno.
     */
    int (*wait)(void *context, uint32_t queue, uint64_t timeout_ns);
    /**
     * Optional: a descriptor that is readable when something can be reaped. @return it or -errno.
     */
    int (*poll_fd)(void *context, uint32_t queue);
    /** Optional: complete everything held with -ECANCELED and touch its memory no more. */
    void (*cancel)(void *context);
    /**
     * Optional: change to these PLOOP_FILE_ flags: read-only, read-write, locked or not. A new
     * description does not report what the kernel has already told to another one. So before any
     * description is replaced the old one is synced; if that fails, `reopen` fails with its error,
     * and every SYNC fails with it until `invalidate` was called.
     * @return 0 or -errno, unchanged then
     */
    int (*reopen)(void *context, uint32_t flags);
    /** Optional: the file is closed; nothing is called any more. */
    void (*close)(void *context);
    /**
     * Optional: drop whatever is cached of the file, so that reads show what the storage holds.
     * Called after a SYNC, with no request in flight, before RECOVER or a repair reads the file:
     * after a failed SYNC a cache may show bytes that the storage has lost. The result tells the
     * library what it may trust; SYNC reports only what is lost from then on.
     * @return 0 only if nothing of the file is cached afterwards; -EBUSY: something stays cached;
     *         another -errno
     */
    int (*invalidate)(void *context);
    /**
     * Optional: the memory of many requests will lie in [memory, memory + length), so the backend
     * may tell the kernel of it once, and not for each request. Requests may be under way and come
     * meanwhile. Requests with other memory come as before. See ploop_dev_register_memory().
     * @return 0; -ENOTSUP, always the same for a file; another -errno. Nothing is registered then.
     *         -EEXIST: a part of it is registered already. Only the same memory may be, for another
     *         file or device: then it ends when the last of them unregisters it
     */
    int (*register_memory)(void *context, void *memory, uint64_t length);
    /**
     * Needed where register_memory is: the end of what one such call has begun; no request with
     * this memory is under way. The backend keeps no hold of it.
     */
    void (*unregister_memory)(void *context, void *memory, uint64_t length);
    /**
     * Optional, for a backend whose requests a thread has to carry out: carry out one request that
     * was submitted and has not begun, in the calling thread, and complete it. It may take as long
     * as the request does.
     *
     * A thread that is going to wait in a blocking call does not kick what it has sent in its turn.
     * It calls `help` instead, when it has given the turn back, and until its own request is done
     * or nothing waits; for what it leaves it calls `kick`. So one request needs no other thread.
     * Where more than one waits, `help` sees to it that others are begun meanwhile, as `kick`
     * would.
     * @return 1: one was carried out; 0: none waits
     */
    int (*help)(void *context);
    /**
     * Optional: where the next data of the file lies, from `offset` on. What lies before it is a
     * hole: it reads as zeros and takes no space on the host. A check tells by it space that is
     * lost from space that is only not used: see ploop_check_result.
     *
     * @param[out] data_offset  at or past `offset`, in bytes
     * @param[out] data_length  in bytes; 0: nothing but a hole up to the end of the file
     * @return 0; -ENOTSUP: the file cannot tell, or its size cannot change, as a block device's;
     *         another -errno
     */
    int (*data_extent)(void *context, uint64_t offset, uint64_t *data_offset,
                       uint64_t *data_length);
};

/**
 * Complete a backend request.
 *
 * @param io      a request that was submitted and not yet completed; not the backend's any more
 * after this call
 * @param result  the bytes moved for READ and WRITE (fewer than asked for is continued by the
 *                library; 0 is no progress, which becomes -EIO), 0 for the others, or -errno;
 *                -EINTR and -EAGAIN are tried again
 *
 * Any thread, from inside submit, kick, reap and cancel too. Never blocks. The one library function
 * a backend may call. Completing a request twice aborts a debug build; a release build ignores it
 * where it can. @since 2.0
 */
void ploop_io_complete(struct ploop_io *io, int64_t result);

/**
 * Make a file out of a backend of the caller's.
 *
 * @param ops      copied; get_info and submit are needed, the rest may be NULL
 * @param context  handed to every function
 * @param[out] file  the caller's, to be closed with ploop_file_close(); NULL after a failure
 * @return 0, -EINVAL (NULL where there must not be, a size too small), -E2BIG (a newer table with
 *         functions this library does not know), -ENOMEM. On failure ops->close is not called.
 *
 * Any thread. @since 2.0
 */
int ploop_file_create(const struct ploop_io_ops *ops, void *context, ploop_file **file);

/**
 * I/O threads that files of the POSIX backend share. They are started when requests wait that no
 * thread carries out which waits for them, end after some seconds without work, are named
 * "ploop-io/N", and block all signals.
 */
typedef struct ploop_io_threads ploop_io_threads;

/**
 * Make I/O threads, to open files with ploop_file_open_posix_shared(). No thread runs yet.
 *
 * @param count_max  how many threads may run at once; 0: the default, 8
 * @param[out] threads  the caller's, to be freed with ploop_io_threads_free(); NULL after a failure
 * @return 0, -EINVAL (more than 64, threads is NULL) or -ENOMEM
 *
 * Any thread. @since 2.0
 */
int ploop_io_threads_create(uint32_t count_max, ploop_io_threads **threads);

/**
 * Give I/O threads back. Files that were opened with them keep them until they are closed, so this
 * may be called at once after the last open. NULL is allowed.
 * Any thread; blocks where they end. @since 2.0
 */
void ploop_io_threads_free(ploop_io_threads *threads);

/**
 * Open a file of the file system, with I/O threads of its own: at most eight, started when they are
 * needed. Calls that block, and ploop_pio_execute(), do their reads and writes in the calling
 * thread and need none.
 *
 * Unless PLOOP_FILE_UNLOCKED is given the file is locked at once (advisory byte ranges, the same
 * that QEMU takes): shared for reading, exclusive for writing.
 *
 * @param path   of a regular file or block device
 * @param flags  PLOOP_FILE_READ_ONLY or PLOOP_FILE_READ_WRITE, and UNLOCKED, DIRECT, CREATE
 * @param[out] file  the caller's; NULL after a failure
 * @return 0, -EINVAL (flags), -ENOENT, -EACCES, -EEXIST, -EROFS, ... from open(2), -EAGAIN where
 *         another process holds a lock that excludes this one, -ENOTBLK or -EISDIR for what is
 *         neither file nor block device, -ENOMEM
 *
 * Any thread. The descriptors are close-on-exec. A file open for writing takes 11 of them, with
 * PLOOP_FILE_DIRECT 20, so that each FUA write and SYNC has an open file description to itself (see
 * ploop_io_ops); one open for reading takes 2, or 3. PLOOP_FILE_CAN_FUA is missing where they
 * cannot be opened, for example without /proc. @since 2.0
 */
int ploop_file_open_posix(const char *path, uint32_t flags, ploop_file **file);

/**
 * Open the file behind a descriptor, for a process that may open nothing by name. I/O threads and
 * locks are as with ploop_file_open_posix().
 *
 * The library opens the file again, through /proc/self/fd, for everything that it does: its SYNC,
 * its FUA writes and its locks have open file descriptions of their own. The descriptor stays the
 * caller's, who may close it.
 *
 * Where that cannot be done (no /proc, no permission) the descriptor is taken, and ploop_file_info
 * says PLOOP_FILE_TOOK_DESCRIPTOR: it belongs to the file from then on and is closed with it. The
 * caller must not sync, lock, duplicate or share it, because Linux reports a lost write once for
 * each description: another fsync would be told of it in SYNC's place. FUA is not offered then, and
 * `reopen` cannot change between reading and writing.
 *
 * @param fd     open for reading, and for writing with PLOOP_FILE_READ_WRITE
 * @param flags  PLOOP_FILE_READ_ONLY or PLOOP_FILE_READ_WRITE, and UNLOCKED, DIRECT (not for a
 *               descriptor that is taken)
 * @param[out] file  the caller's; NULL after a failure, after which the descriptor is the caller's
 * @return 0; -EINVAL (flags; a descriptor to be taken has O_APPEND or O_DIRECT), -EBADF, -EACCES
 *         (not open for this), -EBUSY (its description was taken before), -EAGAIN where another
 *         process holds a lock that excludes this one, -ENOTBLK or -EISDIR for what is neither file
 *         nor block device, -ENOMEM, -EMFILE
 *
 * Any thread. @since 2.0
 */
int ploop_file_open_fd(int fd, uint32_t flags, ploop_file **file);

/** ploop_uring_options.flags */
enum {
    PLOOP_URING_SQPOLL =
        1 /**< a thread of the kernel's looks for requests, so that sending takes no
                              system call. It occupies a processor while requests come. Where the
                              kernel refuses it, rings are as without it, and the log says so */
};

/** How the rings of a group are made. Zeros but for `size` are the defaults. */
struct ploop_uring_options {
    uint64_t size;
    uint32_t flags;          /**< PLOOP_URING_ ... */
    uint32_t sqpoll_idle_ms; /**< PLOOP_URING_SQPOLL: the thread sleeps after this time without a
                                request, and the next one wakes it; 0: 100 */
    /** Optional log callback, as ploop_dev_config.log. Called in ploop_uring_create() only. */
    void (*log)(void *user_data, uint32_t level, uint32_t message_id, const char *text);
    void *user_data; /**< for log */
    uint64_t reserved[4];
};

/**
 * Make a group: files that are opened in it share one ring for each queue number, where each would
 * have rings of its own. A device with many files then needs few descriptors, and sends and reaps
 * the requests to all of them in one call.
 *
 * Make one group for each device and open all its files in it. Files of several devices may be in
 * one group: that is correct, but requests of one device are then completed by threads of the
 * other, and their queues wait for each other's ring.
 *
 * @param options  NULL: the defaults
 * @param[out] group  the caller's, to be closed with ploop_uring_close(); NULL after a failure
 * @return 0; -ENOSYS where the kernel has no io_uring, this process may not use it, or the library
 *         was built without it; -EINVAL (flags, group is NULL); -E2BIG (unknown bytes of the
 *         options set); -ENOMEM; -EMFILE
 *
 * Any thread. A group has two descriptors for each ring, close-on-exec. @since 2.0
 */
int ploop_uring_create(const struct ploop_uring_options *options, ploop_uring **group);

/**
 * Give up the handle of a group, at any time: the rings are freed when the last file of the group
 * is closed, too. NULL is allowed. Any thread; no further file can be opened in it. @since 2.0
 */
void ploop_uring_close(ploop_uring *group);

/**
 * Open a file as ploop_file_open_posix() does, with I/O threads that other files use too: those of
 * one device, for example, whose backing images then need no threads of their own.
 *
 * @param threads  of ploop_io_threads_create(). A request that hangs, on a file server that is not
 *                 there, keeps one of them: share them among files that fail together
 * @return as ploop_file_open_posix(); -EINVAL, too, if threads is NULL
 *
 * Any thread. @since 2.0
 */
int ploop_file_open_posix_shared(const char *path, uint32_t flags, ploop_io_threads *threads,
                                 ploop_file **file);

/**
 * Open a file of the file system, with requests carried out by io_uring.
 *
 * It does what ploop_file_open_posix() does, for the same flags. Reads and writes go through a ring
 * for each queue of the device, in one system call for a batch; they are completed when the queue
 * is run, so nothing is done by another thread. I/O threads do the rest: SYNC and changes of the
 * file's size and blocks; those are completed when the queue is run, too. With PLOOP_FILE_DIRECT
 * requests whose memory is not aligned are copied through aligned memory. Where the kernel refuses
 * a ring for a queue, the queue uses another queue's. After a process that was killed the kernel
 * takes some time, about 0.1 s, to close the files of its rings; their locks end with the process.
 *
 * @param group  whose rings the file uses; it stays open as long as the file. NULL: a group of the
 *               file's own, with the defaults
 * @return as ploop_file_open_posix(), and without a group as ploop_uring_create(). After -ENOSYS
 *         use ploop_file_open_posix()
 *
 * Any thread. @since 2.0
 */
int ploop_file_open_uring(const char *path, uint32_t flags, ploop_uring *group, ploop_file **file);

/**
 * A file in memory, of zeros; sparse: only what is written takes memory.
 *
 * @param file_size  in bytes
 * @param[out] file  the caller's; NULL after a failure
 * @return 0, -EINVAL (larger than 2^63 - 1, file is NULL) or -ENOMEM. A write for which there is no
 *         memory is -ENOSPC.
 *
 * Any thread. Requests complete before submit returns. @since 2.0
 */
int ploop_file_create_memory(uint64_t file_size, ploop_file **file);

/**
 * What the backend says of a file now.
 *
 * @param info  `size` set by the caller
 * @return 0, -EINVAL (info->size; an answer of the backend's that makes no sense), or what the
 *         backend returns
 *
 * Any thread. @since 2.0
 */
int ploop_file_info(ploop_file *file, struct ploop_file_info *info);

/**
 * Read from a file, waiting until done: for tools and tests; a device is not needed.
 *
 * @return the bytes read, fewer than `length` only at the end of the file; -EINVAL, or
 *         what the backend returns
 *
 * Any thread; blocks. @since 2.0
 */
int64_t ploop_file_pread(ploop_file *file, void *buffer, uint64_t length, uint64_t offset);

/**
 * Write to a file, waiting until done. Not durable before ploop_file_sync().
 *
 * @return `length`, or -errno as ploop_file_pread(); how much was written is then unknown. -EBUSY:
 *         a device has the file open for writing; nothing was written
 *
 * Any thread; blocks. Not for a file that a device reads either: what the device shows would
 * change. @since 2.0
 */
int64_t ploop_file_pwrite(ploop_file *file, const void *buffer, uint64_t length, uint64_t offset);

/**
 * Set a file's size, waiting until done.
 * @return 0 or -errno as ploop_file_pread(); -EBUSY: a device has the file open for writing, or it
 * is being repaired Any thread; blocks. Not for a file that a device reads either. @since 2.0
 */
int ploop_file_truncate(ploop_file *file, uint64_t file_size);

/**
 * Make everything written durable, waiting until done. After a failure every further call fails,
 * because what is lost does not come back: write the data again to a file that was opened anew.
 * @return 0 or -errno as ploop_file_pread(); -EBUSY: a device has the file open for writing, or it
 *         is being repaired. The call would be told of lost writes in the device's place, and the
 *         device's next flush would succeed: use ploop_dev_flush()
 * Any thread; blocks. @since 2.0
 */
int ploop_file_sync(ploop_file *file);

/**
 * Close a file: after the device that used it. NULL is allowed.
 * Any thread; the handle is gone. @since 2.0
 */
void ploop_file_close(ploop_file *file);

#ifdef __cplusplus
}
#endif
#endif
