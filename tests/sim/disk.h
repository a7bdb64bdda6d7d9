/* SPDX-License-Identifier: MIT */
/*
 * The disk of the simulator: the durable content, and the ordered list of operations that are
 * executed and not yet durable.
 *
 *  1. `current` is what reads see: durable, and every operation of the list applied in order.
 *  2. An operation gets its sequence number when it is executed. Each sector stores the number of
 *     the operation that wrote it last; an older operation that is applied later leaves it alone.
 *     That is the rule "per sector monotone".
 *  3. A SYNC makes durable what had completed before it was submitted, and nothing else. The cache
 *     may write back any operation before that, which is durable then.
 *  4. A writeback that fails loses an operation of any kind, sizes and punches too, and those under
 *     it that were not durable either (F15). Reads still show it, no later SYNC makes it durable,
 *     and after a cut it may be there or not.
 *  5. A loss is `unreported` until a SYNC has failed because of it (F14). The next SYNC does not
 *     report it again.
 *  6. disk_invalidate() drops the cache: a lost operation happened in part or not at all, for good,
 *     and `current` shows that. Operations that are neither durable nor lost stay, as a cache keeps
 *     its dirty pages.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "rng.h"

enum { DISK_SECTOR = 512 };

enum disk_kind { DISK_WRITE = 1, DISK_PUNCH, DISK_RESIZE, DISK_ALLOCATE };

/* One possible content of the file. Bytes from size to capacity are zeros. */
struct disk_state {
    uint8_t *bytes;
    uint64_t *seq; /* per sector */
    uint64_t size, capacity;
    uint64_t marked;   /* no sector from here on has a number; it may lie behind the size */
    uint64_t size_seq; /* the operation that last made the file larger without writing */
    uint64_t found;    /* the size when the disk was begun: what lies below has its blocks */
};

struct disk_op {
    uint64_t seq;
    enum disk_kind kind;
    uint64_t offset, length; /* RESIZE: the new size is offset */
    uint8_t *data;           /* WRITE */
    uint64_t completed;      /* when; 0: not yet */
    bool lost;               /* only the cache shows it */
};

struct disk {
    struct disk_state durable, current;
    struct disk_op *ops;
    uint64_t op_count, op_capacity;
    uint64_t next_seq;
    bool unreported; /* something was lost, and no SYNC has said so */
};

void disk_state_init(struct disk_state *state, const uint8_t *bytes, uint64_t size);
void disk_state_copy(struct disk_state *to, const struct disk_state *from);
void disk_state_free(struct disk_state *state);
uint64_t disk_state_hash(const struct disk_state *state);

/*
 * Which sectors of an operation happen; NULL is all. Called for each sector of a WRITE or PUNCH, 0
 * the first.
 */
typedef bool disk_mask_fn(void *context, uint64_t sector);
void disk_state_apply(struct disk_state *state, const struct disk_op *op, disk_mask_fn *mask,
                      void *context);

void disk_init(struct disk *disk, const uint8_t *bytes, uint64_t size);
void disk_free(struct disk *disk);

/* That state becomes the whole disk: the machine came back after a power cut. */
void disk_restart(struct disk *disk, const struct disk_state *state);

/*
 * Execute: the effect is visible at once. `data` is copied. Returns the operation's number, for
 * disk_complete().
 */
uint64_t disk_execute(struct disk *disk, enum disk_kind kind, uint64_t offset, uint64_t length,
                      const uint8_t *data);

/* Some sectors of a write happen, and it fails: lost, and its caller knows. */
void disk_execute_failed(struct disk *disk, uint64_t offset, uint64_t length, const uint8_t *data);

/* As found at the beginning: the disk's file ends there, and only the cache shows more. */
void disk_lose_end(struct disk *disk, uint64_t size);

void disk_complete(struct disk *disk, uint64_t seq, uint64_t now);
void disk_make_durable(struct disk *disk, uint64_t seq); /* native FUA */

/* The cache writes one operation back by itself. */
void disk_write_back(struct disk *disk, struct rng *rng);

/*
 * Writeback fails: each operation that completed before then is lost, or not. Returns whether any
 * was lost.
 */
bool disk_lose(struct disk *disk, uint64_t completed_before, unsigned permille, struct rng *rng);

/*
 * A SYNC that was submitted at that time ends. False: it fails, by request, or because it reports a
 * loss.
 */
bool disk_sync(struct disk *disk, uint64_t submitted, bool fails, struct rng *rng);

void disk_invalidate(struct disk *disk, struct rng *rng);

/* Whether the cache shows an operation that the disk may lack, and will not get. */
bool disk_has_lost(const struct disk *disk);

/*
 * A host file system that shows stale blocks: a write of `ops`, happened or not, may allocate a
 * block of `durable` that was never written. Bytes of such a block that the write has not brought
 * to `state` may then be those of a deleted file.
 */
void disk_state_stale(struct disk_state *state, const struct disk_state *durable,
                      const struct disk_op *ops, uint64_t count, struct rng *rng);

#endif
