/* SPDX-License-Identifier: MIT */
/*
 * The format extension of images that are opened for writing: what is kept, what is dropped, in
 * which order, and what is left after a failure. The oracle reads it back.
 */
#include "extension_rig.h"
#include "run_tests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "oracle/oracle_extension.h"
#include "util/bytes.h"

/* ---- kept features ---- */

START_TEST(each_mix_after_a_clean_close)
{
    for (uint32_t i = 0; i < 2 * EXTENSION_MIXES; i++) {
        struct rig rig;
        extension_make(&rig, 1 + i % 2, CLOSED, extension_mixes[i / 2].features);
        rig_open(&rig);
        extension_expect(&rig, extension_mixes[i / 2].kept);
        ck_assert(rig_file_marked(&rig));
        extension_expect_guest(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, 512, 0x11, 0), 0);
        ck_assert_int_eq(rig_write(&rig, (uint64_t)20 * CLUSTER, 40 * CLUSTER, 0x22, 0), 0);
        rig_expect(&rig, (uint64_t)20 * CLUSTER, 40 * CLUSTER, 0x22);
        rig_close_dev(&rig);
        extension_expect(&rig, extension_mixes[i / 2].kept);
        ck_assert_uint_eq(in_use(&rig), extension_mixes[i / 2].kept[0] ? CLOSED : 0);
        ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
        /* and again, with nothing left to drop */
        uint64_t where = extension_at(&rig);
        rig_open(&rig);
        ck_assert_uint_eq(extension_at(&rig), where);
        rig_expect(&rig, (uint64_t)20 * CLUSTER, 40 * CLUSTER, 0x22);
        rig_close_dev(&rig);
        extension_expect(&rig, extension_mixes[i / 2].kept);
        ck_assert_uint_eq(extension_at(&rig), where);
        rig_free(&rig);
    }
}
END_TEST

START_TEST(a_necessary_feature_refuses_writing)
{
    static const char *const features[] = {"n", "k", "nt", "bnt", "tk"};
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        struct rig rig;
        extension_make(&rig, 2, CLOSED, features[i]);
        uint8_t before[(HOSTS + 2) * CLUSTER];
        ck_assert_uint_le(rig.script.file_size, sizeof(before));
        memcpy(before, rig.script.bytes, rig.script.file_size);
        ck_assert_int_eq(rig_try_open(&rig), -ENOTSUP);
        ck_assert_uint_eq(rig.log_lines, 1);
        ck_assert_ptr_nonnull(strstr(rig.log_text, "necessary"));
        ck_assert_mem_eq(rig.script.bytes, before, rig.script.file_size);
        rig.config.flags = PLOOP_DEV_READ_ONLY;
        rig_open(&rig);
        extension_expect_guest(&rig);
        rig_free(&rig);
    }
}
END_TEST

/*
 * After a crash the extension is void. Until RECOVER drops it, ext_off points to an extension that
 * is whole and has no bitmap.
 */
START_TEST(each_mix_after_a_crash)
{
    for (uint32_t i = 0; i < EXTENSION_MIXES; i++) {
        struct rig rig;
        extension_make(&rig, 2, CLOSED, extension_mixes[i].features);
        rig_open(&rig);
        ck_assert_int_eq(rig_write(&rig, (uint64_t)20 * CLUSTER, 40 * CLUSTER, 0x22, 0), 0);
        ck_assert_int_eq(rig_flush(&rig), 0);
        ploop_dev_abort(rig.dev);
        rig.dev = NULL;
        ck_assert(rig_file_marked(&rig));
        extension_expect(&rig, extension_mixes[i].kept);
        rig.config.flags = PLOOP_DEV_RECOVER;
        rig_open(&rig);
        ck_assert_uint_eq(extension_at(&rig), 0);
        extension_expect_guest(&rig);
        rig_close_dev(&rig);
        ck_assert_uint_eq(in_use(&rig), 0);
        ck_assert_uint_eq(extension_at(&rig), 0);
        ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
        rig_free(&rig);
    }
}
END_TEST

/* ---- the order ---- */

/* For the image's mix "bt": the mark, then the new cluster, then the header. */
START_TEST(the_header_leads_there_when_it_is_durable)
{
    struct rig rig;
    extension_make(&rig, 2, CLOSED, "bt");
    uint8_t old[2 * CLUSTER];
    memcpy(old, rig.script.bytes + host_at(&rig, EXTENSION_HOST), sizeof(old));
    ck_assert_int_eq(rig_try_open(&rig), 0);
    uint64_t where = extension_at(&rig);
    ck_assert_uint_gt(where, host_at(&rig, BITMAP_HOST));
    uint32_t data = script_log_find(&rig.script, PLOOP_IO_WRITE, 0);
    ck_assert_uint_eq(rig.script.log[data].offset, where);
    ck_assert_uint_eq(rig.script.log[data].length, CLUSTER);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 1);
    ck_assert_uint_eq(rig.script.submitted[SCRIPT_META], 2);
    /* SYNC mark SYNC, the file grows, N, SYNC header SYNC */
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 1),
                      script_log_find(&rig.script, PLOOP_IO_TRUNCATE, 0));
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_TRUNCATE, 0), data);
    ck_assert_uint_lt(data, script_log_find(&rig.script, PLOOP_IO_SYNC, 2));
    ck_assert_uint_lt(script_log_find(&rig.script, PLOOP_IO_SYNC, 2),
                      script_log_find(&rig.script, SCRIPT_META, 1));
    ck_assert_uint_lt(script_log_find(&rig.script, SCRIPT_META, 1),
                      script_log_find(&rig.script, PLOOP_IO_SYNC, 3));
    /* the old cluster is unchanged until its space is needed */
    ck_assert_mem_eq(rig.script.bytes + host_at(&rig, EXTENSION_HOST), old, sizeof(old));
    rig_close_dev(&rig);
    rig_free(&rig);
}
END_TEST

/*
 * The old clusters are used again, the new one never, whatever the guest writes to a file that
 * cannot grow.
 */
START_TEST(old_clusters_are_free_and_the_new_one_is_not)
{
    struct rig rig;
    extension_make(&rig, 2, CLOSED, "bt");
    rig_open(&rig);
    uint64_t where = extension_at(&rig);
    rig.script.size_max = rig.script.file_size;
    uint32_t fit = 0;
    while (fit < 100 && rig_write(&rig, (uint64_t)(20 + fit) * CLUSTER, CLUSTER, 0x33, 0) == 0) {
        fit++;
    }
    ck_assert_uint_ge(fit, 2);
    ck_assert_uint_lt(fit, 100);
    ck_assert_int_eq(rig_flush(&rig), 0);
    uint32_t again = 0;
    for (uint32_t i = 0; i < fit; i++) {
        uint64_t offset = rig_file_offset(&rig, 20 + i);
        ck_assert_uint_ne(offset, where);
        again += offset == host_at(&rig, EXTENSION_HOST) || offset == host_at(&rig, BITMAP_HOST);
    }
    ck_assert_uint_eq(again, 2);
    extension_expect_guest(&rig);
    rig_close_dev(&rig);
    extension_expect(&rig, "t");
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

/* A cluster that stays in its place is never handed out either. */
START_TEST(a_cluster_that_stays_is_not_handed_out)
{
    struct rig rig;
    extension_make(&rig, 1, CLOSED, "t");
    rig_open(&rig);
    rig.script.size_max = rig.script.file_size;
    ck_assert_int_eq(rig_write(&rig, (uint64_t)20 * CLUSTER, CLUSTER, 0x33, 0),
                     0); /* where the bits were */
    ck_assert_int_eq(rig_write(&rig, (uint64_t)21 * CLUSTER, CLUSTER, 0x33, 0), -ENOSPC);
    rig_close_dev(&rig);
    extension_expect(&rig, "t");
    ck_assert_int_eq(oracle_status(rig.script.bytes, rig.script.file_size), 0);
    rig_free(&rig);
}
END_TEST

START_TEST(large_and_odd_clusters)
{
    static const uint32_t sectors[] = {1, 63, 504, 2048};
    for (size_t i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
        struct rig rig;
        uint64_t size, cluster = (uint64_t)sectors[i] * 512;
        struct extension_plan plan;
        uint8_t *image = image_build(&(struct image_plan){.in_use = CLOSED,
                                                          .cluster_sectors = sectors[i],
                                                          .entries = 200,
                                                          .host_clusters = 1,
                                                          .map = MAP_NONE},
                                     &size);
        uint64_t start = image_data_start(image);
        extension_begin(&plan, image + start, (uint32_t)cluster);
        extension_add(&plan, UNKNOWN + 't', TRANSIT, "kept as it is", 13);
        extension_add(&plan, UNKNOWN + 'p', 0, "plain", 5);
        extension_end(&plan);
        store_le64(image + AT_EXT_OFF, start / 512);
        rig_adopt(&rig, image, size, 0);
        free(image);
        rig.script.max_transfer = 4096;
        rig.script.short_bytes = 1024;
        rig_open(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, cluster, 0x44, 0), 0);
        rig_close_dev(&rig);
        extension_expect(&rig, "t");
        ck_assert_int_ne(oracle_status(rig.script.bytes, rig.script.file_size), 2);
        rig_free(&rig);
    }
}
END_TEST

/* ---- failures ---- */

/*
 * A failed open leaves the file closed as it was found, or marked; in the latter case no stale data
 * is visible.
 */
static void expect_left(struct rig *rig, const uint8_t *before, uint64_t size, const char *features,
                        const char *kept)
{
    char letters[16];
    extension_found(rig, letters);
    if (rig_file_marked(rig)) {
        ck_assert_msg(!letters[0] || strcmp(letters, kept) == 0,
                      "marked, and ext_off leads to \"%s\"", letters);
    } else {
        ck_assert_str_eq(letters, features);
        /* unowned space may have been zeroed or cut off */
        bool leak = !strchr(features, 'b');
        ck_assert_mem_eq(rig->script.bytes, before, leak ? host_at(rig, BITMAP_HOST) : size);
        ck_assert(leak || rig->script.file_size == size);
    }
}

static void fail_each_call(const char *features, const char *kept, uint32_t kind, uint64_t times,
                           int error)
{
    bool touched = true;
    uint32_t read_again = 0;
    const char *left = kept[0] ? kept : features; /* by a session that changed nothing */
    for (uint64_t nth = 0; touched; nth++) {
        struct rig rig;
        extension_make(&rig, 2, CLOSED, features);
        uint64_t size = rig.script.file_size;
        uint8_t *before = malloc(size);
        memcpy(before, rig.script.bytes, size);
        script_fail(&rig.script, kind, nth, times, error);
        int result = rig_try_open(&rig);
        touched = rig.script.submitted[kind] > nth;
        if (result == 0 && touched && kind == PLOOP_IO_READ && times == 1) {
            read_again++; /* pages of the BAT, which are read one by one then */
        } else {
            ck_assert_int_eq(result, !touched ? 0 : kind == PLOOP_IO_SYNC ? -EIO : error);
        }
        if (result) {
            expect_left(&rig, before, size, features, kept);
            /* one failure, and not a SYNC's: the file could be written, so it is unchanged */
            ck_assert(times > 1 || kind == PLOOP_IO_SYNC || !rig_file_marked(&rig));
            script_fail(&rig.script, kind, 0, 0, 0);
            rig.config.flags = rig_file_marked(&rig) ? PLOOP_DEV_RECOVER : 0;
            const char *then = rig_file_marked(&rig) ? "" : left;
            rig_open(&rig);
            extension_expect_guest(&rig);
            rig_close_dev(&rig);
            extension_expect(&rig, then);
        } else {
            script_fail(&rig.script, kind, 0, 0, 0);
            rig_close_dev(&rig);
            extension_expect(&rig, left);
        }
        free(before);
        rig_free(&rig);
        ck_assert_uint_lt(nth, 100);
    }
    ck_assert_uint_le(read_again, 1); /* the BAT is one read long */
}

START_TEST(each_call_of_an_open_fails)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, SCRIPT_META, PLOOP_IO_SYNC,
                                     PLOOP_IO_TRUNCATE};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        fail_each_call("bt", "t", kinds[i], 1, -EIO);
        fail_each_call("bt", "t", kinds[i], UINT64_MAX, -EIO);
        fail_each_call("Tp", "T", kinds[i], 1, -ENODEV);
        fail_each_call("t", "t", kinds[i], 1, -EIO);
        fail_each_call("b", "", kinds[i], 1, -EIO);
    }
}
END_TEST

/*
 * Fail each call of a session and its close: what a close with result 0 leaves is kept, what any
 * other close leaves is void.
 */
START_TEST(each_call_of_a_session_fails)
{
    static const uint32_t kinds[] = {PLOOP_IO_WRITE, SCRIPT_META, PLOOP_IO_SYNC, PLOOP_IO_TRUNCATE,
                                     PLOOP_IO_PUNCH};
    for (size_t i = 0; i < 2 * sizeof(kinds) / sizeof(kinds[0]); i++) {
        bool touched = true;
        for (uint64_t nth = 0; touched; nth++) {
            struct rig rig;
            extension_make(&rig, 2, CLOSED, "bt");
            rig_open(&rig);
            script_fail(&rig.script, kinds[i / 2], nth, i % 2 ? 1 : UINT64_MAX, -EIO);
            for (uint32_t cluster = 20; cluster < 26; cluster++) {
                rig_write(&rig, (uint64_t)cluster * CLUSTER, CLUSTER, 0x55, PLOOP_PIO_FUA);
            }
            rig_discard(&rig, 0, 2 * CLUSTER);
            rig_flush(&rig);
            int result = ploop_dev_close(rig.dev);
            rig.dev = NULL;
            touched = rig.script.submitted[kinds[i / 2]] > nth;
            ck_assert(result || !rig_file_marked(&rig));
            if (!rig_file_marked(&rig)) {
                ck_assert_uint_eq(in_use(&rig), CLOSED);
            }
            extension_expect(&rig, "t");
            rig_free(&rig);
            ck_assert_uint_lt(nth, 200);
        }
    }
}
END_TEST

START_TEST(without_space_the_open_fails_and_nothing_is_lost)
{
    struct rig rig;
    extension_make(&rig, 2, CLOSED, "bpt");
    uint64_t size = rig.script.file_size;
    uint8_t *before = malloc(size);
    memcpy(before, rig.script.bytes, size);
    rig.script.size_max = size;
    rig.config.enospc_policy = PLOOP_ENOSPC_PARK;
    ck_assert_int_eq(rig_try_open(&rig), -ENOSPC);
    ck_assert_uint_eq(rig.log_lines, 1);
    ck_assert_ptr_nonnull(strstr(rig.log_text, "extension"));
    expect_left(&rig, before, size, "bpt", "t");
    ck_assert(!rig_file_marked(&rig));
    rig.script.size_max = UINT64_MAX;
    rig_open(&rig);
    rig_close_dev(&rig);
    extension_expect(&rig, "t");
    free(before);
    rig_free(&rig);
}
END_TEST

/* A file that cannot grow, with a free cluster in it. */
START_TEST(a_free_cluster_of_the_file_will_do)
{
    struct rig rig;
    extension_make(&rig, 2, CLOSED, "pt");
    rig.script.capabilities = PLOOP_FILE_CAN_PUNCH;
    rig_open(&rig);
    ck_assert_uint_eq(extension_at(&rig), host_at(&rig, BITMAP_HOST)); /* unowned in this image */
    rig_close_dev(&rig);
    extension_expect(&rig, "t");
    rig_free(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {each_mix_after_a_clean_close,
                                  a_necessary_feature_refuses_writing,
                                  each_mix_after_a_crash,
                                  the_header_leads_there_when_it_is_durable,
                                  old_clusters_are_free_and_the_new_one_is_not,
                                  a_cluster_that_stays_is_not_handed_out,
                                  large_and_odd_clusters,
                                  each_call_of_an_open_fails,
                                  each_call_of_a_session_fails,
                                  without_space_the_open_fails_and_nothing_is_lost,
                                  a_free_cluster_of_the_file_will_do};
    return RUN_TESTS("extension_keep", tests);
}
