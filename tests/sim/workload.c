/* SPDX-License-Identifier: MIT */
/* See workload.h. */
#include "workload.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "report.h"
#include "sim.h"

void sim_cut(struct sim *sim)
{
    struct cut *cut = cut_take(&sim->backend, &sim->model, &sim->cut_rng);
    cut->rules = session_rules(sim);
    cut->states = sim->states;
    cut->next = sim->cuts;
    sim->cuts = cut;
    counters_fault(FAULT_CUT, cut->rules, cut->states);
}

static void on_backend_event(void *context)
{
    struct sim *sim = context;
    counters->events++;
    if (!sim->no_cuts && rng_permille(&sim->cut_rng, sim->cut_permille))
        sim_cut(sim);
}

static void on_backend_fault(void *context, enum fault fault)
{
    struct sim *sim = context;
    counters_fault(fault, session_rules(sim), sim->states);
}

static void on_invalidated(void *context)
{
    session_found(context);
}

void sim_init(struct sim *sim, uint64_t seed)
{
    memset(sim, 0, sizeof(*sim));
    sim->rng.state = seed;
    sim->cut_rng.state = seed ^ 0x5bd1e9955bd1e995;
    sim->next_id = 1; /* a fresh image holds version 1 */
    clock_init(&sim->clock);
    ploop_dev_config_init(&sim->config, sizeof(sim->config));
}

/* Tell the model the content of the fresh image. */
static void learn(struct sim *sim, const uint8_t *bytes, uint64_t size)
{
    const struct image *image = &sim->image;
    uint64_t cluster = image->cluster_sectors,
             unit = image->v1 ? DISK_SECTOR : cluster * DISK_SECTOR;
    uint8_t *below = sim_alloc(cluster * DISK_SECTOR);
    for (uint32_t i = 0; i < image->hot_count; i++) {
        uint32_t entry;
        base_read(&sim->base, image->hot[i], below);
        memcpy(&entry, bytes + 64 + 4 * (uint64_t)image->hot[i], sizeof(entry));
        for (uint64_t s = 0; s < cluster; s++) {
            uint64_t sector = image->hot[i] * cluster + s, at = entry * unit + s * DISK_SECTOR;
            if (sector < image->disk_sectors && at < size)
                model_restart(&sim->model, sector, entry ? bytes + at : below + s * DISK_SECTOR, 0);
        }
    }
    sim_free(below);
}

/* What a larger disk has more of is zeros, whatever lies there now. */
static void learn_beyond(struct sim *sim)
{
    static const uint8_t zeros[DISK_SECTOR];
    struct image *image = &sim->image;
    image->hot_count += image->later_hot;
    image->later_hot = 0;
    for (uint32_t i = 0; i < image->hot_count; i++) {
        for (uint64_t s = 0; s < image->cluster_sectors; s++) {
            uint64_t sector = image->hot[i] * (uint64_t)image->cluster_sectors + s;
            if (sector >= image->disk_sectors && sector < image->later_sectors)
                model_restart(&sim->model, sector, zeros, 0);
        }
    }
}

static void start_base(struct sim *sim, enum sim_base below)
{
    base_build(&sim->base, &sim->image, &sim->rng, below == SIM_OVER_RAW);
    sim->backend.base = sim->base.bytes;
    sim->backend.base_size = sim->base.size;
    sim->config.flags |= below == SIM_OVER_RAW ? PLOOP_DEV_RAW_BASE : 0;
}

void sim_start(struct sim *sim, enum sim_base below)
{
    uint64_t size;
    uint8_t *bytes = image_build(&sim->image, &sim->rng, &size);
    disk_init(&sim->disk, bytes, size);
    backend_init(&sim->backend, &sim->disk, &sim->rng);
    sim->backend.bat_end = sim->image.bat_end;
    sim->backend.event = on_backend_event;
    sim->backend.fault = on_backend_fault;
    sim->backend.invalidated = on_invalidated;
    sim->backend.context = sim;
    const struct image *image = &sim->image;
    bool grows = image->later_sectors != 0;
    model_init(&sim->model, image->hot, image->hot_count + image->later_hot, image->cluster_sectors,
               grows ? image->later_sectors : image->disk_sectors);
    model_size(&sim->model, image->disk_sectors, image->disk_sectors);
    sim->base.cluster = (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    if (below != SIM_ALONE)
        start_base(sim, below);
    learn(sim, bytes, size);
    if (grows)
        learn_beyond(sim);
    sim->backend.now += 2;
    sim_free(bytes);
}

void sim_make_files(struct sim *sim)
{
    struct ploop_io_ops ops;
    backend_ops(&sim->backend, &ops);
    int error = ploop_file_create(&ops, &sim->backend, &sim->file);
    backend_base_ops(&sim->backend, &ops);
    if (!error && sim->base.there)
        error = ploop_file_create(&ops, &sim->backend, &sim->base_file);
    if (error)
        give_up("ploop_file_create failed");
}

void sim_free_all(struct sim *sim)
{
    while (sim->cuts) {
        struct cut *cut = sim->cuts;
        sim->cuts = cut->next;
        cut_free(cut);
    }
    ploop_file_close(sim->file);
    ploop_file_close(sim->base_file);
    backend_close(&sim->backend);
    base_free(&sim->base);
    model_free(&sim->model);
    disk_free(&sim->disk);
}

/* Choose the number of queues, and whether the backend keeps a ring for each. */
static void choose_rings(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    struct backend *backend = &sim->backend;
    sim->config.queue_count = (uint32_t)rng_between(rng, 1, BACKEND_QUEUES);
    sim->no_wake = rng_permille(rng, 300);
    backend->needs_kick = rng_permille(rng, 300);
    backend->by_reap = rng_permille(rng, 300);
    backend->ring = rng_permille(rng, 300) ? (unsigned)rng_between(rng, 1, 6) : 0;
    if (backend->needs_kick || backend->by_reap)
        backend->inline_permille = 0;
}

/* Blocks of the file that are larger than a sector, and mostly than a cluster (R17). */
static void choose_blocks(struct sim *sim)
{
    struct backend *backend = &sim->backend;
    struct rng apart = {sim->rng.state ^ 0x626c6f636b73}; /* the other runs stay the same */
    if (!rng_permille(&apart, 200))
        return;
    backend->alignment = rng_permille(&apart, 700)   ? 4096
                         : rng_permille(&apart, 500) ? 1024
                                                     : 65536;
    if (backend->max_transfer)
        backend->max_transfer = rng_between(&apart, 1, 3) * backend->alignment;
}

/* Choose how the device is opened, and the backend's capabilities. */
void sim_choose_config(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    static const uint64_t delays[] = {0, 1000000, 50000000, 500000000};
    struct ploop_dev_config *config = &sim->config;
    uint64_t cluster = (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    config->writeback_delay_ns = delays[rng_below(rng, 4)];
    config->writeback_max_age_ns = config->writeback_delay_ns * rng_between(rng, 1, 10);
    config->pio_count = (uint32_t)rng_between(rng, 1, 32);
    config->page_failure_limit = (uint32_t)rng_between(rng, 1, 4);
    config->enospc_policy = rng_permille(rng, 500) ? PLOOP_ENOSPC_PARK : PLOOP_ENOSPC_FAIL;
    config->preallocate_bytes = cluster * rng_between(rng, 1, 8);
    if (rng_permille(rng, 20)) { /* the file becomes large, and a cut expensive */
        config->preallocate_bytes = 0;
        sim->cut_permille /= 20;
    }
    config->flags |= rng_permille(rng, 300) ? PLOOP_DEV_NO_FAST_PATH : 0;
    struct backend *backend = &sim->backend;
    backend->capabilities = PLOOP_FILE_CAN_GROW;
    backend->capabilities |= rng_permille(rng, 700) ? PLOOP_FILE_CAN_PUNCH : 0;
    backend->capabilities |= rng_permille(rng, 700) ? PLOOP_FILE_CAN_ALLOCATE : 0;
    backend->capabilities |= rng_permille(rng, 400) ? PLOOP_FILE_CAN_FUA : 0;
    backend->alignment = rng_permille(rng, 150) ? DISK_SECTOR : 1;
    if (rng_permille(rng, 150))
        backend->max_transfer = rng_between(rng, 1, 8) * DISK_SECTOR;
    choose_blocks(sim);
    static const unsigned inlines[] = {0, 0, 100, 500, 1000};
    backend->inline_permille = inlines[rng_below(rng, 5)];
    backend->fifo = rng_permille(rng, 150);
    static const unsigned write_backs[] = {0, 0, 20, 200};
    backend->write_back_permille = write_backs[rng_below(rng, 4)];
    backend->keeps_cache = rng_permille(rng, 150);
    choose_rings(sim);
    sim->resubmit_permille = rng_permille(rng, 400) ? (unsigned)rng_below(rng, 400) : 0;
    if (rng_permille(rng, 150)) {
        config->flags |= PLOOP_DEV_HOST_SHOWS_STALE;
        backend->shows_stale = true;
    }
}

/* Choose which faults strike, and how often. Many runs have none. */
void sim_choose_faults(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    struct backend *backend = &sim->backend;
    memset(backend->chance, 0, sizeof(backend->chance));
    backend->quiet = false;
    backend->chance[FAULT_TOLD] = (unsigned)rng_between(rng, 1, 2) * 500;
    backend->chance[FAULT_BUSY] = rng_permille(rng, 200) ? 500 : 0;
    if (rng_permille(rng, 400)) { /* those that must not be noticed */
        backend->chance[FAULT_SHORT] = (unsigned)rng_below(rng, 400);
        backend->chance[FAULT_EINTR] = (unsigned)rng_below(rng, 300);
        backend->chance[FAULT_EAGAIN] = (unsigned)rng_below(rng, 300);
    }
    if (!rng_permille(rng, 500))
        return;
    static const enum fault hard[] = {
        FAULT_NO_PROGRESS, FAULT_EIO_READ,  FAULT_EIO_DATA,   FAULT_EIO_PAGE,   FAULT_EIO_PAGE,
        FAULT_EIO_SYNC,    FAULT_EIO_PUNCH, FAULT_EIO_RESIZE, FAULT_EIO_SUBMIT, FAULT_ENOSPC_WRITE,
        FAULT_EIO_SYNC,    FAULT_EIO_PUNCH, FAULT_EIO_RESIZE, FAULT_LOST,       FAULT_EIO_READ,
        FAULT_EIO_RESIZE,  FAULT_EIO_RESIZE};
    unsigned kinds = (unsigned)rng_between(rng, 1, 3);
    while (kinds--) {
        enum fault fault = hard[rng_below(rng, sizeof(hard) / sizeof(hard[0]))];
        if (fault == FAULT_LOST) /* for each step, and the end of promises */
            backend->chance[fault] = (unsigned)rng_between(rng, 1, 20);
        else
            backend->chance[fault] = (unsigned)(rng_permille(rng, 200) ? rng_between(rng, 300, 1000)
                                                                       : rng_between(rng, 5, 100));
    }
}

void sim_choose_limit(struct sim *sim)
{
    uint64_t cluster = (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    sim->backend.size_limit =
        sim->disk.current.size + rng_below(&sim->rng, 6) * cluster + rng_below(&sim->rng, cluster);
    if (sim->backend.alignment > DISK_SECTOR) /* a file system with such blocks has whole ones */
        sim->backend.size_limit +=
            sim->backend.alignment - sim->backend.size_limit % sim->backend.alignment;
    sim->expect_errors = true;
}

void sim_some_steps(struct sim *sim)
{
    uint64_t steps = rng_between(&sim->rng, 1, 6);
    while (steps-- && backend_step(&sim->backend)) {
    }
}

static void step_time(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    if (rng_permille(rng, 50)) {
        counters_fault(FAULT_CLOCK, session_rules(sim), sim->states);
        clock_disturb(&sim->clock, rng);
        session_run(sim);
        return;
    }
    clock_advance(&sim->clock, rng_below(rng, sim->config.writeback_max_age_ns + 1000000));
    session_run(sim);
    if (rng_permille(rng, 300)) { /* all that is due is written: the backend works */
        session_drain(sim);
        session_check_age(sim);
    }
}

/* One page changes more often than its delay, for longer than its maximum age. */
static void step_hot(struct sim *sim)
{
    uint64_t cluster = sim->image.cluster_sectors, first = sim->image.runs[0].first * cluster,
             delay = sim->config.writeback_delay_ns;
    for (uint64_t age = 0; delay && age < sim->config.writeback_max_age_ns + 2 * delay;
         age += delay / 2) {
        guest_do(sim, GUEST_DISCARD, first, cluster, 0);
        guest_do(sim, GUEST_WRITE, first, 1, 0);
        session_drain(sim);
        clock_advance(&sim->clock, delay / 2 + 1);
        session_run(sim);
        session_drain(sim);
        session_check_age(sim);
    }
}

/*
 * New clusters one after the other, so that blocks are allocated ahead of them. Writes beside them
 * may find no space, and take those blocks.
 */
static void step_stream(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    const struct run_of_clusters *run = &sim->image.runs[0];
    uint64_t cluster = sim->image.cluster_sectors, first = run->first * cluster;
    if (rng_permille(rng, 700)) {
        guest_do(sim, GUEST_DISCARD, first, run->count * cluster, 0);
        sim_some_steps(sim);
    }
    bool whole = rng_permille(rng, 300);
    for (uint64_t i = 0; i < run->count; i++) {
        guest_do(sim, GUEST_WRITE, first + i * cluster, whole ? cluster : 1, 0);
        if (rng_permille(rng, 300))
            guest_random(sim);
        if (rng_permille(rng, 500))
            sim_some_steps(sim);
    }
}

void sim_suspend(struct sim *sim)
{
    if (sim->suspended) {
        int result = ploop_dev_resume(sim->dev);
        if (result)
            violation("contract", "resume gives %d", result);
        sim->suspended = false;
        return;
    }
    int result = ploop_dev_suspend(sim->dev);
    trace("suspend: %d", result);
    if (result && !sim->backend.errors && !sim->expect_errors)
        violation("S41", "suspend gives %d although nothing failed", result);
    if (!result) {
        if (sim->backend.latched)
            violation("R6", "suspend succeeds after a failed SYNC");
        model_flushed(&sim->model, ++sim->backend.now);
    }
    sim->suspended = true;
}

static void step_page(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    uint64_t delay = rng_below(rng, 3) * rng_below(rng, 200000000);
    if (rng_permille(rng, 500)) {
        if (ploop_bat_page_write(sim->dev,
                                 (uint32_t)rng_below(rng, ploop_bat_page_count(sim->dev))))
            violation("contract", "ploop_bat_page_write fails");
        return;
    }
    sim->config.writeback_delay_ns = delay;
    sim->config.writeback_max_age_ns = delay * rng_between(rng, 1, 4);
    if (ploop_bat_set_delay(sim->dev, delay, sim->config.writeback_max_age_ns))
        violation("contract", "ploop_bat_set_delay fails");
}

static void step_end(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    if (sim->suspended && rng_permille(rng, 500))
        sim_suspend(sim);
    if (rng_permille(rng, 100))
        session_lose(sim);
    switch (rng_below(rng, 4)) {
    case 0:
        session_crash(sim);
        break;
    case 1:
        session_power_cut(sim);
        break;
    default:
        if (sim->suspended)
            sim_suspend(sim);
        session_close(sim);
    }
    judge_cuts(sim);
    if (rng_permille(rng, 500))
        sim_choose_faults(sim);
    if (rng_permille(rng, 150)) {
        counters_fault(FAULT_MEMORY, 1u << RULE_R11, 0);
        alloc_fail(rng_between(rng, 1, 40), rng_permille(rng, 500));
    }
    sim->backend.quiet =
        rng_permille(rng, 600); /* else a running device would hardly ever reach a failing SYNC */
    session_reopen(sim);
    sim->backend.quiet = false;
    alloc_off();
}

/* A running device needs no memory: let every allocation fail from here on, for a while. */
static void step_memory(struct sim *sim)
{
    counters_fault(FAULT_MEMORY, session_rules(sim), sim->states);
    alloc_fail(1, true);
    for (uint64_t n = rng_between(&sim->rng, 1, 8); n > 0; n--) {
        guest_random(sim);
        sim_some_steps(sim);
    }
    alloc_off();
}

/* A loss that a FUA write may be told of first. */
static void step_lose(struct sim *sim)
{
    if (!sim->backend.chance[FAULT_LOST])
        return;
    for (uint64_t n = rng_below(&sim->rng, 4); n > 0; n--)
        guest_random(sim);
    sim_some_steps(sim);
    session_lose(sim);
    const struct run_of_clusters *run =
        &sim->image.runs[rng_below(&sim->rng, sim->image.run_count)];
    guest_do(sim, GUEST_WRITE, (uint64_t)run->first * sim->image.cluster_sectors, 1, PLOOP_PIO_FUA);
}

static void step(struct sim *sim)
{
    switch (rng_below(&sim->rng, 64)) {
    case 0:
        step_end(sim);
        break;
    case 1:
        if (!sim->suspended)
            session_drain(sim);
        break;
    case 2:
        if (!sim->suspended && rng_permille(&sim->rng, 500))
            session_heal(sim);
        break;
    case 3:
        if (!sim->suspended || rng_permille(&sim->rng, 600))
            sim_suspend(sim);
        break;
    case 4:
        step_page(sim);
        break;
    case 5:
        sim_choose_faults(sim);
        break;
    case 6:
        if (rng_permille(&sim->rng, 300))
            sim_choose_limit(sim);
        break;
    case 7:
        sim->backend.size_limit = UINT64_C(1) << 29;
        ploop_dev_retry_parked(sim->dev);
        break;
    case 8:
        step_memory(sim);
        break;
    case 9:
        if (!sim->suspended && rng_permille(&sim->rng, 100))
            step_hot(sim);
        break;
    case 10:
        step_lose(sim);
        break;
    case 11:
    case 12:
    case 13:
    case 14:
        step_time(sim);
        break;
    case 15:
        if (rng_permille(&sim->rng, 300))
            step_stream(sim);
        break;
    case 16:
        if (!sim->suspended)
            guest_execute(sim);
        break;
    default:
        if (rng_permille(&sim->rng, 500))
            guest_random(sim);
        else
            sim_some_steps(sim);
        if (rng_permille(&sim->rng, 300))
            session_run(sim);
    }
}

void workload_run(const struct workload *workload)
{
    alloc_limit_space(workload->seed % 4 != 0);
    char stack;
    struct sim *sim = sim_alloc(sizeof(*sim));
    struct rng seeds = {workload->seed};
    sim_init(sim, rng_next(&seeds));
    static const enum sim_base below[] = {SIM_ALONE,      SIM_ALONE,      SIM_ALONE,
                                          SIM_OVER_IMAGE, SIM_OVER_IMAGE, SIM_OVER_RAW};
    image_random(&sim->image, &sim->rng);
    sim_start(sim, below[rng_below(&sim->rng, sizeof(below) / sizeof(below[0]))]);
    sim->cut_permille = workload->cut_permille;
    sim->backend.stack = &stack;
    sim_choose_config(sim);
    sim_choose_copies(sim);
    sim_make_files(sim);
    sim->backend.quiet = true;
    if (sim->image.features[0]) /* the only open that must write an extension anew */
        sim_choose_faults(sim);
    session_reopen(sim);
    sim_choose_faults(sim);
    if (rng_permille(&sim->rng, 250))
        sim_choose_limit(sim);
    for (uint32_t i = 0; i < workload->step_count; i++) {
        sim->rng.state = rng_next(&seeds);
        sim->cut_rng.state = sim->rng.state ^ 0x5bd1e9955bd1e995;
        if (workload->skip && workload->skip[i])
            continue;
        trace("step %" PRIu32, i);
        step(sim);
        session_look(sim);
        judge_cuts(sim);
    }
    if (sim->suspended)
        sim_suspend(sim);
    session_heal(sim);
    session_close(sim);
    judge_cuts(sim);
    sim_free_all(sim);
    memset(sim, 0, sizeof(*sim));
    sim_free(sim);
    counters->runs++;
}
