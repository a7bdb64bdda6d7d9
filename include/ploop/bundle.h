/* SPDX-License-Identifier: MIT */
/**
 * @file bundle.h
 * Bundles: directories with a DiskDescriptor.xml, which Parallels Desktop and OpenVZ call a disk.
 *
 * These functions are in a library of their own, libploop-bundle.so, that needs libxml2; the
 * header is not part of ploop/ploop.h. They tell which image files make up a disk or one of its
 * snapshots; a device is opened with those files as with any others.
 *
 * A bundle has one or more storages, each for a range of the disk, one behind the other; only a
 * split disk has more than one. Each storage has an image for each snapshot. The snapshots are a
 * tree. One of them, the top, is the disk's present state: nothing is built on it.
 *
 * These functions block. A handle is used by one thread at a time.
 */
#ifndef PLOOP_BUNDLE_H
#define PLOOP_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A bundle: what its DiskDescriptor.xml says. */
typedef struct ploop_bundle ploop_bundle;

struct ploop_dev_config; /* of ploop/dev.h */
struct ploop_extent;     /* of ploop/bat.h */

/** The sizes of texts, with the zero at their end; and limits. */
enum {
    PLOOP_BUNDLE_GUID_SIZE = 39,         /**< "{5fbaabe3-6958-40ff-92a7-860e329aab41}" */
    PLOOP_BUNDLE_XML_SIZE_MAX = 1048576, /**< of a DiskDescriptor.xml, in bytes */
    PLOOP_BUNDLE_SNAPSHOTS_MAX = 4096    /**< in a bundle */
};

/** Flags to open a bundle. */
enum {
    PLOOP_BUNDLE_READ_ONLY = 1,
    PLOOP_BUNDLE_READ_WRITE = 2 /**< the functions that change a bundle may be called. Until it is
                                   closed it is locked against other programs that change it: this
                                   library's, and OpenVZ's ploop */
};

/** Options of ploop_bundle_open(). */
struct ploop_bundle_config {
    uint64_t size;
    uint32_t flags; /**< PLOOP_BUNDLE_READ_ONLY or READ_WRITE; 0: READ_ONLY */
    uint32_t reserved1;
    /**
     * Optional: gets one line of text, which names the file, for each failure of a call with the
     * bundle. Level PLOOP_LOG_ERROR, or PLOOP_LOG_WARNING where the call succeeds nevertheless;
     * message_id is 0. Called in the calling thread; must not use the bundle.
     */
    void (*log)(void *user_data, uint32_t level, uint32_t message_id, const char *text);
    void *user_data; /**< for log */
    /**
     * Optional: called now and then while clusters are copied (ploop_bundle_merge(),
     * ploop_bundle_delete()). A result other than 0 ends that with -ECANCELED. Called in the
     * calling thread; must not use the bundle.
     */
    int (*progress)(void *user_data, uint64_t done, uint64_t total);
    void *progress_data; /**< its user_data */
    uint64_t merge_rate; /**< the most bytes to copy in a second; 0: as fast as it can */
    uint64_t reserved[2];
};

/** A bundle as a whole. */
struct ploop_bundle_info {
    uint64_t size;
    uint64_t disk_size; /**< in bytes */
    uint32_t storage_count;
    uint32_t snapshot_count; /**< at least 1: the top is counted */
    uint32_t top;            /**< the number of the top snapshot */
    uint32_t reserved1;
    uint64_t reserved[4];
};

/** A snapshot. */
struct ploop_bundle_snapshot {
    uint64_t size;
    uint32_t parent; /**< its number; UINT32_MAX for the root, which has none */
    uint32_t child_count;
    char guid[PLOOP_BUNDLE_GUID_SIZE + 1]; /**< lower case, in braces */
    uint64_t reserved[4];
};

/** A storage: a range of the disk. */
struct ploop_bundle_storage {
    uint64_t size;
    uint64_t start;        /**< in bytes; where the storage before it ends */
    uint64_t end;          /**< in bytes */
    uint64_t cluster_size; /**< of its expanding images, in bytes */
    uint64_t reserved[4];
};

/** ploop_bundle_image.type */
enum {
    PLOOP_BUNDLE_PLAIN = 1,    /**< a raw file: a root only; PLOOP_DEV_RAW_BASE in a stack */
    PLOOP_BUNDLE_EXPANDING = 2 /**< an image: "Compressed" in the XML */
};

/** An image: the file of a snapshot in a storage. */
struct ploop_bundle_image {
    uint64_t size;
    uint32_t type;     /**< PLOOP_BUNDLE_PLAIN or EXPANDING */
    uint32_t snapshot; /**< its number */
    const char *name;  /**< of the file, in the bundle's directory */
    const char *path;  /**< the same behind the directory's path, as it was given to open. Both are
                          valid until the bundle is changed or closed */
    uint64_t reserved[4];
};

/**
 * Read a bundle.
 *
 * The whole bundle is judged first: nothing is returned of one that has a fault anywhere. Refused
 * are XML that is not well-formed, is larger than 1 MiB or has a document type (so it has no
 * entities and asks for no other file); GUIDs that are not known, or twice there; snapshots that
 * are no tree with one root; storages that do not cover the disk; an image whose name is not the
 * plain name of a file in the directory, which has to exist, to be a regular file or a block
 * device and no symbolic link, and to be named once; encrypted disks, and disks with padding.
 *
 * @param path    of the directory, or of the XML file in it
 * @param config  NULL: read-only, without a log
 * @param[out] bundle  the caller's, to be closed with ploop_bundle_close(); NULL after a failure
 * @return 0, -EINVAL (arguments), -E2BIG (unknown bytes of the options set), -ENOENT (no such
 *         directory, XML file or image), -EUCLEAN (what is in it cannot be trusted), -ENOTSUP
 *         (encrypted or padded), -EFBIG (more than 1 MiB, or too many snapshots), -EAGAIN
 *         (READ_WRITE, and another program changes it), -ENOMEM, or what reading it fails with
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_open(const char *path, const struct ploop_bundle_config *config,
                      ploop_bundle **bundle);

/** Close a bundle. NULL is allowed. Any thread. @since 2.0 */
void ploop_bundle_close(ploop_bundle *bundle);

/**
 * The bundle as a whole.
 *
 * @param info  `size` set by the caller
 * @return 0, -EINVAL (info->size), -E2BIG (unknown bytes set)
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_info(const ploop_bundle *bundle, struct ploop_bundle_info *info);

/**
 * A snapshot. Numbers go in the order of the XML, and change when the bundle is changed.
 *
 * @param number    below ploop_bundle_info.snapshot_count
 * @param snapshot  `size` set by the caller
 * @return 0, -ENOENT (no such number), -EINVAL (snapshot->size), -E2BIG (unknown bytes set)
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_snapshot(const ploop_bundle *bundle, uint32_t number,
                          struct ploop_bundle_snapshot *snapshot);

/**
 * Find a snapshot by its GUID.
 *
 * @param guid    in braces, in upper or lower case
 * @param number  its number
 * @return 0, -ENOENT (none has it), -EINVAL (not a GUID)
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_find(const ploop_bundle *bundle, const char *guid, uint32_t *number);

/**
 * A storage. They are numbered in the order of the disk.
 *
 * @param number   below ploop_bundle_info.storage_count
 * @param storage  `size` set by the caller
 * @return 0, -ENOENT (no such number), -EINVAL (storage->size), -E2BIG (unknown bytes set)
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_storage(const ploop_bundle *bundle, uint32_t number,
                         struct ploop_bundle_storage *storage);

/**
 * The image of a snapshot in a storage.
 *
 * @param storage   its number
 * @param snapshot  its number
 * @param image     `size` set by the caller
 * @return 0, -ENOENT (no such number), -EINVAL (image->size), -E2BIG (unknown bytes set)
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_image(const ploop_bundle *bundle, uint32_t storage, uint32_t snapshot,
                       struct ploop_bundle_image *image);

/**
 * The snapshots that a snapshot is made of, itself the last one, the root the first one. Their
 * images in a storage, in this order, are the stack to open; all but the last one for reading only.
 *
 * @param snapshot  its number
 * @param[out] chain  room for `room` numbers. Where there are more, those from the root on
 * @return how many there are, or -ENOENT (no such number)
 *
 * Any thread. @since 2.0
 */
int64_t ploop_bundle_chain(const ploop_bundle *bundle, uint32_t snapshot, uint32_t *chain,
                           uint32_t room);

/**
 * A snapshot of a bundle, open as one disk: of however many storages, each of images or of a raw
 * file. Where there is one storage of images, a device that is opened with these files does the
 * same, and more.
 */
typedef struct ploop_bundle_disk ploop_bundle_disk;

/**
 * Open a snapshot as a disk. Only the top is to be written to: others need the images of a
 * snapshot.
 *
 * Each storage becomes a device, with a thread of its own if it is open for writing. All are looked
 * at before the first one is changed: of each image the size of its disk and its clusters have to
 * be those of the storage, and a storage's raw file has to be as long as that; a block device can
 * be longer. The disk does not need the bundle any more, but its log, which is called from any
 * thread until the disk is closed.
 *
 * @param snapshot  its number
 * @param config    how to open each device, or NULL: the defaults. Only flags, but
 *                  PLOOP_DEV_RAW_BASE, and what follows pio_count, but clock, log, event and
 *                  error_text, which are NULL
 * @param[out] disk  to be closed with ploop_bundle_disk_close(); NULL after a failure
 * @return 0; -EINVAL (arguments; an image without a header); -ENOENT (no such snapshot); -EUCLEAN
 *         (an image is not what the XML describes, or needs PLOOP_DEV_RECOVER); -EFBIG (a stack of
 *         more than 255 images); -EAGAIN (another program has an image open); -ENOMEM; or what
 *         ploop_dev_open() fails with. The log has one line
 *
 * Any thread. Blocks. @since 2.0
 */
int ploop_bundle_disk_open(const ploop_bundle *bundle, uint32_t snapshot,
                           const struct ploop_dev_config *config, ploop_bundle_disk **disk);

/**
 * Close a disk, after its last request: all that was written is made durable. NULL is allowed.
 * @return 0, or the first error of ploop_dev_close() or of a sync: something may be lost
 * Any thread. Blocks. @since 2.0
 */
int ploop_bundle_disk_close(ploop_bundle_disk *disk);

/**
 * Read from a disk. Offset and length are multiples of 512, as in each of the requests that follow;
 * each blocks until it is done. One that crosses a border of storages is done storage by storage:
 * if one of these fails, those before it are done.
 *
 * @return the length; -EINVAL (out of the disk, or not aligned); or as ploop_pio_execute()
 *
 * Any thread, any number at once. @since 2.0
 */
int64_t ploop_bundle_disk_pread(ploop_bundle_disk *disk, void *buffer, uint64_t length,
                                uint64_t offset);

/**
 * Write to a disk.
 * @param flags  0 or PLOOP_PIO_FUA
 * @return as ploop_bundle_disk_pread(); -EROFS; -EINVAL also for other flags
 * Any thread, any number at once. @since 2.0
 */
int64_t ploop_bundle_disk_pwrite(ploop_bundle_disk *disk, const void *buffer, uint64_t length,
                                 uint64_t offset, uint32_t flags);

/**
 * Write zeros to a disk.
 * @param flags  of PLOOP_PIO_FUA, PLOOP_PIO_NO_UNMAP and PLOOP_PIO_FAST_ONLY
 * @return 0, or the errors of ploop_bundle_disk_pwrite(); -ENOTSUP (FAST_ONLY, and not fast; in a
 *         raw file always)
 * Any thread, any number at once. @since 2.0
 */
int ploop_bundle_disk_write_zeroes(ploop_bundle_disk *disk, uint64_t length, uint64_t offset,
                                   uint32_t flags);

/**
 * Discard a range of a disk, as ploop_pio_prep_discard(). In a raw file it does nothing.
 * @return 0, or the errors of ploop_bundle_disk_pwrite()
 * Any thread, any number at once. @since 2.0
 */
int ploop_bundle_disk_discard(ploop_bundle_disk *disk, uint64_t length, uint64_t offset);

/**
 * Make durable all that was written to any storage before. After a failed sync every flush fails.
 * @return 0, or the first error
 * Any thread. @since 2.0
 */
int ploop_bundle_disk_flush(ploop_bundle_disk *disk);

/**
 * Find the extent at `offset`, as ploop_bat_lookup() does: it ends where its storage ends.
 * extent->offset is one of the disk, level and host_offset are those in the storage.
 *
 * @param length   not beyond the end of the disk
 * @param storage  its number
 * @return 0, -EINVAL, or as ploop_bat_lookup()
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_disk_lookup(ploop_bundle_disk *disk, uint64_t offset, uint64_t length,
                             struct ploop_extent *extent, uint32_t *storage);

/** Options of ploop_bundle_create(). */
struct ploop_bundle_options {
    uint64_t size;
    uint32_t version; /**< of the image's format. 1: as Parallels Desktop has its disks, its file
                         names included; 2, or 0: as OpenVZ has them */
    uint32_t reserved1;
    uint64_t disk_size;    /**< in bytes, a multiple of 512, not 0 */
    uint64_t cluster_size; /**< as ploop_image_options.cluster_size */
    /** Optional: as ploop_bundle_config.log. */
    void (*log)(void *user_data, uint32_t level, uint32_t message_id, const char *text);
    void *user_data; /**< for log */
    uint64_t reserved[4];
};

/**
 * Make a directory with a new, empty disk of one storage, and make it durable. After a failure
 * there is no such directory.
 *
 * @param path  of the directory; it must not exist
 * @return 0, -EINVAL, -E2BIG and -EFBIG as ploop_image_create(), -EEXIST, or what creating it fails
 *         with
 *
 * Any thread. @since 2.0
 */
int ploop_bundle_create(const char *path, const struct ploop_bundle_options *options);

/**
 * Take a snapshot of the top: its image becomes the snapshot's, and a new, empty image on it
 * becomes the top's. The top keeps its GUID, the snapshot gets a new one.
 *
 * No other program may have the top's image open. As with each change of a bundle the new XML is
 * written to another name, made durable, and renamed; then the directory is made durable. After a
 * failure the bundle is as it was, in the directory and in the handle. One exception: where the
 * directory cannot be made durable after the change, the change is made, and the call returns that
 * error.
 *
 * @param[out] guid  of the snapshot: PLOOP_BUNDLE_GUID_SIZE bytes; may be NULL
 * @return 0, -EBADF (opened for reading only), -EAGAIN (another program has the image open),
 *         -EUCLEAN (the image was not closed cleanly, or is not the one that the XML describes),
 *         -ENOTSUP (a split disk), -EFBIG (too many snapshots, or an XML of more than 1 MiB),
 *         -ENOMEM, or what a file operation fails with
 *
 * @since 2.0
 */
int ploop_bundle_take_snapshot(ploop_bundle *bundle, char *guid);

/**
 * Go back to a snapshot: a new, empty image on the snapshot becomes the top's. **What was written
 * since the top's last snapshot is removed** with the image that the top had.
 *
 * @param snapshot  its number
 * @return as ploop_bundle_take_snapshot(); -EINVAL where it is the top; -ENOENT (no such number)
 *
 * @since 2.0
 */
int ploop_bundle_switch(ploop_bundle *bundle, uint32_t snapshot);

/**
 * Delete a snapshot, and its image; what is built on it gets the parent of it. Where the others
 * need its data, that is copied into the image of each snapshot that is built on it directly; then
 * it goes. A file that cannot be removed any more when the bundle does not name it is left, with a
 * warning.
 *
 * The images of those snapshots are opened for writing, so no other program may use them. A program
 * that is killed meanwhile leaves the bundle with the snapshot or without it, and each of the
 * others as it was; an image that was being written to was not closed cleanly then.
 *
 * @param snapshot  its number
 * @return as ploop_bundle_take_snapshot(); -EINVAL where it is the top; -ENOENT (no such number);
 *         -ENOTSUP (the root, where more than one snapshot is built on it); -ECANCELED (progress);
 *         or what ploop_dev_merge() and its job fail with
 *
 * @since 2.0
 */
int ploop_bundle_delete(ploop_bundle *bundle, uint32_t snapshot);

/**
 * Merge a snapshot, or the top, with its parent: it stays what it is, and **the parent goes**, with
 * its GUID. Nothing else may be built on the parent.
 *
 * Up, what the snapshot has not is copied into its image, and the image of the parent is removed;
 * that is safe at each moment, as ploop_bundle_delete() is. Down, what the snapshot has is copied
 * into the parent's image, which becomes its own, and the image that it had is removed; that copies
 * less where the parent is the larger one. From the first copy on the parent is not what it was
 * then, also if the call fails or the program is killed: nobody can go back to it.
 *
 * @param snapshot   its number
 * @param direction  PLOOP_MERGE_UP or PLOOP_MERGE_DOWN (ploop/ops.h)
 * @return as ploop_bundle_delete(); -EINVAL also for the root, where another snapshot is built on
 *         the parent, and for another direction; -ENOTSUP (down into a raw disk)
 *
 * @since 2.0
 */
int ploop_bundle_merge(ploop_bundle *bundle, uint32_t snapshot, uint32_t direction);

#ifdef __cplusplus
}
#endif
#endif
