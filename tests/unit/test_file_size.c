/* SPDX-License-Identifier: MIT */
/* The file of a disk on which data comes and goes is no longer than what lives needs. */
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "run_tests.h"

enum { CLUSTER = 4096, CLUSTERS = 4000, LIVE = 1000, PREALLOCATED = 16, CYCLES = 20 };

static bool lives[CLUSTERS];

static void set(struct rig *rig, uint64_t cluster, bool wanted)
{
    if (wanted) {
        ck_assert_int_eq(rig_write(rig, cluster * CLUSTER, CLUSTER, 0x5A, 0), 0);
    } else {
        ck_assert_int_eq(rig_discard(rig, cluster * CLUSTER, CLUSTER), 0);
    }
    lives[cluster] = wanted;
}

/* So many clusters, anywhere on the disk, that are or are not there. */
static void change(struct rig *rig, uint32_t count, bool wanted)
{
    while (count > 0) {
        uint64_t cluster = (uint64_t)rand() % CLUSTERS;
        if (lives[cluster] != wanted) {
            set(rig, cluster, wanted);
            count--;
        }
    }
}

/* Each cycle replaces `share` of what lives: one percent more, and what is extended ahead. */
static void cycle(uint32_t share)
{
    struct rig rig;
    memset(lives, 0, sizeof(lives));
    rig_create(&rig, 2, (uint64_t)CLUSTERS * CLUSTER, CLUSTER, 0);
    rig.config.preallocate_bytes = PREALLOCATED * CLUSTER;
    rig_open(&rig);
    change(&rig, LIVE, true);
    for (uint32_t i = 0; i < CYCLES; i++) {
        change(&rig, share, false);
        ck_assert_int_eq(rig_flush(&rig), 0);
        rig_advance(&rig, UINT64_C(2000) * MS);
        change(&rig, share, true);
        ck_assert_int_eq(rig_flush(&rig), 0);
        uint64_t most = (LIVE + LIVE / 100 + PREALLOCATED) * (uint64_t)CLUSTER;
        ck_assert_uint_le(rig_info(&rig).file_size - rig.data_start, most);
    }
    ck_assert_uint_eq(rig_info(&rig).clusters_mapped, LIVE);
    rig_close_dev(&rig);
    ck_assert_uint_le(rig.script.file_size - rig.data_start, (LIVE + LIVE / 100) * CLUSTER);
    rig_end_with_leaks(&rig); /* holes, which the next session uses */
}

START_TEST(what_was_discarded_is_used_again)
{
    cycle(LIVE);
    cycle(LIVE / 2);
    cycle(LIVE / 50);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {what_was_discarded_is_used_again};
    return RUN_TESTS("file size", tests);
}
