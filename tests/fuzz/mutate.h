/* SPDX-License-Identifier: MIT */
/*
 * The mutator knows the format: it sets named fields to values that are valid, nearly valid, or at
 * the ends of their ranges, so that inputs get past the first checks. Each target defines how often
 * it does which.
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
    MUTATE_BYTES, /* those of one record, by the fuzzer's own mutator */
    MUTATIONS
};

/* Defined by each target. */
extern const uint8_t mutation_weights[MUTATIONS];

/* The fields of an input's header, however wrong; a field by which the code divides is never 0. */
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

/* A new value for a field that was `old`: a neighbour, an end of a range, anything. */
uint64_t odd_value(struct mutator *mutator, uint64_t old);

void poke32(struct mutator *mutator, uint64_t offset, uint64_t value);
void poke64(struct mutator *mutator, uint64_t offset, uint64_t value);
uint32_t peek32(const struct mutator *mutator, uint64_t offset);
uint64_t peek64(const struct mutator *mutator, uint64_t offset);

/* The offset in bytes of a host cluster that is in the file or just behind it. */
uint64_t some_host_offset(struct mutator *mutator);
/* A host cluster that an entry names, if a few tries find one. */
uint64_t some_guest_offset(struct mutator *mutator);

void mutate_extension(struct mutator *mutator);

#endif
