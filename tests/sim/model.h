/* SPDX-License-Identifier: MIT */
/*
 * The model: of each guest sector the versions it may have, and which of them a read, or a cut, may
 * show.
 *
 * A sector's content names itself: each 32-byte record in it holds a magic, the guest sector, the
 * version and the record's position; version 0 is zeros. A write, a write of zeros and a discard
 * each add a version to every sector they change.
 *
 *  1. a is before b when a completed before b was submitted, or when a read showed b after both had
 *     completed.
 *  2. A read may show a version that was submitted before the read completed, unless one after it
 *     had completed, without error, before the read was submitted.
 *  3. A cut may show a version unless a durable one comes after it. FLUSH makes durable what
 *     completed before it was submitted; FUA its own.
 *  4. A version whose request failed may be there or not, and supersedes nothing.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct version {
    uint64_t id;      /* of the request */
    uint64_t content; /* what the sector says: 0 for zeros */
    uint64_t submit, complete;
    uint64_t settled_by; /* the version that a read showed after this one */
    uint64_t preflush;   /* when a PREFLUSH write was submitted; else 0 */
    bool done, failed, durable;
};

struct sector {
    uint32_t count, capacity;
    struct version *versions;
};

struct model {
    uint64_t sizes[2]; /* in sectors: those that the disk may have after a cut */
    uint32_t cluster_sectors;
    uint32_t hot_count; /* guest clusters that are used at all, ascending; the rest stays zeros */
    const uint32_t *hot;
    int32_t *index; /* guest cluster to position in hot, or -1 */
    uint64_t clusters;
    struct sector *sectors; /* hot_count * cluster_sectors */
    uint64_t oldest_read;   /* submission of the oldest read in flight; UINT64_MAX: none */
    bool used;              /* a change was submitted, or opening was one: see R11 */
};

/* What a sector may show, frozen at one moment. */
struct snapshot {
    uint32_t *first; /* per sector, and the end: index into versions */
    struct version *versions;
    bool *current; /* per version: also what a read may show */
    uint64_t sectors;
    uint64_t sizes[2];
    bool used;
};

enum { CONTENT_FOREIGN = 1, CONTENT_MIXED, CONTENT_GARBAGE };

/* `disk_sectors`: of the largest disk. */
void model_init(struct model *model, const uint32_t *hot, uint32_t hot_count,
                uint32_t cluster_sectors, uint64_t disk_sectors);
void model_free(struct model *model);

/* Fill or read a sector's bytes. */
void content_fill(uint8_t *bytes, uint64_t sector, uint64_t version);
/*
 * 0: it is this sector's, `*version` is it; else why not. `*other` is the sector that foreign bytes
 * name.
 */
int content_read(const uint8_t *bytes, uint64_t sector, uint64_t *version, uint64_t *other);

/* A cut shows this size, or that one. */
void model_size(struct model *model, uint64_t sectors, uint64_t or_sectors);

/* The sector of the model, or NULL where the guest cluster is not used. */
struct sector *model_sector(const struct model *model, uint64_t guest_sector);

/* A request changes [first, first + count): `content` 0 for zeros. */
void model_submit(struct model *model, uint64_t first, uint64_t count, uint64_t id,
                  uint64_t content, uint64_t now, uint64_t preflush);
void model_refused(struct model *model, uint64_t first, uint64_t count, uint64_t id);
/* `maybe`: it succeeded, but may have done nothing to these. */
void model_done(struct model *model, uint64_t first, uint64_t count, uint64_t id, uint64_t now,
                int result, bool durable, bool maybe);
void model_flushed(struct model *model, uint64_t submitted);

/* A read of one sector, submitted and completed then; ends the run if what it shows is wrong. */
void model_read(struct model *model, uint64_t guest_sector, const uint8_t *bytes,
                uint64_t submitted, uint64_t now, const char *who);

/*
 * After a power cut or a recovery, reads show these bytes, and they are durable: from now on no
 * other content is allowed.
 */
void model_restart(struct model *model, uint64_t guest_sector, const uint8_t *bytes, uint64_t now);

void snapshot_take(struct snapshot *snapshot, const struct model *model);
void snapshot_free(struct snapshot *snapshot);

/*
 * Judge the content of a disk. `settled`: it claims to be closed cleanly, so only the current
 * content is allowed.
 */
struct judgement {
    const struct snapshot *snapshot;
    const struct model *model;
    bool settled;
    uint64_t preflush; /* the latest PREFLUSH write that was seen */
    uint64_t *found;   /* per sector */
    const char *disk;  /* which one, for the message */
};
void judge_sector(struct judgement *judgement, uint64_t guest_sector, const uint8_t *bytes);
void judge_order(struct judgement *judgement); /* after all sectors: nothing is missing that a
                                                  PREFLUSH seen promises */

#endif
