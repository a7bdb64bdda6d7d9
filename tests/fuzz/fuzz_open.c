/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: open read-only, and read. Whatever the requests, nothing is written; the header is
 * as the oracle sees it; every guest cluster reads as the bytes that the oracle finds, as zeros if
 * it has no entry, and as EIO if its entry is bad, or its end not in the file; below a new top as
 * well.
 */
#include <errno.h>
#include <string.h>

#include "judge.h"
#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const uint8_t mutation_weights[MUTATIONS] = {
    [MUTATE_HEADER] = 5,    [MUTATE_ENTRIES] = 6, [MUTATE_FILE_SIZE] = 3,
    [MUTATE_EXTENSION] = 1, [MUTATE_OPTIONS] = 2, [MUTATE_BYTES] = 1};

static void judge_probe(struct backend *backend, const struct opinion *opinion)
{
    const struct oracle *oracle = &opinion->oracle;
    struct ploop_image_info info = {.size = sizeof(info)};
    int error = ploop_image_probe(backend->file, &info), expected = opinion_error(opinion);

    MUST(error == (expected == -EFBIG ? 0 : expected), "probe: %d, the oracle says %d", error,
         expected);
    MUST(memchr(info.message, 0, sizeof(info.message)) && (error != 0) == (info.message[0] != 0),
         "%d", error);
    if (!error) {
        MUST(info.disk_size == oracle->disk_sectors * 512 && info.cluster_size == oracle->cluster &&
                 info.data_offset == oracle->data_start &&
                 info.bat_entries == oracle->bat_entries && info.version == (oracle->v1 ? 1 : 2) &&
                 info.file_size == backend->state.size,
             "a probe that differs from the oracle");
    }
}

static void judge_read(ploop_dev *dev, const struct opinion *opinion, const struct part *part)
{
    static uint8_t bytes[JUDGE_PART], expected[JUDGE_PART];
    uint64_t cluster = part->offset / opinion->oracle.cluster;
    int64_t got = ploop_dev_pread(dev, bytes, part->length, part->offset);

    switch (oracle_judge_cluster(&opinion->oracle, cluster)) {
    case ORACLE_UNMAPPED:
        memset(expected, 0, sizeof(expected));
        break;
    case ORACLE_MAPPED:
        guest_bytes(opinion, part, expected);
        break;
    case ORACLE_CUT:
        if (part_is_there(opinion, part)) {
            guest_bytes(opinion, part, expected);
            break;
        } /* fall through */
    default:
        MUST(got == -EIO, "cluster %llu has a bad entry and reads as %lld",
             (unsigned long long)cluster, (long long)got);
        return;
    }
    MUST(got == (int64_t)part->length, "cluster %llu: %lld", (unsigned long long)cluster,
         (long long)got);
    MUST(memcmp(bytes, expected, part->length) == 0, "cluster %llu reads as other bytes",
         (unsigned long long)cluster);
}

static void judge_lookup(ploop_dev *dev, const struct opinion *opinion, const struct part *part)
{
    const struct oracle *oracle = &opinion->oracle;
    struct ploop_extent extent = {.size = sizeof(extent)};
    uint64_t cluster = part->offset / oracle->cluster;
    int error = ploop_bat_lookup(dev, part->offset, part->length, &extent);

    switch (oracle_judge_cluster(oracle, cluster)) {
    case ORACLE_UNMAPPED:
        MUST(error == 0 && extent.state == PLOOP_EXTENT_ZERO, "cluster %llu: lookup %d",
             (unsigned long long)cluster, error);
        break;
    case ORACLE_MAPPED:
    case ORACLE_CUT:
        MUST(error == 0 && extent.state == PLOOP_EXTENT_MAPPED && extent.offset == part->offset &&
                 extent.length == part->length &&
                 extent.host_offset ==
                     oracle_host_offset(oracle, cluster) + part->offset % oracle->cluster,
             "cluster %llu: lookup %d", (unsigned long long)cluster, error);
        break;
    default:
        MUST(error == -EIO, "cluster %llu: lookup %d", (unsigned long long)cluster, error);
    }
}

static void judge_clusters(ploop_dev *dev, const struct opinion *opinion)
{
    struct sample sample;

    sample_take(&sample, opinion);
    for (uint32_t i = 0; i < sample.count; i++) {
        const struct part parts[] = {cluster_part(opinion, sample.clusters[i], false),
                                     cluster_part(opinion, sample.clusters[i], true)};

        judge_read(dev, opinion, &parts[0]);
        judge_read(dev, opinion, &parts[1]);
        judge_lookup(dev, opinion, &parts[0]);
    }
}

/* The rules for every device that is read-only and has any content. */
static void judge_limits(ploop_dev *dev, uint64_t disk_size)
{
    static uint8_t sector[512];
    struct ploop_dev_info info = {.size = sizeof(info)};
    int64_t wrote = ploop_dev_pwrite(dev, sector, sizeof(sector), 0);

    MUST(wrote == (disk_size ? -EROFS : -EINVAL) || wrote == -EROFS, "a write: %lld",
         (long long)wrote);
    MUST(ploop_dev_pread(dev, sector, sizeof(sector), disk_size) == -EINVAL,
         "a read behind the end");
    MUST(ploop_dev_pread(dev, sector, sizeof(sector), UINT64_MAX - 511) == -EINVAL,
         "a read at the end of all numbers");
    MUST(ploop_dev_info(dev, &info) == 0 && info.disk_size == disk_size &&
             info.state & PLOOP_STATE_READ_ONLY,
         "info");
    ploop_dev_flush(dev);
}

static void judge_stack(struct backend *base, const struct opinion *opinion, uint32_t flags)
{
    struct backend backend;
    struct sparse top;
    ploop_dev *dev;

    make_top(opinion, &top);
    backend_open(&backend, &top);
    backend.read_only = true;
    MUST(judge_open_stack(base, &backend, flags, &dev) == 0, "it does not open as a base");
    judge_limits(dev, opinion->oracle.disk_sectors * 512);
    judge_clusters(dev, opinion);
    MUST(ploop_dev_close(dev) == 0, "close");
    backend_close(&backend);
    sparse_free(&top);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_case *fuzz_case = case_load(data, size);
    uint32_t flags = PLOOP_DEV_READ_ONLY |
                     (fuzz_case->input.options & OPTION_SLOW ? PLOOP_DEV_NO_FAST_PATH : 0u);
    struct opinion opinion;
    struct backend backend;
    ploop_dev *dev;
    int error;

    backend_open(&backend, &fuzz_case->image);
    backend.read_only = true;
    opinion_form(&opinion, &fuzz_case->image);
    judge_probe(&backend, &opinion);
    error = judge_open(&backend, flags, &dev);
    MUST(error == opinion_error(&opinion), "open: %d, the oracle says %d", error,
         opinion_error(&opinion));
    if (!error) {
        judge_limits(dev, opinion.oracle.disk_sectors * 512);
        if (opinion.has_map) {
            judge_clusters(dev, &opinion);
        }
        MUST(ploop_dev_close(dev) == 0, "close");
    }
    if (opinion.has_map && fuzz_case->input.options & OPTION_STACK) {
        judge_stack(&backend, &opinion, flags);
    }
    opinion_free(&opinion);
    backend_close(&backend);
    case_free(fuzz_case);
    return 0;
}
