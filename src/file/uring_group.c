/* SPDX-License-Identifier: MIT */
/* A group of files that share rings: see the header. uring_memory.c has its memory. */
#include "file/uring_group.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "util/sized.h"

enum { POLL_MESSAGE_ID = 8, LOG_WARNING = 2, IDLE_MS_DEFAULT = 100 };

void group_take(struct ploop_uring *group)
{
    atomic_fetch_add(&group->references, 1);
}

void group_give_back(struct ploop_uring *group)
{
    if (atomic_fetch_sub(&group->references, 1) > 1) {
        return;
    }
    assert(group->piece_count == 0);
    for (uint32_t i = group->ring_count; i > 0; i--) {
        ring_close(group->rings[i - 1]);
    }
    free(group->pieces);
    pthread_mutex_destroy(&group->mutex);
    free(group);
}

/* ---- rings ---- */

/* With the group's mutex held. 0 or -errno. */
static int add_ring(struct ploop_uring *group)
{
    int error;
    uint32_t count = atomic_load(&group->ring_count);
    struct ring *ring = ring_open(&group->ring_options, &error);
    if (!ring) {
        return error;
    }
    ring->has_files = io_uring_register_files(&ring->uring, group->files, RING_FILES_MAX) == 0;
    group->rings[count] = ring;
    group_bring_memory(group, ring);
    atomic_store(&group->ring_count, count + 1);
    return 0;
}

uint32_t group_want_rings(struct ploop_uring *group, uint32_t wanted)
{
    int error = 0;
    pthread_mutex_lock(&group->mutex);
    while (!error && atomic_load(&group->ring_count) < wanted &&
           atomic_load(&group->ring_count) < RINGS_MAX) {
        error = add_ring(group);
    }
    uint32_t count = atomic_load(&group->ring_count);
    pthread_mutex_unlock(&group->mutex);
    return count;
}

/* ---- files ---- */

static bool update_files(struct ploop_uring *group, int number, int fd, int direct_fd)
{
    int fds[2] = {fd, direct_fd};
    bool all = true;
    group->files[number] = fd;
    group->files[number + 1] = direct_fd;
    for (uint32_t i = 0; i < atomic_load(&group->ring_count); i++) {
        struct ring *ring = group->rings[i];
        all &= !ring->has_files ||
               io_uring_register_files_update(&ring->uring, (unsigned)number, fds, 2) == 2;
    }
    return all;
}

bool group_replace_files(struct ploop_uring *group, int number, int fd, int direct_fd)
{
    if (number < 0) {
        return false;
    }
    pthread_mutex_lock(&group->mutex);
    bool all = update_files(group, number, fd, direct_fd);
    pthread_mutex_unlock(&group->mutex);
    return all;
}

int group_add_files(struct ploop_uring *group, int fd, int direct_fd)
{
    int number = 0;
    pthread_mutex_lock(&group->mutex);
    while (number < RING_FILES_MAX && group->files[number] >= 0) {
        number += 2;
    }
    bool added = number < RING_FILES_MAX && update_files(group, number, fd, direct_fd);
    if (!added && number < RING_FILES_MAX) {
        (void)update_files(group, number, -1, -1);
    }
    pthread_mutex_unlock(&group->mutex);
    return added ? number : -1;
}

void group_remove_files(struct ploop_uring *group, int number)
{
    (void)group_replace_files(group, number, -1, -1);
}

/* ---- the public calls ---- */

static int judge_options(const struct ploop_uring_options *given,
                         struct ploop_uring_options *options)
{
    *options = (struct ploop_uring_options){.size = sizeof(*options)};
    int error = given ? sized_in(options, sizeof(*options),
                                 offsetof(struct ploop_uring_options, reserved), given)
                      : 0;
    return error ? error : options->flags & ~(uint32_t)PLOOP_URING_SQPOLL ? -EINVAL : 0;
}

/* -ENOSYS: the kernel has no io_uring, or this process may not use it. */
static int open_first_ring(struct ploop_uring *group)
{
    int error = add_ring(group);
    return error == -EPERM || error == -EACCES ? -ENOSYS : error;
}

int ploop_uring_create(const struct ploop_uring_options *options, ploop_uring **group)
{
    struct ploop_uring_options known;
    if (!group) {
        return -EINVAL;
    }
    *group = NULL;
    int error = judge_options(options, &known);
    if (error) {
        return error;
    }
    struct ploop_uring *made = calloc(1, sizeof(*made));
    if (!made) {
        return -ENOMEM;
    }
    pthread_mutex_init(&made->mutex, NULL);
    atomic_init(&made->references, 1);
    made->ring_options.polled = known.flags & PLOOP_URING_SQPOLL;
    made->ring_options.idle_ms = known.sqpoll_idle_ms ? known.sqpoll_idle_ms : IDLE_MS_DEFAULT;
    for (int i = 0; i < RING_FILES_MAX; i++) {
        made->files[i] = -1;
    }
    error = open_first_ring(made);
    if (error) {
        group_give_back(made);
        return error;
    }
    if (made->ring_options.polled && !made->rings[0]->is_polled) {
        made->ring_options.polled = false;
        if (known.log) {
            known.log(known.user_data, LOG_WARNING, POLL_MESSAGE_ID,
                      "io_uring: the kernel refuses SQPOLL; requests are sent by system calls");
        }
    }
    made->ring_options.same_poller = made->ring_options.polled ? made->rings[0] : NULL;
    *group = made;
    return 0;
}

void ploop_uring_close(ploop_uring *group)
{
    if (group) {
        group_give_back(group);
    }
}
