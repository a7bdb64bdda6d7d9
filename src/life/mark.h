/* SPDX-License-Identifier: MIT */
/*
 * The in-use mark of an image that is open for writing (R11). Its states and the order of the steps
 * stand in mark.c.
 */
#ifndef LIFE_MARK_H
#define LIFE_MARK_H

struct ploop_dev;

/*
 * At open, before anything else is changed in the file. 0: the mark is durable and so is every page
 * that was found. An error: the file's content is as it was, or has the mark.
 */
int mark_set(struct ploop_dev *dev);

/*
 * At close, with no request in flight: everything becomes durable, the free end of the file is cut
 * off, and the mark is cleared. An error, with a line in the log: the mark stays.
 */
int mark_clear(struct ploop_dev *dev);

#endif
