/* SPDX-License-Identifier: MIT */
/* The device's life in the simulation: open, run, close, crash, power cut. See sim.h. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "../oracle/oracle.h"
#include "alloc.h"
#include "cut_tail.h"
#include "report.h"
#include "sim.h"

#define IN_USE_MARK 0x746F6E59u

static uint32_t mark_of(const struct disk_state *state)
{
    uint32_t mark;
    memcpy(&mark, state->bytes + 44, sizeof(mark));
    return mark;
}

static bool read_header(const struct disk_state *state, struct oracle *oracle)
{
    char message[160];
    struct oracle_memory memory = {state->bytes, state->size};
    return oracle_read_header(oracle, oracle_read_memory, &memory, memory.size, message) ==
           ORACLE_OK;
}

void session_size(struct sim *sim)
{
    struct oracle oracle;
    if (!sim->image.later_sectors || !read_header(&sim->disk.current, &oracle))
        return;
    uint64_t bat_end = 64 + 4 * (uint64_t)oracle.bat_entries;
    sim->image.disk_sectors = oracle.disk_sectors;
    sim->image.entries = oracle.bat_entries;
    sim->image.data_off = oracle.data_start / DISK_SECTOR;
    sim->image.bat_end = (bat_end + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    sim->backend.bat_end = sim->image.bat_end;
}

bool session_may_grow(struct sim *sim, ploop_job *job, uint64_t sectors)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    if (ploop_job_info(job, &info) ||
        (info.step != PLOOP_JOB_STEP_FINISH && info.step != PLOOP_JOB_STEP_UNDO))
        return false;
    uint64_t entries = (sectors + sim->image.cluster_sectors - 1) / sim->image.cluster_sectors;
    uint64_t end = (64 + 4 * entries + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    if (end > sim->backend.bat_end)
        sim->backend.bat_end = end;
    model_size(&sim->model, sim->image.disk_sectors, sectors);
    return true;
}

/* The guest is told of a larger disk, which is durable. It may use all of it from now on. */
static void resized(struct sim *sim, uint64_t bytes)
{
    struct oracle oracle;
    if (!read_header(&sim->disk.durable, &oracle) || oracle.disk_sectors * DISK_SECTOR != bytes)
        violation("R10", "the guest is told of %" PRIu64 " bytes before the header is durable",
                  bytes);
    trace("  [%" PRIu64 "] resized: %" PRIu64 " bytes", sim->backend.now, bytes);
    sim->resized = bytes;
    sim->image.disk_sectors = bytes / DISK_SECTOR;
    model_size(&sim->model, sim->image.disk_sectors, sim->image.disk_sectors);
}

static void on_event(void *user_data, uint32_t event, uint64_t value)
{
    struct sim *sim = user_data;
    if (event == PLOOP_EVENT_FAILED)
        sim->library_errors[0]++;
    if (event == PLOOP_EVENT_PARKED)
        sim->library_errors[1]++;
    if (event == PLOOP_EVENT_RESIZED)
        resized(sim, value);
}

static void on_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    struct sim *sim = user_data;
    sim->receiver_marked |= strstr(text, "is not closed cleanly") != NULL;
    sim->new_top_marked |= strstr(text, "new top: not closed cleanly") != NULL;
    trace("    log %" PRIu32 "/%" PRIu32 ": %s", level, message_id, text);
}

static bool is_marked(const struct sim *sim)
{
    return mark_of(&sim->disk.current) == IN_USE_MARK;
}

void session_found(struct sim *sim)
{
    session_size(sim);
    sim->found_marked = is_marked(sim);
    const uint8_t *bytes = sim->disk.current.bytes;
    sim->expected_in_use = extension_is_kept(&sim->image, bytes) ? ORACLE_CLOSED : 0;
    sim->found_in_use = mark_of(&sim->disk.current);
    sim->changed = sim->found_marked || extension_is_rewritten(&sim->image, bytes);
}

/* Everything that RECOVER found is durable, or lost for good, and the map was written anew. */
static void check_recovered(const struct sim *sim, uint64_t first_seq)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    if (ploop_dev_info(sim->dev, &info) || info.file_size > sim->disk.current.size)
        violation("R11", "RECOVER succeeded, and takes the file of %" PRIu64 " bytes for %" PRIu64,
                  sim->disk.current.size, info.file_size);
    for (uint64_t i = 0; i < sim->disk.op_count; i++)
        if (sim->disk.ops[i].seq < first_seq)
            violation("R11", "RECOVER succeeded, and something that it found is not durable");
    for (uint64_t at = 0; at < sim->image.bat_end && sim->found_marked; at += DISK_SECTOR)
        if (sim->disk.durable.seq[at / DISK_SECTOR] < first_seq)
            violation("R11",
                      "RECOVER succeeded, and has not written byte %" PRIu64 " of the BAT area",
                      at);
}

int session_open(struct sim *sim, enum session_how how)
{
    static const uint32_t flags[] = {[SESSION_RECOVER] = PLOOP_DEV_RECOVER,
                                     [SESSION_RECOVER_CACHED] =
                                         PLOOP_DEV_RECOVER | PLOOP_DEV_RECOVER_CACHED};
    uint64_t first_seq = sim->disk.next_seq;
    struct ploop_clock clock;
    clock_ops(&sim->clock, &clock);
    if (sim->no_wake)
        clock.wake_at = NULL;
    sim->clock.wake_ns = UINT64_MAX;
    sim->config.clock = &clock;
    sim->config.event = on_event;
    sim->config.log = on_log;
    sim->config.user_data = sim;
    sim->config.flags = (sim->config.flags & ~flags[SESSION_RECOVER_CACHED]) | flags[how];
    backend_new_session(&sim->backend,
                        how != SESSION_PLAIN && is_marked(sim) && !sim->backend.keeps_cache);
    sim->opening = true;
    sim->aborting = false;
    sim->suspended = false;
    sim->discards = 0;
    sim->resized = 0;
    session_found(sim);
    ploop_file *deltas[5];
    uint32_t count = sim->lower_count;
    memcpy(deltas, sim->lowers, count * sizeof(deltas[0]));
    if (sim->base.there)
        deltas[count++] = sim->base_file;
    deltas[count++] = sim->file;
    int result = ploop_dev_open(deltas, count, &sim->config, &sim->dev);
    sim->opening = false;
    trace("open%s%s: %d", how != SESSION_PLAIN ? " with RECOVER" : "",
          how == SESSION_RECOVER_CACHED ? ", cached" : "", result);
    if (result) {
        if (sim->backend.in_flight)
            violation("contract", "open failed with %d and left %u requests at the backend", result,
                      sim->backend.in_flight);
        sim->dev = NULL;
        return result;
    }
    if (how != SESSION_PLAIN)
        check_recovered(sim, first_seq);
    counters->sessions++;
    session_size(sim);
    model_size(&sim->model, sim->image.disk_sectors, sim->image.disk_sectors);
    sim->model.used |= sim->changed;
    if (mark_of(&sim->disk.durable) != IN_USE_MARK)
        violation("R11", "the device is open and the in-use mark is not durable");
    sim->queue_count = sim->config.queue_count;
    for (uint32_t queue = 0; queue < sim->queue_count; queue++)
        sim->queues[queue] = ploop_dev_queue(sim->dev, queue);
    session_look(sim);
    return 0;
}

static void all_completed(struct sim *sim, const char *after)
{
    if (sim->outstanding)
        violation("R14", "%u requests never completed, after %s", sim->outstanding, after);
}

int session_close(struct sim *sim)
{
    bool latched = sim->backend.latched;
    sim->closing = true;
    int result = ploop_dev_close(sim->dev);
    sim->closing = false;
    sim->dev = NULL;
    trace("close: %d", result);
    all_completed(sim, "close");
    if (result && !sim->backend.errors && !sim->expect_errors)
        violation("close", "close gives %d although nothing failed", result);
    if (!result && latched)
        violation("R6", "close succeeds after a failed SYNC");
    if (!result) {
        if (mark_of(&sim->disk.durable) == IN_USE_MARK)
            violation("R11", "close succeeded, and the in-use mark is still on the disk");
        model_flushed(&sim->model, ++sim->backend.now);
        judge_closed(sim);
    }
    sim->states = 0;
    return result;
}

static void abort_device(struct sim *sim)
{
    sim->aborting = true;
    if (sim->dev)
        ploop_dev_abort(sim->dev);
    sim->dev = NULL;
    all_completed(sim, "abort");
    if (sim->backend.in_flight)
        violation("contract", "abort left %u requests at the backend", sim->backend.in_flight);
    sim->states = 0;
}

void session_adopt(struct sim *sim)
{
    bool failing = alloc_pause();
    session_size(sim);
    model_size(&sim->model, sim->image.disk_sectors, sim->image.disk_sectors);
    struct oracle oracle;
    uint8_t *own;
    struct oracle_memory memory = cut_tail_whole(&sim->image, &sim->disk.current, &own);
    char message[160];
    uint64_t bytes = (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    uint8_t *cluster = sim_alloc(bytes);
    if (oracle_open(&oracle, oracle_read_memory, &memory, memory.size, message) != ORACLE_OK)
        violation("F1", "no image any more: %s", message);
    for (uint32_t i = 0; i < sim->image.hot_count; i++) {
        if (sim->image.hot[i] >= oracle.bat_entries)
            break;
        int got = oracle_read_cluster(&oracle, sim->image.hot[i], cluster);
        if (got < 0)
            violation("F1", "guest cluster %" PRIu32 " cannot be read after reopening",
                      sim->image.hot[i]);
        if (!got)
            base_read(&sim->base, sim->image.hot[i], cluster);
        for (uint32_t s = 0; s < sim->image.cluster_sectors; s++) {
            uint64_t sector = (uint64_t)sim->image.hot[i] * sim->image.cluster_sectors + s;
            if (sector >= sim->image.disk_sectors)
                continue;
            model_restart(&sim->model, sector, cluster + s * DISK_SECTOR, sim->backend.now);
        }
    }
    sim->backend.now += 2;
    oracle_close(&oracle);
    sim_free(own);
    sim_free(cluster);
    alloc_resume(failing);
}

void session_crash(struct sim *sim)
{
    trace("crash");
    counters_fault(FAULT_CRASH, session_rules(sim), sim->states);
    abort_device(sim);
    counters->ends++;
}

void session_power_cut(struct sim *sim)
{
    struct disk_state state;
    struct cut *cut = cut_take(&sim->backend, &sim->model, &sim->cut_rng);
    trace("power cut");
    cut_random_disk(cut, &state);
    cut->next = sim->cuts;
    sim->cuts = cut;
    judge_disk(sim, &cut->snapshot, &state, "the disk to go on with", true);
    sim->no_cuts = true;
    abort_device(sim);
    sim->no_cuts = false;
    judge_cuts(sim);
    disk_restart(&sim->disk, &state);
    disk_state_free(&state);
    session_adopt(sim);
    counters->continued++;
}

void session_lose(struct sim *sim)
{
    trace("writeback fails");
    if (disk_lose(&sim->disk, UINT64_MAX, 1000, &sim->rng))
        counters_fault(FAULT_LOST, session_rules(sim), sim->states);
}

static void try_without_recover(struct sim *sim)
{
    uint64_t seq = sim->disk.next_seq;
    int result = session_open(sim, SESSION_PLAIN);
    if (!result || sim->disk.next_seq != seq)
        violation("R11", "an image in use opens without RECOVER (%d), or is changed by the try",
                  result);
    if (result != -EUCLEAN && result != -ENOMEM && !sim->backend.errors)
        violation("R11", "an image in use, opened without RECOVER, gives %d", result);
}

static bool may_be_lost(const struct sim *sim)
{
    return disk_has_lost(&sim->disk) || sim->disk.unreported;
}

/*
 * The cache could not be dropped, and RECOVER has refused. The embedder restarts the machine if any
 * data may be lost, and then allows the cache.
 */
static int recover_cached(struct sim *sim)
{
    struct backend *backend = &sim->backend;
    uint64_t fail_at = backend->fail_at;
    bool was_quiet = backend->quiet;
    if (may_be_lost(sim))
        session_power_cut(sim);
    backend->quiet = true; /* nothing is lost now either: the embedder has ensured that */
    backend->fail_at = 0;
    int result = session_open(sim, is_marked(sim) ? SESSION_RECOVER_CACHED : SESSION_PLAIN);
    backend->quiet = was_quiet;
    backend->fail_at = fail_at;
    return result;
}

static int reopen_once(struct sim *sim)
{
    const struct backend *backend = &sim->backend;
    bool tries = sim->disk.unreported && !backend->quiet && rng_permille(&sim->rng, 500);
    if (backend->keeps_cache && may_be_lost(sim) && !tries)
        session_power_cut(sim); /* the log has warned of it */
    if (!is_marked(sim) && !cut_tail_is_there(&sim->image, sim->disk.current.size))
        return session_open(sim, SESSION_PLAIN);
    bool lost = may_be_lost(sim);
    uint64_t seq = sim->disk.next_seq;
    int result = session_open(sim, SESSION_RECOVER);
    if (!result && (backend->busy || (backend->keeps_cache && lost)))
        violation("R11", "RECOVER succeeds over a cache that may show what is lost");
    if (backend->busy && sim->disk.next_seq != seq)
        violation("R11", "RECOVER refuses because of the cache, and has changed the image");
    if (backend->busy && result != -EBUSY)
        violation("R11", "the cache cannot be dropped, and RECOVER gives %d", result);
    return backend->busy ? recover_cached(sim) : result;
}

void session_reopen(struct sim *sim)
{
    bool unclean = is_marked(sim);
    if (unclean && rng_permille(&sim->rng, 200))
        try_without_recover(sim);
    int result = reopen_once(sim);
    for (int tries = 0; result; tries++) {
        judge_cuts(sim);
        if (!sim->backend.errors && result != -ENOMEM)
            violation("recovery", "open gives %d although nothing failed", result);
        unclean |= is_marked(sim);
        if (tries == 2) {
            sim->backend.quiet = true;
            sim->backend.fail_at = 0;
            alloc_off();
        }
        if (tries == 3)
            violation("recovery", "open gives %d although nothing fails any more", result);
        result = reopen_once(sim);
    }
    if (unclean)
        session_adopt(sim);
}

bool session_run_queue(struct sim *sim, uint32_t queue)
{
    sim->running = queue + 1;
    int delivered = ploop_queue_run(sim->queues[queue]);
    sim->running = 0;
    return delivered > 0;
}

void session_run(struct sim *sim)
{
    if (rng_permille(&sim->rng, 500))
        ploop_dev_run(sim->dev);
    session_run_queue(sim, (uint32_t)rng_below(&sim->rng, sim->queue_count));
}

/* The clock says that the device asks to be run. */
static bool is_due(struct sim *sim)
{
    uint64_t when = sim->no_wake ? ploop_dev_next_deadline(sim->dev) : sim->clock.wake_ns;
    if (when > sim->clock.now_ns)
        return false;
    sim->clock.wake_ns = UINT64_MAX;
    return true;
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (fd < 0)
        violation("contract", "ploop_queue_poll_fd gives %d", fd);
    return poll(&poll_fd, 1, 0) > 0;
}

/*
 * One pass of an embedder's loop: it runs what was announced, and nothing else. Returns whether
 * there was anything.
 */
static bool run_what_is_due(struct sim *sim, uint32_t sleeper)
{
    bool any = is_due(sim);
    if (any)
        ploop_dev_run(sim->dev);
    /*
     * The engine's completions make all descriptors readable: the first queue to run does the work.
     */
    uint32_t first = (uint32_t)rng_below(&sim->rng, sim->queue_count);
    for (uint32_t i = 0; i < sim->queue_count; i++) {
        uint32_t queue = (first + i) % sim->queue_count;
        if (queue == sleeper || !is_readable(ploop_queue_poll_fd(sim->queues[queue])))
            continue;
        any = true;
        session_run_queue(sim, queue);
    }
    return any;
}

static unsigned parked(struct sim *sim)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    if (ploop_dev_info(sim->dev, &info))
        violation("contract", "ploop_dev_info fails");
    return (unsigned)info.requests_parked;
}

/* Until nothing changes any more. `sleeper`: a queue that its owner does not run. */
static void drain(struct sim *sim, uint32_t sleeper)
{
    bool moved = true;
    for (uint64_t rounds = 0; moved; rounds++) {
        moved = false;
        while (backend_step(&sim->backend))
            moved = true;
        moved |= run_what_is_due(sim, sleeper);
        if (rounds > 20000)
            violation("R14", "the device never comes to rest");
    }
}

/*
 * While the owner of a queue sleeps, every request is done, including that queue's own, if the
 * backend completes by itself: only their callbacks wait.
 */
void session_drain_asleep(struct sim *sim, uint32_t sleeper)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    drain(sim, sleeper);
    if (ploop_dev_info(sim->dev, &info))
        violation("contract", "ploop_dev_info fails");
    uint64_t done = info.completions_waiting + info.requests_parked;
    if (!sim->suspended && sim->outstanding > done)
        violation("R14",
                  "%u requests stay while the owner of queue %" PRIu32 " sleeps, %" PRIu64
                  " of them done or parked",
                  sim->outstanding, sleeper, done);
}

void session_drain(struct sim *sim)
{
    if (!sim->backend.by_reap && rng_permille(&sim->rng, 300))
        session_drain_asleep(sim, (uint32_t)rng_below(&sim->rng, sim->queue_count));
    drain(sim, UINT32_MAX);
    if (backend_unkicked(&sim->backend))
        violation("kick", "%u requests at the backend were never kicked",
                  backend_unkicked(&sim->backend));
    if (sim->backend.in_flight)
        violation("reap", "%u requests at the backend are ready and not reaped",
                  sim->backend.in_flight);
    if (sim->outstanding && !sim->suspended && sim->outstanding > parked(sim)) {
        for (unsigned i = 0; i < GUEST_OPS; i++)
            if (sim->ops[i].submitted)
                printf("  request %" PRIu64 ": kind %d, flags %" PRIu32 ", sectors %" PRIu64
                       "+%" PRIu64 ", submitted at %" PRIu64 "\n",
                       sim->ops[i].id, sim->ops[i].kind, sim->ops[i].flags, sim->ops[i].first,
                       sim->ops[i].count, sim->ops[i].submit);
        violation(
            "R14",
            "%u requests stay although nothing is in flight and the clock stands still (%u parked)",
            sim->outstanding, parked(sim));
    }
}

void session_heal(struct sim *sim)
{
    bool was_quiet = sim->backend.quiet;
    struct ploop_dev_info info = {.size = sizeof(info)};
    sim->backend.quiet = true;
    session_drain(sim);
    int result = ploop_dev_flush(sim->dev);
    if (sim->backend.latched != (result != 0))
        violation(sim->backend.latched ? "R6" : "R5",
                  "nothing fails any more, %s, and a flush gives %d",
                  sim->backend.latched ? "a SYNC has failed" : "no SYNC has failed", result);
    ploop_dev_info(sim->dev, &info);
    if (!result) {
        model_flushed(&sim->model, ++sim->backend.now);
        if (info.pages_failed || (info.state & PLOOP_STATE_ALLOCATION_REFUSED))
            violation("R5",
                      "after a flush that succeeded, %" PRIu64 " pages failed, state %" PRIu32,
                      info.pages_failed, info.state);
    } else if (!(info.state & PLOOP_STATE_SYNC_FAILED)) {
        violation("R6", "a SYNC failed and the state does not say so");
    }
    sim->backend.quiet = was_quiet;
}

static enum page_state classify(uint32_t state)
{
    if (state & PLOOP_BAT_PAGE_FAILED)
        return STATE_FAILED;
    if (state & PLOOP_BAT_PAGE_HIGH_PRIORITY)
        return STATE_HIGH;
    if (state & PLOOP_BAT_PAGE_WRITEBACK)
        return state & PLOOP_BAT_PAGE_DIRTY ? STATE_WRITEBACK_DIRTY : STATE_WRITEBACK;
    if (state & PLOOP_BAT_PAGE_UNSYNCED)
        return state & PLOOP_BAT_PAGE_DIRTY ? STATE_UNSYNCED_DIRTY : STATE_UNSYNCED;
    return state & PLOOP_BAT_PAGE_DIRTY ? STATE_DIRTY : STATE_CLEAN;
}

void session_look(struct sim *sim)
{
    struct ploop_bat_page_info info = {.size = sizeof(info)};
    sim->states = 0;
    if (!sim->dev)
        return;
    for (uint32_t page = 0; page < ploop_bat_page_count(sim->dev); page++) {
        if (ploop_bat_page_info(sim->dev, page, &info))
            violation("contract", "ploop_bat_page_info fails");
        sim->states |= 1u << classify(info.state);
    }
}

void session_check_age(struct sim *sim)
{
    struct ploop_bat_page_info info = {.size = sizeof(info)};
    for (uint32_t page = 0; page < ploop_bat_page_count(sim->dev); page++) {
        ploop_bat_page_info(sim->dev, page, &info);
        if (!(info.state & PLOOP_BAT_PAGE_DIRTY) ||
            (info.state & (PLOOP_BAT_PAGE_FAILED | PLOOP_BAT_PAGE_WRITEBACK)) || info.error)
            continue;
        if (info.dirtied_ns + sim->config.writeback_max_age_ns < sim->clock.now_ns &&
            !sim->backend.latched)
            violation("S15",
                      "page %" PRIu32 " is dirty since %" PRIu64 " ns, its maximum age is %" PRIu64
                      " ns",
                      page, sim->clock.now_ns - info.dirtied_ns, sim->config.writeback_max_age_ns);
    }
}

uint32_t session_rules(const struct sim *sim)
{
    uint32_t rules = 0;
    if (sim->opening || sim->closing)
        rules |= 1u << RULE_R11;
    for (unsigned i = 0; i < GUEST_OPS; i++) {
        const struct guest_op *op = &sim->ops[i];
        if (!op->submitted)
            continue;
        rules |= 1u << RULE_R14;
        if (op->kind == GUEST_WRITE)
            rules |= 1u << RULE_R1;
        if (op->kind == GUEST_WRITE && sim->discards)
            rules |= 1u << RULE_R2;
        if (op->kind == GUEST_FLUSH)
            rules |= 1u << RULE_R3 | 1u << RULE_R15;
        if (op->flags & PLOOP_PIO_FUA)
            rules |= 1u << RULE_R4;
        if (op->kind == GUEST_DISCARD)
            rules |= 1u << RULE_R7;
    }
    if (sim->states & 1u << STATE_FAILED)
        rules |= 1u << RULE_R5;
    if (sim->backend.latched)
        rules |= 1u << RULE_R6;
    if (sim->states & (1u << STATE_WRITEBACK_DIRTY | 1u << STATE_WRITEBACK))
        rules |= 1u << RULE_R16;
    if (sim->image.data_off * DISK_SECTOR % 4096)
        rules |= 1u << RULE_R17;
    return rules;
}
