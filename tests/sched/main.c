/* SPDX-License-Identifier: MIT */
/* The command line of the explored schedules. */
#include "main.h"

#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "explore.h"

struct options options;
const struct scenario *scenario_running;

static const char usage[] = "usage: sched [--scenario NAME|all] [--bound N | --random N [--seed S] "
                            "| --replay LIST] [--limit N] [-v]\n"
                            "       sched --list\n"
                            "\n"
                            "Explores the schedules of a few threads that use the library; says "
                            "what it found, and how to replay it.\n"
                            "  --scenario NAME   one of --list; all if not given\n"
                            "  --bound N         all schedules with N preemptions at most; "
                            "otherwise each scenario's own bound and random schedules\n"
                            "  --random N        N random schedules, from seed S\n"
                            "  --seconds N       random schedules of all scenarios in turn, for so "
                            "long, on new seeds from S\n"
                            "  --limit N         no more than so many schedules of each scenario\n"
                            "  --replay LIST     the schedule that a failure printed\n"
                            "  -v                print every step\n";

const char *short_name(const char *file)
{
    static const char *const tops[] = {"/src/", "/tests/"};
    for (size_t i = 0; file && i < sizeof(tops) / sizeof(tops[0]); i++) {
        const char *at = NULL;
        for (const char *found = file; (found = strstr(found, tops[i])) != NULL; found++) {
            at = found;
        }
        if (at) {
            return at + 1;
        }
    }
    return file ? file : "?";
}

void report_failure(const char *text)
{
    fflush(stdout);
    const char *name = scenario_running ? scenario_running->name : "?";
    printf("FAILURE %s: %s\n  replay: --scenario %s --replay %s\n", name, text, name,
           explore_replay());
    fflush(stdout);
    _exit(1);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (number == SIGSEGV && arena_note_write(info->si_addr)) {
        return;
    }
    report_failure(number == SIGABRT   ? "an assertion failed"
                   : number == SIGSEGV ? "bad memory access"
                                       : "crash");
}

static void catch_signals(void)
{
    static char stack[64 << 10];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    const int caught[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++) {
        sigaction(caught[i], &action, NULL);
    }
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct job {
    const char *wanted, *replay;
    int bound; /* -1: not given */
    uint64_t random, seed, limit, seconds;
};

static void say(const struct scenario *scenario, const char *how, struct exploration found,
                double since)
{
    printf("%-28s %-12s %9llu schedules, %5llu steps, %4llu choices, %6.2f s%s\n", scenario->name,
           how, (unsigned long long)found.schedules, (unsigned long long)found.steps,
           (unsigned long long)found.choices, seconds_now() - since,
           found.complete || how[0] == 'r' ? "" : ", not complete");
    fflush(stdout);
}

static uint64_t run_scenario(const struct scenario *scenario, const struct job *job)
{
    uint64_t schedules = 0;
    double since = seconds_now();
    explore_set_up(scenario);
    if (job->replay) {
        explore_replayed(job->replay);
        printf("%s: nothing wrong\n", scenario->name);
        return 1;
    }
    unsigned bound = job->bound >= 0 ? (unsigned)job->bound : job->random ? 0 : scenario->bound;
    uint64_t random = job->random ? job->random : job->bound >= 0 ? 0 : scenario->random;
    if (bound) {
        char how[32];
        snprintf(how, sizeof(how), "bound %u", bound);
        struct exploration found = explore_exhaustively(bound, job->limit);
        schedules += found.schedules;
        say(scenario, how, found, since);
    }
    if (random) {
        since = seconds_now();
        struct exploration found = explore_randomly(job->seed, random);
        schedules += found.schedules;
        say(scenario, "random", found, since);
    }
    return schedules;
}

static bool is_wanted(const struct scenario *scenario, const struct job *job)
{
    return !job->wanted || !strcmp(job->wanted, "all") || !strcmp(job->wanted, scenario->name);
}

static uint64_t run_wanted(const struct job *job, unsigned *count)
{
    uint64_t schedules = 0;
    for (const struct scenario *const *scenario = scenarios; *scenario; scenario++) {
        if (is_wanted(*scenario, job)) {
            ++*count;
            schedules += run_scenario(*scenario, job);
        }
    }
    return schedules;
}

static bool read_options(int argc, char **argv, struct job *job)
{
    static const struct option long_options[] = {
        {"scenario", required_argument, NULL, 's'}, {"bound", required_argument, NULL, 'b'},
        {"random", required_argument, NULL, 'r'},   {"seed", required_argument, NULL, 'S'},
        {"seconds", required_argument, NULL, 't'},  {"limit", required_argument, NULL, 'l'},
        {"replay", required_argument, NULL, 'R'},   {"list", no_argument, NULL, 'L'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
    };
    for (int given; (given = getopt_long(argc, argv, "v", long_options, NULL)) >= 0;) {
        switch (given) {
        case 's':
            job->wanted = optarg;
            break;
        case 'b':
            job->bound = atoi(optarg);
            break;
        case 'r':
            job->random = strtoull(optarg, NULL, 0);
            break;
        case 'S':
            job->seed = strtoull(optarg, NULL, 0);
            break;
        case 't':
            job->seconds = strtoull(optarg, NULL, 0);
            break;
        case 'l':
            job->limit = strtoull(optarg, NULL, 0);
            break;
        case 'R':
            job->replay = optarg;
            break;
        case 'v':
            options.verbose = true;
            break;
        case 'L':
            for (const struct scenario *const *scenario = scenarios; *scenario; scenario++) {
                printf("%-28s %s\n", (*scenario)->name, (*scenario)->about);
            }
            exit(0);
        default:
            (void)fputs(usage, given == 'h' ? stdout : stderr);
            exit(given == 'h' ? 0 : 2);
        }
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    struct job job = {.bound = -1, .seed = 1};
    if (!read_options(argc, argv, &job)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    catch_signals();
    uint64_t schedules = 0;
    unsigned count = 0;
    double end = seconds_now() + (double)job.seconds;
    if (job.seconds) {
        job.random = job.random ? job.random : 5000;
    }
    do {
        schedules += run_wanted(&job, &count);
        job.seed += job.random;
    } while (job.seconds && seconds_now() < end);
    if (!count) {
        (void)fprintf(stderr, "no such scenario: %s\n", job.wanted);
        return 2;
    }
    printf("schedules: %llu, failures: 0\n", (unsigned long long)schedules);
    return 0;
}
