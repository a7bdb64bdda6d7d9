/* SPDX-License-Identifier: MIT */
/* Space for the BAT itself (F7): its blocks are allocated at create and open, and where that cannot be done the policy holds. */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* rig_create()'s usual disk: 16,384 entries behind a header of 64 bytes, in whole sectors. */
enum { BAT_BYTES = 66048 };

/* Open fails with that error and a line that says why; no byte has changed. */
static void refused(struct rig *rig, int error, const char *words)
{
    uint64_t size = rig->script.file_size;
    uint8_t *before = malloc(size);
    ck_assert_ptr_nonnull(before);
    memcpy(before, rig->script.bytes, size);
    script_forget(&rig->script);
    ck_assert_int_eq(rig_try_open(rig), error);
    ck_assert_msg(strstr(rig->log_text, words), "%s", rig->log_text);
    ck_assert_uint_eq(rig->script.file_size, size);
    ck_assert_int_eq(memcmp(rig->script.bytes, before, size), 0);
    ck_assert_uint_eq(rig->script.submitted[SCRIPT_META] + rig->script.submitted[PLOOP_IO_WRITE], 0);
    free(before);
}

/* ---- the blocks of the BAT ---- */

START_TEST(an_open_allocates_the_bat_before_the_mark)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    ck_assert_int_eq(rig_try_open(&rig), 0);
    uint32_t at = script_log_find(&rig.script, PLOOP_IO_ALLOCATE, 0);
    ck_assert_uint_eq(rig.script.log[at].offset, 0);
    ck_assert_uint_eq(rig.script.log[at].length, BAT_BYTES);
    ck_assert_uint_lt(at, script_log_find(&rig.script, SCRIPT_META, 0));
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 1);
    rig_end(&rig);
}
END_TEST

/* Where nothing can be allocated, or nothing is written, nothing is asked for. */
START_TEST(a_bat_is_allocated_where_that_can_be_done)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(rig_try_open(&rig), 0);
    rig_close_dev(&rig);
    rig.config.flags = 0;
    rig.script.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_ALLOCATE;
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 0);
    rig_close_dev(&rig);
    rig.script.capabilities |= PLOOP_FILE_CAN_ALLOCATE;
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, -ENOTSUP);
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_ALLOCATE], 1);
    rig_end(&rig);
}
END_TEST

START_TEST(an_open_without_space_for_the_bat_changes_nothing)
{
    static const int errors[] = {-ENOSPC, -EDQUOT, -EIO};
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    for (uint32_t i = 0; i < 3; i++) {
        script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, errors[i]);
        refused(&rig, errors[i], "blocks of the BAT");
        ck_assert(!rig_file_marked(&rig));
    }
    rig_open(&rig);
    ploop_dev_abort(rig.dev);
    rig.dev = NULL;
    rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, -ENOSPC);
    refused(&rig, -ENOSPC, "blocks of the BAT");
    rig_open(&rig);
    rig_end(&rig);
}
END_TEST

START_TEST(a_recovery_allocates_the_bats_below)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.in_use = 0x746F6E59, .map = tower_base_map});
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    script_fail(&tower.lowers[0], PLOOP_IO_ALLOCATE, 0, 1, -ENOSPC);
    ck_assert_int_eq(rig_try_open(&tower.rig), -ENOSPC);
    ck_assert_uint_eq(tower.lowers[0].submitted[SCRIPT_META], 0);
    ck_assert_uint_eq(script_changes(&tower.rig.script), 0);
    tower_open(&tower);
    tower_end(&tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {an_open_allocates_the_bat_before_the_mark, a_bat_is_allocated_where_that_can_be_done,
                                  an_open_without_space_for_the_bat_changes_nothing, a_recovery_allocates_the_bats_below};
    return RUN_TESTS("page_space", tests);
}
