/* SPDX-License-Identifier: MIT */
/*
 * The independent reader and checker of ploop_oracle.py, in C for speed. It shares no code with the
 * library, includes none of its headers, and prints the same lines as the Python one;
 * tests/interop/oracle.sh compares the two.
 *
 * An oracle is opened over a read callback, judges one delta, and keeps a copy of its BAT; the
 * callback must stay usable for reading clusters and the extension.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Fill `length` bytes from `offset`; all of them lie inside the file. Not 0: they could not be
 * read.
 */
typedef int oracle_read_fn(void *context, void *buffer, uint64_t length, uint64_t offset);

/*
 * Whether any byte of [offset, offset + length) takes space in the file; it may reach past its end.
 */
typedef bool oracle_takes_space_fn(void *context, uint64_t offset, uint64_t length);

/* A finding, one line: notes come first. */
enum oracle_severity { ORACLE_NOTE, ORACLE_ERROR, ORACLE_LEAK };
typedef void oracle_line_fn(void *user_data, enum oracle_severity severity, const char *line);

enum oracle_verdict { ORACLE_OK = 0, ORACLE_NOT_AN_IMAGE = 1, ORACLE_CORRUPT = 2 };

#define ORACLE_IN_USE 0x746F6E59u
#define ORACLE_CLOSED 0x312E3276u

struct oracle {
    oracle_read_fn *read;
    oracle_takes_space_fn *takes_space; /* NULL, as after oracle_open(): every byte does */
    void *context;
    uint64_t file_size;
    bool v1;
    uint32_t version, cluster_sectors, bat_entries, in_use, data_off, flags;
    uint64_t disk_sectors, ext_off;
    uint64_t cluster;    /* bytes */
    uint64_t data_start; /* bytes */
    uint32_t *bat;
    uint32_t *owner; /* of each host cluster: BAT index + 1 of the first good entry that names it */
    uint64_t slots;  /* host clusters, a partial last one included */
};

struct oracle_result {
    uint64_t errors; /* the in-use mark's included */
    uint64_t leaks;
    uint64_t notes;
    bool unclean; /* the in-use mark is set */
};

/* After any result but ORACLE_OK there is nothing to close, and `message` (160 bytes) says why. */
enum oracle_verdict oracle_open(struct oracle *oracle, oracle_read_fn *read, void *context,
                                uint64_t file_size, char *message);
void oracle_close(struct oracle *oracle);

/*
 * The first part of oracle_open(): the header alone; nothing is allocated, and there is nothing to
 * close.
 */
enum oracle_verdict oracle_read_header(struct oracle *oracle, oracle_read_fn *read, void *context,
                                       uint64_t file_size, char *message);

/* `line` may be NULL. */
void oracle_check(struct oracle *oracle, oracle_line_fn *line, void *user_data,
                  struct oracle_result *result);

/* Whether it can be opened for writing; ORACLE_RECOVER: with RECOVER. */
enum oracle_writing { ORACLE_WRITE, ORACLE_RECOVER, ORACLE_REFUSE };
enum oracle_writing oracle_writing(struct oracle *oracle);

/*
 * The state of a guest cluster's entry. A bad one is invalid wherever it stands; a duplicate names
 * another guest cluster's host cluster; the cluster of a cut one begins inside the file and ends
 * past it.
 */
enum oracle_cluster { ORACLE_UNMAPPED, ORACLE_MAPPED, ORACLE_DUPLICATE, ORACLE_BAD, ORACLE_CUT };
enum oracle_cluster oracle_judge_cluster(const struct oracle *oracle, uint64_t index);

/*
 * One guest cluster: 1 and its bytes; 0: this delta does not hold it; -1: its entry is bad, or its
 * cluster cut off.
 */
int oracle_read_cluster(struct oracle *oracle, uint64_t index, uint8_t *buffer);

/*
 * Of a cluster that is cut off: what the file has of it, and zeros. Returns how many bytes are in
 * the file.
 */
uint64_t oracle_read_cut(struct oracle *oracle, uint64_t index, uint8_t *buffer);

/* The offset of a guest cluster in the file, in bytes; 0: not mapped. The entry is not judged. */
uint64_t oracle_host_offset(const struct oracle *oracle, uint64_t index);

/* oracle_read_fn over memory. */
struct oracle_memory {
    const uint8_t *bytes;
    uint64_t size;
};
int oracle_read_memory(void *context, void *buffer, uint64_t length, uint64_t offset);

#endif
