/* SPDX-License-Identifier: MIT */
/* The states and invariants stand in bounce.h. */
#include "file/bounce.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static void assert_bounces(const struct bounces *bounces)
{
#ifndef NDEBUG
    assert(list_is_empty(&bounces->waiters) || list_is_empty(&bounces->free));
    for (uint32_t i = 0; i < BOUNCE_COUNT; i++) {
        const struct bounce *bounce = &bounces->all[i];
        assert(list_is_empty(&bounce->link) == (bounce->file != NULL));
        assert(bounce->block != BOUNCE_NO_BLOCK || list_is_empty(&bounce->waiters));
        for (uint32_t j = 0; j < i && bounce->block != BOUNCE_NO_BLOCK; j++) {
            const struct bounce *other = &bounces->all[j];
            assert(other->file != bounce->file || other->block != bounce->block);
        }
    }
#else
    (void)bounces;
#endif
}

int bounces_init(struct bounces *bounces)
{
    void *memory = NULL;
    if (bounces->memory) {
        return 0;
    }
    if (posix_memalign(&memory, BOUNCE_MEMORY_ALIGN, (size_t)BOUNCE_COUNT * BOUNCE_SIZE)) {
        return -ENOMEM;
    }
    bounces->memory = memory;
    list_init(&bounces->free);
    list_init(&bounces->waiters);
    for (uint32_t i = 0; i < BOUNCE_COUNT; i++) {
        struct bounce *bounce = &bounces->all[i];
        *bounce = (struct bounce){.block = BOUNCE_NO_BLOCK,
                                  .bytes = bounces->memory + (size_t)i * BOUNCE_SIZE};
        list_init(&bounce->waiters);
        list_append(&bounces->free, &bounce->link);
    }
    assert_bounces(bounces);
    return 0;
}

void bounces_free(struct bounces *bounces)
{
    free(bounces->memory);
    bounces->memory = NULL;
}

bool bounces_are_idle(const struct bounces *bounces)
{
    for (uint32_t i = 0; i < BOUNCE_COUNT && bounces->memory; i++) {
        if (bounces->all[i].file) {
            return false;
        }
    }
    return true;
}

/* The buffer that has the block. */
static struct bounce *holder_of(struct bounces *bounces, const struct bounce_wait *wait)
{
    for (uint32_t i = 0; i < BOUNCE_COUNT && wait->block != BOUNCE_NO_BLOCK; i++) {
        struct bounce *bounce = &bounces->all[i];
        if (bounce->file == wait->file && bounce->block == wait->block) {
            return bounce;
        }
    }
    return NULL;
}

/* At once, or into the line that it belongs in. */
static bool take_or_wait(struct bounces *bounces, struct bounce_wait *wait)
{
    struct bounce *holder = holder_of(bounces, wait);
    struct list *link = holder ? NULL : list_take_first(&bounces->free);
    if (!link) {
        list_append(holder ? &holder->waiters : &bounces->waiters, &wait->link);
        return false;
    }
    struct bounce *bounce = container_of(link, struct bounce, link);
    assert(list_is_empty(&bounce->waiters) && !bounce->file);
    bounce->file = wait->file;
    bounce->block = wait->block;
    wait->had = bounce;
    return true;
}

bool bounce_take(struct bounces *bounces, struct bounce_wait *wait, const void *file,
                 uint64_t block, bounce_fn *granted)
{
    assert(bounces->memory && !wait->had && list_is_empty(&wait->link) && file);
    wait->file = file;
    wait->block = block;
    wait->granted = granted;
    bool had = take_or_wait(bounces, wait);
    assert_bounces(bounces);
    return had;
}

void bounce_give_back(struct bounces *bounces, struct bounce_wait *wait)
{
    struct bounce *bounce = wait->had;
    struct list *link;
    assert(bounce && bounce->file == wait->file && bounce->block == wait->block);
    wait->had = NULL;
    if (list_is_empty(&bounces->waiters) && (link = list_take_first(&bounce->waiters)) != NULL) {
        /* The next for the same block. The others stay in its line, however many they are. */
        struct bounce_wait *next = container_of(link, struct bounce_wait, link);
        next->had = bounce;
        assert_bounces(bounces);
        next->granted(next);
        return;
    }
    /* Behind those that wait for any buffer, so that a block that all want does not keep it. */
    bounce->file = NULL;
    bounce->block = BOUNCE_NO_BLOCK;
    list_append(&bounces->free, &bounce->link);
    list_move_all(&bounces->waiters, &bounce->waiters);
    while (!list_is_empty(&bounces->free) && (link = list_take_first(&bounces->waiters)) != NULL) {
        struct bounce_wait *next = container_of(link, struct bounce_wait, link);
        if (take_or_wait(bounces, next)) {
            next->granted(next);
        }
    }
    assert_bounces(bounces);
}
