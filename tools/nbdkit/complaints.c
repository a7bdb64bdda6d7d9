/* SPDX-License-Identifier: MIT */
/*
 * For each kind of request: the last error reported, when, and how many unreported failures
 * followed.
 */
#include "complaints.h"

#include <pthread.h>

#define QUIET_NS UINT64_C(10000000000)
enum { KINDS_MAX = 16 };

static struct {
    int error;
    uint64_t said_ns;
    uint64_t unsaid;
} last[KINDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t complaint(uint32_t kind, int error, uint64_t now_ns)
{
    uint64_t count = 0;

    kind %= KINDS_MAX;
    pthread_mutex_lock(&lock);
    if (last[kind].error == error && now_ns - last[kind].said_ns < QUIET_NS) {
        last[kind].unsaid++;
    } else {
        count = (last[kind].error == error ? last[kind].unsaid : 0) + 1;
        last[kind].error = error;
        last[kind].said_ns = now_ns;
        last[kind].unsaid = 0;
    }
    pthread_mutex_unlock(&lock);
    return count;
}
