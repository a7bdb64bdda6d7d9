/* SPDX-License-Identifier: MIT */
/*
 * With dir= an export name is the name of a file of that directory. It must name a regular file or
 * block device there: no path, no "." or "..", and no symbolic link, which may lead elsewhere.
 */
#include "exports.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

static bool is_file(const char *path)
{
    struct stat stat;

    return lstat(path, &stat) == 0 && (S_ISREG(stat.st_mode) || S_ISBLK(stat.st_mode));
}

/* To be freed; NULL: no memory. */
static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);

    if (path) {
        snprintf(path, size, "%s/%s", dir, name);
    }
    return path;
}

static bool is_inside(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

char *export_path(const struct server_config *config, const char *export)
{
    char *path;

    if (!config->dir) {
        path = strdup(config->image);
    } else if (!is_inside(export)) {
        nbdkit_error("export '%s': expected the name of a file in %s", export, config->dir);
        nbdkit_set_error(EINVAL);
        return NULL;
    } else {
        path = join(config->dir, export);
    }
    if (!path) {
        nbdkit_error("export '%s': %s", export, strerror(ENOMEM));
        nbdkit_set_error(ENOMEM);
    } else if (config->dir && !is_file(path)) {
        nbdkit_error("export '%s': no such image in %s", export, config->dir);
        nbdkit_set_error(ENOENT);
        free(path);
        path = NULL;
    }
    return path;
}

/* Without a lock: an image that is in use, of this server too, is one all the same. */
static bool is_image(const char *path)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    ploop_file *file;
    int error = -EINVAL;

    if (is_file(path) &&
        !ploop_file_open_posix(path, PLOOP_FILE_READ_ONLY | PLOOP_FILE_UNLOCKED, &file)) {
        error = ploop_image_probe(file, &info);
        ploop_file_close(file);
    }
    return !error || error == -EUCLEAN;
}

int exports_list(const struct server_config *config, struct nbdkit_exports *exports)
{
    struct dirent *entry;
    int result = 0;
    DIR *dir;

    if (!config->dir) {
        return nbdkit_use_default_export(exports);
    }
    dir = opendir(config->dir);
    if (!dir) {
        nbdkit_error("%s: %s", config->dir, strerror(errno));
        return -1;
    }
    while (!result && (entry = readdir(dir)) != NULL) {
        char *path = join(config->dir, entry->d_name);

        if (path && is_inside(entry->d_name) && is_image(path)) {
            result = nbdkit_add_export(exports, entry->d_name, NULL);
        }
        free(path);
    }
    closedir(dir);
    return result;
}
