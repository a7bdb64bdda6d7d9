/* SPDX-License-Identifier: MIT */
/*
 * The mutator's part for the format extension: it makes an extension of valid features, and changes
 * one field of one.
 */
#include <string.h>

#include "format/extension.h"
#include "format/header.h"
#include "mutate.h"
#include "util/bytes.h"

#define EXTENSION_MAGIC 0xAB234CEF23DCEA87u
#define UNKNOWN_MAGIC 0x1122334455667788u

enum {
    AT_EXT_OFF = 56,
    AT_IN_USE = 44,
    HEAD_SIZE = 24, /* of the extension, and of a feature */
    BITMAP_HEAD_SIZE = 32,
    L1_MAX = 8, /* of the bitmaps made here */
    MADE_MAX = 1024
};

static uint64_t divide_up(uint64_t value, uint64_t unit)
{
    return value / unit + (value % unit != 0);
}

static uint64_t disk_sectors(const struct view *view)
{
    return view->v1 ? (uint32_t)view->nb_sectors : view->nb_sectors;
}

static uint64_t some_l1_entry(struct mutator *mutator)
{
    uint64_t host = some_host_offset(mutator) / SECTOR_SIZE,
             guest = some_guest_offset(mutator) / SECTOR_SIZE;

    return PICK(mutator, 0, 1, host, host, host, host + 1, guest, mutator->view.ext_off,
                odd_value(mutator, host));
}

static size_t add_feature(uint8_t *to, uint64_t magic, uint64_t flags, uint32_t size)
{
    store_le64(to, magic);
    store_le64(to + 8, flags);
    store_le32(to + 16, size);
    return HEAD_SIZE + (size + 7) / 8 * 8;
}

static size_t add_bitmap(struct mutator *mutator, uint8_t *to)
{
    uint64_t sectors = disk_sectors(&mutator->view), granularity = UINT64_C(1)
                                                                   << rng_below(&mutator->rng, 12);
    uint64_t l1_size = divide_up(divide_up(sectors, granularity), mutator->view.cluster * 8);
    uint32_t made = (uint32_t)(l1_size < L1_MAX ? l1_size : L1_MAX);
    uint8_t *data = to + HEAD_SIZE;

    store_le64(data, sectors);
    store_le32(data + 24, (uint32_t)granularity);
    store_le32(data + 28, (uint32_t)l1_size);
    for (uint32_t i = 0; i < made; i++) {
        store_le64(data + BITMAP_HEAD_SIZE + 8 * (size_t)i, some_l1_entry(mutator));
    }
    return add_feature(to, EXTENSION_BITMAP_MAGIC, 0, BITMAP_HEAD_SIZE + 8 * made);
}

/* A whole valid extension, at a place that may be valid. */
static void make_extension(struct mutator *mutator)
{
    uint8_t bytes[MADE_MAX] = {0};
    uint64_t at = some_host_offset(mutator), features = rng_below(&mutator->rng, 4);
    size_t size = HEAD_SIZE;

    if (at >= mutator->input->file_size) {
        mutator->input->file_size = (at + mutator->view.cluster) & INT64_MAX;
    }
    store_le64(bytes, EXTENSION_MAGIC);
    for (uint64_t i = 0; i < features; i++) {
        if (rng_permille(&mutator->rng, 600)) {
            size += add_bitmap(mutator, bytes + size);
        } else {
            size += add_feature(bytes + size, UNKNOWN_MAGIC, rng_below(&mutator->rng, 4),
                                (uint32_t)rng_below(&mutator->rng, 64));
        }
    }
    size += HEAD_SIZE; /* the list's end */
    input_poke(mutator->input, at, bytes,
               (uint16_t)(size < mutator->view.cluster ? size : mutator->view.cluster));
    poke64(mutator, AT_EXT_OFF, at / SECTOR_SIZE);
    poke32(mutator, AT_IN_USE, HEADER_CLOSED_EXT);
    mutator->input->options |= OPTION_SEAL;
}

/* The head of one of the existing features. False: there is none. */
static bool some_feature(struct mutator *mutator, uint64_t *at)
{
    uint64_t start = mutator->view.ext_off * SECTOR_SIZE, wanted = rng_below(&mutator->rng, 4);

    *at = start + HEAD_SIZE;
    for (uint64_t i = 0; i < wanted; i++) {
        uint64_t next = *at + HEAD_SIZE + ((uint64_t)peek32(mutator, *at + 16) + 7) / 8 * 8;

        if (next - start >= mutator->view.cluster || peek64(mutator, next) == 0) {
            break;
        }
        *at = next;
    }
    return peek64(mutator, *at) != 0;
}

static void change_feature(struct mutator *mutator)
{
    uint64_t at, old, odd, left;

    if (!some_feature(mutator, &at)) {
        make_extension(mutator);
        return;
    }
    left = mutator->view.ext_off * SECTOR_SIZE + mutator->view.cluster - at -
           HEAD_SIZE; /* of the cluster, for its data */
    old = peek32(mutator, at + 16);
    odd = odd_value(mutator, old);
    switch (rng_below(&mutator->rng, 7)) {
    case 0:
        poke64(mutator, at, PICK(mutator, EXTENSION_BITMAP_MAGIC, UNKNOWN_MAGIC, 0, odd));
        break;
    case 1:
        poke64(mutator, at + 8, rng_below(&mutator->rng, 4));
        break;
    case 2:
        poke32(mutator, at + 16,
               PICK(mutator, left, left + 1, left - 1, left - HEAD_SIZE, left - HEAD_SIZE + 1,
                    old - 8, odd));
        break;
    case 3:
        poke64(mutator, at + HEAD_SIZE,
               PICK(mutator, disk_sectors(&mutator->view), disk_sectors(&mutator->view) + 1, odd));
        break;
    case 4:
        poke32(mutator, at + HEAD_SIZE + 24,
               PICK(mutator, UINT64_C(1) << rng_below(&mutator->rng, 32), odd));
        break;
    case 5:
        old = peek32(mutator, at + HEAD_SIZE + 28);
        poke32(mutator, at + HEAD_SIZE + 28, PICK(mutator, old + 1, old - 1, odd));
        break;
    default:
        poke64(mutator, at + HEAD_SIZE + BITMAP_HEAD_SIZE + 8 * rng_below(&mutator->rng, L1_MAX),
               some_l1_entry(mutator));
    }
}

/* Fill it to its end, so that nothing ends the list. */
static void fill_up(struct mutator *mutator)
{
    uint64_t start = mutator->view.ext_off * SECTOR_SIZE, at = start + HEAD_SIZE,
             cluster = mutator->view.cluster, left;
    uint8_t head[HEAD_SIZE] = {0};

    for (int i = 0; i < 64 && peek64(mutator, at) && at - start < cluster; i++) {
        at += HEAD_SIZE + ((uint64_t)peek32(mutator, at + 16) + 7) / 8 * 8;
    }
    if (at - start + HEAD_SIZE <= cluster) {
        left = cluster - (at - start) - HEAD_SIZE;
        add_feature(head, UNKNOWN_MAGIC, rng_below(&mutator->rng, 4),
                    (uint32_t)(left - PICK(mutator, 0, 0, 1, 8, 16, 24, 32)));
        input_poke(mutator->input, at, head, sizeof(head));
    }
}

void mutate_extension(struct mutator *mutator)
{
    switch (rng_below(&mutator->rng, 8)) {
    case 0:
        make_extension(mutator);
        break;
    case 1:
        mutator->input->options |= OPTION_SEAL;
        poke32(mutator, AT_IN_USE, HEADER_CLOSED_EXT);
        break;
    case 2:
        fill_up(mutator);
        break;
    default:
        change_feature(mutator);
    }
}
