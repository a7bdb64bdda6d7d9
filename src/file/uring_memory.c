/* SPDX-License-Identifier: MIT */
/*
 * The memory that the rings of a group know: uring_group.h, 3 and 4.
 *
 *     register:   given to the kernel, on every ring -> in the list -> used by requests
 *     unregister: out of the list -> taken from the kernel
 *
 * The kernel takes at most 1 GiB as one buffer, so longer memory becomes several pieces.
 */
#include "file/uring_group.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (UINT64_C(1) << 30)

/* ---- the kernel's side, with the group's mutex held ---- */

static int set_buffer(struct ring *ring, uint32_t buffer, void *memory, uint64_t length)
{
    const struct iovec iov = {memory, (size_t)length};
    int updated = io_uring_register_buffers_update_tag(&ring->uring, buffer, &iov, NULL, 1);
    return updated == 1 ? 0 : updated < 0 ? updated : -EIO;
}

/*
 * Not while the ring is made: it costs memory, and few have use for it. A kernel without the
 * feature would wait for all requests to end, and the read of wake_fd does not.
 */
static int want_table(struct ring *ring)
{
    if (ring->has_buffers) {
        return 0;
    }
    if (!(ring->uring.features & IORING_FEAT_RSRC_TAGS)) {
        return -ENOTSUP;
    }
    int error = io_uring_register_buffers_sparse(&ring->uring, RING_BUFFERS_MAX);
    ring->has_buffers = !error;
    return error == -EINVAL ? -ENOTSUP : error;
}

static void clear_everywhere(struct ploop_uring *group, uint32_t buffer)
{
    for (uint32_t i = 0; i < atomic_load(&group->ring_count); i++) {
        if (group->rings[i]->has_buffers) {
            (void)set_buffer(group->rings[i], buffer, NULL, 0);
        }
    }
}

/* On every ring, or, after an error, on none. */
static int set_everywhere(struct ploop_uring *group, uint32_t buffer, void *memory, uint64_t length)
{
    int error = 0;
    for (uint32_t i = 0; i < atomic_load(&group->ring_count) && !error; i++) {
        struct ring *ring = group->rings[i];
        error = want_table(ring);
        error = error ? error : set_buffer(ring, buffer, memory, length);
    }
    if (error) {
        clear_everywhere(group, buffer);
    }
    return error;
}

/* What it does not get it does without. */
void group_bring_memory(struct ploop_uring *group, struct ring *ring)
{
    int error = group->piece_count ? want_table(ring) : 0;
    for (uint32_t i = 0; i < group->piece_count && !error; i++) {
        const struct piece *piece = &group->pieces[i];
        error = set_buffer(ring, piece->buffer, (void *)piece->begin, piece->length);
    }
    ring->has_memory = !error;
}

/* ---- the list ---- */

/* The first piece that ends behind `begin`. */
static uint32_t position_of(const struct ploop_uring *group, uintptr_t begin)
{
    uint32_t low = 0, high = group->piece_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const struct piece *piece = &group->pieces[middle];
        if (piece->begin + piece->length <= begin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool holds(const struct piece *piece, uintptr_t begin, uint64_t length)
{
    return begin >= piece->begin && length <= piece->length &&
           begin - piece->begin <= piece->length - length;
}

int group_find_buffer(const struct ploop_uring *group, struct ring *ring, const void *memory,
                      uint64_t length)
{
    uintptr_t begin = (uintptr_t)memory;
    if (!ring->has_memory) {
        return -1;
    }
    uint32_t at = ring->last_piece;
    if (at >= group->piece_count || !holds(&group->pieces[at], begin, length)) {
        at = position_of(group, begin);
        if (at >= group->piece_count || !holds(&group->pieces[at], begin, length)) {
            return -1;
        }
        ring->last_piece = at;
    }
    return (int)group->pieces[at].buffer;
}

static void lock_rings(struct ploop_uring *group)
{
    for (uint32_t i = 0; i < atomic_load(&group->ring_count); i++) {
        latch_lock(&group->rings[i]->latch);
    }
}

static void unlock_rings(struct ploop_uring *group)
{
    for (uint32_t i = 0; i < atomic_load(&group->ring_count); i++) {
        latch_unlock(&group->rings[i]->latch);
    }
}

static void insert(struct ploop_uring *group, uint32_t at, const struct piece *piece)
{
    lock_rings(group);
    memmove(&group->pieces[at + 1], &group->pieces[at],
            (group->piece_count - at) * sizeof(*group->pieces));
    group->pieces[at] = *piece;
    group->piece_count++;
    unlock_rings(group);
}

static void take_out(struct ploop_uring *group, uint32_t at)
{
    lock_rings(group);
    group->piece_count--;
    memmove(&group->pieces[at], &group->pieces[at + 1],
            (group->piece_count - at) * sizeof(*group->pieces));
    unlock_rings(group);
}

/* ---- a piece ---- */

static void drop_piece(struct ploop_uring *group, uintptr_t begin)
{
    uint32_t at = position_of(group, begin);
    if (at == group->piece_count || group->pieces[at].begin != begin) {
        return; /* the kernel has no such memory, and no table of it */
    }
    uint32_t buffer = group->pieces[at].buffer;
    if (--group->pieces[at].users > 0) {
        return;
    }
    take_out(group, at);
    clear_everywhere(group, buffer);
    group->buffers_used[buffer] = false;
}

static int add_piece(struct ploop_uring *group, uintptr_t begin, uint64_t length)
{
    uint32_t at = position_of(group, begin), buffer = 0;
    if (at < group->piece_count && group->pieces[at].begin < begin + length) {
        bool same = group->pieces[at].begin == begin && group->pieces[at].length == length;
        group->pieces[at].users += same;
        return same ? 0 : -EEXIST;
    }
    while (buffer < RING_BUFFERS_MAX && group->buffers_used[buffer]) {
        buffer++;
    }
    if (buffer == RING_BUFFERS_MAX) {
        return -ENOSPC;
    }
    int error = set_everywhere(group, buffer, (void *)begin, length);
    if (!error) {
        group->buffers_used[buffer] = true;
        insert(group, at, &(struct piece){begin, length, buffer, 1});
    }
    return error;
}

static uint64_t piece_length(uint64_t left)
{
    return left < PIECE_BYTES ? left : PIECE_BYTES;
}

int group_register_memory(struct ploop_uring *group, void *memory, uint64_t length)
{
    uint64_t done = 0;
    int error = 0;
    pthread_mutex_lock(&group->mutex);
    if (!group->pieces) {
        group->pieces = calloc(RING_BUFFERS_MAX, sizeof(*group->pieces));
        error = group->pieces ? 0 : -ENOMEM;
    }
    while (done < length && !error) {
        error = add_piece(group, (uintptr_t)memory + done, piece_length(length - done));
        done += error ? 0 : piece_length(length - done);
    }
    while (error && done > 0) {
        done -= PIECE_BYTES; /* only the last piece is shorter, and it failed */
        drop_piece(group, (uintptr_t)memory + done);
    }
    pthread_mutex_unlock(&group->mutex);
    return error;
}

void group_unregister_memory(struct ploop_uring *group, void *memory, uint64_t length)
{
    pthread_mutex_lock(&group->mutex);
    for (uint64_t done = 0; done < length; done += piece_length(length - done)) {
        drop_piece(group, (uintptr_t)memory + done);
    }
    pthread_mutex_unlock(&group->mutex);
}
