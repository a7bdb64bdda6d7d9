/* SPDX-License-Identifier: MIT */
/*
 * The steps of the kinds, which the table of kinds names. Each runs in the turn. A `..._locked`
 * step is called with the cluster's lock held, alone where `..._wants_alone` said so under the
 * lock.
 */
#ifndef PIO_STEPS_H
#define PIO_STEPS_H

#include "pio/part.h"

/* ---- read.c ---- */
part_fn read_locked;

/* ---- write.c ---- */
bool write_wants_alone(const struct part *part);
part_fn write_locked;
void write_fill(const struct part *part, uint64_t from, uint8_t *bytes, uint64_t length);

/* ---- unmap.c ---- */
bool zeroes_wants_alone(const struct part *part);
part_fn zeroes_locked;
void zeroes_fill(const struct part *part, uint64_t from, uint8_t *bytes, uint64_t length);
part_fn zeroes_partial; /* see partial.h */
bool discard_wants_alone(const struct part *part);
part_fn discard_locked;

/* ---- cow.c: for the steps above, where a lower delta maps the cluster and the top does not ----
 */
bool wants_copy(const struct part *part);
part_fn cow_locked;
/* A whole cluster as it is, for a job. */
bool copy_up_wants_alone(const struct part *part);
part_fn copy_up_locked;

/* ---- merging.c: a job's copy of a cluster ---- */
bool merge_wants_alone(const struct part *part);
part_fn merge_locked;

/* ---- complete.c: the rest of a partial cluster ---- */
bool complete_wants_alone(const struct part *part);
part_fn complete_locked;

/* ---- flush.c: requests as a whole ---- */
void flush_start(ploop_pio *pio);
void bat_write_start(ploop_pio *pio);
void preflush_start(ploop_pio *pio); /* the pio's own part ends when a round has */

#endif
