/* SPDX-License-Identifier: MIT */
#include "hostile.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "oracle/oracle.h"

enum { READ_MAX = 1 << 20, ALL = PLOOP_REPAIR_LEAKS | PLOOP_REPAIR_UNCLEAN | PLOOP_REPAIR_ENTRIES };

struct hostile_counts hostile_counts;

/* The image that is tested, as it was before the test. */
struct subject {
    struct fixture *fixture;
    const char *what;
    uint8_t *bytes;
    uint64_t size;
    struct oracle_memory memory;
    struct oracle oracle;
    enum oracle_verdict verdict;
    enum oracle_writing writing;
    struct oracle_result found;
};

static uint8_t cluster_now[READ_MAX], cluster_then[READ_MAX];

#define judge_that(subject, condition) must_msg(condition, "%s: " #condition, (subject)->what)

static bool is_unchanged(const struct subject *subject)
{
    const struct fixture *fixture = subject->fixture;

    return fixture->size == subject->size &&
           (subject->size == 0 || memcmp(fixture->bytes, subject->bytes, subject->size) == 0);
}

static void restore(struct subject *subject)
{
    struct fixture *fixture = subject->fixture;

    fixture_reset(fixture);
    if (subject->size) {
        memcpy(fixture->bytes, subject->bytes,
               subject->size); /* a fixture's memory never shrinks */
    }
    fixture->size = subject->size;
}

static int expected_error(const struct subject *subject)
{
    return subject->verdict == ORACLE_OK             ? 0
           : subject->verdict == ORACLE_NOT_AN_IMAGE ? -EINVAL
                                                     : -EUCLEAN;
}

/*
 * An unknown NECESSARY feature forbids writing and repair. The oracle reports this too, under
 * another name.
 */
static bool may_be_unsupported(const struct subject *subject, int error)
{
    return error == -ENOTSUP && subject->verdict == ORACLE_OK &&
           subject->writing == ORACLE_REFUSE && subject->oracle.in_use == ORACLE_CLOSED &&
           subject->oracle.ext_off;
}

/* ---- reading ---- */

static void judge_probe(const struct subject *subject)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    int error = ploop_image_probe(subject->fixture->file, &info);

    must_msg(error == expected_error(subject), "%s: probe says %d", subject->what, error);
    judge_that(subject, (info.message[0] != 0) == (error != 0));
    judge_that(subject, !strchr(info.message, '\n'));
    judge_that(subject, info.file_size == subject->size);
    if (!error) {
        judge_that(subject, info.version == (subject->oracle.v1 ? 1 : 2));
        judge_that(subject, info.disk_size == subject->oracle.disk_sectors * 512);
        judge_that(subject, info.cluster_size == subject->oracle.cluster);
        judge_that(subject, info.bat_entries == subject->oracle.bat_entries);
        judge_that(subject, info.data_offset == subject->oracle.data_start);
        judge_that(subject, info.in_use == subject->oracle.in_use);
    }
}

static void judge_check(const struct subject *subject)
{
    struct check_outcome outcome;

    run_check(subject->fixture, 0, &outcome);
    must_msg(outcome.error == expected_error(subject), "%s: check says %d", subject->what,
             outcome.error);
    judge_that(subject, is_unchanged(subject) && subject->fixture->log_size == 0);
    if (outcome.error) {
        judge_that(subject, outcome.result.errors == (outcome.error == -EUCLEAN));
        judge_that(subject, outcome.result.recoverable == 0);
        return;
    }
    if (outcome.kinds[PLOOP_CHECK_EXTENSION]) { /* the oracle reports only the first fault there */
        judge_that(subject,
                   outcome.result.errors >= subject->found.errors && subject->found.errors > 0);
    } else {
        must_msg(outcome.result.errors == subject->found.errors &&
                     outcome.result.leaks == subject->found.leaks,
                 "%s: %" PRIu64 " errors and %" PRIu64 " leaks, the oracle says %" PRIu64
                 " and %" PRIu64,
                 subject->what, outcome.result.errors, outcome.result.leaks, subject->found.errors,
                 subject->found.leaks);
    }
    judge_that(subject, outcome.result.notes == subject->found.notes);
    judge_that(subject, outcome.result.recoverable == (subject->writing != ORACLE_REFUSE) ||
                            outcome.result.errors == 0);
}

/* ---- opening ---- */

struct open_log {
    char text[256];
    uint32_t lines;
};

static void take_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    struct open_log *log = user_data;

    (void)message_id;
    log->lines += level == PLOOP_LOG_ERROR;
    snprintf(log->text, sizeof(log->text), "%s", text);
}

static int open_device(struct fixture *fixture, uint32_t flags, struct open_log *log,
                       ploop_dev **dev)
{
    struct ploop_dev_config config;

    *log = (struct open_log){.lines = 0};
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    config.pio_count = 1; /* this open runs a hundred thousand times */
    config.log = take_line;
    config.user_data = log;
    return ploop_dev_open(&fixture->file, 1, &config, dev);
}

static uint64_t part_of_disk(const struct subject *subject, uint64_t index)
{
    uint64_t left = subject->oracle.disk_sectors * 512 - index * subject->oracle.cluster;
    uint64_t length = left < subject->oracle.cluster ? left : subject->oracle.cluster;

    return length < READ_MAX ? length : READ_MAX;
}

/*
 * The oracle's content there, READ_MAX bytes at most: 1 and bytes, 0 and zeros, or -1. A cluster
 * that is cut off has bytes where the visible part is in the file, or once it was made whole.
 */
static int oracle_bytes(const struct subject *subject, struct oracle *oracle, uint64_t index,
                        bool is_whole, uint8_t *bytes)
{
    enum oracle_cluster state = oracle_judge_cluster(oracle, index);
    uint64_t part = part_of_disk(subject, index), offset = oracle_host_offset(oracle, index);

    if (state == ORACLE_DUPLICATE || state == ORACLE_BAD) {
        return -1;
    }
    memset(bytes, 0, part);
    if (state == ORACLE_UNMAPPED) {
        return 0;
    }

    uint64_t there = oracle->file_size - offset;
    must(oracle->read(oracle->context, bytes, there < part ? there : part, offset) == 0);
    return there >= part || is_whole ? 1 : -1;
}

static bool is_worth_reading(const struct subject *subject, uint64_t index, uint64_t end)
{
    return subject->oracle.bat[index] || index == 0 || index == end - 1;
}

static void judge_content(struct subject *subject, ploop_dev *dev, bool is_whole)
{
    struct oracle *oracle = &subject->oracle;
    uint64_t end = (oracle->disk_sectors + oracle->cluster_sectors - 1) / oracle->cluster_sectors;
    struct ploop_dev_info info = {.size = sizeof(info)};
    uint64_t mapped = 0;

    for (uint64_t index = 0; index < end; index++) {
        if (!is_worth_reading(subject, index, end)) {
            continue;
        }

        uint64_t length = part_of_disk(subject, index);
        int status = oracle_bytes(subject, oracle, index, is_whole, cluster_then);
        int64_t got = ploop_dev_pread(dev, cluster_now, length, index * oracle->cluster);

        must_msg(got == (status < 0 ? -EIO : (int64_t)length),
                 "%s: reading guest cluster %" PRIu64 ": %" PRId64, subject->what, index, got);
        must_msg(status < 0 || memcmp(cluster_now, cluster_then, length) == 0,
                 "%s: guest cluster %" PRIu64 " reads foreign bytes", subject->what, index);
    }
    for (uint64_t index = 0; index < oracle->bat_entries; index++) {
        mapped += oracle_read_cluster(oracle, index, cluster_then) > 0 ||
                  oracle_judge_cluster(oracle, index) == ORACLE_CUT;
    }
    must(ploop_dev_info(dev, &info) == 0);
    judge_that(subject, info.clusters_mapped == mapped);
}

/*
 * Every cluster that could be read has the same content in the file as it is now. One that could
 * not be read still cannot, or may be gone if `bad_may_go`.
 */
static void judge_kept(struct subject *subject, bool bad_may_go, struct oracle_result *after)
{
    struct oracle_memory memory = {subject->fixture->bytes, subject->fixture->size};
    struct oracle *then = &subject->oracle, now;
    char message[160];
    uint64_t end = (then->disk_sectors + then->cluster_sectors - 1) / then->cluster_sectors;

    must_msg(oracle_open(&now, oracle_read_memory, &memory, memory.size, message) == ORACLE_OK,
             "%s: afterwards: %s", subject->what, message);
    oracle_check(&now, NULL, NULL, after);
    judge_that(subject, now.cluster == then->cluster && now.disk_sectors == then->disk_sectors &&
                            now.v1 == then->v1);
    for (uint64_t index = 0; index < end; index++) {
        if (!is_worth_reading(subject, index, end)) {
            continue;
        }

        int status_then = oracle_bytes(subject, then, index, true, cluster_then);
        int status_now = oracle_bytes(subject, &now, index, true, cluster_now);

        if (status_then >= 0) {
            must_msg(status_now >= 0 &&
                         memcmp(cluster_now, cluster_then, part_of_disk(subject, index)) == 0,
                     "%s: guest cluster %" PRIu64 " changed", subject->what, index);
        } else {
            must_msg(status_now < 0 || bad_may_go, "%s: guest cluster %" PRIu64 " was bad",
                     subject->what, index);
        }
    }
    oracle_close(&now);
}

static void judge_open(struct subject *subject, uint32_t flags)
{
    bool read_only = flags & PLOOP_DEV_READ_ONLY;
    bool writable = subject->writing == ORACLE_WRITE ||
                    (subject->writing == ORACLE_RECOVER && flags & PLOOP_DEV_RECOVER);
    bool opens = subject->verdict == ORACLE_OK && (read_only || writable);
    struct open_log log;
    ploop_dev *dev = NULL;
    int error = open_device(subject->fixture, flags, &log, &dev);

    must_msg((error == 0) == opens, "%s: opened with flags %u: %d %s", subject->what, flags, error,
             log.text);
    if (error) {
        must_msg(error == (subject->verdict == ORACLE_OK ? -EUCLEAN : expected_error(subject)) ||
                     may_be_unsupported(subject, error),
                 "%s: opening says %d %s", subject->what, error, log.text);
        judge_that(subject, log.lines == 1 && log.text[0] && !strchr(log.text, '\n'));
    } else {
        judge_content(subject, dev, !read_only);
        must(ploop_dev_close(dev) == 0);
    }
    if (!opens || read_only) {
        judge_that(subject, is_unchanged(subject) && subject->fixture->counts[PLOOP_IO_WRITE] == 0);
        judge_that(subject, subject->fixture->counts[PLOOP_IO_TRUNCATE] +
                                    subject->fixture->counts[PLOOP_IO_PUNCH] ==
                                0);
    } else {
        struct oracle_result after = {0};

        judge_kept(subject, false, &after);
        must_msg(after.errors == 0, "%s: errors after a clean close", subject->what);
    }
    restore(subject);
}

/* ---- repair ---- */

/*
 * The second repair finds nothing to change; if the first could repair everything, it finds nothing
 * to write. (If errors had to stay, repairing leaks can turn one of them into a leak: an entry
 * beyond the disk's end that shared a cluster with another such entry.)
 */
static void judge_second_repair(const struct subject *subject, uint32_t repair)
{
    struct fixture *fixture = subject->fixture;
    struct check_outcome outcome;
    uint64_t size = fixture->size;
    uint8_t *first = malloc(size);

    must(first);
    memcpy(first, fixture->bytes, size);
    fixture_reset(fixture);
    run_check(fixture, repair, &outcome);
    must_msg(outcome.error == 0 && fixture->size == size &&
                 memcmp(fixture->bytes, first, size) == 0,
             "%s: a second repair %u changes something", subject->what, repair);
    must_msg(repair != ALL || fixture_changes(fixture) == 0, "%s: a second repair writes",
             subject->what);
    free(first);
}

static void judge_repair(struct subject *subject, uint32_t repair)
{
    struct check_outcome outcome;
    struct oracle_result after = {0};

    run_check(subject->fixture, repair, &outcome);
    if (outcome.error) {
        must_msg(outcome.error == expected_error(subject) ||
                     may_be_unsupported(subject, outcome.error),
                 "%s: repair %u says %d", subject->what, repair, outcome.error);
        judge_that(subject, is_unchanged(subject) && subject->fixture->counts[PLOOP_IO_WRITE] == 0);
        restore(subject);
        return;
    }
    judge_kept(subject, repair & PLOOP_REPAIR_ENTRIES, &after);
    must_msg(after.errors <= subject->found.errors, "%s: more errors after repair %u",
             subject->what, repair);
    must_msg(repair != ALL || after.errors + after.leaks == 0, "%s: repaired, not clean",
             subject->what);
    must_msg((after.errors + after.leaks < subject->found.errors + subject->found.leaks) ==
                     (outcome.result.repaired > 0) ||
                 repair != ALL,
             "%s: %" PRIu64 " repaired", subject->what, outcome.result.repaired);
    if (subject->found.errors == 0 || repair & PLOOP_REPAIR_ENTRIES) {
        judge_second_repair(subject, repair);
    }
    restore(subject);
}

/* ---- the whole test ---- */

static void count_one(const struct subject *subject)
{
    hostile_counts.images++;
    hostile_counts.rejected += subject->verdict != ORACLE_OK;
    if (subject->verdict == ORACLE_OK) {
        hostile_counts.read_only += subject->writing == ORACLE_REFUSE;
        hostile_counts.recovered += subject->writing == ORACLE_RECOVER;
        hostile_counts.writable += subject->writing == ORACLE_WRITE;
    }
}

void hostile_judge(struct fixture *fixture, const char *what)
{
    struct subject subject = {.fixture = fixture, .what = what, .size = fixture->size};
    char message[160];

    subject.bytes = malloc(fixture->size + 1);
    must(subject.bytes);
    if (fixture->size) {
        memcpy(subject.bytes, fixture->bytes, fixture->size);
    }
    subject.memory = (struct oracle_memory){subject.bytes, subject.size};
    subject.verdict =
        oracle_open(&subject.oracle, oracle_read_memory, &subject.memory, subject.size, message);
    if (subject.verdict == ORACLE_OK) {
        oracle_check(&subject.oracle, NULL, NULL, &subject.found);
        subject.writing = oracle_writing(&subject.oracle);
    }
    count_one(&subject);
    judge_probe(&subject);
    judge_check(&subject);
    judge_open(&subject, PLOOP_DEV_READ_ONLY);
    judge_open(&subject, 0);
    if (subject.writing == ORACLE_RECOVER ||
        hostile_counts.images % 4 == 0) { /* else the result is the same as without it */
        judge_open(&subject, PLOOP_DEV_RECOVER);
    }
    judge_repair(&subject, ALL);
    judge_repair(&subject, 1 + (uint32_t)hostile_counts.images % (ALL - 1));
    judge_repair(&subject, PLOOP_REPAIR_CUT | (uint32_t)hostile_counts.images % ALL);
    if (subject.verdict == ORACLE_OK) {
        oracle_close(&subject.oracle);
    }
    free(subject.bytes);
}

int hostile_refusal(struct fixture *fixture, uint32_t dev_flags, char *message, size_t message_size)
{
    struct open_log log;
    ploop_dev *dev = NULL;
    int error = open_device(fixture, dev_flags, &log, &dev);

    must(log.lines == (error != 0));
    snprintf(message, message_size, "%s", log.text);
    ploop_dev_abort(dev);
    return error;
}

void hostile_print(const char *kind)
{
    printf("hostile: %s: %" PRIu64 " images by every way in, %" PRIu64 " rejected, %" PRIu64
           " for rescue only, %" PRIu64 " to be recovered, %" PRIu64 " writable\n",
           kind, hostile_counts.images, hostile_counts.rejected, hostile_counts.read_only,
           hostile_counts.recovered, hostile_counts.writable);
    fflush(stdout);
}
