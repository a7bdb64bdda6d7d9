/* SPDX-License-Identifier: MIT */
/* See same_file.h. */
#include "same_file.h"

#include <sys/stat.h>

/* What names a file: the device it lies on and its number there; a block device, its own number. */
struct identity {
    bool is_known, is_device;
    dev_t device;
    ino_t number;
};

static struct identity identity_of(const char *path)
{
    struct stat status;

    if (stat(path, &status)) {
        return (struct identity){0};
    }
    if (S_ISBLK(status.st_mode)) {
        return (struct identity){.is_known = true, .is_device = true, .device = status.st_rdev};
    }
    return (struct identity){.is_known = true, .device = status.st_dev, .number = status.st_ino};
}

bool find_same_file(const char *const *paths, uint32_t count, uint32_t *first, uint32_t *second)
{
    struct identity known[SAME_FILE_MAX];

    for (*second = 0; *second < count && *second < SAME_FILE_MAX; ++*second) {
        struct identity *own = &known[*second];
        *own = identity_of(paths[*second]);
        for (*first = 0; own->is_known && *first < *second; ++*first) {
            const struct identity *other = &known[*first];
            if (other->is_known && other->is_device == own->is_device &&
                other->device == own->device && other->number == own->number) {
                return true;
            }
        }
    }
    return false;
}
