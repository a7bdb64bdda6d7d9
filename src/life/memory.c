/* SPDX-License-Identifier: MIT */
/*
 * The memory that an embedder has registered: a list of regions, each of which the backend of every
 * file that can has been told of.
 *
 * A region is told to all files or to none. A backend that answers -ENOTSUP does so for every
 * region, and knows none.
 */
#include "life/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void forget_of(const ploop_file *file, const struct iovec *region)
{
    if (file->ops.register_memory) {
        file->ops.unregister_memory(file->context, region->iov_base, region->iov_len);
    }
}

/* Of the files that are served, up to a slot. */
static void forget(const ploop_dev *dev, const struct iovec *region, uint32_t end)
{
    uint32_t slot = 0;
    for (const struct delta *delta;
         (delta = stack_each(&dev->stack, &slot)) != NULL && slot <= end;) {
        forget_of(delta->file, region);
    }
}

static int tell_to(const ploop_file *file, const struct iovec *region)
{
    return file->ops.register_memory
               ? file->ops.register_memory(file->context, region->iov_base, region->iov_len)
               : -ENOTSUP;
}

/* To all files. 0 or -errno. */
static int tell(const ploop_dev *dev, const struct iovec *region)
{
    bool is_known = false;
    uint32_t slot = 0;
    for (const struct delta *delta; (delta = stack_each(&dev->stack, &slot)) != NULL;) {
        int error = tell_to(delta->file, region);
        is_known |= !error;
        if (error && error != -ENOTSUP) {
            forget(dev, region, slot - 1);
            return error;
        }
    }
    return is_known ? 0 : -ENOTSUP;
}

/* ---- the list, under memory_mutex ---- */

static bool is_region(const struct iovec *region)
{
    uintptr_t begin = (uintptr_t)region->iov_base;
    return region->iov_base && region->iov_len && region->iov_len <= UINTPTR_MAX - begin;
}

static bool overlap(const struct iovec *a, const struct iovec *b)
{
    uintptr_t begin_a = (uintptr_t)a->iov_base, begin_b = (uintptr_t)b->iov_base;
    return begin_a < begin_b + b->iov_len && begin_b < begin_a + a->iov_len;
}

static int append(ploop_dev *dev, const struct iovec *region)
{
    for (uint32_t i = 0; i < dev->memory_count; i++) {
        if (overlap(&dev->memory[i], region)) {
            return -EEXIST;
        }
    }
    struct iovec *memory = realloc(dev->memory, (dev->memory_count + 1) * sizeof(*memory));
    if (!memory) {
        return -ENOMEM;
    }
    dev->memory = memory;
    int error = tell(dev, region);
    if (!error) {
        dev->memory[dev->memory_count++] = *region;
    }
    return error;
}

static void drop(ploop_dev *dev, uint32_t at)
{
    forget(dev, &dev->memory[at], STACK_SLOTS);
    dev->memory[at] = dev->memory[--dev->memory_count];
}

/* Its place, or memory_count. */
static uint32_t find(const ploop_dev *dev, const struct iovec *region)
{
    uint32_t at = 0;
    while (at < dev->memory_count && (dev->memory[at].iov_base != region->iov_base ||
                                      dev->memory[at].iov_len != region->iov_len)) {
        at++;
    }
    return at;
}

/* ---- the public calls ---- */

int ploop_dev_register_memory(ploop_dev *dev, const struct iovec *regions, uint32_t count)
{
    int error = count && regions ? 0 : -EINVAL;
    for (uint32_t i = 0; i < count && !error; i++) {
        error = is_region(&regions[i]) ? 0 : -EINVAL;
    }
    if (error) {
        return error;
    }
    pthread_mutex_lock(&dev->memory_mutex);
    uint32_t before = dev->memory_count;
    for (uint32_t i = 0; i < count && !error; i++) {
        error = append(dev, &regions[i]);
    }
    while (error && dev->memory_count > before) {
        drop(dev, dev->memory_count - 1);
    }
    pthread_mutex_unlock(&dev->memory_mutex);
    return error;
}

int ploop_dev_unregister_memory(ploop_dev *dev, const struct iovec *regions, uint32_t count)
{
    int error = count == 0 || regions ? 0 : -ENOENT;
    pthread_mutex_lock(&dev->memory_mutex);
    for (uint32_t i = 0; i < count && !error; i++) {
        error = find(dev, &regions[i]) < dev->memory_count ? 0 : -ENOENT;
    }
    for (uint32_t i = 0; i < count && !error; i++) {
        uint32_t at = find(dev, &regions[i]);
        if (at < dev->memory_count) { /* it may be named twice */
            drop(dev, at);
        }
    }
    pthread_mutex_unlock(&dev->memory_mutex);
    return error;
}

int memory_join(ploop_dev *dev, struct delta *delta)
{
    int error = 0;
    pthread_mutex_lock(&dev->memory_mutex);
    uint32_t told = 0;
    while (told < dev->memory_count && !error) {
        error = tell_to(delta->file, &dev->memory[told]);
        error = error == -ENOTSUP ? 0 : error;
        told += !error;
    }
    if (!error) {
        stack_join(&dev->stack, delta);
    }
    while (error && told > 0) {
        forget_of(delta->file, &dev->memory[--told]);
    }
    pthread_mutex_unlock(&dev->memory_mutex);
    return error;
}

void memory_leave(ploop_dev *dev, struct delta *delta)
{
    pthread_mutex_lock(&dev->memory_mutex);
    stack_leave(&dev->stack, delta);
    for (uint32_t i = 0; i < dev->memory_count; i++) {
        forget_of(delta->file, &dev->memory[i]);
    }
    pthread_mutex_unlock(&dev->memory_mutex);
}

void memory_unregister_all(ploop_dev *dev)
{
    while (dev->memory_count > 0) {
        drop(dev, dev->memory_count - 1);
    }
    free(dev->memory);
    dev->memory = NULL;
}
