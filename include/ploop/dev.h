/* SPDX-License-Identifier: MIT */
/**
 * @file dev.h
 * A device: image files, open, as one disk.
 *
 * The library has no threads of its own. It works inside the caller's calls and the backend's
 * completions. Callbacks run in ploop_queue_run() and ploop_queue_wait() only, and at the end in
 * close and abort. These two and ploop_dev_run() do what is due by the clock, and go on with
 * requests over so many clusters that they are done in slices. An embedder learns when to run in
 * one of these ways:
 *
 *   - ploop_queue_wait() sleeps until there is something to do, and does it: for a thread that has
 *     nothing else to wait for;
 *   - ploop_queue_poll_fd() becomes readable, or the time of ploop_dev_next_deadline(), asked for
 *     before each sleep, has come: for an event loop. The descriptor becomes readable too when that
 *     time moves forward;
 *   - the clock's `wake_at` says when ploop_dev_run() is due: for a loop that would rather have a
 *     timer of its own than ask for the deadline.
 *
 * Calls that block (ploop_dev_pread() and the like) run the device themselves. Between them,
 * without any of the three, BAT pages stay in memory until a flush or the close: late, never wrong.
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
    PLOOP_DEV_RECOVER = 2, /**< open an image that was not closed cleanly, after a check found no
                              more than that and leaks */
    PLOOP_DEV_NO_FAST_PATH =
        4,                   /**< send every request through the engine: for tests and comparison */
    PLOOP_DEV_RAW_BASE = 16, /**< the first file of several is raw; never guessed from its bytes */
    PLOOP_DEV_INACTIVE = 32, /**< open without reading or locking. Not in this version: -ENOTSUP */
    PLOOP_DEV_RECOVER_CACHED = 64, /**< with RECOVER: go on where the file's cache cannot be
                                      dropped; see ploop_dev_open() */
    /**
     * The host file system may show a deleted file's bytes after a power cut where a write filled a
     * hole: ext4 mounted with data=writeback, ext2, vfat. A new cluster is then written whole, with
     * zeros where the guest has written nothing, and is durable before the map names it, so that no
     * later write has to allocate; nothing is punched, so discards give no space back to the host,
     * and a write of zeros with PLOOP_PIO_FAST_ONLY is -ENOTSUP where it would have to write. The
     * BAT is written at each open for writing. Holes that an image has already are not found: make
     * one with `cp --sparse=never`. After a failed SYNC no new cluster can be had.
     */
    PLOOP_DEV_HOST_SHOWS_STALE = 128
};

/**
 * What a request that finds no space does: ploop_dev_config.enospc_policy. It concerns writes, and
 * FLUSH, PREFLUSH, FUA and BAT-page writes that depend on a BAT page for which there is no space.
 * Suspend, close and open never wait: they fail with -ENOSPC.
 */
enum {
    PLOOP_ENOSPC_FAIL = 0, /**< fail with -ENOSPC */
    PLOOP_ENOSPC_PARK = 1  /**< wait: tried again by the clock and by ploop_dev_retry_parked() */
};

/** What becomes of changes after a SYNC has failed: ploop_dev_config.sync_failed_policy. */
enum {
    PLOOP_SYNC_FAILED_GO_ON =
        0, /**< writes, zeros and discards are done as before, though no flush succeeds any more */
    PLOOP_SYNC_FAILED_REFUSE_CHANGES = 1 /**< they fail with -EIO; only reads are done */
};

/** What ploop_dev_config.event is told, with its `value`. */
enum {
    PLOOP_EVENT_RESIZED = 1, /**< the new size in bytes */
    PLOOP_EVENT_FAILED =
        2, /**< a positive errno: a write of BAT pages failed, and will be tried again */
    PLOOP_EVENT_PARKED = 3,  /**< how many requests wait for space now */
    PLOOP_EVENT_RESUMED = 4, /**< 0: no request waits for space any more */
    PLOOP_EVENT_POOL_HAS_ROOM =
        5, /**< the queue's index: ploop_pio_get() failed there and is worth another try */
    PLOOP_EVENT_SYNC_FAILED = 6 /**< once, a positive errno: what the backend said to a SYNC. See
                                   PLOOP_STATE_SYNC_FAILED */
};

/** ploop_dev_config.log's level. */
enum { PLOOP_LOG_ERROR = 1, PLOOP_LOG_WARNING = 2, PLOOP_LOG_INFO = 3 };

/** Time, as the embedder tells it. The structure is copied at open. */
struct ploop_clock {
    size_t size;
    void *context;
    /** A monotonic time. Any thread, often; must not call the library. */
    uint64_t (*now_ns)(void *context);
    /**
     * Optional: run the device (ploop_dev_run()) by then; 0 means as soon as can be. Replaces what
     * was asked for before. Called when the deadline moves forward, and by a run that comes at the
     * deadline that was asked for last, after it, or up to 2 ms before it (timers fire early): a
     * timer that fires once is enough. A deadline that moves back is not told; the run that then
     * comes too early finds the new one. May come from any thread, one call at a time, and must not
     * call the library: note it, wake your loop.
     */
    void (*wake_at)(void *context, uint64_t deadline_ns);
};

/** How a device is opened. Fill with ploop_dev_config_init(), then change what should differ. */
struct ploop_dev_config {
    size_t size;
    uint32_t flags;              /**< PLOOP_DEV_ ... */
    uint32_t runner_count;       /**< library threads; this version takes 0 only: -ENOTSUP */
    uint32_t queue_count;        /**< 1 if 0 */
    uint32_t pio_count;          /**< requests per queue; 128 if 0 */
    uint32_t enospc_policy;      /**< PLOOP_ENOSPC_ ... */
    uint32_t page_failure_limit; /**< writes of a BAT page that fail in a row before allocations are
                                    refused; 3 if 0. With PLOOP_ENOSPC_PARK those that find no space
                                    count after park_timeout_ns only */
    uint64_t writeback_delay_ns; /**< from a page's last change to its write; 0: at once */
    uint64_t writeback_max_age_ns; /**< from a page's first change to its write, at most */
    uint64_t preallocate_bytes;    /**< how far the file is extended ahead of need, at most; 0: the
                                      library decides */
    uint64_t bat_limit_bytes; /**< memory for each image's BAT at most: -EFBIG beyond; 1 GiB if 0.
                                 In a stack the map of the lower ones takes 8 bytes more for each
                                 entry of the top */
    uint64_t park_timeout_ns; /**< PLOOP_ENOSPC_PARK: requests fail after this long; 0: never */
    const struct ploop_clock *clock; /**< NULL: CLOCK_MONOTONIC, no wake_at */
    /** Optional: a line for the operator. Any thread; must not call the library. */
    void (*log)(void *user_data, uint32_t level, uint32_t message_id, const char *text);
    /** Optional: something happened: PLOOP_EVENT_ ... Any thread; must not call the library. */
    void (*event)(void *user_data, uint32_t event, uint64_t value);
    void *user_data;             /**< for log and event */
    uint32_t sync_failed_policy; /**< PLOOP_SYNC_FAILED_ ... */
    uint32_t reserved1;
    uint64_t reserved[7];
};

/**
 * Fill a configuration with the defaults: writeback after 500 ms of rest, at the latest after 5 s;
 * one queue of 128 requests.
 *
 * @param size  sizeof(struct ploop_dev_config) as the caller was compiled
 *
 * Any thread. @since 2.0
 */
void ploop_dev_config_init(struct ploop_dev_config *config, size_t size);

/**
 * Open a stack of image files as one disk.
 *
 * For writing, the in-use mark is set and durable when this returns.
 *
 * Writes go to the last file, the top; the others are only read, with the exception of
 * PLOOP_DEV_RECOVER: each that was not closed cleanly is made clean, for which it must be open for
 * writing, and stays so if a later step fails.
 *
 * With PLOOP_DEV_RECOVER each file that was not closed cleanly is synced and its cache dropped
 * before it is read: after a failed SYNC a cache may show bytes that the disk has lost, and the
 * guest would take them for durable. A SYNC that fails there is logged and does not end the open.
 * Where something stays in the cache, because another process maps the file for example, the open
 * fails with -EBUSY before anything is changed. PLOOP_DEV_RECOVER_CACHED opens all the same: for a
 * caller who knows that no SYNC or writeback of the file has failed since it was last durable. A
 * backend without `invalidate` is warned of in the log.
 *
 * @param deltas  base first, up to 255, each once, and in no other device: a base that several
 *                devices share is opened once for each. They stay the caller's; a failed open
 *                leaves them as they were.
 * @param count   how many. All images but the top have the top's format version and cluster size
 *                and are no larger than the next one above; a raw base may have any size: it is
 *                seen as far as the image above it goes
 * @param config  NULL for the defaults
 * @param[out] dev  to be closed with ploop_dev_close() or ploop_dev_abort(); NULL after a failure
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
 * Close a device: waits for the requests in flight, writes what is dirty, syncs, clears the in-use
 * mark, frees.
 *
 * Callbacks that have not run yet run inside this call, on the calling thread, since no
 * ploop_queue_run() will come any more.
 *
 * @return 0: everything is durable and the mark is cleared; -errno: something did not reach the
 *         disk, the mark stays, and the image needs PLOOP_DEV_RECOVER. In one case the mark may be
 *         cleared although close failed: the SYNC after the clearing failed; everything else is
 *         durable then. The device is gone in any case. -EDEADLK (from a callback): nothing
 *         happened. NULL is 0.
 *
 * Any thread, blocks, not from a callback; nothing else may use the device any more: every call has
 * returned. @since 2.0
 */
int ploop_dev_close(ploop_dev *dev);

/**
 * Leave a device as a crash would: nothing more is written. Requests in flight are cancelled at the
 * backend where it can, else waited for, and complete; those that had not reached the backend
 * complete with -ECANCELED. Their callbacks, and those that have not run yet, run inside this call,
 * on the calling thread.
 *
 * Any thread, blocks, not from a callback; nothing else may use the device any more. NULL is
 * allowed. @since 2.0
 */
void ploop_dev_abort(ploop_dev *dev);

/**
 * Do what is due, on all queues: reap the backends, write BAT pages whose deadline has come, try
 * again what must be. It runs no callbacks: a queue whose requests are done becomes readable.
 *
 * @return how much was done (page writes started, requests tried again, completions reaped), more
 *         than 0 also where another thread is at work and will do it; 0: nothing was due
 *
 * Any thread, from a callback too. Never blocks. @since 2.0
 */
int ploop_dev_run(ploop_dev *dev);

/**
 * When ploop_dev_run() should be called next, in the clock's time.
 * @return a time; 0: now; UINT64_MAX: nothing waits for the clock
 * Any thread, callbacks included. @since 2.0
 */
uint64_t ploop_dev_next_deadline(const ploop_dev *dev);

/**
 * There may be space again: try the requests that wait for it.
 * @return how many were waiting
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_retry_parked(ploop_dev *dev);

/**
 * Hold new requests back, wait for those in flight, make everything durable. Requests submitted
 * from now on are kept in order until ploop_dev_resume(). A request over many clusters stops where
 * it is and goes on after the resume.
 *
 * Callbacks may still wait for ploop_queue_run() when this returns: the requests are done, and
 * ploop_dev_info.completions_waiting counts them. Run each queue until it is 0 before you save what
 * the callbacks change.
 *
 * @return 0; -errno: something did not reach the disk; the device is suspended all the same;
 *         -EALREADY: it was; -ECANCELED: it was resumed meanwhile; -EDEADLK (from a callback)
 *
 * Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_dev_suspend(ploop_dev *dev);

/**
 * Let requests through again, those that waited first, in their order.
 * @return 0; -EINVAL: the device is not suspended
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_resume(ploop_dev *dev);

/** ploop_dev_info.state: any of these. */
enum {
    PLOOP_STATE_READ_ONLY = 1,
    PLOOP_STATE_SUSPENDED = 2,
    PLOOP_STATE_SYNC_FAILED = 4, /**< a SYNC failed: every flush, FUA, suspend and close fails with
                                    -EIO from now on, whatever the backend said, because what was
                                    lost does not come back. Close, then open with RECOVER */
    PLOOP_STATE_ALLOCATION_REFUSED = 8 /**< after page_failure_limit: until a page write succeeds */
};

/** A device's size, limits, state and counters since open. */
struct ploop_dev_info {
    size_t size;
    uint64_t disk_size;
    uint64_t cluster_size;
    uint32_t request_alignment;    /**< of a request's offset and length: 512 */
    uint32_t discard_granularity;  /**< what a discard gives back: the cluster */
    uint64_t max_request_bytes;    /**< the longest request */
    uint32_t state;                /**< PLOOP_STATE_ ... */
    int32_t error;                 /**< why, for the last two: what the backend said, -errno */
    uint64_t file_size;            /**< of the top delta, as the engine knows it */
    uint64_t clusters_mapped;      /**< by the top delta */
    uint64_t clusters_free;        /**< below the end of the file, to be had without extending it */
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
    uint32_t memory_alignment;   /**< of the address of a request's memory; where it is more than 1,
                                    each segment's   length is a multiple of 512 too */
    uint32_t delta_count;        /**< image files in the stack, the top one included */
    uint64_t clusters_copied;    /**< from lower deltas, because a part of them was written */
    uint32_t max_segments; /**< pieces of memory in a request that is handed to the backend as it
                              is; one with more is cut up */
    uint32_t completions_waiting; /**< requests that are done and whose callbacks wait for
                                     ploop_queue_run() */
    uint64_t reserved[6];
};

/**
 * Read a device's state and counters.
 *
 * @param info  `size` set by the caller
 * @return 0 or -EINVAL
 *
 * Any thread, callbacks included. The counters are each right, not taken at one moment. @since 2.0
 */
int ploop_dev_info(ploop_dev *dev, struct ploop_dev_info *info);

#ifdef __cplusplus
}
#endif
#endif
