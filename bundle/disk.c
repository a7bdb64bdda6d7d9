/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of a bundle as one disk: a part for each storage, one behind the other.
 *
 *     JUDGED -> OPEN -> closed
 *
 * JUDGED: every part was opened for reading and closed again, so that a fault in the last one is
 * found before the first one gets its in-use mark. OPEN: as the caller wants it.
 *
 *  1. Parts cover the disk in its order, without gaps: rule 1 of model.h.
 *  2. A request is cut where a part ends, and where it is longer than the part's device takes. Its
 *     pieces go one after the other, and it ends at the first that fails.
 *  3. A part is a device of its stack, or one raw file (stack.h). A flush is one of every part:
 *     what was written to any of them before is durable when it succeeds.
 *  4. When a sync of a raw file has failed, every flush of that part fails with -EIO from then on:
 *     the kernel reports the loss once (R6 in crash-rules.md). Devices do the same themselves.
 *  5. A device has `room` for so many requests; who finds none waits.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "stack.h"

enum { REQUESTS = 64, ZEROS_BYTES = 65536 };

struct part {
    struct stack stack;
    sem_t room;
    bool has_room; /* it was initialized */
    atomic_bool sync_has_failed;
    uint64_t piece_bytes; /* of a request to it, at most */
};

struct ploop_bundle_disk {
    struct part *parts;
    uint32_t count, open_count;
    uint64_t disk_size;
    bool read_only;
};

/* What a piece of a request is. */
enum what { READ, WRITE, ZEROES, DISCARD };

struct request {
    enum what what;
    uint32_t flags;  /* PLOOP_PIO_ ... */
    uint8_t *memory; /* READ, WRITE; an iovec knows no const */
    uint64_t length, offset;
};

/* ---- A piece, to a device ---- */

static int run_pio(struct part *part, const struct request *piece)
{
    struct iovec memory = {.iov_base = piece->memory, .iov_len = (size_t)piece->length};

    while (sem_wait(&part->room) && errno == EINTR) {
        continue;
    }
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(part->stack.dev, 0));
    int result = -EAGAIN; /* cannot be: there was room */
    if (pio) {
        switch (piece->what) {
        case READ:
            ploop_pio_prep_readv(pio, piece->offset, &memory, 1);
            break;
        case WRITE:
            ploop_pio_prep_writev(pio, piece->offset, &memory, 1, piece->flags);
            break;
        case ZEROES:
            ploop_pio_prep_write_zeroes(pio, piece->offset, piece->length, piece->flags);
            break;
        case DISCARD:
            ploop_pio_prep_discard(pio, piece->offset, piece->length);
            break;
        }
        result = ploop_pio_execute(pio);
        ploop_pio_put(pio);
    }
    sem_post(&part->room);
    return result;
}

/* ---- A piece, to a raw file ---- */

static int sync_raw(struct part *part)
{
    if (atomic_load(&part->sync_has_failed)) {
        return -EIO;
    }
    int error = ploop_file_sync(part->stack.files[0]);
    if (error) {
        atomic_store(&part->sync_has_failed, true);
    }
    return error;
}

static int write_raw(struct part *part, const void *bytes, uint64_t length, uint64_t offset)
{
    int64_t done = ploop_file_pwrite(part->stack.files[0], bytes, length, offset);

    return done < 0 ? (int)done : (uint64_t)done < length ? -EIO : 0;
}

static int zero_raw(struct part *part, const struct request *piece)
{
    static const uint8_t zeros[ZEROS_BYTES];
    int error = piece->flags & PLOOP_PIO_FAST_ONLY ? -ENOTSUP : 0;

    for (uint64_t done = 0; done < piece->length && !error;) {
        uint64_t left = piece->length - done, step = left < ZEROS_BYTES ? left : ZEROS_BYTES;
        error = write_raw(part, zeros, step, piece->offset + done);
        done += step;
    }
    return error;
}

static int run_raw(struct part *part, const struct request *piece)
{
    int error = 0;

    switch (piece->what) {
    case READ: {
        int64_t done =
            ploop_file_pread(part->stack.files[0], piece->memory, piece->length, piece->offset);
        return done < 0 ? (int)done : (uint64_t)done < piece->length ? -EIO : 0;
    }
    case WRITE:
        error = write_raw(part, piece->memory, piece->length, piece->offset);
        break;
    case ZEROES:
        error = zero_raw(part, piece);
        break;
    case DISCARD: /* which promises nothing there */
        return 0;
    }
    return !error && piece->flags & PLOOP_PIO_FUA ? sync_raw(part) : error;
}

/* ---- A request ---- */

static struct part *part_at(const ploop_bundle_disk *disk, uint64_t offset)
{
    uint32_t low = 0, high = disk->count - 1;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (offset >= disk->parts[middle].stack.end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return &disk->parts[low];
}

static bool is_inside(const ploop_bundle_disk *disk, uint64_t length, uint64_t offset)
{
    return offset <= disk->disk_size && length <= disk->disk_size - offset &&
           offset % PLOOP_SECTOR_SIZE == 0 && length % PLOOP_SECTOR_SIZE == 0;
}

static int run(ploop_bundle_disk *disk, const struct request *request)
{
    int error = 0;

    if (!disk || (!request->memory && request->what <= WRITE && request->length) ||
        !is_inside(disk, request->length, request->offset)) {
        return -EINVAL;
    }
    if (request->what != READ && disk->read_only) {
        return -EROFS;
    }
    for (uint64_t done = 0; done < request->length && !error;) {
        uint64_t at = request->offset + done, left = request->length - done;
        struct part *part = part_at(disk, at);
        struct request piece = *request;
        piece.offset = at - part->stack.start;
        piece.length = part->stack.end - at < left ? part->stack.end - at : left;
        if (piece.length > part->piece_bytes) {
            piece.length = part->piece_bytes;
        }
        piece.memory = request->memory ? request->memory + done : NULL;
        error = part->stack.dev ? run_pio(part, &piece) : run_raw(part, &piece);
        done += piece.length;
    }
    return error;
}

int64_t ploop_bundle_disk_pread(ploop_bundle_disk *disk, void *buffer, uint64_t length,
                                uint64_t offset)
{
    const struct request request = {
        .what = READ, .memory = buffer, .length = length, .offset = offset};
    int error = run(disk, &request);

    return error ? error : (int64_t)length;
}

int64_t ploop_bundle_disk_pwrite(ploop_bundle_disk *disk, const void *buffer, uint64_t length,
                                 uint64_t offset, uint32_t flags)
{
    const struct request request = {.what = WRITE,
                                    .flags = flags,
                                    .memory = (uint8_t *)(uintptr_t)buffer,
                                    .length = length,
                                    .offset = offset};
    int error = flags & ~(uint32_t)PLOOP_PIO_FUA ? -EINVAL : run(disk, &request);

    return error ? error : (int64_t)length;
}

int ploop_bundle_disk_write_zeroes(ploop_bundle_disk *disk, uint64_t length, uint64_t offset,
                                   uint32_t flags)
{
    const uint32_t known = PLOOP_PIO_FUA | PLOOP_PIO_NO_UNMAP | PLOOP_PIO_FAST_ONLY;
    const struct request request = {
        .what = ZEROES, .flags = flags, .length = length, .offset = offset};

    return flags & ~known ? -EINVAL : run(disk, &request);
}

int ploop_bundle_disk_discard(ploop_bundle_disk *disk, uint64_t length, uint64_t offset)
{
    const struct request request = {.what = DISCARD, .length = length, .offset = offset};

    return run(disk, &request);
}

int ploop_bundle_disk_flush(ploop_bundle_disk *disk)
{
    int error = disk ? 0 : -EINVAL;

    for (uint32_t i = 0; disk && !disk->read_only && i < disk->count; i++) {
        struct part *part = &disk->parts[i];
        int result = part->stack.dev ? ploop_dev_flush(part->stack.dev) : sync_raw(part);
        error = error ? error : result;
    }
    return error;
}

int ploop_bundle_disk_lookup(ploop_bundle_disk *disk, uint64_t offset, uint64_t length,
                             struct ploop_extent *extent, uint32_t *storage)
{
    if (!disk || !extent || !storage || !length || offset >= disk->disk_size ||
        length > disk->disk_size - offset) {
        return -EINVAL;
    }
    struct part *part = part_at(disk, offset);
    uint64_t at = offset - part->stack.start, left = part->stack.end - offset;
    *storage = (uint32_t)(part - disk->parts);
    left = left < length ? left : length;
    if (part->stack.dev) {
        int error = ploop_bat_lookup(part->stack.dev, at, left, extent);
        extent->offset += error ? 0 : part->stack.start;
        return error;
    }
    struct ploop_extent whole = {
        .offset = offset, .length = left, .state = PLOOP_EXTENT_MAPPED, .host_offset = at};
    return answer_out(extent, &whole, sizeof(whole), offsetof(struct ploop_extent, reserved));
}

/* ---- Open and close ---- */

static int open_part(struct part *part, const ploop_bundle *bundle, uint32_t number,
                     uint32_t snapshot, const struct ploop_dev_config *config)
{
    const struct stack_options options = {.config = config};
    struct ploop_dev_info info = {.size = sizeof(info)};
    int error = stack_open(&part->stack, bundle, number, snapshot, &options);

    if (error) {
        return error;
    }
    part->piece_bytes = ZEROS_BYTES * UINT64_C(16);
    if (part->stack.dev && !ploop_dev_info(part->stack.dev, &info)) {
        part->piece_bytes = info.max_request_bytes;
    }
    part->has_room = !sem_init(&part->room, 0, REQUESTS);
    return 0;
}

static int close_part(struct part *part)
{
    int error = 0;

    if (!part->stack.dev && part->stack.count && part->stack.is_writable) {
        error = sync_raw(part);
    }
    int closed = stack_close(&part->stack);
    if (part->has_room) {
        sem_destroy(&part->room);
        part->has_room = false;
    }
    return error ? error : closed;
}

/* Rule: nothing is marked before every part has been looked at. */
static int judge(const ploop_bundle *bundle, uint32_t snapshot,
                 const struct ploop_dev_config *config)
{
    struct ploop_dev_config reading = *config;
    struct part *part = calloc(1, sizeof(*part));
    int error = part ? 0 : -ENOMEM;

    reading.flags = (config->flags & ~(uint32_t)(PLOOP_DEV_RECOVER | PLOOP_DEV_RECOVER_CACHED)) |
                    PLOOP_DEV_READ_ONLY;
    reading.runner_count = 0;
    for (uint32_t i = 0; i < bundle->model.storage_count && !error; i++) {
        error = open_part(part, bundle, i, snapshot, &reading);
        close_part(part);
        *part = (struct part){0};
    }
    free(part);
    return error;
}

static int open_parts(ploop_bundle_disk *disk, const ploop_bundle *bundle, uint32_t snapshot,
                      const struct ploop_dev_config *config)
{
    int error = disk->read_only ? 0 : judge(bundle, snapshot, config);

    for (uint32_t i = 0; i < disk->count && !error; i++) {
        error = open_part(&disk->parts[i], bundle, i, snapshot, config);
        disk->open_count += !error;
    }
    return error;
}

int ploop_bundle_disk_open(const ploop_bundle *bundle, uint32_t snapshot,
                           const struct ploop_dev_config *config, ploop_bundle_disk **disk)
{
    struct ploop_dev_config own;

    if (!disk) {
        return -EINVAL;
    }
    *disk = NULL;
    if (!bundle) {
        return -EINVAL;
    }
    ploop_dev_config_init(&own, sizeof(own));
    int error =
        config ? options_in(&own, sizeof(own), offsetof(struct ploop_dev_config, reserved), config)
               : 0;
    if (error) {
        return error;
    }
    if (own.clock || own.log || own.event || own.error_text || own.flags & PLOOP_DEV_RAW_BASE) {
        return -EINVAL;
    }
    if (snapshot >= bundle->model.snapshot_count) {
        return fault(&bundle->report, -ENOENT, "there is no snapshot %u", snapshot);
    }
    ploop_bundle_disk *new = calloc(1, sizeof(*new));
    if (new) {
        new->count = bundle->model.storage_count;
        new->parts = calloc(new->count, sizeof(new->parts[0]));
    }
    if (!new || !new->parts) {
        free(new);
        return fault(&bundle->report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    own.size = sizeof(own);
    own.queue_count = 1;
    own.pio_count = REQUESTS;
    new->disk_size = bundle->model.disk_sectors *PLOOP_SECTOR_SIZE;
    new->read_only = own.flags &PLOOP_DEV_READ_ONLY;
    own.runner_count = new->read_only ? 0 : 1; /* it keeps the deadlines of the map's pages */
    error = open_parts(new, bundle, snapshot, &own);
    if (error) {
        ploop_bundle_disk_close(new);
        return error;
    }
    *disk = new;
    return 0;
}

int ploop_bundle_disk_close(ploop_bundle_disk *disk)
{
    int error = 0;

    if (!disk) {
        return 0;
    }
    for (uint32_t i = 0; i < disk->open_count; i++) {
        int result = close_part(&disk->parts[i]);
        error = error ? error : result;
    }
    free(disk->parts);
    free(disk);
    return error;
}
