/* SPDX-License-Identifier: MIT */
/* New bundles: a directory, an image, an XML. See ploop_bundle_create(). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"

enum { SECTOR = 512 };

static const char xml_file[] = "DiskDescriptor.xml";

/* What is to be made, and what has been. */
struct creation {
    struct report report;
    const char *path;
    char *directory; /* the path without slashes at its end */
    char *disk_name; /* the directory's name without ".hdd" */
    char *image_name;
    char *marker_name; /* an empty file beside Parallels Desktop's images; NULL: none */
    int directory_fd;
    struct ploop_image_options image;
};

/* ---- Names ---- */

/* The directory's name where it suits an XML and a file's name. */
static char *disk_name_of(const char *directory)
{
    const char *slash = strrchr(directory, '/');
    char *name = strdup(slash ? slash + 1 : directory);
    size_t length = name ? strlen(name) : 0;
    bool suits = length > 0 && length <= 100 && xmlCheckUTF8((const xmlChar *)name);

    for (size_t i = 0; i < length; i++) {
        suits = suits && (unsigned char)name[i] >= ' ' && name[i] != 0x7f;
    }
    if (length > 4 && strcmp(name + length - 4, ".hdd") == 0) {
        name[length - 4] = 0;
    }
    if (name && (!suits || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        free(name);
        return strdup("disk");
    }
    return name;
}

static char *join3(const char *one, const char *two, const char *three)
{
    size_t size = strlen(one) + strlen(two) + strlen(three) + 1;
    char *text = malloc(size);

    if (text) {
        snprintf(text, size, "%s%s%s", one, two, three);
    }
    return text;
}

static int make_names(struct creation *creation)
{
    char guid[PLOOP_BUNDLE_GUID_SIZE + sizeof(".hds")];
    size_t length = strlen(creation->path);

    while (length > 1 && creation->path[length - 1] == '/') {
        length--;
    }
    creation->directory = strndup(creation->path, length);
    creation->disk_name = creation->directory ? disk_name_of(creation->directory) : NULL;
    if (!creation->disk_name) {
        return -ENOMEM;
    }
    if (creation->image.version == 2) {
        creation->image_name = strdup("root.hds");
        return creation->image_name ? 0 : -ENOMEM;
    }
    guid_print(&guid_of_top, guid);
    memcpy(guid + PLOOP_BUNDLE_GUID_SIZE - 1, ".hds", sizeof(".hds"));
    creation->image_name = join3(creation->disk_name, ".hdd.0.", guid);
    creation->marker_name = join3(creation->disk_name, ".hdd", "");
    return creation->image_name && creation->marker_name ? 0 : -ENOMEM;
}

/* ---- Files ---- */

static int make_image(const struct creation *creation)
{
    ploop_file *file;
    char *path = join_path(creation->directory, creation->image_name);
    int error = path ? ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file)
                     : -ENOMEM;

    if (!error) {
        error = ploop_image_create(file, &creation->image);
        ploop_file_close(file);
    }
    free(path);
    return error ? fault(&creation->report, error, "cannot create its image: %s", strerror(-error))
                 : 0;
}

static int make_marker(const struct creation *creation)
{
    if (!creation->marker_name) {
        return 0;
    }
    int fd = openat(creation->directory_fd, creation->marker_name,
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int error = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    return error
               ? fault(&creation->report, error, "%s: %s", creation->marker_name, strerror(-error))
               : 0;
}

static int make_xml(const struct creation *creation)
{
    const struct xml_new wanted = {
        .disk_sectors = creation->image.disk_size / SECTOR,
        .block_sectors = creation->image.cluster_size / SECTOR,
        .image_name = creation->image_name,
        .disk_name = creation->marker_name ? creation->disk_name : NULL,
    };
    xmlDoc *doc = xml_create(&wanted);
    bool written;

    if (!doc) {
        return fault(&creation->report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    int error = write_document(creation->directory_fd, xml_file, doc, &creation->report, &written);
    xmlFreeDoc(doc);
    return error;
}

static int sync_parent(const struct creation *creation)
{
    const char *slash = strrchr(creation->directory, '/');
    char *parent = slash == creation->directory ? strdup("/")
                   : slash ? strndup(creation->directory, (size_t)(slash - creation->directory))
                           : strdup(".");
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int error = fd < 0 || fsync(fd) ? -errno : 0;

    if (fd >= 0) {
        close(fd);
    }
    free(parent);
    return error
               ? fault(&creation->report, error, "cannot sync its directory: %s", strerror(-error))
               : 0;
}

/* All of it, in the directory that was made. 0 or -errno, told. */
static int fill_directory(struct creation *creation)
{
    creation->directory_fd = open(creation->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (creation->directory_fd < 0) {
        return fault(&creation->report, -errno, "%s", strerror(errno));
    }
    int error = make_image(creation);
    if (!error) {
        error = make_marker(creation);
    }
    if (!error) {
        error = make_xml(creation);
    }
    if (!error) {
        error = sync_parent(creation);
    }
    if (error) {
        unlinkat(creation->directory_fd, xml_file, 0);
        unlinkat(creation->directory_fd, creation->image_name, 0);
        if (creation->marker_name) {
            unlinkat(creation->directory_fd, creation->marker_name, 0);
        }
    }
    close(creation->directory_fd);
    return error;
}

static int create(struct creation *creation)
{
    int error = make_names(creation);

    if (error) {
        return fault(&creation->report, error, "%s", strerror(-error));
    }
    if (mkdir(creation->directory, 0777)) {
        return fault(&creation->report, -errno, "cannot create: %s", strerror(errno));
    }
    error = fill_directory(creation);
    if (error) {
        rmdir(creation->directory);
    }
    return error;
}

int ploop_bundle_create(const char *path, const struct ploop_bundle_options *options)
{
    struct ploop_bundle_options known = {0};
    int error = options ? options_in(&known, sizeof(known),
                                     offsetof(struct ploop_bundle_options, reserved), options)
                        : -EINVAL;

    if (error) {
        return error;
    }
    if (!path || !path[0] || known.version > 2 || known.reserved1 || !known.disk_size ||
        known.disk_size % SECTOR || known.disk_size / SECTOR > DISK_SECTORS_MAX) {
        return -EINVAL;
    }
    struct creation creation = {
        .report = {.log = known.log, .user_data = known.user_data, .subject = path},
        .path = path,
        .image = {.size = sizeof(creation.image),
                  .version = known.version ? known.version : 2,
                  .disk_size = known.disk_size,
                  .cluster_size =
                      known.cluster_size ? known.cluster_size : PLOOP_CLUSTER_SIZE_DEFAULT}};
    error = create(&creation);
    free(creation.directory);
    free(creation.disk_name);
    free(creation.image_name);
    free(creation.marker_name);
    return error;
}
