/* SPDX-License-Identifier: MIT */
/*
 * Changes of a bundle that add an image; merge.c has those that take one away. A copy of its
 * document is changed and committed (commit.c).
 *
 * While the XML changes, the lock of the image that it is about keeps other programs from it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "change.h"
#include "top.h"

/* Whether the bundle can be changed at all: 0 or -errno, told. */
static int may_change(const ploop_bundle *bundle)
{
    if (bundle->lock_fd < 0) {
        return fault(&bundle->report, -EBADF, "it was opened for reading only");
    }
    return bundle->model.storage_count == 1
               ? 0
               : fault(&bundle->report, -ENOTSUP, "a split disk is only read");
}

int change_no_memory(const ploop_bundle *bundle)
{
    return fault(&bundle->report, -ENOMEM, "%s", strerror(ENOMEM));
}

int change_commit(ploop_bundle *bundle, xmlDoc *doc, bool edited, bool *written)
{
    if (edited) {
        return bundle_commit(bundle, doc, written);
    }
    xmlFreeDoc(doc);
    *written = false;
    return change_no_memory(bundle);
}

/* ---- Take ---- */

/* An XML whose top has another GUID than is usual has to say which one it is. */
static bool name_top(xmlNode *snapshots, const struct guid *top)
{
    char text[PLOOP_BUNDLE_GUID_SIZE];

    if (xml_child(snapshots, "TopGUID") || guid_equal(top, &guid_of_top)) {
        return true;
    }
    guid_print(top, text);
    xmlNode *node =
        xmlNewDocNode(snapshots->doc, NULL, (const xmlChar *)"TopGUID", (const xmlChar *)text);
    if (!node) {
        return false;
    }
    if (snapshots->children) {
        xmlAddPrevSibling(snapshots->children, node);
    } else {
        xmlAddChild(snapshots, node);
    }
    return true;
}

static bool edit_take(xmlDoc *doc, const struct guid *top, const char *snapshot_guid,
                      const char *file_name)
{
    char top_guid[PLOOP_BUNDLE_GUID_SIZE];
    xmlNode *image = xml_find_image(doc, top), *shot = xml_find_shot(doc, top);

    guid_print(top, top_guid);
    if (!image || !shot || !xml_set(image, "GUID", snapshot_guid) ||
        !xml_set(shot, "GUID", snapshot_guid) || !name_top(xml_snapshots(doc), top)) {
        return false;
    }
    image = xml_add(xml_storage(doc), "Image", NULL);
    shot = xml_add(xml_snapshots(doc), "Shot", NULL);
    return image && xml_add(image, "GUID", top_guid) && xml_add(image, "Type", "Compressed") &&
           xml_add(image, "File", file_name) && shot && xml_add(shot, "GUID", top_guid) &&
           xml_add(shot, "ParentGUID", snapshot_guid);
}

int ploop_bundle_take_snapshot(ploop_bundle *bundle, char *guid)
{
    const struct model *model = &bundle->model;
    char text[PLOOP_BUNDLE_GUID_SIZE];
    struct ploop_image_info info;
    struct guid snapshot_guid;
    ploop_file *old_top;
    char *name = NULL;
    bool written = false;

    int error = may_change(bundle);
    if (!error && model->snapshot_count == PLOOP_BUNDLE_SNAPSHOTS_MAX) {
        error = fault(&bundle->report, -EFBIG, "it has %u snapshots already, the most it may have",
                      model->snapshot_count);
    }
    if (!error) {
        error = image_open_checked(bundle, model->top, PLOOP_FILE_READ_WRITE, &old_top, &info);
    }
    if (error) {
        return error;
    }
    error = guid_random(&snapshot_guid);
    guid_print(&snapshot_guid, text);
    if (!error) {
        error = new_top_create(bundle, &info, &name);
    }
    if (!error) {
        xmlDoc *doc = xmlCopyDoc(bundle->doc, 1);
        const struct guid *top = &model->snapshots[model->top].guid;
        error = change_commit(bundle, doc, doc && edit_take(doc, top, text, name), &written);
        if (!written) {
            remove_image(bundle, name);
        }
    }
    ploop_file_close(old_top);
    free(name);
    if (guid && written) {
        memcpy(guid, text, sizeof(text));
    }
    return error;
}

/* ---- Switch ---- */

static bool edit_switch(xmlDoc *doc, const struct guid *top, const struct guid *parent,
                        const char *file_name)
{
    char guid[PLOOP_BUNDLE_GUID_SIZE];
    xmlNode *image = xml_find_image(doc, top), *shot = xml_find_shot(doc, top);

    guid_print(parent, guid);
    return image && shot && xml_set(image, "File", file_name) &&
           xml_set(image, "Type", "Compressed") && xml_set(shot, "ParentGUID", guid);
}

int change_may_merge(const ploop_bundle *bundle, uint32_t snapshot)
{
    int error = may_change(bundle);

    return !error && snapshot >= bundle->model.snapshot_count
               ? fault(&bundle->report, -ENOENT, "there is no snapshot %u", snapshot)
               : error;
}

int change_may_touch(const ploop_bundle *bundle, uint32_t snapshot)
{
    int error = change_may_merge(bundle, snapshot);

    if (!error && snapshot == bundle->model.top) {
        error = fault(&bundle->report, -EINVAL, "this is the top, not one of its snapshots");
    }
    return error;
}

int change_lock_image(const ploop_bundle *bundle, uint32_t snapshot, ploop_file **file)
{
    const struct image *image = &bundle->model.storages[0].images[snapshot];
    int error = ploop_file_open_posix(image->path, PLOOP_FILE_READ_WRITE, file);

    return error ? fault(&bundle->report, error, "its image '%.100s': %s", image->name,
                         error == -EAGAIN ? "another program has it open" : strerror(-error))
                 : 0;
}

/* Give the top a new, empty image on the snapshot's. *written: it has it. */
static int move_top(ploop_bundle *bundle, uint32_t snapshot, const struct ploop_image_info *base,
                    bool *written)
{
    const struct snapshot *snapshots = bundle->model.snapshots;
    char *name = NULL;
    int error = new_top_create(bundle, base, &name);

    if (error) {
        return error;
    }
    xmlDoc *doc = xmlCopyDoc(bundle->doc, 1);
    bool edited = doc && edit_switch(doc, &snapshots[bundle->model.top].guid,
                                     &snapshots[snapshot].guid, name);
    error = change_commit(bundle, doc, edited, written);
    if (!*written) {
        remove_image(bundle, name);
    }
    free(name);
    return error;
}

int ploop_bundle_switch(ploop_bundle *bundle, uint32_t snapshot)
{
    struct ploop_image_info info;
    ploop_file *old_top = NULL, *base = NULL;
    char *old_name = NULL;
    bool written = false;

    int error = change_may_touch(bundle, snapshot);
    if (error) {
        return error;
    }
    old_name = strdup(bundle->model.storages[0].images[bundle->model.top].name);
    error = old_name ? change_lock_image(bundle, bundle->model.top, &old_top)
                     : change_no_memory(bundle);
    if (!error) {
        error = image_open_checked(bundle, snapshot, PLOOP_FILE_READ_ONLY, &base, &info);
    }
    if (!error) {
        error = move_top(bundle, snapshot, &info, &written);
    }
    if (!error) {
        remove_image(bundle, old_name);
    }
    ploop_file_close(base);
    ploop_file_close(old_top);
    free(old_name);
    return error;
}
