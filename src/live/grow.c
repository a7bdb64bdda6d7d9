/* SPDX-License-Identifier: MIT */
/*
 * The disk becomes larger (R10), while its guest goes on.
 *
 *     CHECKING   memory for the larger map is taken; nothing is changed before
 *     DROPPING   entries beyond the old end of the disk are removed, slice by slice
 *     DRAINING   the gate is closed for changes; those in flight end
 *     TRIMMING   the bytes of the last cluster beyond the old end become zeros; the clusters that
 *                the longer BAT is going to take are reserved; the gate opens
 *     REACHING   the file reaches behind what is reserved
 *     MOVING     guest clusters that are in the way move, one after another
 *     DRYING     rounds, until nothing of this device reaches the reserved clusters any more
 *     ZEROING    what the BAT is going to take becomes zeros: whole pages after the last old one
 *     SYNCING    those are durable
 *     WIDENING   the map has the new entries; the last old page is written, longer than before
 *     WRITING    the header, in one sector: size, entries, data_off
 *     RESTORING  that failed: the old header again, as far as it can be written -> ended
 *
 *     CHECKING -> ... -> WRITING -> ended: the guest sees the larger disk
 *     failed or cancelled: CHECKING ... SYNCING -> ended; DRAINING opens the gate first
 *     failed: WIDENING -> ended; WRITING -> RESTORING -> ended
 *
 *  1. A cut anywhere leaves the old disk or the new one: the header goes last, and before it is
 *     sent everything that it says is durable.
 *  2. Nothing is reserved while a write has a cluster taken that is not in the map yet: that is
 *     what the gate is closed for. From then on no cluster there is handed out, zeroed or punched,
 *     and only mapped ones are left to move. They stay reserved after a failure, because the new
 *     header may be on the disk (R2).
 *  3. The new pages are zeroed past the page writer, before there are such pages. The last old page
 *     is the page writer's, and only he writes it (R16).
 *  4. After WIDENING there is no way back but through the header: a cancel comes too late.
 */
#include "engine/engine.h"
#include "engine/state.h"
#include "live/job.h"
#include "live/relocate.h"
#include "pio/queue.h"
#include "util/error_text.h"

#include <ploop/ops.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { GROW_MESSAGE_ID = PLOOP_MESSAGE_GROW, GROW_ENTRIES = 16384 };

enum grow_state {
    GROW_CHECKING,
    GROW_DROPPING,
    GROW_DRAINING,
    GROW_TRIMMING,
    GROW_REACHING,
    GROW_MOVING,
    GROW_DRYING,
    GROW_ZEROING,
    GROW_SYNCING,
    GROW_WIDENING,
    GROW_WRITING,
    GROW_RESTORING
};

struct grow {
    struct ploop_job job;
    enum grow_state state;
    bool is_busy; /* a step of the state is under way, and will be heard of */
    int error;    /* why it does not come about */
    struct header old, grown;
    uint32_t old_pages;
    uint32_t entry; /* the next one to look at */
    uint64_t at;    /* in the file: zeros up to here */
    struct guest_disk *disk;
    struct relocate relocate;
    struct job_rate rate;
    struct round_wait round;
    struct sync_wait sync;
    struct alloc_wait record;
    struct channel_io io;
};

static struct grow *of_job(ploop_job *job)
{
    return container_of(job, struct grow, job);
}

static struct bat *bat_of(const struct grow *grow)
{
    return dev_bat(grow->job.dev);
}

static uint64_t reserved_end(const struct grow *grow)
{
    return geometry_host_first(&grow->grown.geometry);
}

static void set_grow_state(struct grow *grow, enum grow_state state)
{
    static const uint32_t steps[] = {
        [GROW_CHECKING] = PLOOP_JOB_STEP_CHECK, [GROW_DROPPING] = PLOOP_JOB_STEP_PREPARE,
        [GROW_DRAINING] = PLOOP_JOB_STEP_HOLD,  [GROW_TRIMMING] = PLOOP_JOB_STEP_HOLD,
        [GROW_REACHING] = PLOOP_JOB_STEP_MOVE,  [GROW_MOVING] = PLOOP_JOB_STEP_MOVE,
        [GROW_DRYING] = PLOOP_JOB_STEP_FLUSH,   [GROW_ZEROING] = PLOOP_JOB_STEP_PREPARE,
        [GROW_SYNCING] = PLOOP_JOB_STEP_FLUSH,  [GROW_WIDENING] = PLOOP_JOB_STEP_FINISH,
        [GROW_WRITING] = PLOOP_JOB_STEP_FINISH, [GROW_RESTORING] = PLOOP_JOB_STEP_UNDO,
    };
    assert(!grow->is_busy);
    grow->state = state;
    grow->entry = 0;
    grow->job.watch.polls = state == GROW_DRAINING || state == GROW_DRYING;
    job_set_step(&grow->job, steps[state]);
    turn_again(&grow->job.dev->turn);
}

/* ---- it does not come about ---- */

static void restored(struct round_wait *round, int result)
{
    struct grow *grow = container_of(round, struct grow, round);
    (void)result; /* the page is tried again like every failed page */
    grow->is_busy = false;
    job_end(&grow->job, grow->error);
}

static void restore(struct grow *grow)
{
    struct bat *bat = bat_of(grow);
    set_grow_state(grow, GROW_RESTORING);
    bat->header.geometry = grow->old.geometry;
    bat->header.data_off = grow->old.data_off;
    bat->header.nb_sectors = grow->old.nb_sectors;
    bat->header.cylinders = grow->old.cylinders;
    bat_header_changed(bat, sync_next(&bat->syncer));
    grow->is_busy = true;
    bat_join_round(bat, &grow->round, restored);
}

static void fail(struct grow *grow, int error)
{
    ploop_dev *dev = grow->job.dev;
    grow->error = error;
    assert(error < 0 && !grow->is_busy);
    if (error != -ECANCELED) {
        dev_log(dev, PLOOP_LOG_ERROR, GROW_MESSAGE_ID, "the disk cannot be made larger: %s",
                ERROR_TEXT(error));
    }
    if (grow->state == GROW_WRITING) {
        restore(grow);
        return;
    }
    if (gate_has(dev, GATE_JOB)) {
        gate_change(dev, GATE_JOB, 0);
    }
    job_end(&grow->job, error);
}

/* A step was heard of: on to the next state, or it has failed. */
static void step_done(struct grow *grow, int result, enum grow_state next)
{
    grow->is_busy = false;
    if (!result && next == GROW_WIDENING && job_is_cancelled(&grow->job)) {
        result = -ECANCELED; /* the last moment for it */
    }
    if (result) {
        fail(grow, result);
    } else {
        set_grow_state(grow, next);
    }
}

/* ---- before anything moves ---- */

static void take_memory(struct grow *grow)
{
    const struct geometry *grown = &grow->grown.geometry;
    int error = bat_enlarge(bat_of(grow), grown);
    if (!error) {
        error = stack_enlarge_words(&grow->job.dev->stack, grown->bat_entries);
    }
    step_done(grow, error, GROW_DROPPING);
}

static void record_came(struct alloc_wait *wait, int result)
{
    struct grow *grow = container_of(wait, struct grow, record);
    grow->is_busy = false;
    if (result) {
        fail(grow, result);
    } else {
        turn_again(&grow->job.dev->turn);
    }
}

/* A slice of the entries from grow->entry on, and where it ends. The next one comes with a run. */
static uint32_t slice_end(struct grow *grow, uint32_t entries)
{
    uint32_t left = entries - grow->entry;
    return grow->entry + (left < GROW_ENTRIES ? left : GROW_ENTRIES);
}

static void drop_beyond(struct grow *grow)
{
    struct bat *bat = bat_of(grow);
    uint32_t entries = grow->old.geometry.bat_entries;
    uint32_t guest_clusters = geometry_guest_clusters(&grow->old.geometry);
    grow->entry = grow->entry > guest_clusters ? grow->entry : guest_clusters;
    for (uint32_t end = slice_end(grow, entries); grow->entry < end; grow->entry++) {
        struct guest_cluster guest = {grow->entry};
        uint32_t entry = bat_entry(bat, guest);
        if (entry == 0 || entry == BAT_ENTRY_BAD) {
            continue;
        }
        if (!bat_can_keep_track(bat)) {
            grow->is_busy = true;
            alloc_wait_for_record(&bat->alloc, &grow->record, record_came);
            return;
        }
        bat_unmap(bat, guest);
    }
    if (grow->entry == entries) {
        gate_change(grow->job.dev, 0, GATE_JOB);
        set_grow_state(grow, GROW_DRAINING);
    } else {
        dev_post_run(grow->job.dev);
    }
}

static void reserve(struct grow *grow)
{
    alloc_reserve(&bat_of(grow)->alloc, reserved_end(grow));
    grow->relocate.end = reserved_end(grow);
    gate_change(grow->job.dev, GATE_JOB, 0);
    set_grow_state(grow, GROW_REACHING);
}

/* Zeros at [grow->at, end), as many as one window holds. */
static void write_zeros(struct grow *grow, uint64_t end, channel_fn *then)
{
    struct bat *bat = bat_of(grow);
    struct iov_cursor cursor = {.iov = bat->zero_iov, .count = CHANNEL_WINDOW};
    uint64_t most = iov_length(bat->zero_iov, CHANNEL_WINDOW);
    uint64_t length = end - grow->at < most ? end - grow->at : most;
    channel_io_init(&grow->io, bat->channel);
    grow->is_busy = true;
    grow->at += length;
    channel_transfer(&grow->io, PLOOP_IO_WRITE, 0, cursor, grow->at - length, length, then);
}

static void piece_written(struct channel_io *io, int result)
{
    struct grow *grow = container_of(io, struct grow, io);
    grow->is_busy = false;
    if (result) {
        fail(grow, result);
    } else {
        turn_again(&grow->job.dev->turn);
    }
}

/* Under the closed gate nobody changes the last cluster, and no read sees what lies beyond. */
static void trim_end(struct grow *grow)
{
    const struct geometry *old = &grow->old.geometry;
    uint64_t inside = old->disk_size % old->cluster_size;
    struct guest_cluster last = {(uint32_t)(old->disk_size / old->cluster_size)};
    uint32_t entry = inside ? bat_entry(bat_of(grow), last) : 0;
    uint64_t begin = geometry_entry_offset(old, entry) + inside;
    uint64_t end = geometry_entry_offset(old, entry) + old->cluster_size;
    grow->at = grow->at > begin ? grow->at : begin;
    if (entry == 0 || entry == BAT_ENTRY_BAD || grow->at == end) {
        reserve(grow);
    } else {
        write_zeros(grow, end, piece_written);
    }
}

/* ---- what is in the way ---- */

static void reached(struct relocate *relocate, int result)
{
    struct grow *grow = container_of(relocate, struct grow, relocate);
    if (!result) {
        alloc_give_back_failed(&bat_of(grow)->alloc, relocate->to);
    }
    step_done(grow, result, GROW_MOVING);
}

static void moved(struct relocate *relocate, int result)
{
    struct grow *grow = container_of(relocate, struct grow, relocate);
    grow->is_busy = false;
    if (result) {
        fail(grow, result);
    } else {
        turn_again(&grow->job.dev->turn);
    }
}

static bool is_in_the_way(const struct grow *grow, struct guest_cluster guest)
{
    uint32_t entry = bat_entry(bat_of(grow), guest);
    return entry && entry != BAT_ENTRY_BAD &&
           geometry_entry_offset(&grow->old.geometry, entry) < grow->grown.geometry.data_start;
}

static void move_next(struct grow *grow)
{
    uint32_t entries = grow->old.geometry.bat_entries;
    if (!job_may_move(&grow->job, &grow->rate)) {
        return;
    }
    for (uint32_t end = slice_end(grow, entries); grow->entry < end;) {
        struct guest_cluster guest = {grow->entry++};
        if (is_in_the_way(grow, guest)) {
            grow->is_busy = true;
            relocate_begin(&grow->relocate, guest, moved);
            return;
        }
    }
    if (grow->entry == entries) {
        set_grow_state(grow, GROW_DRYING);
    } else {
        dev_post_run(grow->job.dev);
    }
}

static void dried(struct round_wait *round, int result)
{
    struct grow *grow = container_of(round, struct grow, round);
    grow->is_busy = false;
    if (result) {
        fail(grow, result);
    } else if (alloc_reserve_is_dry(&bat_of(grow)->alloc)) {
        grow->at = (uint64_t)grow->old_pages * BAT_PAGE_SIZE;
        set_grow_state(grow, GROW_ZEROING);
    } /* else once more: a zeroing is under way, or a page has failed and waits */
}

/* ---- the longer BAT ---- */

static void zero_next(struct grow *grow)
{
    uint64_t end = grow->grown.geometry.data_start;
    atomic_store(&grow->job.bytes_done, grow->at);
    if (grow->at < end) {
        write_zeros(grow, end, piece_written);
    } else {
        set_grow_state(grow, GROW_SYNCING);
    }
}

static void synced(struct sync_wait *sync, int result)
{
    step_done(container_of(sync, struct grow, sync), result, GROW_WIDENING);
}

static void sync_zeros(struct grow *grow)
{
    struct syncer *syncer = &bat_of(grow)->syncer;
    grow->is_busy = true;
    int wait = sync_wait_for(syncer, &grow->sync, sync_next(syncer), synced);
    if (wait <= 0) {
        step_done(grow, wait, GROW_WIDENING);
    } else {
        turn_again(&grow->job.dev->turn); /* it is sent by the pump, which was before this */
    }
}

static void widened(struct round_wait *round, int result)
{
    step_done(container_of(round, struct grow, round), result, GROW_WRITING);
}

static void written(struct round_wait *round, int result)
{
    struct grow *grow = container_of(round, struct grow, round);
    ploop_dev *dev = grow->job.dev;
    struct delta *top = dev_top(dev);
    grow->is_busy = false;
    if (result) {
        fail(grow, result);
        return;
    }
    /* Other threads look at the rest of it, which does not change. */
    top->geometry.disk_size = grow->grown.geometry.disk_size;
    top->geometry.data_start = grow->grown.geometry.data_start;
    top->geometry.bat_entries = grow->grown.geometry.bat_entries;
    top->end = top->tail_at = top->geometry.disk_size;
    stack_grow_disk(&dev->stack, grow->disk, top->geometry.disk_size);
    grow->disk = NULL;
    dev_event(dev, PLOOP_EVENT_RESIZED, top->geometry.disk_size);
    job_end(&grow->job, 0);
}

static void write_header(struct grow *grow)
{
    struct bat *bat = bat_of(grow);
    bat->header.geometry = grow->grown.geometry;
    bat->header.data_off = grow->grown.data_off;
    bat->header.nb_sectors = grow->grown.nb_sectors;
    bat->header.cylinders = grow->grown.cylinders;
    bat_header_changed(bat, sync_next(&bat->syncer));
    bat_join_round(bat, &grow->round, written);
}

/* ---- all of it ---- */

/* What the state does when nothing is under way. */
static void go_on(struct grow *grow)
{
    ploop_dev *dev = grow->job.dev;
    switch (grow->state) {
    case GROW_CHECKING:
        take_memory(grow);
        break;
    case GROW_DROPPING:
        drop_beyond(grow);
        break;
    case GROW_DRAINING:
        if (job_changes_are_over(dev)) {
            set_grow_state(grow, GROW_TRIMMING);
        }
        break;
    case GROW_TRIMMING:
        trim_end(grow);
        break;
    case GROW_REACHING:
        grow->is_busy = true;
        relocate_take(&grow->relocate, reached);
        break;
    case GROW_MOVING:
        move_next(grow);
        break;
    case GROW_DRYING:
        grow->is_busy = true;
        bat_join_round(bat_of(grow), &grow->round, dried);
        break;
    case GROW_ZEROING:
        zero_next(grow);
        break;
    case GROW_SYNCING:
        sync_zeros(grow);
        break;
    case GROW_WIDENING:
        grow->is_busy = true;
        bat_grow(bat_of(grow), &grow->grown.geometry);
        bat_join_round(bat_of(grow), &grow->round, widened);
        break;
    case GROW_WRITING:
        grow->is_busy = true;
        write_header(grow);
        break;
    case GROW_RESTORING:
        break;
    }
}

static void look(ploop_job *job)
{
    struct grow *grow = of_job(job);
    bool is_held = gate_has(job->dev, GATE_JOB);
    if (grow->is_busy || (!is_held && grow->state < GROW_WIDENING && job_pauses(job))) {
        return;
    }
    if (grow->state < GROW_WIDENING && job_is_cancelled(job)) {
        fail(grow, -ECANCELED);
    } else {
        go_on(grow);
    }
}

static void destroy(ploop_job *job)
{
    struct grow *grow = of_job(job);
    relocate_free(&grow->relocate);
    free(grow->disk);
    free(grow);
}

static const struct job_kind grow_kind = {
    .kind = PLOOP_JOB_GROW,
    .look = look,
    .destroy = destroy,
};

/* ---- the call ---- */

static int reject(ploop_dev *dev, int error, uint64_t disk_size, const char *why, uint64_t other)
{
    dev_log(dev, PLOOP_LOG_ERROR, GROW_MESSAGE_ID, "a disk of %" PRIu64 " bytes: %s %" PRIu64,
            disk_size, why, other);
    return error;
}

/* More of a raw file would be seen in the larger disk, where zeros were promised. */
static int judge_raw_base(ploop_dev *dev, uint64_t disk_size)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    uint64_t old = dev_disk(dev)->disk_size;
    const struct delta *base = stack_find(&dev->stack, 0);
    if (!base->is_raw || stack_count(&dev->stack) != 2) {
        return 0;
    }
    int error = ploop_file_info(base->file, &info);
    if (!error && disk_size > old && info.file_size > old) {
        error = reject(dev, -EINVAL, disk_size, "it would uncover the raw base, whose size is",
                       info.file_size);
    }
    return error;
}

static int judge(ploop_dev *dev, uint64_t disk_size, struct grow *grow)
{
    const struct bat *bat = dev_bat(dev);
    uint64_t limit = dev->config.bat_limit_bytes ? dev->config.bat_limit_bytes
                                                 : (uint64_t)PLOOP_BAT_LIMIT_DEFAULT;
    grow->old = bat->header;
    grow->old_pages = geometry_page_count(&grow->old.geometry);
    int error = header_grow(&grow->old, disk_size, &grow->grown);
    if (error) {
        return reject(dev, error, disk_size,
                      error == -EFBIG ? "too large for this image, whose cluster size is"
                                      : "no whole sectors, or less than the disk has:",
                      error == -EFBIG ? grow->old.geometry.cluster_size
                                      : grow->old.geometry.disk_size);
    }
    if (bat->geometry.bat_entries != grow->old.geometry.bat_entries) {
        return reject(dev, -EIO, disk_size,
                      "a header could not be written: open the image again; entries",
                      bat->geometry.bat_entries);
    }
    if ((uint64_t)4 * grow->grown.geometry.bat_entries > limit) {
        return reject(dev, -EFBIG, disk_size, "its BAT is larger than allowed,", limit);
    }
    if (bat->header.extension_sector &&
        bat->header.extension_sector * SECTOR_SIZE < grow->grown.geometry.data_start) {
        return reject(dev, -ENOTSUP, disk_size,
                      "the format extension is in the way of the longer BAT, at sector",
                      bat->header.extension_sector);
    }
    return judge_raw_base(dev, disk_size);
}

int ploop_dev_grow(ploop_dev *dev, uint64_t disk_size, ploop_job_fn *fn, void *user_data,
                   ploop_job **job)
{
    if (!job || !dev || job_is_misled(dev, NULL, fn)) {
        return -EINVAL;
    }
    *job = NULL;
    struct grow *grow = calloc(1, sizeof(*grow));
    if (!grow) {
        return -ENOMEM;
    }
    int error = job_claim(dev, &grow->job, &grow_kind);
    if (error) {
        free(grow);
        return error;
    }
    error = judge(dev, disk_size, grow);
    if (!error) {
        error = relocate_init(&grow->relocate, dev, &grow->job.bytes_done);
    }
    grow->disk = error ? NULL : calloc(1, sizeof(*grow->disk));
    if (error || !grow->disk) {
        job_drop(&grow->job);
        destroy(&grow->job);
        return error ? error : -ENOMEM;
    }
    grow->job.fn = fn;
    grow->job.user_data = user_data;
    atomic_store(&grow->job.bytes_total, grow->grown.geometry.data_start);
    job_set_step(&grow->job, PLOOP_JOB_STEP_CHECK);
    *job = &grow->job;
    job_begin(&grow->job);
    return 0;
}
