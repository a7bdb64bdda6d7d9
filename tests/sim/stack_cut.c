/* SPDX-License-Identifier: MIT */
/* See stack_cut.h. */
#include "stack_cut.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "memfile.h"
#include "report.h"

enum { PARTNERS = 3 };

struct stack_cut *stack_cut_take(struct sim *sim, struct backend *const *files, uint32_t count,
                                 const struct records *records)
{
    struct stack_cut *cut = sim_alloc(sizeof(*cut));
    *cut = (struct stack_cut){.count = count, .records = *records};
    for (uint32_t i = 0; i < count; i++)
        cut->files[i] = cut_take(files[i], &sim->model, &sim->cut_rng);
    return cut;
}

/* ---- one stack ---- */

/* The deltas of a stack, the upper first. */
struct scene {
    struct sim *sim;
    const char *name;
    uint32_t count;
    const struct disk_state *states[STACK_FILES];
    struct oracle oracles[STACK_FILES];
    struct oracle_memory memories[STACK_FILES];
    const struct disk_state *raw; /* below all of them, or NULL */
    bool unclean; /* one of them has the mark; else it says that it was closed cleanly */
};

static uint64_t cluster_bytes(const struct sim *sim)
{
    return (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
}

static void print_finding(void *user_data, enum oracle_severity severity, const char *line)
{
    (void)user_data;
    if (severity == ORACLE_ERROR)
        printf("  error: %s\n", line);
}

static void open_oracles(struct scene *scene, bool clean)
{
    char message[160];
    struct oracle_result result;
    scene->unclean = false;
    for (uint32_t i = 0; i < scene->count; i++) {
        struct oracle_memory *memory = &scene->memories[i];
        *memory = (struct oracle_memory){scene->states[i]->bytes, scene->states[i]->size};
        if (oracle_open(&scene->oracles[i], oracle_read_memory, memory, memory->size, message) !=
            ORACLE_OK)
            violation("F1", "%s: file %" PRIu32 ": no image any more: %s", scene->name, i, message);
        oracle_check(&scene->oracles[i], NULL, NULL, &result);
        if (result.errors - (result.unclean && !clean ? 1 : 0)) {
            oracle_check(&scene->oracles[i], print_finding, NULL, &result);
            violation(clean ? "R11" : "F1", "%s: file %" PRIu32 ": the check finds errors",
                      scene->name, i);
        }
        scene->unclean |= result.unclean;
    }
}

static void close_oracles(struct scene *scene)
{
    for (uint32_t i = 0; i < scene->count; i++)
        oracle_close(&scene->oracles[i]);
}

/* What the image above it has of the disk. */
static void read_raw(const struct scene *scene, uint32_t cluster, uint8_t *bytes)
{
    uint64_t size = scene->raw->size, at = cluster * cluster_bytes(scene->sim);
    uint64_t above = scene->oracles[scene->count - 1].disk_sectors * DISK_SECTOR;
    uint64_t end = above < size ? above : size, left = at < end ? end - at : 0;
    memset(bytes, 0, cluster_bytes(scene->sim));
    memcpy(bytes, scene->raw->bytes + (left ? at : 0),
           left < cluster_bytes(scene->sim) ? left : cluster_bytes(scene->sim));
}

static void read_cluster(struct scene *scene, uint32_t cluster, uint8_t *bytes)
{
    int got = 0;
    for (uint32_t i = 0; i < scene->count && !got; i++)
        got = oracle_read_cluster(&scene->oracles[i], cluster, bytes);
    if (got < 0)
        violation("F1", "%s: guest cluster %" PRIu32 " cannot be read", scene->name, cluster);
    if (!got && scene->raw)
        read_raw(scene, cluster, bytes);
    else if (!got)
        base_read(&scene->sim->base, cluster, bytes);
}

/* All hot clusters, one after another. */
static uint8_t *read_all(struct scene *scene)
{
    const struct image *image = &scene->sim->image;
    uint8_t *content = sim_alloc(image->hot_count * cluster_bytes(scene->sim));
    for (uint32_t i = 0; i < image->hot_count; i++)
        read_cluster(scene, image->hot[i], content + i * cluster_bytes(scene->sim));
    return content;
}

static void judge_content(const struct scene *scene, const struct snapshot *snapshot,
                          const uint8_t *content)
{
    const struct image *image = &scene->sim->image;
    struct judgement judgement = {.snapshot = snapshot,
                                  .model = &scene->sim->model,
                                  .settled = !scene->unclean,
                                  .disk = scene->name};
    judgement.found = sim_alloc(snapshot->sectors * sizeof(*judgement.found));
    for (uint32_t i = 0; i < image->hot_count; i++) {
        for (uint32_t s = 0; s < image->cluster_sectors; s++) {
            uint64_t at = (uint64_t)i * image->cluster_sectors + s;
            uint64_t sector = (uint64_t)image->hot[i] * image->cluster_sectors + s;
            if (sector < image->disk_sectors)
                judge_sector(&judgement, sector, content + at * DISK_SECTOR);
        }
    }
    judge_order(&judgement);
    sim_free(judgement.found);
}

/* ---- the library ---- */

static void compare(const struct scene *scene, ploop_dev *dev, const uint8_t *content)
{
    const struct image *image = &scene->sim->image;
    uint64_t size = cluster_bytes(scene->sim), disk = image->disk_sectors * DISK_SECTOR;
    uint8_t *bytes = sim_alloc(size);
    for (uint32_t i = 0; i < image->hot_count; i++) {
        uint64_t offset = image->hot[i] * size, length = size;
        if (offset + length > disk)
            length = disk - offset;
        int64_t got = ploop_dev_pread(dev, bytes, length, offset);
        if (got != (int64_t)length)
            violation("recovery", "%s: reading guest cluster %" PRIu32 " gives %" PRId64,
                      scene->name, image->hot[i], got);
        if (memcmp(bytes, content + i * size, length))
            violation("recovery",
                      "%s: the device reads guest cluster %" PRIu32 " otherwise than the oracle",
                      scene->name, image->hot[i]);
    }
    sim_free(bytes);
}

/* A sector of every third hot cluster; the content follows. */
static void write_a_little(const struct scene *scene, ploop_dev *dev, uint8_t *content)
{
    static uint64_t version = UINT64_C(1) << 60;
    const struct image *image = &scene->sim->image;
    for (uint32_t i = 0; i < image->hot_count; i += 3) {
        uint64_t s = i % image->cluster_sectors;
        uint64_t sector = (uint64_t)image->hot[i] * image->cluster_sectors + s;
        uint8_t *bytes = content + i * cluster_bytes(scene->sim) + s * DISK_SECTOR;
        if (sector >= image->disk_sectors)
            continue;
        content_fill(bytes, sector, ++version);
        int64_t put = ploop_dev_pwrite(dev, bytes, DISK_SECTOR, sector * DISK_SECTOR);
        if (put != DISK_SECTOR)
            violation("recovery", "%s: writing guest sector %" PRIu64 " gives %" PRId64,
                      scene->name, sector, put);
    }
}

static void go_on(struct scene *scene, uint8_t *content)
{
    const struct base *base = &scene->sim->base;
    struct memfile files[STACK_FILES + 1];
    ploop_file *deltas[STACK_FILES + 1];
    uint32_t count = 0;
    struct ploop_dev_config config;
    ploop_dev *dev;
    bool is_raw = base->raw || scene->raw;
    if (base->there)
        memfile_open_bytes(&files[count++], base->bytes, base->size);
    if (scene->raw)
        memfile_open(&files[count++], scene->raw);
    for (uint32_t i = scene->count; i-- > 0;)
        memfile_open(&files[count++], scene->states[i]);
    for (uint32_t i = 0; i < count; i++)
        deltas[i] = files[i].file;
    ploop_dev_config_init(&config, sizeof(config));
    config.pio_count = 2;
    config.flags = (scene->unclean ? PLOOP_DEV_RECOVER : 0u) | (is_raw ? PLOOP_DEV_RAW_BASE : 0u);
    config.preallocate_bytes = cluster_bytes(scene->sim);
    int result = ploop_dev_open(deltas, count, &config, &dev);
    if (result)
        violation("R12", "%s: the recorded stack opens with %d", scene->name, result);
    compare(scene, dev, content);
    write_a_little(scene, dev, content);
    result = ploop_dev_close(dev);
    if (result)
        violation("recovery", "%s: closing gives %d", scene->name, result);
    for (uint32_t i = 0; i < scene->count; i++)
        scene->states[i] = &files[count - 1 - i].state;
    open_oracles(scene, true);
    uint8_t *found = read_all(scene);
    if (memcmp(found, content, scene->sim->image.hot_count * cluster_bytes(scene->sim)))
        violation("recovery", "%s: opened, written and closed, the stack reads otherwise",
                  scene->name);
    sim_free(found);
    close_oracles(scene);
    for (uint32_t i = 0; i < count; i++)
        memfile_close(&files[i]);
}

/* The deltas of a stack, from above down. */
static void choose(struct scene *scene, const struct disk_state *const *states, uint32_t mask)
{
    scene->count = 0;
    scene->raw = scene->sim->lowest_is_raw && mask & 1 ? states[0] : NULL;
    for (uint32_t i = STACK_FILES; i-- > 0;)
        if (mask >> i & 1 && (i || !scene->raw))
            scene->states[scene->count++] = states[i];
}

static void judge_stack(struct sim *sim, const struct snapshot *snapshot,
                        const struct disk_state *const *states, const char *name, uint32_t mask)
{
    char text[160];
    snprintf(text, sizeof(text), "%s, recorded: 0x%" PRIx32, name, mask);
    struct scene scene = {.sim = sim, .name = text};
    choose(&scene, states, mask);
    counters->disks++;
    open_oracles(&scene, false);
    uint8_t *content = read_all(&scene);
    judge_content(&scene, snapshot, content);
    close_oracles(&scene);
    counters->recoveries += scene.unclean;
    go_on(&scene, content);
    sim_free(content);
}

/* ---- all stacks of a cut ---- */

struct pairing {
    struct sim *sim;
    struct stack_cut *cut;
    struct disk_state partners[STACK_FILES][PARTNERS]; /* of each: all kept, none, some */
    uint32_t counts[STACK_FILES];
    uint32_t side; /* whose disks are handed out now */
    uint32_t turn;
};

static void keep_partner(void *context, const struct disk_state *state, const char *name)
{
    struct pairing *pairing = context;
    uint32_t *count = &pairing->counts[pairing->side];
    (void)name;
    if (*count < PARTNERS)
        disk_state_copy(&pairing->partners[pairing->side][(*count)++], state);
}

static void judge_pair(void *context, const struct disk_state *state, const char *name)
{
    struct pairing *pairing = context;
    const struct stack_cut *cut = pairing->cut;
    const struct disk_state *states[STACK_FILES] = {NULL};
    for (uint32_t i = 0, turn = pairing->turn++; i < cut->count; i++, turn /= PARTNERS)
        states[i] = i == pairing->side ? state : &pairing->partners[i][turn % pairing->counts[i]];
    for (uint32_t i = 0; i < cut->records.count; i++)
        if (cut->records.masks[i] >> pairing->side & 1)
            judge_stack(pairing->sim, &cut->files[0]->snapshot, states, name,
                        cut->records.masks[i]);
}

void stack_cut_judge(struct sim *sim, struct stack_cut *cut)
{
    bool failing = alloc_pause();
    struct pairing pairing = {.sim = sim, .cut = cut};
    counters->cuts++;
    for (pairing.side = 0; pairing.side < cut->count; pairing.side++)
        cut_disks(cut->files[pairing.side], keep_partner, &pairing);
    for (pairing.side = 0; pairing.side < cut->count; pairing.side++)
        cut_disks(cut->files[pairing.side], judge_pair, &pairing);
    for (uint32_t side = 0; side < cut->count; side++) {
        for (uint32_t i = 0; i < pairing.counts[side]; i++)
            disk_state_free(&pairing.partners[side][i]);
        cut_free(cut->files[side]);
    }
    sim_free(cut);
    alloc_resume(failing);
}

void stack_judge_closed(struct sim *sim, const struct disk_state *const *states, uint32_t mask,
                        bool clean)
{
    bool failing = alloc_pause();
    struct snapshot snapshot;
    struct scene scene = {.sim = sim, .name = "after a clean close"};
    choose(&scene, states, mask);
    snapshot_take(&snapshot, &sim->model);
    open_oracles(&scene, clean);
    uint8_t *content = read_all(&scene);
    judge_content(&scene, &snapshot, content);
    close_oracles(&scene);
    sim_free(content);
    snapshot_free(&snapshot);
    alloc_resume(failing);
}
