/* SPDX-License-Identifier: MIT */
/**
 * @file ops.h
 * Jobs: operations on a live disk that take long and run beside the guest's requests. The disk's
 * requests go on meanwhile.
 *
 * A call such as ploop_dev_snapshot() starts a job and returns. The job advances in the device's
 * runs, as requests do; when it has ended it calls `fn`. There is at most one job for each device
 * that changes its stack of files.
 *
 * Where the embedder has to record a new stack durably, the job stops in the state
 * PLOOP_JOB_COMMIT and calls `commit`. The embedder writes its record in its own time, and answers
 * with ploop_job_committed(), from inside of `commit` or later, from any thread. Until then
 * requests that change the disk are held; reads are served, and a flush succeeds at once. A thread
 * that makes such a change by a call that waits (ploop_dev_pwrite(), ploop_pio_execute()) gets
 * -EAGAIN in this state, because it may be the thread that has to answer. `commit` may be NULL:
 * ploop_job_info() and ploop_job_wait() tell of the state.
 *
 * `commit` and `fn` are called where the callbacks of queue 0 run: in ploop_queue_run() of that
 * queue, in ploop_job_wait(), in close and abort, and with runners on the runner of queue 0. They
 * may call what callbacks of requests may call. *job is stored before either is called. A program
 * that reaps completions gets these there: ploop_job_reap_commit().
 *
 * Suspending a device pauses a job; a job that has got as far as PLOOP_JOB_COMMIT can be answered
 * while the device is suspended. Closing a device ends a job with -ECANCELED, and `commit` is not
 * called after that. What it has begun to record may be there or not: both stacks open as the same
 * disk, so keep both files until the record is known to name one of them only. The handle of a job
 * lives until ploop_job_free(), also after the device was closed. Before its end, calls about a job
 * use its device: as with every other call, none of them may run beside ploop_dev_close() or
 * ploop_dev_abort(), but from their callbacks. So let a thread that answers a commit end first.
 */
#ifndef PLOOP_OPS_H
#define PLOOP_OPS_H

#include <stddef.h>
#include <stdint.h>

#include <ploop/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A job. */
typedef struct ploop_job ploop_job;

/** The job has ended with this result: 0 or -errno. The job may be freed in this call. */
typedef void ploop_job_fn(void *user_data, ploop_job *job, int result);

/** The embedder is to record the new stack durably, and to answer with ploop_job_committed(). */
typedef void ploop_job_commit_fn(void *user_data, ploop_job *job);

/**
 * Not to be called, but to be given as `commit` and as `fn`: instead of a callback
 * ploop_queue_reap() of queue 0 stores a completion, PLOOP_COMPLETION_JOB_COMMIT and
 * PLOOP_COMPLETION_JOB_END. The job can be freed when its end has been reaped, or the device is
 * closed. Not with runners (-EINVAL).
 * @since 2.0
 */
void ploop_job_reap_commit(void *user_data, ploop_job *job);
/** See ploop_job_reap_commit(). @since 2.0 */
void ploop_job_reap_end(void *user_data, ploop_job *job, int result);

/** ploop_job_info.kind */
enum {
    PLOOP_JOB_SNAPSHOT = 1,
    PLOOP_JOB_GROW = 2,
    PLOOP_JOB_MERGE = 3,
    PLOOP_JOB_COMPACT = 4,
    PLOOP_JOB_REPLACE = 5
};

/** Which of two neighbours receives the other one's clusters: see ploop_dev_merge(). */
enum {
    PLOOP_MERGE_UP = 1,
    PLOOP_MERGE_DOWN = 2,
    PLOOP_MERGE_RECEIVER_IS_OURS = 4 /**< with DOWN: no other stack is built on the lower file */
};

/** See ploop_dev_replace(). */
enum {
    PLOOP_REPLACE_COMPARE = 1 /**< also the bytes that the disk shows of the file */
};

/** ploop_job_info.state */
enum {
    PLOOP_JOB_RUNNING = 1, /**< it advances */
    PLOOP_JOB_PAUSED = 2,  /**< the device is suspended */
    PLOOP_JOB_COMMIT = 3,  /**< it waits for ploop_job_committed() */
    PLOOP_JOB_ENDED = 4    /**< `result` is there; `fn` has been called, or is going to be */
};

/** ploop_job_info.step: what the job is doing. */
enum {
    PLOOP_JOB_STEP_CHECK = 1, /**< it looks whether the new file fits */
    PLOOP_JOB_STEP_PREPARE,   /**< the new file becomes ready to be written */
    PLOOP_JOB_STEP_FLUSH,     /**< what was written becomes durable; nobody is held */
    PLOOP_JOB_STEP_HOLD,      /**< changes are held; those in flight end, and become durable */
    PLOOP_JOB_STEP_COMMIT,    /**< the embedder records the new stack */
    PLOOP_JOB_STEP_FINISH,    /**< the new stack is in use; the map follows */
    PLOOP_JOB_STEP_UNDO,      /**< it has failed, or was refused: all becomes as it was */
    PLOOP_JOB_STEP_MOVE,      /**< clusters that are in the way move */
    PLOOP_JOB_STEP_COPY       /**< it copies clusters; requests go on */
};

/** What ploop_job_committed() is told besides 0 and -errno: the record may be there or not. */
enum { PLOOP_COMMIT_UNKNOWN = 1 };

/** A job, as it is now. */
struct ploop_job_info {
    uint64_t size;
    uint32_t kind;        /**< PLOOP_JOB_SNAPSHOT ... */
    uint32_t state;       /**< PLOOP_JOB_RUNNING ... */
    uint32_t step;        /**< PLOOP_JOB_STEP_ ... */
    int32_t result;       /**< PLOOP_JOB_ENDED: 0 or -errno */
    uint64_t bytes_done;  /**< of the work that takes long */
    uint64_t bytes_total; /**< as far as it is known */
    uint64_t rate;        /**< the limit, bytes a second; 0: none */
    uint64_t reserved[5];
};

/**
 * Take a snapshot: from now on the device writes to another file, and the old top, which keeps the
 * disk as it is at this moment, is only read.
 *
 * The job looks whether the new file fits, sets its in-use mark, and flushes; nobody is held for
 * that. Then it holds what changes the disk, makes the last changes durable, closes the old top
 * cleanly (its in-use mark is cleared) and asks the embedder to record the new stack. When that is
 * recorded, the changes go on, to the new top; the file of the old top is opened again for reading,
 * if its backend can (`reopen`).
 *
 * If the embedder refuses, or the job is cancelled, or anything fails, the old top stays the top,
 * and its mark is set again before a change goes on; the new file is closed as it was, empty. If
 * the mark cannot be set again, every request that changes the disk fails with that error. If the
 * outcome of the record is not known (PLOOP_COMMIT_UNKNOWN), that is the same as a refusal, and
 * safe: nothing was written to the new file, and both records open as the same disk. Then
 * no job begins (-EBUSY), and this one is not to be freed, before ploop_job_committed() was told
 * how it ended.
 *
 * If the new file's mark cannot be cleared again, the log says so; a stack with this file opens
 * with PLOOP_DEV_RECOVER only.
 *
 * After a crash the recorded stack opens, whichever of the two it is; with PLOOP_DEV_RECOVER,
 * because one of its files has the mark. The new file must be found under its name then: see
 * PLOOP_FILE_CREATE.
 *
 * @param new_top   an empty image: of the top's format version, cluster size and disk size, without
 *                  a format extension, and open for writing. It stays the caller's; it is in use
 *                  until the job has ended with an error, or the device is closed
 * @param commit    NULL: the job stops in PLOOP_JOB_COMMIT, and nobody is called
 * @param fn        NULL: nobody is called. Called with 0; -EINVAL (an image that is not empty);
 *                  -ECANCELED; -EINPROGRESS (PLOOP_COMMIT_UNKNOWN); the error of a refusal; or
 *                  what the backend returned
 * @param[out] job  to be freed with ploop_job_free()
 * @return 0; -EINVAL (a parameter, or a file that does not fit: the log says what, and nothing was
 *         changed); -EBUSY (a job is under way, or `fn` of the last one was not called yet, or its
 *         outcome is unknown, or the file is in use); -EROFS; -EIO (a SYNC or the write of a BAT
 *         page has failed); -ENOMEM; -ENOSPC (the device has had 4095 files); -ECANCELED (from a
 *         callback that a close or an abort delivers); or what the backend returns
 *
 * Any thread, callbacks included. Blocks for one read of the new file. @since 2.0
 */
int ploop_dev_snapshot(ploop_dev *dev, ploop_file *new_top, ploop_job_commit_fn *commit,
                       ploop_job_fn *fn, void *user_data, ploop_job **job);

/**
 * Make the disk larger. Requests go on meanwhile; clusters that lie where the longer map is going
 * to be move, one at a time. The new part reads as zeros.
 *
 * When the new size is durable the device has it: ploop_dev_info.disk_size, and the event
 * PLOOP_EVENT_RESIZED; then the job ends. After a power cut the disk has the old size or the new
 * one, whole in either case. A cancelled job leaves the disk as it was; from
 * PLOOP_JOB_STEP_FINISH on it is too late for that.
 *
 * @param disk_size  in bytes, a multiple of 512, not less than it is
 * @param fn         NULL: nobody is called. Called with 0; -ENOMEM (nothing was changed);
 *                   -ECANCELED; -ENOSPC; -EIO (a SYNC has failed); or what the backend returned.
 *                   After an error the disk has its old size; if the header's write failed, a
 *                   power cut before the old header could be written again may leave the new one
 * @param[out] job   to be freed with ploop_job_free()
 * @return 0; -EINVAL (a parameter; or more of a raw base would become visible); -EFBIG (more than
 *         the format's version, its entries, or ploop_dev_config.bat_limit_bytes allow); -ENOTSUP
 *         (a format extension that is kept lies in the way); -EBUSY (a job is under way); -EROFS;
 *         -EIO (a SYNC or the write of a BAT page has failed); -ENOMEM; or what the backend
 *         returns. The log says what does not fit; nothing was changed
 *
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_grow(ploop_dev *dev, uint64_t disk_size, ploop_job_fn *fn, void *user_data,
                   ploop_job **job);

/**
 * Make the file of the top shorter, by what lies free in it: clusters at its end move into holes,
 * one at a time, and the end is cut off. The disk keeps its size, and requests go on meanwhile; a
 * write that needs a new cluster waits while the file is cut, for one SYNC.
 *
 * What the guest writes meanwhile may need space at the end, and of the clusters that a format
 * extension uses none moves: then less is cut off. A cancelled job leaves what has moved; the space
 * at the end that this has set free is cut off at the next close.
 *
 * @param fn, user_data, job  as for ploop_dev_grow(). `fn` is called with 0; -ECANCELED; -EIO (a
 *                            SYNC has failed); or what the backend returned. The disk reads the
 *                            same in every case
 * @return 0; -EINVAL (a parameter); -EBUSY (a job is under way); -EROFS; -EIO (a SYNC or the write
 *         of a BAT page has failed); -ENOMEM
 *
 * Any thread, callbacks included. @since 2.0
 */
int ploop_dev_compact(ploop_dev *dev, ploop_job_fn *fn, void *user_data, ploop_job **job);

/**
 * Merge two neighbours of the stack, so that one of the files is not needed any more. The other
 * one is the receiver.
 *
 * Up: what the lower one of the two has and the upper one has not is copied into the upper one;
 * then the embedder records the stack without the lower one, and the device lets its file go. The
 * lower file does not change.
 *
 * Down: what the upper one has is copied into the lower one; then the embedder records the stack
 * without the upper one. From the first copy on the lower file is not what it was: nobody can go
 * back to the snapshot that it was, also if the merge is cancelled or cut off, and a stack that is
 * built on it elsewhere is ruined. Locks do not show that, so the caller says that there is none:
 * PLOOP_MERGE_RECEIVER_IS_OURS.
 *
 * The disk reads the same before, meanwhile and after: a crash at any time leaves a recorded stack
 * that opens, and the merge can be run again. Requests go on. The job ends whatever the guest
 * writes. Two deltas below the top can be merged beside any requests. While the top is merged,
 * requests that meet a copy wait for that cluster's. While it is merged down, what changes a
 * cluster that was copied goes to both files, and requests do not take the fast path; at the end,
 * changes are held as ploop_dev_snapshot() holds them, and the lower one becomes the top.
 *
 * Down into a raw base, below the top: its file is written in place, and made longer where the
 * image above it has more of the disk. It has no mark: what the image that goes has is right there
 * when the embedder is asked, and before that the image hides it.
 *
 * A receiver below the top is opened for writing, if its backend can (`reopen`), locked and marked
 * before it is changed, and is for reading only, and clean, when the embedder is asked. If that
 * fails, or a SYNC of it, the log says so.
 *
 * If the embedder refuses, or the job is cancelled, or anything fails, the stack stays as it is,
 * and what was copied stays in the receiver. PLOOP_COMMIT_UNKNOWN is the same, but where the top is
 * merged down: then it is no answer. Changes stay held, and nothing is changed in either file,
 * until ploop_job_committed() is told how the record ended; a close fails them (-ECANCELED).
 *
 * @param level      of the lower of the two; 0: the base
 * @param direction  PLOOP_MERGE_UP; or PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS
 * @param commit, fn, user_data, job  as for ploop_dev_snapshot(). When `fn` is called with 0 the
 *                   file that was merged away is the caller's, and may be closed. It may also be
 *                   called with -EUCLEAN: a BAT that was read again is no good
 * @return 0; -EINVAL (a parameter; no such level; down without PLOOP_MERGE_RECEIVER_IS_OURS; more
 *         of a raw base would become visible); -ENOTSUP (the top down into a raw base; down into an
 *         image whose disk is smaller); -ENOSPC (a raw base that is too short, and whose backend
 *         cannot make it longer); -EBUSY; -EROFS; -EIO, also where a SYNC of the receiver has
 *         failed before; -ENOMEM; -EAGAIN (another process has the receiver open), or what else its
 *         backend returns. The log says what does not fit; nothing was changed
 *
 * Any thread, callbacks included. Blocks while the receiver is opened for writing. @since 2.0
 */
int ploop_dev_merge(ploop_dev *dev, uint32_t level, uint32_t direction, ploop_job_commit_fn *commit,
                    ploop_job_fn *fn, void *user_data, ploop_job **job);

/**
 * Replace the file of a delta below the top by another one that holds the same, elsewhere: a copy
 * on other storage, or on a server that is back. Requests go on, and none is held.
 *
 * The new file is made durable and its cache dropped; nobody may change it from this call on. Its
 * header must say what the old one's said, and what the disk shows of the old file must lie in the
 * new one at the same places; the old file is not read for that, so it may be gone. With
 * PLOOP_REPLACE_COMPARE the bytes are read of both and compared. Nothing is changed in either file.
 * When the embedder has recorded the new stack, requests go to the new file; what is under way in
 * the old one ends first, well or with an error.
 *
 * Copies that are put off (cow_delay_ns) are made first, from the old file: if that is gone, the
 * job fails.
 *
 * If the embedder refuses, or the outcome is not known, or the job is cancelled, or anything fails,
 * the old file stays. Both stacks open as the same disk.
 *
 * @param level      of the delta; 0: the base. The top cannot be replaced: take a snapshot on the
 *                   other storage and merge down there, or close the device
 * @param file       an image, closed cleanly, or a raw file where the base is one; open for reading
 *                   at least. It stays the caller's, and is in use until the job has ended with an
 *                   error, or the device is closed
 * @param flags      0 or PLOOP_REPLACE_COMPARE
 * @param commit, fn, user_data, job  as for ploop_dev_snapshot(). When `fn` is called with 0 the
 *                   old file is the caller's, and may be closed. It may also be called with
 *                   -EINVAL: the log says which cluster differs
 * @return 0; -EINVAL (a parameter; the top; or a file that does not fit); -EBUSY (a job is under
 *         way, the file is in use, or something of it stays in the cache); -EROFS; -EIO (a SYNC or
 *         the write of a BAT page of the device has failed); -ENOMEM; -ENOSPC (the device has had
 *         4095 files); or what the backend returns. The log says what does not fit
 *
 * Any thread, callbacks included. Blocks for a SYNC and a read of the new file. @since 2.0
 */
int ploop_dev_replace(ploop_dev *dev, uint32_t level, ploop_file *file, uint32_t flags,
                      ploop_job_commit_fn *commit, ploop_job_fn *fn, void *user_data,
                      ploop_job **job);

/**
 * Tell a job in the state PLOOP_JOB_COMMIT how the record ended.
 *
 * @param result  0: the new stack is recorded durably. -errno: it is not and will not be.
 *                PLOOP_COMMIT_UNKNOWN: it may be or not; tell the job again when it is known, also
 *                after it has ended. While the device is suspended only 0 is acted on: the job ends
 *                with another result after the resume
 * @return 0; -EINVAL: the job does not wait for this, or no such result. A close or an abort of
 *         the device takes the place of an answer, as PLOOP_COMMIT_UNKNOWN would
 *
 * Any thread, callbacks included. @since 2.0
 */
int ploop_job_committed(ploop_job *job, int result);

/**
 * Get the state of a job.
 * @param info  `size` set by the caller
 * @return 0 or -EINVAL
 * Any thread, callbacks included. @since 2.0
 */
int ploop_job_info(ploop_job *job, struct ploop_job_info *info);

/**
 * Wait until a job has ended and `fn` has returned. Without runners this call runs queue 0, and
 * with it the callbacks of that queue.
 *
 * @return the job's result; -EAGAIN: the job waits for ploop_job_committed(), and `commit` has
 *         returned or is NULL; -EDEADLK (from a callback). A job may also end with one of these:
 *         ploop_job_info() tells
 *
 * Any thread, blocks, not from a callback. @since 2.0
 */
int ploop_job_wait(ploop_job *job);

/**
 * Ask a job to end early, with -ECANCELED. It undoes what has to be undone first. A job that a
 * suspend has paused ends after the resume, because a suspended device writes nothing.
 * @return 0; -EBUSY: it waits for ploop_job_committed(), or is past that; -EALREADY: it has ended
 * Any thread, callbacks included. @since 2.0
 */
int ploop_job_cancel(ploop_job *job);

/**
 * Limit how fast a job moves data.
 * @param bytes_per_second  0: as fast as it can
 * Any thread, callbacks included. @since 2.0
 */
void ploop_job_set_rate(ploop_job *job, uint64_t bytes_per_second);

/**
 * Free the handle of a job that has ended.
 * @return 0; -EBUSY: the job has not ended, or ploop_job_committed() has to be told the outcome of
 *         its record. Freeing NULL returns 0
 * Any thread, callbacks included; in `fn` too. @since 2.0
 */
int ploop_job_free(ploop_job *job);

#ifdef __cplusplus
}
#endif
#endif
