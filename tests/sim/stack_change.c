/* SPDX-License-Identifier: MIT */
/* See stack_change.h. */
#include "stack_change.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "report.h"
#include "stack_cut.h"

enum { STEPS_BEFORE = 40, STEPS_AFTER = 40, STEPS_MAX = 4000, RUN_SECONDS_MAX = 600 };

/* Bits: which stacks are possible. */
enum { RECORD_LOWER = 1, RECORD_BOTH = 2, RECORD_UPPER = 4 };

enum answer { ANSWER_YES, ANSWER_NO, ANSWER_UNKNOWN, ANSWER_CLOSE };

struct change {
    struct sim sim; /* its disk is the old top's */
    struct disk disk;
    struct backend backend; /* the second file's */
    ploop_file *file;
    ploop_job *job;
    enum answer answer;
    uint32_t delay;   /* steps from the question to the answer */
    bool asked, over; /* the embedder; fn was called */
    int result;
    bool merges;      /* the second job, which merges the old top up into the new one */
    uint32_t records; /* the stacks that may be recorded: RECORD_ ... */
    struct stack_cut *cuts;
};

/* The deltas of RECORD_LOWER, RECORD_BOTH, RECORD_UPPER: of the old top and the new one. */
static const uint32_t record_masks[] = {1, 3, 2};

static struct records records_of(const struct change *change)
{
    struct records records = {.count = 0};
    for (uint32_t i = 0; i < 3; i++)
        if (change->records >> i & 1)
            records.masks[records.count++] = record_masks[i];
    return records;
}

static void take_cut(struct change *change)
{
    struct sim *sim = &change->sim;
    counters->events++;
    if (sim->no_cuts || !rng_permille(&sim->cut_rng, sim->cut_permille))
        return;
    struct backend *const files[] = {&sim->backend, &change->backend};
    struct records records = records_of(change);
    struct stack_cut *cut = stack_cut_take(sim, files, 2, &records);
    cut->next = change->cuts;
    change->cuts = cut;
}

static void on_event(void *context)
{
    take_cut(context);
}

/* When no call of the library is under way. */
static void judge(struct change *change)
{
    while (change->cuts) {
        struct stack_cut *cut = change->cuts;
        change->cuts = cut->next;
        stack_cut_judge(&change->sim, cut);
    }
}

/* ---- the embedder ---- */

static void on_commit(void *user_data, ploop_job *job)
{
    struct change *change = user_data;
    if (job != change->job || change->asked)
        violation("R14", "a commit callback of another job, or twice");
    change->asked = true;
    change->records |= change->records << 1; /* it begins to write its record */
    trace("  commit");
}

static void on_end(void *user_data, ploop_job *job, int result)
{
    struct change *change = user_data;
    if (job != change->job || change->over)
        violation("R14", "the end of a job is told twice");
    change->over = true;
    change->result = result;
    trace("  the job ends: %d", result);
}

static void answer(struct change *change)
{
    static const int answers[] = {
        [ANSWER_YES] = 0, [ANSWER_NO] = -EPERM, [ANSWER_UNKNOWN] = PLOOP_COMMIT_UNKNOWN};
    uint32_t before = change->merges ? RECORD_BOTH : RECORD_LOWER;
    if (!change->asked || change->answer == ANSWER_CLOSE || change->delay-- > 0)
        return;
    change->records = change->answer == ANSWER_YES  ? before << 1
                      : change->answer == ANSWER_NO ? before
                                                    : before | before << 1;
    take_cut(change);
    trace("  answer: %d", answers[change->answer]);
    if (ploop_job_committed(change->job, answers[change->answer]))
        violation("contract", "ploop_job_committed() does not take the answer");
    change->delay = UINT32_MAX;
}

/* ---- the loop ---- */

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0;
}

static bool run_what_is_due(struct change *change)
{
    struct sim *sim = &change->sim;
    bool any = ploop_dev_next_deadline(sim->dev) <= sim->clock.now_ns;
    if (any)
        ploop_dev_run(sim->dev);
    for (uint32_t queue = 0; queue < sim->queue_count; queue++) {
        if (is_readable(ploop_queue_poll_fd(sim->queues[queue]))) {
            any = true;
            session_run_queue(sim, queue);
        }
    }
    return any;
}

static bool step_backends(struct change *change)
{
    bool first = rng_permille(&change->sim.rng, 500);
    struct backend *backends[] = {&change->sim.backend, &change->backend};
    return backend_step(backends[first]) || backend_step(backends[!first]);
}

/* Until nothing moves, but by the clock. */
static void rest(struct change *change)
{
    for (uint32_t rounds = 0; step_backends(change) || run_what_is_due(change); rounds++) {
        judge(change);
        if (rounds > 100000)
            violation("R14", "the device never comes to rest");
    }
}

static void one_step(struct change *change)
{
    struct sim *sim = &change->sim;
    uint64_t choice = rng_below(&sim->rng, 100);
    if (choice < 55)
        step_backends(change);
    else if (choice < 75)
        guest_random(sim);
    else if (choice < 95)
        run_what_is_due(change);
    else
        clock_advance(&sim->clock, rng_below(&sim->rng, 3000000));
    answer(change);
    judge(change);
}

/* ---- a run ---- */

static void make_second_file(struct change *change)
{
    struct sim *sim = &change->sim;
    struct image image = sim->image;
    struct ploop_io_ops ops;
    uint64_t size;
    image.mapped = image.leaks = image.host_clusters = 0;
    image.tail = 0;
    image.closed_ext = image.void_extension = false;
    image.features[0] = '\0';
    uint8_t *bytes = image_build(&image, &sim->rng, &size);
    disk_init(&change->disk, bytes, size);
    sim_free(bytes);
    backend_init(&change->backend, &change->disk, &sim->rng);
    change->backend.bat_end = image.bat_end;
    change->backend.by_reap = sim->backend.by_reap;
    change->backend.needs_kick = sim->backend.needs_kick;
    change->backend.capabilities = sim->backend.capabilities;
    change->backend.peer = &sim->backend;
    sim->backend.peer = &change->backend;
    change->backend.event = on_event;
    change->backend.context = change;
    backend_new_session(&change->backend, false);
    backend_ops(&change->backend, &ops);
    if (ploop_file_create(&ops, &change->backend, &change->file))
        give_up("ploop_file_create failed");
    change->backend.writable = true;
}

/* Before a request is looked at: whether it may be of the longer map. */
static void on_asked(void *context)
{
    struct change *change = context;
    session_may_grow(&change->sim, change->job, change->sim.image.later_sectors);
}

/* The old top was smaller before: what is mapped in the new part is found below the new top. */
static void grow_first(struct change *change)
{
    struct sim *sim = &change->sim;
    alloc_limit_space(false); /* or there is none for a larger map */
    if (session_open(sim, SESSION_PLAIN))
        violation("contract", "open fails");
    alloc_limit_space(true);
    if (ploop_dev_grow(sim->dev, sim->image.later_sectors * DISK_SECTOR, on_end, change,
                       &change->job))
        violation("contract", "the disk cannot be made larger");
    sim->backend.asked = on_asked;
    rest(change);
    sim->backend.asked = NULL;
    if (!change->over || change->result || ploop_job_free(change->job))
        violation("R10", "the job ends with %d although nothing went wrong", change->result);
    session_size(sim);
}

static void set_up(struct change *change, uint64_t seed)
{
    struct sim *sim = &change->sim;
    sim_init(sim, seed);
    image_random(&sim->image, &sim->rng);
    sim->image.features[0] = '\0';
    sim->image.void_extension = sim->image.closed_ext = false;
    sim->image.host_clusters = sim->image.mapped + sim->image.leaks;
    struct rng apart = {seed ^ 0x67726f77}; /* the other runs stay the same */
    bool grows = rng_permille(&apart, 250);
    if (grows)
        image_let_grow(&sim->image, &apart);
    sim->cut_permille = 1000;
    sim->no_cuts = true;
    sim_start(sim, rng_permille(&sim->rng, 300) ? SIM_OVER_IMAGE : SIM_ALONE);
    sim->config.queue_count = (uint32_t)rng_between(&sim->rng, 1, 3);
    sim->config.pio_count = 6;
    sim->config.writeback_delay_ns = rng_below(&sim->rng, 2) * 1000000;
    sim->config.writeback_max_age_ns = 4 * sim->config.writeback_delay_ns;
    sim->config.preallocate_bytes = 3 * (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    sim_choose_copies(sim);
    sim->backend.by_reap = rng_permille(&sim->rng, 300);
    sim->backend.needs_kick = rng_permille(&sim->rng, 300);
    sim->backend.capabilities |= rng_permille(&sim->rng, 300) ? PLOOP_FILE_CAN_FUA : 0;
    sim->backend.event = on_event;
    sim->backend.late_op = rng_permille(&apart, 300) ? PLOOP_IO_WRITE : 0;
    sim->backend.fault = NULL;
    sim->backend.invalidated = NULL;
    sim->backend.context = change;
    sim->no_wake = true;
    sim->discards_may_stay = true;
    sim_make_files(sim);
    if (grows)
        grow_first(change);
    make_second_file(change);
    change->records = RECORD_LOWER;
    /* No cut of the open. The base hears of events through sim->backend, whose context is ours. */
    if (!grows && session_open(sim, SESSION_PLAIN))
        violation("contract", "open fails");
}

/* In one run of three something fails from here on. */
static void let_fail(struct change *change)
{
    static const enum fault faults[] = {FAULT_EIO_PAGE, FAULT_EIO_SYNC, FAULT_EIO_DATA,
                                        FAULT_EIO_RESIZE, FAULT_EAGAIN};
    struct sim *sim = &change->sim;
    if (rng_below(&sim->rng, 3))
        return;
    struct backend *backend = rng_permille(&sim->rng, 500) ? &sim->backend : &change->backend;
    backend->chance[faults[rng_below(&sim->rng, 5)]] = (unsigned)rng_between(&sim->rng, 20, 300);
    sim->expect_errors = true;
}

static int begin_job(struct change *change)
{
    struct sim *sim = &change->sim;
    change->job = NULL;
    change->asked = false;
    if (change->merges)
        return ploop_dev_merge(sim->dev, sim->base.there, PLOOP_MERGE_UP, on_commit, on_end, change,
                               &change->job);
    return ploop_dev_snapshot(sim->dev, change->file, on_commit, on_end, change, &change->job);
}

static void run_job(struct change *change)
{
    struct sim *sim = &change->sim;
    uint32_t wanted_record = change->records << 1;
    bool accepts = rng_permille(&sim->rng, 500);
    change->answer = accepts ? ANSWER_YES : (enum answer)rng_below(&sim->rng, 4);
    change->delay = (uint32_t)rng_below(&sim->rng, 20);
    int result = begin_job(change);
    if (result && !sim->expect_errors)
        violation("contract", "the job cannot begin: %d", result);
    change->over = result != 0;
    change->result = result;
    uint64_t cancel = rng_below(&sim->rng, 5) ? UINT64_MAX : rng_below(&sim->rng, 150);
    for (uint64_t step = 0; !change->over && step < STEPS_MAX; step++) {
        if (change->asked && change->answer == ANSWER_CLOSE && step % 30 == 29)
            return;
        if (step == cancel)
            (void)ploop_job_cancel(change->job);
        one_step(change);
    }
    if (!change->over)
        violation("R14", "the job does not end");
    bool wanted = change->answer == ANSWER_YES && cancel == UINT64_MAX && !sim->expect_errors;
    if (wanted && change->result)
        violation("R12", "the job ends with %d although nothing went wrong", change->result);
    if (!change->result && change->records != wanted_record)
        violation("R12", "the job succeeds and the record was not accepted");
    sim->backend.gone = change->merges && !change->result;
}

/* The guest goes on; then, if the first job has changed the stack, the second one. */
static void go_on(struct change *change)
{
    struct sim *sim = &change->sim;
    unsigned permille = sim->cut_permille;
    sim->cut_permille = 200;
    for (uint32_t step = 0; step < STEPS_AFTER; step++)
        one_step(change);
    sim->cut_permille = permille;
    if (change->result || change->merges)
        return;
    if (ploop_job_free(change->job))
        violation("contract", "a job that has ended cannot be freed");
    change->merges = true;
    run_job(change);
    if (change->over)
        go_on(change);
}

static void close_all(struct change *change)
{
    struct sim *sim = &change->sim;
    bool failed = sim->expect_errors;
    sim->backend.quiet = change->backend.quiet = true;
    sim->closing = true;
    int result = ploop_dev_close(sim->dev);
    sim->closing = false;
    sim->dev = NULL;
    judge(change);
    if (sim->outstanding)
        violation("R14", "%u requests never completed", sim->outstanding);
    if (result && !failed)
        violation("close", "close gives %d although nothing failed", result);
    if (change->job && !change->over)
        violation("R14", "a close does not end the job");
    if (change->job && ploop_job_free(change->job))
        violation("contract", "a job that has ended cannot be freed");
    if (!result && !sim->backend.latched && !change->backend.latched) {
        model_flushed(&sim->model, ++sim->backend.now);
        const struct disk_state *states[STACK_FILES] = {&sim->disk.durable, &change->disk.durable};
        struct records records = records_of(change);
        for (uint32_t i = 0; i < records.count; i++)
            stack_judge_closed(sim, states, records.masks[i],
                               records.masks[i] == 1 || !sim->new_top_marked);
    }
}

static void run(uint64_t seed)
{
    struct change *change = sim_alloc(sizeof(*change));
    struct sim *sim = &change->sim;
    char stack, line[64];
    snprintf(line, sizeof(line), "sim --snapshot 1 --seed %" PRIu64, seed);
    report_set_replay(line);
    alarm(RUN_SECONDS_MAX);
    memset(change, 0, sizeof(*change));
    set_up(change, seed);
    sim->backend.stack = change->backend.stack = &stack;
    for (uint32_t step = 0; step < STEPS_BEFORE; step++)
        one_step(change);
    let_fail(change);
    sim->no_cuts = false;
    run_job(change);
    if (change->over)
        go_on(change);
    if (change->over)
        rest(change);
    close_all(change);
    counters->runs++;
    ploop_file_close(change->file);
    backend_close(&change->backend);
    disk_free(&change->disk);
    sim_free_all(sim);
    sim_free(change);
}

int snapshots_run(uint64_t seed, uint64_t runs)
{
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i);
    printf("snapshot: %" PRIu64 " runs, %" PRIu64 " cuts, %" PRIu64
           " stacks judged, 0 violations\n",
           runs, counters->cuts, counters->disks);
    return 0;
}
