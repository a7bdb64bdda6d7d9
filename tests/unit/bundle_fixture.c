/* SPDX-License-Identifier: MIT */
/* See bundle_fixture.h. */
#include "bundle_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

char bundle_dir[64];
char bundle_log[1024];
uint32_t bundle_log_level;

void bundle_setup(void)
{
    snprintf(bundle_dir, sizeof(bundle_dir), "bundle-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(bundle_dir));
    bundle_log[0] = 0;
    bundle_log_level = 0;
}

void bundle_teardown(void)
{
    DIR *directory = opendir(bundle_dir);
    const struct dirent *entry;

    while (directory && (entry = readdir(directory))) {
        if (unlinkat(dirfd(directory), entry->d_name, 0)) {
            unlinkat(dirfd(directory), entry->d_name, AT_REMOVEDIR);
        }
    }
    closedir(directory);
    ck_assert_int_eq(rmdir(bundle_dir), 0);
}

const char *bundle_file(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", bundle_dir, name);
    return path;
}

void bundle_write(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(bundle_file(name), "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

void bundle_write_xml(const char *text)
{
    bundle_write("DiskDescriptor.xml", text, strlen(text));
}

char *bundle_read(const char *name)
{
    enum { ROOM = 1 << 16 };
    FILE *file = fopen(bundle_file(name), "r");
    char *text = calloc(1, ROOM);

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_lt(fread(text, 1, ROOM - 1, file), ROOM - 1);
    fclose(file);
    return text;
}

bool bundle_has(const char *name)
{
    return access(bundle_file(name), F_OK) == 0;
}

int bundle_entries(void)
{
    DIR *directory = opendir(bundle_dir);
    int count = -2;

    ck_assert_ptr_nonnull(directory);
    while (readdir(directory)) {
        count++;
    }
    closedir(directory);
    return count;
}

#define IMAGE(guid, file)                                                                          \
    "<Image><GUID>" guid "</GUID><Type>Compressed</Type><File>" file "</File></Image>\n"
#define SHOT(guid, parent) "<Shot><GUID>" guid "</GUID><ParentGUID>" parent "</ParentGUID></Shot>\n"

const char *bundle_tree_xml(void)
{
    return "<?xml version='1.0' encoding='UTF-8'?>\n"
           "<Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\n"
           "<Disk_size>16384</Disk_size><Cylinders>32</Cylinders><Heads>16</Heads>\n"
           "<Sectors>32</Sectors><Padding>0</Padding><Name>kept</Name></Disk_Parameters>\n"
           "<StorageData><Storage><Start>0</Start><End>16384</End><Blocksize>128</"
           "Blocksize>\n" IMAGE(GUID_B, "b") IMAGE(GUID_A, "a")
               IMAGE(GUID_TOP, "top") "</Storage></StorageData><Snapshots>\n" SHOT(GUID_TOP, GUID_A)
                   SHOT(GUID_A, GUID_NONE)
                       SHOT(GUID_B, GUID_A) "</Snapshots></Parallels_disk_image>\n";
}

static void write_image(const char *name)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .version = 1, .disk_size = 8388608, .cluster_size = 65536};
    ploop_file *file;

    ck_assert_int_eq(
        ploop_file_open_posix(bundle_file(name), PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file),
        0);
    ck_assert_int_eq(ploop_image_create(file, &options), 0);
    ploop_file_close(file);
}

void bundle_write_tree(void)
{
    bundle_write_xml(bundle_tree_xml());
    write_image("a");
    write_image("b");
    write_image("top");
}

char *bundle_replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    size_t room = strlen(text) + strlen(new) + 1;
    char *result = malloc(room);

    ck_assert_msg(at != NULL, "there is no '%s' to replace", old);
    snprintf(result, room, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return result;
}

static void keep_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    ck_assert_ptr_eq(user_data, bundle_dir);
    ck_assert_uint_eq(message_id, 0);
    ck_assert_ptr_null(strchr(text, '\n'));
    snprintf(bundle_log, sizeof(bundle_log), "%s", text);
    bundle_log_level = level;
}

int bundle_open_dir(uint32_t flags, ploop_bundle **bundle)
{
    const struct ploop_bundle_config config = {
        .size = sizeof(config), .flags = flags, .log = keep_line, .user_data = bundle_dir};

    bundle_log[0] = 0;
    return ploop_bundle_open(bundle_dir, &config, bundle);
}

ploop_bundle *bundle_opened(uint32_t flags)
{
    ploop_bundle *bundle;
    int error = bundle_open_dir(flags, &bundle);

    ck_assert_msg(error == 0, "open: %d: %s", error, bundle_log);
    return bundle;
}
