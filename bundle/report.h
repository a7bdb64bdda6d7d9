/* SPDX-License-Identifier: MIT */
/*
 * Where a bundle's faults are told: one line each, to the caller's log callback.
 */
#ifndef BUNDLE_REPORT_H
#define BUNDLE_REPORT_H

#include <stdint.h>

struct report {
    void (*log)(void *user_data, uint32_t level, uint32_t message_id,
                const char *text); /* or NULL */
    void *user_data;
    const char *subject; /* the line begins with it: a path */
};

/* Tell of an error. Returns `error`, so that a function can end with it. */
__attribute__((format(printf, 3, 4))) int fault(const struct report *report, int error,
                                                const char *format, ...);
__attribute__((format(printf, 2, 3))) void warn(const struct report *report, const char *format,
                                                ...);

#endif
