/* SPDX-License-Identifier: MIT */
/*
 * An inline backend that moves no bytes: only the library's own work remains. The map is kept, in a
 * memory file, so that the image can be opened; a request behind it completes at once with nothing
 * moved. The static variables are written before a device runs and only read then.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 64, ENTRIES_AT_ONCE = 1 << 18 };

static ploop_file *map;
static uint64_t map_end, entry_count, cluster_bytes, share;

uint64_t bench_map_requests[PLOOP_IO_TRUNCATE + 1];

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    return ploop_file_info(map, info);
}

static int64_t carry_out(const struct ploop_io *io)
{
    int64_t result = io->op == PLOOP_IO_TRUNCATE ? ploop_file_truncate(map, io->offset) : 0;
    uint64_t at = io->offset;
    for (uint32_t i = 0; i < io->iov_count && result >= 0; i++) {
        const struct iovec *piece = &io->iov[i];
        result = io->op == PLOOP_IO_READ
                     ? ploop_file_pread(map, piece->iov_base, piece->iov_len, at)
                     : ploop_file_pwrite(map, piece->iov_base, piece->iov_len, at);
        at += piece->iov_len;
    }
    return result < 0 ? result : (int64_t)io->length;
}

static int submit(void *context, struct ploop_io *io)
{
    (void)context;
    bench_map_requests[io->op]++;
    bool is_data = io->iov_count && io->offset >= map_end;
    ploop_io_complete(io, is_data ? (int64_t)io->length : carry_out(io));
    return 0;
}

ploop_file *bench_map_only(uint64_t disk_size, uint64_t cluster_size)
{
    const struct ploop_io_ops ops = {.size = sizeof(ops), .get_info = get_info, .submit = submit};
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = disk_size, .cluster_size = cluster_size};
    struct ploop_image_info info = {.size = sizeof(info)};
    ploop_file *file;
    bench_check("memory file", ploop_file_create_memory(0, &map));
    bench_check("create", ploop_image_create(map, &options));
    bench_check("probe", ploop_image_probe(map, &info));
    map_end = info.data_offset;
    entry_count = info.bat_entries;
    cluster_bytes = info.cluster_size;
    bench_check("file", ploop_file_create(&ops, NULL, &file));
    return file;
}

bool bench_is_mapped(uint64_t guest_cluster)
{
    uint64_t mixed = guest_cluster * UINT64_C(0x9E3779B97F4A7C15);
    return (mixed >> 32) % 100 < share;
}

void bench_map_all(void)
{
    bench_map_share(100);
}

/* An entry of a version 2 image counts clusters from the beginning of the file. */
void bench_map_share(uint64_t percent)
{
    share = percent;
    uint32_t *entries = malloc(ENTRIES_AT_ONCE * sizeof(uint32_t));
    bench_check("memory", entries ? 0 : -12);
    for (uint64_t first = 0; first < entry_count; first += ENTRIES_AT_ONCE) {
        uint64_t count =
            entry_count - first < ENTRIES_AT_ONCE ? entry_count - first : (uint64_t)ENTRIES_AT_ONCE;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t host = map_end / cluster_bytes + first + i;
            entries[i] = bench_is_mapped(first + i) ? (uint32_t)host : 0;
        }
        bench_check("map", ploop_file_pwrite(map, entries, count * sizeof(uint32_t),
                                             HEADER_BYTES + first * sizeof(uint32_t)));
    }
    free(entries);
    bench_check("file size", ploop_file_truncate(map, map_end + entry_count * cluster_bytes));
}

void bench_map_only_close(ploop_file *file)
{
    ploop_file_close(file);
    ploop_file_close(map);
}
