/* SPDX-License-Identifier: MIT */
/* In place of the io_uring backend where the library is built without liburing. */
#include <errno.h>
#include <stddef.h>

#include "file/file.h"

int ploop_uring_create(const struct ploop_uring_options *options, ploop_uring **group)
{
    (void)options;
    if (!group) {
        return -EINVAL;
    }
    *group = NULL;
    return -ENOSYS;
}

void ploop_uring_close(ploop_uring *group)
{
    (void)group;
}

int ploop_file_open_uring(const char *path, uint32_t flags, ploop_uring *group, ploop_file **file)
{
    (void)path;
    (void)flags;
    (void)group;
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    return -ENOSYS;
}
