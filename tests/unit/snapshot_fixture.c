/* SPDX-License-Identifier: MIT */
/* See snapshot_fixture.h. */
#include "snapshot_fixture.h"

#include <check.h>
#include <string.h>

#include "image_fixture.h"

static void committed(void *user_data, ploop_job *job)
{
    struct shot *shot = user_data;
    ck_assert_ptr_eq(job, shot->job);
    shot->commits++;
    shot->marked_at_commit = script_marked(&shot->rig.script);
    shot->next_marked_at_commit = script_marked(shot->next);
    if (shot->answer != SHOT_LATER) {
        ck_assert_int_eq(ploop_job_committed(job, shot->answer), 0);
    }
}

static void ended(void *user_data, ploop_job *job, int result)
{
    struct shot *shot = user_data;
    ck_assert_ptr_eq(job, shot->job);
    shot->ends++;
    shot->result = result;
}

bool script_marked(const struct script *script)
{
    return memcmp(script->bytes + 44, "Ynot", 4) == 0;
}

void shot_new_top(struct script *next, uint64_t size)
{
    struct ploop_image_options image = {.size = sizeof(image),
                                        .version = 2,
                                        .disk_size = size ? size : 64 << 20,
                                        .cluster_size = SHOT_CLUSTER};
    script_open(next, NULL, 0, 0);
    ck_assert_int_eq(ploop_image_create(next->file, &image), 0);
    script_forget(next);
    next->meta_end = image_data_start(next->bytes);
}

void shot_open(struct shot *shot)
{
    memset(shot, 0, sizeof(*shot));
    rig_usual(&shot->rig);
    for (uint32_t n = 0; n < 4; n++) {
        ck_assert_int_eq(
            rig_write(&shot->rig, n * SHOT_CLUSTER, SHOT_CLUSTER, (uint8_t)(0x10 + n), 0), 0);
    }
    shot->next = shot->tops;
    shot_new_top(shot->next, 0);
}

int shot_begin(struct shot *shot)
{
    return ploop_dev_snapshot(shot->rig.dev, shot->next->file, committed, ended, shot, &shot->job);
}

int shot_wait(struct shot *shot)
{
    for (int i = 0; shot->ends == 0; i++) {
        ck_assert_msg(i < 10000, "a job does not end");
        rig_advance(&shot->rig, 3 * MS);
        ploop_queue_run(shot->rig.queue);
    }
    ck_assert_uint_eq(shot->ends, 1);
    ck_assert_int_eq(ploop_job_wait(shot->job), shot->result);
    ck_assert_int_eq(ploop_job_free(shot->job), 0);
    shot->job = NULL;
    return shot->result;
}

int shot_take(struct shot *shot)
{
    shot->ends = 0;
    ck_assert_int_eq(shot_begin(shot), 0);
    return shot_wait(shot);
}

void shot_end(struct shot *shot, uint32_t deltas, const uint8_t *bytes, uint32_t count)
{
    struct rig *rig = &shot->rig;
    for (uint32_t n = 0; n < count; n++) {
        rig_expect(rig, n * SHOT_CLUSTER, SHOT_CLUSTER, bytes[n]);
    }
    rig_close_dev(rig);
    ck_assert(!script_marked(&rig->script) && !script_marked(shot->next));
    ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
    ck_assert_int_eq(oracle_status(shot->next->bytes, shot->next->file_size), 0);
    ploop_file *files[] = {rig->script.file, shot->next->file};
    ck_assert_int_eq(ploop_dev_open(files, deltas, &rig->config, &rig->dev), 0);
    rig->queue = ploop_dev_queue(rig->dev, 0);
    for (uint32_t n = 0; n < count; n++) {
        rig_expect(rig, n * SHOT_CLUSTER, SHOT_CLUSTER, bytes[n]);
    }
    rig_close_dev(rig);
    rig_free(rig);
    script_close(shot->next);
}
