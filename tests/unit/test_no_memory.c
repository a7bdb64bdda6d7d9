/* SPDX-License-Identifier: MIT */
/*
 * Out of memory at every allocation of create, probe, check and repair, once and from then on: -ENOMEM, and the image as it was
 * found, or whole and perhaps marked, so that a second try mends it.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "counted_memory.h"
#include "file/file.h"
#include "image_fixture.h"
#include "oracle/oracle.h"
#include "util/bytes.h"

enum {
    CLUSTER = 4096,
    ENTRIES = 1100,
    HOSTS = 40,
    BITMAPS = 18, /* more than lists begin with */
    CLOSED = 0x312e3276,
    ALL = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES
};

/* The fixture, whose own memory is not the library's. */
static struct fixture fixture;
static ploop_file *file;

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    return ploop_file_info(fixture.file, info);
}

static int submit(void *context, struct ploop_io *io)
{
    bool was_paused = counted_memory.paused;

    (void)context;
    counted_memory.paused = true;

    int err = fixture.file->ops.submit(fixture.file->context, io);

    counted_memory.paused = was_paused;
    return err;
}

/* Duplicates, entries out of place, leaks inside and at the end; an extension with bitmaps, one of which names the last cluster. */
static void begin(bool extended, bool errors)
{
    const struct ploop_io_ops ops = {.size = sizeof(ops), .get_info = get_info, .submit = submit};
    static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 9, 31, 1099, 36, 0, 0};
    struct extension_plan plan;

    counted_memory = (struct counted_memory){.paused = true};
    fixture_open_image(&fixture, &(struct image_plan){.host_clusters = HOSTS, .entries = ENTRIES, .map = map});
    if (errors) {
        image_set_entry(fixture.bytes, 7, image_entry_for(fixture.bytes, 2));
        image_set_entry(fixture.bytes, 8, 1);
        image_set_entry(fixture.bytes, 1050, image_entry_for(fixture.bytes, 35));
    }
    if (extended) {
        uint64_t start = fixture.size - 3 * CLUSTER;

        extension_begin(&plan, fixture.bytes + start, CLUSTER);
        for (uint64_t i = 0; i < BITMAPS; i++) {
            uint64_t own = i ? image_data_start(fixture.bytes) + (i + 10) * CLUSTER : fixture.size - CLUSTER;
            uint64_t l1 = i == 1 || i == 2 ? i - 1 : own / 512;

            extension_add_bitmap(&plan, (uint64_t)ENTRIES * 8, 8, 1, &l1);
        }
        extension_end(&plan);
        store_le32(fixture.bytes + 44, CLOSED);
        store_le64(fixture.bytes + 56, start / 512);
    }
    ck_assert_int_eq(ploop_file_create(&ops, NULL, &file), 0);
}

static void end(void)
{
    counted_memory.paused = true;
    ploop_file_close(file);
    fixture_close(&fixture);
}

static int create(void)
{
    const struct ploop_image_options options = {.size = sizeof(options), .disk_size = 1 << 20, .cluster_size = CLUSTER};

    return ploop_image_create(file, &options);
}

static int create_in_place(void)
{
    fixture.capabilities = 0;
    return create();
}

static int probe(void)
{
    struct ploop_image_info info = {.size = sizeof(info)};

    return ploop_image_probe(file, &info);
}

static int check(uint32_t repair)
{
    const struct ploop_check_options options = {.size = sizeof(options), .repair = repair};
    struct ploop_check_result result = {.size = sizeof(result)};

    return ploop_image_check(file, &options, &result);
}

static int look(void)
{
    return check(0);
}

static int mend(void)
{
    return check(ALL);
}

static int mend_leaks(void)
{
    return check(PLOOP_REPAIR_LEAKS);
}

/* First bytes of guest clusters, -1 for a bad one: what must not be lost. */
static void content(int *first)
{
    struct oracle_memory memory = {fixture.bytes, fixture.size};
    struct oracle oracle;
    char message[160];
    uint8_t cluster[CLUSTER];

    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, fixture.size, message), ORACLE_OK);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        int status = oracle_read_cluster(&oracle, i, cluster);

        first[i] = status > 0 ? cluster[0] : status;
    }
    oracle_close(&oracle);
}

static void is_kept(const int *before)
{
    int after[ENTRIES];

    content(after);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        must_msg(before[i] == after[i] || before[i] == -1, "guest cluster %u was %x, is %x", i, (unsigned)before[i],
                 (unsigned)after[i]);
    }
}

static const struct {
    int (*act)(void);
    bool makes; /* a new image: what was there is lost */
    bool changes;
} acts[] = {{create, true, true}, {create_in_place, true, true}, {probe, false, false},
            {look, false, false}, {mend, false, true},           {mend_leaks, false, true}};

enum { ACTS = sizeof(acts) / sizeof(*acts), IMAGES = 4 };

/* Fail the Nth allocation; true: there was such a one. */
static bool fail_nth(uint32_t act, uint32_t image, uint64_t nth, bool on)
{
    int before[ENTRIES];

    begin(image & 1, image & 2);
    content(before);

    uint64_t size = fixture.size;
    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    counted_memory = (struct counted_memory){.fail_at = nth, .fail_on = on};

    int err = acts[act].act();
    bool failed = counted_memory.failures;

    counted_memory = (struct counted_memory){.paused = true};
    ck_assert_int_eq(err, failed ? -ENOMEM : 0);
    if (!acts[act].changes) {
        ck_assert(fixture.size == size && memcmp(fixture.bytes, found, size) == 0);
    }
    if (acts[act].makes) {
        ck_assert(!failed || acts[act].act() == 0);
    } else {
        is_kept(before);
        ck_assert_int_eq(mend(), 0);
        is_kept(before);
    }

    int status = oracle_status(fixture.bytes, fixture.size);

    ck_assert(status == 0 || (status == 3 && acts[act].act == create_in_place)); /* what lies behind it is unused */
    free(found);
    end();
    return failed;
}

START_TEST(every_allocation_fails)
{
    uint32_t act = (uint32_t)_i / IMAGES, image = (uint32_t)_i % IMAGES, failures = 0;

    for (int on = 0; on < 2; on++) {
        for (uint64_t nth = 1; fail_nth(act, image, nth, on); nth++) {
            failures++;
        }
    }
    ck_assert_uint_ge(failures, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("no_memory");
    TCase *tests = tcase_create("no_memory");

    tcase_add_loop_test(tests, every_allocation_fails, 0, ACTS * IMAGES);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
