/* SPDX-License-Identifier: MIT */
#include "status.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "device.h"

static pthread_t thread;
static bool started;
static atomic_bool stopping;

static void *status_main(void *signals)
{
    int number;

    pthread_setname_np(pthread_self(), "ploop-status");
    while (!sigwait(signals, &number) && !atomic_load(&stopping)) {
        device_tell_all();
    }
    return NULL;
}

int status_start(void)
{
    static sigset_t signals;
    int error;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    error = pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (!error) {
        error = pthread_create(&thread, NULL, status_main, &signals);
        started = !error;
    }
    return -error;
}

void status_stop(void)
{
    if (started) {
        atomic_store(&stopping, true);
        pthread_kill(thread, SIGUSR1);
        pthread_join(thread, NULL);
        started = false;
    }
}
