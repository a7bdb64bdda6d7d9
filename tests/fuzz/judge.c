/* SPDX-License-Identifier: MIT */
/* See judge.h. */
#include "judge.h"

#include <errno.h>
#include <string.h>

uint64_t judge_now_ns;

struct fuzz_case *case_load(const uint8_t *data, size_t size)
{
    static struct fuzz_case fuzz_case;
    const char *path = getenv("FUZZ_IMAGE");

    input_decode(&fuzz_case.input, data, size);
    input_build(&fuzz_case.input, &fuzz_case.image);
    if (path) {
        sparse_save(&fuzz_case.image, path);
    }
    return &fuzz_case;
}

void case_free(struct fuzz_case *fuzz_case)
{
    sparse_free(&fuzz_case->image);
}

/* ---- the oracle ---- */

static bool takes_space(void *context, uint64_t offset, uint64_t length)
{
    return sparse_next(context, offset, offset + length) < offset + length;
}

static int read_sparse(void *context, void *buffer, uint64_t length, uint64_t offset)
{
    return sparse_read(context, buffer, length, offset) == length ? 0 : -1;
}

/*
 * The oracle needs memory in proportion to the file and to the BAT. If either is large, ask it only
 * about the header.
 */
void opinion_form(struct opinion *opinion, const struct sparse *image)
{
    char message[160];
    void *context = (void *)(uintptr_t)image;
    struct oracle *oracle = &opinion->oracle;

    *opinion = (struct opinion){0};
    opinion->verdict = oracle_read_header(oracle, read_sparse, context, image->size, message);
    if (opinion->verdict != ORACLE_OK) {
        return;
    }
    opinion->bat_too_large = (uint64_t)4 * oracle->bat_entries > JUDGE_BAT_LIMIT;
    opinion->has_map =
        !opinion->bat_too_large && image->size / 512 / oracle->cluster_sectors <= JUDGE_SLOTS_MAX;
    if (opinion->has_map) {
        MUST(oracle_open(oracle, read_sparse, context, image->size, message) == ORACLE_OK, "%s",
             message);
    }
}

void opinion_free(struct opinion *opinion)
{
    if (opinion->has_map) {
        oracle_close(&opinion->oracle);
    }
}

int opinion_error(const struct opinion *opinion)
{
    switch (opinion->verdict) {
    case ORACLE_NOT_AN_IMAGE:
        return -EINVAL;
    case ORACLE_CORRUPT:
        return -EUCLEAN;
    default:
        return opinion->bat_too_large ? -EFBIG : 0;
    }
}

static uint64_t guest_clusters(const struct oracle *oracle)
{
    return (oracle->disk_sectors + oracle->cluster_sectors - 1) / oracle->cluster_sectors;
}

void sample_take(struct sample *sample, const struct opinion *opinion)
{
    const struct oracle *oracle = &opinion->oracle;
    uint64_t count = guest_clusters(oracle);

    sample->count = 0;
    for (uint64_t i = 0; i < count && sample->count < JUDGE_CLUSTERS_MAX; i++) {
        if (i == 0 || i + 1 == count ||
            (oracle->bat[i] && sample->count + 1 < JUDGE_CLUSTERS_MAX)) {
            sample->clusters[sample->count++] = i;
        }
    }
}

struct part cluster_part(const struct opinion *opinion, uint64_t cluster, bool last)
{
    uint64_t size = opinion->oracle.cluster, disk = opinion->oracle.disk_sectors * 512;
    uint64_t start = cluster * size, end = disk - start < size ? disk : start + size;

    if (end - start <= JUDGE_PART) {
        return (struct part){start, end - start};
    }
    return (struct part){last ? end - JUDGE_PART : start, JUDGE_PART};
}

void guest_bytes(const struct opinion *opinion, const struct part *part, uint8_t bytes[JUDGE_PART])
{
    const struct oracle *oracle = &opinion->oracle;
    uint64_t host = oracle_host_offset(oracle, part->offset / oracle->cluster);

    memset(bytes, 0, JUDGE_PART);
    sparse_read(oracle->context, bytes, part->length, host + part->offset % oracle->cluster);
}

bool part_is_there(const struct opinion *opinion, const struct part *part)
{
    const struct oracle *oracle = &opinion->oracle;
    uint64_t host = oracle_host_offset(oracle, part->offset / oracle->cluster);

    return host + part->offset % oracle->cluster + part->length <= oracle->file_size;
}

/* ---- checks ---- */

static void take_record(void *user_data, const struct ploop_check_record *record, const char *text)
{
    struct outcome *outcome = user_data;

    MUST(record->size == sizeof(*record) && record->kind >= PLOOP_CHECK_HEADER &&
             record->kind <= PLOOP_CHECK_VOID_EXTENSION,
         "kind %u", record->kind);
    MUST(text[0] && !strchr(text, '\n') && strlen(text) < 255, "'%s'", text);
    MUST(record->count, "'%s' counts nothing", text);
    outcome->kinds[record->kind]++;
    if (record->kind == PLOOP_CHECK_IN_USE_VALUE || record->kind == PLOOP_CHECK_VOID_EXTENSION) {
        outcome->result.notes++;
        return;
    }
    outcome->findings++;
    if (record->kind == PLOOP_CHECK_LEAK || record->kind == PLOOP_CHECK_ENTRY_BEYOND) {
        outcome->result.leaks += record->count;
    } else {
        outcome->result.errors++;
    }
}

void judge_check(struct backend *backend, uint32_t repair, struct outcome *outcome)
{
    const struct ploop_check_options options = {.size = sizeof(options),
                                                .repair = repair,
                                                .bat_limit_bytes = JUDGE_BAT_LIMIT,
                                                .record = take_record,
                                                .user_data = outcome};
    struct ploop_check_result result = {.size = sizeof(result)};

    *outcome = (struct outcome){0};
    backend->read_only = repair == 0;
    outcome->error = ploop_image_check(backend->file, &options, &result);
    backend->read_only = false;
    MUST(outcome->result.errors == result.errors && outcome->result.leaks == result.leaks &&
             outcome->result.notes == result.notes,
         "%llu errors, %llu leaks and %llu notes, and findings of %llu, %llu and %llu",
         (unsigned long long)result.errors, (unsigned long long)result.leaks,
         (unsigned long long)result.notes, (unsigned long long)outcome->result.errors,
         (unsigned long long)outcome->result.leaks, (unsigned long long)outcome->result.notes);
    MUST(result.repaired <= outcome->findings && (repair || !result.repaired),
         "%llu repaired of %llu", (unsigned long long)result.repaired,
         (unsigned long long)outcome->findings);
    outcome->result = result;
}

/*
 * The oracle stops at an extension's first error, the library goes on to the next bitmap: one
 * finding stands for all. Also, a bad entry takes from a bitmap exactly the cluster it names for
 * the oracle, and each cluster it covers for the library: the image is corrupt for both.
 */
void judge_outcome(const struct outcome *outcome, struct opinion *opinion)
{
    struct oracle_result expected;
    uint64_t extension = outcome->kinds[PLOOP_CHECK_EXTENSION],
             others = outcome->result.errors - extension;
    uint64_t bad = outcome->kinds[PLOOP_CHECK_ENTRY_GRID] + outcome->kinds[PLOOP_CHECK_ENTRY_RANGE];
    int error = opinion_error(opinion);

    MUST(outcome->error == error, "check: %d, the oracle says %d", outcome->error, error);
    MUST(outcome->kinds[PLOOP_CHECK_HEADER] == (error == -EUCLEAN), "a header with %d", error);
    if (!opinion->has_map) {
        return;
    }
    opinion->oracle.takes_space = takes_space;
    oracle_check(&opinion->oracle, NULL, NULL, &expected);
    MUST(expected.errors == others + (extension != 0) ||
             (extension && bad && expected.errors == others),
         "%llu errors, the oracle says %llu", (unsigned long long)outcome->result.errors,
         (unsigned long long)expected.errors);
    MUST(extension || outcome->result.leaks == expected.leaks, "%llu leaks, the oracle says %llu",
         (unsigned long long)outcome->result.leaks, (unsigned long long)expected.leaks);
    MUST(outcome->result.notes == expected.notes, "%llu notes, the oracle says %llu",
         (unsigned long long)outcome->result.notes, (unsigned long long)expected.notes);
    MUST(outcome->kinds[PLOOP_CHECK_UNCLEAN] == expected.unclean, "in_use 0x%08x",
         opinion->oracle.in_use);
    MUST(outcome->result.recoverable == (oracle_writing(&opinion->oracle) != ORACLE_REFUSE),
         "recoverable %u, the oracle says otherwise", outcome->result.recoverable);
}

/* ---- devices ---- */

static uint64_t now(void *context)
{
    (void)context;
    return judge_now_ns;
}

static void take_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    MUST(level && message_id && text[0] && !strchr(text, '\n'), "the log: '%s'", text);
}

int judge_open_stack(struct backend *base, struct backend *top, uint32_t flags, ploop_dev **dev)
{
    static const struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now};
    ploop_file *deltas[] = {base ? base->file : top->file, top->file};
    struct ploop_dev_config config;

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    config.pio_count = 2;
    config.bat_limit_bytes = JUDGE_BAT_LIMIT;
    config.clock = &clock;
    config.log = take_log;
    return ploop_dev_open(deltas, base ? 2 : 1, &config, dev);
}

int judge_open(struct backend *backend, uint32_t flags, ploop_dev **dev)
{
    return judge_open_stack(NULL, backend, flags, dev);
}

void make_top(const struct opinion *base, struct sparse *top)
{
    uint8_t header[64];

    sparse_read(base->oracle.context, header, sizeof(header), 0);
    memset(header + 44, 0, 4);  /* in_use */
    memset(header + 52, 0, 12); /* flags, ext_off */
    header[52] = 1;             /* Empty */
    sparse_init(top, base->oracle.data_start);
    MUST(sparse_write(top, header, sizeof(header), 0), "no room");
}
