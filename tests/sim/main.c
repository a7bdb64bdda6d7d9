/* SPDX-License-Identifier: MIT */
/*
 * The simulator's command line: runs from one seed on, in a given number of processes, until a
 * given number of runs, cuts or seconds.
 *
 * Exit: 0 no violation; 3 a violation or a crash, with the line that replays it; 4 a cell listed as
 * reachable never happened.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "bounded.h"
#include "counters.h"
#include "grow_run.h"
#include "repair.h"
#include "report.h"
#include "scenarios.h"
#include "shrink.h"
#include "stack_change.h"
#include "tower.h"
#include "workload.h"

enum { JOBS_MAX = 64, STEPS_DEFAULT = 300, CUT_PERMILLE_DEFAULT = 40, EXIT_MISSING = 4 };

struct options {
    uint64_t seed, runs, cuts, seconds, snapshots, merges, grows;
    uint32_t jobs, steps, cut_permille;
    const char *skip, *scenario, *repair;
    bool shrink, exhaustive, coverage;
};

static const char usage[] =
    "sim [--seed N] [--runs N] [--cuts N] [--seconds N] [--jobs N]   random runs, until the first "
    "of the three bounds\n"
    "    [--steps N] [--cut-permille N] [--skip LIST]                what a run is; a replay line "
    "names them\n"
    "    [--shrink]                                                 make the failing run of that "
    "seed shorter\n"
    "    [--scenario NAME|all] [--exhaustive]                       the fixed scenarios, cut after "
    "every event; or with the Nth "
    "call failing\n"
    "    [--repair NAME|all] [--exhaustive]                         the same for repairs of "
    "damaged images\n"
    "    [--steal-reports]                                          the backend lets a FUA write "
    "take a SYNC's error: must be "
    "noticed\n"
    "    [--coverage]                                               fail if something reachable "
    "never happened\n"
    "    [-v]                                                       tell every event\n"
    "sim --snapshot N [--seed N]                                   runs of a snapshot under load, "
    "cut at every event\n"
    "sim --merge N [--seed N]                                      merges of stacks of two to "
    "five files, the same\n"
    "sim --grow N [--seed N]                                       runs in which the disk grows "
    "under load\n"
    "sim --bounded N ...                                            all short sequences; sim "
    "--bounded help tells more\n";

static uint64_t seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

/* One process: every jobs-th seed, until its share is done. */
static void work(const struct options *options, uint32_t worker, uint64_t started)
{
    char line[4096];
    for (uint64_t run = worker;; run += options->jobs) {
        struct workload workload = {options->seed + run, options->steps, options->cut_permille,
                                    NULL};
        if (options->runs && run >= options->runs)
            break;
        if (options->cuts && counters->cuts * options->jobs >= options->cuts)
            break;
        if (options->seconds && seconds_now() - started >= options->seconds)
            break;
        counters->current_seed = workload.seed;
        print_replay(line, sizeof(line), &workload);
        report_set_replay(line);
        alarm(120);
        workload_run(&workload);
    }
    fflush(stdout);
    _exit(0);
}

static int run_jobs(const struct options *options)
{
    struct counters *shared = mmap(NULL, options->jobs * sizeof(*shared), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        give_up("no shared memory");
    uint64_t started = seconds_now();
    pid_t children[JOBS_MAX];
    int code = 0;
    fflush(stdout);
    for (uint32_t i = 0; i < options->jobs; i++) {
        children[i] = fork();
        if (children[i] < 0)
            give_up("fork failed");
        if (!children[i]) {
            counters = &shared[i];
            work(options, i, started);
        }
    }
    for (uint32_t i = 0; i < options->jobs; i++) {
        int status;
        if (waitpid(children[i], &status, 0) != children[i])
            give_up("waitpid failed");
        if (WIFSIGNALED(status)) {
            printf("VIOLATION: the process died of signal %d (%s)\n  replay: sim --seed %" PRIu64
                   " --runs 1 --steps %" PRIu32 " --cut-permille %" PRIu32 "\n",
                   WTERMSIG(status), strsignal(WTERMSIG(status)), shared[i].current_seed,
                   options->steps, options->cut_permille);
            code = EXIT_VIOLATION;
        } else if (WEXITSTATUS(status)) {
            code = WEXITSTATUS(status);
        }
    }
    struct counters all = {0};
    for (uint32_t i = 0; i < options->jobs; i++)
        counters_add(&all, &shared[i]);
    printf("seeds from %" PRIu64 ", %" PRIu64 " seconds\n", options->seed, seconds_now() - started);
    counters_print(&all);
    if (options->coverage)
        counters_print_cells(&all);
    if (options->coverage && counters_missing(&all) && !code)
        code = EXIT_MISSING;
    printf("%s\n", code ? "FAILED" : "0 violations");
    munmap(shared, options->jobs * sizeof(*shared));
    return code;
}

/* One run: a replay, or a run that is to be made shorter. */
static int run_one(const struct options *options)
{
    bool *skip = sim_alloc(options->steps * sizeof(bool));
    struct workload workload = {options->seed, options->steps, options->cut_permille, skip};
    char line[4096];
    if (options->skip && parse_skip(options->skip, skip, options->steps))
        give_up("--skip wants a list such as 3-7,9");
    if (options->shrink && !shrink(&workload))
        give_up("that run does not fail");
    print_replay(line, sizeof(line), &workload);
    printf("%s\n", line);
    int code = run_apart(&workload, false);
    if (code > 128)
        printf("the process died of signal %d\n", code - 128);
    return code > 128 ? EXIT_VIOLATION : code;
}

static const struct option names[] = {
    {"seed", required_argument, NULL, 's'},
    {"runs", required_argument, NULL, 'r'},
    {"cuts", required_argument, NULL, 'c'},
    {"seconds", required_argument, NULL, 't'},
    {"jobs", required_argument, NULL, 'j'},
    {"steps", required_argument, NULL, 'n'},
    {"skip", required_argument, NULL, 'k'},
    {"scenario", required_argument, NULL, 'o'},
    {"shrink", no_argument, NULL, 'h'},
    {"repair", required_argument, NULL, 'm'},
    {"exhaustive", no_argument, NULL, 'x'},
    {"snapshot", required_argument, NULL, 'q'},
    {"merge", required_argument, NULL, 'e'},
    {"grow", required_argument, NULL, 'w'},
    {"steal-reports", no_argument, NULL, 'b'},
    {"coverage", no_argument, NULL, 'g'},
    {"cut-permille", required_argument, NULL, 'p'},
    {NULL, 0, NULL, 0},
};

static void parse(int argc, char **argv, struct options *options)
{
    for (int option; (option = getopt_long(argc, argv, "v", names, NULL)) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (option) {
        case 's':
            options->seed = number;
            break;
        case 'r':
            options->runs = number;
            break;
        case 'c':
            options->cuts = number;
            break;
        case 't':
            options->seconds = number;
            break;
        case 'j':
            options->jobs = (uint32_t)number;
            break;
        case 'n':
            options->steps = (uint32_t)number;
            break;
        case 'p':
            options->cut_permille = (uint32_t)number;
            break;
        case 'k':
            options->skip = optarg;
            break;
        case 'o':
            options->scenario = optarg;
            break;
        case 'm':
            options->repair = optarg;
            break;
        case 'q':
            options->snapshots = number;
            break;
        case 'e':
            options->merges = number;
            break;
        case 'w':
            options->grows = number;
            break;
        case 'h':
            options->shrink = true;
            break;
        case 'x':
            options->exhaustive = true;
            break;
        case 'b':
            backend_steals_reports = true;
            break;
        case 'g':
            options->coverage = true;
            break;
        case 'v':
            report_verbose++;
            break;
        default:
            give_up("%s", usage);
        }
    }
    if (optind != argc || !options->jobs || options->jobs > JOBS_MAX)
        give_up("%s", usage);
}

/*
 * With any limit on address space the library reserves none for a disk that grows. That saves half
 * of the time where devices are opened and closed by the hundred thousand. A replayed run does not
 * depend on it.
 */
static void reserve_nothing(void)
{
    const struct rlimit limit = {.rlim_cur = RLIM_INFINITY - 1, .rlim_max = RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &limit) != 0) {
        perror("setrlimit");
    }
}

int main(int argc, char **argv)
{
    struct options options = {
        .seed = 1, .jobs = 1, .steps = STEPS_DEFAULT, .cut_permille = CUT_PERMILLE_DEFAULT};
    report_crashes();
#ifdef __GLIBC__ /* devices are opened and closed by the hundred thousand: keep their memory */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    reserve_nothing();
    if (argc > 1 && !strcmp(argv[1], "--bounded"))
        return bounded_main(argc, argv);
    parse(argc, argv, &options);
    if (options.scenario)
        return scenarios_run(options.scenario, options.exhaustive);
    if (options.snapshots)
        return snapshots_run(options.seed, options.snapshots);
    if (options.merges)
        return towers_run(options.seed, options.merges);
    if (options.grows)
        return grows_run(options.seed, options.grows);
    if (options.repair)
        return repairs_run(options.repair, options.exhaustive);
    if (options.shrink || options.skip || (options.runs == 1 && report_verbose))
        return run_one(&options);
    if (!options.runs && !options.cuts && !options.seconds)
        options.runs = 100;
    return run_jobs(&options);
}
