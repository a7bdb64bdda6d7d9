/* SPDX-License-Identifier: MIT */
/* The header's codec: every field at its limits and one past, in both versions. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/image.h>

#include "format/header.h"
#include "run_tests.h"
#include "util/bytes.h"

enum {
    TRACKS = 28,
    ENTRIES = 32,
    SECTORS = 36,
    IN_USE = 44,
    DATA_OFF = 48,
    FLAGS = 52,
    EXT_OFF = 56
};

static uint8_t bytes[HEADER_SIZE];
static struct header header;
static char message[HEADER_MESSAGE_SIZE];

/* 1000 clusters of 128 sectors, the data area at sector 128. */
static void make(int version)
{
    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
    store_le32(bytes + 16, 2);
    store_le32(bytes + 20, 16);
    store_le32(bytes + 24, 77);
    store_le32(bytes + TRACKS, 128);
    store_le32(bytes + ENTRIES, 1000);
    store_le64(bytes + SECTORS, 128000);
    store_le32(bytes + DATA_OFF, 128);
}

static int decode(uint64_t file_size)
{
    memset(message, 'x', sizeof(message));
    return header_decode(bytes, sizeof(bytes), file_size, &header, message);
}

/* Refused, in one line that names the field and the value. */
static void refused(uint64_t file_size, const char *field, const char *value)
{
    ck_assert_int_eq(decode(file_size), -EUCLEAN);
    ck_assert_msg(strstr(message, field) && strstr(message, value) && !strchr(message, '\n'),
                  "\"%s\" should name %s %s", message, field, value);
}

static void accepted(uint64_t file_size)
{
    int error = decode(file_size);

    ck_assert_msg(error == 0 && message[0] == '\0', "%d \"%s\"", error, message);
}

START_TEST(both_versions_are_read)
{
    make(2);
    store_le32(bytes + IN_USE, HEADER_CLOSED_EXT);
    store_le64(bytes + EXT_OFF, 256);
    accepted(65536);
    ck_assert_uint_eq(header.version, 2);
    ck_assert_uint_eq(header.geometry.cluster_size, 65536);
    ck_assert_uint_eq(header.geometry.disk_size, 65536000);
    ck_assert_uint_eq(header.geometry.data_start, 65536);
    ck_assert_uint_eq(header.geometry.entry_unit, 65536);
    ck_assert_uint_eq(header.geometry.bat_entries, 1000);
    ck_assert_uint_eq(header.in_use, HEADER_CLOSED_EXT);
    ck_assert_uint_eq(header.extension_sector, 256);
    ck_assert_uint_eq(header.heads, 16);
    ck_assert_uint_eq(header.cylinders, 77);
    make(1);
    accepted(65536);
    ck_assert_uint_eq(header.version, 1);
    ck_assert_uint_eq(header.geometry.entry_unit, 512);
}
END_TEST

START_TEST(no_image_is_einval)
{
    make(2);
    for (size_t size = 0; size < HEADER_SIZE; size++) {
        ck_assert_int_eq(header_decode(bytes, size, size, &header, message), -EINVAL);
        ck_assert_ptr_nonnull(strstr(message, "not a ploop image"));
    }
    for (int i = 0; i < 16; i++) {
        make(2);
        bytes[i] ^= 1;
        ck_assert_int_eq(decode(1 << 20), -EINVAL);
        ck_assert_ptr_nonnull(strstr(message, "magic"));
    }
    make(2);
    bytes[3] = 0x80;
    ck_assert_int_eq(decode(1 << 20), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "'Wit.ouFreSpacExt'"));
}
END_TEST

START_TEST(version_field)
{
    static const uint32_t wrong[] = {0, 1, 3, UINT32_MAX};

    for (int i = 0; i < 4; i++) {
        make(1 + i % 2);
        store_le32(bytes + 16, wrong[i]);
        refused(1 << 20, "version", i == 2 ? "3" : "");
    }
}
END_TEST

START_TEST(tracks_field)
{
    for (int version = 1; version <= 2; version++) {
        make(version);
        store_le32(bytes + TRACKS, 0);
        refused(1 << 20, "tracks", "0");
        store_le32(bytes + TRACKS, 131073);
        refused(1 << 20, "tracks", "131073");
        store_le32(bytes + TRACKS, UINT32_MAX);
        refused(1 << 20, "tracks", "4294967295");
        store_le32(bytes + TRACKS, 131072);
        store_le32(bytes + DATA_OFF, 131072);
        accepted((uint64_t)131072 * 512);
        store_le32(bytes + TRACKS, 1);
        store_le64(bytes + SECTORS, 1000);
        store_le32(bytes + DATA_OFF, 8);
        accepted(8 * 512);
        store_le32(bytes + TRACKS, 63);
        store_le32(bytes + DATA_OFF, 63);
        accepted(63 * 512);
    }
}
END_TEST

START_TEST(disk_size_against_the_bat)
{
    for (int version = 1; version <= 2; version++) {
        make(version);
        store_le64(bytes + SECTORS, 128001);
        refused(1 << 20, "nb_sectors", "128001");
        store_le64(bytes + SECTORS, 127999);
        accepted(1 << 20);
        ck_assert_uint_eq(header.geometry.disk_size, (uint64_t)127999 * 512);
        store_le64(bytes + SECTORS, 0);
        accepted(1 << 20);
    }
    make(2);
    store_le64(bytes + SECTORS, UINT64_MAX);
    refused(1 << 20, "nb_sectors", "18446744073709551615");
    make(1);
    store_le64(bytes + SECTORS,
               (uint64_t)7 << 32 | 100); /* version 1: the high half means nothing, and is kept */
    accepted(1 << 20);
    ck_assert_uint_eq(header.geometry.disk_size, 100 * 512);
    ck_assert_uint_eq(header.nb_sectors, (uint64_t)7 << 32 | 100);
}
END_TEST

START_TEST(bat_against_the_file)
{
    for (int version = 1; version <= 2; version++) {
        make(version);
        refused(64 + 4 * 1000 - 1, "bat_entries", "1000");
        store_le32(bytes + ENTRIES, UINT32_MAX);
        refused((uint64_t)4 * UINT32_MAX + 63, "bat_entries", "4294967295");
        store_le32(bytes + ENTRIES, 0x40000001);
        refused(1 << 20, "bat_entries", "1073741825");
        store_le32(bytes + ENTRIES, 0);
        store_le64(bytes + SECTORS, 0);
        accepted(65536);
    }
    make(2);
    store_le32(bytes + ENTRIES, UINT32_MAX);
    store_le32(bytes + DATA_OFF, 33554560);
    accepted((uint64_t)33554560 * 512);
}
END_TEST

START_TEST(data_off_field)
{
    for (int version = 1; version <= 2; version++) {
        make(version);
        refused(65535, "data_off", "128");
        store_le32(bytes + DATA_OFF, UINT32_MAX - 127);
        refused((uint64_t)(UINT32_MAX - 127) * 512 - 1, "data_off", "4294967168");
        accepted((uint64_t)(UINT32_MAX - 127) * 512);
    }
    make(2);
    store_le32(bytes + DATA_OFF, 0);
    refused(1 << 20, "data_off", "0");
    store_le32(bytes + DATA_OFF, 129);
    refused(1 << 20, "data_off", "129");
    store_le32(bytes + TRACKS, 1);
    store_le64(bytes + SECTORS, 1000);
    store_le32(bytes + DATA_OFF, 7);
    refused(1 << 20, "data_off", "7");
    store_le32(bytes + DATA_OFF, 8);
    accepted(8 * 512);
    make(1);
    store_le32(bytes + DATA_OFF, 7);
    refused(1 << 20, "data_off", "7");
    store_le32(bytes + DATA_OFF, 9);
    accepted(1 << 20);
    store_le32(bytes + DATA_OFF, 0); /* version 1: the end of the BAT, rounded up */
    accepted(1 << 20);
    ck_assert_uint_eq(header.geometry.data_start, 8 * 512);
    refused(8 * 512 - 1, "data_off", "0");
}
END_TEST

START_TEST(flags_field)
{
    for (int version = 1; version <= 2; version++) {
        make(version);
        store_le32(bytes + FLAGS, HEADER_FLAG_CONVERTING);
        refused(1 << 20, "flags", "0x2");
        store_le32(bytes + FLAGS, UINT32_MAX - HEADER_FLAG_CONVERTING); /* unknown ones are kept */
        accepted(1 << 20);
        ck_assert_uint_eq(header.flags, UINT32_MAX - HEADER_FLAG_CONVERTING);
    }
}
END_TEST

START_TEST(what_was_read_is_written_back)
{
    uint8_t again[HEADER_SIZE];

    for (int version = 1; version <= 2; version++) {
        make(version);
        store_le32(bytes + IN_USE, HEADER_IN_USE);
        store_le32(bytes + FLAGS, 0xFFFFFFF1);
        store_le64(bytes + EXT_OFF, UINT64_MAX);
        if (version == 1) {
            store_le64(bytes + SECTORS, (uint64_t)0xABCD << 32 | 1000);
            store_le32(bytes + DATA_OFF, 0);
        }
        accepted(1 << 20);
        memset(again, 0xFF, sizeof(again));
        header_encode(&header, again);
        ck_assert_mem_eq(again, bytes, HEADER_SIZE);
    }
}
END_TEST

START_TEST(new_images_are_right)
{
    static const uint64_t clusters[] = {PLOOP_CLUSTER_SIZE_MIN, 65536, PLOOP_CLUSTER_SIZE_DEFAULT,
                                        PLOOP_CLUSTER_SIZE_MAX};
    static const uint64_t disks[] = {0, 512, 4096, 1 << 20, (1 << 20) + 512, (uint64_t)100 << 30};

    for (uint32_t version = 1; version <= 2; version++) {
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 6; j++) {
                ck_assert_int_eq(header_for_new_image(version, disks[j], clusters[i], &header), 0);
                header_encode(&header, bytes);
                accepted(header.geometry.data_start);
                ck_assert_uint_eq(header.version, version);
                ck_assert_uint_eq(header.geometry.disk_size, disks[j]);
                ck_assert_uint_eq(header.geometry.cluster_size, clusters[i]);
                ck_assert_uint_eq(header.geometry.data_start % clusters[i], 0);
                ck_assert_uint_eq(header.geometry.bat_entries,
                                  (disks[j] + clusters[i] - 1) / clusters[i]);
                ck_assert_uint_eq(header.flags, HEADER_FLAG_EMPTY);
                ck_assert_uint_eq(header.in_use, 0);
            }
        }
    }
    ck_assert_int_eq(header_for_new_image(0, 1 << 20, 0, &header), 0);
    ck_assert_uint_eq(header.version, 2);
    ck_assert_uint_eq(header.geometry.cluster_size, PLOOP_CLUSTER_SIZE_DEFAULT);
}
END_TEST

START_TEST(new_images_have_limits)
{
    ck_assert_int_eq(header_for_new_image(3, 1 << 20, 0, &header), -EINVAL);
    ck_assert_int_eq(header_for_new_image(2, 511, 0, &header), -EINVAL);
    ck_assert_int_eq(header_for_new_image(2, 1 << 20, 2048, &header), -EINVAL);
    ck_assert_int_eq(header_for_new_image(2, 1 << 20, 4095, &header), -EINVAL);
    ck_assert_int_eq(header_for_new_image(2, 1 << 20, 4096 * 3, &header), -EINVAL);
    ck_assert_int_eq(
        header_for_new_image(2, 1 << 20, (uint64_t)PLOOP_CLUSTER_SIZE_MAX * 2, &header), -EINVAL);
    /* version 1: 2 TiB in all, and the last cluster's place must be a number of 32 bits */
    ck_assert_int_eq(header_for_new_image(1, (uint64_t)2 << 40, 0, &header), -EFBIG);
    ck_assert_int_eq(header_for_new_image(1, ((uint64_t)2 << 40) - 512, 0, &header), -EFBIG);
    ck_assert_int_eq(header_for_new_image(1, ((uint64_t)2 << 40) - (10 << 20), 0, &header), 0);
    ck_assert_int_eq(header_for_new_image(1, ((uint64_t)2 << 40) - (9 << 20) + 512, 0, &header),
                     -EFBIG);
    /* version 2: as many clusters as entries can name, less those of the BAT */
    ck_assert_int_eq(header_for_new_image(2, (uint64_t)UINT32_MAX << 20, 0, &header), -EFBIG);
    ck_assert_int_eq(header_for_new_image(2, ((uint64_t)UINT32_MAX + 1) << 20, 0, &header), -EFBIG);
    ck_assert_int_eq(header_for_new_image(2, UINT64_MAX - 511, 0, &header), -EFBIG);
    ck_assert_int_eq(header_for_new_image(2, ((uint64_t)UINT32_MAX - 16384) << 20, 0, &header), 0);
    ck_assert_uint_eq(geometry_host_limit(&header.geometry) - geometry_host_first(&header.geometry),
                      header.geometry.bat_entries);
    ck_assert_int_eq(header_for_new_image(2, ((uint64_t)UINT32_MAX - 16383) << 20, 0, &header),
                     -EFBIG);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("header");

    tcase_add_test(tests, both_versions_are_read);
    tcase_add_test(tests, no_image_is_einval);
    tcase_add_test(tests, version_field);
    tcase_add_test(tests, tracks_field);
    tcase_add_test(tests, disk_size_against_the_bat);
    tcase_add_test(tests, bat_against_the_file);
    tcase_add_test(tests, data_off_field);
    tcase_add_test(tests, flags_field);
    tcase_add_test(tests, what_was_read_is_written_back);
    tcase_add_test(tests, new_images_are_right);
    tcase_add_test(tests, new_images_have_limits);
    return run_case("header", tests);
}
