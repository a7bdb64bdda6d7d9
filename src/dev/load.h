/* SPDX-License-Identifier: MIT */
/*
 * Reading an image into a device that is being opened: header, BAT, extension. Blocks; nothing is changed in the file.
 *
 * For writing everything must be right, or the open is refused. Read-only is for rescue: a bad entry becomes BAT_ENTRY_BAD, so does
 * every entry of a BAT page that cannot be read, and of several entries for one host cluster only the first is kept.
 */
#ifndef DEV_LOAD_H
#define DEV_LOAD_H

#include "dev/dev.h"

/* 0; -EINVAL, -EUCLEAN with a line in the log; -EFBIG; or what the backend returns. */
int load_header(ploop_dev *dev, struct header *header, struct ploop_file_info *info);

/* After bat_init(). 0, -EUCLEAN with a line in the log, -ENOMEM, or what the backend returns. */
int load_bat(ploop_dev *dev, uint64_t file_size);

/* After load_bat(), for writing. 0, -EUCLEAN or -ENOTSUP with a line in the log, -ENOMEM, or what the backend returns. */
int load_extension(ploop_dev *dev, uint64_t file_size);

#endif
