/* SPDX-License-Identifier: MIT */
/*
 * The replacements that shim.h installs for the system's threads, locks, clock and event
 * descriptors, on top of fibers.
 */
#ifndef SCHED_THREADS_H
#define SCHED_THREADS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

/* A place where another fiber may run first: before `what` is done to the object. */
void sched_point(const char *file, int line, const char *what, const volatile void *object,
                 bool writes);

/* Whether a weak compare-exchange fails without need. */
bool sched_fails(void);

/* Start with no descriptor open. */
void threads_start(void);

int sched_mask(const void *signals); /* there are none */
int sched_clear(void *object, size_t size);
int sched_create(const char *file, int line, pthread_t *thread, void *(*start)(void *),
                 void *argument);
int sched_join(const char *file, int line, pthread_t thread);
int sched_name(const char *name);
int sched_mutex_lock(const char *file, int line, pthread_mutex_t *mutex);
int sched_mutex_unlock(const char *file, int line, pthread_mutex_t *given);
int sched_mutex_destroy(pthread_mutex_t *mutex);
int sched_cond_wait(const char *file, int line, pthread_cond_t *given, pthread_mutex_t *mutex,
                    const struct timespec *until);
int sched_cond_signal(const char *file, int line, pthread_cond_t *given);
int sched_cond_broadcast(const char *file, int line, pthread_cond_t *given);
int sched_cond_destroy(pthread_cond_t *cond);
int sched_rwlock_lock(const char *file, int line, pthread_rwlock_t *given, bool alone);
int sched_rwlock_unlock(const char *file, int line, pthread_rwlock_t *given);
int sched_sleep(const char *file, int line, const struct timespec *request);
int sched_clock(struct timespec *now);

/*
 * Report that address space is limited: memory that can grow is then taken by calloc(), and each
 * schedule finds it at the same place.
 */
int sched_rlimit(struct rlimit *limit);

/*
 * Not for a scenario whose device grows, which asks for it before it opens one: a reservation is
 * memory of the arena then, of a few pages, whatever its size. Until the next arena_start().
 */
void sched_let_memory_grow(void);
void *sched_reserve(size_t size);
int sched_make_usable(void *memory, size_t size);
int sched_advise(void *memory, size_t size, int advice);

/*
 * Whether a descriptor of eventfd() or epoll_create1() is readable; other descriptors belong to the
 * system.
 */
bool sched_readable(int fd);

#endif
