/* SPDX-License-Identifier: MIT */
/*
 * A file for the library over one disk_state, for judging disks: every request is carried out at
 * once, inside submit.
 */
#ifndef SIM_MEMFILE_H
#define SIM_MEMFILE_H

#include <ploop/file.h>

#include "disk.h"

struct memfile {
    struct disk_state state;
    uint64_t next_seq;
    uint64_t changes; /* requests other than reads and SYNCs */
    ploop_file *file;
};

void memfile_open(struct memfile *memfile, const struct disk_state *state);
void memfile_open_bytes(struct memfile *memfile, const uint8_t *bytes, uint64_t size);
void memfile_close(struct memfile *memfile);

#endif
