/* SPDX-License-Identifier: MIT */
/* See bounded_cut.h. */
#include "bounded_cut.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

enum { OPS_MAX = 64, SECTORS_MAX = 256, SOURCES_MAX = 512, LOSSES_MAX = 512 };

/* A possible origin of a sector's content, other than the durable one. */
struct source {
    uint32_t op;
    uint64_t bit;  /* of the operation's mask: its sectors, the first is 1 */
    uint64_t term; /* of the sum */
};

struct loss {
    uint32_t op;
    uint64_t mask;
};

/* A cut, prepared so that its disks can be identified by their sums. */
struct ready {
    const struct cut *cut;
    uint64_t durable_sum; /* of all sectors, without the size */
    struct {
        uint64_t sector, durable_term;
        uint32_t first, count; /* of the sources, the latest first */
    } sectors[SECTORS_MAX];    /* those that may differ */
    uint32_t sector_count;
    struct source sources[SOURCES_MAX];
    uint32_t source_count;
    uint64_t grown[OPS_MAX]; /* the size that a whole operation makes; 0: none */
    bool shrinks; /* an operation makes the file smaller: then the disk is built for its sum */
    struct loss losses[LOSSES_MAX];
    uint32_t loss_count;
    uint64_t kept[OPS_MAX];
};

/* Zeros count as nothing, so that bytes beyond the end need not be distinguished from them. */
static uint64_t term_of(uint64_t sector, const uint8_t *bytes)
{
    uint64_t hash = 0, any = 0;
    for (uint32_t at = 0; at < DISK_SECTOR; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        any |= word;
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return any ? hash_mix(hash, sector + 1) : 0;
}

static uint64_t with_size(uint64_t sum, uint64_t size)
{
    return hash_mix(sum, size);
}

static uint64_t sum_of_sectors(const struct disk_state *state)
{
    uint64_t sum = 0;
    for (uint64_t sector = 0; sector * DISK_SECTOR < state->size; sector++)
        sum += term_of(sector, state->bytes + sector * DISK_SECTOR);
    return sum;
}

static uint64_t sectors_in(const struct disk_op *op)
{
    return op->kind == DISK_WRITE || op->kind == DISK_PUNCH ? op->length / DISK_SECTOR : 0;
}

/*
 * Whether the operation changes that sector of the file, given what is durable; its content then.
 */
static bool reaches(const struct cut *cut, const struct disk_op *op, uint64_t sector,
                    const uint8_t **bytes)
{
    static const uint8_t zeros[DISK_SECTOR];
    uint64_t first = op->offset / DISK_SECTOR;
    if (sector < first || sector >= first + sectors_in(op))
        return false;
    if (sector * DISK_SECTOR < cut->durable.capacity && cut->durable.seq[sector] > op->seq)
        return false;
    *bytes = op->kind == DISK_WRITE ? op->data + (sector - first) * DISK_SECTOR : zeros;
    return true;
}

/* Note a sector with all its sources, unless no operation changes it. */
static void ready_sector(struct ready *ready, uint64_t sector)
{
    static const uint8_t zeros[DISK_SECTOR];
    const struct cut *cut = ready->cut;
    bool there = sector * DISK_SECTOR < cut->durable.size, matters = false;
    uint64_t durable = term_of(sector, there ? cut->durable.bytes + sector * DISK_SECTOR : zeros);
    uint32_t first = ready->source_count;
    const uint8_t *bytes;
    for (uint64_t i = cut->op_count; i-- > 0;) {
        if (!reaches(cut, &cut->ops[i], sector, &bytes))
            continue;
        if (ready->source_count == SOURCES_MAX)
            give_up("a cut with more than %d sectors in flight", SOURCES_MAX);
        struct source *source = &ready->sources[ready->source_count++];
        source->op = (uint32_t)i;
        source->bit = UINT64_C(1) << (sector - cut->ops[i].offset / DISK_SECTOR);
        source->term = term_of(sector, bytes);
        matters |= source->term != durable;
    }
    if (!matters) {
        ready->source_count = first;
        return;
    }
    ready->sectors[ready->sector_count].sector = sector;
    ready->sectors[ready->sector_count].durable_term = durable;
    ready->sectors[ready->sector_count].first = first;
    ready->sectors[ready->sector_count++].count = ready->source_count - first;
}

static void add_loss(struct ready *ready, uint32_t op, uint64_t mask)
{
    if (ready->loss_count == LOSSES_MAX)
        give_up("a cut with more than %d losses", LOSSES_MAX);
    ready->losses[ready->loss_count++] = (struct loss){op, mask};
}

/* Each operation as a whole, and each of its sectors that matters if there are several. */
static void ready_losses(struct ready *ready)
{
    for (uint32_t op = 0; op < ready->cut->op_count; op++) {
        uint64_t mask = 0;
        for (uint32_t i = 0; i < ready->source_count; i++)
            mask |= ready->sources[i].op == op ? ready->sources[i].bit : 0;
        if (!mask && !ready->shrinks && ready->grown[op] <= ready->cut->durable.size)
            continue;
        add_loss(ready, op, UINT64_MAX);
        for (uint64_t bit = 1; bit && mask & (mask - 1); bit <<= 1)
            if (mask & bit)
                add_loss(ready, op, bit);
    }
}

static void ready_make(struct ready *ready, const struct cut *cut)
{
    ready->cut = cut;
    ready->sector_count = ready->source_count = ready->loss_count = 0;
    ready->shrinks = false;
    ready->durable_sum = sum_of_sectors(&cut->durable);
    uint64_t end = 0;
    if (cut->op_count > OPS_MAX)
        give_up("a cut with more than %d operations", OPS_MAX);
    for (uint64_t i = 0; i < cut->op_count; i++) {
        const struct disk_op *op = &cut->ops[i];
        uint64_t count = sectors_in(op), last = (op->offset + op->length) / DISK_SECTOR;
        if (count > 64 || (op->kind == DISK_WRITE && op->length % DISK_SECTOR) ||
            last > SECTORS_MAX)
            give_up("a cut with a large operation, or past a small file");
        ready->grown[i] = op->kind == DISK_PUNCH ? 0 : op->offset + op->length;
        ready->shrinks |= op->kind == DISK_RESIZE && op->offset < cut->durable.size;
        end = count && last > end ? last : end;
    }
    for (uint64_t i = 0; i < cut->op_count; i++)
        for (uint64_t k = 0; k < i; k++) /* cuts off the content of another */
            ready->shrinks |=
                cut->ops[i].kind == DISK_RESIZE && cut->ops[i].offset < ready->grown[k];
    for (uint64_t sector = 0; sector < end; sector++)
        ready_sector(ready, sector);
    ready_losses(ready);
}

static uint64_t snapshot_hash(const struct snapshot *snapshot)
{
    uint64_t hash = snapshot->used;
    for (uint64_t at = 0; at < snapshot->sectors; at++) {
        hash = hash_mix(hash, at);
        for (uint32_t i = snapshot->first[at]; i < snapshot->first[at + 1]; i++)
            hash = hash_mix(hash, 2 * snapshot->versions[i].content + snapshot->current[i]);
    }
    return hash;
}

static uint64_t cut_hash(const struct ready *ready, uint64_t promises)
{
    uint64_t hash = hash_mix(promises, with_size(ready->durable_sum, ready->cut->durable.size));
    for (uint64_t i = 0; i < ready->cut->op_count; i++)
        hash = hash_mix(hash_mix(hash, ready->grown[i]), ready->cut->ops[i].kind);
    for (uint32_t i = 0; i < ready->sector_count; i++) {
        hash = hash_mix(hash, ready->sectors[i].sector);
        for (uint32_t k = 0; k < ready->sectors[i].count; k++) {
            const struct source *source = &ready->sources[ready->sectors[i].first + k];
            hash = hash_mix(hash_mix(hash_mix(hash, source->op), source->bit), source->term);
        }
    }
    return hash;
}

static bool is_kept(void *context, uint64_t sector)
{
    return *(const uint64_t *)context >> sector & 1;
}

static void build(struct ready *ready, struct disk_state *state)
{
    disk_state_copy(state, &ready->cut->durable);
    for (uint64_t i = 0; i < ready->cut->op_count; i++)
        if (ready->kept[i])
            disk_state_apply(state, &ready->cut->ops[i], is_kept, &ready->kept[i]);
}

static uint64_t built_sum(struct ready *ready)
{
    struct disk_state state;
    build(ready, &state);
    uint64_t sum = with_size(sum_of_sectors(&state), state.size);
    disk_state_free(&state);
    return sum;
}

/* The size that the kept part of an operation makes. */
static uint64_t grown_by(const struct ready *ready, uint64_t i)
{
    const struct disk_op *op = &ready->cut->ops[i];
    uint64_t kept = ready->kept[i], count = sectors_in(op);
    if (op->kind != DISK_WRITE)
        return kept ? ready->grown[i] : 0;
    while (count && !(kept >> (count - 1) & 1))
        count--;
    return count ? op->offset + count * DISK_SECTOR : 0;
}

static uint64_t disk_sum(struct ready *ready)
{
    if (ready->shrinks)
        return built_sum(ready);
    uint64_t sum = ready->durable_sum, size = ready->cut->durable.size;
    for (uint32_t i = 0; i < ready->sector_count; i++) {
        const struct source *source = &ready->sources[ready->sectors[i].first];
        for (uint32_t k = 0; k < ready->sectors[i].count; k++, source++) {
            if (!(ready->kept[source->op] & source->bit))
                continue;
            sum += source->term - ready->sectors[i].durable_term;
            break;
        }
    }
    for (uint64_t i = 0; i < ready->cut->op_count; i++)
        size = grown_by(ready, i) > size ? grown_by(ready, i) : size;
    return with_size(sum, size);
}

/* "all but write 4096+1024, sector 1 of punch ...": the text of a message. */
static void describe(const struct ready *ready, bool keep, const struct loss *losses[],
                     uint32_t count, char *text, size_t size)
{
    static const char *const kinds[] = {"?", "write", "punch", "resize", "allocate"};
    int at = snprintf(text, size, "cut at event %" PRIu64 ", %s", ready->cut->at,
                      keep ? "nothing" : "all");
    for (uint32_t i = 0; i < count && (size_t)at < size; i++) {
        const struct disk_op *op = &ready->cut->ops[losses[i]->op];
        at += snprintf(text + at, size - (size_t)at, "%s %s %" PRIu64 "+%" PRIu64,
                       i ? " and" : " but", kinds[op->kind], op->offset, op->length);
        if (losses[i]->mask != UINT64_MAX && (size_t)at < size)
            at += snprintf(text + at, size - (size_t)at, " (sectors %" PRIx64 ")", losses[i]->mask);
    }
}

static void consider(struct bounded_judge *judge, struct sim *sim, struct ready *ready,
                     uint64_t promises, bool keep, const struct loss *losses[], uint32_t count)
{
    for (uint64_t i = 0; i < ready->cut->op_count; i++)
        ready->kept[i] = keep ? 0 : UINT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        ready->kept[losses[i]->op] |= losses[i]->mask;
        if (!keep)
            ready->kept[losses[i]->op] &= ~losses[i]->mask;
    }
    uint64_t sum = disk_sum(ready);
    judge->counts->disks++;
    if (!seen_add(&judge->judged, hash_mix(promises, sum)))
        return;
    char name[160];
    struct disk_state state;
    describe(ready, keep, losses, count, name, sizeof(name));
    build(ready, &state);
    if (with_size(sum_of_sectors(&state), state.size) != sum)
        give_up("%s: the disk is not what its sum says", name);
    bool unknown = seen_add(&judge->disks, sum);
    judge->counts->judged++;
    judge->counts->continued += unknown;
    judge_disk(sim, &ready->cut->snapshot, &state, name, unknown);
    disk_state_free(&state);
}

static void judge_cut(struct bounded_judge *judge, struct sim *sim, const struct cut *cut)
{
    static struct ready ready;
    uint64_t promises = snapshot_hash(&cut->snapshot);
    ready_make(&ready, cut);
    judge->counts->cuts++;
    if (!seen_add(&judge->cuts, cut_hash(&ready, promises)))
        return;
    judge->counts->new_cuts++;
    for (int keep = 0; keep < 2; keep++) {
        const struct loss *losses[BOUNDED_LOSSES];
        consider(judge, sim, &ready, promises, keep, losses, 0);
        for (uint32_t a = 0; a < ready.loss_count; a++) {
            losses[0] = &ready.losses[a];
            consider(judge, sim, &ready, promises, keep, losses, 1);
            for (uint32_t b = a + 1; b < ready.loss_count; b++) {
                losses[1] = &ready.losses[b];
                consider(judge, sim, &ready, promises, keep, losses, 2);
            }
        }
    }
}

void bounded_judge_cuts(struct bounded_judge *judge, struct sim *sim)
{
    while (sim->cuts) {
        struct cut *cut = sim->cuts;
        sim->cuts = cut->next;
        judge_cut(judge, sim, cut);
        cut_free(cut);
    }
}

void bounded_judge_free(struct bounded_judge *judge)
{
    seen_free(&judge->cuts);
    seen_free(&judge->judged);
    seen_free(&judge->disks);
}
