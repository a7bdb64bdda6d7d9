/* SPDX-License-Identifier: MIT */
/*
 * All memory that a schedule changes: what the library and the scenario allocate, and the fibers'
 * stacks. What the set-up left is kept and protected; a page that is written to is noted by the
 * signal this causes, once, and each schedule begins by copying those back.
 *
 * Memory is not reused within a schedule, so that whoever touches freed memory is found: its first
 * bytes are poison, and each scheduling point asks whether the object it is about is freed.
 */
#ifndef SCHED_ARENA_H
#define SCHED_ARENA_H

#include <stdbool.h>
#include <stddef.h>

void arena_start(void); /* empty, for a scenario's set-up */
void arena_keep(void);  /* what is there now is what arena_restore() brings back */
void arena_restore(void);

/* For the handler of SIGSEGV. False: that is no page of the arena. */
bool arena_note_write(void *address);

/* Before the kernel writes there, which raises no signal. */
void arena_touch(void *address, size_t size);

void *arena_take(size_t size, size_t alignment); /* zeros */
bool arena_is_freed(const volatile void *address);

#endif
