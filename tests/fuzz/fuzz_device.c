/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: open for writing, with RECOVER or without, and use the device: writes, zeros,
 * discards, flushes, reads; then close, abort, or an error or a power cut; then open again and
 * compare.
 *
 *  1. A refused image is byte for byte unchanged. If there was no space to keep features of its
 *     extension, it is as good as it was, and has all of them.
 *  2. A sector reads as the last write that completed, or as a later one that failed; an unwritten
 *     sector as the oracle reads it.
 *  3. After a close that succeeded the image is clean except for leaks, for the oracle too, rule 2
 *     holds for a new device, and the extension has exactly the features to be kept; where nothing
 *     was changed the header is as it was found, and the extension has all.
 *  4. In all other cases RECOVER opens it, a check before that finds the mark, a cluster that was
 *     cut off before, and leaks, and nothing else, and each sector reads as the last write that a
 *     later flush (or its own FUA) made durable, or as a later one.
 *  5. As the base of a stack, below a new top that is written, the same holds, and the base is not
 *     written, except by its recovery.
 */
#include <errno.h>
#include <string.h>

#include "format/extension.h"
#include "judge.h"
#include "mutate.h"
#include "oracle/oracle_extension.h"
#include "util/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const uint8_t mutation_weights[MUTATIONS] = {
    [MUTATE_HEADER] = 3,   [MUTATE_ENTRIES] = 3, [MUTATE_FILE_SIZE] = 2, [MUTATE_EXTENSION] = 3,
    [MUTATE_REQUESTS] = 8, [MUTATE_OPTIONS] = 4, [MUTATE_BYTES] = 1};

enum { REQUESTS_MAX = 48, SECTORS_MAX = 512 };
enum {
    KIND_WRITE,
    KIND_WRITE_FUA,
    KIND_ZEROES,
    KIND_ZEROES_KEEP,
    KIND_DISCARD,
    KIND_FLUSH,
    KIND_READ,
    KIND_TIME,
    KINDS
};

/* A request that was carried out. */
struct done {
    uint32_t kind;
    uint64_t sector, sectors;
    uint32_t index; /* its bytes are computed from this */
    bool certain;   /* it succeeded */
    bool durable;
};

struct run {
    struct opinion *opinion; /* of the image before */
    struct sample sample;
    struct backend backend; /* of the file that is written: the image, or the top above it */
    struct backend base;
    bool stacked;
    ploop_dev *dev;
    struct done done[REQUESTS_MAX];
    uint32_t count;
    uint64_t changes;
    bool changed; /* a request that may change the disk was accepted */
    uint64_t disk_sectors, cluster_sectors;
};

static int open_again(struct run *run, uint32_t flags, ploop_dev **dev)
{
    return judge_open_stack(run->stacked ? &run->base : NULL, &run->backend, flags, dev);
}

/* ---- the allowed contents of a sector ---- */

static void make_sector(uint8_t *to, uint64_t sector, uint32_t index)
{
    for (uint32_t i = 0; i < 512; i += 8) {
        store_le64(to + i, (sector * 0x9e3779b97f4a7c15 + i) ^ (uint64_t)(index + 1) << 56);
    }
}

/*
 * Whether that request changed this sector. A discard covers whole clusters, the disk's last one up
 * to its end.
 */
static bool covers(const struct run *run, const struct done *done, uint64_t sector)
{
    uint64_t first = sector / run->cluster_sectors * run->cluster_sectors,
             end = first + run->cluster_sectors;

    if (done->kind == KIND_FLUSH || sector < done->sector ||
        sector >= done->sector + done->sectors) {
        return false;
    }
    end = end < run->disk_sectors ? end : run->disk_sectors;
    return done->kind != KIND_DISCARD ||
           (first >= done->sector && end <= done->sector + done->sectors);
}

static void guest_sector(const struct run *run, uint64_t sector, uint8_t to[512])
{
    uint8_t bytes[JUDGE_PART] = {0};
    struct part part = {sector * 512, 512};

    enum oracle_cluster state =
        oracle_judge_cluster(&run->opinion->oracle, sector / run->cluster_sectors);
    if (state == ORACLE_MAPPED || state == ORACLE_CUT) { /* whole by now, with zeros */
        guest_bytes(run->opinion, &part, bytes);
    }
    memcpy(to, bytes, 512);
}

/* From the last request back to the first that settles it. */
static bool may_hold(const struct run *run, uint64_t sector, const uint8_t *bytes, bool durable)
{
    uint8_t expected[512];

    for (uint32_t i = run->count; i-- > 0;) {
        const struct done *done = &run->done[i];

        if (!covers(run, done, sector)) {
            continue;
        }
        memset(expected, 0, sizeof(expected));
        if (done->kind == KIND_WRITE || done->kind == KIND_WRITE_FUA) {
            make_sector(expected, sector, done->index);
        }
        if (memcmp(bytes, expected, sizeof(expected)) == 0) {
            return true;
        }
        if (durable ? done->durable : done->certain) {
            return false;
        }
    }
    guest_sector(run, sector, expected);
    return memcmp(bytes, expected, sizeof(expected)) == 0;
}

static void judge_range(const struct run *run, ploop_dev *dev, uint64_t sector, uint64_t sectors,
                        bool durable)
{
    static uint8_t bytes[SECTORS_MAX * 512];
    int64_t got = ploop_dev_pread(dev, bytes, sectors * 512, sector * 512);

    MUST(got == (int64_t)(sectors * 512), "a read of %llu sectors at %llu: %lld",
         (unsigned long long)sectors, (unsigned long long)sector, (long long)got);
    for (uint64_t i = 0; i < sectors; i++) {
        MUST(may_hold(run, sector + i, bytes + i * 512, durable),
             "sector %llu holds what it must not%s", (unsigned long long)(sector + i),
             durable ? " after opening again" : "");
    }
}

/* Judge the sectors of all requests, one sector around them, and some untouched ones. */
static void judge_disk(const struct run *run, ploop_dev *dev, bool durable)
{
    for (uint32_t i = 0; i < run->count; i++) {
        uint64_t sector = run->done[i].sector, sectors = run->done[i].sectors;

        sectors += sector > 0;
        sector -= sector > 0;
        sectors += sector + sectors < run->disk_sectors;
        if (sectors && run->done[i].kind != KIND_FLUSH) {
            judge_range(run, dev, sector, sectors < SECTORS_MAX ? sectors : SECTORS_MAX, durable);
        }
    }
    for (uint32_t i = 0; i < run->sample.count; i++) {
        struct part part = cluster_part(run->opinion, run->sample.clusters[i], i % 2);

        judge_range(run, dev, part.offset / 512, part.length / 512, durable);
    }
}

/* ---- requests ---- */

static void note_result(ploop_pio *pio, int result, void *user_data)
{
    volatile int *to = user_data;

    MUST(*to == 1, "completed twice");
    *to = result;
    ploop_pio_put(pio);
}

static int carry_out(struct run *run, const struct done *done)
{
    static uint8_t bytes[SECTORS_MAX * 512];
    struct iovec iov = {bytes, done->sectors * 512};
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(run->dev, 0));
    uint64_t offset = done->sector * 512;
    volatile int result = 1;
    int turns = 0;

    MUST(pio, "no request is free");
    switch (done->kind) {
    case KIND_WRITE:
    case KIND_WRITE_FUA:
        for (uint64_t i = 0; i < done->sectors; i++) {
            make_sector(bytes + i * 512, done->sector + i, done->index);
        }
        ploop_pio_prep_writev(pio, offset, &iov, 1,
                              done->kind == KIND_WRITE_FUA ? PLOOP_PIO_FUA : 0);
        break;
    case KIND_ZEROES:
    case KIND_ZEROES_KEEP:
        ploop_pio_prep_write_zeroes(pio, offset, iov.iov_len,
                                    done->kind == KIND_ZEROES_KEEP ? PLOOP_PIO_NO_UNMAP : 0);
        break;
    case KIND_DISCARD:
        ploop_pio_prep_discard(pio, offset, iov.iov_len);
        break;
    default:
        ploop_pio_prep_flush(pio);
    }
    ploop_pio_set_callback(pio, note_result, (void *)&result);
    MUST(ploop_queue_submit(ploop_dev_queue(run->dev, 0), &pio, 1) == 1, "refused");
    while (result == 1) {
        ploop_queue_run(ploop_dev_queue(run->dev, 0));
        MUST(turns++ < 10000, "a request of kind %u does not end", done->kind);
    }
    return result;
}

static void note_flush(struct run *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        run->done[i].durable = run->done[i].certain;
    }
}

static void request(struct run *run, const struct record *record)
{
    struct done *done = &run->done[run->count];
    uint64_t sectors = record->length < SECTORS_MAX - 2 ? record->length : SECTORS_MAX - 2;
    int result;

    *done = (struct done){.kind = record->value % KINDS,
                          .index = run->count,
                          .sector = record->offset % run->disk_sectors};
    done->sectors =
        sectors < run->disk_sectors - done->sector ? sectors : run->disk_sectors - done->sector;
    if (done->kind == KIND_TIME) {
        judge_now_ns += (uint64_t)record->length * 10000000;
        ploop_dev_run(run->dev);
        return;
    }
    if (done->kind == KIND_READ) {
        judge_range(run, run->dev, done->sector, done->sectors, false);
        return;
    }
    if (done->sectors == 0) {
        return;
    }
    run->changed |= done->kind != KIND_FLUSH;
    result = carry_out(run, done);
    MUST(result == 0 || result == -ENOSPC || (run->backend.broken && result < 0),
         "a request of kind %u: %d", done->kind, result);
    done->certain = result == 0 && !(run->stacked &&
                                     done->kind == KIND_DISCARD); /* what the base holds may stay */
    done->durable = result == 0 && done->kind == KIND_WRITE_FUA;
    run->count++;
    if (done->kind == KIND_FLUSH && result == 0) {
        note_flush(run);
    }
}

/* ---- the extension ---- */

struct features {
    bool transit; /* those only */
    int count;    /* -1: the oracle finds the extension invalid */
    uint64_t digest;
};

static void take_feature(void *user_data, uint64_t magic, uint64_t flags, const uint8_t *data,
                         uint32_t size)
{
    struct features *features = user_data;
    uint64_t digest = features->digest ^ magic ^ flags << 32 ^ size;

    if (features->transit && (magic == EXTENSION_BITMAP_MAGIC || !(flags & FEATURE_TRANSIT))) {
        return;
    }
    for (uint32_t i = 0; i < size; i++) {
        digest = (digest ^ data[i]) * 0x100000001b3;
    }
    features->digest = digest;
    features->count++;
}

static struct features take_features(struct oracle *oracle, bool transit)
{
    struct features features = {.transit = transit};
    char why[160];

    if (oracle->in_use == ORACLE_CLOSED &&
        oracle_extension_features(oracle, take_feature, &features, why) < 0) {
        features.count = -1;
    }
    return features;
}

static void judge_features(struct run *run, struct opinion *after, bool transit)
{
    struct features old = take_features(&run->opinion->oracle, transit),
                    new = take_features(&after->oracle, false);

    MUST(old.count < 0 || (new.count == old.count &&new.digest == old.digest),
         "%d features, %d before", new.count, old.count);
}

/* Opening changes nothing that a close could not take back: R11. */
static bool opens_unchanged(const struct run *run)
{
    struct oracle_result found;
    int all = take_features(&run->opinion->oracle, false).count;
    int kept = take_features(&run->opinion->oracle, true).count;

    oracle_check(&run->opinion->oracle, NULL, NULL, &found);
    return !run->stacked && found.errors == 0 && (kept == 0 || kept == all);
}

/* ---- the end, and after it ---- */

static void judge_closed(struct run *run)
{
    struct outcome outcome;
    struct opinion after;
    ploop_dev *dev;
    uint64_t mapped;

    judge_check(&run->backend, 0, &outcome);
    MUST(outcome.error == 0 && outcome.result.errors == 0,
         "a check after the close: %d, %llu errors", outcome.error,
         (unsigned long long)outcome.result.errors);
    opinion_form(&after, &run->backend.state);
    judge_outcome(&outcome, &after);
    mapped = outcome.result.mapped + outcome.kinds[PLOOP_CHECK_ENTRY_BEYOND];
    bool is_as_found = !run->changed && opens_unchanged(run);
    MUST(!after.has_map || (is_as_found ? after.oracle.flags == run->opinion->oracle.flags &&
                                              after.oracle.in_use == run->opinion->oracle.in_use &&
                                              after.oracle.ext_off == run->opinion->oracle.ext_off
                                        : (after.oracle.flags & 1) == (mapped == 0)),
         "flags %u, in_use 0x%x, ext_off %llu, and %llu mapped", after.oracle.flags,
         after.oracle.in_use, (unsigned long long)after.oracle.ext_off, (unsigned long long)mapped);
    if (after.has_map && !run->stacked) {
        judge_features(run, &after, !is_as_found);
    }
    opinion_free(&after);
    run->backend.read_only = true;
    MUST(open_again(run, PLOOP_DEV_READ_ONLY, &dev) == 0, "a clean image does not open");
    judge_disk(run, dev, false);
    MUST(ploop_dev_close(dev) == 0, "close");
    run->backend.read_only = false;
}

static void judge_left(struct run *run)
{
    struct outcome outcome;
    ploop_dev *dev;
    int error;

    backend_mend(&run->backend);
    run->backend.state.unlimited = true;
    judge_check(&run->backend, 0, &outcome);
    MUST(outcome.error == 0 && outcome.result.recoverable &&
             outcome.result.errors - outcome.kinds[PLOOP_CHECK_EMPTY_FLAG] -
                     outcome.kinds[PLOOP_CHECK_UNCLEAN] - outcome.kinds[PLOOP_CHECK_ENTRY_CUT] <=
                 outcome.kinds[PLOOP_CHECK_EXTENSION],
         "a check after the crash: %d, %llu errors", outcome.error,
         (unsigned long long)outcome.result.errors);
    error = open_again(run, PLOOP_DEV_RECOVER, &dev);
    MUST(error == 0, "RECOVER after the crash: %d", error);
    judge_disk(run, dev, true);
    MUST(ploop_dev_close(dev) == 0, "close");
}

/* There was no space for the part of the extension that must be kept. */
static void judge_gone_back(struct run *run, const struct sparse *image)
{
    struct outcome before, now;
    struct opinion after;
    struct backend backend;
    ploop_dev *dev;

    backend_open(&backend, image);
    judge_check(&backend, 0, &before);
    judge_check(&run->backend, 0, &now);
    MUST(now.error == 0 && now.result.errors <= before.result.errors,
         "refused without space: %d, %llu errors", now.error,
         (unsigned long long)now.result.errors);
    backend_close(&backend);
    opinion_form(&after, &run->backend.state);
    MUST(after.has_map, "no image any more");
    judge_features(run, &after, false);
    opinion_free(&after);
    MUST(judge_open(&run->backend, PLOOP_DEV_READ_ONLY, &dev) == 0, "it does not open any more");
    judge_disk(run, dev, false);
    MUST(ploop_dev_close(dev) == 0, "close");
}

static void use(struct run *run, const struct input *input)
{
    int error = 0;

    for (uint32_t i = 0; i < input->record_count && run->count < REQUESTS_MAX && run->disk_sectors;
         i++) {
        if (input->records[i].kind == RECORD_REQUEST) {
            request(run, &input->records[i]);
        }
    }
    judge_disk(run, run->dev, false);
    if (input->options & OPTION_ABORT) {
        ploop_dev_abort(run->dev);
    } else {
        error = ploop_dev_close(run->dev);
        MUST(error == 0 || run->backend.broken || run->backend.state.page_count >= SPARSE_PAGES_MAX,
             "close: %d", error);
    }
    run->changes = run->backend.changes;
    if (input->options & OPTION_ABORT || error) {
        judge_left(run);
    } else {
        judge_closed(run);
    }
}

static void begin(struct run *run, const struct input *input)
{
    uint32_t flags = input->options & OPTION_NO_RECOVER ? 0 : PLOOP_DEV_RECOVER;
    uint32_t lacks = (input->options & OPTION_NO_GROW ? PLOOP_FILE_CAN_GROW : 0u) |
                     (input->options & OPTION_NO_PUNCH ? PLOOP_FILE_CAN_PUNCH : 0u);
    struct sparse image;
    int error;

    run->backend.capabilities &= ~lacks;
    run->backend.capabilities |= input->options & OPTION_FUA ? PLOOP_FILE_CAN_FUA : 0u;
    flags |= input->options & OPTION_SLOW ? PLOOP_DEV_NO_FAST_PATH : 0u;
    sparse_copy(&image, &run->backend.state);
    error = open_again(run, flags, &run->dev);
    if (!error) {
        use(run, input);
    } else if (run->backend.broken) {
        judge_left(run);
    } else if (error == -ENOSPC) {
        judge_gone_back(run, &image);
    } else {
        MUST(sparse_equal(&run->backend.state, &image) && run->backend.edits == 0,
             "refused with %d, and changed", error);
    }
    sparse_free(&image);
}

static void open_files(struct run *run, const struct fuzz_case *fuzz_case)
{
    struct sparse top;

    run->stacked = fuzz_case->input.options & OPTION_STACK;
    if (!run->stacked) {
        backend_open(&run->backend, &fuzz_case->image);
        return;
    }
    make_top(run->opinion, &top);
    backend_open(&run->backend, &top);
    sparse_free(&top);
    backend_open(&run->base, &fuzz_case->image);
    struct oracle *oracle = &run->opinion->oracle;
    bool recovers = oracle->in_use == ORACLE_IN_USE || oracle_writing(oracle) == ORACLE_RECOVER;
    run->base.read_only = !recovers || fuzz_case->input.options & OPTION_NO_RECOVER;
}

/*
 * From opening to opening again; a break at that change, 0: none. Returns the number of changes
 * that were made until the device was closed.
 */
static uint64_t live(const struct fuzz_case *fuzz_case, struct opinion *opinion, uint64_t break_at)
{
    static struct run run;

    run = (struct run){.opinion = opinion, .disk_sectors = opinion->oracle.disk_sectors};
    run.cluster_sectors = opinion->oracle.cluster_sectors;
    sample_take(&run.sample, opinion);
    open_files(&run, fuzz_case);
    backend_break(&run.backend, break_at, fuzz_case->input.break_at, fuzz_case->input.options);
    begin(&run, &fuzz_case->input);
    backend_close(&run.backend);
    if (run.stacked) {
        backend_close(&run.base);
    }
    return run.changes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_case *fuzz_case = case_load(data, size);
    struct opinion opinion;

    opinion_form(&opinion, &fuzz_case->image);
    if (opinion.has_map) {
        bool aborted = fuzz_case->input.options & OPTION_ABORT;
        uint64_t changes =
            live(fuzz_case, &opinion,
                 aborted ? UINT64_MAX : 0); /* so that changes it does not sync can be lost too */

        if (changes && fuzz_case->input.break_at) {
            live(fuzz_case, &opinion, 1 + fuzz_case->input.break_at % changes);
        }
    }
    opinion_free(&opinion);
    case_free(fuzz_case);
    return 0;
}
