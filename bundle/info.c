/* SPDX-License-Identifier: MIT */
/* What a bundle says, for its user. */
#include <errno.h>
#include <string.h>

#include "bundle.h"

enum { SIZED_MAX = 4096, SECTOR = 512 };

static uint64_t size_of(const void *given)
{
    uint64_t size;

    memcpy(&size, given, sizeof(size));
    return size;
}

int options_in(void *known, size_t known_size, size_t reserved_at, const void *given)
{
    if (size_of(given) < reserved_at) {
        return -EINVAL;
    }
    if (size_of(given) > SIZED_MAX) {
        return -E2BIG;
    }
    for (size_t i = reserved_at; i < size_of(given); i++) {
        if (((const unsigned char *)given)[i]) {
            return -E2BIG;
        }
    }
    memcpy(known, given, size_of(given) < known_size ? (size_t)size_of(given) : known_size);
    return 0;
}

int answer_out(void *given, const void *known, size_t known_size, size_t reserved_at)
{
    uint64_t size = given ? size_of(given) : 0;

    if (size < reserved_at || size > SIZED_MAX) {
        return -EINVAL;
    }
    size_t copied = size < known_size ? (size_t)size : known_size;
    memset(given, 0, (size_t)size);
    memcpy(given, known, copied);
    memcpy(given, &size, sizeof(size));
    return 0;
}

int ploop_bundle_info(const ploop_bundle *bundle, struct ploop_bundle_info *info)
{
    const struct model *model = &bundle->model;
    struct ploop_bundle_info answer = {.disk_size = model->disk_sectors * SECTOR,
                                       .storage_count = model->storage_count,
                                       .snapshot_count = model->snapshot_count,
                                       .top = model->top};

    return answer_out(info, &answer, sizeof(answer), offsetof(struct ploop_bundle_info, reserved));
}

int ploop_bundle_snapshot(const ploop_bundle *bundle, uint32_t number,
                          struct ploop_bundle_snapshot *snapshot)
{
    if (number >= bundle->model.snapshot_count) {
        return -ENOENT;
    }
    const struct snapshot *own = &bundle->model.snapshots[number];
    struct ploop_bundle_snapshot answer = {.parent = own->parent, .child_count = own->child_count};
    guid_print(&own->guid, answer.guid);
    return answer_out(snapshot, &answer, sizeof(answer),
                      offsetof(struct ploop_bundle_snapshot, reserved));
}

int ploop_bundle_find(const ploop_bundle *bundle, const char *guid, uint32_t *number)
{
    struct guid wanted;

    if (!guid || !number || !guid_parse(guid, &wanted)) {
        return -EINVAL;
    }
    uint32_t found = model_find(&bundle->model, &wanted);
    if (found == UINT32_MAX) {
        return -ENOENT;
    }
    *number = found;
    return 0;
}

int ploop_bundle_storage(const ploop_bundle *bundle, uint32_t number,
                         struct ploop_bundle_storage *storage)
{
    if (number >= bundle->model.storage_count) {
        return -ENOENT;
    }
    const struct storage *own = &bundle->model.storages[number];
    struct ploop_bundle_storage answer = {.start = own->start * SECTOR,
                                          .end = own->end * SECTOR,
                                          .cluster_size = own->block_sectors * SECTOR};
    return answer_out(storage, &answer, sizeof(answer),
                      offsetof(struct ploop_bundle_storage, reserved));
}

int ploop_bundle_image(const ploop_bundle *bundle, uint32_t storage, uint32_t snapshot,
                       struct ploop_bundle_image *image)
{
    if (storage >= bundle->model.storage_count || snapshot >= bundle->model.snapshot_count) {
        return -ENOENT;
    }
    const struct image *own = &bundle->model.storages[storage].images[snapshot];
    struct ploop_bundle_image answer = {
        .type = own->type, .snapshot = snapshot, .name = own->name, .path = own->path};
    return answer_out(image, &answer, sizeof(answer),
                      offsetof(struct ploop_bundle_image, reserved));
}

int64_t ploop_bundle_chain(const ploop_bundle *bundle, uint32_t snapshot, uint32_t *chain,
                           uint32_t room)
{
    const struct snapshot *snapshots = bundle->model.snapshots;
    uint32_t length = 0;

    if (snapshot >= bundle->model.snapshot_count) {
        return -ENOENT;
    }
    for (uint32_t at = snapshot; at != NO_PARENT; at = snapshots[at].parent) {
        length++;
    }
    for (uint32_t at = snapshot, i = length; i--; at = snapshots[at].parent) {
        if (i < room) {
            chain[i] = at;
        }
    }
    return length;
}
