/* SPDX-License-Identifier: MIT */
/*
 * Bounded-exhaustive simulation: not some long random runs, but all short ones. All sequences of at
 * most N requests over three guest clusters, in every world, are run, cut after every event, and
 * every disk with at most two losses is judged (bounded_cut.h).
 *
 * A world is a base (none, an image, a raw file) and a variant, a sum of
 *     1   one cluster is mapped and durable at the start, and a host cluster is full of old bytes;
 *         else nothing is mapped
 *     2   the backend completes the youngest request first; else the oldest
 *     4   the backend has native FUA
 *     8   the clusters lie in two pages of the map; else in one
 *     16  copies from the base are put off, until something needs them; not without a base, and
 *         not beside 8
 *
 * A request is submitted a number of backend steps (each executes a request and completes it) after
 * the one before: a gap of 0 is at once, the largest is until all is at rest. Short sequences have
 * every gap, longer ones these two. When a sequence is at rest, all clusters are read, and the
 * device is closed.
 *
 * Cuts are taken from the last request's submission on: the events before it are, one for one, a
 * run of the sequence without it. Sequences that are alike have one run (bounded_request.h).
 */
#ifndef SIM_BOUNDED_PLAY_H
#define SIM_BOUNDED_PLAY_H

#include "bounded_cut.h"
#include "bounded_request.h"
#include "sim.h"

enum { VARIANTS = 32 };
enum {
    VARIANT_USED = 1,
    VARIANT_LIFO = 2,
    VARIANT_FUA = 4,
    VARIANT_SPLIT = 8,
    VARIANT_PUT_OFF = 16
};

#define GAP_REST UINT32_MAX

struct world {
    enum sim_base base;
    uint32_t variant;
    struct alphabet alphabet;
};

struct sequence {
    uint32_t length;
    uint8_t requests[BOUNDED_LENGTH_MAX];
    uint32_t gaps[BOUNDED_LENGTH_MAX]; /* the ith after request i */
    bool rested[BOUNDED_LENGTH_MAX];   /* out: all was at rest when that gap ended */
};

/* Whether there is such a world. */
bool world_exists(enum sim_base base, uint32_t variant);

void world_init(struct world *world, enum sim_base base, uint32_t variant);

/*
 * In the form of a replay line: "w0a+2+f0,s" is a comma if the next request waits for rest, +2+ for
 * a gap of 2, + for a gap of 0.
 */
void sequence_print(const struct world *world, const struct sequence *sequence, char *text,
                    size_t size);
bool sequence_parse(const struct world *world, struct sequence *sequence, const char *text);

/* The next choice of gaps, after a run; the first is all 0. False: there is none. */
bool sequence_next_gaps(struct sequence *sequence, bool every_gap);

/* Run it and judge its cuts; end the process on a violation. */
void sequence_play(const struct world *world, struct sequence *sequence,
                   struct bounded_judge *judge);

const char *base_name(enum sim_base base);

#endif
