/* SPDX-License-Identifier: MIT */
/*
 * The image header. Its fields, by offset:
 *
 *     0 magic (16)   16 version   20 heads   24 cylinders   28 tracks   32 bat_entries   36
 *                    nb_sectors (8)
 *    44 in_use       48 data_off  52 flags   56 ext_off (8)
 *
 * What a decoded header guarantees, whatever the bytes were:
 *
 *  1. 1 <= cluster sectors <= 131072, disk_size <= bat_entries * cluster_size < 2^58.
 *  2. The header and the whole BAT lie below data_start, and data_start at or below the file's end:
 *     to allocate by bat_entries is no more than the file's size asks for.
 *  3. Version 2: data_start is a multiple of the cluster, so that whole clusters can be named by
 *     entries.
 */
#include "format/header.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <ploop/image.h>

#include "util/bytes.h"

enum {
    MAGIC_SIZE = 16,
    AT_VERSION = 16,
    AT_HEADS = 20,
    AT_CYLINDERS = 24,
    AT_TRACKS = 28,
    AT_BAT_ENTRIES = 32,
    AT_NB_SECTORS = 36,
    AT_IN_USE = 44,
    AT_DATA_OFF = 48,
    AT_FLAGS = 52,
    AT_EXT_OFF = 56,

    HEADER_VERSION = 2, /* of both formats: the magic tells them apart */
    NEW_HEADS = 16,
    NEW_TRACK_SECTORS = 32
};

static const char magics[2][MAGIC_SIZE + 1] = {"WithoutFreeSpace", "WithouFreSpacExt"};

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static uint64_t disk_sectors(const struct header *header)
{
    return header->version == 1 ? header->nb_sectors & UINT32_MAX : header->nb_sectors;
}

static int fail(int error, char *message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(int error, char *message, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, HEADER_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    return error;
}

/* Where the data area starts, once the BAT is known to lie inside the file. */
static int locate_data(struct header *header, uint32_t tracks, uint64_t bat_end, uint64_t file_size,
                       char *message)
{
    uint64_t data_start = (uint64_t)header->data_off * SECTOR_SIZE;

    if (header->version == 1 && header->data_off == 0) {
        data_start = round_up(bat_end, SECTOR_SIZE);
    } else if (header->version == 2 && (header->data_off == 0 || header->data_off % tracks)) {
        return fail(-EUCLEAN, message,
                    "data_off %" PRIu32 " is not a multiple of the cluster of %" PRIu32 " sectors",
                    header->data_off, tracks);
    }
    if (data_start < bat_end) {
        return fail(-EUCLEAN, message,
                    "data_off %" PRIu32 " lies inside the BAT, whose bat_entries %" PRIu32
                    " end at byte %" PRIu64,
                    header->data_off, header->geometry.bat_entries, bat_end);
    }
    if (data_start > file_size) {
        return fail(-EUCLEAN, message,
                    "data_off %" PRIu32 " lies past the end of the file of %" PRIu64 " bytes",
                    header->data_off, file_size);
    }
    header->geometry.data_start = data_start;
    return 0;
}

int header_decode(const uint8_t *bytes, size_t size, uint64_t file_size, struct header *header,
                  char *message)
{
    if (size < HEADER_SIZE) {
        return fail(-EINVAL, message, "not a ploop image: %zu bytes are less than a header", size);
    }
    if (memcmp(bytes, magics[0], MAGIC_SIZE) != 0 && memcmp(bytes, magics[1], MAGIC_SIZE) != 0) {
        char magic[MAGIC_SIZE + 1] = "";

        for (int i = 0; i < MAGIC_SIZE; i++) {
            magic[i] = (char)(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.');
        }
        return fail(-EINVAL, message, "not a ploop image: the magic is '%s'", magic);
    }

    uint32_t tracks = load_le32(bytes + AT_TRACKS);
    uint32_t header_version = load_le32(bytes + AT_VERSION);

    *header = (struct header){
        .version = memcmp(bytes, magics[0], MAGIC_SIZE) == 0 ? 1 : 2,
        .in_use = load_le32(bytes + AT_IN_USE),
        .flags = load_le32(bytes + AT_FLAGS),
        .extension_sector = load_le64(bytes + AT_EXT_OFF),
        .heads = load_le32(bytes + AT_HEADS),
        .cylinders = load_le32(bytes + AT_CYLINDERS),
        .data_off = load_le32(bytes + AT_DATA_OFF),
        .nb_sectors = load_le64(bytes + AT_NB_SECTORS),
        .geometry.bat_entries = load_le32(bytes + AT_BAT_ENTRIES),
    };

    uint64_t bat_end = HEADER_SIZE + (uint64_t)4 * header->geometry.bat_entries;

    if (header_version != HEADER_VERSION) {
        return fail(-EUCLEAN, message, "version %" PRIu32 " is not %d", header_version,
                    HEADER_VERSION);
    }
    if (tracks == 0 || tracks > CLUSTER_SECTORS_MAX) {
        return fail(-EUCLEAN, message,
                    "tracks (sectors per cluster) %" PRIu32 " is not within 1 and %d", tracks,
                    CLUSTER_SECTORS_MAX);
    }
    if (disk_sectors(header) > (uint64_t)header->geometry.bat_entries * tracks) {
        return fail(-EUCLEAN, message,
                    "nb_sectors %" PRIu64 " is more than bat_entries %" PRIu32 " of %" PRIu32
                    " sectors cover",
                    disk_sectors(header), header->geometry.bat_entries, tracks);
    }
    if (header->flags & HEADER_FLAG_CONVERTING) {
        return fail(-EUCLEAN, message,
                    "flags 0x%" PRIx32 " say that a version conversion was cut off", header->flags);
    }
    if (bat_end > file_size) {
        return fail(-EUCLEAN, message,
                    "bat_entries %" PRIu32 " end at byte %" PRIu64
                    ", past the end of the file of %" PRIu64 " bytes",
                    header->geometry.bat_entries, bat_end, file_size);
    }
    header->geometry.cluster_size = (uint64_t)tracks * SECTOR_SIZE;
    header->geometry.disk_size = disk_sectors(header) * SECTOR_SIZE;
    header->geometry.entry_unit =
        header->version == 1 ? SECTOR_SIZE : header->geometry.cluster_size;
    message[0] = '\0';
    return locate_data(header, tracks, bat_end, file_size, message);
}

void header_encode(const struct header *header, uint8_t bytes[HEADER_SIZE])
{
    assert(header->version == 1 || header->version == 2);
    assert(disk_sectors(header) * SECTOR_SIZE == header->geometry.disk_size);
    assert(header->data_off == 0 ||
           (uint64_t)header->data_off * SECTOR_SIZE == header->geometry.data_start);

    memcpy(bytes, magics[header->version - 1], MAGIC_SIZE);
    store_le32(bytes + AT_VERSION, HEADER_VERSION);
    store_le32(bytes + AT_HEADS, header->heads);
    store_le32(bytes + AT_CYLINDERS, header->cylinders);
    store_le32(bytes + AT_TRACKS, (uint32_t)(header->geometry.cluster_size / SECTOR_SIZE));
    store_le32(bytes + AT_BAT_ENTRIES, header->geometry.bat_entries);
    store_le64(bytes + AT_NB_SECTORS, header->nb_sectors);
    store_le32(bytes + AT_IN_USE, header->in_use);
    store_le32(bytes + AT_DATA_OFF, header->data_off);
    store_le32(bytes + AT_FLAGS, header->flags);
    store_le64(bytes + AT_EXT_OFF, header->extension_sector);
}

static bool creatable_cluster(uint64_t cluster_size)
{
    return cluster_size >= PLOOP_CLUSTER_SIZE_MIN && cluster_size <= PLOOP_CLUSTER_SIZE_MAX &&
           (cluster_size & (cluster_size - 1)) == 0;
}

int header_for_new_image(uint32_t version, uint64_t disk_size, uint64_t cluster_size,
                         struct header *header)
{
    struct header made = {
        .version = version ? version : 2, .flags = HEADER_FLAG_EMPTY, .heads = NEW_HEADS};
    uint64_t cluster = cluster_size ? cluster_size : PLOOP_CLUSTER_SIZE_DEFAULT;

    if (made.version > 2 || !creatable_cluster(cluster) || disk_size % SECTOR_SIZE) {
        return -EINVAL;
    }

    uint64_t entries = disk_size / cluster + (disk_size % cluster != 0);

    made.nb_sectors = disk_size / SECTOR_SIZE;
    if (entries > UINT32_MAX || (made.version == 1 && made.nb_sectors > UINT32_MAX)) {
        return -EFBIG;
    }

    uint64_t data_start = round_up(HEADER_SIZE + 4 * entries, cluster);
    uint64_t cylinders = made.nb_sectors / (NEW_HEADS * NEW_TRACK_SECTORS);

    made.geometry = (struct geometry){
        .cluster_size = cluster,
        .disk_size = disk_size,
        .data_start = data_start,
        .entry_unit = made.version == 1 ? SECTOR_SIZE : cluster,
        .bat_entries = (uint32_t)entries,
    };
    made.data_off = (uint32_t)(data_start / SECTOR_SIZE);
    made.cylinders = (uint32_t)(cylinders < UINT32_MAX ? cylinders : UINT32_MAX);
    if (entries > geometry_host_limit(&made.geometry) - geometry_host_first(&made.geometry)) {
        return -EFBIG; /* a full disk would need entries that do not exist */
    }
    *header = made;
    return 0;
}

int header_grow(const struct header *header, uint64_t disk_size, struct header *grown)
{
    const struct geometry *old = &header->geometry;
    uint64_t cluster = old->cluster_size, sectors = disk_size / SECTOR_SIZE;
    uint64_t entries = disk_size / cluster + (disk_size % cluster != 0);

    if (disk_size % SECTOR_SIZE || disk_size < old->disk_size) {
        return -EINVAL;
    }
    entries = entries > old->bat_entries ? entries : old->bat_entries;
    if (entries > UINT32_MAX || (header->version == 1 && sectors > UINT32_MAX)) {
        return -EFBIG;
    }

    uint64_t bat_end = round_up(HEADER_SIZE + 4 * entries, SECTOR_SIZE);
    uint64_t more = bat_end > old->data_start ? round_up(bat_end - old->data_start, cluster) : 0;

    *grown = *header;
    grown->geometry.disk_size = disk_size;
    grown->geometry.bat_entries = (uint32_t)entries;
    grown->geometry.data_start = old->data_start + more;
    if (grown->geometry.data_start / SECTOR_SIZE > UINT32_MAX ||
        entries > geometry_host_limit(&grown->geometry) - geometry_host_first(&grown->geometry)) {
        return -EFBIG;
    }
    grown->data_off = (uint32_t)(grown->geometry.data_start / SECTOR_SIZE);
    grown->nb_sectors =
        header->version == 1 ? (header->nb_sectors & ~(uint64_t)UINT32_MAX) | sectors : sectors;
    if (header->heads && header->cylinders) {
        uint64_t cylinders = sectors / ((uint64_t)header->heads * NEW_TRACK_SECTORS);
        grown->cylinders = (uint32_t)(cylinders < UINT32_MAX ? cylinders : UINT32_MAX);
    }
    return 0;
}
