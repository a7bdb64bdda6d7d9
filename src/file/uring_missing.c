/* SPDX-License-Identifier: MIT */
/* In place of uring.c where the library is built without liburing. */
#include <errno.h>
#include <stddef.h>

#include "file/file.h"

int ploop_file_open_uring(const char *path, uint32_t flags, ploop_file **file)
{
    (void)path;
    (void)flags;
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    return -ENOSYS;
}
