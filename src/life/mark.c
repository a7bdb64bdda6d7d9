/* SPDX-License-Identifier: MIT */
/*
 * The in-use mark (R11): the header's field that says that the file may hold what no map tells of.
 *
 *     set    IDLE -> ALLOCATING: blocks for the BAT -> SETTING: SYNC, mark, SYNC -> (REWRITING,
 *            for RECOVER: every page, SYNC) -> IDLE
 *     again  IDLE -> SETTING -> space work begins again -> IDLE
 *     clear  IDLE -> FLUSHING: every partial cluster, every page, SYNC -> RESTING: removals are
 *            ripe, space work ends -> CUTTING: the file's free end is cut off -> CLEARING: SYNC,
 *            mark cleared, SYNC -> IDLE
 *
 *  1. The header is a field of page 0, so the mark goes to the disk by the same writer as every
 *     page (R16): page 0 is dirtied with a barrier, and a round does the rest.
 *  2. Nothing that was found in the file counts as durable before the first SYNC. RECOVER then
 *     dirties every page, because what was read, even the mark itself, may be only a dead process's
 *     page cache.
 *  3. The mark is durable before the file is changed in any other way. Only blocks for the BAT come
 *     before it, because they change no content.
 *  4. The mark is cleared if and only if everything before that succeeded, behind a barrier of its
 *     own. After an error it stays, and the next open needs RECOVER.
 *  5. All of it is steps of the turn, which hold nobody: an open and a close wait for their end, a
 *     change of the stack does not (live/snapshot.c).
 *  6. The pages of a delta that is not the top, because it joins or was not to join, are sent from
 *     here.
 */
#include "life/mark.h"

#include "file/file.h"
#include "life/life.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>

static void set_mark_state(struct mark *mark, enum mark_state state)
{
#ifndef NDEBUG
    static const uint32_t next[] = {
        [MARK_IDLE] = 1u << MARK_ALLOCATING | 1u << MARK_SETTING | 1u << MARK_FLUSHING,
        [MARK_ALLOCATING] = 1u << MARK_SETTING | 1u << MARK_IDLE,
        [MARK_SETTING] = 1u << MARK_REWRITING | 1u << MARK_IDLE,
        [MARK_REWRITING] = 1u << MARK_IDLE,
        [MARK_FLUSHING] = 1u << MARK_RESTING | 1u << MARK_IDLE,
        [MARK_RESTING] = 1u << MARK_CUTTING,
        [MARK_CUTTING] = 1u << MARK_CLEARING,
        [MARK_CLEARING] = 1u << MARK_IDLE,
    };
    assert(next[mark->state] & 1u << state);
#endif
    mark->state = state;
}

static void mark_end(struct mark *mark, int result)
{
    set_mark_state(mark, MARK_IDLE);
    list_remove(&mark->watch.link);
    mark->then(mark, result); /* it may be begun again, or gone */
}

static void header_round(struct mark *mark, round_fn *then)
{
    struct bat *bat = mark->delta->bat;
    mark->header_changed = true;
    bat_header_changed(bat, sync_next(&bat->syncer));
    bat_join_round(bat, &mark->round, then);
}

/* ---- set ---- */

static void rewritten(struct round_wait *round, int result)
{
    mark_end(container_of(round, struct mark, round), result);
}

static bool wants_rewriting(const struct mark *mark)
{
    return mark->order != MARK_AGAIN && (mark->delta->bat->alloc.recovered ||
                                         mark->dev->config.flags & PLOOP_DEV_HOST_SHOWS_STALE);
}

static void was_set(struct round_wait *round, int result)
{
    struct mark *mark = container_of(round, struct mark, round);
    struct bat *bat = mark->delta->bat;
    assert(mark->state == MARK_SETTING && bat->header.in_use == HEADER_IN_USE);
    if (!result && wants_rewriting(mark)) {
        set_mark_state(mark, MARK_REWRITING);
        bat_rewrite_all(bat);
        bat_join_round(bat, &mark->round, rewritten);
        return;
    }
    if (!result && mark->order == MARK_AGAIN) {
        alloc_go_on(&bat->alloc);
    }
    mark_end(mark, result);
}

/*
 * What the close goes back to where nothing changes. Not to what RECOVER found, nor to an error; an
 * extension that is written anew has changed the file.
 */
static void note_found(ploop_dev *dev, const struct header *header)
{
    bool is_wrong = header->flags & HEADER_FLAG_EMPTY && dev_bat(dev)->stats.mapped > 0;
    dev->found = (struct found_header){header->in_use, header->flags, header->extension_sector};
    if (header->in_use == HEADER_IN_USE || is_wrong || dev->extension->bytes ||
        dev->extension->is_faulty) {
        dev_note_change(dev);
    }
}

static void begin_setting(struct mark *mark)
{
    struct bat *bat = mark->delta->bat;
    set_mark_state(mark, MARK_SETTING);
    if (mark->order == MARK_OPENED) {
        note_found(mark->dev, &bat->header);
    }
    bat->alloc.recovered |= mark->order == MARK_OPENED && bat->header.in_use == HEADER_IN_USE;
    bat->header.in_use = HEADER_IN_USE;
    bat->header.flags &= ~(uint32_t)HEADER_FLAG_EMPTY;
    if (mark->order == MARK_OPENED && !mark->dev->extension->in_place) {
        bat->header.extension_sector = 0;
    }
    header_round(mark, was_set);
}

/*
 * Blocks for a BAT that has holes, so that no page write runs out of space (F7). No content
 * changes: it comes before the mark, so that an image for which there is no space stays closed and
 * clean. Where the backend gives no blocks, a page write may fail for lack of space.
 */
static void allocated(struct channel_io *io, int result)
{
    struct mark *mark = container_of(io, struct mark, io);
    bool is_fatal =
        is_no_space(result) || result == -EIO || result == -EROFS || result == -ECANCELED;
    assert(mark->state == MARK_ALLOCATING);
    if (result && result != -ENOTSUP) {
        dev_log(mark->dev, is_fatal ? PLOOP_LOG_ERROR : PLOOP_LOG_WARNING, PLOOP_MESSAGE_MARK,
                "the blocks of the BAT cannot be allocated: %s%s", ERROR_TEXT(result),
                is_fatal ? "" : "; a page of it may run out of space");
    }
    if (is_fatal) {
        mark_end(mark, result);
    } else {
        begin_setting(mark);
    }
}

/* ---- clear ---- */

static void cleared(struct round_wait *round, int result)
{
    struct mark *mark = container_of(round, struct mark, round);
    assert(mark->state == MARK_CLEARING);
    mark_end(mark, result);
}

static void restore_found(struct header *header, const struct found_header *found)
{
    header->in_use = found->in_use;
    header->flags = found->flags;
    header->extension_sector = found->extension_sector;
}

static void begin_clearing(struct mark *mark)
{
    struct bat *bat = mark->delta->bat;
    const struct extension_keep *keep = mark->dev->extension;
    set_mark_state(mark, MARK_CLEARING);
    assert(bat->header.in_use == HEADER_IN_USE && bat_is_idle(bat));
    if (keep->bytes) { /* an open that failed: the image goes back to the one it had */
        bat->header.extension_sector = keep->found_sector;
    }
    bat->header.in_use = bat->header.extension_sector ? HEADER_CLOSED_EXT : 0;
    if (bat->stats.mapped == 0) {
        bat->header.flags |= HEADER_FLAG_EMPTY;
    }
    if (!atomic_load(&mark->dev->changed)) {
        restore_found(&bat->header, &mark->dev->found);
    }
    header_round(mark, cleared);
}

static void flushed(struct round_wait *round, int result)
{
    struct mark *mark = container_of(round, struct mark, round);
    assert(mark->state == MARK_FLUSHING);
    if (result) {
        mark_end(mark, result);
        return;
    }
    set_mark_state(mark, MARK_RESTING);
    assert(mark->delta != dev_top(mark->dev) || atomic_load(&mark->dev->clusters_partial) == 0);
    alloc_stop(&mark->delta->bat->alloc);
    turn_again(&mark->dev->turn);
}

static void completed(struct partial_wait *wait, int result)
{
    struct mark *mark = container_of(wait, struct mark, copies);
    if (result) {
        mark_end(mark, result);
    } else {
        bat_join_round(mark->delta->bat, &mark->round, flushed);
    }
}

/* After each batch of the turn's work. */
static void look(struct dev_watch *watch)
{
    struct mark *mark = container_of(watch, struct mark, watch);
    struct bat *bat = mark->delta->bat;
    if (mark->delta != dev_top(mark->dev)) {
        bat_pump(bat);
    }
    if (mark->state == MARK_RESTING && bat_is_idle(bat)) {
        set_mark_state(mark, MARK_CUTTING);
        alloc_trim(&bat->alloc);
    }
    if (mark->state == MARK_CUTTING && bat_is_idle(bat)) {
        begin_clearing(mark);
    }
}

/* ---- the beginning ---- */

void mark_begin(struct mark *mark, ploop_dev *dev, struct delta *delta, enum mark_order order,
                mark_fn *then)
{
    assert(!dev->read_only && delta->bat);
    assert(order != MARK_OPENED || delta->bat->header.in_use != HEADER_IN_USE ||
           dev->config.flags & PLOOP_DEV_RECOVER);
    *mark = (struct mark){.dev = dev, .delta = delta, .order = order, .then = then};
    mark->watch.look = look;
    list_append(&dev->watches, &mark->watch.link);
    channel_io_init(&mark->io, &delta->channel);
    if (order == MARK_CLEAR) {
        set_mark_state(mark, MARK_FLUSHING);
        if (delta != dev_top(dev) || !partial_wait_for_all(dev, &mark->copies, completed)) {
            completed(&mark->copies, 0);
        }
    } else if (order != MARK_AGAIN && delta->capabilities & PLOOP_FILE_CAN_ALLOCATE) {
        set_mark_state(mark, MARK_ALLOCATING);
        channel_order(&mark->io, PLOOP_IO_ALLOCATE, 0, geometry_bat_bytes(&delta->geometry),
                      allocated);
    } else {
        begin_setting(mark);
    }
}

/* ---- waited for ---- */

struct mark_wait {
    struct mark mark;
    struct work work;
    ploop_dev *dev;
    enum mark_order order;
    int result;
    atomic_bool over;
};

static void wait_ends(struct mark *mark, int result)
{
    struct mark_wait *wait = container_of(mark, struct mark_wait, mark);
    ploop_dev *dev = wait->dev;
    wait->result = result;
    atomic_store(&wait->over, true);
    dev_wake(dev);
}

static void wait_begins(struct work *work)
{
    struct mark_wait *wait = container_of(work, struct mark_wait, work);
    mark_begin(&wait->mark, wait->dev, dev_top(wait->dev), wait->order, wait_ends);
}

static bool is_over(ploop_dev *dev, void *argument)
{
    (void)dev;
    struct mark_wait *wait = argument;
    return atomic_load(&wait->over);
}

/* *changed: the header was. */
static int mark_and_wait(ploop_dev *dev, enum mark_order order, bool *changed)
{
    struct mark_wait wait = {.dev = dev, .order = order, .work.run = wait_begins};
    help_begin(dev);
    turn_post(&dev->turn, &wait.work);
    block_until(dev, is_over, &wait);
    help_end(dev);
    *changed = wait.mark.header_changed;
    return wait.result;
}

int mark_set(ploop_dev *dev)
{
    bool changed;
    int error = mark_and_wait(dev, MARK_OPENED, &changed);
    if (error && changed) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_MARK, "the in-use mark cannot be written: %s",
                ERROR_TEXT(error));
    }
    return error;
}

int mark_clear(ploop_dev *dev)
{
    bool changed;
    int error = mark_and_wait(dev, MARK_CLEAR, &changed);
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, PLOOP_MESSAGE_UNMARK,
                "not closed cleanly, the in-use mark stays: %s", ERROR_TEXT(error));
    }
    return error;
}
