/* SPDX-License-Identifier: MIT */
/*
 * A fuzz input: a sparse image, and the requests and options for it. Every string of bytes is a
 * valid input, so that none is wasted:
 *
 *     file_size (8)  options (4)  break_at (4)  records ...
 *     record:  kind (1)  value (1)  length (2)  offset (8)   then, for RECORD_BYTES, `length` bytes
 *
 * Records are applied in their order, each over those before it. After them, with OPTION_SEAL, the
 * extension that the header names gets the right checksum.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sparse.h"

enum record_kind {
    RECORD_BYTES,   /* at `offset` of the file */
    RECORD_FILL,    /* `length` sectors of the byte `value` at `offset` of the file */
    RECORD_REQUEST, /* a guest's request of the kind `value`, of `length` sectors from the sector
                       `offset` on */
    RECORD_KINDS
};

enum {
    OPTION_REPAIR = 7,      /* PLOOP_REPAIR_ ... */
    OPTION_SEAL = 8,        /* the extension's checksum is right */
    OPTION_BREAK_SHIFT = 4, /* two bits: enum break_mode, see backend.h */
    OPTION_NO_GROW = 64,    /* the backend cannot ... */
    OPTION_NO_PUNCH = 128,
    OPTION_FUA = 256,        /* it can */
    OPTION_NO_RECOVER = 512, /* open without PLOOP_DEV_RECOVER */
    OPTION_ABORT = 1024,     /* leave the device as a crash would */
    OPTION_SLOW = 2048,      /* PLOOP_DEV_NO_FAST_PATH */
    OPTION_STACK = 4096,     /* as the base of a stack, below a new image */
    OPTIONS = 8191,

    INPUT_SIZE_MAX = 65536,
    INPUT_RECORDS_MAX = 160,
    INPUT_HEAD_SIZE = 16,
    RECORD_HEAD_SIZE = 12,
    SEALED_SIZE_MAX = 1 << 20 /* of a cluster */
};

struct record {
    enum record_kind kind;
    uint8_t value;
    uint16_t length;
    uint64_t offset;
    uint8_t *bytes; /* of RECORD_BYTES */
};

struct input {
    uint64_t file_size;
    uint32_t options;
    uint32_t break_at; /* 0: nowhere; the high half seeds the picks */
    struct record records[INPUT_RECORDS_MAX];
    uint32_t record_count;
    uint8_t room[INPUT_SIZE_MAX]; /* the records' bytes */
    size_t room_used;
};

void input_decode(struct input *input, const uint8_t *data, size_t size);
/* Encode as many records as fit. Returns the bytes written. */
size_t input_encode(const struct input *input, uint8_t *data, size_t room);

/* The image's bytes, without the seal. */
void input_peek(const struct input *input, uint64_t offset, void *bytes, uint16_t length);
/* Change them: in the record that has them, else in a new one. False: no room. */
bool input_poke(struct input *input, uint64_t offset, const void *bytes, uint16_t length);

bool input_add(struct input *input,
               struct record record); /* its bytes are copied; false: no room */
void input_remove(struct input *input, uint32_t index);

/* The image. */
void input_build(const struct input *input, struct sparse *file);

#endif
