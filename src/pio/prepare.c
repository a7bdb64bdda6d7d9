/* SPDX-License-Identifier: MIT */
/* Preparing a request: its fields are set, nothing is judged before submit. */
#include "pio/queue.h"

#include <assert.h>

static void prepare(ploop_pio *pio, enum pio_op op, uint64_t offset, uint64_t length,
                    uint32_t flags)
{
    assert(op > PIO_NONE && op < PIO_KINDS);
    pio->op = op;
    pio->offset = offset;
    pio->length = length;
    pio->flags = flags;
    pio->iov = NULL;
    pio->iov_count = 0;
}

static void prepare_iov(ploop_pio *pio, enum pio_op op, uint64_t offset, const struct iovec *iov,
                        uint32_t iov_count, uint32_t flags)
{
    uint64_t length = iov_count == 1 ? iov->iov_len : iov_length(iov, iov_count);
    prepare(pio, op, offset, length, flags);
    assert(kinds[op].has_memory);
    pio->iov = iov;
    pio->iov_count = iov_count;
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
