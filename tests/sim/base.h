/* SPDX-License-Identifier: MIT */
/*
 * A delta below the simulated image: another image, or a raw file, that never changes. It has some
 * of the hot clusters; their sectors carry a version of its own.
 */
#ifndef SIM_BASE_H
#define SIM_BASE_H

#include "../oracle/oracle.h"
#include "image.h"

#define BASE_VERSION (UINT64_C(1) << 58)

struct base {
    bool there, raw;
    uint8_t *bytes;
    uint64_t size;
    uint64_t cluster; /* bytes; set even if there is no base */
    struct oracle oracle;
    struct oracle_memory memory;
};

void base_build(struct base *base, const struct image *top, struct rng *rng, bool raw);
void base_free(struct base *base);

bool base_has(const struct base *base, uint64_t guest_cluster);

/* A guest cluster that the top does not have: the base's bytes, or zeros. */
void base_read(struct base *base, uint64_t guest_cluster, uint8_t *bytes);

#endif
