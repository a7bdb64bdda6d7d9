/* SPDX-License-Identifier: MIT */
/*
 * Fixed scenarios. Either cut after every backend event, with every operation not yet durable
 * dropped alone and kept alone; or, exhaustively, with the Nth backend call or the Nth allocation
 * failing, N = 1, 2, 3 ... until the scenario completes undisturbed.
 */
#ifndef SIM_SCENARIOS_H
#define SIM_SCENARIOS_H

#include <stdbool.h>

/* "all" or one's name. The exit status. */
int scenarios_run(const char *name, bool exhaustive);

#endif
