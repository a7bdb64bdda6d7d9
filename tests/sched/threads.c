/* SPDX-License-Identifier: MIT */
/*
 * Mutexes, conditions, locks, threads, sleep, and event descriptors, on top of fibers. Their states
 * are stored in the system's own objects, which are zeros when they are initialized.
 */
#include "threads.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "fiber.h"

struct mutex {
    unsigned owner; /* fiber + 1 */
};

struct cond {
    unsigned waiters; /* a bit for each fiber */
    unsigned signalled;
};

struct rwlock {
    unsigned readers;
    unsigned writer; /* fiber + 1 */
};

int sched_mask(const void *signals)
{
    (void)signals;
    return 0;
}

int sched_clear(void *object, size_t size)
{
    memset(object, 0, size);
    return 0;
}

/* ---- mutexes and conditions ---- */

static bool mutex_is_free(void *argument)
{
    const struct mutex *mutex = argument;
    return !mutex->owner;
}

static int mutex_take(const char *file, int line, struct mutex *mutex)
{
    if (mutex->owner) {
        sched_wait(file, line, "waits for the mutex", mutex_is_free, mutex, 0);
    }
    mutex->owner = sched_self() + 1;
    return 0;
}

int sched_mutex_lock(const char *file, int line, pthread_mutex_t *mutex)
{
    sched_point(file, line, "mutex_lock", mutex, true);
    return mutex_take(file, line, (struct mutex *)mutex);
}

int sched_mutex_unlock(const char *file, int line, pthread_mutex_t *given)
{
    struct mutex *mutex = (struct mutex *)given;
    sched_point(file, line, "mutex_unlock", mutex, true);
    if (mutex->owner != sched_self() + 1) {
        sched_fail("a mutex is unlocked that another one has");
    }
    mutex->owner = 0;
    return 0;
}

int sched_mutex_destroy(pthread_mutex_t *mutex)
{
    if (((struct mutex *)mutex)->owner) {
        sched_fail("a locked mutex is destroyed");
    }
    return 0;
}

struct cond_wait {
    struct cond *cond;
    unsigned bit;
};

static bool was_signalled(void *argument)
{
    const struct cond_wait *wait = argument;
    return wait->cond->signalled & wait->bit;
}

int sched_cond_wait(const char *file, int line, pthread_cond_t *given, pthread_mutex_t *mutex,
                    const struct timespec *until)
{
    struct cond_wait wait = {(struct cond *)given, 1u << sched_self()};
    uint64_t until_ns = until ? (uint64_t)until->tv_sec * 1000000000 + (uint64_t)until->tv_nsec : 0;
    sched_mutex_unlock(file, line, mutex);
    wait.cond->waiters |= wait.bit;
    bool rung = sched_wait(file, line, "waits for the condition", was_signalled, &wait, until_ns);
    wait.cond->waiters &= ~wait.bit;
    wait.cond->signalled &= ~wait.bit;
    mutex_take(file, line, (struct mutex *)mutex);
    return rung ? 0 : ETIMEDOUT;
}

int sched_cond_signal(const char *file, int line, pthread_cond_t *given)
{
    struct cond *cond = (struct cond *)given;
    sched_point(file, line, "cond_signal", cond, true);
    unsigned asleep = cond->waiters & ~cond->signalled;
    for (unsigned skip = asleep ? sched_choose((unsigned)__builtin_popcount(asleep)) : 0; skip;
         skip--) {
        asleep &= asleep - 1;
    }
    cond->signalled |= asleep & -asleep;
    return 0;
}

int sched_cond_broadcast(const char *file, int line, pthread_cond_t *given)
{
    struct cond *cond = (struct cond *)given;
    sched_point(file, line, "cond_broadcast", cond, true);
    cond->signalled |= cond->waiters;
    return 0;
}

int sched_cond_destroy(pthread_cond_t *cond)
{
    if (((struct cond *)cond)->waiters) {
        sched_fail("a condition is destroyed that somebody waits for");
    }
    return 0;
}

/* ---- locks with readers ---- */

static bool rwlock_is_free(void *argument)
{
    const struct rwlock *lock = argument;
    return !lock->writer && !lock->readers;
}

static bool rwlock_lets_read(void *argument)
{
    const struct rwlock *lock = argument;
    return !lock->writer;
}

int sched_rwlock_lock(const char *file, int line, pthread_rwlock_t *given, bool alone)
{
    struct rwlock *lock = (struct rwlock *)given;
    sched_point(file, line, "rwlock_lock", lock, true);
    ready_fn *ready = alone ? rwlock_is_free : rwlock_lets_read;
    if (!ready(lock)) {
        sched_wait(file, line, "waits for the lock", ready, lock, 0);
    }
    if (alone) {
        lock->writer = sched_self() + 1;
    } else {
        lock->readers++;
    }
    return 0;
}

int sched_rwlock_unlock(const char *file, int line, pthread_rwlock_t *given)
{
    struct rwlock *lock = (struct rwlock *)given;
    sched_point(file, line, "rwlock_unlock", lock, true);
    if (lock->writer) {
        lock->writer = 0;
    } else if (lock->readers) {
        lock->readers--;
    } else {
        sched_fail("a lock is unlocked that nobody has");
    }
    return 0;
}

/* ---- threads and time ---- */

struct start {
    void *(*start)(void *);
    void *argument;
};

static void thread_main(void *argument)
{
    struct start *start = argument;
    start->start(start->argument);
}

int sched_create(const char *file, int line, pthread_t *thread, void *(*start)(void *),
                 void *argument)
{
    struct start *how = arena_take(sizeof(*how), 64);
    *how = (struct start){start, argument};
    sched_point(file, line, "create", thread, true);
    *thread = sched_spawn("thread", thread_main, how, true);
    return 0;
}

int sched_name(const char *name)
{
    size_t size = strlen(name) + 1;
    char *copy = memcpy(arena_take(size, 64), name, size);
    sched_rename(sched_self(), copy);
    return 0;
}

static bool has_ended(void *argument)
{
    const pthread_t *thread = argument;
    return sched_has_ended((unsigned)*thread);
}

int sched_join(const char *file, int line, pthread_t thread)
{
    sched_wait(file, line, "joins", has_ended, &thread, 0);
    return 0;
}

static bool never(void *argument)
{
    (void)argument;
    return false;
}

int sched_sleep(const char *file, int line, const struct timespec *request)
{
    uint64_t until =
        sched_now() + (uint64_t)request->tv_sec * 1000000000 + (uint64_t)request->tv_nsec;
    sched_wait(file, line, "sleeps", never, NULL, until);
    return 0;
}

int sched_clock(struct timespec *now)
{
    uint64_t ns = sched_now();
    *now =
        (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return 0;
}

int sched_rlimit(struct rlimit *limit)
{
    limit->rlim_cur = limit->rlim_max = arena_reserves ? RLIM_INFINITY : 1;
    return 0;
}

/* ---- memory that grows ---- */

enum { RESERVED_MAX = 1 << 16 };

void sched_let_memory_grow(void)
{
    arena_reserves = true;
}

void *sched_reserve(size_t size)
{
    return arena_take(size < RESERVED_MAX ? size : RESERVED_MAX, RESERVED_MAX / 16);
}

int sched_make_usable(void *memory, size_t size)
{
    if (size > arena_size_of(memory)) {
        sched_fail("a reservation of %zu bytes is too small for %zu", arena_size_of(memory), size);
    }
    return 0;
}

int sched_advise(void *memory, size_t size, int advice)
{
    if (advice == MADV_DONTNEED) {
        memset(memory, 0, size < arena_size_of(memory) ? size : arena_size_of(memory));
    }
    return 0;
}

/* ---- event descriptors: --wrap, so that a backend's own functions may have these names ---- */

enum { DESCRIPTOR_FIRST = 0x4000, DESCRIPTORS_MAX = 64 };

/* In the arena, from the first descriptor on. */
struct descriptor {
    bool open;
    uint64_t count;   /* eventfd */
    uint64_t watched; /* epoll: a bit for each descriptor */
};

static struct descriptor *descriptors;

void threads_start(void)
{
    descriptors = arena_take(DESCRIPTORS_MAX * sizeof(*descriptors), 64);
}

static struct descriptor *descriptor_of(int fd)
{
    if (fd < DESCRIPTOR_FIRST || fd >= DESCRIPTOR_FIRST + DESCRIPTORS_MAX) {
        return NULL;
    }
    struct descriptor *descriptor = &descriptors[fd - DESCRIPTOR_FIRST];
    if (!descriptor->open) {
        sched_fail("a descriptor is used that is closed");
    }
    return descriptor;
}

static int open_descriptor(void)
{
    for (int i = 0; i < DESCRIPTORS_MAX; i++) {
        if (!descriptors[i].open) {
            descriptors[i].open = true;
            return DESCRIPTOR_FIRST + i;
        }
    }
    errno = EMFILE;
    return -1;
}

bool sched_readable(int fd)
{
    const struct descriptor *descriptor = descriptor_of(fd);
    if (descriptor->count) {
        return true;
    }
    for (int i = 0; i < DESCRIPTORS_MAX; i++) {
        if (descriptor->watched >> i & 1 && sched_readable(DESCRIPTOR_FIRST + i)) {
            return true;
        }
    }
    return false;
}

int __wrap_eventfd(unsigned count, int flags);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int how, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int ms);
ssize_t __wrap_read(int fd, void *bytes, size_t size);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
int __wrap_close(int fd);
ssize_t __real_read(int fd, void *bytes, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t size);
int __real_close(int fd);

int __wrap_eventfd(unsigned count, int flags)
{
    (void)flags;
    int fd = open_descriptor();
    if (fd >= 0) {
        descriptor_of(fd)->count = count;
    }
    return fd;
}

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    return open_descriptor();
}

int __wrap_epoll_ctl(int epoll, int how, int fd, struct epoll_event *event)
{
    (void)event;
    if (how != EPOLL_CTL_ADD || !descriptor_of(fd)) {
        sched_fail("epoll_ctl: more than this knows");
    }
    descriptor_of(epoll)->watched |= UINT64_C(1) << (fd - DESCRIPTOR_FIRST);
    return 0;
}

static bool is_readable(void *argument)
{
    const int *fd = argument;
    return sched_readable(*fd);
}

/*
 * 0: for ever. One that does not sleep lets others go first all the same: schedulers are fair, and
 * a thread that looks again and again is none that nobody else gets past.
 */
static uint64_t end_of_sleep(int ms)
{
    return ms < 0 ? 0 : sched_now() + (ms ? (uint64_t)ms * 1000000 : 1);
}

static int sleep_on(int fd, int ms)
{
    return sched_wait("descriptor", fd, "sleeps", is_readable, &fd, end_of_sleep(ms));
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms)
{
    (void)events;
    (void)most;
    return sleep_on(epoll, ms);
}

struct poll_set {
    struct pollfd *fds;
    nfds_t count;
};

static bool one_is_readable(void *argument)
{
    const struct poll_set *set = argument;
    for (nfds_t i = 0; i < set->count; i++) {
        if (is_readable(&set->fds[i].fd)) {
            return true;
        }
    }
    return false;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int ms)
{
    struct poll_set set = {fds, count};
    return sched_wait("descriptors", fds->fd, "sleeps", one_is_readable, &set, end_of_sleep(ms));
}

ssize_t __wrap_read(int fd, void *bytes, size_t size)
{
    struct descriptor *descriptor = descriptor_of(fd);
    if (!descriptor) {
        return __real_read(fd, bytes, size);
    }
    sched_point("eventfd", 0, "read", descriptor, true);
    if (!descriptor->count) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(bytes, &descriptor->count, sizeof(descriptor->count));
    descriptor->count = 0;
    return sizeof(descriptor->count);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    struct descriptor *descriptor = descriptor_of(fd);
    if (!descriptor) {
        return __real_write(fd, bytes, size);
    }
    uint64_t more;
    memcpy(&more, bytes, sizeof(more));
    sched_point("eventfd", 0, "write", descriptor, true);
    descriptor->count += more;
    return sizeof(more);
}

int __wrap_close(int fd)
{
    struct descriptor *descriptor = descriptor_of(fd);
    if (!descriptor) {
        return __real_close(fd);
    }
    *descriptor = (struct descriptor){0};
    return 0;
}
