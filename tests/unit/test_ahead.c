/* SPDX-License-Identifier: MIT */
/* Blocks that are allocated ahead of sequential writes, and how they are given back. */
#include "device_fixture.h"
#include "run_tests.h"

#include <errno.h>

#include "space/ahead.h"

enum { CLUSTER = 4096, MIN = AHEAD_STREAM_MIN };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void open_rig(struct rig *rig)
{
    rig_create(rig, 2, UINT64_C(64) << 20, CLUSTER, 0);
    rig_open(rig);
    script_forget(&rig->script);
}

/* Sequential writes of 512 bytes, each into another new cluster. */
static void write_stream(struct rig *rig, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        ck_assert_int_eq(rig_write(rig, at(i), 512, (uint8_t)(i + 1), 0), 0);
    }
}

static void expect_stream(struct rig *rig, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        rig_expect(rig, at(i), 512, (uint8_t)(i + 1));
        rig_expect(rig, at(i) + 512, CLUSTER - 512, 0);
    }
}

static uint64_t allocates(const struct rig *rig)
{
    return rig->script.submitted[PLOOP_IO_ALLOCATE];
}

static const struct script_entry *nth(const struct rig *rig, uint32_t kind, uint32_t n)
{
    return &rig->script.log[script_log_find(&rig->script, kind, n)];
}

/* ---- which writes get them ---- */

START_TEST(sequential_writes_get_blocks_ahead)
{
    enum { COUNT = 256 };
    struct rig rig;
    open_rig(&rig);
    write_stream(&rig, 7, MIN - 1);
    ck_assert_uint_eq(allocates(&rig), 0);
    write_stream(&rig, 7 + MIN - 1, 1);
    ck_assert_uint_eq(allocates(&rig), 1);
    write_stream(&rig, 7 + MIN, COUNT - MIN);
    /* One follows the other, none is longer than what was written, and they become longer. */
    uint64_t end = rig.data_start + at(MIN), written = 0;
    for (uint32_t i = 0; i < allocates(&rig); i++) {
        const struct script_entry *entry = nth(&rig, PLOOP_IO_ALLOCATE, i);
        ck_assert_uint_eq(entry->offset, end);
        ck_assert_uint_gt(entry->length, 0);
        end += entry->length;
        ck_assert_uint_le(end, rig.script.file_size);
        for (written = 0; nth(&rig, PLOOP_IO_WRITE, (uint32_t)written) < entry; written++) {
        }
        ck_assert_uint_le(end, rig.data_start + at(2 * written + 2));
    }
    ck_assert_uint_ge(end, rig.data_start + at(COUNT));
    ck_assert_uint_le(allocates(&rig), 16);
    expect_stream(&rig, 7, COUNT);
    rig_end(&rig);
}
END_TEST

START_TEST(scattered_writes_get_none)
{
    struct rig rig;
    open_rig(&rig);
    for (uint64_t i = 0; i < 64; i++) {
        ck_assert_int_eq(rig_write(&rig, at(2 * i), 512, 1, 0), 0);          /* not the next */
        ck_assert_int_eq(rig_write(&rig, at(1000 - i), 512, 1, 0), 0);       /* backwards */
        ck_assert_int_eq(rig_write(&rig, at(2000 + i) + 512, 512, 1, 0), 0); /* not entered */
        ck_assert_int_eq(rig_zeroes(&rig, at(3000 + i), CLUSTER, 0), 0);
    }
    ck_assert_uint_eq(allocates(&rig), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(streams_beside_each_other_are_seen)
{
    struct rig rig;
    open_rig(&rig);
    for (uint64_t i = 0; i < 64; i++) {
        write_stream(&rig, i, 1);
        write_stream(&rig, 1000 + i, 1);
        for (uint64_t other = 0; other < (i < MIN ? 1 : AHEAD_STREAMS); other++) {
            ck_assert_int_eq(rig_write(&rig, at(2000 + 20 * i + 2 * other), 512, 1, 0), 0);
        }
    }
    ck_assert_uint_gt(allocates(&rig), 4);
    /* The last one came late: scattered writes have not hidden the streams. */
    uint32_t last = script_log_find(&rig.script, PLOOP_IO_ALLOCATE, (uint32_t)allocates(&rig) - 1);
    ck_assert_uint_gt(last, rig.script.log_count * 3 / 4);
    expect_stream(&rig, 0, 64);
    expect_stream(&rig, 1000, 64);
    rig_end(&rig);
}
END_TEST

START_TEST(one_long_write_is_a_stream)
{
    struct rig rig;
    open_rig(&rig);
    ck_assert_int_eq(rig_write(&rig, at(10) + 512, 8 * CLUSTER, 5, 0), 0);
    ck_assert_uint_gt(allocates(&rig), 0);
    rig_end(&rig);
}
END_TEST

START_TEST(there_is_a_most)
{
    struct ahead ahead = {0};
    uint64_t cluster = UINT64_C(1) << 20, wanted = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        wanted = ahead_enter(&ahead, (struct guest_cluster){i}, cluster);
        ck_assert_uint_eq(wanted, i + 1 < MIN                     ? 0
                                  : i + 1 < AHEAD_BYTES_MAX >> 20 ? i + 1
                                                                  : AHEAD_BYTES_MAX >> 20);
    }
    ck_assert_uint_eq(ahead_enter(&ahead, (struct guest_cluster){1000}, 2 * AHEAD_BYTES_MAX), 0);
    ck_assert_uint_eq(ahead_enter(&ahead, (struct guest_cluster){5000}, cluster), 0);
}
END_TEST

START_TEST(not_where_blocks_could_not_be_given_back)
{
    static const uint32_t without[] = {PLOOP_FILE_CAN_ALLOCATE, PLOOP_FILE_CAN_PUNCH, 0};
    for (int i = 0; i < 3; i++) {
        struct rig rig;
        rig_create(&rig, 2, UINT64_C(64) << 20, CLUSTER, 0);
        rig.script.capabilities &= ~without[i];
        rig.config.flags |= without[i] ? 0 : PLOOP_DEV_HOST_SHOWS_STALE;
        rig_open(&rig);
        script_forget(&rig.script);
        write_stream(&rig, 0, 32);
        ck_assert_uint_eq(allocates(&rig), 0);
        rig_end(&rig);
    }
}
END_TEST

START_TEST(a_backend_is_told_which_writes_have_no_blocks)
{
    struct rig rig;
    open_rig(&rig);
    ck_assert_int_eq(rig_write(&rig, at(50), 512, 1, 0), 0);
    ck_assert_uint_eq(nth(&rig, PLOOP_IO_WRITE, 0)->flags, PLOOP_IO_ALLOCATES);
    ck_assert_int_eq(rig_write(&rig, at(50), 512, 1, 0), 0); /* mapped */
    ck_assert_uint_eq(nth(&rig, PLOOP_IO_WRITE, 1)->flags, 0);
    write_stream(&rig, 0, MIN + 2);
    for (uint32_t i = 0; i < MIN + 2; i++) {
        ck_assert_uint_eq(nth(&rig, PLOOP_IO_WRITE, 2 + i)->flags,
                          i < MIN ? PLOOP_IO_ALLOCATES : 0u);
    }
    rig_end(&rig);
}
END_TEST

/* ---- no request waits for them ---- */

START_TEST(writes_go_on_meanwhile)
{
    struct rig rig;
    open_rig(&rig);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_ALLOCATE);
    write_stream(&rig, 0, 64);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(allocates(&rig), 1);
    ck_assert_uint_eq(rig.script.held_count, 1);
    script_release_all(&rig.script);
    write_stream(&rig, 64, 64);
    ck_assert_uint_gt(allocates(&rig), 1);
    expect_stream(&rig, 0, 128);
    rig_end(&rig);
}
END_TEST

START_TEST(a_close_cuts_them_off)
{
    struct rig rig;
    open_rig(&rig);
    write_stream(&rig, 0, 33);
    const struct script_entry *last = nth(&rig, PLOOP_IO_ALLOCATE, (uint32_t)allocates(&rig) - 1);
    ck_assert_uint_gt(last->offset + last->length, rig.data_start + at(33));
    rig_close_dev(&rig);
    ck_assert_uint_eq(rig.script.file_size, rig.data_start + at(33));
    rig_free(&rig);
}
END_TEST

/* ---- failures ---- */

START_TEST(a_backend_that_cannot_is_asked_once)
{
    struct rig rig;
    open_rig(&rig);
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, UINT64_MAX, -ENOTSUP);
    write_stream(&rig, 0, 64);
    ck_assert_uint_eq(allocates(&rig), 1);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_PUNCH], 0);
    rig_end(&rig);
}
END_TEST

/* What it may have allocated in part is given back, and it is not tried before an extension. */
START_TEST(without_space_nothing_is_kept)
{
    struct rig rig;
    open_rig(&rig);
    uint64_t data = rig.data_start;
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 1, 1, -ENOSPC);
    write_stream(&rig, 0, 64);
    ck_assert_uint_eq(allocates(&rig), 2);
    const struct script_entry *second = nth(&rig, PLOOP_IO_ALLOCATE, 1),
                              *punch = nth(&rig, PLOOP_IO_PUNCH, 0);
    ck_assert_uint_eq(punch->offset + punch->length, second->offset + second->length);
    ck_assert_uint_lt(punch->offset, second->offset); /* what the first one had left, too */
    ck_assert_uint_gt(punch->offset, data + at(MIN));
    expect_stream(&rig, 0, 64);
    ck_assert_int_eq(rig_flush(&rig), 0);
    expect_stream(&rig, 0, 64);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(an_extension_is_a_reason_to_try_again)
{
    struct rig rig;
    rig_create(&rig, 2, UINT64_C(64) << 20, CLUSTER, 0);
    rig.config.preallocate_bytes = 64 * CLUSTER;
    rig_open(&rig);
    script_forget(&rig.script);
    script_fail(&rig.script, PLOOP_IO_ALLOCATE, 0, 1, -EIO);
    write_stream(&rig, 0, 16);
    ck_assert_uint_eq(allocates(&rig), 1);
    write_stream(&rig, 16, 128);
    ck_assert_uint_gt(allocates(&rig), 1);
    expect_stream(&rig, 0, 144);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_write_without_space_gets_their_space)
{
    struct rig rig;
    struct req write;
    open_rig(&rig);
    write_stream(&rig, 0, 33);
    const struct script_entry *last = nth(&rig, PLOOP_IO_ALLOCATE, (uint32_t)allocates(&rig) - 1);
    uint64_t blocks_end = last->offset + last->length, data = rig.data_start;
    script_forget(&rig.script);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, 1, -ENOSPC);
    req_write(&write, &rig, at(3) + 1024, 512, 9, 0); /* into a hole of a mapped cluster */
    ck_assert_int_eq(req_wait(&write), 0);
    const struct script_entry *punch = nth(&rig, PLOOP_IO_PUNCH, 0);
    ck_assert_uint_eq(punch->offset, data + at(33));
    ck_assert_uint_eq(punch->offset + punch->length, blocks_end);
    rig_expect(&rig, at(3) + 1024, 512, 9);
    /* The clusters are not lost, and without an extension no more blocks are allocated. */
    write_stream(&rig, 33, 64);
    ck_assert_uint_eq(allocates(&rig), 0);
    ck_assert_uint_eq(rig_file_entry(&rig, 33), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_file_offset(&rig, 33), data + at(33));
    rig_end(&rig);
}
END_TEST

/*
 * Of several writes without space the first has blocks given back. The others get that space too:
 * one that fails meanwhile, and one that failed before and is heard only after it.
 */
START_TEST(writes_without_space_wait_for_what_is_on_its_way)
{
    enum { COUNT = 3, HELD = 2 };
    struct rig rig;
    struct req writes[COUNT];
    open_rig(&rig);
    write_stream(&rig, 0, 33);
    script_forget(&rig.script);
    script_fail(&rig.script, PLOOP_IO_WRITE, 0, COUNT, -ENOSPC);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_PUNCH);
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i == HELD) {
            rig.script.hold |= SCRIPT_BIT(PLOOP_IO_WRITE);
        }
        req_write(&writes[i], &rig, at(3 + i) + 1024, 512, (uint8_t)(100 + i), 0);
        rig_advance(&rig, 0);
    }
    ck_assert_uint_eq(script_held_of(&rig.script, PLOOP_IO_PUNCH), 1);
    ck_assert_uint_eq(script_held_of(&rig.script, PLOOP_IO_WRITE), 1);
    ck_assert_uint_eq(rig.script.completed[PLOOP_IO_WRITE], HELD);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_WRITE);
    ck_assert(script_release_kind(&rig.script, PLOOP_IO_PUNCH));
    rig_advance(&rig, 0);
    script_release_all(&rig.script);
    for (uint32_t i = 0; i < COUNT; i++) {
        ck_assert_int_eq(req_wait(&writes[i]), 0);
        rig_expect(&rig, at(3 + i) + 1024, 512, (uint8_t)(100 + i));
    }
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], COUNT + COUNT);
    rig_end(&rig);
}
END_TEST

/* On a host that writes in new places, a page that has its blocks can find no space. */
START_TEST(a_page_without_space_gets_their_space)
{
    struct rig rig;
    open_rig(&rig);
    write_stream(&rig, 0, 33);
    script_forget(&rig.script);
    script_fail(&rig.script, SCRIPT_META, 0, 1, -ENOSPC);
    ck_assert_int_eq(rig_flush(&rig), -ENOSPC);
    ck_assert_uint_eq(nth(&rig, PLOOP_IO_PUNCH, 0)->offset, rig.data_start + at(33));
    ck_assert_int_eq(rig_flush(&rig), 0);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {sequential_writes_get_blocks_ahead,
                                  scattered_writes_get_none,
                                  streams_beside_each_other_are_seen,
                                  one_long_write_is_a_stream,
                                  there_is_a_most,
                                  not_where_blocks_could_not_be_given_back,
                                  a_backend_is_told_which_writes_have_no_blocks,
                                  writes_go_on_meanwhile,
                                  a_close_cuts_them_off,
                                  a_backend_that_cannot_is_asked_once,
                                  without_space_nothing_is_kept,
                                  an_extension_is_a_reason_to_try_again,
                                  a_write_without_space_gets_their_space,
                                  writes_without_space_wait_for_what_is_on_its_way,
                                  a_page_without_space_gets_their_space};
    return RUN_TESTS("ahead", tests);
}
