/* SPDX-License-Identifier: MIT */
/* Runs in a process of their own, and a failing run made shorter by leaving out steps. */
#ifndef SIM_SHRINK_H
#define SIM_SHRINK_H

#include <stdbool.h>
#include <stdint.h>

#include "workload.h"

/*
 * The exit status of a run in a child process, its output thrown away where asked for; 128 + n for
 * signal n.
 */
int run_apart(const struct workload *workload, bool quiet);

/*
 * Leave out every step that the failure does not need; what is left is in workload->skip. False: it
 * does not fail.
 */
bool shrink(struct workload *workload);

/* "3-7,9" to flags and back; -1 where it cannot be read. */
int parse_skip(const char *text, bool *skip, uint32_t count);
void print_replay(char *line, uint64_t size, const struct workload *workload);

#endif
