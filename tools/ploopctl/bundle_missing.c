/* SPDX-License-Identifier: MIT */
/* Bundles where their library was not built, for want of libxml2: see bundle.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bundle.h"
#include "split.h"

static const char why[] = "is a bundle: this ploopctl was built without libxml2, which they need";

int bundle_expand(struct image *image, bool *is_raw)
{
    struct stat status;

    (void)is_raw;
    if (stat(image->path, &status) || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    complain(image->path, "%s", why);
    return -ENOTSUP;
}

int bundle_make(const char *path, const struct new_image *new_image, uint64_t disk_size,
                const char **image_path)
{
    (void)new_image;
    (void)disk_size;
    *image_path = NULL;
    complain(path, "%s", why);
    return -ENOTSUP;
}

void bundle_unmake(const char *path)
{
    (void)path;
}

/* ---- split.h ---- */

bool is_split(const char *path)
{
    (void)path;
    return false;
}

int split_open(const char *path, uint64_t *disk_size)
{
    (void)path;
    (void)disk_size;
    return -ENOTSUP;
}

void split_close(void)
{
}

int split_read(void *buffer, uint32_t length, uint64_t offset)
{
    (void)buffer;
    (void)length;
    (void)offset;
    return -ENOTSUP;
}

int split_lookup(uint64_t offset, uint64_t length, struct ploop_extent *extent, uint32_t *part)
{
    (void)offset;
    (void)length;
    (void)extent;
    (void)part;
    return -ENOTSUP;
}

int split_info(const struct image *image, bool is_json)
{
    (void)image;
    (void)is_json;
    return EXIT_FAILURE;
}

int split_map(const struct image *image, bool is_json)
{
    (void)image;
    (void)is_json;
    return EXIT_FAILURE;
}

int split_part(const char *path, uint32_t part, struct image *image, bool *is_raw, uint32_t *count,
               uint64_t *size)
{
    (void)path;
    (void)part;
    (void)image;
    (void)is_raw;
    (void)count;
    (void)size;
    return -ENOTSUP;
}

/* ---- The command ---- */

static int run(int argc, char **argv)
{
    static const struct option options[] = {OPTION_HELP_ENTRY, {0}};

    if (argc > 1 && strcmp(argv[argc - 1], "--help") == 0) {
        next_option(&bundle_command, argc, argv, options);
    }
    return complain("bundle", "this ploopctl was built without libxml2, which bundles need");
}

const struct command bundle_command = {
    .name = "bundle",
    .synopsis = "...",
    .summary = "Bundles; not in this build, which is without libxml2",
    .options = "",
    .examples = "  ploopctl bundle info disk.hdd\n",
    .run = run,
};
