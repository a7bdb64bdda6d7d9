/* SPDX-License-Identifier: MIT */
/*
 * A cache that shows what the disk has lost (F15): what RECOVER and a repair do before they trust
 * the data that they read. `disk` of a scripted backend is the content that the file turns out to
 * have when its cache is dropped.
 */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IN_USE UINT32_C(0x746F6E59)

/* The top's maps: in the cache guest cluster 0 is mapped, on the disk it is not. */
static const uint32_t cached_map[] = {0, 1, 1, 2, 0, 0};
static const uint32_t disk_map[] = {1, 2, 0, 0};

static const struct image_plan cached_plan = {.map = cached_map, .in_use = IN_USE};
static const struct image_plan disk_plan = {.map = disk_map, .in_use = IN_USE};

static uint8_t *give_disk(struct script *script, const struct image_plan *plan)
{
    uint8_t *disk = image_build(plan, &script->disk_size);
    script->disk = disk;
    return disk;
}

static void adopt(struct rig *rig, const struct image_plan *plan, uint32_t options)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);
    rig_adopt(rig, image, size, options);
    rig->config.flags = PLOOP_DEV_RECOVER;
    free(image);
}

static void expect_line(const struct rig *rig, const char *text, uint32_t level)
{
    ck_assert_msg(strstr(rig->log_text, text), "%s", rig->log_text);
    ck_assert_uint_eq(rig->log_level, level);
}

START_TEST(recover_reads_what_the_disk_has)
{
    struct rig rig;
    adopt(&rig, &cached_plan, 0);
    uint8_t *disk = give_disk(&rig.script, &disk_plan);
    ck_assert_int_eq(rig_try_open(&rig), 0);
    ck_assert_uint_eq(rig.script.invalidates, 1);
    ck_assert_uint_eq(rig.log_lines, 0);
    /* A SYNC comes before it, and no other request that would change the file. */
    ck_assert_uint_eq(script_log_find(&rig.script, PLOOP_IO_READ, 0), 0);
    ck_assert_uint_eq(script_log_find(&rig.script, PLOOP_IO_SYNC, 0), 1);
    rig_expect(&rig, at(0), CLUSTER, 0);
    rig_expect(&rig, at(1), CLUSTER, 0xA1);
    rig_end_with_leaks(&rig);
    free(disk);
}
END_TEST

START_TEST(recover_takes_the_size_that_the_disk_has)
{
    struct rig rig;
    struct image_plan shorter = disk_plan;
    shorter.host_clusters = 2;
    adopt(&rig, &cached_plan, 0);
    uint8_t *disk = give_disk(&rig.script, &shorter);
    rig_open(&rig);
    ck_assert_int_eq(rig_write(&rig, at(0), CLUSTER, 7, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_le(rig_file_offset(&rig, 0) + CLUSTER, rig.script.file_size);
    rig_end(&rig);
    free(disk);
}
END_TEST

START_TEST(a_mark_that_was_only_in_the_cache_is_gone)
{
    struct rig rig;
    struct image_plan unmarked = disk_plan;
    unmarked.in_use = 0;
    adopt(&rig, &cached_plan, 0);
    uint8_t *disk = give_disk(&rig.script, &unmarked);
    rig_open(&rig);
    ck_assert(rig_file_marked(&rig));
    rig_expect(&rig, at(0), CLUSTER, 0);
    rig_end_with_leaks(&rig);
    free(disk);
}
END_TEST

START_TEST(only_recover_of_a_marked_file_drops_its_cache)
{
    static const struct {
        uint32_t flags, in_use, invalidates;
        int result;
    } cases[] = {{PLOOP_DEV_READ_ONLY | PLOOP_DEV_RECOVER, IN_USE, 0, 0},
                 {0, IN_USE, 0, -EUCLEAN},
                 {PLOOP_DEV_RECOVER, 0, 0, 0},
                 {PLOOP_DEV_RECOVER, IN_USE, 1, 0}};
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig rig;
        adopt(&rig, &(struct image_plan){.map = cached_map, .in_use = cases[i].in_use}, 0);
        rig.config.flags = cases[i].flags;
        ck_assert_int_eq(rig_try_open(&rig), cases[i].result);
        ck_assert_uint_eq(rig.script.invalidates, cases[i].invalidates);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(an_old_loss_that_sync_reports_again_does_not_end_a_recovery)
{
    struct rig rig;
    adopt(&rig, &cached_plan, 0);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
    rig_open(&rig);
    expect_line(&rig, "SYNC reports lost writes: Input/output error", PLOOP_LOG_WARNING);
    ck_assert_uint_eq(rig.log_lines, 1);
    rig_end_with_leaks(&rig);
    adopt(&rig, &cached_plan, 0); /* the error of the SYNC after rewriting does */
    script_fail(&rig.script, PLOOP_IO_SYNC, 1, 1, -EIO);
    ck_assert_int_eq(rig_try_open(&rig), -EIO);
    rig_free(&rig);
}
END_TEST

START_TEST(a_cache_that_stays_ends_a_recovery)
{
    static const int errors[] = {-EBUSY, -EIO};
    for (int i = 0; i < 2; i++) {
        struct rig rig;
        adopt(&rig, &cached_plan, 0);
        rig.script.invalidate_error = errors[i];
        ck_assert_int_eq(rig_try_open(&rig), errors[i]);
        expect_line(&rig, "cache cannot be dropped", PLOOP_LOG_ERROR);
        ck_assert_uint_eq(script_changes(&rig.script), 1); /* the SYNC */
        rig.config.flags = PLOOP_DEV_RECOVER_CACHED;
        ck_assert_int_eq(rig_try_open(&rig), -EINVAL);
        rig.config.flags = PLOOP_DEV_RECOVER | PLOOP_DEV_RECOVER_CACHED;
        rig_open(&rig);
        expect_line(&rig, "cache cannot be dropped", PLOOP_LOG_WARNING);
        rig_expect(&rig, at(0), CLUSTER, 0xA0);
        rig_end_with_leaks(&rig);
    }
}
END_TEST

START_TEST(a_backend_that_has_no_invalidate_is_warned_of)
{
    struct rig rig;
    adopt(&rig, &cached_plan, SCRIPT_NO_INVALIDATE);
    script_fail(&rig.script, PLOOP_IO_SYNC, 0, 1,
                -EIO); /* a loss is known, and the data read may be lost */
    ck_assert_int_eq(rig_try_open(&rig), -EIO);
    rig.log_lines = 0;
    rig_open(&rig);
    expect_line(&rig, "the backend cannot drop its cache", PLOOP_LOG_WARNING);
    ck_assert_uint_eq(rig.log_lines, 1);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_lower_delta_is_read_behind_its_cache_too)
{
    struct tower tower;
    tower_top(&tower, &(struct image_plan){.map = MAP_NONE});
    tower_add(&tower, &cached_plan);
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    struct script *base = &tower.lowers[0];
    base->invalidate_error = -EBUSY;
    ck_assert_int_eq(rig_try_open(&tower.rig), -EBUSY);
    expect_line(&tower.rig, "delta 0: recovery: the file's cache cannot be dropped",
                PLOOP_LOG_ERROR);
    ck_assert_uint_eq(script_changes(base), 1);
    ck_assert_uint_eq(script_changes(&tower.rig.script), 0);

    uint8_t *disk = give_disk(base, &disk_plan);
    base->invalidate_error = 0;
    tower_forget(&tower);
    ck_assert_int_eq(rig_try_open(&tower.rig), 0);
    ck_assert_uint_eq(base->invalidates, 1);
    ck_assert_uint_eq(tower.rig.script.invalidates, 0);
    tower_forget(&tower);
    rig_expect(&tower.rig, at(0), CLUSTER, 0);
    rig_expect(&tower.rig, at(1), CLUSTER, 0xA1);
    ck_assert_int_ne(oracle_status(base->bytes, base->file_size), 2);
    tower_end(&tower);
    free(disk);
}
END_TEST

/* ---- repair ---- */

static int repair(struct script *script, uint32_t what, struct ploop_check_result *result)
{
    struct ploop_check_options options = {.size = sizeof(options), .repair = what};
    *result = (struct ploop_check_result){.size = sizeof(*result)};
    return ploop_image_check(script->file, &options, result);
}

START_TEST(a_repair_reads_what_the_disk_has)
{
    struct script script;
    struct ploop_check_result result;
    tower_open_script(&script, &cached_plan);
    uint8_t *disk = give_disk(&script, &disk_plan);
    ck_assert_int_eq(repair(&script, 0, &result), 0);
    ck_assert_uint_eq(result.mapped, 2);
    ck_assert_uint_eq(script.invalidates, 0);
    ck_assert_uint_eq(script_changes(&script), 0);
    script_fail(&script, PLOOP_IO_SYNC, 0, 1, -EIO); /* the old loss once more */
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_UNCLEAN, &result), 0);
    ck_assert_uint_eq(result.mapped, 1);
    ck_assert_uint_eq(result.repaired, 1);
    ck_assert_uint_eq(script.invalidates, 1);
    ck_assert_uint_eq(image_entry(script.bytes, 0), 0);
    script_close(&script);
    free(disk);
}
END_TEST

START_TEST(a_cache_that_stays_ends_a_repair)
{
    struct script script;
    struct ploop_check_result result;
    tower_open_script(&script, &cached_plan);
    script.invalidate_error = -EBUSY;
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_UNCLEAN, &result), -EBUSY);
    ck_assert_uint_eq(script_changes(&script), 1);
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_CACHED, &result), -EINVAL);
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_CACHED, &result), 0);
    ck_assert_uint_eq(result.repaired, 1);
    script_close(&script);
}
END_TEST

START_TEST(a_backend_that_has_no_invalidate_is_repaired)
{
    struct script script;
    struct ploop_check_result result;
    tower_open_script(&script, &cached_plan);
    script_reopen(&script, SCRIPT_NO_INVALIDATE);
    script_fail(&script, PLOOP_IO_SYNC, 0, 1, -EIO);
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_UNCLEAN, &result), -EIO);
    ck_assert_int_eq(repair(&script, PLOOP_REPAIR_UNCLEAN, &result), 0);
    ck_assert_uint_eq(result.repaired, 1);
    script_close(&script);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        recover_reads_what_the_disk_has,
        recover_takes_the_size_that_the_disk_has,
        a_mark_that_was_only_in_the_cache_is_gone,
        only_recover_of_a_marked_file_drops_its_cache,
        an_old_loss_that_sync_reports_again_does_not_end_a_recovery,
        a_cache_that_stays_ends_a_recovery,
        a_backend_that_has_no_invalidate_is_warned_of,
        a_lower_delta_is_read_behind_its_cache_too,
        a_repair_reads_what_the_disk_has,
        a_cache_that_stays_ends_a_repair,
        a_backend_that_has_no_invalidate_is_repaired,
    };
    return RUN_TESTS("invalidate", tests);
}
