/* SPDX-License-Identifier: MIT */
/*
 * Emptying a file's page cache, so that reads show what the storage holds: after a failed SYNC the
 * kernel keeps the lost pages, clean, with the new bytes in them.
 *
 * The kernel takes the order to drop pages as advice: pages that are dirty, mapped by some process
 * or in use at that moment stay. So it is looked afterwards whether any is left. On an overlay over
 * a tmpfs they always stay.
 */
#ifndef FILE_POSIX_CACHE_H
#define FILE_POSIX_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * 0: no page of the file is in the cache, or the cache is the storage (tmpfs); -EBUSY: some stay;
 * or what the kernel says. Takes some milliseconds where pages stay.
 */
int posix_cache_drop(int fd, bool is_block, uint64_t file_size);

#endif
