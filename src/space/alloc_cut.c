/* SPDX-License-Identifier: MIT */
/*
 * The allocator of a file that becomes shorter while it is used: holes for what moves, and the cut.
 * What is handed out, and when nothing is, stands in alloc.c; the steps of the cut in space_work.c.
 */
#include "space/alloc.h"

#include <assert.h>
#include <errno.h>

uint64_t alloc_packed_end(const struct alloc *alloc)
{
    uint64_t holes = alloc->work.run.count;
    for (int kind = 0; kind < FREE_KINDS; kind++) {
        holes += space_map_count(&alloc->map, (enum free_kind)kind);
    }
    return alloc->map.fresh_next - holes;
}

void alloc_prefer_holes(struct alloc *alloc, bool prefers)
{
    alloc->prefers_holes = prefers;
}

int alloc_take_hole(struct alloc *alloc, uint64_t below, struct host_cluster *host)
{
    assert(!alloc->syncer->error && alloc->work.old_end == 0);
    alloc->changed = true;
    return space_map_take_hole(&alloc->map, below, host) ? 0 : -ENOSPC;
}

bool alloc_can_cut(const struct alloc *alloc)
{
    return alloc->work.state == SPACE_IDLE && alloc->shortage == NO_SHORTAGE;
}

void alloc_cut(struct alloc *alloc)
{
    assert(alloc_can_cut(alloc));
    alloc->ahead_clusters = alloc->ahead_end = 0;
    space_cut(&alloc->work);
}

bool alloc_is_cut(const struct alloc *alloc)
{
    return alloc->work.state == SPACE_ENDED;
}

int alloc_end_cut(struct alloc *alloc, int result)
{
    result = space_cut_durable(&alloc->work, result);
    alloc->extension_failed = true; /* it becomes longer again when somebody needs that */
    turn_again(alloc->channel->turn);
    return result;
}
