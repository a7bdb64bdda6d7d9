/* SPDX-License-Identifier: MIT */
/* See merge_fixture.h. */
#include "merge_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "oracle/oracle.h"

/* Each combination of three neighbours that have a cluster, or have not. */
static const uint32_t base_map[] = {0, 1, 1, 2, 2, 3, 3, 4, 1099, 5, 0, 0};
static const uint32_t second_map[] = {1, 1, 3, 2, 4, 3, 5, 4, 0, 0};
static const uint32_t third_map[] = {2, 1, 3, 2, 5, 3, 6, 4, 0, 0};
static const uint32_t top_map[] = {1, 3, 5, 2, 6, 1, 0, 0};

static void fill(struct script *script, uint8_t first)
{
    uint64_t start = image_data_start(script->bytes);
    for (uint64_t at = start; at < script->file_size; at += 512) {
        memset(script->bytes + at, first + (int)((at - start) / CLUSTER), 512);
    }
}

static struct script *script_at(struct stacked *stacked, uint32_t level)
{
    return level + 1 < MERGE_DELTAS ? &stacked->tower.lowers[level] : &stacked->tower.rig.script;
}

void stacked_read_files(const struct stacked *stacked, uint32_t count, uint8_t *model)
{
    struct oracle oracles[MERGE_DELTAS];
    struct oracle_memory memories[MERGE_DELTAS];
    char message[160];
    uint8_t bytes[CLUSTER];
    for (uint32_t i = 0; i < count; i++) {
        memories[i] =
            (struct oracle_memory){stacked->scripts[i]->bytes, stacked->scripts[i]->file_size};
        ck_assert_int_eq(
            oracle_open(&oracles[i], oracle_read_memory, &memories[i], memories[i].size, message),
            ORACLE_OK);
    }
    for (uint32_t n = 0; n < MODEL_CLUSTERS; n++) {
        int got = 0;
        for (uint32_t i = count; i-- > 0 && !got;) {
            got = oracle_read_cluster(&oracles[i], n, bytes);
        }
        ck_assert_int_ge(got, 0);
        for (uint32_t s = 0; s < 8; s++) {
            model[n * 8 + s] = got ? bytes[s * 512] : 0;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        oracle_close(&oracles[i]);
    }
}

void stacked_open(struct stacked *stacked, uint32_t version)
{
    struct tower *tower = &stacked->tower;
    memset(stacked, 0, sizeof(*stacked));
    tower_top(tower, &(struct image_plan){.version = version, .map = top_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = base_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = second_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = third_map});
    for (uint32_t level = 0; level < MERGE_DELTAS; level++) {
        stacked->scripts[level] = script_at(stacked, level);
        fill(stacked->scripts[level], (uint8_t)(0x10 * (level + 1)));
    }
    stacked->count = MERGE_DELTAS;
    stacked_read_files(stacked, stacked->count, stacked->model);
    tower_open(tower);
    stacked_expect(stacked);
}

void stacked_expect(struct stacked *stacked)
{
    for (uint32_t s = 0; s < MODEL_SECTORS; s++) {
        rig_expect(&stacked->tower.rig, s * UINT64_C(512), 512, stacked->model[s]);
    }
}

void stacked_write(struct stacked *stacked, uint32_t sector, uint32_t count, uint8_t byte)
{
    ck_assert_int_eq(
        rig_write(&stacked->tower.rig, sector * UINT64_C(512), count * UINT64_C(512), byte, 0), 0);
    memset(stacked->model + sector, byte, count);
}

/* ---- a merge ---- */

static void committed(void *user_data, ploop_job *job)
{
    struct stacked *stacked = user_data;
    ck_assert_ptr_eq(job, stacked->job);
    stacked->commits++;
    for (uint32_t i = 0; i < stacked->count; i++) {
        stacked->marked_at_commit[i] = memcmp(stacked->scripts[i]->bytes + 44, "Ynot", 4) == 0;
    }
    if (stacked->answer != LATER) {
        ck_assert_int_eq(ploop_job_committed(job, stacked->answer), 0);
    }
}

static void ended(void *user_data, ploop_job *job, int result)
{
    struct stacked *stacked = user_data;
    ck_assert_ptr_eq(job, stacked->job);
    stacked->ends++;
    stacked->result = result;
}

int stacked_begin(struct stacked *stacked, uint32_t level, uint32_t direction)
{
    stacked->ends = stacked->commits = 0;
    return ploop_dev_merge(stacked->tower.rig.dev, level, direction, committed, ended, stacked,
                           &stacked->job);
}

void stacked_forget(struct stacked *stacked, uint32_t level, uint32_t direction)
{
    level += direction != UP;
    stacked->count--;
    for (uint32_t i = level; i < stacked->count; i++) {
        stacked->scripts[i] = stacked->scripts[i + 1];
    }
}

int stacked_finish(struct stacked *stacked, uint32_t level, uint32_t direction)
{
    struct rig *rig = &stacked->tower.rig;
    for (int i = 0; stacked->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a merge does not end");
        rig_advance(rig, 3 * MS);
        ploop_queue_run(rig->queue);
    }
    ck_assert_uint_eq(stacked->ends, 1);
    ck_assert_int_eq(ploop_job_wait(stacked->job), stacked->result);
    ck_assert_int_eq(ploop_job_free(stacked->job), 0);
    stacked->job = NULL;
    if (!stacked->result) {
        stacked_forget(stacked, level, direction);
    }
    ck_assert_uint_eq(rig_info(rig).delta_count, stacked->count);
    return stacked->result;
}

int stacked_merge(struct stacked *stacked, uint32_t level, uint32_t direction)
{
    ck_assert_int_eq(stacked_begin(stacked, level, direction), 0);
    return stacked_finish(stacked, level, direction);
}

/* ---- what is held ---- */

void stacked_release_one(struct stacked *stacked)
{
    for (uint32_t i = 0; i < MERGE_DELTAS; i++) {
        struct script *script = script_at(stacked, i);
        if (script->held_count) {
            script_release(script, 0);
            return;
        }
    }
}

static void release_idle(struct script *script, void *argument)
{
    (void)script;
    stacked_release_one(argument);
}

void stacked_hold(struct stacked *stacked)
{
    for (uint32_t i = 0; i < MERGE_DELTAS; i++) {
        script_at(stacked, i)->hold = SCRIPT_ALL;
    }
}

void stacked_go(struct stacked *stacked)
{
    for (uint32_t i = 0; i < MERGE_DELTAS; i++) {
        script_at(stacked, i)->idle = release_idle;
        script_at(stacked, i)->idle_argument = stacked;
    }
    for (uint32_t i = 0; i < MERGE_DELTAS; i++) {
        script_release_all(script_at(stacked, i));
    }
}

/* ---- the end ---- */

void stacked_free(struct stacked *stacked)
{
    rig_free(&stacked->tower.rig);
    for (uint32_t i = 0; i + 1 < MERGE_DELTAS; i++) {
        script_close(&stacked->tower.lowers[i]);
    }
}

void stacked_end(struct stacked *stacked)
{
    struct rig *rig = &stacked->tower.rig;
    ploop_file *files[MERGE_DELTAS];
    uint8_t found[MODEL_SECTORS];
    stacked_expect(stacked);
    rig_close_dev(rig);
    for (uint32_t i = 0; i < stacked->count; i++) {
        const struct script *script = stacked->scripts[i];
        files[i] = script->file;
        ck_assert_int_ne(memcmp(script->bytes + 44, "Ynot", 4), 0);
        ck_assert_int_ne(oracle_status(script->bytes, script->file_size), 2);
    }
    stacked_read_files(stacked, stacked->count, found);
    ck_assert_mem_eq(found, stacked->model, sizeof(found));
    ck_assert_int_eq(ploop_dev_open(files, stacked->count, &rig->config, &rig->dev), 0);
    rig->queue = ploop_dev_queue(rig->dev, 0);
    stacked_expect(stacked);
    rig_close_dev(rig);
    stacked_free(stacked);
}
