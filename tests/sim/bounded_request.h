/* SPDX-License-Identifier: MIT */
/*
 * The requests of the bounded simulation, and which sequences of them are alike.
 *
 * A request has a text: its kind (w write, f FUA write, z write of zeros, x the same with FUA, d
 * discard, s flush, p write of a BAT page), the cluster, and its extent: `w1a` the first sector of
 * cluster 1, `w1` all of it, `w12` from the middle of cluster 1 to the middle of cluster 2; but
 * `d12` both clusters. `p0` is page 0, `s` all there is.
 */
#ifndef SIM_BOUNDED_REQUEST_H
#define SIM_BOUNDED_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

enum { BOUNDED_CLUSTERS = 3, BOUNDED_LENGTH_MAX = 5, ALPHABET_MAX = 48, PERMUTATIONS = 6 };

enum extent { EXTENT_PART, EXTENT_WHOLE, EXTENT_ACROSS, EXTENT_NONE };

struct bounded_request {
    char kind;
    enum extent extent;
    uint8_t cluster; /* 0 to 2; of `p` the page */
    char text[8];
};

struct alphabet {
    struct bounded_request requests[ALPHABET_MAX];
    uint32_t count;
    /*
     * The request with its clusters renamed by each permutation that renames nothing to what is not
     * its like; or -1.
     */
    int8_t renamed[PERMUTATIONS][ALPHABET_MAX];
};

/*
 * `pages` of the map hold the clusters. `alike` says of each cluster in which respects it differs
 * from the others at the start; only clusters of one value are renamed to each other.
 */
void alphabet_init(struct alphabet *alphabet, uint32_t pages,
                   const uint32_t alike[BOUNDED_CLUSTERS]);

/*
 * Whether the sequence is the one that stands for all that are alike. Two are alike if a
 * permutation of the clusters makes one the other, takes each cluster to one of the same value in
 * `alike`, and takes each pair that a request of the sequence spans to a pair side by side in the
 * same order.
 *
 * Why the others need no run. The engine does five things with a guest cluster's number: it looks
 * up the cluster's entry, it looks for the cluster's lock and reservation, it names the page that
 * holds the entry, it asks the lower deltas, and it goes through the clusters of one request in
 * ascending order. A permutation as above keeps the page (it is part of `alike`), keeps what lies
 * below and in the entry at the start, and keeps that order. So the two runs make the same steps in
 * the same order, with the same host clusters, as these are handed out in the order they are asked
 * for: each write of the one is a write of the other to the same place, with the same guest sectors
 * renamed, or of the same page with its entries permuted. The entries of a page stand in one sector
 * of it, so a tear parts neither run's. Hence each disk that the one may leave is the other's
 * renamed, and the model demands the same of both. (A judge that goes on with a disk writes to all
 * three clusters, in their order.)
 */
bool alphabet_stands_for_its_like(const struct alphabet *alphabet, const uint8_t *sequence,
                                  uint32_t length);

/* The request that the text begins with, or -1; *end after it. */
int alphabet_find(const struct alphabet *alphabet, const char *text, const char **end);

#endif
