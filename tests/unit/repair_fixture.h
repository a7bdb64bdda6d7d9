/* SPDX-License-Identifier: MIT */
/*
 * Images to repair, and checks of the result: what the oracle could read before a repair it must
 * read after it, whatever happened in between.
 */
#ifndef REPAIR_FIXTURE_H
#define REPAIR_FIXTURE_H

#include "image_fixture.h"

enum { IN_USE = 0x746F6E59, CLOSED = 0x312e3276, CLUSTER = 4096, ENTRIES = 1100 };

enum { ALL = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES };

enum scenario {
    LEAKS_ONLY,
    UNCLEAN,
    UNCLEAN_LEAKS,
    DUPLICATES,
    BAD_ENTRIES,
    EVERYTHING,
    BEYOND,
    EXTENSION_LEAKS,
    EXTENSION_INSIDE,
    EXTENSION_ENTRIES,
    EXTENSION_BAD,
    BITMAP_BAD,
    VOID_EXTENSION,
    SCENARIOS
};

void repair_make(struct fixture *fixture, enum scenario scenario, uint32_t version);

struct content {
    int8_t status[ENTRIES]; /* oracle_read_cluster()'s result */
    uint8_t first[ENTRIES]; /* each host cluster is filled with a different byte */
};

void read_content(const uint8_t *bytes, uint64_t size, struct content *content);

/*
 * A cluster that could be read reads the same. One that could not is unmapped, or a duplicate's
 * copy, or unchanged.
 */
void assert_kept(const struct content *before, const struct content *after, const char *what);

#endif
