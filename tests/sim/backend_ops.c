/* SPDX-License-Identifier: MIT */
/* The backend's table as the library sees it: one for the file, one for the base. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend_steps.h"
#include "report.h"

enum { STACK_MAX = 128 << 10, IDLE_WAITS_MAX = 2000 };

static int sim_get_info(void *context, struct ploop_file_info *info)
{
    struct backend *backend = context;
    info->file_size = backend->disk->current.size;
    info->capabilities = backend->capabilities;
    info->request_alignment = backend->alignment;
    info->max_transfer = backend->max_transfer;
    return 0;
}

/* Callbacks may submit again from inside any number of times: the stack must not grow with it. */
static void check_stack(const struct backend *backend)
{
    char here;
    if (backend->stack && backend->stack - &here > STACK_MAX)
        violation("F8", "the stack is %td bytes deep", backend->stack - &here);
}

static bool is_full(const struct backend *backend, uint32_t queue, bool below)
{
    unsigned held = 0;
    for (unsigned i = 0; i < backend->in_flight; i++)
        held += backend->requests[i].io->queue == queue && backend->requests[i].below == below;
    return backend->ring && held >= backend->ring;
}

static int take(struct backend *backend, struct ploop_io *io, bool below)
{
    check_stack(backend);
    backend_cache_moves(backend);
    if (backend_strikes(backend, FAULT_EAGAIN))
        return -EAGAIN;
    if (io->op != PLOOP_IO_SYNC && backend_strikes(backend, FAULT_EIO_SUBMIT)) {
        backend->errors++;
        return -EIO;
    }
    backend_check(backend, io, below);
    if (backend->reaping[io->queue])
        violation("contract", "submit on queue %" PRIu32 " inside its reap", io->queue);
    if (backend->in_flight == BACKEND_REQUESTS)
        return -EAGAIN;
    if (is_full(backend, io->queue, below)) {
        backend_fault(backend, FAULT_FULL);
        return -EAGAIN;
    }
    struct request *request = &backend->requests[backend->in_flight++];
    memset(request, 0, sizeof(*request));
    request->io = io;
    request->below = below;
    request->order = backend->now;
    request->submitted = backend->now;
    request->kicked = !backend->needs_kick;
    request->sum = io->op == PLOOP_IO_WRITE ? backend_sum(io) : 0;
    trace("  [%" PRIu64 "] %s %" PRIu64 "+%" PRIu64 "%s%s taken on queue %" PRIu32, backend->now,
          backend_op_name(io->op), io->offset, io->length, io->flags & PLOOP_IO_FUA ? " FUA" : "",
          below ? " below" : "", io->queue);
    backend_happened(backend);
    if (backend->inline_permille && rng_permille(backend->rng, backend->inline_permille)) {
        backend_fault(backend, FAULT_INLINE);
        backend_execute(backend, request);
        backend_complete(backend, request);
    }
    return 0;
}

static int sim_submit(void *context, struct ploop_io *io)
{
    return take(context, io, false);
}

static int base_submit(void *context, struct ploop_io *io)
{
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

static int attach(void *context, uint32_t queue_count)
{
    ((struct backend *)context)->queue_count = queue_count;
    return 0;
}

static void kick(struct backend *backend, uint32_t queue, bool below)
{
    for (unsigned i = 0; i < backend->in_flight; i++) {
        struct request *request = &backend->requests[i];
        if (request->io->queue == queue && request->below == below)
            request->kicked = true;
    }
}

static void sim_kick(void *context, uint32_t queue)
{
    kick(context, queue, false);
}

static void base_kick(void *context, uint32_t queue)
{
    kick(context, queue, true);
}

static struct request *find_ready(struct backend *backend, uint32_t queue, bool below)
{
    for (unsigned i = 0; i < backend->in_flight; i++) {
        struct request *request = &backend->requests[i];
        if (request->ready && request->io->queue == queue && request->below == below)
            return request;
    }
    return NULL;
}

/*
 * A ring returns requests that are ready. Without rings a completion may come here as well as
 * elsewhere.
 */
static int reap(struct backend *backend, uint32_t queue, bool below)
{
    int done = 0;
    uint64_t rung;
    if (queue >= backend->queue_count)
        violation("contract", "reap of queue %" PRIu32 " of %" PRIu32, queue, backend->queue_count);
    if (backend->reaping[queue])
        violation("contract", "reap of queue %" PRIu32 " inside its reap", queue);
    if (!backend->by_reap) {
        while (rng_permille(backend->rng, 300) && backend_step(backend))
            done++;
        return done;
    }
    ssize_t got = read(backend->poll_fds[below][queue], &rung,
                       sizeof(rung)); /* before looking: a later one rings again */
    (void)got;
    backend->reaping[queue] = true;
    for (struct request *request; (request = find_ready(backend, queue, below)) != NULL; done++)
        backend_complete(backend, request);
    backend->reaping[queue] = false;
    return done;
}

static int sim_reap(void *context, uint32_t queue)
{
    return reap(context, queue, false);
}

static int base_reap(void *context, uint32_t queue)
{
    return reap(context, queue, true);
}

static int poll_fd(struct backend *backend, uint32_t queue, bool below)
{
    int *fd = &backend->poll_fds[below][queue];
    if (*fd < 0)
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*fd < 0)
        give_up("no eventfd");
    return *fd;
}

static int sim_poll_fd(void *context, uint32_t queue)
{
    return poll_fd(context, queue, false);
}

static int base_poll_fd(void *context, uint32_t queue)
{
    return poll_fd(context, queue, true);
}

void backend_ring(struct backend *backend, const struct request *request)
{
    uint64_t one = 1;
    int fd = backend->poll_fds[request->below][request->io->queue];
    if (fd >= 0 && write(fd, &one, sizeof(one)) != sizeof(one))
        give_up("an eventfd takes nothing");
}

void backend_close(struct backend *backend)
{
    for (unsigned below = 0; below < 2; below++) {
        for (unsigned queue = 0; queue < BACKEND_RINGS; queue++) {
            int *fd = &backend->poll_fds[below][queue];
            if (*fd >= 0)
                close(*fd);
            *fd = -1;
        }
    }
}

static int sim_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct backend *backend = context;
    (void)queue;
    (void)timeout_ns;
    bool moved = backend_step(backend);
    for (struct backend *peer = backend->peer; !moved && peer && peer != backend; peer = peer->peer)
        moved = backend_step(peer);
    if (moved)
        return 0;
    if (++backend->idle_waits > IDLE_WAITS_MAX)
        violation("R15",
                  "a blocking call waits although nothing can happen: %u requests at the backend, "
                  "%u of them not kicked",
                  backend->in_flight, backend_unkicked(backend));
    return 0;
}

static void sim_cancel(void *context)
{
    struct backend *backend = context;
    while (backend->in_flight) {
        struct request *request = &backend->requests[0];
        if (!request->executed && rng_permille(backend->rng, 500))
            backend_execute(backend, request);
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
    if (backend->writable)
        backend->session_marked = backend->session_synced = false;
    return 0;
}

static int sim_invalidate(void *context)
{
    struct backend *backend = context;
    bool first = backend->drops++ == 0;
    if (backend->in_flight || !backend->synced)
        violation("R11", "the cache is dropped %s",
                  backend->in_flight ? "with a request in flight" : "without a SYNC before");
    if (backend_nth_fails(backend) && backend->fail_error && !backend_again(backend->fail_error)) {
        backend->errors++;
        return backend->fail_error;
    }
    if (rng_permille(backend->rng, backend->chance[FAULT_BUSY])) {
        backend_fault(backend, FAULT_BUSY);
        backend->busy |= first;
        return -EBUSY;
    }
    disk_invalidate(backend->disk, backend->rng);
    trace("  [%" PRIu64 "] the cache is dropped", backend->now);
    if (backend->invalidated)
        backend->invalidated(backend->context);
    backend_happened(backend);
    return 0;
}

/* A disk does not know its holes: all of a file takes space. */
static int sim_data_extent(void *context, uint64_t offset, uint64_t *data_offset,
                           uint64_t *data_length)
{
    (void)context;
    *data_offset = offset;
    *data_length = INT64_MAX - offset;
    return 0;
}

void backend_base_ops(const struct backend *backend, struct ploop_io_ops *ops)
{
    memset(ops, 0, sizeof(*ops));
    ops->size = sizeof(*ops);
    ops->get_info = base_get_info;
    ops->submit = base_submit;
    ops->attach = attach;
    ops->wait = sim_wait;
    ops->reap = base_reap;
    ops->kick = backend->needs_kick ? base_kick : NULL;
    ops->poll_fd = base_poll_fd;
}

void backend_ops(struct backend *backend, struct ploop_io_ops *ops)
{
    memset(ops, 0, sizeof(*ops));
    ops->size = sizeof(*ops);
    ops->get_info = sim_get_info;
    ops->submit = sim_submit;
    ops->attach = attach;
    ops->wait = sim_wait;
    ops->reap = sim_reap;
    ops->kick = backend->needs_kick ? sim_kick : NULL;
    ops->poll_fd = sim_poll_fd;
    ops->cancel = sim_cancel;
    ops->reopen = sim_reopen;
    ops->invalidate = backend->keeps_cache ? NULL : sim_invalidate;
    ops->data_extent = sim_data_extent;
    backend->writable = true;
}
