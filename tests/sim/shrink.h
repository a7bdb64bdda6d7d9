/* SPDX-License-Identifier: MIT */
/* Run each run in a separate process, and shorten a failing run by leaving out steps. */
#ifndef SIM_SHRINK_H
#define SIM_SHRINK_H

#include <stdbool.h>
#include <stdint.h>

#include "workload.h"

/*
 * The exit status of a run in a child process, whose output is discarded on request; 128 + n for
 * signal n.
 */
int run_apart(const struct workload *workload, bool quiet);

/*
 * Leave out every step that the failure does not need; the rest is in workload->skip. False: the
 * run does not fail.
 */
bool shrink(struct workload *workload);

/* "3-7,9" to flags and back; -1 where it cannot be read. */
int parse_skip(const char *text, bool *skip, uint32_t count);
void print_replay(char *line, uint64_t size, const struct workload *workload);

#endif
