/* SPDX-License-Identifier: MIT */
/*
 * Images for tests of the offline operations: a backend over bytes in memory that counts requests,
 * fails on demand, and logs what was done; and a builder of small images, valid or not.
 */
#ifndef IMAGE_FIXTURE_H
#define IMAGE_FIXTURE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <ploop/file.h>
#include <ploop/image.h>

/*
 * For assertions that run a million times: libcheck's own macros write to a file each time they
 * pass.
 */
#define must(condition) must_msg(condition, "failed: %s", #condition)
#define must_msg(condition, ...)                                                                   \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            ck_abort_msg(__VA_ARGS__);                                                             \
        }                                                                                          \
    } while (0)

enum { FIXTURE_OPS_MAX = 4096, FIXTURE_OP_KINDS = PLOOP_IO_TRUNCATE + 1 };

struct fixture_op {
    uint32_t op;
    uint64_t offset, length;
    uint8_t *data; /* of a WRITE */
};

struct fixture {
    ploop_file *file;
    uint8_t *bytes; /* capacity is size rounded up generously */
    uint64_t size, capacity;
    uint32_t capabilities;
    /* Not 0: the size that get_info reports; reads between `size` and this return zeros. */
    uint64_t claimed_size;
    uint64_t hole_begin, hole_end; /* takes no space; all else does, also what is only claimed */
    int extent_error;              /* the result of data_extent */
    uint32_t fail_op;              /* PLOOP_IO_ ...: requests of this kind fail ... */
    uint64_t fail_from;            /* ... from this one on, 1 the first; 0: none */
    uint64_t fail_count;           /* ... this many */
    uint64_t fail_offset;          /* not 0: only those that touch this byte */
    int fail_error;
    uint64_t counts[FIXTURE_OP_KINDS];
    struct fixture_op log[FIXTURE_OPS_MAX]; /* what changed the file, and SYNCs, in order */
    uint32_t log_size;
};

/* A file that holds a copy of these bytes. */
void fixture_open(struct fixture *fixture, const void *bytes, uint64_t size);
void fixture_close(struct fixture *fixture);
/*
 * The number of logged requests that changed the file. A repair begins with a SYNC even if it has
 * nothing to do.
 */
uint32_t fixture_changes(const struct fixture *fixture);
/* Reset the counts and the log. */
void fixture_reset(struct fixture *fixture);

/* How to build an image; zero stands for the value in the comment. */
struct image_plan {
    uint32_t version;         /* 2 */
    uint32_t cluster_sectors; /* 8 */
    uint32_t entries;         /* 1100: two BAT pages */
    uint64_t sectors;         /* the sectors that the entries cover */
    uint32_t in_use;
    uint32_t flags;
    uint64_t extension_sector;
    uint32_t data_off;      /* the first valid offset */
    uint32_t host_clusters; /* 6 */
    const uint32_t *map; /* pairs: guest cluster, host cluster + 1; 0, 0 ends it. NULL: 0-1 1-2 2-3
                            3-4 1099-5, the last one leaked */
};

#define MAP_NONE ((const uint32_t[]){0, 0})

/* Its bytes, malloc'ed. Host cluster n is filled with 0xA0 + n. */
uint8_t *image_build(const struct image_plan *wanted, uint64_t *size);
void fixture_open_image(struct fixture *fixture, const struct image_plan *plan);

uint64_t image_data_start(const uint8_t *image);
uint32_t image_entry(const uint8_t *image, uint32_t guest_cluster);
void image_set_entry(uint8_t *image, uint32_t guest_cluster, uint32_t entry);
/* The entry that names a host cluster. */
uint32_t image_entry_for(const uint8_t *image, uint32_t host);

/* An extension cluster under construction. */
struct extension_plan {
    uint8_t *bytes; /* the cluster, zeroed by the caller */
    uint32_t size, end;
};
void extension_begin(struct extension_plan *plan, uint8_t *cluster, uint32_t size);
void extension_add(struct extension_plan *plan, uint64_t magic, uint64_t flags, const void *data,
                   uint32_t size);
void extension_add_bitmap(struct extension_plan *plan, uint64_t sectors, uint32_t granularity,
                          uint32_t l1_size, const uint64_t *l1);
void extension_end(struct extension_plan *plan);

/* The result of a check, with all findings counted by kind. */
struct check_outcome {
    int error;
    struct ploop_check_result result;
    uint64_t kinds[PLOOP_CHECK_VOID_EXTENSION + 1];
    struct ploop_check_record last;
    char last_text[256];
};
void run_check(struct fixture *fixture, uint32_t repair, struct check_outcome *outcome);

/*
 * A progress callback: user_data is a uint64_t, the number of the call that ends the check, 1 for
 * the next; 0: none does.
 */
int stop_after(void *user_data, uint64_t done, uint64_t total);

/* Under valgrind or a sanitizer, memory use is different and long loops take too long. */
bool is_instrumented(void);

/*
 * A test of very many cases tries one of this many: all (1), or what PLOOP_TEST_SHARE says, or
 * `if_slow` where the program is instrumented.
 */
uint32_t test_share(uint32_t if_slow);

/* The oracle's verdict on the bytes: 0 clean, 1 no image, 2 corrupt, 3 leaks. */
int oracle_status(const uint8_t *bytes, uint64_t size);

#endif
