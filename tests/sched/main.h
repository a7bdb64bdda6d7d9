/* SPDX-License-Identifier: MIT */
#ifndef SCHED_MAIN_H
#define SCHED_MAIN_H

#include <stdbool.h>

struct options {
    bool verbose; /* print every step */
};
extern struct options options;

/* The part of a source's path that identifies it. */
const char *short_name(const char *file);

/* Print the failure and how to replay the schedule, and exit with status 1. */
void report_failure(const char *text) __attribute__((noreturn));

#endif
