/* SPDX-License-Identifier: MIT */
/*
 * Repairs that do not complete: power cuts after every backend operation, the failure of each, and
 * a caller that cancels. The simulator has more of the first two (sim --repair); here they run
 * under the memory checkers.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repair_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

static uint64_t bad_entries(const struct check_outcome *outcome)
{
    return outcome->kinds[PLOOP_CHECK_ENTRY_RANGE] + outcome->kinds[PLOOP_CHECK_ENTRY_GRID] +
           outcome->kinds[PLOOP_CHECK_ENTRY_DUPLICATE];
}

/* ---- power cuts ---- */

struct cut {
    const struct fixture *run; /* its log */
    const uint8_t *initial;
    uint64_t initial_size;
    uint32_t durable,
        end; /* operations below `durable` happened; those from `durable` to `end` may have */
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

            if ((!torn || at / 512 % 2) &&
                op->offset + at + part <= *size) { /* no bytes past an end that did not move */
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

/*
 * The image is no worse than before, has all content, and a repair that runs to its end repairs it.
 */
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
    ck_assert_msg(outcome.error == 0, "%s: %d", what, outcome.error);
    ck_assert_msg(bad_entries(&outcome) <= bad_entries(&judgement->found), "%s: more bad entries",
                  what);
    if (judgement->found.result.recoverable) {
        ck_assert_msg(outcome.result.recoverable, "%s: %s", what, outcome.last_text);
    }
    run_check(&after, ALL, &outcome);
    ck_assert_int_eq(outcome.error, 0);
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

            snprintf(what, sizeof(what), "cut after %u, durable %u, fate %d of %u", cut->end,
                     cut->durable, fate, one);
            judge(judgement, disk, size, what);
            free(disk);
        }
    }
}

START_TEST(power_cuts)
{
    static const uint32_t repairs[] = {PLOOP_REPAIR_LEAKS, PLOOP_REPAIR_UNCLEAN,
                                       PLOOP_REPAIR_ENTRIES, ALL};
    enum scenario scenario = (enum scenario)(_i / 2);
    struct judgement judgement = {.disks = 0};

    for (int i = is_instrumented() ? 3 : 0; i < 4; i++) {
        struct fixture fixture;
        struct cut cut = {.run = &fixture};

        repair_make(&fixture, scenario, (uint32_t)_i % 2 + 1);
        read_content(fixture.bytes, fixture.size, &judgement.before);
        cut.initial_size = fixture.size;

        uint8_t *initial = malloc(fixture.size);

        memcpy(initial, fixture.bytes, fixture.size);
        cut.initial = initial;
        run_check(&fixture, repairs[i], &judgement.found);
        ck_assert_int_eq(judgement.found.error, 0);
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

/*
 * Fail the Nth request of a kind, once or from then on, N = 1, 2, 3 ... until the repair succeeds.
 */
static uint32_t fail_each(enum scenario scenario, uint32_t kind, uint64_t count, int error)
{
    uint32_t failures = 0;
    int got = -1;

    for (uint64_t from = 1; got; from++) {
        struct fixture fixture;
        struct check_outcome outcome;
        struct judgement judgement = {.disks = 0};

        repair_make(&fixture, scenario, 2);
        read_content(fixture.bytes, fixture.size, &judgement.before);
        run_check(&fixture, 0, &judgement.found);
        fixture_reset(&fixture);
        fixture.fail_op = kind;
        fixture.fail_from = kind == PLOOP_IO_READ
                                ? from + 2
                                : from; /* the header's and the BAT's are the check's own */
        fixture.fail_count = count;
        fixture.fail_error = error;
        run_check(&fixture, ALL, &outcome);
        got = outcome.error;
        ck_assert(got == 0 || got == -error);
        fixture.fail_from = 0;
        failures += got != 0;
        judge(&judgement, fixture.bytes, fixture.size, "after a failure");
        fixture_close(&fixture);
    }
    return failures;
}

START_TEST(each_request_fails)
{
    static const uint32_t kinds[] = {PLOOP_IO_READ, PLOOP_IO_WRITE, PLOOP_IO_SYNC,
                                     PLOOP_IO_TRUNCATE};
    static const int errors[] = {EIO, ENOSPC, EROFS};
    uint32_t failures = 0;

    for (int i = 0; i < 4; i++) {
        failures += fail_each((enum scenario)_i, kinds[i], 1, errors[i % 3]);
        failures += fail_each((enum scenario)_i, kinds[i], UINT64_MAX, errors[(i + 1) % 3]);
    }
    ck_assert_uint_ge(failures, 8);
}
END_TEST

/* A failure before anything was published leaves the file unchanged. */
START_TEST(a_failed_copy_is_taken_back)
{
    struct fixture fixture;
    struct check_outcome outcome;
    uint64_t size;

    repair_make(&fixture, DUPLICATES, 2);
    size = fixture.size;

    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    fixture.fail_op = PLOOP_IO_WRITE;
    fixture.fail_from = 3; /* the mark, one copy, and then */
    fixture.fail_count = 1;
    fixture.fail_error = ENOSPC;
    run_check(&fixture, PLOOP_REPAIR_ENTRIES, &outcome);
    ck_assert_int_eq(outcome.error, -ENOSPC);
    ck_assert_uint_eq(outcome.result.repaired, 0);
    ck_assert_uint_eq(fixture.size, size);
    ck_assert_mem_eq(fixture.bytes, found, size);
    fixture.capabilities = 0; /* no room behind the end */
    run_check(&fixture, PLOOP_REPAIR_ENTRIES, &outcome);
    ck_assert_int_eq(outcome.error, -ENOSPC);
    ck_assert_mem_eq(fixture.bytes, found, size);
    free(found);
    fixture_close(&fixture);
}
END_TEST

/* ---- a caller that cancels ---- */

/* A repair of all, cancelled at that call of progress; 0: never. */
static int repair_until(struct fixture *fixture, uint64_t calls, struct ploop_check_result *result)
{
    const struct ploop_check_options options = {
        .size = sizeof(options), .repair = ALL, .progress = stop_after, .user_data = &calls};

    *result = (struct ploop_check_result){.size = sizeof(*result)};
    return ploop_image_check(fixture->file, &options, result);
}

/*
 * Cancel at each call: the image is no worse than before, marked only if it was, everything is
 * durable, and a new run repairs it.
 */
START_TEST(cancelled)
{
    enum scenario scenario = (enum scenario)(_i / 2);
    int error = -ECANCELED;
    uint64_t stop;

    for (stop = 1; error; stop++) {
        struct fixture fixture;
        struct judgement judgement = {.disks = 0};
        struct ploop_check_result result;

        repair_make(&fixture, scenario, (uint32_t)_i % 2 + 1);
        read_content(fixture.bytes, fixture.size, &judgement.before);
        run_check(&fixture, 0, &judgement.found);

        bool was_marked = load_le32(fixture.bytes + 44) == IN_USE;

        error = repair_until(&fixture, stop, &result);
        ck_assert(error == 0 || error == -ECANCELED);
        ck_assert(was_marked || load_le32(fixture.bytes + 44) != IN_USE);
        ck_assert(fixture.log_size == 0 || fixture.log[fixture.log_size - 1].op == PLOOP_IO_SYNC);
        judge(&judgement, fixture.bytes, fixture.size, "cancelled");
        fixture_close(&fixture);
    }
    ck_assert_uint_ge(stop,
                      scenario == UNCLEAN ? 5 : 7); /* four of these calls are the check's own */
}
END_TEST

/*
 * Calls 1 to 4 are the check's; the next ones come before the first copy. Nothing that counts was
 * done, and nothing is left of it.
 */
START_TEST(cancelled_before_the_first_copy)
{
    struct fixture fixture;
    struct ploop_check_result result;
    uint64_t size;

    repair_make(&fixture, DUPLICATES, 2);
    size = fixture.size;

    uint8_t *found = malloc(size);

    memcpy(found, fixture.bytes, size);
    ck_assert_int_eq(repair_until(&fixture, 5, &result), -ECANCELED);
    ck_assert_uint_gt(fixture.log_size, 0);
    ck_assert_uint_eq(result.repaired, 0);
    ck_assert_uint_eq(fixture.size, size);
    ck_assert_mem_eq(fixture.bytes, found, size);
    free(found);
    fixture_close(&fixture);
}
END_TEST

/* What was repaired by then stays, and no space is left at the end that was meant for the rest. */
START_TEST(cancelled_after_one_copy)
{
    struct fixture fixture;
    struct check_outcome before, after;
    struct ploop_check_result result;
    uint64_t size;

    repair_make(&fixture, DUPLICATES, 2);
    run_check(&fixture, 0, &before);
    size = fixture.size;
    ck_assert_int_eq(repair_until(&fixture, 6, &result), -ECANCELED);
    ck_assert_uint_eq(fixture.size, size + CLUSTER);
    ck_assert_uint_ne(load_le32(fixture.bytes + 44), IN_USE);
    run_check(&fixture, 0, &after);
    ck_assert_uint_eq(after.result.errors, before.result.errors - 1);
    ck_assert_uint_eq(after.result.leaks, before.result.leaks);
    ck_assert_int_eq(repair_until(&fixture, 0, &result), 0);
    ck_assert_uint_eq(result.errors, before.result.errors - 1);
    ck_assert_int_eq(oracle_status(fixture.bytes, fixture.size), 0);
    fixture_close(&fixture);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("repair_failures");

    tcase_add_loop_test(tests, power_cuts, 0, 2 * SCENARIOS);
    tcase_add_loop_test(tests, each_request_fails, 0, SCENARIOS);
    tcase_add_test(tests, a_failed_copy_is_taken_back);
    tcase_add_loop_test(tests, cancelled, 0, 2 * SCENARIOS);
    tcase_add_test(tests, cancelled_before_the_first_copy);
    tcase_add_test(tests, cancelled_after_one_copy);
    tcase_set_timeout(tests, 250);
    return run_case("repair_failures", tests);
}
