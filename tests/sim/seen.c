/* SPDX-License-Identifier: MIT */
/* See seen.h: open addressing, half full at most. */
#include "seen.h"

#include <string.h>

#include "report.h"

void seen_free(struct seen *seen)
{
    sim_free(seen->slots);
    memset(seen, 0, sizeof(*seen));
}

static bool put(struct seen *seen, uint64_t hash)
{
    uint64_t at = hash & (seen->capacity - 1);
    while (seen->slots[at] && seen->slots[at] != hash)
        at = (at + 1) & (seen->capacity - 1);
    if (seen->slots[at])
        return false;
    seen->slots[at] = hash;
    return true;
}

bool seen_add(struct seen *seen, uint64_t hash)
{
    if (seen->count == SEEN_MAX)
        seen_free(seen);
    if (2 * seen->count >= seen->capacity) {
        struct seen old = *seen;
        seen->capacity = old.capacity ? 2 * old.capacity : 4096;
        seen->slots = sim_alloc(seen->capacity * sizeof(*seen->slots));
        for (uint64_t i = 0; i < old.capacity; i++)
            if (old.slots[i])
                put(seen, old.slots[i]);
        sim_free(old.slots);
    }
    bool added = put(seen, hash ? hash : 1);
    seen->count += added;
    return added;
}
