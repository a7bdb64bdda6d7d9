/* SPDX-License-Identifier: MIT */
/* See report.h. */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>

#include <ploop/dev.h>

/* What an XML says may hold anything; the log gets a line of text. */
static void make_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            *text = '?';
        }
    }
}

static void tell(const struct report *report, uint32_t level, const char *format, va_list arguments)
{
    char what[512], text[1024];

    if (report->log) {
        vsnprintf(what, sizeof(what), format, arguments);
        snprintf(text, sizeof(text), "%s: %s", report->subject, what);
        make_line(text);
        report->log(report->user_data, level, 0, text);
    }
}

int fault(const struct report *report, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    tell(report, PLOOP_LOG_ERROR, format, arguments);
    va_end(arguments);
    return error;
}

void warn(const struct report *report, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    tell(report, PLOOP_LOG_WARNING, format, arguments);
    va_end(arguments);
}
