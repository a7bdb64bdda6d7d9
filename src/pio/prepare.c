/* SPDX-License-Identifier: MIT */
/* Preparing a request: its fields are set, nothing is judged before submit. */
#include "pio/queue.h"

#include <assert.h>

static inline void prepare(ploop_pio *pio, enum pio_op op, uint64_t offset, uint64_t length,
                           uint32_t flags)
{
    assert(op > PIO_NONE && op < PIO_KINDS);
    pio->op = op;
    pio->fast_op = flags ? 0 : kinds[op].fast_op;
    pio->offset = offset;
    pio->length = length;
    pio->flags = flags;
    pio->iov = NULL;
    pio->iov_count = 0;
}

static __attribute__((noinline)) void prepare_pieces(ploop_pio *pio, enum pio_op op,
                                                     uint64_t offset, const struct iovec *iov,
                                                     uint32_t iov_count, uint32_t flags)
{
    prepare(pio, op, offset, iov_length(iov, iov_count), flags);
    pio->iov = iov;
    pio->iov_count = iov_count;
    if (iov_count > CHANNEL_IOV_MAX) {
        pio->fast_op = 0;
    }
}

static inline void prepare_iov(ploop_pio *pio, enum pio_op op, uint64_t offset,
                               const struct iovec *iov, uint32_t iov_count, uint32_t flags)
{
    assert(kinds[op].has_memory);
    if (iov_count != 1) {
        prepare_pieces(pio, op, offset, iov, iov_count, flags);
        return;
    }
    prepare(pio, op, offset, iov->iov_len, flags);
    pio->iov = iov;
    pio->iov_count = 1;
}

void ploop_pio_prep_readv(ploop_pio *pio, uint64_t offset, const struct iovec *iov,
                          uint32_t iov_count)
{
    prepare_iov(pio, PIO_READ, offset, iov, iov_count, 0);
}

void ploop_pio_prep_writev(ploop_pio *pio, uint64_t offset, const struct iovec *iov,
                           uint32_t iov_count, uint32_t flags)
{
    prepare_iov(pio, PIO_WRITE, offset, iov, iov_count, flags);
}

void ploop_pio_prep_write_zeroes(ploop_pio *pio, uint64_t offset, uint64_t length, uint32_t flags)
{
    prepare(pio, PIO_ZEROES, offset, length, flags);
}

void ploop_pio_prep_discard(ploop_pio *pio, uint64_t offset, uint64_t length)
{
    prepare(pio, PIO_DISCARD, offset, length, 0);
}

void ploop_pio_prep_flush(ploop_pio *pio)
{
    prepare(pio, PIO_FLUSH, 0, 0, 0);
}

void ploop_pio_prep_bat_write(ploop_pio *pio, uint32_t first_page, uint32_t count)
{
    prepare(pio, PIO_BAT_WRITE, first_page, count, 0);
}

void ploop_pio_set_callback(ploop_pio *pio, ploop_pio_fn *fn, void *user_data)
{
    pio->callback = fn;
    pio->user_data = user_data;
}
