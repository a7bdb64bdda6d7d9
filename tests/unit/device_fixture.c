/* SPDX-License-Identifier: MIT */
#include "device_fixture.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "pio/queue.h"
#include "util/bytes.h"

static uint64_t completions;

/* ---- the clock, and the device's events ---- */

static uint64_t clock_now(void *context)
{
    struct hand_clock *clock = context;
    return clock->now_ns;
}

static void clock_wake_at(void *context, uint64_t deadline_ns)
{
    struct hand_clock *clock = context;
    clock->wakes++;
    clock->wake_at_ns = deadline_ns;
}

static void take_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    struct rig *rig = user_data;
    ck_assert_uint_ne(message_id, 0);
    ck_assert_ptr_null(strchr(text, '\n'));
    if (strstr(text, "not closed cleanly: recover")) {
        ck_assert_uint_eq(level, PLOOP_LOG_WARNING);
        rig->recoveries++;
        return;
    }
    rig->log_lines++;
    rig->log_level = level;
    strncpy(rig->log_text, text, sizeof(rig->log_text) - 1);
}

static void take_event(void *user_data, uint32_t event, uint64_t value)
{
    struct rig *rig = user_data;
    ck_assert_uint_lt(event, RIG_EVENTS);
    rig->events[event]++;
    rig->event_value[event] = value;
}

/* ---- rigs ---- */

static void prepare_config(struct rig *rig)
{
    rig->clock.now_ns = RIG_START_SECONDS * SECOND;
    rig->clock_ops = (struct ploop_clock){.size = sizeof(rig->clock_ops),
                                          .context = &rig->clock,
                                          .now_ns = clock_now,
                                          .wake_at = clock_wake_at};
    ploop_dev_config_init(&rig->config, sizeof(rig->config));
    rig->config.clock = &rig->clock_ops;
    rig->config.log = take_log;
    rig->config.event = take_event;
    rig->config.user_data = rig;
}

static void learn_geometry(struct rig *rig)
{
    struct ploop_image_info info = {.size = sizeof(info)};
    if (ploop_image_probe(rig->script.file, &info) == 0) {
        rig->cluster = info.cluster_size;
        rig->entry_unit = info.version == 1 ? 512 : info.cluster_size;
        rig->data_start = info.data_offset;
        rig->disk_size = info.disk_size;
        rig->script.meta_end = info.data_offset;
    }
}

void rig_create(struct rig *rig, uint32_t version, uint64_t disk_size, uint64_t cluster_size,
                uint32_t options)
{
    memset(rig, 0, sizeof(*rig));
    struct ploop_image_options image = {.size = sizeof(image),
                                        .version = version,
                                        .disk_size = disk_size,
                                        .cluster_size = cluster_size};
    script_open(&rig->script, NULL, 0, options);
    ck_assert_int_eq(ploop_image_create(rig->script.file, &image), 0);
    learn_geometry(rig);
    script_forget(&rig->script);
    prepare_config(rig);
}

void rig_adopt(struct rig *rig, const uint8_t *image, uint64_t size, uint32_t options)
{
    memset(rig, 0, sizeof(*rig));
    script_open(&rig->script, image, size, options);
    learn_geometry(rig);
    script_forget(&rig->script);
    prepare_config(rig);
}

int rig_try_open(struct rig *rig)
{
    ploop_file *deltas[RIG_LOWERS_MAX + 1];
    memcpy(deltas, rig->lowers, sizeof(rig->lowers));
    deltas[rig->lower_count] = rig->script.file;
    int error = ploop_dev_open(deltas, rig->lower_count + 1, &rig->config, &rig->dev);
    rig->queue = error ? NULL : ploop_dev_queue(rig->dev, 0);
    ck_assert_int_eq(rig->dev != NULL, error == 0);
    return error;
}

void rig_open(struct rig *rig)
{
    ck_assert_int_eq(rig_try_open(rig), 0);
    script_forget(&rig->script);
    rig->clock.wakes = 0;
}

void rig_usual(struct rig *rig)
{
    rig_create(rig, 2, 64 << 20, 4096, 0);
    rig_open(rig);
}

void rig_with_a_dirty_page(struct rig *rig)
{
    rig_usual(rig);
    ck_assert_int_eq(rig_write(rig, 0, rig->cluster, 0xA0, 0), 0);
    ck_assert_int_eq(rig_flush(rig), 0);
    ck_assert_int_eq(rig_write(rig, rig->cluster, rig->cluster, 0xA1, 0), 0);
    script_forget(&rig->script);
}

void rig_limit_to(struct rig *rig, uint64_t clusters)
{
    rig->script.size_max = rig->data_start + clusters * rig->cluster;
}

void rig_small(struct rig *rig, uint32_t enospc_policy)
{
    rig_create(rig, 2, 1 << 20, 4096, 0);
    rig->config.enospc_policy = enospc_policy;
    rig_limit_to(rig, RIG_ROOM);
}

void rig_full(struct rig *rig, uint32_t enospc_policy)
{
    rig_small(rig, enospc_policy);
    rig_open(rig);
    for (uint64_t i = 0; i < RIG_ROOM; i++) {
        ck_assert_int_eq(rig_write(rig, i * rig->cluster, rig->cluster, (uint8_t)(0xA0 + i), 0), 0);
    }
    ck_assert_int_eq(rig_flush(rig), 0);
    script_forget(&rig->script);
}

uint64_t rig_page_writes(const struct rig *rig)
{
    return rig->script.submitted[SCRIPT_META];
}

void rig_close_dev(struct rig *rig)
{
    int error = ploop_dev_close(rig->dev);
    rig->dev = NULL;
    ck_assert_int_eq(error, 0);
}

void rig_free(struct rig *rig)
{
    ploop_dev_abort(rig->dev);
    script_close(&rig->script);
}

void rig_end(struct rig *rig)
{
    rig_close_dev(rig);
    ck_assert(!rig_file_marked(rig));
    ck_assert_int_eq(oracle_status(rig->script.bytes, rig->script.file_size), 0);
    rig_free(rig);
}

void rig_end_with_leaks(struct rig *rig)
{
    rig_close_dev(rig);
    int status = oracle_status(rig->script.bytes, rig->script.file_size);
    ck_assert(status == 0 || status == 3);
    rig_free(rig);
}

void rig_advance(struct rig *rig, uint64_t ns)
{
    rig->clock.now_ns += ns;
    ploop_dev_run(rig->dev);
}

struct ploop_dev_info rig_info(struct rig *rig)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_dev_info(rig->dev, &info), 0);
    return info;
}

struct ploop_bat_page_info rig_page(struct rig *rig, uint32_t page)
{
    struct ploop_bat_page_info info = {.size = sizeof(info)};
    ck_assert_int_eq(ploop_bat_page_info(rig->dev, page, &info), 0);
    ck_assert_uint_eq(info.page, page);
    return info;
}

uint32_t rig_file_entry(const struct rig *rig, uint32_t guest_cluster)
{
    return load_le32(rig->script.bytes + 64 + (size_t)4 * guest_cluster);
}

uint64_t rig_file_offset(const struct rig *rig, uint32_t guest_cluster)
{
    return rig_file_entry(rig, guest_cluster) * rig->entry_unit;
}

bool rig_file_marked(const struct rig *rig)
{
    return load_le32(rig->script.bytes + 44) == 0x746F6E59u;
}

/* ---- requests ---- */

static void req_callback(ploop_pio *pio, int result, void *user_data)
{
    struct req *req = user_data;
    ck_assert_ptr_eq(pio, req->pio);
    req->calls++;
    req->result = result;
    req->order = ++completions;
}

static void begin(struct req *req, struct rig *rig, uint64_t length)
{
    memset(req, 0, sizeof(*req));
    req->rig = rig;
    req->pio = ploop_pio_get(rig->queue);
    ck_assert_ptr_nonnull(req->pio);
    ploop_pio_set_callback(req->pio, req_callback, req);
    if (length) {
        req->iov = (struct iovec){aligned_alloc(4096, (length + 4095) / 4096 * 4096), length};
        ck_assert_ptr_nonnull(req->iov.iov_base);
    }
}

static void submit(struct req *req)
{
    ck_assert_int_eq(ploop_queue_submit(req->rig->queue, &req->pio, 1), 1);
}

void req_write(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte,
               uint32_t flags)
{
    begin(req, rig, length);
    if (length) {
        memset(req->iov.iov_base, byte, length);
    }
    ploop_pio_prep_writev(req->pio, offset, &req->iov, 1, flags);
    submit(req);
}

void req_read(struct req *req, struct rig *rig, uint64_t offset, uint64_t length)
{
    begin(req, rig, length);
    memset(req->iov.iov_base, 0xEE, length);
    ploop_pio_prep_readv(req->pio, offset, &req->iov, 1);
    submit(req);
}

void req_zeroes(struct req *req, struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags)
{
    begin(req, rig, 0);
    ploop_pio_prep_write_zeroes(req->pio, offset, length, flags);
    submit(req);
}

void req_discard(struct req *req, struct rig *rig, uint64_t offset, uint64_t length)
{
    begin(req, rig, 0);
    ploop_pio_prep_discard(req->pio, offset, length);
    submit(req);
}

void req_flush(struct req *req, struct rig *rig)
{
    begin(req, rig, 0);
    ploop_pio_prep_flush(req->pio);
    submit(req);
}

void req_bat_write(struct req *req, struct rig *rig, uint32_t page, uint32_t count)
{
    begin(req, rig, 0);
    ploop_pio_prep_bat_write(req->pio, page, count);
    submit(req);
}

void rig_deliver(struct rig *rig)
{
    for (uint32_t i = 0; rig->dev && i < rig->dev->queue_count; i++) {
        queue_deliver(&rig->dev->queues[i], NULL);
    }
}

bool req_done(const struct req *req)
{
    rig_deliver(req->rig);
    ck_assert_uint_le(req->calls, 1);
    return *(const volatile uint32_t *)&req->calls == 1;
}

int req_end(struct req *req)
{
    rig_deliver(req->rig);
    ck_assert_uint_eq(req->calls, 1);
    ploop_pio_put(req->pio);
    free(req->iov.iov_base);
    req->pio = NULL;
    req->iov.iov_base = NULL;
    return req->result;
}

int req_wait(struct req *req)
{
    for (int i = 0; !req_done(req); i++) {
        ck_assert_msg(i < 10000, "a request does not end");
        ploop_queue_run(req->rig->queue);
    }
    return req_end(req);
}

int rig_write(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte, uint32_t flags)
{
    struct req req;
    req_write(&req, rig, offset, length, byte, flags);
    return req_wait(&req);
}

int rig_zeroes(struct rig *rig, uint64_t offset, uint64_t length, uint32_t flags)
{
    struct req req;
    req_zeroes(&req, rig, offset, length, flags);
    return req_wait(&req);
}

int rig_discard(struct rig *rig, uint64_t offset, uint64_t length)
{
    struct req req;
    req_discard(&req, rig, offset, length);
    return req_wait(&req);
}

int rig_flush(struct rig *rig)
{
    struct req req;
    req_flush(&req, rig);
    return req_wait(&req);
}

void rig_expect(struct rig *rig, uint64_t offset, uint64_t length, uint8_t byte)
{
    struct req req;
    req_read(&req, rig, offset, length);
    while (!req_done(&req)) {
        ploop_queue_run(rig->queue);
    }
    ck_assert_int_eq(req.result, 0);
    const uint8_t *bytes = req.iov.iov_base;
    if (bytes[0] != byte || memcmp(bytes, bytes + 1, length - 1) != 0) {
        uint64_t i = 0;
        while (bytes[i] == byte) {
            i++;
        }
        ck_abort_msg("byte %llu is %#x, not %#x", (unsigned long long)(offset + i), bytes[i], byte);
    }
    req_end(&req);
}
