/* SPDX-License-Identifier: MIT */
/* See model.h. */
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t model_find(const struct model *model, const struct guid *guid)
{
    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        if (guid_equal(&model->snapshots[i].guid, guid)) {
            return i;
        }
    }
    return UINT32_MAX;
}

static int fault_of_guid(const struct report *report, const char *what, const struct guid *guid)
{
    char text[PLOOP_BUNDLE_GUID_SIZE];

    guid_print(guid, text);
    return fault(report, -EUCLEAN, "%s %s", what, text);
}

/* ---- Storages ---- */

static int compare_storages(const void *one, const void *other)
{
    const struct storage *a = one, *b = other;

    return a->start < b->start ? -1 : a->start > b->start;
}

static int settle_storages(struct model *model, const struct report *report)
{
    uint64_t at = 0;

    if (!model->disk_sectors || model->disk_sectors > DISK_SECTORS_MAX) {
        return fault(report, -EUCLEAN, "Disk_size is %llu sectors",
                     (unsigned long long)model->disk_sectors);
    }
    if (!model->storage_count) {
        return fault(report, -EUCLEAN, "there is no Storage");
    }
    qsort(model->storages, model->storage_count, sizeof(model->storages[0]), compare_storages);
    for (uint32_t i = 0; i < model->storage_count; i++) {
        const struct storage *storage = &model->storages[i];
        if (storage->start != at || storage->end <= at || storage->end > model->disk_sectors) {
            return fault(report, -EUCLEAN,
                         "storages do not lie one behind the other: one begins at sector %llu and "
                         "ends at %llu, where %llu of the disk's %llu are covered",
                         (unsigned long long)storage->start, (unsigned long long)storage->end,
                         (unsigned long long)at, (unsigned long long)model->disk_sectors);
        }
        if (!storage->block_sectors || storage->block_sectors > UINT32_MAX) {
            return fault(report, -EUCLEAN, "Blocksize is %llu sectors",
                         (unsigned long long)storage->block_sectors);
        }
        at = storage->end;
    }
    return at == model->disk_sectors
               ? 0
               : fault(report, -EUCLEAN, "the storages end at sector %llu, the disk at %llu",
                       (unsigned long long)at, (unsigned long long)model->disk_sectors);
}

/* ---- Snapshots ---- */

static int settle_parents(struct model *model, const struct report *report)
{
    uint32_t roots = 0;

    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        struct snapshot *snapshot = &model->snapshots[i];
        snapshot->parent = NO_PARENT;
        if (guid_is_zero(&snapshot->guid)) {
            return fault(report, -EUCLEAN, "a Shot's GUID is zero");
        }
        if (model_find(model, &snapshot->guid) != i) {
            return fault_of_guid(report, "two Shots with the GUID", &snapshot->guid);
        }
        if (guid_is_zero(&snapshot->parent_guid)) {
            roots++;
            continue;
        }
        snapshot->parent = model_find(model, &snapshot->parent_guid);
        if (snapshot->parent == UINT32_MAX) {
            return fault_of_guid(report, "no Shot has the ParentGUID", &snapshot->parent_guid);
        }
        model->snapshots[snapshot->parent].child_count++;
    }
    return roots == 1
               ? 0
               : fault(report, -EUCLEAN, "%u snapshots have no parent, not one of them", roots);
}

/*
 * With one root, what is not below it hangs in a cycle. Take away leaves, one after the other: what
 * is left in the end are the cycles. `left` counts the children that are left.
 */
static int refuse_cycles(const struct model *model, uint32_t *left, const struct report *report)
{
    uint32_t taken = 0;

    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        left[i] = model->snapshots[i].child_count;
    }
    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        uint32_t leaf = i;
        while (leaf != NO_PARENT && left[leaf] == 0) {
            left[leaf] = UINT32_MAX; /* taken */
            taken++;
            leaf = model->snapshots[leaf].parent;
            if (leaf != NO_PARENT) {
                left[leaf]--;
            }
        }
    }
    return taken == model->snapshot_count
               ? 0
               : fault(report, -EUCLEAN, "%u snapshots are each other's parents",
                       model->snapshot_count - taken);
}

static int settle_top(struct model *model, const struct report *report)
{
    const struct guid *guid = model->names_top ? &model->top_guid : &guid_of_top;

    model->top = model_find(model, guid);
    if (model->top == UINT32_MAX && !model->names_top && model->snapshot_count == 1) {
        model->top = 0;
    }
    if (model->top == UINT32_MAX) {
        return fault_of_guid(report, "there is no top: no Shot has the GUID", guid);
    }
    return model->snapshots[model->top].child_count
               ? fault_of_guid(report, "another snapshot is built on the top,", guid)
               : 0;
}

static int settle_snapshots(struct model *model, const struct report *report)
{
    if (!model->snapshot_count) {
        return fault(report, -EUCLEAN, "there is no Shot");
    }
    int error = settle_parents(model, report);
    if (error) {
        return error;
    }
    uint32_t *left = calloc(model->snapshot_count, sizeof(left[0]));
    if (!left) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    error = refuse_cycles(model, left, report);
    free(left);
    return error ? error : settle_top(model, report);
}

/* ---- Images ---- */

char *join_path(const char *directory, const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);

    if (path) {
        snprintf(path, size, "%s/%s", directory, name);
    }
    return path;
}

/* A file in the directory itself: no path, neither "." nor "..". */
static bool is_plain_name(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Each image goes to the number of its snapshot: 0 or -EUCLEAN. */
static int sort_images(const struct model *model, struct storage *storage,
                       const struct report *report)
{
    struct image *images = storage->images;

    if (storage->image_count != model->snapshot_count) {
        return fault(report, -EUCLEAN, "a Storage has %u images for %u snapshots",
                     storage->image_count, model->snapshot_count);
    }
    for (uint32_t i = 0; i < storage->image_count;) {
        uint32_t number = model_find(model, &images[i].guid);
        if (number == UINT32_MAX) {
            return fault_of_guid(report, "no Shot has an image's GUID", &images[i].guid);
        }
        if (number == i) {
            i++;
            continue;
        }
        if (guid_equal(&images[number].guid, &images[i].guid)) {
            return fault_of_guid(report, "two images of a Storage with the GUID", &images[i].guid);
        }
        struct image moved = images[number];
        images[number] = images[i];
        images[i] = moved;
    }
    return 0;
}

static int settle_storage(const struct model *model, struct storage *storage, const char *directory,
                          const struct report *report)
{
    int error = sort_images(model, storage, report);

    for (uint32_t i = 0; i < storage->image_count && !error; i++) {
        struct image *image = &storage->images[i];
        if (!is_plain_name(image->name)) {
            return fault(report, -EUCLEAN, "the image '%.100s' is not in the bundle's directory",
                         image->name);
        }
        if (image->type == PLOOP_BUNDLE_PLAIN && model->snapshots[i].parent != NO_PARENT) {
            return fault(report, -EUCLEAN, "the image '%.100s' is plain and has a parent",
                         image->name);
        }
        image->path = join_path(directory, image->name);
        error = image->path ? 0 : fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    return error;
}

static int compare_names(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static int refuse_shared_files(const struct model *model, const struct report *report)
{
    size_t count = (size_t)model->storage_count * model->snapshot_count, at = 0;
    const char **names = calloc(count, sizeof(names[0]));
    int error = 0;

    if (!names) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    for (uint32_t s = 0; s < model->storage_count; s++) {
        for (uint32_t i = 0; i < model->snapshot_count; i++) {
            names[at++] = model->storages[s].images[i].name;
        }
    }
    qsort(names, count, sizeof(names[0]), compare_names);
    for (size_t i = 1; i < count && !error; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            error = fault(report, -EUCLEAN, "two images are the file '%.100s'", names[i]);
        }
    }
    free(names);
    return error;
}

int model_settle(struct model *model, const char *directory, const struct report *report)
{
    int error = settle_storages(model, report);

    if (!error) {
        error = settle_snapshots(model, report);
    }
    for (uint32_t i = 0; i < model->storage_count && !error; i++) {
        error = settle_storage(model, &model->storages[i], directory, report);
    }
    return error ? error : refuse_shared_files(model, report);
}

void model_free(struct model *model)
{
    for (uint32_t s = 0; s < model->storage_count; s++) {
        for (uint32_t i = 0; i < model->storages[s].image_count; i++) {
            free(model->storages[s].images[i].name);
            free(model->storages[s].images[i].path);
        }
        free(model->storages[s].images);
    }
    free(model->storages);
    free(model->snapshots);
    *model = (struct model){0};
}
