/* SPDX-License-Identifier: MIT */
/*
 * Changes of bundles: what is in the directory afterwards, and that a refused change leaves it, and
 * the handle, as they were.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "bundle/guid.h"
#include "bundle/top.h"
#include "bundle_fixture.h"
#include "run_tests.h"

enum { TREE_ENTRIES = 4, LOCK = 1 };

static uint32_t number_of(const ploop_bundle *bundle, const char *guid)
{
    uint32_t number = UINT32_MAX;

    ck_assert_int_eq(ploop_bundle_find(bundle, guid, &number), 0);
    return number;
}

static struct ploop_bundle_image image_of(const ploop_bundle *bundle, const char *guid)
{
    struct ploop_bundle_image image = {.size = sizeof(image)};

    ck_assert_int_eq(ploop_bundle_image(bundle, 0, number_of(bundle, guid), &image), 0);
    return image;
}

/* The GUID of a snapshot's parent; "": it has none. Lasts until the next call. */
static const char *parent_of(const ploop_bundle *bundle, const char *guid)
{
    static struct ploop_bundle_snapshot parent;
    struct ploop_bundle_snapshot snapshot = {.size = sizeof(snapshot)};

    parent = snapshot;
    ck_assert_int_eq(ploop_bundle_snapshot(bundle, number_of(bundle, guid), &snapshot), 0);
    if (snapshot.parent == UINT32_MAX) {
        return "";
    }
    ck_assert_int_eq(ploop_bundle_snapshot(bundle, snapshot.parent, &parent), 0);
    return parent.guid;
}

static void assert_counts(const ploop_bundle *bundle, uint32_t snapshots, int entries)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};

    ck_assert_int_eq(ploop_bundle_info(bundle, &info), 0);
    ck_assert_uint_eq(info.snapshot_count, snapshots);
    ck_assert_int_eq(bundle_entries(), entries);
    ck_assert_uint_eq(info.top, number_of(bundle, GUID_TOP));
}

/* The same, of the handle and of one that is opened anew. */
static void assert_both(ploop_bundle **bundle, uint32_t snapshots, int entries)
{
    assert_counts(*bundle, snapshots, entries);
    ploop_bundle_close(*bundle);
    *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    assert_counts(*bundle, snapshots, entries);
}

/* Write a byte to the disk whose only image this is, to map a cluster. */
static void write_data(const char *name)
{
    static const char sector[512] = "data";
    ploop_file *file;
    ploop_dev *dev;

    ck_assert_int_eq(ploop_file_open_posix(bundle_file(name), PLOOP_FILE_READ_WRITE, &file), 0);
    ck_assert_int_eq(ploop_dev_open(&file, 1, NULL, &dev), 0);
    ck_assert_int_eq(ploop_dev_pwrite(dev, sector, sizeof(sector), 0), sizeof(sector));
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
}

START_TEST(a_snapshot_is_taken)
{
    char guid[PLOOP_BUNDLE_GUID_SIZE];
    struct ploop_image_info info = {.size = sizeof(info)};
    ploop_file *file;

    bundle_write_tree();
    ck_assert_int_eq(chmod(bundle_file("DiskDescriptor.xml"), 0640), 0);
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, guid), 0);
    assert_both(&bundle, 4, TREE_ENTRIES + LOCK + 1);
    ck_assert_str_eq(image_of(bundle, guid).name, "top");
    ck_assert_str_eq(parent_of(bundle, guid), GUID_A);
    ck_assert_str_eq(parent_of(bundle, GUID_TOP), guid);

    ck_assert_int_eq(
        ploop_file_open_posix(image_of(bundle, GUID_TOP).path, PLOOP_FILE_READ_ONLY, &file), 0);
    ck_assert_int_eq(ploop_image_probe(file, &info), 0);
    ck_assert_uint_eq(info.version, 1); /* as the one below */
    ck_assert_uint_eq(info.disk_size, 8388608);
    ck_assert_uint_eq(info.cluster_size, 65536);
    ploop_file_close(file);

    struct stat status;
    char *text = bundle_read("DiskDescriptor.xml");
    ck_assert_ptr_nonnull(strstr(text, "<Name>kept</Name>")); /* what we do not know */
    ck_assert_ptr_null(strstr(text, "TopGUID"));
    ck_assert_int_eq(stat(bundle_file("DiskDescriptor.xml"), &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0640);
    free(text);
    ploop_bundle_close(bundle);
}
END_TEST

/* A plain root gets an image on it; a lone snapshot with an unusual GUID has to be named. */
START_TEST(a_snapshot_of_a_plain_root)
{
    static const char plain[] =
        "<Parallels_disk_image><Disk_Parameters><Disk_size>128</Disk_size></Disk_Parameters>"
        "<StorageData><Storage><Start>0</Start><End>128</End><Blocksize>64</Blocksize>"
        "<Image><GUID>" GUID_A "</GUID><Type>Plain</Type><File>raw</File></Image></Storage>"
        "</StorageData><Snapshots><Shot><GUID>" GUID_A "</GUID><ParentGUID>" GUID_NONE
        "</ParentGUID></Shot></Snapshots></Parallels_disk_image>";
    static const char bytes[65536] = "raw";
    char guid[PLOOP_BUNDLE_GUID_SIZE];

    bundle_write_xml(plain);
    bundle_write("raw", bytes, sizeof(bytes));
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, guid), 0);
    ploop_bundle_close(bundle);
    bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_uint_eq(image_of(bundle, guid).type, PLOOP_BUNDLE_PLAIN);
    ck_assert_str_eq(parent_of(bundle, guid), "");
    ck_assert_uint_eq(image_of(bundle, GUID_A).type, PLOOP_BUNDLE_EXPANDING);
    ck_assert_str_eq(parent_of(bundle, GUID_A), guid);
    char *text = bundle_read("DiskDescriptor.xml");
    ck_assert_ptr_nonnull(strstr(text, "<TopGUID>" GUID_A "</TopGUID>"));
    free(text);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), 0);
    ck_assert_str_ne(parent_of(bundle, GUID_A), guid);
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(the_disk_goes_back_to_a_snapshot)
{
    bundle_write_tree();
    write_data("top");
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_switch(bundle, number_of(bundle, GUID_TOP)), -EINVAL);
    ck_assert_int_eq(ploop_bundle_switch(bundle, 3), -ENOENT);
    ck_assert_int_eq(ploop_bundle_switch(bundle, number_of(bundle, GUID_B)), 0);
    assert_both(&bundle, 3, TREE_ENTRIES + LOCK);
    ck_assert_str_eq(parent_of(bundle, GUID_TOP), GUID_B);
    ck_assert(!bundle_has("top"));
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(a_snapshot_that_nothing_needs_is_deleted)
{
    bundle_write_tree();
    write_data("a");
    write_data("b"); /* its data goes with it */
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_TOP)), -EINVAL);
    ck_assert_int_eq(ploop_bundle_delete(bundle, 3), -ENOENT);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_A)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(bundle_log, "more than one snapshot is built on this one"));
    assert_counts(bundle, 3, TREE_ENTRIES + LOCK);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_B)), 0);
    assert_both(&bundle, 2, TREE_ENTRIES + LOCK - 1);
    ck_assert(!bundle_has("b"));
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(an_empty_snapshot_is_deleted_between_others)
{
    char guid[PLOOP_BUNDLE_GUID_SIZE];

    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, guid), 0);
    ploop_file *other; /* that what is built on it is in use does not matter */
    ck_assert_int_eq(
        ploop_file_open_posix(image_of(bundle, GUID_TOP).path, PLOOP_FILE_READ_ONLY, &other), 0);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, guid)), 0);
    ploop_file_close(other);
    assert_both(&bundle, 3, TREE_ENTRIES + LOCK);
    ck_assert_str_eq(parent_of(bundle, GUID_TOP), GUID_A);
    ploop_bundle_close(bundle);
}
END_TEST

/* ---- Refusals ---- */

START_TEST(a_bundle_that_is_only_read_is_not_changed)
{
    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_ONLY);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), -EBADF);
    ck_assert_int_eq(ploop_bundle_switch(bundle, 0), -EBADF);
    ck_assert_int_eq(ploop_bundle_delete(bundle, 0), -EBADF);
    ck_assert_int_eq(ploop_bundle_merge(bundle, 0, PLOOP_MERGE_UP), -EBADF);
    assert_counts(bundle, 3, TREE_ENTRIES);
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(one_program_changes_a_bundle)
{
    ploop_bundle *bundle, *second;

    bundle_write_tree();
    bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(bundle_open_dir(PLOOP_BUNDLE_READ_WRITE, &second), -EAGAIN);
    ck_assert_ptr_nonnull(strstr(bundle_log, "another program changes it"));
    ck_assert_int_eq(bundle_open_dir(PLOOP_BUNDLE_READ_ONLY, &second), 0);
    ploop_bundle_close(second);
    ploop_bundle_close(bundle);
    /* OpenVZ's ploop */
    int fd = open(bundle_file("DiskDescriptor.xml.lck"), O_RDWR);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(bundle_open_dir(PLOOP_BUNDLE_READ_WRITE, &second), -EAGAIN);
    close(fd);
}
END_TEST

/* Each change, refused: nothing is left behind, in the directory and in the handle. */
static void assert_all_refused(ploop_bundle *bundle, int error)
{
    char *before = bundle_read("DiskDescriptor.xml");
    int entries = bundle_entries();

    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), error);
    assert_counts(bundle, 3, entries);
    ck_assert_int_eq(ploop_bundle_switch(bundle, number_of(bundle, GUID_B)), error);
    assert_counts(bundle, 3, entries);
    char *after = bundle_read("DiskDescriptor.xml");
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
}

START_TEST(an_image_in_use_is_left_alone)
{
    ploop_file *top, *b;

    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_file_open_posix(bundle_file("top"), PLOOP_FILE_READ_ONLY, &top), 0);
    ck_assert_int_eq(ploop_file_open_posix(bundle_file("b"), PLOOP_FILE_READ_ONLY, &b), 0);
    assert_all_refused(bundle, -EAGAIN);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_B)), -EAGAIN);
    ploop_file_close(top);
    ploop_file_close(b);
    ploop_bundle_close(bundle);
}
END_TEST

static void poke(const char *name, off_t at, uint32_t value)
{
    int fd = open(bundle_file(name), O_WRONLY);

    ck_assert_int_eq(pwrite(fd, &value, sizeof(value), at), sizeof(value));
    close(fd);
}

START_TEST(an_image_that_does_not_fit_is_refused)
{
    static const struct {
        off_t at;
        uint32_t value;
    } pokes[] = {{0, 0}, {28, 64}, {36, 16256}, {44, 0x746F6E59}};

    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    poke("top", pokes[_i].at, pokes[_i].value);
    poke("b", pokes[_i].at, pokes[_i].value);
    assert_all_refused(bundle, -EUCLEAN);
    ck_assert_ptr_nonnull(strstr(bundle_log, "'b'"));
    ploop_bundle_close(bundle);
}
END_TEST

/* The new XML cannot be written: something sits where its other name goes. */
START_TEST(an_xml_that_cannot_be_written)
{
    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(mkdir(bundle_file("DiskDescriptor.xml.new"), 0700), 0);
    assert_all_refused(bundle, -EEXIST);
    ck_assert_int_eq(ploop_bundle_delete(bundle, number_of(bundle, GUID_B)), -EEXIST);
    ck_assert(bundle_has("b"));
    rmdir(bundle_file("DiskDescriptor.xml.new"));
    bundle_write("DiskDescriptor.xml.new", "left by a crash", 15);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), 0);
    assert_both(&bundle, 4, TREE_ENTRIES + LOCK + 1);
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(clusters_that_are_not_created)
{
    bundle_write_tree();
    char *plain = bundle_replaced(
        "<Parallels_disk_image><Disk_Parameters><Disk_size>126</Disk_size></Disk_Parameters>"
        "<StorageData><Storage><Start>0</Start><End>126</End><Blocksize>63</Blocksize>"
        "<Image><GUID>" GUID_TOP "</GUID><Type>Plain</Type><File>a</File></Image></Storage>"
        "</StorageData><Snapshots><Shot><GUID>" GUID_TOP "</GUID><ParentGUID>@</ParentGUID></Shot>"
        "</Snapshots></Parallels_disk_image>",
        "@", GUID_NONE);
    bundle_write_xml(plain);
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(bundle_log, "are read, but not created"));
    assert_counts(bundle, 1, TREE_ENTRIES + LOCK);
    ploop_bundle_close(bundle);
    free(plain);
}
END_TEST

/* ---- New bundles ---- */

static int create(const char *name, uint32_t version, uint64_t disk_size)
{
    struct ploop_bundle_options options = {.size = sizeof(options)};

    options.version = version;
    options.disk_size = disk_size;
    options.cluster_size = 65536;
    return ploop_bundle_create(bundle_file(name), &options);
}

static void remove_created(const char *name, const char *image, const char *marker)
{
    char path[3][512];

    snprintf(path[0], sizeof(path[0]), "%s/%s/%s", bundle_dir, name, image);
    snprintf(path[1], sizeof(path[1]), "%s/%s/%s", bundle_dir, name, "DiskDescriptor.xml");
    snprintf(path[2], sizeof(path[2]), "%s/%s/%s", bundle_dir, name, marker ? marker : "");
    ck_assert_int_eq(unlink(path[0]), 0);
    ck_assert_int_eq(unlink(path[1]), 0);
    ck_assert_int_eq(marker ? unlink(path[2]) : 0, 0);
    ck_assert_int_eq(rmdir(bundle_file(name)), 0); /* there was nothing else in it */
}

START_TEST(a_bundle_is_created)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    ploop_bundle *bundle;

    for (uint32_t version = 0; version <= 2; version++) {
        ck_assert_int_eq(create("x<&>.hdd", version, 8388608 + 512), 0);
        ck_assert_int_eq(create("x<&>.hdd", version, 8388608), -EEXIST);
        ck_assert_int_eq(ploop_bundle_open(bundle_file("x<&>.hdd"), NULL, &bundle), 0);
        ck_assert_int_eq(ploop_bundle_info(bundle, &info), 0);
        ck_assert_uint_eq(info.disk_size, 8388608 + 512);
        ck_assert_uint_eq(info.snapshot_count, 1);
        ck_assert_str_eq(image_of(bundle, GUID_TOP).name,
                         version == 1 ? "x<&>.hdd.0." GUID_TOP ".hds" : "root.hds");
        ploop_bundle_close(bundle);
        remove_created("x<&>.hdd", version == 1 ? "x<&>.hdd.0." GUID_TOP ".hds" : "root.hds",
                       version == 1 ? "x<&>.hdd" : NULL);
    }
    /* Names that suit no XML */
    ck_assert_int_eq(create("\xff\xfe///", 1, 8388608), 0);
    remove_created("\xff\xfe", "disk.hdd.0." GUID_TOP ".hds", "disk.hdd");
    ck_assert_int_eq(create(".hdd", 1, 8388608), 0);
    remove_created(".hdd", ".hdd.hdd.0." GUID_TOP ".hds", ".hdd.hdd");
}
END_TEST

START_TEST(a_bundle_that_cannot_be_created)
{
    struct ploop_bundle_options options = {.size = sizeof(options), .disk_size = 512};

    ck_assert_int_eq(create("x", 3, 8388608), -EINVAL);
    ck_assert_int_eq(create("x", 2, 0), -EINVAL);
    ck_assert_int_eq(create("x", 2, 513), -EINVAL);
    ck_assert_int_eq(create("x", 1, UINT64_C(1) << 44), -EFBIG);
    ck_assert_int_eq(create("x/y", 1, 8388608), -ENOENT);
    ck_assert_int_eq(ploop_bundle_create("x", NULL), -EINVAL);
    ck_assert_int_eq(ploop_bundle_create("", &options), -EINVAL);
    options.cluster_size = 5000;
    ck_assert_int_eq(ploop_bundle_create(bundle_file("x"), &options), -EINVAL);
    options.reserved[0] = 1;
    ck_assert_int_eq(ploop_bundle_create(bundle_file("x"), &options), -E2BIG);
    ck_assert_int_eq(bundle_entries(), 0);
}
END_TEST

START_TEST(names_of_new_images)
{
    static const struct {
        const char *root, *name;
    } names[] = {
        {"root.hds", "root.hds." GUID_A},
        {"x.hdd.0." GUID_TOP ".hds", "x.hdd.0." GUID_A ".hds"},
        {GUID_TOP ".hds", GUID_TOP ".hds." GUID_A}, /* a GUID alone is no name to replace */
        {"x" GUID_TOP, "x" GUID_TOP "." GUID_A},
        {"", "." GUID_A},
    };
    struct guid guid;

    ck_assert(guid_parse(GUID_A, &guid));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *name = name_of_top(names[i].root, &guid);
        ck_assert_str_eq(name, names[i].name);
        free(name);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bundle-change");

    tcase_add_checked_fixture(tests, bundle_setup, bundle_teardown);
    tcase_add_test(tests, a_snapshot_is_taken);
    tcase_add_test(tests, a_snapshot_of_a_plain_root);
    tcase_add_test(tests, the_disk_goes_back_to_a_snapshot);
    tcase_add_test(tests, a_snapshot_that_nothing_needs_is_deleted);
    tcase_add_test(tests, an_empty_snapshot_is_deleted_between_others);
    tcase_add_test(tests, a_bundle_that_is_only_read_is_not_changed);
    tcase_add_test(tests, one_program_changes_a_bundle);
    tcase_add_test(tests, an_image_in_use_is_left_alone);
    tcase_add_loop_test(tests, an_image_that_does_not_fit_is_refused, 0, 4);
    tcase_add_test(tests, an_xml_that_cannot_be_written);
    tcase_add_test(tests, clusters_that_are_not_created);
    tcase_add_test(tests, a_bundle_is_created);
    tcase_add_test(tests, a_bundle_that_cannot_be_created);
    tcase_add_test(tests, names_of_new_images);
    return run_case("bundle-change", tests);
}
