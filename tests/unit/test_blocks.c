/* SPDX-License-Identifier: MIT */
/*
 * Files whose requests have to be multiples of blocks larger than a sector (R17): requests of whole
 * sectors do what they do elsewhere, and two that share a block do not undo each other. The backend
 * refuses what is not aligned.
 */
#include "device_fixture.h"
#include "file/bounce.h"
#include "image_fixture.h"
#include "run_tests.h"
#include "tower_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, BLOCK = 4096 };

struct kind_of_file {
    uint32_t version, cluster_sectors, alignment, capabilities;
};

/* Data from sector 9 on in version 1: the BAT ends inside of a block, and data begins there. */
static const struct kind_of_file files[] = {
    {1, 63, 4096, SCRIPT_CAN_ALL},
    {1, 63, 65536, SCRIPT_CAN_ALL},
    {1, 8, 4096, PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_FUA},
    {1, 3, 4096, SCRIPT_CAN_ALL | PLOOP_FILE_CAN_FUA},
    {2, 16, 4096, SCRIPT_CAN_ALL},
    {2, 16, 65536, PLOOP_FILE_CAN_GROW},
    {2, 1, 4096, SCRIPT_CAN_ALL},
    {2, 256, 65536, SCRIPT_CAN_ALL | PLOOP_FILE_CAN_FUA},
    {1, 2, 1024, SCRIPT_CAN_ALL},
};

static void open_file(struct rig *rig, const struct kind_of_file *kind)
{
    struct image_plan plan = {.version = kind->version, .cluster_sectors = kind->cluster_sectors};
    uint64_t size;
    uint8_t *image = image_build(&plan, &size);
    rig_adopt(rig, image, size, 0);
    free(image);
    rig->script.alignment = kind->alignment;
    rig->script.capabilities = kind->capabilities;
    rig_open(rig);
}

static uint32_t next_random(uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*random >> 33);
}

/* ---- any request, one after the other ---- */

struct shadow {
    struct rig *rig;
    uint64_t random, sectors;
    uint8_t *bytes, *seen;
};

static void shadow_read(struct shadow *shadow, uint64_t from, uint64_t count)
{
    uint8_t *to = shadow->seen + 1; /* any memory will do */
    int64_t got = ploop_dev_pread(shadow->rig->dev, to, count * SECTOR, from * SECTOR);
    ck_assert_int_eq(got, (int64_t)(count * SECTOR));
    if (memcmp(to, shadow->bytes + from * SECTOR, count * SECTOR) != 0) {
        uint64_t i = 0;
        while (to[i] == shadow->bytes[from * SECTOR + i]) {
            i++;
        }
        ck_abort_msg("sector %llu is %#x, not %#x", (unsigned long long)(from + i / SECTOR), to[i],
                     shadow->bytes[from * SECTOR + i]);
    }
}

static void shadow_discard(struct shadow *shadow, uint64_t from, uint64_t count)
{
    uint64_t cluster = shadow->rig->cluster / SECTOR;
    uint64_t first = (from + cluster - 1) / cluster, end = (from + count) / cluster;
    ck_assert_int_eq(rig_discard(shadow->rig, from * SECTOR, count * SECTOR), 0);
    if (first < end) {
        memset(shadow->bytes + first * cluster * SECTOR, 0, (end - first) * cluster * SECTOR);
    }
}

static void shadow_step(struct shadow *shadow, uint32_t step)
{
    uint32_t what = next_random(&shadow->random) % 16;
    uint64_t from = next_random(&shadow->random) % shadow->sectors;
    uint64_t most = next_random(&shadow->random) % 4 ? 12 : 3 * shadow->rig->cluster / SECTOR;
    uint64_t count = 1 + next_random(&shadow->random) % most;
    count = count < shadow->sectors - from ? count : shadow->sectors - from;
    uint64_t offset = from * SECTOR, length = count * SECTOR;
    uint32_t fua = what % 2 ? PLOOP_PIO_FUA : 0;
    if (what < 7) {
        uint8_t byte = (uint8_t)(step % 250 + 1);
        ck_assert_int_eq(rig_write(shadow->rig, offset, length, byte, fua), 0);
        memset(shadow->bytes + offset, byte, length);
    } else if (what < 10) {
        uint32_t flags = fua | (what == 8 ? PLOOP_PIO_NO_UNMAP : 0);
        ck_assert_int_eq(rig_zeroes(shadow->rig, offset, length, flags), 0);
        memset(shadow->bytes + offset, 0, length);
    } else if (what == 10) {
        shadow_discard(shadow, from, count);
    } else if (what == 11) {
        ck_assert_int_eq(rig_flush(shadow->rig), 0);
    } else {
        shadow_read(shadow, from, count);
    }
    if (step % 200 == 199) {
        rig_close_dev(shadow->rig);
        rig_open(shadow->rig);
        shadow_read(shadow, 0, shadow->sectors);
    }
}

static void shadow_run(struct rig *rig, uint64_t sectors, uint32_t steps)
{
    struct shadow shadow = {.rig = rig, .random = 1, .sectors = sectors};
    shadow.bytes = malloc(sectors * SECTOR);
    shadow.seen = malloc(sectors * SECTOR + 1);
    int64_t got = ploop_dev_pread(rig->dev, shadow.bytes, sectors * SECTOR, 0);
    ck_assert_int_eq(got, (int64_t)(sectors * SECTOR));
    for (uint32_t step = 0; step < steps; step++) {
        shadow_step(&shadow, step);
    }
    shadow_read(&shadow, 0, sectors);
    free(shadow.bytes);
    free(shadow.seen);
}

START_TEST(any_request_does_what_it_does_elsewhere)
{
    struct rig rig;
    open_file(&rig, &files[_i]);
    shadow_run(&rig, 12 * (uint64_t)files[_i].cluster_sectors, 1000);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(a_stack_is_copied_from_and_to_any_place)
{
    static const uint32_t alignments[][2] = {{4096, 1}, {1, 4096}, {4096, 4096}, {4096, 65536}};
    struct tower tower;
    tower_of_two(&tower, 1); /* data from sector 9 on */
    tower.rig.script.alignment = alignments[_i][0];
    tower.lowers[0].alignment = alignments[_i][1];
    tower_open(&tower);
    struct shadow shadow = {.rig = &tower.rig};
    shadow.bytes = malloc(32 * CLUSTER);
    shadow.seen = malloc(32 * CLUSTER + 1);
    uint64_t random = 1;
    ck_assert_int_eq(ploop_dev_pread(tower.rig.dev, shadow.bytes, 32 * CLUSTER, 0), 32 * CLUSTER);
    for (uint32_t step = 1; step < 100; step++) {
        uint64_t from = next_random(&random) % 250, count = 1 + next_random(&random) % 6;
        bool is_zeros = next_random(&random) % 4 == 0;
        int error = is_zeros
                        ? rig_zeroes(&tower.rig, from * SECTOR, count * SECTOR, 0)
                        : rig_write(&tower.rig, from * SECTOR, count * SECTOR, (uint8_t)step, 0);
        ck_assert_int_eq(error, 0);
        memset(shadow.bytes + from * SECTOR, is_zeros ? 0 : (int)step, count * SECTOR);
        shadow_read(&shadow, 0, 256);
    }
    free(shadow.bytes);
    free(shadow.seen);
    tower_end(&tower);
}
END_TEST

/* ---- the fast path ---- */

static void do_prepared(struct rig *rig, ploop_pio *pio)
{
    ck_assert_int_eq(ploop_queue_submit(rig->queue, &pio, 1), 1);
    while (ploop_queue_run(rig->queue) == 0) {
    }
    ploop_pio_put(pio);
}

static void note_success(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    (void)user_data;
    ck_assert_int_eq(result, 0);
}

static void do_write(struct rig *rig, void *memory, uint64_t length, uint64_t offset)
{
    ploop_pio *pio = ploop_pio_get(rig->queue);
    struct iovec iov = {memory, length};
    ploop_pio_prep_writev(pio, offset, &iov, 1, 0);
    ploop_pio_set_callback(pio, note_success, NULL);
    do_prepared(rig, pio);
}

static void do_read(struct rig *rig, void *memory, uint64_t length, uint64_t offset)
{
    ploop_pio *pio = ploop_pio_get(rig->queue);
    struct iovec iov = {memory, length};
    ploop_pio_prep_readv(pio, offset, &iov, 1);
    ploop_pio_set_callback(pio, note_success, NULL);
    do_prepared(rig, pio);
}

START_TEST(whole_blocks_take_the_fast_path)
{
    struct rig rig;
    open_file(&rig, &files[_i ? 4 : 0]);
    uint64_t in_file = rig_file_offset(&rig, 1);
    /* The first block that only guest cluster 1 has a part of. */
    uint64_t offset = rig.cluster + (in_file + BLOCK - 1) / BLOCK * BLOCK - in_file;
    void *pages = NULL;
    ck_assert_int_eq(posix_memalign(&pages, BLOCK, 2 * BLOCK), 0);
    uint8_t *memory = memset(pages, 7, 2 * BLOCK);
    do_write(&rig, memory, BLOCK, offset);
    do_read(&rig, memory + BLOCK, BLOCK, offset);
    ck_assert_uint_eq(rig_info(&rig).requests_fast, 2);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_READ], 1);
    /* A part of it, and other memory, do not. */
    do_write(&rig, memory, SECTOR, offset);
    do_write(&rig, memory + SECTOR, BLOCK, offset);
    do_read(&rig, memory + 1, BLOCK, offset);
    ck_assert_uint_eq(rig_info(&rig).requests_fast, 2);
    ck_assert_uint_eq(rig_info(&rig).memory_alignment, 1);
    ck_assert_uint_eq(rig_info(&rig).request_alignment, SECTOR);
    rig_expect(&rig, offset, BLOCK, 7);
    free(memory);
    rig_end_with_leaks(&rig);
}
END_TEST

/* ---- exclusion ---- */

/* A write of a part of a block keeps all others of its cluster out, from its read to its end. */
START_TEST(a_part_of_a_block_and_the_whole_of_it)
{
    struct rig rig;
    struct req part, whole;
    open_file(&rig, &files[4]);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_write(&part, &rig, 0, SECTOR, 1, 0);
    ck_assert_uint_eq(script_held_of(&rig.script, PLOOP_IO_READ), 1);
    req_write(&whole, &rig, 0, BLOCK, 2, 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&part), 0);
    ck_assert_int_eq(req_wait(&whole), 0);
    rig_expect(&rig, 0, BLOCK, 2);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * Guest clusters 1 and 2 lie side by side, and share a block: two locks of clusters, and one of the
 * block.
 */
START_TEST(two_clusters_in_one_block)
{
    struct rig rig;
    struct req first, second;
    open_file(&rig, &files[0]);
    uint64_t border = rig_file_offset(&rig, 2), at_border = 2 * rig.cluster;
    ck_assert_uint_eq(border, rig_file_offset(&rig, 1) + rig.cluster);
    ck_assert_uint_ne(border % BLOCK, 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_write(&first, &rig, at_border - SECTOR, SECTOR, 1, 0);
    req_write(&second, &rig, at_border, SECTOR, 2, 0);
    ck_assert_uint_eq(script_held_of(&rig.script, PLOOP_IO_READ), 1);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&first), 0);
    ck_assert_int_eq(req_wait(&second), 0);
    rig_expect(&rig, at_border - SECTOR, SECTOR, 1);
    rig_expect(&rig, at_border, SECTOR, 2);
    rig_end_with_leaks(&rig);
}
END_TEST

/* The last page of the BAT, and the first sectors of the cluster behind it. */
START_TEST(a_page_image_and_the_data_behind_it)
{
    struct rig rig;
    struct req data, page;
    open_file(&rig, &files[0]);
    ck_assert_uint_eq(rig_file_offset(&rig, 0), rig.data_start);
    ck_assert_uint_ne(rig.data_start % BLOCK, 0);
    /* Maps a guest cluster of the last page. */
    ck_assert_int_eq(rig_write(&rig, 1080 * rig.cluster, SECTOR, 3, 0), 0);
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    req_write(&data, &rig, 0, SECTOR, 1, 0);
    uint64_t reads = rig.script.submitted[PLOOP_IO_READ];
    req_bat_write(&page, &rig, 1, 1);
    rig_advance(&rig, 0);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_READ], reads);
    script_release_all(&rig.script);
    ck_assert_int_eq(req_wait(&data), 0);
    ck_assert_int_eq(req_wait(&page), 0);
    ck_assert_uint_ne(rig_file_entry(&rig, 1080), 0);
    rig_expect(&rig, 0, SECTOR, 1);
    rig_expect(&rig, SECTOR, rig.cluster - SECTOR, 0xA0);
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * Each sector of some clusters is written by a request of its own, zeros among them, all at once
 * and completed in any order: none is lost.
 */
START_TEST(none_of_many_is_lost)
{
    enum { AT_ONCE = 60 };
    struct rig rig;
    struct req requests[AT_ONCE];
    uint64_t random = 1;
    open_file(&rig, &files[_i]);
    for (uint32_t round = 0; round < 4; round++) {
        uint64_t first = round * 40;
        rig.script.hold = SCRIPT_ALL;
        for (uint64_t i = 0; i < AT_ONCE; i++) {
            uint64_t offset = (first + i) * SECTOR;
            uint8_t byte = (uint8_t)(1 + round * AT_ONCE + i);
            if (i % 5 == 4) {
                req_zeroes(&requests[i], &rig, offset, SECTOR, 0);
            } else {
                req_write(&requests[i], &rig, offset, SECTOR, byte, i % 3 ? 0 : PLOOP_PIO_FUA);
            }
        }
        while (rig.script.held_count > 0) {
            script_release(&rig.script, next_random(&random) % rig.script.held_count);
        }
        for (uint64_t i = 0; i < AT_ONCE; i++) {
            ck_assert_int_eq(req_end(&requests[i]), 0);
        }
        rig.script.hold = 0;
        for (uint64_t i = 0; i < AT_ONCE; i++) {
            uint8_t byte = i % 5 == 4 ? 0 : (uint8_t)(1 + round * AT_ONCE + i);
            rig_expect(&rig, (first + i) * SECTOR, SECTOR, byte);
        }
    }
    rig_end_with_leaks(&rig);
}
END_TEST

/*
 * The file ends inside a block, before a cluster that is not there yet. What a buffer held before
 * does not get there.
 */
START_TEST(behind_the_end_are_zeros)
{
    struct image_plan plan = {.version = 1,
                              .cluster_sectors = 3,
                              .host_clusters = 4,
                              .map = (const uint32_t[]){0, 1, 1, 2, 2, 3, 3, 4, 0, 0}};
    struct rig rig;
    uint64_t size;
    uint8_t *image = image_build(&plan, &size);
    rig_adopt(&rig, image, size, 0);
    free(image);
    rig.script.alignment = BLOCK;
    rig_open(&rig);
    ck_assert_uint_eq(rig.script.file_size, (9 + 4 * 3) * SECTOR);
    for (uint32_t i = 0; i < 2 * BOUNCE_COUNT; i++) {
        ck_assert_int_eq(rig_write(&rig, i % 4 * SECTOR, SECTOR, 0x55, 0), 0);
    }
    ck_assert_int_eq(rig_write(&rig, 3 * rig.cluster, SECTOR, 1, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 8 * rig.cluster, SECTOR, 2, 0), 0);
    ck_assert_int_eq(rig_flush(&rig), 0);
    ck_assert_uint_eq(rig_file_offset(&rig, 8), (9 + 4 * 3) * SECTOR);
    rig_expect(&rig, 8 * rig.cluster, SECTOR, 2);
    rig_expect(&rig, 8 * rig.cluster + SECTOR, 2 * SECTOR, 0);
    rig_end(&rig);
}
END_TEST

/* ---- errors ---- */

START_TEST(a_block_that_cannot_be_read_is_not_written)
{
    struct rig rig;
    open_file(&rig, &files[4]);
    script_fail(&rig.script, PLOOP_IO_READ, 0, 1, -EIO);
    ck_assert_int_eq(rig_write(&rig, 0, SECTOR, 1, 0), -EIO);
    ck_assert_uint_eq(rig.script.submitted[PLOOP_IO_WRITE], 0);
    rig_expect(&rig, 0, BLOCK, 0xA0);
    /* Nothing is kept: the next one has the block. */
    ck_assert_int_eq(rig_write(&rig, 0, SECTOR, 1, 0), 0);
    rig_expect(&rig, 0, SECTOR, 1);
    rig_expect(&rig, SECTOR, BLOCK - SECTOR, 0xA0);
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(more_wait_than_there_are_buffers)
{
    enum { COUNT = 20 };
    struct rig rig;
    struct req requests[COUNT];
    open_file(&rig, &files[3]); /* clusters of 3 sectors: many locks, few blocks */
    rig.script.hold = SCRIPT_BIT(PLOOP_IO_READ);
    for (uint64_t i = 0; i < COUNT; i++) {
        req_write(&requests[i], &rig, i * 3 * SECTOR, SECTOR, 1, 0);
    }
    ck_assert_uint_le(script_held_of(&rig.script, PLOOP_IO_READ), BOUNCE_COUNT);
    script_release_all(&rig.script);
    for (uint64_t i = 0; i < COUNT; i++) {
        ck_assert_int_eq(req_wait(&requests[i]), 0);
    }
    rig_end_with_leaks(&rig);
}
END_TEST

START_TEST(blocks_have_a_limit)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.script.alignment = 131072;
    ck_assert_int_eq(rig_try_open(&rig), -ENOTSUP);
    ck_assert_str_eq(rig.log_text, "request_alignment 131072: this version takes up to 65536");
    rig.script.alignment = 65536;
    rig_open(&rig);
    rig_end(&rig);
}
END_TEST

/* ---- buffers and locks of blocks ---- */

static uint32_t granted_now;

static void note_granted(struct bounce_wait *wait)
{
    ck_assert_ptr_nonnull(wait->had);
    granted_now++;
}

static bool take(struct bounces *bounces, struct bounce_wait *wait, uint64_t block)
{
    *wait = (struct bounce_wait){.had = NULL};
    list_init(&wait->link);
    return bounce_take(bounces, wait, bounces, block, note_granted);
}

START_TEST(the_lock_of_a_block_is_its_buffer)
{
    struct bounces bounces = {.memory = NULL};
    struct bounce_wait a, b, c, others[BOUNCE_COUNT];
    ck_assert_int_eq(bounces_init(&bounces), 0);
    granted_now = 0;
    ck_assert(take(&bounces, &a, 7));
    ck_assert(!take(&bounces, &b, 7));
    ck_assert(!take(&bounces, &c, 7));
    for (uint32_t i = 1; i < BOUNCE_COUNT; i++) {
        ck_assert(take(&bounces, &others[i], i == 1 ? BOUNCE_NO_BLOCK : 100 + i));
    }
    ck_assert(!take(&bounces, &others[0], BOUNCE_NO_BLOCK));
    /* Who waits for any buffer comes before those who want the same block again. */
    bounce_give_back(&bounces, &a);
    ck_assert_ptr_nonnull(others[0].had);
    ck_assert_uint_eq(granted_now, 1);
    bounce_give_back(&bounces, &others[0]);
    ck_assert(b.had && !c.had);
    bounce_give_back(&bounces, &others[1]); /* c waits for the block, not for a buffer */
    ck_assert_ptr_null(c.had);
    bounce_give_back(&bounces, &b);
    ck_assert_ptr_nonnull(c.had);
    bounce_give_back(&bounces, &c);
    for (uint32_t i = 2; i < BOUNCE_COUNT; i++) {
        ck_assert(!bounces_are_idle(&bounces));
        bounce_give_back(&bounces, &others[i]);
    }
    ck_assert(bounces_are_idle(&bounces));
    bounces_free(&bounces);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("blocks");
    int kinds = (int)(sizeof(files) / sizeof(files[0]));
    tcase_add_loop_test(tests, any_request_does_what_it_does_elsewhere, 0, kinds);
    tcase_add_loop_test(tests, a_stack_is_copied_from_and_to_any_place, 0, 4);
    tcase_add_loop_test(tests, whole_blocks_take_the_fast_path, 0, 2);
    tcase_add_test(tests, a_part_of_a_block_and_the_whole_of_it);
    tcase_add_test(tests, two_clusters_in_one_block);
    tcase_add_test(tests, a_page_image_and_the_data_behind_it);
    tcase_add_loop_test(tests, none_of_many_is_lost, 0, kinds);
    tcase_add_test(tests, behind_the_end_are_zeros);
    tcase_add_test(tests, a_block_that_cannot_be_read_is_not_written);
    tcase_add_test(tests, more_wait_than_there_are_buffers);
    tcase_add_test(tests, blocks_have_a_limit);
    tcase_add_test(tests, the_lock_of_a_block_is_its_buffer);
    return run_case("blocks", tests);
}
