/* SPDX-License-Identifier: MIT */
/* pwritev2(2) and its flag, where the C library has neither: musl before 1.2.5. */
#ifndef FILE_PWRITEV2_H
#define FILE_PWRITEV2_H

#include <sys/uio.h>

#ifndef RWF_DSYNC
#include <linux/fs.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* The kernel wants the offset in two halves; on 64 bits the second one is shifted out. */
static inline ssize_t linux_pwritev2(int fd, const struct iovec *iov, int count, off_t offset,
                                     int flags)
{
    return syscall(SYS_pwritev2, (long)fd, iov, (long)count, (long)offset,
                   (long)((uint64_t)offset >> 32), (long)flags);
}
#define pwritev2 linux_pwritev2
#endif

#endif
