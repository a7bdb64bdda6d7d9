/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: repair, whole and interrupted.
 *
 *  1. A repair that cannot be done leaves the image as it was, or with fewer errors.
 *  2. A guest's cluster keeps its content: mapped ones their bytes, unmapped ones their zeros, a
 *     duplicate the bytes of the cluster it named (in a cluster of its own, or it stays bad); one
 *     that is cut off what the file has of it, and zeros if the repair was asked for that; one with
 *     an invalid entry stays bad, or reads as zeros if the repair was asked for that.
 *  3. After a repair of everything a check finds nothing, nor does the oracle; a second repair
 *     writes nothing, and the image opens.
 *  4. A repair that is interrupted anywhere, by an error or a power cut, leaves no error that was
 *     not there, the mark excepted, and keeps rule 2. The same repair can then be carried out.
 */
#include <errno.h>
#include <string.h>

#include "judge.h"
#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const uint8_t mutation_weights[MUTATIONS] = {
    [MUTATE_HEADER] = 2,    [MUTATE_ENTRIES] = 6, [MUTATE_FILE_SIZE] = 2,
    [MUTATE_EXTENSION] = 5, [MUTATE_OPTIONS] = 4, [MUTATE_BYTES] = 1};

/* An image before anything was done to it. */
struct before {
    const struct sparse *image;
    struct opinion opinion;
    struct sample sample;
    struct outcome found;
    uint32_t repair;
};

static void judge_part(const struct before *before, const struct opinion *after,
                       const struct part *part)
{
    static uint8_t was[JUDGE_PART], is[JUDGE_PART];
    uint64_t cluster = part->offset / before->opinion.oracle.cluster;
    enum oracle_cluster from = oracle_judge_cluster(&before->opinion.oracle, cluster);
    enum oracle_cluster to = oracle_judge_cluster(&after->oracle, cluster);
    bool mend = before->repair & PLOOP_REPAIR_ENTRIES;
    bool has_bytes = to == ORACLE_MAPPED || to == ORACLE_CUT;

    memset(was, 0, sizeof(was));
    memset(is, 0, sizeof(is));
    if (has_bytes) {
        guest_bytes(after, part, is);
    }
    switch (from) {
    case ORACLE_MAPPED:
        guest_bytes(&before->opinion, part, was);
        MUST(to == ORACLE_MAPPED, "cluster %llu was mapped and is not",
             (unsigned long long)cluster);
        break;
    case ORACLE_UNMAPPED:
        MUST(to == ORACLE_UNMAPPED, "cluster %llu was not mapped and is",
             (unsigned long long)cluster);
        break;
    case ORACLE_CUT:
        guest_bytes(&before->opinion, part, was);
        MUST(to == ORACLE_CUT || (mend && to == ORACLE_MAPPED),
             "cluster %llu was cut off and is %d", (unsigned long long)cluster, to);
        break;
    case ORACLE_DUPLICATE:
        guest_bytes(&before->opinion, part, was);
        MUST(to == ORACLE_DUPLICATE || (mend && to == ORACLE_MAPPED),
             "cluster %llu was a duplicate and is %d", (unsigned long long)cluster, to);
        break;
    default:
        MUST(to == ORACLE_BAD || (mend && to == ORACLE_UNMAPPED), "cluster %llu was bad and is %d",
             (unsigned long long)cluster, to);
    }
    MUST(to == ORACLE_BAD || to == ORACLE_DUPLICATE || memcmp(was, is, part->length) == 0,
         "cluster %llu holds other bytes", (unsigned long long)cluster);
}

static void judge_content(const struct before *before, const struct sparse *image)
{
    struct opinion after;

    opinion_form(&after, image);
    MUST(after.has_map || image->size > before->image->size, "the image is none any more");
    for (uint32_t i = 0; i < before->sample.count && after.has_map; i++) {
        for (int last = 0; last < 2; last++) {
            struct part part = cluster_part(&before->opinion, before->sample.clusters[i], last);

            judge_part(before, &after, &part);
        }
    }
    opinion_free(&after);
}

/*
 * An extension in the cluster of a guest's entry is unusable, which is one finding. If that entry
 * lies beyond the disk's end, repairing leaks clears it, and the extension's bitmaps are judged.
 */
static bool hides_findings(const struct before *before, int kind)
{
    return kind == PLOOP_CHECK_EXTENSION && before->found.kinds[kind] &&
           before->found.kinds[PLOOP_CHECK_ENTRY_BEYOND] && before->repair & PLOOP_REPAIR_LEAKS;
}

/* No finding that was not there before, except leaks and the mark. */
static void judge_no_worse(const struct before *before, struct backend *backend)
{
    static const int kinds[] = {PLOOP_CHECK_IN_USE_VALUE,    PLOOP_CHECK_EMPTY_FLAG,
                                PLOOP_CHECK_ENTRY_RANGE,     PLOOP_CHECK_ENTRY_GRID,
                                PLOOP_CHECK_ENTRY_DUPLICATE, PLOOP_CHECK_EXTENSION,
                                PLOOP_CHECK_ENTRY_CUT};
    struct outcome now;

    judge_check(backend, 0, &now);
    MUST(now.error == 0, "check: %d", now.error);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        MUST(now.kinds[kinds[i]] <= before->found.kinds[kinds[i]] ||
                 hides_findings(before, kinds[i]),
             "%llu findings of kind %d, before %llu", (unsigned long long)now.kinds[kinds[i]],
             kinds[i], (unsigned long long)before->found.kinds[kinds[i]]);
    }
    if (before->opinion.has_map) {
        judge_content(before, &backend->state);
    }
}

static void judge_clean(const struct before *before, struct backend *backend)
{
    struct opinion after;
    struct outcome outcome;
    ploop_dev *dev;
    int error;

    judge_check(backend, 0, &outcome);
    MUST(outcome.error == 0 && outcome.findings == 0,
         "after the repair: %d, %llu errors, %llu leaks", outcome.error,
         (unsigned long long)outcome.result.errors, (unsigned long long)outcome.result.leaks);
    opinion_form(&after, &backend->state);
    judge_outcome(&outcome, &after);
    opinion_free(&after);
    backend->changes = backend->edits = 0;
    judge_check(backend, before->repair, &outcome);
    MUST(outcome.error == 0 && outcome.result.repaired == 0 && backend->edits == 0,
         "a second repair: %d, %llu changes", outcome.error, (unsigned long long)backend->edits);
    error = judge_open(backend, 0, &dev);
    MUST(error == 0 || error == -ENOTSUP || error == -ENOSPC, "open: %d",
         error); /* features that forbid it; no room to keep some */
    if (!error) {
        MUST(ploop_dev_close(dev) == 0, "close");
    }
}

/* Returns the number of changes it made. */
static uint64_t judge_repair(const struct before *before, struct backend *backend)
{
    uint64_t changes;
    struct outcome outcome;
    bool all = before->repair == (PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES);

    judge_check(backend, before->repair, &outcome);
    changes = backend->changes;
    MUST(outcome.result.errors == before->found.result.errors &&
             outcome.result.leaks == before->found.result.leaks,
         "a check that repairs finds something else");
    if (outcome.error == -ENOTSUP) {
        MUST(sparse_equal(&backend->state, before->image), "not supported, and changed");
        return 0;
    }
    judge_no_worse(before, backend);
    if (!outcome.error && all) {
        MUST(outcome.result.repaired == outcome.findings, "%llu of %llu repaired",
             (unsigned long long)outcome.result.repaired, (unsigned long long)outcome.findings);
        judge_clean(before, backend);
    }
    MUST(!outcome.error || outcome.error == -ENOSPC || outcome.error == -EFBIG, "repair: %d",
         outcome.error);
    return changes;
}

/*
 * Break the repair at one of the changes that the whole repair made, judge the result, and run the
 * repair again from there.
 */
static void judge_broken(const struct before *before, const struct input *input, uint64_t changes)
{
    struct backend backend;
    struct outcome outcome;

    backend_open(&backend, before->image);
    backend_break(&backend, 1 + input->break_at % changes, input->break_at, input->options);
    judge_check(&backend, before->repair, &outcome);
    MUST(!backend.broken || outcome.error, "a repair that failed and says nothing of it");
    if (backend.broken) {
        backend_mend(&backend);
        judge_no_worse(before, &backend);
        judge_check(&backend, before->repair, &outcome);
        MUST(!outcome.error || outcome.error == -ENOSPC || outcome.error == -EFBIG,
             "the repair after the broken one: %d", outcome.error);
        judge_no_worse(before, &backend);
    }
    backend_close(&backend);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_case *fuzz_case = case_load(data, size);
    struct before before = {.image = &fuzz_case->image,
                            .repair = fuzz_case->input.options & OPTION_REPAIR};
    struct backend backend;
    uint64_t changes;

    backend_open(&backend, &fuzz_case->image);
    if (fuzz_case->input.options & OPTION_NO_GROW) {
        backend.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_GROW;
    }
    judge_check(&backend, 0, &before.found);
    if (before.repair && !before.found.error) {
        opinion_form(&before.opinion, &fuzz_case->image);
        if (before.opinion.has_map) {
            sample_take(&before.sample, &before.opinion);
        }
        changes = judge_repair(&before, &backend);
        if (fuzz_case->input.break_at && changes) {
            judge_broken(&before, &fuzz_case->input, changes);
        }
        opinion_free(&before.opinion);
    }
    backend_close(&backend);
    case_free(fuzz_case);
    return 0;
}
