/* SPDX-License-Identifier: MIT */
/* Files that are opened by a descriptor of the caller's: opened again, or taken. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "run_tests.h"

enum { READ_WRITE = PLOOP_FILE_READ_WRITE, UNLOCKED = PLOOP_FILE_UNLOCKED, NOBODY = 65534 };

static char path[] = "/tmp/ploop-open-fd-XXXXXX";
static int fd;

static void setup(void)
{
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
}

static void teardown(void)
{
    ck_assert_int_eq(unlink(path), 0);
}

/* From here on no descriptor of the file can be opened again. */
static void lose_permission(void)
{
    ck_assert_int_eq(chmod(path, 0), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(seteuid(NOBODY), 0);
    }
}

static void regain_permission(void)
{
    if (getuid() == 0) {
        ck_assert_int_eq(seteuid(0), 0);
    }
}

static uint32_t capabilities(ploop_file *file)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_file_info(file, &info), 0);
    ck_assert_uint_eq(info.file_size, 1 << 20);
    return info.capabilities;
}

static void use(ploop_file *file)
{
    char in[512] = "", out[512] = "by descriptor";
    ck_assert_int_eq(ploop_file_pwrite(file, out, sizeof(out), 4096), sizeof(out));
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(ploop_file_pread(file, in, sizeof(in), 4096), sizeof(in));
    ck_assert_mem_eq(in, out, sizeof(in));
}

static bool is_open(int descriptor)
{
    return fcntl(descriptor, F_GETFD) >= 0;
}

START_TEST(it_is_opened_again)
{
    ploop_file *file, *other;
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, &file), 0);
    uint32_t able = capabilities(file);
    ck_assert(able & PLOOP_FILE_CAN_FUA && !(able & PLOOP_FILE_TOOK_DESCRIPTOR));
    use(file);
    /* Its locks are not the caller's. */
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, &other), -EAGAIN);
    ck_assert_ptr_null(other);
    ck_assert_int_eq(ploop_file_open_posix(path, READ_WRITE, &other), -EAGAIN);
    ploop_file_close(file);
    ck_assert(is_open(fd));
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, &file), 0);
    ck_assert_int_eq(close(fd), 0);
    use(file);
    ploop_file_close(file);
}
END_TEST

START_TEST(it_is_taken)
{
    ploop_file *file, *other;
    int copy = dup(fd), apart = open(path, O_RDWR);
    lose_permission();
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, &file), 0);
    uint32_t able = capabilities(file);
    ck_assert(!(able & PLOOP_FILE_CAN_FUA) && able & PLOOP_FILE_TOOK_DESCRIPTOR);
    use(file);
    ck_assert_int_eq(ploop_file_open_fd(copy, READ_WRITE, &other), -EBUSY);
    ck_assert_int_eq(ploop_file_open_fd(apart, READ_WRITE, &other), -EAGAIN);
    ck_assert_int_eq(ploop_file_open_fd(apart, READ_WRITE | UNLOCKED, &other), 0);
    ploop_file_close(other);
    ck_assert(!is_open(apart) && is_open(copy));
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    ploop_file_close(file);
    ck_assert(!is_open(fd));
    /* Its description is free again; its locks are, once all of its descriptors are closed. */
    ck_assert_int_eq(ploop_file_open_fd(copy, PLOOP_FILE_READ_ONLY | UNLOCKED, &file), 0);
    ck_assert(capabilities(file) == PLOOP_FILE_TOOK_DESCRIPTOR);
    ploop_file_close(file);
    ck_assert(!is_open(copy));
    regain_permission();
}
END_TEST

/* A device on a descriptor that was taken: its flushes are SYNCs. */
START_TEST(a_taken_descriptor_carries_a_device)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = 64 << 20};
    struct ploop_dev_info info = {.size = sizeof(info)};
    char bytes[512] = "flushed";
    ploop_file *file;
    ploop_dev *dev;
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    lose_permission();
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, &file), 0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    ck_assert_int_eq(ploop_dev_open(&file, 1, NULL, &dev), 0);
    ck_assert_int_eq(ploop_dev_pwrite(dev, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(ploop_dev_flush(dev), 0);
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    ck_assert_uint_ge(info.syncs, 2);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    regain_permission();
}
END_TEST

static void is_refused(int descriptor, uint32_t flags, int error)
{
    ploop_file *file = (ploop_file *)&fd;
    ck_assert_int_eq(ploop_file_open_fd(descriptor, flags, &file), error);
    ck_assert_ptr_null(file);
}

START_TEST(what_is_refused_stays_the_callers)
{
    int pipes[2];
    int reads = open(path, O_RDONLY), writes = open(path, O_WRONLY), names = open(path, O_PATH);
    int appends = open(path, O_RDWR | O_APPEND), folder = open("/tmp", O_RDONLY);
    ck_assert_int_eq(pipe(pipes), 0);
    is_refused(-1, READ_WRITE, -EBADF);
    is_refused(fd, 0, -EINVAL);
    is_refused(fd, READ_WRITE | PLOOP_FILE_CREATE, -EINVAL);
    is_refused(reads, READ_WRITE, -EACCES);
    is_refused(writes, READ_WRITE, -EACCES);
    is_refused(writes, PLOOP_FILE_READ_ONLY, -EACCES);
    is_refused(names, PLOOP_FILE_READ_ONLY, -EACCES);
    is_refused(folder, PLOOP_FILE_READ_ONLY, -EISDIR);
    is_refused(pipes[0], PLOOP_FILE_READ_ONLY, -ENOTBLK);
    ck_assert_int_eq(ploop_file_open_fd(fd, READ_WRITE, NULL), -EINVAL);
    lose_permission();
    is_refused(appends, READ_WRITE, -EINVAL);
    is_refused(fd, READ_WRITE | PLOOP_FILE_DIRECT, -EACCES);
    ck_assert(is_open(fd) && is_open(appends));
    regain_permission();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("open_fd");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, it_is_opened_again);
    tcase_add_test(tests, it_is_taken);
    tcase_add_test(tests, a_taken_descriptor_carries_a_device);
    tcase_add_test(tests, what_is_refused_stays_the_callers);
    return run_case("open_fd", tests);
}
