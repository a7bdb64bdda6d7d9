/* SPDX-License-Identifier: MIT */
/* See tower.h. */
#include "tower.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "report.h"
#include "stack_cut.h"

enum { STEPS_BEFORE = 25, STEPS_AFTER = 15, STEPS_MAX = 6000, RUN_SECONDS_MAX = 600 };

enum answer { ANSWER_YES, ANSWER_NO, ANSWER_UNKNOWN, ANSWER_CLOSE };

struct tower {
    struct sim sim; /* its disk is the top's */
    struct disk disks[STACK_FILES - 1];
    struct backend backends[STACK_FILES - 1];
    ploop_file *lowers[STACK_FILES - 1];
    struct backend *files[STACK_FILES]; /* all, the base first */
    struct image images[STACK_FILES];
    uint32_t count;   /* of files */
    uint32_t left;    /* a bit for each that is in the stack */
    uint32_t without; /* the one that the present merge makes superfluous */
    uint32_t level, direction;
    ploop_job *job;
    enum answer answer;
    uint32_t delay; /* steps from the question to the answer */
    bool asked, over;
    int result;
    struct records records; /* of stacks, those that may be recorded */
    struct stack_cut *cuts;
};

static void take_cut(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    counters->events++;
    if (sim->no_cuts || !rng_permille(&sim->cut_rng, sim->cut_permille))
        return;
    struct stack_cut *cut = stack_cut_take(sim, tower->files, tower->count, &tower->records);
    cut->next = tower->cuts;
    tower->cuts = cut;
}

static void on_event(void *context)
{
    take_cut(context);
}

/* When no call of the library is under way. */
static void judge(struct tower *tower)
{
    while (tower->cuts) {
        struct stack_cut *cut = tower->cuts;
        tower->cuts = cut->next;
        stack_cut_judge(&tower->sim, cut);
    }
}

/* ---- the stack ---- */

/* The file of a level. */
static uint32_t file_at(const struct tower *tower, uint32_t level)
{
    uint32_t file = 0;
    for (;; file++)
        if (tower->left >> file & 1 && level-- == 0)
            return file;
}

static uint32_t deltas_left(const struct tower *tower)
{
    return (uint32_t)__builtin_popcount(tower->left);
}

static uint64_t cluster_bytes(const struct sim *sim)
{
    return (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
}

/* The raw file at level 0, as the delta above it shows it. */
static void read_raw(const struct tower *tower, const struct oracle *above, uint32_t cluster,
                     uint8_t *bytes)
{
    const struct disk_state *state = &tower->files[0]->disk->current;
    uint64_t size = cluster_bytes(&tower->sim), at = cluster * size, end = state->size;
    if (above && above->disk_sectors * DISK_SECTOR < end)
        end = above->disk_sectors * DISK_SECTOR;
    if (at < end)
        memcpy(bytes, state->bytes + at, end - at < size ? end - at : size);
}

/* What the files hold now, as the caches show it, of the stack up to and with a level. */
static uint8_t *read_stack(struct tower *tower, uint32_t levels)
{
    struct sim *sim = &tower->sim;
    struct oracle oracles[STACK_FILES];
    struct oracle_memory memories[STACK_FILES];
    char message[160];
    uint64_t bytes = cluster_bytes(sim);
    uint32_t lowest = sim->lowest_is_raw && tower->left & 1;
    uint8_t *content = sim_alloc(sim->image.hot_count * bytes);
    for (uint32_t level = lowest; level < levels; level++) {
        const struct disk_state *state = &tower->files[file_at(tower, level)]->disk->current;
        memories[level] = (struct oracle_memory){state->bytes, state->size};
        if (oracle_open(&oracles[level], oracle_read_memory, &memories[level], state->size,
                        message) != ORACLE_OK)
            violation("R13", "level %" PRIu32 ": no image any more: %s", level, message);
    }
    for (uint32_t i = 0; i < sim->image.hot_count; i++) {
        int got = 0;
        memset(content + i * bytes, 0, bytes);
        for (uint32_t level = levels; level-- > lowest && !got;)
            if (sim->image.hot[i] < oracles[level].bat_entries)
                got = oracle_read_cluster(&oracles[level], sim->image.hot[i], content + i * bytes);
        if (got < 0)
            violation("R13", "guest cluster %" PRIu32 " cannot be read", sim->image.hot[i]);
        if (!got && lowest)
            read_raw(tower, levels > 1 ? &oracles[1] : NULL, sim->image.hot[i],
                     content + i * bytes);
    }
    for (uint32_t level = lowest; level < levels; level++)
        oracle_close(&oracles[level]);
    return content;
}

/* ---- the embedder ---- */

static void on_commit(void *user_data, ploop_job *job)
{
    struct tower *tower = user_data;
    if (job != tower->job || tower->asked)
        violation("R14", "a commit callback of another job, or twice");
    tower->asked = true;
    tower->records.masks[tower->records.count++] = tower->left & ~(1u << tower->without);
    trace("  commit");
}

static void on_end(void *user_data, ploop_job *job, int result)
{
    struct tower *tower = user_data;
    if (job != tower->job || tower->over)
        violation("R14", "the end of a job is told twice");
    tower->over = true;
    tower->result = result;
    if (!result)
        tower->files[tower->without]->gone = true;
    trace("  the job ends: %d", result);
}

/* Whether the merge makes the lower one of its two the top. */
static bool lowers_top(const struct tower *tower)
{
    return tower->direction != PLOOP_MERGE_UP && tower->level + 2 == deltas_left(tower);
}

static void answer(struct tower *tower)
{
    static const int answers[] = {
        [ANSWER_YES] = 0, [ANSWER_NO] = -EPERM, [ANSWER_UNKNOWN] = PLOOP_COMMIT_UNKNOWN};
    struct records *records = &tower->records;
    if (!tower->asked || tower->answer == ANSWER_CLOSE || tower->delay-- > 0)
        return;
    bool asks_on = tower->answer == ANSWER_UNKNOWN && lowers_top(tower);
    int told = answers[tower->answer];
    if (tower->answer != ANSWER_UNKNOWN) {
        records->masks[0] = records->masks[tower->answer == ANSWER_YES];
        records->count = 1;
    }
    take_cut(tower);
    trace("  answer: %d", told);
    if (ploop_job_committed(tower->job, told))
        violation("contract", "ploop_job_committed() does not take the answer");
    tower->delay = UINT32_MAX;
    if (asks_on) {
        tower->answer = rng_permille(&tower->sim.rng, 500) ? ANSWER_YES : ANSWER_NO;
        tower->delay = (uint32_t)rng_below(&tower->sim.rng, 20);
    }
}

/* ---- the loop ---- */

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0;
}

static bool run_what_is_due(struct tower *tower)
{
    struct sim *sim = &tower->sim;
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

static bool step_backends(struct tower *tower)
{
    uint64_t first = rng_below(&tower->sim.rng, tower->count);
    for (uint32_t i = 0; i < tower->count; i++)
        if (backend_step(tower->files[(first + i) % tower->count]))
            return true;
    return false;
}

static void one_step(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    uint64_t choice = rng_below(&sim->rng, 100);
    if (choice < 56)
        step_backends(tower);
    else if (choice < 76)
        guest_random(sim);
    else if (choice < 96)
        run_what_is_due(tower);
    else
        clock_advance(&sim->clock, rng_below(&sim->rng, 3000000));
    answer(tower);
    judge(tower);
}

/* ---- a run ---- */

/* A few clusters of a raw file, and a part of one; no more than the image above it has. */
static uint8_t *build_raw(struct tower *tower, uint64_t *size)
{
    struct sim *sim = &tower->sim;
    const struct image *above = &tower->images[1];
    uint64_t clusters = rng_between(&sim->rng, 1, sim->image.runs[0].count + 2);
    uint64_t most = clusters * sim->image.cluster_sectors;
    uint64_t sectors = most - rng_below(&sim->rng, sim->image.cluster_sectors);
    if (sectors > above->disk_sectors)
        sectors = above->disk_sectors;
    uint8_t *bytes = sim_alloc(sectors * DISK_SECTOR);
    memset(bytes, 0, sectors * DISK_SECTOR);
    for (uint64_t sector = 0; sector + 1 < sectors; sector++)
        for (uint32_t i = 0; i < sim->image.hot_count; i++)
            if (sim->image.hot[i] == sector / sim->image.cluster_sectors)
                content_fill(bytes + sector * DISK_SECTOR, sector, BASE_VERSION);
    tower->images[0].disk_sectors = sectors;
    *size = sectors * DISK_SECTOR - rng_below(&sim->rng, 2) * 100;
    return bytes;
}

static void make_lower(struct tower *tower, uint32_t file)
{
    struct sim *sim = &tower->sim;
    struct backend *backend = &tower->backends[file];
    struct ploop_io_ops ops;
    uint64_t size;
    struct image *image = &tower->images[file];
    image_below(image, &tower->images[file + 1], &sim->rng);
    image->closed_ext = false;
    image->version = BASE_VERSION + file;
    bool is_raw = file == 0 && sim->lowest_is_raw;
    uint8_t *bytes = is_raw ? build_raw(tower, &size) : image_build(image, &sim->rng, &size);
    disk_init(&tower->disks[file], bytes, size);
    sim_free(bytes);
    backend_init(backend, &tower->disks[file], &sim->rng);
    backend->bat_end = is_raw ? 0 : image->bat_end;
    backend->is_raw = is_raw;
    backend->by_reap = sim->backend.by_reap;
    backend->needs_kick = sim->backend.needs_kick;
    backend->capabilities = sim->backend.capabilities;
    backend->event = on_event;
    backend->context = tower;
    backend_new_session(backend, false);
    backend_ops(backend, &ops);
    backend->writable = false;
    if (ploop_file_create(&ops, backend, &tower->lowers[file]))
        give_up("ploop_file_create failed");
}

/* The content of the whole stack is what the model begins with. */
static void learn(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    uint8_t *content = read_stack(tower, tower->count);
    model_free(&sim->model);
    model_init(&sim->model, sim->image.hot, sim->image.hot_count, sim->image.cluster_sectors,
               sim->image.disk_sectors);
    for (uint32_t i = 0; i < sim->image.hot_count; i++) {
        for (uint32_t s = 0; s < sim->image.cluster_sectors; s++) {
            uint64_t sector = (uint64_t)sim->image.hot[i] * sim->image.cluster_sectors + s;
            if (sector < sim->image.disk_sectors)
                model_restart(&sim->model, sector,
                              content + i * cluster_bytes(sim) + s * DISK_SECTOR, sim->backend.now);
        }
    }
    sim->backend.now += 2;
    sim_free(content);
}

static void make_files(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    uint32_t top = tower->count - 1;
    sim->backend.event = on_event;
    sim->backend.fault = NULL;
    sim->backend.invalidated = NULL;
    sim->backend.context = tower;
    sim_make_files(sim);
    tower->images[top] = sim->image;
    tower->files[top] = &sim->backend;
    for (uint32_t file = top; file-- > 0;) {
        make_lower(tower, file);
        tower->files[file] = &tower->backends[file];
        sim->lowers[file] = tower->lowers[file];
    }
    sim->lower_count = top;
    for (uint32_t file = 0; file < tower->count; file++)
        tower->files[file]->peer = tower->files[(file + 1) % tower->count];
}

static void set_up(struct tower *tower, uint64_t seed)
{
    struct sim *sim = &tower->sim;
    sim_init(sim, seed);
    image_random(&sim->image, &sim->rng);
    sim->image.features[0] = '\0';
    sim->image.void_extension = sim->image.closed_ext = false;
    sim->image.host_clusters = sim->image.mapped + sim->image.leaks;
    struct rng apart = {seed ^ 0x726177}; /* the other runs stay the same */
    sim->lowest_is_raw = rng_permille(&apart, 300);
    if (sim->lowest_is_raw) { /* the top has little, so that what is below it shows */
        sim->image.mapped = (uint32_t)rng_below(&apart, 3);
        sim->image.host_clusters = sim->image.mapped + sim->image.leaks;
    }
    sim->cut_permille = 1000;
    sim->no_cuts = true;
    sim_start(sim, SIM_ALONE);
    sim->config.queue_count = (uint32_t)rng_between(&sim->rng, 1, 3);
    sim->config.pio_count = 6;
    sim->config.writeback_delay_ns = rng_below(&sim->rng, 2) * 1000000;
    sim->config.writeback_max_age_ns = 4 * sim->config.writeback_delay_ns;
    sim->config.preallocate_bytes = 3 * cluster_bytes(sim);
    sim_choose_copies(sim);
    sim->backend.by_reap = rng_permille(&sim->rng, 300);
    sim->backend.needs_kick = rng_permille(&sim->rng, 300);
    sim->backend.capabilities |= rng_permille(&sim->rng, 300) ? PLOOP_FILE_CAN_FUA : 0;
    sim->no_wake = true;
    sim->discards_may_stay = true;
    tower->count = (uint32_t)rng_between(&sim->rng, 2, STACK_FILES);
    if (sim->lowest_is_raw) {
        tower->count = (uint32_t)rng_between(&apart, 2, 4);
        sim->config.flags |= PLOOP_DEV_RAW_BASE;
    }
    tower->left = (1u << tower->count) - 1;
    make_files(tower);
    tower->records = (struct records){.masks = {tower->left}, .count = 1};
    learn(tower);
    if (session_open(sim, SESSION_PLAIN))
        violation("contract", "open fails");
}

/* In one run of four something fails from here on. */
static void let_fail(struct tower *tower)
{
    static const enum fault faults[] = {FAULT_EIO_PAGE, FAULT_EIO_SYNC, FAULT_EIO_DATA,
                                        FAULT_EIO_RESIZE, FAULT_EAGAIN};
    struct sim *sim = &tower->sim;
    if (rng_below(&sim->rng, 4))
        return;
    struct backend *backend = tower->files[rng_below(&sim->rng, tower->count)];
    backend->chance[faults[rng_below(&sim->rng, 5)]] = (unsigned)rng_between(&sim->rng, 20, 300);
    sim->expect_errors = true;
}

static bool is_raw(const struct tower *tower, uint32_t level)
{
    return level == 0 && tower->sim.lowest_is_raw && tower->left & 1;
}

/* Into an image whose disk is smaller, or the top into a raw file. */
static bool cannot_go_down(const struct tower *tower, uint32_t level)
{
    if (is_raw(tower, level))
        return deltas_left(tower) == 2;
    return tower->images[file_at(tower, level)].disk_sectors !=
           tower->images[file_at(tower, level + 1)].disk_sectors;
}

/* A raw file that was a receiver is as long as the disk: to copy all of it takes too long. */
static bool cannot_go_up(const struct tower *tower, uint32_t level)
{
    uint64_t few = (tower->sim.image.runs[0].count + 2) * cluster_bytes(&tower->sim);
    return is_raw(tower, level) && tower->files[0]->disk->current.size > few;
}

/* Nothing is left that can be merged. */
static bool is_over(const struct tower *tower)
{
    return deltas_left(tower) == 1 || (deltas_left(tower) == 2 && cannot_go_up(tower, 0));
}

static int begin_job(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    tower->level = (uint32_t)rng_below(&sim->rng, deltas_left(tower) - 1);
    bool is_up = rng_permille(&sim->rng, 400) || cannot_go_down(tower, tower->level);
    is_up = is_up && !cannot_go_up(tower, tower->level);
    tower->direction = is_up ? PLOOP_MERGE_UP : PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS;
    tower->without = file_at(tower, tower->level + !is_up);
    tower->asked = tower->over = false;
    tower->job = NULL;
    trace("merge level %" PRIu32 " of %" PRIu32 ", %s%s", tower->level, deltas_left(tower),
          is_up ? "up" : "down", is_raw(tower, tower->level) ? ", the lower one raw" : "");
    return ploop_dev_merge(sim->dev, tower->level, tower->direction, on_commit, on_end, tower,
                           &tower->job);
}

/* The snapshot that the upper one of two below the top was reads as it did. */
static void check_snapshot(struct tower *tower, uint32_t levels, const uint8_t *before)
{
    uint8_t *now = read_stack(tower, levels);
    if (memcmp(now, before, tower->sim.image.hot_count * cluster_bytes(&tower->sim)))
        violation("R13", "a snapshot below the top is not what it was");
    sim_free(now);
}

static void settle(struct tower *tower, uint64_t cancel)
{
    struct sim *sim = &tower->sim;
    bool wanted = tower->answer == ANSWER_YES && cancel == UINT64_MAX && !sim->expect_errors;
    uint32_t merged = tower->left & ~(1u << tower->without);
    if (wanted && tower->result)
        violation("R13", "the job ends with %d although nothing went wrong", tower->result);
    if (!tower->result && (tower->records.count != 1 || tower->records.masks[0] != merged))
        violation("R13", "the job succeeds and the record was not accepted");
    if (!tower->result)
        tower->left = merged;
    if (tower->job && tower->answer == ANSWER_UNKNOWN && tower->records.count == 2) {
        tower->records.count = 1; /* it was not recorded after all */
        (void)ploop_job_committed(tower->job, -EPERM);
    }
}

/* False: the device is to be closed with the job under way. */
static bool run_job(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    tower->answer =
        rng_permille(&sim->rng, 600) ? ANSWER_YES : (enum answer)rng_below(&sim->rng, 4);
    tower->delay = (uint32_t)rng_below(&sim->rng, 20);
    int result = begin_job(tower);
    bool is_below = tower->level + 2 < deltas_left(tower);
    uint8_t *before = is_below ? read_stack(tower, tower->level + 2) : NULL;
    if (result && !sim->expect_errors)
        violation("contract", "the job cannot begin: %d", result);
    tower->over = result != 0;
    tower->result = result;
    uint64_t cancel = rng_below(&sim->rng, 6) ? UINT64_MAX : rng_below(&sim->rng, 200);
    uint64_t close = tower->answer == ANSWER_CLOSE ? rng_below(&sim->rng, 2000) : UINT64_MAX;
    for (uint64_t step = 0; !tower->over && step < STEPS_MAX; step++) {
        if (step >= close || (close != UINT64_MAX && tower->asked && step % 40 == 39)) {
            sim_free(before);
            return false;
        }
        if (step == cancel)
            (void)ploop_job_cancel(tower->job);
        one_step(tower);
    }
    if (!tower->over)
        violation("R14", "the job does not end");
    settle(tower, cancel);
    if (is_below && !tower->result)
        check_snapshot(tower, tower->level + 1, before);
    if (tower->job && ploop_job_free(tower->job))
        violation("contract", "a job that has ended cannot be freed");
    tower->job = NULL;
    sim_free(before);
    return true;
}

/* Reads of all that is compared go on their way. */
static void read_disk(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    uint64_t cluster = sim->image.cluster_sectors, disk = sim->image.disk_sectors;
    for (uint32_t i = 0; i < sim->image.run_count; i++) {
        uint64_t first = sim->image.runs[i].first * cluster;
        uint64_t count = sim->image.runs[i].count * cluster;
        count = first >= disk ? 0 : count < disk - first ? count : disk - first;
        while (count && !guest_do(sim, GUEST_READ, first, count, 0))
            one_step(tower);
    }
}

static void close_all(struct tower *tower)
{
    struct sim *sim = &tower->sim;
    const struct disk_state *states[STACK_FILES] = {NULL};
    bool latched = false;
    for (uint32_t file = 0; file < tower->count; file++) {
        tower->files[file]->quiet = true;
        latched |= tower->files[file]->latched;
        states[file] = &tower->files[file]->disk->durable;
    }
    /* What is held while nobody knows what was recorded fails. */
    sim->expect_errors |= tower->job && lowers_top(tower);
    bool failed = sim->expect_errors;
    sim->closing = true;
    int result = ploop_dev_close(sim->dev);
    sim->closing = false;
    sim->dev = NULL;
    judge(tower);
    if (sim->outstanding)
        violation("R14", "%u requests never completed", sim->outstanding);
    if (result && !failed)
        violation("close", "close gives %d although nothing failed", result);
    if (tower->job && !tower->over)
        violation("R14", "a close does not end the job");
    if (tower->job && ploop_job_free(tower->job))
        violation("contract", "a job that has ended cannot be freed");
    if (!result && !latched) {
        model_flushed(&sim->model, ++sim->backend.now);
        for (uint32_t i = 0; i < tower->records.count; i++)
            stack_judge_closed(sim, states, tower->records.masks[i],
                               !sim->expect_errors || !sim->receiver_marked);
    }
}

static void free_all(struct tower *tower)
{
    for (uint32_t file = 0; file + 1 < tower->count; file++) {
        ploop_file_close(tower->lowers[file]);
        backend_close(&tower->backends[file]);
        disk_free(&tower->disks[file]);
    }
    sim_free_all(&tower->sim);
    sim_free(tower);
}

static void run(uint64_t seed)
{
    struct tower *tower = sim_alloc(sizeof(*tower));
    struct sim *sim = &tower->sim;
    char stack, line[64];
    snprintf(line, sizeof(line), "sim --merge 1 --seed %" PRIu64, seed);
    report_set_replay(line);
    alarm(RUN_SECONDS_MAX);
    memset(tower, 0, sizeof(*tower));
    set_up(tower, seed);
    for (uint32_t file = 0; file < tower->count; file++)
        tower->files[file]->stack = &stack;
    for (uint32_t step = 0; step < STEPS_BEFORE; step++)
        one_step(tower);
    let_fail(tower);
    sim->cut_permille = 1000 / deltas_left(tower);
    bool goes_on = true;
    for (uint32_t tries = 0; goes_on && !is_over(tower) && tries < 8; tries++) {
        sim->no_cuts = false;
        goes_on = run_job(tower);
        if (goes_on && !tower->result)
            read_disk(tower);
        for (uint32_t step = 0; goes_on && step < STEPS_AFTER; step++)
            one_step(tower);
    }
    close_all(tower);
    counters->runs++;
    free_all(tower);
}

int towers_run(uint64_t seed, uint64_t runs)
{
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i);
    printf("merge: %" PRIu64 " runs, %" PRIu64 " cuts, %" PRIu64 " stacks judged, 0 violations\n",
           runs, counters->cuts, counters->disks);
    return 0;
}
