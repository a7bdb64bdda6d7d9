/* SPDX-License-Identifier: MIT */
/*
 * See oracle.h. Follows ploop_oracle.py statement by statement, so that the two can be read side by
 * side.
 */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle_extension.h"

enum {
    SECTOR = 512,
    HEADER = 64,
    MAX_CLUSTER_SECTORS = 131072,
    FLAG_EMPTY = 1,
    FLAG_CONVERTING = 2
};

static uint32_t le32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static uint64_t le64(const uint8_t *bytes)
{
    return le32(bytes) | (uint64_t)le32(bytes + 4) << 32;
}

static enum oracle_verdict corrupt(char *message, const char *why)
{
    snprintf(message, 160, "%s", why);
    return ORACLE_CORRUPT;
}

static enum oracle_verdict validate_header(struct oracle *oracle, char *message)
{
    if (oracle->version != 2) {
        snprintf(message, 160, "version %" PRIu32, oracle->version);
        return ORACLE_CORRUPT;
    }
    if (oracle->cluster_sectors < 1 || oracle->cluster_sectors > MAX_CLUSTER_SECTORS) {
        snprintf(message, 160, "cluster of %" PRIu32 " sectors", oracle->cluster_sectors);
        return ORACLE_CORRUPT;
    }
    if (oracle->disk_sectors > (uint64_t)oracle->bat_entries * oracle->cluster_sectors)
        return corrupt(message, "disk larger than its BAT covers");
    if (oracle->flags & FLAG_CONVERTING)
        return corrupt(message, "a version conversion was under way");
    uint64_t bat_end = HEADER + 4 * (uint64_t)oracle->bat_entries;
    if (bat_end > oracle->file_size)
        return corrupt(message, "the BAT ends past the end of the file");
    uint64_t data_off = oracle->data_off;
    if (oracle->v1) {
        if (data_off == 0)
            data_off = (bat_end + SECTOR - 1) / SECTOR;
    } else if (data_off == 0 || data_off % oracle->cluster_sectors) {
        snprintf(message, 160, "data_off %" PRIu64 " is not a multiple of the cluster", data_off);
        return ORACLE_CORRUPT;
    }
    if (data_off * SECTOR < bat_end)
        return corrupt(message, "data_off lies inside the BAT");
    if (data_off * SECTOR > oracle->file_size)
        return corrupt(message, "data_off lies past the end of the file");
    oracle->data_start = data_off * SECTOR;
    return ORACLE_OK;
}

uint64_t oracle_host_offset(const struct oracle *oracle, uint64_t index)
{
    if (index >= oracle->bat_entries)
        return 0;
    return (uint64_t)oracle->bat[index] * (oracle->v1 ? SECTOR : oracle->cluster);
}

/* The cluster begins inside the file and ends past it. */
static bool is_cut(const struct oracle *oracle, uint32_t index)
{
    uint64_t offset = oracle_host_offset(oracle, index);
    return offset < oracle->file_size && offset + oracle->cluster > oracle->file_size;
}

/* Why a non-zero BAT entry is unusable, or NULL. One that is cut off has an owner all the same. */
static const char *entry_error(const struct oracle *oracle, uint32_t index)
{
    uint64_t offset = oracle_host_offset(oracle, index);
    if (oracle->bat[index] == UINT32_MAX)
        return "never an entry";
    if (offset < oracle->data_start)
        return "before the data area";
    if ((offset - oracle->data_start) % oracle->cluster)
        return "not on the cluster grid";
    if (offset >= oracle->file_size)
        return "past the end of the file";
    return NULL;
}

/* The owner of each host cluster: the first good entry in the BAT's order. */
static void find_owners(struct oracle *oracle)
{
    for (uint32_t index = 0; index < oracle->bat_entries; index++) {
        if (!oracle->bat[index] || entry_error(oracle, index))
            continue;
        uint64_t slot = (oracle_host_offset(oracle, index) - oracle->data_start) / oracle->cluster;
        if (!oracle->owner[slot])
            oracle->owner[slot] = index + 1;
    }
}

enum oracle_verdict oracle_read_header(struct oracle *oracle, oracle_read_fn *read, void *context,
                                       uint64_t file_size, char *message)
{
    uint8_t raw[HEADER];
    memset(oracle, 0, sizeof(*oracle));
    oracle->read = read;
    oracle->context = context;
    oracle->file_size = file_size;
    message[0] = 0;
    if (file_size < HEADER || read(context, raw, HEADER, 0)) {
        snprintf(message, 160, "shorter than a header");
        return ORACLE_NOT_AN_IMAGE;
    }
    oracle->v1 = !memcmp(raw, "WithoutFreeSpace", 16);
    if (!oracle->v1 && memcmp(raw, "WithouFreSpacExt", 16)) {
        snprintf(message, 160, "bad magic");
        return ORACLE_NOT_AN_IMAGE;
    }
    oracle->version = le32(raw + 16);
    oracle->cluster_sectors = le32(raw + 28);
    oracle->bat_entries = le32(raw + 32);
    oracle->disk_sectors = oracle->v1 ? le32(raw + 36) : le64(raw + 36);
    oracle->in_use = le32(raw + 44);
    oracle->data_off = le32(raw + 48);
    oracle->flags = le32(raw + 52);
    oracle->ext_off = le64(raw + 56);
    oracle->cluster = (uint64_t)oracle->cluster_sectors * SECTOR;
    return validate_header(oracle, message);
}

enum oracle_verdict oracle_open(struct oracle *oracle, oracle_read_fn *read, void *context,
                                uint64_t file_size, char *message)
{
    enum oracle_verdict verdict = oracle_read_header(oracle, read, context, file_size, message);
    if (verdict != ORACLE_OK)
        return verdict;
    oracle->slots = (file_size - oracle->data_start + oracle->cluster - 1) / oracle->cluster;
    oracle->bat = malloc(4 * (size_t)oracle->bat_entries + 4);
    oracle->owner = calloc((size_t)oracle->slots + 1, sizeof(*oracle->owner));
    if (!oracle->bat || !oracle->owner ||
        (oracle->bat_entries &&
         read(context, oracle->bat, 4 * (uint64_t)oracle->bat_entries, HEADER))) {
        oracle_close(oracle);
        return corrupt(message, "the BAT could not be read");
    }
    for (uint32_t index = 0; index < oracle->bat_entries; index++)
        oracle->bat[index] = le32((const uint8_t *)&oracle->bat[index]);
    find_owners(oracle);
    return ORACLE_OK;
}

void oracle_close(struct oracle *oracle)
{
    free(oracle->bat);
    free(oracle->owner);
    oracle->bat = oracle->owner = NULL;
}

struct output {
    oracle_line_fn *line;
    void *user_data;
    struct oracle_result *result;
};

static void say(struct output *output, enum oracle_severity severity, const char *text)
{
    if (severity == ORACLE_LEAK)
        output->result->leaks++;
    else if (severity == ORACLE_ERROR)
        output->result->errors++;
    else
        output->result->notes++;
    if (output->line)
        output->line(output->user_data, severity, text);
}

static void check_entries(struct oracle *oracle, struct output *output)
{
    char text[200];
    for (uint32_t index = 0; index < oracle->bat_entries; index++) {
        uint32_t entry = oracle->bat[index];
        if (!entry)
            continue;
        const char *why = entry_error(oracle, index);
        if (why) {
            snprintf(text, sizeof(text), "BAT[%" PRIu32 "]=%" PRIu32 ": %s", index, entry, why);
            say(output, ORACLE_ERROR, text);
            continue;
        }
        uint32_t owner =
            oracle
                ->owner[(oracle_host_offset(oracle, index) - oracle->data_start) / oracle->cluster];
        if (owner != index + 1) {
            snprintf(text, sizeof(text), "BAT[%" PRIu32 "]=%" PRIu32 ": also BAT[%" PRIu32 "]",
                     index, entry, owner - 1);
            say(output, ORACLE_ERROR, text);
        } else if (is_cut(oracle, index)) {
            snprintf(text, sizeof(text),
                     "BAT[%" PRIu32 "]=%" PRIu32 ": cut off: %" PRIu64 " of %" PRIu64
                     " bytes are in the file",
                     index, entry, oracle->file_size - oracle_host_offset(oracle, index),
                     oracle->cluster);
            say(output, ORACLE_ERROR, text);
        }
    }
}

static uint64_t check_beyond(struct oracle *oracle, struct output *output)
{
    char text[200];
    uint64_t owned = 0;
    uint64_t covered =
        (oracle->disk_sectors + oracle->cluster_sectors - 1) / oracle->cluster_sectors;
    for (uint64_t slot = 0; slot < oracle->slots; slot++)
        owned += oracle->owner[slot] != 0;
    for (uint64_t index = covered; index < oracle->bat_entries; index++) {
        if (!oracle->bat[index] || entry_error(oracle, (uint32_t)index) ||
            is_cut(oracle, (uint32_t)index))
            continue;
        if (oracle->owner[(oracle_host_offset(oracle, index) - oracle->data_start) /
                          oracle->cluster] == index + 1) {
            snprintf(text, sizeof(text), "BAT[%" PRIu64 "]=%" PRIu32 ": beyond the disk's end",
                     index, oracle->bat[index]);
            say(output, ORACLE_LEAK, text);
        }
    }
    return owned;
}

void oracle_check(struct oracle *oracle, oracle_line_fn *line, void *user_data,
                  struct oracle_result *result)
{
    struct output output = {line, user_data, result};
    char text[200], why[160];
    memset(result, 0, sizeof(*result));
    if (oracle->in_use != 0 && oracle->in_use != ORACLE_IN_USE && oracle->in_use != ORACLE_CLOSED) {
        snprintf(text, sizeof(text), "in_use: 0x%08" PRIx32 ", closed by other software",
                 oracle->in_use);
        say(&output, ORACLE_NOTE, text);
    }
    uint8_t *extension = NULL; /* a byte for each host cluster that the extension holds */
    bool is_void = oracle->ext_off && oracle->in_use != ORACLE_CLOSED;
    if (is_void) {
        extension = calloc((size_t)oracle->slots + 1, 1);
        if (extension && !oracle_extension_check(oracle, extension, why)) {
            say(&output, ORACLE_NOTE, "void extension, whole: kept until the first change");
        } else {
            free(extension);
            extension = NULL;
        }
    }
    check_entries(oracle, &output);
    if (oracle->in_use == ORACLE_IN_USE) {
        result->unclean = true;
        say(&output, ORACLE_ERROR, "in_use: not closed cleanly");
    }
    /*
     * leaks are counted here, but printed later: the Python one prints the lines of errors first,
     * too
     */
    uint64_t owned = check_beyond(oracle, &output);
    if (oracle->flags & FLAG_EMPTY && owned) {
        snprintf(text, sizeof(text), "flag Empty with %" PRIu64 " mapped clusters", owned);
        say(&output, ORACLE_ERROR, text);
    }
    if (oracle->ext_off && oracle->in_use == ORACLE_CLOSED) {
        extension = calloc((size_t)oracle->slots + 1, 1);
        if (!extension || oracle_extension_check(oracle, extension, why)) {
            snprintf(text, sizeof(text), "extension: %s", extension ? why : "no memory");
            say(&output, ORACLE_ERROR, text);
        }
    }
    for (uint64_t slot = 0; slot < oracle->slots; slot++) {
        uint64_t offset = oracle->data_start + slot * oracle->cluster;
        if (oracle->owner[slot] || (extension && extension[slot]) ||
            (oracle->takes_space && !oracle->takes_space(oracle->context, offset, oracle->cluster)))
            continue;
        if (!line) {
            result->leaks++; /* there can be many, so no line is printed */
            continue;
        }
        snprintf(text, sizeof(text), "host cluster at byte %" PRIu64 " is referenced by nothing",
                 offset);
        say(&output, ORACLE_LEAK, text);
    }
    free(extension);
}

enum oracle_cluster oracle_judge_cluster(const struct oracle *oracle, uint64_t index)
{
    if (index >= oracle->bat_entries || !oracle->bat[index])
        return ORACLE_UNMAPPED;
    if (entry_error(oracle, (uint32_t)index))
        return ORACLE_BAD;
    uint64_t offset = oracle_host_offset(oracle, index);
    if (oracle->owner[(offset - oracle->data_start) / oracle->cluster] != index + 1)
        return ORACLE_DUPLICATE;
    return is_cut(oracle, (uint32_t)index) ? ORACLE_CUT : ORACLE_MAPPED;
}

enum oracle_writing oracle_writing(struct oracle *oracle)
{
    bool has_cut = false;
    for (uint32_t index = 0; index < oracle->bat_entries; index++) {
        enum oracle_cluster state = oracle_judge_cluster(oracle, index);
        has_cut |= state == ORACLE_CUT;
        if (state != ORACLE_UNMAPPED && state != ORACLE_MAPPED && state != ORACLE_CUT)
            return ORACLE_REFUSE;
    }
    if (oracle->ext_off && oracle->in_use == ORACLE_CLOSED && oracle_extension_forbids(oracle))
        return ORACLE_REFUSE;
    return oracle->in_use == ORACLE_IN_USE || has_cut ? ORACLE_RECOVER : ORACLE_WRITE;
}

int oracle_read_cluster(struct oracle *oracle, uint64_t index, uint8_t *buffer)
{
    enum oracle_cluster state = oracle_judge_cluster(oracle, index);
    if (state != ORACLE_MAPPED)
        return state == ORACLE_UNMAPPED ? 0 : -1;
    if (oracle->read(oracle->context, buffer, oracle->cluster, oracle_host_offset(oracle, index)))
        return -1;
    uint64_t disk = oracle->disk_sectors * SECTOR, start = index * oracle->cluster;
    uint64_t inside = disk > start ? disk - start : 0;
    if (inside < oracle->cluster)
        memset(buffer + inside, 0, oracle->cluster - inside);
    return 1;
}

uint64_t oracle_read_cut(struct oracle *oracle, uint64_t index, uint8_t *buffer)
{
    uint64_t offset = oracle_host_offset(oracle, index), there = oracle->file_size - offset;
    memset(buffer, 0, oracle->cluster);
    if (oracle->read(oracle->context, buffer, there, offset))
        memset(buffer, 0, oracle->cluster);
    return there;
}

int oracle_read_memory(void *context, void *buffer, uint64_t length, uint64_t offset)
{
    const struct oracle_memory *memory = context;
    if (offset > memory->size || length > memory->size - offset)
        return -1;
    memcpy(buffer, memory->bytes + offset, length);
    return 0;
}
