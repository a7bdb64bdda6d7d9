/* SPDX-License-Identifier: MIT */
/* See report.h. */
#include "report.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"

int report_verbose;
static char replay[4096];

void report_set_replay(const char *line)
{
    snprintf(replay, sizeof(replay), "%s", line);
}

static void on_signal(int number)
{
    static const char text[] = "VIOLATION: the process dies of a signal\n  replay: ";
    ssize_t ignored = write(STDOUT_FILENO, text, sizeof(text) - 1);
    ignored += write(STDOUT_FILENO, replay, strlen(replay));
    ignored += write(STDOUT_FILENO, "\n", 1);
    (void)ignored;
    signal(number, SIG_DFL);
    raise(number);
}

void report_crashes(void)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM};
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        signal(numbers[i], on_signal);
}

void trace(const char *format, ...)
{
    if (!report_verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

_Noreturn void violation(const char *rule, const char *format, ...)
{
    va_list arguments;
    alloc_off();
    fflush(stdout);
    printf("VIOLATION of %s: ", rule);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n  replay: %s\n", replay);
    fflush(stdout);
    if (report_verbose > 1)
        abort();
    _exit(EXIT_VIOLATION);
}

_Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    alloc_off();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(1);
}
