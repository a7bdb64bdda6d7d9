/* SPDX-License-Identifier: MIT */
/*
 * An image's geometry. Everything is computed in 64 bits: an entry has 32 bits and a cluster at
 * most 26, so that no product and no sum here can overflow, whatever an image claims.
 */
#include "format/geometry.h"

#include <assert.h>

static uint64_t bat_end(uint64_t entries)
{
    return HEADER_SIZE + 4 * entries;
}

static uint32_t pages_for(uint64_t entries)
{
    return (uint32_t)((bat_end(entries) + BAT_PAGE_SIZE - 1) / BAT_PAGE_SIZE);
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint32_t geometry_guest_clusters(const struct geometry *geometry)
{
    uint64_t count = geometry->disk_size / geometry->cluster_size +
                     (geometry->disk_size % geometry->cluster_size != 0);

    return (uint32_t)min64(count, geometry->bat_entries);
}

/* Where the grid begins: cluster 0, which may be a part of the header and the BAT. */
static uint64_t origin(const struct geometry *geometry)
{
    return geometry->data_start % geometry->cluster_size;
}

__attribute__((unused)) /* without assertions */
static bool
is_on_grid(const struct geometry *geometry, uint64_t offset)
{
    return offset >= geometry->data_start &&
           (offset - geometry->data_start) % geometry->cluster_size == 0;
}

uint64_t geometry_host_first(const struct geometry *geometry)
{
    return geometry->data_start / geometry->cluster_size;
}

uint64_t geometry_host_end(const struct geometry *geometry, uint64_t file_size)
{
    uint64_t data = file_size < geometry->data_start ? 0 : file_size - geometry->data_start;

    return geometry_host_first(geometry) + data / geometry->cluster_size;
}

bool geometry_has_tail(const struct geometry *geometry, uint64_t file_size)
{
    return file_size > geometry->data_start &&
           (file_size - geometry->data_start) % geometry->cluster_size != 0;
}

uint64_t geometry_host_limit(const struct geometry *geometry)
{
    uint64_t last = (uint64_t)(BAT_ENTRY_BAD - 1) * geometry->entry_unit;

    return last < geometry->data_start ? geometry_host_first(geometry)
                                       : (last - origin(geometry)) / geometry->cluster_size + 1;
}

uint64_t geometry_entries_limit(const struct geometry *geometry)
{
    uint64_t limit = geometry_host_limit(geometry);

    return limit > geometry->bat_entries ? limit : geometry->bat_entries;
}

uint64_t geometry_place_at(const struct geometry *geometry, uint64_t offset)
{
    assert(is_on_grid(geometry, offset));
    return offset / geometry->cluster_size;
}

uint64_t geometry_place_offset(const struct geometry *geometry, uint64_t place)
{
    assert(place >= geometry_host_first(geometry));
    return origin(geometry) + place * geometry->cluster_size;
}

uint64_t geometry_host_offset(const struct geometry *geometry, struct host_cluster host)
{
    return geometry_place_offset(geometry, host.n);
}

uint32_t geometry_entry(const struct geometry *geometry, struct host_cluster host)
{
    assert(host.n < geometry_host_limit(geometry));
    return (uint32_t)(geometry_host_offset(geometry, host) / geometry->entry_unit);
}

struct host_cluster geometry_host(const struct geometry *geometry, uint32_t entry)
{
    uint64_t offset = geometry_entry_offset(geometry, entry);

    return (struct host_cluster){(uint32_t)geometry_place_at(geometry, offset)};
}

enum entry_verdict geometry_judge_entry(const struct geometry *geometry, uint64_t file_size,
                                        uint32_t entry)
{
    uint64_t offset = geometry_entry_offset(geometry, entry);

    if (entry == BAT_ENTRY_BAD) {
        return ENTRY_PAST_END;
    }
    if (offset < geometry->data_start) {
        return ENTRY_BEFORE_DATA;
    }
    if ((offset - geometry->data_start) % geometry->cluster_size) {
        return ENTRY_OFF_GRID;
    }
    if (offset >= file_size) {
        return ENTRY_PAST_END;
    }
    return offset + geometry->cluster_size > file_size ? ENTRY_CUT : ENTRY_GOOD;
}

struct good_entries geometry_good_entries(const struct geometry *geometry, uint64_t file_size)
{
    uint64_t first = geometry_host_first(geometry);
    uint64_t limit = geometry_host_limit(geometry);
    uint64_t tail = geometry_host_end(geometry, file_size), end = min64(tail, limit);
    struct good_entries good = {.first = 1, .step = 1};

    if (first < end) {
        good = (struct good_entries){
            .first = geometry_entry(geometry, (struct host_cluster){(uint32_t)first}),
            .last = geometry_entry(geometry, (struct host_cluster){(uint32_t)(end - 1)}),
            .step = (uint32_t)(geometry->cluster_size / geometry->entry_unit),
            .host_first = (uint32_t)first,
        };
        assert(geometry_judge_entry(geometry, file_size, good.first) == ENTRY_GOOD);
        assert(geometry_judge_entry(geometry, file_size, good.last) == ENTRY_GOOD);
    }
    if (geometry_has_tail(geometry, file_size) && tail < limit) {
        good.cut = geometry_entry(geometry, (struct host_cluster){(uint32_t)tail});
        good.cut_place = tail;
        assert(geometry_judge_entry(geometry, file_size, good.cut) == ENTRY_CUT);
    }
    return good;
}

uint32_t geometry_page_count(const struct geometry *geometry)
{
    return pages_for(geometry->bat_entries);
}

uint32_t geometry_page_limit(const struct geometry *geometry)
{
    return pages_for(geometry_entries_limit(geometry));
}

uint32_t geometry_page_of(struct guest_cluster cluster)
{
    return (uint32_t)((HEADER_SIZE + (uint64_t)4 * cluster.n) / BAT_PAGE_SIZE);
}

uint32_t geometry_page_first(uint32_t page)
{
    return page == 0 ? 0 : BAT_FIRST_PAGE_ENTRIES + (page - 1) * BAT_PAGE_ENTRIES;
}

uint32_t geometry_page_entries(const struct geometry *geometry, uint32_t page)
{
    uint32_t room = page == 0 ? BAT_FIRST_PAGE_ENTRIES : BAT_PAGE_ENTRIES;

    assert(page < geometry_page_count(geometry));
    return (uint32_t)min64(room, geometry->bat_entries - geometry_page_first(page));
}

uint64_t geometry_bat_bytes(const struct geometry *geometry)
{
    return (bat_end(geometry->bat_entries) + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
}

uint32_t geometry_page_bytes(const struct geometry *geometry, uint32_t page)
{
    assert(page < geometry_page_count(geometry));
    return (uint32_t)min64(BAT_PAGE_SIZE,
                           geometry_bat_bytes(geometry) - (uint64_t)page * BAT_PAGE_SIZE);
}
