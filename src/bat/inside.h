/* SPDX-License-Identifier: MIT */
/*
 * How the files of this room call each other. Calls go one way, down this list:
 *
 *     bat.c        the map, and what its parts do together
 *     writeback.c  images of pages on their way to the disk; says when they are done
 *     round.c      what a flush waits for          durable.c  what one FUA request waits for
 *     page.c       the states of a page
 *     deadline.c   the order of deadlines
 *
 * "Done" is the word for what has come to its end, well or not; "written" and "synced" say that it
 * went well. Pages have an index; SYNCs and rounds have a number.
 */
#ifndef BAT_INSIDE_H
#define BAT_INSIDE_H

#include "bat/bat.h"

/* ---- page.c ---- */
void page_init(struct bat *bat, uint32_t index);
void page_change(struct bat *bat, uint32_t index, struct sync_number barrier);
void page_make_due(struct bat *bat, uint32_t index);
void page_frozen(struct bat *bat, uint32_t index);
void page_written(struct bat *bat, uint32_t index, uint64_t gen);
void page_write_failed(struct bat *bat, uint32_t index, int error);
void pages_synced(struct bat *bat);
/* Removals that only wait for a SYNC: when the clock has one sent. */
void ripen_by_clock(struct bat *bat);
void assert_page_state(const struct bat *bat, uint32_t index);

/* ---- durable.c, round.c: an image of that page and generation was written, or failed ---- */
void durable_init(struct bat *bat);
void durable_page_done(struct bat *bat, uint32_t index, uint64_t gen, int result);
void durable_fail(struct bat *bat, int error);

void round_init(struct bat *bat);
void round_page_done(struct bat *bat, uint32_t index, uint64_t gen, int error);
void round_pump(struct bat *bat);
void round_fail(struct bat *bat, int error);

/* ---- writeback.c ---- */
int writeback_init(struct bat *bat);
void writeback_free(struct bat *bat);
void writeback_pump(struct bat *bat);

#endif
