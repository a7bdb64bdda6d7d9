/* SPDX-License-Identifier: MIT */
/* See scenarios.h. */
#include "scenarios.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "cut_tail.h"
#include "report.h"
#include "scenario_steps.h"
#include "sim.h"

static void allocate_flush(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 1), whole(sim), 0);
    flush(sim);
    done(sim, GUEST_WRITE, at(sim, 0, 1), 2, 0);
    flush(sim);
}

static void overwrite_fua(struct sim *sim)
{
    for (uint32_t run = 0; run < 4; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0), 1, PLOOP_PIO_FUA);
    for (uint32_t run = 0; run < 4; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0), 1, PLOOP_PIO_FUA);
}

static void fua_over_dirty_entry(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 0, 0) + 1, 1, PLOOP_PIO_FUA);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_FUA);
}

static void fua_over_absent_entry(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), whole(sim), PLOOP_PIO_FUA);
    done(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
    done(sim, GUEST_ZEROES, at(sim, 0, 0), whole(sim), PLOOP_PIO_FUA);
    done(sim, GUEST_WRITE, at(sim, 0, 1), whole(sim), PLOOP_PIO_FUA);
    done(sim, GUEST_ZEROES, at(sim, 0, 1), 1, PLOOP_PIO_FUA);
}

static void discard_rewrite(struct sim *sim)
{
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0), whole(sim), 0);
    flush(sim);
    for (uint32_t run = 0; run < 3; run++) {
        done(sim, GUEST_DISCARD, at(sim, run, 0), whole(sim), 0);
        done(sim, GUEST_WRITE, at(sim, run, 1), 1, 0);
        done(sim, GUEST_WRITE, at(sim, run, 0), 1, 0);
    }
    flush(sim);
}

static void reuse_when_full(struct sim *sim)
{
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0), whole(sim), 0);
    flush(sim);
    sim->backend.size_limit = sim->disk.current.size;
    sim->expect_errors = true;
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_DISCARD, at(sim, run, 0), whole(sim), 0);
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 1), 1, 0);
    flush(sim);
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 1) + 1, 1, 0);
    sim->backend.size_limit = UINT64_MAX;
    ploop_dev_retry_parked(sim->dev);
    session_drain(sim);
    flush(sim);
}

static void pages_by_deadline(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 3, 0), 1, 0);
    clock_advance(&sim->clock, sim->config.writeback_max_age_ns + 1);
    session_run(sim);
    backend_step(&sim->backend);
    done(sim, GUEST_WRITE, at(sim, 0, 1), 1, 0); /* a page dirtied under writeback */
    session_check_age(sim);
    flush(sim);
}

static void dirty_under_writeback(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    ploop_bat_page_write(sim->dev, 0);
    session_run(sim);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 1), 1, 0);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    backend_step(&sim->backend);
    guest_do(sim, GUEST_WRITE, at(sim, 1, 0), whole(sim) * 2, PLOOP_PIO_FUA);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    session_drain(sim);
    flush(sim);
}

static void header_close(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    session_close(sim);
    judge_cuts(sim);
    session_reopen(sim);
    session_close(sim);
    judge_cuts(sim);
    session_reopen(sim);
    done(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
}

static void recover(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 1, 0), whole(sim), PLOOP_PIO_FUA);
    done(sim, GUEST_DISCARD, at(sim, 1, 0), whole(sim), 0);
    session_crash(sim);
    judge_cuts(sim);
    session_reopen(sim);
    done(sim, GUEST_WRITE, at(sim, 2, 0), 1, 0);
    flush(sim);
    session_power_cut(sim);
    session_reopen(sim);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_FUA);
}

static void preflush(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_PREFLUSH);
    done(sim, GUEST_ZEROES, at(sim, 0, 0), whole(sim), 0);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_PREFLUSH | PLOOP_PIO_FUA);
}

static void joined_first_write(struct sim *sim)
{
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0) + 1, 1, 0);
    guest_do(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
    guest_do(sim, GUEST_WRITE, at(sim, 0, 1), whole(sim), PLOOP_PIO_FUA);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    session_drain(sim);
    flush(sim);
}

static void suspend_resume(struct sim *sim)
{
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    int result = ploop_dev_suspend(sim->dev);
    if (!result)
        model_flushed(&sim->model, ++sim->backend.now);
    sim->suspended = true;
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    guest_do(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
    guest_do(sim, GUEST_FLUSH, 0, 0, 0);
    session_drain(sim);
    if (ploop_dev_resume(sim->dev))
        violation("S7", "resume fails");
    sim->suspended = false;
    session_drain(sim);
    flush(sim);
}

/*
 * Clusters of the base: a write to a part, to all of it, zeros over a part and all of it, a discard
 * of a copied cluster and of one that is not copied.
 */
static void zeroes(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 2 * whole(sim), 0);
    done(sim, GUEST_ZEROES, at(sim, 0, 0) + 1, whole(sim), PLOOP_PIO_NO_UNMAP);
    done(sim, GUEST_ZEROES, at(sim, 2, 0), 2 * whole(sim), PLOOP_PIO_NO_UNMAP | PLOOP_PIO_FUA);
    flush(sim);
    done(sim, GUEST_ZEROES, at(sim, 0, 0), 2 * whole(sim), 0);
    flush(sim);
}

/*
 * The kept features of a format extension are there after every close, in a new place after the
 * first.
 */
static void extension(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), whole(sim), 0);
    session_close(sim);
    judge_cuts(sim);
    session_reopen(sim);
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 1), whole(sim), 0);
    flush(sim);
}

/* If nothing else fails, all of them are parked, and allocations continue. */
static void expect_parked(struct sim *sim, unsigned count)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    if (sim->backend.fail_at || sim->backend.latched)
        return;
    if (ploop_dev_info(sim->dev, &info) || info.state & PLOOP_STATE_ALLOCATION_REFUSED)
        violation("R5", "allocations are refused while a page waits for space");
    if (sim->outstanding != count || info.requests_parked != count)
        violation("F7",
                  "%u requests outstanding, %" PRIu64
                  " parked, and %u depend on a page without space",
                  sim->outstanding, info.requests_parked, count);
}

/* Requests that depend on a page without space wait for it; a suspend tries once. */
static void map_without_space(struct sim *sim)
{
    session_close(sim);
    sim->config.enospc_policy = PLOOP_ENOSPC_PARK;
    session_reopen(sim);
    done(sim, GUEST_WRITE, at(sim, 0, 0), whole(sim), PLOOP_PIO_FUA);
    sim->expect_errors = sim->backend.pages_full = true;
    done(sim, GUEST_WRITE, at(sim, 1, 0), 1, 0);
    done(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
    done(sim, GUEST_FLUSH, 0, 0, 0);
    done(sim, GUEST_WRITE, at(sim, 0, 1), 1, PLOOP_PIO_FUA);
    done(sim, GUEST_ZEROES, at(sim, 0, 0), whole(sim), PLOOP_PIO_FUA);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_PREFLUSH);
    done(sim, GUEST_BAT_WRITE, 0, 1, 0);
    expect_parked(sim, 5);
    for (int i = 0; i < 6; i++) {
        clock_advance(&sim->clock, UINT64_C(20000000000));
        session_run(sim);
        session_drain(sim);
    }
    done(sim, GUEST_WRITE, at(sim, 3, 0), 1, 0);
    expect_parked(sim, 5);
    int result = ploop_dev_suspend(sim->dev);
    if (!result && !sim->backend.fail_at)
        violation("F7", "suspend succeeds although a page finds no space");
    if (result == 0)
        model_flushed(&sim->model, ++sim->backend.now);
    if (ploop_dev_resume(sim->dev))
        violation("S7", "resume fails");
    session_drain(sim);
    expect_parked(sim, 5);
    sim->backend.pages_full = false;
    ploop_dev_retry_parked(sim->dev);
    session_drain(sim);
    expect_parked(sim, 0);
    flush(sim);
}

/* The callbacks of two requests submit again and again, while everything completes inline. */
static void inline_storm(struct sim *sim)
{
    unsigned cuts = sim->cut_permille;
    sim->cut_permille = cuts / 1000;
    sim->backend.inline_permille = 1000;
    sim->resubmissions = 3000;
    guest_do(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    guest_do(sim, GUEST_WRITE, at(sim, 2, 1), 1, PLOOP_PIO_FUA);
    session_drain(sim);
    sim->resubmissions = 0;
    sim->cut_permille = cuts;
    flush(sim);
}

/*
 * The backend has room for one request, and no thread runs the queue: all requests are still done.
 */
static void sleeping_owner(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), whole(sim), 0);
    flush(sim);
    sim->backend.inline_permille = 0;
    sim->backend.ring = 1;
    for (uint64_t i = 0; i < 4; i++)
        guest_do(sim, i % 2 ? GUEST_READ : GUEST_WRITE, at(sim, 0, 0) + i, 1, 0);
    session_drain_asleep(sim, 0);
    session_drain(sim);
    sim->backend.ring = 0;
    flush(sim);
}

/*
 * Writeback loses data that no call has been told of; a FUA write may be told, and the flush must
 * be.
 */
static void lost_writeback(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), whole(sim), 0);
    flush(sim);
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, 0);
    done(sim, GUEST_WRITE, at(sim, 2, 1), whole(sim), 0);
    session_lose(sim);
    sim->backend.chance[FAULT_TOLD] = 1000;
    done(sim, GUEST_WRITE, at(sim, 0, 1), 1, PLOOP_PIO_FUA);
    flush(sim);
    session_close(sim);
    judge_cuts(sim);
    session_reopen(sim);
    flush(sim);
    session_power_cut(sim);
    session_reopen(sim);
}

/* When the process dies, no call has been told of the losses, the file's size among them. */
static void lost_and_crashed(struct sim *sim)
{
    done(sim, GUEST_WRITE, at(sim, 0, 0), 1, PLOOP_PIO_FUA);
    for (uint32_t run = 0; run < 3; run++)
        done(sim, GUEST_WRITE, at(sim, run, 0), whole(sim), 0);
    done(sim, GUEST_DISCARD, at(sim, 0, 0), whole(sim), 0);
    ploop_bat_page_write(sim->dev, 0);
    session_drain(sim);
    session_lose(sim);
    done(sim, GUEST_WRITE, at(sim, 1, 1), 1, 0);
    session_crash(sim);
    judge_cuts(sim);
    session_reopen(sim);
    done(sim, GUEST_WRITE, at(sim, 2, 1), 1, 0);
    flush(sim);
    session_power_cut(sim);
    session_reopen(sim);
}

/* The cache cannot be dropped; the first time nothing is lost. */
static void cache_stays(struct sim *sim)
{
    sim->backend.chance[FAULT_BUSY] = 1000;
    for (int lost = 0; lost < 2; lost++) {
        done(sim, GUEST_WRITE, at(sim, 0, 0), 1, PLOOP_PIO_FUA);
        done(sim, GUEST_WRITE, at(sim, 2, 0), whole(sim), 0);
        if (lost)
            session_lose(sim);
        session_crash(sim);
        judge_cuts(sim);
        session_reopen(sim);
        done(sim, GUEST_WRITE, at(sim, 0, 1), 1, 0);
        flush(sim);
    }
    sim->backend.chance[FAULT_BUSY] = 0;
}

static const struct scenario {
    const char *name;
    void (*play)(struct sim *sim);
    bool many_calls;      /* too many to fail each one in turn */
    const char *features; /* of the image's format extension, or NULL */
    bool over_base;       /* a delta lies below */
} scenarios[] = {
    {"allocate-flush", allocate_flush, false, NULL, false},
    {"overwrite-fua", overwrite_fua, false, NULL, false},
    {"fua-over-dirty-entry", fua_over_dirty_entry, false, NULL, false},
    {"fua-over-absent-entry", fua_over_absent_entry, false, NULL, false},
    {"discard-rewrite", discard_rewrite, false, NULL, false},
    {"reuse-when-full", reuse_when_full, false, NULL, false},
    {"pages-by-deadline", pages_by_deadline, false, NULL, false},
    {"dirty-under-writeback", dirty_under_writeback, false, NULL, false},
    {"header-close", header_close, false, NULL, false},
    {"recover", recover, false, NULL, false},
    {"preflush", preflush, false, NULL, false},
    {"joined-first-write", joined_first_write, false, NULL, false},
    {"suspend-resume", suspend_resume, false, NULL, false},
    {"zeroes", zeroes, false, NULL, false},
    {"extension", extension, false, "pbtT", false},
    {"extension-in-place", extension, false, "t", false},
    {"extension-dropped", extension, false, "b", false},
    {"inline-storm", inline_storm, true, NULL, false},
    {"sleeping-owner", sleeping_owner, false, NULL, false},
    {"lost-writeback", lost_writeback, false, NULL, false},
    {"lost-and-crashed", lost_and_crashed, false, NULL, false},
    {"cache-stays", cache_stays, false, NULL, false},
    {"copy-on-write", copy_on_write, false, NULL, true},
    {"copies-at-once", copies_at_once, false, NULL, true},
    {"copy-with-extension", copy_on_write, false, "pbtT", true},
    {"partial-clusters", partial_clusters, false, NULL, true},
    {"copy-put-off", copy_put_off, false, NULL, true},
    {"map-without-space", map_without_space, false, NULL, false},
    {"cut-off", cut_tail_play, false, NULL, false},
};

enum { SCENARIO_COUNT = sizeof(scenarios) / sizeof(scenarios[0]) };

/* How a scenario is played. */
struct playing {
    const struct scenario *scenario;
    bool odd_v1, fua, puts_off;
    unsigned mapped, inline_permille;
    uint64_t seed; /* 0: requests complete in their order */
    unsigned cut_permille;
    uint64_t fail_at;
    bool persistent, memory;
    int error;
};

/*
 * Play it to its end, close, open again, close. Returns the number of calls of the kind to be
 * failed.
 */
static uint64_t play(const struct playing *playing)
{
    char stack;
    struct sim *sim = sim_alloc(sizeof(*sim));
    sim_init(sim, playing->seed);
    bool cut_off = playing->scenario->play == cut_tail_play;
    if (cut_off)
        cut_tail_image(&sim->image, playing->odd_v1, playing->mapped);
    else
        image_fixed(&sim->image, playing->odd_v1, playing->mapped, playing->mapped ? 2 : 0);
    if (playing->scenario->features)
        image_extend(&sim->image, playing->scenario->features, false);
    sim->cut_permille = playing->cut_permille;
    sim_start(sim, !playing->scenario->over_base ? SIM_ALONE
                   : playing->mapped             ? SIM_OVER_IMAGE
                                                 : SIM_OVER_RAW);
    sim->config.pio_count = 8;
    sim->config.cow_delay_ns = playing->puts_off ? UINT64_C(5000000000) : 0;
    sim->backend.stack = &stack;
    sim->config.preallocate_bytes = 2 * (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    sim->backend.capabilities |= playing->fua ? PLOOP_FILE_CAN_FUA : 0;
    sim->backend.inline_permille = playing->inline_permille;
    sim->backend.fifo = !playing->seed;
    sim->backend.fail_at = playing->memory ? 0 : playing->fail_at;
    sim->backend.fail_error = playing->error;
    sim->backend.fail_persistent = playing->persistent;
    sim->expect_errors = playing->fail_at && playing->error;
    sim_make_files(sim);
    if (playing->memory)
        alloc_fail(playing->fail_at, playing->persistent);
    int result = cut_off ? cut_tail_open(sim) : session_open(sim, SESSION_PLAIN);
    if (result && !sim->expect_errors)
        violation("contract", "open gives %d", result);
    if (!result) {
        playing->scenario->play(sim);
        judge_cuts(sim);
        session_drain(sim);
        if (playing->fail_at)
            sim_cut(sim);
        session_close(sim);
    }
    uint64_t calls = playing->memory ? alloc_calls() : sim->backend.calls;
    alloc_off();
    sim->backend.fail_at = 0;
    if (playing->fail_at)
        sim_cut(sim);
    judge_cuts(sim);
    session_reopen(sim);
    session_drain(sim);
    sim->expect_errors = false;
    result = session_close(sim);
    if (result)
        violation("recovery", "opened again, with no more faults, and close gives %d", result);
    judge_cuts(sim);
    sim_free_all(sim);
    sim_free(sim);
    return calls;
}

/* Over a delta all of it once more, with copies that are put off. */
static unsigned variants_of(const struct scenario *scenario, unsigned alone)
{
    return scenario->over_base ? 2 * alone : alone;
}

static void play_cuts(const struct scenario *scenario)
{
    char line[160];
    for (unsigned variant = 0; variant < variants_of(scenario, 32); variant++) {
        struct playing playing = {.scenario = scenario,
                                  .puts_off = variant >= 32,
                                  .odd_v1 = variant & 1,
                                  .fua = variant & 2,
                                  .mapped = variant & 4 ? 5 : 0,
                                  .inline_permille = variant & 8 ? 1000 : 0,
                                  .seed = variant & 16 ? variant : 0,
                                  .cut_permille = 1000};
        snprintf(line, sizeof(line), "sim --scenario %s (variant %u)", scenario->name, variant);
        report_set_replay(line);
        trace("%s", line);
        alarm(60);
        play(&playing);
    }
}

static uint64_t play_failing(const struct scenario *scenario, int error, bool persistent,
                             bool memory)
{
    char line[160];
    uint64_t runs = 0;
    for (unsigned variant = 0; variant < variants_of(scenario, 4); variant++) {
        bool untouched = false;
        for (uint64_t n = 1; !untouched; n++) {
            struct playing playing = {.scenario = scenario,
                                      .puts_off = variant >= 4,
                                      .odd_v1 = variant & 1,
                                      .mapped = variant & 2 ? 5 : 0,
                                      .fail_at = n,
                                      .persistent = persistent,
                                      .memory = memory,
                                      .error = error};
            snprintf(line, sizeof(line),
                     "sim --scenario %s --exhaustive (variant %u, %s %" PRIu64 "%s: %s)",
                     scenario->name, variant, memory ? "allocation" : "call", n,
                     persistent ? " and later" : "", error ? strerror(-error) : "short transfer");
            report_set_replay(line);
            trace("%s", line);
            alarm(60);
            untouched = play(&playing) < n;
            runs++;
        }
    }
    return runs;
}

int scenarios_run(const char *name, bool exhaustive)
{
    static const int errors[] = {-EIO, -ENOSPC, 0};
    bool any = false;
    for (unsigned i = 0; i < SCENARIO_COUNT; i++) {
        const struct scenario *scenario = &scenarios[i];
        if ((strcmp(name, "all") && strcmp(name, scenario->name)) ||
            (exhaustive && scenario->many_calls))
            continue;
        any = true;
        uint64_t cuts = counters->cuts, disks = counters->disks, runs = 0;
        if (exhaustive) {
            for (unsigned k = 0; k < sizeof(errors) / sizeof(errors[0]); k++)
                for (unsigned persistent = 0; persistent < 2; persistent++)
                    runs += play_failing(scenario, errors[k], persistent, false);
            runs += play_failing(scenario, -EINTR, false, false) +
                    play_failing(scenario, -EAGAIN, false, false);
            runs += play_failing(scenario, -ENOMEM, false, true) +
                    play_failing(scenario, -ENOMEM, true, true);
        } else {
            play_cuts(scenario);
            runs = variants_of(scenario, 32);
        }
        printf("%-24s %6" PRIu64 " runs, %6" PRIu64 " cuts, %7" PRIu64 " disks judged\n",
               scenario->name, runs, counters->cuts - cuts, counters->disks - disks);
    }
    if (!any) {
        printf("no scenario %s; there are:", name);
        for (unsigned i = 0; i < SCENARIO_COUNT; i++)
            printf(" %s%s", scenarios[i].name, i + 1 < SCENARIO_COUNT ? "" : "\n");
        return 1;
    }
    printf("0 violations\n");
    return 0;
}
