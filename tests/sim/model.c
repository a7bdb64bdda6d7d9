/* SPDX-License-Identifier: MIT */
/* See model.h. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "disk.h"
#include "report.h"

#define CONTENT_MAGIC 0x706f6f6c2d6d6973u

enum { RECORD_WORDS = 4, RECORDS = DISK_SECTOR / 8 / RECORD_WORDS };

void content_fill(uint8_t *bytes, uint64_t sector, uint64_t version)
{
    if (!version) {
        memset(bytes, 0, DISK_SECTOR);
        return;
    }
    for (uint64_t record = 0; record < RECORDS; record++) {
        uint64_t words[RECORD_WORDS] = {CONTENT_MAGIC, sector, version, record};
        memcpy(bytes + record * sizeof(words), words, sizeof(words));
    }
}

int content_read(const uint8_t *bytes, uint64_t sector, uint64_t *version, uint64_t *other)
{
    uint8_t expected[DISK_SECTOR];
    uint64_t words[RECORD_WORDS];
    memcpy(words, bytes, sizeof(words));
    *version = 0;
    *other = words[1];
    if (words[0] == CONTENT_MAGIC)
        *version = words[2];
    content_fill(expected, sector, *version);
    if (!memcmp(bytes, expected, DISK_SECTOR))
        return 0;
    if (words[0] != CONTENT_MAGIC)
        return CONTENT_GARBAGE;
    return words[1] != sector ? CONTENT_FOREIGN : CONTENT_MIXED;
}

void model_init(struct model *model, const uint32_t *hot, uint32_t hot_count,
                uint32_t cluster_sectors, uint64_t disk_sectors)
{
    memset(model, 0, sizeof(*model));
    model_size(model, disk_sectors, disk_sectors);
    model->cluster_sectors = cluster_sectors;
    model->hot = hot;
    model->hot_count = hot_count;
    model->clusters = (disk_sectors + cluster_sectors - 1) / cluster_sectors;
    model->index = sim_alloc(model->clusters * sizeof(*model->index));
    model->sectors = sim_alloc((uint64_t)hot_count * cluster_sectors * sizeof(*model->sectors));
    model->oldest_read = UINT64_MAX;
    for (uint64_t i = 0; i < model->clusters; i++)
        model->index[i] = -1;
    for (uint32_t i = 0; i < hot_count; i++)
        model->index[hot[i]] = (int32_t)i;
}

void model_size(struct model *model, uint64_t sectors, uint64_t or_sectors)
{
    model->sizes[0] = sectors;
    model->sizes[1] = or_sectors;
}

void model_free(struct model *model)
{
    for (uint64_t i = 0; i < (uint64_t)model->hot_count * model->cluster_sectors; i++)
        sim_free(model->sectors[i].versions);
    sim_free(model->sectors);
    sim_free(model->index);
}

struct sector *model_sector(const struct model *model, uint64_t guest_sector)
{
    int32_t at = model->index[guest_sector / model->cluster_sectors];
    return at < 0 ? NULL
                  : &model->sectors[(uint64_t)at * model->cluster_sectors +
                                    guest_sector % model->cluster_sectors];
}

static bool before(const struct version *a, const struct version *b)
{
    return (a->done && a->complete < b->submit) || (a->settled_by && a->settled_by == b->id);
}

/* A read submitted at that time may show the version. */
static bool readable(const struct sector *sector, const struct version *version, uint64_t submitted)
{
    for (uint32_t i = 0; i < sector->count; i++) {
        const struct version *later = &sector->versions[i];
        if (later->done && !later->failed && later->complete < submitted && before(version, later))
            return false;
    }
    return true;
}

/* A cut may show it. */
static bool survives(const struct sector *sector, const struct version *version)
{
    for (uint32_t i = 0; i < sector->count; i++)
        if (sector->versions[i].durable && before(version, &sector->versions[i]))
            return false;
    return true;
}

/* Forget versions that no read and no cut can show any more. */
static void prune(const struct model *model, struct sector *sector)
{
    uint32_t kept = 0;
    bool keep[64] = {0};
    if (sector->count < 6 || sector->count > 64)
        return;
    for (uint32_t i = 0; i < sector->count; i++) {
        const struct version *version = &sector->versions[i];
        keep[i] = survives(sector, version) || readable(sector, version, model->oldest_read);
    }
    for (uint32_t i = 0; i < sector->count; i++)
        if (keep[i])
            sector->versions[kept++] = sector->versions[i];
    sector->count = kept;
}

static struct version *add(struct sector *sector)
{
    if (sector->count == sector->capacity) {
        sector->capacity = sector->capacity ? 2 * sector->capacity : 8;
        sector->versions =
            sim_realloc(sector->versions, sector->capacity * sizeof(*sector->versions));
    }
    struct version *version = &sector->versions[sector->count++];
    memset(version, 0, sizeof(*version));
    return version;
}

void model_submit(struct model *model, uint64_t first, uint64_t count, uint64_t id,
                  uint64_t content, uint64_t now, uint64_t preflush)
{
    for (uint64_t at = first; at < first + count; at++) {
        struct sector *sector = model_sector(model, at);
        if (!sector && content)
            give_up("the workload writes guest sector %" PRIu64 ", which is not hot", at);
        if (!sector)
            continue; /* zeros over zeros */
        prune(model, sector);
        struct version *version = add(sector);
        version->id = id;
        version->content = content;
        version->submit = now;
        version->preflush = preflush;
    }
}

static struct version *find(struct sector *sector, uint64_t id)
{
    for (uint32_t i = sector->count; i-- > 0;)
        if (sector->versions[i].id == id)
            return &sector->versions[i];
    return NULL;
}

void model_refused(struct model *model, uint64_t first, uint64_t count, uint64_t id)
{
    for (uint64_t at = first; at < first + count; at++) {
        struct sector *sector = model_sector(model, at);
        struct version *version = sector ? find(sector, id) : NULL;
        if (version)
            *version = sector->versions[--sector->count];
    }
}

void model_done(struct model *model, uint64_t first, uint64_t count, uint64_t id, uint64_t now,
                int result, bool durable, bool maybe)
{
    for (uint64_t at = first; at < first + count; at++) {
        struct sector *sector = model_sector(model, at);
        struct version *version = sector ? find(sector, id) : NULL;
        if (!version)
            continue;
        version->done = true;
        version->complete = now;
        version->failed = result < 0 || maybe;
        version->durable = durable && !version->failed;
    }
}

void model_flushed(struct model *model, uint64_t submitted)
{
    for (uint64_t i = 0; i < (uint64_t)model->hot_count * model->cluster_sectors; i++) {
        struct sector *sector = &model->sectors[i];
        for (uint32_t k = 0; k < sector->count; k++) {
            struct version *version = &sector->versions[k];
            if (version->done && !version->failed && version->complete < submitted)
                version->durable = true;
        }
    }
}

static void print_versions(const struct version *versions, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct version *version = &versions[i];
        printf("    version %" PRIu64 " (request %" PRIu64 ") submitted %" PRIu64 "%s %" PRIu64
               "%s%s\n",
               version->content, version->id, version->submit,
               version->done ? ", completed" : ", in flight", version->complete,
               version->failed ? ", failed" : "", version->durable ? ", durable" : "");
    }
}

/* The content that a sector names itself; ends the run if it is not this sector's. */
static uint64_t named_content(const uint8_t *bytes, uint64_t guest_sector, const char *who)
{
    uint64_t content, other;
    switch (content_read(bytes, guest_sector, &content, &other)) {
    case CONTENT_FOREIGN:
        violation("F1",
                  "%s: guest sector %" PRIu64 " shows another's bytes: sector %" PRIu64
                  " version %" PRIu64,
                  who, guest_sector, other, content);
    case CONTENT_MIXED:
        violation("F1",
                  "%s: guest sector %" PRIu64 " shows a mix inside the sector, version %" PRIu64,
                  who, guest_sector, content);
    case CONTENT_GARBAGE:
        violation("F1", "%s: guest sector %" PRIu64 " shows garbage", who, guest_sector);
    default:
        return content;
    }
}

void model_read(struct model *model, uint64_t guest_sector, const uint8_t *bytes,
                uint64_t submitted, uint64_t now, const char *who)
{
    uint64_t content = named_content(bytes, guest_sector, who);
    struct sector *sector = model_sector(model, guest_sector);
    struct version *shown = NULL;
    if (!sector) {
        if (content)
            violation("F1", "%s: unused guest sector %" PRIu64 " shows version %" PRIu64, who,
                      guest_sector, content);
        return;
    }
    uint32_t same = 0;
    for (uint32_t i = 0; i < sector->count; i++)
        if (sector->versions[i].content == content &&
            readable(sector, &sector->versions[i], submitted)) {
            shown = &sector->versions[i];
            same++;
        }
    if (!shown) {
        printf("guest sector %" PRIu64 " at %" PRIu64 ", read submitted at %" PRIu64 ":\n",
               guest_sector, now, submitted);
        print_versions(sector->versions, sector->count);
        violation("read",
                  "%s: guest sector %" PRIu64 " shows version %" PRIu64 ", which is not current",
                  who, guest_sector, content);
    }
    if (same > 1 || !shown->done || shown->complete >= submitted)
        return;
    for (uint32_t i = 0; i < sector->count; i++) {
        struct version *version = &sector->versions[i];
        if (version != shown && version->done && version->complete < submitted &&
            !before(version, shown) && !before(shown, version))
            version->settled_by = shown->id;
    }
}

void model_restart(struct model *model, uint64_t guest_sector, const uint8_t *bytes, uint64_t now)
{
    struct sector *sector = model_sector(model, guest_sector);
    if (!sector)
        return;
    uint64_t content = named_content(bytes, guest_sector, "after reopening"), id = 0;
    bool allowed = sector->count == 0;
    for (uint32_t i = 0; i < sector->count; i++) {
        const struct version *version = &sector->versions[i];
        if (version->content == content && survives(sector, version)) {
            id = version->id;
            allowed = true;
        }
    }
    if (!allowed) {
        print_versions(sector->versions, sector->count);
        violation("F1", "after reopening: guest sector %" PRIu64 " shows version %" PRIu64,
                  guest_sector, content);
    }
    sector->count = 0;
    struct version *version = add(sector);
    version->id = id;
    version->content = content;
    version->submit = now + 1;
    version->complete = now + 1;
    version->done = true;
    version->durable = true;
}

void snapshot_take(struct snapshot *snapshot, const struct model *model)
{
    uint64_t sectors = (uint64_t)model->hot_count * model->cluster_sectors, total = 0;
    for (uint64_t i = 0; i < sectors; i++)
        total += model->sectors[i].count;
    snapshot->sectors = sectors;
    snapshot->used = model->used;
    memcpy(snapshot->sizes, model->sizes, sizeof(snapshot->sizes));
    snapshot->first = sim_alloc((sectors + 1) * sizeof(*snapshot->first));
    snapshot->versions = sim_alloc(total * sizeof(*snapshot->versions));
    snapshot->current = sim_alloc(total * sizeof(*snapshot->current));
    uint32_t at = 0;
    for (uint64_t i = 0; i < sectors; i++) {
        const struct sector *sector = &model->sectors[i];
        snapshot->first[i] = at;
        for (uint32_t k = 0; k < sector->count; k++) {
            if (!survives(sector, &sector->versions[k]))
                continue;
            snapshot->versions[at] = sector->versions[k];
            snapshot->current[at++] = readable(sector, &sector->versions[k], UINT64_MAX);
        }
    }
    snapshot->first[sectors] = at;
}

void snapshot_free(struct snapshot *snapshot)
{
    sim_free(snapshot->first);
    sim_free(snapshot->versions);
    sim_free(snapshot->current);
}

void judge_sector(struct judgement *judgement, uint64_t guest_sector, const uint8_t *bytes)
{
    const struct snapshot *snapshot = judgement->snapshot;
    uint64_t content = named_content(bytes, guest_sector, judgement->disk);
    const struct sector *sector = model_sector(judgement->model, guest_sector);
    if (!sector) {
        if (content)
            violation("F1", "%s: unused guest sector %" PRIu64 " shows version %" PRIu64,
                      judgement->disk, guest_sector, content);
        return;
    }
    uint64_t at = (uint64_t)(sector - judgement->model->sectors);
    bool allowed = false;
    judgement->found[at] = content;
    for (uint32_t i = snapshot->first[at]; i < snapshot->first[at + 1]; i++) {
        const struct version *version = &snapshot->versions[i];
        if (version->content != content || (judgement->settled && !snapshot->current[i]))
            continue;
        allowed = true;
        if (content && version->preflush > judgement->preflush)
            judgement->preflush = version->preflush;
    }
    if (!allowed) {
        printf("guest sector %" PRIu64 ", what a cut may show:\n", guest_sector);
        print_versions(snapshot->versions + snapshot->first[at],
                       snapshot->first[at + 1] - snapshot->first[at]);
        violation(judgement->settled ? "R11" : "F1",
                  "%s: guest sector %" PRIu64 " shows version %" PRIu64 "%s", judgement->disk,
                  guest_sector, content, judgement->settled ? ", and the mark is clear" : "");
    }
}

void judge_order(struct judgement *judgement)
{
    const struct snapshot *snapshot = judgement->snapshot;
    if (!judgement->preflush)
        return;
    for (uint64_t at = 0; at < snapshot->sectors; at++) {
        bool fine = snapshot->first[at] == snapshot->first[at + 1];
        for (uint32_t i = snapshot->first[at]; i < snapshot->first[at + 1] && !fine; i++) {
            const struct version *version = &snapshot->versions[i];
            fine = version->content == judgement->found[at];
            for (uint32_t k = snapshot->first[at]; k < snapshot->first[at + 1] && fine; k++) {
                const struct version *later = &snapshot->versions[k];
                fine = !(later->done && !later->failed && later->complete < judgement->preflush &&
                         before(version, later));
            }
        }
        if (!fine)
            violation("R4",
                      "%s: a PREFLUSH write of %" PRIu64 " is there, and sector %" PRIu64
                      " of the model, completed before, is not",
                      judgement->disk, judgement->preflush, at);
    }
}
