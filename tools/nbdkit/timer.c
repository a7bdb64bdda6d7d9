/* SPDX-License-Identifier: MIT */
/*
 * A clock, and a thread that sleeps until the deadline that the device asked for last.
 *
 * wake_at stores the deadline, from any thread. The timer thread clears it, runs the device, and
 * then sleeps until the deadline that wake_at has stored meanwhile. A run at the deadline makes the
 * device announce the next one, so none is lost.
 */
#include "timer.h"

#include <signal.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

uint64_t timer_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t clock_now(void *context)
{
    (void)context;
    return timer_now();
}

static void clock_wake_at(void *context, uint64_t deadline_ns)
{
    struct timer *timer = context;

    pthread_mutex_lock(&timer->lock);
    timer->deadline_ns = deadline_ns;
    pthread_cond_signal(&timer->changed);
    pthread_mutex_unlock(&timer->lock);
}

void timer_init(struct timer *timer)
{
    *timer = (struct timer){
        .clock = {.size = sizeof(timer->clock),
                  .now_ns = clock_now,
                  .wake_at = clock_wake_at,
                  .context = timer},
        .deadline_ns = UINT64_MAX,
    };
    pthread_mutex_init(&timer->lock, NULL);
    pthread_cond_init(&timer->changed, NULL);
}

void timer_destroy(struct timer *timer)
{
    pthread_cond_destroy(&timer->changed);
    pthread_mutex_destroy(&timer->lock);
}

/*
 * Sleep, with the lock, until the deadline has come, which may change meanwhile. False: the thread
 * must stop.
 */
static bool sleep_until_due(struct timer *timer)
{
    while (!timer->stop && timer_now() < timer->deadline_ns) {
        if (timer->deadline_ns == UINT64_MAX) {
            pthread_cond_wait(&timer->changed, &timer->lock);
        } else {
            const struct timespec until = {
                .tv_sec = (time_t)(timer->deadline_ns / NS_PER_S),
                .tv_nsec = (long)(timer->deadline_ns % NS_PER_S),
            };

            pthread_cond_clockwait(&timer->changed, &timer->lock, CLOCK_MONOTONIC, &until);
        }
    }
    return !timer->stop;
}

static void *timer_main(void *argument)
{
    struct timer *timer = argument;

    pthread_setname_np(pthread_self(), "ploop-timer");
    pthread_mutex_lock(&timer->lock);
    while (sleep_until_due(timer)) {
        timer->deadline_ns = UINT64_MAX;
        pthread_mutex_unlock(&timer->lock);
        ploop_dev_run(timer->dev);
        pthread_mutex_lock(&timer->lock);
    }
    pthread_mutex_unlock(&timer->lock);
    return NULL;
}

int timer_start(struct timer *timer, ploop_dev *dev)
{
    sigset_t all, before;
    int error;

    timer->dev = dev;
    /* Signals are for nbdkit's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&timer->thread, NULL, timer_main, timer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

void timer_stop(struct timer *timer)
{
    pthread_mutex_lock(&timer->lock);
    timer->stop = true;
    pthread_cond_signal(&timer->changed);
    pthread_mutex_unlock(&timer->lock);
    pthread_join(timer->thread, NULL);
}
