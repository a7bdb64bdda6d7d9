/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fiber.h"

enum { ARENA_BYTES = 64 << 20, GRANULE = 64, PAGE = 4096, POISON_BYTES = 4096, POISON = 0xEB };

/* At the arena's beginning. */
struct arena {
    size_t used;
    uint8_t
        freed[ARENA_BYTES / GRANULE]; /* a byte for each granule; written only when it is freed */
};

/* Before each block, at the end of a granule. */
struct block {
    size_t size;
};

bool arena_reserves;

static uint8_t *arena_bytes, *kept_bytes;
static struct arena *arena;

/* Pages that some schedule has written to. */
static uint32_t changed[ARENA_BYTES / PAGE];
static unsigned changed_count;

static void must(bool fine, const char *what)
{
    if (!fine) {
        perror(what);
        abort();
    }
}

static uint8_t *map_zeros(void *old)
{
    if (old) {
        munmap(old, ARENA_BYTES);
    }
    void *mapped = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(mapped != MAP_FAILED, "mmap");
    return mapped;
}

void arena_start(void)
{
    arena_bytes = map_zeros(arena_bytes);
    arena = (struct arena *)(void *)arena_bytes;
    arena->used = sizeof(*arena);
    changed_count = 0;
    arena_reserves = false;
}

void arena_keep(void)
{
    kept_bytes = map_zeros(kept_bytes);
    memcpy(kept_bytes, arena_bytes, arena->used);
    must(mprotect(arena_bytes, ARENA_BYTES, PROT_READ) == 0, "mprotect");
}

bool arena_note_write(void *address)
{
    uint8_t *at = address;
    if (!arena_bytes || at < arena_bytes || at >= arena_bytes + ARENA_BYTES) {
        return false;
    }
    uint32_t page = (uint32_t)((size_t)(at - arena_bytes) / PAGE);
    changed[changed_count++] = page;
    return changed_count < ARENA_BYTES / PAGE &&
           mprotect(arena_bytes + (size_t)page * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0;
}

void arena_restore(void)
{
    for (unsigned i = 0; i < changed_count; i++) {
        memcpy(arena_bytes + (size_t)changed[i] * PAGE, kept_bytes + (size_t)changed[i] * PAGE,
               PAGE);
    }
}

void arena_touch(void *address, size_t size)
{
    volatile uint8_t *bytes = address;
    for (size_t at = 0; at < size + PAGE; at += PAGE) {
        volatile uint8_t *byte = &bytes[at < size ? at : size - 1];
        uint8_t same = *byte;
        *byte = same;
    }
}

void *arena_take(size_t size, size_t alignment)
{
    alignment = alignment < GRANULE ? GRANULE : alignment;
    size_t first = (arena->used + GRANULE - 1) / GRANULE * GRANULE;
    size_t at = (first + sizeof(struct block) + alignment - 1) / alignment * alignment;
    if (at + size > ARENA_BYTES) {
        sched_fail("the arena is too small");
    }
    arena->used = at + size;
    struct block *block = (struct block *)(void *)(arena_bytes + at) - 1;
    block->size = size;
    return arena_bytes + at;
}

size_t arena_size_of(const void *memory)
{
    return ((const struct block *)memory - 1)->size;
}

static bool is_ours(const volatile void *address)
{
    const volatile uint8_t *at = address;
    return arena_bytes && at >= arena_bytes && at < arena_bytes + ARENA_BYTES;
}

bool arena_is_freed(const volatile void *address)
{
    return is_ours(address) &&
           arena->freed[(size_t)((const volatile uint8_t *)address - arena_bytes) / GRANULE];
}

/* ---- the allocator of everything that is linked with this: --wrap ---- */

void __wrap_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void __wrap_free(void *memory)
{
    if (!memory) {
        return;
    }
    if (!is_ours(memory) || arena_is_freed(memory)) {
        sched_fail("freed twice, or never allocated");
    }
    struct block *block = (struct block *)memory - 1;
    memset(memory, POISON, block->size < POISON_BYTES ? block->size : POISON_BYTES);
    size_t first = (size_t)((uint8_t *)memory - arena_bytes) / GRANULE;
    memset(&arena->freed[first], 1, (block->size + GRANULE - 1) / GRANULE);
}

void *__wrap_malloc(size_t size)
{
    return arena_take(size, GRANULE);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return arena_take(count * size, GRANULE);
}

void *__wrap_realloc(void *memory, size_t size)
{
    void *grown = arena_take(size, GRANULE);
    if (memory) {
        size_t old = ((struct block *)memory - 1)->size;
        memcpy(grown, memory, old < size ? old : size);
        __wrap_free(memory);
    }
    return grown;
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = arena_take(size, alignment);
    return 0;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return arena_take(size, alignment);
}
