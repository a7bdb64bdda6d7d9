/* SPDX-License-Identifier: MIT */
/*
 * Out of memory at every allocation of create, probe, check and repair, once and from then on: the
 * call returns -ENOMEM, and the image is unchanged, or whole and perhaps marked, so that a second
 * try repairs it. Opening a stack returns -ENOMEM and leaves the top unchanged. A snapshot or a
 * merge returns -ENOMEM and leaves the device as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "counted_memory.h"
#include "file/file.h"
#include "image_fixture.h"
#include "oracle/oracle.h"
#include "run_tests.h"
#include "util/bytes.h"

#include <ploop/ploop.h>

enum {
    CLUSTER = 4096,
    ENTRIES = 1100,
    HOSTS = 40,
    BITMAPS = 18, /* more than lists have room for at first */
    CLOSED = 0x312e3276,
    ALL = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES
};

/* Fixtures, whose own memory is not the library's: an image, and one to lie below it. */
static struct fixture fixture, below;
static ploop_file *file;

static int get_info(void *context, struct ploop_file_info *info)
{
    const struct fixture *behind = context;

    return ploop_file_info(behind->file, info);
}

static int submit(void *context, struct ploop_io *io)
{
    const struct fixture *behind = context;
    bool was_paused = counted_memory.paused;

    counted_memory.paused = true;

    int error = behind->file->ops.submit(behind->file->context, io);

    counted_memory.paused = was_paused;
    return error;
}

static int data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    const struct fixture *behind = context;

    return behind->file->ops.data_extent(behind->file->context, offset, data_offset, data_length);
}

static const struct ploop_io_ops ops = {
    .size = sizeof(ops), .get_info = get_info, .submit = submit, .data_extent = data_extent};

/*
 * Duplicates, entries out of place, leaks inside and at the end; an extension with bitmaps, one of
 * which names the last cluster.
 */
static void begin(bool extended, bool errors)
{
    static const uint32_t map[] = {0, 1, 1, 2, 2, 3, 9, 31, 1099, 36, 0, 0};
    struct extension_plan plan;

    counted_memory = (struct counted_memory){.paused = true};
    fixture_open_image(
        &fixture, &(struct image_plan){.host_clusters = HOSTS, .entries = ENTRIES, .map = map});
    if (errors) {
        image_set_entry(fixture.bytes, 7, image_entry_for(fixture.bytes, 2));
        image_set_entry(fixture.bytes, 8, 1);
        image_set_entry(fixture.bytes, 1050, image_entry_for(fixture.bytes, 35));
    }
    if (extended) {
        uint64_t start = fixture.size - 3 * CLUSTER;

        extension_begin(&plan, fixture.bytes + start, CLUSTER);
        for (uint64_t i = 0; i < BITMAPS; i++) {
            uint64_t own =
                i ? image_data_start(fixture.bytes) + (i + 10) * CLUSTER : fixture.size - CLUSTER;
            uint64_t l1 = i == 1 || i == 2 ? i - 1 : own / 512;

            extension_add_bitmap(&plan, (uint64_t)ENTRIES * 8, 8, 1, &l1);
        }
        extension_end(&plan);
        store_le32(fixture.bytes + 44, CLOSED);
        store_le64(fixture.bytes + 56, start / 512);
    }
    ck_assert_int_eq(ploop_file_create(&ops, &fixture, &file), 0);
}

static void end(void)
{
    counted_memory.paused = true;
    ploop_file_close(file);
    fixture_close(&fixture);
}

static int create(void)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = 1 << 20, .cluster_size = CLUSTER};

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

/* The first bytes of guest clusters, which must not be lost; -1 for a bad cluster. */
static void content(int *first)
{
    struct oracle_memory memory = {fixture.bytes, fixture.size};
    struct oracle oracle;
    char message[160];
    uint8_t cluster[CLUSTER];

    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, fixture.size, message),
                     ORACLE_OK);
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
        must_msg(before[i] == after[i] || before[i] == -1, "guest cluster %u was %x, is %x", i,
                 (unsigned)before[i], (unsigned)after[i]);
    }
}

static const struct {
    int (*act)(void);
    bool makes; /* a new image, whose old content is lost */
    bool changes;
} acts[] = {{create, true, true}, {create_in_place, true, true}, {probe, false, false},
            {look, false, false}, {mend, false, true},           {mend_leaks, false, true}};

enum { ACTS = sizeof(acts) / sizeof(*acts), IMAGES = 4 };

/* Fail the Nth allocation; true: that allocation was made. */
static bool fail_nth(uint32_t act, uint32_t image, uint64_t nth, bool on)
{
    int before[ENTRIES];

    begin(image & 1, image & 2);
    content(before);

    uint64_t size = fixture.size;
    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    counted_memory = (struct counted_memory){.fail_at = nth, .fail_on = on};

    int error = acts[act].act();
    bool failed = counted_memory.failures;

    counted_memory = (struct counted_memory){.paused = true};
    ck_assert_int_eq(error, failed ? -ENOMEM : 0);
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

    ck_assert(
        status == 0 ||
        (status == 3 && acts[act].act == create_in_place)); /* what lies behind it is unused */
    free(found);
    end();
    return failed;
}

START_TEST(every_allocation_fails)
{
    uint32_t act = (uint32_t)_i / IMAGES, image = (uint32_t)_i % IMAGES, failures = 0;

    for (uint32_t way = 0; way < (is_instrumented() ? 1 : 2); way++) {
        int on = (int)((way + act) % 2); /* whether all that come after it fail, too */
        for (uint64_t nth = 1; fail_nth(act, image, nth, on); nth++) {
            failures++;
        }
    }
    ck_assert_uint_ge(failures, is_instrumented() ? 1 : 2);
}
END_TEST

/* An extension of which a part must be kept and written anew. */
static void extend_partly(void)
{
    uint64_t start = fixture.size - 3 * CLUSTER;
    struct extension_plan plan;

    extension_begin(&plan, fixture.bytes + start, CLUSTER);
    extension_add_bitmap(&plan, (uint64_t)ENTRIES * 8, 8, 1, (uint64_t[]){0});
    extension_add(&plan, 0x1234, 2, "kept", 4);
    extension_end(&plan);
    store_le32(fixture.bytes + 44, CLOSED);
    store_le64(fixture.bytes + 56, start / 512);
}

static int open_stack(ploop_file *base, uint32_t flags, ploop_dev **dev)
{
    struct ploop_dev_config config;

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    return ploop_dev_open((ploop_file *[]){base, file}, 2, &config, dev);
}

/*
 * Like fail_nth(), for open. The base is an image, clean or not, or raw with a part of a sector at
 * its end.
 */
static bool fail_nth_of_open(uint32_t flags, bool unclean, uint64_t nth, bool on)
{
    static const uint32_t map[] = {5, 1, 1098, 2, 0, 0};
    uint64_t size;
    uint8_t *image =
        image_build(&(struct image_plan){.in_use = unclean ? 0x746F6E59 : 0, .map = map}, &size);
    ploop_file *base;
    ploop_dev *dev;

    begin(false, false);
    extend_partly();
    fixture_open(&below, image, flags & PLOOP_DEV_RAW_BASE ? 5 * CLUSTER + 100 : size);
    ck_assert_int_eq(ploop_file_create(&ops, &below, &base), 0);

    uint8_t *found = malloc(fixture.size);

    memcpy(found, fixture.bytes, fixture.size);
    counted_memory = (struct counted_memory){.fail_at = nth, .fail_on = on};

    int standard_input = fcntl(STDIN_FILENO, F_GETFD);
    int error = open_stack(base, flags, &dev);
    bool failed = counted_memory.failures;

    counted_memory = (struct counted_memory){.paused = true};
    ck_assert_int_eq(error, failed ? -ENOMEM : 0);
    ck_assert_int_eq(fcntl(STDIN_FILENO, F_GETFD), standard_input); /* nobody closed it */
    if (failed) {
        ck_assert_ptr_null(dev);
        ck_assert(memcmp(fixture.bytes, found, fixture.size) == 0);
        ck_assert_int_eq(open_stack(base, flags, &dev), 0);
    }
    ck_assert_int_eq(ploop_dev_pread(dev, (uint8_t[512]){0}, 512, 5 * CLUSTER), 512);
    ck_assert_int_eq(ploop_dev_pwrite(dev, (uint8_t[512]){0}, 512, 5 * CLUSTER), 512);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 3); /* it was built with leaks */
    ploop_file_close(base);
    fixture_close(&below);
    free(image);
    free(found);
    end();
    return failed;
}

START_TEST(every_allocation_of_opening_a_stack_fails)
{
    static const struct {
        uint32_t flags;
        bool unclean;
    } stacks[] = {{0, false}, {PLOOP_DEV_RECOVER, true}, {PLOOP_DEV_RAW_BASE, false}};

    for (uint32_t i = 0; i < 2 * sizeof(stacks) / sizeof(*stacks); i++) {
        uint64_t nth = 1;

        while (fail_nth_of_open(stacks[i / 2].flags, stacks[i / 2].unclean, nth, i % 2)) {
            nth++;
        }
        ck_assert_uint_ge(nth, 20);
    }
}
END_TEST

/* What several attempts on one device, of which the last succeeds, share: two or three files. */
struct attempts {
    ploop_file *files[3];
    ploop_dev *dev;
    ploop_job *job;
    int64_t live; /* when nothing was open */
};

static void begin_attempts(struct attempts *attempts, uint32_t deltas)
{
    const struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = 64 * CLUSTER, .cluster_size = CLUSTER};

    counted_memory = (struct counted_memory){.paused = true};
    *attempts = (struct attempts){.live = live_allocations};
    for (uint32_t i = 0; i < 3; i++) {
        must(ploop_file_create_memory(0, &attempts->files[i]) == 0);
        must(ploop_image_create(attempts->files[i], &options) == 0);
    }
    must(ploop_dev_open(attempts->files, deltas, NULL, &attempts->dev) == 0);
}

static void end_attempts(struct attempts *attempts)
{
    must(ploop_job_wait(attempts->job) == -EAGAIN);
    must(ploop_job_committed(attempts->job, 0) == 0);
    must(ploop_job_wait(attempts->job) == 0);
    must(ploop_job_free(attempts->job) == 0);
    must(ploop_dev_pwrite(attempts->dev, (uint8_t[512]){7}, 512, 0) == 512);
    must(ploop_dev_close(attempts->dev) == 0);
    for (uint32_t i = 0; i < 3; i++) {
        ploop_file_close(attempts->files[i]);
    }
    must(live_allocations == attempts->live);
}

/* False: it has succeeded. */
static bool attempt(struct attempts *attempts, uint64_t nth, uint32_t direction)
{
    ploop_dev *dev = attempts->dev;

    counted_memory = (struct counted_memory){.fail_at = nth, .fail_on = nth % 2};

    int error = direction
                    ? ploop_dev_merge(dev, 0, direction, NULL, NULL, NULL, &attempts->job)
                    : ploop_dev_snapshot(dev, attempts->files[2], NULL, NULL, NULL, &attempts->job);
    bool failed = counted_memory.failures;

    counted_memory = (struct counted_memory){.paused = true};
    must(error == 0 || (failed && error == -ENOMEM));
    if (failed && !error) { /* the file could not be made longer, in the job */
        error = ploop_job_wait(attempts->job);
        failed = error != -EAGAIN;
        must(!failed || (error < 0 && ploop_job_free(attempts->job) == 0));
        attempts->job = failed ? NULL : attempts->job;
    }
    if (failed) {
        must(!attempts->job);
        must(ploop_dev_pwrite(dev, (uint8_t[512]){7}, 512, nth * CLUSTER) == 512);
    }
    return failed;
}

/*
 * On a device of its own for each, the nth allocation fails; then, in further attempts, the others
 * do, until one attempt succeeds: what an attempt has kept is not taken again, so that theirs are
 * not the same. In the end all is given back. Returns how many allocations there are.
 */
static uint64_t fail_each(uint32_t deltas, uint32_t direction)
{
    bool failed = true;
    uint64_t first;

    for (first = 1; failed; first++) {
        struct attempts attempts;

        begin_attempts(&attempts, deltas);
        failed = attempt(&attempts, first, direction);
        for (uint64_t nth = 1; !attempts.job && attempt(&attempts, nth, direction);) {
            nth++;
        }
        end_attempts(&attempts);
    }
    return first;
}

START_TEST(every_allocation_of_a_snapshot_fails)
{
    ck_assert_uint_ge(fail_each(1, 0), 8);
}
END_TEST

START_TEST(every_allocation_of_a_merge_fails)
{
    static const struct {
        uint32_t deltas, direction;
    } merges[] = {{2, PLOOP_MERGE_UP},
                  {2, PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS},
                  {3, PLOOP_MERGE_UP},
                  {3, PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS}};

    for (uint32_t i = 0; i < sizeof(merges) / sizeof(*merges); i++) {
        ck_assert_uint_ge(fail_each(merges[i].deltas, merges[i].direction), i == 0 ? 2 : 8);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("no_memory");

    tcase_add_loop_test(tests, every_allocation_fails, 0, ACTS * IMAGES);
    tcase_add_test(tests, every_allocation_of_opening_a_stack_fails);
    tcase_add_test(tests, every_allocation_of_a_snapshot_fails);
    tcase_add_test(tests, every_allocation_of_a_merge_fails);
    tcase_set_timeout(tests, 120);
    return run_case("no_memory", tests);
}
