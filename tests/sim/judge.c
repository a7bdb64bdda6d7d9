/* SPDX-License-Identifier: MIT */
/*
 * Judging a disk that a cut left: by the oracle (no finding but the in-use mark and leaks; every
 * sector holds an allowed content), by the library opened with RECOVER (reads the same), and by
 * continuing with it (write a little, close cleanly: then there is no error, and everything still
 * reads the same).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../oracle/oracle.h"
#include "alloc.h"
#include "cut_tail.h"
#include "memfile.h"
#include "report.h"
#include "sim.h"

struct scene {
    const struct image *image;
    struct base *base;
    const struct model *model;
    struct oracle oracle;
    struct oracle_memory memory;
    uint8_t *own; /* of the memory; NULL: it is the state's */
    uint64_t disk_sectors;
    uint8_t *content; /* of the hot clusters, one after another */
    const char *name;
};

static void print_finding(void *user_data, enum oracle_severity severity, const char *line)
{
    (void)user_data;
    if (severity == ORACLE_ERROR)
        printf("  error: %s\n", line);
}

static uint64_t cluster_bytes(const struct scene *scene)
{
    return (uint64_t)scene->image->cluster_sectors * DISK_SECTOR;
}

static void scene_open(struct scene *scene, const struct disk_state *state)
{
    char message[160];
    scene->memory = cut_tail_whole(scene->image, state, &scene->own);
    if (oracle_open(&scene->oracle, oracle_read_memory, &scene->memory, scene->memory.size,
                    message) != ORACLE_OK)
        violation("F1", "%s: no image any more: %s", scene->name, message);
}

static void scene_close(struct scene *scene)
{
    oracle_close(&scene->oracle);
    sim_free(scene->own);
}

/* R10: the old size or the new one, and nothing else. */
static void scene_judge_size(const struct scene *scene, const struct snapshot *snapshot)
{
    uint64_t sectors = scene->oracle.disk_sectors;
    if (sectors != snapshot->sizes[0] && sectors != snapshot->sizes[1])
        violation("R10",
                  "%s: the disk has %" PRIu64 " sectors, it should have %" PRIu64 " or %" PRIu64,
                  scene->name, sectors, snapshot->sizes[0], snapshot->sizes[1]);
}

/*
 * A check finds nothing but the mark and leaks; with `clean` not even the mark. Returns whether the
 * mark is set.
 */
static bool scene_check(struct scene *scene, bool clean)
{
    struct oracle_result result;
    oracle_check(&scene->oracle, NULL, NULL, &result);
    if (result.errors - (result.unclean && !clean ? 1 : 0)) {
        oracle_check(&scene->oracle, print_finding, NULL, &result);
        violation(clean ? "R11" : "F1", "%s: the check finds errors", scene->name);
    }
    return result.unclean;
}

/* Read every hot cluster; every other mapped cluster must be zeros. */
static void scene_read(struct scene *scene, uint8_t *content)
{
    uint8_t *cluster = sim_alloc(cluster_bytes(scene));
    for (uint32_t index = 0; index < scene->oracle.bat_entries; index++) {
        int32_t at = index < scene->model->clusters ? scene->model->index[index] : -1;
        if (at < 0 && !scene->oracle.bat[index])
            continue;
        int got = oracle_read_cluster(&scene->oracle, index, cluster);
        if (got < 0)
            violation("F1", "%s: guest cluster %" PRIu32 " cannot be read", scene->name, index);
        if (!got)
            base_read(scene->base, index, cluster);
        if (at >= 0) {
            memcpy(content + (uint64_t)at * cluster_bytes(scene), cluster, cluster_bytes(scene));
            continue;
        }
        for (uint64_t byte = 0; byte < cluster_bytes(scene); byte++)
            if (cluster[byte])
                violation("F1", "%s: unused guest cluster %" PRIu32 " has content", scene->name,
                          index);
    }
    sim_free(cluster);
}

static void judge_content(struct scene *scene, const struct snapshot *snapshot, bool settled)
{
    struct judgement judgement = {
        .snapshot = snapshot, .model = scene->model, .settled = settled, .disk = scene->name};
    judgement.found = sim_alloc(snapshot->sectors * sizeof(*judgement.found));
    for (uint32_t i = 0; i < scene->image->hot_count; i++) {
        for (uint32_t s = 0; s < scene->image->cluster_sectors; s++) {
            uint64_t sector = (uint64_t)scene->image->hot[i] * scene->image->cluster_sectors + s;
            if (sector < scene->oracle.disk_sectors)
                judge_sector(&judgement, sector,
                             scene->content +
                                 ((uint64_t)i * scene->image->cluster_sectors + s) * DISK_SECTOR);
        }
    }
    judge_order(&judgement);
    sim_free(judgement.found);
}

/* The device reads what the oracle read. */
static void compare(struct scene *scene, ploop_dev *dev, const char *when)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < scene->image->run_count; i++) {
        const struct run_of_clusters *run = &scene->image->runs[i];
        uint64_t offset = run->first * cluster_bytes(scene),
                 length = run->count * cluster_bytes(scene), stored = length;
        uint64_t disk = scene->disk_sectors * DISK_SECTOR,
                 inside = disk > offset ? disk - offset : 0;
        length = inside < length ? inside : length;
        if (!length)
            break;
        uint8_t *bytes = sim_alloc(length);
        int64_t got = ploop_dev_pread(dev, bytes, length, offset);
        if (got != (int64_t)length)
            violation("recovery",
                      "%s: %s: reading guest bytes %" PRIu64 "+%" PRIu64 " gives %" PRId64,
                      scene->name, when, offset, length, got);
        if (memcmp(bytes, scene->content + at, length))
            violation("recovery",
                      "%s: %s: the device reads guest bytes %" PRIu64 "+%" PRIu64
                      " otherwise than the oracle",
                      scene->name, when, offset, length);
        sim_free(bytes);
        at += stored;
    }
}

/*
 * Write a sector of every third hot cluster, or of each if they are few; some must be allocated.
 * The scene's content is updated.
 */
static void write_a_little(struct scene *scene, ploop_dev *dev)
{
    static uint64_t version = UINT64_C(1) << 60;
    uint8_t bytes[DISK_SECTOR];
    for (uint32_t i = 0; i<scene->image->hot_count; i += scene->image->hot_count> 3 ? 3 : 1) {
        uint32_t s = i % scene->image->cluster_sectors;
        uint64_t sector = (uint64_t)scene->image->hot[i] * scene->image->cluster_sectors + s;
        if (sector >= scene->disk_sectors)
            continue;
        content_fill(bytes, sector, ++version);
        int64_t put = ploop_dev_pwrite(dev, bytes, DISK_SECTOR, sector * DISK_SECTOR);
        if (put != DISK_SECTOR)
            violation("recovery", "%s: writing guest sector %" PRIu64 " gives %" PRId64,
                      scene->name, sector, put);
        memcpy(scene->content + ((uint64_t)i * scene->image->cluster_sectors + s) * DISK_SECTOR,
               bytes, DISK_SECTOR);
    }
}

static void go_on(struct scene *scene, const struct disk_state *state, bool unclean)
{
    bool kept = extension_is_kept(scene->image, state->bytes);
    struct memfile memfile, base;
    struct ploop_dev_config config;
    ploop_dev *dev;
    bool alone = !scene->base->there;
    memfile_open(&memfile, state);
    memfile_open_bytes(&base, scene->base->bytes, scene->base->size);
    ploop_file *deltas[] = {base.file, memfile.file};
    ploop_dev_config_init(&config, sizeof(config));
    config.pio_count = 2;
    config.flags =
        (unclean ? PLOOP_DEV_RECOVER : 0u) | (scene->base->raw ? PLOOP_DEV_RAW_BASE : 0u);
    config.preallocate_bytes = cluster_bytes(scene);
    int result = ploop_dev_open(deltas + alone, alone ? 1 : 2, &config, &dev);
    if (result)
        violation("recovery", "%s: opening%s gives %d", scene->name, unclean ? " with RECOVER" : "",
                  result);
    compare(scene, dev, "after opening");
    write_a_little(scene, dev);
    compare(scene, dev, "after writing");
    result = ploop_dev_close(dev);
    if (result)
        violation("recovery", "%s: closing gives %d", scene->name, result);
    scene_open(scene, &memfile.state);
    scene_check(scene, true);
    extension_judge(scene->image, &scene->oracle, true, scene->name);
    extension_judge_closed(memfile.state.bytes, kept ? ORACLE_CLOSED : 0, scene->name);
    uint8_t *content = sim_alloc(scene->image->hot_count * cluster_bytes(scene));
    scene_read(scene, content);
    if (memcmp(content, scene->content, scene->image->hot_count * cluster_bytes(scene)))
        violation("recovery", "%s: opened, written and closed, the image reads otherwise",
                  scene->name);
    sim_free(content);
    scene_close(scene);
    memfile_close(&memfile);
    if (!alone && memcmp(base.state.bytes, scene->base->bytes, scene->base->size))
        violation("R9", "%s: the base was written to", scene->name);
    memfile_close(&base);
}

void judge_disk(struct sim *sim, const struct snapshot *snapshot, const struct disk_state *state,
                const char *name, bool going_on)
{
    const struct image *image = &sim->image;
    struct scene scene = {.image = image, .base = &sim->base, .model = &sim->model, .name = name};
    bool failing = alloc_pause();
    counters->disks++;
    scene_open(&scene, state);
    scene.disk_sectors = scene.oracle.disk_sectors;
    scene_judge_size(&scene, snapshot);
    bool unclean = scene_check(&scene, false);
    extension_judge(image, &scene.oracle, snapshot->used, name);
    scene.content = sim_alloc(image->hot_count * cluster_bytes(&scene));
    scene_read(&scene, scene.content);
    judge_content(&scene, snapshot, !unclean);
    scene_close(&scene);
    if (going_on) {
        unclean |= cut_tail_is_there(image, state->size);
        counters->recoveries += unclean;
        go_on(&scene, state, unclean);
    }
    sim_free(scene.content);
    alloc_resume(failing);
}

struct judging {
    struct sim *sim;
    struct cut *cut;
};

static void judge_one(void *context, const struct disk_state *state, const char *name)
{
    struct judging *judging = context;
    judge_disk(judging->sim, &judging->cut->snapshot, state, name, true);
}

void judge_cuts(struct sim *sim)
{
    while (sim->cuts) {
        struct judging judging = {sim, sim->cuts};
        sim->cuts = judging.cut->next;
        counters->cuts++;
        cut_disks(judging.cut, judge_one, &judging);
        cut_free(judging.cut);
    }
}

void judge_closed(struct sim *sim)
{
    struct scene scene = {.image = &sim->image,
                          .base = &sim->base,
                          .model = &sim->model,
                          .name = "after a clean close"};
    bool failing = alloc_pause();
    scene_open(&scene, &sim->disk.durable);
    scene_check(&scene, true);
    extension_judge(&sim->image, &scene.oracle, sim->model.used, scene.name);
    extension_judge_closed(sim->disk.durable.bytes,
                           sim->changed ? sim->expected_in_use : sim->found_in_use, scene.name);
    scene_close(&scene);
    alloc_resume(failing);
}
