/* SPDX-License-Identifier: MIT */
/* The steps and their invariants stand in channel_steps.h. */
#include "file/channel_steps.h"

#include <assert.h>
#include <string.h>

static bool is_transfer(const struct channel_io *io)
{
    return io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_block_in_part(const struct channel_io *io)
{
    return io->at % io->channel->block != 0 || io->left < io->channel->block;
}

static void set_request(struct channel_io *io, enum channel_step step, uint32_t op, uint64_t offset,
                        uint64_t length)
{
    struct ploop_io *pub = &io->io.pub;
    io->step = step;
    pub->op = op;
    pub->flags = op == PLOOP_IO_READ ? 0 : io->flags;
    pub->offset = offset;
    pub->length = io->wanted = length;
}

/* ---- without a buffer ---- */

static void through_sector(struct channel_io *io)
{
    set_request(io, STEP_SECTOR, io->op, io->at, SECTOR_SIZE);
    io->window[0] = (struct iovec){io->sector, SECTOR_SIZE};
    io->io.pub.iov = io->window;
    io->io.pub.iov_count = 1;
    if (io->op == PLOOP_IO_WRITE) {
        iov_copy_out(&io->cursor, io->sector, SECTOR_SIZE);
    }
}

/* Whether direct I/O may have it. The memory of files with smaller blocks was looked at before. */
static bool memory_fits(const struct channel_io *io)
{
    uint64_t mask = smaller(io->channel->block, BOUNCE_MEMORY_ALIGN) - 1, bits = 0;
    for (uint32_t i = 0; i < io->io.pub.iov_count; i++) {
        bits |= (uintptr_t)io->io.pub.iov[i].iov_base | io->io.pub.iov[i].iov_len;
    }
    return (bits & mask) == 0;
}

/*
 * As much of what is left as one backend request may carry, in whole blocks. False: the memory of
 * the first block is in too many pieces, or not aligned.
 */
static bool take_window(struct channel_io *io)
{
    struct ploop_io *pub = &io->io.pub;
    uint64_t block = io->channel->block;
    uint64_t length = smaller(io->left - io->left % block, io->channel->max_transfer);
    if (io->cursor.skip == 0 && io->cursor.count <= CHANNEL_IOV_MAX &&
        iov_length(io->cursor.iov, io->cursor.count) == length) {
        pub->iov = io->cursor.iov;
        pub->iov_count = io->cursor.count;
    } else {
        iov_window(&io->cursor, length, io->window, CHANNEL_WINDOW, &length);
        length -= length % block;
        pub->iov_count = iov_window(&io->cursor, length, io->window, CHANNEL_WINDOW, &length);
        pub->iov = io->window;
    }
    if (length == 0 || (block > SECTOR_SIZE && !memory_fits(io))) {
        return false;
    }
    set_request(io, STEP_DIRECT, io->op, io->at, length);
    return true;
}

bool step_directly(struct channel_io *io)
{
    bool has_blocks = io->channel->block > SECTOR_SIZE;
    if (is_transfer(io)) {
        if (has_blocks && is_block_in_part(io)) {
            return false;
        }
        if (take_window(io)) {
            return true;
        }
        if (!has_blocks) {
            through_sector(io);
        }
        return !has_blocks;
    }
    uint64_t length = io->left;
    if (io->op == PLOOP_IO_PUNCH && has_blocks) {
        if (is_block_in_part(io)) {
            return false;
        }
        length -= length % io->channel->block;
    }
    set_request(io, STEP_DIRECT, io->op, io->at, length);
    io->io.pub.iov = NULL;
    io->io.pub.iov_count = 0;
    return true;
}

/* ---- with a buffer ---- */

uint64_t step_block(const struct channel_io *io)
{
    bool changes = io->op != PLOOP_IO_READ && is_block_in_part(io);
    return changes ? io->at / io->channel->block : BOUNCE_NO_BLOCK;
}

static void store(struct channel_io *io)
{
    uint64_t block = io->channel->block, head = io->at % block;
    uint8_t *bytes = io->bounce.had->bytes;
    assert(io->bounce.block == io->at / block && head + io->span <= block);
    if (io->op == PLOOP_IO_WRITE) {
        iov_copy_out(&io->cursor, bytes + head, io->span);
    } else {
        assert(io->op == PLOOP_IO_PUNCH);
        memset(bytes + head, 0, io->span);
    }
    set_request(io, STEP_STORE, PLOOP_IO_WRITE, io->at - head, block);
    if (io->at - head + block > io->channel->file_size) {
        io->channel->file_size = io->at - head + block;
    }
}

/* How much of a block the file has that is somebody's. */
static uint64_t known_bytes(const struct channel *channel, uint64_t start)
{
    uint64_t end = channel->file_end;
    return end > start ? smaller(end - start, channel->block) : 0;
}

static void fetch_or_store(struct channel_io *io, uint64_t start)
{
    uint64_t known = known_bytes(io->channel, start);
    if (known > 0) {
        set_request(io, STEP_FETCH, PLOOP_IO_READ, start, io->channel->block);
        io->wanted = known;
    } else {
        memset(io->bounce.had->bytes, 0, io->channel->block);
        store(io);
    }
}

void step_into_buffer(struct channel_io *io)
{
    uint64_t block = io->channel->block, head = io->at % block;
    uint64_t room = smaller(BOUNCE_SIZE, io->channel->max_transfer);
    uint8_t *bytes = io->bounce.had->bytes;
    room -= room % block;
    if (io->op == PLOOP_IO_READ) {
        io->span = smaller(io->left, room - head);
        uint64_t length = (head + io->span + block - 1) / block * block;
        set_request(io, STEP_READ, PLOOP_IO_READ, io->at - head, length);
        io->wanted = head + io->span;
    } else if (is_block_in_part(io)) {
        io->span = smaller(io->left, block - head);
        fetch_or_store(io, io->at - head);
    } else {
        assert(io->op == PLOOP_IO_WRITE && io->bounce.block == BOUNCE_NO_BLOCK);
        io->span = smaller(io->left - io->left % block, room);
        iov_copy_out(&io->cursor, bytes, io->span);
        set_request(io, STEP_WRITE, PLOOP_IO_WRITE, io->at, io->span);
    }
    io->window[0] = (struct iovec){bytes, (size_t)io->io.pub.length};
    io->io.pub.iov = io->window;
    io->io.pub.iov_count = 1;
}

void step_merge(struct channel_io *io)
{
    uint64_t block = io->channel->block, known = io->wanted;
    assert(io->step == STEP_FETCH && known <= block);
    memset(io->bounce.had->bytes + known, 0, block - known);
    store(io);
}

/* ---- the end of a step ---- */

static void advance(struct channel_io *io, uint64_t bytes)
{
    assert(bytes > 0 && bytes <= io->left);
    io->at += bytes;
    io->left -= bytes;
    if (is_transfer(io)) {
        iov_advance(&io->cursor, bytes);
    }
}

void step_over(struct channel_io *io, uint64_t bytes)
{
    uint64_t head = io->at % io->channel->block;
    switch (io->step) {
    case STEP_SECTOR:
        if (io->op == PLOOP_IO_READ) {
            iov_copy_in(&io->cursor, io->sector, SECTOR_SIZE);
        }
        advance(io, bytes);
        break;
    case STEP_READ:
        iov_copy_in(&io->cursor, io->bounce.had->bytes + head, bytes - head);
        advance(io, bytes - head);
        break;
    case STEP_STORE:
        advance(io, io->span);
        break;
    default:
        assert(io->step != STEP_FETCH);
        if (io->op == PLOOP_IO_TRUNCATE) {
            io->channel->file_end = io->channel->file_size = io->at;
        }
        if (io->left > 0) {
            advance(io, bytes);
        }
        break;
    }
}
