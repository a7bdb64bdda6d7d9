/* SPDX-License-Identifier: MIT */
/* See tower_fixture.h. */
#include "tower_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

const uint32_t tower_base_map[] = {0, 1, 1, 2, 2, 3, 1099, 4, 0, 0};
const uint32_t tower_middle_map[] = {1, 5, 3, 6, 0, 0};
const uint32_t tower_top_map[] = {2, 1, 4, 2, 0, 0};

uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

void tower_open_script(struct script *script, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    script_open(script, image, size, 0);
    script->meta_end = image_data_start(image);
    free(image);
}

void tower_add(struct tower *tower, const struct image_plan *plan)
{
    struct script *script = &tower->lowers[tower->rig.lower_count];
    tower_open_script(script, plan);
    tower->rig.lowers[tower->rig.lower_count++] = script->file;
}

void tower_add_raw(struct tower *tower, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    memset(bytes, 0xB0, size);
    script_open(&tower->lowers[0], bytes, size, 0);
    free(bytes);
    tower->rig.lowers[0] = tower->lowers[0].file;
    tower->rig.lower_count = 1;
    tower->rig.config.flags |= PLOOP_DEV_RAW_BASE;
}

void tower_top(struct tower *tower, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    rig_adopt(&tower->rig, image, size, 0);
    free(image);
}

/* Top and base, for which `version` is the format's, not open yet. */
void tower_of_two(struct tower *tower, uint32_t version)
{
    tower_top(tower, &(struct image_plan){.version = version, .map = tower_top_map});
    tower_add(tower, &(struct image_plan){.version = version, .map = tower_base_map});
}

void tower_forget(struct tower *tower)
{
    script_forget(&tower->rig.script);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        script_forget(&tower->lowers[i]);
    }
}

void tower_open(struct tower *tower)
{
    rig_open(&tower->rig);
    tower_forget(tower);
}

uint64_t script_changes(const struct script *script)
{
    return script->submitted[PLOOP_IO_WRITE] + script->submitted[SCRIPT_META] +
           script->submitted[PLOOP_IO_SYNC] + script->submitted[PLOOP_IO_PUNCH] +
           script->submitted[PLOOP_IO_TRUNCATE] + script->submitted[PLOOP_IO_ALLOCATE];
}

void tower_free(struct tower *tower)
{
    rig_free(&tower->rig);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        script_close(&tower->lowers[i]);
    }
}

/*
 * Closed clean, the top checked by the oracle, the lower deltas unchanged since they were last
 * reset.
 */
void tower_end(struct tower *tower)
{
    rig_close_dev(&tower->rig);
    ck_assert_int_ne(oracle_status(tower->rig.script.bytes, tower->rig.script.file_size), 2);
    for (uint32_t i = 0; i < tower->rig.lower_count; i++) {
        ck_assert_uint_eq(script_changes(&tower->lowers[i]), 0);
    }
    tower_free(tower);
}
