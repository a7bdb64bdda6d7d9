/* SPDX-License-Identifier: MIT */
/**
 * @file image.h
 * Operations on an image that no device has open: create, probe, check and repair.
 *
 * These functions block. They must not be called from a callback.
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
    PLOOP_BAT_LIMIT_DEFAULT =
        1073741824 /**< 1 GiB for 2^28 clusters: a device opens a larger BAT only
                                             if its configuration allows it */
};

/** Options of ploop_image_create(). */
struct ploop_image_options {
    uint64_t size;
    uint32_t version;      /**< of the format, 1 or 2; 0 is 2 */
    uint32_t flags;        /**< must be 0 */
    uint64_t disk_size;    /**< in bytes, a multiple of 512, may be 0 */
    uint64_t cluster_size; /**< in bytes, a power of two from 4 KiB to 64 MiB; 0 is 1 MiB */
    uint64_t reserved[4];
};

/**
 * Write a new, empty image and make it durable.
 *
 * The call sets the file's size to the end of the BAT area; what the file held before is lost. If
 * the backend can allocate, the call allocates the blocks of the BAT, so that a later write of it
 * does not run out of space.
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
    PLOOP_IMAGE_CONVERTING = 8 /**< a conversion between versions was interrupted */
};

/** The contents of an image's header. */
struct ploop_image_info {
    uint64_t size;
    uint32_t version; /**< 1 or 2 */
    uint32_t flags;   /**< PLOOP_IMAGE_ ... */
    uint64_t disk_size;
    uint64_t cluster_size;
    uint64_t bat_entries;
    uint64_t data_offset;      /**< where the data area starts */
    uint64_t extension_offset; /**< 0 for none */
    uint64_t file_size;
    uint32_t in_use; /**< the header's field, unchanged */
    uint32_t reserved1;
    uint64_t reserved[4];
    char message[160]; /**< after -EINVAL or -EUCLEAN: one line that names the field and its value;
                          otherwise empty */
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

/** The kinds of findings, and whether each is an error, a leak or a note. */
enum {
    PLOOP_CHECK_HEADER =
        1, /**< error: the header cannot be trusted; nothing else could be checked */
    PLOOP_CHECK_UNCLEAN = 2,      /**< error: the in-use mark is set */
    PLOOP_CHECK_IN_USE_VALUE = 3, /**< note: the in-use field holds a value of other software's,
                                     for which the image is closed cleanly */
    PLOOP_CHECK_EMPTY_FLAG = 4,   /**< error: the Empty flag is set and clusters are mapped */
    PLOOP_CHECK_ENTRY_RANGE =
        5, /**< error: an entry outside the data area or past the end of the file */
    PLOOP_CHECK_ENTRY_GRID = 6, /**< error: an entry off the cluster grid */
    PLOOP_CHECK_ENTRY_DUPLICATE =
        7, /**< error: an entry that names another guest cluster's host cluster */
    PLOOP_CHECK_ENTRY_BEYOND = 8, /**< leak: a mapped cluster beyond the disk's end */
    PLOOP_CHECK_LEAK = 9,         /**< leak: `count` host clusters that nothing refers to, and
                                     that take space */
    PLOOP_CHECK_EXTENSION = 10,   /**< error: the format extension */
    PLOOP_CHECK_READ =
        11, /**< error: a page of the BAT, or the format extension, could not be read */
    PLOOP_CHECK_ENTRY_CUT = 12,     /**< error: an entry whose cluster the end of the file cuts off;
                                   what is there of it can be read */
    PLOOP_CHECK_VOID_EXTENSION = 13 /**< note: a format extension that does not count, whole: stored
                                       by software that does not mark it, perhaps. The first change
                                       drops it, and so does PLOOP_REPAIR_ENTRIES */
};

/** A finding. */
struct ploop_check_record {
    uint64_t size;
    uint32_t kind;          /**< PLOOP_CHECK_ ... */
    uint32_t repair;        /**< the PLOOP_REPAIR_ flag that repairs it; 0: no flag does */
    uint64_t guest_cluster; /**< UINT64_MAX where it has none */
    uint64_t host_offset;   /**< in bytes; UINT64_MAX where it has none */
    uint64_t count;         /**< how many clusters, 1 but for leaks */
    uint64_t reserved[4];
};

/** What ploop_image_check() repairs, if asked to. */
enum {
    PLOOP_REPAIR_LEAKS = 1,   /**< if there are leaks, move the last clusters into them and into
                                 what is free, and truncate the file; only truncate while the image
                                 has errors */
    PLOOP_REPAIR_UNCLEAN = 2, /**< if the check is clean otherwise, clear the in-use mark, and leave
                                 the header as a clean close does */
    PLOOP_REPAIR_ENTRIES = 4, /**< copy duplicates to clusters of their own, clear invalid map
                                 entries, drop an invalid or void format extension; and what
                                 PLOOP_REPAIR_CUT does */
    PLOOP_REPAIR_CACHED = 8,  /**< with another flag: repair although the file's cache cannot be
                                 dropped; see ploop_image_check() */
    PLOOP_REPAIR_CUT = 16     /**< extend the file over a last cluster that its end cuts off: what
                                 is missing reads as zeros */
};

/** Options of ploop_image_check(). */
struct ploop_check_options {
    uint64_t size;
    uint32_t repair; /**< PLOOP_REPAIR_ ...; 0 changes nothing */
    uint32_t reserved1;
    uint64_t bat_limit_bytes; /**< the most memory for the BAT; 0: PLOOP_BAT_LIMIT_DEFAULT */
    /** Optional: called for each finding, in BAT order. `text` is one line, valid in the call. */
    void (*record)(void *user_data, const struct ploop_check_record *record, const char *text);
    /**
     * Optional: reports progress. If it returns a value other than 0, the check ends with
     * -ECANCELED. A repair calls it before each cluster that it copies. A cancelled repair keeps
     * what it has repaired so far, durably; run it again to repair the rest.
     */
    int (*progress)(void *user_data, uint64_t done, uint64_t total);
    void *user_data; /**< for record and progress */
    void *reserved2;
    uint64_t reserved[4];
};

/** The result of ploop_image_check(). */
struct ploop_check_result {
    uint64_t size;
    uint64_t errors;
    uint64_t leaks;       /**< host clusters that nothing refers to and that take space */
    uint64_t repaired;    /**< findings repaired; `errors` and `leaks` are the counts before the
                             repair */
    uint64_t mapped;      /**< valid entries that map a cluster */
    uint32_t recoverable; /**< 1: nothing worse than an unclean close, a last cluster that is cut
                             off, and leaks was found; PLOOP_DEV_RECOVER would open it (if
                             the file can grow, where a cluster is cut off) */
    uint32_t reserved1;
    /**
     * Host clusters that nothing refers to and that are no leaks, before the repair: a device that
     * opens the image uses them again. They are holes of the file, or the backend cannot tell
     * (ploop_io_ops.data_extent), as on a block device.
     */
    uint64_t free;
    uint64_t notes; /**< findings that are neither errors nor leaks: the image is clean with them */
    uint64_t reserved[2];
};

/**
 * Check an image, and repair it if asked to.
 *
 * A page of the BAT that cannot be read is a finding; the rest of the image is still checked. A
 * repair of such an image fails with the error of that read and changes nothing.
 *
 * Before a repair the call syncs the file and drops its cache, as an open with PLOOP_DEV_RECOVER
 * does, because a cache can show data that the disk has lost. If a part of the file stays in the
 * cache, the call fails with -EBUSY and changes nothing. With PLOOP_REPAIR_CACHED it repairs
 * nevertheless; use that only if no SYNC or writeback of the file has failed since it was last
 * durable.
 *
 * @param options  NULL: change nothing, report only the result
 * @param result   `size` set by the caller
 * @return 0: checked, see the result; -EINVAL (no image), -EUCLEAN (the header cannot be trusted:
 *         result->errors is 1), -EFBIG (the BAT needs more memory than allowed), -ENOMEM,
 *         -ECANCELED, -ENOTSUP (this version cannot repair it), -EBUSY (a repair of a file that a
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
