/* SPDX-License-Identifier: MIT */
/*
 * All memory that a schedule changes: the allocations of the library and of the scenario, and the
 * fibers' stacks. The state after the set-up is kept and protected. The first write to a page
 * causes a signal, whose handler notes the page; each schedule begins by copying the noted pages
 * back.
 *
 * Memory is not reused within a schedule, so that every access to freed memory is found: its first
 * bytes are poison, and each scheduling point checks whether its object was freed.
 */
#ifndef SCHED_ARENA_H
#define SCHED_ARENA_H

#include <stdbool.h>
#include <stddef.h>

void arena_start(void); /* empty, for a scenario's set-up */
void arena_keep(void);  /* save the present state, which arena_restore() brings back */
void arena_restore(void);

/* For the handler of SIGSEGV. False: the address is in no page of the arena. */
bool arena_note_write(void *address);

/* Before the kernel writes there, which raises no signal. */
void arena_touch(void *address, size_t size);

void *arena_take(size_t size, size_t alignment); /* zeros */
bool arena_is_freed(const volatile void *address);
size_t arena_size_of(const void *memory); /* of what arena_take() returned */

/* Whether memory may be reserved: false after arena_start(). */
extern bool arena_reserves;

#endif
