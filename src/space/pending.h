/* SPDX-License-Identifier: MIT */
/*
 * Records of host clusters that left the map, until they may be used again.
 *
 *     free --pending_add--> on its page's list --pending_page_written--> ripening --SYNC--> free
 *
 *  1. A record names the page whose entry went away, and the generation of that page that no longer
 *     has it. It starts ripening only when that generation, or a later one, was written; it is ripe
 *     when a SYNC that began after that has succeeded. A page that cannot be written so keeps every
 *     cluster that any version since the last durable one names: that is the quarantine.
 *  2. A record names a run of neighbours in the file that left the same generation, so that a
 *     discard of very many clusters needs few records.
 *  3. The ripening ones stand in the order of the SYNCs that they need.
 */
#ifndef SPACE_PENDING_H
#define SPACE_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "file/sync.h"
#include "space/space_map.h"

enum { PENDING_MAX = 4096, PENDING_NONE = -1, PENDING_CLUSTERS = 1 << 17 };

struct pending {
    struct space_run run; /* none while it is free */
    uint32_t page;
    uint64_t gen;              /* of the page: the first without the entry */
    struct sync_number number; /* ripening: ripe when this SYNC is done */
    int32_t next;              /* on its list: free, its page's, or ripening */
};

struct pending_set {
    struct pending records[PENDING_MAX];
    int32_t free;
    int32_t ripening_first, ripening_last; /* oldest first */
    uint32_t count;                        /* that are not free */
    uint64_t clusters;                     /* that they name */
};

void pending_init(struct pending_set *set);

/* Whether one more removal can be recorded. */
static inline bool pending_has_room(const struct pending_set *set)
{
    return set->free != PENDING_NONE;
}

/* Whether a record names a cluster below this place. */
bool pending_below(const struct pending_set *set, uint64_t place);

/* Whether a record waits for a SYNC only. */
static inline bool pending_ripens(const struct pending_set *set)
{
    return set->ripening_first != PENDING_NONE;
}

/* A mapped cluster left the map; the record goes on its page's list, which *first begins. */
void pending_add(struct pending_set *set, struct host_cluster host, uint32_t page, uint64_t gen,
                 int32_t *first);

/* Generation `gen` of a page was written: its records up to that one start ripening. */
void pending_page_written(struct pending_set *set, const struct syncer *syncer, uint64_t gen,
                          int32_t *first);

/* Takes the oldest record, if it is ripe; *run may be used again. */
bool pending_take_ripe(struct pending_set *set, const struct syncer *syncer, struct space_run *run);

#endif
