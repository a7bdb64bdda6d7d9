/* SPDX-License-Identifier: MIT */
/**
 * @file bat.h
 * The map and its pages: the state of the writeback, and where the bytes of a guest are.
 *
 * The library keeps the BAT in memory, as the 4 KiB pages of the file from offset 0. A change of an
 * entry makes its page dirty. A dirty page has a deadline; each further change moves the deadline
 * later, but never past the page's maximum age.
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
    PLOOP_BAT_PAGE_DIRTY = 1,     /**< changed since the last copy of it was taken for a write */
    PLOOP_BAT_PAGE_WRITEBACK = 2, /**< a copy of it is being written */
    PLOOP_BAT_PAGE_HIGH_PRIORITY =
        4,                     /**< will be written at the next opportunity, before its deadline */
    PLOOP_BAT_PAGE_FAILED = 8, /**< its last write failed; it is dirty and will be tried again */
    PLOOP_BAT_PAGE_UNSYNCED = 16 /**< written, and no SYNC has succeeded since */
};

/** The state of one page. */
struct ploop_bat_page_info {
    uint64_t size;
    uint32_t page;
    uint32_t state;       /**< PLOOP_BAT_PAGE_ ... */
    uint32_t mapped;      /**< entries that map a cluster of the top delta */
    uint32_t changes;     /**< since the last copy was taken for a write */
    uint64_t dirtied_ns;  /**< time of the first of those changes; 0: none */
    uint64_t deadline_ns; /**< when it will be written; UINT64_MAX: it is not dirty */
    uint64_t writes;      /**< since open */
    int32_t error;        /**< of the last write, -errno, until one succeeds */
    uint32_t reserved[5];
};

/** ploop_extent.state */
enum {
    PLOOP_EXTENT_MAPPED = 1, /**< a delta holds these bytes */
    PLOOP_EXTENT_ZERO = 2    /**< no delta holds these bytes: they read as zeros */
};

/** A range of guest bytes that has one state. */
struct ploop_extent {
    uint64_t size;
    uint64_t offset; /**< guest bytes */
    uint64_t length;
    /** Where a mapped extent begins in its file; it is contiguous there (a raw file may end inside
     *  its last sector, which reads as zeros from there on). */
    uint64_t host_offset;
    uint32_t state; /**< PLOOP_EXTENT_ ... */
    uint32_t level; /**< the delta that holds a mapped extent, 0 is the base; 0 for zeros */
    uint64_t reserved[2];
};

/** How many BAT pages there are. Any thread, callbacks included. @since 2.0 */
uint32_t ploop_bat_page_count(const ploop_dev *dev);

/**
 * Get the state of a page.
 * @param info  `size` set by the caller
 * @return 0; -EINVAL (no such page, info->size)
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_info(ploop_dev *dev, uint32_t page, struct ploop_bat_page_info *info);

/**
 * Find the next page that is dirty, being written, or not yet synced.
 * @param from  the first page to look at
 * @return 0; -ENOENT: none from there on
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_next_dirty(ploop_dev *dev, uint32_t from, uint32_t *page);

/**
 * Read the entries of a page as they are in memory now, in the unit that the file uses; 0 means not
 * mapped. Page 0 has 1008 entries, behind the header; the others have 1024, the last one perhaps
 * fewer.
 * @param count  the length of the array `entries`
 * @return how many were stored; -EINVAL (no such page)
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_read(ploop_dev *dev, uint32_t page, uint32_t *entries, uint32_t count);

/**
 * Write a page at the next opportunity, whatever its deadline. A page that failed is tried again
 * now. The call does not wait; a request prepared by ploop_pio_prep_bat_write() completes when the
 * pages are durable.
 * @return 0 (also for a clean page); -EINVAL (no such page); -EROFS
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_page_write(ploop_dev *dev, uint32_t page);

/**
 * Change the writeback delay and the maximum age. Dirty pages get new deadlines too.
 * @param delay_ns    0: write each page at once
 * @param max_age_ns  at least delay_ns
 * @return 0; -EINVAL (max_age_ns < delay_ns); -EROFS
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_set_delay(ploop_dev *dev, uint64_t delay_ns, uint64_t max_age_ns);

/**
 * Find out where the guest bytes at `offset` are: the longest extent from there on, at most
 * `length` bytes, that has one state and is contiguous in its file. A cluster whose copy is put off
 * (ploop_dev_config.cow_delay_ns) is told as the lower delta has it, until it is copied.
 * @param extent  `size` set by the caller
 * @return 0; -EINVAL (beyond the disk, length 0, extent->size); -EIO (a bad entry, on a read-only
 *         device)
 * Any thread, callbacks included. @since 2.0
 */
int ploop_bat_lookup(ploop_dev *dev, uint64_t offset, uint64_t length, struct ploop_extent *extent);

#ifdef __cplusplus
}
#endif
#endif
