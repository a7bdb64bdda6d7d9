/* SPDX-License-Identifier: MIT */
/**
 * @file image.h
 * Images that no device has open: create, look, check.
 *
 * These calls block; none may be made from a callback.
 */
#ifndef PLOOP_IMAGE_H
#define PLOOP_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include <ploop/file.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Limits of the format as this library creates it. */
enum {
    PLOOP_SECTOR_SIZE = 512,
    PLOOP_CLUSTER_SIZE_MIN = 4096, /**< of images created; down to one sector is read and written */
    PLOOP_CLUSTER_SIZE_MAX = 67108864,    /**< 64 MiB */
    PLOOP_CLUSTER_SIZE_DEFAULT = 1048576, /**< 1 MiB */
    PLOOP_BAT_LIMIT_DEFAULT = 1073741824  /**< 1 GiB for 2^28 clusters: a larger BAT is opened where
                                             that is configured only */
};

/** What ploop_image_create() is to make. */
struct ploop_image_options {
    size_t size;
    uint32_t version;      /**< of the format, 1 or 2; 0 is 2 */
    uint32_t flags;        /**< none yet */
    uint64_t disk_size;    /**< in bytes, a multiple of 512, may be 0 */
    uint64_t cluster_size; /**< in bytes, a power of two from 4 KiB to 64 MiB; 0 is 1 MiB */
    uint64_t reserved[4];
};

/**
 * Write a new, empty image and make it durable.
 *
 * The file's size is set to the end of the BAT area; what the file held before is lost. The space
 * of the BAT is allocated where the backend can, so that a later BAT write does not run out of
 * space.
 *
 * @return 0, -EINVAL (an option out of its range), -E2BIG (unknown bytes set), -EFBIG (the disk
 *         does not fit the version's limits, a little under 2 TiB for version 1; or needs a BAT of
 *         more than PLOOP_BAT_LIMIT_DEFAULT: larger clusters need less), -EBUSY (a device has the
 *         file open), -EROFS, or what the backend returns
 *
 * Any thread, not from a callback. @since 2.0
 */
int ploop_image_create(ploop_file *file, const struct ploop_image_options *options);

/** ploop_image_info.flags */
enum {
    PLOOP_IMAGE_IN_USE = 1, /**< the in-use mark is set: open for writing, or not closed cleanly */
    PLOOP_IMAGE_EMPTY = 2,  /**< the header's Empty flag */
    PLOOP_IMAGE_EXTENSION = 4, /**< the header names a format extension that counts */
    PLOOP_IMAGE_CONVERTING = 8 /**< a version conversion was cut off */
};

/** What an image's header says. */
struct ploop_image_info {
    size_t size;
    uint32_t version; /**< 1 or 2 */
    uint32_t flags;   /**< PLOOP_IMAGE_ ... */
    uint64_t disk_size;
    uint64_t cluster_size;
    uint64_t bat_entries;
    uint64_t data_offset;      /**< where the data area starts */
    uint64_t extension_offset; /**< 0 for none */
    uint64_t file_size;
    uint32_t in_use; /**< the header's field as it stands */
    uint32_t reserved1;
    uint64_t reserved[4];
    char message[160]; /**< after -EINVAL or -EUCLEAN: one line, which field is wrong and its value;
                          else empty */
};

/**
 * Read and validate an image's header. The BAT is not read.
 *
 * @param info  `size` set by the caller; `message` filled after a failure too
 * @return 0, -EINVAL (no image: too short, or another magic), -EUCLEAN (an image whose header
 *         cannot be trusted), or what the backend returns
 *
 * Any thread, not from a callback. Takes no lock and changes nothing. @since 2.0
 */
int ploop_image_probe(ploop_file *file, struct ploop_image_info *info);

/** What a check found: ploop_check_record.kind. */
enum {
    PLOOP_CHECK_HEADER =
        1, /**< error: the header cannot be trusted; nothing else could be checked */
    PLOOP_CHECK_UNCLEAN = 2,      /**< error: the in-use mark is set */
    PLOOP_CHECK_IN_USE_VALUE = 3, /**< error: the in-use field holds no known value */
    PLOOP_CHECK_EMPTY_FLAG = 4,   /**< error: the Empty flag is set and clusters are mapped */
    PLOOP_CHECK_ENTRY_RANGE =
        5, /**< error: an entry outside the data area or past the end of the file */
    PLOOP_CHECK_ENTRY_GRID = 6, /**< error: an entry off the cluster grid */
    PLOOP_CHECK_ENTRY_DUPLICATE =
        7, /**< error: an entry that names another guest cluster's host cluster */
    PLOOP_CHECK_ENTRY_BEYOND = 8, /**< leak: a mapped cluster beyond the disk's end */
    PLOOP_CHECK_LEAK = 9,         /**< leak: `count` host clusters that nothing refers to */
    PLOOP_CHECK_EXTENSION = 10,   /**< error: the format extension */
    PLOOP_CHECK_READ = 11         /**< error: a part of the BAT could not be read */
};

/** One finding. */
struct ploop_check_record {
    size_t size;
    uint32_t kind;          /**< PLOOP_CHECK_ ... */
    uint32_t repair;        /**< the PLOOP_REPAIR_ flag that would mend it; 0 if none would */
    uint64_t guest_cluster; /**< UINT64_MAX where it has none */
    uint64_t host_offset;   /**< in bytes; UINT64_MAX where it has none */
    uint64_t count;         /**< how many clusters, 1 but for leaks */
    uint64_t reserved[4];
};

/** What ploop_image_check() may change: each only on request. */
enum {
    PLOOP_REPAIR_LEAKS = 1,   /**< fill interior leaks with the last clusters and cut the tail; the
                                 tail only while errors stay */
    PLOOP_REPAIR_UNCLEAN = 2, /**< clear the in-use mark after a clean check, and leave the header
                                 as a clean close does */
    PLOOP_REPAIR_ENTRIES = 4, /**< copy duplicates to a cluster of their own, clear entries that
                                 cannot be right, drop a bad extension */
    PLOOP_REPAIR_CACHED = 8   /**< with another: go on where the file's cache cannot be dropped; see
                                 ploop_image_check() */
};

/** How to check. */
struct ploop_check_options {
    size_t size;
    uint32_t repair; /**< PLOOP_REPAIR_ ...; 0 changes nothing */
    uint32_t reserved1;
    uint64_t bat_limit_bytes; /**< memory for the BAT at most; 0 is PLOOP_BAT_LIMIT_DEFAULT */
    /** Optional: a finding, in BAT order; `text` is one line, valid during the call. */
    void (*record)(void *user_data, const struct ploop_check_record *record, const char *text);
    /**
     * Optional: how far; a value other than 0 ends the check with -ECANCELED. A repair asks before
     * each cluster that it copies. Cancelled, it keeps what it has mended so far, durably, and
     * marks nothing that was not marked; run again, it does the rest.
     */
    int (*progress)(void *user_data, uint64_t done, uint64_t total);
    void *user_data;
    uint64_t reserved[4];
};

/** What came out. */
struct ploop_check_result {
    size_t size;
    uint64_t errors;
    uint64_t leaks;       /**< host clusters */
    uint64_t repaired;    /**< findings mended, once the repair has ended; the counts above are from
                             before */
    uint64_t mapped;      /**< entries that map a cluster rightly */
    uint32_t recoverable; /**< 1: nothing worse than an unclean close and leaks: PLOOP_DEV_RECOVER
                             would open it */
    uint32_t reserved1;
    uint64_t reserved[4];
};

/**
 * Check an image.
 *
 * Before a repair the file is synced and its cache dropped, as by an open with PLOOP_DEV_RECOVER:
 * what the cache shows may be lost on the disk. Where something stays in the cache the call fails
 * with -EBUSY and has changed nothing. PLOOP_REPAIR_CACHED repairs all the same: for a caller who
 * knows that no SYNC or writeback of the file has failed since it was last durable.
 *
 * @param options  NULL: change nothing, report only the result
 * @param result   `size` set by the caller
 * @return 0: checked, see the result; -EINVAL (no image), -EUCLEAN (the header cannot be trusted:
 *         result->errors is 1), -EFBIG (the BAT needs more memory than allowed), -ENOMEM,
 *         -ECANCELED, -ENOTSUP (a repair this version has not), -EBUSY (a repair of a file that a
 *         device has open, or whose cache cannot be dropped), -EROFS, or what the backend returns
 *
 * Any thread, not from a callback. @since 2.0
 */
int ploop_image_check(ploop_file *file, const struct ploop_check_options *options,
                      struct ploop_check_result *result);

#ifdef __cplusplus
}
#endif
#endif
