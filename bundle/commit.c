/* SPDX-License-Identifier: MIT */
/*
 * Writing the XML. The order makes the bundle whole at each moment, also on the disk:
 *
 *  1. The new images were made and synced before. The directory is synced, so that their names are
 *     on the disk before an XML names them.
 *  2. The XML is written to another name, synced, and renamed over the old one.
 *  3. The directory is synced. Only then images are removed that it does not name any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"

static int write_all(int fd, const char *text, size_t size)
{
    while (size) {
        ssize_t done = write(fd, text, size);
        if (done < 0 && errno != EINTR) {
            return -errno;
        }
        text += done > 0 ? done : 0;
        size -= done > 0 ? (size_t)done : 0;
    }
    return fsync(fd) ? -errno : 0;
}

/* The new file is for whom the old one was for. */
static void keep_rights(int directory_fd, const char *name, int fd)
{
    struct stat old;

    if (!fstatat(directory_fd, name, &old, AT_SYMLINK_NOFOLLOW)) {
        bool kept = fchown(fd, old.st_uid, old.st_gid) == 0; /* only root can */
        kept = fchmod(fd, old.st_mode & 07777) == 0 && kept;
        (void)kept;
    }
}

static int write_text(int directory_fd, const char *name, const char *text, size_t size,
                      bool *written)
{
    size_t room = strlen(name) + sizeof(".new");
    char *new_name = malloc(room);

    if (!new_name) {
        return -ENOMEM;
    }
    snprintf(new_name, room, "%s.new", name);
    int error = fsync(directory_fd) ? -errno : 0;
    unlinkat(directory_fd, new_name, 0); /* of a program that was killed: we have the lock */
    int fd =
        error ? -1 : openat(directory_fd, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (!error && fd < 0) {
        error = -errno;
    }
    if (fd >= 0) {
        keep_rights(directory_fd, name, fd);
        error = write_all(fd, text, size);
        if (close(fd) && !error) {
            error = -errno;
        }
        if (!error && renameat(directory_fd, new_name, directory_fd, name)) {
            error = -errno;
        }
        *written = !error;
        if (error) {
            unlinkat(directory_fd, new_name, 0);
        }
    }
    free(new_name);
    if (!error && fsync(directory_fd)) {
        error = -errno;
    }
    return error;
}

int write_document(int directory_fd, const char *name, xmlDoc *doc, const struct report *report,
                   bool *written)
{
    size_t size;
    char *text = xml_print(doc, &size);

    *written = false;
    if (!text) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    int error = size > PLOOP_BUNDLE_XML_SIZE_MAX
                    ? -EFBIG
                    : write_text(directory_fd, name, text, size, written);
    xmlFree(text);
    return error ? fault(report, error, "cannot write it: %s", strerror(-error)) : 0;
}

int bundle_commit(ploop_bundle *bundle, xmlDoc *doc, bool *written)
{
    struct model model;
    int error = xml_read(doc, bundle->directory, &bundle->report, &model);

    *written = false;
    if (error) {
        xmlFreeDoc(doc);
        return error;
    }
    error = write_document(bundle->directory_fd, bundle->xml_name, doc, &bundle->report, written);
    if (!*written) {
        model_free(&model);
        xmlFreeDoc(doc);
        return error;
    }
    model_free(&bundle->model);
    xmlFreeDoc(bundle->doc);
    bundle->model = model;
    bundle->doc = doc;
    return error;
}
