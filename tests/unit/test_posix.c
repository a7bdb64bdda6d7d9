/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend on real files: opening, each operation and each of its failures, and requests
 * past and through the page cache.
 */
#include "posix_faults.h"

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
    open_refused(path, RO, -ENOTBLK); /* and the open does not wait for a writer */
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
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

START_TEST(a_failed_creation_leaves_nothing)
{
    int before = open_descriptors();
    for (int i = 0; i < 3; i++) { /* the backend's own memory, the pool's, then the file's */
        atomic_store(&faults[CALLOCS].passes, i);
        fail_next(CALLOCS, 1, ENOMEM);
        open_refused(path, RW | PLOOP_FILE_CREATE | PLOOP_FILE_DIRECT, -ENOMEM);
        ck_assert_int_eq(access(path, F_OK), -1);
    }
    ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(descriptors_are_closed_at_exec_and_at_close)
{
    int before = open_descriptors();
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    int fds[] = {posix_of(file)->fd, posix_of(file)->direct_fd, posix_of(file)->lock_fd,
                 posix_of(file)->sync_fd, posix_of(file)->fua.lanes[POSIX_POOL_THREADS - 1].fd};
    for (int i = 0; i < 5; i++) {
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
    file = open_image(
        RW | PLOOP_FILE_UNLOCKED); /* the holder of the lock may be extending it: no probe */
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
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_ALLOCATE, NULL, SIZE, SIZE),
                     0); /* content stays */
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

static void data_is(ploop_file *file, uint64_t from, uint64_t begin, uint64_t end)
{
    uint64_t offset, length;
    ck_assert_int_eq(file_data_extent(file, from, &offset, &length), 0);
    ck_assert_uint_eq(length, end - begin);
    ck_assert(length == 0 || offset == begin);
}

START_TEST(holes_are_known)
{
    static uint8_t bytes[SIZE];
    ploop_file *file = new_image(0);
    memset(bytes, 1, sizeof(bytes));
    ck_assert_int_eq(ploop_file_truncate(file, (uint64_t)8 * SIZE), 0);
    data_is(file, 0, 0, 0);
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, SIZE, 2 * SIZE), SIZE);
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, SIZE, 5 * SIZE), SIZE);
    data_is(file, 0, 2 * SIZE, 3 * SIZE);
    data_is(file, 2 * SIZE + 4096, 2 * SIZE + 4096, 3 * SIZE);
    data_is(file, 3 * SIZE, 5 * SIZE, 6 * SIZE);
    data_is(file, 6 * SIZE, 0, 0);
    data_is(file, 9 * SIZE, 0, 0); /* past the end */
    ck_assert_int_eq(file_sync_io(file, PLOOP_IO_PUNCH, NULL, SIZE, 2 * SIZE), 0);
    data_is(file, 0, 5 * SIZE, 6 * SIZE);
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
    ck_assert_int_eq(ploop_file_pwrite(file, "x", 1, 0), 1);
    fail_next(FALLOCATES, 1, EINVAL);
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

/* ---- Direct and buffered ---- */

START_TEST(refused_direct_requests_are_done_buffered)
{
    static const int refusals[] = {EINVAL, ENOTBLK};
    char *buffer = aligned_alloc(4096, 4096);
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    ck_assert_int_ge(posix_of(file)->direct_fd,
                     0); /* the file system of the tests' directory must support O_DIRECT */
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
    ck_assert_int_eq(ploop_file_pwrite(file, buffer, 4096, 0), -EIO); /* EIO is no refusal */
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
    ploop_file *file = open_image(RW | PLOOP_FILE_DIRECT);
    ck_assert_int_ge(posix_of(file)->direct_fd, 0);
    ploop_file_close(file);
    struct posix made = {.fd = -1, .direct_fd = -1};
    fail_next(OPENS, 1, EINVAL);
    ck_assert_int_eq(open_direct(&made, RW), 0);
    ck_assert_int_eq(made.direct_fd, -1);
    fail_next(OPENS, 1, EMFILE);
    ck_assert_int_eq(open_direct(&made, RW), -EMFILE);
}
END_TEST

enum { WRITERS = 4, ROUNDS = 400, SECTOR = 512, PAGES = 4, SECTORS = PAGES * POSIX_PAGE / SECTOR };

struct writer {
    pthread_t thread;
    ploop_file *file;
    uint32_t number;
    uint8_t last[SECTORS];
};

/*
 * Writes its own sectors, every WRITERS-th, so that each page has sectors of all writers; direct or
 * buffered by chance.
 */
static void *write_own_sectors(void *argument)
{
    struct writer *self = argument;
    uint8_t *memory = aligned_alloc(POSIX_PAGE, 2 * POSIX_PAGE);
    unsigned seed = self->number;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t sector = (uint32_t)rand_r(&seed) % (SECTORS / WRITERS) * WRITERS + self->number;
        uint8_t *buffer = memory + (rand_r(&seed) % 2 ? 1 : 0);
        uint8_t content = (uint8_t)(1 + round % 250);
        memset(buffer, content, SECTOR);
        ck_assert_int_eq(ploop_file_pwrite(self->file, buffer, SECTOR, (uint64_t)sector * SECTOR),
                         SECTOR);
        self->last[sector] = content;
        buffer = memory + (rand_r(&seed) % 2 ? 1 : 0);
        ck_assert_int_eq(ploop_file_pread(self->file, buffer, SECTOR, (uint64_t)sector * SECTOR),
                         SECTOR);
        ck_assert_int_eq(buffer[0], content);
        ck_assert_int_eq(buffer[SECTOR - 1], content);
        if (round % 50 == 0) {
            ck_assert_int_eq(file_sync_io(self->file, PLOOP_IO_PUNCH, NULL, POSIX_PAGE,
                                          (SECTORS + self->number) * SECTOR),
                             0);
            ck_assert_int_eq(ploop_file_sync(self->file), 0);
        }
    }
    free(memory);
    return NULL;
}

START_TEST(direct_and_buffered_writes_of_a_page_both_count)
{
    struct writer writers[WRITERS];
    uint8_t *whole = aligned_alloc(POSIX_PAGE, SECTORS * SECTOR);
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    ck_assert_int_eq(ploop_file_truncate(file, SECTORS * SECTOR), 0);
    watches = true;
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.file = file, .number = i};
        ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, write_own_sectors, &writers[i]),
                         0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
    }
    ck_assert_int_gt(atomic_load(&faults[WRITES].direct_calls), 0);
    ck_assert_int_lt(atomic_load(&faults[WRITES].direct_calls), atomic_load(&faults[WRITES].calls));
    for (uint32_t pass = 0; pass < 2; pass++) { /* direct, then through the page cache */
        struct iovec iov = {.iov_base = whole, .iov_len = SECTORS * SECTOR};
        ck_assert_int_eq(preadv(pass ? posix_of(file)->fd : posix_of(file)->direct_fd, &iov, 1, 0),
                         SECTORS * SECTOR);
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
    add_fixtures(all);
    tcase_add_test(all, wrong_flags_are_refused);
    tcase_add_test(all, what_is_no_image_is_refused);
    tcase_add_test(all, what_may_not_be_opened_is_refused);
    tcase_add_test(all, a_failed_creation_leaves_nothing);
    tcase_add_test(all, descriptors_are_closed_at_exec_and_at_close);
    tcase_add_test(all, capabilities_are_what_the_file_system_can);
    tcase_add_test(all, a_read_only_file_takes_no_changes);
    tcase_add_test(all, space_is_had_and_given_back);
    tcase_add_test(all, holes_are_known);
    tcase_add_test(all, what_cannot_be_punched_is_zeroed_or_refused);
    tcase_add_test(all, interrupted_calls_are_made_again);
    tcase_add_test(all, errors_come_through);
    tcase_add_test(all, refused_direct_requests_are_done_buffered);
    tcase_add_test(all, only_what_is_aligned_goes_direct);
    tcase_add_test(all, a_file_system_without_direct_is_buffered);
    tcase_add_test(all, direct_and_buffered_writes_of_a_page_both_count);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    return run_suite(posix_suite());
}
