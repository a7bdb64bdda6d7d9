/* SPDX-License-Identifier: MIT */
/* See shrink.h. */
#include "shrink.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

enum { RUN_SECONDS_MAX = 120 };

int run_apart(const struct workload *workload, bool quiet)
{
    char line[4096];
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        give_up("fork failed");
    if (!child) {
        if (quiet) {
            int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(nowhere, STDOUT_FILENO);
            dup2(nowhere, STDERR_FILENO);
        }
        alarm(RUN_SECONDS_MAX);
        print_replay(line, sizeof(line), workload);
        report_set_replay(line);
        workload_run(workload);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child)
        give_up("waitpid failed");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool shrink(struct workload *workload)
{
    uint32_t count = workload->step_count, tries = 0;
    int failing = run_apart(workload, true);
    if (!failing || count == 0)
        return false;
    for (uint32_t chunk = count / 2; chunk > 0; chunk = chunk > 1 ? (chunk + 1) / 2 : 0) {
        bool again = true;
        while (again) {
            again = false;
            for (uint32_t at = 0; at < count; at += chunk) {
                bool kept[count];
                uint32_t dropped = 0;
                memcpy(kept, workload->skip, count * sizeof(bool));
                for (uint32_t i = at; i < count && i < at + chunk; i++) {
                    dropped += !workload->skip[i];
                    workload->skip[i] = true;
                }
                tries += dropped > 0;
                if (dropped && run_apart(workload, true) == failing)
                    again = chunk > 1 ? again : true;
                else
                    memcpy(workload->skip, kept, count * sizeof(bool));
            }
        }
    }
    printf("shrunk in %" PRIu32 " tries\n", tries);
    return true;
}

int parse_skip(const char *text, bool *skip, uint32_t count)
{
    while (*text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (end == text)
            return -1;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < count; i++)
            skip[i] = true;
        text = *end == ',' ? end + 1 : end;
        if (*end && *end != ',')
            return -1;
    }
    return 0;
}

void print_replay(char *line, uint64_t size, const struct workload *workload)
{
    int at = snprintf(line, size,
                      "sim --seed %" PRIu64 " --runs 1 --steps %" PRIu32 " --cut-permille %" PRIu32,
                      workload->seed, workload->step_count, workload->cut_permille);
    const char *before = " --skip ";
    for (uint32_t i = 0; workload->skip && i < workload->step_count; i++) {
        uint32_t first = i;
        if (!workload->skip[i])
            continue;
        while (i + 1 < workload->step_count && workload->skip[i + 1])
            i++;
        if (at > 0 && (uint64_t)at < size - 32)
            at += snprintf(line + at, size - (uint64_t)at,
                           i == first ? "%s%" PRIu32 : "%s%" PRIu32 "-%" PRIu32, before, first, i);
        before = ",";
    }
}
