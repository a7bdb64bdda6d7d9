/* SPDX-License-Identifier: MIT */
/* Opening a bundle, and its lock: see bundle.h. */
#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libxml/parser.h>

static const char xml_file[] = "DiskDescriptor.xml";

/* ---- Where it is ---- */

/* Set directory, xml_name and path: `path` is the directory, or the XML in it. */
static int find_names(ploop_bundle *bundle, const char *path)
{
    struct stat status;

    bundle->path = strdup(path);
    if (!bundle->path) {
        return -ENOMEM;
    }
    bundle->report.subject = bundle->path;
    if (stat(path, &status)) {
        return fault(&bundle->report, -errno, "%s", strerror(errno));
    }
    const char *slash = strrchr(path, '/');
    if (S_ISDIR(status.st_mode)) {
        bundle->directory = strdup(path);
        bundle->xml_name = strdup(xml_file);
    } else {
        bundle->directory = slash == path ? strdup("/")
                            : slash       ? strndup(path, (size_t)(slash - path))
                                          : strdup(".");
        bundle->xml_name = strdup(slash ? slash + 1 : path);
    }
    if (!bundle->directory || !bundle->xml_name) {
        return -ENOMEM;
    }
    if (S_ISDIR(status.st_mode)) {
        free(bundle->path);
        bundle->path = join_path(path, xml_file);
        bundle->report.subject = bundle->path;
    }
    if (!bundle->path) {
        return -ENOMEM;
    }
    bundle->directory_fd = open(bundle->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return bundle->directory_fd < 0 ? fault(&bundle->report, -errno, "%s", strerror(errno)) : 0;
}

/* The file that OpenVZ's ploop locks too. It stays: whoever removed it could not know who waits. */
static int lock_bundle(ploop_bundle *bundle)
{
    size_t size = strlen(bundle->xml_name) + sizeof(".lck");
    char *name = malloc(size);

    if (!name) {
        return -ENOMEM;
    }
    memcpy(name, bundle->xml_name, size - sizeof(".lck"));
    memcpy(name + size - sizeof(".lck"), ".lck", sizeof(".lck"));
    bundle->lock_fd = openat(bundle->directory_fd, name,
                             O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    free(name);
    if (bundle->lock_fd < 0) {
        return fault(&bundle->report, -errno, "cannot open its lock: %s", strerror(errno));
    }
    if (flock(bundle->lock_fd, LOCK_EX | LOCK_NB)) {
        return errno == EWOULDBLOCK
                   ? fault(&bundle->report, -EAGAIN, "another program changes it")
                   : fault(&bundle->report, -errno, "cannot lock it: %s", strerror(errno));
    }
    return 0;
}

/* ---- What is in it ---- */

/* Up to the limit and one byte more. The size read, or -errno. */
static int64_t read_up_to_limit(int fd, char *text)
{
    size_t size = 0;

    while (size <= PLOOP_BUNDLE_XML_SIZE_MAX) {
        ssize_t got = read(fd, text + size, PLOOP_BUNDLE_XML_SIZE_MAX + 1 - size);
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        size += got > 0 ? (size_t)got : 0;
    }
    return (int64_t)size;
}

static int read_file(ploop_bundle *bundle, char *text, size_t *size)
{
    const struct report *report = &bundle->report;
    struct stat status;
    int fd = openat(bundle->directory_fd, bundle->xml_name,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0) {
        return fault(report, -errno, "%s", strerror(errno));
    }
    int64_t result = fstat(fd, &status) ? -errno : S_ISREG(status.st_mode) ? 0 : -EINVAL;
    if (!result) {
        result = read_up_to_limit(fd, text);
    }
    close(fd);
    if (result > PLOOP_BUNDLE_XML_SIZE_MAX) {
        return fault(report, -EFBIG, "larger than %d bytes", PLOOP_BUNDLE_XML_SIZE_MAX);
    }
    *size = result < 0 ? 0 : (size_t)result;
    return result == -EINVAL ? fault(report, -EINVAL, "not a regular file")
           : result < 0      ? fault(report, (int)result, "%s", strerror((int)-result))
                             : 0;
}

int check_image_file(int directory_fd, const char *name, const struct report *report)
{
    struct stat status;

    if (fstatat(directory_fd, name, &status, AT_SYMLINK_NOFOLLOW)) {
        return fault(report, -errno, "its image '%.100s': %s", name, strerror(errno));
    }
    if (S_ISLNK(status.st_mode)) {
        return fault(report, -EUCLEAN, "its image '%.100s' is a symbolic link", name);
    }
    return S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)
               ? 0
               : fault(report, -EUCLEAN, "its image '%.100s' is neither file nor block device",
                       name);
}

static int check_files(const ploop_bundle *bundle)
{
    const struct model *model = &bundle->model;
    int error = 0;

    for (uint32_t s = 0; s < model->storage_count && !error; s++) {
        for (uint32_t i = 0; i < model->snapshot_count && !error; i++) {
            error = check_image_file(bundle->directory_fd, model->storages[s].images[i].name,
                                     &bundle->report);
        }
    }
    return error;
}

static int load(ploop_bundle *bundle)
{
    char *text = malloc(PLOOP_BUNDLE_XML_SIZE_MAX + 1);
    size_t size = 0;

    if (!text) {
        return -ENOMEM;
    }
    int error = read_file(bundle, text, &size);
    if (!error) {
        error = xml_parse(text, size, &bundle->report, &bundle->doc);
    }
    free(text);
    if (!error) {
        error = xml_read(bundle->doc, bundle->directory, &bundle->report, &bundle->model);
    }
    return error ? error : check_files(bundle);
}

/* ---- The handle ---- */

static bool flags_are_right(uint32_t flags)
{
    return flags == 0 || flags == PLOOP_BUNDLE_READ_ONLY || flags == PLOOP_BUNDLE_READ_WRITE;
}

int ploop_bundle_open(const char *path, const struct ploop_bundle_config *config,
                      ploop_bundle **bundle)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct ploop_bundle_config known = {0};

    if (!bundle) {
        return -EINVAL;
    }
    *bundle = NULL;
    int error = config ? options_in(&known, sizeof(known),
                                    offsetof(struct ploop_bundle_config, reserved), config)
                       : 0;
    if (error) {
        return error;
    }
    if (!path || !flags_are_right(known.flags) || known.reserved1) {
        return -EINVAL;
    }
    ploop_bundle *new = calloc(1, sizeof(*new));
    if (!new) {
        return -ENOMEM;
    }
    pthread_once(&once, xmlInitParser);
    *new = (ploop_bundle){.report = {.log = known.log, .user_data = known.user_data},
                          .progress = known.progress,
                          .progress_data = known.progress_data,
                          .merge_rate = known.merge_rate,
                          .directory_fd = -1,
                          .lock_fd = -1};
    error = find_names(new, path);
    if (!error && known.flags == PLOOP_BUNDLE_READ_WRITE) {
        error = lock_bundle(new);
    }
    if (!error) {
        error = load(new);
    }
    if (error) {
        ploop_bundle_close(new);
        return error;
    }
    *bundle = new;
    return 0;
}

void ploop_bundle_close(ploop_bundle *bundle)
{
    if (!bundle) {
        return;
    }
    model_free(&bundle->model);
    xmlFreeDoc(bundle->doc);
    if (bundle->directory_fd >= 0) {
        close(bundle->directory_fd);
    }
    if (bundle->lock_fd >= 0) {
        close(bundle->lock_fd); /* and gives up the lock */
    }
    free(bundle->path);
    free(bundle->directory);
    free(bundle->xml_name);
    free(bundle);
}
