/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that go: deleted, or merged with what is built on them.
 *
 *     JUDGED -> COPIED -> COMMITTED -> done
 *
 * JUDGED   nothing has changed.
 * COPIED   the receivers have all that they need: each was opened as a device, a merge job of the
 *          core library copied into it, and it was closed, cleanly and durably. The stacks of the
 *          XML as it is, and as it is going to be, show the same disk.
 * COMMITTED  the XML does not name the file that goes (commit.c); it can be removed.
 *
 * The XML is written when the device is closed, and not from the job's commit callback: so no image
 * that the new XML names has its in-use mark, and a failed close leaves the old XML. Nobody else
 * writes in between, so the two cannot differ.
 *
 * If the program is killed the XML is one of the two, whole. A kill while clusters are copied
 * leaves the mark in the receiver: it was not closed cleanly, as after any crash, and is repaired
 * or recovered as any image is. Down, the parent's image is not what it was from the first copy on:
 * only the snapshot that goes anyway can be told from before; the one that stays reads the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "change.h"
#include "stack.h"
#include "top.h"

enum { LOOK_NS = 100000000 };

/* ---- Copying ---- */

static void commit_at_once(void *user_data, ploop_job *job)
{
    (void)user_data;
    ploop_job_committed(job, 0);
}

/* Until the job has ended: its result. */
static int follow(const ploop_bundle *bundle, ploop_dev *dev, ploop_job *job)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    bool is_cancelled = false;

    ploop_job_set_rate(job, bundle->merge_rate);
    for (ploop_job_info(job, &info); info.state != PLOOP_JOB_ENDED; ploop_job_info(job, &info)) {
        if (bundle->progress && !is_cancelled &&
            bundle->progress(bundle->progress_data, info.bytes_done, info.bytes_total)) {
            is_cancelled = !ploop_job_cancel(job); /* else it is too late, or too early */
        }
        ploop_queue_wait(ploop_dev_queue(dev, 0), LOOK_NS);
    }
    return ploop_job_wait(job);
}

/* Copy what the snapshot lacks from its parent into it, or down into the parent. */
static int copy(const ploop_bundle *bundle, uint32_t snapshot, uint32_t direction)
{
    const struct stack_options options = {0};
    struct stack stack;
    ploop_job *job;
    int error = stack_open(&stack, bundle, 0, snapshot, &options);

    if (error) {
        return error;
    }
    atomic_store(&stack.has_told, false);
    error =
        ploop_dev_merge(stack.dev, stack.count - 2, direction, commit_at_once, NULL, NULL, &job);
    if (!error) {
        error = follow(bundle, stack.dev, job);
        ploop_job_free(job);
    }
    if (error && !stack.has_told) {
        fault(&bundle->report, error, "its image '%.100s' cannot be merged: %s",
              stack.names[stack.count - 1], error == -ECANCELED ? "interrupted" : strerror(-error));
    }
    int closed = stack_close(&stack);
    return error ? error : closed;
}

/* ---- The XML ---- */

/* The snapshot goes: its children hang on its parent then. */
static bool edit_delete(xmlDoc *doc, const struct model *model, uint32_t snapshot)
{
    const struct snapshot *own = &model->snapshots[snapshot];
    xmlNode *image = xml_find_image(doc, &own->guid), *shot = xml_find_shot(doc, &own->guid);
    char parent[PLOOP_BUNDLE_GUID_SIZE];

    guid_print(&own->parent_guid, parent);
    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        xmlNode *child = model->snapshots[i].parent == snapshot
                             ? xml_find_shot(doc, &model->snapshots[i].guid)
                             : NULL;
        if (child && !xml_set(child, "ParentGUID", parent)) {
            return false;
        }
    }
    if (!image || !shot) {
        return false;
    }
    xmlUnlinkNode(image);
    xmlFreeNode(image);
    xmlUnlinkNode(shot);
    xmlFreeNode(shot);
    return true;
}

/* After a merge down the snapshot has its parent's file. */
static bool edit_take_over(xmlDoc *doc, const struct model *model, uint32_t snapshot)
{
    const struct snapshot *own = &model->snapshots[snapshot];
    xmlNode *image = xml_find_image(doc, &own->guid);

    return image && xml_set(image, "File", model->storages[0].images[own->parent].name);
}

/*
 * The snapshot `gone` goes, and `file_of`'s file; nobody else has that open. `heir` gets gone's
 * file, or is UINT32_MAX.
 */
static int commit_gone(ploop_bundle *bundle, uint32_t gone, uint32_t file_of, uint32_t heir)
{
    char *name = strdup(bundle->model.storages[0].images[file_of].name);
    ploop_file *file = NULL;
    bool written = false;
    int error = name ? change_lock_image(bundle, file_of, &file) : change_no_memory(bundle);

    if (!error) {
        xmlDoc *doc = xmlCopyDoc(bundle->doc, 1);
        bool edited = doc && (heir == UINT32_MAX || edit_take_over(doc, &bundle->model, heir)) &&
                      edit_delete(doc, &bundle->model, gone);
        error = change_commit(bundle, doc, edited, &written);
    }
    if (!error) {
        remove_image(bundle, name);
    }
    ploop_file_close(file);
    free(name);
    return error;
}

/* Before long work: whether the image could be removed now. */
static int try_lock(const ploop_bundle *bundle, uint32_t snapshot)
{
    ploop_file *file = NULL;
    int error = change_lock_image(bundle, snapshot, &file);

    ploop_file_close(file);
    return error;
}

/* ---- Merge ---- */

static int judge_merge(const ploop_bundle *bundle, uint32_t snapshot, uint32_t direction)
{
    const struct snapshot *snapshots = bundle->model.snapshots;

    if (direction != PLOOP_MERGE_UP && direction != PLOOP_MERGE_DOWN) {
        return -EINVAL;
    }
    int error = change_may_merge(bundle, snapshot);
    if (error) {
        return error;
    }
    uint32_t parent = snapshots[snapshot].parent;
    if (parent == NO_PARENT) {
        return fault(&bundle->report, -EINVAL,
                     "this is the root: there is nothing to merge it with");
    }
    if (snapshots[parent].child_count > 1) {
        return fault(&bundle->report, -EINVAL,
                     "other snapshots are built on its parent, which "
                     "would be lost");
    }
    return try_lock(bundle, direction == PLOOP_MERGE_UP ? parent : snapshot);
}

int ploop_bundle_merge(ploop_bundle *bundle, uint32_t snapshot, uint32_t direction)
{
    int error = judge_merge(bundle, snapshot, direction);

    if (error) {
        return error;
    }
    uint32_t parent = bundle->model.snapshots[snapshot].parent;
    if (direction == PLOOP_MERGE_UP) {
        error = copy(bundle, snapshot, PLOOP_MERGE_UP);
        return error ? error : commit_gone(bundle, parent, parent, UINT32_MAX);
    }
    error = copy(bundle, snapshot, PLOOP_MERGE_DOWN | PLOOP_MERGE_RECEIVER_IS_OURS);
    return error ? error : commit_gone(bundle, parent, snapshot, snapshot);
}

/* ---- Delete ---- */

/* Whether what is built on the snapshot shows anything of its image: 0, 1 or -errno, told. */
static int is_needed(const ploop_bundle *bundle, uint32_t snapshot)
{
    const struct snapshot *own = &bundle->model.snapshots[snapshot];
    struct ploop_check_result result = {.size = sizeof(result)};
    ploop_file *file;

    int error = change_lock_image(bundle, snapshot, &file);
    if (error) {
        return error;
    }
    if (!own->child_count || own->parent == NO_PARENT) {
        ploop_file_close(file);
        return own->child_count > 0; /* a root cannot go without its child becoming one */
    }
    error = ploop_image_check(file, NULL, &result);
    ploop_file_close(file);
    return error ? fault(&bundle->report, error, "its image '%.100s': %s",
                         bundle->model.storages[0].images[snapshot].name, strerror(-error))
                 : result.errors || result.mapped;
}

int ploop_bundle_delete(ploop_bundle *bundle, uint32_t snapshot)
{
    const struct model *model = &bundle->model;
    int error = change_may_touch(bundle, snapshot);

    if (error) {
        return error;
    }
    int needed = is_needed(bundle, snapshot);
    if (needed < 0) {
        return needed;
    }
    if (needed && model->snapshots[snapshot].parent == NO_PARENT &&
        model->snapshots[snapshot].child_count > 1) {
        return fault(&bundle->report, -ENOTSUP,
                     "more than one snapshot is built on this one, which is the root");
    }
    for (uint32_t i = 0; needed && i < model->snapshot_count && !error; i++) {
        if (model->snapshots[i].parent == snapshot) {
            error = copy(bundle, i, PLOOP_MERGE_UP);
        }
    }
    return error ? error : commit_gone(bundle, snapshot, snapshot, UINT32_MAX);
}
