/* SPDX-License-Identifier: MIT */
/*
 * The locks on an image file, within one process: they belong to open files, so two open files in
 * one process behave like two processes.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file/file.h"
#include "file/posix_lock.h"

enum { RO = PLOOP_FILE_READ_ONLY, RW = PLOOP_FILE_READ_WRITE, UNLOCKED = PLOOP_FILE_UNLOCKED };

static char path[] = "lock-test-XXXXXX";

static void make_image(void)
{
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void remove_image(void)
{
    unlink(path);
}

static int open_fd(void)
{
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    return fd;
}

/* The bytes from 100 and from 200 that other users hold, as "100 101 103". */
static const char *held(void)
{
    static char text[64];
    int fd = open_fd(), at = 0;
    text[0] = 0;
    for (int byte = 0; byte < 300; byte++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
        ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &lock), 0);
        if (lock.l_type != F_UNLCK) {
            at += snprintf(text + at, sizeof(text) - (size_t)at, at ? " %d" : "%d", byte);
        }
    }
    close(fd);
    return text;
}

static const char *const bytes_of[] = {"", "100 201 203", "100 101 103 201 203"};

START_TEST(each_lock_is_the_bytes_that_qemu_takes)
{
    int fd = open_fd();
    for (uint32_t from = LOCK_NONE; from <= LOCK_WRITER; from++) {
        for (uint32_t to = LOCK_NONE; to <= LOCK_WRITER; to++) {
            ck_assert_int_eq(posix_lock_change(fd, LOCK_NONE, from), 0);
            ck_assert_str_eq(held(), bytes_of[from]);
            ck_assert_int_eq(posix_lock_change(fd, from, to), 0);
            ck_assert_str_eq(held(), bytes_of[to]);
            ck_assert_int_eq(posix_lock_change(fd, to, LOCK_NONE), 0);
            ck_assert_str_eq(held(), "");
        }
    }
    close(fd);
}
END_TEST

/* Whatever lock one held before: a refusal leaves it unchanged. */
START_TEST(only_readers_go_together)
{
    for (uint32_t other = LOCK_NONE; other <= LOCK_WRITER; other++) {
        for (uint32_t wanted = LOCK_NONE; wanted <= LOCK_WRITER; wanted++) {
            int first = open_fd(), second = open_fd();
            bool together = other == LOCK_NONE || wanted == LOCK_NONE ||
                            (other == LOCK_READER && wanted == LOCK_READER);
            ck_assert_int_eq(posix_lock_change(first, LOCK_NONE, other), 0);
            ck_assert_int_eq(posix_lock_change(second, LOCK_NONE, wanted), together ? 0 : -EAGAIN);
            if (!together) {
                ck_assert_str_eq(held(), bytes_of[other]);
            }
            close(first);
            ck_assert_str_eq(held(), together ? bytes_of[wanted] : "");
            close(second);
        }
    }
}
END_TEST

START_TEST(a_refused_change_keeps_what_was_held)
{
    int first = open_fd(), second = open_fd();
    ck_assert_int_eq(posix_lock_change(first, LOCK_NONE, LOCK_READER), 0);
    ck_assert_int_eq(posix_lock_change(second, LOCK_NONE, LOCK_READER), 0);
    ck_assert_int_eq(posix_lock_change(second, LOCK_READER, LOCK_WRITER), -EAGAIN);
    close(first);
    ck_assert_str_eq(held(), bytes_of[LOCK_READER]);
    ck_assert_int_eq(posix_lock_change(second, LOCK_READER, LOCK_WRITER), 0);
    ck_assert_str_eq(held(), bytes_of[LOCK_WRITER]);
    close(second);
}
END_TEST

/* A program that locks bytes alone, which this scheme never does, is respected too. */
START_TEST(a_foreign_lock_is_respected)
{
    int other = open(path, O_RDWR), fd = open_fd();
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 203, .l_len = 1};
    ck_assert_int_eq(fcntl(other, F_OFD_SETLK, &lock), 0);
    ck_assert_int_eq(posix_lock_change(fd, LOCK_NONE, LOCK_READER), -EAGAIN);
    ck_assert_str_eq(held(), "203");
    close(other);
    close(fd);
    ck_assert_int_eq(posix_lock_change(-1, LOCK_NONE, LOCK_READER), -EBADF);
}
END_TEST

static ploop_file *open_image(uint32_t flags, int result)
{
    ploop_file *file;
    ck_assert_int_eq(ploop_file_open_posix(path, flags, &file), result);
    return file;
}

static int reopen(ploop_file *file, uint32_t flags)
{
    return file->ops.reopen(file->context, flags);
}

START_TEST(files_lock_as_they_are_opened)
{
    ploop_file *reader = open_image(RO, 0), *reader_too = open_image(RO, 0);
    open_image(RW, -EAGAIN);
    ploop_file *looker = open_image(RW | UNLOCKED, 0);
    ploop_file_close(reader);
    ploop_file_close(reader_too);
    ck_assert_str_eq(held(), "");
    ploop_file *writer = open_image(RW, 0);
    open_image(RO, -EAGAIN);
    ploop_file_close(looker); /* of the same file: closing it releases no other lock */
    ck_assert_str_eq(held(), bytes_of[LOCK_WRITER]);
    ploop_file_close(writer);
    ck_assert_str_eq(held(), "");
}
END_TEST

START_TEST(reopen_changes_lock_and_mode_or_nothing)
{
    char byte = 1;
    ploop_file *file = open_image(RO | UNLOCKED, 0);
    ck_assert_int_eq(reopen(file, 0), -EINVAL);
    ck_assert_int_eq(reopen(file, RO | RW), -EINVAL);
    ck_assert_int_eq(reopen(file, RW | PLOOP_FILE_CREATE), -EINVAL);
    ck_assert_str_eq(held(), "");
    ck_assert_int_eq(reopen(file, RO), 0);
    ck_assert_str_eq(held(), bytes_of[LOCK_READER]);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -EROFS);

    ploop_file *other = open_image(RO, 0);
    ck_assert_int_eq(reopen(file, RW), -EAGAIN);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -EROFS);
    ploop_file_close(other);

    ck_assert_int_eq(reopen(file, RW), 0);
    ck_assert_str_eq(held(), bytes_of[LOCK_WRITER]);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), 1);
    ck_assert_int_eq(reopen(file, RW | UNLOCKED), 0);
    ck_assert_str_eq(held(), "");
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 1), 1);
    ck_assert_int_eq(reopen(file, RO), 0);
    ck_assert_str_eq(held(), bytes_of[LOCK_READER]);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -EROFS);
    ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 1), 1);
    ploop_file_close(file);
}
END_TEST

/* A file is identified by its inode, not by its name. */
START_TEST(reopen_follows_the_file)
{
    char byte = 1, moved[sizeof(path) + 2];
    ploop_file *file = open_image(RO | PLOOP_FILE_DIRECT, 0);
    (void)snprintf(moved, sizeof(moved), "%s.m", path);
    ck_assert_int_eq(rename(path, moved), 0);
    ck_assert_int_eq(reopen(file, RW), 0);
    ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), 1);
    ck_assert_int_eq(rename(moved, path), 0);
    ploop_file_close(file);
}
END_TEST

START_TEST(reopen_asks_for_permission)
{
    ploop_file *file = open_image(RO, 0);
    ck_assert_int_eq(chmod(path, 0444), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
    }
    ck_assert_int_eq(reopen(file, RW), -EACCES);
    ck_assert_str_eq(held(), bytes_of[LOCK_READER]);
    ploop_file_close(file);
}
END_TEST

START_TEST(a_forked_child_is_harmless)
{
    ploop_file *file = open_image(RW, 0);
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_str_eq(held(), bytes_of[LOCK_WRITER]);
    ck_assert_int_eq(ploop_file_pwrite(file, "x", 1, 0), 1);
    ploop_file_close(file);
    ck_assert_str_eq(held(), "");
}
END_TEST

static Suite *lock_suite(void)
{
    Suite *suite = suite_create("lock");
    TCase *bytes = tcase_create("bytes");
    tcase_add_unchecked_fixture(bytes, make_image, NULL);
    tcase_add_test(bytes, each_lock_is_the_bytes_that_qemu_takes);
    tcase_add_test(bytes, only_readers_go_together);
    tcase_add_test(bytes, a_refused_change_keeps_what_was_held);
    tcase_add_test(bytes, a_foreign_lock_is_respected);
    suite_add_tcase(suite, bytes);

    TCase *files = tcase_create("files");
    tcase_add_unchecked_fixture(files, NULL, remove_image);
    tcase_add_test(files, files_lock_as_they_are_opened);
    tcase_add_test(files, reopen_changes_lock_and_mode_or_nothing);
    tcase_add_test(files, reopen_follows_the_file);
    tcase_add_test(files, a_forked_child_is_harmless);
    tcase_add_test(files, reopen_asks_for_permission);
    suite_add_tcase(suite, files);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(lock_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
