/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend with the test's own system calls: each can fail, transfer too little or wait
 * when a test asks for it. Each program that tests the backend includes this once. Files lie in a
 * directory of the test's below the current one, where O_DIRECT is likely to work.
 */
#ifndef POSIX_FAULTS_H
#define POSIX_FAULTS_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum call {
    READS,
    WRITES,
    WRITES_THROUGH,
    SYNCS,
    FALLOCATES,
    TRUNCATES,
    OPENS,
    CACHE_LOOKS,
    CALLOCS,
    THREADS,
    CALL_COUNT
};

/*
 * For each system call: how many calls succeed first, how many fail then, and with which error;
 * errno 0: half of the bytes are moved.
 */
static struct {
    atomic_int passes, failures, error, calls, direct_calls;
    atomic_int direct_refusals;
} faults[CALL_COUNT];

/* While it is shut, reads wait before they begin. `shuts`: behind the next one. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    bool shut, shuts;
    int waiting;
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static inline void gate_set(bool shut)
{
    pthread_mutex_lock(&gate.mutex);
    gate.shut = shut;
    pthread_cond_broadcast(&gate.change);
    pthread_mutex_unlock(&gate.mutex);
}

static inline void gate_pass(void)
{
    pthread_mutex_lock(&gate.mutex);
    gate.waiting++;
    pthread_cond_broadcast(&gate.change);
    while (gate.shut) {
        pthread_cond_wait(&gate.change, &gate.mutex);
    }
    gate.waiting--;
    gate.shut |= gate.shuts;
    gate.shuts = false;
    pthread_mutex_unlock(&gate.mutex);
}

static inline void gate_await(int waiting)
{
    pthread_mutex_lock(&gate.mutex);
    while (gate.waiting < waiting) {
        pthread_cond_wait(&gate.change, &gate.mutex);
    }
    pthread_mutex_unlock(&gate.mutex);
}

static inline void fail_next(enum call call, int failures, int error)
{
    atomic_store(&faults[call].error, error);
    atomic_store(&faults[call].failures, failures);
}

/* True: the call must fail with errno as set; *halve: it must move half. */
static inline bool fails(enum call call, int fd, bool *halve)
{
    bool direct = fd >= 0 && fcntl(fd, F_GETFL) & O_DIRECT;
    atomic_fetch_add(&faults[call].calls, 1);
    atomic_fetch_add(&faults[call].direct_calls, direct);
    if (direct && (errno = atomic_load(&faults[call].direct_refusals)) != 0) {
        return true;
    }
    if (atomic_load(&faults[call].passes) > 0) {
        atomic_fetch_sub(&faults[call].passes, 1);
        return false;
    }
    int left = atomic_load(&faults[call].failures);
    while (left > 0 && !atomic_compare_exchange_weak(&faults[call].failures, &left, left - 1)) {
    }
    if (left <= 0) {
        return false;
    }
    errno = atomic_load(&faults[call].error);
    if (errno == 0 && halve) {
        *halve = true;
        return false;
    }
    return true;
}

static inline ssize_t move_half(bool write, int fd, const struct iovec *iov, off_t offset)
{
    return write ? pwrite(fd, iov->iov_base, iov->iov_len / 2, offset)
                 : pread(fd, iov->iov_base, iov->iov_len / 2, offset);
}

static inline ssize_t test_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    bool halve = false;
    gate_pass();
    if (fails(READS, fd, &halve)) {
        return -1;
    }
    return halve ? move_half(false, fd, iov, offset) : preadv(fd, iov, count, offset);
}

/*
 * The operations that are changing the file: direct writes may run together, every other one must
 * run alone. Checked if a test asks for it.
 */
static bool watches;
static atomic_int changing_direct, changing_alone;

static inline void enter_change(bool direct)
{
    if (watches) {
        atomic_fetch_add(direct ? &changing_direct : &changing_alone, 1);
        sched_yield();
        int alone = atomic_load(&changing_alone);
        int others = atomic_load(&changing_direct);
        ck_assert(direct ? alone == 0 : alone == 1 && others == 0);
    }
}

static inline void leave_change(bool direct)
{
    if (watches) {
        atomic_fetch_sub(direct ? &changing_direct : &changing_alone, 1);
    }
}

static inline ssize_t test_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    bool halve = false;
    if (fails(WRITES, fd, &halve)) {
        return -1;
    }
    bool direct = fcntl(fd, F_GETFL) & O_DIRECT;
    enter_change(direct);
    ssize_t moved = halve ? move_half(true, fd, iov, offset) : pwritev(fd, iov, count, offset);
    leave_change(direct);
    return moved;
}

/*
 * The number of write-through writes in progress on each descriptor, and whether one ever had two.
 */
static atomic_int writing_through[1024];
static atomic_bool through_shared;

static inline ssize_t test_pwritev2(int fd, const struct iovec *iov, int count, off_t offset,
                                    int flags)
{
    if (fails(WRITES_THROUGH, fd, NULL)) {
        return -1;
    }
    if (atomic_fetch_add(&writing_through[fd], 1)) {
        atomic_store(&through_shared, true);
    }
    sched_yield();
    ssize_t moved = pwritev2(fd, iov, count, offset, flags);
    atomic_fetch_sub(&writing_through[fd], 1);
    return moved;
}

static atomic_int last_synced = -1;

static inline int test_fdatasync(int fd)
{
    atomic_store(&last_synced, fd);
    return fails(SYNCS, fd, NULL) ? -1 : fdatasync(fd);
}

static inline int test_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (fails(FALLOCATES, fd, NULL)) {
        return -1;
    }
    enter_change(false);
    int result = fallocate(fd, mode, offset, length);
    leave_change(false);
    return result;
}

static inline int test_ftruncate(int fd, off_t size)
{
    return fails(TRUNCATES, fd, NULL) ? -1 : ftruncate(fd, size);
}

static inline int test_open(const char *path, int flags, mode_t mode)
{
    return fails(OPENS, -1, NULL) ? -1 : open(path, flags, mode);
}

static inline void *test_calloc(size_t count, size_t size)
{
    return fails(CALLOCS, -1, NULL) ? NULL : calloc(count, size);
}

static inline int test_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                      void *(*start)(void *), void *argument)
{
    return fails(THREADS, -1, NULL) ? EAGAIN : pthread_create(thread, attributes, start, argument);
}

#define preadv test_preadv
#define pwritev test_pwritev
#define pwritev2 test_pwritev2
#define fdatasync test_fdatasync
#define fallocate test_fallocate
#define ftruncate test_ftruncate
#define open test_open
#define syscall(...) (fails(CACHE_LOOKS, -1, NULL) ? -1 : (int)syscall(__VA_ARGS__))
#define calloc test_calloc
#define pthread_create test_pthread_create
/* NOLINTBEGIN(bugprone-suspicious-include): so that their calls are the test's */
#include "file/file.c"
#include "file/posix.c"
#include "file/posix_cache.c"
#include "file/posix_fua.c"
#include "file/posix_open.c"
#include "util/thread.c"

#include "file/posix_pool.c"
/* NOLINTEND(bugprone-suspicious-include) */
#undef preadv
#undef pwritev
#undef pwritev2
#undef fdatasync
#undef fallocate
#undef ftruncate
#undef open
#undef syscall
#undef calloc
#undef pthread_create

enum { SIZE = 1 << 20, RW = PLOOP_FILE_READ_WRITE, RO = PLOOP_FILE_READ_ONLY };

static char directory[] = "posix-test-XXXXXX";
static char path[sizeof(directory) + 8];

static inline void make_directory(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/image", directory);
}

static inline void remove_directory(void)
{
    unlink(path);
    rmdir(directory);
}

static inline void remove_image(void)
{
    unlink(path);
}

static inline ploop_file *open_image(uint32_t flags)
{
    ploop_file *file;
    ck_assert_int_eq(ploop_file_open_posix(path, flags, &file), 0);
    return file;
}

static inline ploop_file *new_image(uint32_t flags)
{
    return open_image(RW | PLOOP_FILE_CREATE | flags);
}

static inline struct posix *posix_of(ploop_file *file)
{
    return file->context;
}

static inline struct ploop_file_info info_of(ploop_file *file)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    return info;
}

static inline int calls(enum call call)
{
    return atomic_load(&faults[call].calls);
}

static inline void open_refused(const char *name, uint32_t flags, int error)
{
    ploop_file *file = (ploop_file *)&gate;
    ck_assert_int_eq(ploop_file_open_posix(name, flags, &file), error);
    ck_assert_ptr_null(file);
}

/* Make a directory for the whole test case, without an image at the beginning of each test. */
static inline void add_fixtures(TCase *test_case)
{
    tcase_set_timeout(test_case, 60);
    tcase_add_unchecked_fixture(test_case, make_directory, remove_directory);
    tcase_add_checked_fixture(test_case, remove_image, NULL);
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
