/* SPDX-License-Identifier: MIT */
/*
 * Random runs in which the disk grows (R10): guest requests before, meanwhile and after, in the old
 * part and in the new one; over nothing, an image or a raw file; faults, cancels, suspends, closes,
 * crashes and power cuts in every step; cuts that are judged, with the size among what is judged.
 */
#ifndef SIM_GROW_RUN_H
#define SIM_GROW_RUN_H

#include <stdint.h>

/* 0: no violation was found. */
int grows_run(uint64_t seed, uint64_t runs);

#endif
