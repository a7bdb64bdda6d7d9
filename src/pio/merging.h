/* SPDX-License-Identifier: MIT */
/*
 * A merge as the parts of requests see it: two neighbours, of which one receives the other's
 * clusters. live/merge.c makes it and leads.
 *
 *     copy     a job's request, of one cluster: it goes to the receiver as it is
 *     mirror   while the top is merged down: what a guest's change leaves in a cluster that was
 *              copied goes to the receiver before the change ends
 *
 *     locked -> (a host cluster of the receiver is taken, where it has none) -> a buffer is had ->
 *         [read, written] ... -> entered in the receiver's map, and in the words -> part settles
 *     failed on the way: merging->error, the map as it was; the guest's request does not fail by it
 *
 *  1. While it mirrors a change holds its cluster's lock alone, from the first look to the end of
 *     its mirror, and so does a copy. So of one cluster there is one writer, in both files.
 *  2. `next` is the first cluster that no copy was begun for. A change of a cluster before it is
 *     mirrored, one behind it is not: the copy is still to come, and waits for the lock. A part
 *     that has its lock shared got it before the mirror was there, and so before the copy: none is
 *     on the fast path when the copies begin.
 *  3. What is read of the source is what a reader gets there now, after an error too: the receiver
 *     reads the same from the end of the change on.
 *  4. Where the receiver has no place for the cluster, all of it is copied, else what was changed.
 *  5. When the top is merged down the word of a cluster names the receiver as soon as that maps it,
 *     under the lock: a discard that comes next leaves the top's entry (R8).
 *  6. After the first error nothing is copied any more.
 *  7. A raw receiver has a place for every cluster, and no map. It gets no more of a cluster than
 *     `from` has of the disk, or its file would end behind the disk.
 */
#ifndef PIO_MERGING_H
#define PIO_MERGING_H

#include "dev/dev.h"
#include "pio/part.h"

struct merging {
    struct delta *from, *to;
    const uint32_t *entries; /* of `from`; NULL: it is raw, or the top */
    bool mirrors;            /* `from` is the top */
    bool overwrites;         /* down: `from` hides what `to` has */
    uint32_t next;           /* see 2 */
    uint32_t under_way;      /* parts that copy */
    int error;               /* the first one */
};

/* Where a cluster lies in `from`. False: nowhere. */
bool merging_finds(const struct merging *merging, struct guest_cluster guest, uint32_t *entry);

/* Whether `to` still has to get it. */
bool merging_wants(const struct merging *merging, struct guest_cluster guest);

/* Whether a change needs its cluster's lock alone. */
static inline bool merging_locks_alone(const struct part *part)
{
    const struct merging *merging = part->dev->merging;
    return merging && merging->mirrors && part->kind->is_change;
}

/*
 * A part is about to settle, with this result. True: it has something to mirror first, and settles
 * then.
 */
bool merging_follows(struct part *part, int result, struct sync_number number);

#endif
