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
    int err;
    uint64_t said_ns;
    uint64_t unsaid;
} last[KINDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t complaint(uint32_t kind, int err, uint64_t now_ns)
{
    uint64_t count = 0;

    kind %= KINDS_MAX;
    pthread_mutex_lock(&lock);
    if (last[kind].err == err && now_ns - last[kind].said_ns < QUIET_NS) {
        last[kind].unsaid++;
    } else {
        count = (last[kind].err == err ? last[kind].unsaid : 0) + 1;
        last[kind].err = err;
        last[kind].said_ns = now_ns;
        last[kind].unsaid = 0;
    }
    pthread_mutex_unlock(&lock);
    return count;
}
