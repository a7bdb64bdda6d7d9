/* SPDX-License-Identifier: MIT */
/* See disk.h. */
#include "disk.h"

#include <string.h>

#include "report.h"

enum { OPS_MAX = 50000 };

static uint64_t sectors_of(uint64_t bytes)
{
    return (bytes + DISK_SECTOR - 1) / DISK_SECTOR;
}

static void reserve(struct disk_state *state, uint64_t size)
{
    if (size <= state->capacity)
        return;
    uint64_t capacity = state->capacity ? state->capacity : 65536;
    while (capacity < size)
        capacity *= 2;
    if (capacity > UINT64_C(1) << 30)
        give_up("the simulated file grows past 1 GiB");
    state->bytes = sim_realloc(state->bytes, capacity);
    state->seq = sim_realloc(state->seq, capacity / DISK_SECTOR * sizeof(*state->seq));
    memset(state->bytes + state->capacity, 0, capacity - state->capacity);
    memset(state->seq + state->capacity / DISK_SECTOR, 0,
           (capacity - state->capacity) / DISK_SECTOR * sizeof(*state->seq));
    state->capacity = capacity;
}

void disk_state_init(struct disk_state *state, const uint8_t *bytes, uint64_t size)
{
    memset(state, 0, sizeof(*state));
    reserve(state, size);
    memcpy(state->bytes, bytes, size);
    state->size = state->found = size;
}

void disk_state_copy(struct disk_state *to, const struct disk_state *from)
{
    memset(to, 0, sizeof(*to));
    /* only what is there, because judges copy a state for each disk */
    uint64_t capacity =
        sectors_of(from->size > from->marked ? from->size : from->marked) * DISK_SECTOR;
    to->capacity = capacity ? capacity : DISK_SECTOR;
    to->bytes = sim_alloc(to->capacity);
    to->seq = sim_alloc(to->capacity / DISK_SECTOR * sizeof(*to->seq));
    memcpy(to->bytes, from->bytes, capacity);
    memcpy(to->seq, from->seq, capacity / DISK_SECTOR * sizeof(*to->seq));
    to->size = from->size;
    to->size_seq = from->size_seq;
    to->marked = from->marked;
    to->found = from->found;
}

void disk_state_free(struct disk_state *state)
{
    sim_free(state->bytes);
    sim_free(state->seq);
    memset(state, 0, sizeof(*state));
}

uint64_t disk_state_hash(const struct disk_state *state)
{
    uint64_t sum = state->size;
    for (uint64_t at = 0; at < state->size; at += 8) {
        uint64_t word;
        memcpy(&word, state->bytes + at, 8);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 29;
    }
    return sum;
}

static void apply_sectors(struct disk_state *state, const struct disk_op *op, disk_mask_fn *mask,
                          void *context)
{
    uint64_t end = op->offset + op->length;
    /* A punch past the end too: an older write must not come back when the file grows again. */
    for (uint64_t at = op->offset; at < end; at += DISK_SECTOR) {
        uint64_t sector = at / DISK_SECTOR, bytes = end - at < DISK_SECTOR ? end - at : DISK_SECTOR;
        if (mask && !mask(context, (at - op->offset) / DISK_SECTOR))
            continue;
        reserve(state, at + bytes);
        if (state->seq[sector] > op->seq)
            continue;
        if (op->kind == DISK_WRITE)
            memcpy(state->bytes + at, op->data + (at - op->offset), bytes);
        else
            memset(state->bytes + at, 0, bytes);
        state->seq[sector] = op->seq;
        if (at + bytes > state->marked)
            state->marked = at + bytes;
        if (op->kind == DISK_WRITE && at + bytes > state->size)
            state->size = at + bytes;
    }
}

static void apply_shrink(struct disk_state *state, const struct disk_op *op)
{
    uint64_t keep = op->seq > state->size_seq ? op->offset : state->size;
    for (uint64_t sector = op->offset / DISK_SECTOR; sector < sectors_of(state->size); sector++) {
        uint64_t from = sector * DISK_SECTOR, end = from + DISK_SECTOR;
        if (state->seq[sector] > op->seq) {
            keep = keep > end ? keep : end; /* written after it: it cannot cut this off */
            continue;
        }
        from = from > op->offset ? from : op->offset;
        memset(state->bytes + from, 0, end - from);
        if (from % DISK_SECTOR == 0)
            state->seq[sector] = op->seq;
    }
    if (keep < state->size)
        state->size = keep;
}

static void apply_growth(struct disk_state *state, const struct disk_op *op, uint64_t size)
{
    if (size <= state->size)
        return;
    reserve(state, size);
    state->size = size;
    if (op->seq > state->size_seq)
        state->size_seq = op->seq;
}

void disk_state_apply(struct disk_state *state, const struct disk_op *op, disk_mask_fn *mask,
                      void *context)
{
    switch (op->kind) {
    case DISK_WRITE:
    case DISK_PUNCH:
        apply_sectors(state, op, mask, context);
        break;
    case DISK_RESIZE:
        if (op->offset < state->size)
            apply_shrink(state, op);
        else
            apply_growth(state, op, op->offset);
        break;
    case DISK_ALLOCATE:
        apply_growth(state, op, op->offset + op->length);
        break;
    }
}

void disk_init(struct disk *disk, const uint8_t *bytes, uint64_t size)
{
    memset(disk, 0, sizeof(*disk));
    disk_state_init(&disk->durable, bytes, size);
    disk_state_init(&disk->current, bytes, size);
    disk->next_seq = 1;
}

static void drop_ops(struct disk *disk)
{
    for (uint64_t i = 0; i < disk->op_count; i++)
        sim_free(disk->ops[i].data);
    disk->op_count = 0;
}

void disk_free(struct disk *disk)
{
    drop_ops(disk);
    sim_free(disk->ops);
    disk_state_free(&disk->durable);
    disk_state_free(&disk->current);
}

void disk_restart(struct disk *disk, const struct disk_state *state)
{
    struct disk_state copy;
    disk_state_init(&copy, state->bytes, state->size);
    disk_free(disk);
    disk_init(disk, copy.bytes, copy.size);
    disk_state_free(&copy);
}

static struct disk_op *append(struct disk *disk)
{
    if (disk->op_count == OPS_MAX)
        violation("R14", "%d changes of the file that are not durable, and no end", OPS_MAX);
    if (disk->op_count == disk->op_capacity) {
        disk->op_capacity = disk->op_capacity ? 2 * disk->op_capacity : 64;
        disk->ops = sim_realloc(disk->ops, disk->op_capacity * sizeof(*disk->ops));
    }
    struct disk_op *op = &disk->ops[disk->op_count++];
    memset(op, 0, sizeof(*op));
    op->seq = disk->next_seq++;
    return op;
}

uint64_t disk_execute(struct disk *disk, enum disk_kind kind, uint64_t offset, uint64_t length,
                      const uint8_t *data)
{
    struct disk_op *op = append(disk);
    op->kind = kind;
    op->offset = offset;
    op->length = length;
    if (kind == DISK_WRITE) {
        op->data = sim_alloc(length);
        memcpy(op->data, data, length);
    }
    disk_state_apply(&disk->current, op, NULL, NULL);
    return op->seq;
}

void disk_execute_failed(struct disk *disk, uint64_t offset, uint64_t length, const uint8_t *data)
{
    uint64_t seq = disk_execute(disk, DISK_WRITE, offset, length, data);
    for (uint64_t i = disk->op_count; i-- > 0;)
        if (disk->ops[i].seq == seq)
            disk->ops[i].lost = true;
}

void disk_lose_end(struct disk *disk, uint64_t size)
{
    struct disk_state *durable = &disk->durable;
    memset(durable->bytes + size, 0, durable->size - size);
    durable->size = size;
    disk_execute(disk, DISK_RESIZE, disk->current.size, 0, NULL);
    disk->ops[disk->op_count - 1].lost = true;
}

static struct disk_op *find(struct disk *disk, uint64_t seq)
{
    for (uint64_t i = disk->op_count; i-- > 0;)
        if (disk->ops[i].seq == seq)
            return &disk->ops[i];
    return NULL;
}

void disk_complete(struct disk *disk, uint64_t seq, uint64_t now)
{
    struct disk_op *op = find(disk, seq);
    if (op)
        op->completed = now;
}

static void remove_op(struct disk *disk, uint64_t index)
{
    sim_free(disk->ops[index].data);
    disk->op_count--;
    memmove(&disk->ops[index], &disk->ops[index + 1],
            (disk->op_count - index) * sizeof(*disk->ops));
}

void disk_make_durable(struct disk *disk, uint64_t seq)
{
    struct disk_op *op = find(disk, seq);
    if (!op)
        return;
    disk_state_apply(&disk->durable, op, NULL, NULL);
    remove_op(disk, (uint64_t)(op - disk->ops));
}

/* Whether a lost operation can still show: some sector of it is not overwritten durably. */
static bool matters(const struct disk *disk, const struct disk_op *op)
{
    if (op->kind != DISK_WRITE && op->kind != DISK_PUNCH)
        return true;
    for (uint64_t at = op->offset; at < op->offset + op->length; at += DISK_SECTOR) {
        if (at >= disk->durable.size || disk->durable.seq[at / DISK_SECTOR] < op->seq)
            return true;
    }
    return false;
}

void disk_write_back(struct disk *disk, struct rng *rng)
{
    if (!disk->op_count)
        return;
    const struct disk_op *op = &disk->ops[rng_below(rng, disk->op_count)];
    if (!op->lost)
        disk_make_durable(disk, op->seq);
}

static bool overlaps(const struct disk_op *a, const struct disk_op *b)
{
    bool sectors = (a->kind == DISK_WRITE || a->kind == DISK_PUNCH) &&
                   (b->kind == DISK_WRITE || b->kind == DISK_PUNCH);
    return sectors && a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

bool disk_lose(struct disk *disk, uint64_t completed_before, unsigned permille, struct rng *rng)
{
    bool any = false;
    for (uint64_t i = 0; i < disk->op_count; i++) {
        struct disk_op *op = &disk->ops[i];
        if (op->lost || !op->completed || op->completed >= completed_before ||
            !rng_permille(rng, permille))
            continue;
        op->lost = any = true;
        for (uint64_t under = 0; under < i; under++) /* the same page of the cache */
            disk->ops[under].lost |= overlaps(op, &disk->ops[under]);
    }
    disk->unreported |= any;
    return any;
}

bool disk_sync(struct disk *disk, uint64_t submitted, bool fails, struct rng *rng)
{
    if (fails)
        disk_lose(disk, submitted, 700, rng);
    fails |= disk->unreported;
    disk->unreported = false;
    for (uint64_t i = 0; i < disk->op_count;) {
        struct disk_op *op = &disk->ops[i];
        bool covered = op->completed && op->completed < submitted;
        if (covered && !fails && !op->lost) {
            disk_state_apply(&disk->durable, op, NULL, NULL);
            remove_op(disk, i);
        } else if (op->lost && !matters(disk, op)) {
            remove_op(disk, i);
        } else {
            i++;
        }
    }
    return !fails;
}

static bool some_sectors(void *context, uint64_t sector)
{
    (void)sector;
    return rng_permille(context, 500);
}

void disk_invalidate(struct disk *disk, struct rng *rng)
{
    for (uint64_t i = 0; i < disk->op_count;) {
        struct disk_op *op = &disk->ops[i];
        if (!op->lost) {
            i++;
            continue;
        }
        if (rng_permille(rng, 200))
            disk_state_apply(&disk->durable, op, some_sectors, rng);
        remove_op(disk, i);
    }
    disk_state_free(&disk->current);
    disk_state_copy(&disk->current, &disk->durable);
    for (uint64_t i = 0; i < disk->op_count; i++)
        disk_state_apply(&disk->current, &disk->ops[i], NULL, NULL);
}

bool disk_has_lost(const struct disk *disk)
{
    for (uint64_t i = 0; i < disk->op_count; i++)
        if (disk->ops[i].lost)
            return true;
    return false;
}

enum { DISK_BLOCK = 4096 };

static uint64_t seq_of(const struct disk_state *state, uint64_t sector)
{
    return sector * DISK_SECTOR < state->capacity ? state->seq[sector] : 0;
}

/* That block was never written. */
static bool is_hole(const struct disk_state *state, uint64_t block)
{
    bool written = block * DISK_BLOCK < state->found;
    for (uint64_t i = 0; i < DISK_BLOCK / DISK_SECTOR; i++)
        written |= seq_of(state, block * (DISK_BLOCK / DISK_SECTOR) + i) != 0;
    return !written;
}

void disk_state_stale(struct disk_state *state, const struct disk_state *durable,
                      const struct disk_op *ops, uint64_t count, struct rng *rng)
{
    for (uint64_t i = 0; i < count; i++) {
        if (ops[i].kind != DISK_WRITE)
            continue;
        uint64_t last = (ops[i].offset + ops[i].length - 1) / DISK_BLOCK;
        for (uint64_t block = ops[i].offset / DISK_BLOCK; block <= last; block++) {
            if (!is_hole(durable, block) || !rng_permille(rng, 500))
                continue;
            for (uint64_t at = block * DISK_BLOCK;
                 at < (block + 1) * DISK_BLOCK && at + DISK_SECTOR <= state->size;
                 at += DISK_SECTOR)
                if (!state->seq[at / DISK_SECTOR])
                    memset(state->bytes + at, 0xD5, DISK_SECTOR);
        }
    }
}
