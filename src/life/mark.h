/* SPDX-License-Identifier: MIT */
/*
 * The in-use mark of an image that is open for writing (R11). Its states and the order of the steps
 * stand in mark.c.
 */
#ifndef LIFE_MARK_H
#define LIFE_MARK_H

#include "dev/dev.h"
#include "pio/partial.h"

enum mark_state {
    MARK_IDLE,
    MARK_ALLOCATING,
    MARK_SETTING,
    MARK_REWRITING,
    MARK_FLUSHING,
    MARK_RESTING,
    MARK_CUTTING,
    MARK_CLEARING
};

/* What is to be done. */
enum mark_order {
    MARK_OPENED, /* set it in a file that is being opened, with RECOVER if it is set already */
    MARK_NEW,    /* set it in a new top */
    MARK_AGAIN,  /* set it where it was cleared by this device */
    MARK_CLEAR
};

struct mark;
typedef void mark_fn(struct mark *mark, int result);

/* The mark of one delta, on its way. */
struct mark {
    ploop_dev *dev;
    struct delta *delta;
    enum mark_state state;
    enum mark_order order;
    bool header_changed; /* the disk may have the mark, or lack it, by this */
    mark_fn *then;
    struct dev_watch watch;
    struct partial_wait copies;
    struct round_wait round;
    struct channel_io io;
};

/*
 * In the turn. `then` is called later, in the turn; it may begin the next one. 0: it is durable. An
 * error: the file's content is as it was, or has the mark; of MARK_CLEAR and MARK_AGAIN it may have
 * it or not.
 */
void mark_begin(struct mark *mark, ploop_dev *dev, struct delta *delta, enum mark_order order,
                mark_fn *then);

/*
 * At open, before anything else is changed in the file, waited for. 0: the mark is durable and so
 * is every page that was found. An error, with a line in the log: the file's content is as it was,
 * or has the mark.
 */
int mark_set(ploop_dev *dev);

/*
 * At close, with no request in flight, waited for: everything becomes durable, the free end of the
 * file is cut off, and the mark is cleared. An error, with a line in the log: the mark stays.
 */
int mark_clear(ploop_dev *dev);

#endif
