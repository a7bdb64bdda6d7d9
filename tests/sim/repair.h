/* SPDX-License-Identifier: MIT */
/*
 * Repairs of damaged images over the simulated disk. Either cut after every backend event, and
 * continued from one of the disks that a cut left; or, exhaustively, with the Nth backend call or
 * allocation failing, or cancelled at the Nth progress call, N = 1, 2, 3 ... until the repair
 * completes undisturbed.
 */
#ifndef SIM_REPAIR_H
#define SIM_REPAIR_H

#include <stdbool.h>

/* "all" or one's name. The exit status. */
int repairs_run(const char *name, bool exhaustive);

#endif
