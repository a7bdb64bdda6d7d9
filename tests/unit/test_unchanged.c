/* SPDX-License-Identifier: MIT */
/*
 * A session that changes nothing leaves header and extension as it found them, and the first change
 * lets the extension go (R11).
 */
#include "extension_rig.h"
#include "run_tests.h"

#include <errno.h>
#include <string.h>

#include "image_fixture.h"

static const uint32_t found_values[] = {CLOSED, 0, 0x32326470, IN_USE};

static void use_without_change(struct rig *rig)
{
    extension_expect_guest(rig);
    rig_expect(rig, (uint64_t)20 * CLUSTER, CLUSTER, 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_int_eq(ploop_dev_suspend(rig->dev), 0);
    ck_assert_int_eq(ploop_dev_resume(rig->dev), 0);
}

/* Header and extension are as they were found, but for the mark, and where it was written anew. */
START_TEST(a_session_that_changed_nothing)
{
    for (uint32_t i = 0; i < EXTENSION_MIXES * 3; i++) {
        const char *features = extension_mixes[i / 3].features, *kept = extension_mixes[i / 3].kept;
        bool counts = i % 3 == 0, is_new = counts && kept[0] && strcmp(features, kept);
        bool is_wrong = strchr(features, 'x') || strchr(features, 's') || strstr(features, "bb");
        struct rig rig;
        extension_make(&rig, 2, found_values[i % 3], features);
        uint8_t before[(HOSTS + 2) * CLUSTER];
        memcpy(before, rig.script.bytes, rig.script.file_size);
        rig_open(&rig);
        use_without_change(&rig);
        ck_assert(counts || extension_at(&rig) == 0);
        rig_close_dev(&rig);
        if (is_new || (counts && is_wrong)) {
            extension_expect(&rig, kept);
        } else {
            ck_assert_mem_eq(rig.script.bytes, before, host_at(&rig, HOSTS));
        }
        rig_free(&rig);
    }
}
END_TEST

/* Each kind of change, and one that fails: the extension is gone, said once, its space is free. */
START_TEST(the_first_change_lets_it_go)
{
    for (uint32_t i = 0; i < 12; i++) {
        struct rig rig;
        extension_make(&rig, 2, found_values[i / 4], "b");
        rig_open(&rig);
        use_without_change(&rig);
        if (i % 4 == 0) {
            ck_assert_int_eq(rig_write(&rig, 0, 512, 0xA0, 0), 0); /* the same bytes */
        } else if (i % 4 == 1) {
            ck_assert_int_eq(rig_discard(&rig, 0, CLUSTER), 0);
        } else if (i % 4 == 2) {
            script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -EIO);
            ck_assert_int_eq(rig_write(&rig, 0, 512, 0x11, 0), -EIO);
        } else {
            ck_assert_int_eq(rig_discard(&rig, (uint64_t)20 * CLUSTER, CLUSTER),
                             0); /* of nothing */
        }
        rig_flush(&rig);
        rig_close_dev(&rig);
        ck_assert_ptr_nonnull(strstr(rig.log_text, "1 dirty bitmaps"));
        ck_assert_uint_eq(in_use(&rig), 0);
        ck_assert_uint_eq(extension_at(&rig), 0);
        rig_free(&rig);
    }
}
END_TEST

/* Until then its clusters are nobody's, and then anybody's. */
START_TEST(its_clusters_are_used_after_the_first_change)
{
    struct rig rig;
    extension_make(&rig, 2, 0, "b");
    rig_open(&rig);
    rig.script.size_max = rig.script.file_size;
    ck_assert_int_eq(rig_write(&rig, (uint64_t)20 * CLUSTER, CLUSTER, 0x33, 0), 0);
    ck_assert_int_eq(rig_write(&rig, (uint64_t)21 * CLUSTER, CLUSTER, 0x33, 0), 0);
    ck_assert_int_eq(rig_write(&rig, (uint64_t)22 * CLUSTER, CLUSTER, 0x33, 0), -ENOSPC);
    rig_close_dev(&rig);
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

/* What RECOVER found is no state to go back to. */
START_TEST(recover_drops_it)
{
    struct rig rig;
    extension_make(&rig, 2, IN_USE, "bt");
    rig.config.flags = PLOOP_DEV_RECOVER;
    rig_open(&rig);
    ck_assert_uint_eq(extension_at(&rig), 0);
    rig_close_dev(&rig);
    ck_assert_uint_eq(in_use(&rig), 0);
    ck_assert_uint_eq(extension_at(&rig), 0);
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_session_that_changed_nothing, the_first_change_lets_it_go,
                                  its_clusters_are_used_after_the_first_change, recover_drops_it};
    return RUN_TESTS("unchanged", tests);
}
