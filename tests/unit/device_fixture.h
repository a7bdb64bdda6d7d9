/* SPDX-License-Identifier: MIT */
/*
 * A device over a scripted backend, with a clock that the test sets, and requests to the device.
 *
 * With a backend that completes inline, a request is done when its submit returns; its callback
 * waits for a run of its queue. req_done() and req_end() run the callbacks of requests that are
 * done, and do nothing else that a run does; req_wait() runs the device until a request is done.
 */
#ifndef DEVICE_FIXTURE_H
#define DEVICE_FIXTURE_H

#include <ploop/ploop.h>

#include "scripted_backend.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum { RIG_EVENTS = 9, RIG_START_SECONDS = 1000, RIG_LOWERS_MAX = 4, RIG_ROOM = 8 };

struct hand_clock {
    _Atomic uint64_t now_ns;
    uint64_t wakes, wake_at_ns;
};

struct rig {
    struct script script;
    ploop_file *lowers[RIG_LOWERS_MAX]; /* the base first; owned by the test */
    uint32_t lower_count;
    struct hand_clock clock;
    struct ploop_clock clock_ops;
    struct ploop_dev_config config;
    ploop_dev *dev;
    ploop_queue *queue;
    char log_text[256]; /* of the last line, but for those that tell of a recovery */
    uint32_t log_lines, log_level;
    uint32_t recoveries; /* told */
    uint64_t events[RIG_EVENTS], event_value[RIG_EVENTS];
    uint64_t cluster, entry_unit, data_start, disk_size;
};

/* A new, empty image, not open yet; `options` are for the backend. */
void rig_create(struct rig *rig, uint32_t version, uint64_t disk_size, uint64_t cluster_size,
                uint32_t options);
/* An image with these bytes. */
void rig_adopt(struct rig *rig, const uint8_t *image, uint64_t size, uint32_t options);
int rig_try_open(struct rig *rig);
void rig_open(struct rig *rig);
/* Created and open: version 2, 64 MiB in clusters of 4 KiB, whose BAT has 17 pages. */
void rig_usual(struct rig *rig);
/* The same; cluster 0 is mapped, page 0 is dirty. */
void rig_with_a_dirty_page(struct rig *rig);
/* Created: a disk of 256 clusters of 4 KiB on a file that has room for RIG_ROOM of them. */
void rig_small(struct rig *rig, uint32_t enospc_policy);
/* The same, open; guest clusters 0 ... RIG_ROOM - 1 use all of them. */
void rig_full(struct rig *rig, uint32_t enospc_policy);
void rig_limit_to(struct rig *rig, uint64_t clusters);
/* Close the device, which must close clean. */
void rig_close_dev(struct rig *rig);
/* Also aborts a device that is open. */
void rig_free(struct rig *rig);
/* rig_close_dev(), a check by the oracle that finds nothing, rig_free(). */
void rig_end(struct rig *rig);
/* The same for a file that has free clusters in its middle: a check finds leaks and no errors. */
void rig_end_with_leaks(struct rig *rig);

void rig_advance(struct rig *rig, uint64_t ns);
struct ploop_dev_info rig_info(struct rig *rig);
uint64_t rig_page_writes(const struct rig *rig); /* sent to the backend */
struct ploop_bat_page_info rig_page(struct rig *rig, uint32_t page);
/* The entry in the file, and whether the file's mark is set. */
uint32_t rig_file_entry(const struct rig *rig, uint32_t guest_cluster);
bool rig_file_marked(const struct rig *rig);
/* The offset of a guest cluster by the file's entry; 0: not mapped. */
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
 * Begin a request, which submit must accept. The request owns its buffers; the data of a read is at
 * req->iov.iov_base until req_end().
 */
void req_write(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte,
               uint32_t flags);
void req_read(struct req *req, struct rig *rig, uint64_t offset, uint64_t length);
void req_zeroes(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags);
void req_discard(struct req *req, struct rig *rig, uint64_t offset, uint64_t length);
void req_flush(struct req *req, struct rig *rig);
void req_bat_write(struct req *req, struct rig *rig, uint32_t page, uint32_t count);
/* Put the request and return its result. Its callback must have run once. */
int req_end(struct req *req);
/* Run the device until the request is done, then req_end(). */
int req_wait(struct req *req);
bool req_done(const struct req *req);
/* Run the callbacks of all requests that are done, on all queues. */
void rig_deliver(struct rig *rig);

/* Begin a request and wait for it. */
int rig_write(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte, uint32_t flags);
int rig_zeroes(struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags);
int rig_discard(struct rig *rig, uint64_t offset, uint64_t length);
int rig_flush(struct rig *rig);
/* All bytes of the range are `byte`. */
void rig_expect(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte);

#endif
