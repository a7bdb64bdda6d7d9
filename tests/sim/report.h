/* SPDX-License-Identifier: MIT */
/*
 * How a run ends when a promise is broken: the finding and the line that replays it are printed,
 * and the process exits with 3. Each run has a separate process (main.c forks), so nothing has to
 * be cleaned up.
 */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <stdint.h>

enum { EXIT_VIOLATION = 3 };

/* The command that replays the present run; kept for violation() and for a crash. */
void report_set_replay(const char *line);
void report_crashes(void); /* print the line when a signal ends the process, too */

/* Print each event as it happens, where asked for with -v. */
extern int report_verbose;
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A broken promise. `rule` is R1 ... R17, F1 ... F13 or a word. */
_Noreturn void violation(const char *rule, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The simulator itself cannot continue: no memory, a wrong call. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Memory for the simulator's own use: never fails, and never counts as the library's (alloc.c). */
void *sim_alloc(uint64_t size);
void *sim_alloc_aligned(uint64_t size); /* to a sector */
void *sim_realloc(void *old, uint64_t size);
void sim_free(void *memory);

#endif
