/* SPDX-License-Identifier: MIT */
/*
 * Random requests, several in flight at once on disjoint ranges, compared with a plain array.
 *
 * All of them fall into three windows of the disk: its beginning, the border between two BAT pages,
 * its end. A read is compared when it completes; after each close everything is compared, through a
 * device opened anew, and by the oracle.
 *
 * Half of the disks are stacks: an image and a raw file lie below the top.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device_fixture.h"
#include "image_fixture.h"
#include "oracle/oracle.h"
#include "run_tests.h"

enum {
    WINDOWS = 3,
    WINDOW_CLUSTERS = 8,
    SLOTS = 10,
    ENTRIES = 1100,
    HOSTS = 12,
    LIVES = 3,
    LOWERS = 2,
    STEPS = 500,
    STEPS_INSTRUMENTED = 150,
    CASES_SKIPPED = 13
};
enum backend { INLINE, HELD, THREAD, BACKENDS };

static const uint32_t cluster_sectors[] = {1, 63, 8};

static const struct {
    uint32_t flags;
    bool full; /* the file has room only for the windows' clusters */
    bool punches;
} variants[] = {{0, false, true},
                {PLOOP_DEV_NO_FAST_PATH, false, true},
                {0, true, true},
                {PLOOP_DEV_NO_FAST_PATH, true, false}};

enum {
    SIZES = 3,
    VARIANTS = sizeof(variants) / sizeof(variants[0]),
    CASES = 2 * 2 * SIZES * BACKENDS * VARIANTS
};

enum kind { NONE, READ, WRITE, ZEROES, DISCARD, FLUSH };

struct model;

struct slot {
    struct model *model;
    volatile enum kind kind;
    uint64_t offset, length;
    ploop_pio *pio;
    struct iovec iov[4];
    uint8_t *bytes;
    uint64_t number;
};

struct model {
    struct rig rig;
    enum backend backend;
    uint64_t random, first[WINDOWS], length[WINDOWS];
    uint8_t *bytes[WINDOWS];
    bool below[ENTRIES]; /* a lower delta has the cluster */
    bool above[ENTRIES]; /* the top has it too */
    struct script lowers[LOWERS];
    struct slot slots[SLOTS];
    uint64_t requests, reads_compared;
};

static uint64_t draw(struct model *model, uint64_t below)
{
    model->random = model->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (model->random >> 33) % below;
}

static uint8_t *model_at(struct model *model, uint64_t offset)
{
    for (int i = 0; i < WINDOWS; i++) {
        if (offset >= model->first[i] && offset < model->first[i] + model->length[i]) {
            return model->bytes[i] + (offset - model->first[i]);
        }
    }
    ck_abort_msg("outside the windows");
}

/* ---- requests ---- */

static void compare(struct model *model, const uint8_t *bytes, uint64_t offset, uint64_t length,
                    const char *how)
{
    const uint8_t *expected = model_at(model, offset);
    if (memcmp(bytes, expected, length) == 0) {
        return;
    }
    for (uint64_t i = 0; i < length; i++) {
        if (bytes[i] != expected[i]) {
            ck_abort_msg("%s: byte %llu is %#x, not %#x, after %llu requests", how,
                         (unsigned long long)(offset + i), bytes[i], expected[i],
                         (unsigned long long)model->requests);
        }
    }
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    struct slot *slot = user_data;
    ck_assert_ptr_eq(pio, slot->pio);
    ck_assert_int_ne(slot->kind, NONE);
    ck_assert_msg(result == 0, "request %llu of kind %d ended with %d",
                  (unsigned long long)slot->number, (int)slot->kind, result);
    if (slot->kind == READ) {
        compare(slot->model, slot->bytes, slot->offset, slot->length, "read");
    }
    ploop_pio_put(pio);
    free(slot->bytes);
    slot->bytes = NULL;
    __atomic_store_n((int *)&slot->kind, NONE, __ATOMIC_RELEASE);
}

/* Another thread may just be ending the request. */
static enum kind kind_of(const struct slot *slot)
{
    return (enum kind)__atomic_load_n((const int *)&slot->kind, __ATOMIC_ACQUIRE);
}

static bool is_free(const struct slot *slot)
{
    return kind_of(slot) == NONE;
}

static bool overlaps(struct model *model, uint64_t offset, uint64_t length)
{
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *slot = &model->slots[i];
        enum kind kind = kind_of(slot);
        if (kind != NONE && kind != FLUSH && offset < slot->offset + slot->length &&
            slot->offset < offset + length) {
            return true;
        }
    }
    return false;
}

static bool place(struct model *model, uint64_t *offset, uint64_t *length)
{
    uint64_t window = draw(model, WINDOWS), sectors = model->length[window] / 512;
    uint64_t most = draw(model, 4) == 0 ? 3 * model->rig.cluster / 512 : 12;
    uint64_t at = draw(model, sectors),
             count = 1 + draw(model, most < sectors - at ? most : sectors - at);
    if (draw(model, 5) == 0) {
        /* Whole clusters are drawn more often than chance would. */
        uint64_t cluster = model->rig.cluster / 512;
        at = at / cluster * cluster;
        count = cluster * (1 + draw(model, 2));
        count = count < sectors - at ? count : sectors - at;
    }
    *offset = model->first[window] + at * 512;
    *length = count * 512;
    return !overlaps(model, *offset, *length);
}

/*
 * Apply a discard: it zeroes the clusters within its range; the disk's last one ends with the disk.
 */
static void model_discard(struct model *model, uint64_t offset, uint64_t length)
{
    uint64_t cluster = model->rig.cluster, end = offset + length;
    uint64_t from = (offset + cluster - 1) / cluster * cluster;
    if (end != model->rig.disk_size) {
        end = end / cluster * cluster;
    }
    bool punches = model->rig.script.capabilities & PLOOP_FILE_CAN_PUNCH;
    for (uint64_t at = from; at < end; at += cluster) {
        if (!model->below[at / cluster] || (model->above[at / cluster] && punches)) {
            memset(model_at(model, at), 0, end - at < cluster ? end - at : cluster);
        }
    }
}

static void model_change(struct model *model, uint64_t offset, uint64_t length)
{
    for (uint64_t n = offset / model->rig.cluster; n * model->rig.cluster < offset + length; n++) {
        model->above[n] = true;
    }
}

static void prepare_memory(struct model *model, struct slot *slot)
{
    slot->bytes = malloc(slot->length);
    ck_assert_ptr_nonnull(slot->bytes);
    for (uint64_t i = 0; i < slot->length; i += 512) {
        memset(slot->bytes + i,
               (int)(slot->kind == READ ? 0xEE : model->requests * 31 + i / 512 + 1), 512);
    }
    uint64_t at = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t piece = i == 3 ? slot->length - at : draw(model, slot->length - at + 1);
        slot->iov[i] = (struct iovec){slot->bytes + at, piece};
        at += piece;
    }
}

static void submit(struct model *model, struct slot *slot)
{
    static const enum kind kinds[] = {READ,  READ,  READ,   READ,    WRITE,   WRITE,
                                      WRITE, WRITE, ZEROES, DISCARD, DISCARD, FLUSH};
    enum kind kind = kinds[draw(model, sizeof(kinds) / sizeof(kinds[0]))];
    uint64_t offset = 0, length = 0;
    if (kind != FLUSH && !place(model, &offset, &length)) {
        return;
    }
    uint32_t flags = draw(model, 6) == 0 ? PLOOP_PIO_FUA : 0;
    flags |= draw(model, 20) == 0 ? PLOOP_PIO_PREFLUSH : 0;
    *slot = (struct slot){.model = model,
                          .kind = kind,
                          .offset = offset,
                          .length = length,
                          .number = ++model->requests};
    slot->pio = ploop_pio_get(model->rig.queue);
    ck_assert_ptr_nonnull(slot->pio);
    ploop_pio_set_callback(slot->pio, done, slot);
    switch (kind) {
    case READ:
        prepare_memory(model, slot);
        ploop_pio_prep_readv(slot->pio, offset, slot->iov, 4);
        break;
    case WRITE:
        prepare_memory(model, slot);
        memcpy(model_at(model, offset), slot->bytes, length);
        model_change(model, offset, length);
        ploop_pio_prep_writev(slot->pio, offset, slot->iov, 4, flags);
        break;
    case ZEROES:
        memset(model_at(model, offset), 0, length);
        model_change(model, offset, length);
        ploop_pio_prep_write_zeroes(slot->pio, offset, length,
                                    flags | (draw(model, 3) ? 0 : PLOOP_PIO_NO_UNMAP));
        break;
    case DISCARD:
        model_discard(model, offset, length);
        ploop_pio_prep_discard(slot->pio, offset, length);
        break;
    default:
        ploop_pio_prep_flush(slot->pio);
    }
    ck_assert_int_eq(ploop_queue_submit(model->rig.queue, &slot->pio, 1), 1);
}

/* ---- a device's life ---- */

static struct script *script_of(struct model *model, uint64_t level)
{
    return level < model->rig.lower_count ? &model->lowers[level] : &model->rig.script;
}

static void release_some(struct model *model)
{
    for (uint64_t level = 0; model->backend == HELD && level <= model->rig.lower_count; level++) {
        struct script *script = script_of(model, level);
        while (script->held_count && draw(model, 3)) {
            script_release(script, (uint32_t)draw(model, script->held_count));
        }
        script->hold =
            (uint32_t)draw(model, 4) ? SCRIPT_ALL : (uint32_t)draw(model, 1 << SCRIPT_KINDS);
    }
}

/* Faults that a backend may also show. */
static void disturb_lowers(struct model *model)
{
    for (uint32_t level = 0; level < model->rig.lower_count; level++) {
        model->lowers[level].short_bytes =
            draw(model, 3) ? 0 : 512 * (1 + (uint32_t)draw(model, 3));
        model->lowers[level].refuse = draw(model, 3) ? 0 : 1;
    }
}

static bool drain(struct model *model)
{
    bool idle = true;
    for (int i = 0; i < SLOTS; i++) {
        idle &= is_free(&model->slots[i]);
    }
    if (!idle) {
        for (uint64_t level = 0; model->backend == HELD && level <= model->rig.lower_count;
             level++) {
            struct script *script = script_of(model, level);
            if (script->held_count) {
                script_release(script, (uint32_t)draw(model, script->held_count));
            }
        }
        if (model->backend == THREAD) {
            usleep(10);
        }
        ploop_queue_run(model->rig.queue);
    }
    return idle;
}

static void compare_all(struct model *model)
{
    for (int i = 0; i < WINDOWS; i++) {
        uint8_t *bytes = malloc(model->length[i]);
        int64_t got = ploop_dev_pread(model->rig.dev, bytes, model->length[i], model->first[i]);
        ck_assert_int_eq(got, (int64_t)model->length[i]);
        compare(model, bytes, model->first[i], model->length[i], "device");
        free(bytes);
    }
}

static void compare_by_oracle(struct model *model)
{
    struct rig *rig = &model->rig;
    struct oracle_memory memory = {rig->script.bytes, rig->script.file_size};
    struct oracle oracle;
    struct oracle_result result;
    char message[160];
    uint8_t *bytes = malloc(rig->cluster);
    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, memory.size, message),
                     ORACLE_OK);
    oracle_check(&oracle, NULL, NULL, &result);
    ck_assert_uint_eq(result.errors, 0);
    for (int i = 0; i < WINDOWS; i++) {
        for (uint64_t offset = model->first[i]; offset < model->first[i] + model->length[i];
             offset += rig->cluster) {
            uint64_t left = model->first[i] + model->length[i] - offset;
            int held = oracle_read_cluster(&oracle, offset / rig->cluster, bytes);
            ck_assert_int_ge(held, 0);
            if (!held && model->below[offset / rig->cluster]) {
                continue;
            }
            if (!held) {
                memset(bytes, 0, rig->cluster);
            }
            compare(model, bytes, offset, left < rig->cluster ? left : rig->cluster, "oracle");
        }
    }
    oracle_close(&oracle);
    free(bytes);
}

static void live(struct model *model)
{
    struct rig *rig = &model->rig;
    int steps = is_instrumented() ? STEPS_INSTRUMENTED : STEPS;
    rig_open(rig);
    compare_all(model);
    for (int step = 0; step < steps; step++) {
        struct slot *slot = &model->slots[draw(model, SLOTS)];
        if (is_free(slot)) {
            submit(model, slot);
        }
        if (draw(model, 4) == 0) {
            release_some(model);
        }
        if (model->backend != THREAD && draw(model, 8) == 0) {
            disturb_lowers(model);
        }
        if (draw(model, 5) == 0) {
            rig->clock.now_ns += draw(model, 4) ? draw(model, 300 * MS) : draw(model, 20 * SECOND);
            ploop_queue_run(rig->queue);
        }
        if (draw(model, 40) == 0) {
            ck_assert_int_eq(ploop_bat_page_write(rig->dev, (uint32_t)draw(model, 2)), 0);
        }
    }
    while (!drain(model)) {
    }
    for (uint64_t level = 0; level <= rig->lower_count; level++) {
        script_release_all(script_of(model, level));
    }
    compare_all(model);
    rig_close_dev(rig);
    compare_by_oracle(model);
}

/*
 * Some of the windows' clusters are mapped. Host clusters that nothing refers to are full of bytes
 * that no read may ever return.
 */
static const uint32_t map[] = {0, 3, 2, 1, 1007, 5, 1008, 6, 1009, 2, ENTRIES - 1, 9, 0, 0};

static void add_lower(struct model *model, const void *bytes, uint64_t size)
{
    uint32_t level = model->rig.lower_count++;
    script_open(&model->lowers[level], bytes, size,
                model->backend == THREAD ? SCRIPT_THREAD | SCRIPT_NO_WAIT : 0);
    model->rig.lowers[level] = model->lowers[level].file;
}

/* A cluster of which a lower delta has `length` bytes; the deltas above cover it. */
static void show_lower(struct model *model, uint64_t cluster, uint64_t length, int byte)
{
    uint64_t size = model->rig.cluster, at = cluster * size;
    model->below[cluster] = true;
    for (int i = 0; i < WINDOWS; i++) {
        if (at >= model->first[i] && at < model->first[i] + model->length[i]) {
            uint64_t room = model->first[i] + model->length[i] - at;
            memset(model_at(model, at), 0, room < size ? room : size);
            memset(model_at(model, at), byte, room < length ? room : length);
        }
    }
}

/*
 * A raw base that ends inside a sector, in the second window, and an image that ends inside the
 * last but one.
 */
static void begin_lowers(struct model *model, struct image_plan plan)
{
    static const uint32_t lower_map[] = {1,    4, 2,           2, 5,           3, 1006, 1,
                                         1010, 5, ENTRIES - 2, 6, ENTRIES - 1, 7, 0,    0};
    uint64_t cluster = model->rig.cluster, size = 1009 * cluster + 300;
    uint8_t *raw = malloc(size);
    memset(raw, 0xB7, size);
    add_lower(model, raw, size);
    free(raw);
    for (uint64_t n = 0; n * cluster < size; n++) {
        show_lower(model, n, size - n * cluster < cluster ? size - n * cluster : cluster, 0xB7);
    }
    plan.map = lower_map;
    plan.sectors = (ENTRIES - 2) * (uint64_t)plan.cluster_sectors + 1;
    plan.data_off = plan.version == 1 ? 13 : 0;
    uint8_t *image = image_build(&plan, &size);
    add_lower(model, image, size);
    free(image);
    for (size_t i = 0; lower_map[i + 1]; i += 2) {
        uint64_t at = lower_map[i] * cluster, end = plan.sectors * 512;
        if (at < end) {
            show_lower(model, lower_map[i], end - at < cluster ? end - at : cluster,
                       0xA0 + (int)lower_map[i + 1] - 1);
        }
    }
    model->rig.config.flags |= PLOOP_DEV_RAW_BASE;
}

static void begin(struct model *model, uint32_t version, uint32_t sectors, enum backend backend,
                  size_t variant, bool stack)
{
    uint64_t size, cluster = (uint64_t)sectors * 512,
                   disk = ENTRIES * cluster - (sectors > 2 ? 2 * 512 : 0);
    struct image_plan plan = {.version = version,
                              .cluster_sectors = sectors,
                              .entries = ENTRIES,
                              .sectors = disk / 512,
                              .host_clusters = HOSTS,
                              .map = map,
                              .data_off = version == 1 ? 11 : 0};
    uint8_t *image = image_build(&plan, &size);
    rig_adopt(&model->rig, image, size, backend == THREAD ? SCRIPT_THREAD | SCRIPT_NO_WAIT : 0);
    free(image);
    model->backend = backend;
    model->first[0] = 0;
    model->first[1] = (1008 - WINDOW_CLUSTERS / 2) * cluster;
    model->first[2] = (ENTRIES - WINDOW_CLUSTERS) * cluster;
    for (int i = 0; i < WINDOWS; i++) {
        model->length[i] =
            (i == 2 ? disk : model->first[i] + WINDOW_CLUSTERS * cluster) - model->first[i];
        model->bytes[i] = calloc(1, model->length[i]);
    }
    if (stack) {
        begin_lowers(model, plan);
    }
    for (size_t i = 0; map[i + 1]; i += 2) {
        uint64_t offset = map[i] * cluster;
        model->above[map[i]] = true;
        memset(model_at(model, offset), (int)(0xA0 + map[i + 1] - 1),
               offset + cluster > disk ? disk - offset : cluster);
    }
    model->rig.config.flags |= variants[variant].flags;
    model->rig.config.writeback_max_age_ns = 2 * SECOND;
    if (variants[variant].full) {
        model->rig.script.size_max =
            model->rig.data_start + (WINDOWS * WINDOW_CLUSTERS + 2) * cluster;
    }
    if (!variants[variant].punches) {
        model->rig.script.capabilities &= ~(uint32_t)PLOOP_FILE_CAN_PUNCH;
    }
}

START_TEST(a_disk_is_an_array)
{
    if (is_instrumented() && _i % CASES_SKIPPED != 0) {
        return; /* a sample: such a program is slow */
    }
    struct model *model = calloc(1, sizeof(*model));
    uint32_t number = (uint32_t)_i;
    uint32_t version = 1 + number % 2, size = number / 2 % SIZES,
             backend = number / (2 * SIZES) % BACKENDS;
    model->random = number + 1;
    begin(model, version, cluster_sectors[size], backend,
          number / (2 * SIZES * BACKENDS) % VARIANTS, number >= CASES / 2);
    for (int i = 0; i < LIVES; i++) {
        live(model);
    }
    rig_free(&model->rig);
    for (uint32_t i = 0; i < model->rig.lower_count; i++) {
        ck_assert_uint_eq(model->lowers[i].submitted[PLOOP_IO_WRITE] +
                              model->lowers[i].submitted[PLOOP_IO_PUNCH],
                          0);
        script_close(&model->lowers[i]);
    }
    for (int i = 0; i < WINDOWS; i++) {
        free(model->bytes[i]);
    }
    free(model);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("model");
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, a_disk_is_an_array, 0, CASES);
    return run_case("model", all);
}
