/* SPDX-License-Identifier: MIT */
/* Snapshots that do not come about: what they leave, and whom they must not keep waiting. */
#include <errno.h>
#include <string.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "snapshot_fixture.h"

enum { CLUSTER = SHOT_CLUSTER };

/* Begun, with a page of the map dirty that the first flush did not meet: it waits for its SYNC. */
static void begin_with_a_late_page(struct shot *shot)
{
    struct rig *rig = &shot->rig;
    ck_assert_int_eq(rig_flush(rig), 0);
    rig->script.hold = SCRIPT_BIT(PLOOP_IO_SYNC);
    shot->ends = 0;
    ck_assert_int_eq(shot_begin(shot), 0);
    ck_assert_uint_eq(script_held_of(&rig->script, PLOOP_IO_SYNC), 1);
    ck_assert_int_eq(rig_write(rig, 5000 * CLUSTER, CLUSTER, 0x50, 0), 0);
}

/* A page that cannot be written in the second flush: the mark was not touched, and all goes on. */
START_TEST(a_page_that_fails_under_the_gate_costs_the_snapshot_only)
{
    static const int errors[] = {-EIO, -ENOSPC};
    for (int i = 0; i < 2; i++) {
        struct shot shot;
        shot_open(&shot);
        struct rig *rig = &shot.rig;
        begin_with_a_late_page(&shot);
        script_fail(&rig->script, SCRIPT_META, 0, 4, errors[i]);
        script_release_all(&rig->script);
        ck_assert_int_eq(shot_wait(&shot), errors[i]);
        ck_assert_uint_eq(shot.commits, 0);
        ck_assert(script_marked(&rig->script) && !script_marked(shot.next));
        script_fail(&rig->script, SCRIPT_META, 0, 0, 0);
        ck_assert(script_marked(&rig->script) && !script_marked(shot.next));
        ck_assert_int_eq(rig_write(rig, 0, CLUSTER, 0x20, 0), 0);
        ck_assert_int_eq(rig_write(rig, 9 * CLUSTER, 512, 0x29, 0), 0);
        ck_assert_int_eq(rig_flush(rig), 0);
        ck_assert_int_eq(shot_take(&shot), 0);
        rig_expect(rig, 0, CLUSTER, 0x20);
        rig_expect(rig, 5000 * CLUSTER, CLUSTER, 0x50);
        rig_close_dev(rig);
        rig_free(rig);
        script_close(shot.next);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_page_that_fails_under_the_gate_costs_the_snapshot_only,
    };
    return RUN_TESTS("snapshot_ends", tests);
}
