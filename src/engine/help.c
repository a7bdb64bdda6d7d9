/* SPDX-License-Identifier: MIT */
/*
 * A thread that waits does the I/O that it waits for, where the backend leaves that to threads
 * (ploop_io_ops.help): no other thread is woken for it.
 *
 *     no -> waits (help_begin) -> left: its turn has sent requests and kicked nobody -> waits: none
 *     of them is left, or a kick has told the backend's own threads (help_end) -> no
 *
 *  1. Only what a turn of this thread has left unkicked is left, and this thread sees to it: it
 *     helps until its own request is done, and kicks before it sleeps for another reason or goes.
 *     So no request waits for a thread that sleeps, and none is kicked twice.
 *  2. A callback may take long. So a thread kicks before it runs a queue's callbacks, whether there
 *     are any or not, and in them it leaves nothing.
 *  3. The turn is not held while a request is carried out: other threads go on.
 *  4. Among what is left may be requests of other threads, whose work this thread's turn has done.
 *     The backend has its own threads begin them meanwhile, as soon as more than one waits.
 *  5. A backend's threads may serve several devices. What this thread completes for another one
 *     runs that one's turn, which kicks: it helps one device.
 */
#include "engine/engine.h"
#include "pio/queue.h"

#include <assert.h>

static _Thread_local const ploop_dev *helped; /* this thread waits for it */
static _Thread_local unsigned depth;
static _Thread_local bool left;

void help_begin(const ploop_dev *dev)
{
    assert(depth ? helped == dev : !left);
    helped = dev;
    depth++;
}

void help_or_kick(ploop_dev *dev)
{
    uint32_t slot = 0;
    for (struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        struct channel *channel = &delta->channel;
        if (helped == dev && !in_callback() && channel->file->ops.help) {
            left |= channel->unkicked;
            channel->unkicked = false;
        } else {
            channel_kick(channel);
        }
    }
}

bool help_once(const ploop_dev *dev)
{
    assert(helped == dev);
    uint32_t slot = 0;
    for (struct delta *delta; left && (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        const ploop_file *file = delta->file;
        if (!delta->channel.helps || !delta_use(delta)) {
            continue;
        }
        bool helped_out = file->ops.help(file->context);
        delta_unuse(delta);
        if (helped_out) {
            return true;
        }
    }
    left = false;
    return false;
}

void help_kick(const ploop_dev *dev)
{
    assert(!left || helped == dev);
    uint32_t slot = 0;
    for (struct delta *delta; left && (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        const ploop_file *file = delta->file;
        if (delta->channel.helps && delta_use(delta)) {
            if (file->ops.kick) {
                file->ops.kick(file->context, dev->queue_count);
            }
            delta_unuse(delta);
        }
    }
    left = false;
}

void help_end(const ploop_dev *dev)
{
    assert(helped == dev && depth > 0);
    if (--depth == 0) {
        help_kick(dev);
        helped = NULL;
    }
}
