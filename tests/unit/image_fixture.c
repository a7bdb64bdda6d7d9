/* SPDX-License-Identifier: MIT */
#include "image_fixture.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oracle/oracle.h"
#include "util/bytes.h"
#include "util/md5.h"

/* ---- the backend ---- */

static int get_info(void *context, struct ploop_file_info *info)
{
    const struct fixture *fixture = context;

    info->file_size = fixture->claimed_size ? fixture->claimed_size : fixture->size;
    info->capabilities = fixture->capabilities;
    info->request_alignment = 1;
    return 0;
}

static bool fails(struct fixture *fixture, const struct ploop_io *io)
{
    uint64_t end = io->offset + io->length;

    if (fixture->fail_op != io->op || !fixture->fail_from) {
        return false;
    }
    if (fixture->fail_offset &&
        (fixture->fail_offset < io->offset || fixture->fail_offset >= end)) {
        return false;
    }
    return fixture->counts[io->op] >= fixture->fail_from &&
           fixture->counts[io->op] - fixture->fail_from < fixture->fail_count;
}

static void resize(struct fixture *fixture, uint64_t size)
{
    if (size > fixture->capacity) {
        fixture->capacity = size * 2;
        fixture->bytes = realloc(fixture->bytes, fixture->capacity);
        ck_assert_ptr_nonnull(fixture->bytes);
    }
    if (size > fixture->size) {
        memset(fixture->bytes + fixture->size, 0, size - fixture->size);
    }
    fixture->size = size;
}

static void remember(struct fixture *fixture, const struct ploop_io *io)
{
    struct fixture_op *op = &fixture->log[fixture->log_size++];

    must(fixture->log_size <= FIXTURE_OPS_MAX);
    *op = (struct fixture_op){.op = io->op, .offset = io->offset, .length = io->length};
    if (io->op == PLOOP_IO_WRITE) {
        uint64_t at = 0;

        op->data = malloc(io->length + 1);
        for (uint32_t i = 0; i < io->iov_count; i++) {
            memcpy(op->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
            at += io->iov[i].iov_len;
        }
    }
}

static int64_t read_bytes(const struct fixture *fixture, const struct ploop_io *io)
{
    uint64_t limit = fixture->claimed_size ? fixture->claimed_size : fixture->size;
    uint64_t length = io->offset >= limit               ? 0
                      : limit - io->offset < io->length ? limit - io->offset
                                                        : io->length;
    uint64_t real = io->offset >= fixture->size           ? 0
                    : fixture->size - io->offset < length ? fixture->size - io->offset
                                                          : length;

    must(io->iov_count == 1);
    memset(io->iov[0].iov_base, 0, length);
    if (real) {
        memcpy(io->iov[0].iov_base, fixture->bytes + io->offset, real);
    }
    return (int64_t)length;
}

static int64_t execute(struct fixture *fixture, struct ploop_io *io)
{
    fixture->counts[io->op]++;
    if (fails(fixture, io)) {
        return -fixture->fail_error;
    }
    if (io->op == PLOOP_IO_READ) {
        return read_bytes(fixture, io);
    }
    remember(fixture, io);
    switch (io->op) {
    case PLOOP_IO_WRITE:
        if (io->offset + io->length > fixture->size) {
            resize(fixture, io->offset + io->length);
        }
        memcpy(fixture->bytes + io->offset, fixture->log[fixture->log_size - 1].data, io->length);
        return (int64_t)io->length;
    case PLOOP_IO_TRUNCATE:
        if (fixture->claimed_size) {
            fixture->claimed_size = io->offset;
            fixture->size = io->offset < fixture->size ? io->offset : fixture->size;
        } else {
            resize(fixture, io->offset);
        }
        return 0;
    case PLOOP_IO_PUNCH:
        memset(fixture->bytes + io->offset, 0, io->length);
        return 0;
    default:
        return 0;
    }
}

static int submit(void *context, struct ploop_io *io)
{
    ploop_io_complete(io, execute(context, io));
    return 0;
}

static int data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    const struct fixture *fixture = context;
    uint64_t end = fixture->claimed_size ? fixture->claimed_size : fixture->size;

    if (offset >= fixture->hole_begin && offset < fixture->hole_end) {
        offset = fixture->hole_end;
    }
    end = fixture->hole_begin > offset && fixture->hole_begin < end ? fixture->hole_begin : end;
    *data_offset = offset;
    *data_length = offset < end ? end - offset : 0;
    return fixture->extent_error;
}

void fixture_open(struct fixture *fixture, const void *bytes, uint64_t size)
{
    const struct ploop_io_ops ops = {
        .size = sizeof(ops), .get_info = get_info, .submit = submit, .data_extent = data_extent};

    memset(fixture, 0, sizeof(*fixture));
    fixture->capabilities = PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE | PLOOP_FILE_CAN_GROW;
    fixture->capacity = size + 4096;
    fixture->bytes = malloc(fixture->capacity);
    fixture->fail_count = UINT64_MAX;
    fixture->fail_error = EIO;
    ck_assert_ptr_nonnull(fixture->bytes);
    if (size) {
        memcpy(fixture->bytes, bytes, size);
    }
    fixture->size = size;
    ck_assert_int_eq(ploop_file_create(&ops, fixture, &fixture->file), 0);
}

uint32_t fixture_changes(const struct fixture *fixture)
{
    uint32_t changes = 0;
    for (uint32_t i = 0; i < fixture->log_size; i++) {
        changes += fixture->log[i].op != PLOOP_IO_SYNC;
    }
    return changes;
}

void fixture_reset(struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->log_size; i++) {
        free(fixture->log[i].data);
    }
    fixture->log_size = 0;
    memset(fixture->counts, 0, sizeof(fixture->counts));
}

void fixture_close(struct fixture *fixture)
{
    fixture_reset(fixture);
    ploop_file_close(fixture->file);
    free(fixture->bytes);
}

/* ---- images ---- */

enum {
    AT_TRACKS = 28,
    AT_ENTRIES = 32,
    AT_SECTORS = 36,
    AT_IN_USE = 44,
    AT_DATA_OFF = 48,
    AT_FLAGS = 52,
    AT_EXT_OFF = 56,
    BAT_AT = 64
};

static bool is_v1(const uint8_t *image)
{
    return image[5] == 'u' && image[6] == 't';
}

uint64_t image_data_start(const uint8_t *image)
{
    uint64_t data_off = load_le32(image + AT_DATA_OFF);
    uint64_t bat_end = BAT_AT + (uint64_t)4 * load_le32(image + AT_ENTRIES);

    return data_off ? data_off * 512 : (bat_end + 511) / 512 * 512;
}

uint32_t image_entry(const uint8_t *image, uint32_t guest_cluster)
{
    return load_le32(image + BAT_AT + (size_t)4 * guest_cluster);
}

void image_set_entry(uint8_t *image, uint32_t guest_cluster, uint32_t entry)
{
    store_le32(image + BAT_AT + (size_t)4 * guest_cluster, entry);
}

uint32_t image_entry_for(const uint8_t *image, uint32_t host)
{
    uint64_t tracks = load_le32(image + AT_TRACKS);
    uint64_t sector = image_data_start(image) / 512 + host * tracks;

    return (uint32_t)(is_v1(image) ? sector : sector / tracks);
}

static void write_head(uint8_t *image, const struct image_plan *plan, uint32_t data_off)
{
    memcpy(image, plan->version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
    store_le32(image + 16, 2);
    store_le32(image + AT_TRACKS, plan->cluster_sectors);
    store_le32(image + AT_ENTRIES, plan->entries);
    store_le64(image + AT_SECTORS, plan->sectors);
    store_le32(image + AT_IN_USE, plan->in_use);
    store_le32(image + AT_DATA_OFF, data_off);
    store_le32(image + AT_FLAGS, plan->flags);
    store_le64(image + AT_EXT_OFF, plan->extension_sector);
}

uint8_t *image_build(const struct image_plan *wanted, uint64_t *size)
{
    static const uint32_t usual[] = {0, 1, 1, 2, 2, 3, 3, 4, 1099, 5, 0, 0};
    struct image_plan plan = *wanted;

    plan.version = plan.version ? plan.version : 2;
    plan.cluster_sectors = plan.cluster_sectors ? plan.cluster_sectors : 8;
    plan.entries = plan.entries ? plan.entries : 1100;
    plan.sectors = plan.sectors ? plan.sectors : (uint64_t)plan.entries * plan.cluster_sectors;
    plan.host_clusters = plan.host_clusters ? plan.host_clusters : 6;
    plan.map = plan.map ? plan.map : usual;

    uint32_t unit = plan.version == 1 ? 1 : plan.cluster_sectors;
    uint32_t bat_sectors = (BAT_AT + 4 * plan.entries + 511) / 512;
    uint32_t data_off = plan.data_off ? plan.data_off : (bat_sectors + unit - 1) / unit * unit;
    uint64_t cluster = (uint64_t)plan.cluster_sectors * 512;

    *size = (uint64_t)data_off * 512 + plan.host_clusters * cluster;

    uint8_t *image = calloc(1, *size);

    ck_assert_ptr_nonnull(image);
    write_head(image, &plan, data_off);
    for (uint32_t i = 0; plan.map[i + 1]; i += 2) {
        image_set_entry(image, plan.map[i], image_entry_for(image, plan.map[i + 1] - 1));
    }
    for (uint32_t host = 0; host < plan.host_clusters; host++) {
        memset(image + image_data_start(image) + host * cluster, (int)(0xA0 + host), cluster);
    }
    return image;
}

void fixture_open_image(struct fixture *fixture, const struct image_plan *plan)
{
    uint64_t size;
    uint8_t *image = image_build(plan, &size);

    fixture_open(fixture, image, size);
    free(image);
}

/* ---- extensions ---- */

void extension_begin(struct extension_plan *plan, uint8_t *cluster, uint32_t size)
{
    *plan = (struct extension_plan){.bytes = cluster, .size = size, .end = 24};
    memset(cluster, 0, size);
    store_le64(cluster, 0xAB234CEF23DCEA87u);
}

void extension_add(struct extension_plan *plan, uint64_t magic, uint64_t flags, const void *data,
                   uint32_t size)
{
    uint8_t *head = plan->bytes + plan->end;

    ck_assert_uint_le(plan->end + 24 + size, plan->size);
    store_le64(head, magic);
    store_le64(head + 8, flags);
    store_le32(head + 16, size);
    if (size) {
        memmove(head + 24, data, size);
    }
    plan->end += 24 + (size + 7) / 8 * 8;
}

void extension_add_bitmap(struct extension_plan *plan, uint64_t sectors, uint32_t granularity,
                          uint32_t l1_size, const uint64_t *l1)
{
    uint8_t data[512] = {0};

    ck_assert_uint_le(32 + 8 * l1_size, sizeof(data));
    store_le64(data, sectors);
    memcpy(data + 8, "0123456789abcdef", 16);
    store_le32(data + 24, granularity);
    store_le32(data + 28, l1_size);
    for (uint32_t i = 0; i < l1_size; i++) {
        store_le64(data + 32 + (size_t)8 * i, l1[i]);
    }
    extension_add(plan, 0x20385FAE252CB34Au, 0, data, 32 + 8 * l1_size);
}

void extension_end(struct extension_plan *plan)
{
    md5(plan->bytes + 24, plan->size - 24, plan->bytes + 8);
}

/* ---- checks ---- */

static void note_record(void *user_data, const struct ploop_check_record *record, const char *text)
{
    struct check_outcome *outcome = user_data;

    must(record->kind >= PLOOP_CHECK_HEADER && record->kind <= PLOOP_CHECK_VOID_EXTENSION);
    must_msg(!strchr(text, '\n'), "more than a line: %s", text);
    outcome->kinds[record->kind]++;
    outcome->last = *record;
    strncpy(outcome->last_text, text, sizeof(outcome->last_text) - 1);
}

int stop_after(void *user_data, uint64_t done, uint64_t total)
{
    uint64_t *calls = user_data;

    ck_assert_uint_le(done, total);
    return *calls && --*calls == 0;
}

void run_check(struct fixture *fixture, uint32_t repair, struct check_outcome *outcome)
{
    const struct ploop_check_options options = {
        .size = sizeof(options), .repair = repair, .record = note_record, .user_data = outcome};

    memset(outcome, 0, sizeof(*outcome));
    outcome->result.size = sizeof(outcome->result);
    outcome->error = ploop_image_check(fixture->file, &options, &outcome->result);
}

bool is_instrumented(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    const char *preloaded = getenv("LD_PRELOAD");

    return preloaded && strstr(preloaded, "vgpreload");
#endif
}

uint32_t test_share(uint32_t if_slow)
{
    const char *share = getenv("PLOOP_TEST_SHARE");

    if (is_instrumented()) {
        return if_slow;
    }
    return share && atoi(share) > 0 ? (uint32_t)atoi(share) : 1;
}

int oracle_status(const uint8_t *bytes, uint64_t size)
{
    struct oracle_memory memory = {bytes, size};
    struct oracle oracle;
    struct oracle_result result;
    char message[160];
    enum oracle_verdict verdict = oracle_open(&oracle, oracle_read_memory, &memory, size, message);

    if (verdict != ORACLE_OK) {
        return verdict == ORACLE_NOT_AN_IMAGE ? 1 : 2;
    }
    oracle_check(&oracle, NULL, NULL, &result);
    oracle_close(&oracle);
    return result.errors ? 2 : result.leaks ? 3 : 0;
}
