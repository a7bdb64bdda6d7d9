/* SPDX-License-Identifier: MIT */
/*
 * Calls that wait: they run the device themselves and need no other thread to.
 *
 * What they send goes out on the engine's queue, never by the fast path of a queue that belongs to
 * another thread. A backend that has `help` has no rings: there the fast path is free for all.
 *
 * A waiter runs the device, looks, does the I/O that its turns have sent (help.c), and sleeps: in
 * the backend's `wait` for the engine's queue where it has one, so that a process without threads
 * gets on, else until another thread completes something. Completions ring it. It also looks every
 * few milliseconds, for what does not ring it: the last completion's thread that leaves, and
 * completions on a user's queue whose owner sleeps, which it reaps. It delivers nothing. While
 * another thread has the turn, and the waiter's run is still to be done by it, the waiter does not
 * sleep in `wait`: what waits to be reaped there would wake it at once, again and again.
 */
#include "engine/engine.h"
#include "pio/pio.h"
#include "pio/queue.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#define NAP_NS 2000000L

/* Until another thread rings after `rings`, or for a little while. */
static void nap(ploop_dev *dev, uint64_t rings)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += NAP_NS;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&dev->wait_mutex);
    if (dev->rings == rings) {
        pthread_cond_timedwait(&dev->wait_cond, &dev->wait_mutex, &until);
    }
    pthread_mutex_unlock(&dev->wait_mutex);
}

void block_until(ploop_dev *dev, block_fn *done, void *argument)
{
    atomic_fetch_add(&dev->waiting, 1);
    help_begin(dev);
    for (;;) {
        uint64_t rings = atomic_load(&dev->rings);
        engine_run(dev);
        if (done(dev, argument)) {
            break;
        }
        if (atomic_load(&dev->has_later) || help_once(dev)) {
            continue;
        }
        struct delta *top = dev_top(dev);
        const ploop_file *file = top->file;
        bool is_used = !atomic_load(&dev->run_posted) && delta_use(top);
        bool has_wait = is_used && file->ops.wait;
        if (has_wait) {
            /* A lower delta may be the one that has something: then look often. */
            file->ops.wait(file->context, dev->queue_count,
                           (uint64_t)(stack_count(&dev->stack) > 1 ? NAP_NS / 20 : NAP_NS));
        }
        if (is_used) {
            delta_unuse(top);
        }
        if (!has_wait) {
            nap(dev, rings);
        }
    }
    help_end(dev);
    atomic_fetch_sub(&dev->waiting, 1);
}

/* ---- requests ---- */

static bool pio_is_finished(ploop_dev *dev, void *argument)
{
    (void)dev;
    ploop_pio *pio = argument;
    return atomic_load(&pio->finished);
}

static int wait_for(ploop_pio *pio)
{
    ploop_dev *dev = pio->queue->dev;
    pio->blocking = true;
    int error = pio_validate(pio);
    if (error) {
        return error;
    }
    help_begin(dev);
    pio_submit_blocking(pio);
    if (!atomic_load(&pio->finished)) {
        block_until(dev, pio_is_finished, pio);
    }
    help_end(dev);
    return pio->result;
}

static int64_t transfer(ploop_dev *dev, bool write, void *buffer, uint64_t length, uint64_t offset)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    if (length > PTRDIFF_MAX) {
        return -EINVAL; /* no memory is that long */
    }
    struct iovec iov = {buffer, (size_t)length};
    ploop_pio pio;
    pio_init(&pio, dev_engine_queue(dev));
    if (write) {
        ploop_pio_prep_writev(&pio, offset, &iov, 1, 0);
    } else {
        ploop_pio_prep_readv(&pio, offset, &iov, 1);
    }
    int result = wait_for(&pio);
    return result ? result : (int64_t)iov.iov_len;
}

int64_t ploop_dev_pread(ploop_dev *dev, void *buffer, uint64_t length, uint64_t offset)
{
    return transfer(dev, false, buffer, length, offset);
}

int64_t ploop_dev_pwrite(ploop_dev *dev, const void *buffer, uint64_t length, uint64_t offset)
{
    return transfer(dev, true, (void *)(uintptr_t)buffer, length, offset);
}

int ploop_dev_flush(ploop_dev *dev)
{
    if (in_callback()) {
        return -EDEADLK;
    }
    ploop_pio pio;
    pio_init(&pio, dev_engine_queue(dev));
    ploop_pio_prep_flush(&pio);
    return wait_for(&pio);
}

/* ---- the library's own ---- */

struct block_round {
    struct work work;
    struct partial_wait copies;
    struct round_wait wait;
    ploop_dev *dev;
    atomic_bool over;
    int result;
};

static void round_over(struct round_wait *wait, int result)
{
    struct block_round *round = container_of(wait, struct block_round, wait);
    assert(result <= 0);
    round->result = result ? result : round->result;
    ploop_dev *dev = round->dev;
    atomic_store(&round->over, true);
    dev_wake(dev);
}

static void copies_over(struct partial_wait *wait, int result)
{
    struct block_round *round = container_of(wait, struct block_round, copies);
    round->result = result;
    bat_join_round(dev_bat(round->dev), &round->wait, round_over);
}

static void round_join(struct work *work)
{
    struct block_round *round = container_of(work, struct block_round, work);
    if (!partial_wait_for_all(round->dev, &round->copies, copies_over)) {
        copies_over(&round->copies, 0);
    }
}

static bool round_is_over(ploop_dev *dev, void *argument)
{
    (void)dev;
    struct block_round *round = argument;
    return atomic_load(&round->over);
}

int block_round(ploop_dev *dev)
{
    struct block_round round = {.work.run = round_join, .dev = dev};
    help_begin(dev);
    turn_post(&dev->turn, &round.work);
    block_until(dev, round_is_over, &round);
    help_end(dev);
    return round.result;
}

struct block_control {
    struct work work;
    ploop_dev *dev;
    void (*control)(ploop_dev *dev);
    atomic_bool over;
};

static void control_run(struct work *work)
{
    struct block_control *control = container_of(work, struct block_control, work);
    ploop_dev *dev = control->dev;
    assert(control->control && work == &control->work);
    control->control(dev);
    atomic_store(&control->over, true);
    dev_wake(dev);
}

static bool control_is_over(ploop_dev *dev, void *argument)
{
    (void)dev;
    struct block_control *control = argument;
    return atomic_load(&control->over);
}

void block_control(ploop_dev *dev, void (*control)(ploop_dev *dev))
{
    struct block_control wait = {.work.run = control_run, .dev = dev, .control = control};
    help_begin(dev);
    turn_post(&dev->turn, &wait.work);
    block_until(dev, control_is_over, &wait);
    help_end(dev);
}
