/* SPDX-License-Identifier: MIT */
/*
 * Merges of a live stack, cut at every event: two to five images, of which any two neighbours are
 * merged, up or down, under load, until one is left (`sim --merge N`). The embedder's record is
 * accepted, refused, not known at first, or cut off by a close; jobs are cancelled; backends fail.
 *
 * What the guest reads is judged as everywhere. Besides: a merge below the top leaves each snapshot
 * that is still there, a stack without its top, as it was.
 */
#ifndef SIM_TOWER_H
#define SIM_TOWER_H

#include <stdint.h>

/* Runs of these seeds. The exit status. */
int towers_run(uint64_t seed, uint64_t runs);

#endif
