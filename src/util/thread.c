/* SPDX-License-Identifier: MIT */
/* What thread.h says. */
#include "util/thread.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

enum { NAME_SIZE = 16 };

int thread_start(pthread_t *thread, void *(*function)(void *argument), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, function, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? -ENOMEM : 0;
}

void thread_name_self(const char *name, uint32_t number)
{
    char text[NAME_SIZE];
    int length = snprintf(text, sizeof(text), "%s/%u", name, number);
    assert(length > 0 && length < NAME_SIZE);
    (void)length;
    (void)pthread_setname_np(pthread_self(), text);
}
