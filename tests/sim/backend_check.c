/* SPDX-License-Identifier: MIT */
/* The checks of each request when it is submitted: the list in backend.h. */
#include <inttypes.h>
#include <string.h>

#include "backend_steps.h"
#include "report.h"

const char *backend_op_name(uint32_t op)
{
    static const char *const names[] = {"?",        "read",  "write",   "sync",
                                        "allocate", "punch", "truncate"};
    return names[op <= PLOOP_IO_TRUNCATE ? op : 0];
}

static void check_shape(const struct backend *backend, const struct ploop_io *io)
{
    uint64_t length = 0, blocks = backend->alignment > DISK_SECTOR;
    uint32_t memory = backend->alignment < 4096 ? backend->alignment : 4096;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        length += io->iov[i].iov_len;
        if ((uintptr_t)io->iov[i].iov_base % memory || (blocks && io->iov[i].iov_len % memory))
            violation("contract", "%s: memory not aligned to %" PRIu32, backend_op_name(io->op),
                      memory);
    }
    if (blocks && io->op == PLOOP_IO_PUNCH && (io->offset | io->length) % backend->alignment)
        violation("R17", "punch of %" PRIu64 "+%" PRIu64 " not aligned to %" PRIu32, io->offset,
                  io->length, backend->alignment);
    if (io->queue >= backend->queue_count)
        violation("contract", "%s on queue %" PRIu32 " of %" PRIu32, backend_op_name(io->op),
                  io->queue, backend->queue_count);
    if (io->op != PLOOP_IO_READ && io->op != PLOOP_IO_WRITE)
        return;
    if (length != io->length || !length)
        violation("contract", "%s: the iov holds %" PRIu64 " bytes, length is %" PRIu64,
                  backend_op_name(io->op), length, io->length);
    if (backend->max_transfer && io->length > backend->max_transfer)
        violation("contract", "%s of %" PRIu64 " bytes, max_transfer is %" PRIu64,
                  backend_op_name(io->op), io->length, backend->max_transfer);
    if (io->offset % backend->alignment || io->length % backend->alignment)
        violation("contract", "%s at %" PRIu64 "+%" PRIu64 " not aligned to %" PRIu32,
                  backend_op_name(io->op), io->offset, io->length, backend->alignment);
    if (io->op == PLOOP_IO_WRITE && (io->offset % DISK_SECTOR || io->length % DISK_SECTOR))
        violation("contract", "write at %" PRIu64 "+%" PRIu64 " is not whole sectors", io->offset,
                  io->length);
    if ((io->flags & PLOOP_IO_FUA) && !(backend->capabilities & PLOOP_FILE_CAN_FUA))
        violation("contract", "FUA without the capability");
}

/* The bytes that an operation changes: [*start, *end) of the file; false if it changes nothing. */
static bool changes(const struct ploop_io *io, uint64_t *start, uint64_t *end)
{
    *start = io->offset;
    *end = io->op == PLOOP_IO_TRUNCATE ? UINT64_MAX : io->offset + io->length;
    return io->op == PLOOP_IO_WRITE || io->op == PLOOP_IO_PUNCH || io->op == PLOOP_IO_TRUNCATE;
}

/* The guest's zeros of a part of a cluster, beside its own writes: to the file that is the top. */
static bool guest_zeroes(const struct backend *backend)
{
    bool any = backend->guest_zeroes;
    for (const struct backend *peer = backend->peer; peer && peer != backend; peer = peer->peer)
        any |= peer->guest_zeroes;
    return any;
}

static void check_order(const struct backend *backend, const struct ploop_io *io)
{
    uint64_t start, end, other_start, other_end;
    if (!changes(io, &start, &end))
        return;
    if (io->op == PLOOP_IO_TRUNCATE && io->offset >= backend->disk->current.size)
        return; /* grows */
    for (unsigned i = 0; i < backend->in_flight; i++) {
        const struct ploop_io *other = backend->requests[i].io;
        if (!changes(other, &other_start, &other_end) || start >= other_end || other_start >= end)
            continue;
        if (other->op == PLOOP_IO_TRUNCATE && other->offset >= backend->disk->current.size)
            continue;
        if (backend_is_page(backend, io) && backend_is_page(backend, other))
            violation("R16",
                      "two writes of one BAT page in flight: %" PRIu64 "+%" PRIu64 " and %" PRIu64
                      "+%" PRIu64,
                      io->offset, io->length, other->offset, other->length);
        if ((io->op != PLOOP_IO_WRITE || other->op != PLOOP_IO_WRITE) && !guest_zeroes(backend))
            violation("R7",
                      "%s of %" PRIu64 "+%" PRIu64 " while a %s of %" PRIu64 "+%" PRIu64
                      " is in flight",
                      backend_op_name(io->op), io->offset, io->length, backend_op_name(other->op),
                      other->offset, other->length);
    }
}

/* In the block that the BAT ends in a write of data puts back what is there of it. */
static bool changes_bat(const struct backend *backend, const struct ploop_io *io)
{
    uint64_t at = io->offset;
    if (!backend_is_page(backend, io) || io->offset + io->length <= backend->bat_end)
        return backend_is_page(backend, io);
    for (uint32_t i = 0; i < io->iov_count && at < backend->bat_end; i++) {
        uint64_t length = io->iov[i].iov_len;
        if (length > backend->bat_end - at)
            length = backend->bat_end - at;
        if (memcmp(io->iov[i].iov_base, backend->disk->current.bytes + at, length))
            return true;
        at += length;
    }
    return false;
}

static void check_rules(struct backend *backend, const struct ploop_io *io)
{
    if (io->op == PLOOP_IO_READ || io->op == PLOOP_IO_SYNC)
        return;
    if (!backend->writable)
        violation("contract", "%s on a file open for reading", backend_op_name(io->op));
    uint64_t bat_end = backend->bat_end + backend->alignment - 1;
    bat_end -=
        backend->alignment > DISK_SECTOR ? bat_end % backend->alignment : backend->alignment - 1;
    if (backend_is_page(backend, io) && io->offset + io->length > bat_end)
        violation("R17",
                  "a page write of %" PRIu64 "+%" PRIu64 " passes the end of the BAT at %" PRIu64,
                  io->offset, io->length, backend->bat_end);
    if (backend->latched && changes_bat(backend, io))
        violation("R6", "a BAT page is written after a failed SYNC");
    if (io->op == PLOOP_IO_ALLOCATE && io->offset + io->length <= backend->bat_end)
        return; /* blocks for the BAT: no content changes */
    if (io->op == PLOOP_IO_TRUNCATE && io->offset == backend->whole_size &&
        io->offset > backend->disk->current.size)
        return; /* nor does it where a cluster becomes whole that was cut off (R19) */
    if (io->op == PLOOP_IO_ALLOCATE && io->offset + io->length > backend->disk->current.size)
        violation("R1", "blocks are allocated past the end of the file, at %" PRIu64 "+%" PRIu64,
                  io->offset, io->length);
    if (backend->shows_stale && io->op == PLOOP_IO_PUNCH)
        violation("R18", "a hole is made where the host shows stale blocks");
    if (backend->latched && io->op == PLOOP_IO_TRUNCATE && io->offset < backend->disk->current.size)
        violation("R6", "the file is cut after a failed SYNC");
    if (!backend->session_synced)
        violation("R11",
                  "%s at %" PRIu64 " before a SYNC: what was found at open may be only in a cache",
                  backend_op_name(io->op), io->offset);
    if (backend->is_raw)
        return;
    uint32_t mark;
    memcpy(&mark, backend->disk->durable.bytes + 44, sizeof(mark));
    if (mark == 0x746F6E59)
        backend->session_marked = true;
    if (!backend->session_marked && !(backend_is_page(backend, io) && io->offset < 4096))
        violation("R11", "%s at %" PRIu64 " before the in-use mark is durable",
                  backend_op_name(io->op), io->offset);
}

void backend_check(struct backend *backend, const struct ploop_io *io, bool below)
{
    if (backend->gone && !below) /* the base stays */
        violation("R13", "%s on a file that was let go", backend_op_name(io->op));
    if (backend->asked)
        backend->asked(backend->context);
    check_shape(backend, io);
    if (below && io->op != PLOOP_IO_READ)
        violation("R9", "%s of %" PRIu64 "+%" PRIu64 " on a lower delta", backend_op_name(io->op),
                  io->offset, io->length);
    if (!below) {
        check_rules(backend, io);
        check_order(backend, io);
    }
}
