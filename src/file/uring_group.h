/* SPDX-License-Identifier: MIT */
/*
 * A group: the rings that its files share, one for each queue number, and what those rings know of
 * files and memory.
 *
 *  1. It lives as long as its owner's handle or a file of it, whichever ends last.
 *  2. Ring 0 is there from the beginning. Rings are added in order, under `mutex`, and stay.
 *  3. Files and memory that a ring knows by number spare the kernel a look-up and a pinning for
 *     each request. Every ring has the same numbers, or none; a request that cannot use them goes
 *     the plain way. A file that reopens or closes is replaced in every ring at once: until then
 *     the kernel would keep it open.
 *  4. The list of pieces of memory is changed with all rings' latches held, so that a request, with
 *     one of them, reads it. A piece is in the list only while the kernel has it.
 */
#ifndef FILE_URING_GROUP_H
#define FILE_URING_GROUP_H

#include <pthread.h>

#include "file/uring_ring.h"

enum { RINGS_MAX = 65 }; /* one for each queue of a device, and the engine's */

/* Memory that the kernel knows by a number. */
struct piece {
    uintptr_t begin;
    uint64_t length;
    uint32_t buffer; /* the number */
    uint32_t users;  /* files that it was registered for */
};

struct ploop_uring {
    pthread_mutex_t mutex;
    _Atomic uint32_t references;
    struct ring_options ring_options;
    struct ring *rings[RINGS_MAX];
    _Atomic uint32_t ring_count;
    int files[RING_FILES_MAX]; /* by number; -1: none. A file has two, or none */
    struct piece *pieces;      /* by address; they do not overlap */
    uint32_t piece_count;
    bool buffers_used[RING_BUFFERS_MAX];
};

void group_take(struct ploop_uring *group);
void group_give_back(struct ploop_uring *group);

/* How many rings there are, `wanted` if they can be had. */
uint32_t group_want_rings(struct ploop_uring *group, uint32_t wanted);

/* Two descriptors, the second may be -1. Their number, or -1: they are not known by one. */
int group_add_files(struct ploop_uring *group, int fd, int direct_fd);
/* Others, or -1 and -1, under that number, which may be -1. True: every ring has them. */
bool group_replace_files(struct ploop_uring *group, int number, int fd, int direct_fd);
void group_remove_files(struct ploop_uring *group, int number);

/* 0; -EEXIST: it overlaps what is registered; -ENOTSUP: the kernel cannot; another -errno. */
int group_register_memory(struct ploop_uring *group, void *memory, uint64_t length);
/* What was registered so. */
void group_unregister_memory(struct ploop_uring *group, void *memory, uint64_t length);

/* A new ring, with the group's mutex held and before requests come, learns what the others know. */
void group_bring_memory(struct ploop_uring *group, struct ring *ring);

/* The number of the memory that holds it wholly, or -1; with the ring's latch held. */
int group_find_buffer(const struct ploop_uring *group, struct ring *ring, const void *memory,
                      uint64_t length);
static inline int group_buffer_at(const struct ploop_uring *group, struct ring *ring,
                                  const void *memory, uint64_t length)
{
    return group->piece_count == 0 ? -1 : group_find_buffer(group, ring, memory, length);
}

#endif
