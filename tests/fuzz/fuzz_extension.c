/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the parser of the format extension, on the cluster that the header names, in a
 * buffer of exactly its size, whatever its checksum; and its loader on the whole image.
 *
 *  1. Features lie in the cluster, one behind the other, and the list ends.
 *  2. A bitmap that is accepted has its whole table in its feature, and covers the disk.
 *  3. The filter writes a valid extension that holds the kept features, in their order, byte for
 *     byte; filtering again changes nothing.
 *  4. The loader accepts what the oracle accepts; each cluster that it calls owned lies on the
 *     grid, is owned once, and is no guest's.
 */
#include <errno.h>
#include <string.h>

#include "format/extension.h"
#include "image/extension_load.h"
#include "judge.h"
#include "mutate.h"
#include "util/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const uint8_t mutation_weights[MUTATIONS] = {[MUTATE_HEADER] = 1,
                                             [MUTATE_ENTRIES] = 1,
                                             [MUTATE_FILE_SIZE] = 1,
                                             [MUTATE_EXTENSION] = 12,
                                             [MUTATE_BYTES] = 1};

enum { CLUSTER_SIZE_MAX = 1 << 20, FEATURE_HEAD_SIZE = 24, BITMAP_HEAD_SIZE = 32 };

static bool keep_some(const struct extension_feature *feature, const void *context)
{
    const uint64_t *mask = context;

    return *mask >> feature->magic % 8 & 1;
}

static void judge_bitmap(const uint8_t *bytes, const struct extension_feature *feature,
                         const struct geometry *geometry)
{
    struct extension_bitmap bitmap;
    struct extension_fault fault = extension_bitmap_decode(bytes, feature, geometry, &bitmap);
    uint64_t bits, sectors = geometry->disk_size / SECTOR_SIZE;

    if (fault.what) {
        return;
    }
    MUST(bitmap.l1_at == feature->data_at + BITMAP_HEAD_SIZE &&
             bitmap.l1_at + (uint64_t)8 * bitmap.l1_size <= feature->data_at + feature->data_size,
         "a table outside its feature");
    bits = (uint64_t)bitmap.l1_size * geometry->cluster_size * 8;
    MUST(bits * bitmap.granularity >= sectors || bits >= sectors,
         "a table that does not cover the disk");
    for (uint32_t i = 0; i < bitmap.l1_size; i++) {
        MUST(extension_l1_get(bytes, &bitmap, i) == load_le64(bytes + bitmap.l1_at + (size_t)8 * i),
             "entry %u", i);
    }
}

/* True: a list with an end. */
static bool judge_list(const uint8_t *bytes, size_t size, const struct geometry *geometry)
{
    struct extension_feature feature;
    struct extension_fault fault;
    size_t at = 0, before = 0;

    while (extension_next(bytes, size, &at, &feature, &fault)) {
        MUST(at > before && feature.data_at > before && feature.magic, "no progress from byte %zu",
             before);
        MUST(feature.data_at <= size && feature.data_size <= size - feature.data_at,
             "a feature of %u bytes at %zu", feature.data_size, feature.data_at);
        if (feature.magic == EXTENSION_BITMAP_MAGIC) {
            judge_bitmap(bytes, &feature, geometry);
        }
        before = at;
    }
    return !fault.what;
}

static void judge_kept(const uint8_t *from, const uint8_t *to, size_t size, uint64_t mask,
                       uint32_t count)
{
    struct extension_feature old, new;
    struct extension_fault fault;
    size_t from_at = 0, to_at = 0;

    for (uint32_t i = 0; i < count; i++) {
        do {
            MUST(extension_next(from, size, &from_at, &old, &fault), "%u features kept of fewer",
                 count);
        } while (!keep_some(&old, &mask));
        MUST(extension_next(to, size, &to_at, &new, &fault), "%u features of %u", i, count);
        MUST(new.data_size ==
                 old.data_size &&memcmp(from + old.data_at - FEATURE_HEAD_SIZE,
                                        to + new.data_at - FEATURE_HEAD_SIZE,
                                        FEATURE_HEAD_SIZE + (size_t)old.data_size) == 0,
             "feature %u is not as it was", i);
    }
    MUST(!extension_next(to, size, &to_at, &new, &fault) && !fault.what,
         "more than the %u features kept", count);
}

static void judge_filter(const uint8_t *bytes, size_t size, uint64_t mask)
{
    uint8_t *once = malloc(size), *twice = malloc(size);
    uint32_t count = extension_filter(bytes, once, size, keep_some, &mask);

    MUST(!extension_verify(once, size).what, "what the filter wrote is not valid");
    judge_kept(bytes, once, size, mask, count);
    MUST(extension_filter(once, twice, size, keep_some, &mask) == count &&
             memcmp(once, twice, size) == 0,
         "filtered again it differs");
    free(once);
    free(twice);
}

static uint32_t entry_of(const void *context, uint32_t guest_cluster)
{
    const struct oracle *oracle = context;

    return oracle->bat[guest_cluster];
}

static void judge_owned(const struct extension *extension, const struct geometry *geometry,
                        const struct opinion *opinion)
{
    for (uint64_t i = 0; i < extension->owned_count; i++) {
        uint64_t offset = extension->owned[i];

        MUST(i == 0 || offset > extension->owned[i - 1], "owned twice: byte %llu",
             (unsigned long long)offset);
        MUST(offset >= geometry->data_start &&
                 (offset - geometry->data_start) % geometry->cluster_size == 0,
             "owned off the grid");
        MUST(offset + geometry->cluster_size <= opinion->oracle.file_size,
             "owned past the end of the file");
        for (uint32_t guest = 0; guest < geometry->bat_entries; guest++) {
            MUST(!opinion->oracle.bat[guest] ||
                     oracle_host_offset(&opinion->oracle, guest) != offset,
                 "owned, and guest cluster %u's: byte %llu", guest, (unsigned long long)offset);
        }
    }
}

static void judge_loading(struct backend *backend, const struct header *header,
                          struct opinion *opinion)
{
    struct extension extension;
    struct oracle_result expected;
    char message[HEADER_MESSAGE_SIZE];
    int error = extension_load(&extension, backend->file, header, backend->state.size,
                               (struct entry_source){entry_of, &opinion->oracle});
    bool good = true;

    MUST(error == 0, "load: %d", error);
    judge_owned(&extension, &header->geometry, opinion);
    MUST(extension.state != EXTENSION_UNUSABLE ||
             extension_writable(&extension, message) == -EUCLEAN,
         "unusable and writable");
    good = extension.state != EXTENSION_UNUSABLE;
    for (uint32_t i = 0; i < extension.bitmap_count; i++) {
        good = good && !extension.bitmaps[i].fault.what;
    }
    oracle_check(&opinion->oracle, NULL, NULL, &expected);
    MUST(expected.errors || good, "the oracle finds nothing wrong with it");
    extension_free(&extension);
}

static void judge_cluster(const struct fuzz_case *fuzz_case, const struct header *header)
{
    size_t size = header->geometry.cluster_size;
    uint8_t *bytes =
        calloc(1, size); /* of exactly that size, so that each byte behind it is poisoned */

    sparse_read(&fuzz_case->image, bytes, size, header->extension_sector * SECTOR_SIZE);
    extension_verify(bytes, size);
    if (judge_list(bytes, size, &header->geometry)) {
        judge_filter(bytes, size, fuzz_case->input.break_at);
        judge_filter(bytes, size, UINT64_MAX);
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_case *fuzz_case = case_load(data, size);
    struct opinion opinion;
    struct header header;
    uint8_t bytes[HEADER_SIZE];
    char message[HEADER_MESSAGE_SIZE];

    opinion_form(&opinion, &fuzz_case->image);
    if (opinion.has_map) {
        struct backend backend;

        sparse_read(&fuzz_case->image, bytes, sizeof(bytes), 0);
        MUST(header_decode(bytes, sizeof(bytes), fuzz_case->image.size, &header, message) == 0,
             "%s", message);
        if (header.geometry.cluster_size <= CLUSTER_SIZE_MAX &&
            header.extension_sector <= INT64_MAX / SECTOR_SIZE) {
            judge_cluster(fuzz_case, &header);
        }
        backend_open(&backend, &fuzz_case->image);
        judge_loading(&backend, &header, &opinion);
        backend_close(&backend);
    }
    opinion_free(&opinion);
    case_free(fuzz_case);
    return 0;
}
