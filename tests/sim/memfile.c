/* SPDX-License-Identifier: MIT */
/* See memfile.h. */
#include "memfile.h"

#include <errno.h>
#include <string.h>

#include "report.h"

static int get_info(void *context, struct ploop_file_info *info)
{
    const struct memfile *memfile = context;
    info->file_size = memfile->state.size;
    info->capabilities = PLOOP_FILE_CAN_GROW | PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE;
    info->request_alignment = 1;
    return 0;
}

static int64_t transfer(struct memfile *memfile, struct ploop_io *io)
{
    struct disk_state *state = &memfile->state;
    uint64_t at = io->offset;
    int64_t total = 0;
    for (uint32_t i = 0; i < io->iov_count; i++) {
        uint64_t length = io->iov[i].iov_len;
        if (io->op == PLOOP_IO_WRITE) {
            if (at + length > state->size)
                violation("contract", "a write past the end of the file: %llu+%llu",
                          (unsigned long long)at, (unsigned long long)length);
            memcpy(state->bytes + at, io->iov[i].iov_base, length);
        } else {
            length = at >= state->size ? 0 : length < state->size - at ? length : state->size - at;
            memcpy(io->iov[i].iov_base, state->bytes + at, length);
        }
        at += length;
        total += (int64_t)length;
    }
    return total;
}

static int submit(void *context, struct ploop_io *io)
{
    struct memfile *memfile = context;
    int64_t result = 0;
    struct disk_op op = {.seq = memfile->next_seq++, .offset = io->offset, .length = io->length};
    memfile->changes += io->op != PLOOP_IO_READ && io->op != PLOOP_IO_SYNC;
    switch (io->op) {
    case PLOOP_IO_READ:
    case PLOOP_IO_WRITE:
        result = transfer(memfile, io);
        break;
    case PLOOP_IO_SYNC:
        break;
    default:
        op.kind = io->op == PLOOP_IO_PUNCH      ? DISK_PUNCH
                  : io->op == PLOOP_IO_ALLOCATE ? DISK_ALLOCATE
                                                : DISK_RESIZE;
        disk_state_apply(&memfile->state, &op, NULL, NULL);
    }
    ploop_io_complete(io, result);
    return 0;
}

static int wait_for(void *context, uint32_t queue, uint64_t timeout_ns)
{
    (void)context;
    (void)queue;
    (void)timeout_ns;
    return 0;
}

/* The machine has just come back: nothing is cached. */
static int invalidate(void *context)
{
    (void)context;
    return 0;
}

/* A disk does not know its holes: all of a file takes space. */
static int data_extent(void *context, uint64_t offset, uint64_t *data_offset, uint64_t *data_length)
{
    const struct memfile *memfile = context;
    *data_offset = offset;
    *data_length = offset < memfile->state.size ? memfile->state.size - offset : 0;
    return 0;
}

static void make_file(struct memfile *memfile)
{
    struct ploop_io_ops ops = {.size = sizeof(ops),
                               .get_info = get_info,
                               .submit = submit,
                               .wait = wait_for,
                               .invalidate = invalidate,
                               .data_extent = data_extent};
    memfile->next_seq = UINT64_MAX / 2;
    memfile->changes = 0;
    if (ploop_file_create(&ops, memfile, &memfile->file))
        give_up("ploop_file_create failed");
}

void memfile_open(struct memfile *memfile, const struct disk_state *state)
{
    disk_state_copy(&memfile->state, state);
    make_file(memfile);
}

void memfile_open_bytes(struct memfile *memfile, const uint8_t *bytes, uint64_t size)
{
    disk_state_init(&memfile->state, bytes, size);
    make_file(memfile);
}

void memfile_close(struct memfile *memfile)
{
    ploop_file_close(memfile->file);
    disk_state_free(&memfile->state);
}
