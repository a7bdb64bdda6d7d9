/* SPDX-License-Identifier: MIT */
/*
 * Repairs of damaged images over the simulated disk. Cut after every backend event, and gone on
 * with from one of the disks that a cut left; or, exhaustively, with the Nth backend call or
 * allocation failing, or cancelled at the Nth chance, N = 1, 2, 3 ... until the repair passes
 * untouched.
 */
#ifndef SIM_REPAIR_H
#define SIM_REPAIR_H

#include <stdbool.h>

/* "all" or one's name. The exit status. */
int repairs_run(const char *name, bool exhaustive);

#endif
