/* SPDX-License-Identifier: MIT */
/*
 * Included before each source of src/ when it is compiled for the explored schedules: every access
 * that other threads can see goes through a scheduling point first. One thread of the system runs
 * all fibers, so the operations themselves need not be atomic; a plain access to an _Atomic object
 * compiles as usual.
 *
 * The order arguments of the explicit forms are dropped: schedules are sequentially consistent.
 */
#ifndef SCHED_SHIM_H
#define SCHED_SHIM_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

#define SCHED_HERE __FILE__, __LINE__

/*
 * ---- variables of a thread: in a separate section, which a switch of fibers saves and loads ----
 */

#ifdef __clang__
#pragma clang diagnostic ignored "-Wkeyword-macro"
#endif
#define _Thread_local __attribute__((section("sched_tls")))

/* ---- atomics ---- */

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_thread_fence

#define SCHED_VALUE(object) __typeof__((void)0, *(object))

#define atomic_load(object)                                                                        \
    __extension__({                                                                                \
        __auto_type sched_at = (object);                                                           \
        sched_point(SCHED_HERE, "load", sched_at, false);                                          \
        SCHED_VALUE(sched_at) sched_seen = *sched_at;                                              \
        sched_seen;                                                                                \
    })

#define atomic_store(object, value)                                                                \
    __extension__({                                                                                \
        __auto_type sched_at = (object);                                                           \
        SCHED_VALUE(sched_at) sched_new = (value);                                                 \
        sched_point(SCHED_HERE, "store", sched_at, true);                                          \
        *sched_at = sched_new;                                                                     \
        (void)0;                                                                                   \
    })

/* `result` may name the value that was seen and the value that was given. */
#define SCHED_CHANGE(name, object, value, result)                                                  \
    __extension__({                                                                                \
        __auto_type sched_at = (object);                                                           \
        SCHED_VALUE(sched_at) sched_given = (value);                                               \
        sched_point(SCHED_HERE, name, sched_at, true);                                             \
        SCHED_VALUE(sched_at) sched_seen = *sched_at;                                              \
        *sched_at = (SCHED_VALUE(sched_at))(result);                                               \
        sched_seen;                                                                                \
    })

#define atomic_exchange(object, value) SCHED_CHANGE("exchange", object, value, sched_given)
#define atomic_fetch_add(object, value)                                                            \
    SCHED_CHANGE("fetch_add", object, value, sched_seen + sched_given)
#define atomic_fetch_sub(object, value)                                                            \
    SCHED_CHANGE("fetch_sub", object, value, sched_seen - sched_given)
#define atomic_fetch_or(object, value)                                                             \
    SCHED_CHANGE("fetch_or", object, value, sched_seen | sched_given)
#define atomic_fetch_and(object, value)                                                            \
    SCHED_CHANGE("fetch_and", object, value, sched_seen &sched_given)

#define SCHED_COMPARE(name, object, expected, desired, may_fail)                                   \
    __extension__({                                                                                \
        __auto_type sched_at = (object);                                                           \
        __auto_type sched_expected = (expected);                                                   \
        SCHED_VALUE(sched_at) sched_new = (desired);                                               \
        sched_point(SCHED_HERE, name, sched_at, true);                                             \
        SCHED_VALUE(sched_at) sched_seen = *sched_at;                                              \
        bool sched_same = sched_seen == *sched_expected && !((may_fail) && sched_fails());         \
        if (sched_same) {                                                                          \
            *sched_at = sched_new;                                                                 \
        } else {                                                                                   \
            *sched_expected = sched_seen;                                                          \
        }                                                                                          \
        sched_same;                                                                                \
    })

#define atomic_compare_exchange_weak(object, expected, desired)                                    \
    SCHED_COMPARE("compare_exchange", object, expected, desired, true)
#define atomic_compare_exchange_strong(object, expected, desired)                                  \
    SCHED_COMPARE("compare_exchange", object, expected, desired, false)

#define atomic_load_explicit(object, order) atomic_load(object)
#define atomic_store_explicit(object, value, order) atomic_store(object, value)
#define atomic_exchange_explicit(object, value, order) atomic_exchange(object, value)
#define atomic_fetch_add_explicit(object, value, order) atomic_fetch_add(object, value)
#define atomic_fetch_sub_explicit(object, value, order) atomic_fetch_sub(object, value)
#define atomic_fetch_or_explicit(object, value, order) atomic_fetch_or(object, value)
#define atomic_fetch_and_explicit(object, value, order) atomic_fetch_and(object, value)
#define atomic_compare_exchange_weak_explicit(object, expected, desired, success, failure)         \
    atomic_compare_exchange_weak(object, expected, desired)
#define atomic_compare_exchange_strong_explicit(object, expected, desired, success, failure)       \
    atomic_compare_exchange_strong(object, expected, desired)
#define atomic_thread_fence(order) ((void)0)

/* ---- threads, locks and time: threads.c ---- */

#define pthread_create(thread, attributes, start, argument)                                        \
    sched_create(SCHED_HERE, thread, start, argument)
#define pthread_join(thread, result) sched_join(SCHED_HERE, thread)
#define pthread_setname_np(thread, name) sched_name(name) /* its own */
#define pthread_sigmask(how, set, old) sched_mask(set)
#define pthread_mutex_init(mutex, attributes) sched_clear(mutex, sizeof(*(mutex)))
#define pthread_mutex_destroy(mutex) sched_mutex_destroy(mutex)
#define pthread_mutex_lock(mutex) sched_mutex_lock(SCHED_HERE, mutex)
#define pthread_mutex_unlock(mutex) sched_mutex_unlock(SCHED_HERE, mutex)
#define pthread_cond_init(cond, attributes) sched_clear(cond, sizeof(*(cond)))
#define pthread_cond_destroy(cond) sched_cond_destroy(cond)
#define pthread_cond_wait(cond, mutex) sched_cond_wait(SCHED_HERE, cond, mutex, NULL)
#define pthread_cond_timedwait(cond, mutex, until) sched_cond_wait(SCHED_HERE, cond, mutex, until)
#define pthread_cond_signal(cond) sched_cond_signal(SCHED_HERE, cond)
#define pthread_cond_broadcast(cond) sched_cond_broadcast(SCHED_HERE, cond)
#define pthread_rwlock_init(lock, attributes)                                                      \
    ((void)(attributes), sched_clear(lock, sizeof(*(lock))))
#define pthread_rwlock_destroy(lock) ((void)(lock))
#define pthread_rwlock_rdlock(lock) sched_rwlock_lock(SCHED_HERE, lock, false)
#define pthread_rwlock_wrlock(lock) sched_rwlock_lock(SCHED_HERE, lock, true)
#define pthread_rwlock_unlock(lock) sched_rwlock_unlock(SCHED_HERE, lock)
#define nanosleep(request, left) sched_sleep(SCHED_HERE, request)
#define clock_gettime(clock, now) sched_clock(now)

#define getrlimit(resource, limit) ((void)(resource), sched_rlimit(limit))
#define mmap(at, size, protection, flags, fd, offset)                                              \
    ((void)(at), (void)(fd), (void)(offset), sched_reserve(size))
#define mprotect(memory, size, protection) sched_make_usable(memory, size)
#define madvise(memory, size, advice) sched_advise(memory, size, advice)
#define munmap(memory, size) free(memory)

#endif
