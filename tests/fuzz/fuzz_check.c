/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: check. A check never writes, has the oracle's verdict, and agrees with opening:
 * RECOVER opens exactly the images that a check calls recoverable, and an open without it exactly
 * those of them that are neither marked in use nor cut off. A refused image is byte for byte
 * unchanged.
 */
#include <errno.h>

#include "judge.h"
#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const uint8_t mutation_weights[MUTATIONS] = {
    [MUTATE_HEADER] = 3,    [MUTATE_ENTRIES] = 5, [MUTATE_FILE_SIZE] = 2,
    [MUTATE_EXTENSION] = 5, [MUTATE_OPTIONS] = 1, [MUTATE_BYTES] = 1};

static void judge_opening(const struct sparse *image, const struct outcome *outcome, uint32_t flags,
                          bool expected)
{
    struct backend backend;
    ploop_dev *dev;
    int error;

    backend_open(&backend, image);
    error = judge_open(&backend, flags, &dev);
    if (!error) {
        ploop_dev_abort(dev);
    } else if (error != -ENOSPC) { /* there was room for the mark, and none to keep features of the
                                      extension */
        MUST(sparse_equal(&backend.state, image) && backend.edits == 0,
             "refused with %d, and changed", error);
    }
    if (outcome->error) {
        MUST(error == outcome->error, "open: %d, check: %d", error, outcome->error);
    } else {
        MUST((error == 0) == expected || (expected && error == -ENOSPC),
             "flags %u: open: %d, check: recoverable %u, %llu errors", flags, error,
             outcome->result.recoverable, (unsigned long long)outcome->result.errors);
        MUST(error == 0 || error == -EUCLEAN || error == -ENOTSUP || error == -ENOSPC, "open: %d",
             error);
    }
    backend_close(&backend);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_case *fuzz_case = case_load(data, size);
    struct opinion opinion;
    struct backend backend;
    struct outcome outcome;

    backend_open(&backend, &fuzz_case->image);
    opinion_form(&opinion, &fuzz_case->image);
    judge_check(&backend, 0, &outcome);
    judge_outcome(&outcome, &opinion);
    MUST(!outcome.result.recoverable || !outcome.error, "recoverable, and error %d", outcome.error);

    bool unclean = outcome.kinds[PLOOP_CHECK_UNCLEAN] || outcome.kinds[PLOOP_CHECK_ENTRY_CUT];

    if (unclean) {
        judge_opening(&fuzz_case->image, &outcome, 0, false);
    }
    /* Without the mark, RECOVER changes nothing. */
    judge_opening(&fuzz_case->image, &outcome,
                  unclean || !(fuzz_case->input.options & OPTION_NO_RECOVER) ? PLOOP_DEV_RECOVER
                                                                             : 0u,
                  outcome.result.recoverable);
    opinion_free(&opinion);
    backend_close(&backend);
    case_free(fuzz_case);
    return 0;
}
