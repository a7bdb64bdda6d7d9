/* SPDX-License-Identifier: MIT */
/*
 * A reservation is a private mapping without access; the usable part of it is made readable and
 * writable, in whole pages. Without one the memory is calloc's, so that pages that are never
 * touched take no memory either way.
 */
#include "util/growing.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER
#endif
#endif

#ifdef HAS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

static void assert_growing(const struct growing *growing)
{
    (void)growing;
    assert(growing->memory || (growing->size == 0 && growing->reserved == 0));
    assert(growing->reserved == 0 || growing->size <= growing->reserved);
}

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

static bool is_limited(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
}

/* False: no reservation; the memory is taken from elsewhere. */
static bool reserve(struct growing *growing, uint64_t limit)
{
    if (limit > SIZE_MAX / 2 || is_limited()) {
        return false;
    }
    size_t bytes = whole_pages((size_t)limit);
    void *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    *growing = (struct growing){.memory = memory, .reserved = bytes};
    return true;
}

/* Pages that are usable already are made so again, which is harmless. */
static int make_usable(struct growing *growing, size_t size)
{
    char *memory = growing->memory;
    size_t bytes = whole_pages(size);
    if (bytes > 0 && mprotect(memory, bytes, PROT_READ | PROT_WRITE) != 0) {
        return -ENOMEM;
    }
    growing->size = size;
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    ASAN_POISON_MEMORY_REGION(memory + size, bytes - size);
    return 0;
}

int growing_init(struct growing *growing, uint64_t size, uint64_t limit)
{
    *growing = (struct growing){0};
    if (limit > size && reserve(growing, limit)) {
        int error = make_usable(growing, (size_t)size);
        if (error) {
            growing_free(growing);
        }
        assert_growing(growing);
        return error;
    }
    void *memory = size > SIZE_MAX / 2 ? NULL : calloc(1, size ? (size_t)size : 1);
    if (!memory) {
        return -ENOMEM;
    }
    *growing = (struct growing){.memory = memory, .size = (size_t)size};
    assert_growing(growing);
    return 0;
}

int growing_extend(struct growing *growing, uint64_t size)
{
    assert_growing(growing);
    assert(growing->memory);
    if (size <= growing->size) {
        return 0;
    }
    if (size > growing->reserved) {
        return -ENOMEM;
    }
    return make_usable(growing, (size_t)size);
}

/* [at, end) of a reservation is filled next. Call it before the bytes are touched. */
static void prepare_fill(struct growing *growing, size_t at, size_t end)
{
    if (at != growing->filled_to) {
        growing->filled_from = at;
    }
    growing->filled_to = end;
    uintptr_t memory = (uintptr_t)growing->memory;
    uintptr_t huge = (memory + end - 1) / HUGE_PAGE * HUGE_PAGE; /* the one that holds the end */
    bool begins_now = huge >= memory + at && huge < memory + end;
    bool follows = huge >= memory + growing->filled_from + HUGE_PAGE;
    if (begins_now && follows && huge + HUGE_PAGE <= memory + growing->size) {
        (void)madvise((char *)growing->memory + (huge - memory), HUGE_PAGE, MADV_HUGEPAGE);
    }
}

void growing_fill(struct growing *growing, size_t at, const void *bytes, size_t length)
{
    assert_growing(growing);
    assert(length > 0 && length < HUGE_PAGE && at + length <= growing->size);
    if (growing->reserved) {
        prepare_fill(growing, at, at + length);
    }
    memcpy((char *)growing->memory + at, bytes, length);
}

void growing_empty(struct growing *growing)
{
    assert_growing(growing);
    if (growing->reserved) {
        (void)madvise(growing->memory, whole_pages(growing->size), MADV_DONTNEED);
    }
    growing->filled_from = growing->filled_to = 0;
}

void growing_free(struct growing *growing)
{
    assert_growing(growing);
    if (growing->reserved) {
        ASAN_UNPOISON_MEMORY_REGION(growing->memory, whole_pages(growing->size));
        munmap(growing->memory, growing->reserved);
    } else {
        free(growing->memory);
    }
    *growing = (struct growing){0};
}
