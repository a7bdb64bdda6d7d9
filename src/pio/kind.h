/* SPDX-License-Identifier: MIT */
/*
 * The kinds of requests, a row for each. Validation, cutting, the choice of lock, the copy from a
 * lower delta and the start of a request read the row and never ask for a kind by its name.
 *
 * A new kind is a name before PIO_KINDS, a row in kind.c, and the functions that the row names.
 * Without the row kind.c does not compile; a row that does not fit together fails an assertion when
 * the first device is opened (kinds_assert()).
 */
#ifndef PIO_KIND_H
#define PIO_KIND_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/pio.h>

enum pio_op {
    PIO_NONE, /* not prepared: refused */
    PIO_READ,
    PIO_WRITE,
    PIO_ZEROES,
    PIO_DISCARD,
    PIO_FLUSH,
    PIO_BAT_WRITE,
    PIO_COPY_UP,  /* a job's: live/merge.c */
    PIO_MERGE,    /* a job's, too: merging.h */
    PIO_COMPLETE, /* of a partial cluster: partial.h */
    PIO_KINDS
};

struct part;
typedef void part_fn(struct part *part);

/* What a request's offset and length count. */
enum kind_range { RANGE_NONE, RANGE_BYTES, RANGE_PAGES };

struct kind {
    const char *name;
    uint32_t flags; /* the PLOOP_PIO_ flags that it takes */
    enum kind_range range;
    uint32_t fast_op;    /* the backend's operation on the fast path; 0: always the engine's */
    bool has_memory;     /* it carries iovecs */
    bool is_change;      /* it changes what the guest sees: not for a read-only device */
    bool whole_clusters; /* what it has of a cluster that it does not cover is left out */
    bool skips_unmapped; /* a cluster that nothing maps is as it should be already ... */
    bool covers_below;   /* ... and for that no lower delta may map it either */
    bool never_parks;    /* a lack of space is its error, whatever the policy */

    /* As a whole, in the turn; NULL: it is cut into parts of one cluster each. */
    void (*start)(ploop_pio *pio);

    /* For a part, in the turn. Whether the part needs its cluster's lock alone; NULL: never. */
    bool (*wants_alone)(const struct part *part);
    /* The first step of a part that has its cluster's lock as wants_alone() says. */
    part_fn *locked;
    /*
     * Puts what the request has at `from` of the cluster into memory, for a copy from a lower
     * delta. NULL for kinds that never copy.
     */
    void (*fill)(const struct part *part, uint64_t from, uint8_t *bytes, uint64_t length);
};

extern const struct kind kinds[]; /* by enum pio_op */

/* Each row fits together. Does nothing without assertions. */
void kinds_assert(void);

#endif
