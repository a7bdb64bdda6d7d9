/* SPDX-License-Identifier: MIT */
/**
 * @file bat.h
 * The map and its pages: an operator's window on the writeback, and where a guest's bytes are.
 *
 * The BAT is kept in memory as the 4 KiB pages of the file from offset 0. A change makes its page
 * dirty; a dirty page has a deadline, which each further change pushes back, though never past the
 * page's maximum age.
 */
#ifndef PLOOP_BAT_H
#define PLOOP_BAT_H

#include <stddef.h>
#include <stdint.h>

#include <ploop/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/** ploop_bat_page_info.state: any of these; 0 is a clean page. */
enum {
    PLOOP_BAT_PAGE_DIRTY = 1,     /**< changed since the image last taken for a write */
    PLOOP_BAT_PAGE_WRITEBACK = 2, /**< an image of it is on its way to the disk */
    PLOOP_BAT_PAGE_HIGH_PRIORITY =
        4,                     /**< to be written at the next opportunity, whatever its deadline */
    PLOOP_BAT_PAGE_FAILED = 8, /**< its last write failed; it is dirty */
    PLOOP_BAT_PAGE_UNSYNCED = 16 /**< written, and no SYNC since */
};

/** One page. */
struct ploop_bat_page_info {
    size_t size;
    uint32_t page;
    uint32_t state;       /**< PLOOP_BAT_PAGE_ ... */
    uint32_t mapped;      /**< entries that map a cluster of the top delta */
    uint32_t changes;     /**< since the last image was taken */
    uint64_t dirtied_ns;  /**< the first of those changes; 0 where there is none */
    uint64_t deadline_ns; /**< when it will be written; UINT64_MAX where it is not dirty */
    uint64_t writes;      /**< since open */
    int32_t error;        /**< of the last write, -errno, until one succeeds */
    uint32_t reserved[5];
};

/** ploop_extent.state */
enum {
    PLOOP_EXTENT_MAPPED = 1, /**< some delta holds it */
    PLOOP_EXTENT_ZERO = 2    /**< reads as zeros, and no delta holds it */
};

/** A run of guest bytes of one state. */
struct ploop_extent {
    size_t size;
    uint64_t offset; /**< guest bytes */
    uint64_t length;
    uint64_t
        host_offset; /**< where a mapped extent begins in its file; it is contiguous there (a raw
                        file may end inside its last sector, which reads as zeros from there on) */
    uint32_t state;  /**< PLOOP_EXTENT_ ... */
    uint32_t level;  /**< the delta that holds a mapped extent, 0 is the base; 0 for zeros */
    uint64_t reserved[2];
};

/** How many BAT pages there are. Any thread, callbacks included. @since 2.0 */
uint32_t ploop_bat_page_count(const ploop_dev *dev);

/**
 * One page's state.
 * @param info  `size` set by the caller
 * @return 0; -EINVAL (no such page, info->size)
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_info(ploop_dev *dev, uint32_t page, struct ploop_bat_page_info *info);

/**
 * The next page that is dirty, on its way to the disk, or not yet synced.
 * @param from  the first page to look at
 * @return 0; -ENOENT: none from there on
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_next_dirty(ploop_dev *dev, uint32_t from, uint32_t *page);

/**
 * A page's entries as they are in memory now, in the file's own unit, 0 for unmapped. A page in the
 * middle of the BAT has 1024, page 0 has 1008 after the header.
 * @param count  how many fit into `entries`
 * @return how many were stored; -EINVAL (no such page)
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_read(ploop_dev *dev, uint32_t page, uint32_t *entries, uint32_t count);

/**
 * Mark a page high priority: due now, and tried again now if it failed. Does not wait;
 * ploop_pio_prep_bat_write() does.
 * @return 0 (also for a clean page); -EINVAL (no such page); -EROFS
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_write(ploop_dev *dev, uint32_t page);

/**
 * Change the writeback delay and the maximum age; pages that are dirty get new deadlines too.
 * @param delay_ns    0: every page at once
 * @param max_age_ns  at least delay_ns
 * @return 0; -EINVAL (max_age_ns < delay_ns); -EROFS
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_set_delay(ploop_dev *dev, uint64_t delay_ns, uint64_t max_age_ns);

/**
 * What holds the guest bytes at `offset`: the longest extent from there on, up to `length`, that
 * has one state and is contiguous in its file.
 * @param extent  `size` set by the caller
 * @return 0; -EINVAL (beyond the disk, length 0, extent->size); -EIO (a bad entry, on a read-only
 * device) Any thread, callbacks included. @since 2.0
 */
int ploop_bat_lookup(ploop_dev *dev, uint64_t offset, uint64_t length, struct ploop_extent *extent);

#ifdef __cplusplus
}
#endif
#endif
