/* SPDX-License-Identifier: MIT */
/* See backend.h. Requests complete before submit returns. */
#include "backend.h"

#include <errno.h>
#include <string.h>

#include "input.h"
#include "must.h"

struct pending {
    struct pending *next;
    uint32_t op;
    bool durable; /* a write with FUA */
    uint64_t offset, length;
    uint8_t bytes[]; /* of a write */
};

static int get_info(void *context, struct ploop_file_info *info)
{
    const struct backend *backend = context;

    info->file_size = backend->state.size;
    info->capabilities = backend->capabilities;
    info->request_alignment = 1;
    return 0;
}

static int64_t read_into(const struct backend *backend, const struct ploop_io *io)
{
    uint64_t done = 0;

    for (uint32_t i = 0; i < io->iov_count; i++) {
        done += sparse_read(&backend->state, io->iov[i].iov_base, io->iov[i].iov_len,
                            io->offset + done);
    }
    return (int64_t)done;
}

static int64_t write_from(struct backend *backend, const struct ploop_io *io)
{
    uint64_t done = 0;

    for (uint32_t i = 0; i < io->iov_count; i++) {
        if (!sparse_write(&backend->state, io->iov[i].iov_base, io->iov[i].iov_len,
                          io->offset + done)) {
            return -ENOSPC;
        }
        done += io->iov[i].iov_len;
    }
    return (int64_t)done;
}

/* False: no room. */
static bool apply(struct sparse *file, uint32_t op, const void *bytes, uint64_t length,
                  uint64_t offset)
{
    switch (op) {
    case PLOOP_IO_WRITE:
        return sparse_write(file, bytes, length, offset);
    case PLOOP_IO_ALLOCATE:
        sparse_resize(file, offset + length > file->size ? offset + length : file->size);
        return true;
    case PLOOP_IO_PUNCH:
        sparse_zero(file, offset, offset + length);
        return true;
    case PLOOP_IO_TRUNCATE:
        sparse_resize(file, offset);
        return true;
    default:
        MUST(op == PLOOP_IO_SYNC, "op %u", op);
        return true;
    }
}

static bool is_cut(const struct backend *backend)
{
    return backend->break_at && backend->mode >= BREAK_DROP;
}

static void remember(struct backend *backend, const struct ploop_io *io)
{
    bool write = io->op == PLOOP_IO_WRITE;
    struct pending *pending = calloc(1, sizeof(*pending) + (write ? io->length : 0));
    uint64_t at = 0;

    MUST(pending, "no memory");
    pending->op = io->op;
    pending->durable = io->flags & PLOOP_IO_FUA;
    pending->offset = io->offset;
    pending->length = io->length;
    for (uint32_t i = 0; i < io->iov_count && write; at += io->iov[i++].iov_len) {
        memcpy(pending->bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
    }
    *(backend->last ? &backend->last->next : &backend->first) = pending;
    backend->last = pending;
}

/* Which part of a change that no SYNC covered is durable. */
static uint64_t picked(struct backend *backend, const struct pending *pending, bool all)
{
    if (all || pending->durable) {
        return pending->length;
    }
    if (backend->mode == BREAK_DROP || rng_permille(&backend->rng, 500)) {
        return UINT64_MAX;
    }
    if (pending->op == PLOOP_IO_WRITE && rng_permille(&backend->rng, 250)) {
        return rng_below(&backend->rng, pending->length / 512 + 1) * 512;
    }
    return pending->length;
}

/* Apply changes to `durable`; with `all`, every change since the last SYNC. */
static void make_durable(struct backend *backend, bool all)
{
    for (struct pending *pending = backend->first, *next; pending; pending = next) {
        uint64_t length = picked(backend, pending, all);

        next = pending->next;
        backend->durable.unlimited = true;
        if (length != UINT64_MAX) {
            apply(&backend->durable, pending->op, pending->bytes, length, pending->offset);
        }
        free(pending);
    }
    backend->first = backend->last = NULL;
}

static bool breaks(const struct backend *backend)
{
    return backend->break_at &&
           (backend->mode == BREAK_ONCE ? backend->changes == backend->break_at
                                        : backend->changes >= backend->break_at);
}

static int64_t change(struct backend *backend, const struct ploop_io *io)
{
    struct sparse *state = &backend->state;
    uint64_t end = io->offset + io->length;
    int64_t result = 0;

    MUST(!backend->read_only, "a change of a file that was only to be read: op %u at %llu", io->op,
         (unsigned long long)io->offset);
    backend->changes++;
    backend->edits += io->op != PLOOP_IO_SYNC;
    if (breaks(backend)) {
        backend->broken = true;
        return -EIO;
    }
    MUST(io->op != PLOOP_IO_WRITE || end <= state->size,
         "a write past the end of the file: %llu bytes at %llu", (unsigned long long)io->length,
         (unsigned long long)io->offset);
    MUST(io->op != PLOOP_IO_TRUNCATE || io->offset <= state->size ||
             backend->capabilities & PLOOP_FILE_CAN_GROW,
         "a file that cannot grow is to grow");
    if (io->op == PLOOP_IO_WRITE) {
        result = write_from(backend, io);
    } else {
        apply(state, io->op, NULL, io->length, io->offset);
    }
    if (is_cut(backend) && io->op == PLOOP_IO_SYNC) {
        make_durable(backend, true);
    } else if (is_cut(backend) && result >= 0) {
        remember(backend, io);
    }
    return result;
}

static int submit(void *context, struct ploop_io *io)
{
    struct backend *backend = context;

    MUST(io->offset <= INT64_MAX && io->length <= INT64_MAX - io->offset,
         "a request beyond 2^63: op %u at %llu", io->op, (unsigned long long)io->offset);
    ploop_io_complete(io, io->op == PLOOP_IO_READ ? read_into(backend, io) : change(backend, io));
    return 0;
}

static int data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    const struct sparse *state = &((struct backend *)context)->state;
    uint64_t first = sparse_next(state, offset, state->size);
    uint64_t end = first - first % SPARSE_PAGE_SIZE + SPARSE_PAGE_SIZE;

    end = end < state->size ? end : state->size;
    *data_offset = first;
    *data_length = first < end ? end - first : 0;
    return 0;
}

void backend_open(struct backend *backend, const struct sparse *content)
{
    static const struct ploop_io_ops ops = {
        .size = sizeof(ops), .get_info = get_info, .submit = submit, .data_extent = data_extent};

    *backend = (struct backend){.capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH |
                                                PLOOP_FILE_CAN_ALLOCATE};
    sparse_copy(&backend->state, content);
    MUST(ploop_file_create(&ops, backend, &backend->file) == 0, "no file");
}

void backend_break(struct backend *backend, uint64_t break_at, uint32_t seed, uint32_t options)
{
    backend->changes = backend->edits = 0;
    backend->break_at = break_at;
    backend->rng.state = seed;
    backend->mode = options >> OPTION_BREAK_SHIFT & 3;
    if (is_cut(backend)) {
        sparse_copy(&backend->durable, &backend->state);
    }
}

void backend_mend(struct backend *backend)
{
    if (is_cut(backend)) {
        make_durable(backend, false);
        sparse_free(&backend->state);
        sparse_copy(&backend->state, &backend->durable);
    }
    backend->break_at = 0;
    backend->broken = false;
}

void backend_close(struct backend *backend)
{
    ploop_file_close(backend->file);
    make_durable(backend, true);
    sparse_free(&backend->state);
    sparse_free(&backend->durable);
}
