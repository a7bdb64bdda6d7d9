/* SPDX-License-Identifier: MIT */
/* See repair.h. */
#include "repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "backend.h"
#include "cut.h"
#include "repair_judge.h"
#include "report.h"

enum { VARIANTS = 4, SEEDS = 5, RANDOM_RUNS = 600, FAULTY_CUT_PERMILLE = 30 };

/* Kinds of damage that go together. */
static const struct repair_scenario {
    const char *name;
    uint32_t damage;
} scenarios[] = {
    {"repair-unclean", DAMAGE_MARK | DAMAGE_HOLES},
    {"repair-mark-value", DAMAGE_MARK_VALUE | DAMAGE_DUPLICATES},
    {"repair-empty-flag", DAMAGE_EMPTY_FLAG},
    {"repair-tail", DAMAGE_TAIL},
    {"repair-holes", DAMAGE_HOLES | DAMAGE_TAIL},
    {"repair-duplicates", DAMAGE_DUPLICATES},
    {"repair-range", DAMAGE_RANGE},
    {"repair-range-duplicates", DAMAGE_MARK | DAMAGE_RANGE | DAMAGE_DUPLICATES | DAMAGE_TAIL},
    {"repair-grid", DAMAGE_GRID | DAMAGE_HOLES},
    {"repair-beyond", DAMAGE_BEYOND | DAMAGE_DUPLICATES},
    {"repair-extension", DAMAGE_EXTENSION | DAMAGE_HOLES},
    {"repair-extension-tail", DAMAGE_EXTENSION | DAMAGE_TAIL | DAMAGE_TRANSIT},
    {"repair-extension-entries",
     DAMAGE_EXTENSION | DAMAGE_DUPLICATES | DAMAGE_TAIL | DAMAGE_TRANSIT},
    {"repair-bitmap", DAMAGE_BITMAP | DAMAGE_TRANSIT},
    {"repair-bitmap-holes", DAMAGE_BITMAP | DAMAGE_HOLES},
    {"repair-senseless", DAMAGE_SENSELESS | DAMAGE_TRANSIT},
    {"repair-senseless-holes", DAMAGE_SENSELESS | DAMAGE_HOLES | DAMAGE_LOW},
    {"repair-checksum", DAMAGE_CHECKSUM | DAMAGE_HOLES},
    {"repair-void", DAMAGE_VOID | DAMAGE_HOLES},
    {"repair-stale", DAMAGE_MARK | DAMAGE_STALE | DAMAGE_HOLES},
    {"repair-everything", DAMAGE_MARK | DAMAGE_STALE | DAMAGE_EMPTY_FLAG | DAMAGE_TAIL |
                              DAMAGE_HOLES | DAMAGE_DUPLICATES | DAMAGE_RANGE | DAMAGE_GRID |
                              DAMAGE_BEYOND},
    {"repair-cut", DAMAGE_CUT},
    {"repair-cut-duplicates", DAMAGE_MARK | DAMAGE_CUT | DAMAGE_DUPLICATES | DAMAGE_HOLES},
    {"repair-cut-range", DAMAGE_CUT | DAMAGE_RANGE | DAMAGE_BEYOND},
    {"repair-random", 0},
};

enum { SCENARIO_COUNT = sizeof(scenarios) / sizeof(scenarios[0]) };

/* How a repair is disturbed. */
enum trouble { TROUBLE_NONE, TROUBLE_CALL, TROUBLE_ALLOCATION, TROUBLE_CANCEL };

struct playing {
    const struct repair_scenario *scenario;
    bool odd_v1;
    uint32_t repair;
    uint64_t seed; /* of the image, and all else */
    unsigned cut_permille;
    enum trouble trouble;
    uint64_t at; /* the call, allocation or progress call that is hit */
    bool persistent;
    int error; /* 0: a short transfer */
};

struct repairing {
    const struct playing *playing;
    struct rng rng, cut_rng;
    struct damaged damaged;
    struct disk disk;
    struct backend backend;
    ploop_file *file;
    struct model nobody; /* there is no guest: the judge compares the content */
    struct cut *cuts;
    unsigned cut_permille;
    uint64_t first_seq; /* the first change by the repair that runs */
    uint64_t chances;   /* to cancel it, so far */
    uint64_t cancel_at; /* the chance that is taken, 0: none */
    struct repair_judge judge;
    uint64_t errors; /* the most that a disk could have so far */
};

static void take_cut(struct repairing *repairing)
{
    struct cut *cut = cut_take(&repairing->backend, &repairing->nobody, &repairing->cut_rng);
    cut->next = repairing->cuts;
    repairing->cuts = cut;
}

static void on_event(void *context)
{
    struct repairing *repairing = context;
    counters->events++;
    if (rng_permille(&repairing->cut_rng, repairing->cut_permille))
        take_cut(repairing);
}

static void drop_cuts(struct repairing *repairing)
{
    while (repairing->cuts) {
        struct cut *cut = repairing->cuts;
        repairing->cuts = cut->next;
        cut_free(cut);
    }
}

static bool has_changed(const struct repairing *repairing)
{
    return repairing->disk.next_seq != repairing->first_seq;
}

static void init_judge(struct repairing *repairing, uint32_t what)
{
    bool failing = alloc_pause();
    repair_judge_init(&repairing->judge, &repairing->disk, what);
    alloc_resume(failing);
    if (repairing->judge.has_older && repairing->judge.errors < repairing->errors)
        repairing->judge.errors =
            repairing->errors; /* an earlier repair's lost changes can come back */
    repairing->errors = repairing->judge.errors;
    repairing->backend.session_marked =
        repairing->judge.found.marked; /* with a value that is none too */
}

/* The repair finds what the disk has. It is not responsible for what earlier cuts left. */
static void on_invalidated(void *context)
{
    struct repairing *repairing = context;
    uint32_t what = repairing->judge.repair;
    if (has_changed(repairing))
        violation("R11", "the cache is dropped after a change");
    drop_cuts(repairing);
    repair_judge_free(&repairing->judge);
    init_judge(repairing, what);
}

static int on_progress(void *user_data, uint64_t done, uint64_t total)
{
    struct repairing *repairing = user_data;
    if (done > total)
        violation("repair", "progress of %" PRIu64 " of %" PRIu64, done, total);
    repairing->chances++;
    return repairing->cancel_at && repairing->chances >= repairing->cancel_at;
}

/* The image, of a fixed kind, or of a random kind by its seed. */
static void choose(struct repairing *repairing)
{
    const struct playing *playing = repairing->playing;
    uint32_t damage = playing->scenario->damage;
    if (damage) {
        image_fixed(&repairing->damaged.image, playing->odd_v1, 6, 0);
    } else {
        image_random(&repairing->damaged.image, &repairing->rng);
        repairing->damaged.image.mapped =
            (uint32_t)rng_between(&repairing->rng, 4, repairing->damaged.image.hot_count - 2);
        damage = (uint32_t)rng_next(&repairing->rng) & DAMAGE_ALL;
        damage &= (uint32_t)rng_next(&repairing->rng); /* a quarter of the kinds */
        if (!(damage & DAMAGE_MARK))
            damage &= ~(uint32_t)DAMAGE_STALE;
    }
    damaged_build(&repairing->damaged, damage, &repairing->rng);
    trace("damage %" PRIu32 ", repair %" PRIu32, damage, playing->repair);
}

static void start(struct repairing *repairing, const struct playing *playing)
{
    struct ploop_io_ops ops;
    memset(repairing, 0, sizeof(*repairing));
    repairing->playing = playing;
    repairing->rng.state = playing->seed;
    repairing->cut_rng.state = playing->seed ^ 0x5bd1e9955bd1e995;
    choose(repairing);
    damaged_put_on_disk(&repairing->damaged, &repairing->disk, &repairing->rng);
    backend_init(&repairing->backend, &repairing->disk, &repairing->rng);
    repairing->backend.bat_end = repairing->damaged.image.bat_end;
    repairing->backend.event = on_event;
    repairing->backend.invalidated = on_invalidated;
    repairing->backend.context = repairing;
    backend_ops(&repairing->backend, &ops);
    if (ploop_file_create(&ops, &repairing->backend, &repairing->file))
        give_up("ploop_file_create failed");
    if (!playing->scenario->damage) {
        repairing->backend.alignment = rng_permille(&repairing->rng, 300) ? DISK_SECTOR : 1;
        repairing->backend.max_transfer = rng_permille(&repairing->rng, 300) ? 3 * DISK_SECTOR : 0;
        repairing->backend.chance[FAULT_SHORT] = (unsigned)rng_below(&repairing->rng, 300);
        repairing->backend.chance[FAULT_EINTR] = (unsigned)rng_below(&repairing->rng, 200);
        repairing->backend.chance[FAULT_BUSY] = rng_permille(&repairing->rng, 300) ? 500 : 0;
        repairing->backend.write_back_permille = (unsigned)rng_below(&repairing->rng, 2) * 50;
    }
}

static void end(struct repairing *repairing)
{
    ploop_file_close(repairing->file);
    damaged_free(&repairing->damaged);
    disk_free(&repairing->disk);
}

static void judge_one(void *context, const struct disk_state *state, const char *name)
{
    struct repairing *repairing = context;
    repair_judge_disk(&repairing->judge, state, name);
}

static void judge_cuts(struct repairing *repairing)
{
    while (repairing->cuts) {
        struct cut *cut = repairing->cuts;
        repairing->cuts = cut->next;
        counters->cuts++;
        cut_disks(cut, judge_one, repairing);
        cut_free(cut);
    }
}

static int call(struct repairing *repairing, uint32_t what, struct ploop_check_result *result)
{
    const struct ploop_check_options options = {
        .size = sizeof(options), .repair = what, .progress = on_progress, .user_data = repairing};
    *result = (struct ploop_check_result){.size = sizeof(*result)};
    backend_new_session(&repairing->backend, true);
    init_judge(repairing, what & ~(uint32_t)PLOOP_REPAIR_CACHED);
    repairing->first_seq = repairing->disk.next_seq;
    repairing->chances = 0;
    int error = ploop_image_check(repairing->file, &options, result);
    trace("repair %" PRIu32 ": %d, %" PRIu64 " errors, %" PRIu64 " leaks, %" PRIu64 " repaired",
          what, error, result->errors, result->leaks, result->repaired);
    if (!has_changed(repairing))
        drop_cuts(repairing);
    return error;
}

/* The cache could not be dropped: see recover_cached(). */
static int repair_cached(struct repairing *repairing, uint32_t what,
                         struct ploop_check_result *result)
{
    struct disk_state state;
    repair_judge_free(&repairing->judge);
    if (disk_has_lost(&repairing->disk)) {
        take_cut(repairing);
        cut_random_disk(repairing->cuts, &state);
        disk_restart(&repairing->disk, &state);
        disk_state_free(&state);
        drop_cuts(repairing);
    }
    return call(repairing, what | PLOOP_REPAIR_CACHED, result);
}

/* One repair by the library, with as many cuts as requested. */
static int repair(struct repairing *repairing, uint32_t what, unsigned cut_permille,
                  struct ploop_check_result *result)
{
    repairing->cut_permille = cut_permille;
    counters->runs++;
    int error = call(repairing, what, result);
    if (repairing->backend.busy && (error != -EBUSY || has_changed(repairing)))
        violation("R11", "the cache cannot be dropped, and the repair gives %d%s", error,
                  has_changed(repairing) ? ", and has changed the image" : "");
    return repairing->backend.busy ? repair_cached(repairing, what, result) : error;
}

/* A void extension that is whole stays where nobody asked to drop it (R11). */
static void judge_void(const struct repairing *repairing, uint32_t what)
{
    const struct showings *found = &repairing->judge.found;
    struct showings now;
    char message[160];
    if (!found->in_void || found->marked || what & PLOOP_REPAIR_ENTRIES)
        return;
    if (!showings_read(&now, &repairing->disk.current, message) || !now.in_void)
        violation("R11", "repair %" PRIu32 ": a void extension is gone", what);
    showings_free(&now);
}

/* The repair succeeded: all its changes are durable, and what was requested is done. */
static void judge_success(const struct repairing *repairing, uint32_t what)
{
    const struct disk *disk = &repairing->disk;
    for (uint64_t i = 0; i < disk->op_count; i++)
        if (disk->ops[i].seq >= repairing->first_seq)
            violation("repair", "it succeeded, and something is not durable");
    for (uint64_t at = 0; at < repairing->damaged.image.bat_end && repairing->judge.found.marked &&
                          has_changed(repairing);
         at += DISK_SECTOR)
        if (disk->durable.seq[at / DISK_SECTOR] < repairing->first_seq)
            violation("R11", "it succeeded, and byte %" PRIu64 " of the map was not written", at);
    if (disk_has_lost(disk))
        violation("R11", "it succeeded, and the cache shows what the disk has lost");
    judge_void(repairing, what);
    if (what == REPAIR_ALL)
        repair_judge_clean(disk->op_count ? &disk->current : &disk->durable, "it succeeded");
}

/* Cancelled: the image is as it was found, or better, and as well closed. */
static void judge_cancelled(struct repairing *repairing)
{
    struct showings now;
    char message[160];
    if (!showings_read(&now, &repairing->disk.current, message))
        violation("repair", "cancelled: no image any more: %s", message);
    if ((now.marked && !repairing->judge.found.marked) ||
        now.errors > repairing->judge.found.errors ||
        (now.errors == repairing->judge.found.errors &&
         now.leaks > repairing->judge.found.leaks + repairing->judge.found.in_void))
        violation("repair",
                  "cancelled: %" PRIu64 " errors, %" PRIu64 " leaks, %s; there were %" PRIu64
                  ", %" PRIu64 ", %s",
                  now.errors, now.leaks, now.marked ? "marked" : "not marked",
                  repairing->judge.found.errors, repairing->judge.found.leaks,
                  repairing->judge.found.marked ? "marked" : "not marked");
    showings_free(&now);
}

static int expected_error(const struct playing *playing)
{
    switch (playing->trouble) {
    case TROUBLE_ALLOCATION:
        return -ENOMEM;
    case TROUBLE_CANCEL:
        return -ECANCELED;
    case TROUBLE_CALL:
        return playing->error == -EINTR || playing->error == -EAGAIN ? 0 : playing->error;
    case TROUBLE_NONE:
        break;
    }
    return 0;
}

/* The repair that is disturbed. Returns the number of times the point to be hit was reached. */
static uint64_t play_first(struct repairing *repairing)
{
    const struct playing *playing = repairing->playing;
    struct ploop_check_result result;
    if (playing->trouble == TROUBLE_CALL) {
        repairing->backend.fail_at = playing->at;
        repairing->backend.fail_persistent = playing->persistent;
        repairing->backend.fail_error = playing->error;
    }
    if (playing->trouble == TROUBLE_ALLOCATION)
        alloc_fail(playing->at, playing->persistent);
    repairing->cancel_at = playing->trouble == TROUBLE_CANCEL ? playing->at : 0;
    int error = repair(repairing, playing->repair, playing->cut_permille, &result);
    uint64_t calls = playing->trouble == TROUBLE_ALLOCATION ? alloc_calls()
                     : playing->trouble == TROUBLE_CALL     ? repairing->backend.calls
                                                            : repairing->chances;
    alloc_off();
    repairing->backend.fail_at = 0;
    repairing->cancel_at = 0;
    if (error && error != expected_error(playing))
        violation("repair", "it gives %d", error);
    if (!error)
        judge_success(repairing, playing->repair);
    if (error == -ECANCELED)
        judge_cancelled(repairing);
    if (playing->trouble && has_changed(repairing)) {
        repair_judge_disk(&repairing->judge, &repairing->disk.current, "as it is left");
        take_cut(repairing);
    }
    return calls;
}

/* The next repair finds one of the disks that the cuts left. */
static void power_cut(struct repairing *repairing)
{
    struct disk_state state;
    unsigned count = 0;
    struct cut *chosen = NULL;
    for (struct cut *cut = repairing->cuts; cut; cut = cut->next)
        if (!rng_below(&repairing->cut_rng, ++count))
            chosen = cut;
    if (!chosen)
        return;
    cut_random_disk(chosen, &state);
    repair_judge_disk(&repairing->judge, &state, "the disk to go on with");
    disk_restart(&repairing->disk, &state);
    disk_state_free(&state);
    counters->continued++;
}

/*
 * A repair of all that only power cuts disturb; and another, which finds nothing and changes
 * nothing.
 */
static void play_again(struct repairing *repairing)
{
    struct ploop_check_result result;
    int error = repair(repairing, REPAIR_ALL,
                       repairing->playing->trouble ? FAULTY_CUT_PERMILLE : 300, &result);
    if (error)
        violation("repair", "run again it gives %d", error);
    judge_success(repairing, REPAIR_ALL);
    judge_cuts(repairing);
    repair_judge_free(&repairing->judge);
    error = repair(repairing, REPAIR_ALL, 0, &result);
    if (error || result.errors || result.leaks || result.repaired || has_changed(repairing))
        violation("repair",
                  "run once more it gives %d, finds %" PRIu64 " errors and %" PRIu64
                  " leaks, and changes %" PRIu64 " times",
                  error, result.errors, result.leaks,
                  repairing->disk.next_seq - repairing->first_seq);
    repair_judge_free(&repairing->judge);
}

static uint64_t play(const struct playing *playing)
{
    struct repairing *repairing = sim_alloc(sizeof(*repairing));
    start(repairing, playing);
    uint64_t calls = play_first(repairing);
    if (!playing->trouble || playing->at % 2)
        power_cut(repairing);
    judge_cuts(repairing);
    repair_judge_free(&repairing->judge);
    play_again(repairing);
    end(repairing);
    sim_free(repairing);
    return calls;
}

static void announce(const struct playing *playing, const char *how)
{
    char line[200];
    snprintf(line, sizeof(line),
             "sim --repair %s%s (version %d, repair %" PRIu32 ", seed %" PRIu64 "%s)",
             playing->scenario->name, playing->trouble ? " --exhaustive" : "",
             playing->odd_v1 ? 1 : 2, playing->repair, playing->seed, how);
    report_set_replay(line);
    trace("%s", line);
    alarm(60);
}

static uint64_t play_cuts(const struct repair_scenario *scenario)
{
    static const uint32_t repairs[] = {REPAIR_ALL, PLOOP_REPAIR_LEAKS, PLOOP_REPAIR_UNCLEAN,
                                       PLOOP_REPAIR_ENTRIES, PLOOP_REPAIR_CUT};
    enum { REPAIRS = sizeof(repairs) / sizeof(repairs[0]) };
    uint64_t runs = scenario->damage ? 10 * SEEDS : RANDOM_RUNS;
    for (uint64_t run = 0; run < runs; run++) {
        struct playing playing = {.scenario = scenario,
                                  .odd_v1 = run % 2,
                                  .repair = repairs[run / 2 % REPAIRS],
                                  .seed = run + 1,
                                  .cut_permille = scenario->damage ? 1000 : 300};
        announce(&playing, "");
        play(&playing);
    }
    return runs;
}

static uint64_t play_trouble(const struct repair_scenario *scenario, enum trouble trouble,
                             int error, bool persistent)
{
    static const char *const words[] = {"", "call", "allocation", "chance to cancel it"};
    char how[80];
    uint64_t runs = 0;
    for (unsigned variant = 0; variant < VARIANTS; variant++) {
        bool untouched = false;
        for (uint64_t n = 1; !untouched; n++) {
            struct playing playing = {.scenario = scenario,
                                      .odd_v1 = variant % 2,
                                      .repair = REPAIR_ALL,
                                      .seed = variant + 1,
                                      .trouble = trouble,
                                      .at = n,
                                      .persistent = persistent,
                                      .error = error};
            snprintf(how, sizeof(how), ", %s %" PRIu64 "%s: %s", words[trouble], n,
                     persistent ? " and later" : "", error ? strerror(-error) : "short transfer");
            announce(&playing, how);
            untouched = play(&playing) < n;
            runs++;
        }
    }
    return runs;
}

static uint64_t play_exhaustively(const struct repair_scenario *scenario)
{
    static const int errors[] = {-EIO, -ENOSPC, 0};
    uint64_t runs = 0;
    for (unsigned persistent = 0; persistent < 2; persistent++) {
        for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
            runs += play_trouble(scenario, TROUBLE_CALL, errors[i], persistent);
        runs += play_trouble(scenario, TROUBLE_ALLOCATION, -ENOMEM, persistent);
    }
    runs += play_trouble(scenario, TROUBLE_CALL, -EINTR, false) +
            play_trouble(scenario, TROUBLE_CALL, -EAGAIN, false);
    return runs + play_trouble(scenario, TROUBLE_CANCEL, -ECANCELED, false);
}

static void report(const char *name, uint64_t runs, uint64_t cuts, uint64_t disks)
{
    printf("%-24s %6" PRIu64 " runs, %6" PRIu64 " cuts, %7" PRIu64 " disks judged\n", name, runs,
           cuts, disks);
}

int repairs_run(const char *name, bool exhaustive)
{
    uint64_t all_runs = 0;
    for (unsigned i = 0; i < SCENARIO_COUNT; i++) {
        const struct repair_scenario *scenario = &scenarios[i];
        if ((strcmp(name, "all") && strcmp(name, scenario->name)) ||
            (exhaustive && !scenario->damage))
            continue;
        uint64_t cuts = counters->cuts, disks = counters->disks;
        uint64_t runs = exhaustive ? play_exhaustively(scenario) : play_cuts(scenario);
        report(scenario->name, runs, counters->cuts - cuts, counters->disks - disks);
        all_runs += runs;
    }
    if (!all_runs) {
        printf("no repair %s; there are:", name);
        for (unsigned i = 0; i < SCENARIO_COUNT; i++)
            printf(" %s", scenarios[i].name);
        printf("\n");
        return 1;
    }
    report(exhaustive ? "repairs, exhaustively" : "repairs", all_runs, counters->cuts,
           counters->disks);
    printf("0 violations\n");
    return 0;
}
