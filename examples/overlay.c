/* SPDX-License-Identifier: MIT */
/*
 * overlay: a disk that begins with the content of another one and leaves that unchanged.
 *
 * The base is opened for reading only, so that many disks can share it; writes go to a separate
 * image, the top. Delete the top, and the disk is as it was before: a snapshot.
 */
#include <stdio.h>
#include <string.h>

#include <ploop/ploop.h>

enum { DISK_SIZE = 64 << 20 };

/* Create a new, empty image. Returns its file, or NULL. */
static ploop_file *create(const char *path)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_SIZE};
    ploop_file *file;

    (void)remove(path); /* left over from the last run */
    if (ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file)) {
        return NULL;
    }
    if (ploop_image_create(file, &options)) {
        ploop_file_close(file);
        return NULL;
    }
    return file;
}

/* Write a sector to the disk that these files form, and close it. 0 or -errno. */
static int write_sector(ploop_file *const *deltas, uint32_t count, uint64_t offset,
                        const char *text)
{
    char sector[512] = "";
    struct ploop_dev_info info = {.size = sizeof(info)};
    ploop_dev *dev;

    (void)snprintf(sector, sizeof(sector), "%s", text);
    int error = ploop_dev_open(deltas, count, NULL, &dev); /* the base first, the top last */
    if (error) {
        return error;
    }
    int64_t written = ploop_dev_pwrite(dev, sector, sizeof(sector), offset);
    ploop_dev_info(dev, &info);
    printf("%u image%s: wrote \"%s\" at %llu, %llu clusters copied\n", count, count == 1 ? "" : "s",
           text, (unsigned long long)offset, (unsigned long long)info.clusters_copied);
    error = ploop_dev_close(dev);
    return written < 0 ? (int)written : error;
}

/* Whether the disk that these files form has these two sectors. */
static int shows(ploop_file *const *deltas, uint32_t count, const char *first, const char *second)
{
    struct ploop_dev_config config;
    char sectors[1024] = "";
    ploop_dev *dev;

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY;
    if (ploop_dev_open(deltas, count, &config, &dev)) {
        return 0;
    }
    int64_t got = ploop_dev_pread(dev, sectors, sizeof(sectors), 0);
    ploop_dev_close(dev);
    printf("%u image%s: reads \"%s\", \"%s\"\n", count, count == 1 ? "" : "s", sectors,
           sectors + 512);
    return got == sizeof(sectors) && strcmp(sectors, first) == 0 &&
           strcmp(sectors + 512, second) == 0;
}

int main(void)
{
    ploop_file *deltas[2] = {create("base.hds"), create("top.hds")};
    int right = deltas[0] && deltas[1] && write_sector(deltas, 1, 0, "from the base") == 0;

    /* From here on the base is only read. */
    ploop_file_close(deltas[0]);
    deltas[0] = NULL;
    right = right && ploop_file_open_posix("base.hds", PLOOP_FILE_READ_ONLY, &deltas[0]) == 0;
    right = right && write_sector(deltas, 2, 512, "from the top") == 0;
    right = right && shows(deltas, 2, "from the base", "from the top");
    right = right && shows(deltas, 1, "from the base", "");
    ploop_file_close(deltas[1]);
    ploop_file_close(deltas[0]);
    return right ? 0 : 1;
}
