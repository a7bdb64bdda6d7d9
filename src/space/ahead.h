/* SPDX-License-Identifier: MIT */
/*
 * Which new clusters belong to sequential writes, and how many clusters ahead of those the backend
 * should allocate blocks for.
 *
 * A stream is a run of guest clusters that writes entered one after the other, each at its
 * beginning:
 *
 *     newcomer --the next guest cluster is taken--> known, one cluster longer
 *         \------ others come ---------------------\---> forgotten
 *
 *  1. Blocks are allocated ahead of streams of at least AHEAD_STREAM_MIN clusters only, and never
 *     for more clusters than the stream has, or more than AHEAD_BYTES_MAX. So scattered small
 *     writes, each of which enters another cluster, cost no more disk space than they write.
 *  2. The streams stand in an array, the latest first. A new one comes in at its middle: newcomers
 *     push each other out, and a known stream is pushed out by known streams only. So scattered
 *     writes do not hide a stream among them.
 */
#ifndef SPACE_AHEAD_H
#define SPACE_AHEAD_H

#include "format/geometry.h"

enum { AHEAD_STREAMS = 8, AHEAD_NEWCOMERS = 4, AHEAD_STREAM_MIN = 4 };

/*
 * Allocating takes the file's lock in the kernel and waits for direct writes: it is done seldom.
 * What the device does not use stays allocated until the close.
 */
#define AHEAD_BYTES_MAX (UINT64_C(32) << 20)

struct ahead_stream {
    uint64_t next;   /* the guest cluster that continues it */
    uint64_t length; /* clusters; 0: no stream */
};

struct ahead {
    struct ahead_stream streams[AHEAD_STREAMS];
};

/*
 * A write has taken a new cluster, which it enters at its beginning. Returns for how many clusters
 * behind it blocks are wanted.
 */
uint64_t ahead_enter(struct ahead *ahead, struct guest_cluster guest, uint64_t cluster_size);

#endif
