/* SPDX-License-Identifier: MIT */
/*
 * Merges in bundles: what each snapshot shows afterwards, which file is whose, and that a refused
 * or failed one leaves the bundle as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "bundle/stack.h"
#include "bundle_fixture.h"
#include "run_tests.h"

enum { TREE_ENTRIES = 4, LOCK = 1, SECTOR = 512, CLUSTER = 65536 };

static uint32_t number_of(const ploop_bundle *bundle, const char *guid)
{
    uint32_t number = UINT32_MAX;

    ck_assert_int_eq(ploop_bundle_find(bundle, guid, &number), 0);
    return number;
}

static const char *name_of(const ploop_bundle *bundle, const char *guid)
{
    static struct ploop_bundle_image image;

    image = (struct ploop_bundle_image){.size = sizeof(image)};
    ck_assert_int_eq(ploop_bundle_image(bundle, 0, number_of(bundle, guid), &image), 0);
    return image.name;
}

/* A snapshot, or the top, as a device: to write to it, or to look. */
static void opened(struct stack *stack, const ploop_bundle *bundle, const char *guid, bool reads)
{
    struct ploop_dev_config config;
    const struct stack_options options = {.config = &config};

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = reads ? PLOOP_DEV_READ_ONLY : 0;
    ck_assert_int_eq(stack_open(stack, bundle, 0, number_of(bundle, guid), &options), 0);
}

static void put(const ploop_bundle *bundle, const char *guid, uint64_t cluster, char byte)
{
    char sector[SECTOR];
    struct stack stack;

    memset(sector, byte, sizeof(sector));
    opened(&stack, bundle, guid, false);
    ck_assert_int_eq(ploop_dev_pwrite(stack.dev, sector, SECTOR, cluster * CLUSTER), SECTOR);
    ck_assert_int_eq(stack_close(&stack), 0);
}

/* The first byte of the first four clusters, as a text; 0 is '.'. Lasts until the next call. */
static const char *look(const ploop_bundle *bundle, const char *guid)
{
    static char text[5];
    char sector[SECTOR];
    struct stack stack;

    opened(&stack, bundle, guid, true);
    for (uint64_t i = 0; i < 4; i++) {
        ck_assert_int_eq(ploop_dev_pread(stack.dev, sector, SECTOR, i * CLUSTER), SECTOR);
        text[i] = sector[0] ? sector[0] : '.';
    }
    ck_assert_int_eq(stack_close(&stack), 0);
    return text;
}

/* A is root, B and the top are built on it. */
static ploop_bundle *tree(void)
{
    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    put(bundle, GUID_A, 0, 'a');
    put(bundle, GUID_A, 1, 'a');
    put(bundle, GUID_B, 1, 'b');
    put(bundle, GUID_TOP, 2, 't');
    return bundle;
}

/* The root, a snapshot on it, and the top on that; what was B is gone. */
static ploop_bundle *line(char *middle)
{
    ploop_bundle *bundle = tree();

    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_B)), 0);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, middle), 0);
    put(bundle, GUID_TOP, 3, 'u');
    put(bundle, GUID_TOP, 0, 'u');
    return bundle;
}

static void assert_counts(ploop_bundle **bundle, uint32_t snapshots, int images)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};

    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ploop_bundle_info(*bundle, &info), 0);
        ck_assert_uint_eq(info.snapshot_count, snapshots);
        ck_assert_int_eq(bundle_entries(), images + 1 + LOCK);
        ploop_bundle_close(*bundle);
        *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    }
}

/* In both directions the top shows what it did; up its own file stays, down its parent's. */
START_TEST(the_top_is_merged)
{
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);
    uint32_t direction = _i ? PLOOP_MERGE_DOWN : PLOOP_MERGE_UP;

    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ck_assert_str_eq(name_of(bundle, middle), "top");
    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, GUID_TOP), direction), 0);
    assert_counts(&bundle, 2, 2);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ck_assert_int_eq(strcmp(name_of(bundle, GUID_TOP), "top") == 0, direction == PLOOP_MERGE_DOWN);
    ck_assert_str_eq(look(bundle, GUID_A), "aa..");
    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, GUID_TOP), direction), 0);
    assert_counts(&bundle, 1, 1);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ck_assert_int_eq(ploop_bundle_merge(bundle, 0, direction), -EINVAL);
    ck_assert_ptr_nonnull(strstr(bundle_log, "this is the root"));
    ploop_bundle_close(bundle);
}
END_TEST

/* A snapshot below the top; what is built on it does not notice. */
START_TEST(a_snapshot_is_merged)
{
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);
    uint32_t direction = _i ? PLOOP_MERGE_DOWN : PLOOP_MERGE_UP;

    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, middle), direction), 0);
    assert_counts(&bundle, 2, 2);
    ck_assert_str_eq(look(bundle, middle), "aat.");
    ck_assert_str_eq(name_of(bundle, middle), _i ? "a" : "top");
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ploop_bundle_close(bundle);
}
END_TEST

/* Each of those that are built on it gets what it needs. */
START_TEST(a_snapshot_that_two_need_is_deleted)
{
    char middle[PLOOP_BUNDLE_GUID_SIZE], third[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);

    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, third), 0);
    ck_assert_int_eq(ploop_bundle_switch(bundle, number_of(bundle, middle)), 0);
    put(bundle, GUID_TOP, 1, 'v');
    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, GUID_TOP), PLOOP_MERGE_UP),
                     -EINVAL);
    ck_assert_ptr_nonnull(strstr(bundle_log, "other snapshots are built on its parent"));
    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, third), PLOOP_MERGE_DOWN),
                     -EINVAL);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, middle)), 0);
    assert_counts(&bundle, 3, 3);
    ck_assert_str_eq(look(bundle, GUID_TOP), "avt.");
    ck_assert_str_eq(look(bundle, third), "uatu");
    ck_assert_str_eq(look(bundle, GUID_A), "aa..");
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_A)), -ENOTSUP);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, third)), 0);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_A)), 0);
    assert_counts(&bundle, 1, 1);
    ck_assert_str_eq(look(bundle, GUID_TOP), "avt.");
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(what_cannot_be_merged)
{
    ploop_bundle *bundle = tree();

    ck_assert_int_eq(ploop_bundle_merge(bundle, 3, PLOOP_MERGE_UP), -ENOENT);
    ck_assert_int_eq(ploop_bundle_merge(bundle, 0, 0), -EINVAL);
    ck_assert_int_eq(ploop_bundle_merge(bundle, 0, PLOOP_MERGE_UP | PLOOP_MERGE_DOWN), -EINVAL);
    ck_assert_int_eq(ploop_bundle_merge(bundle, 0, PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS),
                     -EINVAL);
    ploop_bundle_close(bundle);
}
END_TEST

/* ---- Failures: the bundle is as it was ---- */

static void assert_fails(ploop_bundle *bundle, int error)
{
    for (uint32_t direction = PLOOP_MERGE_UP; direction <= PLOOP_MERGE_DOWN; direction++) {
        char *before = bundle_read("DiskDescriptor.xml");
        int entries = bundle_entries();
        uint32_t top = number_of(bundle, GUID_TOP);
        ck_assert_int_eq(ploop_bundle_merge(bundle, top, direction), error);
        char *after = bundle_read("DiskDescriptor.xml");
        ck_assert_str_eq(before, after);
        ck_assert_int_eq(bundle_entries(), entries);
        free(before);
        free(after);
    }
}

START_TEST(an_image_in_use)
{
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);
    const char *names[] = {name_of(bundle, GUID_TOP), "top", "a"};
    uint32_t flags = _i < 2 ? PLOOP_FILE_READ_ONLY : PLOOP_FILE_READ_WRITE;
    ploop_file *file;

    /* The parent may be read while it is merged up, but not be removed then. */
    ck_assert_int_eq(ploop_file_open_posix(bundle_file(names[_i]), flags, &file), 0);
    assert_fails(bundle, -EAGAIN);
    ck_assert_ptr_nonnull(strstr(bundle_log, "another pro"));
    ploop_file_close(file);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ploop_bundle_close(bundle);
}
END_TEST

static void poke(const char *name, off_t at, uint32_t value)
{
    int fd = open(bundle_file(name), O_WRONLY);

    ck_assert_int_eq(pwrite(fd, &value, sizeof(value), at), sizeof(value));
    close(fd);
}

/* Another size, another cluster size, no image, not closed cleanly. */
START_TEST(an_image_that_does_not_fit)
{
    static const struct {
        off_t at;
        uint32_t value;
        int error;
    } pokes[] = {
        {0, 0, -EINVAL}, {28, 64, -EUCLEAN}, {36, 16256, -EUCLEAN}, {44, 0x746F6E59, -EUCLEAN}};
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);

    poke("top", pokes[_i].at, pokes[_i].value);
    assert_fails(bundle, pokes[_i].error);
    ck_assert_ptr_nonnull(strstr(bundle_log, "'top'"));
    ploop_bundle_close(bundle);
}
END_TEST

/* The XML cannot be written: the copy is made, and the bundle shows the same. */
START_TEST(an_xml_that_cannot_be_written)
{
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);

    ck_assert_int_eq(mkdir(bundle_file("DiskDescriptor.xml.new"), 0700), 0);
    assert_fails(bundle, -EEXIST);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    rmdir(bundle_file("DiskDescriptor.xml.new"));
    ck_assert_int_eq(ploop_bundle_merge(bundle, number_of(bundle, GUID_TOP), PLOOP_MERGE_UP), 0);
    assert_counts(&bundle, 2, 2);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ploop_bundle_close(bundle);
}
END_TEST

static uint64_t progress_calls;

static int stop(void *user_data, uint64_t done, uint64_t total)
{
    (void)user_data;
    ck_assert_uint_le(done, total);
    progress_calls++;
    return 1;
}

START_TEST(a_merge_is_cancelled)
{
    struct ploop_bundle_config config = {.size = sizeof(config), .flags = PLOOP_BUNDLE_READ_WRITE};
    char middle[PLOOP_BUNDLE_GUID_SIZE];
    ploop_bundle *bundle = line(middle);

    ploop_bundle_close(bundle);
    config.progress = stop;
    config.merge_rate = 1; /* so that it is not over before */
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, &config, &bundle), 0);
    assert_fails(bundle, -ECANCELED);
    ck_assert_uint_ge(progress_calls, 2);
    ck_assert_str_eq(look(bundle, GUID_TOP), "uatu");
    ploop_bundle_close(bundle);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bundle-merge");

    tcase_add_checked_fixture(tests, bundle_setup, bundle_teardown);
    tcase_set_timeout(tests, 60); /* each opens and closes files many times, durably */

    tcase_add_loop_test(tests, the_top_is_merged, 0, 2);
    tcase_add_loop_test(tests, a_snapshot_is_merged, 0, 2);
    tcase_add_test(tests, a_snapshot_that_two_need_is_deleted);
    tcase_add_test(tests, what_cannot_be_merged);
    tcase_add_loop_test(tests, an_image_in_use, 0, 3);
    tcase_add_loop_test(tests, an_image_that_does_not_fit, 0, 4);
    tcase_add_test(tests, an_xml_that_cannot_be_written);
    tcase_add_test(tests, a_merge_is_cancelled);
    return run_case("bundle-merge", tests);
}
