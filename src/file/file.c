/* SPDX-License-Identifier: MIT */
/*
 * Files and the requests to them: the states of a file_io (see the header) and the checks on what a
 * backend says of itself.
 *
 * The word `state` is what makes a completion count once: submit sets it to SENT before the backend
 * sees the request, the first completion exchanges it for IDLE, and a second one finds IDLE. Where
 * a completed request was sent again meanwhile, a second completion cannot be told from the right
 * one: that is as far as it can be known.
 */
#include "file/file.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/sized.h"

static void backend_fault(struct file_io *io, const char *what)
{
    atomic_fetch_add_explicit(&io->file->double_completions, 1, memory_order_relaxed);
#ifndef NDEBUG
    (void)fprintf(stderr, "libploop: a backend %s: op %u, offset %llu, length %llu\n", what,
                  io->pub.op, (unsigned long long)io->pub.offset,
                  (unsigned long long)io->pub.length);
    abort();
#else
    (void)what;
#endif
}

void file_io_init(struct file_io *io, ploop_file *file, file_io_fn *done)
{
    memset(io, 0, sizeof(*io));
    io->pub.size = sizeof(io->pub);
    io->file = file;
    io->done = done;
    atomic_init(&io->state, FILE_IO_IDLE);
}

int file_io_refused(struct file_io *io, int refused)
{
    if (atomic_exchange_explicit(&io->state, FILE_IO_IDLE, memory_order_acquire) != FILE_IO_SENT) {
        backend_fault(io, "completed a request that it refused");
    }
    return refused < 0 ? refused : -EIO;
}

void ploop_io_complete(struct ploop_io *io, int64_t result)
{
    struct file_io *own = (struct file_io *)io;
    if (atomic_exchange_explicit(&own->state, FILE_IO_IDLE, memory_order_acq_rel) != FILE_IO_SENT) {
        backend_fault(own, "completed a request twice");
        return;
    }
    own->done(own, result);
}

/*
 * Tables of an older library's size are as good as this one's; a newer one may use only what is
 * known here.
 */
static int take_ops(struct ploop_io_ops *known, const struct ploop_io_ops *given)
{
    size_t shortest = offsetof(struct ploop_io_ops, submit) + sizeof(given->submit);
    if (!given || given->size < shortest || given->size % sizeof(given->submit)) {
        return -EINVAL;
    }
    if (given->size > SIZED_MAX) {
        return -E2BIG;
    }
    const unsigned char *bytes = (const unsigned char *)given;
    for (size_t i = sizeof(*known); i < given->size; i++) {
        if (bytes[i]) {
            return -E2BIG;
        }
    }
    memset(known, 0, sizeof(*known));
    memcpy(known, given, given->size < sizeof(*known) ? given->size : sizeof(*known));
    known->size = sizeof(*known);
    return known->get_info && known->submit ? 0 : -EINVAL;
}

int ploop_file_create(const struct ploop_io_ops *ops, void *context, ploop_file **file)
{
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    struct ploop_io_ops known;
    int error = take_ops(&known, ops);
    if (error) {
        return error;
    }
    ploop_file *made = calloc(1, sizeof(*made));
    if (!made) {
        return -ENOMEM;
    }
    made->ops = known;
    made->context = context;
    atomic_init(&made->double_completions, 0);
    atomic_init(&made->claims, 0);
    *file = made;
    return 0;
}

void ploop_file_close(ploop_file *file)
{
    if (!file) {
        return;
    }
    if (file->ops.close) {
        file->ops.close(file->context);
    }
    free(file);
}

enum { CLAIMED_ALONE = -1 };

int file_claim(ploop_file *file, enum file_use use)
{
    int32_t claims = atomic_load(&file->claims);
    do {
        if (claims == CLAIMED_ALONE || (claims && use == FILE_ALONE)) {
            return -EBUSY;
        }
    } while (!atomic_compare_exchange_weak(&file->claims, &claims,
                                           use == FILE_ALONE ? CLAIMED_ALONE : claims + 1));
    return 0;
}

void file_give_back(ploop_file *file, enum file_use use)
{
    if (use == FILE_ALONE) {
        assert(atomic_load(&file->claims) == CLAIMED_ALONE);
        atomic_store(&file->claims, 0);
    } else {
        assert(atomic_load(&file->claims) > 0);
        atomic_fetch_sub(&file->claims, 1);
    }
}

int file_change_claim(ploop_file *file, enum file_use to)
{
    int32_t from = to == FILE_ALONE ? 1 : CLAIMED_ALONE;
    return atomic_compare_exchange_strong(&file->claims, &from,
                                          to == FILE_ALONE ? CLAIMED_ALONE : 1)
               ? 0
               : -EBUSY;
}

/* Refuses an impossible answer here, so that no caller has to check it. */
static int check_info(struct ploop_file_info *info)
{
    if (info->request_alignment == 0) {
        info->request_alignment = 1;
    }
    if (info->request_alignment & (info->request_alignment - 1)) {
        return -EINVAL;
    }
    if (info->max_transfer && info->max_transfer < info->request_alignment) {
        return -EINVAL;
    }
    info->max_transfer -= info->max_transfer % info->request_alignment;
    return info->file_size > INT64_MAX ? -EINVAL : 0;
}

int ploop_file_info(ploop_file *file, struct ploop_file_info *info)
{
    if (!file || sized_out_check(info, offsetof(struct ploop_file_info, reserved))) {
        return -EINVAL;
    }
    struct ploop_file_info known = {.size = sizeof(known)};
    int error = file->ops.get_info(file->context, &known);
    if (error == 0) {
        error = check_info(&known);
    }
    if (error == 0) {
        sized_out(info, &known, sizeof(known));
    }
    return error;
}

int file_data_extent(ploop_file *file, uint64_t offset, uint64_t *data_offset,
                     uint64_t *data_length)
{
    *data_offset = *data_length = 0;
    if (!file->ops.data_extent) {
        return -ENOTSUP;
    }
    int error = file->ops.data_extent(file->context, offset, data_offset, data_length);
    if (!error && *data_length &&
        (*data_offset < offset || *data_length > UINT64_MAX - *data_offset)) {
        error = -EINVAL;
    }
    return error;
}
