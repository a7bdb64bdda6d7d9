/* SPDX-License-Identifier: MIT */
/*
 * The POSIX backend's promises of durability: the description on which an error is reported, the
 * state after a failed SYNC, reopen, invalidate.
 */
#include "posix_faults.h"

#include <sys/mman.h>

#include <ploop/ploop.h>

static int64_t write_fua(ploop_file *file, const void *buffer, uint64_t length, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    struct ploop_io io = {.op = PLOOP_IO_WRITE,
                          .flags = PLOOP_IO_FUA,
                          .iov = &iov,
                          .iov_count = 1,
                          .length = length,
                          .offset = offset};
    return posix_execute(posix_of(file), &io);
}

static int reopen(ploop_file *file, uint32_t flags)
{
    return file->ops.reopen(file->context, flags);
}

static int invalidate(ploop_file *file)
{
    return file->ops.invalidate(file->context);
}

/*
 * Valgrind knows no cachestat, and its own reads of mapped files put their first page into the
 * cache, where mincore sees it.
 */
static bool expect_dropped(ploop_file *file)
{
    const char *preloaded = getenv("LD_PRELOAD");
    int result = invalidate(file);
    ck_assert(result == 0 || (result == -EBUSY && preloaded && strstr(preloaded, "vgpreload")));
    return result == 0;
}

static bool can_fua(ploop_file *file)
{
    return info_of(file).capabilities & PLOOP_FILE_CAN_FUA;
}

/* ---- Descriptions ---- */

/*
 * A flag that is set with F_SETFL belongs to the description: each descriptor that shares it shows
 * the flag.
 */
START_TEST(sync_has_a_description_of_its_own)
{
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    const struct posix *posix = posix_of(file);
    int others[3 + 2 * POSIX_POOL_THREADS] = {posix->fd, posix->direct_fd, posix->lock_fd};
    ck_assert_uint_eq(posix->fua.count, POSIX_POOL_THREADS);
    for (uint32_t i = 0; i < POSIX_POOL_THREADS; i++) {
        others[3 + 2 * i] = posix->fua.lanes[i].fd;
        others[4 + 2 * i] = posix->fua.lanes[i].direct_fd;
    }
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(fcntl(atomic_load(&last_synced), F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_int_ge(others[i], 0);
        ck_assert_int_eq(fcntl(others[i], F_GETFL) & O_NONBLOCK, 0);
    }
    ploop_file_close(file);
}
END_TEST

enum { FUA_WRITERS = 8, FUA_ROUNDS = 100 };

static void *write_through_often(void *file)
{
    char *page = aligned_alloc(4096, 4096);
    memset(page, 1, 4096);
    for (uint64_t i = 0; i < FUA_ROUNDS; i++) {
        ck_assert_int_eq(write_fua(file, page, i % 2 ? 4096 : 100, i * 4096), i % 2 ? 4096 : 100);
    }
    free(page);
    return NULL;
}

static void write_through_together(ploop_file *file)
{
    pthread_t threads[FUA_WRITERS];
    atomic_store(&faults[WRITES_THROUGH].calls, 0);
    for (int i = 0; i < FUA_WRITERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_through_often, file), 0);
    }
    for (int i = 0; i < FUA_WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_ge(calls(WRITES_THROUGH), FUA_WRITERS * FUA_ROUNDS);
    ck_assert(!atomic_load(&through_shared));
}

/* If two writes shared a description and both lost their bytes, only one would get the error. */
START_TEST(each_fua_write_has_a_description_to_itself)
{
    ploop_file *file = new_image(_i ? PLOOP_FILE_DIRECT : 0);
    write_through_together(file);
    ploop_file_close(file);
}
END_TEST

START_TEST(with_one_description_fua_writes_take_turns)
{
    ploop_file_close(new_image(0));
    atomic_store(&faults[OPENS].passes, 4); /* the file, for its locks, for SYNC, and one for FUA */
    fail_next(OPENS, 1, EMFILE);
    ploop_file *file = open_image(RW);
    ck_assert_uint_eq(posix_of(file)->fua.count, 1);
    ck_assert(can_fua(file));
    write_through_together(file);
    ploop_file_close(file);
}
END_TEST

START_TEST(without_a_description_of_its_own_there_is_no_fua)
{
    ploop_file_close(new_image(0));
    for (int i = 2; i <= 3; i++) { /* SYNC's cannot be opened; FUA's cannot */
        atomic_store(&faults[OPENS].passes, i);
        fail_next(OPENS, 1, ENOENT);
        ploop_file *file = open_image(RW);
        ck_assert(!can_fua(file));
        ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 0), 3);
        ck_assert_int_eq(ploop_file_sync(file), 0);
        ploop_file_close(file);
    }
    fail_next(WRITES_THROUGH, 1, EOPNOTSUPP);
    ploop_file *file = open_image(RW);
    ck_assert(!can_fua(file));
    ck_assert_int_eq(write_fua(file, "abc", 3, 0), -EOPNOTSUPP);
    ploop_file_close(file);
}
END_TEST

/* And no SYNC happens that SYNC's own description does not see. */
START_TEST(a_fua_write_that_fails_is_no_sync)
{
    ploop_file *file = new_image(0);
    fail_next(WRITES_THROUGH, 1, EIO);
    ck_assert_int_eq(write_fua(file, "abc", 3, 0), -EIO);
    fail_next(WRITES_THROUGH, 1, EOPNOTSUPP);
    ck_assert_int_eq(write_fua(file, "abc", 3, 0), -EOPNOTSUPP);
    ck_assert_int_eq(calls(SYNCS), 0);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ploop_file_close(file);
}
END_TEST

/* The number of this process's descriptions of the image that can write. */
static int writable_descriptions(void)
{
    struct stat image, other;
    int count = 0;
    ck_assert_int_eq(stat(path, &image), 0);
    for (int fd = 0; fd < 1024; fd++) {
        if (fstat(fd, &other) == 0 && other.st_ino == image.st_ino &&
            other.st_dev == image.st_dev) {
            count += (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
        }
    }
    return count;
}

START_TEST(a_read_only_file_has_no_description_that_writes)
{
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    ck_assert_int_gt(writable_descriptions(), 0);
    ck_assert_int_eq(reopen(file, RO), 0);
    ck_assert_int_eq(writable_descriptions(), 0);
    ck_assert(!can_fua(file));
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(reopen(file, RW), 0);
    ck_assert(can_fua(file));
    write_through_together(file);
    ploop_file_close(file);
    file = open_image(RO);
    ck_assert_int_eq(writable_descriptions(), 0);
    ploop_file_close(file);
}
END_TEST

/* ---- A failed SYNC ---- */

START_TEST(a_failed_sync_is_remembered_until_the_cache_is_dropped)
{
    ploop_file *file = new_image(0);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 0), 3);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    ck_assert_int_eq(calls(SYNCS),
                     2); /* dirty pages are still written: they could not be dropped */
    expect_dropped(file);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ploop_file_close(file);
}
END_TEST

/* A second loss is reported before the cache is dropped, and not to the next SYNC after that. */
START_TEST(a_loss_after_a_failed_sync_is_told_before_the_cache_is_dropped)
{
    ploop_file *file = new_image(0);
    fail_next(SYNCS, 2, EIO);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    int sync_error;
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 0), 3);
    (void)file_drop_cache(file, &sync_error);
    ck_assert_int_eq(sync_error, -EIO);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ploop_file_close(file);
}
END_TEST

/* An open or a create whose SYNC fails reports it once: the next try sees the disk's content. */
START_TEST(an_open_or_create_that_failed_can_be_tried_again)
{
    ploop_file *file = new_image(0);
    ploop_dev *dev;
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = 1 << 20, .cluster_size = 4096};
    fail_next(SYNCS, 1, ENOSPC);
    ck_assert_int_eq(ploop_image_create(file, &options), -ENOSPC);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    fail_next(SYNCS, 1, ENOSPC);
    ck_assert_int_eq(ploop_dev_open(&file, 1, NULL, &dev), -EIO);
    ck_assert_int_eq(ploop_dev_open(&file, 1, NULL, &dev), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}
END_TEST

/* A recovery has dealt with the loss: no FUA write after it may fail because of it. */
START_TEST(the_descriptions_of_fua_writes_are_asked_for_old_errors)
{
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    uint32_t lanes = posix_of(file)->fua.count;
    ck_assert_uint_gt(lanes, 0);
    fail_next(SYNCS, 2 * (int)lanes, EIO);
    expect_dropped(file);
    ck_assert_int_eq(calls(SYNCS), 2 * (int)lanes);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ploop_file_close(file);
}
END_TEST

static void *sync_once(void *file)
{
    return (void *)(intptr_t)ploop_file_sync(file);
}

/* The kernel reports it to one of them. */
START_TEST(of_several_syncs_none_succeeds_after_one_that_failed)
{
    pthread_t threads[8];
    ploop_file *file = new_image(0);
    fail_next(SYNCS, 1, EIO);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, sync_once, file), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_int_eq((int)(intptr_t)result, -EIO);
    }
    ploop_file_close(file);
}
END_TEST

START_TEST(reopen_asks_the_old_description_first)
{
    ploop_file *file = new_image(PLOOP_FILE_DIRECT);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(reopen(file, RO), -EIO);
    ck_assert_int_eq(ploop_file_pwrite(file, "abc", 3, 0), 3); /* it is as it was */
    ck_assert(can_fua(file));
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    ck_assert_int_eq(reopen(file, RO), -EIO);
    ck_assert_int_eq(calls(SYNCS), 3);
    ck_assert_int_eq(fdatasync(posix_of(file)->fd), 0);
    expect_dropped(file);
    ck_assert_int_eq(reopen(file, RO), 0);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(reopen(file, RW), -EIO);
    ck_assert_int_eq(writable_descriptions(), 0);
    ck_assert_int_eq(reopen(file, RO | PLOOP_FILE_UNLOCKED),
                     0); /* of the locks alone: nothing is replaced */
    expect_dropped(file);
    ck_assert_int_eq(reopen(file, RW), 0);
    ploop_file_close(file);
}
END_TEST

/* ---- The cache ---- */

static void fill(ploop_file *file)
{
    char *bytes = calloc(1, SIZE);
    ck_assert_int_eq(ploop_file_pwrite(file, bytes, SIZE, 0), SIZE);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    free(bytes);
}

static bool is_cached(ploop_file *file)
{
    static unsigned char pages[SIZE / 4096];
    void *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, posix_of(file)->fd, 0);
    ck_assert(memory != MAP_FAILED);
    ck_assert_int_eq(mincore(memory, SIZE, pages), 0);
    ck_assert_int_eq(munmap(memory, SIZE), 0);
    return is_anything(pages, SIZE / 4096);
}

/*
 * A page that a process maps stays in the cache, and one such page is enough. With cachestat, and
 * without.
 */
START_TEST(invalidate_succeeds_only_if_nothing_stays)
{
    ploop_file *file = new_image(0);
    fill(file);
    ck_assert(is_cached(file));
    if (_i) {
        fail_next(CACHE_LOOKS, INT_MAX, ENOSYS);
    }
    char *mapped =
        mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, posix_of(file)->fd, SIZE - 4096);
    ck_assert(mapped != MAP_FAILED && mapped[0] == 0);
    ck_assert_int_eq(invalidate(file), -EBUSY);
    ck_assert(is_cached(file));
    ck_assert_int_eq(munmap(mapped, 4096), 0);
    ck_assert(!expect_dropped(file) || !is_cached(file));
    ploop_file_close(file);
}
END_TEST

/*
 * -EBUSY has told the caller what the error means; a caller that continues in spite of it needs
 * SYNCs that succeed.
 */
START_TEST(an_error_is_told_by_the_result_of_invalidate)
{
    ploop_file *file = new_image(0);
    fill(file);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    void *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, posix_of(file)->fd, 0);
    ck_assert_int_eq(invalidate(file), -EBUSY);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(munmap(mapped, 4096), 0);
    ploop_file_close(file);
}
END_TEST

START_TEST(where_the_cache_is_the_storage_nothing_is_dropped)
{
    struct statfs where;
    char name[] = "/dev/shm/ploop-test-XXXXXX";
    int fd = mkstemp(name);
    if (fd < 0 || fstatfs(fd, &where) || (uint32_t)where.f_type != TMPFS_MAGIC) {
        return; /* no tmpfs here */
    }
    ck_assert_int_eq(write(fd, "abc", 3), 3);
    close(fd);
    ploop_file *file;
    char bytes[3];
    ck_assert_int_eq(ploop_file_open_posix(name, RW, &file), 0);
    fail_next(SYNCS, 1, EIO);
    ck_assert_int_eq(ploop_file_sync(file), -EIO);
    ck_assert_int_eq(invalidate(file), 0);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(ploop_file_pread(file, bytes, 3, 0), 3);
    ck_assert_mem_eq(bytes, "abc", 3);
    ploop_file_close(file);
    unlink(name);
}
END_TEST

static Suite *durable_suite(void)
{
    Suite *suite = suite_create("posix_durable");
    TCase *all = tcase_create("posix_durable");
    add_fixtures(all);
    tcase_add_test(all, sync_has_a_description_of_its_own);
    tcase_add_loop_test(all, each_fua_write_has_a_description_to_itself, 0, 2);
    tcase_add_test(all, with_one_description_fua_writes_take_turns);
    tcase_add_test(all, without_a_description_of_its_own_there_is_no_fua);
    tcase_add_test(all, a_fua_write_that_fails_is_no_sync);
    tcase_add_test(all, a_read_only_file_has_no_description_that_writes);
    tcase_add_test(all, a_failed_sync_is_remembered_until_the_cache_is_dropped);
    tcase_add_test(all, a_loss_after_a_failed_sync_is_told_before_the_cache_is_dropped);
    tcase_add_test(all, an_open_or_create_that_failed_can_be_tried_again);
    tcase_add_test(all, the_descriptions_of_fua_writes_are_asked_for_old_errors);
    tcase_add_test(all, of_several_syncs_none_succeeds_after_one_that_failed);
    tcase_add_test(all, reopen_asks_the_old_description_first);
    tcase_add_loop_test(all, invalidate_succeeds_only_if_nothing_stays, 0, 2);
    tcase_add_test(all, an_error_is_told_by_the_result_of_invalidate);
    tcase_add_test(all, where_the_cache_is_the_storage_nothing_is_dropped);
    suite_add_tcase(suite, all);
    return suite;
}

int main(void)
{
    return run_suite(durable_suite());
}
