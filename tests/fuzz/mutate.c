/* SPDX-License-Identifier: MIT */
/* See mutate.h. */
#include "mutate.h"

#include <string.h>

#include <ploop/image.h>

#include "format/header.h"
#include "util/bytes.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *left, size_t left_size, const uint8_t *right,
                                 size_t right_size, uint8_t *out, size_t room, unsigned seed);

enum {
    AT_VERSION = 16,
    AT_TRACKS = 28,
    AT_BAT_ENTRIES = 32,
    AT_NB_SECTORS = 36,
    AT_IN_USE = 44,
    AT_DATA_OFF = 48,
    AT_FLAGS = 52,
    AT_EXT_OFF = 56,
    STACKED_MAX = 5,
    REQUEST_SECTORS_MAX = 64
};

uint64_t pick(struct mutator *mutator, const uint64_t *values, size_t count)
{
    return values[rng_below(&mutator->rng, count)];
}

uint64_t odd_value(struct mutator *mutator, uint64_t old)
{
    uint64_t any = rng_next(&mutator->rng);
    uint64_t bit = UINT64_C(1) << any % 64;

    return PICK(mutator, 0, 1, old + 1, old - 1, old * 2, old / 2, old ^ bit, bit, bit - 1,
                UINT32_MAX, UINT32_MAX - 1, INT32_MAX, UINT64_MAX, any >> any % 64);
}

void poke32(struct mutator *mutator, uint64_t offset, uint64_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, (uint32_t)value);
    input_poke(mutator->input, offset, bytes, sizeof(bytes));
}

void poke64(struct mutator *mutator, uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    store_le64(bytes, value);
    input_poke(mutator->input, offset, bytes, sizeof(bytes));
}

uint32_t peek32(const struct mutator *mutator, uint64_t offset)
{
    uint8_t bytes[4];

    input_peek(mutator->input, offset, bytes, sizeof(bytes));
    return load_le32(bytes);
}

uint64_t peek64(const struct mutator *mutator, uint64_t offset)
{
    uint8_t bytes[8];

    input_peek(mutator->input, offset, bytes, sizeof(bytes));
    return load_le64(bytes);
}

void view_load(struct view *view, const struct input *input)
{
    uint8_t bytes[HEADER_SIZE];

    input_peek(input, 0, bytes, sizeof(bytes));
    *view = (struct view){
        .v1 = memcmp(bytes, "WithoutFreeSpace", 16) == 0,
        .tracks = load_le32(bytes + AT_TRACKS),
        .bat_entries = load_le32(bytes + AT_BAT_ENTRIES),
        .in_use = load_le32(bytes + AT_IN_USE),
        .data_off = load_le32(bytes + AT_DATA_OFF),
        .nb_sectors = load_le64(bytes + AT_NB_SECTORS),
        .ext_off = load_le64(bytes + AT_EXT_OFF),
    };
    view->tracks = view->tracks ? view->tracks : 1;
    view->cluster = (uint64_t)view->tracks * SECTOR_SIZE;
    view->bat_end = HEADER_SIZE + (uint64_t)4 * view->bat_entries;
    view->data_start = (uint64_t)view->data_off * SECTOR_SIZE;
    if (view->data_start == 0) {
        view->data_start = (view->bat_end + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    }
    view->unit = view->v1 ? SECTOR_SIZE : view->cluster;
    view->slots = input->file_size > view->data_start
                      ? (input->file_size - view->data_start - 1) / view->cluster + 1
                      : 0;
}

uint64_t some_host_offset(struct mutator *mutator)
{
    const struct view *view = &mutator->view;
    uint64_t slots = view->slots;
    uint64_t near = rng_below(&mutator->rng, slots < 16 ? slots + 2 : 16);
    uint64_t slot = PICK(mutator, near, near, near, near, slots, slots - 1, slots - 2,
                         rng_below(&mutator->rng, slots + 1));

    return view->data_start + slot * view->cluster;
}

static uint64_t some_index(struct mutator *mutator)
{
    uint64_t entries = mutator->view.bat_entries;
    uint64_t near = rng_below(&mutator->rng, 8),
             border = BAT_FIRST_PAGE_ENTRIES - 2 + rng_below(&mutator->rng, 4);
    uint64_t index = PICK(mutator, near, near, near, border, border + BAT_PAGE_ENTRIES, entries - 1,
                          rng_below(&mutator->rng, entries));

    return entries ? index % entries : 0;
}

static uint64_t some_entry(struct mutator *mutator)
{
    uint32_t entry = 0;

    for (int i = 0; i < 8 && !entry; i++) {
        entry = peek32(mutator, HEADER_SIZE + 4 * some_index(mutator));
    }
    return entry;
}

uint64_t some_guest_offset(struct mutator *mutator)
{
    return some_entry(mutator) * mutator->view.unit;
}

static void mutate_header(struct mutator *mutator)
{
    static const char *const magics[] = {"WithoutFreeSpace", "WithouFreSpacExt"};
    const struct view *view = &mutator->view;
    uint64_t file_sectors = mutator->input->file_size / SECTOR_SIZE,
             bat_sectors = (view->bat_end + SECTOR_SIZE - 1) / SECTOR_SIZE;
    uint64_t covered = (uint64_t)view->bat_entries * view->tracks,
             wanted = (view->nb_sectors + view->tracks - 1) / view->tracks;
    uint64_t data_off = (bat_sectors + view->tracks - 1) / view->tracks * view->tracks;
    uint64_t host = some_host_offset(mutator) / SECTOR_SIZE;
    uint64_t odd = odd_value(mutator, 2);

    switch (rng_below(&mutator->rng, 10)) {
    case 0:
        poke32(mutator, AT_VERSION, PICK(mutator, 2, 2, 2, 1, odd));
        break;
    case 1:
        odd = odd_value(mutator, view->tracks);
        poke32(mutator, AT_TRACKS,
               PICK(mutator, 1, 2, 3, 7, 8, 8, 16, 63, 64, 128, 504, 2048, 131072, 131073, odd));
        break;
    case 2:
        odd = odd_value(mutator, view->bat_entries);
        poke32(mutator, AT_BAT_ENTRIES,
               PICK(mutator, wanted, wanted + 1, wanted - 1,
                    (mutator->input->file_size - HEADER_SIZE) / 4, BAT_FIRST_PAGE_ENTRIES,
                    BAT_FIRST_PAGE_ENTRIES + 1, BAT_FIRST_PAGE_ENTRIES + BAT_PAGE_ENTRIES, odd));
        break;
    case 3:
        odd = odd_value(mutator, view->nb_sectors);
        poke64(mutator, AT_NB_SECTORS,
               PICK(mutator, covered, covered + 1, covered - 1, covered - view->tracks, covered / 2,
                    odd));
        break;
    case 4:
        poke32(mutator, AT_IN_USE,
               PICK(mutator, 0, HEADER_CLOSED_EXT, HEADER_CLOSED_EXT, HEADER_IN_USE, HEADER_IN_USE,
                    odd));
        break;
    case 5:
        odd = odd_value(mutator, view->data_off);
        poke32(mutator, AT_DATA_OFF,
               PICK(mutator, bat_sectors, data_off, data_off + view->tracks, data_off - 1, 0,
                    file_sectors, odd));
        break;
    case 6:
        poke32(mutator, AT_FLAGS, PICK(mutator, 0, 0, 1, 1, 2, 4, odd));
        break;
    case 7:
        odd = odd_value(mutator, view->ext_off);
        poke64(mutator, AT_EXT_OFF,
               PICK(mutator, host, host, host, host + 1, 0, file_sectors - view->tracks, odd));
        break;
    case 8:
        input_poke(mutator->input, 0, magics[rng_below(&mutator->rng, 2)], 16);
        break;
    default:
        poke32(mutator, rng_below(&mutator->rng, HEADER_SIZE / 4) * 4, odd);
    }
}

static void mutate_entries(struct mutator *mutator)
{
    const struct view *view = &mutator->view;
    uint64_t entry = some_host_offset(mutator) / view->unit, other = some_entry(mutator),
             odd = odd_value(mutator, other);
    uint64_t value =
        PICK(mutator, 0, entry, entry, entry, entry, other, other, other + 1, other - 1, UINT32_MAX,
             UINT32_MAX - 1, view->data_start / view->unit - 1, odd);

    poke32(mutator, HEADER_SIZE + 4 * some_index(mutator), value);
}

static void mutate_file_size(struct mutator *mutator)
{
    const struct view *view = &mutator->view;
    uint64_t size = mutator->input->file_size, host = some_host_offset(mutator),
             odd = odd_value(mutator, size);
    uint64_t reach = (uint64_t)(UINT32_MAX - 1) * view->unit; /* of an entry */

    odd = PICK(mutator, reach + view->cluster, reach, UINT64_C(1) << 40, INT64_MAX, odd);
    size = PICK(mutator, size + 1, size - 1, size + SECTOR_SIZE, size - SECTOR_SIZE,
                size + view->cluster, size - view->cluster, host, host, host, host + view->cluster,
                host + view->cluster, view->data_start, view->bat_end, odd);
    mutator->input->file_size = size & INT64_MAX;
}

static void mutate_requests(struct mutator *mutator)
{
    const struct view *view = &mutator->view;
    struct input *input = mutator->input;
    uint64_t cluster = some_index(mutator),
             length = 1 + rng_below(&mutator->rng, REQUEST_SECTORS_MAX);
    uint64_t sector = cluster * view->tracks;
    uint32_t index = (uint32_t)rng_below(&mutator->rng, input->record_count);
    struct record request = {
        .kind = RECORD_REQUEST,
        .value = (uint8_t)rng_next(&mutator->rng),
        .length = (uint16_t)PICK(mutator, length, 1, view->tracks, 2 * (uint64_t)view->tracks,
                                 view->tracks - 1),
        .offset = PICK(mutator, sector, sector, sector + 1, sector - 1,
                       sector + rng_below(&mutator->rng, view->tracks)),
    };

    if (input->record_count && input->records[index].kind == RECORD_REQUEST &&
        rng_permille(&mutator->rng, 500)) {
        struct record *old = &input->records[index];

        old->value = rng_permille(&mutator->rng, 500) ? request.value : old->value;
        old->length = rng_permille(&mutator->rng, 300) ? request.length : old->length;
        old->offset = rng_permille(&mutator->rng, 300) ? request.offset : old->offset;
    } else {
        input_add(input, request);
    }
}

static void mutate_options(struct mutator *mutator)
{
    struct input *input = mutator->input;

    switch (rng_below(&mutator->rng, 4)) {
    case 0:
        input->options = (input->options & ~(uint32_t)OPTION_REPAIR) |
                         (uint32_t)PICK(mutator, 7, 7, 7, 1, 2, 3, 4, 5, 6);
        break;
    case 1:
        input->break_at =
            rng_permille(&mutator->rng, 100)
                ? 0
                : (uint32_t)(1 + rng_below(&mutator->rng, 40) + (rng_next(&mutator->rng) << 16));
        input->options ^= (uint32_t)rng_below(&mutator->rng, 4) << OPTION_BREAK_SHIFT;
        break;
    default:
        input->options ^= (uint32_t)1 << rng_below(&mutator->rng, 13);
    }
}

static void mutate_bytes(struct mutator *mutator)
{
    struct input *input = mutator->input;
    uint32_t index = (uint32_t)rng_below(&mutator->rng, input->record_count);
    struct record *record = &input->records[index];

    if (input->record_count == 0) {
        return;
    }
    if (rng_permille(&mutator->rng, 150)) {
        input_remove(input, index);
    } else if (record->kind == RECORD_BYTES && record->length) {
        record->length = (uint16_t)LLVMFuzzerMutate(record->bytes, record->length, record->length);
    } else {
        record->offset = PICK(mutator, some_host_offset(mutator), record->offset);
        record->value = (uint8_t)rng_next(&mutator->rng);
    }
}

static void mutate_once(struct mutator *mutator)
{
    static void (*const mutations[MUTATIONS])(struct mutator *) = {
        mutate_header,   mutate_entries, mutate_file_size, mutate_extension,
        mutate_requests, mutate_options, mutate_bytes};
    uint64_t sum = 0, at;
    int i = 0;

    for (int n = 0; n < MUTATIONS; n++) {
        sum += mutation_weights[n];
    }
    for (at = rng_below(&mutator->rng, sum); at >= mutation_weights[i]; i++) {
        at -= mutation_weights[i];
    }
    view_load(&mutator->view, mutator->input);
    mutations[i](mutator);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    static struct input input;
    struct mutator mutator = {.input = &input, .rng = {seed}};
    uint64_t count = rng_between(&mutator.rng, 1, STACKED_MAX);

    input_decode(&input, data, size);
    for (uint64_t i = 0; i < count; i++) {
        mutate_once(&mutator);
    }
    return input_encode(&input, data, room);
}

/* One image with records of the other over it: its requests, its extension, its entries. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *left, size_t left_size, const uint8_t *right,
                                 size_t right_size, uint8_t *out, size_t room, unsigned seed)
{
    static struct input input, other;
    struct rng rng = {seed};

    input_decode(&input, left, left_size);
    input_decode(&other, right, right_size);
    for (uint32_t i = 0; i < other.record_count; i++) {
        if (rng_permille(&rng, 300)) {
            input_add(&input, other.records[i]);
        }
    }
    input.options = rng_permille(&rng, 500) ? input.options : other.options;
    input.break_at = rng_permille(&rng, 500) ? input.break_at : other.break_at;
    return input_encode(&input, out, room);
}
