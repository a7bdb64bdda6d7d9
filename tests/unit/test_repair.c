/* SPDX-License-Identifier: MIT */
/*
 * Repairs: what each flag mends and leaves alone, power cuts after every backend operation, and the failure of each.
 *
 * The judge of content is the oracle: what the guest could read before, it reads after, whatever happened in between.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "oracle/oracle.h"
#include "util/bytes.h"

enum { IN_USE = 0x746F6E59, CLOSED = 0x312e3276, CLUSTER = 4096, ENTRIES = 1100, ALL = 7 };

/* ---- images to mend ---- */

static void set_extension(struct fixture *fixture, uint32_t host, uint32_t bitmap_host, bool transit)
{
    uint64_t start = image_data_start(fixture->bytes);
    struct extension_plan plan;

    store_le64(fixture->bytes + 56, (start + (uint64_t)host * CLUSTER) / 512);
    store_le32(fixture->bytes + 44, CLOSED);
    extension_begin(&plan, fixture->bytes + start + (uint64_t)host * CLUSTER, CLUSTER);
    extension_add_bitmap(&plan, (uint64_t)ENTRIES * 8, 8, 1, (uint64_t[]){(start + (uint64_t)bitmap_host * CLUSTER) / 512});
    if (transit) {
        extension_add(&plan, 0x1122334455667788u, 2, "transit", 7);
    }
    extension_end(&plan);
}

enum scenario {
    LEAKS_ONLY,
    UNCLEAN,
    UNCLEAN_LEAKS,
    DUPLICATES,
    BAD_ENTRIES,
    EVERYTHING,
    BEYOND,
    EXTENSION_LEAKS,
    EXTENSION_ENTRIES,
    EXTENSION_BAD,
    BITMAP_BAD,
    VOID_EXTENSION,
    SCENARIOS
};

static void make(struct fixture *fixture, enum scenario scenario, uint32_t version)
{
    static const uint32_t holes[] = {0, 3, 1, 9, 2, 2, 500, 12, 1099, 11, 0, 0}; /* of 14: 0 3-7 9 12 13 are nobody's */
    struct image_plan plan = {.version = version, .map = holes, .host_clusters = 14};

    if (scenario == UNCLEAN) {
        plan.map = NULL;
        plan.host_clusters = 5;
    }
    if (scenario == UNCLEAN || scenario == UNCLEAN_LEAKS || scenario == EVERYTHING) {
        plan.in_use = IN_USE;
        plan.extension_sector = 99999; /* void */
        plan.flags = scenario != UNCLEAN;
    }
    if (scenario == BEYOND || scenario == EVERYTHING) {
        plan.sectors = (uint64_t)1000 * 8 - 3;
    }
    fixture_open_image(fixture, &plan);

    uint8_t *image = fixture->bytes;

    if (scenario == DUPLICATES || scenario == EVERYTHING || scenario == EXTENSION_ENTRIES) {
        image_set_entry(image, 7, image_entry(image, 0));
        image_set_entry(image, 900, image_entry(image, 500));
        image_set_entry(image, 1050, image_entry(image, 0));
    }
    if (scenario == BAD_ENTRIES || scenario == EVERYTHING) {
        image_set_entry(image, 8, 0xFFFFFFFF);
        image_set_entry(image, 9, 1);
        image_set_entry(image, 901, image_entry_for(image, 14));
        image_set_entry(image, 902, version == 1 ? image_entry_for(image, 3) + 1 : 99999);
    }
    switch (scenario) {
    case EXTENSION_LEAKS:
        set_extension(fixture, 12, 13, false);
        break;
    case EXTENSION_ENTRIES:
        set_extension(fixture, 13, 4, true);
        break;
    case BITMAP_BAD:
        set_extension(fixture, 12, 1, true);
        break;
    case EXTENSION_BAD:
    case VOID_EXTENSION:
        set_extension(fixture, 12, 13, false);
        image[image_data_start(image) + 12 * CLUSTER + 300] ^= (uint8_t)(scenario == EXTENSION_BAD);
        store_le32(image + 44, scenario == EXTENSION_BAD ? CLOSED : 0);
        break;
    default:
        break;
    }
}

/* ---- what a guest reads ---- */

struct content {
    int8_t status[ENTRIES]; /* as oracle_read_cluster() says */
    uint8_t first[ENTRIES]; /* each host cluster is filled with a byte of its own */
};

static void read_content(const uint8_t *bytes, uint64_t size, struct content *content)
{
    struct oracle_memory memory = {bytes, size};
    struct oracle oracle;
    char message[160];
    uint8_t cluster[CLUSTER];

    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, size, message), ORACLE_OK);
    memset(content, 0, sizeof(*content));
    for (uint64_t i = 0; i < (oracle.disk_sectors + 7) / 8; i++) {
        content->status[i] = (int8_t)oracle_read_cluster(&oracle, i, cluster);
        if (content->status[i] == 1) {
            content->first[i] = cluster[0];
            for (uint64_t at = 1; at < CLUSTER && at < oracle.disk_sectors * 512 - i * CLUSTER; at++) {
                if (cluster[at] != cluster[0]) {
                    ck_abort_msg("guest cluster %llu is a mix", (unsigned long long)i);
                }
            }
        }
    }
    oracle_close(&oracle);
}

/* What could be read reads the same. What could not is unmapped, or a duplicate's copy, or as it was. */
static void assert_kept(const struct content *before, const struct content *after, const char *what)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        bool same = before->status[i] == after->status[i] && before->first[i] == after->first[i];
        bool copied =
            ((i == 7 || i == 1050) && after->first[i] == before->first[0]) || (i == 900 && after->first[i] == before->first[500]);

        if (!same && (before->status[i] != -1 || (after->status[i] == 1 && !copied))) {
            ck_abort_msg("%s: guest cluster %u was %d/%02x, is %d/%02x", what, i, before->status[i], before->first[i],
                         after->status[i], after->first[i]);
        }
    }
}

static uint64_t bad_entries(const struct check_outcome *outcome)
{
    return outcome->kinds[PLOOP_CHECK_ENTRY_RANGE] + outcome->kinds[PLOOP_CHECK_ENTRY_GRID] +
           outcome->kinds[PLOOP_CHECK_ENTRY_DUPLICATE];
}

/* ---- all at once ---- */

START_TEST(all_leaves_nothing)
{
    struct fixture fixture;
    struct check_outcome outcome;
    struct content before, after;
    enum scenario scenario = (enum scenario)(_i / 2);

    make(&fixture, scenario, (uint32_t)_i % 2 + 1);
    read_content(fixture.bytes, fixture.size, &before);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.err, 0);
    ck_assert_uint_gt(outcome.result.errors + outcome.result.leaks, 0);

    uint64_t findings = 0;

    for (uint32_t kind = 0; kind <= PLOOP_CHECK_READ; kind++) {
        findings += outcome.kinds[kind];
    }
    ck_assert_uint_eq(outcome.result.repaired, findings);
    read_content(fixture.bytes, fixture.size, &after);
    assert_kept(&before, &after, "repaired");
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        ck_assert(after.status[i] != -1);
        ck_assert(before.status[i] != -1 || (i != 7 && i != 900 && (i != 1050 || scenario == EVERYTHING)) || after.status[i] == 1);
    }
    fixture_reset(&fixture);
    run_check(&fixture, ALL, &outcome); /* the second time there is nothing to do, and nothing is done */
    ck_assert_int_eq(outcome.err, 0);
    ck_assert_uint_eq(outcome.result.errors + outcome.result.leaks + outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture.log_size, 0);
    fixture_close(&fixture);
}
END_TEST

/* ---- each alone ---- */

static void repair_one(struct fixture *fixture, uint32_t repair, uint64_t errors, uint64_t leaks)
{
    struct check_outcome outcome;

    run_check(fixture, repair, &outcome);
    ck_assert_int_eq(outcome.err, 0);
    run_check(fixture, 0, &outcome);
    ck_assert_uint_eq(outcome.result.errors, errors);
    ck_assert_uint_eq(outcome.result.leaks, leaks);
}

START_TEST(leaks_alone)
{
    struct fixture fixture;

    make(&fixture, UNCLEAN_LEAKS, 2); /* the mark stays, the Empty flag does not */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 1, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), IN_USE);
    ck_assert_uint_eq(load_le64(fixture.bytes + 56), 0);
    fixture_close(&fixture);
    make(&fixture, BAD_ENTRIES, 2); /* errors stay: only the tail is cut */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 4, 7);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    fixture_close(&fixture);
    make(&fixture, EXTENSION_BAD, 2); /* and with an extension in error it is named as before */
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 1, 7);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);
    ck_assert_uint_ne(load_le64(fixture.bytes + 56), 0);
    fixture_close(&fixture);
}
END_TEST

/* A bad entry that reaches into the last cluster: what it could mean is not cut off. */
START_TEST(leaks_leave_what_a_bad_entry_means)
{
    struct fixture fixture;
    struct check_outcome outcome;

    make(&fixture, LEAKS_ONLY, 1);
    image_set_entry(fixture.bytes, 5, image_entry_for(fixture.bytes, 12) + 1);

    uint64_t size = fixture.size;

    run_check(&fixture, PLOOP_REPAIR_LEAKS, &outcome);
    ck_assert_int_eq(outcome.err, 0);
    ck_assert_uint_eq(fixture.size, size - CLUSTER + 512);
    fixture_close(&fixture);
}
END_TEST

START_TEST(unclean_alone)
{
    struct fixture fixture;
    struct check_outcome outcome;

    make(&fixture, UNCLEAN_LEAKS, 2);
    repair_one(&fixture, PLOOP_REPAIR_UNCLEAN, 0, 9);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
    fixture_close(&fixture);
    make(&fixture, BAD_ENTRIES, 2); /* not after a check that found more: nothing is written */
    store_le32(fixture.bytes + 44, IN_USE);
    run_check(&fixture, PLOOP_REPAIR_UNCLEAN, &outcome);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture.log_size, 0);
    repair_one(&fixture, PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES, 0, 9);
    fixture_close(&fixture);
    make(&fixture, LEAKS_ONLY, 2); /* no known value */
    store_le32(fixture.bytes + 44, 77);
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 1, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), 77);
    repair_one(&fixture, PLOOP_REPAIR_UNCLEAN, 0, 0);
    fixture_close(&fixture);
}
END_TEST

START_TEST(entries_alone)
{
    struct fixture fixture;

    make(&fixture, EVERYTHING, 2);
    repair_one(&fixture, PLOOP_REPAIR_ENTRIES, 1, 10); /* the mark; one cluster lies beyond the disk's end now and then */
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), IN_USE);
    fixture_close(&fixture);
}
END_TEST

/* The Empty flag is what a clean close would make it. */
START_TEST(empty_at_last)
{
    struct fixture fixture;

    fixture_open_image(&fixture, &(struct image_plan){.map = (uint32_t[]){3, 9, 0, 0}, .host_clusters = 2});
    repair_one(&fixture, ALL, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 52), 1);
    ck_assert_uint_eq(fixture.size, image_data_start(fixture.bytes));
    fixture_close(&fixture);
}
END_TEST

/* Right, but not as a clean close leaves it: other software stumbles over that. */
START_TEST(a_header_is_tidied)
{
    const struct image_plan untidy[] = {
        {.host_clusters = 5, .in_use = CLOSED},
        {.host_clusters = 5, .extension_sector = 99999},
        {.host_clusters = 1, .map = (uint32_t[]){0, 0}, .entries = 1009, .sectors = 1},
    };

    for (int i = 0; i < 3; i++) {
        struct fixture fixture;

        fixture_open_image(&fixture, &untidy[i]);
        fixture.size = i == 2 ? image_data_start(fixture.bytes) : fixture.size;
        repair_one(&fixture, PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_ENTRIES, 0, 0);
        ck_assert_uint_eq(fixture.log_size, 0);
        repair_one(&fixture, PLOOP_REPAIR_UNCLEAN, 0, 0);
        ck_assert_uint_eq(load_le32(fixture.bytes + 44), 0);
        ck_assert_uint_eq(load_le64(fixture.bytes + 56), 0);
        ck_assert_uint_eq(load_le32(fixture.bytes + 52), i == 2);
        fixture_reset(&fixture);
        repair_one(&fixture, ALL, 0, 0);
        ck_assert_uint_eq(fixture.log_size, 0);
        fixture_close(&fixture);
    }
}
END_TEST

/* Words behind the last entry, in its sector, are written back as they were. */
START_TEST(only_the_bat_changes)
{
    struct fixture fixture;
    struct check_outcome outcome;

    make(&fixture, UNCLEAN_LEAKS, 1); /* the data area begins within the BAT's second page */
    ck_assert_uint_eq(image_data_start(fixture.bytes), 4608);
    memset(fixture.bytes + 64 + 4 * ENTRIES, 0x5A, 4608 - 64 - 4 * ENTRIES);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.err, 0);
    for (uint64_t i = 64 + 4 * ENTRIES; i < 4608; i++) {
        ck_assert_uint_eq(fixture.bytes[i], 0x5A);
    }
    fixture_close(&fixture);
}
END_TEST

/* ---- the extension ---- */

static uint64_t bitmap_l1(const uint8_t *image)
{
    uint64_t start = load_le64(image + 56) * 512;

    ck_assert_uint_ne(start, 0);
    return load_le64(image + start + 48 + 32) * 512;
}

START_TEST(a_bitmap_moves_with_its_extension)
{
    struct fixture fixture;

    make(&fixture, EXTENSION_LEAKS, 2);
    repair_one(&fixture, PLOOP_REPAIR_LEAKS, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);
    ck_assert_uint_eq(fixture.size, image_data_start(fixture.bytes) + 7 * CLUSTER);
    ck_assert_uint_eq(fixture.bytes[bitmap_l1(fixture.bytes)], 0xA0 + 13); /* its bits, at their new place */
    fixture_close(&fixture);
}
END_TEST

/* Entries change what the guest sees, and no bitmap says so: it goes; a feature in transit stays. */
START_TEST(no_bitmap_survives_changed_entries)
{
    struct fixture fixture;

    make(&fixture, EXTENSION_ENTRIES, 2);
    repair_one(&fixture, ALL, 0, 0);
    ck_assert_uint_eq(load_le32(fixture.bytes + 44), CLOSED);

    const uint8_t *extension = fixture.bytes + load_le64(fixture.bytes + 56) * 512;

    ck_assert_uint_eq(load_le64(extension + 24), 0x1122334455667788u);
    ck_assert_uint_eq(load_le64(extension + 24 + 24 + 8), 0);
    fixture_close(&fixture);
}
END_TEST

START_TEST(a_necessary_feature_forbids_repair)
{
    struct fixture fixture;
    struct check_outcome outcome;
    struct extension_plan plan;

    make(&fixture, EXTENSION_LEAKS, 2);
    extension_begin(&plan, fixture.bytes + image_data_start(fixture.bytes) + 12 * CLUSTER, CLUSTER);
    extension_add(&plan, 5, 1, NULL, 0);
    extension_end(&plan);
    run_check(&fixture, ALL, &outcome);
    ck_assert_int_eq(outcome.err, -ENOTSUP);
    ck_assert_uint_eq(outcome.result.errors, 0);
    ck_assert_uint_gt(outcome.result.leaks, 0);
    ck_assert_uint_eq(fixture.log_size, 0);
    fixture_close(&fixture);
}
END_TEST

/* ---- power cuts ---- */

struct cut {
    const struct fixture *run; /* its log */
    const uint8_t *initial;
    uint64_t initial_size;
    uint32_t durable, end; /* operations below durable happened; those from durable to end, perhaps */
};

enum fate { KEEP_ALL, DROP_ALL, DROP_ONE, KEEP_ONE, TEAR_ONE, FATES };

static void apply(uint8_t *disk, uint64_t *size, const struct fixture_op *op, bool torn)
{
    if (op->op == PLOOP_IO_TRUNCATE) {
        if (op->offset > *size) {
            memset(disk + *size, 0, op->offset - *size);
        }
        *size = op->offset;
    } else if (op->op == PLOOP_IO_WRITE) {
        for (uint64_t at = 0; at < op->length; at += 512) {
            uint64_t part = op->length - at < 512 ? op->length - at : 512;

            if ((!torn || at / 512 % 2) && op->offset + at + part <= *size) { /* no bytes past an end that did not move */
                memcpy(disk + op->offset + at, op->data + at, part);
            }
        }
    }
}

static uint8_t *disk_after(const struct cut *cut, enum fate fate, uint32_t one, uint64_t *size)
{
    uint8_t *disk = malloc(cut->run->capacity + cut->initial_size);

    memcpy(disk, cut->initial, cut->initial_size);
    *size = cut->initial_size;
    for (uint32_t i = 0; i < cut->end; i++) {
        bool happens = i < cut->durable || fate == KEEP_ALL || (fate == DROP_ONE && i != one) ||
                       ((fate == KEEP_ONE || fate == TEAR_ONE) && i == one);

        if (happens) {
            apply(disk, size, &cut->run->log[i], i >= cut->durable && fate == TEAR_ONE);
        }
    }
    return disk;
}

struct judgement {
    struct content before;
    struct check_outcome found;
    uint64_t disks;
};

/* No worse than before, all content there, and mended by a repair that is let to its end. */
static void judge(struct judgement *judgement, const uint8_t *disk, uint64_t size, const char *what)
{
    struct fixture after;
    struct check_outcome outcome;
    struct content content;

    judgement->disks++;
    read_content(disk, size, &content);
    assert_kept(&judgement->before, &content, what);
    fixture_open(&after, disk, size);
    run_check(&after, 0, &outcome);
    ck_assert_msg(outcome.err == 0, "%s: %d", what, outcome.err);
    ck_assert_msg(bad_entries(&outcome) <= bad_entries(&judgement->found), "%s: more bad entries", what);
    if (judgement->found.result.recoverable) {
        ck_assert_msg(outcome.result.recoverable, "%s: %s", what, outcome.last_text);
    }
    run_check(&after, ALL, &outcome);
    ck_assert_int_eq(outcome.err, 0);
    ck_assert_int_eq(oracle_status(after.bytes, after.size), 0);
    read_content(after.bytes, after.size, &content);
    assert_kept(&judgement->before, &content, what);
    fixture_close(&after);
}

static void judge_all_fates(struct judgement *judgement, const struct cut *cut)
{
    for (int fate = 0; fate < (is_instrumented() ? DROP_ONE : FATES); fate++) {
        uint32_t first = cut->durable, end = fate < DROP_ONE ? first + 1 : cut->end;

        for (uint32_t one = first; one < end; one++) {
            char what[80];
            uint64_t size;
            uint8_t *disk = disk_after(cut, (enum fate)fate, one, &size);

            snprintf(what, sizeof(what), "cut after %u, durable %u, fate %d of %u", cut->end, cut->durable, fate, one);
            judge(judgement, disk, size, what);
            free(disk);
        }
    }
}

START_TEST(power_cuts)
{
    static const uint32_t repairs[] = {PLOOP_REPAIR_LEAKS, PLOOP_REPAIR_UNCLEAN, PLOOP_REPAIR_ENTRIES, ALL};
    enum scenario scenario = (enum scenario)(_i / 2);
    struct judgement judgement = {.disks = 0};

    for (int i = is_instrumented() ? 3 : 0; i < 4; i++) {
        struct fixture fixture;
        struct cut cut = {.run = &fixture};

        make(&fixture, scenario, (uint32_t)_i % 2 + 1);
        read_content(fixture.bytes, fixture.size, &judgement.before);
        cut.initial_size = fixture.size;

        uint8_t *initial = malloc(fixture.size);

        memcpy(initial, fixture.bytes, fixture.size);
        cut.initial = initial;
        run_check(&fixture, repairs[i], &judgement.found);
        ck_assert_int_eq(judgement.found.err, 0);
        for (cut.end = 0; cut.end <= fixture.log_size; cut.end++) {
            judge_all_fates(&judgement, &cut);
            if (cut.end < fixture.log_size && fixture.log[cut.end].op == PLOOP_IO_SYNC) {
                cut.durable = cut.end;
            }
        }
        free(initial);
        fixture_close(&fixture);
    }
    ck_assert_uint_ge(judgement.disks, 10);
}
END_TEST

/* ---- failures ---- */

/* Fail the Nth request of a kind, once or from then on, N = 1, 2, 3 ... until the repair passes. */
static uint32_t fail_each(enum scenario scenario, uint32_t kind, uint64_t count, int error)
{
    uint32_t failures = 0;
    int err = -1;

    for (uint64_t from = 1; err; from++) {
        struct fixture fixture;
        struct check_outcome outcome;
        struct judgement judgement = {.disks = 0};

        make(&fixture, scenario, 2);
        read_content(fixture.bytes, fixture.size, &judgement.before);
        run_check(&fixture, 0, &judgement.found);
        fixture_reset(&fixture);
        fixture.fail_op = kind;
        fixture.fail_from = kind == PLOOP_IO_READ ? from + 2 : from; /* the header's and the BAT's are the check's own */
        fixture.fail_count = count;
        fixture.fail_error = error;
        run_check(&fixture, ALL, &outcome);
        err = outcome.err;
        ck_assert(err == 0 || err == -error);
        fixture.fail_from = 0;
        failures += err != 0;
        judge(&judgement, fixture.bytes, fixture.size, "after a failure");
        fixture_close(&fixture);
    }
    return failures;
}

START_TEST(each_request_fails)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, PLOOP_IO_SYNC, PLOOP_IO_TRUNCATE};
    static const int errors[] = {EIO, ENOSPC, EROFS};
    uint32_t failures = 0;

    for (int i = 0; i < 4; i++) {
        failures += fail_each((enum scenario)_i, kinds[i], 1, errors[i % 3]);
        failures += fail_each((enum scenario)_i, kinds[i], UINT64_MAX, errors[(i + 1) % 3]);
    }
    ck_assert_uint_ge(failures, 8);
}
END_TEST

/* A failure before anything was published leaves the file as it was found. */
START_TEST(a_failed_copy_is_taken_back)
{
    struct fixture fixture;
    struct check_outcome outcome;
    uint64_t size;

    make(&fixture, DUPLICATES, 2);
    size = fixture.size;

    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    fixture.fail_op = PLOOP_IO_WRITE;
    fixture.fail_from = 3; /* the mark, one copy, and then */
    fixture.fail_count = 1;
    fixture.fail_error = ENOSPC;
    run_check(&fixture, PLOOP_REPAIR_ENTRIES, &outcome);
    ck_assert_int_eq(outcome.err, -ENOSPC);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture.size, size);
    ck_assert_mem_eq(fixture.bytes, found, size);
    fixture.capabilities = 0; /* no room behind the end */
    run_check(&fixture, PLOOP_REPAIR_ENTRIES, &outcome);
    ck_assert_int_eq(outcome.err, -ENOSPC);
    ck_assert_mem_eq(fixture.bytes, found, size);
    free(found);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *tests = tcase_create("repair");

    tcase_add_loop_test(tests, all_leaves_nothing, 0, 2 * SCENARIOS);
    tcase_add_test(tests, leaks_alone);
    tcase_add_test(tests, leaks_leave_what_a_bad_entry_means);
    tcase_add_test(tests, unclean_alone);
    tcase_add_test(tests, entries_alone);
    tcase_add_test(tests, empty_at_last);
    tcase_add_test(tests, a_header_is_tidied);
    tcase_add_test(tests, only_the_bat_changes);
    tcase_add_test(tests, a_bitmap_moves_with_its_extension);
    tcase_add_test(tests, no_bitmap_survives_changed_entries);
    tcase_add_test(tests, a_necessary_feature_forbids_repair);
    tcase_add_loop_test(tests, power_cuts, 0, 2 * SCENARIOS);
    tcase_add_loop_test(tests, each_request_fails, 0, SCENARIOS);
    tcase_add_test(tests, a_failed_copy_is_taken_back);
    tcase_set_timeout(tests, 250);
    suite_add_tcase(suite, tests);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
