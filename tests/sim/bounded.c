/* SPDX-License-Identifier: MIT */
/* See bounded.h. */
#include "bounded.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bounded_play.h"
#include "report.h"
#include "shrink.h"

enum { JOBS_MAX = 64, EVERY_GAP_LENGTH_DEFAULT = 2 };

struct options {
    uint32_t length, every_gap_length, shard, shards, jobs;
    bool variants[VARIANTS], bases[SIM_OVER_RAW + 1];
    const char *only;
};

typedef struct bounded_counts counts_by_length[BOUNDED_LENGTH_MAX + 1];

static const char usage[] =
    "sim --bounded N                               all sequences of at most N requests, every disk "
    "with at most two losses\n"
    "    [--base none|image|raw]                   what lies below; each in turn if not said\n"
    "    [--every-gap N]                           up to N requests (2): the next comes after each "
    "step of the backend; longer\n"
    "                                              sequences: at once, or when all is at rest\n"
    "    [--shard I/N]                             of the longest sequences only an Nth\n"
    "    [--variants LIST] [--jobs N]              which worlds; see bounded_play.h\n"
    "    [--only SEQUENCE] [-v]                    one run, as a replay line has it; tell every "
    "event\n";

static bool is_mine(const struct options *options, uint32_t length, uint64_t index, uint32_t worker)
{
    uint64_t mixed = hash_mix(length, index) >> 16;
    if (length == options->length && mixed % options->shards != options->shard)
        return false;
    return mixed / options->shards % options->jobs == worker;
}

static void play_length(const struct options *options, uint32_t worker, const struct world *world,
                        uint32_t length, struct bounded_judge *judge)
{
    uint64_t count = 1;
    struct sequence sequence = {.length = length};
    for (uint32_t i = 0; i < length; i++)
        count *= world->alphabet.count;
    for (uint64_t index = 0; index < count; index++) {
        uint64_t rest = index;
        for (uint32_t i = length; i-- > 0; rest /= world->alphabet.count)
            sequence.requests[i] = (uint8_t)(rest % world->alphabet.count);
        if (!is_mine(options, length, index, worker))
            continue;
        judge->counts->sequences++;
        if (!alphabet_stands_for_its_like(&world->alphabet, sequence.requests, length))
            continue;
        judge->counts->unlike++;
        memset(sequence.gaps, 0, sizeof(sequence.gaps));
        do
            sequence_play(world, &sequence, judge);
        while (sequence_next_gaps(&sequence, length <= options->every_gap_length));
    }
}

static void work(const struct options *options, enum sim_base base, uint32_t worker,
                 counts_by_length *counts)
{
    static struct world worlds[VARIANTS];
    struct bounded_judge judge = {.counts = NULL};
    for (uint32_t variant = 0; variant < VARIANTS; variant++)
        if (world_exists(base, variant))
            world_init(&worlds[variant], base, variant);
    for (uint32_t length = 0; length <= options->length;
         length++) { /* the shortest failing sequence is reported */
        judge.counts = &(*counts)[length];
        for (uint32_t variant = 0; variant < VARIANTS; variant++)
            if (options->variants[variant] && world_exists(base, variant))
                play_length(options, worker, &worlds[variant], length, &judge);
    }
    bounded_judge_free(&judge);
    fflush(stdout);
    _exit(0);
}

static void add_counts(struct bounded_counts *sum, const struct bounded_counts *part)
{
    const uint64_t *from = (const uint64_t *)part;
    uint64_t *to = (uint64_t *)sum;
    for (unsigned i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        to[i] += from[i];
}

static void print_counts(const struct options *options, const struct bounded_counts *counts,
                         uint32_t length)
{
    char shard[48] = "";
    if (length == options->length && options->shards > 1)
        snprintf(shard, sizeof(shard), " (shard %" PRIu32 "/%" PRIu32 ")", options->shard,
                 options->shards);
    printf("  length %" PRIu32 "%s: sequences %" PRIu64 ", unlike each other %" PRIu64
           ", runs %" PRIu64 "; cuts %" PRIu64 ", new ones %" PRIu64 "; their disks %" PRIu64
           ", judged as new %" PRIu64 ", gone on with %" PRIu64 "\n",
           length, shard, counts->sequences, counts->unlike, counts->runs, counts->cuts,
           counts->new_cuts, counts->disks, counts->judged, counts->continued);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_jobs(const struct options *options, enum sim_base base)
{
    size_t size = options->jobs * sizeof(counts_by_length);
    counts_by_length *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                    -1, 0),
                     all = {{0}};
    if (shared == MAP_FAILED)
        give_up("no shared memory");
    double started = seconds_now();
    pid_t children[JOBS_MAX];
    int code = 0;
    fflush(stdout);
    for (uint32_t i = 0; i < options->jobs; i++) {
        children[i] = fork();
        if (children[i] < 0)
            give_up("fork failed");
        if (!children[i])
            work(options, base, i, &shared[i]);
    }
    for (uint32_t i = 0; i < options->jobs; i++) {
        int status;
        if (waitpid(children[i], &status, 0) != children[i])
            give_up("waitpid failed");
        if (status)
            code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_VIOLATION;
        for (uint32_t length = 0; length <= options->length; length++)
            add_counts(&all[length], &shared[i][length]);
    }
    printf("bounded, base %s: %.0f seconds\n", base_name(base), seconds_now() - started);
    for (uint32_t length = 0; length <= options->length; length++)
        print_counts(options, &all[length], length);
    printf("%s\n", code ? "FAILED" : "0 violations");
    munmap(shared, size);
    return code;
}

/* A replay. */
static int run_only(const struct options *options)
{
    struct bounded_counts counts = {0};
    struct bounded_judge judge = {.counts = &counts};
    struct world world;
    struct sequence sequence;
    uint32_t variant = 0;
    enum sim_base base = SIM_ALONE;
    while (variant + 1 < VARIANTS && !options->variants[variant])
        variant++;
    while (base < SIM_OVER_RAW && !options->bases[base])
        base++;
    world_init(&world, base, variant);
    if (!sequence_parse(&world, &sequence, options->only))
        give_up("--only wants a list such as w0a+2+f0,s");
    sequence_play(&world, &sequence, &judge);
    bounded_judge_free(&judge);
    printf("cuts %" PRIu64 ", disks judged %" PRIu64 ": 0 violations\n", counts.cuts,
           counts.judged);
    return 0;
}

static enum sim_base base_of(const char *name)
{
    for (enum sim_base base = SIM_ALONE; base <= SIM_OVER_RAW; base++)
        if (!strcmp(name, base_name(base)))
            return base;
    give_up("%s", usage);
}

static void parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"bounded", required_argument, NULL, 'n'},   {"base", required_argument, NULL, 'b'},
        {"every-gap", required_argument, NULL, 'g'}, {"shard", required_argument, NULL, 's'},
        {"variants", required_argument, NULL, 'a'},  {"jobs", required_argument, NULL, 'j'},
        {"only", required_argument, NULL, 'o'},      {NULL, 0, NULL, 0},
    };
    memset(options->variants, true, sizeof(options->variants));
    memset(options->bases, true, sizeof(options->bases));
    for (int option; (option = getopt_long(argc, argv, "v", names, NULL)) != -1;) {
        const char *value = optarg ? optarg : "";
        uint32_t number = (uint32_t)strtoul(value, NULL, 10);
        switch (option) {
        case 'n':
            options->length = number;
            break;
        case 'b':
            memset(options->bases, false, sizeof(options->bases));
            options->bases[base_of(value)] = true;
            break;
        case 'g':
            options->every_gap_length = number;
            break;
        case 's':
            if (sscanf(value, "%" SCNu32 "/%" SCNu32, &options->shard, &options->shards) != 2)
                give_up("%s", usage);
            break;
        case 'a':
            memset(options->variants, false, sizeof(options->variants));
            if (parse_skip(value, options->variants, VARIANTS))
                give_up("%s", usage);
            break;
        case 'j':
            options->jobs = number;
            break;
        case 'o':
            options->only = value;
            break;
        case 'v':
            report_verbose++;
            break;
        default:
            give_up("%s", usage);
        }
    }
    if (optind != argc || !options->length || options->length > BOUNDED_LENGTH_MAX ||
        !options->jobs || options->jobs > JOBS_MAX || options->shard >= options->shards)
        give_up("%s", usage);
}

int bounded_main(int argc, char **argv)
{
    struct options options = {.every_gap_length = EVERY_GAP_LENGTH_DEFAULT, .shards = 1, .jobs = 1};
    parse(argc, argv, &options);
    if (options.only)
        return run_only(&options);
    int code = 0;
    for (enum sim_base base = SIM_ALONE; base <= SIM_OVER_RAW && !code; base++)
        code = options.bases[base] ? run_jobs(&options, base) : 0;
    return code;
}
