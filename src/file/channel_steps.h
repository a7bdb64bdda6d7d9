/* SPDX-License-Identifier: MIT */
/*
 * The steps of a request to a file that takes whole blocks only (R17).
 *
 *     DIRECT   whole blocks, in the caller's memory; every order; nearly always the only step
 *     SECTOR   a sector, through the io's own memory: the caller's comes in small pieces
 *     READ     blocks through a buffer, and the request's bytes from there
 *     WRITE    whole blocks through a buffer, because the memory is not aligned for the file
 *     FETCH    a block of which the request has a part is read into a buffer -> STORE
 *     STORE    the part goes over it, and the block is written. The part of a punch is zeros
 *
 *  1. From FETCH to the end of STORE the io has the block's lock (bounce.h). So two requests that
 *     change parts of one block never put back each other's old bytes. Who fills the block does not
 *     ask for its lock: only the owner of all of it can, and keeps its own requests apart (R17).
 *  2. READ takes no lock: what FETCH and STORE put back is what was there.
 *  3. What a block has from the channel's file_end on is not fetched but zeros, so that a file may
 *     end inside a block. STORE makes it longer then.
 *  4. Bytes short of what a step wants are no end: the file has them, or the image is damaged.
 *
 * All of it belongs to the owner of the turn, and sends nothing.
 */
#ifndef FILE_CHANNEL_STEPS_H
#define FILE_CHANNEL_STEPS_H

#include "file/channel.h"

/* True: the next step needs no buffer, and the backend's request is set. */
bool step_directly(struct channel_io *io);

/* The block whose lock the next step needs, or BOUNCE_NO_BLOCK. */
uint64_t step_block(const struct channel_io *io);

/* With the buffer: the backend's request is set. */
void step_into_buffer(struct channel_io *io);

/* FETCH has ended well: STORE. */
void step_merge(struct channel_io *io);

/* Any other step has moved that many bytes of the request at the backend: the io goes on. */
void step_over(struct channel_io *io, uint64_t bytes);

#endif
