/* SPDX-License-Identifier: MIT */
/*
 * Memory that fails on purpose. The simulator is linked with --wrap for the allocation functions,
 * so each call of the library comes through here; the simulator's own memory (sim_alloc) does not.
 *
 * States: off (every call succeeds), counting (every call succeeds and is counted), failing (the
 * Nth fails, or all from the Nth on).
 */
#ifndef SIM_ALLOC_H
#define SIM_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

void alloc_off(void);
void alloc_count(void);
/* Fail the Nth call from now, 1 the next; `persistent`: and all later ones. */
void alloc_fail(uint64_t nth, bool persistent);
/*
 * A judge works in between: nothing is counted and nothing fails until resumed. Returns the value
 * to hand back.
 */
bool alloc_pause(void);
void alloc_resume(bool was_active);
/*
 * Whether the process's address space counts as limited: the library then reserves none for arrays
 * that could grow, which makes an open cheaper.
 */
void alloc_limit_space(bool limited);

uint64_t alloc_calls(void);    /* since alloc_count() or alloc_fail() */
uint64_t alloc_failures(void); /* of the process, in total */

#endif
