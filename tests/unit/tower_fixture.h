/* SPDX-License-Identifier: MIT */
/*
 * A device over a stack of scripted backends. Each image has its clusters filled: host cluster n
 * (from 0) holds 0xA0 + n, a raw base 0xB0, so that a byte shows where it comes from.
 */
#ifndef TOWER_FIXTURE_H
#define TOWER_FIXTURE_H

#include "device_fixture.h"
#include "image_fixture.h"

enum { CLUSTER = 4096, ENTRIES = 1100, SECTORS = ENTRIES * 8 };

struct tower {
    struct rig rig;
    struct script lowers[RIG_LOWERS_MAX];
};

/* Pairs of guest and host cluster, as image_plan.map has them. */
extern const uint32_t tower_base_map[], tower_middle_map[], tower_top_map[];

/* The offset of a cluster. */
uint64_t at(uint64_t cluster);

void tower_open_script(struct script *script, const struct image_plan *plan);
/* The top first, then those below it, the base first. */
void tower_top(struct tower *tower, const struct image_plan *plan);
void tower_add(struct tower *tower, const struct image_plan *plan);
void tower_add_raw(struct tower *tower, uint64_t size);
/* Top and base, for which `version` is the format's, not open yet. */
void tower_of_two(struct tower *tower, uint32_t version);
void tower_open(struct tower *tower);
void tower_free(struct tower *tower);
/*
 * Closed clean, the top checked by the oracle, the lower deltas unchanged since they were last
 * reset.
 */
void tower_end(struct tower *tower);
/* Reset the counts of all backends. */
void tower_forget(struct tower *tower);

/* Requests that change a file. */
uint64_t script_changes(const struct script *script);

#endif
