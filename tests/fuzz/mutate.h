/* SPDX-License-Identifier: MIT */
/*
 * The mutator knows the format: it changes named fields to values that are right, nearly right, or
 * at the ends of their ranges, so that inputs get past the first checks. How often it does which is
 * said by each target.
 */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include "input.h"
#include "sim/rng.h"

enum mutation {
    MUTATE_HEADER,
    MUTATE_ENTRIES,
    MUTATE_FILE_SIZE,
    MUTATE_EXTENSION,
    MUTATE_REQUESTS,
    MUTATE_OPTIONS,
    MUTATE_BYTES, /* those of one record, as the fuzzer likes */
    MUTATIONS
};

/* Defined by each target. */
extern const uint8_t mutation_weights[MUTATIONS];

/* What the header of an input says, however wrong; zeros do not divide. */
struct view {
    bool v1;
    uint32_t tracks, bat_entries, in_use, data_off;
    uint64_t nb_sectors, ext_off;
    uint64_t cluster, data_start, bat_end; /* bytes */
    uint64_t unit;                         /* of an entry */
    uint64_t slots; /* host clusters in the file, a partial last one included */
};

struct mutator {
    struct input *input;
    struct rng rng;
    struct view view;
};

void view_load(struct view *view, const struct input *input);

/* One of a list. */
#define PICK(mutator, ...)                                                                         \
    pick((mutator), (const uint64_t[]){__VA_ARGS__},                                               \
         sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
uint64_t pick(struct mutator *mutator, const uint64_t *values, size_t count);

/* Something that was `old`: a neighbour, an end of a range, anything. */
uint64_t odd_value(struct mutator *mutator, uint64_t old);

void poke32(struct mutator *mutator, uint64_t offset, uint64_t value);
void poke64(struct mutator *mutator, uint64_t offset, uint64_t value);
uint32_t peek32(const struct mutator *mutator, uint64_t offset);
uint64_t peek64(const struct mutator *mutator, uint64_t offset);

/* A host cluster that is perhaps in the file, perhaps just behind it: its offset in bytes. */
uint64_t some_host_offset(struct mutator *mutator);
/* A host cluster that an entry names, as far as a few looks find one. */
uint64_t some_guest_offset(struct mutator *mutator);

void mutate_extension(struct mutator *mutator);

#endif
