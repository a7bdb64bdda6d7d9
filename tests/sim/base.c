/* SPDX-License-Identifier: MIT */
/* See base.h. */
#include "base.h"

#include <string.h>

#include "disk.h"
#include "model.h"
#include "report.h"

/* A few clusters, and a part of one that may end inside a sector. */
static void build_raw(struct base *base, const struct image *top, struct rng *rng)
{
    uint64_t clusters = rng_between(rng, 1, top->runs[0].count + 2);
    base->size = clusters * base->cluster - rng_below(rng, base->cluster);
    base->bytes = sim_alloc(clusters * base->cluster);
    for (uint64_t sector = 0; sector < base->size / DISK_SECTOR; sector++)
        for (uint32_t i = 0; i < top->hot_count; i++)
            if (top->hot[i] == sector / top->cluster_sectors)
                content_fill(base->bytes + sector * DISK_SECTOR, sector, BASE_VERSION);
}

void base_build(struct base *base, const struct image *top, struct rng *rng, bool raw)
{
    char message[160];
    memset(base, 0, sizeof(*base));
    base->there = true;
    base->raw = raw;
    base->cluster = (uint64_t)top->cluster_sectors * DISK_SECTOR;
    if (raw) {
        build_raw(base, top, rng);
        return;
    }
    struct image image;
    image_below(&image, top, rng);
    base->bytes = image_build(&image, rng, &base->size);
    base->memory = (struct oracle_memory){base->bytes, base->size};
    if (oracle_open(&base->oracle, oracle_read_memory, &base->memory, base->size, message) !=
        ORACLE_OK)
        give_up("the base is no image: %s", message);
}

void base_free(struct base *base)
{
    if (base->there && !base->raw)
        oracle_close(&base->oracle);
    sim_free(base->bytes);
    memset(base, 0, sizeof(*base));
}

bool base_has(const struct base *base, uint64_t guest_cluster)
{
    if (!base->there)
        return false;
    if (base->raw)
        return guest_cluster * base->cluster < base->size;
    return guest_cluster < base->oracle.bat_entries && base->oracle.bat[guest_cluster];
}

void base_read(struct base *base, uint64_t guest_cluster, uint8_t *bytes)
{
    memset(bytes, 0, base->cluster);
    if (!base_has(base, guest_cluster))
        return;
    if (base->raw) {
        uint64_t at = guest_cluster * base->cluster, left = base->size - at;
        memcpy(bytes, base->bytes + at, left < base->cluster ? left : base->cluster);
    } else if (oracle_read_cluster(&base->oracle, guest_cluster, bytes) != 1)
        give_up("the base cannot be read");
}
