/* SPDX-License-Identifier: MIT */
/*
 * Errors by which a backend says that it cannot do such an operation on this file, now or ever.
 * Nothing was lost, and the same effect can be had in another way. File systems and devices differ
 * in which of them they return. Not one of them are errors of I/O, and a lack of space.
 */
#ifndef UTIL_REFUSAL_H
#define UTIL_REFUSAL_H

#include <errno.h>
#include <stdbool.h>

static inline bool is_refusal(int error)
{
    return error == -ENOTSUP || error == -EOPNOTSUPP || error == -EINVAL || error == -ENOSYS ||
           error == -EPERM || error == -EACCES || error == -ENODEV || error == -ENOTTY ||
           error == -ETXTBSY;
}

#endif
