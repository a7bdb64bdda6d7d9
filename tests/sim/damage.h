/* SPDX-License-Identifier: MIT */
/*
 * Images that need repair: those of image.h with damage of each kind done to them, and the content
 * that a guest may read of them before, during and after a repair.
 *
 * Each cluster is recognised by its bytes: a mapped one holds its guest cluster's content, a leaked
 * one old bytes of another owner.
 */
#ifndef SIM_DAMAGE_H
#define SIM_DAMAGE_H

#include "../oracle/oracle.h"
#include "disk.h"
#include "image.h"

enum {
    DAMAGE_MARK = 1,        /* not closed cleanly */
    DAMAGE_MARK_VALUE = 2,  /* none: in_use holds a value of other software's */
    DAMAGE_EMPTY_FLAG = 4,  /* Empty, and clusters are mapped */
    DAMAGE_TAIL = 8,        /* leaks behind the last used cluster, the last one cut short */
    DAMAGE_HOLES = 16,      /* leaks between used clusters */
    DAMAGE_DUPLICATES = 32, /* entries that name another's cluster */
    DAMAGE_RANGE = 64,      /* entries before the data area, at the end of the file, far past it */
    DAMAGE_GRID = 128, /* entries between two clusters; past the end of the file in version 2, which
                          has no such entries */
    DAMAGE_BEYOND = 256,     /* entries beyond the disk's end */
    DAMAGE_EXTENSION = 512,  /* none: a good extension, its clusters at the end of the file */
    DAMAGE_BITMAP = 1024,    /* an extension whose bitmap lies in a guest's cluster */
    DAMAGE_CHECKSUM = 2048,  /* an extension that cannot be believed */
    DAMAGE_VOID = 4096,      /* an extension that does not count */
    DAMAGE_SENSELESS = 8192, /* an extension whose bitmap makes no sense; what else it holds does */
    DAMAGE_STALE =
        16384, /* with MARK: the cache shows a map, clusters and a size that the disk has lost */
    DAMAGE_TRANSIT = 32768, /* none: the extension holds a feature besides that is not known here,
                               and to be kept */
    DAMAGE_LOW = 65536,     /* none: the extension's own cluster is one of the holes */
    DAMAGE_CUT = 131072,    /* the file ends inside the last mapped cluster */
    DAMAGE_ALL = 2 * DAMAGE_CUT - 1
};

struct damaged {
    struct image image;
    uint32_t damage;
    uint8_t *found; /* the file as it is found */
    uint64_t size;
    uint8_t *durable; /* STALE: the BAT area as the disk still has it; else NULL */
};

/* `image` is chosen, except for what damage adds to it. */
void damaged_build(struct damaged *damaged, uint32_t damage, struct rng *rng);
void damaged_free(struct damaged *damaged);

/* Put such an image on a disk, with the writes that the dead process left in the cache. */
void damaged_put_on_disk(const struct damaged *damaged, struct disk *disk, struct rng *rng);

/* The possible contents of a guest cluster. */
enum showing { SHOWS_ZEROS, SHOWS_BYTES, SHOWS_BAD, SHOWS_COPY, SHOWS_CUT };

/*
 * BYTES: its own; CUT: its own, with zeros for what is missing; COPY: those of the cluster's owner,
 * once the duplicate has a cluster of its own.
 */
struct showing_of {
    enum showing how;
    uint8_t *bytes;
};

/* The contents of a whole image, by the oracle, and the findings of a check. */
struct showings {
    uint64_t guests; /* guest clusters of the disk */
    uint64_t cluster, disk_bytes;
    struct showing_of *of;
    uint8_t *bits;          /* of the bitmap, where the extension counts; else NULL */
    uint64_t errors, leaks; /* the mark not counted */
    uint64_t in_void;       /* clusters of a void extension: leaks once it is dropped */
    bool marked;            /* in_use is the mark */
};

/* False: the image cannot be read; `message` (160 bytes) says why. */
bool showings_read(struct showings *showings, const struct disk_state *state, char *message);
void showings_free(struct showings *showings);

/* The number of bytes of a guest cluster that a guest sees. */
uint64_t showings_visible(const struct showings *showings, uint64_t guest);

#endif
