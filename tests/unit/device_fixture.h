/* SPDX-License-Identifier: MIT */
/*
 * A device over a scripted backend, with a clock that is turned by hand, and requests to it.
 *
 * With a backend that completes inline a request is done when its submit returns, and waits for a
 * run of its queue to be delivered. req_done() and req_end() deliver what is done, and do nothing
 * else of what a run does; req_wait() runs the device until a request is done.
 */
#ifndef DEVICE_FIXTURE_H
#define DEVICE_FIXTURE_H

#include <ploop/ploop.h>

#include "scripted_backend.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum { RIG_EVENTS = 8, RIG_START_SECONDS = 1000, RIG_LOWERS_MAX = 4, RIG_ROOM = 8 };

struct hand_clock {
    _Atomic uint64_t now_ns;
    uint64_t wakes, wake_at_ns;
};

struct rig {
    struct script script;
    ploop_file *lowers[RIG_LOWERS_MAX]; /* deltas below it, the base first: the test's */
    uint32_t lower_count;
    struct hand_clock clock;
    struct ploop_clock clock_ops;
    struct ploop_dev_config config;
    ploop_dev *dev;
    ploop_queue *queue;
    char log_text[256];
    uint32_t log_lines, log_level;
    uint64_t events[RIG_EVENTS], event_value[RIG_EVENTS];
    uint64_t cluster, entry_unit, data_start, disk_size;
};

/* A new, empty image, not open yet; `options` are the backend's. */
void rig_create(struct rig *rig, uint32_t version, uint64_t disk_size, uint64_t cluster_size,
                uint32_t options);
/* An image of those bytes. */
void rig_adopt(struct rig *rig, const uint8_t *image, uint64_t size, uint32_t options);
int rig_try_open(struct rig *rig);
void rig_open(struct rig *rig);
/* Created and open: version 2, 64 MiB in clusters of 4 KiB, whose BAT has 17 pages. */
void rig_usual(struct rig *rig);
/* The same; cluster 0 is mapped, page 0 is dirty. */
void rig_with_a_dirty_page(struct rig *rig);
/* Created: a disk of 256 clusters of 4 KiB on a file that has room for RIG_ROOM of them. */
void rig_small(struct rig *rig, uint32_t enospc_policy);
/* The same and open, and all of them are in use, by guest clusters 0 ... RIG_ROOM - 1. */
void rig_full(struct rig *rig, uint32_t enospc_policy);
void rig_limit_to(struct rig *rig, uint64_t clusters);
/* The device must close clean. */
void rig_close_dev(struct rig *rig);
/* Also aborts a device that is open. */
void rig_free(struct rig *rig);
/* rig_close_dev(), the oracle's blessing, rig_free(). */
void rig_end(struct rig *rig);
/*
 * The same where free clusters are left in the middle of the file: leaks to a checker, and no
 * errors.
 */
void rig_end_with_leaks(struct rig *rig);

void rig_advance(struct rig *rig, uint64_t ns);
struct ploop_dev_info rig_info(struct rig *rig);
uint64_t rig_page_writes(const struct rig *rig); /* sent to the backend */
struct ploop_bat_page_info rig_page(struct rig *rig, uint32_t page);
/* The entry that the file has, and whether its mark is set. */
uint32_t rig_file_entry(const struct rig *rig, uint32_t guest_cluster);
bool rig_file_marked(const struct rig *rig);
/* Where the file's entry says a guest cluster lies; 0 for nowhere. */
uint64_t rig_file_offset(const struct rig *rig, uint32_t guest_cluster);

struct req {
    struct rig *rig;
    ploop_pio *pio;
    struct iovec iov;
    int result;
    uint32_t calls;
    uint64_t order; /* of completion, among all requests of the program */
};

/*
 * Begin one. Buffers are the request's own; a read's content is req->iov.iov_base until req_end().
 * Submit must take it.
 */
void req_write(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte,
               uint32_t flags);
void req_read(struct req *req, struct rig *rig, uint64_t offset, uint64_t length);
void req_zeroes(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags);
void req_discard(struct req *req, struct rig *rig, uint64_t offset, uint64_t length);
void req_flush(struct req *req, struct rig *rig);
void req_bat_write(struct req *req, struct rig *rig, uint32_t page, uint32_t count);
/* Give it back; the callback must have run once. Its result. */
int req_end(struct req *req);
/* Run the device until the request is done, then req_end(). */
int req_wait(struct req *req);
bool req_done(const struct req *req);
/* The callbacks of what is done, of all queues. */
void rig_deliver(struct rig *rig);

/* Begun and waited for. */
int rig_write(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte, uint32_t flags);
int rig_zeroes(struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags);
int rig_discard(struct rig *rig, uint64_t offset, uint64_t length);
int rig_flush(struct rig *rig);
/* All bytes of the range are `byte`. */
void rig_expect(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte);

#endif
