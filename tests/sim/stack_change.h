/* SPDX-License-Identifier: MIT */
/*
 * Changes of a live stack, cut at every event: a guest writes, reads, flushes and discards while a
 * second file becomes the top, and then the old top is merged up into it (`sim --snapshot N`). The
 * embedder's record is accepted, refused, not known, or cut off; the job is cancelled; backends
 * fail.
 */
#ifndef SIM_STACK_CHANGE_H
#define SIM_STACK_CHANGE_H

#include <stdint.h>

/* Runs of these seeds. The exit status. */
int snapshots_run(uint64_t seed, uint64_t runs);

#endif
