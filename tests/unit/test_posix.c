/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend on real files: the system calls are the test's, so that each can fail, fall short or wait when a test wants it
 * to. Files lie in a directory of the test's, in the current one, where O_DIRECT is likely to work.
 */
#include <check.h>
#include <dirent.h>
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

enum call { READS, WRITES, WRITES_THROUGH, SYNCS, FALLOCATES, TRUNCATES, OPENS, CALLOCS, THREADS, CALL_COUNT };

/* For each system call: how often it goes well, then fails, and with what; errno 0: half of the bytes are moved. */
static struct {
    atomic_int passes, failures, error, calls, direct_calls;
    atomic_int direct_refusals;
} faults[CALL_COUNT];

/* While it is shut, reads wait before they begin. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    bool shut;
    int waiting;
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static void gate_set(bool shut)
{
    pthread_mutex_lock(&gate.mutex);
    gate.shut = shut;
    pthread_cond_broadcast(&gate.change);
    pthread_mutex_unlock(&gate.mutex);
}

static void gate_pass(void)
{
    pthread_mutex_lock(&gate.mutex);
    gate.waiting++;
    pthread_cond_broadcast(&gate.change);
    while (gate.shut) {
        pthread_cond_wait(&gate.change, &gate.mutex);
    }
    gate.waiting--;
    pthread_mutex_unlock(&gate.mutex);
}

static void gate_await(int waiting)
{
    pthread_mutex_lock(&gate.mutex);
    while (gate.waiting < waiting) {
        pthread_cond_wait(&gate.change, &gate.mutex);
    }
    pthread_mutex_unlock(&gate.mutex);
}

static void fail_next(enum call call, int failures, int error)
{
    atomic_store(&faults[call].error, error);
    atomic_store(&faults[call].failures, failures);
}

/* True: the call is to fail with errno as set; *halve: it is to move half. */
static bool fails(enum call call, int fd, bool *halve)
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

static ssize_t move_half(bool write, int fd, const struct iovec *iov, off_t offset)
{
    return write ? pwrite(fd, iov->iov_base, iov->iov_len / 2, offset) : pread(fd, iov->iov_base, iov->iov_len / 2, offset);
}

static ssize_t test_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    bool halve = false;
    gate_pass();
    if (fails(READS, fd, &halve)) {
        return -1;
    }
    return halve ? move_half(false, fd, iov, offset) : preadv(fd, iov, count, offset);
}

/* Who is changing the file: direct writes may do so together, anybody else must be alone. Looked at where a test says so. */
static bool watches;
static atomic_int changing_direct, changing_alone;

static void enter_change(bool direct)
{
    if (watches) {
        atomic_fetch_add(direct ? &changing_direct : &changing_alone, 1);
        sched_yield();
        int alone = atomic_load(&changing_alone);
        int others = atomic_load(&changing_direct);
        ck_assert(direct ? alone == 0 : alone == 1 && others == 0);
    }
}

static void leave_change(bool direct)
{
    if (watches) {
        atomic_fetch_sub(direct ? &changing_direct : &changing_alone, 1);
    }
}

static ssize_t test_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
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

static ssize_t test_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    return fails(WRITES_THROUGH, fd, NULL) ? -1 : pwritev2(fd, iov, count, offset, flags);
}

static int test_fdatasync(int fd)
{
    return fails(SYNCS, fd, NULL) ? -1 : fdatasync(fd);
}

static int test_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (fails(FALLOCATES, fd, NULL)) {
        return -1;
    }
    enter_change(false);
    int result = fallocate(fd, mode, offset, length);
    leave_change(false);
    return result;
}

static int test_ftruncate(int fd, off_t size)
{
    return fails(TRUNCATES, fd, NULL) ? -1 : ftruncate(fd, size);
}

static int test_open(const char *path, int flags, mode_t mode)
{
    return fails(OPENS, -1, NULL) ? -1 : open(path, flags, mode);
}

static void *test_calloc(size_t count, size_t size)
{
    return fails(CALLOCS, -1, NULL) ? NULL : calloc(count, size);
}

static int test_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
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
#define calloc test_calloc
#define pthread_create test_pthread_create
#include "file/file.c"
#include "file/posix.c"
#include "file/posix_pool.c"
#undef preadv
#undef pwritev
#undef pwritev2
#undef fdatasync
#undef fallocate
#undef ftruncate
#undef open
#undef calloc
#undef pthread_create

enum { SIZE = 1 << 20, RW = PLOOP_FILE_READ_WRITE, RO = PLOOP_FILE_READ_ONLY };

static char directory[] = "posix-test-XXXXXX";
static char path[sizeof(directory) + 8];

static void make_directory(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/image", directory);
}

static void remove_directory(void)
{
    unlink(path);
    rmdir(directory);
}

static void remove_image(void)
{
    unlink(path);
}

static ploop_file *open_image(uint32_t flags)
{
    ploop_file *file;
    ck_assert_int_eq(ploop_file_open_posix(path, flags, &file), 0);
    return file;
}

static ploop_file *new_image(uint32_t flags)
{
    return open_image(RW | PLOOP_FILE_CREATE | flags);
}

static struct posix *posix_of(ploop_file *file)
{
    return file->context;
}

static struct ploop_file_info info_of(ploop_file *file)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    return info;
}

static int calls(enum call call)
{
    return atomic_load(&faults[call].calls);
}

static void open_refused(const char *name, uint32_t flags, int err)
{
    ploop_file *file = (ploop_file *)&gate;
    ck_assert_int_eq(ploop_file_open_posix(name, flags, &file), err);
    ck_assert_ptr_null(file);
}

/* ---- Opening ---- */

START_TEST(wrong_flags_are_refused)
{
    ck_assert_int_eq(ploop_file_open_posix(path, RW, NULL), -EINVAL);
    open_refused(NULL, RW, -EINVAL);
    open_refused(path, 0, -EINVAL);
    open_refused(path, RW | RO, -EINVAL);
    open_refused(path, RO | PLOOP_FILE_CREATE, -EINVAL);
    open_refused(path, RW | 32, -EINVAL);
    ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(what_is_no_image_is_refused)
{
    open_refused(path, RO, -ENOENT);
    open_refused(directory, RO, -EISDIR);
    open_refused(directory, RW, -EISDIR);
    open_refused("/dev/null", RW, -ENOTBLK);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    open_refused(path, RO, -ENOTBLK); /* and nobody waits for a writer */
}
END_TEST

START_TEST(what_may_not_be_opened_is_refused)
{
    ploop_file_close(new_image(0));
    open_refused(path, RW | PLOOP_FILE_CREATE, -EEXIST);
    ck_assert_int_eq(access(path, F_OK), 0);
    fail_next(OPENS, 1, EROFS);
    open_refused(path, RW, -EROFS);
    fail_next(OPENS, 2, EINTR);
    ploop_file_close(open_image(RW));
    ck_assert_int_eq(chmod(path, 0400), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(chown(path, 65534, 65534), 0);
        ck_assert_int_eq(chmod(directory, 0755), 0);
        ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
    }
    open_refused(path, RW, -EACCES);
}
END_TEST

static int open_descriptors(void)
{
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    while (readdir(all)) {
        count++;
    }
    closedir(all);
    return count;
}

START_TEST(a_failed_creation_leaves_nothing)
{
    int before = open_descriptors();
    for (int i = 0; i < 2; i++) { /* the backend's own memory, the file's */
        atomic_store(&faults[CALLOCS].passes, i);
        fail_next(CALLOCS, 1, ENOMEM);
        open_refused(path, RW | PLOOP_FILE_CREATE | PLOOP_FILE_DIRECT, -ENOMEM);
        ck_assert_int_eq(access(path, F_OK), -1);
    }
    fail_next(THREADS, 1, 0);
    open_refused(path, RW | PLOOP_FILE_CREATE, -ENOMEM);
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(descriptors_are_closed_at_exec_and_at_close)
{
    int before = open_descriptors();
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    int fds[] = {posix_of(file)->fd, posix_of(file)->direct_fd, posix_of(file)->lock_fd};
    for (int i = 0; i < 3; i++) {
        ck_assert(fds[i] < 0 || fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    }
    ck_assert_int_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
    ploop_file_close(file);
    ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(capabilities_are_what_the_file_system_can)
{
    uint32_t grow = PLOOP_FILE_CAN_GROW, falloc = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    ploop_file *file = new_image(0);
    struct ploop_file_info info = info_of(file);
    ck_assert_uint_eq(info.capabilities, grow | falloc | PLOOP_FILE_CAN_FUA);
    ck_assert_uint_eq(info.request_alignment, 1);
    ck_assert_uint_eq(info.file_size, 0);
    ploop_file_close(file);
    fail_next(WRITES_THROUGH, 1, ENOSYS);
    fail_next(FALLOCATES, 1, EOPNOTSUPP);
    file = open_image(RW);
    ck_assert_uint_eq(info_of(file).capabilities, grow);
    ploop_file_close(file);
    file = open_image(RO);
    ck_assert_uint_eq(info_of(file).capabilities, 0);
    ploop_file_close(file);
    atomic_store(&faults[FALLOCATES].calls, 0);
    file = open_image(RW | PLOOP_FILE_UNLOCKED); /* whoever holds the lock may be making it longer: no probe */
    ck_assert_int_eq(calls(FALLOCATES), 0);
    ck_assert_uint_eq(info_of(file).capabilities, grow | falloc | PLOOP_FILE_CAN_FUA);
    ploop_file_close(file);
}
END_TEST

/* ---- One request at a time ---- */

START_TEST(a_read_only_file_takes_no_changes)
{
    char byte = 0;
    ploop_file_close(new_image(0));
    ploop_file *file = open_image(RO);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -EROFS);
    ck_assert_int_eq(ploop_file_truncate(file, 1), -EROFS);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, 1, 0), -EROFS);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, 1, 0), -EROFS);
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 0), 0);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_uint_eq(info_of(file).file_size, 0);
    ploop_file_close(file);
}
END_TEST

START_TEST(space_is_had_and_given_back)
{
    struct stat stat_now;
    char buffer[100];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, SIZE, SIZE), 0);
    ck_assert_uint_eq(info_of(file).file_size, 2 * SIZE);
    ck_assert_int_eq(stat(path, &stat_now), 0);
    ck_assert_int_ge(stat_now.st_blocks, SIZE / 512);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, SIZE + 4095), 3);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, SIZE, SIZE), 0); /* content stays */
    ck_assert_int_eq(ploop_file_pread(file, buffer, 3, SIZE + 4095), 3);
    ck_assert_mem_eq(buffer, "abc", 3);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, SIZE - 4096, SIZE + 4096), 0);
    ck_assert_uint_eq(info_of(file).file_size, 2 * SIZE);
    ck_assert_int_eq(ploop_file_pread(file, buffer, 3, SIZE + 4095), 3);
    ck_assert_mem_eq(buffer, "a\0\0", 3);
    ck_assert_int_eq(stat(path, &stat_now), 0);
    ck_assert_int_lt(stat_now.st_blocks, SIZE / 512);
    ck_assert_int_eq(ploop_file_truncate(file, 12345), 0);
    ck_assert_uint_eq(info_of(file).file_size, 12345);
    ploop_file_close(file);
}
END_TEST

START_TEST(what_cannot_be_punched_is_zeroed_or_refused)
{
    char byte = 1;
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), 1);
    fail_next(FALLOCATES, 1, EOPNOTSUPP);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, 4096, 0), 0);
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 0), 1);
    ck_assert_int_eq(byte, 0);
    fail_next(FALLOCATES, 2, EOPNOTSUPP);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, 4096, 0), -EOPNOTSUPP);
    ploop_file_close(file);
}
END_TEST

START_TEST(interrupted_calls_are_made_again)
{
    char bytes[3] = "abc";
    ploop_file *file = new_image(0);
    for (enum call call = READS; call <= TRUNCATES; call++) {
        fail_next(call, 3, EINTR);
    }
    ck_assert_int_eq(ploop_file_truncate(file, SIZE), 0);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, SIZE, 0), 0);
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, 3, 5), 3);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 3, 5), 3);
    ploop_file_close(file);
}
END_TEST

START_TEST(errors_come_through)
{
    char byte = 0;
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 1), 0);
    fail_next(WRITES, 1, ENOSPC);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -ENOSPC);
    fail_next(READS, 1, EIO);
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 0), -EIO);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    fail_next(TRUNCATES, 1, EFBIG);
    ck_assert_int_eq(ploop_file_truncate(file, 1), -EFBIG);
    fail_next(FALLOCATES, 1, ENOSPC);
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, 1, 0), -ENOSPC);
    ploop_file_close(file);
}
END_TEST

/* ---- Requests of the contract, waited for by hand ---- */

struct request {
    struct file_io io;
    struct iovec iov;
    atomic_int done;
    int64_t result;
};

static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;

static void request_done(struct file_io *io, int64_t result)
{
    struct request *request = (struct request *)io;
    pthread_mutex_lock(&done_mutex);
    request->result = result;
    atomic_fetch_add(&request->done, 1);
    pthread_cond_broadcast(&done_cond);
    pthread_mutex_unlock(&done_mutex);
}

static void send(struct request *request, ploop_file *file, uint32_t op, void *buffer, uint64_t length, uint64_t offset)
{
    *request = (struct request){.iov = {.iov_base = buffer, .iov_len = length}};
    file_io_init(&request->io, file, request_done);
    request->io.pub.op = op;
    request->io.pub.offset = offset;
    request->io.pub.length = length;
    request->io.pub.iov = &request->iov;
    request->io.pub.iov_count = 1;
    ck_assert_int_eq(file_io_submit(&request->io), 0);
}

static void kick(ploop_file *file)
{
    file->ops.kick(file->context, 0);
}

static int64_t await(struct request *request)
{
    pthread_mutex_lock(&done_mutex);
    while (!atomic_load(&request->done)) {
        pthread_cond_wait(&done_cond, &done_mutex);
    }
    pthread_mutex_unlock(&done_mutex);
    ck_assert_int_eq(atomic_load(&request->done), 1);
    return request->result;
}

START_TEST(senseless_requests_are_refused)
{
    static const struct ploop_io senseless[] = {{.op = 0},
                                                {.op = 7},
                                                {.op = PLOOP_IO_TRUNCATE, .offset = UINT64_MAX},
                                                {.op = PLOOP_IO_PUNCH, .offset = 2, .length = INT64_MAX}};
    ploop_file *file = new_image(0);
    for (size_t i = 0; i < sizeof(senseless) / sizeof(senseless[0]); i++) {
        struct ploop_io io = senseless[i];
        ck_assert_int_eq(file->ops.submit(file->context, &io), -EINVAL);
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(a_short_transfer_says_so)
{
    struct request request;
    char bytes[1000] = {1};
    ploop_file *file = new_image(0);
    fail_next(WRITES, 1, 0);
    send(&request, file, PLOOP_IO_WRITE, bytes, 1000, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 500);
    ck_assert_uint_eq(info_of(file).file_size, 500);
    send(&request, file, PLOOP_IO_READ, bytes, 1000, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 500);
    fail_next(READS, 1, 0);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 500, 0), 500); /* continued */
    ploop_file_close(file);
}
END_TEST

enum { SEGMENTS = 3000 };

START_TEST(any_number_of_segments_is_moved)
{
    static struct iovec iov[SEGMENTS];
    static uint32_t numbers[SEGMENTS], read[SEGMENTS];
    struct request request;
    ploop_file *file = new_image(0);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        numbers[i] = i;
        iov[i] = (struct iovec){.iov_base = &numbers[i], .iov_len = sizeof(numbers[i])};
    }
    send(&request, file, PLOOP_IO_SYNC, NULL, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    for (int round = 0; round < 3; round++) {
        request.done = 0;
        request.io.pub.op = PLOOP_IO_WRITE;
        request.io.pub.iov = iov;
        request.io.pub.iov_count = SEGMENTS;
        request.io.pub.length = sizeof(numbers);
        if (round == 1) {
            fail_next(WRITES, 1, 0); /* the first segment falls short: the others are not begun */
        }
        ck_assert_int_eq(file_io_submit(&request.io), 0);
        kick(file);
        ck_assert_int_eq(await(&request), round == 1 ? 2 : (int64_t)sizeof(numbers));
    }
    ck_assert_int_eq(ploop_file_pread(file, read, sizeof(read), 0), sizeof(read));
    ck_assert_mem_eq(read, numbers, sizeof(read));
    ploop_file_close(file);
}
END_TEST

static int64_t write_fua(ploop_file *file, void *buffer, uint64_t length)
{
    struct request request;
    send(&request, file, PLOOP_IO_SYNC, buffer, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    request.done = 0;
    request.iov.iov_len = length;
    request.io.pub.op = PLOOP_IO_WRITE;
    request.io.pub.flags = PLOOP_IO_FUA;
    request.io.pub.length = length;
    ck_assert_int_eq(file_io_submit(&request.io), 0);
    kick(file);
    return await(&request);
}

START_TEST(fua_is_one_call_or_two)
{
    char bytes[512] = {1};
    ploop_file *file = new_image(0);
    int through = calls(WRITES_THROUGH), syncs;
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), sizeof(bytes));
    ck_assert_int_eq(calls(WRITES_THROUGH), through + 1);
    ck_assert_int_eq(calls(WRITES), 0);
    syncs = calls(SYNCS);
    fail_next(WRITES_THROUGH, 1, EOPNOTSUPP);
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), sizeof(bytes));
    ck_assert_int_eq(calls(WRITES), 1);
    ck_assert_int_eq(calls(SYNCS), syncs + 2); /* write_fua's own, and the one that makes it durable */
    fail_next(WRITES_THROUGH, 1, EIO);
    ck_assert_int_eq(write_fua(file, bytes, sizeof(bytes)), -EIO);
    ploop_file_close(file);
}
END_TEST

/* ---- I/O threads ---- */

/* A thread that is about to look for work would find it without being woken. */
static void await_idle(struct posix_pool *pool)
{
    uint32_t busy;
    do {
        usleep(1000);
        pthread_mutex_lock(&pool->mutex);
        busy = pool->started - pool->idle;
        pthread_mutex_unlock(&pool->mutex);
    } while (busy);
    usleep(10000);
}

START_TEST(nothing_runs_before_the_kick)
{
    struct request requests[20];
    char bytes[20];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 20), 0);
    await_idle(&posix_of(file)->pool);
    for (int i = 0; i < 20; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, (uint64_t)i);
    }
    usleep(20000);
    ck_assert_int_eq(calls(READS), 0);
    kick(file);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    kick(file); /* of nothing */
    ploop_file_close(file);
}
END_TEST

START_TEST(requests_run_side_by_side)
{
    struct request requests[POSIX_POOL_THREADS], sync;
    char bytes[POSIX_POOL_THREADS];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, POSIX_POOL_THREADS), 0);
    gate_set(true);
    for (uint32_t i = 0; i + 1 < POSIX_POOL_THREADS; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    gate_await(POSIX_POOL_THREADS - 1);
    send(&sync, file, PLOOP_IO_SYNC, NULL, 0, 0);
    kick(file);
    ck_assert_int_eq(await(&sync), 0);
    gate_set(false);
    for (uint32_t i = 0; i + 1 < POSIX_POOL_THREADS; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    ck_assert_uint_le(posix_of(file)->pool.started, POSIX_POOL_THREADS);
    ploop_file_close(file);
}
END_TEST

START_TEST(one_thread_is_enough)
{
    struct request requests[10];
    char bytes[10];
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, 10), 0);
    fail_next(THREADS, 1000, 0);
    for (uint32_t i = 0; i < 10; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    for (uint32_t i = 0; i < 10; i++) {
        ck_assert_int_eq(await(&requests[i]), 1);
    }
    ploop_file_close(file);
}
END_TEST

static char thread_name[16];
static int unblocked_signals;

static void look_at_thread(struct file_io *io, int64_t result)
{
    sigset_t blocked;
    pthread_getname_np(pthread_self(), thread_name, sizeof(thread_name));
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int i = 1; i < 32; i++) {
        unblocked_signals += !sigismember(&blocked, i) && i != SIGKILL && i != SIGSTOP;
    }
    request_done(io, result);
}

START_TEST(threads_have_names_and_no_signals)
{
    struct request request = {.done = 0};
    ploop_file *file = new_image(0);
    file_io_init(&request.io, file, look_at_thread);
    request.io.pub.op = PLOOP_IO_SYNC;
    ck_assert_int_eq(file_io_submit(&request.io), 0);
    kick(file);
    ck_assert_int_eq(await(&request), 0);
    ck_assert_mem_eq(thread_name, "ploop-io/", 9);
    ck_assert_int_eq(unblocked_signals, 0);
    ploop_file_close(file);
}
END_TEST

static atomic_bool cancelled;

static void *cancel(void *argument)
{
    ploop_file *file = argument;
    file->ops.cancel(file->context);
    atomic_store(&cancelled, true);
    return NULL;
}

START_TEST(cancel_ends_what_waits_and_awaits_what_runs)
{
    enum { RUNNING = POSIX_POOL_THREADS, WAITING = 5 };
    struct request requests[RUNNING + WAITING];
    char bytes[RUNNING + WAITING];
    pthread_t canceller;
    ploop_file *file = new_image(0);
    ck_assert_int_eq(ploop_file_truncate(file, RUNNING + WAITING), 0);
    gate_set(true);
    for (uint32_t i = 0; i < RUNNING + WAITING; i++) {
        send(&requests[i], file, PLOOP_IO_READ, &bytes[i], 1, i);
    }
    kick(file);
    gate_await(RUNNING);
    ck_assert_int_eq(pthread_create(&canceller, NULL, cancel, file), 0);
    for (uint32_t i = RUNNING; i < RUNNING + WAITING; i++) {
        ck_assert_int_eq(await(&requests[i]), -ECANCELED);
    }
    ck_assert(!atomic_load(&cancelled));
    gate_set(false);
    pthread_join(canceller, NULL);
    for (uint32_t i = 0; i < RUNNING; i++) {
        ck_assert_int_eq(atomic_load(&requests[i].done), 1); /* before cancel returned */
        ck_assert_int_eq(requests[i].result, 1);
    }
    ck_assert_int_eq(calls(READS), RUNNING);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 1, 0), 1); /* it goes on working */
    ploop_file_close(file);
}
END_TEST

/* ---- Direct and buffered ---- */

START_TEST(refused_direct_requests_are_done_buffered)
{
    static const int refusals[] = {EINVAL, ENOTBLK};
    char *buffer = aligned_alloc(4096, 4096);
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    ck_assert_int_ge(posix_of(file)->direct_fd, 0); /* the tests' directory must be able to */
    memset(buffer, 9, 4096);
    for (int i = 0; i < 2; i++) {
        atomic_store(&faults[WRITES].direct_refusals, refusals[i]);
        atomic_store(&faults[READS].direct_refusals, refusals[i]);
        ck_assert_int_eq(ploop_file_pwrite(file, buffer, 4096, 4096 * (uint64_t)i), 4096);
        ck_assert_int_eq(ploop_file_pread(file, buffer, 4096, 4096 * (uint64_t)i), 4096);
        ck_assert_int_eq(buffer[4095], 9);
    }
    ck_assert_int_eq(atomic_load(&faults[WRITES].direct_calls), 2);
    ck_assert_int_eq(atomic_load(&faults[WRITES].calls), 4);
    atomic_store(&faults[WRITES].direct_refusals, EIO);
    ck_assert_int_eq(ploop_file_pwrite(file, buffer, 4096, 0), -EIO); /* an error is none */
    ploop_file_close(file);
    free(buffer);
}
END_TEST

START_TEST(only_what_is_aligned_goes_direct)
{
    char *buffer = aligned_alloc(4096, 8192);
    memset(buffer, 1, 8192);
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    atomic_int *direct = &faults[WRITES].direct_calls;
    ck_assert_int_eq(ploop_file_pwrite(file, buffer, 4096, 4096), 4096);
    ck_assert_int_eq(atomic_load(direct), 1);
    ck_assert_int_eq(ploop_file_pwrite(file, buffer + 1, 4096, 4096), 4096);
    ck_assert_int_eq(ploop_file_pwrite(file, buffer, 4096, 5), 4096);
    ck_assert_int_eq(ploop_file_pwrite(file, buffer, 77, 4096), 77);
    ck_assert_int_eq(atomic_load(direct), 1);
    ploop_file_close(file);
    free(buffer);
}
END_TEST

START_TEST(a_file_system_without_direct_is_buffered)
{
    ploop_file_close(new_image(0));
    atomic_store(&faults[OPENS].calls, 0);
    ploop_file *file = open_image(RW | PLOOP_FILE_DIRECT);
    ck_assert_int_eq(calls(OPENS), 2);
    ploop_file_close(file);
    struct posix made = {.fd = -1, .direct_fd = -1};
    fail_next(OPENS, 1, EINVAL);
    ck_assert_int_eq(open_direct(&made, RW), 0);
    ck_assert_int_eq(made.direct_fd, -1);
    fail_next(OPENS, 1, EMFILE);
    ck_assert_int_eq(open_direct(&made, RW), -EMFILE);
}
END_TEST

enum { WRITERS = 4, ROUNDS = 400, SECTOR = 512, PAGES = 4, SECTORS = PAGES * PAGE / SECTOR };

struct writer {
    pthread_t thread;
    ploop_file *file;
    uint32_t number;
    uint8_t last[SECTORS];
};

/* Writes the sectors that are its own, every WRITERS-th, so that each page has some of everybody's; direct or buffered by chance. */
static void *write_own_sectors(void *argument)
{
    struct writer *self = argument;
    uint8_t *memory = aligned_alloc(PAGE, 2 * PAGE);
    unsigned seed = self->number;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t sector = (uint32_t)rand_r(&seed) % (SECTORS / WRITERS) * WRITERS + self->number;
        uint8_t *buffer = memory + (rand_r(&seed) % 2 ? 1 : 0);
        uint8_t content = (uint8_t)(1 + round % 250);
        memset(buffer, content, SECTOR);
        ck_assert_int_eq(ploop_file_pwrite(self->file, buffer, SECTOR, (uint64_t)sector * SECTOR), SECTOR);
        self->last[sector] = content;
        buffer = memory + (rand_r(&seed) % 2 ? 1 : 0);
        ck_assert_int_eq(ploop_file_pread(self->file, buffer, SECTOR, (uint64_t)sector * SECTOR), SECTOR);
        ck_assert_int_eq(buffer[0], content);
        ck_assert_int_eq(buffer[SECTOR - 1], content);
        if (round % 50 == 0) {
            ck_assert_int_eq(file_sync_io(self->file, PLOOP_IO_PUNCH, NULL, PAGE, (SECTORS + self->number) * SECTOR), 0);
            ck_assert_int_eq(ploop_file_sync(self->file), 0);
        }
    }
    free(memory);
    return NULL;
}

START_TEST(direct_and_buffered_writes_of_a_page_both_count)
{
    struct writer writers[WRITERS];
    uint8_t *whole = aligned_alloc(PAGE, SECTORS * SECTOR);
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    ck_assert_int_eq(ploop_file_truncate(file, SECTORS * SECTOR), 0);
    watches = true;
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.file = file, .number = i};
        ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, write_own_sectors, &writers[i]), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
    }
    ck_assert_int_gt(atomic_load(&faults[WRITES].direct_calls), 0);
    ck_assert_int_lt(atomic_load(&faults[WRITES].direct_calls), atomic_load(&faults[WRITES].calls));
    for (uint32_t pass = 0; pass < 2; pass++) { /* direct, then through the page cache */
        struct iovec iov = {.iov_base = whole, .iov_len = SECTORS * SECTOR};
        ck_assert_int_eq(preadv(pass ? posix_of(file)->fd : posix_of(file)->direct_fd, &iov, 1, 0), SECTORS * SECTOR);
        for (uint32_t sector = 0; sector < SECTORS; sector++) {
            ck_assert_int_eq(whole[sector * SECTOR], writers[sector % WRITERS].last[sector]);
            ck_assert_mem_eq(whole + sector * SECTOR, whole + sector * SECTOR + 1, SECTOR - 1);
        }
    }
    ploop_file_close(file);
    free(whole);
}
END_TEST

static Suite *posix_suite(void)
{
    Suite *suite = suite_create("posix");
    TCase *all = tcase_create("posix");
    tcase_set_timeout(all, 60);
    tcase_add_unchecked_fixture(all, make_directory, remove_directory);
    tcase_add_checked_fixture(all, remove_image, NULL);
    tcase_add_test(all, wrong_flags_are_refused);
    tcase_add_test(all, what_is_no_image_is_refused);
    tcase_add_test(all, what_may_not_be_opened_is_refused);
    tcase_add_test(all, a_failed_creation_leaves_nothing);
    tcase_add_test(all, descriptors_are_closed_at_exec_and_at_close);
    tcase_add_test(all, capabilities_are_what_the_file_system_can);
    tcase_add_test(all, a_read_only_file_takes_no_changes);
    tcase_add_test(all, space_is_had_and_given_back);
    tcase_add_test(all, what_cannot_be_punched_is_zeroed_or_refused);
    tcase_add_test(all, interrupted_calls_are_made_again);
    tcase_add_test(all, errors_come_through);
    tcase_add_test(all, senseless_requests_are_refused);
    tcase_add_test(all, a_short_transfer_says_so);
    tcase_add_test(all, any_number_of_segments_is_moved);
    tcase_add_test(all, fua_is_one_call_or_two);
    tcase_add_test(all, nothing_runs_before_the_kick);
    tcase_add_test(all, requests_run_side_by_side);
    tcase_add_test(all, one_thread_is_enough);
    tcase_add_test(all, threads_have_names_and_no_signals);
    tcase_add_test(all, cancel_ends_what_waits_and_awaits_what_runs);
    tcase_add_test(all, refused_direct_requests_are_done_buffered);
    tcase_add_test(all, only_what_is_aligned_goes_direct);
    tcase_add_test(all, a_file_system_without_direct_is_buffered);
    tcase_add_test(all, direct_and_buffered_writes_of_a_page_both_count);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(posix_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
