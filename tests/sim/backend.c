/* SPDX-License-Identifier: MIT */
/* See backend.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "backend_steps.h"
#include "report.h"

bool backend_steals_reports;

void backend_init(struct backend *backend, struct disk *disk, struct rng *rng)
{
    memset(backend, 0, sizeof(*backend));
    backend->disk = disk;
    backend->rng = rng;
    backend->now = 1;
    backend->size_limit = UINT64_C(1) << 29;
    backend->capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    backend->alignment = 1;
    backend->queue_count = 1;
    memset(backend->poll_fds, -1, sizeof(backend->poll_fds));
}

void backend_new_session(struct backend *backend, bool recovers)
{
    backend->forgiving = recovers;
    backend->synced = false;
    backend->busy = false;
    backend->drops = 0;
    backend->latched = false;
    backend->session_marked = false;
    backend->session_synced = false;
    backend->errors = 0;
    backend->sync_errors = 0;
    backend->idle_waits = 0;
}

void backend_happened(struct backend *backend)
{
    backend->now++;
    if (backend->event)
        backend->event(backend->context);
}

void backend_fault(struct backend *backend, enum fault kind)
{
    if (backend->fault)
        backend->fault(backend->context, kind);
}

bool backend_strikes(struct backend *backend, enum fault kind)
{
    if (backend->quiet || !backend->chance[kind] ||
        !rng_permille(backend->rng, backend->chance[kind]))
        return false;
    backend_fault(backend, kind);
    return true;
}

void backend_cache_moves(struct backend *backend)
{
    if (backend->write_back_permille && rng_permille(backend->rng, backend->write_back_permille))
        disk_write_back(backend->disk, backend->rng);
    unsigned chance = backend->quiet ? 0 : backend->chance[FAULT_LOST];
    if (chance && rng_permille(backend->rng, chance) &&
        disk_lose(backend->disk, UINT64_MAX, 400, backend->rng)) {
        trace("  [%" PRIu64 "] writeback fails", backend->now);
        backend_fault(backend, FAULT_LOST);
    }
}

bool backend_is_page(const struct backend *backend, const struct ploop_io *io)
{
    return io->op == PLOOP_IO_WRITE && io->offset < backend->bat_end;
}

static uint8_t *gather(const struct ploop_io *io)
{
    uint8_t *bytes = sim_alloc(io->length);
    uint64_t at = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        memcpy(bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
        at += io->iov[i].iov_len;
    }
    return bytes;
}

uint64_t backend_sum(const struct ploop_io *io)
{
    uint64_t sum = 1469598103934665603u;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        const uint8_t *bytes = io->iov[i].iov_base;
        for (size_t at = 0; at + 8 <= io->iov[i].iov_len; at += 8) {
            uint64_t word;
            memcpy(&word, bytes + at, 8);
            sum = (sum ^ word) * 1099511628211u;
        }
    }
    return sum;
}

/* Execute `length` bytes of a write, from its start. */
static uint64_t execute_write(struct backend *backend, const struct request *request,
                              uint64_t length)
{
    if (backend_sum(request->io) != request->sum)
        violation("contract", "memory lent for a write changed before its completion");
    uint8_t *bytes = gather(request->io);
    uint64_t seq = disk_execute(backend->disk, DISK_WRITE, request->io->offset, length, bytes);
    sim_free(bytes);
    return seq;
}

/* A write that fails may have done anything, sector by sector. */
static void execute_failing(struct backend *backend, struct request *request)
{
    if (rng_permille(backend->rng, 500))
        return;
    uint8_t *bytes = gather(request->io);
    for (uint64_t at = 0; at < request->io->length; at += DISK_SECTOR)
        if (rng_permille(backend->rng, 500) &&
            request->io->offset + at < backend->disk->current.size)
            disk_execute_failed(backend->disk, request->io->offset + at, DISK_SECTOR, bytes + at);
    sim_free(bytes);
}

static int64_t execute_read(struct backend *backend, const struct request *request, uint64_t length)
{
    const struct ploop_io *io = request->io;
    const uint8_t *bytes = request->below ? backend->base : backend->disk->current.bytes;
    uint64_t at = io->offset, left = length,
             size = request->below ? backend->base_size : backend->disk->current.size;
    if (at >= size)
        return 0;
    if (left > size - at)
        left = size - at;
    int64_t total = (int64_t)left;
    for (uint32_t i = 0; i < io->iov_count && left; i++) {
        uint64_t part = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;
        memcpy(io->iov[i].iov_base, bytes + at, part);
        at += part;
        left -= part;
    }
    return total;
}

bool backend_nth_fails(struct backend *backend)
{
    backend->calls++;
    return backend->fail_at && (backend->calls == backend->fail_at ||
                                (backend->fail_persistent && backend->calls > backend->fail_at));
}

/* Blocks ahead of sequential writes, which fail no request if they cannot be had. */
static bool is_hint(const struct backend *backend, const struct ploop_io *io)
{
    return io->op == PLOOP_IO_ALLOCATE && io->offset >= backend->bat_end;
}

static int hint_error(struct backend *backend)
{
    static const int errors[] = {-ENOTSUP, -ENOSPC, -ENOSPC, -EIO};
    return backend_strikes(backend, FAULT_EIO_RESIZE) ? errors[rng_below(backend->rng, 4)] : 0;
}

static int injected_error(struct backend *backend, const struct request *request)
{
    const struct ploop_io *io = request->io;
    bool page = backend_is_page(backend, io);
    if ((io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE) &&
        backend_strikes(backend, FAULT_EINTR))
        return -EINTR;
    switch (io->op) {
    case PLOOP_IO_READ:
        return backend_strikes(backend, FAULT_EIO_READ) ? -EIO : 0;
    case PLOOP_IO_WRITE:
        if (backend_strikes(backend, page ? FAULT_EIO_PAGE : FAULT_EIO_DATA))
            return -EIO;
        return (page && backend->pages_full) || backend_strikes(backend, FAULT_ENOSPC_WRITE)
                   ? -ENOSPC
                   : 0;
    case PLOOP_IO_SYNC:
        return backend_strikes(backend, FAULT_EIO_SYNC) ? -EIO : 0;
    case PLOOP_IO_PUNCH:
        return backend_strikes(backend, FAULT_EIO_PUNCH) ? -EIO : 0;
    default:
        return is_hint(backend, io)                         ? hint_error(backend)
               : backend_strikes(backend, FAULT_EIO_RESIZE) ? -EIO
                                                            : 0;
    }
}

/* The number of bytes of a transfer that are moved. */
static uint64_t transfer(struct backend *backend, struct request *request, bool short_now)
{
    uint64_t sectors = request->io->length / DISK_SECTOR;
    if (sectors > 1 && (short_now || backend_strikes(backend, FAULT_SHORT)))
        return rng_between(backend->rng, 1, sectors - 1) * DISK_SECTOR;
    return request->io->length;
}

/*
 * A FUA write asks for errors, and is told of earlier losses. Its own bytes are in the cache, and
 * not durable.
 */
static void tell_loss(struct backend *backend, struct request *request)
{
    if (!(request->io->flags & PLOOP_IO_FUA) || !backend->disk->unreported ||
        !backend_strikes(backend, FAULT_TOLD))
        return;
    backend->errors++;
    request->result = -EIO;
    if (backend_steals_reports)
        backend->disk->unreported = false;
}

static void execute_op(struct backend *backend, struct request *request, bool short_now)
{
    struct ploop_io *io = request->io;
    uint64_t end = io->op == PLOOP_IO_TRUNCATE ? io->offset : io->offset + io->length;
    if (io->op != PLOOP_IO_READ && io->op != PLOOP_IO_SYNC && end > backend->size_limit &&
        end > backend->disk->current.size && io->op != PLOOP_IO_PUNCH) {
        backend_fault(backend, FAULT_ENOSPC);
        request->result = -ENOSPC;
        return;
    }
    switch (io->op) {
    case PLOOP_IO_READ:
        if (!backend_strikes(backend, FAULT_NO_PROGRESS))
            request->result = execute_read(backend, request, transfer(backend, request, short_now));
        break;
    case PLOOP_IO_WRITE:
        if (!backend_strikes(backend, FAULT_NO_PROGRESS)) {
            request->result = (int64_t)transfer(backend, request, short_now);
            request->seq = execute_write(backend, request, (uint64_t)request->result);
            tell_loss(backend, request);
        }
        break;
    case PLOOP_IO_SYNC:
        break;
    case PLOOP_IO_PUNCH:
        request->seq = disk_execute(backend->disk, DISK_PUNCH, io->offset, io->length, NULL);
        break;
    case PLOOP_IO_ALLOCATE:
        request->seq = disk_execute(backend->disk, DISK_ALLOCATE, io->offset, io->length, NULL);
        break;
    case PLOOP_IO_TRUNCATE:
        request->seq = disk_execute(backend->disk, DISK_RESIZE, io->offset, 0, NULL);
        break;
    default:
        violation("contract", "unknown operation %" PRIu32, io->op);
    }
}

bool backend_again(int64_t result)
{
    return result == -EINTR || result == -EAGAIN;
}

void backend_execute(struct backend *backend, struct request *request)
{
    bool nth = backend_nth_fails(backend);
    int error = nth ? backend->fail_error : injected_error(backend, request);
    request->executed = true;
    request->result = 0;
    if (error) {
        request->result = error;
        if (!backend_again(error) && !is_hint(backend, request->io))
            backend->errors++;
        if (request->io->op == PLOOP_IO_WRITE && !backend_again(error))
            execute_failing(backend, request);
    } else {
        execute_op(backend, request, nth);
        if (request->result == -ENOSPC ||
            (request->result == 0 &&
             (request->io->op == PLOOP_IO_READ || request->io->op == PLOOP_IO_WRITE)))
            backend->errors++;
    }
    backend_happened(backend);
}

/*
 * A SYNC reports losses at its very end. Losses before the session are no reason for RECOVER to
 * fail.
 */
static int64_t sync_ends(struct backend *backend, const struct request *request)
{
    bool success = disk_sync(backend->disk, request->submitted, request->result != 0, backend->rng);
    int64_t result = success || request->result ? request->result : -EIO;
    backend->synced = true;
    backend->session_synced |= success;
    if (!success) {
        backend->errors += !request->result && !backend->forgiving;
        backend->sync_errors++;
        backend->latched |= !backend->forgiving;
    }
    backend->forgiving = false;
    return result;
}

void backend_complete(struct backend *backend, struct request *request)
{
    struct ploop_io *io = request->io;
    int64_t result = request->result;
    if (io->op == PLOOP_IO_WRITE && backend_sum(io) != request->sum)
        violation("contract", "memory lent for a write changed before its completion");
    if (request->seq) {
        disk_complete(backend->disk, request->seq, backend->now);
        if ((io->flags & PLOOP_IO_FUA) && result > 0)
            disk_make_durable(backend->disk, request->seq);
    }
    if (io->op == PLOOP_IO_SYNC && !backend_again(result))
        result = sync_ends(backend, request);
    trace("  [%" PRIu64 "] %s %" PRIu64 "+%" PRIu64 " -> %" PRId64, backend->now,
          backend_op_name(io->op), io->offset, io->length, result);
    *request = backend->requests[--backend->in_flight];
    backend->idle_waits = 0;
    backend_happened(backend);
    ploop_io_complete(io, result);
}

/*
 * The request can continue by itself: it was kicked if that is needed, and does not wait to be
 * reaped.
 */
static bool can_go_on(const struct request *request)
{
    return request->kicked && !request->ready;
}

static bool is_late(const struct backend *backend, const struct request *request)
{
    const struct ploop_io *io = request->io;
    return io->op == backend->late_op &&
           (io->op != PLOOP_IO_WRITE || io->offset >= backend->bat_end);
}

bool backend_only_late(const struct backend *backend)
{
    unsigned late = 0;
    for (unsigned i = 0; i < backend->in_flight; i++) {
        if (!is_late(backend, &backend->requests[i]))
            return false;
        late++;
    }
    return late > 0;
}

static struct request *choose(struct backend *backend)
{
    struct request *oldest = NULL, *youngest = NULL, *chosen = NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < backend->in_flight; i++) {
        struct request *request = &backend->requests[i];
        if (!can_go_on(request))
            continue;
        count++;
        if (!oldest || request->order < oldest->order)
            oldest = request;
        if (!youngest || request->order > youngest->order)
            youngest = request;
    }
    if (!count || backend->fifo)
        return oldest;
    uint64_t left = rng_below(backend->rng, count);
    for (chosen = backend->requests; !can_go_on(chosen) || left > 0; chosen++)
        left -= can_go_on(chosen);
    if (backend->lifo)
        chosen = youngest;
    if (is_late(backend, chosen) && !rng_below(backend->rng, 8))
        return chosen;
    for (unsigned i = 0; is_late(backend, chosen) && i < backend->in_flight; i++)
        if (can_go_on(&backend->requests[i]) && !is_late(backend, &backend->requests[i]))
            chosen = &backend->requests[i];
    if (chosen != oldest)
        backend_fault(backend, FAULT_LATE);
    return chosen;
}

bool backend_step(struct backend *backend)
{
    backend_cache_moves(backend);
    struct request *request = choose(backend);
    if (!request)
        return false;
    if (!request->executed) {
        backend_execute(backend, request);
        if (!backend->quick && rng_permille(backend->rng, 500))
            return true;
    }
    if (backend->by_reap) {
        request->ready = true;
        backend_ring(backend, request);
    } else {
        backend_complete(backend, request);
    }
    return true;
}

unsigned backend_unkicked(const struct backend *backend)
{
    unsigned count = 0;
    for (unsigned i = 0; i < backend->in_flight; i++)
        count += !backend->requests[i].kicked;
    return count;
}

void backend_pending(struct backend *backend, backend_pending_fn *fn, void *context)
{
    static const enum disk_kind kinds[] = {[PLOOP_IO_WRITE] = DISK_WRITE,
                                           [PLOOP_IO_ALLOCATE] = DISK_ALLOCATE,
                                           [PLOOP_IO_PUNCH] = DISK_PUNCH,
                                           [PLOOP_IO_TRUNCATE] = DISK_RESIZE};
    for (unsigned i = 0; i < backend->in_flight; i++) {
        struct request *request = &backend->requests[i];
        struct ploop_io *io = request->io;
        if (request->executed || io->op == PLOOP_IO_READ || io->op == PLOOP_IO_SYNC)
            continue;
        uint64_t end = io->op == PLOOP_IO_TRUNCATE ? io->offset : io->offset + io->length;
        if (end > backend->size_limit && end > backend->disk->current.size)
            continue;
        uint8_t *bytes = io->op == PLOOP_IO_WRITE ? gather(io) : NULL;
        fn(context, kinds[io->op], io->offset, io->length, bytes);
        sim_free(bytes);
    }
}
