/* SPDX-License-Identifier: MIT */
/*
 * The top of the stack, and how another one takes its place:
 *
 *     a file --top_join()--> joined: claimed, judged by its header, served; not in the stack
 *         joined --top_raise()--> the top
 *         joined --top_leave()--> leaving --top_has_left()--> the caller's again
 *
 * The first is called by a thread, and may block for a read of the header; the others are steps of
 * the turn. Whoever calls them has made sure that there is one change at a time (live/job.h).
 */
#ifndef LIFE_TOP_H
#define LIFE_TOP_H

#include "dev/dev.h"

/* The map of a delta that is to be written, all 0. Its channel is there. 0 or -ENOMEM. */
int top_init_bat(ploop_dev *dev, struct delta *delta, const struct header *header,
                 const struct ploop_file_info *info);

/*
 * The backend is told of the queues. 0; -EINVAL, with a line in the log that begins with `name`; or
 * what the backend returns.
 */
int top_attach(ploop_dev *dev, const ploop_file *file, const char *name);

/*
 * 0; -EBUSY; -EINVAL with a line in the log that says what does not fit; -ENOMEM; -ENOSPC (no
 * number is left); or what the backend returns. Nothing was changed in the file.
 */
int top_join(ploop_dev *dev, ploop_file *file, struct delta **delta);

/*
 * The same of a file that is to take the place of a delta below the top: its header, or the size of
 * a raw one, must be that of `like`. It is made durable and its cache dropped before it is read.
 * Also -EBUSY: something of it stays in the cache.
 */
int top_join_lower(ploop_dev *dev, ploop_file *file, const struct delta *like,
                   struct delta **delta);

/*
 * A delta that has joined goes, or goes on going. True: nothing calls its file any more, and it is
 * the caller's. False: ask again.
 */
bool top_leave(ploop_dev *dev, struct delta *delta);

/*
 * Under a closed gate, with both maps quiet and no change in flight: the joined delta becomes the
 * top, and the old one `second`. See stack.h.
 */
void top_raise(ploop_dev *dev, struct delta *delta);

/*
 * The same the other way: the delta right below the top, which has all that the top has, becomes
 * the top. The old one is to leave.
 */
void top_lower(ploop_dev *dev, struct delta *delta);

/* Any thread, outside of the turn: the old top's file is for reading only from now on. */
void top_lower_file(ploop_dev *dev, const ploop_file *file);

/*
 * Any thread, outside of the turn, and may block: the file of a delta below the top is claimed
 * alone, and opened for writing, if its backend can; then an image has an empty bat, and a raw file
 * can be made so long. 0; -EBUSY; -ENOMEM;
 * or what the backend returns, with a line in the log; nothing was changed then.
 */
int top_make_receiver(ploop_dev *dev, struct delta *delta, uint64_t raw_size);

#endif
