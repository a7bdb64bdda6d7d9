/* SPDX-License-Identifier: MIT */
/* See alloc.h. */
#include "alloc.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "report.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_mprotect(void *memory, size_t size, int protection);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_mprotect(void *memory, size_t size, int protection);

static struct {
    bool active;
    bool persistent;
    uint64_t calls, fail_at, failures;
} alloc;

void alloc_off(void)
{
    alloc.active = false;
}

void alloc_count(void)
{
    alloc_fail(UINT64_MAX, false);
}

void alloc_fail(uint64_t nth, bool persistent)
{
    alloc.active = true;
    alloc.calls = 0;
    alloc.fail_at = nth;
    alloc.persistent = persistent;
}

bool alloc_pause(void)
{
    bool was = alloc.active;
    alloc.active = false;
    return was;
}

void alloc_resume(bool was_active)
{
    alloc.active = was_active;
}

void alloc_limit_space(bool limited)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit))
        give_up("getrlimit failed");
    limit.rlim_cur =
        limited && limit.rlim_max == RLIM_INFINITY ? RLIM_INFINITY - 1 : limit.rlim_max;
    if (setrlimit(RLIMIT_AS, &limit))
        give_up("setrlimit failed");
}

uint64_t alloc_calls(void)
{
    return alloc.calls;
}

uint64_t alloc_failures(void)
{
    return alloc.failures;
}

static bool fails(void)
{
    if (!alloc.active)
        return false;
    alloc.calls++;
    if (alloc.calls != alloc.fail_at && !(alloc.persistent && alloc.calls > alloc.fail_at))
        return false;
    alloc.failures++;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    return fails() ? ENOMEM : __real_posix_memalign(memory, alignment, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_mprotect(void *memory, size_t size, int protection)
{
    return fails() ? -1 : __real_mprotect(memory, size, protection);
}

void *sim_alloc(uint64_t size)
{
    void *memory = __real_calloc(1, size ? size : 1);
    if (!memory)
        give_up("out of memory");
    return memory;
}

void *sim_alloc_aligned(uint64_t size)
{
    void *memory;
    if (__real_posix_memalign(&memory, 4096, size ? size : 1))
        give_up("out of memory");
    memset(memory, 0, size);
    return memory;
}

void *sim_realloc(void *old, uint64_t size)
{
    void *memory = __real_realloc(old, size ? size : 1);
    if (!memory)
        give_up("out of memory");
    return memory;
}

void sim_free(void *memory)
{
    free(memory);
}
