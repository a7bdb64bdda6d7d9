/* SPDX-License-Identifier: MIT */
/*
 * Claims on files: a device that writes is the only one that syncs its file, because a second
 * device would consume errors that the first one's flush must report.
 */
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <string.h>

#include "file/file.h"

static int open_device(ploop_file *file, uint32_t flags, ploop_dev **dev)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    return ploop_dev_open(&file, 1, &config, dev);
}

static int check(ploop_file *file, uint32_t repair)
{
    struct ploop_check_options options = {.size = sizeof(options), .repair = repair};
    struct ploop_check_result result = {.size = sizeof(result)};
    return ploop_image_check(file, &options, &result);
}

static int create(ploop_file *file)
{
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = 1 << 20, .cluster_size = CLUSTER};
    return ploop_image_create(file, &options);
}

static ploop_file *new_image(void)
{
    ploop_file *file;
    ck_assert_int_eq(ploop_file_create_memory(0, &file), 0);
    ck_assert_int_eq(create(file), 0);
    return file;
}

static void expect_free(ploop_file *file)
{
    ck_assert_int_eq(atomic_load(&file->claims), 0);
}

START_TEST(a_file_that_a_device_writes_is_used_by_nothing_else)
{
    ploop_file *file = new_image();
    for (uint32_t i = 0; i < 2; i++) {
        char byte = 0;
        ploop_dev *dev, *other;
        ck_assert_int_eq(open_device(file, i ? PLOOP_DEV_RECOVER : 0, &dev), 0);
        ck_assert_int_eq(ploop_file_sync(file), -EBUSY);
        ck_assert_int_eq(ploop_file_pwrite(file, &byte, 1, 0), -EBUSY);
        ck_assert_int_eq(ploop_file_truncate(file, 0), -EBUSY);
        ck_assert_int_eq(create(file), -EBUSY);
        ck_assert_int_eq(check(file, PLOOP_REPAIR_LEAKS), -EBUSY);
        ck_assert_int_eq(open_device(file, 0, &other), -EBUSY);
        ck_assert_ptr_null(other);
        ck_assert_int_eq(open_device(file, PLOOP_DEV_READ_ONLY, &other), -EBUSY);
        ck_assert_int_eq(ploop_file_pread(file, &byte, 1, 0), 1);
        ck_assert_int_eq(byte, 'W');
        ck_assert_int_eq(check(file, 0), 0);
        if (i == 0) {
            ploop_dev_abort(dev);
        } else {
            ck_assert_int_eq(ploop_dev_close(dev), 0);
        }
        expect_free(file);
        ck_assert_int_eq(ploop_file_sync(file), 0);
    }
    ck_assert_int_eq(check(file, PLOOP_REPAIR_LEAKS), 0);
    expect_free(file);
    ploop_file_close(file);
}
END_TEST

START_TEST(devices_that_read_share_a_file)
{
    ploop_file *file = new_image();
    ploop_dev *first, *second, *writer;
    ck_assert_int_eq(open_device(file, PLOOP_DEV_READ_ONLY, &first), 0);
    ck_assert_int_eq(open_device(file, PLOOP_DEV_READ_ONLY, &second), 0);
    ck_assert_int_eq(open_device(file, 0, &writer), -EBUSY);
    ck_assert_int_eq(create(file), -EBUSY);
    ck_assert_int_eq(check(file, PLOOP_REPAIR_LEAKS), -EBUSY);
    ck_assert_int_eq(ploop_file_sync(file), 0);
    ck_assert_int_eq(ploop_dev_close(first), 0);
    ck_assert_int_eq(open_device(file, 0, &writer), -EBUSY);
    ck_assert_int_eq(ploop_dev_close(second), 0);
    ck_assert_int_eq(open_device(file, 0, &writer), 0);
    ck_assert_int_eq(ploop_dev_close(writer), 0);
    ploop_file_close(file);
}
END_TEST

START_TEST(a_call_that_syncs_and_a_device_that_writes_exclude_each_other)
{
    ploop_file *file = new_image();
    ploop_dev *dev;
    ck_assert_int_eq(file_claim(file, FILE_SHARED),
                     0); /* the claim of a running ploop_file_sync() */
    ck_assert_int_eq(open_device(file, 0, &dev), -EBUSY);
    ck_assert_int_eq(open_device(file, PLOOP_DEV_READ_ONLY, &dev), 0);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    file_give_back(file, FILE_SHARED);
    ck_assert_int_eq(file_claim(file, FILE_ALONE), 0); /* the claim of a repair */
    ck_assert_int_eq(open_device(file, PLOOP_DEV_READ_ONLY, &dev), -EBUSY);
    file_give_back(file, FILE_ALONE);
    ploop_file_close(file);
}
END_TEST

START_TEST(an_open_that_fails_gives_the_files_back)
{
    static const int memory[] = {0, 4000};
    struct tower tower;
    tower_of_two(&tower, 2);
    for (int i = 0; i < 2; i++) { /* the map is too large; the mark cannot be written */
        tower.rig.config.bat_limit_bytes = (uint64_t)memory[i];
        script_fail(&tower.rig.script, PLOOP_IO_SYNC, 0, 1, -EIO);
        ck_assert_int_eq(rig_try_open(&tower.rig), memory[i] ? -EFBIG : -EIO);
        expect_free(tower.rig.script.file);
        expect_free(tower.lowers[0].file);
    }
    ck_assert_int_eq(file_claim(tower.rig.script.file, FILE_SHARED), 0);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EBUSY);
    expect_free(tower.lowers[0].file);
    file_give_back(tower.rig.script.file, FILE_SHARED);
    tower_free(&tower);
}
END_TEST

/*
 * Below a device that writes, files are only read. The open makes each one that is not clean so,
 * once.
 */
START_TEST(a_lower_delta_is_shared_but_for_its_recovery)
{
    struct tower tower;
    ploop_dev *reader;
    tower_top(&tower, &(struct image_plan){.map = tower_top_map});
    tower_add(&tower, &(struct image_plan){.map = tower_base_map, .in_use = 0x746F6E59});
    ploop_file *base = tower.lowers[0].file;
    tower.rig.config.flags = PLOOP_DEV_RECOVER;
    ck_assert_int_eq(open_device(base, PLOOP_DEV_READ_ONLY, &reader), 0);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EBUSY);
    ck_assert_int_eq(atomic_load(&base->claims), 1);
    ck_assert_int_eq(ploop_dev_close(reader), 0);

    rig_open(&tower.rig);
    ck_assert_int_eq(atomic_load(&base->claims), 1);
    ck_assert_int_eq(open_device(base, PLOOP_DEV_READ_ONLY, &reader), 0);
    ck_assert_int_eq(ploop_dev_close(reader), 0);
    ck_assert_int_eq(open_device(base, 0, &reader), -EBUSY);
    rig_close_dev(&tower.rig);
    expect_free(base);
    ck_assert_int_eq(open_device(base, 0, &reader), 0);
    ck_assert_int_eq(rig_try_open(&tower.rig), -EBUSY);
    expect_free(tower.rig.script.file);
    ck_assert_int_eq(ploop_dev_close(reader), 0);
    tower_free(&tower);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_file_that_a_device_writes_is_used_by_nothing_else,
        devices_that_read_share_a_file,
        a_call_that_syncs_and_a_device_that_writes_exclude_each_other,
        an_open_that_fails_gives_the_files_back,
        a_lower_delta_is_shared_but_for_its_recovery,
    };
    return RUN_TESTS("claims", tests);
}
