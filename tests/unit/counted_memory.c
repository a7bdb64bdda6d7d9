/* SPDX-License-Identifier: MIT */
#include "counted_memory.h"

#include <errno.h>
#include <stddef.h>

struct counted_memory counted_memory;
_Atomic int64_t live_allocations;

void __real_free(void *memory);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
int __real_mprotect(void *memory, size_t size, int protection);
void __wrap_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
int __wrap_mprotect(void *memory, size_t size, int protection);

static bool is_granted(size_t size)
{
    struct counted_memory *memory = &counted_memory;

    if (memory->paused) {
        return true;
    }
    memory->calls++;
    memory->bytes += size;
    if (memory->fail_at == 0 || memory->calls < memory->fail_at ||
        (memory->calls > memory->fail_at && !memory->fail_on)) {
        return true;
    }
    memory->failures++;
    errno = ENOMEM;
    return false;
}

static void *live(void *memory)
{
    live_allocations += memory != NULL;
    return memory;
}

void __wrap_free(void *memory)
{
    live_allocations -= memory != NULL;
    __real_free(memory);
}

void *__wrap_malloc(size_t size)
{
    return is_granted(size) ? live(__real_malloc(size)) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_granted(count * size) ? live(__real_calloc(count, size)) : NULL;
}

void *__wrap_realloc(void *memory, size_t size)
{
    if (!is_granted(size)) {
        return NULL;
    }
    void *changed = __real_realloc(memory, size);

    return memory ? changed : live(changed);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return is_granted(size) ? live(__real_aligned_alloc(alignment, size)) : NULL;
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    int error = is_granted(size) ? __real_posix_memalign(memory, alignment, size) : ENOMEM;

    live_allocations += error == 0;
    return error;
}

int __wrap_mprotect(void *memory, size_t size, int protection)
{
    return is_granted(size) ? __real_mprotect(memory, size, protection) : -1;
}
