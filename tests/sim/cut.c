/* SPDX-License-Identifier: MIT */
/* See cut.h. */
#include "cut.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

static void append(struct cut *cut, const struct disk_op *op)
{
    cut->ops = sim_realloc(cut->ops, (cut->op_count + 1) * sizeof(*cut->ops));
    struct disk_op *copy = &cut->ops[cut->op_count++];
    *copy = *op;
    if (op->data) {
        copy->data = sim_alloc(op->length);
        memcpy(copy->data, op->data, op->length);
    }
}

struct taking {
    struct cut *cut;
    uint64_t seq;
};

static void append_in_flight(void *context, enum disk_kind kind, uint64_t offset, uint64_t length,
                             const uint8_t *data)
{
    struct taking *taking = context;
    struct disk_op op = {.seq = taking->seq++, .kind = kind, .offset = offset, .length = length};
    append(taking->cut, &op);
    if (data) {
        struct disk_op *copy = &taking->cut->ops[taking->cut->op_count - 1];
        copy->data = sim_alloc(length);
        memcpy(copy->data, data, length);
    }
}

struct cut *cut_take(struct backend *backend, const struct model *model, struct rng *rng)
{
    struct cut *cut = sim_alloc(sizeof(*cut));
    struct disk *disk = backend->disk;
    cut->at = backend->now;
    cut->bat_end = backend->bat_end;
    cut->shows_stale = backend->shows_stale;
    cut->rng.state = rng_next(rng);
    disk_state_copy(&cut->durable, &disk->durable);
    for (uint64_t i = 0; i < disk->op_count; i++)
        append(cut, &disk->ops[i]);
    struct taking taking = {cut, disk->next_seq};
    backend_pending(backend, append_in_flight, &taking);
    snapshot_take(&cut->snapshot, model);
    return cut;
}

void cut_free(struct cut *cut)
{
    for (uint64_t i = 0; i < cut->op_count; i++)
        sim_free(cut->ops[i].data);
    sim_free(cut->ops);
    disk_state_free(&cut->durable);
    snapshot_free(&cut->snapshot);
    sim_free(cut);
}

/* A disk: which operations happen. TORN ones by the sector. */
enum fate { DROPPED, KEPT, TORN };

static bool torn_sector(void *context, uint64_t sector)
{
    (void)sector;
    return rng_permille(context, 500);
}

static void build(struct cut *cut, const enum fate *fates, struct disk_state *state)
{
    disk_state_copy(state, &cut->durable);
    for (uint64_t i = 0; i < cut->op_count; i++) {
        if (fates[i] == DROPPED)
            continue;
        bool tear = fates[i] == TORN;
        disk_state_apply(state, &cut->ops[i], tear ? torn_sector : NULL, tear ? &cut->rng : NULL);
        if (tear && cut->ops[i].kind == DISK_WRITE && cut->ops[i].offset < cut->bat_end &&
            cut->ops[i].length > DISK_SECTOR)
            counters_fault(FAULT_TORN, cut->rules, cut->states);
    }
    if (cut->shows_stale)
        disk_state_stale(state, &cut->durable, cut->ops, cut->op_count, &cut->rng);
}

struct seen {
    uint64_t hashes[2 * CUT_SINGLES + CUT_RANDOM + 2];
    unsigned count;
};

static void hand_out(struct cut *cut, const enum fate *fates, struct seen *seen, cut_fn *fn,
                     void *context, const char *name)
{
    struct disk_state state;
    build(cut, fates, &state);
    uint64_t sum = disk_state_hash(&state);
    bool known = false;
    for (unsigned i = 0; i < seen->count; i++)
        known |= seen->hashes[i] == sum;
    if (!known) {
        seen->hashes[seen->count++] = sum;
        fn(context, &state, name);
    }
    disk_state_free(&state);
}

static void random_fates(struct cut *cut, enum fate *fates)
{
    unsigned kept = (unsigned)rng_between(&cut->rng, 100, 900);
    for (uint64_t i = 0; i < cut->op_count; i++)
        fates[i] =
            rng_permille(&cut->rng, kept) ? (rng_permille(&cut->rng, 400) ? TORN : KEPT) : DROPPED;
}

void cut_disks(struct cut *cut, cut_fn *fn, void *context)
{
    enum fate *fates = sim_alloc((cut->op_count + 1) * sizeof(*fates));
    struct seen seen = {.count = 0};
    char name[96];
    for (int all = 1; all >= 0; all--) {
        for (uint64_t i = 0; i < cut->op_count; i++)
            fates[i] = all ? KEPT : DROPPED;
        snprintf(name, sizeof(name), "cut at event %" PRIu64 ", all %s", cut->at,
                 all ? "kept" : "dropped");
        hand_out(cut, fates, &seen, fn, context, name);
    }
    uint64_t singles = cut->op_count < CUT_SINGLES ? cut->op_count : CUT_SINGLES;
    uint64_t from = rng_below(&cut->rng, cut->op_count);
    for (uint64_t k = 0; k < 2 * singles; k++) {
        uint64_t one = (from + k / 2) % cut->op_count;
        bool keep = k % 2;
        for (uint64_t i = 0; i < cut->op_count; i++)
            fates[i] = (i == one) == keep ? KEPT : DROPPED;
        const struct disk_op *op = &cut->ops[one];
        static const char *const kinds[] = {"?", "write", "punch", "resize", "allocate"};
        snprintf(name, sizeof(name),
                 "cut at event %" PRIu64 ", only the %s of %" PRIu64 "+%" PRIu64 " %s", cut->at,
                 kinds[op->kind], op->offset, op->length, keep ? "kept" : "dropped");
        hand_out(cut, fates, &seen, fn, context, name);
    }
    for (int k = 0; k < CUT_RANDOM && cut->op_count; k++) {
        random_fates(cut, fates);
        snprintf(name, sizeof(name), "cut at event %" PRIu64 ", random subset %d", cut->at, k);
        hand_out(cut, fates, &seen, fn, context, name);
    }
    sim_free(fates);
}

void cut_random_disk(struct cut *cut, struct disk_state *state)
{
    enum fate *fates = sim_alloc((cut->op_count + 1) * sizeof(*fates));
    random_fates(cut, fates);
    build(cut, fates, state);
    sim_free(fates);
}
