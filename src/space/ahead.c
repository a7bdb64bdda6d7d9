/* SPDX-License-Identifier: MIT */
/* The states and invariants stand in ahead.h. */
#include "space/ahead.h"

#include <assert.h>
#include <string.h>

/* The stream that this cluster continues; AHEAD_STREAMS: none. */
static uint32_t find(const struct ahead *ahead, uint64_t guest)
{
    for (uint32_t i = 0; i < AHEAD_STREAMS; i++) {
        if (ahead->streams[i].length > 0 && ahead->streams[i].next == guest) {
            return i;
        }
    }
    return AHEAD_STREAMS;
}

/* Those in [to, from) step back by one, over `from`. */
static void insert(struct ahead *ahead, uint32_t to, uint32_t from, struct ahead_stream stream)
{
    assert(to <= from && from < AHEAD_STREAMS);
    memmove(&ahead->streams[to + 1], &ahead->streams[to], (from - to) * sizeof(stream));
    ahead->streams[to] = stream;
}

uint64_t ahead_enter(struct ahead *ahead, struct guest_cluster guest, uint64_t cluster_size)
{
    uint32_t at = find(ahead, guest.n);
    struct ahead_stream stream = {.next = guest.n + UINT64_C(1), .length = 1};
    if (at < AHEAD_STREAMS) {
        stream.length += ahead->streams[at].length;
        insert(ahead, 0, at, stream);
    } else {
        insert(ahead, AHEAD_NEWCOMERS, AHEAD_STREAMS - 1, stream);
    }
    if (stream.length < AHEAD_STREAM_MIN) {
        return 0;
    }
    uint64_t most = AHEAD_BYTES_MAX / cluster_size;
    return stream.length < most ? stream.length : most;
}
