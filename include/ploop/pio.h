/* SPDX-License-Identifier: MIT */
/**
 * @file pio.h
 * Requests: how a caller submits a guest's reads and writes, and learns of their completion.
 *
 * Take a request (a pio) from the pool of a queue with ploop_pio_get(), prepare it, set its
 * callback and submit it. Its callback runs exactly once. After that prepare and submit the request
 * again, or give it back with ploop_pio_put(). A queue is cheap because one thread at a time uses
 * it; another thread may use it between two calls. If two threads submit to a queue at the same
 * moment, one of them takes a slower way through the engine. Two callbacks of one queue never run
 * at the same time.
 *
 * Order:
 *
 *   - A read that is submitted after a write has completed returns the new data of that write. It
 *     never returns the old data, nor a mix of old and new data. Only another request that changes
 *     the same range can make it return something else.
 *   - Requests that are in flight at the same time have no order, even if they overlap.
 *   - A sector of 512 bytes that a write has changed reads as its old or its new content, after a
 *     power cut too. The exception is a read that is in flight at the same time as a write of the
 *     same sector: it can return a part of both if the backend's reads do. The POSIX backend's do,
 *     as read(2) on most file systems does.
 *   - A write that has completed is durable after the next flush that succeeds.
 */
#ifndef PLOOP_PIO_H
#define PLOOP_PIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <ploop/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A queue of a device: a caller submits requests to it and runs their callbacks. Use one for each
 * I/O thread.
 */
typedef struct ploop_queue ploop_queue;

/** A request of a guest, from the pool of a queue. */
typedef struct ploop_pio ploop_pio;

/** The flags of requests. */
enum {
    /** Complete the request when its data is durable. */
    PLOOP_PIO_FUA = 1,
    /** Before the data of this request, make all requests durable that completed before it. */
    PLOOP_PIO_PREFLUSH = 2,
    /** write_zeroes: keep the clusters allocated. */
    PLOOP_PIO_NO_UNMAP = 4,
    /** write_zeroes: fail with -ENOTSUP if the request would be as slow as a write. */
    PLOOP_PIO_FAST_ONLY = 8
};

/**
 * The callback of a request that has completed.
 *
 * @param result  0, or the first -errno of any of its parts; other parts of it may have been
 *                carried out
 *
 * Runs in ploop_queue_run(), ploop_queue_wait() or ploop_pio_execute() of the request's queue, or
 * at the end in close or abort, on the thread that called it; on the queue's runner if there are
 * runners. No lock is held. May get, put, prepare and submit; must not call a function that blocks.
 */
typedef void ploop_pio_fn(ploop_pio *pio, int result, void *user_data);

/** ploop_completion.kind */
enum {
    PLOOP_COMPLETION_PIO = 1,        /**< a request that had no callback */
    PLOOP_COMPLETION_JOB_COMMIT = 2, /**< a job waits for ploop_job_committed(): see
                                        ploop_job_reap_commit() */
    PLOOP_COMPLETION_JOB_END = 3,    /**< a job has ended: see ploop_job_reap_end() */
    PLOOP_COMPLETION_SUSPENDED = 4   /**< the device is suspended: see ploop_dev_suspend_start() */
};

struct ploop_job;

/** What ploop_queue_reap() stores. The one structure without a size: it never changes. */
struct ploop_completion {
    ploop_pio *pio;        /**< the caller's again; NULL for other kinds */
    struct ploop_job *job; /**< NULL for other kinds than jobs */
    void *user_data;       /**< of ploop_pio_set_callback(), or of the job or the suspend */
    int32_t result;        /**< as of ::ploop_pio_fn, or of what has ended */
    uint32_t kind;         /**< PLOOP_COMPLETION_ ...; skip what you do not know */
};

/**
 * Get a queue of a device.
 * @param index  below ploop_dev_config.queue_count
 * @return the queue, valid until the device is closed; NULL: no such queue
 * Any thread, callbacks included. @since 2.0
 */
ploop_queue *ploop_dev_queue(ploop_dev *dev, uint32_t index);

/**
 * Reap the backend for this queue, do the work that is due, and run the callbacks of this queue's
 * completed requests.
 * @return the number of callbacks that were run; -EBUSY: the queue belongs to a runner
 * Any thread. Never blocks. From a callback it runs no callbacks. @since 2.0
 */
int ploop_queue_run(ploop_queue *queue);

/**
 * Run a queue as ploop_queue_run() does, and store the completions of its requests that have no
 * callback, and on queue 0 those of jobs: no callback has to cross the border of a language. The
 * oldest are stored first; what does not fit into the array is kept for the next call.
 * ploop_queue_wait() can sleep until there is something to reap: it returns 0 then.
 *
 * A request that has a callback is called back meanwhile, and not stored. What was not reaped when
 * the device is closed is dropped.
 *
 * @param completions  room for `count`
 * @return how many were stored; -EINVAL (completions is NULL, count larger than INT_MAX); -EBUSY:
 *         the queue belongs to a runner
 * Any thread. Never blocks. From a callback it stores nothing and returns 0. @since 2.0
 */
int ploop_queue_reap(ploop_queue *queue, struct ploop_completion *completions, uint32_t count);

/**
 * Switch the notification of a queue off or on, as a thread does that polls without sleeping:
 * completions then make the descriptor of ploop_queue_poll_fd() readable no more, which saves a
 * system call for each batch. It still becomes readable when the backend has something to reap. A
 * thread that is going to sleep switches it on again, and then reads ploop_dev_next_deadline(): the
 * descriptor is readable if anything is undelivered by then.
 *
 * @param enabled  0 or 1, which is what a queue begins with
 * @return 0; -EINVAL (another number); -EBUSY: the queue belongs to a runner
 * Any thread, callbacks included; not beside ploop_queue_wait(). @since 2.0
 */
int ploop_queue_set_notify(ploop_queue *queue, uint32_t enabled);

/**
 * Sleep until ploop_queue_run() has work to do, and run the queue. Use it in a thread that waits
 * for its requests and has no event loop. The function sleeps at most once, and not at all if a
 * callback can run at once. If no request is in flight, it may sleep until the timeout.
 *
 * @param timeout_ns  the longest sleep, in real time, rounded up to milliseconds; 0: do not sleep;
 *                    UINT64_MAX: no limit
 * @return the number of callbacks that were run; 0: the time is over, or the work that was due
 *         completed no request of this queue, or a signal arrived; -EDEADLK (from a callback);
 *         -EBUSY: the queue belongs to a runner
 *
 * Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_queue_wait(ploop_queue *queue, uint64_t timeout_ns);

/**
 * Get a descriptor that is readable when ploop_queue_run() has work to do: a callback to run, or
 * completions at the backend, of this queue or of the engine's own requests. Completions of the
 * engine's requests wake one of the threads that sleep in epoll_wait(2) on their queues'
 * descriptors, not all of them. It stays readable while a completion is neither called back nor
 * reaped.
 * @return a descriptor that the library owns: poll it and do nothing else with it; -EBUSY: the
 *         queue belongs to a runner
 * Any thread, callbacks included. @since 2.0
 */
int ploop_queue_poll_fd(ploop_queue *queue);

/**
 * Take a request from the pool.
 * @return the request, which belongs to the caller until it is put; NULL: the pool is empty. The
 *         event PLOOP_EVENT_POOL_HAS_ROOM reports when to try again
 * Any thread, callbacks included. @since 2.0
 */
ploop_pio *ploop_pio_get(ploop_queue *queue);

/**
 * Give a request back that is not in flight. This is allowed inside its callback too.
 * Any thread, callbacks included. NULL is allowed. @since 2.0
 */
void ploop_pio_put(ploop_pio *pio);

/**
 * Prepare a read.
 *
 * For this and the other prep functions: offset and length must be multiples of 512, within the
 * disk; submit reports a violation. The array `iov` and its memory must stay valid and unchanged
 * (except for the data read) until completion. Preparing does not change the callback.
 *
 * Any thread that holds the request, callbacks included. @since 2.0
 */
void ploop_pio_prep_readv(ploop_pio *pio, uint64_t offset, const struct iovec *iov,
                          uint32_t iov_count);

/** Prepare a write. @param flags  PLOOP_PIO_FUA, PLOOP_PIO_PREFLUSH. @since 2.0 */
void ploop_pio_prep_writev(ploop_pio *pio, uint64_t offset, const struct iovec *iov,
                           uint32_t iov_count, uint32_t flags);

/**
 * Prepare a write of zeros. It frees whole clusters unless NO_UNMAP is set; clusters that are
 * unmapped already stay so.
 * @param flags  PLOOP_PIO_FUA, PLOOP_PIO_PREFLUSH, PLOOP_PIO_NO_UNMAP, PLOOP_PIO_FAST_ONLY
 * @since 2.0
 */
void ploop_pio_prep_write_zeroes(ploop_pio *pio, uint64_t offset, uint64_t length, uint32_t flags);

/**
 * Prepare a discard, which is a hint. Clusters wholly within the range that only the top delta has
 * are freed and read as zeros; parts of clusters are ignored. A discard never exposes data of a
 * lower delta: a cluster that the top has too is zeroed in place if the backend can punch holes,
 * else left unchanged; one that only a lower delta has is left unchanged. Use write_zeroes if the
 * range must read as zeros.
 * @since 2.0
 */
void ploop_pio_prep_discard(ploop_pio *pio, uint64_t offset, uint64_t length);

/**
 * Prepare a flush. It completes when every request that completed before it was submitted is
 * durable.
 * @since 2.0
 */
void ploop_pio_prep_flush(ploop_pio *pio);

/**
 * Prepare a write of BAT pages. It completes when those pages are durable with their content at
 * submit or later.
 * @param first_page, count  below ploop_bat_page_count()
 * @since 2.0
 */
void ploop_pio_prep_bat_write(ploop_pio *pio, uint32_t first_page, uint32_t count);

/**
 * Set the callback, which stays until set again. A request of the pool begins without one.
 * @param fn  NULL: the completion is stored by ploop_queue_reap(), with `user_data`
 * @since 2.0
 */
void ploop_pio_set_callback(ploop_pio *pio, ploop_pio_fn *fn, void *user_data);

/**
 * Submit requests, in one batch.
 *
 * An accepted request belongs to the library until its callback runs, or until it is reaped. A
 * refused request still belongs to the caller, and its callback does not run.
 *
 * @param pios  requests of this queue, prepared
 * @return the number of requests accepted, from the first on; less than count if the next one is
 *         invalid: submit again from there to get the error. -errno: none was accepted: -EINVAL
 *         (the first one lies beyond the disk, is not aligned to 512 or its memory not to
 *         ploop_dev_info.memory_alignment, has a wrong flag, or, with runners, no callback), -EROFS
 *         (a change on a read-only device)
 *
 * Any thread, callbacks included. Never blocks. @since 2.0
 */
int ploop_queue_submit(ploop_queue *queue, ploop_pio *const *pios, uint32_t count);

/**
 * Submit one request and wait until it is done, for a program with a thread for each request that
 * it serves. With the POSIX backend the calling thread does the I/O, without any other thread:
 * reads and overwrites inside of one cluster at once, everything else where it would have to wait.
 *
 * The request's callback is not called and need not be set. The caller may put the request, or
 * prepare and execute it again, when the function returns.
 *
 * Threads that share a queue may call this at the same time; one of those that wait then runs the
 * queue for the others, and runs the callbacks of requests that were submitted to the queue. With
 * the io_uring backend give each thread a queue, as far as there are queues. Do not run a queue by
 * ploop_queue_run() or ploop_queue_wait() that is used by this function at the same time: what they
 * take from its descriptor would be missed.
 *
 * @return the request's result, 0 or -errno; -EINVAL, -EROFS as ploop_queue_submit(); -EDEADLK
 *         (from a callback)
 *
 * While the device is suspended the call waits. Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_pio_execute(ploop_pio *pio);

/**
 * Read, write or flush, and wait for completion. These calls are for tools and bindings.
 *
 * @return length or 0; -EINVAL, -EROFS as ploop_queue_submit(); -EDEADLK (from a callback); or the
 *         request's error
 *
 * While the device is suspended the calls wait.
 *
 * Any thread, blocks, not from a callback. The calls run the device themselves. @since 2.0
 */
int64_t ploop_dev_pread(ploop_dev *dev, void *buffer, uint64_t length, uint64_t offset);
/** See ploop_dev_pread(). @since 2.0 */
int64_t ploop_dev_pwrite(ploop_dev *dev, const void *buffer, uint64_t length, uint64_t offset);
/** See ploop_dev_pread(). @since 2.0 */
int ploop_dev_flush(ploop_dev *dev);

#ifdef __cplusplus
}
#endif
#endif
