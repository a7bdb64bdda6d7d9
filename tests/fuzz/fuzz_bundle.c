/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: what is above libxml2 in reading a bundle. The input is the text of a
 * DiskDescriptor.xml; there is no directory.
 *
 *  1. What is accepted is what bundle/model.h says of a settled model.
 *  2. What is accepted is written again, and read, and is then the same.
 *  3. What is refused is told in one line, and leaves no model.
 */
#include <errno.h>
#include <string.h>

#include "bundle/bundle.h"
#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned lines;

static void count_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)message_id;
    MUST(level == PLOOP_LOG_ERROR && !strchr(text, '\n'), "told: %s", text);
    lines++;
}

static void judge_snapshots(const struct model *model)
{
    MUST(model->top < model->snapshot_count && !model->snapshots[model->top].child_count,
         "top %u of %u", model->top, model->snapshot_count);
    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        uint32_t steps = 0;

        MUST(model_find(model, &model->snapshots[i].guid) == i, "snapshot %u is there twice", i);
        for (uint32_t at = i; at != NO_PARENT; at = model->snapshots[at].parent) {
            MUST(at < model->snapshot_count && steps++ < model->snapshot_count,
                 "snapshot %u has no root", i);
        }
    }
}

static void judge_storage(const struct model *model, const struct storage *storage)
{
    MUST(storage->image_count == model->snapshot_count, "%u images for %u snapshots",
         storage->image_count, model->snapshot_count);
    for (uint32_t i = 0; i < storage->image_count; i++) {
        const struct image *image = &storage->images[i];

        MUST(guid_equal(&image->guid, &model->snapshots[i].guid), "image %u", i);
        MUST(image->name[0] && !strchr(image->name, '/') && strcmp(image->name, "..") != 0,
             "the name '%s'", image->name);
        MUST(strncmp(image->path, "dir/", 4) == 0 && strcmp(image->path + 4, image->name) == 0,
             "the path '%s'", image->path);
        MUST(image->type == PLOOP_BUNDLE_EXPANDING || model->snapshots[i].parent == NO_PARENT,
             "image %u of type %u", i, image->type);
    }
}

static void judge(const struct model *model)
{
    uint64_t at = 0;

    judge_snapshots(model);
    for (uint32_t i = 0; i < model->storage_count; i++) {
        MUST(model->storages[i].start == at && model->storages[i].end > at, "storage %u", i);
        at = model->storages[i].end;
        judge_storage(model, &model->storages[i]);
    }
    MUST(at == model->disk_sectors, "the storages end at %llu", (unsigned long long)at);
}

static void judge_same(const struct model *one, const struct model *other)
{
    MUST(one->disk_sectors == other->disk_sectors && one->top == other->top &&
             one->snapshot_count == other->snapshot_count &&
             one->storage_count == other->storage_count,
         "written again it is another bundle");
    for (uint32_t s = 0; s < one->storage_count; s++) {
        for (uint32_t i = 0; i < one->snapshot_count; i++) {
            MUST(guid_equal(&one->snapshots[i].guid, &other->snapshots[i].guid) &&
                     one->snapshots[i].parent == other->snapshots[i].parent,
                 "written again snapshot %u is another", i);
            MUST(strcmp(one->storages[s].images[i].name, other->storages[s].images[i].name) == 0,
                 "written again image %u is another", i);
        }
    }
}

static int read_text(const char *text, size_t size, xmlDoc **doc, struct model *model)
{
    static const struct report report = {.log = count_line, .subject = "x"};
    int error = xml_parse(text, size, &report, doc);

    return error ? error : xml_read(*doc, "dir", &report, model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xmlDoc *doc = NULL, *again = NULL;
    struct model model = {0}, second = {0};
    char *text = malloc(size ? size : 1);

    memcpy(text, data, size);
    lines = 0;
    int error = read_text(text, size, &doc, &model);
    MUST((error != 0) == (lines == 1), "error %d in %u lines", error, lines);
    MUST(!error || (!model.snapshots && !model.storages), "a model after error %d", error);
    if (!error) {
        size_t length;
        char *written = xml_print(doc, &length);

        judge(&model);
        MUST(written && read_text(written, length, &again, &second) == 0,
             "it cannot be read again");
        judge_same(&model, &second);
        xmlFree(written);
    }
    model_free(&model);
    model_free(&second);
    xmlFreeDoc(doc);
    xmlFreeDoc(again);
    free(text);
    return 0;
}
