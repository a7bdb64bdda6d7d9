/* SPDX-License-Identifier: MIT */
/*
 * An image whose last cluster the end of its file cuts off (R19). What the file lacks of it reads
 * as zeros, whether RECOVER has made the cluster whole or is going to: so the oracle gets the file
 * as long as the cluster, and the device the file as it is.
 */
#ifndef SIM_CUT_TAIL_H
#define SIM_CUT_TAIL_H

#include "../oracle/oracle.h"
#include "sim.h"

/* A fixed image whose last cluster is mapped; `other`: of its bytes others are missing. */
void cut_tail_image(struct image *image, bool odd_v1, bool other);

/* Whether a file of this size still lacks them. */
bool cut_tail_is_there(const struct image *image, uint64_t size);

/*
 * The bytes and the size for the oracle. *own is to be freed with sim_free(); NULL: they are the
 * state's.
 */
struct oracle_memory cut_tail_whole(const struct image *image, const struct disk_state *state,
                                    uint8_t **own);

/* Open it the first time: refused without RECOVER, and not changed; with it, what that gives. */
int cut_tail_open(struct sim *sim);

/* The scenario: the guest uses the cluster that was cut off, and others. */
void cut_tail_play(struct sim *sim);

#endif
