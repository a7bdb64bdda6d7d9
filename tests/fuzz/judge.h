/* SPDX-License-Identifier: MIT */
/*
 * Shared by the targets: an input as a case, the oracle's opinion of an image, and the rules that
 * every check must obey.
 */
#ifndef FUZZ_JUDGE_H
#define FUZZ_JUDGE_H

#include <ploop/ploop.h>

#include "backend.h"
#include "input.h"
#include "must.h"
#include "oracle/oracle.h"

enum {
    JUDGE_BAT_LIMIT = 1 << 20, /* bytes: the targets let the library use this much for a BAT */
    JUDGE_SLOTS_MAX = 1 << 16, /* host clusters: the oracle needs four bytes for each */
    JUDGE_CLUSTERS_MAX = 24,   /* guest clusters whose content is compared */
    JUDGE_PART = 4096 /* bytes compared at the beginning and at the end of larger clusters */
};

/* An input, decoded and built. */
struct fuzz_case {
    struct input input;
    struct sparse image;
};

/*
 * There is only one at a time; free it. With FUZZ_IMAGE=PATH in the environment it writes the image
 * to that file.
 */
struct fuzz_case *case_load(const uint8_t *data, size_t size);
void case_free(struct fuzz_case *fuzz_case);

/* The oracle's opinion of an image, which must outlive it. */
struct opinion {
    struct oracle oracle;
    enum oracle_verdict verdict;
    bool has_map; /* the verdict is ORACLE_OK, and the image small enough to ask for more than its
                     header */
    bool bat_too_large; /* for JUDGE_BAT_LIMIT */
};

void opinion_form(struct opinion *opinion, const struct sparse *image);
void opinion_free(struct opinion *opinion);

/*
 * The result that opening or checking must return, as far as it does not depend on the map: 0,
 * -EINVAL, -EUCLEAN, -EFBIG.
 */
int opinion_error(const struct opinion *opinion);

/*
 * Up to JUDGE_CLUSTERS_MAX guest clusters: the first ones that have an entry, and the first and the
 * last cluster.
 */
struct sample {
    uint64_t clusters[JUDGE_CLUSTERS_MAX];
    uint32_t count;
};
void sample_take(struct sample *sample, const struct opinion *opinion);

/*
 * The two parts of a guest cluster that are compared, inside the disk; they may be the same bytes
 * twice.
 */
struct part {
    uint64_t offset, length; /* of the guest's disk */
};
struct part cluster_part(const struct opinion *opinion, uint64_t cluster, bool last);

/*
 * The bytes at the host cluster that the entry names, whichever guest cluster owns it; zeros past
 * the end of the file.
 */
void guest_bytes(const struct opinion *opinion, const struct part *part, uint8_t bytes[JUDGE_PART]);

/* Whether all of a part is in the file: it can be read, where the cluster is cut off. */
bool part_is_there(const struct opinion *opinion, const struct part *part);

/* ploop_image_check(), with the rules that hold for any check. */
struct outcome {
    int error;
    struct ploop_check_result result;
    uint64_t kinds[PLOOP_CHECK_VOID_EXTENSION + 1]; /* findings */
    uint64_t findings;                              /* errors and leaks */
};
void judge_check(struct backend *backend, uint32_t repair, struct outcome *outcome);

/* Compare a check's outcome with the oracle's. */
void judge_outcome(const struct outcome *outcome, struct opinion *opinion);

/* Open a device as the targets do, with this clock. `base` may be NULL. */
extern uint64_t judge_now_ns;
int judge_open(struct backend *backend, uint32_t flags, ploop_dev **dev);
int judge_open_stack(struct backend *base, struct backend *top, uint32_t flags, ploop_dev **dev);

/* A new top for an image that has a map: the same disk, with no cluster mapped. */
void make_top(const struct opinion *base, struct sparse *top);

#endif
