/* SPDX-License-Identifier: MIT */
/* See damage.h. */
#include "damage.h"

#include <stdio.h>
#include <string.h>

#include "../oracle/oracle_extension.h"
#include "extension.h"
#include "format/extension.h"
#include "model.h"
#include "report.h"
#include "util/bytes.h"

enum {
    AT_SECTORS = 36,
    AT_IN_USE = 44,
    AT_FLAGS = 52,
    AT_EXTENSION = 56,
    AT_BAT = 64,
    AT_GRANULARITY =
        24 + 24 + 24, /* these in the extension's cluster, of a bitmap that is its first feature */
    AT_L1 = 24 + 24 + 32,
    VOID_CLUSTERS = 2, /* at most: its own, and the bitmap's */
    COPIES = 3,        /* of each kind of bad entry */
    BEYOND_CLUSTERS = 100
};

static uint64_t cluster_bytes(const struct damaged *damaged)
{
    return (uint64_t)damaged->image.cluster_sectors * DISK_SECTOR;
}

static uint64_t unit(const struct damaged *damaged)
{
    return damaged->image.v1 ? DISK_SECTOR : cluster_bytes(damaged);
}

static uint64_t data_start(const struct damaged *damaged)
{
    return damaged->image.data_off * DISK_SECTOR;
}

static uint32_t entry(const struct damaged *damaged, uint32_t guest)
{
    return load_le32(damaged->found + AT_BAT + 4 * (uint64_t)guest);
}

static void set_entry(struct damaged *damaged, uint32_t guest, uint64_t value)
{
    put32(damaged->found + AT_BAT + 4 * (uint64_t)guest, (uint32_t)value);
}

static uint32_t guest_clusters(const struct damaged *damaged)
{
    uint64_t sectors = damaged->image.disk_sectors, each = damaged->image.cluster_sectors;
    return (uint32_t)((sectors + each - 1) / each);
}

/* A guest cluster of the disk that is not mapped, often in the BAT's first page. */
static uint32_t unmapped(const struct damaged *damaged, struct rng *rng)
{
    for (;;) {
        uint32_t guest =
            (uint32_t)rng_below(rng, rng_permille(rng, 500) ? 40 : guest_clusters(damaged));
        if (!entry(damaged, guest))
            return guest;
    }
}

static uint32_t mapped(const struct damaged *damaged, struct rng *rng)
{
    for (;;) {
        uint32_t guest = damaged->image.hot[rng_below(rng, damaged->image.hot_count)];
        if (guest < guest_clusters(damaged) && entry(damaged, guest))
            return guest;
    }
}

/* Make the file longer, with old bytes of another owner. Returns where they begin. */
static uint64_t append(struct damaged *damaged, uint64_t bytes)
{
    uint64_t from = damaged->size;
    damaged->size += bytes;
    damaged->found = sim_realloc(damaged->found, damaged->size + DISK_SECTOR);
    for (uint64_t at = from; at < damaged->size; at += DISK_SECTOR)
        content_fill(damaged->found + at, UINT32_MAX, at);
    return from;
}

static bool is_named(const struct damaged *damaged, uint64_t offset)
{
    for (uint32_t guest = 0; guest < damaged->image.entries; guest++)
        if (entry(damaged, guest) * unit(damaged) == offset)
            return true;
    return false;
}

static uint64_t l1_entry(struct damaged *damaged, uint64_t bits)
{
    if (!(damaged->damage & DAMAGE_BITMAP))
        return bits / DISK_SECTOR;
    for (uint32_t i = 0;; i++)
        if (entry(damaged, damaged->image.hot[i]))
            return entry(damaged, damaged->image.hot[i]) * unit(damaged) / DISK_SECTOR;
}

/* An unowned cluster, below `below`; else a new one at the end of the file. */
static uint64_t take_cluster(struct damaged *damaged, uint32_t below)
{
    for (uint32_t host = 0; host < below; host++) {
        uint64_t offset = data_start(damaged) + host * cluster_bytes(damaged);
        if (!is_named(damaged, offset))
            return offset;
    }
    return append(damaged, cluster_bytes(damaged));
}

static void add_extension(struct damaged *damaged)
{
    struct image *image = &damaged->image;
    uint64_t size = cluster_bytes(damaged);
    uint64_t at = take_cluster(damaged, damaged->damage & DAMAGE_LOW ? image->host_clusters : 0);
    uint64_t bits = append(damaged, size);
    uint8_t *cluster = damaged->found + at;
    snprintf(image->features, sizeof(image->features), "%s",
             damaged->damage & DAMAGE_TRANSIT ? "bt" : "b");
    extension_fill(image, cluster, l1_entry(damaged, bits));
    if (damaged->damage & DAMAGE_SENSELESS) {
        put32(cluster + AT_GRANULARITY, 3);
        extension_seal(cluster, size);
    }
    cluster[8] ^= (uint8_t)((damaged->damage & DAMAGE_CHECKSUM) != 0);
    put64(damaged->found + AT_EXTENSION, at / DISK_SECTOR);
    put32(damaged->found + AT_IN_USE, damaged->damage & DAMAGE_VOID ? 0 : ORACLE_CLOSED);
}

/* Move the disk's end down, and some clusters beyond it. */
static void leave_beyond(struct damaged *damaged, struct rng *rng)
{
    struct image *image = &damaged->image;
    for (uint32_t i = 0; i < COPIES; i++) {
        uint32_t guest = mapped(damaged, rng), beyond = image->entries - 1 - 30 * i;
        if (!entry(damaged, beyond)) {
            set_entry(damaged, beyond, entry(damaged, guest));
            set_entry(damaged, guest, 0);
        }
    }
    image->disk_sectors = (uint64_t)(image->entries - BEYOND_CLUSTERS) * image->cluster_sectors -
                          (image->cluster_sectors > 1);
    put64(damaged->found + AT_SECTORS, image->disk_sectors);
}

/* The cluster that lies last, if it has an owner, loses at least a byte, and keeps at least one. */
static void cut_off(struct damaged *damaged, struct rng *rng)
{
    uint64_t cluster = cluster_bytes(damaged);
    if (is_named(damaged, damaged->size - cluster))
        damaged->size -= rng_between(rng, 1, cluster - 1);
}

static void spoil_entries(struct damaged *damaged, struct rng *rng)
{
    const struct image *image = &damaged->image;
    uint64_t end = (damaged->size - data_start(damaged) + cluster_bytes(damaged) - 1) /
                   cluster_bytes(damaged); /* the first cluster past the file */
    for (uint32_t i = 0; i < COPIES && damaged->damage & DAMAGE_DUPLICATES; i++)
        set_entry(damaged, unmapped(damaged, rng), entry(damaged, mapped(damaged, rng)));
    if (damaged->damage & DAMAGE_RANGE) {
        for (uint64_t past = end; past < end + COPIES; past++)
            set_entry(damaged, unmapped(damaged, rng),
                      (data_start(damaged) + past * cluster_bytes(damaged)) / unit(damaged));
        set_entry(damaged, unmapped(damaged, rng), UINT32_MAX);
        set_entry(damaged, unmapped(damaged, rng), data_start(damaged) / unit(damaged) - 1);
    }
    for (uint32_t i = 0; i < COPIES && damaged->damage & DAMAGE_GRID; i++)
        set_entry(damaged, unmapped(damaged, rng),
                  entry(damaged, mapped(damaged, rng)) +
                      (image->v1 && image->cluster_sectors > 1 ? 1 : 100000));
}

/*
 * The map that the dead process had written before: a discarded cluster is still mapped, a new one
 * not yet.
 */
static void keep_older_map(struct damaged *damaged, struct rng *rng)
{
    uint64_t bat_end = damaged->image.bat_end;
    uint32_t fresh = mapped(damaged, rng);
    damaged->durable = sim_alloc(bat_end);
    memcpy(damaged->durable, damaged->found, bat_end);
    put32(damaged->durable + AT_BAT + 4 * (uint64_t)fresh, 0);
    for (uint32_t host = 0; host < damaged->image.host_clusters; host++) {
        uint64_t offset = data_start(damaged) + host * cluster_bytes(damaged);
        if (!is_named(damaged, offset))
            put32(damaged->durable + AT_BAT + 4 * (uint64_t)unmapped(damaged, rng),
                  (uint32_t)(offset / unit(damaged)));
    }
}

void damaged_build(struct damaged *damaged, uint32_t damage, struct rng *rng)
{
    const uint32_t extensions =
        DAMAGE_EXTENSION | DAMAGE_BITMAP | DAMAGE_SENSELESS | DAMAGE_CHECKSUM | DAMAGE_VOID;
    struct image *image = &damaged->image;
    image->leaks = damage & DAMAGE_HOLES ? 3 : 0;
    image->host_clusters = image->mapped + image->leaks;
    image->tail = 0;
    image->closed_ext = false;
    image->features[0] = '\0';
    damaged->damage = damage;
    damaged->durable = NULL;
    damaged->found = image_build(image, rng, &damaged->size);
    if (damage & DAMAGE_BEYOND)
        leave_beyond(damaged, rng);
    if (damage & extensions)
        add_extension(damaged);
    if (damage & DAMAGE_CUT)
        cut_off(damaged, rng);
    else if (damage & DAMAGE_TAIL)
        append(damaged, 3 * cluster_bytes(damaged) - 100);
    spoil_entries(damaged, rng);
    if (damage & DAMAGE_EMPTY_FLAG)
        put32(damaged->found + AT_FLAGS, 1);
    if (damage & DAMAGE_MARK)
        put32(damaged->found + AT_IN_USE, ORACLE_IN_USE);
    if (damage & DAMAGE_MARK_VALUE)
        put32(damaged->found + AT_IN_USE, 0x12345678);
    if (damage & DAMAGE_STALE)
        keep_older_map(damaged, rng);
}

void damaged_free(struct damaged *damaged)
{
    sim_free(damaged->found);
    sim_free(damaged->durable);
}

/* Only the cache shows the end of the file, or some clusters; the disk has other bytes there. */
static void lose_more(const struct damaged *damaged, struct disk *disk, struct rng *rng)
{
    uint64_t cluster = cluster_bytes(damaged),
             clusters = (damaged->size - data_start(damaged)) / cluster;
    for (uint32_t i = 0; i < COPIES; i++) {
        uint64_t offset = data_start(damaged) + rng_below(rng, clusters) * cluster;
        for (uint64_t at = offset; at < offset + cluster; at += DISK_SECTOR)
            content_fill(disk->durable.bytes + at, UINT32_MAX, at);
        disk_execute_failed(disk, offset, cluster, damaged->found + offset);
    }
    if (rng_permille(rng, 500))
        disk_lose_end(disk, damaged->size - rng_between(rng, 1, 2 * cluster));
}

void damaged_put_on_disk(const struct damaged *damaged, struct disk *disk, struct rng *rng)
{
    disk_init(disk, damaged->found, damaged->size);
    if (!damaged->durable)
        return;
    memcpy(disk->durable.bytes, damaged->durable, damaged->image.bat_end);
    disk_execute_failed(disk, 0, damaged->image.bat_end, damaged->found);
    lose_more(damaged, disk, rng);
    disk->unreported = rng_permille(rng, 500);
}

/* ---- the content it shows ---- */

static uint8_t *copy_of(const uint8_t *bytes, uint64_t length)
{
    uint8_t *copy = sim_alloc(length);
    memcpy(copy, bytes, length);
    return copy;
}

/* A bad entry. One that names a cluster which is good in itself is a duplicate. */
static struct showing_of read_bad(struct oracle *oracle, uint64_t guest, uint8_t *cluster)
{
    uint64_t offset = oracle_host_offset(oracle, guest),
             host = (offset - oracle->data_start) / oracle->cluster;
    bool good = offset >= oracle->data_start &&
                (offset - oracle->data_start) % oracle->cluster == 0 && offset < oracle->file_size;
    if (!good || !oracle->owner[host])
        return (struct showing_of){SHOWS_BAD, NULL};
    uint64_t owner = oracle->owner[host] - 1;
    if (oracle_judge_cluster(oracle, owner) == ORACLE_CUT)
        oracle_read_cut(oracle, owner, cluster);
    else if (oracle_read_cluster(oracle, owner, cluster) != 1)
        return (struct showing_of){SHOWS_BAD, NULL};
    return (struct showing_of){SHOWS_COPY, copy_of(cluster, oracle->cluster)};
}

static struct showing_of read_one(struct oracle *oracle, uint64_t guest, uint8_t *cluster)
{
    int got = oracle_read_cluster(oracle, guest, cluster);
    if (got == 1)
        return (struct showing_of){SHOWS_BYTES, copy_of(cluster, oracle->cluster)};
    if (oracle_judge_cluster(oracle, guest) == ORACLE_CUT) {
        oracle_read_cut(oracle, guest, cluster);
        return (struct showing_of){SHOWS_CUT, copy_of(cluster, oracle->cluster)};
    }
    return got ? read_bad(oracle, guest, cluster) : (struct showing_of){SHOWS_ZEROS, NULL};
}

/*
 * The bits of the first bitmap of an extension that counts, as damaged_build() laid them out; else
 * NULL.
 */
static uint8_t *read_bits(const struct oracle *oracle, const struct disk_state *state)
{
    uint64_t at = oracle->ext_off * DISK_SECTOR;
    if (oracle->in_use != ORACLE_CLOSED || !oracle->ext_off || at + oracle->cluster > state->size ||
        load_le64(state->bytes + at + 24) != EXTENSION_BITMAP_MAGIC)
        return NULL;
    uint64_t bits = load_le64(state->bytes + at + AT_L1) * DISK_SECTOR;
    return bits + oracle->cluster > state->size ? NULL
                                                : copy_of(state->bytes + bits, oracle->cluster);
}

static void ignore_feature(void *user_data, uint64_t magic, uint64_t flags, const uint8_t *data,
                           uint32_t size)
{
    (void)user_data;
    (void)magic;
    (void)flags;
    (void)data;
    (void)size;
}

bool showings_read(struct showings *showings, const struct disk_state *state, char *message)
{
    struct oracle oracle;
    struct oracle_memory memory = {state->bytes, state->size};
    struct oracle_result result;
    memset(showings, 0, sizeof(*showings));
    if (oracle_open(&oracle, oracle_read_memory, &memory, state->size, message) != ORACLE_OK)
        return false;
    oracle_check(&oracle, NULL, NULL, &result);
    showings->cluster = oracle.cluster;
    showings->disk_bytes = oracle.disk_sectors * DISK_SECTOR;
    showings->guests = (showings->disk_bytes + oracle.cluster - 1) / oracle.cluster;
    showings->of = sim_alloc(showings->guests * sizeof(*showings->of));
    uint8_t *cluster = sim_alloc(oracle.cluster);
    for (uint64_t guest = 0; guest < showings->guests; guest++)
        if (oracle.bat[guest])
            showings->of[guest] = read_one(&oracle, guest, cluster);
    sim_free(cluster);
    showings->marked = oracle.in_use == ORACLE_IN_USE;
    showings->errors = result.errors - showings->marked;
    showings->leaks = result.leaks;
    if (oracle.in_use != ORACLE_CLOSED && oracle.ext_off &&
        oracle_extension_features(&oracle, ignore_feature, NULL, message) >= 0)
        showings->in_void = VOID_CLUSTERS;
    showings->bits = read_bits(&oracle, state);
    oracle_close(&oracle);
    return true;
}

void showings_free(struct showings *showings)
{
    for (uint64_t guest = 0; guest < showings->guests; guest++)
        sim_free(showings->of[guest].bytes);
    sim_free(showings->of);
    sim_free(showings->bits);
}

uint64_t showings_visible(const struct showings *showings, uint64_t guest)
{
    uint64_t left = showings->disk_bytes - guest * showings->cluster;
    return left < showings->cluster ? left : showings->cluster;
}
