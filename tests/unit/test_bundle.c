/* SPDX-License-Identifier: MIT */
/* Reading bundles: what they say, and every refusal, by its error and its line. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "bundle_fixture.h"
#include "run_tests.h"

static void assert_snapshot(const ploop_bundle *bundle, const char *guid, const char *parent,
                            uint32_t children, const char *name)
{
    struct ploop_bundle_snapshot snapshot = {.size = sizeof(snapshot)}, above = snapshot;
    struct ploop_bundle_image image = {.size = sizeof(image)};
    uint32_t number;

    ck_assert_int_eq(ploop_bundle_find(bundle, guid, &number), 0);
    ck_assert_int_eq(ploop_bundle_snapshot(bundle, number, &snapshot), 0);
    ck_assert_str_eq(snapshot.guid, guid);
    ck_assert_uint_eq(snapshot.child_count, children);
    if (parent) {
        ck_assert_int_eq(ploop_bundle_snapshot(bundle, snapshot.parent, &above), 0);
        ck_assert_str_eq(above.guid, parent);
    } else {
        ck_assert_uint_eq(snapshot.parent, UINT32_MAX);
    }
    ck_assert_int_eq(ploop_bundle_image(bundle, 0, number, &image), 0);
    ck_assert_uint_eq(image.snapshot, number);
    ck_assert_uint_eq(image.type, PLOOP_BUNDLE_EXPANDING);
    ck_assert_str_eq(image.name, name);
    ck_assert_str_eq(image.path, bundle_file(name));
}

START_TEST(a_tree_is_read)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct ploop_bundle_storage storage = {.size = sizeof(storage)};
    uint32_t chain[2], number;

    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_ONLY);
    ck_assert_int_eq(ploop_bundle_info(bundle, &info), 0);
    ck_assert_uint_eq(info.disk_size, 8388608);
    ck_assert_uint_eq(info.storage_count, 1);
    ck_assert_uint_eq(info.snapshot_count, 3);
    assert_snapshot(bundle, GUID_A, NULL, 2, "a");
    assert_snapshot(bundle, GUID_B, GUID_A, 0, "b");
    assert_snapshot(bundle, GUID_TOP, GUID_A, 0, "top");
    ck_assert_int_eq(ploop_bundle_find(bundle, GUID_TOP, &number), 0);
    ck_assert_uint_eq(info.top, number);
    ck_assert_int_eq(ploop_bundle_storage(bundle, 0, &storage), 0);
    ck_assert_uint_eq(storage.start, 0);
    ck_assert_uint_eq(storage.end, 8388608);
    ck_assert_uint_eq(storage.cluster_size, 65536);

    ck_assert_int_eq(ploop_bundle_chain(bundle, info.top, chain, 2), 2);
    ck_assert_int_eq(ploop_bundle_find(bundle, GUID_A, &number), 0);
    ck_assert_uint_eq(chain[0], number);
    ck_assert_uint_eq(chain[1], info.top);
    chain[1] = 77;
    ck_assert_int_eq(ploop_bundle_chain(bundle, info.top, chain, 1), 2);
    ck_assert_uint_eq(chain[1], 77);
    ck_assert_int_eq(bundle_entries(), 4); /* reading leaves nothing behind */
    ploop_bundle_close(bundle);
}
END_TEST

START_TEST(questions_are_judged)
{
    struct ploop_bundle_info info = {.size = 8};
    struct ploop_bundle_snapshot snapshot = {.size = 8};
    struct ploop_bundle_storage storage = {.size = 8};
    struct ploop_bundle_image image = {.size = 8};
    uint32_t number;

    bundle_write_tree();
    ploop_bundle *bundle = bundle_opened(0);
    ck_assert_int_eq(ploop_bundle_info(bundle, &info), -EINVAL);
    ck_assert_int_eq(ploop_bundle_snapshot(bundle, 0, &snapshot), -EINVAL);
    ck_assert_int_eq(ploop_bundle_storage(bundle, 0, &storage), -EINVAL);
    ck_assert_int_eq(ploop_bundle_image(bundle, 0, 0, &image), -EINVAL);
    ck_assert_int_eq(ploop_bundle_snapshot(bundle, 3, &snapshot), -ENOENT);
    ck_assert_int_eq(ploop_bundle_storage(bundle, 1, &storage), -ENOENT);
    ck_assert_int_eq(ploop_bundle_image(bundle, 1, 0, &image), -ENOENT);
    ck_assert_int_eq(ploop_bundle_image(bundle, 0, 3, &image), -ENOENT);
    ck_assert_int_eq(ploop_bundle_chain(bundle, 3, NULL, 0), -ENOENT);
    ck_assert_int_eq(ploop_bundle_find(bundle, GUID_NONE, &number), -ENOENT);
    ck_assert_int_eq(ploop_bundle_find(bundle, "5fbaabe3", &number), -EINVAL);
    ck_assert_int_eq(ploop_bundle_find(bundle, GUID_TOP "}", &number), -EINVAL);
    ck_assert_int_eq(ploop_bundle_find(bundle, "{5FBAABE3-6958-40FF-92A7-860E329AAB41}", &number),
                     0);
    ploop_bundle_close(bundle);
    ploop_bundle_close(NULL);
}
END_TEST

START_TEST(arguments_are_judged)
{
    struct ploop_bundle_config config = {.size = sizeof(config)};
    ploop_bundle *bundle;

    bundle_write_tree();
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, NULL, NULL), -EINVAL);
    ck_assert_int_eq(ploop_bundle_open(NULL, NULL, &bundle), -EINVAL);
    config.flags = PLOOP_BUNDLE_READ_ONLY | PLOOP_BUNDLE_READ_WRITE;
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, &config, &bundle), -EINVAL);
    config.flags = 4;
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, &config, &bundle), -EINVAL);
    config = (struct ploop_bundle_config){.size = 4};
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, &config, &bundle), -EINVAL);
    config = (struct ploop_bundle_config){.size = sizeof(config), .reserved = {1}};
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, &config, &bundle), -E2BIG);
    ck_assert_ptr_null(bundle);
    ck_assert_int_eq(ploop_bundle_open("no such directory", NULL, &bundle), -ENOENT);
    ck_assert_int_eq(ploop_bundle_open(bundle_dir, NULL, &bundle), 0);
    ploop_bundle_close(bundle);
    ck_assert_int_eq(ploop_bundle_open(bundle_file("DiskDescriptor.xml"), NULL, &bundle), 0);
    ploop_bundle_close(bundle);
}
END_TEST

/* One thing changed in the tree's XML, and what that gets. */
static const struct {
    const char *old, *new;
    int error;
    const char *said;
} faults[] = {
    {"</Snapshots>", "", -EUCLEAN, "line "},
    {"</Parallels_disk_image>", "</Parallels_disk_image><more/>", -EUCLEAN, "line "},
    {"<Name>kept", "<Name>&unknown;", -EUCLEAN, "line "},
    {"<Parallels_disk_image", "<!DOCTYPE x><Parallels_disk_image", -EUCLEAN, "document type"},
    {"<Parallels_disk_image", "<!DOCTYPE x [<!ENTITY e \"v\">]><Parallels_disk_image", -EUCLEAN,
     "document type"},
    {"<Parallels_disk_image", "<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><Parallels_disk_image",
     -EUCLEAN, "document type"},
    {"Parallels_disk_image Version=\"1.0\">", "x><Parallels_disk_image>", -EUCLEAN, "line "},
    {"<Snapshots>", "<Snapshots/><Snapshots>", -EUCLEAN, "more than one Snapshots"},
    {"<Disk_size>16384</Disk_size>", "", -EUCLEAN, "no Disk_size"},
    {"<Disk_size>16384</Disk_size>", "<Disk_size>16384</Disk_size><Disk_size>1</Disk_size>",
     -EUCLEAN, "more than one Disk_size"},
    {"<Disk_size>16384", "<Disk_size>-1", -EUCLEAN, "'-1' is not a number"},
    {"<Disk_size>16384", "<Disk_size>0x10", -EUCLEAN, "is not a number"},
    {"<Disk_size>16384", "<Disk_size>", -EUCLEAN, "'' is not a number"},
    {"<Disk_size>16384", "<Disk_size>1<x/>6384", -EUCLEAN, "Disk_size cannot be read"},
    {"<Disk_size>16384", "<Disk_size>99999999999999999999", -EUCLEAN, "is not a number"},
    {"<Disk_size>16384", "<Disk_size>99999999999999999", -EUCLEAN, "Disk_size is"},
    {"<Disk_size>16384", "<Disk_size>0", -EUCLEAN, "Disk_size is 0"},
    {"<Disk_size>16384", "<Disk_size>16385", -EUCLEAN, "the storages end at sector 16384"},
    {"<Disk_size>16384", "<Disk_size>16383", -EUCLEAN, "one behind the other"},
    {"<Start>0", "<Start>1", -EUCLEAN, "one behind the other"},
    {"<End>16384", "<End>0", -EUCLEAN, "one behind the other"},
    {"<Blocksize>128", "<Blocksize>0", -EUCLEAN, "Blocksize is 0"},
    {"<Blocksize>128", "<Blocksize>4294967296", -EUCLEAN, "Blocksize is"},
    {"<Padding>0", "<Padding>1", -ENOTSUP, "padding"},
    {"<Name>", "<Encryption><Engine>" GUID_A "</Engine></Encryption><Name>", -ENOTSUP, "encrypted"},
    {"<Name>", "<Encryption><KeyId>k</KeyId></Encryption><Name>", -ENOTSUP, "encrypted"},
    {"<Name>", "<Encryption><KeyId>k</KeyId><KeyId/></Encryption><Name>", -EUCLEAN, "KeyId"},
    {"<GUID>" GUID_B, "<GUID>nonsense", -EUCLEAN, "GUID 'nonsense' is not a GUID"},
    {"<GUID>" GUID_B, "<GUID>" GUID_NONE, -EUCLEAN, "no Shot has an image's GUID"},
    {"<GUID>" GUID_B, "<GUID>" GUID_A, -EUCLEAN, "two images of a Storage"},
    {"<Shot><GUID>" GUID_B, "<Shot><GUID>" GUID_A, -EUCLEAN, "two Shots with the GUID " GUID_A},
    {"<Shot><GUID>" GUID_B, "<Shot><GUID>" GUID_NONE, -EUCLEAN, "a Shot's GUID is zero"},
    {"<ParentGUID>" GUID_NONE, "<ParentGUID>{12345678-9abc-def0-1234-56789abcdef0}", -EUCLEAN,
     "no Shot has the ParentGUID {12345678-9abc-def0-1234-56789abcdef0}"},
    {"<ParentGUID>" GUID_NONE, "<ParentGUID>" GUID_B, -EUCLEAN, "0 snapshots have no parent"},
    {"<ParentGUID>" GUID_A, "<ParentGUID>" GUID_NONE, -EUCLEAN, "2 snapshots have no parent"},
    {"<Shot><GUID>" GUID_B "</GUID><ParentGUID>" GUID_A,
     "<Shot><GUID>" GUID_B "</GUID><ParentGUID>" GUID_B, -EUCLEAN, "each other's parents"},
    {"<Snapshots>", "<Snapshots><TopGUID>" GUID_A "</TopGUID>", -EUCLEAN, "is built on the top"},
    {"<Snapshots>", "<Snapshots><TopGUID>" GUID_NONE "</TopGUID>", -EUCLEAN, "there is no top"},
    {"<Snapshots>", "<Snapshots><TopGUID/>", -EUCLEAN, "TopGUID '' is not a GUID"},
    {"<File>b", "<File>a", -EUCLEAN, "two images are the file 'a'"},
    {"<File>b", "<File>/etc/passwd", -EUCLEAN, "'/etc/passwd' is not in the bundle's directory"},
    {"<File>b", "<File>../b", -EUCLEAN, "is not in the bundle's directory"},
    {"<File>b", "<File>..", -EUCLEAN, "is not in the bundle's directory"},
    {"<File>b", "<File>.", -EUCLEAN, "is not in the bundle's directory"},
    {"<File>b", "<File>x/b", -EUCLEAN, "is not in the bundle's directory"},
    {"<File>b", "<File>", -EUCLEAN, "is not in the bundle's directory"},
    {"<File>b", "<File>x&#10;y", -ENOENT, "its image 'x?y'"},
    {"<File>b", "<File>missing", -ENOENT, "its image 'missing': No such file"},
    {"<Type>Compressed", "<Type>Plain", -EUCLEAN, "is plain and has a parent"},
    {"<Type>Compressed", "<Type>Other", -EUCLEAN, "neither Compressed nor Plain"},
};

START_TEST(a_fault_is_refused)
{
    ploop_bundle *bundle = (ploop_bundle *)bundle_dir;
    char *text = bundle_replaced(bundle_tree_xml(), faults[_i].old, faults[_i].new);

    bundle_write_tree();
    bundle_write_xml(text);
    int error = bundle_open_dir(0, &bundle);
    ck_assert_msg(error == faults[_i].error && strstr(bundle_log, faults[_i].said),
                  "%s: error %d, expected %d and '%s'; said: %s", faults[_i].new, error,
                  faults[_i].error, faults[_i].said, bundle_log);
    ck_assert_uint_eq(bundle_log_level, PLOOP_LOG_ERROR);
    ck_assert_ptr_null(bundle);
    free(text);
}
END_TEST

static void assert_refused(int error, const char *said)
{
    ploop_bundle *bundle;

    ck_assert_int_eq(bundle_open_dir(0, &bundle), error);
    ck_assert_msg(strstr(bundle_log, said) != NULL, "said: %s", bundle_log);
}

START_TEST(only_plain_files_are_images)
{
    bundle_write_tree();
    unlink(bundle_file("b"));
    ck_assert_int_eq(symlink("a", bundle_file("b")), 0);
    assert_refused(-EUCLEAN, "'b' is a symbolic link");
    unlink(bundle_file("b"));
    ck_assert_int_eq(mkfifo(bundle_file("b"), 0600), 0);
    assert_refused(-EUCLEAN, "'b' is neither file nor block device");
}
END_TEST

START_TEST(only_a_file_of_1_MiB_is_an_XML)
{
    char *text = malloc(PLOOP_BUNDLE_XML_SIZE_MAX + 1);
    size_t length = strlen(bundle_tree_xml());
    ploop_bundle *bundle;

    assert_refused(-ENOENT, "DiskDescriptor.xml: No such file");
    bundle_write_tree();
    memset(text, ' ', PLOOP_BUNDLE_XML_SIZE_MAX + 1);
    memcpy(text, bundle_tree_xml(), length);
    bundle_write("DiskDescriptor.xml", text, PLOOP_BUNDLE_XML_SIZE_MAX);
    bundle = bundle_opened(0);
    ploop_bundle_close(bundle);
    bundle_write("DiskDescriptor.xml", text, PLOOP_BUNDLE_XML_SIZE_MAX + 1);
    assert_refused(-EFBIG, "larger than 1048576 bytes");
    free(text);

    unlink(bundle_file("DiskDescriptor.xml"));
    ck_assert_int_eq(mkfifo(bundle_file("DiskDescriptor.xml"), 0600), 0);
    assert_refused(-EINVAL, "not a regular file");
    unlink(bundle_file("DiskDescriptor.xml"));
    ck_assert_int_eq(symlink("a", bundle_file("DiskDescriptor.xml")), 0);
    assert_refused(-ELOOP, "");
    unlink(bundle_file("DiskDescriptor.xml"));
    bundle_write_xml("");
    assert_refused(-EUCLEAN, "");
    bundle_write("DiskDescriptor.xml", "<Parallels_disk_image\0>", 24);
    assert_refused(-EUCLEAN, "");
}
END_TEST

START_TEST(too_many_snapshots_are_refused)
{
    enum { COUNT = PLOOP_BUNDLE_SNAPSHOTS_MAX + 1, EACH = 128 };
    char *shots = calloc(COUNT, EACH), *at = shots;

    bundle_write_tree();
    for (int i = 0; i < COUNT; i++) {
        at += sprintf(at, "<Shot><GUID>{%08x-0000-0000-0000-000000000001}</GUID></Shot>", i);
    }
    char *text = bundle_replaced(bundle_tree_xml(), "<Snapshots>", "<Snapshots>@");
    char *all = bundle_replaced(text, "@", shots);
    bundle_write_xml(all);
    assert_refused(-EFBIG, "4100 snapshots, more than 4096");
    free(all);
    free(text);
    free(shots);
}
END_TEST

START_TEST(spaces_comments_and_the_case_of_GUIDs_do_not_matter)
{
    char *one = bundle_replaced(bundle_tree_xml(), "<File>b", "<File>\n  <!-- b -->b\t");
    char *two =
        bundle_replaced(one, "<GUID>" GUID_B, "<GUID> {BBBBBBBB-0000-4000-8000-000000000002} ");
    char *three = bundle_replaced(two, " Version=\"1.0\"", ""); /* as OpenVZ leaves it */

    bundle_write_tree();
    bundle_write_xml(three);
    ploop_bundle *bundle = bundle_opened(0);
    assert_snapshot(bundle, GUID_B, GUID_A, 0, "b");
    ploop_bundle_close(bundle);
    free(three);
    free(two);
    free(one);
}
END_TEST

/* Two storages, in the wrong order, of which the first of the disk is plain. */
START_TEST(a_split_disk_is_read)
{
    static const char split[] =
        "<Parallels_disk_image><Disk_Parameters><Disk_size>300</Disk_size></Disk_Parameters>"
        "<StorageData><Storage><Start>100</Start><End>300</End><Blocksize>64</Blocksize>"
        "<Image><GUID>" GUID_A "</GUID><Type>Compressed</Type><File>b</File></Image></Storage>"
        "<Storage><Start>0</Start><End>100</End><Blocksize>1</Blocksize>"
        "<Image><GUID>" GUID_A "</GUID><Type>Plain</Type><File>a</File></Image></Storage>"
        "</StorageData><Snapshots><Shot><GUID>" GUID_A "</GUID><ParentGUID>" GUID_NONE
        "</ParentGUID></Shot></Snapshots></Parallels_disk_image>";
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct ploop_bundle_storage storage = {.size = sizeof(storage)};
    struct ploop_bundle_image image = {.size = sizeof(image)};

    bundle_write_tree();
    bundle_write_xml(split);
    ploop_bundle *bundle = bundle_opened(PLOOP_BUNDLE_READ_WRITE);
    ck_assert_int_eq(ploop_bundle_info(bundle, &info), 0);
    ck_assert_uint_eq(info.storage_count, 2);
    ck_assert_uint_eq(info.top, 0); /* the only snapshot is it, whatever its GUID */
    ck_assert_int_eq(ploop_bundle_storage(bundle, 1, &storage), 0);
    ck_assert_uint_eq(storage.start, 51200);
    ck_assert_uint_eq(storage.end, 153600);
    ck_assert_int_eq(ploop_bundle_image(bundle, 0, 0, &image), 0);
    ck_assert_uint_eq(image.type, PLOOP_BUNDLE_PLAIN);
    ck_assert_str_eq(image.name, "a");
    ck_assert_int_eq(ploop_bundle_take_snapshot(bundle, NULL), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(bundle_log, "split"));
    ploop_bundle_close(bundle);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bundle");

    tcase_add_checked_fixture(tests, bundle_setup, bundle_teardown);
    tcase_add_test(tests, a_tree_is_read);
    tcase_add_test(tests, questions_are_judged);
    tcase_add_test(tests, arguments_are_judged);
    tcase_add_loop_test(tests, a_fault_is_refused, 0, sizeof(faults) / sizeof(faults[0]));
    tcase_add_test(tests, only_plain_files_are_images);
    tcase_add_test(tests, only_a_file_of_1_MiB_is_an_XML);
    tcase_add_test(tests, too_many_snapshots_are_refused);
    tcase_add_test(tests, spaces_comments_and_the_case_of_GUIDs_do_not_matter);
    tcase_add_test(tests, a_split_disk_is_read);
    return run_case("bundle", tests);
}
