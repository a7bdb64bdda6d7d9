/* SPDX-License-Identifier: MIT */
/**
 * @file dev.h
 * A device: a stack of image files that is open as one disk.
 *
 * The engine has no threads of its own unless ploop_dev_config.runner_count asks for some. It works
 * inside the caller's calls and the backend's completions. Callbacks of requests run in
 * ploop_queue_run() and ploop_queue_wait() only, and at the end in ploop_dev_close() and
 * ploop_dev_abort(). ploop_queue_run(), ploop_queue_wait() and ploop_dev_run() also do the work
 * that is due by the clock, and continue requests that cover many clusters and are therefore
 * carried out in slices. A caller learns in one of three ways when to run a device:
 *
 *   - A thread that waits for nothing else calls ploop_queue_wait(), which sleeps until there is
 *     work, and does it.
 *   - An event loop polls ploop_queue_poll_fd(), with the time of ploop_dev_next_deadline() as its
 *     timeout, and then calls ploop_queue_run(). The descriptor also becomes readable when that
 *     deadline moves forward.
 *   - A loop with timers of its own implements the clock's `wake_at`, which tells it when to call
 *     ploop_dev_run().
 *
 * With runners none of this is needed. Each queue belongs to one of the library's threads, which
 * runs its callbacks and all work that is due: submit requests from any thread, and nothing else.
 *
 * Functions that block, such as ploop_dev_pread(), run the device themselves. A program that uses
 * nothing else is correct too: the BAT pages then stay in memory until a flush or the close.
 */
#ifndef PLOOP_DEV_H
#define PLOOP_DEV_H

#include <stddef.h>
#include <stdint.h>

#include <ploop/file.h>

#ifdef __cplusplus
extern "C" {
#endif

/** An open device. */
typedef struct ploop_dev ploop_dev;

/** ploop_dev_config.flags */
enum {
    PLOOP_DEV_READ_ONLY = 1,
    PLOOP_DEV_RECOVER = 2, /**< open an image that was not closed cleanly. Check it first: it must
                              have no other errors than leaks */
    PLOOP_DEV_NO_FAST_PATH =
        4, /**< send every request through the engine: for tests and comparison */
    PLOOP_DEV_COMPLETE_IN_RUN = 8, /**< no effect: callbacks always run in a run of their queue */
    PLOOP_DEV_RAW_BASE = 16, /**< the first file of several is raw; never guessed from its bytes */
    PLOOP_DEV_INACTIVE = 32, /**< open without reading or locking. Not in this version: -ENOTSUP */
    PLOOP_DEV_RECOVER_CACHED = 64, /**< with RECOVER: open although the file's cache cannot be
                                      dropped; see ploop_dev_open() */
    /**
     * Use this on a host file system that can show the bytes of a deleted file after a power cut
     * where a write filled a hole: ext4 mounted with data=writeback, ext2, vfat. The library then
     * writes each new cluster whole, with zeros where the guest has written nothing, and makes it
     * durable before the map names it, so that no later write allocates blocks. It punches no
     * holes: a discard returns no space to the host, and a write of zeros with PLOOP_PIO_FAST_ONLY
     * fails with -ENOTSUP if it has to write. Each open for writing writes the BAT. The library
     * does not find holes that an image already has; remove them with `cp --sparse=never`. After a
     * failed SYNC no new cluster can be allocated.
     */
    PLOOP_DEV_HOST_SHOWS_STALE = 128,
    /**
     * A write of zeros takes a cluster like every other. Without this flag the library looks, when
     * a write would need a new cluster, whether it writes anything but zeros; if not, it writes
     * nothing, because the cluster reads as zeros already. Set this where the space is to be taken
     * (thick images).
     */
    PLOOP_DEV_WRITE_ZEROS_AS_DATA = 256
};

/**
 * What happens to a request for which there is no space: ploop_dev_config.enospc_policy. The policy
 * applies to writes, and to a FLUSH, PREFLUSH, FUA or BAT-page write that depends on a BAT page for
 * which there is no space. Suspend, close and open never wait for space: they fail with -ENOSPC.
 */
enum {
    PLOOP_ENOSPC_FAIL = 0, /**< fail with -ENOSPC */
    PLOOP_ENOSPC_PARK = 1  /**< wait; the clock and ploop_dev_retry_parked() try again */
};

/** What happens to changes after a SYNC has failed: ploop_dev_config.sync_failed_policy. */
enum {
    PLOOP_SYNC_FAILED_GO_ON =
        0, /**< carry out writes and discards as before, although every flush fails */
    PLOOP_SYNC_FAILED_REFUSE_CHANGES = 1 /**< fail them with -EIO; carry out reads only */
};

/** The events that ploop_dev_config.event reports, and what `value` is then. */
enum {
    PLOOP_EVENT_RESIZED = 1, /**< the new size in bytes */
    PLOOP_EVENT_FAILED =
        2, /**< a positive errno: a write of BAT pages failed and will be tried again */
    PLOOP_EVENT_PARKED = 3,  /**< how many requests wait for space now */
    PLOOP_EVENT_RESUMED = 4, /**< 0: no request waits for space any more */
    PLOOP_EVENT_POOL_HAS_ROOM =
        5, /**< the queue's index: ploop_pio_get() failed there and can be tried again */
    PLOOP_EVENT_BITMAPS_DROPPED = 7, /**< how many dirty bitmaps the image's format extension had:
                                        with the first change they are gone */
    PLOOP_EVENT_SYNC_FAILED =
        6, /**< a positive errno: the backend failed a SYNC. Reported once. See
                                   PLOOP_STATE_SYNC_FAILED */
    PLOOP_EVENT_COPY_FAILED =
        8 /**< the number of a guest cluster whose copy was put off, and failed;
                                   it will be tried again. See ploop_dev_config.cow_delay_ns */
};

/** The levels of ploop_dev_config.log. */
enum { PLOOP_LOG_ERROR = 1, PLOOP_LOG_WARNING = 2, PLOOP_LOG_INFO = 3 };

/**
 * What a line of the log is about: `message_id` of ploop_dev_config.log. Later versions have more.
 */
enum {
    PLOOP_MESSAGE_IMAGE = 1,       /**< an image, at open: why it cannot be used, or what is odd */
    PLOOP_MESSAGE_MARK = 2,        /**< the in-use mark, at open; what RECOVER does first */
    PLOOP_MESSAGE_UNMARK = 3,      /**< the in-use mark could not be cleared at close */
    PLOOP_MESSAGE_EXTENSION = 4,   /**< the format extension could not be kept */
    PLOOP_MESSAGE_BACKEND = 6,     /**< functions of a backend that do not belong together */
    PLOOP_MESSAGE_SYNC_FAILED = 7, /**< a SYNC failed: PLOOP_STATE_SYNC_FAILED */
    PLOOP_MESSAGE_SQPOLL = 8,      /**< the kernel refused PLOOP_URING_SQPOLL */
    PLOOP_MESSAGE_NEW_TOP = 9,     /**< the new file of a snapshot does not fit, or stays marked */
    PLOOP_MESSAGE_SNAPSHOT = 10,
    PLOOP_MESSAGE_GROW = 11,
    PLOOP_MESSAGE_MERGE = 12,
    PLOOP_MESSAGE_COMPACT = 13,
    PLOOP_MESSAGE_COPY = 14, /**< a copy from a lower delta that was put off has failed */
    PLOOP_MESSAGE_REPLACE = 15
};

/** The clock that a device uses. ploop_dev_open() copies the structure. */
struct ploop_clock {
    size_t size;
    void *context;
    /** Returns a monotonic time. Called from any thread, often. Must not call the library. */
    uint64_t (*now_ns)(void *context);
    /**
     * Optional: asks the caller to call ploop_dev_run() at this time; 0 means as soon as possible.
     * The new time replaces the one of the call before. A timer that fires once is enough: the
     * library calls this again when the deadline moves forward, and during a run that comes at the
     * time it asked for, later, or up to 2 ms earlier. It does not report a deadline that moves
     * back; the run that then comes too early asks for the new time. Called from any thread, one
     * call at a time. Must not call the library: store the time and wake your loop.
     */
    void (*wake_at)(void *context, uint64_t deadline_ns);
};

/** The configuration of a device. Call ploop_dev_config_init() first, then change fields. */
struct ploop_dev_config {
    uint64_t size;
    uint32_t flags;              /**< PLOOP_DEV_ ... */
    uint32_t runner_count;       /**< threads of the library that run the queues: queue q belongs to
                               thread q % runner_count, which is named ploop-run/N and takes no
                               signals. At most queue_count. 0: none, the caller runs the device */
    uint32_t queue_count;        /**< 0: 1 */
    uint32_t pio_count;          /**< requests of each queue's pool; 0: 128 */
    uint32_t enospc_policy;      /**< PLOOP_ENOSPC_ ... */
    uint32_t page_failure_limit; /**< the number of failed writes of a BAT page in a row after which
                                    the device refuses allocations; 0: 3. With PLOOP_ENOSPC_PARK a
                                    write that finds no space counts only after park_timeout_ns */
    /** From the last change of a page to its write; 0: write at once. */
    uint64_t writeback_delay_ns;
    /** The most time from the first change of a page to its write. */
    uint64_t writeback_max_age_ns;
    uint64_t preallocate_bytes; /**< the most by which the file is extended ahead of need, and no
                                      blocks are allocated ahead beyond that; 0: the library
                                      decides */
    uint64_t bat_limit_bytes; /**< the most memory for the BAT of one image, else -EFBIG; 0: 1 GiB.
                                 In a stack the map of the lower deltas takes 8 bytes more for each
                                 entry of the top */
    uint64_t park_timeout_ns; /**< PLOOP_ENOSPC_PARK: a request fails after this time; 0: never */
    const struct ploop_clock *clock; /**< NULL: CLOCK_MONOTONIC, no wake_at */
    /** Optional log callback: one line of text. Any thread. Must not call the library. */
    void (*log)(void *user_data, uint32_t level, uint32_t message_id, const char *text);
    /** Optional event callback: PLOOP_EVENT_ ... Any thread. Must not call the library. */
    void (*event)(void *user_data, uint32_t event, uint64_t value);
    void *user_data;             /**< for log and event */
    uint32_t sync_failed_policy; /**< PLOOP_SYNC_FAILED_ ... */
    uint32_t reserved1;
    /**
     * Memory of the caller's, or NULL: ploop_dev_open() stores there in one line, with a zero at
     * its end, why it failed; "" if it did not. Where the configuration itself is refused nothing
     * is stored.
     */
    char *error_text;
    size_t error_text_size; /**< of that memory, in bytes; what does not fit is cut off */
    /**
     * In a stack: for how long the copy of a cluster from a lower delta is put off, from the last
     * write to it on; 0, the default: the first write copies it. With a delay the first write of a
     * part moves its own bytes only. The rest is copied when a flush, a FUA write, a suspend, a job
     * or the close needs it; when the delay has passed; and writeback_max_age_ns after the first
     * write, or this delay if it is longer, at the latest. A cluster that the guest writes as a
     * whole, piece by piece, is never copied. At most 64 MiB wait to be copied; beyond that first
     * writes copy. With a delay a flush can fail because a lower delta cannot be read, or because
     * there is no space for the copy: see PLOOP_EVENT_COPY_FAILED. Each flush tries it again, and
     * it is mended when the guest writes the rest of the cluster.
     */
    uint64_t cow_delay_ns;
    uint64_t reserved[5];
};

/**
 * Fill a configuration with the defaults: a BAT page is written 500 ms after its last change and at
 * most 5 s after its first; one queue of 128 requests.
 *
 * @param size  sizeof(struct ploop_dev_config) as the caller was compiled
 *
 * Any thread. @since 2.0
 */
void ploop_dev_config_init(struct ploop_dev_config *config, size_t size);

/**
 * Open a stack of image files as one disk.
 *
 * An open for writing sets the in-use mark, which is durable when this function returns.
 *
 * The device writes to the last file only, the top. The exception is PLOOP_DEV_RECOVER: it also
 * makes each lower image clean that was not closed cleanly. Such a file must be open for writing,
 * and it stays clean if a later step fails.
 *
 * With PLOOP_DEV_RECOVER the library syncs each file that was not closed cleanly and drops its
 * cache before it reads the file, because after a failed SYNC a cache can show data that the disk
 * has lost. If that SYNC fails, the library logs it and continues. If a part of the file stays in
 * the cache, for example because another process maps it, the open fails with -EBUSY and changes
 * nothing. With PLOOP_DEV_RECOVER_CACHED the open continues; use that only if no SYNC or writeback
 * of the file has failed since it was last durable. If the backend has no `invalidate`, the library
 * logs a warning.
 *
 * @param deltas  the files, base first; each only once, and not in use by another device. To share
 *                a base between devices, open it once for each. The files stay the caller's; a
 *                failed open leaves them as they were.
 * @param count   the number of files, at most 255. Each image below the top must have the top's
 *                format version and cluster size, and must not be larger than the one above it. A
 *                raw base can have any size; the image above it limits what is read of it.
 * @param config  NULL: the defaults
 * @param[out] dev  the device; end it with ploop_dev_close() or ploop_dev_abort(). NULL after a
 *                  failure
 * @return 0; -EINVAL (a parameter, or no image: too short, another magic); -EUCLEAN (an image that
 *         cannot be trusted, or for writing one that was not closed cleanly: check it, or open with
 *         PLOOP_DEV_RECOVER; the log says which field); in a stack also: deltas that do not fit
 *         together; -EAGAIN (open elsewhere); -EBUSY (another device or call uses a file that this
 *         one is to write, or writes one of these files; with RECOVER, a cache that cannot be
 *         dropped); -EROFS; -EFBIG (BAT larger than bat_limit_bytes); -ENOMEM; -ENOTSUP (what this
 *         version has not; for writing, a necessary feature of the format extension that it does
 *         not know); -ENOSPC (no room for the blocks of a sparse BAT: no content was changed; or to
 *         keep features of the extension); -E2BIG (unknown bytes of the configuration set);
 *         -EDEADLK (from a callback); or what the backend returns
 *
 * Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_dev_open(ploop_file *const *deltas, uint32_t count, const struct ploop_dev_config *config,
                   ploop_dev **dev);

/**
 * Close a device: wait for the requests in flight, write dirty pages, sync, clear the in-use mark,
 * and free the device.
 *
 * Callbacks that have not run yet run inside this call, on the calling thread, because no
 * ploop_queue_run() will come any more. With runners they run on the runners, which end in this
 * call.
 *
 * @return 0: everything is durable and the mark is cleared. -errno: something did not reach the
 *         disk; the mark stays, and the image needs PLOOP_DEV_RECOVER. In one case the mark may be
 *         cleared after an error: if only the SYNC after the clearing failed; everything else is
 *         durable then. The device is freed in any case, but for -EDEADLK (from a callback), where
 *         nothing happens. Closing NULL returns 0.
 *
 * Any thread, blocks, not from a callback. No other call may be using the device. @since 2.0
 */
int ploop_dev_close(ploop_dev *dev);

/**
 * End a device as a crash would: write nothing more, and free the device. Requests at the backend
 * are cancelled if the backend can, and waited for otherwise; requests that have not reached the
 * backend complete with -ECANCELED. All callbacks that have not run yet run inside this call, on
 * the calling thread or the runners, as no ploop_queue_run() will come any more.
 *
 * Any thread, blocks, not from a callback. No other call may be using the device. NULL is allowed.
 * @since 2.0
 */
void ploop_dev_abort(ploop_dev *dev);

/**
 * Do the work that is due on all queues: reap the backends, write BAT pages whose deadline has
 * come, retry requests. The function runs no callbacks: the descriptor of a queue that has
 * completed requests becomes readable. With runners nobody has to call it.
 *
 * @return the number of page writes started, requests retried and completions reaped; also more
 *         than 0 if another thread is doing this work now. 0: nothing was due
 *
 * Any thread, from a callback too. Never blocks. @since 2.0
 */
int ploop_dev_run(ploop_dev *dev);

/**
 * Get the time at which to call ploop_dev_run() or ploop_queue_run() next.
 * @return a time of the device's clock; 0: now; UINT64_MAX: no work waits for the clock
 * Any thread, callbacks included. @since 2.0
 */
uint64_t ploop_dev_next_deadline(const ploop_dev *dev);

/**
 * Retry the requests that wait for space, because there may be space again.
 * @return the number of requests that were waiting
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_retry_parked(ploop_dev *dev);

/**
 * Suspend a device: hold back new requests, wait for those in flight, and make everything durable.
 * Requests that are submitted from now on wait, in order, until ploop_dev_resume(). A request that
 * covers many clusters stops between two of them and continues after the resume.
 *
 * When this function returns, callbacks of completed requests may still wait for ploop_queue_run().
 * ploop_dev_info.completions_waiting counts them. Run each queue until it is 0 before you save
 * state that the callbacks change.
 *
 * @return 0; -errno: something did not reach the disk, and the device is suspended nevertheless;
 *         -EALREADY: the device was suspended already; -ECANCELED: another thread resumed it
 *         meanwhile; -EDEADLK (from a callback)
 *
 * Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_dev_suspend(ploop_dev *dev);

/**
 * Called when a device is suspended: see ploop_dev_suspend_start().
 *
 * @param result  as ploop_dev_suspend() returns it; -ECANCELED also where a close or an abort came
 *                first
 *
 * Runs where callbacks of requests of queue 0 run, under the same rules.
 */
typedef void ploop_dev_fn(ploop_dev *dev, int result, void *user_data);

/**
 * Begin to suspend a device, as ploop_dev_suspend() does, and do not wait. New requests are held
 * back from here on; a few may still get through where another thread works on the device, and are
 * waited for. The rest goes on in the runs of the device, and `fn` is called once: when nothing is
 * in flight and everything is durable, or when that failed, or when ploop_dev_resume() came first.
 * A caller that saves its state after that runs each queue until
 * ploop_dev_info.completions_waiting is 0.
 *
 * @param fn  NULL: ploop_queue_reap() on queue 0 stores the end, as PLOOP_COMPLETION_SUSPENDED,
 *            with `user_data`
 * @return 0: fn will be called. -EALREADY: the device was suspended already, or is being suspended;
 *         -ENOMEM; -EINVAL (fn is NULL, and there are runners). After an error fn is not called
 *
 * Any thread, callbacks included. Never blocks. @since 2.0
 */
int ploop_dev_suspend_start(ploop_dev *dev, ploop_dev_fn *fn, void *user_data);

/**
 * Resume a suspended device. Requests that were held back begin first, in their order.
 * @return 0; -EINVAL: the device is not suspended
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_resume(ploop_dev *dev);

/**
 * Register memory: regions in which the memory of many requests will lie, such as a guest's RAM. A
 * backend that can (io_uring's) then tells the kernel of it once, and not for each request. Nothing
 * depends on it: requests with other memory, and those of several pieces of memory, are carried out
 * as before.
 *
 * The kernel pins the pages of registered memory, until it is unregistered. So register only memory
 * that keeps its pages: after madvise(MADV_DONTNEED), a balloon, a mapping over it or the like,
 * requests would go to the old pages, and the guest would not see what it has read. Unregister a
 * region before its pages are given back or it is unmapped. A region can be added or taken away at
 * any time, as memory is plugged in and out; each call names whole regions.
 *
 * Registering takes the kernel about 0.2 s for each 4 GiB and ring, if the pages are small, and
 * holds up the requests of a ring meanwhile: for at most 1 GiB at a time. The memory counts for
 * RLIMIT_MEMLOCK, for each ring again. The end of the device unregisters everything.
 *
 * @param regions  not empty; they do not overlap each other or what is registered
 * @return 0: registered for every file whose backend can. -errno: nothing was registered, and
 *         requests are carried out as before: -ENOTSUP (no backend of the device can, or the kernel
 *         cannot: a hypervisor ignores it); -EINVAL; -EEXIST (overlap); -ENOMEM (also the limit);
 *         -ENOSPC (more than 1024 regions, or GiB); -EFAULT (not mapped, or a file is mapped that
 *         cannot be pinned); or what the backend returns
 *
 * Any thread, blocks, callbacks included. @since 2.0
 */
int ploop_dev_register_memory(ploop_dev *dev, const struct iovec *regions, uint32_t count);

/**
 * Unregister memory. No request with this memory may be under way. When the call returns, the
 * kernel keeps no hold of the pages.
 *
 * @param regions  each as it was registered, perhaps by different calls
 * @return 0; -ENOENT: one of them is not registered so, and nothing was unregistered
 *
 * Any thread, blocks, callbacks included. @since 2.0
 */
int ploop_dev_unregister_memory(ploop_dev *dev, const struct iovec *regions, uint32_t count);

/** ploop_dev_info.state: any of these. */
enum {
    PLOOP_STATE_READ_ONLY = 1,
    PLOOP_STATE_SUSPENDED = 2,
    PLOOP_STATE_SYNC_FAILED = 4, /**< a SYNC failed: every flush, FUA write, suspend and close fails
                                    with -EIO from now on, because the data that was lost does not
                                    come back. Close the device and open it with RECOVER */
    PLOOP_STATE_ALLOCATION_REFUSED = 8 /**< page_failure_limit was reached; ends when a page write
                                          succeeds */
};

/** How a device does something: ploop_dev_info.fua and zeroing. */
enum {
    PLOOP_ABILITY_NONE = 0,     /**< not at all: the device is read-only */
    PLOOP_ABILITY_EMULATED = 1, /**< by a SYNC, or by writing zeros */
    PLOOP_ABILITY_NATIVE = 2    /**< the backend can */
};

/** A device's size, limits, state and counters since open. */
struct ploop_dev_info {
    uint64_t size;
    uint64_t disk_size;
    uint64_t cluster_size;
    uint32_t request_alignment;   /**< of a request's offset and length: 512, whatever the files
                                     want: see ploop_file_info for what that costs */
    uint32_t discard_granularity; /**< what a discard gives back: the cluster */
    uint64_t max_request_bytes;   /**< the longest request */
    uint32_t state;               /**< PLOOP_STATE_ ... */
    int32_t error;            /**< the backend's -errno that caused one of the last two states */
    uint64_t file_size;       /**< of the top delta, as the engine knows it */
    uint64_t clusters_mapped; /**< by the top delta */
    uint64_t clusters_free;   /**< below the end of the file, to be had without extending it */
    uint64_t clusters_quarantined; /**< removed from the map, and not to be reused before that is
                                      durable */
    uint64_t pages_dirty;          /**< now */
    uint64_t pages_failed;         /**< now */
    uint64_t requests;             /**< accepted */
    uint64_t requests_fast;    /**< of these, those that went from submit to the backend directly */
    uint64_t requests_parked;  /**< waiting for space now */
    uint64_t page_dirties;     /**< clean pages that became dirty */
    uint64_t page_redirties;   /**< changes absorbed by a page that was dirty already */
    uint64_t page_writes;      /**< pages sent to the backend */
    uint64_t page_write_calls; /**< backend writes for them: neighbours share one */
    uint64_t page_write_failures;
    uint64_t syncs; /**< sent to the backend */
    uint64_t sync_failures;
    uint64_t barriers;           /**< page writes that had to wait for a sync first */
    uint64_t flushes;            /**< flush requests */
    uint64_t flushes_coalesced;  /**< of these, those that shared another's round */
    uint64_t extensions;         /**< of the file */
    uint64_t punches;            /**< host clusters zeroed for reuse */
    uint64_t double_completions; /**< backend requests completed twice: a bug of the backend */
    uint32_t memory_alignment;   /**< of the address of a request's memory, up to 512; where it is
                                    more than 1, each segment's length is a multiple of 512 too */
    uint32_t delta_count;        /**< image files in the stack, the top one included */
    uint64_t clusters_copied;    /**< from lower deltas, because a part of them was written */
    uint32_t max_segments; /**< pieces of memory in a request that is handed to the backend as it
                              is; one with more is cut up */
    uint32_t completions_waiting;  /**< requests that are done and whose callbacks wait for
                                     ploop_queue_run() */
    uint32_t physical_block_bytes; /**< a request that is a multiple of this, and lies so, costs no
                                        reading of the rest of a block; at least 512 */
    uint32_t optimal_io_bytes;     /**< requests that begin and end at multiples of it are not cut
                                        up, and the first write to it copies nothing: the cluster */
    uint64_t max_discard_bytes;    /**< the longest discard and write of zeros: the disk */
    uint32_t fua;                  /**< PLOOP_ABILITY_ ... */
    uint32_t zeroing;              /**< PLOOP_ABILITY_ ..., of a cluster's part */
    uint64_t clusters_partial;     /**< now: whose copy from a lower delta is put off */
    uint64_t copies_failed;        /**< of those that were put off: how often one failed */
    uint64_t reserved[1];
};

/**
 * Get the state and the counters of a device.
 *
 * @param info  `size` set by the caller
 * @return 0 or -EINVAL
 *
 * Any thread, callbacks included. Each counter is exact; they are not read at the same moment.
 * @since 2.0
 */
int ploop_dev_info(ploop_dev *dev, struct ploop_dev_info *info);

/** The kinds of requests, as a guest sends them. Later versions may have more. */
enum {
    PLOOP_KIND_READ = 1,
    PLOOP_KIND_WRITE = 2,
    PLOOP_KIND_WRITE_ZEROES = 3,
    PLOOP_KIND_DISCARD = 4,
    PLOOP_KIND_FLUSH = 5,
    PLOOP_KIND_BAT_WRITE = 6
};

/** What a queue was asked of one kind since the device was opened. */
struct ploop_stats {
    uint64_t size;
    uint64_t requests;      /**< accepted */
    uint64_t requests_fast; /**< of these, those that went from submit to the backend directly */
    uint64_t bytes;         /**< that they cover; of BAT pages 4096 each; 0 for a flush */
    uint64_t errors;        /**< that have completed with an error */
    uint64_t reserved[7];
};

/**
 * Get the counts of one queue and one kind of requests. They are always counted, at no cost that
 * could be measured. A request that was refused at submit is counted nowhere, and what a job reads
 * and writes is counted in ploop_dev_info.requests only.
 *
 * @param queue  its index. ploop_dev_config.queue_count stands for the requests of functions that
 *               block, such as ploop_dev_pread()
 * @param kind   PLOOP_KIND_ ...
 * @param stats  `size` set by the caller
 * @return 0 or -EINVAL (no such queue, no such kind, size)
 *
 * Any thread, callbacks included. Each count is exact; they are not read at the same moment.
 * @since 2.0
 */
int ploop_dev_stats(ploop_dev *dev, uint32_t queue, uint32_t kind, struct ploop_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
