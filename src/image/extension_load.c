/* SPDX-License-Identifier: MIT */
/*
 * Judging an extension. Its own cluster is read, its features are listed, and the clusters that its
 * bitmaps name are collected as claims. Then one pass over the BAT, and a look at neighbours in the
 * sorted claims, tell which of them collide.
 */
#include "image/extension_load.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/file.h"

/* A cluster that a bitmap, or (OWNER_EXTENSION) the extension itself, says is its own. */
struct claim {
    uint64_t offset;
    uint32_t owner; /* index of the bitmap; the order in which claims of one offset are honoured */
    bool placed;    /* on the grid and inside the file */
    uint64_t next;  /* its own index until a guest's cluster was found on it; then where to go on
                       looking */
};

#define OWNER_EXTENSION 0u /* bitmap i is owner i + 1 */

struct claims {
    struct claim *list;
    uint64_t count, room;
    bool start_in_guest_cluster; /* the extension's own claim collides */
};

static struct extension_fault fault_at(const char *what, uint64_t value)
{
    return (struct extension_fault){what, value};
}

static void *more_room(void *list, uint64_t count, uint64_t *room, size_t each)
{
    if (count < *room) {
        return list;
    }
    *room = *room ? *room * 2 : 16;
    return realloc(list, *room * each);
}

static bool on_grid(const struct geometry *geometry, uint64_t file_size, uint64_t offset)
{
    return offset >= geometry->data_start &&
           (offset - geometry->data_start) % geometry->cluster_size == 0 && offset <= file_size &&
           file_size - offset >= geometry->cluster_size;
}

static int add_claim(struct claims *claims, struct claim claim)
{
    struct claim *list = more_room(claims->list, claims->count, &claims->room, sizeof(*list));

    if (!list) {
        return -ENOMEM;
    }
    claims->list = list;
    list[claims->count++] = claim;
    return 0;
}

static int claim_bitmap(struct claims *claims, const struct extension *extension, uint32_t index,
                        const struct geometry *geometry, uint64_t file_size)
{
    struct loaded_bitmap *bitmap = &extension->bitmaps[index];
    int error = 0;

    for (uint32_t i = 0; i < bitmap->bitmap.l1_size && !error; i++) {
        uint64_t sector = extension_l1_get(extension->bytes, &bitmap->bitmap, i);
        struct claim claim = {.offset = sector * SECTOR_SIZE, .owner = index + 1};

        if (sector == L1_ALL_ZEROS || sector == L1_ALL_ONES) {
            continue;
        }
        if (sector > UINT64_MAX / SECTOR_SIZE) {
            bitmap->fault = fault_at("a table entry past the end of the file, sector", sector);
            continue;
        }
        claim.placed = on_grid(geometry, file_size, claim.offset);
        if (!claim.placed) {
            bitmap->fault = fault_at("a table entry outside the cluster grid, sector", sector);
        }
        error = add_claim(claims, claim);
    }
    return error;
}

static int add_bitmap(struct extension *extension, uint64_t *room,
                      const struct extension_feature *feature, const struct geometry *geometry)
{
    struct loaded_bitmap *list =
        more_room(extension->bitmaps, extension->bitmap_count, room, sizeof(*list));

    if (!list) {
        return -ENOMEM;
    }
    extension->bitmaps = list;
    list += extension->bitmap_count++;
    *list = (struct loaded_bitmap){.data_at = feature->data_at};
    list->fault = extension_bitmap_decode(extension->bytes, feature, geometry, &list->bitmap);
    return 0;
}

/* Every feature of the cluster. A list that is broken makes the extension unusable. */
static int list_features(struct extension *extension, const struct geometry *geometry)
{
    struct extension_feature feature;
    uint64_t room = 0;
    size_t at = 0;
    int error = 0;

    while (!error && extension_next(extension->bytes, geometry->cluster_size, &at, &feature,
                                    &extension->fault)) {
        if (feature.magic == EXTENSION_BITMAP_MAGIC) {
            error = add_bitmap(extension, &room, &feature, geometry);
        } else if (feature.flags & FEATURE_NECESSARY) {
            extension->unknown_necessary = feature.magic;
        } else if (feature.flags & FEATURE_TRANSIT) {
            extension->unknown_transit = true;
        } else {
            extension->unknown_plain = true;
        }
    }
    return error;
}

static int compare_claims(const void *left, const void *right)
{
    const struct claim *a = left, *b = right;

    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    return a->owner < b->owner ? -1 : a->owner > b->owner;
}

/* The first claim at or past that offset. */
static uint64_t claims_from(const struct claims *claims, uint64_t offset)
{
    uint64_t low = 0, high = claims->count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (claims->list[middle].offset < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/*
 * The first claim from there on that no guest's cluster was found on. Shortens the way for the next
 * one who asks, so that millions of entries on the same claims cost no more than one look each.
 */
static uint64_t next_unjudged(struct claims *claims, uint64_t at)
{
    while (at < claims->count && claims->list[at].next != at) {
        uint64_t next = claims->list[at].next;

        if (next < claims->count) {
            claims->list[at].next = claims->list[next].next;
        }
        at = next;
    }
    return at;
}

/*
 * The guest's cluster at `offset`, and who claims a part of it. The extension's own claims lie on
 * the grid, the guest's need not.
 */
static void judge_guest_cluster(struct extension *extension, struct claims *claims,
                                uint64_t cluster_size, uint64_t offset)
{
    uint64_t i = claims_from(claims, offset >= cluster_size ? offset - cluster_size + 1 : 0);

    for (i = next_unjudged(claims, i); i < claims->count; i = next_unjudged(claims, i + 1)) {
        struct claim *claim = &claims->list[i];

        if (claim->offset >= offset + cluster_size) {
            return;
        }
        if (claim->owner != OWNER_EXTENSION) {
            extension->bitmaps[claim->owner - 1].fault =
                fault_at("a table entry in a guest's cluster, byte", claim->offset);
            extension->in_guest_cluster = claim->offset;
            claim->next = i + 1;
        } else if (claim->offset == offset) {
            extension->fault = fault_at("in a guest's cluster, byte", offset);
            extension->state = EXTENSION_UNUSABLE;
            claims->start_in_guest_cluster = true;
        }
    }
}

static void judge_claims(struct extension *extension, struct claims *claims,
                         const struct geometry *geometry, struct entry_source entries)
{
    for (uint64_t i = 0; i < claims->count; i++) {
        claims->list[i].next = i;
    }
    for (uint32_t i = 0; i < geometry->bat_entries; i++) {
        uint32_t entry = entries.entry(entries.context, i);

        if (entry) {
            judge_guest_cluster(extension, claims, geometry->cluster_size,
                                geometry_entry_offset(geometry, entry));
        }
    }
    for (uint64_t i = 1; i < claims->count; i++) {
        const struct claim *claim = &claims->list[i];

        if (claim->offset == claims->list[i - 1].offset) {
            assert(claim->owner != OWNER_EXTENSION);
            extension->bitmaps[claim->owner - 1].fault =
                fault_at("a table entry that names a cluster twice, byte", claim->offset);
        }
    }
}

/* The clusters of what was found good. An extension in a guest's cluster owns nothing. */
static int take_owned(struct extension *extension, const struct claims *claims)
{
    if (claims->start_in_guest_cluster) {
        return 0;
    }
    assert(claims->count > 0); /* the extension's own */
    extension->owned = malloc(claims->count * sizeof(*extension->owned));
    if (!extension->owned) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < claims->count; i++) {
        const struct claim *claim = &claims->list[i];

        if (claim->owner == OWNER_EXTENSION || !extension->bitmaps[claim->owner - 1].fault.what) {
            assert(claim->owner == OWNER_EXTENSION || claim->placed);
            extension->owned[extension->owned_count++] = claim->offset;
        }
    }
    return 0;
}

static int judge(struct extension *extension, uint64_t start, const struct geometry *geometry,
                 uint64_t file_size, struct entry_source entries)
{
    struct claims claims = {0};
    int error = add_claim(
        &claims, (struct claim){.offset = start, .owner = OWNER_EXTENSION, .placed = true});

    extension->state = extension->fault.what ? EXTENSION_UNUSABLE : EXTENSION_VALID;
    for (uint32_t i = 0;
         i < extension->bitmap_count && !error && extension->state == EXTENSION_VALID; i++) {
        if (!extension->bitmaps[i].fault.what) {
            error = claim_bitmap(&claims, extension, i, geometry, file_size);
        }
    }
    if (!error) {
        qsort(claims.list, claims.count, sizeof(*claims.list), compare_claims);
        judge_claims(extension, &claims, geometry, entries);
        error = take_owned(extension, &claims);
    }
    free(claims.list);
    return error;
}

static int read_cluster(struct extension *extension, ploop_file *file, uint64_t start,
                        uint64_t size)
{
    extension->bytes = aligned_alloc(SECTOR_SIZE, size);
    if (!extension->bytes) {
        return -ENOMEM;
    }

    int64_t got = file_sync_io(file, PLOOP_IO_READ, extension->bytes, size, start);

    if (got < 0) {
        return (int)got;
    }
    return (uint64_t)got == size ? 0 : -EIO;
}

static int load(struct extension *extension, ploop_file *file, const struct header *header,
                uint64_t file_size, struct entry_source entries)
{
    const struct geometry *geometry = &header->geometry;
    uint64_t start = header->extension_sector * SECTOR_SIZE;
    int error;

    if (header->extension_sector > UINT64_MAX / SECTOR_SIZE ||
        !on_grid(geometry, file_size, start)) {
        extension->state = EXTENSION_UNUSABLE;
        extension->fault = fault_at("outside the cluster grid, sector", header->extension_sector);
        return 0;
    }
    error = read_cluster(extension, file, start, geometry->cluster_size);
    if (error && error != -ENOMEM) {
        extension->state = EXTENSION_UNUSABLE;
        extension->read_error = error;
        extension->fault = fault_at("cannot be read, error", (uint64_t)-error);
        return 0;
    }
    if (!error) {
        extension->fault = extension_verify(extension->bytes, geometry->cluster_size);
        error = extension->fault.what ? 0 : list_features(extension, geometry);
    }
    if (!error) {
        error = judge(extension, start, geometry, file_size, entries);
    }
    return error;
}

static bool has_bad_bitmap(const struct extension *extension)
{
    uint32_t i = 0;

    while (i < extension->bitmap_count && !extension->bitmaps[i].fault.what) {
        i++;
    }
    return i < extension->bitmap_count;
}

/* It was loaded as if it counted. Whatever is wrong with it, it is no finding. */
static void make_void(struct extension *extension)
{
    uint64_t sector = extension->sector;

    extension->whole = extension->state == EXTENSION_VALID && !has_bad_bitmap(extension);
    if (!extension->whole) {
        extension_free(extension);
    }
    extension->state = EXTENSION_VOID;
    extension->sector = sector;
    extension->unknown_necessary = 0;
}

int extension_load(struct extension *extension, ploop_file *file, const struct header *header,
                   uint64_t file_size, struct entry_source entries)
{
    *extension = (struct extension){.state = EXTENSION_NONE, .sector = header->extension_sector};
    if (header->extension_sector == 0) {
        return 0;
    }

    int error = load(extension, file, header, file_size, entries);

    if (error) {
        extension_free(extension);
    } else if (header->in_use != HEADER_CLOSED_EXT) {
        make_void(extension);
    }
    return error;
}

void extension_free(struct extension *extension)
{
    free(extension->bytes);
    free(extension->bitmaps);
    free(extension->owned);
    *extension = (struct extension){.state = EXTENSION_NONE};
}

int extension_writable(const struct extension *extension, char *message)
{
    message[0] = '\0';
    if (extension->state == EXTENSION_UNUSABLE) {
        snprintf(message, HEADER_MESSAGE_SIZE, "ext_off %" PRIu64 ": format extension: %s %" PRIu64,
                 extension->sector, extension->fault.what, extension->fault.value);
        return extension->read_error ? extension->read_error : -EUCLEAN;
    }
    if (extension->in_guest_cluster) {
        snprintf(
            message, HEADER_MESSAGE_SIZE,
            "ext_off %" PRIu64
            ": a dirty bitmap of the format extension lies in a guest's cluster, byte %" PRIu64,
            extension->sector, extension->in_guest_cluster);
        return -EUCLEAN;
    }
    if (extension->unknown_necessary) {
        snprintf(message, HEADER_MESSAGE_SIZE,
                 "ext_off %" PRIu64 ": the format extension has a feature 0x%016" PRIx64
                 " that is not known here and necessary",
                 extension->sector, extension->unknown_necessary);
        return -ENOTSUP;
    }
    return 0;
}

struct keep_context {
    const struct extension *extension;
    bool bitmaps;
};

static int compare_bitmaps(const void *left, const void *right)
{
    const struct loaded_bitmap *a = left, *b = right;

    return a->data_at < b->data_at ? -1 : a->data_at > b->data_at;
}

static bool is_kept(const struct extension_feature *feature, const void *context)
{
    const struct keep_context *keep = context;

    if (feature->magic != EXTENSION_BITMAP_MAGIC) {
        return feature->flags & FEATURE_TRANSIT;
    }

    const struct loaded_bitmap wanted = {.data_at = feature->data_at};
    const struct loaded_bitmap *bitmap =
        bsearch(&wanted, keep->extension->bitmaps, keep->extension->bitmap_count, sizeof(wanted),
                compare_bitmaps);

    assert(bitmap);
    return keep->bitmaps && !bitmap->fault.what;
}

uint32_t extension_kept(const struct extension *extension, bool keep_bitmaps, uint8_t *bytes,
                        size_t size)
{
    struct keep_context keep = {extension, keep_bitmaps};

    assert(extension->state == EXTENSION_VALID);
    return extension_filter(extension->bytes, bytes, size, is_kept, &keep);
}
