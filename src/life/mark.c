/* SPDX-License-Identifier: MIT */
/*
 * The in-use mark (R11): the header's field that says that the file may hold what no map tells of.
 *
 *     found -> blocks for the BAT -> SYNC -> mark -> SYNC -> (RECOVER: every page -> SYNC) -> set
 *     set -> every page -> SYNC -> removals are ripe, space work has ended -> the file's free end
 *     is cut off -> SYNC -> mark cleared -> SYNC -> clear
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
 */
#include "life/mark.h"

#include "file/file.h"
#include "life/life.h"
#include "life/rest.h"
#include "util/error_text.h"

#include <assert.h>
#include <errno.h>

enum { MARK_MESSAGE_ID = 2, CLEAR_MESSAGE_ID = 3 };

/* ---- set ---- */

/*
 * Blocks for a BAT that has holes, so that no page write runs out of space (F7). No content
 * changes: it comes before the mark, so that an image for which there is no space stays closed and
 * clean. Where the backend gives no blocks, a page write may fail for lack of space.
 */
static int allocate_bat(ploop_dev *dev)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    int64_t done = ploop_file_info(dev_top(dev)->file, &info);
    if (done == 0 && info.capabilities & PLOOP_FILE_CAN_ALLOCATE) {
        done = file_sync_io(dev_top(dev)->file, PLOOP_IO_ALLOCATE, NULL,
                            geometry_bat_bytes(&dev_top(dev)->geometry), 0);
    }
    if (done >= 0 || done == -ENOTSUP) {
        return 0;
    }
    if (!is_no_space((int)done) && done != -EIO && done != -EROFS) {
        dev_log(dev, PLOOP_LOG_WARNING, MARK_MESSAGE_ID,
                "the blocks of the BAT cannot be allocated: %s; a page of it may run out of space",
                ERROR_TEXT((int)done));
        return 0;
    }
    dev_log(dev, PLOOP_LOG_ERROR, MARK_MESSAGE_ID, "the blocks of the BAT cannot be allocated: %s",
            ERROR_TEXT((int)done));
    return (int)done;
}

static void mark_in_use(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    bat->header.in_use = HEADER_IN_USE;
    bat->header.flags &= ~(uint32_t)HEADER_FLAG_EMPTY;
    if (!dev->extension->in_place) {
        bat->header.extension_sector = 0;
    }
    bat_header_changed(bat, sync_next(&bat->syncer));
}

static void rewrite(ploop_dev *dev)
{
    assert(dev_bat(dev)->header.in_use == HEADER_IN_USE);
    bat_rewrite_all(dev_bat(dev));
}

static void recover_all(ploop_dev *dev)
{
    dev_bat(dev)->alloc.recovered = true;
    rewrite(dev);
}

int mark_set(ploop_dev *dev)
{
    bool recover = dev_bat(dev)->header.in_use == HEADER_IN_USE;
    assert(!dev->read_only);
    assert(!recover || dev->config.flags & PLOOP_DEV_RECOVER);
    int error = allocate_bat(dev);
    if (error) {
        return error;
    }
    block_control(dev, mark_in_use);
    error = block_round(dev);
    if (!error && (recover || dev->config.flags & PLOOP_DEV_HOST_SHOWS_STALE)) {
        block_control(dev, recover ? recover_all : rewrite);
        error = block_round(dev);
    }
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, MARK_MESSAGE_ID, "the in-use mark cannot be written: %s",
                ERROR_TEXT(error));
    }
    return error;
}

/* ---- clear ---- */

static void stop_space_work(ploop_dev *dev)
{
    dev_bat(dev)->alloc.closing = true;
}

static void trim(ploop_dev *dev)
{
    assert(alloc_is_at_rest(&dev_bat(dev)->alloc));
    alloc_trim(&dev_bat(dev)->alloc);
}

static void clear_mark(ploop_dev *dev)
{
    struct bat *bat = dev_bat(dev);
    assert(bat->header.in_use == HEADER_IN_USE && bat_is_idle(bat));
    if (dev->extension->bytes) { /* an open that failed: the image goes back to the one it had */
        bat->header.extension_sector = dev->extension->found_sector;
    }
    bat->header.in_use = bat->header.extension_sector ? HEADER_CLOSED_EXT : 0;
    if (bat->stats.mapped == 0) {
        bat->header.flags |= HEADER_FLAG_EMPTY;
    }
    bat_header_changed(bat, sync_next(&bat->syncer));
}

int mark_clear(ploop_dev *dev)
{
    assert(!dev->read_only);
    int error = block_round(dev);
    if (!error) {
        block_control(dev, stop_space_work);
        dev_wait_for_rest(dev);
        block_control(dev, trim);
        dev_wait_for_rest(dev);
        block_control(dev, clear_mark);
        error = block_round(dev);
    }
    if (error) {
        dev_log(dev, PLOOP_LOG_ERROR, CLEAR_MESSAGE_ID,
                "not closed cleanly, the in-use mark stays: %s", ERROR_TEXT(error));
    }
    return error;
}
