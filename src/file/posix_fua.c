/* SPDX-License-Identifier: MIT */
/* What posix_fua.h says. */
#include "file/posix_fua.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file/posix.h"
#include "file/pwritev2.h"

void posix_fua_init(struct posix_fua *fua)
{
    pthread_mutex_init(&fua->mutex, NULL);
    pthread_cond_init(&fua->given_back, NULL);
    fua->count = 0;
}

void posix_fua_destroy(struct posix_fua *fua)
{
    posix_fua_close(fua);
    pthread_cond_destroy(&fua->given_back);
    pthread_mutex_destroy(&fua->mutex);
}

static void close_lane(const struct posix_lane *lane)
{
    close(lane->fd);
    if (lane->direct_fd >= 0) {
        close(lane->direct_fd);
    }
}

static bool open_lane(struct posix_lane *lane, int fd, bool direct)
{
    *lane = (struct posix_lane){.fd = posix_open_again(fd, O_RDWR), .direct_fd = -1};
    if (lane->fd < 0) {
        return false;
    }
    if (direct) {
        lane->direct_fd = posix_open_again(fd, O_RDWR | O_DIRECT);
    }
    if (direct && lane->direct_fd < 0) {
        close(lane->fd);
        return false;
    }
    return true;
}

/* Writes nothing, and fails where the kernel does not know the call. */
static bool can_write_through(const struct posix_lane *lane)
{
    struct iovec nothing = {.iov_base = NULL, .iov_len = 0};
    return pwritev2(lane->fd, &nothing, 1, 0, RWF_DSYNC) == 0;
}

void posix_fua_open(struct posix_fua *fua, int fd, bool direct)
{
    struct posix_lane lanes[POSIX_POOL_THREADS];
    uint32_t count = 0;
    while (count < POSIX_POOL_THREADS && open_lane(&lanes[count], fd, direct)) {
        if (count == 0 && !can_write_through(&lanes[0])) {
            close_lane(&lanes[0]);
            break;
        }
        count++;
    }
    pthread_mutex_lock(&fua->mutex);
    assert(fua->count == 0);
    for (uint32_t i = 0; i < count; i++) {
        fua->lanes[i] = lanes[i];
    }
    fua->count = count;
    pthread_mutex_unlock(&fua->mutex);
}

static struct posix_lane *find(struct posix_fua *fua, bool is_taken)
{
    for (uint32_t i = 0; i < fua->count; i++) {
        if (fua->lanes[i].is_taken == is_taken) {
            return &fua->lanes[i];
        }
    }
    return NULL;
}

struct posix_lane *posix_fua_take(struct posix_fua *fua)
{
    struct posix_lane *lane;
    pthread_mutex_lock(&fua->mutex);
    while ((lane = find(fua, false)) == NULL && fua->count) {
        pthread_cond_wait(&fua->given_back, &fua->mutex);
    }
    if (lane) {
        lane->is_taken = true;
    }
    pthread_mutex_unlock(&fua->mutex);
    return lane;
}

struct posix_lane *posix_fua_try(struct posix_fua *fua)
{
    pthread_mutex_lock(&fua->mutex);
    struct posix_lane *lane = find(fua, false);
    if (lane) {
        lane->is_taken = true;
    }
    pthread_mutex_unlock(&fua->mutex);
    return lane;
}

bool posix_fua_is_missing(struct posix_fua *fua)
{
    pthread_mutex_lock(&fua->mutex);
    bool is_missing = fua->count == 0;
    pthread_mutex_unlock(&fua->mutex);
    return is_missing;
}

void posix_fua_give_back(struct posix_fua *fua, struct posix_lane *lane)
{
    pthread_mutex_lock(&fua->mutex);
    assert(lane->is_taken);
    lane->is_taken = false;
    pthread_cond_broadcast(&fua->given_back);
    pthread_mutex_unlock(&fua->mutex);
}

void posix_fua_close(struct posix_fua *fua)
{
    pthread_mutex_lock(&fua->mutex);
    while (find(fua, true)) {
        pthread_cond_wait(&fua->given_back, &fua->mutex);
    }
    for (uint32_t i = 0; i < fua->count; i++) {
        close_lane(&fua->lanes[i]);
    }
    fua->count = 0;
    pthread_cond_broadcast(&fua->given_back);
    pthread_mutex_unlock(&fua->mutex);
}

void posix_fua_forget_errors(struct posix_fua *fua)
{
    pthread_mutex_lock(&fua->mutex);
    for (uint32_t i = 0; i < fua->count; i++) {
        const struct posix_lane *lane = &fua->lanes[i];
        if (lane->is_taken) {
            continue;
        }
        (void)fdatasync(lane->fd);
        if (lane->direct_fd >= 0) {
            (void)fdatasync(lane->direct_fd);
        }
    }
    pthread_mutex_unlock(&fua->mutex);
}
