/* SPDX-License-Identifier: MIT */
/*
 * A run has some sessions. In each of them the disk grows, perhaps more than once:
 *
 *     open --> requests --> a job under load --> its end --> requests --> another job, or the end
 *                             |    suspended and resumed, or cancelled, goes on --^
 *                             +--> closed, crashed, power cut --> the next session
 *
 * What the guest was told, what ploop_dev_info() says and what a header on the disk says is one
 * size: the model has those that a cut may show. They are two from when the job may write its
 * header until the guest is told, or, where the job failed, until the image was opened again.
 */
#include "grow_run.h"

#include <errno.h>
#include <inttypes.h>
#include <ploop/ops.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "report.h"
#include "sim.h"

enum {
    SESSIONS = 3,
    STEPS_BESIDE = 25,
    STEPS_MAX = 1500,
    INTERRUPTED_BEFORE = 120, /* a step of the job */
    CUTS_BESIDE = 20,         /* permille */
    LATE_CHANCE = 32,         /* of so many steps one for a late request that is alone */
    CUTS_MEANWHILE = 200,
    RUN_SECONDS_MAX = 300
};

enum interruption { NO_INTERRUPTION, CANCEL, SUSPEND, CLOSE, CRASH, POWER_CUT, INTERRUPTIONS };

struct grow_run {
    struct sim sim;    /* the first: its address is the backend's context */
    ploop_job *job;    /* NULL: none */
    uint64_t wanted;   /* sectors */
    bool over;         /* fn was called */
    bool asked_to_end; /* by a cancel, or by the end of the session */
    int result;
    bool compacts;   /* the job makes the file shorter, and leaves the disk as it is */
    bool last_fails; /* perhaps: from when the header may be written, or the file is cut */
    uint64_t jobs, successes;
};

/* ---- what the job does ---- */

/* Before a request of the library is looked at: whether it may be of the longer map. */
static void on_asked(void *context)
{
    struct grow_run *run = context;
    struct sim *sim = &run->sim;
    if (!run->job || run->over || !session_may_grow(sim, run->job, run->wanted))
        return;
    if (run->last_fails) {
        sim->backend.quiet = run->last_fails = false;
        sim->backend.chance[run->compacts ? FAULT_EIO_RESIZE : FAULT_EIO_PAGE] = 500;
    }
}

static void on_end(void *user_data, ploop_job *job, int result)
{
    struct grow_run *run = user_data;
    if (job != run->job || run->over)
        violation("R14", "the end of a job is told twice, or of another");
    on_asked(run);
    run->over = true;
    run->result = result;
    trace("  the job ends: %d", result);
}

static bool something_failed(const struct grow_run *run)
{
    return run->sim.backend.errors || run->sim.expect_errors;
}

static uint64_t shown_sectors(const struct grow_run *run)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    if (ploop_dev_info(run->sim.dev, &info))
        violation("contract", "ploop_dev_info fails");
    return info.disk_size / DISK_SECTOR;
}

static bool is_running(const struct grow_run *run)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    return !ploop_job_info(run->job, &info) && info.state != PLOOP_JOB_ENDED;
}

static void begin_job(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    const struct image *image = &sim->image;
    uint64_t room = image->later_sectors - image->disk_sectors;
    uint64_t most = rng_permille(&sim->rng, 200) ? 2 * (uint64_t)image->cluster_sectors : room;
    ploop_job *other;
    most = most < room ? most : room;
    run->compacts = rng_permille(&sim->rng, 350);
    run->last_fails |= run->compacts && rng_permille(&sim->rng, 300);
    run->wanted = image->disk_sectors + (run->compacts ? 0 : rng_below(&sim->rng, most + 1));
    run->over = run->asked_to_end = false;
    run->result = 0;
    sim->resized = 0;
    trace("%s: %" PRIu64 " to %" PRIu64 " sectors", run->compacts ? "compact" : "grow",
          image->disk_sectors, run->wanted);
    int result = run->compacts
                     ? ploop_dev_compact(sim->dev, on_end, run, &run->job)
                     : ploop_dev_grow(sim->dev, run->wanted * DISK_SECTOR, on_end, run, &run->job);
    run->jobs++;
    if (result && !something_failed(run))
        violation("contract", "the job cannot begin: %d", result);
    sim->changed |= !result;
    sim->model.used |= !result;
    if (result)
        run->job = NULL;
    else if (is_running(run) &&
             !ploop_dev_grow(sim->dev, run->wanted * DISK_SECTOR, NULL, NULL, &other))
        violation("contract", "two jobs at one time");
}

static void end_job(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    bool told = sim->resized == run->wanted * DISK_SECTOR;
    if (!run->over)
        violation("R14", "the job does not end");
    if (run->result && !run->asked_to_end && !something_failed(run))
        violation("R10", "the job ends with %d although nothing went wrong", run->result);
    if (run->result == -ECANCELED && !run->asked_to_end)
        violation("R10", "the job says that it was cancelled");
    if (run->compacts ? sim->resized != 0 : told != !run->result)
        violation("R10", "the job ends with %d, and the guest was told of %" PRIu64 " bytes",
                  run->result, sim->resized);
    if (sim->dev && shown_sectors(run) != sim->image.disk_sectors)
        violation("R10", "the device shows %" PRIu64 " sectors, and not %" PRIu64,
                  shown_sectors(run), sim->image.disk_sectors);
    if (ploop_job_free(run->job))
        violation("contract", "a job that has ended cannot be freed");
    run->successes += !run->result;
    run->job = NULL;
}

/* ---- the end of a session ---- */

static void close_session(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    if (sim->suspended)
        sim_suspend(sim);
    if (session_close(sim) == 0) {
        uint64_t told = sim->image.disk_sectors;
        session_size(sim);
        if (sim->image.disk_sectors != told)
            violation("R10", "closed cleanly with %" PRIu64 " sectors, the guest had %" PRIu64,
                      sim->image.disk_sectors, told);
        model_size(&sim->model, told, told);
    }
}

static void end_session(struct grow_run *run, enum interruption how)
{
    struct sim *sim = &run->sim;
    run->asked_to_end = true;
    if (how == CRASH)
        session_crash(sim);
    else if (how == POWER_CUT)
        session_power_cut(sim);
    else
        close_session(run);
    sim->suspended = false;
    if (run->job)
        end_job(run);
    judge_cuts(sim);
}

/* ---- under load ---- */

static void one_step(struct sim *sim)
{
    uint64_t choice = rng_below(&sim->rng, 100);
    bool waits = backend_only_late(&sim->backend) && rng_below(&sim->rng, LATE_CHANCE);
    if (choice < 45 && !waits)
        backend_step(&sim->backend);
    else if (choice < 65)
        guest_random(sim);
    else if (choice < 90)
        session_run(sim);
    else if (choice < 97)
        sim_some_steps(sim);
    else if (choice < 99)
        clock_advance(&sim->clock, rng_below(&sim->rng, 100000000));
    else
        session_drain(sim);
    session_look(sim);
    judge_cuts(sim);
}

static void beside(struct grow_run *run)
{
    run->sim.cut_permille = CUTS_BESIDE;
    for (uint32_t step = 0; step < STEPS_BESIDE; step++)
        one_step(&run->sim);
}

/* Nothing fails any more, there is space, and only what the device announces is run. */
static void let_end(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    bool was_quiet = sim->backend.quiet;
    if (sim->suspended)
        sim_suspend(sim);
    sim->backend.quiet = true;
    sim->backend.size_limit = UINT64_C(1) << 29;
    for (uint32_t i = 0; i < 50 && !run->over; i++) {
        session_drain(sim);
        clock_advance(&sim->clock, UINT64_C(1000000000));
    }
    if (!run->over)
        violation("R14", "the job does not end");
    sim->backend.quiet = was_quiet;
}

/* Whether the session goes on. */
static bool interrupt(struct grow_run *run, enum interruption how)
{
    struct sim *sim = &run->sim;
    switch (how) {
    case CANCEL:
        run->asked_to_end |= ploop_job_cancel(run->job) == 0;
        return true;
    case SUSPEND:
        sim_suspend(sim);
        return true;
    case CLOSE:
    case CRASH:
    case POWER_CUT:
        end_session(run, how);
        return false;
    default:
        return true;
    }
}

/* The disk grows. Whether the session goes on. */
static bool grow(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    enum interruption how = (enum interruption)rng_below(&sim->rng, 2 * INTERRUPTIONS);
    uint64_t when = rng_below(&sim->rng, rng_permille(&sim->rng, 300) ? 12 : INTERRUPTED_BEFORE);
    uint64_t resume = when + rng_below(&sim->rng, 40);
    sim->cut_permille = CUTS_MEANWHILE;
    for (uint64_t writes = rng_below(&sim->rng, 2) * 10; writes > 0; writes--)
        guest_random(sim); /* some of them are in flight when changes are to be held */
    begin_job(run);
    if (!run->job)
        return true;
    for (uint64_t step = 0; !run->over; step++) {
        if (step == when && !interrupt(run, how))
            return false;
        if (step == resume && sim->suspended)
            sim_suspend(sim);
        if (step == STEPS_MAX)
            let_end(run);
        else
            one_step(sim);
    }
    if (sim->suspended)
        sim_suspend(sim);
    end_job(run);
    judge_cuts(sim);
    return true;
}

/* ---- a run ---- */

static void let_fail(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    sim->backend.quiet = rng_permille(&sim->rng, 500);
    if (!sim->backend.quiet)
        sim_choose_faults(sim);
    if (rng_permille(&sim->rng, 150))
        sim_choose_limit(sim);
    run->last_fails = rng_permille(&sim->rng, 150);
}

/* With address space for a larger map; those that judge a cut reserve none, which is cheaper. */
static void reopen(struct sim *sim)
{
    alloc_limit_space(false);
    session_reopen(sim);
    alloc_limit_space(true);
}

static void session(struct grow_run *run)
{
    struct sim *sim = &run->sim;
    sim->backend.quiet = rng_permille(&sim->rng, 700);
    reopen(sim);
    sim->expect_errors = false;
    for (uint64_t jobs = rng_between(&sim->rng, 1, 2); jobs > 0; jobs--) {
        beside(run);
        let_fail(run);
        if (!grow(run)) {
            sim->backend.size_limit = UINT64_C(1) << 29;
            return;
        }
        beside(run);
    }
    sim->backend.size_limit = UINT64_C(1) << 29;
    session_heal(sim);
    end_session(run, (enum interruption)rng_between(&sim->rng, CLOSE, POWER_CUT));
}

static void set_up(struct grow_run *run, uint64_t seed)
{
    static const enum sim_base below[] = {SIM_ALONE, SIM_ALONE, SIM_OVER_IMAGE, SIM_OVER_RAW};
    struct sim *sim = &run->sim;
    struct rng seeds = {seed};
    sim_init(sim, rng_next(&seeds));
    image_random(&sim->image, &sim->rng);
    sim->image.features[0] = '\0';
    sim->image.void_extension = sim->image.closed_ext = false;
    sim->image.host_clusters = sim->image.mapped + sim->image.leaks;
    image_let_grow(&sim->image, &sim->rng);
    sim_start(sim, below[rng_below(&sim->rng, 4)]);
    sim_choose_config(sim);
    sim_choose_copies(sim);
    if (!sim->config.preallocate_bytes) /* the file would become large, and a cut expensive */
        sim->config.preallocate_bytes = 8 * (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    sim->backend.asked = on_asked;
    sim->backend.late_op = rng_permille(&sim->rng, 300) ? PLOOP_IO_PUNCH : 0;
    sim_make_files(sim);
}

static void run_one(uint64_t seed, uint64_t *successes)
{
    struct grow_run *run = sim_alloc(sizeof(*run));
    struct sim *sim = &run->sim;
    char stack, line[64];
    snprintf(line, sizeof(line), "sim --grow 1 --seed %" PRIu64, seed);
    report_set_replay(line);
    alarm(RUN_SECONDS_MAX);
    set_up(run, seed);
    sim->backend.stack = &stack;
    for (uint32_t i = 0; i < SESSIONS; i++)
        session(run);
    sim->backend.quiet = true;
    reopen(sim);
    session_drain(sim);
    close_session(run);
    judge_cuts(sim);
    *successes += run->successes;
    sim_free_all(sim);
    sim_free(run);
    counters->runs++;
}

int grows_run(uint64_t seed, uint64_t runs)
{
    uint64_t successes = 0;
    for (uint64_t i = 0; i < runs; i++)
        run_one(seed + i, &successes);
    printf("grow: %" PRIu64 " runs, %" PRIu64 " cuts, %" PRIu64 " disks judged, %" PRIu64
           " times the disk became larger, 0 violations\n",
           runs, counters->cuts, counters->disks, successes);
    return 0;
}
