/* SPDX-License-Identifier: MIT */
/*
 * The one reader of a whole BAT, for devices that are opened and for checks.
 *
 * Pages are read many at a time. Where that fails, whatever the error, each of them is read by
 * itself, so that one bad sector costs one page. What an unreadable page means is the caller's
 * decision.
 */
#ifndef IMAGE_BAT_LOAD_H
#define IMAGE_BAT_LOAD_H

#include "file/file.h"
#include "format/geometry.h"

struct bat_load {
    ploop_file *file;
    const struct geometry *geometry;
    /*
     * Where the pages go, laid out as in the file and aligned to a page; NULL: into memory that
     * holds some of them at a time.
     */
    uint8_t *area;
    /*
     * A page of the BAT as the file has it, in order; page 0 begins with the header. The bytes are
     * the callback's to change; without an area they are its own until it returns. An error ends
     * the loading with that error.
     */
    int (*page)(void *context, uint32_t page, uint8_t *bytes);
    /*
     * A page that cannot be read; its part of the area may hold anything. 0: the loading goes on;
     * an error ends it with that error.
     */
    int (*unreadable)(void *context, uint32_t page, int error);
    void *context;
};

/* Blocks. 0, -ENOMEM, or what a callback returned. */
int bat_load(const struct bat_load *load);

#endif
