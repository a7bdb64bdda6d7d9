/* SPDX-License-Identifier: MIT */
/* See backend.h. */
#include "backend.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "report.h"

enum { STACK_MAX = 128 << 10 };

bool backend_steals_reports;

static const char *op_name(uint32_t op)
{
    static const char *const names[] = {"?", "read", "write", "sync", "allocate", "punch", "truncate"};
    return names[op <= PLOOP_IO_TRUNCATE ? op : 0];
}

void backend_init(struct backend *backend, struct disk *disk, struct rng *rng)
{
    memset(backend, 0, sizeof(*backend));
    backend->disk = disk;
    backend->rng = rng;
    backend->now = 1;
    backend->size_limit = UINT64_C(1) << 29;
    backend->capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    backend->alignment = 1;
}

void backend_new_session(struct backend *backend, bool recovers)
{
    backend->forgiving = recovers;
    backend->synced = false;
    backend->busy = false;
    backend->latched = false;
    backend->session_marked = false;
    backend->session_synced = false;
    backend->errors = 0;
    backend->sync_errors = 0;
    backend->idle_waits = 0;
}

static void happened(struct backend *backend)
{
    backend->now++;
    if (backend->event)
        backend->event(backend->context);
}

static void fault(struct backend *backend, enum fault kind)
{
    if (backend->fault)
        backend->fault(backend->context, kind);
}

/* Whether chance says that this fault strikes now. */
static bool strikes(struct backend *backend, enum fault kind)
{
    if (backend->quiet || !backend->chance[kind] || !rng_permille(backend->rng, backend->chance[kind]))
        return false;
    fault(backend, kind);
    return true;
}

/* What a cache does by itself between two steps. */
static void cache_moves(struct backend *backend)
{
    if (backend->write_back_permille && rng_permille(backend->rng, backend->write_back_permille))
        disk_write_back(backend->disk, backend->rng);
    unsigned chance = backend->quiet ? 0 : backend->chance[FAULT_LOST];
    if (chance && rng_permille(backend->rng, chance) && disk_lose(backend->disk, UINT64_MAX, 400, backend->rng)) {
        trace("  [%" PRIu64 "] writeback fails", backend->now);
        fault(backend, FAULT_LOST);
    }
}

static bool is_page(const struct backend *backend, const struct ploop_io *io)
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

static uint64_t sum_of(const struct ploop_io *io)
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

static void check_shape(const struct backend *backend, const struct ploop_io *io)
{
    uint64_t length = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        length += io->iov[i].iov_len;
        if ((uintptr_t)io->iov[i].iov_base % backend->alignment)
            violation("contract", "%s: memory not aligned to %" PRIu32, op_name(io->op), backend->alignment);
    }
    if (io->op != PLOOP_IO_READ && io->op != PLOOP_IO_WRITE)
        return;
    if (length != io->length || !length)
        violation("contract", "%s: the iov holds %" PRIu64 " bytes, length is %" PRIu64, op_name(io->op), length, io->length);
    if (backend->max_transfer && io->length > backend->max_transfer)
        violation("contract", "%s of %" PRIu64 " bytes, max_transfer is %" PRIu64, op_name(io->op), io->length,
                  backend->max_transfer);
    if (io->offset % backend->alignment || io->length % backend->alignment)
        violation("contract", "%s at %" PRIu64 "+%" PRIu64 " not aligned to %" PRIu32, op_name(io->op), io->offset, io->length,
                  backend->alignment);
    if (io->op == PLOOP_IO_WRITE && (io->offset % DISK_SECTOR || io->length % DISK_SECTOR))
        violation("contract", "write at %" PRIu64 "+%" PRIu64 " is not whole sectors", io->offset, io->length);
    if ((io->flags & PLOOP_IO_FUA) && !(backend->capabilities & PLOOP_FILE_CAN_FUA))
        violation("contract", "FUA without the capability");
}

/* What an operation changes: [*start, *end) of the file; false for one that changes nothing. */
static bool changes(const struct ploop_io *io, uint64_t *start, uint64_t *end)
{
    *start = io->offset;
    *end = io->op == PLOOP_IO_TRUNCATE ? UINT64_MAX : io->offset + io->length;
    return io->op == PLOOP_IO_WRITE || io->op == PLOOP_IO_PUNCH || io->op == PLOOP_IO_TRUNCATE;
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
        if (is_page(backend, io) && is_page(backend, other))
            violation("R16", "two writes of one BAT page in flight: %" PRIu64 "+%" PRIu64 " and %" PRIu64 "+%" PRIu64, io->offset,
                      io->length, other->offset, other->length);
        if ((io->op != PLOOP_IO_WRITE || other->op != PLOOP_IO_WRITE) && !backend->guest_zeroes)
            violation("R7", "%s of %" PRIu64 "+%" PRIu64 " while a %s of %" PRIu64 "+%" PRIu64 " is in flight", op_name(io->op),
                      io->offset, io->length, op_name(other->op), other->offset, other->length);
    }
}

static void check_rules(struct backend *backend, const struct ploop_io *io)
{
    if (io->op == PLOOP_IO_READ || io->op == PLOOP_IO_SYNC)
        return;
    if (!backend->writable)
        violation("contract", "%s on a file open for reading", op_name(io->op));
    if (is_page(backend, io) && io->offset + io->length > backend->bat_end)
        violation("R17", "a page write of %" PRIu64 "+%" PRIu64 " passes the end of the BAT at %" PRIu64, io->offset, io->length,
                  backend->bat_end);
    if (is_page(backend, io) && backend->latched)
        violation("R6", "a BAT page is written after a failed SYNC");
    if (io->op == PLOOP_IO_ALLOCATE && io->offset + io->length <= backend->bat_end)
        return; /* blocks for the BAT: no content changes */
    if (backend->shows_stale && io->op == PLOOP_IO_PUNCH)
        violation("R18", "a hole is made where the host shows stale blocks");
    if (backend->latched && io->op == PLOOP_IO_TRUNCATE && io->offset < backend->disk->current.size)
        violation("R6", "the file is cut after a failed SYNC");
    if (!backend->session_synced)
        violation("R11", "%s at %" PRIu64 " before a SYNC: what was found at open may be only in a cache", op_name(io->op),
                  io->offset);
    uint32_t mark;
    memcpy(&mark, backend->disk->durable.bytes + 44, sizeof(mark));
    if (mark == 0x746F6E59)
        backend->session_marked = true;
    if (!backend->session_marked && !(is_page(backend, io) && io->offset < 4096))
        violation("R11", "%s at %" PRIu64 " before the in-use mark is durable", op_name(io->op), io->offset);
}

/* Execute a write; `length` of it, from its start. */
static uint64_t execute_write(struct backend *backend, const struct request *request, uint64_t length)
{
    if (sum_of(request->io) != request->sum)
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
        if (rng_permille(backend->rng, 500) && request->io->offset + at < backend->disk->current.size)
            disk_execute_failed(backend->disk, request->io->offset + at, DISK_SECTOR, bytes + at);
    sim_free(bytes);
}

static int64_t execute_read(struct backend *backend, const struct request *request, uint64_t length)
{
    const struct ploop_io *io = request->io;
    const uint8_t *bytes = request->below ? backend->base : backend->disk->current.bytes;
    uint64_t at = io->offset, left = length, size = request->below ? backend->base_size : backend->disk->current.size;
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

/* The Nth call fails, where an exhaustive loop asked for it. */
static bool nth_fails(struct backend *backend)
{
    backend->calls++;
    return backend->fail_at &&
           (backend->calls == backend->fail_at || (backend->fail_persistent && backend->calls > backend->fail_at));
}

static int injected_error(struct backend *backend, const struct request *request)
{
    const struct ploop_io *io = request->io;
    bool page = is_page(backend, io);
    if ((io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE) && strikes(backend, FAULT_EINTR))
        return -EINTR;
    switch (io->op) {
    case PLOOP_IO_READ:
        return strikes(backend, FAULT_EIO_READ) ? -EIO : 0;
    case PLOOP_IO_WRITE:
        if (strikes(backend, page ? FAULT_EIO_PAGE : FAULT_EIO_DATA))
            return -EIO;
        return (page && backend->pages_full) || strikes(backend, FAULT_ENOSPC_WRITE) ? -ENOSPC : 0;
    case PLOOP_IO_SYNC:
        return strikes(backend, FAULT_EIO_SYNC) ? -EIO : 0;
    case PLOOP_IO_PUNCH:
        return strikes(backend, FAULT_EIO_PUNCH) ? -EIO : 0;
    default:
        return strikes(backend, FAULT_EIO_RESIZE) ? -EIO : 0;
    }
}

/* How much of a transfer happens. */
static uint64_t transfer(struct backend *backend, struct request *request, bool short_now)
{
    uint64_t sectors = request->io->length / DISK_SECTOR;
    if (sectors > 1 && (short_now || strikes(backend, FAULT_SHORT)))
        return rng_between(backend->rng, 1, sectors - 1) * DISK_SECTOR;
    return request->io->length;
}

/* A FUA write asks for errors, and hears of what was lost before it. Its own bytes are in the cache, and not durable. */
static void tell_loss(struct backend *backend, struct request *request)
{
    if (!(request->io->flags & PLOOP_IO_FUA) || !backend->disk->unreported || !strikes(backend, FAULT_TOLD))
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
    if (io->op != PLOOP_IO_READ && io->op != PLOOP_IO_SYNC && end > backend->size_limit && end > backend->disk->current.size &&
        io->op != PLOOP_IO_PUNCH) {
        fault(backend, FAULT_ENOSPC);
        request->result = -ENOSPC;
        return;
    }
    switch (io->op) {
    case PLOOP_IO_READ:
        if (!strikes(backend, FAULT_NO_PROGRESS))
            request->result = execute_read(backend, request, transfer(backend, request, short_now));
        break;
    case PLOOP_IO_WRITE:
        if (!strikes(backend, FAULT_NO_PROGRESS)) {
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

/* Results that are no failure: the library tries again. */
static bool again(int64_t result)
{
    return result == -EINTR || result == -EAGAIN;
}

static void execute(struct backend *backend, struct request *request)
{
    bool nth = nth_fails(backend);
    int error = nth ? backend->fail_error : injected_error(backend, request);
    request->executed = true;
    request->result = 0;
    if (error) {
        request->result = error;
        if (!again(error))
            backend->errors++;
        if (request->io->op == PLOOP_IO_WRITE && !again(error))
            execute_failing(backend, request);
    } else {
        execute_op(backend, request, nth);
        if (request->result == -ENOSPC ||
            (request->result == 0 && (request->io->op == PLOOP_IO_READ || request->io->op == PLOOP_IO_WRITE)))
            backend->errors++;
    }
    happened(backend);
}

/* Whether something was lost shows at its very end. What was lost before the session is no reason for RECOVER to fail. */
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

static void complete(struct backend *backend, struct request *request)
{
    struct ploop_io *io = request->io;
    int64_t result = request->result;
    if (io->op == PLOOP_IO_WRITE && sum_of(io) != request->sum)
        violation("contract", "memory lent for a write changed before its completion");
    if (request->seq) {
        disk_complete(backend->disk, request->seq, backend->now);
        if ((io->flags & PLOOP_IO_FUA) && result > 0)
            disk_make_durable(backend->disk, request->seq);
    }
    if (io->op == PLOOP_IO_SYNC && !again(result))
        result = sync_ends(backend, request);
    trace("  [%" PRIu64 "] %s %" PRIu64 "+%" PRIu64 " -> %" PRId64, backend->now, op_name(io->op), io->offset, io->length, result);
    *request = backend->requests[--backend->in_flight];
    backend->idle_waits = 0;
    happened(backend);
    ploop_io_complete(io, result);
}

static struct request *choose(struct backend *backend)
{
    struct request *chosen = &backend->requests[rng_below(backend->rng, backend->in_flight)], *oldest = backend->requests,
                   *youngest = oldest;
    for (unsigned i = 1; i < backend->in_flight; i++) {
        if (backend->requests[i].order < oldest->order)
            oldest = &backend->requests[i];
        if (backend->requests[i].order > youngest->order)
            youngest = &backend->requests[i];
    }
    if (backend->fifo)
        return oldest;
    if (backend->lifo)
        chosen = youngest;
    if (chosen != oldest)
        fault(backend, FAULT_LATE);
    return chosen;
}

bool backend_step(struct backend *backend)
{
    cache_moves(backend);
    if (!backend->in_flight)
        return false;
    struct request *request = choose(backend);
    if (!request->executed) {
        execute(backend, request);
        if (!backend->quick && rng_permille(backend->rng, 500))
            return true;
    }
    complete(backend, request);
    return true;
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

/* ---- the table that the library sees ---- */

static int sim_get_info(void *context, struct ploop_file_info *info)
{
    struct backend *backend = context;
    info->file_size = backend->disk->current.size;
    info->capabilities = backend->capabilities;
    info->request_alignment = backend->alignment;
    info->max_transfer = backend->max_transfer;
    return 0;
}

/* Callbacks submit again from inside, without bound on how often: that must not show in the stack. */
static void check_stack(const struct backend *backend)
{
    char here;
    if (backend->stack && backend->stack - &here > STACK_MAX)
        violation("F8", "the stack is %td bytes deep", backend->stack - &here);
}

static int take(struct backend *backend, struct ploop_io *io, bool below)
{
    check_stack(backend);
    cache_moves(backend);
    if (strikes(backend, FAULT_EAGAIN))
        return -EAGAIN;
    if (io->op != PLOOP_IO_SYNC && strikes(backend, FAULT_EIO_SUBMIT)) {
        backend->errors++;
        return -EIO;
    }
    check_shape(backend, io);
    if (!below) {
        check_rules(backend, io);
        check_order(backend, io);
    }
    if (backend->in_flight == BACKEND_REQUESTS)
        return -EAGAIN;
    struct request *request = &backend->requests[backend->in_flight++];
    memset(request, 0, sizeof(*request));
    request->io = io;
    request->below = below;
    request->order = backend->now;
    request->submitted = backend->now;
    request->sum = io->op == PLOOP_IO_WRITE ? sum_of(io) : 0;
    trace("  [%" PRIu64 "] %s %" PRIu64 "+%" PRIu64 "%s%s taken", backend->now, op_name(io->op), io->offset, io->length,
          io->flags & PLOOP_IO_FUA ? " FUA" : "", below ? " below" : "");
    happened(backend);
    if (backend->inline_permille && rng_permille(backend->rng, backend->inline_permille)) {
        fault(backend, FAULT_INLINE);
        execute(backend, request);
        complete(backend, request);
    }
    return 0;
}

static int sim_submit(void *context, struct ploop_io *io)
{
    return take(context, io, false);
}

static int base_submit(void *context, struct ploop_io *io)
{
    if (io->op != PLOOP_IO_READ)
        violation("R9", "%s of %" PRIu64 "+%" PRIu64 " on a lower delta", op_name(io->op), io->offset, io->length);
    return take(context, io, true);
}

static int base_get_info(void *context, struct ploop_file_info *info)
{
    const struct backend *backend = context;
    info->file_size = backend->base_size;
    info->request_alignment = backend->alignment;
    info->max_transfer = backend->max_transfer;
    return 0;
}

static int sim_reap(void *context, uint32_t queue)
{
    struct backend *backend = context;
    int done = 0;
    (void)queue;
    while (rng_permille(backend->rng, 300) && backend_step(backend))
        done++;
    return done;
}

/* Readable all the time: steps are taken by whoever reaps. */
static int sim_poll_fd(void *context, uint32_t queue)
{
    static int fd = -1;
    (void)context;
    (void)queue;
    if (fd < 0)
        fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd;
}

static int sim_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct backend *backend = context;
    (void)queue;
    (void)timeout_ns;
    if (!backend_step(backend) && ++backend->idle_waits > 2000)
        violation("R15", "a blocking call waits although nothing is in flight");
    return 0;
}

static void sim_cancel(void *context)
{
    struct backend *backend = context;
    while (backend->in_flight) {
        struct request *request = &backend->requests[0];
        if (!request->executed && rng_permille(backend->rng, 500))
            execute(backend, request);
        struct ploop_io *io = request->io;
        if (request->seq)
            disk_complete(backend->disk, request->seq, backend->now);
        *request = backend->requests[--backend->in_flight];
        backend->errors++;
        ploop_io_complete(io, -ECANCELED);
    }
}

static int sim_reopen(void *context, uint32_t flags)
{
    struct backend *backend = context;
    backend->writable = (flags & PLOOP_FILE_READ_WRITE) != 0;
    return 0;
}

static int sim_invalidate(void *context)
{
    struct backend *backend = context;
    if (backend->in_flight || !backend->synced)
        violation("R11", "the cache is dropped %s", backend->in_flight ? "with a request in flight" : "without a SYNC before");
    if (nth_fails(backend) && backend->fail_error && !again(backend->fail_error)) {
        backend->errors++;
        return backend->fail_error;
    }
    if (rng_permille(backend->rng, backend->chance[FAULT_BUSY])) {
        fault(backend, FAULT_BUSY);
        backend->busy = true;
        return -EBUSY;
    }
    disk_invalidate(backend->disk, backend->rng);
    trace("  [%" PRIu64 "] the cache is dropped", backend->now);
    if (backend->invalidated)
        backend->invalidated(backend->context);
    happened(backend);
    return 0;
}

void backend_base_ops(struct ploop_io_ops *ops)
{
    memset(ops, 0, sizeof(*ops));
    ops->size = sizeof(*ops);
    ops->get_info = base_get_info;
    ops->submit = base_submit;
    ops->wait = sim_wait;
    ops->reap = sim_reap;
    ops->poll_fd = sim_poll_fd;
}

void backend_ops(struct backend *backend, struct ploop_io_ops *ops)
{
    memset(ops, 0, sizeof(*ops));
    ops->size = sizeof(*ops);
    ops->get_info = sim_get_info;
    ops->submit = sim_submit;
    ops->wait = sim_wait;
    ops->reap = sim_reap;
    ops->poll_fd = sim_poll_fd;
    ops->cancel = sim_cancel;
    ops->reopen = sim_reopen;
    ops->invalidate = backend->keeps_cache ? NULL : sim_invalidate;
    backend->writable = true;
}
