/* SPDX-License-Identifier: MIT */
/* What thread.h says. */
#include "util/thread.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

int thread_start(pthread_t *thread, const char *name, void *(*function)(void *argument),
                 void *argument)
{
    sigset_t all, before;
    assert(strlen(name) < 16);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, function, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        return -ENOMEM;
    }
    (void)pthread_setname_np(*thread, name);
    return 0;
}
